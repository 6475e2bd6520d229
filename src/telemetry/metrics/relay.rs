//! Publishes, and the connection to the broker.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

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
    sessions: AtomicU64,
    unanswered_ms: AtomicU64,
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
            sessions: AtomicU64::default(),
            unanswered_ms: AtomicU64::default(),
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
        if connected {
            self.sessions.fetch_add(1, Ordering::Relaxed);
        }
        self.connected.set(connected.into());
        self.set_unanswered(Duration::ZERO);
    }

    /// Sets whether the broker blocks publishing (`connection.blocked`).
    pub fn set_blocked(&self, blocked: bool) {
        self.blocked.set(blocked.into());
    }

    /// Sets for how long the broker has left the oldest publish of this session unanswered.
    pub fn set_unanswered(&self, since: Duration) {
        self.unanswered_ms.store(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// For how long the oldest publish has been unanswered, as last set.
    #[must_use]
    pub fn unanswered(&self) -> Duration {
        Duration::from_millis(self.unanswered_ms.load(Ordering::Relaxed))
    }

    /// How many publishes were confirmed.
    #[must_use]
    pub fn confirmed(&self) -> u64 {
        self.publishes[PublishResult::Confirmed as usize].get()
    }

    /// Tells this session with the broker from others; `None` if the relay is not connected.
    #[must_use]
    pub fn session(&self) -> Option<u64> {
        self.connected().then(|| self.sessions.load(Ordering::Relaxed))
    }

    /// Whether the relay is connected, as last set.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.connected.get() == 1
    }

    /// Whether the broker blocks publishing, as last set.
    #[must_use]
    pub fn blocked(&self) -> bool {
        self.blocked.get() == 1
    }

    /// Counts an enriched command by status. The statuses are a closed list.
    pub fn enriched(&self, status: &'static str) {
        self.enrichments.get_or_create(&[("status", status)]).inc();
    }
}
