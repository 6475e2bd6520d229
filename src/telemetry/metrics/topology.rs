//! The last inspection of the broker's exchanges and queues, for `/metrics`, `/readyz` and others.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use serde::{Serialize, Serializer, ser::SerializeMap};
use strum::{IntoStaticStr, VariantArray};

use super::{Label, counters, registered, words};
use crate::time::Timestamp;

/// A queue's purpose, whatever its name: the values of the label `queue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    /// Commands for workers (`amqp.queue`).
    Commands,
    /// Commands that no queue was bound for.
    Unrouted,
    /// Commands that workers rejected or that were delivered too often, and refused reports.
    Dead,
    /// Reports of workers (`outcomes.queue`).
    Outcomes,
}

impl Role {
    /// All roles.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The value of the label `queue`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether it should always have a consumer. The other two are for people.
    #[must_use]
    pub fn is_consumed(self) -> bool {
        matches!(self, Self::Commands | Self::Outcomes)
    }
}

/// Counts of a queue, from the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Ready messages. Messages held by a consumer without acknowledgement are not counted.
    pub messages: u32,
    /// Consumers.
    pub consumers: u32,
}

/// A fault of an exchange, a queue or a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// It does not exist.
    Missing,
    /// It exists, declared with other properties.
    DeclaredOtherwise,
    /// The user may not declare or inspect it.
    NotPermitted,
    /// The broker refuses it for another reason, such as a limit of the virtual host. The log has its message.
    Refused,
}

/// An object with a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// `queue NAME`, `exchange NAME`, or `binding of queue NAME to exchange NAME`.
    pub object: String,
    /// The fault.
    pub problem: Problem,
}

/// The result of an inspection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The time of the inspection.
    pub checked_at: Timestamp,
    /// By [`Role`], in the order of [`Role::ALL`]; `None` if there is no such queue, or it could not be inspected.
    pub queues: [Option<Counts>; Role::ALL.len()],
    /// Faults that could not be repaired.
    pub faults: Vec<Fault>,
}

impl View {
    /// Counts of one queue.
    #[must_use]
    pub fn queue(&self, role: Role) -> Option<Counts> {
        self.queues[role as usize]
    }
}

impl Serialize for View {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Queues<'a>(&'a View);
        impl Serialize for Queues<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer
                    .collect_map(Role::ALL.iter().copied().map(|role| (role.as_str(), self.0.queue(role))))
            }
        }
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("checked_at", &self.checked_at)?;
        map.serialize_entry("faults", &self.faults)?;
        map.serialize_entry("queues", &Queues(self))?;
        map.end()
    }
}

/// The result of an inspection: the values of the label `result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum CheckResult {
    /// No faults.
    Ok,
    /// Something was missing and was declared again.
    Repaired,
    /// Some faults remain.
    Faulty,
    /// The broker refused the inspection or did not answer.
    Failed,
}

/// The last [`View`], and the metrics derived from it. While the state is unknown, because the relay is not connected
/// or inspections are off, there are no series of queues: the last numbers would be stale.
#[derive(Debug)]
pub struct Topology {
    last: Mutex<Option<Arc<View>>>,
    messages: Family<Label, Gauge>,
    consumers: Family<Label, Gauge>,
    faults: Gauge,
    checks: Box<[Counter]>,
}

impl Topology {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            last: Mutex::default(),
            messages: registered(
                registry,
                "queue_messages",
                "Messages ready in a queue at the last inspection, without unacknowledged ones",
                Family::default(),
            ),
            consumers: registered(
                registry,
                "queue_consumers",
                "Consumers of a queue at the last inspection",
                Family::default(),
            ),
            faults: registered(
                registry,
                "topology_faults",
                "Exchanges, queues and bindings that did not match the topology at the last inspection",
                Gauge::default(),
            ),
            checks: counters(
                registry,
                "topology_checks",
                "Inspections of exchanges and queues, by result",
                "result",
                words::<CheckResult>(),
            ),
        }
    }

    /// The last inspection; `None` while the state is unknown.
    #[must_use]
    pub fn last(&self) -> Option<Arc<View>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the last view; `None` if the state is unknown.
    pub fn set(&self, view: Option<View>) {
        for &role in Role::ALL {
            let labels = [("queue", role.as_str())];
            match view.as_ref().and_then(|view| view.queue(role)) {
                Some(counts) => {
                    self.messages.get_or_create(&labels).set(counts.messages.into());
                    if role.is_consumed() {
                        self.consumers.get_or_create(&labels).set(counts.consumers.into());
                    }
                }
                None => {
                    self.messages.remove(&labels);
                    self.consumers.remove(&labels);
                }
            }
        }
        let faults = view.as_ref().map_or(0, |view| view.faults.len());
        self.faults.set(i64::try_from(faults).unwrap_or(i64::MAX));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = view.map(Arc::new);
    }

    /// Counts an inspection.
    pub fn checked(&self, result: CheckResult) {
        self.checks[result as usize].inc();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn view() -> View {
        let counts = |messages, consumers| Some(Counts { messages, consumers });
        View {
            checked_at: "2026-11-20T08:15:30.12Z".parse().unwrap(),
            queues: [counts(7, 2), counts(0, 0), None, counts(0, 1)],
            faults: vec![Fault { object: "queue countersign.dead".to_owned(), problem: Problem::Missing }],
        }
    }

    #[test]
    fn what_was_seen_is_shown_and_what_is_not_known_has_no_series() {
        let metrics = Metrics::new();
        let series = || -> Vec<String> {
            let text = metrics.render();
            let ours = |line: &&str| {
                line.starts_with("countersign_queue") || line.starts_with("countersign_topology_faults")
            };
            text.lines().filter(ours).map(str::to_owned).collect()
        };
        assert_eq!(series(), ["countersign_topology_faults 0"]);
        metrics.topology.set(Some(view()));
        let mut shown = series();
        shown.sort();
        assert_eq!(
            shown,
            [
                "countersign_queue_consumers{queue=\"commands\"} 2",
                "countersign_queue_consumers{queue=\"outcomes\"} 1",
                "countersign_queue_messages{queue=\"commands\"} 7",
                "countersign_queue_messages{queue=\"outcomes\"} 0",
                "countersign_queue_messages{queue=\"unrouted\"} 0",
                "countersign_topology_faults 1",
            ]
        );
        metrics.topology.set(None);
        assert_eq!(series(), ["countersign_topology_faults 0"]);
        assert!(metrics.topology.last().is_none());
        metrics.topology.checked(CheckResult::Repaired);
        let text = metrics.render();
        for line in [
            "countersign_topology_checks_total{result=\"repaired\"} 1",
            "countersign_topology_checks_total{result=\"failed\"} 0",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_view_is_shown_by_the_roles_of_the_queues() {
        assert_eq!(
            serde_json::to_value(view()).unwrap(),
            json!({
                "checked_at": "2026-11-20T08:15:30.120Z",
                "faults": [{ "object": "queue countersign.dead", "problem": "missing" }],
                "queues": {
                    "commands": { "messages": 7, "consumers": 2 },
                    "unrouted": { "messages": 0, "consumers": 0 },
                    "dead": null,
                    "outcomes": { "messages": 0, "consumers": 1 },
                },
            })
        );
    }
}
