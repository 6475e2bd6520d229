//! The relay's thread: a runtime of its own, started again if the relay panics, and joined at the end.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::Duration,
};

use futures_util::future::LocalBoxFuture;
use tokio::{
    runtime::Runtime,
    sync::{oneshot, watch},
    time::Instant,
};

use crate::{ledger::Ledger, telemetry::metrics::Metrics};

/// Makes the relay's future; called again after a panic. The future ends when [`RelaySeat::stop`] says so, after it
/// has settled what was in flight.
pub type StartRelay = Arc<dyn Fn(RelaySeat) -> LocalBoxFuture<'static, ()> + Send + Sync>;

/// What a relay works with.
#[derive(Clone)]
pub struct RelaySeat {
    /// Where commands come from and where it settles them.
    pub ledger: Arc<dyn Ledger>,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
    /// `None` while the relay is wanted, then the moment by which it must have ended. From then on it publishes nothing
    /// more, settles what is in flight, and ends.
    pub stop: watch::Receiver<Option<Instant>>,
    ask: watch::Sender<Option<Instant>>,
}

impl RelaySeat {
    pub(super) fn new(ledger: Arc<dyn Ledger>, metrics: Arc<Metrics>) -> Self {
        let (ask, stop) = watch::channel(None);
        Self { ledger, metrics, stop, ask }
    }
}

/// After a panic, before the next attempt: what made it panic is most likely still there.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// The running relay.
pub(super) struct RelayThread {
    ask: watch::Sender<Option<Instant>>,
    ended: oneshot::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl RelayThread {
    /// # Errors
    /// The system gives no thread or no runtime.
    pub(super) fn start(start: StartRelay, seat: RelaySeat) -> io::Result<Self> {
        let ask = seat.ask.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (ending, ended) = oneshot::channel();
        let thread = Builder::new().name("relay".to_owned()).spawn(move || {
            keep_running(runtime, &start, &seat);
            // Nobody listens if the grace ran out.
            drop(ending);
        })?;
        Ok(Self { ask, ended, thread: Some(thread) })
    }

    pub(super) fn ask_to_stop(&self, deadline: Instant) {
        self.ask.send_replace(Some(deadline));
    }

    /// Resolves when the relay has ended, and joins its thread. Safe to drop; the thread then goes on alone.
    pub(super) async fn stopped(&mut self) {
        // Resolves by the sender's drop, which is the last thing the thread does; also if it panics.
        let (Ok(()) | Err(_)) = (&mut self.ended).await;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the relay's thread panicked outside of the relay");
        }
    }
}

impl Drop for RelayThread {
    fn drop(&mut self) {
        // Stopping asked for it long ago; only an `App` that was dropped while it served did not.
        self.ask.send_if_modified(|stop| stop.is_none() && stop.replace(Instant::now()).is_none());
    }
}

/// The accept path must go on whatever happens to the relay, and a relay that stays down is a silent outage. So it is
/// started again: it finds its place by the ledger's cursor.
fn keep_running(mut runtime: Runtime, start: &StartRelay, seat: &RelaySeat) {
    loop {
        let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(start(seat.clone()))));
        // What a connection still does belongs to the relay that is gone.
        runtime.shutdown_background();
        seat.metrics.set_connected(false);
        seat.metrics.set_blocked(false);
        if seat.stop.borrow().is_some() {
            return;
        }
        let cause = match &ended {
            Ok(()) => "it returned",
            Err(panic) => panic_text(panic.as_ref()),
        };
        tracing::error!(cause, restart_after = ?RESTART_AFTER, "the relay ended by itself");

        runtime = loop {
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => break runtime,
                Err(error) => {
                    tracing::error!(%error, "no runtime for the relay");
                    std::thread::sleep(RESTART_AFTER);
                    if seat.stop.borrow().is_some() {
                        return;
                    }
                }
            }
        };
        let mut stop = seat.stop.clone();
        let asked = runtime.block_on(async {
            tokio::time::timeout(RESTART_AFTER, stop.wait_for(Option::is_some)).await.is_ok()
        });
        if asked {
            return;
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it panicked")
}
