//! Returns that arrive after the confirm.

use std::collections::{BTreeMap, VecDeque};

use super::{Asking, Cargo, Found, Machine, Moment, Notice, Stage, Unreadable, tasks::Known};
use crate::{
    command::{CommandId, Seq},
    ledger::{
        Exception,
        state::{Event, Exceptional},
    },
    relay::LateReturn,
};

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Late {
    waiting: VecDeque<LateReturn>,
    /// The ledger could not be read; retry after the next tick.
    paused: bool,
    /// The attempts of commands that were returned late: the confirm before the return clears their exceptions. At
    /// most [`Rules::max_exceptions`](super::Rules::max_exceptions).
    attempts: BTreeMap<Seq, u32>,
}

impl Late {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The command to look up in the ledger.
    pub(super) fn to_find(&self) -> Option<CommandId> {
        self.waiting.front().filter(|_| !self.paused).map(|late| late.command_id)
    }

    /// True while one is being looked up: it may hold back its task.
    pub(super) fn is_to_be_found(&self) -> bool {
        self.to_find().is_some()
    }

    pub(super) fn tick(&mut self) {
        self.paused = false;
    }
}

impl<C: Cargo> Machine<C> {
    /// Takes a return that arrived after the confirm. By the protocol the return comes first, but the promise of a
    /// *routed* publish must hold even if a broker, or something in between, breaks it.
    pub(in crate::relay) fn returned_late(&mut self, late: LateReturn) {
        self.late.waiting.push_back(late);
    }

    /// Takes the ledger's state of the command that was returned late; `None` if it has none.
    pub(in crate::relay) fn found(&mut self, found: Result<Option<Found>, Unreadable>, now: Moment) {
        if !self.close(Asking::Find) {
            return;
        }
        let Ok(found) = found else {
            self.late.paused = true;
            return;
        };
        let Some(late) = self.late.waiting.pop_front() else { return };
        match found {
            Some(found) => self.refused_late(late, &found, now),
            // Pruned, or not ours.
            None => self.say(Notice::LateUnknown(late)),
        }
    }

    fn refused_late(&mut self, late: LateReturn, found: &Found, now: Moment) {
        let Found { seq, state, key, .. } = *found;
        if key.is_some_and(|key| self.tasks.get_mut(key, seq).is_some()) {
            return self.say(Notice::LateUnderWay(late));
        }
        let reason = format!("returned by the broker after it was confirmed: {}", late.reason);
        self.say(Notice::LateAgain(late));
        let before = self.late.attempts.remove(&seq).max(found.attempts).unwrap_or(0);
        let attempts = before + 1;
        let permanently = attempts >= self.rules.max_attempts;
        self.count(seq, permanently, &reason);
        let (event, next_attempt_at) = if permanently {
            (Event::RefusedPermanently, now.at)
        } else {
            (Event::Refused, now.at + self.delay(seq, attempts))
        };
        let state = state.refused(event);
        self.unsettled.except(Exception { seq, state, attempts, next_attempt_at, reason });
        if state == Exceptional::Parked {
            return;
        }
        self.late.attempts.insert(seq, attempts);
        if self.late.attempts.len() > self.rules.max_exceptions {
            self.late.attempts.pop_first();
        }
        if let Some(key) = key {
            let known = Known {
                attempts: Some(attempts),
                next_attempt_at: Some(next_attempt_at),
                stage: Stage::Resting,
            };
            self.note(key, seq, known);
            self.put_back_retries(|task, later| task == key && later > seq);
            self.postpone(key, seq, next_attempt_at);
        }
    }
}
