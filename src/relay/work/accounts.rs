//! What is written to the ledger, and which exceptions are due by its account.

use std::collections::HashSet;

use tracing::{info, warn};

use super::{Relay, TICK, WAITS};
use crate::{
    command::{Seq, TaskKey},
    ledger::{AcceptError, Due, Filter, LookError, State, state::Event},
    relay::tasks::{Known, Stage},
    telemetry::{failpoint::reach, log::chain},
};

impl Relay {
    /// Where the cursor may go: before the first command of the log that is not through.
    pub(super) fn reach(&mut self) {
        let now = &self.now;
        let flying = now.in_flight.iter().find(|flight| flight.attempts.is_none()).map(|flight| flight.seq);
        let open = flying.or_else(|| now.ready.front().map(|entry| entry.seq));
        let through = open.map_or(now.position, |seq| seq - 1);
        if through > self.through {
            self.through = through;
            self.unsettled.reach(through);
        }
    }

    /// Starts the next settlement, or the next look at the exceptions; never both.
    pub(super) fn write(&mut self, stopping: bool) {
        if self.now.looking.is_some() || self.now.reviewing.is_some() || self.settling.is_some() {
            return;
        }
        self.reach();
        let room = self.now.retries.len() + self.now.held < self.settings.max_in_flight;
        if self.now.review_wanted && !stopping {
            self.now.review_wanted = false;
            self.now.unreviewed = 0;
            self.now.reviewing = Some(self.ledger.waiting_tasks());
        } else if self.now.look_wanted && room && !self.now.blocked && !stopping {
            self.now.look_wanted = false;
            self.now.looking = Some(self.ledger.due(self.clock.now(), self.due_limit()));
        } else if !self.now.settle_paused {
            self.send();
        }
    }

    pub(super) fn send(&mut self) {
        if self.settling.is_none() && !self.unsettled.is_empty() {
            reach("relay:settling");
            let settlement = self.unsettled.take();
            self.look_after |= std::mem::take(&mut self.now.release_wanted);
            self.settling = Some((self.ledger.settle(settlement.clone()), settlement));
        }
    }

    pub(super) fn settled(&mut self, result: Result<(), AcceptError>) {
        let Some((_, settlement)) = self.settling.take() else { return };
        match result {
            Ok(()) => {
                self.now.look_wanted |= std::mem::take(&mut self.look_after);
                if std::mem::take(&mut self.ledger_fails) {
                    info!("the ledger takes settlements again");
                }
            }
            Err(error) => {
                self.unsettled.put_back(settlement);
                self.now.settle_paused = true;
                if !std::mem::replace(&mut self.ledger_fails, true) {
                    warn!(%error, "cannot settle what the broker confirmed; trying again until it is settled");
                }
            }
        }
    }

    fn due_limit(&self) -> usize {
        // Twice what may be with the broker: those are listed as well, and must not crowd out the others.
        2 * self.settings.max_in_flight
    }

    pub(super) async fn take_due(&mut self, result: Result<Vec<Due>, LookError>) {
        let dues = match result {
            Ok(dues) => dues,
            Err(error) => {
                warn!(error = %chain(&error), "cannot look for due exceptions; trying again");
                return;
            }
        };
        let now = self.clock.now();
        let mut suspect = None;
        for due in dues {
            let (seq, key) = (due.entry.seq, due.entry.task_key);
            if self.unsettled.mentions(seq) {
                continue;
            }
            match self.tasks.get_mut(key, seq) {
                Some(known) if !matches!(known.stage, Stage::Resting) => continue,
                Some(known) => {
                    known.attempts = Some(due.attempts);
                    known.next_attempt_at = Some(now);
                }
                None => {
                    let known = Known {
                        attempts: Some(due.attempts),
                        next_attempt_at: Some(now),
                        stage: Stage::Resting,
                    };
                    self.tasks.insert(key, seq, known);
                }
            }
            let Some((first, known)) = self.tasks.first(key) else { continue };
            let first_rests = matches!(known.stage, Stage::Resting);
            let first_next = known.next_attempt_at;
            if first == seq {
                self.stage(key, seq, Stage::Tried);
                self.now.retries.push_back(due);
            } else if !first_rests && self.now.held < self.settings.max_in_flight {
                self.stage(key, seq, Stage::Held(Box::new(due)));
                self.now.held += 1;
            } else {
                if first_rests && first_next.is_none_or(|next| next <= now) {
                    // It should have been due before this one.
                    suspect = Some((key, first));
                }
                // Out of the way of those that can be published.
                let next = first_next.unwrap_or(now).max(now + TICK);
                if let Some(known) = self.tasks.get_mut(key, seq) {
                    known.next_attempt_at = Some(next);
                }
                self.except(seq, Event::Refused, due.attempts, next, WAITS.to_owned());
            }
        }
        if let Some((key, first)) = suspect {
            self.look_at(key, first).await;
        }
    }

    /// Forgets the exceptions that do not wait any longer by the ledger's account: an operator has parked them, through
    /// another process. Without this they would hold new commands back for good when nothing else waits for them.
    pub(super) fn take_review(&mut self, result: Result<Vec<(TaskKey, Seq)>, LookError>) {
        let listed: HashSet<Seq> = match result {
            Ok(waiting) => waiting.into_iter().map(|(_, seq)| seq).collect(),
            Err(error) => {
                warn!(error = %chain(&error), "cannot read the ledger; trying again");
                return;
            }
        };
        let before = self.tasks.len();
        let unsettled = &self.unsettled;
        let lead_anew = self.tasks.retain(|seq, known| {
            !matches!(known.stage, Stage::Resting) || listed.contains(&seq) || unsettled.mentions(seq)
        });
        let gone = before - self.tasks.len();
        if gone > 0 {
            info!(gone, "no longer pending; their tasks go on");
        }
        for key in lead_anew {
            self.release(key);
        }
    }

    /// Moves an exception, and tells where it was.
    pub(super) fn stage(&mut self, key: TaskKey, seq: Seq, stage: Stage) -> Option<Stage> {
        self.tasks.get_mut(key, seq).map(|known| std::mem::replace(&mut known.stage, stage))
    }

    /// Others wait for a command that is not tried: has an operator parked it, through another process?
    async fn look_at(&mut self, key: TaskKey, seq: Seq) {
        let filter = Filter { before: Some(seq + 1), limit: 1, ..Filter::default() };
        match self.ledger.list(filter).await {
            Ok(records) => {
                let pending = records.first().is_some_and(|r| r.seq == seq && r.state == State::Pending);
                if !pending {
                    info!(seq, "no longer pending; its task goes on");
                    self.tasks.remove(key, seq);
                    self.release(key);
                }
            }
            Err(error) => warn!(error = %chain(&error), "cannot read the ledger; trying again"),
        }
    }
}
