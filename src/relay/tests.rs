//! The loop in virtual time, with an in-memory ledger and a scripted broker.

mod dice;
mod doubles;
mod late;
mod operator;
mod poison;
mod preparing;
mod simulation;
mod stalls;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use super::{BrokerAnswer, Settings, Shutdown, run};
use crate::{
    command::Seq,
    ledger::{State, state::Exceptional},
    telemetry::metrics::Metrics,
};
use dice::Dice;
use doubles::{Handle, World};

fn settings() -> Settings {
    Settings { max_in_flight: 100, max_attempts: 3, ..Settings::default() }
}

fn returned() -> BrokerAnswer {
    BrokerAnswer::Returned("312 NO_ROUTE".to_owned())
}

struct Bench {
    handle: Handle,
    metrics: Arc<Metrics>,
    stop: watch::Sender<Option<Instant>>,
    relay: JoinHandle<Shutdown>,
}

impl std::ops::Deref for Bench {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Bench {
    fn start(handle: &Handle, settings: Settings) -> Self {
        handle.world().max_attempts = settings.max_attempts;
        let metrics = Metrics::new();
        let (stop, told) = watch::channel(None);
        let enrich = handle.world().enrich.clone();
        let relay = tokio::spawn(run(
            Arc::new(handle.clone()),
            handle.clone(),
            settings,
            enrich,
            metrics.clone(),
            told,
        ));
        Self { handle: handle.clone(), metrics, stop, relay }
    }

    fn new() -> Self {
        Self::start(&Handle::new(), settings())
    }

    /// Waits for a state, at most an hour of virtual time.
    async fn until(&self, what: &str, mut state: impl FnMut(&World) -> bool) {
        let began = Instant::now();
        while !state(&self.world()) {
            assert!(!self.relay.is_finished(), "{what}: the relay has ended");
            let waited = began.elapsed();
            assert!(
                waited < Duration::from_secs(3600),
                "{what}: not within an hour; {:?}",
                self.world().published
            );
            // Progressively coarser: virtual time is cheap, a million checks are not.
            sleep(Duration::from_millis(1).max(waited / 100)).await;
        }
    }

    async fn until_cursor(&self, cursor: Seq) {
        self.until(&format!("cursor {cursor}"), |world| world.cursor == cursor).await;
    }

    async fn until_published(&self, count: usize) {
        self.until(&format!("{count} publishes"), |world| world.published.len() == count).await;
    }

    async fn stop_within(self, grace: Duration) -> Shutdown {
        self.stop.send_replace(Some(Instant::now() + grace));
        self.relay.await.unwrap()
    }

    fn counted(&self, result: &str) -> u64 {
        let name = format!("countersign_publishes_total{{result=\"{result}\"}} ");
        let text = self.metrics.render();
        text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
    }
}

/// Long enough for everything that is not timed in seconds.
async fn a_moment() {
    sleep(Duration::from_millis(100)).await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_alone_goes_at_once_and_what_follows_closely_goes_together() {
    let bench = Bench::new();
    a_moment().await;
    let began = Instant::now();
    let accept_at = async |milliseconds: u64| {
        sleep_until(began + Duration::from_millis(milliseconds)).await;
        bench.accept([milliseconds]);
        // Virtual time advances only when nothing else can run.
        sleep(Duration::from_millis(1)).await;
        bench.world().published.len()
    };
    assert_eq!(accept_at(0).await, 1, "alone");
    assert_eq!((accept_at(1).await, accept_at(3).await), (1, 1), "they gather");
    sleep_until(began + Duration::from_millis(6)).await;
    assert_eq!(bench.world().published, [1, 2, 3], "although no other publish was confirmed");
    assert_eq!((accept_at(7).await, accept_at(8).await), (3, 3), "and so do those behind them");
    assert_eq!(accept_at(50).await, 6, "alone again");
}

#[tokio::test(start_paused = true)]
async fn confirms_are_settled_as_one_prefix() {
    let bench = Bench::new();
    a_moment().await;
    bench.accept(0..100);
    bench.until_published(100).await;
    for _ in 0..60 {
        bench.answer(BrokerAnswer::Confirmed);
    }
    bench.until_cursor(60).await;
    bench.confirm_all();
    bench.until_cursor(100).await;
    assert_eq!(bench.world().settlements.len(), 2, "sixty confirms are one settlement, and forty another");
    assert_eq!(bench.world().published, (1..=100).collect::<Vec<_>>());
    assert_eq!(bench.world().reads, 1, "what is fresh is not read from the table");
    assert_eq!(bench.counted("confirmed"), 100);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_window_is_in_flight() {
    let bench = Bench::new();
    bench.accept(0..250);
    bench.until_published(100).await;
    a_moment().await;
    bench.answer(BrokerAnswer::Confirmed);
    bench.until_published(101).await;
    bench.confirm_all();
    bench.until_cursor(250).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_command_becomes_an_exception_with_the_settlement_that_passes_it() {
    for (refusal, reason) in [
        (BrokerAnswer::Nacked, "refused by the broker (basic.nack)"),
        (returned(), "returned by the broker: 312 NO_ROUTE"),
    ] {
        let bench = Bench::new();
        bench.accept([1, 2, 3]);
        bench.until_published(3).await;
        bench.answer(BrokerAnswer::Confirmed);
        bench.answer(refusal);
        bench.answer(BrokerAnswer::Confirmed);
        bench.until_cursor(3).await;
        let exception = bench.world().exceptions[&2].clone();
        assert_eq!(
            (exception.state, exception.attempts, &*exception.reason),
            (Exceptional::Retrying, 1, reason)
        );
        assert_eq!(bench.state(2), State::Pending);
        bench.confirm_all();
        bench.until("the second attempt", |world| world.exceptions.is_empty()).await;
        assert_eq!((bench.state(2), bench.world().published.clone()), (State::Published, vec![1, 2, 3, 2]));
    }
}

#[tokio::test(start_paused = true)]
async fn later_commands_of_the_task_wait_and_all_others_go_on() {
    let bench = Bench::new();
    bench.accept([7]);
    bench.until_published(1).await;
    bench.answer(BrokerAnswer::Nacked);
    bench.until("the exception", |world| world.exceptions.contains_key(&1)).await;
    bench.answer_all(|seq| Some(if seq == 1 { BrokerAnswer::Nacked } else { BrokerAnswer::Confirmed }));
    bench.accept([7, 8, 7, 9, 7]);
    bench.until_cursor(6).await;
    assert_eq!(bench.world().published, [1, 3, 5]);
    let waiting = bench.world().exceptions[&4].clone();
    assert_eq!((waiting.attempts, &*waiting.reason), (0, "waits for an earlier command of its task"));
    bench.until("the second refusal", |world| world.exceptions[&1].attempts == 2).await;
    a_moment().await;
    assert_eq!(bench.world().published, [1, 3, 5, 1]);
    bench.confirm_all();
    bench.until("the first", |world| world.confirmed.contains(&1)).await;
    let before = Instant::now();
    bench.until("all", |world| world.exceptions.is_empty()).await;
    assert!(before.elapsed() < Duration::from_secs(5), "those that wait are due at once");
    assert_eq!(bench.world().published, [1, 3, 5, 1, 1, 2, 4, 6]);
    bench.accept([7]);
    bench.until_cursor(7).await;
    assert_eq!(bench.world().exceptions.len(), 0, "the task is like any other again");
}

#[tokio::test(start_paused = true)]
async fn those_that_wait_go_one_at_a_time() {
    let bench = Bench::new();
    bench.answer_all(|seq| (seq == 1).then_some(BrokerAnswer::Nacked));
    bench.accept([7]);
    bench.until("the exception", |world| world.exceptions.contains_key(&1)).await;
    bench.accept([7, 7]);
    bench.until("exceptions", |world| world.exceptions.len() == 3).await;
    bench.answer_all(|_| None);
    bench.until_published(2).await;
    bench.answer(BrokerAnswer::Confirmed);
    bench.until_published(3).await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(bench.world().published, [1, 1, 2], "3 waits for 2");
    bench.answer(BrokerAnswer::Nacked);
    bench.until_published(4).await;
    bench.answer(BrokerAnswer::Confirmed);
    bench.until_published(5).await;
    assert_eq!(bench.world().published, [1, 1, 2, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn after_max_attempts_a_command_is_parked_and_its_task_goes_on() {
    let bench = Bench::new();
    bench.answer_all(|seq| Some(if seq == 1 { BrokerAnswer::Nacked } else { BrokerAnswer::Confirmed }));
    bench.accept([7]);
    bench.until("the exception", |world| world.exceptions.contains_key(&1)).await;
    bench.accept([7, 7]);
    bench.until("the end", |world| world.confirmed.len() == 2).await;
    bench.until("settled", |world| world.exceptions.len() == 1).await;
    let parked = bench.world().exceptions[&1].clone();
    assert_eq!((parked.state, parked.attempts), (Exceptional::Parked, 3));
    assert_eq!(bench.world().published, [1, 1, 1, 2, 3]);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(bench.world().published.len(), 5, "a parked command is left alone");
    bench.operator(1, Exceptional::Requeued);
    bench.confirm_all();
    let before = Instant::now();
    bench.until("requeued", |world| world.exceptions.is_empty()).await;
    assert!(before.elapsed() < Duration::from_secs(2), "an operator's act is found within about a second");
    assert_eq!(bench.state(1), State::Published);
}

#[tokio::test(start_paused = true)]
async fn a_blocker_that_an_operator_parks_lets_its_task_go_on() {
    let bench = Bench::start(&Handle::new(), Settings { max_attempts: 1000, ..settings() });
    bench.answer_all(|seq| Some(if seq == 1 { BrokerAnswer::Nacked } else { BrokerAnswer::Confirmed }));
    bench.accept([7]);
    bench.until("the exception", |world| world.exceptions.contains_key(&1)).await;
    bench.accept([7, 7]);
    bench.until("tried again", |world| world.published.len() == 4).await;
    a_moment().await;
    bench.operator(1, Exceptional::Parked);
    bench.until("the others", |world| world.confirmed.len() == 2).await;
    bench.until("settled", |world| world.exceptions.len() == 1).await;
    assert_eq!(bench.state(1), State::Parked);
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_in_time_everything_above_the_cursor_is_published_again() {
    let bench = Bench::new();
    bench.accept([1, 2, 3]);
    bench.until_published(3).await;
    let sent_at = Instant::now();
    bench.answer(BrokerAnswer::Confirmed);
    bench.until("another session", |world| world.sessions == 2).await;
    let waited = sent_at.elapsed();
    assert!(waited > Duration::from_secs(29) && waited < Duration::from_secs(33), "{waited:?}");
    bench.until_published(5).await;
    assert_eq!(bench.world().published, [1, 2, 3, 2, 3]);
    assert_eq!((bench.counted("unanswered"), bench.world().closed), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_is_replaced_and_goes_on_above_the_cursor_in_order() {
    let bench = Bench::new();
    bench.accept(0..10);
    bench.until_published(10).await;
    for _ in 0..4 {
        bench.answer(BrokerAnswer::Confirmed);
    }
    sleep(Duration::from_millis(1)).await;
    bench.cut();
    bench.until_published(16).await;
    assert_eq!(bench.world().cursor, 4, "what was confirmed is settled before the next session");
    assert_eq!(bench.world().published[10..], [5, 6, 7, 8, 9, 10]);
    bench.confirm_all();
    bench.until_cursor(10).await;
}

#[tokio::test(start_paused = true)]
async fn an_exception_in_flight_when_the_session_is_lost_is_tried_again() {
    let bench = Bench::new();
    bench.accept([1, 1]);
    bench.until_published(2).await;
    bench.answer(BrokerAnswer::Nacked);
    bench.answer(BrokerAnswer::Confirmed);
    bench.until_published(3).await;
    bench.cut();
    bench.until_published(4).await;
    bench.confirm_all();
    bench.until("cleared", |world| world.exceptions.is_empty()).await;
    assert_eq!(bench.world().published, [1, 2, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_away_is_tried_without_end_at_growing_intervals() {
    let handle = Handle::new();
    handle.world().away = true;
    handle.confirm_all();
    let bench = Bench::start(&handle, settings());
    bench.accept([1]);
    sleep(Duration::from_secs(10)).await;
    let soon = bench.world().connects;
    sleep(Duration::from_secs(3600)).await;
    let connects = bench.world().connects - soon;
    assert!((4..12).contains(&soon) && (120..=240).contains(&connects), "{soon} {connects}");
    bench.world().away = false;
    let before = Instant::now();
    bench.until_cursor(1).await;
    assert!(before.elapsed() <= Duration::from_secs(31));
    // After a confirm the backoff starts over.
    bench.cut();
    let before = Instant::now();
    bench.until("the next session", |world| world.sessions == 2).await;
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn while_the_broker_blocks_nothing_is_published_and_no_deadline_runs() {
    let bench = Bench::new();
    bench.accept([1]);
    bench.until_published(1).await;
    bench.block(true);
    a_moment().await;
    assert!(bench.metrics.render().contains("countersign_amqp_blocked 1"));
    bench.accept([2]);
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(bench.world().sessions, 1);
    assert_eq!(bench.world().published, [1]);
    bench.block(false);
    bench.until_published(2).await;
    assert!(bench.metrics.render().contains("countersign_amqp_blocked 0"));
    let unblocked_at = Instant::now();
    bench.until("the deadline, counted from the end of the block", |world| world.sessions == 2).await;
    assert!(unblocked_at.elapsed() > Duration::from_secs(28), "{:?}", unblocked_at.elapsed());
}

#[tokio::test(start_paused = true)]
async fn gaps_among_the_fresh_are_filled_from_the_table_in_order() {
    let bench = Bench::new();
    bench.confirm_all();
    bench.world().not_fresh.extend([2, 3, 7]);
    for seq in 1..=8 {
        bench.accept([seq]);
        a_moment().await;
    }
    bench.until_cursor(8).await;
    bench.world().not_fresh.extend([12]);
    bench.accept(9..=14);
    bench.until_cursor(14).await;
    assert_eq!(bench.world().published, (1..=14).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn at_the_start_what_lies_above_the_cursor_is_published_page_by_page_without_exceptions() {
    let handle = Handle::new();
    handle.accept((1..=5000).map(|seq| seq % 700));
    handle.world().cursor = 1000;
    handle.operator(1500, Exceptional::Parked);
    handle.operator(5000, Exceptional::Parked);
    handle.confirm_all();
    let bench = Bench::start(&handle, settings());
    bench.until_cursor(5000).await;
    let expected: Vec<_> = (1001..5000).filter(|seq| *seq != 1500).collect();
    assert_eq!(bench.world().published, expected);
    assert_eq!(bench.world().reads, 40, "a hundred at a time");
}

#[tokio::test(start_paused = true)]
async fn exceptions_of_an_earlier_run_hold_their_tasks_back() {
    let handle = Handle::new();
    handle.accept([7, 7, 7, 8]);
    handle.world().cursor = 2;
    handle.operator(1, Exceptional::Requeued);
    handle.operator(2, Exceptional::Retrying);
    let bench = Bench::start(&handle, settings());
    bench.until_published(2).await;
    sleep(Duration::from_secs(10)).await;
    let mut published = bench.world().published.clone();
    published.sort_unstable();
    assert_eq!(published, [1, 4]);
    bench.confirm_all();
    bench.until("all", |world| world.exceptions.is_empty() && world.cursor == 4).await;
    let published = bench.world().published.clone();
    let task: Vec<_> = published.into_iter().filter(|seq| *seq != 4).collect();
    assert_eq!(task, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_fails_is_told_again_and_nothing_is_forgotten() {
    let bench = Bench::new();
    bench.accept([1, 2, 3]);
    bench.until_published(3).await;
    bench.world().ledger_fails = true;
    bench.answer(BrokerAnswer::Confirmed);
    bench.answer(BrokerAnswer::Nacked);
    sleep(Duration::from_secs(20)).await;
    bench.answer(BrokerAnswer::Confirmed);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(bench.world().cursor, 0);
    bench.world().ledger_fails = false;
    bench.until_cursor(3).await;
    assert_eq!(bench.world().exceptions[&2].attempts, 1);
    assert_eq!(bench.world().sessions, 1, "the broker has nothing to do with it");
}

#[tokio::test(start_paused = true)]
async fn too_many_exceptions_hold_new_commands_back() {
    let bench =
        Bench::start(&Handle::new(), Settings { max_exceptions: 50, max_attempts: 1000, ..settings() });
    bench.answer_all(|_| Some(BrokerAnswer::Nacked));
    bench.accept(0..400);
    sleep(Duration::from_secs(300)).await;
    let waiting = bench.world().exceptions.len();
    assert!((50..=150).contains(&waiting), "{waiting}: the window at most is above the bound");
    bench.confirm_all();
    bench.until("all", |world| world.cursor == 400 && world.exceptions.is_empty()).await;
    assert_eq!(bench.world().confirmed.len(), 400);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_what_is_in_flight_is_waited_for_and_settled() {
    let bench = Bench::new();
    bench.accept([1, 2, 3]);
    bench.until_published(3).await;
    bench.answer(BrokerAnswer::Confirmed);
    bench.stop.send_replace(Some(Instant::now() + Duration::from_secs(10)));
    a_moment().await;
    bench.accept([4]);
    a_moment().await;
    assert!(!bench.relay.is_finished());
    bench.answer(BrokerAnswer::Nacked);
    bench.answer(BrokerAnswer::Confirmed);
    let handle = bench.handle.clone();
    let report = bench.stop_within(Duration::from_secs(10)).await;
    assert_eq!(report, Shutdown { confirmed: 2, unanswered: 0, settled: true });
    let world = handle.world();
    assert_eq!((world.cursor, world.closed, &*world.published), (3, 1, &[1, 2, 3][..]));
    assert_eq!(world.exceptions[&2].attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn the_grace_period_ends_the_relay_whatever_it_waits_for() {
    let grace = Duration::from_secs(5);
    // for the broker's answer
    let bench = Bench::new();
    bench.accept([1, 2]);
    bench.until_published(2).await;
    bench.answer(BrokerAnswer::Confirmed);
    let (before, handle) = (Instant::now(), bench.handle.clone());
    let report = bench.stop_within(grace).await;
    assert_eq!(report, Shutdown { confirmed: 1, unanswered: 1, settled: true });
    assert_eq!((before.elapsed(), handle.world().cursor), (grace, 1));
    // for the ledger
    let bench = Bench::new();
    bench.accept([1]);
    bench.until_published(1).await;
    bench.world().ledger_hangs = true;
    bench.confirm_all();
    assert!(!bench.stop_within(grace).await.settled);
    // for a ledger that takes nothing, while the session lasts and after it was lost
    for cut in [false, true] {
        let bench = Bench::new();
        bench.accept([1]);
        bench.until_published(1).await;
        bench.world().ledger_fails = true;
        bench.confirm_all();
        a_moment().await;
        if cut {
            bench.cut();
            sleep(Duration::from_secs(100)).await;
        }
        let before = Instant::now();
        assert!(!bench.stop_within(grace).await.settled);
        assert_eq!(before.elapsed(), grace);
    }
    // for an unreachable broker
    let handle = Handle::new();
    handle.world().away = true;
    let bench = Bench::start(&handle, settings());
    sleep(Duration::from_secs(100)).await;
    let before = Instant::now();
    assert!(bench.stop_within(grace).await.settled);
    assert_eq!(before.elapsed(), Duration::ZERO, "there is nothing to wait for");
}
