//! A ledger in memory that holds the relay to its promises, and a broker that does as it is told.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use futures_util::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::{
    command::{Action, CommandId, Registered, Seq, TaskKey, message::Envelope},
    ledger::{
        AcceptError, Acceptance, Due, Entry, Exception, Filter, Ledger, LookError, Receipt, Record, Refused,
        Registering, Registration, Settlement, State, Stats, state::Exceptional,
    },
    relay::{Failure, LateReturn, News, Outcome, Publisher, Session},
};

pub(super) fn id(seq: Seq) -> CommandId {
    CommandId::from_bytes(u128::from(seq).to_be_bytes())
}

fn seq_of(id: CommandId) -> Seq {
    Seq::try_from(u128::from_be_bytes(*id.as_bytes())).unwrap()
}

fn entry(seq: Seq, task: u64) -> Entry {
    Entry {
        seq,
        task_key: TaskKey::from_value(task),
        envelope: Envelope {
            command_id: id(seq),
            received_at: Timestamp::UNIX_EPOCH,
            endpoint: Arc::from("purchase"),
            action: Action::Approve,
            approval_code: None,
            instance_id: None,
            task_id: None,
        },
        body: Vec::new(),
    }
}

/// What both doubles know.
#[derive(Default)]
pub(super) struct World {
    // the ledger
    pub(super) log: Vec<Entry>,
    pub(super) cursor: Seq,
    pub(super) exceptions: BTreeMap<Seq, Exception>,
    pub(super) settlements: Vec<Settlement>,
    /// Settlements and looks fail.
    pub(super) ledger_fails: bool,
    /// Settlements are asked for and not answered.
    pub(super) ledger_hangs: bool,
    /// Commands that are left out of the fresh ones.
    pub(super) not_fresh: BTreeSet<Seq>,
    fresh: Vec<Entry>,
    keep_fresh: bool,
    /// Reads of the log.
    pub(super) reads: usize,
    /// As in the relay's settings.
    pub(super) max_attempts: u32,
    // the broker
    /// Whether the broker takes connections.
    pub(super) away: bool,
    pub(super) connects: u32,
    pub(super) sessions: u32,
    pub(super) closed: u32,
    /// Every publish, in order, of all sessions.
    pub(super) published: Vec<Seq>,
    /// Every command that was ever confirmed.
    pub(super) confirmed: BTreeSet<Seq>,
    /// How publishes are answered; `None`, and an answer `None`: when the test says so.
    pub(super) policy: Option<Box<dyn FnMut(Seq) -> Option<Outcome> + Send>>,
    /// The current session's.
    pub(super) flying: VecDeque<(Seq, Option<Outcome>)>,
    news: News,
    /// What [`News::outcomes`] are about.
    told: Vec<(Seq, bool)>,
    /// Commands that the relay knows to be refused and not confirmed since.
    refused: BTreeSet<Seq>,
    fails: bool,
    waker: Option<Waker>,
}

#[derive(Clone)]
pub(super) struct Handle {
    world: Arc<Mutex<World>>,
    head: watch::Sender<Seq>,
}

impl Handle {
    pub(super) fn new() -> Self {
        Self { world: Arc::default(), head: watch::Sender::new(0) }
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Commits commands, one for each task key, in one commit.
    pub(super) fn accept(&self, tasks: impl IntoIterator<Item = u64>) {
        let mut world = self.world();
        for task in tasks {
            let entry = entry(world.log.len() as Seq + 1, task);
            world.log.push(entry.clone());
            if world.keep_fresh && !world.not_fresh.contains(&entry.seq) {
                world.fresh.push(entry);
            }
        }
        let head = world.log.len() as Seq;
        drop(world);
        self.head.send_replace(head);
    }

    /// What an operator does through another process.
    pub(super) fn operator(&self, seq: Seq, state: Exceptional) {
        let next_attempt_at = Timestamp::UNIX_EPOCH;
        let reason = "by an operator".to_owned();
        let exception = Exception { seq, state, attempts: 0, next_attempt_at, reason };
        let mut world = self.world();
        world.refused.remove(&seq);
        world.exceptions.insert(seq, exception);
    }

    /// Answers the oldest publish without an answer.
    pub(super) fn answer(&self, outcome: Outcome) {
        let mut world = self.world();
        let open = world.flying.iter_mut().find(|(_, answer)| answer.is_none());
        open.expect("a publish waits for an answer").1 = Some(outcome);
        world.tell();
    }

    /// From now on, and for what is in flight.
    pub(super) fn answer_all(&self, policy: impl FnMut(Seq) -> Option<Outcome> + Send + 'static) {
        let mut world = self.world();
        let mut policy = policy;
        for (seq, answer) in &mut world.flying {
            if answer.is_none() {
                *answer = policy(*seq);
            }
        }
        world.policy = Some(Box::new(policy));
        world.tell();
    }

    pub(super) fn confirm_all(&self) {
        self.answer_all(|_| Some(Outcome::Confirmed));
    }

    pub(super) fn return_late(&self, seq: Seq) {
        let mut world = self.world();
        world.news.late.push(LateReturn { command_id: id(seq), reason: "312 NO_ROUTE".to_owned() });
        world.wake();
    }

    pub(super) fn block(&self, blocked: bool) {
        let mut world = self.world();
        world.news.blocked = Some(blocked);
        world.wake();
    }

    /// Ends the current session.
    pub(super) fn cut(&self) {
        let mut world = self.world();
        world.fails = true;
        world.wake();
    }

    pub(super) fn state(&self, seq: Seq) -> State {
        let world = self.world();
        State::of(seq, world.cursor, world.exceptions.get(&seq).map(|exception| exception.state))
    }
}

impl World {
    fn tell(&mut self) {
        while let Some((seq, Some(_))) = self.flying.front() {
            let seq = *seq;
            let outcome = self.flying.pop_front().and_then(|(_, outcome)| outcome).unwrap();
            if outcome == Outcome::Confirmed {
                self.confirmed.insert(seq);
            }
            self.told.push((seq, outcome == Outcome::Confirmed));
            self.news.outcomes.push(outcome);
        }
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn entry(&self, seq: Seq) -> Entry {
        self.log[usize::try_from(seq).unwrap() - 1].clone()
    }

    /// Writes a settlement as the ledger does, and checks what it claims.
    fn settle(&mut self, settlement: Settlement) {
        for exception in &settlement.exceptions {
            // As in the ledger, an operator's park stands.
            if self.exceptions.get(&exception.seq).is_none_or(|known| known.state != Exceptional::Parked) {
                self.exceptions.insert(exception.seq, exception.clone());
            }
        }
        for seq in &settlement.cleared {
            assert!(self.confirmed.contains(seq), "INVARIANT 3: {seq} is cleared but was never confirmed");
            self.exceptions.remove(seq);
        }
        if let Some(through) = settlement.through {
            assert!(through >= self.cursor, "the cursor never moves back");
            for seq in self.cursor + 1..=through {
                let accounted = self.confirmed.contains(&seq) || self.exceptions.contains_key(&seq);
                assert!(
                    accounted,
                    "INVARIANT 3: the cursor passes {seq}, which is neither confirmed nor an exception"
                );
            }
            self.cursor = through;
        }
        self.settlements.push(settlement);
    }

    fn look<T>(&self, operation: &'static str, value: T) -> Result<T, LookError> {
        if self.ledger_fails {
            Err(LookError { operation, source: "the test says so".into() })
        } else {
            Ok(value)
        }
    }
}

fn now<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    std::future::ready(value).boxed()
}

impl Ledger for Handle {
    fn limit(&self, _: crate::ledger::Limits) {}

    fn accept(&self, _: Acceptance) -> BoxFuture<'static, Result<Receipt, AcceptError>> {
        unreachable!("the relay accepts nothing")
    }

    fn refused(&self, _: Refused) {
        unreachable!("the relay refuses nothing")
    }

    fn head(&self) -> watch::Receiver<Seq> {
        self.head.subscribe()
    }

    fn take_fresh(&self) -> Vec<Entry> {
        std::mem::take(&mut self.world().fresh)
    }

    fn keep_fresh(&self, wanted: bool) {
        let mut world = self.world();
        world.keep_fresh = wanted;
        if !wanted {
            world.fresh.clear();
        }
    }

    fn cursor(&self) -> BoxFuture<'static, Result<Seq, LookError>> {
        let world = self.world();
        now(world.look("read the cursor of", world.cursor))
    }

    fn since(&self, seq: Seq, limit: usize) -> BoxFuture<'static, Result<Vec<Entry>, LookError>> {
        let mut world = self.world();
        world.reads += 1;
        let after = world.log.iter().filter(|e| e.seq > seq && !world.exceptions.contains_key(&e.seq));
        now(world.look("read", after.take(limit).cloned().collect()))
    }

    fn due(&self, at: Timestamp, limit: usize) -> BoxFuture<'static, Result<Vec<Due>, LookError>> {
        let world = self.world();
        let due =
            world.exceptions.values().filter(|e| e.state != Exceptional::Parked && e.next_attempt_at <= at);
        let due = due.take(limit).map(|e| Due { entry: world.entry(e.seq), attempts: e.attempts });
        now(world.look("read", due.collect()))
    }

    fn waiting_tasks(&self) -> BoxFuture<'static, Result<Vec<(TaskKey, Seq)>, LookError>> {
        let world = self.world();
        let waiting = world.exceptions.values().filter(|e| e.state != Exceptional::Parked);
        let waiting = waiting.map(|e| (world.entry(e.seq).task_key, e.seq)).collect();
        now(world.look("read", waiting))
    }

    fn settle(&self, settlement: Settlement) -> BoxFuture<'static, Result<(), AcceptError>> {
        let handle = self.clone();
        async move {
            // A commit takes a moment, in which other things happen.
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
            if handle.world().ledger_hangs {
                std::future::pending::<()>().await;
            }
            let mut world = handle.world();
            if world.ledger_fails {
                return Err(AcceptError::Unavailable);
            }
            world.settle(settlement);
            Ok(())
        }
        .boxed()
    }

    fn find(&self, command_id: CommandId) -> BoxFuture<'static, Result<Option<Record>, LookError>> {
        let record = self.record(seq_of(command_id));
        now(self.world().look("read", record))
    }

    fn list(&self, filter: Filter) -> BoxFuture<'static, Result<Vec<Record>, LookError>> {
        let newest = filter.before.map_or(0, |before| before - 1);
        let records = self.record(newest).into_iter().collect();
        now(self.world().look("read", records))
    }

    fn refusals(
        &self,
        _: Option<String>,
        _: Option<String>,
        _: usize,
    ) -> BoxFuture<'static, Result<Vec<Refused>, LookError>> {
        unreachable!("the relay asks for no refusals")
    }

    fn register(&self, _: Vec<Registration>) -> BoxFuture<'static, Result<Registering, AcceptError>> {
        unreachable!("the relay registers nothing")
    }

    fn unregister(&self, _: String) -> BoxFuture<'static, Result<bool, AcceptError>> {
        unreachable!("the relay registers nothing")
    }

    fn registration(&self, _: String) -> BoxFuture<'static, Result<Option<Registration>, LookError>> {
        unreachable!("the relay asks for no contexts")
    }

    fn registered(
        &self,
        _: Option<String>,
        _: Option<u64>,
    ) -> BoxFuture<'static, Result<Option<Registered>, AcceptError>> {
        unreachable!("the relay asks for no contexts")
    }

    fn stats(&self) -> BoxFuture<'static, Result<Stats, LookError>> {
        unreachable!("the relay asks for no numbers")
    }

    fn probe(&self) -> BoxFuture<'static, Result<(), AcceptError>> {
        unreachable!("the relay probes nothing")
    }

    fn flush(&self) -> BoxFuture<'static, ()> {
        unreachable!("the relay does not close the ledger")
    }
}

impl Handle {
    fn record(&self, seq: Seq) -> Option<Record> {
        let state = self.state(seq);
        let world = self.world();
        let exception = world.exceptions.get(&seq);
        (seq >= 1 && seq <= world.log.len() as Seq).then(|| Record {
            seq,
            command_id: id(seq),
            received_at: Timestamp::UNIX_EPOCH,
            state,
            endpoint: String::new(),
            action: String::new(),
            user_id: String::new(),
            approval_code: None,
            instance_id: None,
            task_id: None,
            attempts: exception.map(|exception| exception.attempts),
            next_attempt_at: exception.map(|exception| exception.next_attempt_at),
            note: None,
            command: None,
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the test says so")]
pub(super) struct Told;

impl Failure for Told {
    fn needs_operator(&self) -> bool {
        false
    }
}

impl Publisher for Handle {
    type Session = Handle;
    type Error = Told;

    async fn connect(&mut self) -> Result<Handle, Told> {
        let mut world = self.world();
        world.connects += 1;
        if world.away {
            return Err(Told);
        }
        world.sessions += 1;
        world.flying.clear();
        world.news = News::default();
        world.told.clear();
        world.fails = false;
        drop(world);
        Ok(self.clone())
    }
}

impl Session for Handle {
    type Error = Told;

    fn publish(&mut self, entry: Entry) -> Result<(), Told> {
        let mut world = self.world();
        let earlier =
            world.refused.range(..entry.seq).find(|seq| world.entry(**seq).task_key == entry.task_key);
        assert_eq!(earlier, None, "{} is published before an earlier one of its task", entry.seq);
        world.published.push(entry.seq);
        let answer = world.policy.as_mut().and_then(|policy| policy(entry.seq));
        world.flying.push_back((entry.seq, answer));
        world.tell();
        Ok(())
    }

    fn poll_news(&mut self, cx: &mut Context<'_>, news: &mut News) -> Poll<Result<(), Told>> {
        let mut world = self.world();
        if world.fails {
            return Poll::Ready(Err(Told));
        }
        let told = std::mem::take(&mut world.news);
        if told.outcomes.is_empty() && told.late.is_empty() && told.blocked.is_none() {
            world.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        for (seq, confirmed) in std::mem::take(&mut world.told) {
            let parked = world.exceptions.get(&seq).is_some_and(|e| e.attempts + 1 >= world.max_attempts);
            if confirmed || parked {
                world.refused.remove(&seq);
            } else {
                world.refused.insert(seq);
            }
        }
        *news = told;
        Poll::Ready(Ok(()))
    }

    fn look(&mut self) -> Result<(), Told> {
        if self.world().fails { Err(Told) } else { Ok(()) }
    }

    async fn close(self) {
        self.world().closed += 1;
    }
}
