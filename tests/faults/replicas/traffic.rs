//! Approvers who tap all the time, and tap again when they are refused.

use crate::oracle::{Decision, Oracle};
use crate::support::{client, eventually_within, post};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// So many that those who wait for a replica that says nothing leave enough others.
const SENDERS: usize = 24;
/// After each answer: some 300 callbacks in a second are sent while all is well.
const PAUSE: Duration = Duration::from_millis(75);
/// Each sender has so many tasks of its own, and decides them in turn.
const TASKS_EACH: usize = 4;
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
    stop: Arc<AtomicBool>,
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
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let (book, stop) = (Arc::<Mutex<Book>>::default(), Arc::new(AtomicBool::new(false)));
        let mut senders = JoinSet::new();
        let client = client();
        for _ in 0..SENDERS {
            let me = NEXT.fetch_add(1, Ordering::Relaxed);
            let sender = Sender {
                oracle: oracle.clone(),
                client: client.clone(),
                url: url.to_owned(),
                book: Arc::clone(&book),
            };
            let stop = Arc::clone(&stop);
            senders.spawn(async move {
                for number in 0.. {
                    let decision = Decision::new(&format!("traffic-{me}-{}", number % TASKS_EACH), number);
                    // The next decision of a task only when it is known that this one counts: so its order is known.
                    while !sender.send(&decision, true).await {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                    if number % REPEATED == 0 {
                        sender.send(&decision, false).await;
                    }
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    tokio::time::sleep(PAUSE).await;
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
        self.stop.store(true, Ordering::Relaxed);
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
}

impl Sender {
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
