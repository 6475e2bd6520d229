//! The relay's thread: a runtime of its own, started again if the relay panics or is to work otherwise, and joined at
//! the end.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
}

/// After a panic, before the next attempt: what made it panic is most likely still there.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// A relay that is exchanged waits so long for the confirms of what it has published. They take milliseconds; and a broker
/// that has been silent for longer may well be the reason for the exchange. What is not confirmed the next relay
/// publishes again, with the same `message_id`.
const EXCHANGE_GRACE: Duration = Duration::from_secs(3);

/// Which relay is wanted. Shared by whoever changes that and the thread that has to heed it.
#[derive(Clone)]
pub(super) struct Orders(Arc<Mutex<Wanted>>);

struct Wanted {
    /// `None` when no relay is wanted any more.
    start: Option<StartRelay>,
    /// Counts the exchanges.
    generation: u64,
    /// For the relay that runs now.
    stop: watch::Sender<Option<Instant>>,
}

impl Orders {
    pub(super) fn new(start: StartRelay) -> Self {
        let stop = watch::channel(None).0;
        Self(Arc::new(Mutex::new(Wanted { start: Some(start), generation: 0, stop })))
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the relay settle, close and end, and another take its place: one works at a time. Returns at once. Does
    /// nothing once the relay was told to stop for good.
    pub(super) fn exchange(&self, start: StartRelay) {
        let mut wanted = self.wanted();
        if wanted.start.is_none() {
            return;
        }
        wanted.start = Some(start);
        wanted.generation += 1;
        let deadline = Instant::now() + EXCHANGE_GRACE;
        wanted.stop.send_if_modified(|stop| stop.is_none() && stop.replace(deadline).is_none());
    }

    /// No relay is wanted after `deadline`, whatever was ordered before.
    fn end(&self, deadline: Instant) {
        let mut wanted = self.wanted();
        wanted.start = None;
        wanted.stop.send_replace(Some(deadline));
    }

    /// The relay that is wanted now, and how it is told to stop. `None` if none is.
    fn next(&self) -> Option<Order> {
        let mut wanted = self.wanted();
        let start = wanted.start.clone()?;
        let (sender, stop) = watch::channel(None);
        wanted.stop = sender;
        Some(Order { start, generation: wanted.generation, stop })
    }

    /// Whether the relay of this generation was told to end.
    fn recalled(&self, generation: u64) -> bool {
        let wanted = self.wanted();
        wanted.start.is_none() || wanted.generation != generation
    }

    fn is_over(&self) -> bool {
        self.wanted().start.is_none()
    }
}

struct Order {
    start: StartRelay,
    generation: u64,
    stop: watch::Receiver<Option<Instant>>,
}

/// The running relay.
pub(super) struct RelayThread {
    orders: Orders,
    ended: oneshot::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl RelayThread {
    /// # Errors
    /// The system gives no thread or no runtime.
    pub(super) fn start(orders: Orders, ledger: Arc<dyn Ledger>, metrics: Arc<Metrics>) -> io::Result<Self> {
        let runtime = new_runtime()?;
        let (ending, ended) = oneshot::channel();
        let heeded = orders.clone();
        let thread = Builder::new().name("relay".to_owned()).spawn(move || {
            keep_running(runtime, &heeded, &ledger, &metrics);
            // Nobody listens if the grace ran out.
            drop(ending);
        })?;
        Ok(Self { orders, ended, thread: Some(thread) })
    }

    pub(super) fn ask_to_stop(&self, deadline: Instant) {
        self.orders.end(deadline);
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
        if !self.orders.is_over() {
            self.orders.end(Instant::now());
        }
    }
}

fn new_runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// The accept path must go on whatever happens to the relay, and a relay that stays down is a silent outage. So it is
/// started again: it finds its place by the ledger's cursor.
fn keep_running(mut runtime: Runtime, orders: &Orders, ledger: &Arc<dyn Ledger>, metrics: &Arc<Metrics>) {
    while let Some(Order { start, generation, stop }) = orders.next() {
        let seat = RelaySeat { ledger: ledger.clone(), metrics: metrics.clone(), stop: stop.clone() };
        let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(start(seat))));
        // What a connection still does belongs to the relay that is gone.
        runtime.shutdown_background();
        metrics.set_connected(false);
        metrics.set_blocked(false);
        let recalled = orders.recalled(generation);
        if !recalled {
            let cause = match &ended {
                Ok(()) => "it returned",
                Err(panic) => panic_text(panic.as_ref()),
            };
            tracing::error!(cause, restart_after = ?RESTART_AFTER, "the relay ended by itself");
        }

        runtime = loop {
            match new_runtime() {
                Ok(runtime) => break runtime,
                Err(error) => tracing::error!(%error, "no runtime for the relay"),
            }
            std::thread::sleep(RESTART_AFTER);
            if orders.is_over() {
                return;
            }
        };
        if !recalled {
            let mut stop = stop;
            // Whether the time passed or there is another order: the order says what is next.
            let (Ok(()) | Err(_)) = runtime.block_on(async {
                tokio::time::timeout(RESTART_AFTER, stop.wait_for(Option::is_some)).await.map(drop)
            });
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
