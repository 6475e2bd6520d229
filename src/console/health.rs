//! Liveness, readiness, and metrics.
//!
//! Ready means that a callback can be kept now. A missing broker is shown but does *not* make the service unready:
//! callbacks are kept for days without it, and taking the instance out of service would turn approvers away for
//! nothing.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{ACCEPT, Accept, Header, VARY},
    web,
};
use serde::Serialize;
use tokio::{sync::Mutex, time::Instant};

use super::{Desk, access::Configuration, negotiation, permission::Anyone};
use crate::{
    ledger::{AcceptError, Ledger, State},
    telemetry::metrics::{topology::View, uses::Used},
    time::Timestamp,
};

/// A commit takes milliseconds. Shorter than Kubernetes' default probe timeout of a second, so that the answer with
/// the cause still arrives.
const PROBE_TIMEOUT: Duration = Duration::from_millis(800);

/// Several probers, several times a second, put no load on the disk.
const PROBE_KEPT: Duration = Duration::from_secs(1);

/// Shorter than Prometheus' default scrape timeout of 10 s.
const STATS_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LedgerCheck {
    Ok,
    /// The queue to the writer is full.
    Overloaded,
    /// The disk has less free space than `min_free_bytes`.
    NoRoom,
    /// The server does not keep commits as `ledger.durability` demands.
    NotDurable,
    /// Nothing can be committed.
    Unavailable,
    /// No commit within [`PROBE_TIMEOUT`].
    Timeout,
}

/// Probes the ledger and caches the result for a second. Concurrent probers share one probe.
pub(super) struct WriteProbe {
    ledger: Arc<dyn Ledger>,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    probe: Option<(Instant, LedgerCheck)>,
    /// When a probe succeeded.
    kept_at: Option<Instant>,
}

impl Last {
    /// Whether callbacks should come here: a shared server that is away for a moment is missed by all replicas.
    fn is_ready(&self, tolerance: Duration) -> bool {
        let is_ok = self.probe.is_some_and(|(_, check)| check == LedgerCheck::Ok);
        is_ok || self.kept_at.is_some_and(|at| at.elapsed() < tolerance)
    }
}

impl WriteProbe {
    pub(super) fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger, last: Mutex::default() }
    }

    /// The check, and whether callbacks should come here.
    pub(super) async fn look(&self) -> (LedgerCheck, bool) {
        let mut last = self.last.lock().await;
        let tolerance = self.ledger.tolerance();
        if let Some((at, check)) = last.probe
            && at.elapsed() < PROBE_KEPT
        {
            return (check, last.is_ready(tolerance));
        }
        let check = match tokio::time::timeout(PROBE_TIMEOUT, self.ledger.probe()).await {
            Ok(Ok(())) => LedgerCheck::Ok,
            Ok(Err(AcceptError::Overloaded)) => LedgerCheck::Overloaded,
            Ok(Err(AcceptError::NoRoom)) => LedgerCheck::NoRoom,
            Ok(Err(AcceptError::NotDurable)) => LedgerCheck::NotDurable,
            Ok(Err(AcceptError::Unavailable)) => LedgerCheck::Unavailable,
            Err(_elapsed) => LedgerCheck::Timeout,
        };
        let now = Instant::now();
        last.probe = Some((now, check));
        if check == LedgerCheck::Ok {
            last.kept_at = Some(now);
        }
        (check, last.is_ready(tolerance))
    }
}

#[derive(Serialize)]
struct Readiness<'a> {
    ready: bool,
    checks: Checks,
    broker: &'static str,
    /// Of several replicas, the one that publishes.
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<Leader>,
    /// `null` while unknown.
    topology: Option<&'a View>,
    configuration: Configuration,
    credentials: Vec<Used>,
}

#[derive(Serialize)]
struct Leader {
    name: String,
    /// It is this process.
    here: bool,
}

#[derive(Serialize)]
struct Checks {
    ledger: LedgerCheck,
    accepting: &'static str,
}

/// `GET /livez`: 200 while the process runs.
pub(super) async fn livez(_: Anyone) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(r#"{"alive":true}"#)
}

/// `GET /readyz`: 200 if a callback can be kept now, else 503; the body says which check failed.
pub(super) async fn readyz(_: Anyone, desk: web::Data<Desk>) -> HttpResponse {
    let draining = desk.draining.load(Ordering::Relaxed);
    let (ledger, kept) = desk.probe.look().await;
    let here = desk.ledger.term().borrow().is_some();
    let topology = desk.metrics.topology.last();
    let readiness = Readiness {
        ready: !draining && kept,
        checks: Checks { ledger, accepting: if draining { "draining" } else { "ok" } },
        broker: if desk.metrics.relay.connected() { "connected" } else { "disconnected" },
        leader: desk.ledger.leader().map(|name| Leader { name, here }),
        topology: topology.as_deref(),
        configuration: desk.access.configuration(),
        credentials: desk.metrics.uses.known(),
    };
    let mut response = if readiness.ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.json(readiness)
}

/// `GET /metrics`, in the format that `Accept` requests. Ledger statistics are read now; if that fails, the last ones
/// are shown.
pub(super) async fn metrics(_: Anyone, request: HttpRequest, desk: web::Data<Desk>) -> HttpResponse {
    let dropped = desk.ledger.refusals_dropped();
    desk.metrics.callbacks.refusals_dropped(dropped.known, dropped.strangers);
    desk.metrics.ledger.set_leads(desk.ledger.term().borrow().is_some());
    match tokio::time::timeout(STATS_TIMEOUT, desk.ledger.stats()).await {
        Ok(Ok(stats)) => {
            for &state in State::ALL {
                let rows = match state {
                    State::Pending => stats.pending,
                    State::Published => stats.published,
                    State::Parked => stats.parked,
                    State::Rejected => stats.rejected,
                    State::Unrouted => stats.unrouted,
                };
                desk.metrics.ledger.set_rows(state.as_str(), rows);
            }
            let age = stats.oldest_pending_at.map_or(Duration::ZERO, |at| Timestamp::now().since(at));
            desk.metrics.ledger.set_oldest_pending(age);
            if let Some(remembered) = stats.remembered {
                desk.metrics.ledger.set_remembered(remembered.commands, remembered.forgotten);
            }
            desk.metrics.dead_letters.set_strays(stats.strays);
            desk.metrics.outcomes.set_waiting(stats.outcomes_pending, stats.outcomes_parked);
            if let Some(synchronous) = stats.standbys {
                desk.metrics.ledger.set_standbys(synchronous);
            }
            desk.metrics.ledger.set_room(stats.size_bytes, stats.wal_bytes, stats.free_bytes);
        }
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "ledger metrics are stale");
        }
        Err(_elapsed) => tracing::warn!(timeout = ?STATS_TIMEOUT, "ledger metrics are stale"),
    }
    let form = negotiation::exposition(Accept::parse(&request).ok().as_ref());
    HttpResponse::Ok()
        .content_type(form.content_type())
        .insert_header((VARY, ACCEPT.as_str()))
        .body(form.of(desk.metrics.render()))
}
