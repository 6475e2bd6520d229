//! `serve`

mod notify;
mod reload;
pub(super) mod workers;

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::Context;
use futures_util::future::BoxFuture;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
};

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
    ledger::{self, AcceptError, NewAct},
    relay,
    telemetry::log::{self, Log},
};

pub(super) fn run(sources: Sources) -> Result<Exit, Failure> {
    // This thread only waits. The listeners, the relay and the ledger have their own.
    block_on(async {
        // Before anything else: signals must work while the configuration is read or the ledger opens. An unhandled
        // SIGHUP ends the process.
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

/// Raises the soft limit of file descriptors to the hard limit. Each connection uses one. With a common soft limit of
/// 1024, idle clients could prevent connections to the broker, the ledger and the internal listener.
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
    let center = workers::center(&config)?;
    let app = assemble(&config, center.as_ref(), relay(&config, center.as_ref())).await?;
    let controls = app.controls();
    // Moved, not copied: a reload must drop what it replaces, above all secrets.
    let reloader = Reloader::new(sources, loaded, config, center);
    let Signals { mut stops, hangup } = signals;
    #[expect(clippy::async_yields_async, reason = "a second signal is waited for after the first")]
    let serving = app.run(async {
        let signal = stops.next().await;
        tracing::info!(signal, "shutdown signal received");
        supervisor.stopping();
        async move {
            let signal = stops.next().await;
            tracing::info!(signal, "shutdown signal received again; stopping without delay");
        }
    });
    let mut recordings = Recordings::default();
    let ended = tokio::select! {
        ended = serving => ended,
        never = attend(&controls, &supervisor, reloader, hangup, log, &mut recordings) => match never {},
    };
    recordings.end().await;
    ended
}

/// The acts of reloads on their way to the ledger. None is waited for while the service runs: a ledger that hangs must not
/// keep the next reload waiting. Each begins at once, so that it is written before the ledger is closed.
#[derive(Default)]
struct Recordings(JoinSet<()>);

impl Recordings {
    /// Begins to record an act.
    fn begin(&mut self, controls: &Controls, act: NewAct) {
        while self.0.try_join_next().is_some() {}
        self.0.spawn(record(controls.record(act)));
    }

    /// To be called when the ledger is closed: what was written before is known by now.
    async fn end(mut self) {
        let all = async { while self.0.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_RECORDING, all).await.is_err() {
            tracing::warn!("the service ends; {MAY_BE_MISSING}");
        }
    }
}

/// The service with this relay, and everything else as configured.
pub(super) async fn assemble(config: &Config, center: Option<&Center>, relay: Start) -> anyhow::Result<App> {
    let open_ledger = async { ledger::open(&config.ledger).await.context("cannot open the ledger") };
    let app = App::build(&settings(config), open_ledger, relay).await?;
    let controls = app.controls();
    controls.exchange_feedback(workers::feedback(config));
    controls.exchange_outcomes(workers::outcomes(config, center));
    controls.exchange_reconciliation(workers::reconciliation(config, center));
    Ok(app)
}

const MAY_BE_MISSING: &str = "the reload may not be among the acts of the ledger";

/// How long an act may take to be written.
const RECORDING: Duration = Duration::from_secs(30);

/// The same once the ledger is closed.
const LAST_RECORDING: Duration = Duration::from_millis(500);

/// The reload holds whether or not it is written down.
async fn record(recorded: BoxFuture<'static, Result<(), AcceptError>>) {
    match tokio::time::timeout(RECORDING, recorded).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the reload is not among the acts of the ledger");
        }
        Err(_elapsed) => {
            tracing::warn!(timeout = ?RECORDING, "{MAY_BE_MISSING}");
        }
    }
}

/// Runs alongside serving: notifies the supervisor and handles SIGHUP.
async fn attend(
    controls: &Controls,
    supervisor: &Supervisor,
    mut reloader: Reloader,
    mut hangup: Signal,
    log: &Log,
    recordings: &mut Recordings,
) -> Infallible {
    controls.serving().await;
    supervisor.ready(&controls.condition().await);
    let obey = async {
        // Signals received during a reload cause one more reload, which reads the latest files.
        while hangup.recv().await.is_some() {
            if controls.is_draining() {
                tracing::info!(signal = "SIGHUP", "shutting down; reload ignored");
                continue;
            }
            supervisor.reloading();
            let act = reloader.reload(controls, log).await;
            recordings.begin(controls, act);
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

/// The settings of everything but the ledger and the relay.
pub(super) fn settings(config: &Config) -> app::Settings {
    app::Settings {
        http: config.http.clone(),
        console: config.admin.clone(),
        intake: config.intake.clone(),
        client_certificate: config.amqp.broker.tls.identity.as_ref().map(|(cert, _)| cert.clone()),
        shutdown_delay: config.shutdown_delay,
        shutdown_grace: config.shutdown_grace,
        search_file: config.ledger.search_file.clone(),
        traces: config.traces.clone(),
    }
}

/// Call within the runtime that will talk to the approval center.
pub(super) fn relay(config: &Config, center: Option<&Center>) -> Start {
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

/// The handled signals. They are caught from construction on, even if nothing awaits them yet.
struct Signals {
    stops: Stops,
    hangup: Signal,
}

/// The signals to stop. The first begins to stop, the second ends the delay; further ones have no effect: the shutdown
/// grace bounds the time to stop.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let wait = |kind, name| signal(kind).with_context(|| format!("cannot wait for {name}"));
        Ok(Self {
            stops: Stops {
                terminate: wait(SignalKind::terminate(), "SIGTERM")?,
                interrupt: wait(SignalKind::interrupt(), "SIGINT")?,
            },
            hangup: wait(SignalKind::hangup(), "SIGHUP")?,
        })
    }
}

impl Stops {
    /// The name of the next one.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
