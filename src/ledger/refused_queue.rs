//! Refused callbacks that wait to be written. Strangers have room of their own.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use super::{Dropped, RefusedCallback};

/// Refused callbacks that may wait: so many of strangers, so many of others. More are dropped and counted.
const REFUSED_WAITING: usize = 1024;

/// Refused callbacks that wait or were dropped. Index 1 is strangers.
#[derive(Default)]
pub(super) struct RefusedCounts {
    waiting: [AtomicUsize; 2],
    dropped: [AtomicU64; 2],
}

impl RefusedCounts {
    /// Reserves room for one. If there is none, counts it as dropped and returns false.
    pub(super) fn admit(&self, stranger: bool) -> bool {
        let waiting = &self.waiting[usize::from(stranger)];
        let admitted = waiting.fetch_add(1, Ordering::Relaxed) < REFUSED_WAITING;
        if !admitted {
            waiting.fetch_sub(1, Ordering::Relaxed);
            self.drop_one(stranger);
        }
        admitted
    }

    /// Frees the room of these.
    pub(super) fn written(&self, refused: &[RefusedCallback]) {
        for one in refused {
            self.waiting[usize::from(one.stranger)].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Counts one that will not be written.
    pub(super) fn drop_one(&self, stranger: bool) {
        self.dropped[usize::from(stranger)].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self) -> Dropped {
        let [known, strangers] = self.dropped.each_ref().map(|count| count.load(Ordering::Relaxed));
        Dropped { known, strangers }
    }
}

/// Refused callbacks that wait to be written. Strangers wait behind all others: a flood of theirs must not push out
/// what approvers ask about.
#[derive(Default)]
pub(super) struct RefusedQueue {
    known: VecDeque<RefusedCallback>,
    strangers: VecDeque<RefusedCallback>,
}

impl RefusedQueue {
    pub(super) fn push(&mut self, refused: RefusedCallback) {
        if refused.stranger { self.strangers.push_back(refused) } else { self.known.push_back(refused) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty() && self.strangers.is_empty()
    }

    /// Takes up to `limit`, strangers last.
    pub(super) fn take(&mut self, limit: usize) -> Vec<RefusedCallback> {
        let known = self.known.len().min(limit);
        let strangers = self.strangers.len().min(limit - known);
        self.known.drain(..known).chain(self.strangers.drain(..strangers)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_strangers_takes_no_room_of_the_others_and_what_is_dropped_is_counted() {
        let counts = RefusedCounts::default();
        let admitted = (0..REFUSED_WAITING + 5).filter(|_| counts.admit(true)).count();
        assert_eq!(admitted, REFUSED_WAITING);
        assert!(counts.admit(false), "others have room of their own");
        assert_eq!(counts.dropped(), Dropped { known: 0, strangers: 5 });
        counts.written(&[RefusedCallback { stranger: true, ..RefusedCallback::default() }]);
        assert!(counts.admit(true), "there is room again");
        assert!(!counts.admit(true));
        assert_eq!(counts.dropped(), Dropped { known: 0, strangers: 6 });
    }
}
