//! What was accepted lately, in memory, so that the writer detects repeats and conflicts.
//!
//! The platform sends no event id, so every accept asks "was this here before?". An index in the database would be
//! written at random places by every accept. The window costs about fifty bytes of memory per command instead, and is
//! rebuilt from the tail of the log at start.
//!
//! It covers two spans. Within the longest `dedupe_window` nothing is ever left out: a repeat is answered as a
//! duplicate. Within the longest `repeats_window`, which only marks repeats, it holds at most [`MOST`] commands; the
//! oldest are dropped first, and counted. At start the first span is read before anything is accepted, and the second
//! is [recalled](Window::recall) in the background.
//!
//! Commands are in a ring in log order. Two tables map the first eight bytes of a digest to the newest command that has
//! it. A hit is a *candidate*: the caller compares the whole digest with the row. Tables are split, so that growing one
//! delays a commit only briefly. Time is monotonic within a process: setting the clock neither prolongs nor ends a
//! span.

use std::{collections::VecDeque, time::Duration};

use hashbrown::{HashTable, hash_table::Entry};

use crate::command::Seq;

/// Maximum number of commands, unless the longest `dedupe_window` has more.
pub(super) const MOST: usize = 1_000_000;

const PARTS: usize = 64;

/// How far back a window reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spans {
    /// The longest `dedupe_window`.
    pub(super) exact: Duration,
    /// The longest `repeats_window`.
    pub(super) far: Duration,
}

/// What is remembered of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) seq: Seq,
    /// When it was seen, on the window's clock.
    pub(super) at_ms: i64,
    /// First bytes of its fingerprint.
    pub(super) fingerprint: u64,
    /// First bytes of the key of its operator and task.
    pub(super) decision: u64,
}

/// What to search by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Fingerprint,
    /// Its operator and task.
    Decision,
}

impl Seen {
    fn key(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Fingerprint => self.fingerprint,
            Kind::Decision => self.decision,
        }
    }
}

/// The newest command with a key, and its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) seq: Seq,
    pub(super) age: Duration,
}

/// What a new command replaced in the tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Displaced {
    fingerprint: Option<u32>,
    decision: Option<u32>,
}

/// Maps a key to the number of the newest command that has it. 32 bits suffice: the numbers in the ring are
/// consecutive.
struct Table(Box<[HashTable<u32>]>);

impl Table {
    fn new() -> Self {
        Self((0..PARTS).map(|_| HashTable::new()).collect())
    }

    fn part(&self, key: u64) -> &HashTable<u32> {
        // Not the bits by which a part finds its slots.
        &self.0[(key >> 40) as usize % PARTS]
    }

    fn part_mut(&mut self, key: u64) -> &mut HashTable<u32> {
        &mut self.0[(key >> 40) as usize % PARTS]
    }

    fn find(&self, key: u64, key_of: impl Fn(u32) -> u64) -> Option<u32> {
        self.part(key).find(key, |number| key_of(*number) == key).copied()
    }

    fn put(&mut self, key: u64, number: u32, key_of: impl Fn(u32) -> u64) -> Option<u32> {
        match self.part_mut(key).entry(key, |number| key_of(*number) == key, |number| key_of(*number)) {
            Entry::Occupied(mut known) => Some(std::mem::replace(known.get_mut(), number)),
            Entry::Vacant(free) => {
                free.insert(number);
                None
            }
        }
    }

    /// Removes a number, if the key maps to it.
    fn remove(&mut self, key: u64, number: u32) {
        if let Ok(known) = self.part_mut(key).find_entry(key, |known| *known == number) {
            known.remove();
        }
    }
}

pub(super) struct Window {
    spans: Spans,
    exact_ms: i64,
    far_ms: i64,
    most: usize,
    /// Number of the oldest command in the ring; the others follow. Starts in the middle, for recalled commands.
    first: u32,
    /// Oldest first.
    ring: VecDeque<Seen>,
    fingerprints: Table,
    decisions: Table,
    forgotten: u64,
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl Window {
    pub(super) fn new(spans: Spans) -> Self {
        Self::holding(spans, MOST)
    }

    fn holding(spans: Spans, most: usize) -> Self {
        let mut window = Self {
            spans,
            exact_ms: 0,
            far_ms: 0,
            most,
            first: u32::MAX / 2,
            ring: VecDeque::new(),
            fingerprints: Table::new(),
            decisions: Table::new(),
            forgotten: 0,
        };
        window.reach(spans);
        window
    }

    pub(super) fn spans(&self) -> Spans {
        self.spans
    }

    /// Changes how far back it reaches. What was forgotten does not come back.
    pub(super) fn reach(&mut self, spans: Spans) {
        self.spans = spans;
        self.exact_ms = millis(spans.exact);
        self.far_ms = millis(spans.far.max(spans.exact));
    }

    pub(super) fn len(&self) -> usize {
        self.ring.len()
    }

    /// Commands dropped early.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Forgets commands that are too old, and the oldest of too many. Called once per commit, before it.
    pub(super) fn advance(&mut self, now_ms: i64) {
        while let Some(oldest) = self.ring.front() {
            let age = now_ms.saturating_sub(oldest.at_ms);
            let too_many = self.ring.len() > self.most && age >= self.exact_ms;
            if age < self.far_ms && !too_many {
                break;
            }
            self.forgotten += u64::from(age < self.far_ms);
            let (number, oldest) = (self.first, *oldest);
            self.fingerprints.remove(oldest.fingerprint, number);
            self.decisions.remove(oldest.decision, number);
            self.ring.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }

    /// Place of the first command within the longest `dedupe_window`.
    pub(super) fn oldest(&self, now_ms: i64) -> Option<Seq> {
        let past = self.ring.partition_point(|seen| now_ms.saturating_sub(seen.at_ms) >= self.exact_ms);
        self.ring.get(past).map(|seen| seen.seq)
    }

    /// Remembers a command newer than all others.
    pub(super) fn remember(&mut self, seen: Seen) -> Displaced {
        let number = self.first.wrapping_add(self.ring.len() as u32);
        self.ring.push_back(seen);
        let Self { first, ring, fingerprints, decisions, .. } = self;
        let of = |kind| {
            let (first, ring) = (*first, &*ring);
            move |number: u32| ring[number.wrapping_sub(first) as usize].key(kind)
        };
        Displaced {
            fingerprint: fingerprints.put(seen.fingerprint, number, of(Kind::Fingerprint)),
            decision: decisions.put(seen.decision, number, of(Kind::Decision)),
        }
    }

    /// Removes the newest command, whose commit failed. `displaced` is what [`remember`](Self::remember) returned for
    /// it. Call it before the next [`advance`](Self::advance).
    pub(super) fn take_back(&mut self, displaced: Displaced) {
        let Some(seen) = self.ring.pop_back() else { return };
        let number = self.first.wrapping_add(self.ring.len() as u32);
        for (table, key, displaced) in [
            (&mut self.fingerprints, seen.fingerprint, displaced.fingerprint),
            (&mut self.decisions, seen.decision, displaced.decision),
        ] {
            match (table.part_mut(key).find_entry(key, |known| *known == number), displaced) {
                (Ok(mut known), Some(earlier)) => *known.get_mut() = earlier,
                (Ok(known), None) => drop(known.remove()),
                (Err(_), _) => {}
            }
        }
    }

    /// Remembers commands older than all others, newest first. False if no older ones are needed: they are beyond the
    /// spans, or too many.
    pub(super) fn recall(&mut self, older: &[Seen], now_ms: i64) -> bool {
        for seen in older {
            // The log is in order of time, whatever the clock said.
            let at_ms = self.ring.front().map_or(seen.at_ms, |first| seen.at_ms.min(first.at_ms));
            if self.ring.len() >= self.most || now_ms.saturating_sub(at_ms) >= self.far_ms {
                return false;
            }
            let number = self.first.wrapping_sub(1);
            self.first = number;
            self.ring.push_front(Seen { at_ms, ..*seen });
            let Self { first, ring, fingerprints, decisions, .. } = self;
            for (table, kind) in [(fingerprints, Kind::Fingerprint), (decisions, Kind::Decision)] {
                let of = |number: u32| ring[number.wrapping_sub(*first) as usize].key(kind);
                let key = seen.key(kind);
                // A newer one wins.
                if table.find(key, of).is_none() {
                    table.put(key, number, of);
                }
            }
        }
        true
    }

    /// The newest command with this key, or with a colliding one.
    pub(super) fn find(&self, kind: Kind, key: u64, now_ms: i64) -> Option<Found> {
        let table = match kind {
            Kind::Fingerprint => &self.fingerprints,
            Kind::Decision => &self.decisions,
        };
        let place = |number: u32| number.wrapping_sub(self.first) as usize;
        let number = table.find(key, |number| self.ring[place(number)].key(kind))?;
        let seen = self.ring[place(number)];
        let age = u64::try_from(now_ms.saturating_sub(seen.at_ms)).unwrap_or(0);
        Some(Found { seq: seen.seq, age: Duration::from_millis(age) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    fn window() -> Window {
        Window::new(Spans { exact: MINUTE, far: HOUR })
    }

    /// Fingerprint and decision are the same.
    fn seen(seq: Seq, at_ms: i64, key: u64) -> Seen {
        // Spread over all bits, as digests are.
        let key = spread(key);
        Seen { seq, at_ms, fingerprint: key, decision: key }
    }

    fn spread(key: u64) -> u64 {
        key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn found(window: &Window, key: u64, now_ms: i64) -> Option<(Seq, u64)> {
        let of = |kind| window.find(kind, spread(key), now_ms).map(|found| (found.seq, found.age.as_secs()));
        assert_eq!(of(Kind::Fingerprint), of(Kind::Decision));
        of(Kind::Fingerprint)
    }

    #[test]
    fn a_command_is_found_until_its_span_has_passed() {
        let mut window = window();
        window.remember(seen(100, 1_000, 7));
        for (now, age) in [(1_000, 0), (61_000, 60), (3_600_999, 3599)] {
            window.advance(now);
            assert_eq!(found(&window, 7, now), Some((100, age)));
            assert_eq!(found(&window, 8, now), None);
        }
        window.advance(3_601_000);
        assert_eq!(found(&window, 7, 3_601_000), None);
        assert_eq!((window.len(), window.forgotten()), (0, 0), "in time");
    }

    #[test]
    fn fingerprints_and_decisions_are_told_apart() {
        let mut window = window();
        window.remember(Seen { seq: 1, at_ms: 0, fingerprint: 7, decision: 9 });
        let find = |kind, key| window.find(kind, key, 0).map(|found| found.seq);
        assert_eq!((find(Kind::Fingerprint, 7), find(Kind::Decision, 9)), (Some(1), Some(1)));
        assert_eq!((find(Kind::Fingerprint, 9), find(Kind::Decision, 7)), (None, None));
    }

    #[test]
    fn the_newest_is_found_and_a_taken_back_one_is_not() {
        let mut window = window();
        window.remember(seen(100, 0, 7));
        window.remember(seen(101, 0, 8));
        let displaced = window.remember(seen(102, 5_000, 7));
        let another = window.remember(seen(103, 5_000, 9));
        assert_eq!(found(&window, 7, 5_000), Some((102, 0)));
        window.take_back(another);
        window.take_back(displaced);
        assert_eq!(found(&window, 7, 5_000), Some((100, 5)), "what it took the place of is back");
        assert_eq!((found(&window, 9, 5_000), found(&window, 8, 5_000)), (None, Some((101, 5))));
        window.remember(seen(102, 6_000, 9));
        assert_eq!(found(&window, 9, 6_000), Some((102, 0)));
        // The older command of a key goes, and the newer stays.
        window.remember(seen(103, 3_000_000, 7));
        window.advance(3_600_000);
        assert_eq!(found(&window, 7, 3_600_000), Some((103, 600)));
    }

    #[test]
    fn of_too_many_the_oldest_go_but_never_one_within_the_exact_span() {
        let mut window = Window::holding(Spans { exact: MINUTE, far: HOUR }, 100);
        for second in 0..300 {
            window.advance(second * 1_000);
            window.remember(seen(second as Seq + 1, second * 1_000, second as u64));
        }
        assert_eq!((window.len(), window.forgotten()), (101, 199), "one more until the next commit");
        assert_eq!(found(&window, 198, 300_000), None);
        assert_eq!(found(&window, 200, 300_000), Some((201, 100)));
        // A flood.
        for number in 1_000..2_000 {
            window.advance(300_000);
            window.remember(seen(number, 300_000, number));
        }
        assert_eq!(window.len(), 1_059, "the flood, and those of the minute before it");
        assert_eq!(found(&window, 239, 300_000), None);
        assert_eq!(found(&window, 241, 300_000), Some((242, 59)));
        window.advance(360_000);
        assert_eq!(window.len(), 100);
    }

    #[test]
    fn what_is_recalled_is_older_than_all_and_displaces_nothing() {
        let mut window = window();
        window.remember(seen(100, 0, 7));
        assert!(window.recall(&[seen(99, -1_000, 7), seen(98, -2_000, 8)], 0));
        window.remember(seen(101, 0, 9));
        assert!(window.recall(&[seen(90, -60_000, 9), seen(89, -61_000, 10)], 0));
        for (key, expected) in [(7, (100, 0)), (8, (98, 2)), (9, (101, 0)), (10, (89, 61))] {
            assert_eq!(found(&window, key, 0), Some(expected), "{key}");
        }
        assert!(!window.recall(&[seen(88, -3_600_000, 11)], 0), "beyond the span");
        assert_eq!((window.len(), found(&window, 11, 0)), (6, None));
        // From a clock that was ahead: it cannot be newer than later commands.
        assert!(window.recall(&[seen(80, 5_000, 12)], 0));
        assert_eq!(found(&window, 12, 0), Some((80, 61)));
        let mut small = Window::holding(Spans { exact: MINUTE, far: HOUR }, 2);
        assert!(!small.recall(&[seen(3, -1, 1), seen(2, -2, 2), seen(1, -3, 3)], 0), "too many");
        assert_eq!((small.len(), small.forgotten()), (2, 0));
    }

    #[test]
    fn the_oldest_command_of_the_exact_span_is_known_so_that_it_is_not_pruned() {
        let mut window = window();
        assert_eq!(window.oldest(0), None);
        window.remember(seen(100, 0, 1));
        window.remember(seen(101, 1, 2));
        window.remember(seen(200, 20_000, 3));
        assert_eq!(
            (window.oldest(59_999), window.oldest(60_000), window.oldest(60_001)),
            (Some(100), Some(101), Some(200))
        );
        assert_eq!(window.oldest(80_000), None, "what only tells repeats may be pruned");
        assert_eq!(window.len(), 3);
    }

    #[test]
    fn it_does_what_a_list_would_do() {
        // Compare with a list: newest last, and what is too old or too much is removed in front.
        let mut window = Window::holding(Spans { exact: Duration::from_secs(10), far: MINUTE }, 50);
        let mut list: Vec<Seen> = Vec::new();
        let mut random = 1_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let (mut now, mut seq) = (0_i64, 0);
        for _ in 0..20_000 {
            now += next(900) as i64;
            window.advance(now);
            list.retain(|seen| now - seen.at_ms < 60_000);
            while list.len() > 50 && now - list[0].at_ms >= 10_000 {
                list.remove(0);
            }
            let many = next(4);
            let mut displaced = Vec::new();
            for _ in 0..many {
                seq += 1;
                let seen =
                    Seen { seq, at_ms: now, fingerprint: spread(next(80)), decision: spread(next(20)) };
                displaced.push(window.remember(seen));
                list.push(seen);
            }
            if next(5) == 0 {
                for displaced in displaced.into_iter().rev() {
                    window.take_back(displaced);
                    list.pop();
                    seq -= 1;
                }
            }
            for key in [spread(next(80)), spread(next(20))] {
                for kind in [Kind::Fingerprint, Kind::Decision] {
                    let expected = list.iter().rev().find(|seen| seen.key(kind) == key);
                    assert_eq!(
                        window.find(kind, key, now).map(|found| found.seq),
                        expected.map(|seen| seen.seq)
                    );
                }
            }
            assert_eq!(window.len(), list.len());
        }
    }
}
