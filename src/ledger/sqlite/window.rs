//! What was accepted lately, in memory: the window within which a callback without a round is a repeat.
//!
//! The platform sends no event id, so every accept asks "was this here within the last minute?". An index in the
//! database would be written at random places by every accept; this costs a few bytes of memory instead, and is rebuilt
//! from the tail of the log at start.
//!
//! Keys are the first eight bytes of a digest, so a hit is a *candidate*: the caller compares the whole digest with the
//! row. Entries live in generations of an eighth of the longest window, so that forgetting is dropping a whole table.
//! Time is monotonic within a process; a clock that is set back or forward neither prolongs nor ends the window.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    time::Duration,
};

use crate::command::Seq;

/// Hands on a key that is a digest already.
#[derive(Default)]
pub(super) struct Digested(u64);

impl Hasher for Digested {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u64")
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// Where a key was seen: offsets from the generation's first entry, to keep a million of them small.
#[derive(Clone, Copy)]
struct Seen {
    seq: i32,
    at_ms: i32,
}

/// An earlier entry of the same key, in the same generation.
#[derive(Clone, Copy)]
pub(super) struct Displaced(Seen);

type Table = HashMap<u64, Seen, BuildHasherDefault<Digested>>;

struct Generation {
    first_seq: i64,
    opened_at_ms: i64,
    fingerprints: Table,
    decisions: Table,
}

/// The two things that are remembered of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its fingerprint.
    Fingerprint,
    /// Its operator and task.
    Decision,
}

impl Generation {
    fn table(&self, kind: Kind) -> &Table {
        match kind {
            Kind::Fingerprint => &self.fingerprints,
            Kind::Decision => &self.decisions,
        }
    }

    fn table_mut(&mut self, kind: Kind) -> &mut Table {
        match kind {
            Kind::Fingerprint => &mut self.fingerprints,
            Kind::Decision => &mut self.decisions,
        }
    }
}

/// See the module.
pub(super) struct Window {
    /// As it was asked for.
    longest: Duration,
    longest_ms: i64,
    /// Newest last; never empty.
    generations: VecDeque<Generation>,
}

impl Window {
    /// An empty window that remembers for `longest`. Times are milliseconds on a clock that never goes back.
    pub(super) fn new(longest: Duration, now_ms: i64) -> Self {
        // Offsets in a generation are 31 bits of milliseconds: 24 days.
        let longest_ms = i64::try_from(longest.as_millis()).unwrap_or(i64::MAX).min(i64::from(i32::MAX) / 2);
        let mut window = Self { longest, longest_ms, generations: VecDeque::new() };
        window.open(now_ms);
        window
    }

    /// How far back it reaches at the most.
    pub(super) fn longest(&self) -> Duration {
        self.longest
    }

    fn open(&mut self, now_ms: i64) {
        self.generations.push_back(Generation {
            first_seq: -1,
            opened_at_ms: now_ms,
            fingerprints: Table::default(),
            decisions: Table::default(),
        });
    }

    /// Forgets what is older than the longest window. Called once per commit.
    pub(super) fn advance(&mut self, now_ms: i64) {
        let newest = self.generations.back_mut().expect("never empty");
        if newest.first_seq < 0 {
            newest.opened_at_ms = now_ms;
        } else if now_ms - newest.opened_at_ms >= (self.longest_ms / 8).max(1) {
            self.open(now_ms);
        }
        // A generation ends where the next one opens.
        while self.generations.get(1).is_some_and(|next| now_ms - next.opened_at_ms > self.longest_ms) {
            self.generations.pop_front();
        }
    }

    /// The place in the log of the first command that is remembered.
    pub(super) fn oldest(&self) -> Option<Seq> {
        let opened = self.generations.iter().find(|generation| generation.first_seq >= 0)?;
        Some(opened.first_seq as Seq)
    }

    /// Remembers that `key` belongs to the command at `seq`, seen at `at_ms`; returns what that takes the place of.
    pub(super) fn insert(&mut self, kind: Kind, key: u64, seq: Seq, at_ms: i64) -> Option<Displaced> {
        let newest = self.generations.back_mut().expect("never empty");
        let seq = seq as i64;
        if newest.first_seq < 0 {
            newest.first_seq = seq;
        }
        let seen = Seen {
            seq: (seq - newest.first_seq) as i32,
            at_ms: (at_ms - newest.opened_at_ms).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32,
        };
        newest.table_mut(kind).insert(key, seen).map(Displaced)
    }

    /// Takes back the latest insertion, whose commit failed. Insertions are taken back in reverse order, before the
    /// next [`advance`](Self::advance).
    pub(super) fn remove(&mut self, kind: Kind, key: u64, seq: Seq, displaced: Option<Displaced>) {
        let newest = self.generations.back_mut().expect("never empty");
        let first = newest.first_seq;
        let table = newest.table_mut(kind);
        if table.get(&key).is_some_and(|seen| first + i64::from(seen.seq) == seq as i64) {
            match displaced {
                Some(Displaced(seen)) => drop(table.insert(key, seen)),
                None => drop(table.remove(&key)),
            }
        }
    }

    /// The latest command with this key that was seen less than `window` ago, or one whose key collides with it.
    pub(super) fn find(&self, kind: Kind, key: u64, now_ms: i64, window: Duration) -> Option<Seq> {
        let window_ms = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
        self.generations.iter().rev().find_map(|generation| {
            let seen = generation.table(kind).get(&key)?;
            let at_ms = generation.opened_at_ms + i64::from(seen.at_ms);
            (now_ms - at_ms < window_ms).then_some((generation.first_seq + i64::from(seen.seq)) as Seq)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_key_is_found_until_its_window_has_passed() {
        let mut window = Window::new(MINUTE, 0);
        window.insert(Kind::Fingerprint, 7, 100, 1_000);
        for now in [1_000, 30_000, 60_999] {
            window.advance(now);
            assert_eq!(window.find(Kind::Fingerprint, 7, now, MINUTE), Some(100), "{now}");
            assert_eq!(window.find(Kind::Decision, 7, now, MINUTE), None);
        }
        window.advance(61_000);
        assert_eq!(window.find(Kind::Fingerprint, 7, 61_000, MINUTE), None);
        assert_eq!(window.find(Kind::Fingerprint, 7, 2_000, Duration::from_millis(500)), None);
    }

    #[test]
    fn what_is_past_the_window_is_forgotten_whole() {
        let mut window = Window::new(MINUTE, 0);
        for n in 0..10_000_i64 {
            let now = n * 100;
            window.advance(now);
            window.insert(Kind::Fingerprint, n as u64, n as u64 + 1, now);
        }
        let kept: usize = window.generations.iter().map(|generation| generation.fingerprints.len()).sum();
        assert!(
            (600..=760).contains(&kept),
            "{kept} of the 600 within a minute, and at most one generation more"
        );
        assert!(window.generations.len() <= 10);
    }

    #[test]
    fn the_latest_of_two_is_found_and_a_taken_back_one_is_not() {
        let mut window = Window::new(MINUTE, 0);
        window.insert(Kind::Decision, 7, 100, 0);
        window.advance(20_000);
        window.insert(Kind::Decision, 7, 200, 20_000);
        assert_eq!(window.find(Kind::Decision, 7, 20_000, MINUTE), Some(200));
        let displaced = window.insert(Kind::Decision, 7, 300, 20_001);
        window.remove(Kind::Decision, 7, 300, displaced);
        assert_eq!(
            window.find(Kind::Decision, 7, 20_001, MINUTE),
            Some(200),
            "what it took the place of is back"
        );
        window.remove(Kind::Decision, 7, 200, None);
        assert_eq!(window.find(Kind::Decision, 7, 20_000, MINUTE), Some(100));
    }

    #[test]
    fn the_oldest_command_that_is_remembered_is_known_so_that_it_is_not_pruned() {
        let mut window = Window::new(MINUTE, 0);
        assert_eq!(window.oldest(), None);
        window.insert(Kind::Fingerprint, 1, 100, 0);
        window.insert(Kind::Fingerprint, 2, 101, 1);
        assert_eq!(window.oldest(), Some(100));
        window.advance(20_000);
        window.insert(Kind::Fingerprint, 3, 200, 20_000);
        window.advance(80_000);
        assert_eq!(window.oldest(), Some(100), "seen less than a generation before the window began");
        window.advance(80_001);
        assert_eq!(window.oldest(), Some(200));
    }

    #[test]
    fn a_window_of_years_is_not_found_too_short_at_each_commit() {
        let years = Duration::from_secs(100_000_000);
        assert_eq!(Window::new(years, 0).longest(), years);
    }

    #[test]
    fn entries_from_before_the_start_have_their_age() {
        let mut window = Window::new(MINUTE, 0);
        window.insert(Kind::Fingerprint, 1, 5_000_000_000, -59_000);
        window.insert(Kind::Fingerprint, 2, 4_999_999_999, -59_500);
        assert_eq!(window.find(Kind::Fingerprint, 1, 900, MINUTE), Some(5_000_000_000));
        assert_eq!(window.find(Kind::Fingerprint, 2, 900, MINUTE), None);
        assert_eq!(window.find(Kind::Fingerprint, 2, 900, MINUTE * 2), Some(4_999_999_999));
    }
}
