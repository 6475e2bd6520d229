//! Messages that nobody took.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use strum::{IntoStaticStr, VariantArray};

use super::{clamped, counters, registered, words};

/// What became of a message from the queue of dead letters or of unrouted commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum LetterResult {
    /// A command that waits for an operator.
    Open,
    /// A command that was requeued since, or has an outcome.
    Closed,
    /// No command of this ledger.
    Stray,
}

/// Messages that nobody took.
#[derive(Debug)]
pub struct DeadLetterMetrics {
    collected: Box<[Counter]>,
    strays: Gauge,
}

impl DeadLetterMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            collected: counters(
                registry,
                "dead_letters",
                "Messages taken from the queues of dead letters and of unrouted commands, by what they are",
                "result",
                words::<LetterResult>(),
            ),
            strays: registered(
                registry,
                "ledger_strays",
                "Dead letters kept that are no command of this ledger",
                Gauge::default(),
            ),
        }
    }

    /// Counts a message.
    pub fn collected(&self, result: LetterResult) {
        self.collected[result as usize].inc();
    }

    /// Sets how many strays are kept.
    pub fn set_strays(&self, strays: u64) {
        self.strays.set(clamped(strays));
    }
}
