//! A running service, as its starter holds it: what it can be asked, and what can be changed.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
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
    ledger::{self, Ledger},
    telemetry::metrics::Metrics,
    time::Timestamp,
};

/// What may be asked of a service and changed of it while it serves. Outlives it harmlessly.
pub struct Controls {
    pub(super) gate: Arc<Gate>,
    pub(super) access: Arc<Access>,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) draining: Arc<AtomicBool>,
    pub(super) relay: Background,
    pub(super) outcomes: Background,
    pub(super) reconciliation: Background,
    pub(super) expiry: Arc<Expiry>,
    pub(super) shutdown_grace: Arc<Mutex<Duration>>,
    pub(super) serving: watch::Receiver<bool>,
}

impl fmt::Debug for Controls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Controls")
    }
}

/// How the service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// It refuses what comes and ends what it has begun.
    pub draining: bool,
    /// Commands that the broker has not confirmed; `None` if the ledger could not tell.
    pub pending: Option<u64>,
    /// Commands that wait for an operator.
    pub parked: u64,
    /// Whether the relay is connected to the broker.
    pub connected: bool,
    /// When the last reload was rejected, if the last was.
    pub rejected_at: Option<Timestamp>,
}

impl Controls {
    /// Puts other settings in force, without a moment in which nothing is: a callback that has begun ends with the
    /// settings it began with. `relay` is given if the relay is to be exchanged for another. Reads the certificate's
    /// files, and waits for nothing else.
    ///
    /// The addresses of the listeners, the number of workers, the file and the sizes of the ledger are left as they are;
    /// returned are the keys that are left as well, although a configuration like this one would change them.
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

        // First, so that no callback is looked up in a window that does not reach back as far as its endpoint says.
        self.ledger.limit(limits);
        self.gate.put(gate);
        self.expiry.look_again(settings.client_certificate.clone());
        let mut left = Vec::new();
        if self.gate.tls_differs(&settings.http) {
            left.push("http.tls");
        }
        if !self.access.replace(&settings.console) {
            left.push("admin.token");
        }
        *self.shutdown_grace.lock().expect("nobody panics with the lock") = settings.shutdown_grace;
        if relay.is_some() {
            self.relay.exchange(relay);
        }
        Ok(left)
    }

    /// Has the work that takes and shows outcomes end and this take its place; `None` for nothing. Returns at once. Does
    /// nothing once the service has begun to stop.
    pub fn exchange_outcomes(&self, start: Option<Start>) {
        self.outcomes.exchange(start);
    }

    /// The same of the work that compares commands with what the approval center shows.
    pub fn exchange_reconciliation(&self, start: Option<Start>) {
        self.reconciliation.exchange(start);
    }

    /// Counts a reload, and has `/readyz` tell of it. `restart_needed`: the keys that wait for a restart.
    pub fn reloaded(&self, result: ReloadResult, restart_needed: Vec<String>) {
        self.metrics.process.reloaded(result == ReloadResult::Applied);
        self.access.reloaded(result, restart_needed);
    }

    /// Resolves when both listeners serve and the ledger is open; never if the service ends before.
    pub async fn serving(&self) {
        let mut serving = self.serving.clone();
        let served = serving.wait_for(|serving| *serving).await.is_ok();
        if !served {
            std::future::pending().await
        }
    }

    /// Whether it has begun to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether the ledger's writer does anything at all; see [`answers`](ledger::Lifecycle::answers).
    pub async fn writer_answers(&self) -> bool {
        self.ledger.answers().await
    }

    /// How it is. Takes what the ledger takes to count.
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
    /// One line, as `systemctl status` shows it.
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
