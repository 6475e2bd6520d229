//! What was last seen of exchanges and queues at the broker: for `/metrics`, `/readyz` and others.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use serde::{Serialize, Serializer, ser::SerializeMap};
use strum::{IntoStaticStr, VariantArray};

use super::{Label, counters, registered, words};
use crate::time::Timestamp;

/// A queue by what it is for, whatever its name: the values of the label `queue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    /// Commands for workers (`amqp.queue`).
    Commands,
    /// Commands that no queue was bound for.
    Unrouted,
    /// What workers rejected, what was delivered too often, and reports that were refused.
    Dead,
    /// Reports of workers (`outcomes.queue`).
    Outcomes,
}

impl Role {
    /// All of them.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The value of the label `queue`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether somebody is to consume it all the time. The other two are for people to look at.
    #[must_use]
    pub fn is_consumed(self) -> bool {
        matches!(self, Self::Commands | Self::Outcomes)
    }
}

/// What a broker tells of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Messages that are ready. What a consumer holds and has not acknowledged is not counted.
    pub messages: u32,
    /// Consumers.
    pub consumers: u32,
}

/// What is wrong with an exchange, a queue or a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// It is not there.
    Missing,
    /// It is there, declared with other properties.
    DeclaredOtherwise,
    /// The user may not declare or look at it.
    NotPermitted,
    /// The broker refuses it for another reason, such as a limit of the virtual host. The log has its words.
    Refused,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// `queue NAME`, `exchange NAME`, or `binding of queue NAME to exchange NAME`.
    pub object: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What was seen at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// When.
    pub checked_at: Timestamp,
    /// By [`Role`], in the order of [`Role::ALL`]; `None` where there is no such queue, or it could not be seen.
    pub queues: [Option<Counts>; Role::ALL.len()],
    /// What is not as it should be, and could not be put right.
    pub faults: Vec<Fault>,
}

impl View {
    /// What was seen of one queue.
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

/// How a look at the broker ended: the values of the label `result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum CheckResult {
    /// All was as it should be.
    Ok,
    /// Something was missing, and was declared again.
    Repaired,
    /// Something is not as it should be.
    Faulty,
    /// The broker did not let us look, or did not answer.
    Failed,
}

/// The last [`View`], and the metrics that are made of it. While nothing is known, because the relay is not connected or
/// nobody looks, there are no series of queues: the last numbers would tell of a time that is over.
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

    /// The last look; `None` while nothing is known.
    #[must_use]
    pub fn last(&self) -> Option<Arc<View>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what was seen in place of what was seen before; `None` when nothing is known any longer.
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

    /// Counts a look.
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
