//! Refused callbacks that wait to be written. Strangers have room of their own.

use std::{
    cmp::Reverse,
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{Dropped, RefusedCallback};

/// Refused callbacks that may wait: so many of strangers, so many of others. More are dropped and counted.
const REFUSED_WAITING: usize = 1024;

/// Refused callbacks that are remembered while they cannot be written: so many of strangers, so many of others.
const REMEMBERED: usize = 256;

/// Refused callbacks that wait or were dropped. Index 1 is strangers.
#[derive(Default)]
pub(super) struct RefusedCounts {
    waiting: [AtomicUsize; 2],
    dropped: [AtomicU64; 2],
    /// The newest that were dropped, oldest first: nobody finds them in the ledger.
    newest: [Mutex<VecDeque<RefusedCallback>>; 2],
}

impl RefusedCounts {
    /// Reserves room for one and returns it. If there is none, drops it.
    pub(super) fn admit(&self, refused: RefusedCallback) -> Option<RefusedCallback> {
        let waiting = &self.waiting[usize::from(refused.stranger)];
        if waiting.fetch_add(1, Ordering::Relaxed) < REFUSED_WAITING {
            return Some(refused);
        }
        waiting.fetch_sub(1, Ordering::Relaxed);
        self.drop_one(refused);
        None
    }

    /// Frees the room of these.
    pub(super) fn written(&self, refused: &[RefusedCallback]) {
        for one in refused {
            self.waiting[usize::from(one.stranger)].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Counts one that will not be written, and remembers it for a while.
    pub(super) fn drop_one(&self, refused: RefusedCallback) {
        let kind = usize::from(refused.stranger);
        self.dropped[kind].fetch_add(1, Ordering::Relaxed);
        let mut newest = self.newest[kind].lock().unwrap_or_else(PoisonError::into_inner);
        if newest.len() == REMEMBERED {
            newest.pop_front();
        }
        newest.push_back(refused);
    }

    /// The newest that were dropped, newest first.
    pub(super) fn newest_dropped(&self) -> Vec<RefusedCallback> {
        let mut newest: Vec<RefusedCallback> = Vec::new();
        for kind in &self.newest {
            newest.extend(kind.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned());
        }
        newest.sort_by_key(|refused| Reverse(refused.refused_at));
        newest
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
    use crate::time::Timestamp;

    fn refused(stranger: bool, body_bytes: u64) -> RefusedCallback {
        let refused_at = Timestamp::from_millisecond(body_bytes as i64).unwrap();
        RefusedCallback { stranger, body_bytes, refused_at, ..RefusedCallback::default() }
    }

    #[test]
    fn a_flood_of_strangers_takes_no_room_of_the_others_and_what_is_dropped_is_counted() {
        let counts = RefusedCounts::default();
        let admitted = (0..REFUSED_WAITING + 5).filter(|_| counts.admit(refused(true, 1)).is_some()).count();
        assert_eq!(admitted, REFUSED_WAITING);
        assert!(counts.admit(refused(false, 1)).is_some(), "others have room of their own");
        assert_eq!(counts.dropped(), Dropped { known: 0, strangers: 5 });
        counts.written(&[refused(true, 1)]);
        assert!(counts.admit(refused(true, 1)).is_some(), "there is room again");
        assert!(counts.admit(refused(true, 1)).is_none());
        assert_eq!(counts.dropped(), Dropped { known: 0, strangers: 6 });
    }

    #[test]
    fn the_newest_that_were_dropped_are_remembered_and_strangers_push_out_only_strangers() {
        let counts = RefusedCounts::default();
        counts.drop_one(refused(false, 3));
        for n in 0..REMEMBERED as u64 + 5 {
            counts.drop_one(refused(true, n));
        }
        let newest = counts.newest_dropped();
        assert_eq!(newest.len(), REMEMBERED + 1);
        assert_eq!(newest[0], refused(true, REMEMBERED as u64 + 4));
        assert_eq!(newest.last(), Some(&refused(false, 3)), "the oldest of all");
        assert_eq!(counts.dropped(), Dropped { known: 1, strangers: REMEMBERED as u64 + 5 });
    }
}
