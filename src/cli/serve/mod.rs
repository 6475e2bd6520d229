//! `serve`

mod notify;
mod reload;
mod workers;

use std::{convert::Infallible, future::Future, sync::Arc};

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{notify::Supervisor, reload::Reloader};
use super::{
    block_on,
    exit::{Exit, Failure},
};
use crate::{
    amqp::Publisher,
    app::{self, App, Controls, Resources, Start},
    center::client::Center,
    config::{Amqp, Config, Loaded, Sources, load},
    ledger::{Ledger, sqlite::SqliteLedger},
    relay,
    telemetry::log::{self, Log},
};

pub(super) fn run(sources: Sources) -> Result<Exit, Failure> {
    // This thread only waits: the listeners, the relay and the ledger have theirs.
    block_on(async {
        // First of all: a signal that comes while the configuration is read or the ledger opens is to be obeyed as well,
        // and a SIGHUP that nobody waits for ends a process.
        let signals = Signals::new()?;
        let loaded = load(&sources);
        let config = loaded.config()?;
        let log = log::init(&config.log).context("cannot start logging")?;
        tell(&loaded);
        take_descriptors();
        let supervisor = Supervisor::from_environment();
        match serve(config, loaded, sources, &log, signals, supervisor).await {
            Ok(()) => Ok(Exit::Done),
            // stderr is the log now, and its reader may expect JSON.
            Err(error) => {
                let chain = log::chain(error.as_ref());
                tracing::error!("ended: {chain}");
                Err(Failure::Said(Exit::Failed))
            }
        }
    })
}

fn tell(loaded: &Loaded) {
    let file = loaded.file.as_ref().map(|file| file.display().to_string());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), file, "starting");
    for warning in &loaded.warnings {
        tracing::warn!(key = warning.key(), "configuration: {warning}");
    }
}

/// Takes as many file descriptors as the system gives: each connection is one, and a common soft limit of 1024 would let
/// idle strangers keep the broker, the ledger and the internal listener from opening theirs.
fn take_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, most)
    {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

async fn serve(
    config: Config,
    loaded: Loaded,
    sources: Sources,
    log: &Log,
    signals: Signals,
    supervisor: Supervisor,
) -> anyhow::Result<()> {
    let open_ledger = || -> anyhow::Result<Arc<dyn Ledger>> {
        Ok(Arc::new(SqliteLedger::open(&config.ledger).context("cannot open the ledger")?))
    };
    let center = workers::center(&config)?;
    let app = App::build(&settings(&config), open_ledger, relay(&config, center.as_ref()))?;
    let controls = app.controls();
    controls.exchange_outcomes(workers::outcomes(&config, center.as_ref()));
    controls.exchange_reconciliation(workers::reconciliation(&config, center.as_ref()));
    // Handed over, not copied: what a reload replaces is to be gone, secrets above all.
    let reloader = Reloader::new(sources, loaded, config, center);
    let (stop, hangup) = signals.split();
    let serving = app.run(async {
        stop.await;
        supervisor.stopping();
    });
    tokio::select! {
        ended = serving => ended,
        never = attend(&controls, &supervisor, reloader, hangup, log) => match never {},
    }
}

/// What goes on beside serving: the supervisor is told how it goes, and SIGHUP is obeyed.
async fn attend(
    controls: &Controls,
    supervisor: &Supervisor,
    mut reloader: Reloader,
    mut hangup: Signal,
    log: &Log,
) -> Infallible {
    controls.serving().await;
    supervisor.ready(&controls.condition().await);
    let obey = async {
        // Signals that come during a reload are one more reload after it, which reads what was written last.
        while hangup.recv().await.is_some() {
            if controls.is_draining() {
                tracing::info!(signal = "SIGHUP", "shutting down; reload ignored");
                continue;
            }
            supervisor.reloading();
            reloader.reload(controls, log).await;
            supervisor.ready(&controls.condition().await);
        }
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        never = obey => never,
        never = supervisor.tell(controls) => never,
        never = supervisor.watch(async || controls.writer_answers().await) => never,
    }
}

/// What the service is made of, but for ledger and relay.
fn settings(config: &Config) -> app::Settings {
    app::Settings {
        http: config.http.clone(),
        console: config.admin.clone(),
        intake: config.intake.clone(),
        client_certificate: config.amqp.broker.tls.identity.as_ref().map(|(cert, _)| cert.clone()),
        shutdown_grace: config.shutdown_grace,
    }
}

/// To be called within the runtime on which the approval center is to be asked.
fn relay(config: &Config, center: Option<&Center>) -> Start {
    let settings = config.amqp.clone();
    let enrich = workers::enricher(config, center);
    Arc::new(move |resources: Resources| {
        let Amqp { broker, relay: settings } = settings.clone();
        let enrich = enrich.clone();
        Box::pin(async move {
            match Publisher::new(broker) {
                Ok(publisher) => {
                    let watching = publisher.watch().run(resources.metrics.clone(), resources.stop.clone());
                    let relaying = relay::run(
                        resources.outbox,
                        publisher,
                        settings,
                        enrich,
                        resources.metrics,
                        resources.stop,
                    );
                    let (report, ()) = tokio::join!(relaying, watching);
                    tracing::debug!(
                        confirmed = report.confirmed,
                        unanswered = report.unanswered,
                        settled = report.settled,
                        "the relay has ended"
                    );
                }
                Err(error) => tracing::error!("no relay: {error}"),
            }
        })
    })
}

/// The signals that are obeyed. They count from when this is made, whether or not anybody waits for them yet.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let wait = |kind, name| signal(kind).with_context(|| format!("cannot wait for {name}"));
        Ok(Self {
            terminate: wait(SignalKind::terminate(), "SIGTERM")?,
            interrupt: wait(SignalKind::interrupt(), "SIGINT")?,
            hangup: wait(SignalKind::hangup(), "SIGHUP")?,
        })
    }

    /// A future that resolves when the process is told to stop, and the signal to reload. A service that is told twice is
    /// stopping already: the grace bounds how long that takes.
    fn split(self) -> (impl Future<Output = ()>, Signal) {
        let Self { mut terminate, mut interrupt, hangup } = self;
        let stop = async move {
            let signal = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!(signal, "shutdown signal received");
        };
        (stop, hangup)
    }
}
