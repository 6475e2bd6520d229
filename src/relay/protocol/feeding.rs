//! Chooses the next command to publish, and where to get more.

use super::{
    Cargo, Due, Effect, Flight, Gate, Machine, Moment, Notice, Stage, Unreadable, WAITS, reading::Next,
    tasks::Known,
};
use crate::{command::Seq, ledger::state::Event};

impl<C: Cargo> Machine<C> {
    /// The next publish, preparation or read.
    pub(super) fn feed(&mut self, head: Seq, now: Moment) -> Option<Effect<C>> {
        // A late return that is being looked up may hold back its task.
        if self.session.gate == Gate::Blocked || self.late.is_to_be_found() {
            return None;
        }
        let window = if self.suspicion.is_careful() { 1 } else { self.rules.max_in_flight };
        while self.session.in_flight.len() < window {
            if self.is_alone() {
                return None;
            }
            if self.session.alone.front().is_some_and(|due| due.cargo.is_raw()) {
                let due = self.session.alone.pop_front();
                return due.map(|due| self.prepare_exception(due));
            }
            if !self.session.alone.is_empty() && self.is_calm(now) {
                // Wait for the commands in flight, so that only this one is lost with the session.
                if !self.session.in_flight.is_empty() {
                    return None;
                }
                let due = self.session.alone.pop_front();
                return due.map(|due| self.publish(due.cargo, Some(due.attempts), now));
            }
            if let Some(due) = self.session.retries.pop_front() {
                let Due { cargo, attempts } = due;
                if cargo.is_raw() {
                    return Some(self.prepare_exception(Due { cargo, attempts }));
                }
                return Some(self.publish(cargo, Some(attempts), now));
            }
            if let Some(cargo) = self.session.stragglers.next() {
                if self.tasks.block(cargo.task_key()) {
                    self.session.stragglers.landed(cargo.seq());
                    self.wait_in_line(&cargo, now);
                    continue;
                }
                return Some(self.publish(cargo, None, now));
            }
            let session = &self.session;
            if session.reading.next_seq() > session.catch_up && self.is_crowded() {
                return None;
            }
            if self.session.reading.first().is_some_and(|cargo| self.straggles(cargo))
                && self.session.stragglers.waiting() >= self.rules.max_stragglers
            {
                break;
            }
            match self.session.reading.pop() {
                Some(cargo) if self.tasks.block(cargo.task_key()) => self.wait_in_line(&cargo, now),
                Some(cargo) if cargo.is_raw() => {
                    self.session.stragglers.prepare(cargo.seq(), cargo.task_key());
                    return Some(Effect::Prepare(cargo));
                }
                Some(cargo) if self.straggles(&cargo) => self.session.stragglers.hold(cargo),
                Some(cargo) => return Some(self.publish(cargo, None, now)),
                None => match self.session.reading.seek(head) {
                    Some(next) => return Some(self.get(next)),
                    None => break,
                },
            }
        }
        let page = self.page();
        self.session.reading.read_ahead(head, page).map(|next| self.get(next))
    }

    fn publish(&mut self, cargo: C, attempts: Option<u32>, now: Moment) -> Effect<C> {
        let (seq, key) = (cargo.seq(), cargo.task_key());
        debug_assert!(
            self.tasks.first(key).is_none_or(|(first, _)| first == seq),
            "{seq} is published before an earlier exception of its task"
        );
        self.session.in_flight.push_back(Flight { seq, key, attempts, sent_at: now.elapsed });
        Effect::Publish(cargo)
    }

    /// Whether a command of the log's order cannot be published yet.
    fn straggles(&self, cargo: &C) -> bool {
        cargo.is_raw() || self.session.stragglers.block(cargo.task_key())
    }

    /// An exception keeps its state while it is prepared; then it is queued again.
    fn prepare_exception(&mut self, due: Due<C>) -> Effect<C> {
        let Due { cargo, attempts } = due;
        self.session.preparing.insert(cargo.seq(), (cargo.task_key(), attempts));
        Effect::Prepare(cargo)
    }

    /// Takes a command back from preparation, complete or not. No effect if not awaited any more.
    pub(in crate::relay) fn prepared(&mut self, cargo: C) {
        debug_assert!(!cargo.is_raw(), "it is not prepared twice");
        match self.session.preparing.remove(&cargo.seq()) {
            Some((_, attempts)) => drop(self.line_up(Due { cargo, attempts })),
            None => self.session.stragglers.prepared(cargo),
        }
    }

    /// True if a change of the head would be useful.
    pub(in crate::relay) fn wants_more(&self) -> bool {
        let session = &self.session;
        session.gate != Gate::Blocked
            && !session.crowded
            && session.reading.is_idle()
            && session.in_flight.len() < self.rules.max_in_flight
    }

    fn get(&self, next: Next) -> Effect<C> {
        match next {
            Next::TakeFresh => Effect::TakeFresh,
            Next::ReadAfter(after) => Effect::ReadLog { after, limit: self.page() },
        }
    }

    /// Adds fresh commands, in order but possibly with gaps.
    pub(in crate::relay) fn fresh(&mut self, fresh: Vec<C>) {
        self.session.reading.fresh(fresh);
    }

    /// Takes the requested part of the log: in order, without the exceptions.
    pub(in crate::relay) fn log_read(&mut self, read: Result<Vec<C>, Unreadable>) {
        let page = self.page();
        self.session.reading.told(read.ok(), page);
    }

    fn page(&self) -> usize {
        self.rules.max_in_flight.clamp(16, 1024)
    }

    /// Takes a command out of the log's order because an earlier one of its task is an exception.
    fn wait_in_line(&mut self, cargo: &C, now: Moment) {
        let (seq, key) = (cargo.seq(), cargo.task_key());
        let first = self.tasks.first(key);
        let next = first.and_then(|(_, known)| known.next_attempt_at).unwrap_or(now.at);
        let known = Known { attempts: Some(0), next_attempt_at: Some(next), stage: Stage::Resting };
        self.note(key, seq, known);
        self.except(seq, Event::Refused, 0, next, WAITS.to_owned());
    }

    fn is_crowded(&mut self) -> bool {
        let most = self.rules.max_exceptions;
        let waiting = self.tasks.len();
        let before = self.session.crowded;
        let crowded = if before { waiting >= most - most / 10 } else { waiting >= most };
        if crowded != before {
            self.session.crowded = crowded;
            self.keep_fresh = Some(!crowded);
            if crowded {
                self.session.reading.take_back();
                self.say(Notice::Crowded { waiting });
            } else {
                self.say(Notice::RoomAgain { waiting });
            }
        }
        crowded
    }
}
