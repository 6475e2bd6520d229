//! `serve`

use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::exit::{Exit, Failure};
use crate::{
    app::{self, App, RelaySeat, StartRelay},
    config::{Config, Loaded},
    ledger::{Ledger, sqlite::SqliteLedger},
    relay::{self, amqp::Publisher},
    telemetry::log,
};

pub(super) fn run(loaded: &Loaded) -> Result<Exit, Failure> {
    let config = loaded.config()?;
    log::init(&config.log).context("cannot start logging")?;
    let file = loaded.file.as_ref().map(|file| file.display().to_string());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), file, "starting");
    for warning in &loaded.warnings {
        tracing::warn!(key = warning.key, "configuration: {warning}");
    }
    serve(&config)
}

/// Resolves when the process is told to stop.
async fn told_to_stop() {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        tracing::error!("signals cannot be waited for; only a kill will end this process");
        return std::future::pending().await;
    };
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal = name, "told to stop");
}

fn serve(config: &Config) -> Result<Exit, Failure> {
    let settings = app::Settings {
        http: config.http.clone(),
        console: config.admin.clone(),
        intake: config.intake.clone(),
        shutdown_grace: config.shutdown_grace,
    };
    let open_ledger =
        || -> anyhow::Result<Arc<dyn Ledger>> { Ok(Arc::new(SqliteLedger::open(&config.ledger)?)) };
    let amqp = config.amqp.clone();
    Publisher::new(amqp.broker.clone()).context("cannot use the configuration of the broker")?;
    let start_relay: StartRelay = Arc::new(move |seat: RelaySeat| {
        let publisher = Publisher::new(amqp.broker.clone()).expect("the same settings were usable at start");
        let relay = amqp.relay.clone();
        Box::pin(async move {
            let report = relay::run(seat.ledger, publisher, relay, seat.metrics, seat.stop).await;
            tracing::info!(
                confirmed = report.confirmed,
                unanswered = report.unanswered,
                settled = report.settled,
                "the relay has ended"
            );
        })
    });
    let system = actix_web::rt::System::new();
    system.block_on(async {
        let app = App::build(&settings, open_ledger, start_relay)?;
        app.run(told_to_stop()).await
    })?;
    Ok(Exit::Done)
}
