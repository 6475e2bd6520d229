//! What is written to the ledger, and which exceptions are due by its account.

use std::collections::HashSet;

use super::{
    Asking, Cargo, Due, Effect, Machine, Moment, Notice, Question, REMIND_AFTER, Stage, TICK, Unreadable,
    WAITS, tasks::Known,
};
use crate::{
    command::{Seq, TaskKey},
    ledger::state::Event,
};

impl<C: Cargo> Machine<C> {
    /// The end of that part of the log in which every command is through or has an exception.
    pub(super) fn floor(&self) -> Seq {
        let session = &self.session;
        let flying =
            session.in_flight.iter().find(|flight| flight.attempts.is_none()).map(|flight| flight.seq);
        let open = flying.or_else(|| session.ready.front().map(Cargo::seq));
        let through = open.map_or(session.position, |seq| seq - 1);
        // They were overtaken, so that the first in flight may be a later one.
        session.stragglers.first().map_or(through, |first| through.min(first - 1))
    }

    /// The cursor may go as far as that.
    pub(super) fn reach(&mut self) {
        let through = self.floor();
        if through > self.through {
            self.through = through;
            self.unsettled.reach(through);
        }
    }

    /// Starts the next settlement, or puts the next question; never both.
    pub(super) fn write(&mut self, stopping: bool, now: Moment) -> Option<Effect<C>> {
        if self.asking.is_some() || self.settling.is_some() {
            return None;
        }
        if let Some(late) = self.late.front()
            && !self.find_paused
        {
            self.asking = Some(Asking::Find);
            return Some(Effect::Ask(Question::Find { command_id: late.command_id }));
        }
        if self.session.serving {
            self.reach();
            if !stopping && let Some((asking, question)) = self.question(now) {
                self.asking = Some(asking);
                return Some(Effect::Ask(question));
            }
        }
        if self.settle_paused || self.unsettled.is_empty() {
            return None;
        }
        self.look_after |= std::mem::take(&mut self.session.release_wanted);
        let settlement = self.unsettled.take();
        self.settling = Some(settlement.clone());
        Some(Effect::Settle(settlement))
    }

    fn question(&mut self, now: Moment) -> Option<(Asking, Question)> {
        let most = self.rules.max_in_flight;
        let session = &mut self.session;
        if let Some((key, seq)) = session.missing.take() {
            return Some((Asking::Pending(key, seq), Question::Pending { seq }));
        }
        if std::mem::take(&mut session.review_wanted) {
            session.unreviewed = 0;
            return Some((Asking::Waiting, Question::Waiting));
        }
        let room =
            session.retries.len() + session.alone.len() + session.preparing.len() + session.held < most;
        if session.look_wanted && room && !session.blocked {
            session.look_wanted = false;
            // Twice what may be with the broker: those are listed as well, and must not crowd out the others.
            return Some((Asking::Due, Question::Due { at: now.at, limit: 2 * most }));
        }
        None
    }

    /// The settlement under way is written, or was not.
    pub(in crate::relay) fn settled(&mut self, written: bool, now: Moment) {
        let Some(settlement) = self.settling.take() else { return };
        if written {
            self.session.look_wanted |= std::mem::take(&mut self.look_after);
            if self.settlement_fails.take().is_some() {
                self.say(Notice::SettlementTaken);
            }
            return;
        }
        self.unsettled.put_back(settlement);
        self.settle_paused = true;
        let told = self.settlement_fails;
        if told.is_none_or(|told| now.elapsed.saturating_sub(told) >= REMIND_AFTER) {
            self.settlement_fails = Some(now.elapsed);
            self.say(Notice::SettlementFails { first: told.is_none() });
        }
    }

    /// True if the question was still open; it is no longer.
    pub(super) fn close(&mut self, asked: Asking) -> bool {
        let open = self.asking == Some(asked);
        if open {
            self.asking = None;
        }
        open
    }

    /// The exceptions that are due.
    pub(in crate::relay) fn due(&mut self, due: Result<Vec<Due<C>>, Unreadable>, now: Moment) {
        // Without an answer the next tick asks again.
        let (true, Ok(listed)) = (self.close(Asking::Due), due) else { return };
        for due in listed {
            let (seq, key) = (due.cargo.seq(), due.cargo.task_key());
            self.session.catch_up = self.session.catch_up.max(seq);
            if self.unsettled.mentions(seq) {
                continue;
            }
            match self.tasks.get_mut(key, seq) {
                Some(known) if !matches!(known.stage, Stage::Resting) => continue,
                Some(known) => {
                    known.attempts = Some(due.attempts);
                    known.next_attempt_at = Some(now.at);
                }
                None => {
                    let known = Known {
                        attempts: Some(due.attempts),
                        next_attempt_at: Some(now.at),
                        stage: Stage::Resting,
                    };
                    self.note(key, seq, known);
                }
            }
            let Some((first, known)) = self.tasks.first(key) else { continue };
            let first_rests = matches!(known.stage, Stage::Resting);
            let first_next = known.next_attempt_at;
            if first == seq {
                self.line_up(due);
            } else if !first_rests && self.session.held < self.rules.max_in_flight {
                self.stage(key, seq, Stage::Held(Box::new(due)));
                self.session.held += 1;
            } else {
                if first_rests && first_next.is_none_or(|next| next <= now.at) {
                    // It should have been due before this one. Has an operator parked it, through another process?
                    self.session.missing = Some((key, first));
                }
                // Out of the way of those that can be published.
                let next = first_next.unwrap_or(now.at).max(now.at + TICK);
                if let Some(known) = self.tasks.get_mut(key, seq) {
                    known.next_attempt_at = Some(next);
                }
                self.except(seq, Event::Refused, due.attempts, next, WAITS.to_owned());
            }
        }
    }

    /// The exceptions that wait. Forgets those that do not any longer: an operator has parked them, through another
    /// process. Without this they would hold new commands back for good when nothing else waits for them.
    pub(in crate::relay) fn waiting(
        &mut self,
        waiting: Result<Vec<(TaskKey, Seq)>, Unreadable>,
        now: Moment,
    ) {
        let (true, Ok(waiting)) = (self.close(Asking::Waiting), waiting) else { return };
        let listed: HashSet<Seq> = waiting.into_iter().map(|(_, seq)| seq).collect();
        let before = self.tasks.len();
        let unsettled = &self.unsettled;
        let lead_anew = self.tasks.retain(|seq, known| {
            !matches!(known.stage, Stage::Resting) || listed.contains(&seq) || unsettled.mentions(seq)
        });
        let gone = before - self.tasks.len();
        if gone > 0 {
            self.say(Notice::NoLongerPending { gone });
        }
        for key in lead_anew {
            self.release(key, now);
        }
    }

    /// Whether the exception that others wait for is still pending.
    pub(in crate::relay) fn still_pending(&mut self, pending: Result<bool, Unreadable>, now: Moment) {
        let Some(Asking::Pending(key, seq)) = self.asking else { return };
        self.asking = None;
        // What was learned of it meanwhile is newer than the answer.
        let rests = |known: &Known<C>| matches!(known.stage, Stage::Resting);
        let first = self.tasks.first(key).filter(|(first, known)| *first == seq && rests(known));
        if pending == Ok(false) && first.is_some() && !self.unsettled.mentions(seq) {
            self.say(Notice::NoLongerPending { gone: 1 });
            self.forget(key, seq);
            self.release(key, now);
        }
    }

    /// Notes an exception, in place of what was known of it.
    pub(super) fn note(&mut self, key: TaskKey, seq: Seq, known: Known<C>) {
        let before = self.tasks.insert(key, seq, known);
        self.dropped(before.as_ref());
    }

    /// Forgets an exception, because it is none any longer, or is parked.
    pub(super) fn forget(&mut self, key: TaskKey, seq: Seq) {
        let before = self.tasks.remove(key, seq);
        self.dropped(before.as_ref());
    }

    fn dropped(&mut self, known: Option<&Known<C>>) {
        self.session.held -= usize::from(known.is_some_and(|known| matches!(known.stage, Stage::Held(_))));
    }

    /// Moves an exception, and tells where it was.
    pub(super) fn stage(&mut self, key: TaskKey, seq: Seq, stage: Stage<C>) -> Option<Stage<C>> {
        self.tasks.get_mut(key, seq).map(|known| std::mem::replace(&mut known.stage, stage))
    }
}
