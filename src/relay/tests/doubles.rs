//! An in-memory ledger that checks the relay's guarantees, and a scripted broker.

mod broker;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    task::Waker,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::watch;

use crate::{
    command::{Action, CommandId, Seq, TaskKey, message::Envelope},
    ledger::{
        AcceptError, Due, Entry, Exception, LookError, Outbox, Settlement, Standing, State,
        state::Exceptional,
    },
    relay::{BrokerAnswer, LateReturn, News},
    time::Timestamp,
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
            trace: None,
            task_id: None,
        },
        body: br#"{"n":1}"#.to_vec(),
    }
}

#[derive(Default)]
pub(super) struct World {
    // the ledger
    pub(super) log: Vec<Entry>,
    pub(super) cursor: Seq,
    pub(super) exceptions: BTreeMap<Seq, Exception>,
    pub(super) settlements: Vec<Settlement>,
    /// Settlements and reads fail.
    pub(super) ledger_fails: bool,
    /// Settlements are never answered.
    pub(super) ledger_hangs: bool,
    /// Commands left out of the fresh ones.
    pub(super) not_fresh: BTreeSet<Seq>,
    fresh: Vec<Entry>,
    keep_fresh: bool,
    pub(super) reads: usize,
    /// What completes commands.
    pub(super) enrich: Option<Arc<dyn crate::relay::Enrich>>,
    pub(super) max_attempts: u32,
    // the broker
    pub(super) away: bool,
    pub(super) connects: u32,
    pub(super) sessions: u32,
    pub(super) closed: u32,
    /// Brokers that could be tried instead.
    pub(super) others: usize,
    pub(super) passed_over: u32,
    /// A session that is cut ends because nothing is heard of the broker.
    pub(super) silent: bool,
    /// Every publish of all sessions, in order.
    pub(super) published: Vec<Seq>,
    /// Every command that was ever confirmed.
    pub(super) confirmed: BTreeSet<Seq>,
    /// The answer to each publish; with `None`, also as the answer, the test answers explicitly.
    pub(super) policy: Option<Box<dyn FnMut(Seq) -> Option<BrokerAnswer> + Send>>,
    /// Commands in flight in the current session.
    pub(super) flying: VecDeque<(Seq, Option<BrokerAnswer>)>,
    news: News,
    /// The command of each entry in [`News::outcomes`].
    told: Vec<(Seq, bool)>,
    /// Commands reported to the relay as refused and not confirmed since.
    refused: BTreeSet<Seq>,
    fails: bool,
    /// Commands over which the broker ends the session.
    pub(super) poison: BTreeSet<Seq>,
    /// The broker's message, once it has ended the session over a command.
    ended: Option<String>,
    /// Commands that an operator has acted on: their order is no longer guaranteed.
    touched: BTreeSet<Seq>,
    /// How often the broker refused a command, ended a session over it, or returned it late.
    pub(super) refusals: BTreeMap<Seq, u32>,
    /// Settlements are written before they are answered, so that a crash can come in between.
    pub(super) writes_early: bool,
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

    pub(super) fn operator(&self, seq: Seq, state: Exceptional) {
        let next_attempt_at = Timestamp::UNIX_EPOCH;
        let reason = "by an operator".to_owned();
        let exception = Exception { seq, state, attempts: 0, next_attempt_at, reason };
        let mut world = self.world();
        world.refused.remove(&seq);
        world.touched.insert(seq);
        world.exceptions.insert(seq, exception);
    }

    pub(super) fn answer(&self, outcome: BrokerAnswer) {
        let mut world = self.world();
        let open = world.flying.iter_mut().find(|(_, answer)| answer.is_none());
        open.expect("a publish waits for an answer").1 = Some(outcome);
        world.tell();
    }

    /// Applies to future publishes and those in flight.
    pub(super) fn answer_all(&self, policy: impl FnMut(Seq) -> Option<BrokerAnswer> + Send + 'static) {
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
        self.answer_all(|_| Some(BrokerAnswer::Confirmed));
    }

    pub(super) fn return_late(&self, seq: Seq) {
        let mut world = self.world();
        *world.refusals.entry(seq).or_default() += 1;
        world.news.late.push(LateReturn { command_id: id(seq), reason: "312 NO_ROUTE".to_owned() });
        world.wake();
    }

    pub(super) fn block(&self, blocked: bool) {
        let mut world = self.world();
        world.news.blocked = Some(blocked);
        world.wake();
    }

    pub(super) fn cut(&self) {
        let mut world = self.world();
        world.fails = true;
        world.wake();
    }

    pub(super) fn state(&self, seq: Seq) -> State {
        self.world().state_of(seq)
    }
}

impl World {
    fn tell(&mut self) {
        while let Some((seq, Some(_))) = self.flying.front() {
            let seq = *seq;
            let outcome = self.flying.pop_front().and_then(|(_, outcome)| outcome).unwrap();
            if outcome == BrokerAnswer::Confirmed {
                self.confirmed.insert(seq);
            }
            if outcome != BrokerAnswer::Confirmed {
                *self.refusals.entry(seq).or_default() += 1;
            }
            self.told.push((seq, outcome == BrokerAnswer::Confirmed));
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

    /// Drops the relay's unwritten state, as a crash does.
    pub(super) fn crash(&mut self) {
        self.keep_fresh = false;
        self.fresh.clear();
        self.flying.clear();
        let exceptions = &self.exceptions;
        self.refused.retain(|seq| exceptions.get(seq).is_some_and(|e| e.state == Exceptional::Retrying));
    }

    /// Writes a settlement as the ledger does, and checks it.
    fn settle(&mut self, settlement: Settlement) {
        for exception in &settlement.exceptions {
            let refusals = self.refusals.get(&exception.seq).copied().unwrap_or(0);
            assert!(
                exception.attempts <= refusals,
                "{exception:?}, and the broker has refused it {refusals} times"
            );
            // As in the ledger, an operator's park takes precedence.
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

    /// An earlier command of the same task that is neither through nor in flight.
    fn overtaken_by(&self, entry: &Entry) -> Option<Seq> {
        let with_broker = self.flying.iter().map(|(seq, _)| *seq);
        let on_its_way: BTreeSet<_> = with_broker.chain(self.told.iter().map(|(seq, _)| *seq)).collect();
        let given_up = |seq: Seq| self.refusals.get(&seq).is_some_and(|times| *times >= self.max_attempts);
        let earlier = self.log.iter().take_while(|earlier| earlier.seq < entry.seq);
        let mut earlier =
            earlier.filter(|earlier| earlier.task_key == entry.task_key).map(|earlier| earlier.seq);
        earlier.find(|seq| {
            !self.confirmed.contains(seq)
                && !self.touched.contains(seq)
                && !given_up(*seq)
                && !on_its_way.contains(seq)
                && self.state_of(*seq) != State::Published
        })
    }

    fn state_of(&self, seq: Seq) -> State {
        State::of(seq, self.cursor, self.exceptions.get(&seq).map(|exception| exception.state))
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

impl Outbox for Handle {
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
        // As in the ledger: a later time was written before the clock was set back. Each start of a relay sets the
        // clock back to the real one.
        let farthest = at + std::time::Duration::from_secs(600);
        let is_due = |e: &&Exception| e.next_attempt_at <= at || e.next_attempt_at > farthest;
        let due = world.exceptions.values().filter(|e| e.state != Exceptional::Parked).filter(is_due);
        let mut due: Vec<_> = due.collect();
        due.sort_by_key(|e| (e.next_attempt_at <= farthest, e.next_attempt_at));
        due.truncate(limit);
        due.sort_by_key(|e| e.seq);
        let due = due.into_iter().map(|e| Due { entry: world.entry(e.seq), attempts: e.attempts });
        now(world.look("read", due.collect()))
    }

    fn waiting_tasks(&self) -> BoxFuture<'static, Result<Vec<(TaskKey, Seq)>, LookError>> {
        let world = self.world();
        let waiting = world.exceptions.values().filter(|e| e.state != Exceptional::Parked);
        let waiting = waiting.map(|e| (world.entry(e.seq).task_key, e.seq)).collect();
        now(world.look("read", waiting))
    }

    fn standing(&self, command_id: CommandId) -> BoxFuture<'static, Result<Option<Standing>, LookError>> {
        let (seq, world) = (seq_of(command_id), self.world());
        let known = seq >= 1 && seq <= world.log.len() as Seq;
        let standing = known.then(|| Standing {
            seq,
            state: world.state_of(seq),
            attempts: world.exceptions.get(&seq).map(|exception| exception.attempts),
            task_key: world.entry(seq).task_key,
        });
        now(world.look("read", standing))
    }

    fn is_pending(&self, seq: Seq) -> BoxFuture<'static, Result<bool, LookError>> {
        let world = self.world();
        now(world.look("read", world.state_of(seq) == State::Pending))
    }

    fn settle(&self, settlement: Settlement) -> BoxFuture<'static, Result<(), AcceptError>> {
        let handle = self.clone();
        async move {
            let early = {
                let mut world = handle.world();
                let early = world.writes_early && !world.ledger_fails;
                if early {
                    world.settle(settlement.clone());
                }
                early
            };
            // A commit takes a moment, during which other things happen.
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
            if handle.world().ledger_hangs {
                std::future::pending::<()>().await;
            }
            let mut world = handle.world();
            if world.ledger_fails {
                return Err(AcceptError::Unavailable);
            }
            if !early {
                world.settle(settlement);
            }
            Ok(())
        }
        .boxed()
    }
}
