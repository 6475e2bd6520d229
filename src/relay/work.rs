//! The loop: which command, when again, when to park.

mod accounts;
mod outcomes;

use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};
use tracing::{info, warn};

use super::{
    LateReturn, News, Report, Session, Settings, requested,
    tasks::{Known, Stage, Tasks},
    unsettled::Unsettled,
};
use crate::{
    command::{Seq, TaskKey},
    ledger::{AcceptError, Due, Entry, Ledger, LookError, Settlement, state::Event},
    telemetry::{
        failpoint::reach,
        log::chain,
        metrics::{Metrics, PublishResult},
    },
};

/// How often due exceptions are looked for, and the session and its oldest publish are looked at.
const TICK: Duration = Duration::from_secs(1);

/// The first wait of a refused command. The broker will not be another one a moment later.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// How long to wait before the ledger is asked again after it failed.
const LEDGER_PAUSE: Duration = Duration::from_millis(500);

/// While new commands are held back, every so many ticks the exceptions known are compared with the ledger's.
const TICKS_TO_REVIEW: u32 = 5;

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
    /// Late returns that are not in the ledger yet, because it could not be read.
    late: VecDeque<LateReturn>,
    /// The attempts of commands that were returned late, for their exceptions are cleared by the confirm that comes
    /// before the return. At most [`Settings::max_exceptions`].
    late_attempts: BTreeMap<Seq, u32>,
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
    /// The exceptions known are compared with these.
    reviewing: Option<Look<(TaskKey, Seq)>>,
    review_wanted: bool,
    /// Ticks since the last review.
    unreviewed: u32,
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
            late: VecDeque::new(),
            late_attempts: BTreeMap::new(),
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
        self.settling.is_none() && self.unsettled.is_empty() && self.late.is_empty()
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
            // What comes rarely stands first: under load there is always news.
            tokio::select! {
                biased;
                _ = ticks.tick() => {
                    session.look()?;
                    self.tick();
                    self.look_up_late().await;
                    if self.is_overdue() {
                        return Err(End::Unanswered);
                    }
                }
                result = ready(&mut self.settling, |(future, _)| future) => self.settled(result),
                result = ready(&mut now.looking, |future| future) => {
                    now.looking = None;
                    self.take_due(result).await;
                }
                result = ready(&mut now.reviewing, |future| future) => {
                    now.reviewing = None;
                    self.take_review(result);
                }
                result = ready(&mut now.reading, |(future, _)| future) => self.take_read(result),
                told = poll_fn(|cx| session.poll_news(cx, &mut news)) => {
                    told?;
                    self.learn(&mut news).await;
                }
                changed = head.changed(), if wants_more && head_is_open => head_is_open = changed.is_ok(),
                () = requested(stop), if !stopping => {}
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
                Err(error) => warn!(error = %chain(&error), "cannot read the ledger; trying again"),
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
            self.look_up_late().await;
            self.send();
            if let Some((settling, _)) = &mut self.settling {
                let result = settling.await;
                self.settled(result);
            }
            if self.is_settled() {
                return;
            }
            if self.ledger_fails || !self.late.is_empty() {
                sleep(LEDGER_PAUSE).await;
            }
        }
    }

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
        reach("relay:publishing");
        session.publish(entry)?;
        reach("relay:published");
        Ok(())
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
                warn!(error = %chain(&error), "cannot read the ledger; trying again");
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

    fn tick(&mut self) {
        self.now.look_wanted = true;
        self.now.read_paused = false;
        self.now.settle_paused = false;
        self.now.unreviewed += 1;
        if self.now.crowded && self.now.unreviewed >= TICKS_TO_REVIEW {
            self.now.review_wanted = true;
        }
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
