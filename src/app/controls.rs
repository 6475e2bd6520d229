//! Handle to query and change a running service.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::{
    Settings,
    background::{Background, Start},
    expiry::Expiry,
};
use crate::{
    console::access::{Access, ReloadResult},
    http::Gate,
    intake::Intake,
    ledger::{self, AcceptError, Ledger, NewAct},
    telemetry::metrics::Metrics,
    time::Timestamp,
};

/// Queries and changes a service while it serves. Harmless after its end.
pub struct Controls {
    pub(super) gate: Arc<Gate>,
    pub(super) access: Arc<Access>,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) leaving: Arc<AtomicBool>,
    pub(super) relay: Background,
    pub(super) feedback: Background,
    pub(super) outcomes: Background,
    pub(super) reconciliation: Background,
    pub(super) expiry: Arc<Expiry>,
    pub(super) shutdown_delay: Arc<Mutex<Duration>>,
    pub(super) shutdown_grace: Arc<Mutex<Duration>>,
    pub(super) serving: watch::Receiver<bool>,
}

impl fmt::Debug for Controls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Controls")
    }
}

/// The service's condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Has begun to stop.
    pub draining: bool,
    /// Commands that the broker has not confirmed; `None` if the ledger could not report it.
    pub pending: Option<u64>,
    /// Commands that wait for an operator.
    pub parked: u64,
    /// Whether the relay is connected to the broker.
    pub connected: bool,
    /// When the last reload was rejected; `None` if it was not.
    pub rejected_at: Option<Timestamp>,
}

impl Controls {
    /// Applies new settings without a gap: a callback in progress ends with its old settings. `relay` replaces the
    /// relay, if given. Reads the certificate's files and waits for nothing else.
    ///
    /// Listener addresses, the number of workers, and the ledger's file and sizes stay unchanged. Returns the other
    /// keys that differ and stay unchanged.
    ///
    /// # Errors
    /// The certificate cannot be used. Nothing has changed then.
    pub fn replace(
        &self,
        settings: &Settings,
        limits: ledger::Limits,
        relay: Option<Start>,
    ) -> anyhow::Result<Vec<&'static str>> {
        let intake = Arc::new(Intake::new(&settings.intake, self.ledger.clone()));
        let gate = self.gate.prepare(&settings.http, intake, &settings.intake.counted());
        let gate = gate.context("the certificate of http.tls cannot be used")?;

        // First, so that no callback is looked up in a window shorter than its endpoint's.
        self.ledger.limit(limits);
        self.gate.put(gate);
        self.expiry.look_again(settings.client_certificate.clone());
        let mut left = Vec::new();
        if self.gate.tls_differs(&settings.http) {
            left.push("http.tls");
        }
        self.metrics.process.set_console(settings.console.public_url.as_ref().map(|url| url.page("")));
        if !self.access.replace(&settings.console) {
            left.push("admin.token");
        }
        *self.shutdown_delay.lock().expect("nobody panics with the lock") = settings.shutdown_delay;
        *self.shutdown_grace.lock().expect("nobody panics with the lock") = settings.shutdown_grace;
        if relay.is_some() {
            self.relay.exchange(relay);
        }
        Ok(left)
    }

    /// Replaces the work that takes back what comes from the broker, once the current one has ended; `None` for nothing.
    /// Returns immediately. Does nothing once the service has begun to stop.
    pub fn exchange_feedback(&self, start: Option<Start>) {
        self.feedback.exchange(start);
    }

    /// The same for the work that shows outcomes.
    pub fn exchange_outcomes(&self, start: Option<Start>) {
        self.outcomes.exchange(start);
    }

    /// The same for the work that compares commands with the approval center.
    pub fn exchange_reconciliation(&self, start: Option<Start>) {
        self.reconciliation.exchange(start);
    }

    /// Counts a reload, and reports it in `/readyz`. `restart_needed`: the keys that wait for a restart.
    pub fn reloaded(&self, result: ReloadResult, restart_needed: Vec<String>) {
        self.metrics.process.reloaded(result == ReloadResult::Applied);
        self.access.reloaded(result, restart_needed);
    }

    /// Writes an act down. Harmless to drop: what is on its way is written.
    pub fn record(&self, act: NewAct) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.ledger.record(act)
    }

    /// Resolves when both listeners serve and the ledger is open; never if the service ends first.
    pub async fn serving(&self) {
        let mut serving = self.serving.clone();
        let served = serving.wait_for(|serving| *serving).await.is_ok();
        if !served {
            std::future::pending().await
        }
    }

    /// Whether the service has begun to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Whether the ledger's writer is responsive; see [`answers`](ledger::Lifecycle::answers).
    pub async fn writer_answers(&self) -> bool {
        self.ledger.answers().await
    }

    /// The service's condition. Takes as long as the ledger needs to count.
    pub async fn condition(&self) -> Condition {
        let stats = self.ledger.stats().await.ok();
        let last = self.access.configuration().last_reload;
        Condition {
            draining: self.is_draining(),
            pending: stats.as_ref().map(|stats| stats.pending),
            parked: stats.map_or(0, |stats| stats.parked),
            connected: self.metrics.relay.connected(),
            rejected_at: last.filter(|last| last.result == ReloadResult::Rejected).map(|last| last.at),
        }
    }
}

impl fmt::Display for Condition {
    /// One line, as shown by `systemctl status`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.draining { "draining" } else { "accepting" })?;
        match self.pending {
            Some(pending) => write!(f, "; {pending} pending")?,
            None => f.write_str("; the ledger cannot be read")?,
        }
        if self.parked > 0 {
            write!(f, ", {} parked", self.parked)?;
        }
        write!(f, "; broker {}", if self.connected { "connected" } else { "away" })?;
        match self.rejected_at {
            Some(at) => write!(f, "; the configuration of {at} was rejected"),
            None => Ok(()),
        }
    }
}
