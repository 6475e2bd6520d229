//! Callbacks and their answers.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use strum::{IntoStaticStr, VariantArray};

use super::{DURATION_BOUNDS, counters, registered, words};

/// The label `endpoint` of callbacks whose endpoint is not configured. No endpoint can have this name.
pub const UNKNOWN_ENDPOINT: &str = "-";

/// How waiting for a worker's report ended, where the approver hears the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Waited {
    /// The worker reported.
    Heard,
    /// It did not report in time.
    Nothing,
    /// Too many callbacks were waiting: answered at once.
    Full,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallbackLabels {
    endpoint: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    endpoint: String,
}

/// Callbacks and their answers.
#[derive(Debug)]
pub struct Callbacks {
    answered: Family<CallbackLabels, Counter>,
    duration: Histogram,
    probes: Family<EndpointLabels, Counter>,
    waited: Box<[Counter]>,
    /// Of known senders and of strangers.
    refusals_dropped: Box<[Counter]>,
}

impl Callbacks {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            answered: registered(
                registry,
                "callbacks",
                "Callbacks answered, by endpoint and outcome",
                Family::default(),
            ),
            duration: registered(
                registry,
                "callback_duration_seconds",
                "Time from the first byte of a callback's body to its answer",
                Histogram::new(DURATION_BOUNDS),
            ),
            probes: registered(
                registry,
                "probes",
                "Probes of countersign doctor answered, by endpoint; they are not counted as callbacks",
                Family::default(),
            ),
            waited: counters(
                registry,
                "answers_waited",
                "Answers that were to wait for the worker's report, by how that ended",
                "result",
                words::<Waited>(),
            ),
            refusals_dropped: counters(
                registry,
                "refusals_dropped",
                "Refused callbacks that are not kept, because too many came or the disk failed, by whether the sender is known",
                "sender",
                ["known", "stranger"].into_iter(),
            ),
        }
    }

    /// The counter of one endpoint and outcome, starting at zero. Fetched once at start: counting takes no lock.
    #[must_use]
    pub fn counter(&self, endpoint: &str, outcome: &'static str) -> Counter {
        self.answered.get_or_create(&CallbackLabels { endpoint: endpoint.to_owned(), outcome }).clone()
    }

    /// Ends the series of an endpoint and outcome. A counter still in use is no longer exported.
    pub fn forget_counter(&self, endpoint: &str, outcome: &'static str) {
        self.answered.remove(&CallbackLabels { endpoint: endpoint.to_owned(), outcome });
    }

    /// The counter of one endpoint's probes, starting at zero.
    #[must_use]
    pub fn probe_counter(&self, endpoint: &str) -> Counter {
        self.probes.get_or_create(&EndpointLabels { endpoint: endpoint.to_owned() }).clone()
    }

    /// Ends the series of an endpoint's probes. A counter still in use is no longer exported.
    pub fn forget_probe_counter(&self, endpoint: &str) {
        self.probes.remove(&EndpointLabels { endpoint: endpoint.to_owned() });
    }

    /// Counts an answer that was to wait for the worker's report.
    pub fn waited(&self, waited: Waited) {
        self.waited[waited as usize].inc();
    }

    /// Records how long a callback took, whatever its outcome.
    pub fn took(&self, duration: Duration) {
        self.duration.observe(duration.as_secs_f64());
    }

    /// Sets how many refused callbacks were not kept since the start.
    pub fn refusals_dropped(&self, known: u64, strangers: u64) {
        for (counter, count) in self.refusals_dropped.iter().zip([known, strangers]) {
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }
}
