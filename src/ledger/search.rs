//! Searches in slices: no single read is long, however long the ledger is, and whatever is searched for.
//!
//! What passes a filter without an index may be anywhere. A read of the whole log takes seconds, or half a minute from a
//! cold disk, and for so long SQLite cannot restart its write-ahead log, and PostgreSQL cannot remove old rows. So the log is
//! read in slices, each in a transaction of its own, which is stopped if it takes too long and then tried again with
//! less. A person does not wait for the whole log either: after [`PATIENCE`] the search says how far it came.

use std::time::Duration;

use crate::{command::Seq, time::Timestamp};

/// No read takes longer, unless the smallest slice does.
pub(super) const LONGEST_READ: Duration = Duration::from_millis(50);

/// How long a slice should take: long enough that the work around it does not count.
const AIM: Duration = Duration::from_millis(15);

/// How long a person waits for a search. It then says how far it came.
pub const PATIENCE: Duration = Duration::from_millis(300);

/// Places in the first slice: the newest page of a list is among them, if nothing is filtered.
const FIRST: u64 = 2048;

/// Places in the smallest slice. It is read to its end: a search must come forward on the slowest disk.
const SMALLEST: u64 = 16;

/// A slice is so many times as large as the one before, at the most.
const GROWTH: f64 = 8.0;

/// Places with something that are no further apart are read together.
const NEAR: u64 = 16;

/// By how much the order of ids may differ from the order of the log, besides what a clock that was set back causes:
/// callbacks overtake one another, and replicas have clocks of their own.
const SKEW_MS: i64 = 300_000;

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T> {
    /// What passes the filter, in the order of the filter, no more than its limit.
    pub rows: Vec<T>,
    /// Where it stopped because its time was over; `None` if all was searched, or the limit was reached.
    pub stopped: Option<Stopped>,
}

/// Where a search stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// To go on, search `before` this place (`after` it, if the oldest come first).
    pub at: u64,
    /// When the last that was looked at was received; `None` if unknown.
    pub back_to: Option<Timestamp>,
}

impl<T> Found<T> {
    pub(super) fn nothing() -> Self {
        Self { rows: Vec::new(), stopped: None }
    }

    /// Cuts it to a page of `limit`, if one more than that was searched for. Returns the page, and where the next one
    /// begins, if there may be one.
    pub fn page(mut self, limit: usize, place: impl Fn(&T) -> u64) -> (Vec<T>, Option<u64>) {
        let more = self.rows.len() > limit;
        self.rows.truncate(limit);
        let next = if more { self.rows.last().map(place) } else { self.stopped.map(|stopped| stopped.at) };
        (self.rows, next)
    }
}

/// Places from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) first: Seq,
    pub(super) last: Seq,
}

/// What an index knows of a search that begins with the newest.
#[derive(Debug, Clone, Default)]
pub struct Hint {
    /// For which places it speaks.
    pub(super) covers: Option<Places>,
    /// Where it finds something in them, in ascending order. Elsewhere in them is nothing.
    pub(super) at: Vec<Seq>,
}

impl Hint {
    /// Narrows a slice that ends at its last place: to before or after the covered places, or to a run of places where something
    /// is. `None` if nothing is left.
    fn narrow(&self, slice: Places, first: Seq) -> Option<Places> {
        let Some(covers) = self.covers else { return Some(slice) };
        let Places { last, .. } = slice;
        if last > covers.last {
            return Some(Places { first: slice.first.max(covers.last + 1), last });
        }
        let size = last - slice.first;
        let below = |last: Seq| Places { first: first.max(last.saturating_sub(size)), last };
        if last < covers.first {
            return Some(slice);
        }
        let mut run = self.at[..self.at.partition_point(|at| *at <= last)].iter().rev().copied();
        match run.next().filter(|at| *at >= covers.first.max(first)) {
            Some(last) => {
                let lowest = below(last).first.max(covers.first);
                let mut first = last;
                for at in run.take_while(|at| *at >= lowest) {
                    if first - at > NEAR {
                        break;
                    }
                    first = at;
                }
                Some(Places { first, last })
            }
            None => (first < covers.first).then(|| below(covers.first - 1)),
        }
    }
}

/// Which slice is read next.
#[derive(Debug)]
pub(super) struct Slices {
    /// What is left.
    left: Places,
    /// Whether the lowest places come first.
    ascending: bool,
    size: u64,
    hint: Hint,
}

impl Slices {
    pub(super) fn new(of: Places, ascending: bool) -> Self {
        Self { left: of, ascending, size: FIRST, hint: Hint::default() }
    }

    /// With what an index knows, which is of use if the highest places come first.
    pub(super) fn hinted(self, hint: Hint) -> Self {
        Self { hint, ..self }
    }

    /// The next slice; `None` if nothing is left.
    pub(super) fn next(&self) -> Option<Places> {
        let Places { first, last } = self.left;
        if first > last {
            return None;
        }
        if self.ascending {
            return Some(Places { first, last: last.min(first.saturating_add(self.size - 1)) });
        }
        let slice = Places { first: first.max(last.saturating_sub(self.size - 1)), last };
        self.hint.narrow(slice, first)
    }

    /// After which time the next slice is to be stopped, if so much is `left` of the patience; `None` for never.
    pub(super) fn longest(&self, left: Option<Duration>) -> Option<Duration> {
        (self.size > SMALLEST).then(|| left.map_or(LONGEST_READ, |left| left.min(LONGEST_READ)))
    }

    /// The slice was read, and took so long.
    pub(super) fn read(&mut self, took: Duration) {
        let Some(slice) = self.next() else { return };
        if self.ascending {
            self.left.first = slice.last.saturating_add(1);
        } else if slice.first == 0 {
            self.left = Places { first: 1, last: 0 };
        } else {
            self.left.last = slice.first - 1;
        }
        let factor = AIM.as_secs_f64() / took.as_secs_f64().max(f64::EPSILON);
        self.resize(factor.clamp(1.0 / GROWTH, GROWTH));
    }

    /// The slice was stopped: it took too long.
    pub(super) fn stopped(&mut self) {
        self.resize(1.0 / GROWTH);
    }

    fn resize(&mut self, factor: f64) {
        // Saturates, and there is never need for more.
        self.size = ((self.size as f64 * factor) as u64).max(SMALLEST);
    }

    /// Where to go on: all places on the other side of it were read.
    pub(super) fn at(&self) -> u64 {
        if self.ascending { self.left.first.saturating_sub(1) } else { self.left.last.saturating_add(1) }
    }
}

/// Finds a time in the log by some twenty looks at single rows: there is no index by time, which every accept would have to
/// write.
///
/// It goes by the time in the ids. They are never before the time of receipt, and may be ahead of it, and out of order, by
/// as much as the ledger has noted: a clock that was set back. What is found is exact but for that, on the safe side.
#[derive(Debug)]
pub(super) struct Bisection {
    /// All before this place are of an earlier time.
    low: Seq,
    /// All from this place on are of this time or later.
    high: Seq,
    millis: i64,
}

impl Bisection {
    /// For the first place from which on commands may be received at `since` or later.
    pub(super) fn since(since: Timestamp, lead_ms: i64, within: Places) -> Self {
        Self::of(since.as_millisecond().saturating_sub(lead_ms).saturating_sub(SKEW_MS), within)
    }

    /// For the first place from which on no command was received before `until`.
    pub(super) fn until(until: Timestamp, lead_ms: i64, within: Places) -> Self {
        // Ids are ahead by the lead, and their order by as much again.
        let lead_ms = lead_ms.saturating_mul(2);
        Self::of(until.as_millisecond().saturating_add(lead_ms).saturating_add(SKEW_MS), within)
    }

    fn of(millis: i64, within: Places) -> Self {
        Self { low: within.first, high: within.last.saturating_add(1), millis }
    }

    /// Where to look for the first command from there on; `None` if the place is found.
    pub(super) fn look(&self) -> Option<Seq> {
        (self.low < self.high).then(|| self.low + (self.high - self.low) / 2)
    }

    /// What is there: its place, and the time in its id.
    pub(super) fn saw(&mut self, found: Option<(Seq, i64)>) {
        let Some(asked) = self.look() else { return };
        match found {
            Some((seq, millis)) if millis < self.millis && seq < self.high => self.low = seq + 1,
            _ => self.high = asked,
        }
    }

    pub(super) fn place(&self) -> Seq {
        self.low
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use proptest::prelude::*;

    use super::*;

    fn all(mut slices: Slices, mut took: impl FnMut(Places) -> Duration) -> Vec<Places> {
        let mut read = Vec::new();
        while let Some(slice) = slices.next() {
            let took = took(slice);
            if slices.longest(None).is_some_and(|longest| took > longest) {
                slices.stopped();
            } else {
                read.push(slice);
                slices.read(took);
            }
        }
        read
    }

    #[test]
    fn a_fast_log_is_read_in_few_slices_and_a_slow_one_in_short_reads() {
        let places = Places { first: 1, last: 10_000_000 };
        let at = |per_row: Duration| {
            move |slice: Places| per_row * u32::try_from(slice.last - slice.first + 1).unwrap_or(u32::MAX)
        };
        let fast = all(Slices::new(places, false), at(Duration::from_nanos(1)));
        assert!(fast.len() < 10, "{}", fast.len());
        let slow = at(Duration::from_micros(100));
        for slice in all(Slices::new(Places { first: 1, last: 100_000 }, false), slow) {
            assert!(slow(slice) <= LONGEST_READ, "{slice:?}");
        }
        let slowest = all(Slices::new(Places { first: 1, last: 100 }, false), at(Duration::from_secs(1)));
        assert_eq!(slowest.len(), 7, "which comes forward all the same");
    }

    proptest! {
        #[test]
        fn slices_cover_every_place_once_in_order(
            first in 0_u64..5000, length in 0_u64..20_000, ascending: bool, took in prop::collection::vec(0_u64..60, 1..50),
        ) {
            let places = Places { first, last: (first + length).saturating_sub(1) };
            let mut took = took.into_iter().map(Duration::from_millis).cycle();
            let read = all(Slices::new(places, ascending), |_| took.next().expect("it goes round"));
            let mut expected: Vec<u64> = (places.first..=places.last).collect();
            let mut seen: Vec<u64> = read.iter().flat_map(|slice| {
                let mut places: Vec<u64> = (slice.first..=slice.last).collect();
                if !ascending { places.reverse(); }
                places
            }).collect();
            if !ascending { expected.reverse(); }
            prop_assert_eq!(&seen, &expected);
            seen.dedup();
            prop_assert_eq!(seen, expected);
        }

        #[test]
        fn with_a_hint_nothing_is_missed_and_little_is_read(
            first in 1_u64..3000, length in 0_u64..9000, covers in (0_u64..9000, 0_u64..9000),
            at in prop::collection::btree_set(0_u64..12_000, 0..60), took in prop::collection::vec(0_u64..60, 1..50),
        ) {
            let places = Places { first, last: first + length };
            let covers = Places { first: covers.0, last: covers.0 + covers.1 };
            let at: Vec<u64> = at.into_iter().filter(|at| (covers.first..=covers.last).contains(at)).collect();
            let hint = Hint { covers: Some(covers), at: at.clone() };
            let mut took = took.into_iter().map(Duration::from_millis).cycle();
            let read = all(Slices::new(places, false).hinted(hint), |_| took.next().expect("it goes round"));
            let seen: Vec<u64> = read.iter().flat_map(|slice| (slice.first..=slice.last).rev()).collect();
            prop_assert!(seen.is_sorted_by(|one, next| one > next), "each place once, the highest first");
            let (seen, at): (HashSet<u64>, BTreeSet<u64>) = (seen.into_iter().collect(), at.into_iter().collect());
            for place in places.first..=places.last {
                let covered = (covers.first..=covers.last).contains(&place);
                if at.contains(&place) || !covered {
                    prop_assert!(seen.contains(&place), "{place} was not read");
                } else if at.range(place.saturating_sub(NEAR)..=place + NEAR).next().is_none() {
                    prop_assert!(!seen.contains(&place), "{place} was read for nothing");
                }
            }
        }

        /// A log with gaps, whose clock is set back now and then: also between two processes, when ids begin lower.
        #[test]
        fn no_command_of_a_time_is_outside_of_the_places_that_are_found(
            steps in prop::collection::vec((1_u64..4, 0_i64..900_000, 0_i64..40, any::<bool>()), 1..60),
            since in 0_i64..30_000_000, length in 0_i64..5_000_000,
        ) {
            let (mut seq, mut clock, mut id, mut highest, mut lead) = (0, 0, 0, 0, 1000);
            let mut log = Vec::new();
            for (gap, passed, back, restarts) in steps {
                clock += passed;
                if back == 0 {
                    clock -= 1_000_000;
                    if restarts {
                        // As it is noted at start.
                        lead = lead.max(highest - clock);
                        id = clock;
                    }
                }
                seq += gap;
                id = id.max(clock);
                highest = highest.max(id);
                lead = lead.max(id - clock);
                log.push((seq, clock, id));
            }
            let places = Places { first: log[0].0, last: seq };
            let found = |mut bisection: Bisection| {
                let mut looks = 0;
                while let Some(asked) = bisection.look() {
                    let row = log.iter().find(|(seq, ..)| *seq >= asked);
                    bisection.saw(row.map(|(seq, _, id)| (*seq, *id)));
                    looks += 1;
                }
                assert!(looks <= 12, "{looks}");
                bisection.place()
            };
            let time = |millis| Timestamp::from_millisecond(millis).expect("a time");
            let first = found(Bisection::since(time(since), lead, places));
            let end = found(Bisection::until(time(since + length), lead, places));
            for (seq, received, _) in &log {
                if (since..since + length).contains(received) {
                    prop_assert!((first..end).contains(seq), "{seq} at {received} is outside of {first}..{end}");
                }
            }
        }
    }
}
