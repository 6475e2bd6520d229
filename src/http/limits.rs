//! Tracks each peer's use of its rate and its failure budget, in a table of fixed size.
//!
//! # Why not a crate
//! `governor` keeps a peer in a map until a sweep. The owner of an IPv6 /48 fills that map faster than it is swept. A
//! sketch would be small too, but in it strangers collide, so one peer would be shut out for the actions of another.
//! Here a peer takes one of the [`WAYS`] entries of the set that its address hashes to (with a key made at start, so
//! nobody can aim), and is identified by its whole address. If all entries are taken, the one that owes least is
//! evicted: a peer may be forgotten early and then have more allowance than it should, but never less.
//!
//! This limits single peers. It is not a defence against a sender with many addresses.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{peers::Settings, telling::key};
use crate::telemetry::metrics::LimitCause;

/// 32768 peers, in some 2 MiB.
const SETS: usize = 4096;
const WAYS: usize = 8;

const SECOND: u64 = 1_000_000_000;

/// The window of the failure budget.
const MINUTE: u64 = 60 * SECOND;

/// A callback that is refused unread because of its peer's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limited {
    pub(super) cause: LimitCause,
    /// When the peer may try again; at least a second.
    pub(super) retry_after: Duration,
}

/// Nanoseconds since the table was made. 0 is before everything.
type Moment = u64;

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// 0 means unused.
    key: u128,
    /// When the peer's rate debt reaches zero (GCRA's theoretical arrival time).
    rate_clear_at: Moment,
    /// When the window of `failures` ends.
    window_ends: Moment,
    failures: u32,
}

impl Entry {
    /// The entry is worth keeping until then.
    fn owes_until(&self) -> Moment {
        self.rate_clear_at.max(if self.failures > 0 { self.window_ends } else { 0 })
    }
}

#[derive(Debug)]
pub(super) struct Table {
    began: Instant,
    hasher: RandomState,
    sets: Box<[Mutex<[Entry; WAYS]>]>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            hasher: RandomState::new(),
            sets: (0..SETS).map(|_| Mutex::default()).collect(),
        }
    }

    pub(super) fn now(&self) -> Moment {
        // Never 0, which is before everything.
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX / 2).max(1)
    }

    /// Counts a callback of this peer if its limits allow one now.
    pub(super) fn admit(&self, peer: IpAddr, settings: &Settings, now: Moment) -> Result<(), Limited> {
        self.with(peer, |entry| {
            spent(entry, settings, now)?;
            if settings.rate == 0 {
                return Ok(());
            }
            let interval = SECOND / u64::from(settings.rate);
            let tolerance = interval.saturating_mul(u64::from(settings.burst().max(1)) - 1);
            let clear_at = entry.rate_clear_at.max(now);
            if clear_at - now > tolerance {
                return Err((LimitCause::Rate, clear_at - now - tolerance));
            }
            entry.rate_clear_at = clear_at + interval;
            Ok(())
        })
        .map_err(|(cause, wait)| limited(cause, wait))
    }

    /// Checks whether this peer failed to authenticate too often. Counts nothing.
    pub(super) fn check_failures(
        &self,
        peer: IpAddr,
        settings: &Settings,
        now: Moment,
    ) -> Result<(), Limited> {
        self.with(peer, |entry| spent(entry, settings, now)).map_err(|(cause, wait)| limited(cause, wait))
    }

    /// Counts an unauthenticated callback of this peer.
    pub(super) fn failed(&self, peer: IpAddr, now: Moment) {
        self.with(peer, |entry| {
            if entry.window_ends <= now {
                entry.window_ends = now + MINUTE;
                entry.failures = 0;
            }
            entry.failures = entry.failures.saturating_add(1);
        });
    }

    /// Runs `work` on the peer's entry, which may be new.
    fn with<T>(&self, peer: IpAddr, work: impl FnOnce(&mut Entry) -> T) -> T {
        let key = key(peer);
        let place = self.hasher.hash_one(key) as usize % SETS;
        let mut set = self.sets[place].lock().unwrap_or_else(PoisonError::into_inner);
        let known = set.iter().position(|entry| entry.key == key);
        let at = known.unwrap_or_else(|| {
            let least = (0..WAYS).min_by_key(|at| set[*at].owes_until()).expect("a set has places");
            set[least] = Entry { key, ..Entry::default() };
            least
        });
        work(&mut set[at])
    }
}

fn spent(entry: &Entry, settings: &Settings, now: Moment) -> Result<(), (LimitCause, u64)> {
    if settings.failure_budget > 0 && entry.failures >= settings.failure_budget && entry.window_ends > now {
        return Err((LimitCause::Failures, entry.window_ends - now));
    }
    Ok(())
}

fn limited(cause: LimitCause, wait: u64) -> Limited {
    Limited { cause, retry_after: Duration::from_secs(wait.div_ceil(SECOND).max(1)) }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn settings(rate: u32, burst: u32, failure_budget: u32) -> Settings {
        Settings { rate, burst, failure_budget, ..Settings::default() }
    }

    fn after(seconds: f64) -> Moment {
        1 + (seconds * SECOND as f64) as u64
    }

    /// How many of `tries` at one moment are admitted.
    fn admitted(table: &Table, peer: &str, settings: &Settings, tries: u32, now: Moment) -> u32 {
        (0..tries).map(|_| u32::from(table.admit(ip(peer), settings, now).is_ok())).sum()
    }

    #[test]
    fn a_peer_has_its_burst_and_then_its_rate() {
        let (table, settings) = (Table::new(), settings(10, 30, 0));
        assert_eq!(admitted(&table, "192.0.2.1", &settings, 100, after(0.0)), 30);
        assert_eq!(admitted(&table, "192.0.2.2", &settings, 100, after(0.0)), 30, "another is not touched");
        assert_eq!(admitted(&table, "192.0.2.1", &settings, 100, after(1.0)), 10);
        assert_eq!(admitted(&table, "192.0.2.1", &settings, 100, after(1.05)), 0);
        assert_eq!(
            admitted(&table, "192.0.2.1", &settings, 100, after(60.0)),
            30,
            "and no more after a pause"
        );
        let limited = table.admit(ip("192.0.2.1"), &settings, after(60.0)).unwrap_err();
        assert_eq!((limited.cause, limited.retry_after), (LimitCause::Rate, Duration::from_secs(1)));
    }

    #[test]
    fn a_burst_that_is_not_set_is_the_rate() {
        let table = Table::new();
        assert_eq!(admitted(&table, "192.0.2.1", &settings(7, 0, 0), 100, after(0.0)), 7);
        assert_eq!(admitted(&table, "192.0.2.2", &settings(1, 0, 0), 100, after(0.0)), 1);
        assert_eq!(
            admitted(&table, "192.0.2.3", &settings(0, 9, 0), 100, after(0.0)),
            100,
            "no rate, no limit"
        );
    }

    #[test]
    fn failures_shut_out_a_peer_until_its_minute_is_over_and_nobody_else() {
        let (table, settings) = (Table::new(), settings(0, 0, 3));
        for _ in 0..3 {
            assert_eq!(table.admit(ip("192.0.2.1"), &settings, after(10.0)), Ok(()));
            table.failed(ip("192.0.2.1"), after(10.0));
        }
        let limited = table.admit(ip("192.0.2.1"), &settings, after(40.0)).unwrap_err();
        assert_eq!((limited.cause, limited.retry_after), (LimitCause::Failures, Duration::from_secs(30)));
        assert!(table.check_failures(ip("192.0.2.1"), &settings, after(40.0)).is_err());
        assert_eq!(table.admit(ip("192.0.2.2"), &settings, after(40.0)), Ok(()));
        assert_eq!(table.admit(ip("192.0.2.1"), &settings, after(71.0)), Ok(()));
        table.failed(ip("192.0.2.1"), after(71.0));
        assert_eq!(table.admit(ip("192.0.2.1"), &settings, after(72.0)), Ok(()), "a new window");
    }

    #[test]
    fn peers_are_told_apart_by_address_and_by_the_64_bits_of_ipv6_that_count() {
        let (table, settings) = (Table::new(), settings(1, 1, 0));
        for (peer, fresh) in [
            ("2001:db8:0:1::1", true),
            ("2001:db8:0:1:ffff::9", false),
            ("2001:db8:0:2::1", true),
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", false),
            ("192.0.2.2", true),
            ("::1", true),
            ("::", false),
        ] {
            assert_eq!(table.admit(ip(peer), &settings, after(0.0)).is_ok(), fresh, "{peer}");
        }
    }

    #[test]
    fn a_crowd_of_strangers_neither_fills_the_memory_nor_frees_those_who_failed() {
        let (table, settings) = (Table::new(), settings(100, 1, 5));
        let guesser = ip("192.0.2.66");
        for _ in 0..5 {
            table.failed(guesser, after(0.0));
        }
        for number in 0..200_000_u32 {
            let stranger = Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number) << 64);
            assert_eq!(table.admit(stranger.into(), &settings, after(1.0)), Ok(()), "{stranger}");
        }
        assert!(table.admit(guesser, &settings, after(1.0)).is_err(), "who owes most is not forgotten");
        let size = size_of_val(&*table.sets);
        assert!(size <= 4 << 20, "{size} bytes");
    }
}
