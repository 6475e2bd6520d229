//! Workers' reports, and showing them.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use strum::{IntoStaticStr, VariantArray};

use super::{clamped, counters, registered, words};

/// The result of processing a worker's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum ReportResult {
    /// Kept: the first of its command, or different from the last. The command was done as decided.
    Applied,
    /// Kept. The third party will not do it.
    Refused,
    /// Kept. The third party could not do it.
    Failed,
    /// Same content as the last report.
    Duplicate,
    /// Not a report; dead-lettered.
    Malformed,
    /// Its command is unknown; dead-lettered.
    UnknownCommand,
    /// It names an instance, a definition or an address other than its command's; dead-lettered.
    NotPermitted,
}

/// The result of an attempt to show an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum ShowingResult {
    /// The approval center accepted it.
    Shown,
    /// It is retried later.
    Retried,
    /// It was rejected, or failed too often, and waits for an operator.
    Parked,
}

/// Where outcomes are shown: the values of the label `surface`.
const SURFACES: [&str; 2] = ["card", "instance"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShowingLabels {
    surface: &'static str,
    result: &'static str,
}

/// Workers' reports, and showing them.
#[derive(Debug)]
pub struct Outcomes {
    reports: Box<[Counter]>,
    showings: [Box<[Counter]>; SURFACES.len()],
    pending: Gauge,
    parked: Gauge,
}

impl Outcomes {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let showings: Family<ShowingLabels, Counter> = registered(
            registry,
            "showings",
            "Attempts to show an outcome at the approval center, by where and result",
            Family::default(),
        );
        Self {
            reports: counters(
                registry,
                "outcomes",
                "Reports of workers, by what they say or what is wrong with them",
                "outcome",
                words::<ReportResult>(),
            ),
            showings: SURFACES.map(|surface| {
                words::<ShowingResult>()
                    .map(|result| showings.get_or_create(&ShowingLabels { surface, result }).clone())
                    .collect()
            }),
            pending: registered(
                registry,
                "outcomes_pending",
                "Cards and instances whose outcome is not shown yet",
                Gauge::default(),
            ),
            parked: registered(
                registry,
                "outcomes_parked",
                "Cards and instances whose outcome is parked",
                Gauge::default(),
            ),
        }
    }

    /// Counts a worker's report.
    pub fn reported(&self, result: ReportResult) {
        self.reports[result as usize].inc();
    }

    /// Counts an attempt to show an outcome, on a card or in an instance.
    pub fn shown(&self, on_card: bool, result: ShowingResult) {
        self.showings[usize::from(!on_card)][result as usize].inc();
    }

    /// Sets how many outcomes are still to be shown, and how many wait for an operator.
    pub fn set_waiting(&self, pending: u64, parked: u64) {
        self.pending.set(clamped(pending));
        self.parked.set(clamped(parked));
    }
}
