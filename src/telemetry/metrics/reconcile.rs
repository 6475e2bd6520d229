//! Comparisons with the approval center.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{Label, clamped, registered};

/// Comparisons with the approval center.
#[derive(Debug)]
pub struct Reconcile {
    reconciled: Family<Label, Counter>,
    findings: Family<Label, Gauge>,
    passes: Family<Label, Counter>,
}

impl Reconcile {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            reconciled: registered(
                registry,
                "reconciled",
                "Times the approval center was asked for a decision, by what it showed",
                Family::default(),
            ),
            findings: registered(
                registry,
                "findings",
                "Decisions that are not visible at the approval center, by what it shows instead",
                Family::default(),
            ),
            passes: registered(
                registry,
                "reconciliation_passes",
                "Comparisons with the approval center, by result",
                Family::default(),
            ),
        }
    }

    /// Counts how often the approval center, asked for a decision, showed this result. The results are a closed list;
    /// 0 makes the series appear.
    pub fn reconciled(&self, verdict: &'static str, count: u64) {
        self.reconciled.get_or_create(&[("verdict", verdict)]).inc_by(count);
    }

    /// Sets how many decisions are not visible at the approval center, by the result shown instead.
    pub fn set_findings(&self, verdict: &'static str, count: u64) {
        self.findings.get_or_create(&[("verdict", verdict)]).set(clamped(count));
    }

    /// Counts a comparison with the approval center: completed or failed.
    pub fn passed(&self, whole: bool) {
        let result = if whole { "done" } else { "failed" };
        self.passes.get_or_create(&[("result", result)]).inc();
    }
}
