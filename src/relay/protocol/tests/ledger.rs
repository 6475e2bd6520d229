//! A ledger in memory, as far as the machine sees it: what the worlds keep.

use std::collections::BTreeMap;

use super::super::{Cargo, Due, Found, Machine, Moment, Question, Unreadable};
use crate::{
    command::{CommandId, Seq, TaskKey},
    ledger::{Exception, Settlement, State, state::Exceptional},
};

/// A command of a ledger in memory.
pub(super) trait Kept: Cargo + Copy {
    /// Its identity, which is its `message_id` as well.
    fn command_id(&self) -> CommandId;
}

/// The log, the cursor and the exceptions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Ledger<C> {
    pub(super) log: Vec<C>,
    pub(super) cursor: Seq,
    pub(super) exceptions: BTreeMap<Seq, Exception>,
}

/// The answer to a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Answer<C> {
    Due(Vec<Due<C>>),
    Waiting(Vec<(TaskKey, Seq)>),
    Pending(bool),
    Found(Option<Found>),
}

impl<C> Default for Ledger<C> {
    fn default() -> Self {
        Self { log: Vec::new(), cursor: 0, exceptions: BTreeMap::new() }
    }
}

impl<C: Kept> Ledger<C> {
    pub(super) fn head(&self) -> Seq {
        self.log.len() as Seq
    }

    pub(super) fn command(&self, seq: Seq) -> Option<C> {
        seq.checked_sub(1).and_then(|index| self.log.get(usize::try_from(index).unwrap())).copied()
    }

    pub(super) fn state(&self, seq: Seq) -> State {
        State::of(seq, self.cursor, self.exceptions.get(&seq).map(|exception| exception.state))
    }

    /// The exceptions that are to be tried again, with their commands.
    fn open(&self) -> impl Iterator<Item = (&Exception, C)> {
        let open = self.exceptions.values().filter(|e| e.state != Exceptional::Parked);
        open.filter_map(|e| Some((e, self.command(e.seq)?)))
    }

    pub(super) fn waiting(&self) -> Vec<(TaskKey, Seq)> {
        self.open().map(|(e, command)| (command.task_key(), e.seq)).collect()
    }

    pub(super) fn since(&self, after: Seq, limit: usize) -> Vec<C> {
        let open = |command: &&C| command.seq() > after && !self.exceptions.contains_key(&command.seq());
        self.log.iter().filter(open).take(limit).copied().collect()
    }

    pub(super) fn look(&self, question: Question) -> Answer<C> {
        match question {
            Question::Due { at, limit } => {
                let mut due: Vec<_> = self.open().filter(|(e, _)| e.next_attempt_at <= at).collect();
                // Those that have been due longest, in order.
                due.sort_by_key(|(e, _)| e.next_attempt_at);
                due.truncate(limit);
                due.sort_by_key(|(e, _)| e.seq);
                Answer::Due(due.into_iter().map(|(e, cargo)| Due { cargo, attempts: e.attempts }).collect())
            }
            Question::Waiting => Answer::Waiting(self.waiting()),
            Question::Pending { seq } => Answer::Pending(self.state(seq) == State::Pending),
            Question::Find { command_id } => {
                let command = self.log.iter().find(|command| command.command_id() == command_id);
                Answer::Found(command.map(|command| {
                    let seq = command.seq();
                    let state = self.state(seq);
                    let key = (state != State::Parked).then(|| command.task_key());
                    let attempts = self.exceptions.get(&seq).map(|exception| exception.attempts);
                    Found { seq, state, attempts, key }
                }))
            }
        }
    }

    /// Writes as the ledger does.
    pub(super) fn write(&mut self, settlement: Settlement) {
        let Settlement { through, exceptions, cleared, exchange: _ } = settlement;
        self.cursor = self.cursor.max(through.unwrap_or(0));
        for seq in cleared {
            self.exceptions.remove(&seq);
        }
        for exception in exceptions {
            // An operator's park stands.
            let known = self.exceptions.get(&exception.seq);
            if known.is_none_or(|known| known.state != Exceptional::Parked) {
                self.exceptions.insert(exception.seq, exception);
            }
        }
    }
}

impl<C: Kept> Answer<C> {
    /// As it is, or as it was before any exception was due.
    pub(super) fn not_due_unless(self, due: bool) -> Self {
        match self {
            Self::Due(_) if !due => Self::Due(Vec::new()),
            other => other,
        }
    }

    /// Tells the machine, or that the ledger could not be read.
    pub(super) fn tell(self, machine: &mut Machine<C>, readable: bool, now: Moment) {
        fn told<T>(answer: T, readable: bool) -> Result<T, Unreadable> {
            readable.then_some(answer).ok_or(Unreadable)
        }
        match self {
            Self::Due(due) => machine.due(told(due, readable), now),
            Self::Waiting(waiting) => machine.waiting(told(waiting, readable), now),
            Self::Pending(pending) => machine.still_pending(told(pending, readable), now),
            Self::Found(found) => machine.found(told(found, readable), now),
        }
    }
}
