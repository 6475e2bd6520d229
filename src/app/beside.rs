//! What works beside the listeners and the relay, on the caller's runtime: exchanged while the service runs, started again
//! when it ends by itself, and ended before the ledger's writer.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use crate::{ledger::Ledger, telemetry::metrics::Metrics};

/// Makes the work's future, which goes on until it is dropped. It waits and does not block: it shares a thread.
pub type StartBeside = Arc<dyn Fn(BesideSeat) -> BoxFuture<'static, ()> + Send + Sync>;

/// What the work has at hand.
#[derive(Clone)]
pub struct BesideSeat {
    /// The ledger, which outlives the work.
    pub ledger: Arc<dyn Ledger>,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
}

/// After a panic, before the next attempt: what made it panic is most likely still there.
const RESTART_AFTER: Duration = Duration::from_secs(10);

#[derive(Clone)]
enum Wanted {
    Nothing,
    Work(StartBeside),
    /// For good.
    End,
}

/// Which work is wanted. Shared by whoever changes that and the task that heeds it.
#[derive(Clone)]
pub(super) struct Beside(Arc<watch::Sender<Wanted>>);

impl Beside {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::channel(Wanted::Nothing).0))
    }

    /// Has what works dropped, and this started in its place.
    pub(super) fn exchange(&self, start: Option<StartBeside>) {
        self.0.send_if_modified(|wanted| {
            let going_on = !matches!(wanted, Wanted::End);
            if going_on {
                *wanted = start.map_or(Wanted::Nothing, Wanted::Work);
            }
            going_on
        });
    }

    /// Has what works dropped, and nothing started any more.
    pub(super) fn end(&self) {
        self.0.send_replace(Wanted::End);
    }

    /// Keeps what is wanted working; resolves when nothing is wanted any more and nothing works.
    pub(super) async fn keep_working(self, seat: BesideSeat) {
        let mut wanted = self.0.subscribe();
        loop {
            let start = match &*wanted.borrow_and_update() {
                Wanted::End => return,
                Wanted::Nothing => None,
                Wanted::Work(start) => Some(start.clone()),
            };
            // A task of its own, so that a panic ends the work and nothing else.
            let mut tasks = JoinSet::new();
            if let Some(start) = start {
                tasks.spawn(start(seat.clone()));
            }
            tokio::select! {
                Some(ended) = tasks.join_next() => {
                    let cause = ended.err().map_or_else(|| "it returned".to_owned(), |error| error.to_string());
                    tracing::error!(cause, restart_after = ?RESTART_AFTER, "the work beside the relay ended by itself");
                    tokio::select! {
                        () = sleep(RESTART_AFTER) => {}
                        changed = wanted.changed() => changed.expect("this holds the sender"),
                    }
                }
                changed = wanted.changed() => changed.expect("this holds the sender"),
            }
            tasks.shutdown().await;
        }
    }
}
