//! Enrichment of commands before they are published, with limits on concurrency and time. Beyond a limit, a command is
//! published without.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, timeout_at};

use super::protocol::Cargo;
use crate::{
    command::{
        Seq, TaskKey,
        enrichment::{Enrichment, EnrichmentStatus},
    },
    ledger::Entry,
    telemetry::metrics::Metrics,
};

/// Enriches commands with data from elsewhere.
pub trait Enrich: Send + Sync {
    /// Time limit for a command of this endpoint; `None` if its commands are not enriched.
    fn patience(&self, endpoint: &str) -> Option<Duration>;

    /// Enriches a command, until the deadline at the latest. Returns immediately; the future does not block its
    /// executor and may be dropped at any time.
    fn enrich(&self, entry: &Entry, deadline: Instant) -> BoxFuture<'static, Enrichment>;
}

/// Maximum number of commands being enriched. The approval center takes 50 calls a second and answers within some
/// tenths of a second; more calls than this would only queue there.
const AT_ONCE: usize = 64;

/// Maximum number of commands whose first turn and enrichment are remembered. A session may leave that many behind;
/// the next session then neither makes them wait nor asks for them again.
const REMEMBERED: usize = 4096;

/// Older enrichment is requested again: a command refused in between must not carry stale data.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

/// [`Enrich`] keeps the deadline; the relay waits this much longer for an implementation that does not.
const SLACK: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) entry: Entry,
    raw: bool,
}

impl Cargo for Parcel {
    fn seq(&self) -> Seq {
        self.entry.seq
    }

    fn task_key(&self) -> TaskKey {
        self.entry.task_key
    }

    fn is_raw(&self) -> bool {
        self.raw
    }
}

/// Enrichments under way, across all sessions.
pub(super) struct Preparations {
    enrich: Option<Arc<dyn Enrich>>,
    metrics: Arc<Metrics>,
    under_way: FuturesUnordered<BoxFuture<'static, (Entry, Enrichment)>>,
    names: BTreeSet<Seq>,
    known: BTreeMap<Seq, Known>,
}

struct Known {
    since: Instant,
    enrichment: Option<Enrichment>,
}

impl Preparations {
    pub(super) fn new(enrich: Option<Arc<dyn Enrich>>, metrics: Arc<Metrics>) -> Self {
        Self {
            enrich,
            metrics,
            under_way: FuturesUnordered::new(),
            names: BTreeSet::new(),
            known: BTreeMap::new(),
        }
    }

    /// Wraps a command that comes from the ledger.
    pub(super) fn parcel(&self, entry: Entry) -> Parcel {
        let raw = self.patience(&entry).is_some();
        Parcel { entry, raw }
    }

    fn patience(&self, entry: &Entry) -> Option<Duration> {
        self.enrich.as_ref().and_then(|enrich| enrich.patience(&entry.envelope.endpoint))
    }

    /// Starts to enrich a command unless that is under way. Returns a command that needs nothing more.
    pub(super) fn begin(&mut self, parcel: Parcel) -> Option<Parcel> {
        let Parcel { entry, .. } = parcel;
        let (Some(enrich), Some(patience)) = (self.enrich.clone(), self.patience(&entry)) else {
            return Some(Parcel { entry, raw: false });
        };
        if self.names.contains(&entry.seq) {
            return None;
        }
        let now = Instant::now();
        while self.known.len() >= REMEMBERED {
            // The lowest is most likely through.
            self.known.pop_first();
        }
        let known = self.known.entry(entry.seq).or_insert(Known { since: now, enrichment: None });
        if now.duration_since(known.since) > REMEMBERED_FOR {
            *known = Known { since: now, enrichment: None };
        }
        let deadline = known.since + patience;
        if let Some(enrichment) = &known.enrichment {
            return Some(completed(entry, enrichment));
        }
        let without = if now >= deadline {
            Some(EnrichmentStatus::TimedOut)
        } else {
            (self.names.len() >= AT_ONCE).then_some(EnrichmentStatus::Busy)
        };
        if let Some(status) = without {
            self.metrics.relay.enriched(status.as_str());
            return Some(completed(entry, &Enrichment::none(status)));
        }
        self.names.insert(entry.seq);
        let enriching = enrich.enrich(&entry, deadline);
        self.under_way.push(Box::pin(async move {
            let enrichment = timeout_at(deadline + SLACK, enriching).await;
            (entry, enrichment.unwrap_or_else(|_late| Enrichment::none(EnrichmentStatus::TimedOut)))
        }));
        None
    }

    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// The next completed command; never resolves if none is under way. Cancel safe.
    pub(super) async fn next(&mut self) -> Parcel {
        let Some((entry, enrichment)) = self.under_way.next().await else {
            return std::future::pending().await;
        };
        self.metrics.relay.enriched(enrichment.status.as_str());
        self.names.remove(&entry.seq);
        let parcel = completed(entry, &enrichment);
        if let Some(known) = self.known.get_mut(&parcel.entry.seq) {
            known.enrichment = Some(enrichment);
        }
        parcel
    }
}

fn completed(mut entry: Entry, enrichment: &Enrichment) -> Parcel {
    enrichment.add_to(&mut entry.body);
    Parcel { entry, raw: false }
}
