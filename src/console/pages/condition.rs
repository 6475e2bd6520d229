//! What the service knows of itself, as faults: what `/health` lights, its checks, its headline and the alarms of the
//! overview are all made from [`Condition::standing`], so they cannot contradict each other.

use std::{sync::atomic::Ordering, time::Duration};

use super::{Desk, Fault, Phrases, Viewer, span};
use crate::{
    console::{
        access::{Configuration, ReloadResult},
        health::LedgerCheck,
    },
    ledger::{Stats, findings::Overview},
    telemetry::metrics::topology::Role,
    time::Timestamp,
};

/// Decisions that wait for longer than this need an operator.
const WAITED: Duration = Duration::from_secs(60);

/// Whether a fault is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    Absent,
    /// Nobody has looked, or what would tell cannot be read; why.
    Unknown(&'static str),
    /// It is there; what it is, in a few words.
    Live(String),
}

/// What the service knows of itself. Whatever fails, the rest is shown.
pub(super) struct Condition {
    pub(super) ledger: LedgerCheck,
    /// A callback can be kept now.
    pub(super) ready: bool,
    pub(super) draining: bool,
    pub(super) connected: bool,
    pub(super) blocked: bool,
    /// Faults of exchanges and queues; `None` while unknown.
    pub(super) topology: Option<Vec<String>>,
    /// Whether the queue of commands has a consumer; `None` while unknown.
    pub(super) consumed: Option<bool>,
    pub(super) configuration: Configuration,
    pub(super) stats: Option<Stats>,
    pub(super) overview: Option<Overview>,
}

impl Condition {
    pub(super) async fn of(viewer: &Viewer, desk: &Desk) -> Self {
        let draining = desk.draining.load(Ordering::Relaxed);
        let ((ledger, kept), stats, overview) = tokio::join!(
            desk.probe.look(),
            viewer.look(desk.ledger.stats()),
            viewer.look(desk.ledger.overview())
        );
        let topology = desk.metrics.topology.last();
        let faults =
            topology.as_ref().map(|view| view.faults.iter().map(|fault| fault.object.clone()).collect());
        let commands = topology.as_ref().and_then(|view| view.queue(Role::Commands));
        Self {
            ledger,
            ready: kept && !draining,
            draining,
            connected: desk.metrics.relay.connected(),
            blocked: desk.metrics.relay.blocked(),
            topology: faults,
            consumed: commands.map(|counts| counts.consumers > 0),
            configuration: desk.access.configuration(),
            stats: stats.ok(),
            overview: overview.ok(),
        }
    }

    fn reload_failed(&self) -> bool {
        self.configuration.last_reload.is_some_and(|reload| reload.result == ReloadResult::Rejected)
    }

    /// Whether a fault is there now.
    pub(super) fn standing(&self, fault: Fault, t: &Phrases) -> Standing {
        let told = |is_live: bool| {
            if is_live { Standing::Live(t.fault(fault).short.to_owned()) } else { Standing::Absent }
        };
        let known = |known: Option<bool>| known.map_or(Standing::Unknown(t.not_inspected), told);
        let counted = |of: fn(&Stats) -> u64, words: fn(&str) -> String| match &self.stats {
            None => Standing::Unknown(t.unknown),
            Some(stats) if of(stats) == 0 => Standing::Absent,
            Some(stats) => Standing::Live(words(&of(stats).to_string())),
        };
        match fault {
            Fault::Ledger => match self.ledger {
                LedgerCheck::Ok | LedgerCheck::Overloaded => Standing::Absent,
                LedgerCheck::NoRoom => Standing::Live(t.ledger_no_room.to_owned()),
                LedgerCheck::NotDurable => Standing::Live(t.ledger_not_durable.to_owned()),
                LedgerCheck::Unavailable => Standing::Live(t.ledger_unavailable.to_owned()),
                LedgerCheck::Timeout => Standing::Live(t.ledger_timeout.to_owned()),
            },
            Fault::Overloaded => told(self.ledger == LedgerCheck::Overloaded),
            Fault::Draining => told(self.draining),
            Fault::Broker => told(!self.connected),
            Fault::Blocked => told(self.connected && self.blocked),
            Fault::Topology => match &self.topology {
                Some(faults) if !faults.is_empty() => Standing::Live((t.topology_is)(&faults.join(", "))),
                topology => known(topology.as_ref().map(|_| false)),
            },
            Fault::Workers => known(self.consumed.map(|consumed| !consumed)),
            Fault::Waiting => match &self.stats {
                None => Standing::Unknown(t.unknown),
                Some(stats) => {
                    let waited = stats.oldest_pending_at.map(|at| Timestamp::now().since(at));
                    waited.filter(|waited| *waited > WAITED).map_or(Standing::Absent, |waited| {
                        Standing::Live((t.pending_is)(&stats.pending.to_string(), &span(waited, t)))
                    })
                }
            },
            Fault::Parked => counted(|stats| stats.parked, t.parked_is),
            Fault::Rejected => counted(|stats| stats.rejected, t.rejected_is),
            Fault::Unrouted => counted(|stats| stats.unrouted, t.unrouted_is),
            Fault::Outcomes => counted(|stats| stats.outcomes_parked, t.outcomes_parked_is),
            Fault::Strays => counted(|stats| stats.strays, t.strays_is),
            Fault::Findings => match &self.overview {
                None => Standing::Unknown(t.unknown),
                Some(overview) if overview.open() > 0 => {
                    Standing::Live((t.findings_is)(&overview.open().to_string()))
                }
                Some(overview) if overview.passed_at.is_none() => Standing::Unknown(t.not_compared),
                Some(_) => Standing::Absent,
            },
            Fault::Reload => told(self.reload_failed()),
        }
    }

    /// The faults that are there now.
    pub(super) fn live(&self, t: &Phrases) -> Vec<(Fault, String)> {
        let live = |fault: &Fault| match self.standing(*fault, t) {
            Standing::Live(text) => Some((*fault, text)),
            Standing::Absent | Standing::Unknown(_) => None,
        };
        Fault::ALL.iter().filter_map(live).collect()
    }
}
