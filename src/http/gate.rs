//! State shared by all requests, and the part that a reload may change: endpoints, limits, peers, the certificate.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tracing::Level;

use super::{
    Settings,
    answer::Rule,
    budget::Budget,
    limits::{Limited, Table},
    peers,
    slots::{ConnectionCounts, ConnectionSlot},
    telling::{self, Reporting, Subject, Sum, Telling},
    tls,
};
use crate::{
    certificates::{self, Facts},
    intake::{Counted, Intake, Refusal},
    telemetry::{
        log::chain,
        metrics::{LimitCause, Metrics, UNKNOWN_ENDPOINT, uses::Use},
    },
    time::Timestamp,
};

/// The state that all requests of the public listener share.
pub struct Gate {
    live: RwLock<Arc<Live>>,
    /// `None` for a plain HTTP listener, for its whole life.
    identity: Option<Arc<tls::Identity>>,
    /// Allocated on first use.
    table: OnceLock<Table>,
    counts: Arc<ConnectionCounts>,
    pub(super) budget: Arc<Budget>,
    telling: Telling,
    draining: Arc<AtomicBool>,
    pub(super) metrics: Arc<Metrics>,
}

/// A new configuration to apply; see [`Gate::prepare`].
pub struct Replacement {
    pair: Option<tls::Pair>,
    live: Live,
}

impl fmt::Debug for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replacement")
    }
}

/// The configuration in force for one request, from start to end.
pub(super) struct Live {
    pub(super) intake: Arc<Intake>,
    pub(super) max_body_bytes: usize,
    pub(super) body_read_timeout: Duration,
    max_unread_bytes: usize,
    pub(super) unauthenticated_floor: Duration,
    pub(super) peers: peers::Settings,
    counters: HashMap<Box<str>, Counters>,
}

/// The counters of one endpoint, one per outcome.
pub(super) struct Counters {
    pub(super) accepted: Counter,
    pub(super) duplicate: Counter,
    /// Indexed by [`Refusal`], in the order of [`Refusal::ALL`].
    pub(super) refused: Box<[Counter]>,
    /// Probes do not count as callbacks.
    pub(super) probed: Counter,
    /// Indexed by the credential's position.
    pub(super) uses: Vec<Arc<Use>>,
}

impl Gate {
    /// Creates a gate for callbacks to `endpoints`, which are all that `intake` knows. While `draining` is true,
    /// callbacks are refused as `shutting_down`.
    ///
    /// # Errors
    /// Certificate or key cannot be used.
    pub fn new(
        settings: &Settings,
        intake: Arc<Intake>,
        endpoints: &[Counted],
        metrics: Arc<Metrics>,
        draining: Arc<AtomicBool>,
    ) -> Result<Self, certificates::Error> {
        let identity = match &settings.tls {
            Some(settings) => Some(Arc::new(tls::Identity::new(tls::Pair::read(settings)?))),
            None => None,
        };
        let live = RwLock::new(Arc::new(Live::new(settings, intake, endpoints, &metrics)));
        Ok(Self {
            live,
            identity,
            table: OnceLock::new(),
            counts: Arc::default(),
            telling: Telling::default(),
            budget: Budget::new(settings.max_unread_bytes),
            draining,
            metrics,
        })
    }

    /// Prepares settings and `endpoints` (all that `intake` knows) for [`Self::put`].
    ///
    /// # Errors
    /// Certificate or key cannot be used.
    pub fn prepare(
        &self,
        settings: &Settings,
        intake: Arc<Intake>,
        endpoints: &[Counted],
    ) -> Result<Replacement, certificates::Error> {
        let pair = match (&self.identity, &settings.tls) {
            (Some(_), Some(settings)) => Some(tls::Pair::read(settings)?),
            _ => None,
        };
        let live = Live::new(settings, intake, endpoints, &self.metrics);
        Ok(Replacement { pair, live })
    }

    /// Applies new settings and endpoints at once to requests that begin from now on, and the new certificate to new
    /// connections. Peers keep their used limits. The series of removed endpoints end.
    ///
    /// `listen`, `workers`, `keep_alive`, and whether there is TLS at all stay unchanged: they need a new listener.
    pub fn put(&self, replacement: Replacement) {
        if let (Some(identity), Some(pair)) = (&self.identity, replacement.pair) {
            identity.replace(pair);
        }
        let live = Arc::new(replacement.live);
        self.budget.resize(live.max_unread_bytes);
        let mut place = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *place, live.clone());
        // Release the lock early: requests wait for it.
        drop(place);
        for endpoint in before.counters.keys().filter(|endpoint| !live.counters.contains_key(*endpoint)) {
            let outcomes = Refusal::ALL.iter().copied().map(Refusal::as_str).chain(["accepted", "duplicate"]);
            outcomes.for_each(|outcome| self.metrics.callbacks.forget_counter(endpoint, outcome));
            self.metrics.callbacks.forget_probe_counter(endpoint);
            self.metrics.uses.forget(endpoint);
        }
    }

    /// Whether these settings need a new listener because TLS was turned on or off.
    #[must_use]
    pub fn tls_differs(&self, settings: &Settings) -> bool {
        self.identity.is_some() != settings.tls.is_some()
    }

    /// Checks the certificate's files every [`tls::Settings::check_interval`] while it is polled. If a new pair
    /// cannot be used, it logs that and keeps the old one.
    pub async fn watch(&self) -> Infallible {
        let Some(identity) = &self.identity else { return std::future::pending().await };
        loop {
            tokio::time::sleep(identity.check_interval()).await;
            let looking = identity.clone();
            // The files may be on a disk that hangs.
            match tokio::task::spawn_blocking(move || looking.follow()).await {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => tracing::info!("certificate of the public listener replaced"),
                Ok(Err(error)) => tracing::error!(
                    "certificate of the public listener not replaced; the previous one stays in use: {}",
                    chain(&error)
                ),
                Err(panicked) => {
                    tracing::error!("certificate check failed: {}", chain(&panicked))
                }
            }
        }
    }

    /// Facts about the certificate in use; `None` without TLS.
    #[must_use]
    pub fn certificate(&self) -> Option<Facts> {
        self.identity.as_ref().and_then(|identity| identity.facts().ok())
    }

    pub(super) fn identity(&self) -> Option<Arc<tls::Identity>> {
        self.identity.clone()
    }

    /// What the approvers of an endpoint read for a refusal, by the configuration in force.
    #[must_use]
    pub fn sentence(&self, endpoint: &str, refusal: Refusal) -> String {
        let (locale, own) = self.live().intake.words(endpoint, refusal);
        own.map_or_else(|| Rule::of(refusal).sentence(locale).to_owned(), |own| (*own).to_owned())
    }

    pub(super) fn live(&self) -> Arc<Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Takes a slot for one more connection from this address; `None` if it needs none.
    ///
    /// # Errors
    /// The address has reached its limit.
    pub(super) fn slot(&self, address: IpAddr) -> Result<Option<ConnectionSlot>, Crowded> {
        let Some(most) = self.live().peers.max_connections_of(address) else { return Ok(None) };
        if let Some(slot) = self.counts.take(address, most) {
            return Ok(Some(slot));
        }
        self.metrics.http.peer_limited(LimitCause::Connections);
        if self.tell(Some(address), Subject::Crowded) == Reporting::Whole {
            tracing::warn!(
                peer = %address.to_canonical(),
                most,
                "peer reached http.max_connections_per_peer; further connections are closed"
            );
        }
        Err(Crowded)
    }

    /// Counts a request whose head was not read completely for lack of memory.
    pub(super) fn head_unread(&self) {
        if let Some(counters) = self.live().counters(UNKNOWN_ENDPOINT) {
            counters.refused[Refusal::Overloaded as usize].inc();
        }
    }

    /// Counts a callback of this peer if its limits allow one now.
    pub(super) fn admit(&self, live: &Live, peer: Option<IpAddr>) -> Result<(), Limited> {
        self.counting(live, peer, |table, peer| table.admit(peer, &live.peers, table.now()))
    }

    /// Whether this peer failed to authenticate too often, possibly since it was admitted.
    pub(super) fn check_failures(&self, live: &Live, peer: Option<IpAddr>) -> Result<(), Limited> {
        self.counting(live, peer, |table, peer| table.check_failures(peer, &live.peers, table.now()))
    }

    /// Counts an unauthenticated callback of this peer.
    pub(super) fn failed(&self, live: &Live, peer: Option<IpAddr>) {
        if live.peers.failure_budget > 0 {
            let table = self.table();
            table.failed(known(peer), table.now());
        }
    }

    /// Counts an event of this peer and decides how to report it.
    pub(super) fn tell(&self, peer: Option<IpAddr>, subject: Subject) -> Reporting {
        self.telling.tell(known(peer), subject)
    }

    /// Logs once a minute how many refused callbacks had no log line, while it is polled.
    pub async fn sum_up(&self) -> Infallible {
        loop {
            tokio::time::sleep(telling::EVERY).await;
            self.sum_up_now();
        }
    }

    /// Does the same for the current, incomplete minute. Used at shutdown.
    pub fn sum_up_now(&self) {
        self.telling.sum_up().iter().for_each(log_sum);
    }

    fn counting(
        &self,
        live: &Live,
        peer: Option<IpAddr>,
        count: impl FnOnce(&Table, IpAddr) -> Result<(), Limited>,
    ) -> Result<(), Limited> {
        if !live.peers.limits() {
            return Ok(());
        }
        count(self.table(), known(peer)).inspect_err(|limited| self.metrics.http.peer_limited(limited.cause))
    }

    fn table(&self) -> &Table {
        self.table.get_or_init(Table::new)
    }
}

/// The peer has too many connections.
#[derive(Debug)]
pub(super) struct Crowded;

fn log_sum(sum: &Sum) {
    let Sum { peer, subject, untold } = *sum;
    let peer = peer.map(tracing::field::display);
    match subject {
        Subject::NoCallback => tracing::info!(untold, peer, "more requests that are not callbacks"),
        Subject::NotAllowed => tracing::warn!(
            untold,
            peer,
            "more callbacks of a peer that is not in http.allowed_peers; accepted because the mode is warn"
        ),
        Subject::Crowded => tracing::warn!(
            untold,
            peer,
            "more connections of a peer over http.max_connections_per_peer closed"
        ),
        Subject::Refused { refusal, stranger } => {
            let outcome = refusal.as_str();
            // tracing fixes the level of an event at its call site.
            match Rule::of(refusal).level {
                Level::ERROR => tracing::error!(outcome, untold, peer, stranger, "more callbacks refused"),
                Level::WARN => tracing::warn!(outcome, untold, peer, stranger, "more callbacks refused"),
                _ => tracing::info!(outcome, untold, peer, stranger, "more callbacks refused"),
            }
        }
    }
}

/// A closed connection no longer has an address. All of those share one entry.
fn known(peer: Option<IpAddr>) -> IpAddr {
    peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

impl Live {
    fn new(settings: &Settings, intake: Arc<Intake>, endpoints: &[Counted], metrics: &Metrics) -> Self {
        let now = Timestamp::now();
        let unknown = Counted { endpoint: UNKNOWN_ENDPOINT.to_owned(), credentials: Vec::new() };
        // Every series exists from the start, at zero, so that an alert on a rate sees the first refusal.
        let counters = endpoints
            .iter()
            .chain([&unknown])
            .map(|Counted { endpoint, credentials }| {
                let counter = |outcome| metrics.callbacks.counter(endpoint, outcome);
                let counters = Counters {
                    accepted: counter("accepted"),
                    duplicate: counter("duplicate"),
                    refused: Refusal::ALL.iter().map(|refusal| counter(refusal.as_str())).collect(),
                    probed: metrics.callbacks.probe_counter(endpoint),
                    uses: metrics.uses.of_endpoint(endpoint, credentials, now),
                };
                (Box::from(endpoint.as_str()), counters)
            })
            .collect();
        Self {
            intake,
            max_body_bytes: settings.max_body_bytes,
            body_read_timeout: settings.body_read_timeout,
            max_unread_bytes: settings.max_unread_bytes,
            unauthenticated_floor: settings.unauthenticated_floor,
            peers: settings.peers.clone(),
            counters,
        }
    }

    /// The counters of an endpoint, or the shared ones of all unconfigured endpoints.
    pub(super) fn counters(&self, endpoint: &str) -> Option<&Counters> {
        self.counters.get(endpoint).or_else(|| self.counters.get(UNKNOWN_ENDPOINT))
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}
