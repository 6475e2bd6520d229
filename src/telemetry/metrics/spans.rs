//! Spans for the collector.

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use strum::{IntoStaticStr, VariantArray};

use super::{counters, words};

/// How a span ended.
#[derive(Debug, Clone, Copy, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
enum Result {
    Sent,
    Failed,
    Dropped,
}

/// Spans for the collector.
#[derive(Debug, Clone)]
pub struct Spans {
    results: Box<[Counter]>,
}

impl Spans {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let results = counters(
            registry,
            "spans",
            "Spans for the collector: sent, failed (it did not take them) or dropped (no room in the queue)",
            "result",
            words::<Result>(),
        );
        Self { results }
    }

    /// The collector took them.
    pub fn sent(&self, spans: u64) {
        self.results[Result::Sent as usize].inc_by(spans);
    }

    /// The collector did not take them.
    pub fn failed(&self, spans: u64) {
        self.results[Result::Failed as usize].inc_by(spans);
    }

    /// There was no room in the queue.
    pub fn dropped(&self, spans: u64) {
        self.results[Result::Dropped as usize].inc_by(spans);
    }
}
