//! Questions to the ledger about exceptions, and its answers.

use std::collections::HashSet;

use super::{
    Asking, Cargo, Due, Gate, Machine, Moment, Notice, Question, Stage, TICK, Unreadable, WAITS, tasks::Known,
};
use crate::{
    command::{Seq, TaskKey},
    ledger::state::Event,
};

impl<C: Cargo> Machine<C> {
    pub(super) fn question(&mut self, now: Moment) -> Option<(Asking, Question)> {
        let most = self.rules.max_in_flight;
        let session = &mut self.session;
        if let Some((key, seq)) = session.missing.take() {
            return Some((Asking::Pending(key, seq), Question::Pending { seq }));
        }
        if self.looking.take_review() {
            return Some((Asking::Waiting, Question::Waiting));
        }
        let room =
            session.retries.len() + session.alone.len() + session.preparing.len() + session.held < most;
        if room && session.gate != Gate::Blocked && self.looking.take() {
            // Twice the window: exceptions with the broker are listed too and must not crowd out the others.
            return Some((Asking::Due, Question::Due { at: now.at, limit: 2 * most }));
        }
        None
    }

    /// Closes the question; true if it was still open.
    pub(super) fn close(&mut self, asked: Asking) -> bool {
        let open = self.asking == Some(asked);
        if open {
            self.asking = None;
        }
        open
    }

    pub(in crate::relay) fn due(&mut self, due: Result<Vec<Due<C>>, Unreadable>, now: Moment) {
        // If there was no answer, the next tick asks again.
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
                    // An operator has requeued it: later ones about to be published must come after it.
                    self.put_back_retries(|task, later| task == key && later > seq);
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
                    // It should have been due before this one. An operator may have parked it from another process.
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

    /// Takes the list of waiting exceptions and forgets all others: an operator has parked them from another process.
    /// Otherwise they could hold back new commands forever when nothing else waits for them.
    pub(in crate::relay) fn waiting(
        &mut self,
        waiting: Result<Vec<(TaskKey, Seq)>, Unreadable>,
        now: Moment,
    ) {
        let (true, Ok(waiting)) = (self.close(Asking::Waiting), waiting) else { return };
        let listed: HashSet<Seq> = waiting.into_iter().map(|(_, seq)| seq).collect();
        let before = self.tasks.len();
        let unsettled = &self.unsettled;
        let lead_again = self.tasks.retain(|seq, known| {
            !matches!(known.stage, Stage::Resting) || listed.contains(&seq) || unsettled.mentions(seq)
        });
        let gone = before - self.tasks.len();
        if gone > 0 {
            self.say(Notice::NoLongerPending { gone });
        }
        for key in lead_again {
            self.release(key, now);
        }
    }

    /// Whether the exception that others wait for is still pending.
    pub(in crate::relay) fn still_pending(&mut self, pending: Result<bool, Unreadable>, now: Moment) {
        let Some(Asking::Pending(key, seq)) = self.asking else { return };
        self.asking = None;
        // Anything learned since is newer than the answer.
        let rests = |known: &Known<C>| matches!(known.stage, Stage::Resting);
        let first = self.tasks.first(key).filter(|(first, known)| *first == seq && rests(known));
        if pending == Ok(false) && first.is_some() && !self.unsettled.mentions(seq) {
            self.say(Notice::NoLongerPending { gone: 1 });
            self.forget(key, seq);
            self.release(key, now);
        }
    }

    /// Records an exception, replacing its earlier state.
    pub(super) fn note(&mut self, key: TaskKey, seq: Seq, known: Known<C>) {
        let before = self.tasks.insert(key, seq, known);
        self.dropped(before.as_ref());
    }

    /// Forgets a resolved or parked exception.
    pub(super) fn forget(&mut self, key: TaskKey, seq: Seq) {
        let before = self.tasks.remove(key, seq);
        self.dropped(before.as_ref());
    }

    fn dropped(&mut self, known: Option<&Known<C>>) {
        self.session.held -= usize::from(known.is_some_and(|known| matches!(known.stage, Stage::Held(_))));
    }

    /// Moves an exception; returns its previous stage.
    pub(super) fn stage(&mut self, key: TaskKey, seq: Seq, stage: Stage<C>) -> Option<Stage<C>> {
        self.tasks.get_mut(key, seq).map(|known| std::mem::replace(&mut known.stage, stage))
    }
}
