//! What only a running process knows of its ledger, and forgets when it ends.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use tokio::sync::{Notify, watch};

use super::{Receipt, lookup::Record};
use crate::{command::CommandId, time::Timestamp};

/// Duplicates that are remembered, of all commands together.
const DUPLICATES: usize = 4096;

/// Duplicates that are told of one command: the newest.
const TOLD: usize = 20;

/// What only a running process knows.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) changes: Changes,
    duplicates: Duplicates,
}

impl Memory {
    /// A callback that was received at `at` has got this receipt.
    pub(super) fn note(&self, receipt: &Receipt, at: Timestamp) {
        if let Receipt::Duplicate { command_id } = receipt {
            self.duplicates.note(*command_id, at);
        }
    }

    /// Adds what is known of a command.
    pub(super) fn complete(&self, found: Option<Record>) -> Option<Record> {
        found.map(|record| Record { duplicates_at: Some(self.duplicates.of(record.command_id)), ..record })
    }
}

/// Counts changes, for those that watch.
#[derive(Debug)]
pub(super) struct Changes {
    count: watch::Sender<u64>,
    /// Notified when somebody begins to watch.
    begun: Notify,
}

impl Default for Changes {
    fn default() -> Self {
        Self { count: watch::Sender::new(0), begun: Notify::new() }
    }
}

impl Changes {
    pub(super) fn add(&self) {
        self.count.send_modify(|count| *count += 1);
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        let watching = self.count.subscribe();
        self.begun.notify_one();
        watching
    }

    /// Whether somebody watches.
    pub(super) fn is_watched(&self) -> bool {
        self.count.receiver_count() > 0
    }

    /// Resolves when somebody watches. For one task.
    pub(super) async fn watched(&self) {
        while !self.is_watched() {
            self.begun.notified().await;
        }
    }
}

/// When callbacks came that were the same as one before: a double tap, or a retry of the approval center. Nothing is
/// written of them. Oldest first.
#[derive(Debug, Default)]
struct Duplicates(Mutex<VecDeque<(CommandId, Timestamp)>>);

impl Duplicates {
    fn note(&self, of: CommandId, at: Timestamp) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == DUPLICATES {
            all.pop_front();
        }
        all.push_back((of, at));
    }

    /// Those of one command, oldest first.
    fn of(&self, command_id: CommandId) -> Vec<Timestamp> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = all.iter().rev().filter(|(of, _)| *of == command_id).map(|(_, at)| *at);
        let mut told: Vec<Timestamp> = newest.take(TOLD).collect();
        told.reverse();
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millisecond(seconds * 1000).unwrap()
    }

    #[test]
    fn the_newest_duplicates_of_a_command_are_told_and_the_oldest_of_all_forgotten() {
        let memory = Memory::default();
        let [one, other] = [1, 2].map(|byte| CommandId::from_bytes([byte; 16]));
        memory.note(&Receipt::Duplicate { command_id: one }, at(1));
        memory.note(&Receipt::Accepted { command_id: one }, at(2));
        memory.note(&Receipt::Conflicting { with: one }, at(3));
        memory.note(&Receipt::Duplicate { command_id: other }, at(4));
        assert_eq!(memory.duplicates.of(one), [at(1)]);
        for second in 0..DUPLICATES as i64 {
            memory.note(&Receipt::Duplicate { command_id: other }, at(second));
        }
        assert!(memory.duplicates.of(one).is_empty());
        let newest: Vec<Timestamp> =
            (0..TOLD as i64).map(|n| at(DUPLICATES as i64 - TOLD as i64 + n)).collect();
        assert_eq!(memory.duplicates.of(other), newest);
    }

    #[tokio::test]
    async fn who_watches_learns_of_each_change_and_nobody_is_watched_for_nothing() {
        let changes = Changes::default();
        changes.add();
        assert!(!changes.is_watched());
        let mut watching = changes.watch();
        changes.watched().await;
        assert!(!watching.has_changed().unwrap(), "what was before");
        changes.add();
        watching.changed().await.unwrap();
        assert_eq!(*watching.borrow_and_update(), 2);
        drop(watching);
        assert!(!changes.is_watched());
    }
}
