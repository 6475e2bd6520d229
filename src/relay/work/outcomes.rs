//! What the broker said, and what follows from it.

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{FIRST_RETRY, Flight, Relay, WAITS};
use crate::{
    command::{Seq, TaskKey},
    ledger::{Exception, State, state::Event},
    relay::{
        LateReturn, News, Outcome, backoff,
        tasks::{Known, Stage},
    },
    telemetry::{log::chain, metrics::PublishResult},
};

impl Relay {
    pub(super) async fn learn(&mut self, news: &mut News) {
        let learned_at = Instant::now();
        let mut confirmed = 0;
        for outcome in news.outcomes.drain(..) {
            let flight = self.now.in_flight.pop_front();
            let flight = flight.expect("a session tells one outcome for each publish");
            self.metrics.confirm_took(learned_at.saturating_duration_since(flight.sent_at));
            match outcome {
                Outcome::Confirmed => {
                    confirmed += 1;
                    if flight.attempts.is_some() {
                        self.unsettled.clear(flight.seq);
                        self.tasks.remove(flight.key, flight.seq);
                        self.release(flight.key);
                    }
                }
                refused => self.refused(flight, refused),
            }
        }
        self.confirmed += confirmed;
        self.metrics.published(PublishResult::Confirmed, confirmed);
        if let Some(blocked) = news.blocked.take() {
            self.blocked(blocked, learned_at);
        }
        for late in news.late.drain(..) {
            self.returned_late(late).await;
        }
    }

    fn refused(&mut self, flight: Flight, outcome: Outcome) {
        let Flight { seq, key, attempts, .. } = flight;
        self.metrics.published(outcome.result(), 1);
        let reason = match outcome {
            Outcome::Returned(words) => format!("returned by the broker: {words}"),
            Outcome::Nacked | Outcome::Confirmed => "refused by the broker (basic.nack)".to_owned(),
        };
        let attempts = attempts.unwrap_or(0) + 1;
        let for_good = attempts >= self.settings.max_attempts;
        self.tally.refused += 1;
        self.tally.parked += u64::from(for_good);
        self.tally.last = Some((seq, reason.clone()));
        let now = self.clock.now();
        if for_good {
            self.tasks.remove(key, seq);
            self.except(seq, Event::RefusedForGood, attempts, now, reason);
            self.release(key);
        } else {
            let next = now + backoff::delay(FIRST_RETRY, attempts, backoff::random());
            let known =
                Known { attempts: Some(attempts), next_attempt_at: Some(next), stage: Stage::Resting };
            self.tasks.insert(key, seq, known);
            self.except(seq, Event::Refused, attempts, next, reason);
            self.postpone(key, seq, next);
        }
    }

    /// Notes a new exception, or the new state of an old one.
    pub(super) fn except(
        &mut self,
        seq: Seq,
        event: Event,
        attempts: u32,
        next_attempt_at: Timestamp,
        reason: String,
    ) {
        let state = match State::Pending.after(event) {
            Ok(Some(state)) => state,
            Ok(None) | Err(_) => unreachable!("a refusal of a pending command leaves an exception"),
        };
        self.unsettled.except(Exception { seq, state, attempts, next_attempt_at, reason });
    }

    /// The first of a task was refused again: those that only wait for it will not be due before it is.
    fn postpone(&mut self, key: TaskKey, first: Seq, next: Timestamp) {
        let mut moved = Vec::new();
        for (seq, known) in self.tasks.of_mut(key) {
            if seq > first && !matches!(known.stage, Stage::Tried) {
                if matches!(known.stage, Stage::Held(_)) {
                    self.now.held -= 1;
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

    /// The first of a task is out of the way: its next is tried, and what only waited is due at once.
    pub(super) fn release(&mut self, key: TaskKey) {
        let Some((first, _)) = self.tasks.first(key) else { return };
        let now = self.clock.now();
        let next_is_here = match self.stage(key, first, Stage::Tried) {
            Some(Stage::Held(due)) => {
                self.now.held -= 1;
                self.now.retries.push_back(*due);
                true
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
                // Read again when its turn comes; an operator may have acted on it by then.
                known.stage = Stage::Resting;
                self.now.held -= 1;
            }
            let waits = matches!(known.stage, Stage::Resting) && known.attempts == Some(0);
            if waits && known.next_attempt_at.is_none_or(|next| next > now) {
                known.next_attempt_at = Some(now);
                moved.push(seq);
            }
        }
        for seq in moved {
            self.except(seq, Event::Refused, 0, now, WAITS.to_owned());
        }
        self.now.release_wanted |= !next_is_here;
    }

    fn blocked(&mut self, blocked: bool, at: Instant) {
        if blocked != self.now.blocked {
            self.now.blocked = blocked;
            self.metrics.set_blocked(blocked);
            if blocked {
                warn!("the broker blocks publishing (memory or disk alarm); waiting");
            } else {
                info!("the broker has ceased to block publishing");
                self.now.patience_from = Some(at);
            }
        }
    }

    /// A return that came after the confirm. The protocol has it the other way round, but the promise of a *routed*
    /// publish is kept against a broker, or something between, that does not.
    async fn returned_late(&mut self, late: LateReturn) {
        self.metrics.published(PublishResult::Returned, 1);
        let LateReturn { command_id, reason } = late;
        match self.ledger.find(command_id).await {
            Ok(Some(record)) => {
                warn!(%command_id, reason, "returned after it was confirmed; publishing it again");
                let attempts = record.attempts.unwrap_or(0) + 1;
                let next = self.clock.now() + backoff::delay(FIRST_RETRY, attempts, backoff::random());
                let state = match record.state.after(Event::Refused) {
                    Ok(Some(state)) => state,
                    Ok(None) | Err(_) => unreachable!("a refusal leaves an exception in every state"),
                };
                let reason = format!("returned by the broker after it was confirmed: {reason}");
                let seq = record.seq;
                self.unsettled.except(Exception { seq, state, attempts, next_attempt_at: next, reason });
            }
            // Pruned, or not ours at all.
            Ok(None) => warn!(%command_id, reason, "a message was returned that is not in the ledger"),
            Err(error) => {
                warn!(%command_id, error = %chain(&error), "returned after it was confirmed; cannot be found");
            }
        }
    }
}
