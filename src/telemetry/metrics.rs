//! The catalogue of metrics: every name, what is counted, and by which labels. Label sets are closed: endpoint names
//! come from the configuration, outcomes and results from enums; nothing a sender writes becomes a label.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

use super::{topology::Topology, uses::Uses};

/// The label `endpoint` of callbacks whose endpoint is not configured. No endpoint can have this name.
pub const UNKNOWN_ENDPOINT: &str = "-";

/// How a publish ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl PublishResult {
    /// Every result.
    pub const ALL: [Self; 4] = [Self::Confirmed, Self::Returned, Self::Nacked, Self::Unanswered];

    /// The value of the label `result`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Returned => "returned",
            Self::Nacked => "nacked",
            Self::Unanswered => "unanswered",
        }
    }
}

/// What became of a worker's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportResult {
    /// Kept: the first of its command, or one that says something else. The command was done as decided.
    Applied,
    /// Kept. The third party will not do it.
    Refused,
    /// Kept. The third party could not do it.
    Failed,
    /// It says what the last one said.
    Duplicate,
    /// It is no report; rejected to the dead letters.
    Malformed,
    /// Its command is not known; rejected to the dead letters.
    UnknownCommand,
    /// It speaks of an instance, a definition or an address that is not its command's; rejected to the dead letters.
    NotPermitted,
}

impl ReportResult {
    /// Every result.
    pub const ALL: [Self; 7] = [
        Self::Applied,
        Self::Refused,
        Self::Failed,
        Self::Duplicate,
        Self::Malformed,
        Self::UnknownCommand,
        Self::NotPermitted,
    ];

    /// The value of the label `outcome`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Duplicate => "duplicate",
            Self::Malformed => "malformed",
            Self::UnknownCommand => "unknown_command",
            Self::NotPermitted => "not_permitted",
        }
    }
}

/// How an attempt to show an outcome ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShowingResult {
    /// The approval center has it.
    Shown,
    /// It is tried again later.
    Retried,
    /// It was refused for good, or failed too often, and waits for an operator.
    Parked,
}

impl ShowingResult {
    /// Every result.
    pub const ALL: [Self; 3] = [Self::Shown, Self::Retried, Self::Parked];

    /// The value of the label `result`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shown => "shown",
            Self::Retried => "retried",
            Self::Parked => "parked",
        }
    }
}

/// Whose refused callbacks were not kept: the values of the label `sender`.
const SENDERS: [&str; 2] = ["known", "stranger"];

/// Where outcomes are shown: the values of the label `surface`.
const SURFACES: [&str; 2] = ["card", "instance"];

/// Why a callback was not heard because of who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitCause {
    /// The peer sent more than its rate.
    Rate,
    /// The peer failed to authenticate too often.
    Failures,
    /// The peer is not in the allow-list, which may be in the mode that only warns.
    NotAllowed,
    /// The peer has as many connections as it may; one more was closed.
    Connections,
}

impl LimitCause {
    /// Every cause.
    pub const ALL: [Self; 4] = [Self::Rate, Self::Failures, Self::NotAllowed, Self::Connections];

    /// The value of the label `cause`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Failures => "failures",
            Self::NotAllowed => "not_allowed",
            Self::Connections => "connections",
        }
    }
}

/// What a certificate of ours is shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateUse {
    /// By the public listener, as the server's.
    Http,
    /// To the broker, as the client's.
    Amqp,
}

impl CertificateUse {
    /// The value of the label `use`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Amqp => "amqp",
        }
    }
}

/// Why a TLS handshake on the public listener failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// What came was not TLS: plain HTTP, most likely.
    NotTls,
    /// No version, cipher or protocol in common.
    NothingInCommon,
    /// The client does not accept our certificate.
    CertificateRefused,
    /// The client closed the connection.
    Closed,
    /// It did not end in time.
    Timeout,
    /// Anything else.
    Other,
}

impl HandshakeFailure {
    /// Every cause.
    pub const ALL: [Self; 6] = [
        Self::NotTls,
        Self::NothingInCommon,
        Self::CertificateRefused,
        Self::Closed,
        Self::Timeout,
        Self::Other,
    ];

    /// The value of the label `cause`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::NothingInCommon => "nothing_in_common",
            Self::CertificateRefused => "certificate_refused",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Other => "other",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UseLabels {
    r#use: &'static str,
}

/// What came to the public listener and is no callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misdirected {
    /// Somebody looks whether the listener is there.
    HealthCheck,
    /// A person, or a crawler.
    Browser,
    /// Nobody knows.
    Other,
}

impl Misdirected {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::HealthCheck, Self::Browser, Self::Other];

    /// The value of the label `kind`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HealthCheck => "health_check",
            Self::Browser => "browser",
            Self::Other => "other",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SenderLabels {
    sender: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShowingLabels {
    surface: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

/// All metrics of one process.
pub struct Metrics {
    registry: Registry,
    uses: Uses,
    callbacks: Family<CallbackLabels, Counter>,
    callback_duration: Histogram,
    probes: Family<EndpointLabels, Counter>,
    peers_limited: [Counter; LimitCause::ALL.len()],
    refusals_dropped: [Counter; SENDERS.len()],
    misdirected: [Counter; Misdirected::ALL.len()],
    handshake_failures: [Counter; HandshakeFailure::ALL.len()],
    certificate_not_after: Family<UseLabels, Gauge>,
    ledger_rows: Family<StateLabels, Gauge>,
    ledger_oldest_pending: Gauge<f64, AtomicU64>,
    ledger_size: Gauge<i64, AtomicI64>,
    ledger_wal: Gauge<i64, AtomicI64>,
    ledger_free: Gauge<i64, AtomicI64>,
    publishes: [Counter; PublishResult::ALL.len()],
    confirm_duration: Histogram,
    amqp_connected: Gauge<i64, AtomicI64>,
    amqp_blocked: Gauge<i64, AtomicI64>,
    enrichments: Family<StatusLabels, Counter>,
    reconciled: Family<VerdictLabels, Counter>,
    findings: Family<VerdictLabels, Gauge>,
    reconciliation_passes: Family<ResultLabels, Counter>,
    reloads_applied: Counter,
    reloads_rejected: Counter,
    outcomes: [Counter; ReportResult::ALL.len()],
    showings: [[Counter; ShowingResult::ALL.len()]; SURFACES.len()],
    remembered: Gauge<i64, AtomicI64>,
    forgotten: Counter,
    outcomes_pending: Gauge<i64, AtomicI64>,
    outcomes_parked: Gauge<i64, AtomicI64>,
    topology: Topology,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Bounds in seconds: 100 µs to 10 s, which is when the platform gives up (platform.md#callback-transport).
const DURATION_BOUNDS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];

impl Metrics {
    /// The metrics of a process that serves these endpoints, each at zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("countersign");
        let callbacks = Family::<CallbackLabels, Counter>::default();
        let uses = Uses::new(&mut registry);
        registry.register("callbacks", "Callbacks answered, by endpoint and outcome", callbacks.clone());
        let callback_duration = Histogram::new(DURATION_BOUNDS);
        registry.register(
            "callback_duration_seconds",
            "Time from the first byte of a callback's body to its answer",
            callback_duration.clone(),
        );
        let probes = Family::<EndpointLabels, Counter>::default();
        registry.register(
            "probes",
            "Probes of countersign doctor answered, by endpoint; they are not counted as callbacks",
            probes.clone(),
        );
        let family = Family::<CauseLabels, Counter>::default();
        registry.register(
            "peers_limited",
            "Callbacks, and connections, of peers over a limit, by cause",
            family.clone(),
        );
        let peers_limited =
            LimitCause::ALL.map(|cause| family.get_or_create(&CauseLabels { cause: cause.as_str() }).clone());
        let family = Family::<SenderLabels, Counter>::default();
        registry.register(
            "refusals_dropped",
            "Refused callbacks that are not kept, because too many came or the disk failed, by whether the sender is known",
            family.clone(),
        );
        let refusals_dropped = SENDERS.map(|sender| family.get_or_create(&SenderLabels { sender }).clone());
        let family = Family::<KindLabels, Counter>::default();
        registry.register(
            "misdirected_requests",
            "Requests to the public listener that are not callbacks, by kind; they are not counted as callbacks",
            family.clone(),
        );
        let misdirected =
            Misdirected::ALL.map(|kind| family.get_or_create(&KindLabels { kind: kind.as_str() }).clone());
        let family = Family::<CauseLabels, Counter>::default();
        registry.register(
            "tls_handshake_failures",
            "TLS handshakes of the public listener that failed, by cause",
            family.clone(),
        );
        let handshake_failures = HandshakeFailure::ALL
            .map(|cause| family.get_or_create(&CauseLabels { cause: cause.as_str() }).clone());
        let certificate_not_after = Family::<UseLabels, Gauge>::default();
        registry.register(
            "certificate_not_after_seconds",
            "When a certificate of countersign expires, in seconds since 1970, by what it is used for",
            certificate_not_after.clone(),
        );
        let ledger_rows = Family::<StateLabels, Gauge>::default();
        registry.register("ledger_rows", "Commands in the ledger, by state", ledger_rows.clone());
        let ledger_oldest_pending = Gauge::default();
        registry.register(
            "ledger_oldest_pending_seconds",
            "Age of the oldest command that is not published, 0 if there is none",
            ledger_oldest_pending.clone(),
        );
        let (ledger_size, ledger_wal, ledger_free) = (Gauge::default(), Gauge::default(), Gauge::default());
        registry.register("ledger_size_bytes", "Size of the ledger's database file", ledger_size.clone());
        registry.register("ledger_wal_bytes", "Size of the ledger's write-ahead log", ledger_wal.clone());
        registry.register("ledger_free_bytes", "Free space on the ledger's disk", ledger_free.clone());
        let family = Family::<ResultLabels, Counter>::default();
        registry.register("publishes", "Publishes to the broker, by result", family.clone());
        let publishes = PublishResult::ALL
            .map(|result| family.get_or_create(&ResultLabels { result: result.as_str() }).clone());
        let confirm_duration = Histogram::new(DURATION_BOUNDS);
        registry.register(
            "confirm_duration_seconds",
            "Time from a publish to the broker's confirm",
            confirm_duration.clone(),
        );
        let amqp_connected = Gauge::default();
        registry.register("amqp_connected", "1 while connected to the broker", amqp_connected.clone());
        let amqp_blocked = Gauge::default();
        registry.register("amqp_blocked", "1 while the broker blocks publishing", amqp_blocked.clone());
        let enrichments = Family::<StatusLabels, Counter>::default();
        registry.register(
            "enrichments",
            "Commands prepared for publishing at endpoints with enrichment, by how far they were completed",
            enrichments.clone(),
        );
        let reconciled = Family::<VerdictLabels, Counter>::default();
        registry.register(
            "reconciled",
            "Times the approval center was asked for a decision, by what it showed",
            reconciled.clone(),
        );
        let findings = Family::<VerdictLabels, Gauge>::default();
        registry.register(
            "findings",
            "Decisions that are not visible at the approval center, by what it shows instead",
            findings.clone(),
        );
        let reconciliation_passes = Family::<ResultLabels, Counter>::default();
        registry.register(
            "reconciliation_passes",
            "Comparisons with the approval center, by result",
            reconciliation_passes.clone(),
        );
        let family = Family::<ResultLabels, Counter>::default();
        registry.register("config_reloads", "Configuration reloads on SIGHUP, by result", family.clone());
        let reloads = |result| family.get_or_create(&ResultLabels { result }).clone();
        let (reloads_applied, reloads_rejected) = (reloads("applied"), reloads("rejected"));
        let family = Family::<OutcomeLabels, Counter>::default();
        registry.register(
            "outcomes",
            "Reports of workers, by what they say or what is wrong with them",
            family.clone(),
        );
        let outcomes = ReportResult::ALL
            .map(|result| family.get_or_create(&OutcomeLabels { outcome: result.as_str() }).clone());
        let family = Family::<ShowingLabels, Counter>::default();
        registry.register(
            "showings",
            "Attempts to show an outcome at the approval center, by where and result",
            family.clone(),
        );
        let showings = SURFACES.map(|surface| {
            ShowingResult::ALL.map(|result| {
                family.get_or_create(&ShowingLabels { surface, result: result.as_str() }).clone()
            })
        });
        let (remembered, forgotten) = (Gauge::default(), Counter::default());
        registry.register(
            "repeats_remembered",
            "Commands in memory, by which repeats and contradictions are known",
            remembered.clone(),
        );
        registry.register(
            "repeats_forgotten",
            "Commands evicted from memory before repeats_window was over, because there were too many",
            forgotten.clone(),
        );
        let (outcomes_pending, outcomes_parked) = (Gauge::default(), Gauge::default());
        registry.register(
            "outcomes_pending",
            "Cards and instances whose outcome is not shown yet",
            outcomes_pending.clone(),
        );
        registry.register(
            "outcomes_parked",
            "Cards and instances whose outcome is parked",
            outcomes_parked.clone(),
        );
        let topology = Topology::register(&mut registry);
        registry.register(
            "build",
            "The running program",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        Arc::new(Self {
            registry,
            uses,
            callbacks,
            callback_duration,
            probes,
            peers_limited,
            refusals_dropped,
            misdirected,
            handshake_failures,
            certificate_not_after,
            ledger_rows,
            ledger_oldest_pending,
            ledger_size,
            ledger_wal,
            ledger_free,
            publishes,
            confirm_duration,
            amqp_connected,
            amqp_blocked,
            enrichments,
            reconciled,
            findings,
            reconciliation_passes,
            reloads_applied,
            reloads_rejected,
            outcomes,
            showings,
            remembered,
            forgotten,
            outcomes_pending,
            outcomes_parked,
            topology,
        })
    }

    /// What was last seen of exchanges and queues at the broker, with its metrics.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The counter of one endpoint and outcome, created at zero. Fetched once at start: counting takes no lock.
    #[must_use]
    pub fn callback_counter(&self, endpoint: &str, outcome: &'static str) -> Counter {
        self.callbacks.get_or_create(&CallbackLabels { endpoint: endpoint.to_owned(), outcome }).clone()
    }

    /// Ends the series of an endpoint and outcome. A counter that somebody still holds goes on unseen.
    pub fn forget_callback_counter(&self, endpoint: &str, outcome: &'static str) {
        self.callbacks.remove(&CallbackLabels { endpoint: endpoint.to_owned(), outcome });
    }

    /// The counter of the probes of one endpoint, created at zero.
    #[must_use]
    pub fn probe_counter(&self, endpoint: &str) -> Counter {
        self.probes.get_or_create(&EndpointLabels { endpoint: endpoint.to_owned() }).clone()
    }

    /// Ends the series of an endpoint's probes. A counter that somebody still holds goes on unseen.
    pub fn forget_probe_counter(&self, endpoint: &str) {
        self.probes.remove(&EndpointLabels { endpoint: endpoint.to_owned() });
    }

    /// Records how long a callback took, whatever its outcome.
    pub fn callback_took(&self, duration: Duration) {
        self.callback_duration.observe(duration.as_secs_f64());
    }

    /// Counts a callback of a peer that is over a limit, or outside the allow-list.
    pub fn peer_limited(&self, cause: LimitCause) {
        self.peers_limited[cause as usize].inc();
    }

    /// Counts a request to the public listener that is no callback.
    pub fn request_misdirected(&self, kind: Misdirected) {
        self.misdirected[kind as usize].inc();
    }

    /// When each credential was used last.
    #[must_use]
    pub fn uses(&self) -> &Uses {
        &self.uses
    }

    /// Counts a TLS handshake of the public listener that failed.
    pub fn handshake_failed(&self, cause: HandshakeFailure) {
        self.handshake_failures[cause as usize].inc();
    }

    /// Sets when the certificate of this use expires, in seconds since 1970; `None` ends the series: there is none.
    pub fn set_certificate_not_after(&self, of: CertificateUse, not_after: Option<i64>) {
        let labels = UseLabels { r#use: of.as_str() };
        match not_after {
            Some(seconds) => drop(self.certificate_not_after.get_or_create(&labels).set(seconds)),
            None => drop(self.certificate_not_after.remove(&labels)),
        }
    }

    /// Sets the number of commands in a state.
    pub fn set_ledger_rows(&self, state: &'static str, rows: u64) {
        self.ledger_rows.get_or_create(&StateLabels { state }).set(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    /// Sets the age of the oldest pending command.
    pub fn set_oldest_pending(&self, age: Duration) {
        self.ledger_oldest_pending.set(age.as_secs_f64());
    }

    /// Sets what the ledger takes on its disk and what is left. What is not known stays as it was.
    pub fn set_ledger_room(&self, size_bytes: Option<u64>, wal_bytes: Option<u64>, free_bytes: Option<u64>) {
        for (gauge, bytes) in
            [(&self.ledger_size, size_bytes), (&self.ledger_wal, wal_bytes), (&self.ledger_free, free_bytes)]
        {
            if let Some(bytes) = bytes {
                gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
        }
    }

    /// Sets how many commands are remembered, and how many had to be forgotten since the start.
    pub fn set_remembered(&self, commands: u64, forgotten: u64) {
        self.remembered.set(i64::try_from(commands).unwrap_or(i64::MAX));
        self.forgotten.inner().store(forgotten, Ordering::Relaxed);
    }

    /// Counts ended publishes.
    pub fn published(&self, result: PublishResult, count: u64) {
        self.publishes[result as usize].inc_by(count);
    }

    /// Records how long the broker took to confirm.
    pub fn confirm_took(&self, duration: Duration) {
        self.confirm_duration.observe(duration.as_secs_f64());
    }

    /// Whether the relay is connected to the broker.
    pub fn set_connected(&self, connected: bool) {
        self.amqp_connected.set(connected.into());
    }

    /// Whether the broker blocks publishing (`connection.blocked`).
    pub fn set_blocked(&self, blocked: bool) {
        self.amqp_blocked.set(blocked.into());
    }

    /// Whether the relay is connected, as last set.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.amqp_connected.get() == 1
    }

    /// Counts a command that was completed so far. The words are a closed list.
    pub fn enriched(&self, status: &'static str) {
        self.enrichments.get_or_create(&StatusLabels { status }).inc();
    }

    /// Counts how often the approval center was asked for a decision and showed this of it. The words are a closed list; 0
    /// makes the series appear.
    pub fn reconciled(&self, verdict: &'static str, count: u64) {
        self.reconciled.get_or_create(&VerdictLabels { verdict }).inc_by(count);
    }

    /// Sets how many decisions are not visible at the approval center, by what it shows instead.
    pub fn set_findings(&self, verdict: &'static str, count: u64) {
        let gauge = self.findings.get_or_create(&VerdictLabels { verdict });
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts a comparison with the approval center: it came to its end, or failed before.
    pub fn reconciliation_passed(&self, whole: bool) {
        let result = if whole { "done" } else { "failed" };
        self.reconciliation_passes.get_or_create(&ResultLabels { result }).inc();
    }

    /// Counts a configuration that was read anew: put in force, or found faulty and left.
    pub fn reloaded(&self, applied: bool) {
        if applied {
            self.reloads_applied.inc()
        } else {
            self.reloads_rejected.inc()
        };
    }

    /// Counts a report of a worker.
    pub fn reported(&self, result: ReportResult) {
        self.outcomes[result as usize].inc();
    }

    /// Counts an attempt to show an outcome, on a card or in an instance.
    pub fn shown(&self, on_card: bool, result: ShowingResult) {
        self.showings[usize::from(!on_card)][result as usize].inc();
    }

    /// Tells how many refused callbacks were not kept since the start.
    pub fn refusals_dropped(&self, known: u64, strangers: u64) {
        for (counter, count) in self.refusals_dropped.iter().zip([known, strangers]) {
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }

    /// Sets how many outcomes are still to be shown, and how many wait for an operator.
    pub fn set_outcomes(&self, pending: u64, parked: u64) {
        self.outcomes_pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
        self.outcomes_parked.set(i64::try_from(parked).unwrap_or(i64::MAX));
    }

    /// All metrics as OpenMetrics text, which [`Exposition`](super::exposition::Exposition) gives other forms.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(8192);
        encode(&mut text, &self.registry).expect("writing to a String cannot fail");
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        intake::Refusal,
        telemetry::topology::{Counts, View},
        time::Timestamp,
    };

    /// Every name of a metric of ours in a text, with what braces follow it.
    fn named(text: &str) -> Vec<(&str, &str)> {
        let ours = text.match_indices("countersign_").map(|(at, _)| {
            let rest = &text[at..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let labels = rest[end..].strip_prefix('{').and_then(|rest| rest.split('}').next());
            (&rest[..end], labels.unwrap_or_default())
        });
        ours.collect()
    }

    /// What a service shows that has endpoints and an approval center.
    fn with_every_series_of_an_alert() -> Arc<Metrics> {
        let metrics = Metrics::new();
        for outcome in Refusal::ALL.iter().copied().map(Refusal::as_str).chain(["accepted", "duplicate"]) {
            metrics.callback_counter("purchase", outcome).inc();
            metrics.callback_counter(UNKNOWN_ENDPOINT, outcome).inc();
        }
        ["pending", "published", "parked"].into_iter().for_each(|state| metrics.set_ledger_rows(state, 1));
        ["unseen", "not_found", "contradicted"].into_iter().for_each(|word| metrics.set_findings(word, 1));
        metrics.reconciled("seen", 1);
        [true, false].into_iter().for_each(|whole| metrics.reconciliation_passed(whole));
        metrics.enriched("busy");
        metrics.set_certificate_not_after(CertificateUse::Http, Some(1));
        metrics.probe_counter("purchase").inc();
        let counts = Some(Counts { messages: 1, consumers: 1 });
        let checked_at = Timestamp::UNIX_EPOCH;
        metrics
            .uses()
            .of_endpoint("purchase", &[1], checked_at)
            .iter()
            .for_each(|used| used.note(checked_at));
        metrics.topology().set(Some(View { checked_at, queues: [counts; 4], faults: Vec::new() }));
        metrics
    }

    #[test]
    fn alerts_are_written_against_this_catalogue_and_each_says_what_to_do() {
        let known = with_every_series_of_an_alert().render();
        let alerts = include_str!("../../deploy/alerts.yaml");
        let found = named(alerts);
        assert!(found.len() > 10, "{found:?}");
        for (name, labels) in found {
            let lines: Vec<_> = known
                .lines()
                .filter_map(|line| line.strip_prefix(name))
                .filter(|rest| rest.starts_with(['{', ' ']))
                .collect();
            assert!(!lines.is_empty(), "{name} is not a metric of ours");
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let key = label.split(['=', '!']).next().unwrap().trim();
                assert!(
                    lines.iter().all(|line| line.contains(&format!("{key}=\""))),
                    "{name} has no label {key}"
                );
                for value in label.split('"').nth(1).unwrap().split('|') {
                    let there = lines.iter().any(|line| line.contains(&format!("{key}=\"{value}\"")));
                    assert!(there, "{name} has no {label}");
                }
            }
        }

        let docs = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).unwrap();
        let docs = docs.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md").into();
        let mut documented = 0;
        for path in docs.chain([readme]) {
            for (name, _) in named(&std::fs::read_to_string(&path).unwrap()) {
                let there = known.lines().any(|line| {
                    line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ', '_']))
                });
                assert!(there, "{} names {name}, which is not a metric of ours", path.display());
                documented += 1;
            }
        }
        assert!(documented >= 10, "{documented}");

        let rules: serde_json::Value = serde_saphyr::from_str(alerts).unwrap();
        let rules: Vec<_> = rules["groups"][0]["rules"].as_array().unwrap().iter().collect();
        for rule in rules {
            let name = rule["alert"].as_str().unwrap();
            for text in [&rule["expr"], &rule["annotations"]["summary"], &rule["annotations"]["runbook"]] {
                assert!(text.as_str().is_some_and(|text| !text.is_empty()), "{name}: {rule}");
            }
            assert!(matches!(rule["labels"]["severity"].as_str(), Some("page" | "ticket")), "{name}");
        }
    }

    #[test]
    fn every_alert_has_a_case_for_and_a_case_against_it_over_metrics_of_ours() {
        let parse = |text| -> serde_json::Value { serde_saphyr::from_str(text).unwrap() };
        let cases = include_str!("../../deploy/alerts.test.yaml");
        let known = with_every_series_of_an_alert().render();
        for (name, _) in named(cases) {
            let family =
                name.trim_end_matches("_total").trim_end_matches("_info").trim_end_matches("_bucket");
            assert!(known.contains(&format!("# TYPE {family} ")), "{name} is not a metric of ours");
        }
        let instances = |text: &serde_json::Value| -> BTreeSet<String> {
            let text = text.to_string().replace('\\', "");
            let found = text.split("instance=\"").skip(1).filter_map(|rest| rest.split('"').next());
            found.map(str::to_owned).collect()
        };
        let (mut fire, mut silent) = (BTreeSet::new(), BTreeSet::new());
        for case in parse(cases)["tests"].as_array().unwrap() {
            for test in case["promql_expr_test"].as_array().unwrap() {
                let alert = test["expr"].as_str().unwrap().split('"').nth(1).unwrap().to_owned();
                let firing = instances(&test["exp_samples"]);
                // An instance of the case for which it does not fire is a case against it.
                if firing.len() < instances(&case["input_series"]).len() {
                    silent.insert(alert.clone());
                }
                if test["exp_samples"].as_array().is_some_and(|samples| !samples.is_empty()) {
                    fire.insert(alert);
                }
            }
        }
        let rules = parse(include_str!("../../deploy/alerts.yaml"));
        for rule in rules["groups"][0]["rules"].as_array().unwrap() {
            let alert = rule["alert"].as_str().unwrap();
            assert!(fire.contains(alert), "no case has {alert} fire");
            assert!(silent.contains(alert), "no case leaves {alert} silent");
        }
    }

    #[test]
    fn no_reason_of_a_refusal_is_without_an_alert() {
        let rules: serde_json::Value =
            serde_saphyr::from_str(include_str!("../../deploy/alerts.yaml")).unwrap();
        let rules = rules["groups"][0]["rules"].as_array().unwrap();
        let watched: BTreeSet<&str> = rules
            .iter()
            .flat_map(|rule| named(rule["expr"].as_str().unwrap()))
            .flat_map(|(_, labels)| labels.split("outcome=").skip(1))
            .flat_map(|rest| rest.split('"').nth(1).unwrap().split('|'))
            .collect();
        for reason in Refusal::ALL {
            // Stopping is somebody's will; limited peers have a metric of their own.
            let exempt = matches!(reason, Refusal::ShuttingDown | Refusal::RateLimited);
            assert_eq!(watched.contains(reason.as_str()), !exempt, "{}", reason.as_str());
        }
    }

    #[test]
    fn the_catalogue_has_the_names_of_the_contract() {
        let metrics = Metrics::new();
        metrics.callback_counter("purchase", "accepted").inc();
        metrics.callback_took(Duration::from_millis(3));
        metrics.probe_counter("purchase").inc();
        metrics.probe_counter("gone").inc();
        metrics.forget_probe_counter("gone");
        metrics.set_ledger_rows("pending", 7);
        metrics.published(PublishResult::Returned, 2);
        metrics.set_connected(true);
        metrics.peer_limited(LimitCause::Failures);
        metrics.request_misdirected(Misdirected::Browser);
        metrics.reloaded(false);
        metrics.callback_counter("gone", "accepted").inc();
        metrics.forget_callback_counter("gone", "accepted");
        metrics.set_ledger_room(Some(4096), None, Some(7));
        metrics.reported(ReportResult::UnknownCommand);
        metrics.shown(true, ShowingResult::Retried);
        metrics.set_outcomes(3, 1);
        metrics.refusals_dropped(0, 5);
        metrics.refusals_dropped(1, 7);
        metrics.reconciled("seen", 0);
        metrics.set_findings("unseen", 3);
        metrics.reconciliation_passed(true);
        metrics.enriched("timed_out");
        metrics.handshake_failed(HandshakeFailure::CertificateRefused);
        metrics.set_certificate_not_after(CertificateUse::Http, Some(1_900_000_000));
        metrics.set_certificate_not_after(CertificateUse::Amqp, Some(1));
        metrics.set_certificate_not_after(CertificateUse::Amqp, None);
        let text = metrics.render();
        for line in [
            "countersign_outcomes_total{outcome=\"applied\"} 0",
            "countersign_outcomes_total{outcome=\"refused\"} 0",
            "countersign_outcomes_total{outcome=\"failed\"} 0",
            "countersign_outcomes_total{outcome=\"duplicate\"} 0",
            "countersign_outcomes_total{outcome=\"malformed\"} 0",
            "countersign_outcomes_total{outcome=\"unknown_command\"} 1",
            "countersign_outcomes_total{outcome=\"not_permitted\"} 0",
            "countersign_showings_total{surface=\"card\",result=\"retried\"} 1",
            "countersign_showings_total{surface=\"instance\",result=\"shown\"} 0",
            "countersign_repeats_remembered 0",
            "countersign_repeats_forgotten_total 0",
            "countersign_outcomes_pending 3",
            "countersign_refusals_dropped_total{sender=\"known\"} 1",
            "countersign_refusals_dropped_total{sender=\"stranger\"} 7",
            "countersign_outcomes_parked 1",
            "countersign_callbacks_total{endpoint=\"purchase\",outcome=\"accepted\"} 1",
            "countersign_callback_duration_seconds_count 1",
            "countersign_probes_total{endpoint=\"purchase\"} 1",
            "countersign_ledger_rows{state=\"pending\"} 7",
            "countersign_ledger_oldest_pending_seconds 0.0",
            "countersign_publishes_total{result=\"returned\"} 2",
            "countersign_publishes_total{result=\"confirmed\"} 0",
            "countersign_confirm_duration_seconds_count 0",
            "countersign_ledger_size_bytes 4096",
            "countersign_ledger_wal_bytes 0",
            "countersign_ledger_free_bytes 7",
            "countersign_amqp_connected 1",
            "countersign_amqp_blocked 0",
            "countersign_reconciled_total{verdict=\"seen\"} 0",
            "countersign_findings{verdict=\"unseen\"} 3",
            "countersign_reconciliation_passes_total{result=\"done\"} 1",
            "countersign_enrichments_total{status=\"timed_out\"} 1",
            "countersign_misdirected_requests_total{kind=\"health_check\"} 0",
            "countersign_misdirected_requests_total{kind=\"browser\"} 1",
            "countersign_misdirected_requests_total{kind=\"other\"} 0",
            "countersign_peers_limited_total{cause=\"rate\"} 0",
            "countersign_peers_limited_total{cause=\"failures\"} 1",
            "countersign_peers_limited_total{cause=\"not_allowed\"} 0",
            "countersign_tls_handshake_failures_total{cause=\"certificate_refused\"} 1",
            "countersign_tls_handshake_failures_total{cause=\"timeout\"} 0",
            "countersign_certificate_not_after_seconds{use=\"http\"} 1900000000",
            "countersign_config_reloads_total{result=\"applied\"} 0",
            "countersign_config_reloads_total{result=\"rejected\"} 1",
            "countersign_build_info{version=",
        ] {
            assert!(text.lines().any(|l| l.starts_with(line)), "{line} is not in\n{text}");
        }
        assert!(!text.contains("gone") && !text.contains("use=\"amqp\""), "{text}");
    }
}
