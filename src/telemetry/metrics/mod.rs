//! The catalogue of metrics: names, meanings and labels. Label sets are closed: endpoint names come from the
//! configuration, outcomes and results from enums; sender data never becomes a label.

mod callbacks;
mod dead_letters;
mod http;
mod ledger;
mod outcomes;
mod process;
mod reconcile;
mod relay;
mod spans;
#[cfg(test)]
mod tests;
pub mod topology;
pub mod uses;

use std::{fmt, sync::Arc};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family},
    registry::{Metric, Registry},
};
use strum::VariantArray;

use callbacks::Callbacks;
use dead_letters::DeadLetterMetrics;
use http::Http;
use ledger::LedgerMetrics;
use outcomes::Outcomes;
use process::Process;
use reconcile::Reconcile;
use relay::RelayMetrics;
use topology::Topology;
use uses::Uses;

pub use {
    callbacks::{UNKNOWN_ENDPOINT, Waited},
    dead_letters::LetterResult,
    http::{HandshakeFailure, LimitCause, Misdirected},
    outcomes::{ReportResult, ShowingResult},
    process::CertificateUse,
    relay::PublishResult,
    spans::Spans,
};

/// All metrics of one process.
pub struct Metrics {
    registry: Registry,
    /// Callbacks and their answers.
    pub callbacks: Callbacks,
    /// The last use of each credential.
    pub uses: Uses,
    /// Other events on the public listener.
    pub http: Http,
    /// The contents of the ledger.
    pub ledger: LedgerMetrics,
    /// Publishes, and the connection to the broker.
    pub relay: RelayMetrics,
    /// The last inspection of the broker's exchanges and queues, with its metrics.
    pub topology: Topology,
    /// Workers' reports, and showing them.
    pub outcomes: Outcomes,
    /// Messages that nobody took.
    pub dead_letters: DeadLetterMetrics,
    /// Comparisons with the approval center.
    pub reconcile: Reconcile,
    /// Spans for the collector.
    pub spans: Spans,
    /// The process itself.
    pub process: Process,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Bounds in seconds: 100 µs to 10 s, when the platform gives up (platform.md#callback-transport).
const DURATION_BOUNDS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];

/// A label with a closed list of values.
type Label = [(&'static str, &'static str); 1];

/// Registers a metric as it is: at zero.
fn registered<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// Registers a counter for each value of a label, each at zero.
fn counters(
    registry: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    values: impl Iterator<Item = &'static str>,
) -> Box<[Counter]> {
    let family = registered(registry, name, help, Family::<Label, Counter>::default());
    values.map(|value| family.get_or_create(&[(label, value)]).clone()).collect()
}

/// The values of a closed list, in its order.
fn words<T: VariantArray + Copy + Into<&'static str>>() -> impl Iterator<Item = &'static str> {
    T::VARIANTS.iter().map(|&variant| variant.into())
}

fn clamped(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Metrics {
    /// The metrics of a process, each at zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("countersign");
        Arc::new(Self {
            callbacks: Callbacks::register(&mut registry),
            uses: Uses::register(&mut registry),
            http: Http::register(&mut registry),
            ledger: LedgerMetrics::register(&mut registry),
            relay: RelayMetrics::register(&mut registry),
            topology: Topology::register(&mut registry),
            outcomes: Outcomes::register(&mut registry),
            dead_letters: DeadLetterMetrics::register(&mut registry),
            reconcile: Reconcile::register(&mut registry),
            spans: Spans::register(&mut registry),
            process: Process::register(&mut registry),
            registry,
        })
    }

    /// All metrics as OpenMetrics text; [`Exposition`](super::exposition::Exposition) converts it to other formats.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(8192);
        encode(&mut text, &self.registry).expect("writing to a String cannot fail");
        text
    }
}
