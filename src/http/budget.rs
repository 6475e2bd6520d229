//! Memory for incomplete requests of strangers, shared by all connections.
//!
//! A callback that arrives in one piece, as nearly all do, needs none of it. So a crowd of unfinished heads and
//! bodies cannot shut out such callbacks.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The limit for all connections together, and its use.
#[derive(Debug)]
pub(super) struct Budget {
    most_bytes: AtomicUsize,
    held_bytes: AtomicUsize,
}

/// A share of a [`Budget`], returned on drop.
#[derive(Debug)]
pub(super) struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(most_bytes: usize) -> Arc<Self> {
        Arc::new(Self { most_bytes: AtomicUsize::new(most_bytes), held_bytes: AtomicUsize::new(0) })
    }

    /// Changes the limit. Shares already held stay.
    pub(super) fn resize(&self, most_bytes: usize) {
        self.most_bytes.store(most_bytes, Ordering::Relaxed);
    }
}

impl Held {
    /// An empty share of this budget.
    pub(super) fn of(budget: &Arc<Budget>) -> Self {
        Self { budget: budget.clone(), bytes: 0 }
    }

    /// Resizes this share. Returns false if the budget is exceeded; the share then still counts until the caller
    /// drops it, which it must do next.
    pub(super) fn set(&mut self, bytes: usize) -> bool {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes <= before {
            self.budget.held_bytes.fetch_sub(before - bytes, Ordering::Relaxed);
            return true;
        }
        let more = bytes - before;
        let others = self.budget.held_bytes.fetch_add(more, Ordering::Relaxed);
        others.saturating_add(more) <= self.budget.most_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_together_hold_no_more_than_there_is_and_give_it_back() {
        let budget = Budget::new(100);
        let (mut one, mut other) = (Held::of(&budget), Held::of(&budget));
        assert!(one.set(60) && other.set(40));
        assert!(!other.set(41));
        drop(other);
        assert!(one.set(100));
        assert!(one.set(10));
        let mut third = Held::of(&budget);
        assert!(third.set(90));
        budget.resize(50);
        assert!(!one.set(11), "what is held stays, and there is no more");
        drop((one, third));
        assert_eq!(budget.held_bytes.load(Ordering::Relaxed), 0);
        assert!(Held::of(&budget).set(50));
    }
}
