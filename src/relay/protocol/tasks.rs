//! The tasks that have an exception, and the order within them.

use std::collections::BTreeMap;

use crate::time::Timestamp;

use super::Due;
use crate::command::{Seq, TaskKey};

/// The `retrying` and `requeued` exceptions known to the relay, by task.
///
/// INVARIANT (of this module): while a task is in here, only its first command may be published. Messages are not
/// kept: an exception costs some 60 bytes here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Tasks<C> {
    by_key: BTreeMap<TaskKey, BTreeMap<Seq, Known<C>>>,
    len: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Known<C> {
    /// Refusals so far; `None` if not yet read from the ledger.
    pub(super) attempts: Option<u32>,
    /// When the ledger will list it as due, at the latest; `None` if unknown.
    pub(super) next_attempt_at: Option<Timestamp>,
    pub(super) stage: Stage<C>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Stage<C> {
    /// In the ledger, until it is due.
    Resting,
    /// Due, read, and waiting for an earlier command of its task that is with the broker.
    Held(Box<Due<C>>),
    /// With the broker, or about to be.
    Tried,
}

impl<C> Default for Tasks<C> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), len: 0 }
    }
}

impl<C> Tasks<C> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// True if a new command of this task has to wait.
    pub(super) fn block(&self, key: TaskKey) -> bool {
        self.len > 0 && self.by_key.contains_key(&key)
    }

    /// Takes over the ledger's list at the start of a session, when it is up to date and nothing is being tried.
    pub(super) fn load(&mut self, listed: Vec<(TaskKey, Seq)>) {
        let mut before = std::mem::take(self);
        for (key, seq) in listed {
            let mut known = before.remove(key, seq).unwrap_or(Known {
                attempts: None,
                next_attempt_at: None,
                stage: Stage::Resting,
            });
            known.stage = Stage::Resting;
            self.insert(key, seq, known);
        }
    }

    /// Records an exception; returns its earlier state.
    pub(super) fn insert(&mut self, key: TaskKey, seq: Seq, known: Known<C>) -> Option<Known<C>> {
        let before = self.by_key.entry(key).or_default().insert(seq, known);
        self.len += usize::from(before.is_none());
        before
    }

    /// Forgets a resolved or parked exception.
    pub(super) fn remove(&mut self, key: TaskKey, seq: Seq) -> Option<Known<C>> {
        let task = self.by_key.get_mut(&key)?;
        let known = task.remove(&seq)?;
        if task.is_empty() {
            self.by_key.remove(&key);
        }
        self.len -= 1;
        Some(known)
    }

    /// Forgets all but those that stay; returns the tasks that have a new first exception.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(Seq, &Known<C>) -> bool) -> Vec<TaskKey> {
        let mut lead_again = Vec::new();
        let mut len = 0;
        self.by_key.retain(|key, task| {
            let first = task.keys().next().copied();
            task.retain(|seq, known| stays(*seq, known));
            len += task.len();
            if !task.is_empty() && task.keys().next().copied() != first {
                lead_again.push(*key);
            }
            !task.is_empty()
        });
        self.len = len;
        lead_again
    }

    /// The exception that the task's others wait for.
    pub(super) fn first(&self, key: TaskKey) -> Option<(Seq, &Known<C>)> {
        self.by_key.get(&key)?.first_key_value().map(|(seq, known)| (*seq, known))
    }

    pub(super) fn get_mut(&mut self, key: TaskKey, seq: Seq) -> Option<&mut Known<C>> {
        self.by_key.get_mut(&key)?.get_mut(&seq)
    }

    pub(super) fn rest_all(&mut self) {
        for known in self.by_key.values_mut().flat_map(BTreeMap::values_mut) {
            known.stage = Stage::Resting;
        }
    }

    /// Drops the commands of held exceptions.
    pub(super) fn rest_held(&mut self) {
        for known in self.by_key.values_mut().flat_map(BTreeMap::values_mut) {
            if matches!(known.stage, Stage::Held(_)) {
                known.stage = Stage::Resting;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = (Seq, &Known<C>)> {
        self.by_key.values().flatten().map(|(seq, known)| (*seq, known))
    }

    pub(super) fn of_mut(&mut self, key: TaskKey) -> impl Iterator<Item = (Seq, &mut Known<C>)> {
        self.by_key.get_mut(&key).into_iter().flatten().map(|(seq, known)| (*seq, known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(task: u64) -> TaskKey {
        TaskKey::from_value(task)
    }

    fn tasks(listed: &[(u64, Seq)]) -> Tasks<()> {
        let mut tasks = Tasks::default();
        tasks.load(listed.iter().map(|(task, seq)| (key(*task), *seq)).collect());
        tasks
    }

    #[test]
    fn what_is_removed_is_counted_no_longer() {
        let mut tasks = tasks(&[(0, 1), (0, 2), (1, 3)]);
        assert_eq!(tasks.len(), 3);
        assert!(tasks.remove(key(0), 2).is_some());
        assert!(tasks.remove(key(1), 2).is_none());
        assert_eq!((tasks.len(), tasks.block(key(0)), tasks.block(key(2))), (2, true, false));
        assert!(tasks.remove(key(0), 1).is_some());
        assert_eq!((tasks.len(), tasks.block(key(0))), (1, false));
    }

    #[test]
    fn tasks_whose_first_is_forgotten_and_that_have_others_are_led_again() {
        let mut tasks = tasks(&[(0, 1), (0, 4), (1, 2), (1, 5), (2, 3)]);
        assert_eq!(tasks.retain(|seq, _| [2, 4].contains(&seq)), [key(0)]);
        assert_eq!((tasks.len(), tasks.block(key(2))), (2, false));
    }
}
