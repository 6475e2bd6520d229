//! Writes to the ledger, one settlement at a time.

use std::time::Duration;

use super::{Asking, Cargo, Effect, Gate, Machine, Moment, Notice, Question, REMIND_AFTER};
use crate::{command::Seq, ledger::Settlement};

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Writing {
    state: State,
    /// When the failure was last logged; `None` unless the last settlement failed.
    said_to_fail: Option<Duration>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
enum State {
    #[default]
    Free,
    /// A copy, in case it fails.
    UnderWay(Settlement),
    /// It failed: no retry before the next tick.
    Paused,
}

impl Writing {
    pub(super) fn is_free(&self) -> bool {
        self.state == State::Free
    }

    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.state, State::UnderWay(_))
    }

    fn begin(&mut self, settlement: Settlement) {
        self.state = State::UnderWay(settlement);
    }

    /// Ends the settlement under way and returns it.
    fn end(&mut self, written: bool) -> Option<Settlement> {
        if !self.is_under_way() {
            return None;
        }
        let next = if written { State::Free } else { State::Paused };
        match std::mem::replace(&mut self.state, next) {
            State::UnderWay(settlement) => Some(settlement),
            State::Free | State::Paused => None,
        }
    }

    pub(super) fn tick(&mut self) {
        if self.state == State::Paused {
            self.state = State::Free;
        }
    }
}

impl<C: Cargo> Machine<C> {
    /// The end of the part of the log in which every command is through or has an exception.
    pub(super) fn floor(&self) -> Seq {
        let session = &self.session;
        let flying =
            session.in_flight.iter().find(|flight| flight.attempts.is_none()).map(|flight| flight.seq);
        let open = flying.or_else(|| session.reading.first().map(Cargo::seq));
        let through = open.unwrap_or_else(|| session.reading.next_seq()) - 1;
        // Stragglers were overtaken, so the first in flight may be a later command.
        session.stragglers.first().map_or(through, |first| through.min(first - 1))
    }

    /// Moves the cursor as far as possible.
    pub(super) fn reach(&mut self) {
        let through = self.floor();
        if through > self.through {
            self.through = through;
            self.unsettled.reach(through);
        }
    }

    /// Starts the next settlement or asks the next question; never both.
    pub(super) fn write(&mut self, stopping: bool, now: Moment) -> Option<Effect<C>> {
        if self.asking.is_some() || self.writing.is_under_way() {
            return None;
        }
        if let Some(command_id) = self.late.to_find() {
            self.asking = Some(Asking::Find);
            return Some(Effect::Ask(Question::Find { command_id }));
        }
        if self.session.gate != Gate::Closed {
            self.reach();
            if !stopping && let Some((asking, question)) = self.question(now) {
                self.asking = Some(asking);
                return Some(Effect::Ask(question));
            }
        }
        if self.unsettled.is_empty() || !self.writing.is_free() {
            return None;
        }
        self.looking.taken();
        let settlement = self.unsettled.take();
        self.writing.begin(settlement.clone());
        Some(Effect::Settle(settlement))
    }

    /// The settlement under way was written, or failed.
    pub(in crate::relay) fn settled(&mut self, written: bool, now: Moment) {
        let Some(settlement) = self.writing.end(written) else { return };
        if written {
            self.looking.written();
            if self.writing.said_to_fail.take().is_some() {
                self.say(Notice::SettlementTaken);
            }
            return;
        }
        self.unsettled.put_back(settlement);
        self.looking.put_back();
        let told = self.writing.said_to_fail;
        if told.is_none_or(|told| now.elapsed.saturating_sub(told) >= REMIND_AFTER) {
            self.writing.said_to_fail = Some(now.elapsed);
            self.say(Notice::SettlementFails { first: told.is_none() });
        }
    }
}
