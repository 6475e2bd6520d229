//! Refused callbacks on their way to the ledger: strangers have room of their own.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use super::{Dropped, RefusedCallback};

/// Refused callbacks that may wait to be written, of strangers and of others each; more are dropped, and counted.
const REFUSED_WAITING: usize = 1024;

/// How many refused callbacks wait to be written, and how many were dropped; of strangers at index 1.
#[derive(Default)]
pub(super) struct RefusedCounts {
    waiting: [AtomicUsize; 2],
    dropped: [AtomicU64; 2],
}

impl RefusedCounts {
    /// Makes room for one; false, and counted, if there is none.
    pub(super) fn admit(&self, stranger: bool) -> bool {
        let waiting = &self.waiting[usize::from(stranger)];
        let admitted = waiting.fetch_add(1, Ordering::Relaxed) < REFUSED_WAITING;
        if !admitted {
            waiting.fetch_sub(1, Ordering::Relaxed);
            self.drop_one(stranger);
        }
        admitted
    }

    /// These wait no longer.
    pub(super) fn written(&self, refused: &[RefusedCallback]) {
        for one in refused {
            self.waiting[usize::from(one.stranger)].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// One was not written and will not be.
    pub(super) fn drop_one(&self, stranger: bool) {
        self.dropped[usize::from(stranger)].fetch_add(1, Ordering::Relaxed);
    }

    /// What was dropped since the start.
    pub(super) fn dropped(&self) -> Dropped {
        let [known, strangers] = self.dropped.each_ref().map(|count| count.load(Ordering::Relaxed));
        Dropped { known, strangers }
    }
}

/// Refused callbacks that wait to be written. Those of strangers wait behind all others: a flood of theirs must not drive
/// out what approvers ask about.
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

    /// Takes up to `limit`, those of strangers last.
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
