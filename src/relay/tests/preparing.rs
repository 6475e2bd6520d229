//! Commands that are enriched before they are published.

use std::sync::Mutex;

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::timeout_at;

use super::*;
use crate::{
    command::enrichment::{Enrichment, EnrichmentStatus},
    ledger::Entry,
    relay::Enrich,
};

pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Takes a random time, or never finishes.
pub(super) struct Slow {
    dice: Mutex<Dice>,
    longest_ms: Option<u64>,
    /// The commands to enrich, in order.
    pub(super) asked: Mutex<Vec<Seq>>,
}

impl Slow {
    pub(super) fn new(seed: u64, longest_ms: Option<u64>) -> Arc<Self> {
        Arc::new(Self { dice: Mutex::new(Dice(seed)), longest_ms, asked: Mutex::default() })
    }
}

impl Enrich for Slow {
    fn patience(&self, _: &str) -> Option<Duration> {
        Some(PATIENCE)
    }

    fn enrich(&self, entry: &Entry, deadline: Instant) -> BoxFuture<'static, Enrichment> {
        self.asked.lock().unwrap().push(entry.seq);
        let Some(longest_ms) = self.longest_ms else {
            return std::future::pending().boxed();
        };
        let takes = Duration::from_millis(self.dice.lock().unwrap().below(longest_ms + 1));
        async move {
            let in_time = timeout_at(deadline, sleep(takes)).await.is_ok();
            let status = if in_time { EnrichmentStatus::Complete } else { EnrichmentStatus::TimedOut };
            Enrichment::none(status)
        }
        .boxed()
    }
}

fn bench(slow: &Arc<Slow>) -> Bench {
    bench_by(slow, settings())
}

fn bench_by(slow: &Arc<Slow>, settings: Settings) -> Bench {
    let handle = Handle::new();
    handle.world().enrich = Some(slow.clone());
    let bench = Bench::start(&handle, settings);
    bench.confirm_all();
    bench
}

fn enriched(bench: &Bench, status: &str) -> u64 {
    let name = format!("countersign_enrichments_total{{status=\"{status}\"}} ");
    let text = bench.metrics.render();
    text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn who_never_answers_is_waited_for_as_long_as_is_allowed() {
    let slow = Slow::new(1, None);
    let bench = bench(&slow);
    let began = Instant::now();
    bench.accept([1, 1, 2]);
    bench.until_cursor(3).await;
    let took = began.elapsed();
    assert!((PATIENCE..PATIENCE * 3 / 2).contains(&took), "{took:?}: side by side");
    assert_eq!(enriched(&bench, "timed_out"), 3);
    assert_eq!(bench.world().published, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn so_many_are_completed_at_a_time_and_the_rest_goes_at_once() {
    let slow = Slow::new(1, None);
    let bench = bench(&slow);
    let began = Instant::now();
    bench.accept(0..300);
    bench.until_published(236).await;
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    assert_eq!(enriched(&bench, "busy"), 236);
    assert_eq!(bench.world().cursor, 0, "the first of all is not published yet");
    bench.until_cursor(300).await;
    assert_eq!((enriched(&bench, "busy"), enriched(&bench, "timed_out")), (236, 64));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_lost_costs_neither_another_wait_nor_another_question() {
    let slow = Slow::new(1, Some(0));
    let bench = bench(&slow);
    bench.answer_all(|_| None);
    bench.accept([1, 2, 3]);
    bench.until_published(3).await;
    bench.cut();
    bench.confirm_all();
    bench.until_cursor(3).await;
    assert_eq!(bench.world().published, [1, 2, 3, 1, 2, 3]);
    assert_eq!(*slow.asked.lock().unwrap(), [1, 2, 3]);

    // Enrichment under way continues, and so does its time limit.
    let slow = Slow::new(1, None);
    let bench = self::bench(&slow);
    bench.accept([1]);
    sleep(PATIENCE / 2).await;
    bench.cut();
    let began = Instant::now();
    bench.until_cursor(1).await;
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    assert_eq!(*slow.asked.lock().unwrap(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_was_refused_is_completed_when_it_is_tried_again() {
    let slow = Slow::new(1, Some(10));
    let bench = bench(&slow);
    let mut tries = 0;
    bench.answer_all(move |_| {
        tries += 1;
        Some(if tries == 1 { BrokerAnswer::Nacked } else { BrokerAnswer::Confirmed })
    });
    // The broker double checks that each published command is enriched.
    bench.accept([1, 1, 2]);
    bench.until("all", |world| world.confirmed.len() == 3 && world.exceptions.is_empty()).await;
    let published = bench.world().published.clone();
    let again = published.iter().filter(|seq| **seq == published[0]).count();
    assert_eq!((published.len(), again), (4, 2), "{published:?}");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_still_refused_after_a_minute_is_asked_for_again() {
    let slow = Slow::new(1, Some(0));
    let bench = bench_by(&slow, Settings { max_attempts: 1000, ..settings() });
    let began = Instant::now();
    bench.answer_all(move |_| {
        let refused = began.elapsed() < Duration::from_secs(90);
        Some(if refused { BrokerAnswer::Nacked } else { BrokerAnswer::Confirmed })
    });
    bench.accept([1]);
    bench.until("it", |world| world.confirmed.len() == 1).await;
    // At the first try, and at the first try more than a minute later.
    assert_eq!(*slow.asked.lock().unwrap(), [1, 1]);
    let tries = bench.world().published.len();
    assert!(tries > 5, "{tries}");
}
