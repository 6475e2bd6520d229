//! `serve`

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::exit::{Exit, Failure};
use crate::{
    config::{Config, Loaded},
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

fn serve(_config: &Config) -> Result<Exit, Failure> {
    drop(told_to_stop);
    Err(anyhow::anyhow!("being wired").into())
}
