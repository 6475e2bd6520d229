//! Which places in the log are taken: ranges, since they follow each other.

use std::collections::BTreeMap;

/// A set of places. Takes room for each hole only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::ledger) struct Places {
    /// The last place of each range, by its first.
    ranges: BTreeMap<i64, i64>,
}

impl Places {
    /// False if it was there before.
    pub(in crate::ledger) fn add(&mut self, place: i64) -> bool {
        let before = self.ranges.range(..=place).next_back().map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| last >= place) {
            return false;
        }
        let first = match before {
            Some((first, last)) if last + 1 == place => first,
            _ => place,
        };
        let last = place.checked_add(1).and_then(|next| self.ranges.remove(&next)).unwrap_or(place);
        self.ranges.insert(first, last);
        true
    }

    pub(in crate::ledger) fn has(&self, place: i64) -> bool {
        self.ranges.range(..=place).next_back().is_some_and(|(_, last)| *last >= place)
    }

    pub(in crate::ledger) fn first(&self) -> Option<i64> {
        self.ranges.first_key_value().map(|(first, _)| *first)
    }

    pub(in crate::ledger) fn last(&self) -> Option<i64> {
        self.ranges.last_key_value().map(|(_, last)| *last)
    }

    /// The ranges of places after `after` and up to `through` that are not taken.
    pub(in crate::ledger) fn holes(&self, after: i64, through: i64) -> Vec<(i64, i64)> {
        let mut holes = Vec::new();
        let mut next = after.saturating_add(1);
        for (&first, &last) in &self.ranges {
            if last < next {
                continue;
            }
            if first > through {
                break;
            }
            if first > next {
                holes.push((next, first - 1));
            }
            next = match last.checked_add(1) {
                Some(next) => next,
                None => return holes,
            };
        }
        if next <= through {
            holes.push((next, through));
        }
        holes
    }

    /// Maps places to those of a log without holes after `fixed`: what is up to there stays where it is.
    pub(in crate::ledger) fn closed_up(&self, fixed: i64) -> ClosedUp {
        let mut starts = Vec::new();
        let mut taken = fixed;
        for (&first, &last) in &self.ranges {
            let first = first.max(fixed.saturating_add(1));
            if first <= last {
                starts.push((first, last, taken));
                taken = taken.saturating_add(last - first + 1);
            }
        }
        ClosedUp { fixed, starts, last: taken }
    }
}

/// See [`Places::closed_up`].
#[derive(Debug, Clone)]
pub(in crate::ledger) struct ClosedUp {
    fixed: i64,
    /// First and last place of each range, and the place that the one before the first has now.
    starts: Vec<(i64, i64, i64)>,
    last: i64,
}

impl ClosedUp {
    /// Where everything up to this place ends now.
    pub(in crate::ledger) fn through(&self, place: i64) -> i64 {
        if place <= self.fixed {
            return place;
        }
        let at = self.starts.partition_point(|(first, _, _)| *first <= place);
        match at.checked_sub(1).and_then(|at| self.starts.get(at)) {
            None => self.fixed,
            Some((first, last, before)) => before.saturating_add(place.min(*last) - first + 1),
        }
    }

    /// The end of the log now.
    pub(in crate::ledger) fn last(&self) -> i64 {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(of: &[i64]) -> Places {
        let mut places = Places::default();
        for place in of {
            places.add(*place);
        }
        places
    }

    #[test]
    fn holes_are_what_is_not_taken() {
        let some = places(&[7, 3, 5, 4, 9, 5, 1]);
        assert_eq!(some.holes(0, 11), [(2, 2), (6, 6), (8, 8), (10, 11)]);
        assert_eq!(some.holes(3, 9), [(6, 6), (8, 8)]);
        assert_eq!(some.holes(5, 6), [(6, 6)]);
        assert_eq!((some.has(5), some.has(6), some.first(), some.last()), (true, false, Some(1), Some(9)));
        assert_eq!(places(&[]).holes(0, 3), [(1, 3)]);
    }

    #[test]
    fn a_log_is_closed_up_behind_what_was_pruned() {
        let closed = places(&[2, 5, 6, 9, 10, 11]).closed_up(4);
        let now: Vec<i64> = (1..=12).map(|place| closed.through(place)).collect();
        assert_eq!(now, [1, 2, 3, 4, 5, 6, 6, 6, 7, 8, 9, 9]);
        assert_eq!(closed.last(), 9);
        assert_eq!(places(&[5]).closed_up(0).through(4), 0);
    }

    #[test]
    fn the_outermost_places_are_places() {
        let ends = places(&[i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1]);
        assert_eq!((ends.first(), ends.last()), (Some(i64::MIN), Some(i64::MAX)));
        assert_eq!(ends.holes(i64::MIN, i64::MAX), [(i64::MIN + 2, i64::MAX - 2)]);
        assert_eq!(ends.holes(i64::MAX - 1, i64::MAX), [(0, 0); 0]);
        assert_eq!(ends.closed_up(i64::MAX - 1).last(), i64::MAX);
        assert_eq!(ends.closed_up(i64::MAX).through(i64::MAX), i64::MAX);
        assert_eq!(ends.closed_up(i64::MIN).through(0), i64::MIN + 1);
    }

    #[test]
    fn places_in_any_order_are_the_same_set() {
        proptest::proptest!(|(mut of in proptest::collection::vec(1..60_i64, 0..80))| {
            let shuffled = places(&of);
            of.sort_unstable();
            of.dedup();
            proptest::prop_assert_eq!(&shuffled, &places(&of));
            let free: usize = shuffled.holes(0, 60).iter().map(|(a, b)| usize::try_from(b - a + 1).unwrap_or(0)).sum();
            proptest::prop_assert_eq!(free + of.len(), 60);
            let closed = shuffled.closed_up(0);
            for (at, place) in of.iter().enumerate() {
                proptest::prop_assert_eq!(closed.through(*place), at as i64 + 1);
            }
        });
    }
}
