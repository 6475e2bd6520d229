//! What the broker said, and what follows from it.

use std::collections::VecDeque;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{FIRST_RETRY, Flight, Relay, WAITS};
use crate::{
    command::{CommandId, Seq, TaskKey},
    ledger::{
        Due, Entry, Exception, Ledger, LookError, Record, State,
        state::{Event, Exceptional},
    },
    relay::{
        LateReturn, News, Outcome, backoff,
        tasks::{Known, Stage},
    },
    telemetry::{failpoint::reach, log::chain, metrics::PublishResult},
};

impl Relay {
    pub(super) async fn learn(&mut self, news: &mut News) {
        let learned_at = Instant::now();
        let mut confirmed = 0;
        for outcome in news.outcomes.drain(..) {
            reach("relay:confirmed");
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
                self.put_back();
            } else {
                info!("the broker has ceased to block publishing");
                self.now.patience_from = Some(at);
            }
        }
    }

    /// Forgets what was read and not published: an operator may act on it while it waits here, and it would be published
    /// nevertheless. It is read again when publishing goes on.
    fn put_back(&mut self) {
        self.put_back_retries(|_| true);
        self.tasks.rest_held();
        let now = &mut self.now;
        now.held = 0;
        now.looking = None;
        now.look_wanted = true;
        now.reading = None;
        now.caught_up = false;
        if let Some(first) = now.ready.front() {
            now.position = first.seq - 1;
        }
        now.ready.clear();
    }

    /// Leaves those exceptions to the ledger whose turn has come and that are not with the broker yet.
    fn put_back_retries(&mut self, which: impl Fn(&Entry) -> bool) {
        let retries = std::mem::take(&mut self.now.retries);
        let (back, stay): (VecDeque<_>, _) = retries.into_iter().partition(|due| which(&due.entry));
        self.now.retries = stay;
        for Due { entry, .. } in back {
            self.stage(entry.task_key, entry.seq, Stage::Resting);
        }
    }

    /// A return that came after the confirm. The protocol has it the other way round, but the promise of a *routed*
    /// publish is kept against a broker, or something between, that does not.
    async fn returned_late(&mut self, late: LateReturn) {
        self.metrics.published(PublishResult::Returned, 1);
        self.late.push_back(late);
        // Those before it wait for the next tick, because the ledger could not be read.
        if self.late.len() == 1 {
            self.look_up_late().await;
        }
    }

    /// Makes exceptions of the commands that were returned late, as far as the ledger can be read.
    pub(super) async fn look_up_late(&mut self) {
        while let Some(late) = self.late.front().cloned() {
            let command_id = late.command_id;
            match find(&*self.ledger, command_id).await {
                Ok(Some((record, key))) => self.refused_late(late, &record, key),
                // Pruned, or not ours at all.
                Ok(None) => {
                    warn!(%command_id, late.reason, "a message was returned that is not in the ledger");
                }
                Err(error) => {
                    warn!(%command_id, error = %chain(&error), "returned after it was confirmed; cannot be found yet");
                    return;
                }
            }
            self.late.pop_front();
        }
    }

    fn refused_late(&mut self, late: LateReturn, record: &Record, key: Option<TaskKey>) {
        let LateReturn { command_id, reason } = late;
        let seq = record.seq;
        if key.is_some_and(|key| self.tasks.get_mut(key, seq).is_some()) {
            warn!(%command_id, reason, "returned after it was confirmed; it is being published again already");
            return;
        }
        warn!(%command_id, reason, "returned after it was confirmed; publishing it again");
        let before = self.late_attempts.remove(&seq).max(record.attempts).unwrap_or(0);
        let attempts = before + 1;
        let for_good = attempts >= self.settings.max_attempts;
        let now = self.clock.now();
        let (event, next) = if for_good {
            (Event::RefusedForGood, now)
        } else {
            (Event::Refused, now + backoff::delay(FIRST_RETRY, attempts, backoff::random()))
        };
        let state = match record.state.after(event) {
            Ok(Some(state)) => state,
            Ok(None) | Err(_) => unreachable!("a refusal leaves an exception in every state"),
        };
        let reason = format!("returned by the broker after it was confirmed: {reason}");
        self.tally.refused += 1;
        self.tally.parked += u64::from(for_good);
        self.tally.last = Some((seq, reason.clone()));
        self.unsettled.except(Exception { seq, state, attempts, next_attempt_at: next, reason });
        if state == Exceptional::Parked {
            return;
        }
        self.late_attempts.insert(seq, attempts);
        if self.late_attempts.len() > self.settings.max_exceptions {
            self.late_attempts.pop_first();
        }
        if let Some(key) = key {
            let known =
                Known { attempts: Some(attempts), next_attempt_at: Some(next), stage: Stage::Resting };
            self.tasks.insert(key, seq, known);
            self.put_back_retries(|entry| entry.task_key == key && entry.seq > seq);
            self.postpone(key, seq, next);
        }
    }
}

/// The command that was returned, and its task unless it is parked.
async fn find(
    ledger: &dyn Ledger,
    command_id: CommandId,
) -> Result<Option<(Record, Option<TaskKey>)>, LookError> {
    let Some(record) = ledger.find(command_id).await? else { return Ok(None) };
    let seq = record.seq;
    let next = ledger.since(seq - 1, 1).await?;
    let mut key = next.first().filter(|entry| entry.seq == seq).map(|entry| entry.task_key);
    if key.is_none() {
        // An exception: its confirm is not settled yet.
        let waiting = ledger.waiting_tasks().await?;
        key = waiting.into_iter().find(|(_, waits)| *waits == seq).map(|(key, _)| key);
    }
    Ok(Some((record, key)))
}
