//! The composition root: [`App::build`] binds and wires, [`App::run`] serves until stop is requested.
//!
//! # Threads
//! The public listener has its workers and the internal one a separate worker, so any load of callbacks leaves health
//! and metrics available. The relay has a thread with a separate runtime, since it runs at the broker's pace. The
//! ledger has its own threads. The caller's runtime only waits.

mod background;
mod controls;
mod credentials;
mod descriptors;
mod expiry;
mod handover;
mod indexing;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod tests;

use std::{
    future::Future,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix_web::dev::{Server, ServerHandle};
use anyhow::Context;
use tokio::{net::TcpSocket, sync::watch, task::JoinHandle, time::Instant};

pub use crate::console::access::ReloadResult;
use crate::{
    console::{self, access::Access},
    http::{self, Gate},
    intake::{self, Intake, NO_CALLBACK, Refusal},
    ledger::{Ledger, SearchFile},
    telemetry::{failpoint::reach, metrics::Metrics, traces},
};
use background::{Background, Place};
pub use background::{Resources, Start};
pub use controls::{Condition, Controls};
use expiry::Expiry;

/// Settings of the service.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The public listener.
    pub http: http::Settings,
    /// The internal listener.
    pub console: console::Settings,
    /// The endpoints.
    pub intake: intake::Settings,
    /// File of the client certificate for the broker, whose expiry is reported.
    pub client_certificate: Option<PathBuf>,
    /// For so long after the request to stop callbacks are still taken, and the service says that it is unready.
    pub shutdown_delay: Duration,
    /// Time limit for stopping, after the delay.
    pub shutdown_grace: Duration,
    /// Where the search file is; `None` for none.
    pub search_file: Option<PathBuf>,
    /// Where spans go; `None` for nowhere.
    pub traces: Option<traces::Settings>,
}

/// Length of the accept queue, if the kernel allows it: connections that arrive within one stall.
const BACKLOG: u32 = 1024;

/// The longest configurable `shutdown_grace`. It is the listener's limit, which cannot be changed while it serves; the
/// grace in force ends the waiting for requests.
const LONGEST_GRACE: Duration = Duration::from_secs(600);

/// Background work ends by the deadline, then still has to leave its thread.
const STOP_SLACK: Duration = Duration::from_millis(250);

/// Minimum time for the ledger's writer even after the grace: it only has to commit what it holds.
const FLUSH_AT_LEAST: Duration = Duration::from_secs(1);

/// Maximum time for the last spans.
const SPANS_PATIENCE: Duration = Duration::from_secs(3);

/// The service, bound and wired, but not serving yet.
pub struct App {
    callbacks: (Server, SocketAddr),
    gate: Arc<Gate>,
    console: (Server, SocketAddr),
    ledger: Arc<dyn Ledger>,
    search_file: Option<Arc<SearchFile>>,
    metrics: Arc<Metrics>,
    /// Callbacks are refused.
    draining: Arc<AtomicBool>,
    /// The service is to stop, now or after the delay.
    leaving: Arc<AtomicBool>,
    access: Arc<Access>,
    relay: Background,
    feedback: Background,
    outcomes: Background,
    reconciliation: Background,
    expiry: Arc<Expiry>,
    shutdown_delay: Arc<Mutex<Duration>>,
    shutdown_grace: Arc<Mutex<Duration>>,
    serving: watch::Sender<bool>,
}

impl App {
    /// Binds both listeners, opens the ledger, then wires the rest. Connections wait in the accept queues until
    /// [`App::run`] is polled. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// A port is taken, or the ledger cannot be opened. Nothing is left behind then.
    pub async fn build(
        settings: &Settings,
        open_ledger: impl Future<Output = anyhow::Result<Arc<dyn Ledger>>>,
        start_relay: Start,
    ) -> anyhow::Result<Self> {
        let max_connections = descriptors::connections()?;
        // The ports first: a second instance, started by mistake, must fail before it touches the ledger.
        let callbacks = bind("http.listen", settings.http.listen)?;
        let console = bind("admin.listen", settings.console.listen)?;
        let addresses = (callbacks.local_addr()?, console.local_addr()?);

        let ledger = open_ledger.await?;
        let search_file = settings.search_file.clone().map(SearchFile::at).map(Arc::new);
        let metrics = Metrics::new();
        if let Some(settings) = &settings.traces {
            traces::start(settings, &metrics.spans)
                .context("cannot set up the collector's client (traces)")?;
        }
        let draining = Arc::new(AtomicBool::new(false));
        let leaving = Arc::new(AtomicBool::new(false));
        let expiry = Arc::new(Expiry::new(metrics.clone(), settings.client_certificate.clone()));
        let intake = Arc::new(Intake::new(&settings.intake, ledger.clone()));
        let endpoints = settings.intake.counted();
        let gate = Gate::new(&settings.http, intake, &endpoints, metrics.clone(), draining.clone());
        let gate = Arc::new(gate.context("cannot serve callbacks (http.tls)")?);
        let callbacks = http::serve(&settings.http, callbacks, gate.clone(), LONGEST_GRACE, max_connections)
            .context("cannot serve callbacks")?;
        let access = Arc::new(Access::new(&settings.console));
        metrics.process.set_console(settings.console.public_url.as_ref().map(|url| url.page("")));
        let console = console::serve(
            console,
            access.clone(),
            ledger.clone(),
            search_file.clone(),
            metrics.clone(),
            leaving.clone(),
            reasons(gate.clone()),
        )
        .context("cannot serve the internal listener")?;
        Ok(Self {
            callbacks: (callbacks, addresses.0),
            gate,
            console: (console, addresses.1),
            ledger,
            search_file,
            metrics,
            draining,
            leaving,
            access,
            relay: Background::new("relay", Place::Thread, Some(start_relay)),
            feedback: Background::new("feedback", Place::Task, None),
            outcomes: Background::new("outcomes", Place::Task, None),
            reconciliation: Background::new("reconciliation", Place::Task, None),
            expiry,
            shutdown_delay: Arc::new(Mutex::new(settings.shutdown_delay)),
            shutdown_grace: Arc::new(Mutex::new(settings.shutdown_grace)),
            serving: watch::channel(false).0,
        })
    }

    /// Handle to query and change the service while [`App::run`] serves.
    #[must_use]
    pub fn controls(&self) -> Controls {
        Controls {
            gate: self.gate.clone(),
            access: self.access.clone(),
            ledger: self.ledger.clone(),
            metrics: self.metrics.clone(),
            leaving: self.leaving.clone(),
            relay: self.relay.clone(),
            feedback: self.feedback.clone(),
            outcomes: self.outcomes.clone(),
            reconciliation: self.reconciliation.clone(),
            expiry: self.expiry.clone(),
            shutdown_delay: self.shutdown_delay.clone(),
            shutdown_grace: self.shutdown_grace.clone(),
            serving: self.serving.subscribe(),
        }
    }

    /// Address of the public listener: with the real port if 0 was configured.
    #[must_use]
    pub fn callbacks_address(&self) -> SocketAddr {
        self.callbacks.1
    }

    /// Address of the internal listener: with the real port if 0 was configured.
    #[must_use]
    pub fn console_address(&self) -> SocketAddr {
        self.console.1
    }

    /// Serves until `shutdown` resolves and the delay has passed, then stops in order. What `shutdown` resolves to ends the
    /// delay when it resolves itself. Returns when everything has stopped or the grace has run
    /// out; the log then names what was left running.
    ///
    /// If dropped, both listeners and the relay stop serving later, in no particular order. No answered callback is
    /// lost.
    ///
    /// # Errors
    /// A listener cannot start, or ended unexpectedly.
    pub async fn run<H: Future<Output = ()>>(self, shutdown: impl Future<Output = H>) -> anyhow::Result<()> {
        let bell = Arc::default();
        let start = |background: Background| {
            background.start(self.ledger.clone(), self.metrics.clone(), Arc::clone(&bell))
        };
        let mut running = Running {
            callbacks: Listener::start(self.callbacks.0),
            console: Listener::start(self.console.0),
            relay: start(self.relay),
            feedback: start(self.feedback),
            outcomes: start(self.outcomes),
            reconciliation: start(self.reconciliation),
            ledger: self.ledger,
            metrics: self.metrics,
            draining: self.draining,
        };
        tracing::info!(callbacks = %self.callbacks.1, internal = %self.console.1, "serving");
        self.serving.send_replace(true);

        let shutdown = async {
            let hurry = shutdown.await;
            self.leaving.store(true, Ordering::Relaxed);
            let delay = *self.shutdown_delay.lock().expect("nobody panics with the lock");
            if !delay.is_zero() {
                tracing::info!(after = ?delay, "stopping; until then unready, and callbacks are taken");
                tokio::time::timeout(delay, hurry).await.unwrap_or_default();
            }
        };
        let ended = tokio::select! {
            () = shutdown => Ok(()),
            ended = running.callbacks.ended() => Err(ended.context("the public listener ended")),
            ended = running.console.ended() => Err(ended.context("the internal listener ended")),
            never = self.gate.watch() => match never {},
            never = self.gate.sum_up() => match never {},
            never = self.expiry.keep_telling(&self.gate) => match never {},
            never = handover::hand_on(running.ledger.clone(), running.metrics.clone()) => match never {},
            never = indexing::keep(self.search_file, running.ledger.clone()) => match never {},
            never = credentials::keep(running.ledger.clone(), running.metrics.clone()) => match never {},
        };
        self.leaving.store(true, Ordering::Relaxed);
        let grace = *self.shutdown_grace.lock().expect("nobody panics with the lock");
        running.stop(grace).await;
        self.gate.sum_up_now();
        ended
    }
}

fn reasons(gate: Arc<Gate>) -> console::Reasons {
    console::Reasons {
        words: Refusal::ALL.iter().copied().map(Refusal::as_str).chain(NO_CALLBACK).collect(),
        sentence: Arc::new(move |endpoint, reason, detail| {
            let refusal = reason.parse().ok()?;
            Some(
                intake::sentence_of_worker(refusal, detail)
                    .unwrap_or_else(|| gate.sentence(endpoint, refusal)),
            )
        }),
    }
}

fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart must not wait until the previous process's connections time out. This does not let two processes
        // listen on one port.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    };
    bound().with_context(|| format!("cannot listen on {address} ({key})"))
}

struct Listener {
    handle: ServerHandle,
    task: JoinHandle<std::io::Result<()>>,
}

impl Listener {
    fn start(server: Server) -> Self {
        Self { handle: server.handle(), task: tokio::spawn(server) }
    }

    /// Resolves if the listener ends without being stopped.
    async fn ended(&mut self) -> anyhow::Error {
        match (&mut self.task).await {
            Ok(Ok(())) => anyhow::anyhow!("it was not asked to"),
            Ok(Err(error)) => error.into(),
            Err(panicked) => panicked.into(),
        }
    }
}

struct Running {
    callbacks: Listener,
    console: Listener,
    relay: background::Running,
    feedback: background::Running,
    outcomes: background::Running,
    reconciliation: background::Running,
    ledger: Arc<dyn Ledger>,
    metrics: Arc<Metrics>,
    draining: Arc<AtomicBool>,
}

impl Running {
    /// The stop sequence. Each step has what the earlier steps left of `grace`.
    async fn stop(mut self, grace: Duration) {
        let began = Instant::now();
        let deadline = began + grace;
        tracing::info!(?grace, "stopping");

        // Refusing: senders of callbacks that still arrive are asked to retry.
        self.draining.store(true, Ordering::Relaxed);
        reach("stop:draining");

        // Stop listening and finish the requests in progress: their decisions are still kept.
        if !within(deadline, self.callbacks.handle.stop(true)).await {
            tracing::warn!(
                step = "requests",
                "shutdown grace period expired; unanswered callbacks were not promised anything"
            );
        }

        reach("stop:requests");

        // Nothing depends on it, and it recovers unwritten results later.
        self.reconciliation.end(Instant::now());
        if !within(deadline + STOP_SLACK, self.reconciliation.ended()).await {
            tracing::warn!(step = "reconciliation", "shutdown grace period expired");
        }

        // Before the writer is closed: it records the outcomes of the last publishes and calls.
        self.relay.end(deadline);
        self.feedback.end(deadline);
        self.outcomes.end(deadline);
        if !within(deadline + STOP_SLACK, self.relay.ended()).await {
            tracing::warn!(
                step = "relay",
                "shutdown grace period expired; what the broker has not confirmed is published again after the next start"
            );
        }

        reach("stop:relay");

        if !within(deadline + STOP_SLACK, self.feedback.ended()).await {
            tracing::warn!(
                step = "feedback",
                "shutdown grace period expired; what came back and is not kept stays with the broker"
            );
        }

        if !within(deadline + STOP_SLACK, self.outcomes.ended()).await {
            tracing::warn!(
                step = "outcomes",
                "shutdown grace period expired; what was not shown is shown after the next start"
            );
        }

        reach("stop:outcomes");

        if !within(deadline, credentials::keep_last(&*self.ledger, &self.metrics)).await {
            tracing::warn!(
                step = "credentials",
                "shutdown grace period expired; their last use may look older than it was"
            );
        }

        let flush_deadline = deadline.max(Instant::now() + FLUSH_AT_LEAST);
        if !within(flush_deadline, self.ledger.flush()).await {
            tracing::error!(step = "ledger", "the ledger's writer does not end; what was answered is safe");
        }

        reach("stop:ledger");

        // After everything that makes spans. Nothing of the service depends on them, so a silent collector must not make a
        // stop long.
        let patience = deadline.min(Instant::now() + SPANS_PATIENCE);
        if !within(patience, traces::flush()).await {
            tracing::warn!(step = "traces", "the collector does not answer; the last spans are lost");
        }

        // Last, so that health was accurate throughout. Nobody waits for an answer here.
        if !within(flush_deadline, self.console.handle.stop(false)).await {
            tracing::warn!(step = "internal listener", "shutdown grace period expired");
        }
        tracing::info!(took = ?began.elapsed(), "stopped");
    }
}

/// False if the deadline came first.
async fn within(deadline: Instant, step: impl Future<Output = ()>) -> bool {
    tokio::time::timeout_at(deadline, step).await.is_ok()
}
