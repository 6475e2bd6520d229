//! Carries out what the machine of [`protocol`](super::protocol) decides, between the ledger, a session and the clock.

use std::{future::poll_fn, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};
use tracing::warn;

use super::{
    News, Session, Settings, Shutdown, notices,
    preparing::{Enrich, Parcel, Preparations},
    protocol::{Due, Effect, Found, Lost, Machine, Moment, Question, Rules, TICK, Unreadable},
};
use crate::{
    backoff,
    command::{Seq, TaskKey},
    ledger::{AcceptError, Entry, LookError, Outbox, Standing, State},
    stop::{Stop, requested},
    telemetry::{
        failpoint::reach,
        log::chain,
        metrics::{Metrics, PublishResult},
    },
    time::Timestamp,
};

/// Delay before the ledger is retried.
const LEDGER_PAUSE: Duration = Duration::from_millis(500);

/// After publishing, fresh commands are taken no sooner than this: commands that arrive meanwhile go out together.
///
/// A single command goes at once. Under load, commands that go out one by one cost the broker a fifth more CPU and the
/// program a twentieth, and callbacks wait for that CPU; nobody waits for the publish itself.
const GATHER: Duration = Duration::from_millis(5);

/// How old a session must be before a command known to end sessions is tried: time for all others.
const CALM: Duration = Duration::from_secs(2);

/// How long a session may stall while there are other brokers to try. Longer than a healthy cluster needs to choose a
/// new leader for a queue.
///
/// A node of a cluster may take commands and confirm none: it is frozen, in a minority, or asks a leader that is out of
/// reach. Doubled after each round of all brokers without a confirm: those that are merely slow are given the whole
/// [`Settings::confirm_timeout`], as a single one is.
const STALL: Duration = Duration::from_secs(10);

/// Maximum number of commands that wait for enrichment, their own or that of an earlier command. More would hold up
/// the log's order, for at most as long as the first of them takes.
const MAX_STRAGGLERS: usize = 1024;

pub(super) enum End<E> {
    /// Stop was requested, and everything is settled.
    Stopped,
    Failed(E),
    /// The oldest publish had no answer within [`Settings::confirm_timeout`], or the session stalled.
    Unanswered,
}

impl<E> From<E> for End<E> {
    fn from(error: E) -> Self {
        Self::Failed(error)
    }
}

/// The machine and its operations under way.
pub(super) struct Relay {
    ledger: Arc<dyn Outbox>,
    confirm_timeout: Duration,
    exchange: Arc<str>,
    pub(super) metrics: Arc<Metrics>,
    clock: Clock,
    machine: Machine<Parcel>,
    preparations: Preparations,
    pub(super) confirmed: u64,
    /// When the broker last confirmed a command.
    confirmed_at: Instant,
    /// Sessions in a row that were given up without a confirm.
    stalled: usize,
    settling: Option<BoxFuture<'static, Result<(), AcceptError>>>,
    asking: Option<BoxFuture<'static, Answer>>,
    reading: Option<BoxFuture<'static, Result<Vec<Entry>, LookError>>>,
}

enum Answer {
    Due(Result<Vec<crate::ledger::Due>, LookError>),
    Waiting(Result<Vec<(TaskKey, Seq)>, LookError>),
    Pending(Result<bool, LookError>),
    Found(Result<Option<Standing>, LookError>),
}

impl Relay {
    pub(super) fn new(
        ledger: Arc<dyn Outbox>,
        settings: &Settings,
        enrich: Option<Arc<dyn Enrich>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let rules = Rules {
            max_in_flight: settings.max_in_flight,
            max_attempts: settings.max_attempts,
            confirm_timeout: settings.confirm_timeout,
            max_exceptions: settings.max_exceptions,
            max_stragglers: MAX_STRAGGLERS,
            calm: CALM,
            salt: backoff::random(),
        };
        Self {
            ledger,
            confirm_timeout: settings.confirm_timeout,
            exchange: settings.exchange.clone(),
            preparations: Preparations::new(enrich, metrics.clone()),
            metrics,
            clock: Clock::start(),
            machine: Machine::new(rules),
            confirmed: 0,
            confirmed_at: Instant::now(),
            stalled: 0,
            settling: None,
            asking: None,
            reading: None,
        }
    }

    /// Ends any session and reports what is left undone.
    pub(super) fn end(mut self) -> Shutdown {
        let settled = self.machine.is_settled();
        let Lost { unanswered, .. } = self.session_over(None);
        Shutdown { confirmed: self.confirmed, unanswered, settled }
    }

    /// Publishes through a session with one of so many brokers until it ends, stalls, or stop is requested. Nothing may
    /// be unsettled at the start.
    pub(super) async fn serve<S: Session>(
        &mut self,
        session: &mut S,
        brokers: usize,
        stop: &mut Stop,
    ) -> End<S::Error> {
        match self.serve_until(session, brokers, stop).await {
            Ok(()) => End::Stopped,
            Err(end) => end,
        }
    }

    async fn serve_until<S: Session>(
        &mut self,
        session: &mut S,
        brokers: usize,
        stop: &mut Stop,
    ) -> Result<(), End<S::Error>> {
        let mut head = self.ledger.head();
        let mut head_is_open = true;
        self.ledger.keep_fresh(true);
        if self.begin(stop).await.is_none() {
            return Ok(());
        }
        let tick = TICK.min(self.confirm_timeout / 2).max(Duration::from_millis(1));
        let mut ticks = interval_at(Instant::now() + tick, tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut news = News::default();
        // Marked as seen before the log is read: any later commit changes the head again.
        let mut known = *head.borrow_and_update();
        let mut gathered = Instant::now();
        loop {
            let stopping = stop.borrow().is_some() || stop.has_changed().is_err();
            let gathering = Instant::now() < gathered;
            if !gathering {
                known = *head.borrow_and_update();
            }
            if self.carry_on(session, known, stopping)? && !gathering {
                gathered = Instant::now() + GATHER;
            }
            if stopping && self.machine.in_flight() == 0 && self.machine.is_settled() {
                return Ok(());
            }
            let wants_more = !stopping && self.machine.wants_more();
            // Rare events come first: under load there is always news.
            tokio::select! {
                biased;
                _ = ticks.tick() => {
                    session.look()?;
                    let now = self.clock.now();
                    self.metrics.relay.set_unanswered(self.machine.unanswered_for(now));
                    if self.machine.tick(now) || self.stalls(brokers, now) {
                        self.stalled += 1;
                        return Err(End::Unanswered);
                    }
                }
                result = under_way(&mut self.settling) => self.settled(result),
                answer = under_way(&mut self.asking) => self.told(answer),
                read = under_way(&mut self.reading) => {
                    self.reading = None;
                    let read = readable(read).map(|read| self.parcels(read));
                    self.machine.log_read(read);
                }
                prepared = self.preparations.next(), if !self.preparations.is_idle() => {
                    self.machine.prepared(prepared);
                }
                told = poll_fn(|cx| session.poll_news(cx, &mut news)) => {
                    told?;
                    self.learn(&mut news);
                }
                () = sleep_until(gathered), if wants_more && gathering => {}
                changed = head.changed(), if wants_more && head_is_open && !gathering => head_is_open = changed.is_ok(),
                () = requested(stop), if !stopping => {}
            }
        }
    }

    /// True if nothing was confirmed for some time, although the oldest publish has had no answer for as long, and there
    /// are other brokers to try.
    ///
    /// A full queue is no stall: the broker refuses at once.
    fn stalls(&self, brokers: usize, now: Moment) -> bool {
        if brokers < 2 {
            return false;
        }
        let rounds = u32::try_from(self.stalled / brokers).unwrap_or(u32::MAX);
        let patience = STALL.saturating_mul(2_u32.saturating_pow(rounds));
        self.machine.unanswered_for(now) >= patience && self.confirmed_at.elapsed() >= patience
    }

    /// Reads the position to continue from. `None` if stop was requested.
    async fn begin(&mut self, stop: &mut Stop) -> Option<()> {
        loop {
            let looks = async { Ok((self.ledger.cursor().await?, self.ledger.waiting_tasks().await?)) };
            let looked: Result<_, LookError> = tokio::select! {
                biased;
                looked = looks => looked,
                () = requested(stop) => return None,
            };
            match looked {
                Ok((cursor, waiting)) => {
                    self.machine.begin(cursor, waiting, self.clock.now());
                    return Some(());
                }
                Err(error) => warn!(error = %chain(&error), "cannot read the ledger; retrying"),
            }
            sleep(LEDGER_PAUSE).await;
        }
    }

    /// Drops a session's state. `blame` has the broker's message if it ended the session over a publish.
    pub(super) fn session_over(&mut self, blame: Option<String>) -> Lost {
        self.metrics.relay.set_connected(false);
        self.metrics.relay.set_blocked(false);
        (self.asking, self.reading) = (None, None);
        let lost = self.machine.lost(blame, self.clock.now());
        self.ledger.keep_fresh(false);
        self.metrics.relay.published(PublishResult::Unanswered, lost.unanswered as u64);
        lost
    }

    /// Writes everything unsettled, without a time limit.
    pub(super) async fn settle_all(&mut self) {
        loop {
            let now = self.clock.now();
            while let Some(effect) = self.machine.next(0, true, now) {
                let published = self.carry_out(effect);
                debug_assert!(published.is_none(), "nothing is published between sessions");
            }
            if self.machine.is_settled() {
                return;
            }
            if self.settling.is_some() || self.asking.is_some() {
                tokio::select! {
                    biased;
                    result = under_way(&mut self.settling) => self.settled(result),
                    answer = under_way(&mut self.asking) => self.told(answer),
                }
            } else {
                sleep(LEDGER_PAUSE).await;
                // Nothing is in flight, so nothing can be overdue.
                self.machine.tick(self.clock.now());
            }
        }
    }

    /// Carries out effects until there are no more; true if something was published.
    fn carry_on<S: Session>(&mut self, session: &mut S, head: Seq, stopping: bool) -> Result<bool, S::Error> {
        let now = self.clock.now();
        let mut published = false;
        while let Some(effect) = self.machine.next(head, stopping, now) {
            if let Some(Parcel { entry, .. }) = self.carry_out(effect) {
                reach("relay:publishing");
                session.publish(entry);
                published = true;
            }
        }
        if published {
            session.flush()?;
            reach("relay:published");
        }
        Ok(published)
    }

    /// Carries out an effect; returns the command if it is to be published.
    fn carry_out(&mut self, effect: Effect<Parcel>) -> Option<Parcel> {
        match effect {
            Effect::Publish(parcel) => return Some(parcel),
            Effect::Prepare(parcel) => {
                if let Some(prepared) = self.preparations.begin(parcel) {
                    self.machine.prepared(prepared);
                }
            }
            Effect::TakeFresh => {
                let fresh = self.parcels(self.ledger.take_fresh());
                self.machine.fresh(fresh);
            }
            Effect::KeepFresh(wanted) => self.ledger.keep_fresh(wanted),
            Effect::ReadLog { after, limit } => self.reading = Some(self.ledger.since(after, limit)),
            Effect::Ask(question) => self.asking = Some(self.ask(question)),
            Effect::Settle(mut settlement) => {
                settlement.exchange = Some(self.exchange.clone());
                reach("relay:settling");
                self.settling = Some(self.ledger.settle(settlement));
            }
            Effect::Say(notice) => notices::say(notice),
        }
        None
    }

    fn ask(&self, question: Question) -> BoxFuture<'static, Answer> {
        let ledger = self.ledger.clone();
        Box::pin(async move {
            match question {
                Question::Due { at, limit } => Answer::Due(ledger.due(at, limit).await),
                Question::Waiting => Answer::Waiting(ledger.waiting_tasks().await),
                Question::Pending { seq } => Answer::Pending(ledger.is_pending(seq).await),
                Question::Find { command_id } => Answer::Found(ledger.standing(command_id).await),
            }
        })
    }

    fn told(&mut self, answer: Answer) {
        self.asking = None;
        let now = self.clock.now();
        match answer {
            Answer::Due(due) => {
                let due = readable(due).map(|listed| {
                    let parcel = |due: crate::ledger::Due| Due {
                        cargo: self.preparations.parcel(due.entry),
                        attempts: due.attempts,
                    };
                    listed.into_iter().map(parcel).collect()
                });
                self.machine.due(due, now);
            }
            Answer::Waiting(waiting) => self.machine.waiting(readable(waiting), now),
            Answer::Pending(pending) => self.machine.still_pending(readable(pending), now),
            Answer::Found(found) => {
                let found = readable(found).map(|found| {
                    found.map(|Standing { seq, state, attempts, task_key }| Found {
                        seq,
                        state,
                        attempts,
                        // Nothing waits for a parked command.
                        key: (state != State::Parked).then_some(task_key),
                    })
                });
                self.machine.found(found, now);
            }
        }
    }

    fn parcels(&self, entries: Vec<Entry>) -> Vec<Parcel> {
        entries.into_iter().map(|entry| self.preparations.parcel(entry)).collect()
    }

    fn settled(&mut self, result: Result<(), AcceptError>) {
        reach("relay:settled");
        self.settling = None;
        self.machine.settled(result.is_ok(), self.clock.now());
    }

    fn learn(&mut self, news: &mut News) {
        let now = self.clock.now();
        let mut confirmed = 0;
        for outcome in news.outcomes.drain(..) {
            reach("relay:confirmed");
            match outcome.result() {
                PublishResult::Confirmed => confirmed += 1,
                other => self.metrics.relay.published(other, 1),
            }
            self.metrics.relay.confirm_took(self.machine.answered(outcome, now));
        }
        if confirmed > 0 {
            self.confirmed += confirmed;
            self.confirmed_at = Instant::now();
            self.stalled = 0;
        }
        self.metrics.relay.published(PublishResult::Confirmed, confirmed);
        if let Some(blocked) = news.blocked.take() {
            self.metrics.relay.set_blocked(blocked);
            self.machine.blocked(blocked, now);
        }
        for late in news.late.drain(..) {
            self.metrics.relay.published(PublishResult::Returned, 1);
            self.machine.returned_late(late);
        }
    }
}

/// Logs the cause, which the machine does not need.
fn readable<T>(looked: Result<T, LookError>) -> Result<T, Unreadable> {
    looked.map_err(|error| {
        warn!(error = %chain(&error), "cannot read the ledger; retrying");
        Unreadable
    })
}

/// Resolves with the future in the slot; never if it is empty. Leaves the slot as it is.
async fn under_way<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// The time of day for the next attempts.
///
/// A clock that is set back must not delay a refused command by that much, so the monotonic time since the start
/// counts if it is later.
struct Clock {
    started: Instant,
    started_at: Timestamp,
}

impl Clock {
    fn start() -> Self {
        Self { started: Instant::now(), started_at: Timestamp::now() }
    }

    fn now(&self) -> Moment {
        let elapsed = self.started.elapsed();
        Moment { at: (self.started_at + elapsed).max(Timestamp::now()), elapsed }
    }
}
