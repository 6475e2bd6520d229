//! Publishes, and the connection to the broker.

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use strum::{IntoStaticStr, VariantArray};

use super::{DURATION_BOUNDS, Label, counters, registered, words};

/// The outcome of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum PublishResult {
    /// Confirmed by the broker and routed to a queue.
    Confirmed,
    /// Returned by the broker: no queue was bound for it.
    Returned,
    /// Refused by the broker (`basic.nack`).
    Nacked,
    /// Not answered before the connection ended or the deadline passed; published again later.
    Unanswered,
}

/// Publishes, and the connection to the broker.
#[derive(Debug)]
pub struct RelayMetrics {
    publishes: Box<[Counter]>,
    confirm_duration: Histogram,
    connected: Gauge,
    blocked: Gauge,
    enrichments: Family<Label, Counter>,
}

impl RelayMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            publishes: counters(
                registry,
                "publishes",
                "Publishes to the broker, by result",
                "result",
                words::<PublishResult>(),
            ),
            confirm_duration: registered(
                registry,
                "confirm_duration_seconds",
                "Time from a publish to the broker's confirm",
                Histogram::new(DURATION_BOUNDS),
            ),
            connected: registered(
                registry,
                "amqp_connected",
                "1 while connected to the broker",
                Gauge::default(),
            ),
            blocked: registered(
                registry,
                "amqp_blocked",
                "1 while the broker blocks publishing",
                Gauge::default(),
            ),
            enrichments: registered(
                registry,
                "enrichments",
                "Commands prepared for publishing at endpoints with enrichment, by how far they were completed",
                Family::default(),
            ),
        }
    }

    /// Counts ended publishes.
    pub fn published(&self, result: PublishResult, count: u64) {
        self.publishes[result as usize].inc_by(count);
    }

    /// Records how long the broker took to confirm.
    pub fn confirm_took(&self, duration: Duration) {
        self.confirm_duration.observe(duration.as_secs_f64());
    }

    /// Sets whether the relay is connected to the broker.
    pub fn set_connected(&self, connected: bool) {
        self.connected.set(connected.into());
    }

    /// Sets whether the broker blocks publishing (`connection.blocked`).
    pub fn set_blocked(&self, blocked: bool) {
        self.blocked.set(blocked.into());
    }

    /// Whether the relay is connected, as last set.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.connected.get() == 1
    }

    /// Counts an enriched command by status. The statuses are a closed list.
    pub fn enriched(&self, status: &'static str) {
        self.enrichments.get_or_create(&[("status", status)]).inc();
    }
}
