//! Background work: the relay, the outcomes, the reconciliation. Each is one [`Background`], which starts the work, starts it
//! again when it ends by itself, exchanges it while the service runs, and ends it.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    pin,
    runtime::Runtime,
    sync::{Notify, oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::{
    ledger::{Ledger, Outbox, Term},
    stop::Stop,
    telemetry::metrics::Metrics,
};

/// Makes the future of the work; called again after a panic. The future ends when [`Resources::stop`] says so, by the moment
/// that it says.
pub type Start = Arc<dyn Fn(Resources) -> BoxFuture<'static, ()> + Send + Sync>;

/// What background work has at hand.
#[derive(Clone)]
pub struct Resources {
    /// The ledger, which outlives the work.
    pub ledger: Arc<dyn Ledger>,
    /// What is to be published in this term. Work ends with its term.
    pub outbox: Arc<dyn Outbox>,
    /// Where the work counts.
    pub metrics: Arc<Metrics>,
    /// Notified when there is an outcome to show.
    pub bell: Arc<Notify>,
    /// When to stop.
    pub stop: Stop,
}

/// Before work that ended by itself is started again: what made it panic is most likely still there.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// Work that is exchanged has this long to end: the confirms of what was published, and calls under way, take milliseconds. A
/// broker or a center that has been silent for longer may well be the reason for the exchange.
const EXCHANGE_GRACE: Duration = Duration::from_secs(4);

/// Where work runs.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// On the runtime of the caller.
    Task,
    /// On a thread with a runtime of its own, since its pace is not that of the others. What it has spawned ends with it.
    Thread,
}

/// One piece of background work, held by the one that changes what is wanted.
#[derive(Clone)]
pub(super) struct Background {
    name: &'static str,
    place: Place,
    wanted: Arc<watch::Sender<Wanted>>,
}

#[derive(Clone)]
struct Wanted {
    /// `None`: nothing for now.
    start: Option<Start>,
    /// Set once nothing is wanted any more.
    end: Option<Instant>,
}

impl Background {
    pub(super) fn new(name: &'static str, place: Place, start: Option<Start>) -> Self {
        Self { name, place, wanted: Arc::new(watch::Sender::new(Wanted { start, end: None })) }
    }

    /// Has the work that runs end, and then this take its place: never do both run. `None` for nothing. Returns at once.
    pub(super) fn exchange(&self, start: Option<Start>) {
        self.wanted.send_modify(|wanted| wanted.start = start);
    }

    /// Has the work end by `deadline`, and none take its place. Returns at once.
    pub(super) fn end(&self, deadline: Instant) {
        self.wanted.send_modify(|wanted| wanted.end = Some(deadline));
    }

    /// Begins to do what is wanted.
    pub(super) fn start(self, ledger: Arc<dyn Ledger>, metrics: Arc<Metrics>, bell: Arc<Notify>) -> Running {
        let task = tokio::spawn(self.clone().supervise(ledger, metrics, bell));
        Running { background: self, task }
    }

    async fn supervise(self, ledger: Arc<dyn Ledger>, metrics: Arc<Metrics>, bell: Arc<Notify>) {
        let (work, mut wanted, mut term) = (self.name, self.wanted.subscribe(), ledger.term());
        loop {
            let Wanted { start, end } = wanted.borrow_and_update().clone();
            if end.is_some() {
                return;
            }
            let outbox = term.borrow_and_update().clone();
            let (Some(start), Some(outbox)) = (start, outbox) else {
                tokio::select! {
                    () = changed(&mut wanted) => {}
                    () = another(&mut term) => {}
                }
                continue;
            };
            let (stop, stopping) = watch::channel(None);
            let resources = Resources {
                ledger: ledger.clone(),
                outbox,
                metrics: metrics.clone(),
                bell: bell.clone(),
                stop: stopping,
            };
            let run = self.place.run(work, start, resources);
            pin!(run);
            let ended = loop {
                tokio::select! {
                    ended = &mut run => break ended,
                    () = changed(&mut wanted) => {
                        let end = wanted.borrow_and_update().end;
                        stop.send_modify(|stop| *stop = end.or(*stop).or(Some(Instant::now() + EXCHANGE_GRACE)));
                    }
                    // Nothing more can be settled in the term that is over, so there is nothing to wait for.
                    () = another(&mut term) => {
                        stop.send_modify(|stop| *stop = Some(stop.map_or_else(Instant::now, |at| at.min(Instant::now()))));
                    }
                }
            };
            match (ended, stop.borrow().is_some()) {
                (Ok(()), true) => continue,
                (Err(cause), true) => {
                    tracing::error!(work, cause, "background work panicked while stopping");
                    continue;
                }
                (ended, false) => {
                    let cause = ended.err().unwrap_or_else(|| "it returned".to_owned());
                    tracing::error!(work, cause, restart_after = ?RESTART_AFTER, "background work ended; restarting it");
                }
            }
            // Whether the time passed or something else is wanted: what is wanted says what is next.
            timeout(RESTART_AFTER, changed(&mut wanted)).await.unwrap_or_default();
        }
    }
}

/// Resolves when a term begins or ends; never after the ledger is gone.
async fn another(term: &mut watch::Receiver<Term>) {
    if term.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Resolves when something else is wanted than was seen last.
async fn changed(wanted: &mut watch::Receiver<Wanted>) {
    wanted.changed().await.expect("the supervisor holds a sender");
}

impl Place {
    /// Runs the work to its end. An error is the text of its panic, or why it could not begin.
    async fn run(self, name: &str, start: Start, resources: Resources) -> Result<(), String> {
        match self {
            Self::Task => {
                // A task of its own, whose panic is its own.
                let ended = tokio::spawn(async move { start(resources).await }).await;
                ended.map_err(|error| {
                    error.try_into_panic().map_or_else(|error| error.to_string(), panic_text)
                })
            }
            Self::Thread => match thread(name, start, resources) {
                Ok(ended) => ended.await.unwrap_or_else(|_gone| Err("its thread ended".to_owned())),
                Err(error) => Err(format!("no thread or no runtime: {error}")),
            },
        }
    }
}

fn thread(
    name: &str,
    start: Start,
    resources: Resources,
) -> io::Result<oneshot::Receiver<Result<(), String>>> {
    let runtime: Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (ending, ended) = oneshot::channel();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(start(resources))));
        // What a connection still does belongs to work that is gone.
        runtime.shutdown_background();
        // Nobody listens if the grace ran out.
        ending.send(ended.map_err(panic_text)).ok();
    })?;
    Ok(ended)
}

fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}

/// Background work that was started.
pub(super) struct Running {
    background: Background,
    task: JoinHandle<()>,
}

impl Running {
    /// See [`Background::end`].
    pub(super) fn end(&self, deadline: Instant) {
        self.background.end(deadline);
    }

    /// Resolves when the work has ended and is not restarted.
    pub(super) async fn ended(&mut self) {
        if let Err(error) = (&mut self.task).await {
            tracing::error!(work = self.background.name, %error, "the supervisor of background work panicked");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Stopping asked for it long ago; only an `App` that was dropped while it served did not.
        if self.background.wanted.borrow().end.is_none() {
            self.background.end(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::FutureExt;

    use super::*;
    use crate::{app::tests::double::Double, stop::requested};

    type Story = Arc<Mutex<Vec<&'static str>>>;

    /// Work that tells when it begins and ends, and in between does what it is told to.
    fn work(
        story: &Story,
        [begins, ends]: [&'static str; 2],
        then: impl Fn(&[&str]) + Send + Sync + 'static,
    ) -> Start {
        let (story, then) = (story.clone(), Arc::new(then));
        Arc::new(move |mut resources| {
            let (story, then) = (story.clone(), then.clone());
            async move {
                story.lock().unwrap().push(begins);
                let told = story.lock().unwrap().clone();
                then(&told);
                requested(&mut resources.stop).await;
                story.lock().unwrap().push(ends);
            }
            .boxed()
        })
    }

    async fn until(story: &Story, told: &[&str]) {
        let seen = timeout(Duration::from_secs(20), async {
            while *story.lock().unwrap() != told {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(seen.await.is_ok(), "{:?} is not {told:?}", story.lock().unwrap());
    }

    #[tokio::test]
    async fn work_is_started_again_after_a_panic_exchanged_switched_off_and_ended() {
        for place in [Place::Task, Place::Thread] {
            let story = Story::default();
            let first = work(&story, ["a", "a."], |told| assert!(told.len() > 1, "the test says so"));
            let background = Background::new("relay", place, Some(first));
            let mut running =
                background.clone().start(Arc::new(Double::default()), Metrics::new(), Arc::default());
            until(&story, &["a", "a"]).await;
            background.exchange(Some(work(&story, ["b", "b."], |_| {})));
            until(&story, &["a", "a", "a.", "b"]).await;
            background.exchange(None);
            until(&story, &["a", "a", "a.", "b", "b."]).await;
            background.exchange(Some(work(&story, ["c", "c."], |_| {})));
            until(&story, &["a", "a", "a.", "b", "b.", "c"]).await;
            running.end(Instant::now() + Duration::from_secs(5));
            background.exchange(Some(work(&story, ["d", "d."], |_| {})));
            running.ended().await;
            assert_eq!(*story.lock().unwrap(), ["a", "a", "a.", "b", "b.", "c", "c."]);
        }
    }

    #[tokio::test]
    async fn work_runs_while_this_process_is_the_leader_and_again_in_each_term() {
        for place in [Place::Task, Place::Thread] {
            let (story, ledger) = (Story::default(), Arc::new(Double::default()));
            let background = Background::new("relay", place, Some(work(&story, ["a", "a."], |_| {})));
            let mut running = background.clone().start(ledger.clone(), Metrics::new(), Arc::default());
            until(&story, &["a"]).await;
            ledger.lead(true);
            until(&story, &["a", "a.", "a"]).await;
            ledger.lead(false);
            until(&story, &["a", "a.", "a", "a."]).await;
            background.exchange(Some(work(&story, ["b", "b."], |_| {})));
            ledger.lead(true);
            until(&story, &["a", "a.", "a", "a.", "b"]).await;
            ledger.lead(false);
            running.end(Instant::now());
            running.ended().await;
            assert_eq!(*story.lock().unwrap(), ["a", "a.", "a", "a.", "b", "b."]);
        }
    }

    #[tokio::test]
    async fn an_end_goes_before_the_deadline_of_an_exchange() {
        let (told, mut deadlines) = tokio::sync::mpsc::unbounded_channel();
        let slow: Start = Arc::new(move |mut resources| {
            let told = told.clone();
            async move {
                loop {
                    told.send(*resources.stop.borrow_and_update()).unwrap();
                    if resources.stop.changed().await.is_err() {
                        return;
                    }
                }
            }
            .boxed()
        });
        let background = Background::new("relay", Place::Task, Some(slow.clone()));
        let running = background.clone().start(Arc::new(Double::default()), Metrics::new(), Arc::default());
        assert_eq!(deadlines.recv().await, Some(None));
        background.exchange(Some(slow.clone()));
        let first = deadlines.recv().await.unwrap().expect("it is to end");
        let end = Instant::now() + Duration::from_millis(10);
        assert!(first > end);
        running.end(end);
        assert_eq!(deadlines.recv().await, Some(Some(end)));
    }
}
