//! The loop: which command, when again, when to park.

use std::{collections::VecDeque, future::poll_fn, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};
use tracing::{info, warn};

use super::{
    Chain, LateReturn, News, Outcome, Report, Session, Settings, backoff, requested,
    tasks::{Known, Stage, Tasks},
    unsettled::Unsettled,
};
use crate::{
    command::{Seq, TaskKey},
    ledger::{
        AcceptError, Due, Entry, Exception, Filter, Ledger, LookError, Settlement, State, state::Event,
    },
    telemetry::metrics::{Metrics, PublishResult},
};

/// How often due exceptions are looked for, and the session and its oldest publish are looked at.
const TICK: Duration = Duration::from_secs(1);

/// The first wait of a refused command. The broker will not be another one a moment later.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// How long to wait before the ledger is asked again after it failed.
const LEDGER_PAUSE: Duration = Duration::from_millis(500);

/// The reason of an exception with 0 attempts.
const WAITS: &str = "waits for an earlier command of its task";

/// How a session ended.
pub(super) enum End<E> {
    /// The relay is to stop, and everything is settled.
    Stopped,
    /// The session failed.
    Failed(E),
    /// The oldest publish had no answer within [`Settings::confirm_timeout`].
    Unanswered,
}

impl<E> From<E> for End<E> {
    fn from(error: E) -> Self {
        Self::Failed(error)
    }
}

/// A command with the broker.
struct Flight {
    seq: Seq,
    key: TaskKey,
    /// Refusals so far of an exception; `None` for a command in the order of the log.
    attempts: Option<u32>,
    sent_at: Instant,
}

/// The relay's memory.
pub(super) struct Relay {
    ledger: Arc<dyn Ledger>,
    settings: Settings,
    pub(super) metrics: Arc<Metrics>,
    clock: Clock,
    /// Commands confirmed in this run.
    pub(super) confirmed: u64,
    tasks: Tasks,
    unsettled: Unsettled,
    /// The settlement under way, and a copy of it in case it fails.
    settling: Option<(BoxFuture<'static, Result<(), AcceptError>>, Settlement)>,
    /// The cursor as last sent to the ledger.
    through: Seq,
    /// Look for due exceptions when the settlement under way is written: it makes some due.
    look_after: bool,
    /// The last settlement failed; the next is tried at a tick.
    ledger_fails: bool,
    tally: Tally,
    now: Passing,
}

/// A look into the ledger that is under way.
type Look<T> = BoxFuture<'static, Result<Vec<T>, LookError>>;

/// What belongs to one session.
#[derive(Default)]
struct Passing {
    in_flight: VecDeque<Flight>,
    /// The next commands in the order of the log.
    ready: VecDeque<Entry>,
    /// Everything up to here was read, or has an exception.
    position: Seq,
    /// The log was read up to its head, so the next commands may be among the fresh ones.
    caught_up: bool,
    /// Reading the log; with the head as it was before.
    reading: Option<(Look<Entry>, Seq)>,
    /// Exceptions whose turn it is.
    retries: VecDeque<Due>,
    held: usize,
    looking: Option<Look<Due>>,
    /// Due exceptions are to be looked for as soon as no settlement is under way.
    look_wanted: bool,
    /// The same, as soon as what is unsettled now is written.
    release_wanted: bool,
    /// No settlement before the next tick.
    settle_paused: bool,
    blocked: bool,
    /// The time of the broker's answer counts from here, if it has blocked publishing before.
    patience_from: Option<Instant>,
    /// New commands are held back because too many exceptions wait.
    crowded: bool,
    /// The log could not be read; try again at the next tick.
    read_paused: bool,
}

/// What happened since the last tick, for one line of the log instead of thousands.
#[derive(Default)]
struct Tally {
    refused: u64,
    parked: u64,
    last: Option<(Seq, String)>,
}

impl Relay {
    pub(super) fn new(ledger: Arc<dyn Ledger>, settings: Settings, metrics: Arc<Metrics>) -> Self {
        Self {
            ledger,
            settings,
            metrics,
            clock: Clock::start(),
            confirmed: 0,
            tasks: Tasks::default(),
            unsettled: Unsettled::default(),
            settling: None,
            through: 0,
            look_after: false,
            ledger_fails: false,
            tally: Tally::default(),
            now: Passing::default(),
        }
    }

    /// Ends what is left of a session, and tells what is left undone.
    pub(super) fn end(mut self) -> Report {
        let unanswered = self.session_over();
        Report { confirmed: self.confirmed, unanswered, settled: self.is_settled() }
    }

    fn is_settled(&self) -> bool {
        self.settling.is_none() && self.unsettled.is_empty()
    }

    /// Publishes through a session until it ends or the relay is to stop. Nothing may be unsettled at the start.
    pub(super) async fn serve<S: Session>(
        &mut self,
        session: &mut S,
        stop: &mut watch::Receiver<Option<Instant>>,
    ) -> End<S::Error> {
        match self.serve_until(session, stop).await {
            Ok(()) => End::Stopped,
            Err(end) => end,
        }
    }

    async fn serve_until<S: Session>(
        &mut self,
        session: &mut S,
        stop: &mut watch::Receiver<Option<Instant>>,
    ) -> Result<(), End<S::Error>> {
        let mut head = self.ledger.head();
        let mut head_is_open = true;
        self.ledger.keep_fresh(true);
        if self.begin(stop).await.is_none() {
            return Ok(());
        }
        let tick = TICK.min(self.settings.confirm_timeout / 2).max(Duration::from_millis(1));
        let mut ticks = interval_at(Instant::now() + tick, tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut news = News::default();
        loop {
            let stopping = stop.borrow().is_some() || stop.has_changed().is_err();
            if !stopping {
                self.feed(session, &mut head)?;
            }
            self.write(stopping);
            if stopping && self.now.in_flight.is_empty() && self.is_settled() {
                return Ok(());
            }
            let wants_more = !stopping && self.wants_more();
            let now = &mut self.now;
            tokio::select! {
                biased;
                told = poll_fn(|cx| session.poll_news(cx, &mut news)) => {
                    told?;
                    self.learn(&mut news).await;
                }
                result = ready(&mut self.settling, |(future, _)| future) => self.settled(result),
                result = ready(&mut now.looking, |future| future) => {
                    now.looking = None;
                    self.take_due(result).await;
                }
                result = ready(&mut now.reading, |(future, _)| future) => self.take_read(result),
                changed = head.changed(), if wants_more && head_is_open => head_is_open = changed.is_ok(),
                () = requested(stop), if !stopping => {}
                _ = ticks.tick() => {
                    session.look()?;
                    self.tick();
                    if self.is_overdue() {
                        return Err(End::Unanswered);
                    }
                }
            }
        }
    }

    /// Finds out where to go on. `None` if the relay is to stop.
    async fn begin(&mut self, stop: &mut watch::Receiver<Option<Instant>>) -> Option<()> {
        loop {
            let looks = async { Ok((self.ledger.cursor().await?, self.ledger.waiting_tasks().await?)) };
            let looked: Result<_, LookError> = tokio::select! {
                looked = looks => looked,
                () = requested(stop) => return None,
            };
            match looked {
                Ok((cursor, waiting)) => {
                    self.through = cursor;
                    self.tasks.load(waiting);
                    self.now = Passing { position: cursor, look_wanted: true, ..Passing::default() };
                    return Some(());
                }
                Err(error) => warn!(error = %Chain(&error), "cannot read the ledger; trying again"),
            }
            sleep(LEDGER_PAUSE).await;
        }
    }

    /// Forgets what belongs to a session, and tells how many commands were in flight. They are published again, by the
    /// ledger's account of them.
    pub(super) fn session_over(&mut self) -> usize {
        self.ledger.keep_fresh(false);
        self.metrics.set_connected(false);
        self.metrics.set_blocked(false);
        self.reach();
        let unanswered = std::mem::take(&mut self.now).in_flight.len();
        self.metrics.published(PublishResult::Unanswered, unanswered as u64);
        self.tally.tell();
        unanswered
    }

    /// Writes what is unsettled, however long that takes.
    pub(super) async fn settle_all(&mut self) {
        loop {
            self.send();
            let Some((settling, _)) = &mut self.settling else { return };
            let result = settling.await;
            self.settled(result);
            if self.ledger_fails {
                sleep(LEDGER_PAUSE).await;
            }
        }
    }

    // ---- to the broker

    /// Hands over what may be handed over.
    fn feed<S: Session>(&mut self, session: &mut S, head: &mut watch::Receiver<Seq>) -> Result<(), S::Error> {
        if self.now.blocked {
            return Ok(());
        }
        let sent_at = Instant::now();
        while self.now.in_flight.len() < self.settings.max_in_flight {
            if let Some(Due { entry, attempts }) = self.now.retries.pop_front() {
                self.publish(session, entry, Some(attempts), sent_at)?;
            } else if self.is_crowded() {
                return Ok(());
            } else if let Some(entry) = self.now.ready.pop_front() {
                if self.tasks.block(entry.task_key) {
                    self.set_aside(&entry);
                } else {
                    self.publish(session, entry, None, sent_at)?;
                }
            } else if !self.take_fresh(head) {
                break;
            }
        }
        // While far behind, the next lot is read while this one is with the broker.
        if !self.now.caught_up && self.now.ready.len() < self.read_limit() / 2 {
            self.read(*head.borrow_and_update());
        }
        Ok(())
    }

    fn publish<S: Session>(
        &mut self,
        session: &mut S,
        entry: Entry,
        attempts: Option<u32>,
        sent_at: Instant,
    ) -> Result<(), S::Error> {
        self.now.in_flight.push_back(Flight { seq: entry.seq, key: entry.task_key, attempts, sent_at });
        session.publish(entry)
    }

    /// True if a change of the head is of interest.
    fn wants_more(&self) -> bool {
        let now = &self.now;
        !now.blocked
            && !now.crowded
            && !now.read_paused
            && now.reading.is_none()
            && now.ready.is_empty()
            && now.in_flight.len() < self.settings.max_in_flight
    }

    /// Gets the next commands of the log; false if there are none yet.
    fn take_fresh(&mut self, head: &mut watch::Receiver<Seq>) -> bool {
        // Marked as seen before the look: whatever is committed after it changes the head again.
        let known = *head.borrow_and_update();
        if known <= self.now.position || self.now.reading.is_some() {
            return false;
        }
        if self.now.caught_up {
            for entry in self.ledger.take_fresh() {
                // What is at or below the position has been read from the table. What comes after a gap will be.
                if entry.seq == self.now.position + 1 {
                    self.now.position = entry.seq;
                    self.now.ready.push_back(entry);
                }
            }
            if !self.now.ready.is_empty() {
                return true;
            }
        }
        self.read(known);
        false
    }

    /// Starts to read the log from where it was left; `known` is its head.
    fn read(&mut self, known: Seq) {
        if known > self.now.position && self.now.reading.is_none() && !self.now.read_paused {
            let reading = self.ledger.since(self.now.position, self.read_limit());
            self.now.reading = Some((reading, known));
        }
    }

    fn take_read(&mut self, result: Result<Vec<Entry>, LookError>) {
        let Some((_, known)) = self.now.reading.take() else { return };
        match result {
            Ok(entries) => {
                let last = entries.last().map_or(self.now.position, |entry| entry.seq);
                self.now.caught_up = entries.len() < self.read_limit();
                // A lot that is not full goes to the head at least; what it lacks has exceptions.
                self.now.position = if self.now.caught_up { last.max(known) } else { last };
                self.now.ready.extend(entries);
            }
            Err(error) => {
                warn!(error = %Chain(&error), "cannot read the ledger; trying again");
                self.now.read_paused = true;
            }
        }
    }

    fn read_limit(&self) -> usize {
        self.settings.max_in_flight.clamp(16, 1024)
    }

    /// Takes a command out of the log's order because an earlier one of its task is an exception.
    fn set_aside(&mut self, entry: &Entry) {
        let first = self.tasks.first(entry.task_key);
        let next = first.and_then(|(_, known)| known.next_attempt_at).unwrap_or_else(|| self.clock.now());
        let known = Known { attempts: Some(0), next_attempt_at: Some(next), stage: Stage::Resting };
        self.tasks.insert(entry.task_key, entry.seq, known);
        self.except(entry.seq, Event::Refused, 0, next, WAITS.to_owned());
    }

    fn is_crowded(&mut self) -> bool {
        let most = self.settings.max_exceptions;
        let waiting = self.tasks.len();
        let crowded = if self.now.crowded { waiting >= most - most / 10 } else { waiting >= most };
        if crowded != self.now.crowded {
            self.now.crowded = crowded;
            self.ledger.keep_fresh(!crowded);
            if crowded {
                warn!(waiting, "the broker refuses too many commands; new ones stay in the ledger meanwhile");
            } else {
                info!(waiting, "publishing new commands again");
            }
        }
        crowded
    }

    // ---- from the broker

    async fn learn(&mut self, news: &mut News) {
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
    fn except(&mut self, seq: Seq, event: Event, attempts: u32, next_attempt_at: Timestamp, reason: String) {
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
    fn release(&mut self, key: TaskKey) {
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
                warn!(%command_id, error = %Chain(&error), "returned after it was confirmed; cannot be found");
            }
        }
    }

    // ---- the ledger

    /// Where the cursor may go: before the first command of the log that is not through.
    fn reach(&mut self) {
        let now = &self.now;
        let flying = now.in_flight.iter().find(|flight| flight.attempts.is_none()).map(|flight| flight.seq);
        let open = flying.or_else(|| now.ready.front().map(|entry| entry.seq));
        let through = open.map_or(now.position, |seq| seq - 1);
        if through > self.through {
            self.through = through;
            self.unsettled.reach(through);
        }
    }

    /// Starts the next settlement, or the next look for due exceptions; never both.
    fn write(&mut self, stopping: bool) {
        if self.now.looking.is_some() || self.settling.is_some() {
            return;
        }
        self.reach();
        let room = self.now.retries.len() + self.now.held < self.settings.max_in_flight;
        if self.now.look_wanted && room && !self.now.blocked && !stopping {
            self.now.look_wanted = false;
            self.now.looking = Some(self.ledger.due(self.clock.now(), self.due_limit()));
        } else if !self.now.settle_paused {
            self.send();
        }
    }

    fn send(&mut self) {
        if self.settling.is_none() && !self.unsettled.is_empty() {
            let settlement = self.unsettled.take();
            self.look_after |= std::mem::take(&mut self.now.release_wanted);
            self.settling = Some((self.ledger.settle(settlement.clone()), settlement));
        }
    }

    fn settled(&mut self, result: Result<(), AcceptError>) {
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

    async fn take_due(&mut self, result: Result<Vec<Due>, LookError>) {
        let dues = match result {
            Ok(dues) => dues,
            Err(error) => {
                warn!(error = %Chain(&error), "cannot look for due exceptions; trying again");
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

    /// Moves an exception, and tells where it was.
    fn stage(&mut self, key: TaskKey, seq: Seq, stage: Stage) -> Option<Stage> {
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
            Err(error) => warn!(error = %Chain(&error), "cannot read the ledger; trying again"),
        }
    }

    // ---- time

    fn tick(&mut self) {
        self.now.look_wanted = true;
        self.now.read_paused = false;
        self.now.settle_paused = false;
        self.tally.tell();
    }

    /// A broker that blocks publishing legitimately does not answer, so that time does not count: the session would
    /// otherwise be torn down and built again as long as the alarm lasts, and each time everything in flight be sent
    /// twice. A peer that has died meanwhile is found by its missing heartbeats.
    fn is_overdue(&self) -> bool {
        let Some(oldest) = self.now.in_flight.front() else { return false };
        let since = self.now.patience_from.map_or(oldest.sent_at, |from| from.max(oldest.sent_at));
        !self.now.blocked && since.elapsed() >= self.settings.confirm_timeout
    }
}

impl Tally {
    fn tell(&mut self) {
        let Self { refused, parked, last } = std::mem::take(self);
        let Some((seq, reason)) = last else { return };
        if parked > 0 {
            warn!(
                refused,
                parked, seq, reason, "the broker refused commands; an operator must act on the parked"
            );
        } else {
            warn!(refused, seq, reason, "the broker refused commands; they are tried again");
        }
    }
}

/// Resolves when a future that is under way does; never if there is none. The slot stays as it is.
async fn ready<S, T>(slot: &mut Option<S>, future: impl FnOnce(&mut S) -> &mut BoxFuture<'static, T>) -> T {
    match slot {
        Some(slot) => future(slot).await,
        None => std::future::pending().await,
    }
}

/// The time of day for the next attempts.
///
/// A clock that is set back must not make a refused command wait for that long, so the time since the start counts if
/// it says that it is later.
struct Clock {
    started: Instant,
    started_at: Timestamp,
}

impl Clock {
    fn start() -> Self {
        Self { started: Instant::now(), started_at: Timestamp::now() }
    }

    fn now(&self) -> Timestamp {
        // Rounded as the ledger stores it, so that what is due now is not found to be due a moment later.
        let elapsed = self.started.elapsed();
        let now = self.started_at.saturating_add(elapsed).unwrap_or(self.started_at).max(Timestamp::now());
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }
}
