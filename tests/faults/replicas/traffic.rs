//! Approvers who tap all the time, and tap again when they are refused.

use crate::oracle::{Decision, Oracle};
use crate::support::{client, eventually_within, post};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// So many approvers decide one task after the other. With the pause that makes some 100 callbacks in a second, also while many
/// of them wait for a replica that says nothing: real approvers do not wait for each other. With 200 in a second, a debug build
/// and all servers keep one core busy; beside another test, on two cores, some answers took longer than the balancer waits.
const SENDERS: usize = 250;
/// After each answer.
const PAUSE: Duration = Duration::from_millis(2500);
/// Every so many-th decision that was kept is sent again, and has to be known.
const REPEATED: usize = 10;

#[derive(Default)]
struct Book {
    answered: Vec<Instant>,
    slowest: Duration,
    unanswered: usize,
}

/// Senders that go on until [`Traffic::end`].
pub(super) struct Traffic {
    book: Arc<Mutex<Book>>,
    stop: watch::Sender<bool>,
    senders: JoinSet<()>,
}

/// How it went, as the senders saw it.
pub(super) struct Pace {
    /// The longest time between two answers of 200.
    pub(super) gap: Duration,
    /// From a callback to its answer, whatever that was.
    pub(super) slowest: Duration,
    /// Callbacks whose connection broke.
    pub(super) unanswered: usize,
}

impl Traffic {
    /// Begins to send to this URL, and tells the oracle.
    pub(super) fn begin(oracle: &Oracle, url: &str) -> Self {
        let (book, stop) = (Arc::<Mutex<Book>>::default(), watch::Sender::new(false));
        let mut senders = JoinSet::new();
        let client = client();
        for me in 0..SENDERS {
            let mut sender = Sender {
                oracle: oracle.clone(),
                client: client.clone(),
                url: url.to_owned(),
                book: Arc::clone(&book),
                stop: stop.subscribe(),
            };
            let share = u32::try_from(me).expect("few") * PAUSE / u32::try_from(SENDERS).expect("few");
            senders.spawn(async move {
                let mut number = 0;
                let mut goes_on = sender.pause(share).await;
                while goes_on {
                    goes_on = sender.decide(me, number).await;
                    number += 1;
                }
            });
        }
        Self { book, stop, senders }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many answers of 200 came so far.
    pub(super) fn answered(&self) -> usize {
        self.book().answered.len()
    }

    /// Waits until so many more were answered 200; tells how long that took.
    pub(super) async fn until_answered(&self, more: usize, within: Duration) -> Duration {
        let (began, wanted) = (Instant::now(), self.answered() + more);
        eventually_within(within, &format!("{more} more answers of 200"), async || match self.answered() {
            answered if answered >= wanted => Ok(()),
            answered => Err(answered),
        })
        .await;
        began.elapsed()
    }

    /// Stops sending, and waits for the answers that are under way.
    pub(super) async fn end(self) -> Pace {
        self.stop.send_replace(true);
        self.senders.join_all().await;
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let gap = book.answered.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        Pace { gap, slowest: book.slowest, unanswered: book.unanswered }
    }
}

struct Sender {
    oracle: Oracle,
    client: reqwest::Client,
    url: String,
    book: Arc<Mutex<Book>>,
    stop: watch::Receiver<bool>,
}

impl Sender {
    /// Makes a decision on this sender's own task, again and again until it is known to count: so the order of the task is known.
    /// False if it is to stop.
    async fn decide(&mut self, me: usize, number: usize) -> bool {
        let decision = Decision::new(&format!("traffic-{me}"), number);
        while !self.send(&decision, true).await {
            if !self.pause(PAUSE).await {
                return false;
            }
        }
        if (me + number).is_multiple_of(REPEATED) {
            self.send(&decision, false).await;
        }
        self.pause(PAUSE).await
    }

    /// False if it is to stop.
    async fn pause(&mut self, pause: Duration) -> bool {
        tokio::time::timeout(pause, self.stop.wait_for(|stop| *stop)).await.is_err()
    }

    /// Sends a decision and tells the oracle; true if it was answered 200.
    async fn send(&self, decision: &Decision, in_turn: bool) -> bool {
        let sent = Instant::now();
        let answer = post(&self.client, &self.url, decision.body()).await.ok();
        let now = Instant::now();
        let kept = answer.as_ref().is_some_and(|answer| answer.status == 200);
        {
            let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
            book.slowest = book.slowest.max(now - sent);
            book.unanswered += usize::from(answer.is_none());
            if kept {
                book.answered.push(now);
            }
        }
        self.oracle.note(decision.clone(), answer.as_ref(), in_turn && kept);
        kept
    }
}
