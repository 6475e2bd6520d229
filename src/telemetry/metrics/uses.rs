//! Last use and use count of each endpoint's credentials: shows when an old one can be removed.
//!
//! The accept path holds a [`Use`] and does three atomic operations on it. Everything else goes through [`Uses`].

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use serde::Serialize;

use super::registered;
use crate::time::Timestamp;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    endpoint: String,
    credential: usize,
}

/// One credential in force.
pub struct Use {
    endpoint: Arc<str>,
    credential: usize,
    tag: u16,
    known_since: AtomicI64,
    /// 0 means never.
    last_used: AtomicI64,
    counter: Counter,
    gauge: Gauge,
}

impl Use {
    /// Records a callback authenticated by it. Takes no lock and allocates nothing.
    pub fn note(&self, now: Timestamp) {
        self.counter.inc();
        let before = self.last_used.fetch_max(now.as_millisecond(), Ordering::Relaxed);
        if before < now.as_millisecond() {
            self.gauge.set(now.as_second());
        }
    }
}

impl fmt::Debug for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Use")
            .field("endpoint", &self.endpoint)
            .field("credential", &self.credential)
            .finish_non_exhaustive()
    }
}

/// The usage of one credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Used {
    /// The endpoint's name.
    pub endpoint: Arc<str>,
    /// Its place in the endpoint's list, counted from 0.
    pub credential: usize,
    /// Identifies it among the endpoint's credentials, independent of its place; see [`Uses::of_endpoint`].
    #[serde(skip)]
    pub tag: u16,
    /// Start of the observation.
    pub known_since: Timestamp,
    /// When it last authenticated a callback; `null` if never since then.
    pub last_used_at: Option<Timestamp>,
}

/// All credentials in force.
pub struct Uses {
    all: Mutex<Vec<Arc<Use>>>,
    counters: Family<Labels, Counter>,
    gauges: Family<Labels, Gauge>,
}

impl fmt::Debug for Uses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Uses")
    }
}

impl Uses {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            all: Mutex::default(),
            counters: registered(
                registry,
                "credential_uses",
                "Callbacks that a credential authenticated, by endpoint and position in the list",
                Family::default(),
            ),
            gauges: registered(
                registry,
                "credential_last_used_seconds",
                "When a credential last authenticated a callback, in seconds since 1970; 0 if never or unknown",
                Family::default(),
            ),
        }
    }

    /// Puts an endpoint's credentials in force. Each has a `tag` that stays the same wherever it is in the list.
    /// Returns them in list order. The usage of credentials already present is kept; the series of the others restart.
    #[must_use]
    pub fn of_endpoint(&self, endpoint: &str, tags: &[u16], now: Timestamp) -> Vec<Arc<Use>> {
        let mut all = self.all();
        let before: Vec<_> = all.iter().filter(|known| &*known.endpoint == endpoint).cloned().collect();
        if before.iter().map(|known| known.tag).eq(tags.iter().copied()) && !before.is_empty() {
            return before;
        }
        all.retain(|known| &*known.endpoint != endpoint);
        before.iter().for_each(|known| self.end(known));
        let name: Arc<str> = endpoint.into();
        let put = tags.iter().enumerate().map(|(credential, tag)| {
            let labels = Labels { endpoint: endpoint.to_owned(), credential };
            let known = before.iter().find(|known| known.tag == *tag);
            let (since, last) = known.map_or((now.as_millisecond(), 0), |known| {
                (known.known_since.load(Ordering::Relaxed), known.last_used.load(Ordering::Relaxed))
            });
            let gauge = self.gauges.get_or_create(&labels).clone();
            gauge.set(last / 1000);
            Arc::new(Use {
                endpoint: name.clone(),
                credential,
                tag: *tag,
                known_since: AtomicI64::new(since),
                last_used: AtomicI64::new(last),
                counter: self.counters.get_or_create(&labels).clone(),
                gauge,
            })
        });
        let put: Vec<_> = put.collect();
        all.extend(put.iter().cloned());
        put
    }

    /// Removes an endpoint's credentials and ends their series.
    pub fn forget(&self, endpoint: &str) {
        let mut all = self.all();
        all.iter().filter(|known| &*known.endpoint == endpoint).for_each(|known| self.end(known));
        all.retain(|known| &*known.endpoint != endpoint);
    }

    /// The usage of each credential in force.
    #[must_use]
    pub fn known(&self) -> Vec<Used> {
        let time = |millis| Timestamp::from_millisecond(millis).unwrap_or_default();
        let used = |known: &Arc<Use>| {
            let last = known.last_used.load(Ordering::Relaxed);
            Used {
                endpoint: known.endpoint.clone(),
                credential: known.credential,
                tag: known.tag,
                known_since: time(known.known_since.load(Ordering::Relaxed)),
                last_used_at: (last > 0).then(|| time(last)),
            }
        };
        self.all().iter().map(used).collect()
    }

    /// Adds a credential's usage from before this process, if it is in force.
    pub fn remember(
        &self,
        endpoint: &str,
        tag: u16,
        known_since: Timestamp,
        last_used_at: Option<Timestamp>,
    ) {
        for known in self.all().iter().filter(|known| &*known.endpoint == endpoint && known.tag == tag) {
            known.known_since.fetch_min(known_since.as_millisecond(), Ordering::Relaxed);
            let Some(last) = last_used_at else { continue };
            let before = known.last_used.fetch_max(last.as_millisecond(), Ordering::Relaxed);
            if before < last.as_millisecond() {
                known.gauge.set(last.as_second());
            }
        }
    }

    fn end(&self, known: &Use) {
        let labels = Labels { endpoint: known.endpoint.to_string(), credential: known.credential };
        self.counters.remove(&labels);
        self.gauges.remove(&labels);
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Use>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millisecond(1000 * second).unwrap()
    }

    fn last(uses: &Uses) -> Vec<(usize, u16, i64, Option<i64>)> {
        let known = uses.known().into_iter();
        known
            .map(|used| {
                (
                    used.credential,
                    used.tag,
                    used.known_since.as_second(),
                    used.last_used_at.map(|at| at.as_second()),
                )
            })
            .collect()
    }

    #[test]
    fn what_is_known_of_a_credential_stays_with_it_while_others_come_and_go() {
        let uses = Uses::register(&mut Registry::default());
        let put = uses.of_endpoint("purchase", &[7, 8], at(100));
        put[0].note(at(200));
        put[0].note(at(150));
        assert_eq!(last(&uses), [(0, 7, 100, Some(200)), (1, 8, 100, None)]);
        // The same list again: a gate that still holds the old one counts with the new one.
        assert!(Arc::ptr_eq(&put[0], &uses.of_endpoint("purchase", &[7, 8], at(300))[0]));

        let put = uses.of_endpoint("purchase", &[9, 7], at(400));
        assert_eq!(last(&uses), [(0, 9, 400, None), (1, 7, 100, Some(200))]);
        put[1].note(at(500));
        assert_eq!(last(&uses)[1], (1, 7, 100, Some(500)));

        uses.remember("purchase", 9, at(50), Some(at(60)));
        uses.remember("purchase", 7, at(300), Some(at(60)));
        uses.remember("purchase", 1, at(1), Some(at(2)));
        assert_eq!(last(&uses), [(0, 9, 50, Some(60)), (1, 7, 100, Some(500))]);
        uses.forget("purchase");
        assert!(last(&uses).is_empty());
    }
}
