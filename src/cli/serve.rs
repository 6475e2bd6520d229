//! `serve`

use std::{future::Future, sync::Arc};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    block_on,
    exit::{Exit, Failure},
};
use crate::{
    app::{self, App, RelaySeat, StartRelay},
    config::{Amqp, Config, Loaded},
    ledger::{Ledger, sqlite::SqliteLedger},
    relay::{self, amqp::Publisher},
    telemetry::log,
};

pub(super) fn run(loaded: &Loaded) -> Result<Exit, Failure> {
    let config = loaded.config()?;
    let _flush = log::init(&config.log).context("cannot start logging")?;
    let file = loaded.file.as_ref().map(|file| file.display().to_string());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), file, "starting");
    for warning in &loaded.warnings {
        tracing::warn!(key = warning.key, "configuration: {warning}");
    }
    take_descriptors();
    // This thread only waits: the listeners, the relay and the ledger have theirs.
    let served = block_on(async { serve(&config).await.map_err(Failure::Failed) });
    match served {
        Ok(()) => Ok(Exit::Done),
        // stderr is the log now, and whoever reads it may expect JSON.
        Err(Failure::Failed(error)) => {
            let chain = log::chain(error.as_ref());
            tracing::error!("ended: {chain}");
            Err(Failure::Said(Exit::Failed))
        }
        Err(other) => Err(other),
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
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    // First of all: a signal that comes while the ledger opens is to be obeyed as well.
    let told_to_stop = told_to_stop()?;
    let settings = app::Settings {
        http: config.http.clone(),
        console: config.admin.clone(),
        intake: config.intake.clone(),
        shutdown_grace: config.shutdown_grace,
    };
    let open_ledger = || -> anyhow::Result<Arc<dyn Ledger>> {
        Ok(Arc::new(SqliteLedger::open(&config.ledger).context("cannot open the ledger")?))
    };
    App::build(&settings, open_ledger, relay(&config.amqp))?.run(told_to_stop).await
}

fn relay(settings: &Amqp) -> StartRelay {
    let settings = settings.clone();
    Arc::new(move |seat: RelaySeat| {
        let Amqp { broker, relay: settings } = settings.clone();
        Box::pin(async move {
            match Publisher::new(broker) {
                Ok(publisher) => {
                    let report = relay::run(seat.ledger, publisher, settings, seat.metrics, seat.stop).await;
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

/// A future that resolves when the process is told to stop. Signals count from now on, not from its first poll.
fn told_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    Ok(async move {
        let signal = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal, "told to stop");
    })
}
