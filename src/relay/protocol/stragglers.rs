//! Commands of the log's order that are not published at once because something is prepared for them first.
//!
//! Commands of other tasks overtake them. Later commands of the same task wait behind them and are prepared
//! concurrently. The cursor stays before the first of them until it is through.

use std::collections::{BTreeMap, BTreeSet};

use super::Cargo;
use crate::command::{Seq, TaskKey};

/// The commands that wait, and those sent to the broker out of turn and not yet answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Stragglers<C> {
    by_seq: BTreeMap<Seq, Place<C>>,
    /// The commands that wait, by task.
    waiting: BTreeMap<TaskKey, BTreeSet<Seq>>,
    count: usize,
    /// The commands that are prepared and first of their task.
    go: BTreeSet<Seq>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place<C> {
    Preparing(TaskKey),
    /// Can go once it is the first of its task.
    Prepared(C),
    Flying,
}

impl<C> Default for Stragglers<C> {
    fn default() -> Self {
        Self { by_seq: BTreeMap::new(), waiting: BTreeMap::new(), count: 0, go: BTreeSet::new() }
    }
}

impl<C: Cargo> Stragglers<C> {
    #[cfg(test)]
    pub(super) fn place(&self, seq: Seq) -> Option<&Place<C>> {
        self.by_seq.get(&seq)
    }

    /// The first command that is not through.
    pub(super) fn first(&self) -> Option<Seq> {
        self.by_seq.first_key_value().map(|(seq, _)| *seq)
    }

    /// Number of commands not with the broker yet.
    pub(super) fn waiting(&self) -> usize {
        self.count
    }

    /// True if a later command of this task has to wait.
    pub(super) fn block(&self, key: TaskKey) -> bool {
        self.count > 0 && self.waiting.contains_key(&key)
    }

    pub(super) fn prepare(&mut self, seq: Seq, key: TaskKey) {
        self.by_seq.insert(seq, Place::Preparing(key));
        self.wait(seq, key);
    }

    /// Adds a command that needs no preparation and waits behind one of its task.
    pub(super) fn hold(&mut self, cargo: C) {
        let (seq, key) = (cargo.seq(), cargo.task_key());
        self.by_seq.insert(seq, Place::Prepared(cargo));
        self.wait(seq, key);
    }

    fn wait(&mut self, seq: Seq, key: TaskKey) {
        self.waiting.entry(key).or_default().insert(seq);
        self.count += 1;
    }

    /// Takes a prepared command. No effect if not awaited any more.
    pub(super) fn prepared(&mut self, cargo: C) {
        let seq = cargo.seq();
        let Some(Place::Preparing(key)) = self.by_seq.get(&seq) else { return };
        let key = *key;
        self.by_seq.insert(seq, Place::Prepared(cargo));
        self.lead(key);
    }

    /// Lets a task's first command go if it is prepared.
    fn lead(&mut self, key: TaskKey) {
        let first = self.waiting.get(&key).and_then(BTreeSet::first);
        if let Some(first) = first
            && matches!(self.by_seq.get(first), Some(Place::Prepared(_)))
        {
            self.go.insert(*first);
        }
    }

    /// The next command for the broker; counts as in flight until it [`landed`](Self::landed).
    pub(super) fn next(&mut self) -> Option<C> {
        let seq = self.go.pop_first()?;
        let Some(Place::Prepared(cargo)) = self.by_seq.insert(seq, Place::Flying) else {
            unreachable!("what goes is prepared")
        };
        let key = cargo.task_key();
        if let Some(task) = self.waiting.get_mut(&key) {
            task.remove(&seq);
            self.count -= 1;
            if task.is_empty() {
                self.waiting.remove(&key);
            }
        }
        self.lead(key);
        Some(cargo)
    }

    /// The command was answered, became an exception, or went to the broker in its turn.
    pub(super) fn landed(&mut self, seq: Seq) {
        if !self.by_seq.is_empty() {
            self.by_seq.remove(&seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::protocol::tests::Of;

    #[test]
    fn those_wait_that_are_not_with_the_broker_yet() {
        let mut stragglers = Stragglers::default();
        stragglers.prepare(1, Of(1, 7).task_key());
        stragglers.hold(Of(2, 7));
        stragglers.prepare(3, Of(3, 8).task_key());
        assert_eq!((stragglers.waiting(), stragglers.next()), (3, None));
        let blocked =
            |stragglers: &Stragglers<Of>| [7, 8, 9].map(|task| stragglers.block(Of(0, task).task_key()));
        assert_eq!(blocked(&stragglers), [true, true, false]);
        stragglers.prepared(Of(1, 7));
        assert_eq!((stragglers.next(), stragglers.waiting()), (Some(Of(1, 7)), 2));
        assert_eq!((stragglers.next(), stragglers.waiting()), (Some(Of(2, 7)), 1));
        assert_eq!(blocked(&stragglers), [false, true, false]);
        for seq in [1, 2] {
            assert_eq!(stragglers.first(), Some(seq));
            stragglers.landed(seq);
        }
        assert_eq!((stragglers.waiting(), stragglers.first()), (1, Some(3)));
    }
}
