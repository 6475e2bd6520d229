//! Handles the broker's answers.

use std::{collections::VecDeque, time::Duration};

use super::{Asking, Cargo, Due, Flight, Gate, Machine, Moment, Notice, Stage, WAITS, tasks::Known};
use crate::{
    command::{Seq, TaskKey},
    ledger::{Exception, State, state::Event},
    relay::BrokerAnswer,
    time::Timestamp,
};

impl<C: Cargo> Machine<C> {
    /// Takes the outcome of the oldest publish; returns how long it took.
    pub(in crate::relay) fn answered(&mut self, outcome: BrokerAnswer, now: Moment) -> Duration {
        let flight = self.session.in_flight.pop_front();
        let flight = flight.expect("a session tells one outcome for each publish");
        let took = now.elapsed.saturating_sub(flight.sent_at);
        self.session.stragglers.landed(flight.seq);
        self.suspicion.answered(flight.seq, outcome == BrokerAnswer::Confirmed);
        match outcome {
            BrokerAnswer::Confirmed => {
                if flight.attempts.is_some() {
                    self.unsettled.clear(flight.seq);
                    self.forget(flight.key, flight.seq);
                    self.release(flight.key, now);
                }
            }
            BrokerAnswer::Nacked => {
                self.refused(&flight, "refused by the broker (basic.nack)".to_owned(), now)
            }
            BrokerAnswer::Returned(words) => {
                self.refused(&flight, format!("returned by the broker: {words}"), now);
            }
        }
        took
    }

    pub(super) fn refused(&mut self, flight: &Flight, reason: String, now: Moment) {
        let Flight { seq, key, attempts, .. } = *flight;
        let attempts = attempts.unwrap_or(0) + 1;
        let holds_up_others = self.tasks.len() >= self.rules.max_exceptions;
        let proven = !self.suspicion.is_unproven(seq) || holds_up_others;
        let permanently = attempts >= self.rules.max_attempts && proven;
        self.count(seq, permanently, &reason);
        if permanently {
            self.forget(key, seq);
            self.except(seq, Event::RefusedPermanently, attempts, now.at, reason);
            self.release(key, now);
        } else {
            let next = now.at + self.delay(seq, attempts);
            let known =
                Known { attempts: Some(attempts), next_attempt_at: Some(next), stage: Stage::Resting };
            self.note(key, seq, known);
            self.except(seq, Event::Refused, attempts, next, reason);
            self.postpone(key, seq, next);
        }
    }

    pub(super) fn count(&mut self, seq: Seq, permanently: bool, reason: &str) {
        self.tally.refused += 1;
        self.tally.parked += u64::from(permanently);
        self.tally.last = Some((seq, reason.to_owned()));
    }

    /// Records an exception or its new state.
    pub(super) fn except(
        &mut self,
        seq: Seq,
        event: Event,
        attempts: u32,
        next_attempt_at: Timestamp,
        reason: String,
    ) {
        let state = State::Pending.refused(event);
        self.unsettled.except(Exception { seq, state, attempts, next_attempt_at, reason });
    }

    /// The first exception of a task was refused again: those that wait for it are postponed until it is due.
    pub(super) fn postpone(&mut self, key: TaskKey, first: Seq, next: Timestamp) {
        let mut moved = Vec::new();
        for (seq, known) in self.tasks.of_mut(key) {
            if seq > first && !matches!(known.stage, Stage::Tried) {
                if matches!(known.stage, Stage::Held(_)) {
                    self.session.held -= 1;
                    known.stage = Stage::Resting;
                }
                if known.attempts == Some(0) {
                    known.next_attempt_at = Some(next);
                    moved.push(seq);
                }
            }
        }
        for seq in moved {
            self.except(seq, Event::Refused, 0, next, WAITS.to_owned());
        }
    }

    /// The first exception of a task is gone: the next one is tried, and those that only waited are due at once.
    pub(super) fn release(&mut self, key: TaskKey, now: Moment) {
        let Some((first, _)) = self.tasks.first(key) else { return };
        let next_is_here = match self.stage(key, first, Stage::Tried) {
            Some(Stage::Held(due)) => {
                self.session.held -= 1;
                self.line_up(*due)
            }
            Some(Stage::Resting) => {
                self.stage(key, first, Stage::Resting);
                false
            }
            Some(Stage::Tried) | None => true,
        };
        let mut moved = Vec::new();
        for (seq, known) in self.tasks.of_mut(key) {
            if !next_is_here && matches!(known.stage, Stage::Held(_)) {
                // Read again in its turn: an operator may have acted on it by then.
                known.stage = Stage::Resting;
                self.session.held -= 1;
            }
            let waits = matches!(known.stage, Stage::Resting) && known.attempts == Some(0);
            if waits && known.next_attempt_at.is_none_or(|next| next > now.at) {
                known.next_attempt_at = Some(now.at);
                moved.push(seq);
            }
        }
        for seq in moved {
            self.except(seq, Event::Refused, 0, now.at, WAITS.to_owned());
        }
        if !next_is_here {
            self.looking.want_after_settling();
        }
    }

    pub(in crate::relay) fn blocked(&mut self, blocked: bool, now: Moment) {
        let gate = if blocked { Gate::Blocked } else { Gate::Open };
        if self.session.gate == Gate::Closed || self.session.gate == gate {
            return;
        }
        self.session.gate = gate;
        if blocked {
            self.say(Notice::Blocked);
            self.put_back();
        } else {
            self.say(Notice::Unblocked);
            self.session.patience_from = now.elapsed;
        }
    }

    /// Drops what was read and not published: an operator may act on it while it waits here, and it would be published
    /// nevertheless. It is read again when publishing resumes.
    fn put_back(&mut self) {
        self.put_back_retries(|_, _| true);
        self.tasks.rest_held();
        self.session.held = 0;
        if self.asking == Some(Asking::Due) {
            self.asking = None;
        }
        self.looking.want();
        self.session.reading.take_back();
    }

    /// Queues the first exception of a task for publishing, if its turn has come.
    ///
    /// Its turn has not come while an earlier command of its task may still be in the log's order: with the broker, or
    /// from an earlier session and not yet read again. The next look finds it again.
    pub(super) fn line_up(&mut self, due: Due<C>) -> bool {
        let (seq, key) = (due.cargo.seq(), due.cargo.task_key());
        if seq > self.floor() {
            self.stage(key, seq, Stage::Resting);
            return false;
        }
        self.stage(key, seq, Stage::Tried);
        let alone = self.suspicion.suspects(seq);
        let line = if alone { &mut self.session.alone } else { &mut self.session.retries };
        line.push_back(due);
        true
    }

    /// Returns exceptions to the ledger that are due but not with the broker yet.
    pub(super) fn put_back_retries(&mut self, which: impl Fn(TaskKey, Seq) -> bool) {
        let session = &mut self.session;
        let mut back = Vec::new();
        for line in [&mut session.retries, &mut session.alone] {
            let (out, stay): (VecDeque<_>, _) =
                line.drain(..).partition(|due| which(due.cargo.task_key(), due.cargo.seq()));
            *line = stay;
            back.extend(out.iter().map(|due| (due.cargo.task_key(), due.cargo.seq())));
        }
        session.preparing.retain(|seq, (key, _)| {
            let out = which(*key, *seq);
            if out {
                back.push((*key, *seq));
            }
            !out
        });
        for (key, seq) in back {
            self.stage(key, seq, Stage::Resting);
        }
    }
}
