//! The way back as a task: started if it is wanted, started again if it ends by itself or is to work otherwise, and waited
//! for at the end.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle},
    time::{Instant, timeout},
};

use crate::{ledger::Ledger, telemetry::metrics::Metrics};

/// Makes the future of the way back; called again if it panics. It ends when `stop` says so, by the moment that it says.
pub type StartWayBack =
    Arc<dyn Fn(Arc<dyn Ledger>, Arc<Metrics>, Stop) -> BoxFuture<'static, ()> + Send + Sync>;

/// `None` while the way back is wanted, then the moment by which it must have ended.
pub type Stop = watch::Receiver<Option<Instant>>;

/// After it ended by itself, before the next attempt.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// One that is exchanged gets so long to end.
const EXCHANGE_GRACE: Duration = Duration::from_secs(5);

/// What is wanted. Shared by whoever changes that and the task that has to heed it.
#[derive(Clone)]
pub(super) struct WayBack(Arc<watch::Sender<Wanted>>);

#[derive(Clone, Default)]
struct Wanted {
    start: Option<StartWayBack>,
    /// Set when nothing is wanted any more.
    end: Option<Instant>,
}

impl WayBack {
    /// With `None` there is no way back: no connection, no queue, no task that does anything.
    pub(super) fn new(start: Option<StartWayBack>) -> Self {
        Self(Arc::new(watch::Sender::new(Wanted { start, end: None })))
    }

    /// Has the one that runs end, and another take its place, or none. Returns at once.
    pub(super) fn exchange(&self, start: Option<StartWayBack>) {
        self.0.send_modify(|wanted| wanted.start = start);
    }

    /// Has it end for good by `deadline`.
    pub(super) fn end(&self, deadline: Instant) {
        self.0.send_modify(|wanted| wanted.end = Some(deadline));
    }

    /// Keeps it running as it is wanted, until it is to end for good.
    pub(super) fn start(&self, ledger: Arc<dyn Ledger>, metrics: Arc<Metrics>) -> JoinHandle<()> {
        tokio::spawn(keep_running(self.0.subscribe(), ledger, metrics))
    }
}

async fn keep_running(mut wanted: watch::Receiver<Wanted>, ledger: Arc<dyn Ledger>, metrics: Arc<Metrics>) {
    loop {
        let Wanted { start, end } = wanted.borrow_and_update().clone();
        if end.is_some() {
            return;
        }
        let Some(start) = start else {
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        };
        let (stop, stopping) = watch::channel(None);
        // A task of its own, whose panic is its own.
        let mut task = tokio::spawn(start(ledger.clone(), metrics.clone(), stopping));
        tokio::select! {
            ended = &mut task => {
                tell(&ended);
                // Whether the time passed or something else is wanted: what is wanted says what is next.
                timeout(RESTART_AFTER, wanted.changed()).await.map(drop).unwrap_or_default();
            }
            // An error means that nobody is left who could want anything.
            _ = wanted.changed() => {
                let deadline = wanted.borrow().end.unwrap_or_else(|| Instant::now() + EXCHANGE_GRACE);
                stop.send_replace(Some(deadline));
                if let Err(error) = task.await {
                    tracing::error!(%error, "the way back panicked while it stopped");
                }
                if wanted.has_changed().is_err() {
                    return;
                }
            }
        }
    }
}

fn tell(ended: &Result<(), JoinError>) {
    let cause = match ended {
        Ok(()) => "it returned".to_owned(),
        Err(error) => error.to_string(),
    };
    tracing::error!(cause, restart_after = ?RESTART_AFTER, "the way back ended by itself");
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;

    use super::*;
    use crate::app::tests::double::Double;

    #[derive(Default)]
    struct Counts {
        begun: AtomicUsize,
        ended: AtomicUsize,
    }

    /// One that counts, and ends when it is told to; the first panics.
    fn start(counts: &Arc<Counts>, panics: bool) -> StartWayBack {
        let counts = counts.clone();
        Arc::new(move |_, _, mut stop| {
            let counts = counts.clone();
            async move {
                let begun = counts.begun.fetch_add(1, Ordering::SeqCst);
                assert!(!(panics && begun == 0), "the test says so");
                stop.wait_for(Option::is_some).await.map(drop).unwrap_or_default();
                counts.ended.fetch_add(1, Ordering::SeqCst);
            }
            .boxed()
        })
    }

    async fn until(counts: &Counts, begun: usize, ended: usize) {
        for _ in 0..2000 {
            let seen = (counts.begun.load(Ordering::SeqCst), counts.ended.load(Ordering::SeqCst));
            if seen == (begun, ended) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("not {begun} begun and {ended} ended");
    }

    #[tokio::test]
    async fn it_is_started_again_after_a_panic_exchanged_switched_off_and_ended() {
        let counts = Arc::new(Counts::default());
        let way_back = WayBack::new(Some(start(&counts, true)));
        let task = way_back.start(Arc::new(Double::default()), Metrics::new());
        until(&counts, 2, 0).await;
        way_back.exchange(Some(start(&counts, false)));
        until(&counts, 3, 1).await;
        way_back.exchange(None);
        until(&counts, 3, 2).await;
        way_back.exchange(Some(start(&counts, false)));
        until(&counts, 4, 2).await;
        way_back.end(Instant::now() + Duration::from_secs(5));
        task.await.unwrap();
        until(&counts, 4, 3).await;
    }
}
