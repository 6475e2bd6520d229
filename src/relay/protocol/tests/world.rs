//! Everything round the machine, as small as it can be: a ledger, a broker that does what it likes, a clock, an
//! operator, and the bookkeeping that says what may never be.
//!
//! A [`World`] is a value: a model checker holds millions, the property test walks through one. Every step is one
//! [`Act`]; [`World::acts`] lists those that are possible. The machine in it is the real one.

mod judge;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    super::{Cargo, Effect, Machine, Moment, Question, Rules, TICK, Unreadable},
    ledger::{Answer, Kept, Ledger},
};
use crate::{
    command::{CommandId, Seq, TaskKey},
    ledger::{Exception, Settlement, State, state::Exceptional},
    relay::{BrokerAnswer, LateReturn},
    time::Timestamp,
};

/// What may happen, and how often.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    /// The task of each command to come.
    pub(super) tasks: Vec<u64>,
    pub(super) max_in_flight: usize,
    pub(super) max_attempts: u32,
    pub(super) max_exceptions: usize,
    /// The commands over which the broker ends the session.
    pub(super) poison: Vec<Seq>,
    /// The commands that have to be prepared.
    pub(super) raw: Vec<Seq>,
    pub(super) max_stragglers: usize,
    /// Answers to questions are as of when they were asked, not of when they come.
    pub(super) stale: bool,
    pub(super) budget: Budget,
}

/// How many misfortunes are left of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    pub(super) refusals: u8,
    pub(super) returns: u8,
    pub(super) late: u8,
    pub(super) losses: u8,
    pub(super) crashes: u8,
    pub(super) ledger_failures: u8,
    pub(super) operator: u8,
    pub(super) blocks: u8,
    /// Sessions that the broker ends over poison. In the calm it does so without end.
    pub(super) ends: u8,
    /// Commands that do not reach the relay in memory.
    pub(super) unfresh: u8,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            tasks: vec![1, 1, 2],
            max_in_flight: 2,
            max_attempts: 2,
            max_exceptions: 10,
            poison: Vec::new(),
            raw: Vec::new(),
            max_stragglers: 2,
            stale: false,
            budget: Budget::default(),
        }
    }
}

/// A command without a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Plain {
    seq: Seq,
    key: TaskKey,
    raw: bool,
}

impl Cargo for Plain {
    fn is_raw(&self) -> bool {
        self.raw
    }

    fn seq(&self) -> Seq {
        self.seq
    }

    fn task_key(&self) -> TaskKey {
        self.key
    }
}

impl Kept for Plain {
    fn command_id(&self) -> CommandId {
        id(self.seq)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Act {
    Accept,
    AcceptUnfresh,
    Connect,
    Confirm,
    Nack,
    Return,
    ReturnLate(Seq),
    Lose,
    /// The broker ends the session over the poison that is in flight.
    End,
    Crash {
        /// The settlement under way was written.
        written: bool,
    },
    Settle,
    /// The settlement fails; a disk may have kept it all the same.
    SettleFails {
        written: bool,
    },
    Tell,
    TellNothing,
    Read,
    ReadNothing,
    /// What was prepared for a command is there.
    Prepared(Seq),
    Tick,
    /// Until the next exception is due.
    Wait,
    Block(bool),
    Park(Seq),
    Requeue(Seq),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) machine: Machine<Plain>,
    left: Budget,
    at: Timestamp,
    // the ledger
    pub(super) ledger: Ledger<Plain>,
    fresh: Vec<Plain>,
    keep_fresh: bool,
    // under way
    connected: bool,
    /// The session has lasted for a tick at least.
    settled_in: bool,
    settling: Option<Settlement>,
    asking: Option<(Question, Option<Answer<Plain>>)>,
    reading: Option<(Seq, usize, Option<Vec<Plain>>)>,
    preparing: BTreeSet<Seq>,
    // the broker
    flying: VecDeque<Seq>,
    blocked: bool,
    /// How much time has passed without a word of the broker, or of what prepares, that is waited for.
    waited: Duration,
    // what is known from outside, to judge by
    /// Confirmed and routed at some time.
    routed: BTreeSet<Seq>,
    /// The relay was told that it is confirmed, and nothing else since.
    answered: BTreeSet<Seq>,
    /// The relay was told that it is refused, for the last time.
    given_up: BTreeSet<Seq>,
    /// How often the broker refused it in any way.
    refusals: BTreeMap<Seq, u32>,
    /// An operator has acted on it, or it was returned late: the order of its task is not promised any more.
    excused: BTreeSet<Seq>,
    parked_by_operator: BTreeSet<Seq>,
    /// Returned late, and neither published nor confirmed since.
    owed: BTreeSet<Seq>,
    /// What should never be.
    pub(super) fault: Option<String>,
}

/// As the deadline of a confirm: what waits longer has lost the session. What waits behind something in flight is looked
/// for again each second, so without an end to this there were no end of states.
const LONG: Duration = Duration::from_secs(30);

fn id(seq: Seq) -> CommandId {
    CommandId::from_bytes(u128::from(seq).to_be_bytes())
}

impl World {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            machine: machine(bounds),
            left: bounds.budget,
            at: Timestamp::UNIX_EPOCH,
            ledger: Ledger::default(),
            fresh: Vec::new(),
            keep_fresh: false,
            connected: false,
            settled_in: false,
            settling: None,
            asking: None,
            reading: None,
            preparing: BTreeSet::new(),
            flying: VecDeque::new(),
            blocked: false,
            waited: Duration::ZERO,
            routed: BTreeSet::new(),
            answered: BTreeSet::new(),
            given_up: BTreeSet::new(),
            refusals: BTreeMap::new(),
            excused: BTreeSet::new(),
            parked_by_operator: BTreeSet::new(),
            owed: BTreeSet::new(),
            fault: None,
        }
    }

    pub(super) fn state(&self, seq: Seq) -> State {
        self.ledger.state(seq)
    }

    pub(super) fn is_routed(&self, seq: Seq) -> bool {
        self.routed.contains(&seq)
    }

    pub(super) fn head(&self) -> Seq {
        self.ledger.head()
    }

    fn now(&self) -> Moment {
        Moment { at: self.at, elapsed: if self.settled_in { TICK } else { Duration::ZERO } }
    }

    fn poison_flies(&self, bounds: &Bounds) -> bool {
        self.flying.iter().any(|seq| bounds.poison.contains(seq))
    }

    /// What can happen now.
    pub(super) fn acts(&self, bounds: &Bounds, acts: &mut Vec<Act>) {
        let left = &self.left;
        if self.ledger.log.len() < bounds.tasks.len() {
            acts.push(Act::Accept);
            if left.unfresh > 0 && self.keep_fresh {
                acts.push(Act::AcceptUnfresh);
            }
        }
        if self.connected {
            if let Some(first) = self.flying.front()
                && !bounds.poison.contains(first)
                && !self.blocked
            {
                acts.push(Act::Confirm);
                if left.refusals > 0 {
                    acts.push(Act::Nack);
                }
                if left.returns > 0 {
                    acts.push(Act::Return);
                }
            }
            if left.ends > 0 && self.poison_flies(bounds) {
                acts.push(Act::End);
            }
            if left.late > 0 {
                acts.extend(self.answered.iter().map(|seq| Act::ReturnLate(*seq)));
            }
            if left.losses > 0 {
                acts.push(Act::Lose);
            }
            if self.blocked {
                acts.push(Act::Block(false));
            } else if left.blocks > 0 {
                acts.push(Act::Block(true));
            }
        } else if self.machine.is_settled() {
            acts.push(Act::Connect);
        }
        if left.crashes > 0 {
            acts.push(Act::Crash { written: false });
            if self.settling.is_some() {
                acts.push(Act::Crash { written: true });
            }
        }
        if self.settling.is_some() {
            acts.push(Act::Settle);
        }
        if self.asking.is_some() {
            acts.push(Act::Tell);
        }
        if self.reading.is_some() {
            acts.push(Act::Read);
        }
        if left.ledger_failures > 0 {
            if self.settling.is_some() {
                acts.extend([Act::SettleFails { written: false }, Act::SettleFails { written: true }]);
            }
            if self.asking.is_some() {
                acts.push(Act::TellNothing);
            }
            if self.reading.is_some() {
                acts.push(Act::ReadNothing);
            }
        }
        acts.extend(self.preparing.iter().map(|seq| Act::Prepared(*seq)));
        acts.push(Act::Tick);
        if self.next_due().is_some_and(|due| self.waited_until(due) <= LONG) {
            acts.push(Act::Wait);
        }
        if left.operator > 0 {
            for seq in 1..=self.head() {
                match self.state(seq) {
                    State::Pending => acts.push(Act::Park(seq)),
                    State::Parked | State::Published => acts.push(Act::Requeue(seq)),
                    // The relay does not know them.
                    State::Rejected | State::Unrouted => unreachable!("no dead letter is collected"),
                }
            }
        }
    }

    fn next_due(&self) -> Option<Timestamp> {
        let waiting = self.ledger.exceptions.values().filter(|e| e.state != Exceptional::Parked);
        waiting.map(|e| e.next_attempt_at).filter(|at| *at > self.at).min()
    }

    /// What `waited` will be at some time, if nothing is answered before.
    fn waited_until(&self, due: Timestamp) -> Duration {
        if self.flying.is_empty() && self.preparing.is_empty() {
            return Duration::ZERO;
        }
        self.waited + due.since(self.at)
    }

    /// Does one of the [`acts`](Self::acts), and then all that the machine wants.
    pub(super) fn act(&mut self, bounds: &Bounds, act: Act) {
        self.act_watched(bounds, act, &mut |_| {});
    }

    /// The same; `watch` sees the machine after each of its steps.
    pub(super) fn act_watched(&mut self, bounds: &Bounds, act: Act, watch: &mut dyn FnMut(&Machine<Plain>)) {
        match act {
            Act::Accept => self.accept(bounds, true),
            Act::AcceptUnfresh => {
                self.left.unfresh -= 1;
                self.accept(bounds, false);
            }
            Act::Connect => {
                (self.connected, self.settled_in) = (true, false);
                self.keep_fresh = true;
                self.machine.begin(self.ledger.cursor, self.ledger.waiting(), self.now());
            }
            Act::Confirm => self.answer(bounds, BrokerAnswer::Confirmed),
            Act::Nack => {
                self.left.refusals -= 1;
                self.answer(bounds, BrokerAnswer::Nacked);
            }
            Act::Return => {
                self.left.returns -= 1;
                self.answer(bounds, BrokerAnswer::Returned("312 NO_ROUTE".to_owned()));
            }
            Act::ReturnLate(seq) => {
                self.left.late -= 1;
                self.answered.remove(&seq);
                self.excused.insert(seq);
                self.owed.insert(seq);
                *self.refusals.entry(seq).or_default() += 1;
                let reason = "312 NO_ROUTE".to_owned();
                self.machine.returned_late(LateReturn { command_id: id(seq), reason });
            }
            Act::Lose => {
                self.left.losses -= 1;
                self.lose(bounds, None);
            }
            Act::End => {
                self.left.ends = self.left.ends.saturating_sub(1);
                self.lose(bounds, Some("406 PRECONDITION_FAILED".to_owned()));
            }
            Act::Crash { written } => {
                self.left.crashes -= 1;
                self.crash(bounds, written);
            }
            Act::Settle => self.settle(true, true),
            Act::SettleFails { written } => {
                self.left.ledger_failures -= 1;
                self.settle(written, false);
            }
            Act::Tell => self.tell(true),
            Act::TellNothing => {
                self.left.ledger_failures -= 1;
                self.tell(false);
            }
            Act::Read => self.read(true),
            Act::ReadNothing => {
                self.left.ledger_failures -= 1;
                self.read(false);
            }
            Act::Prepared(seq) => {
                self.waited = Duration::ZERO;
                self.preparing.remove(&seq);
                self.machine.prepared(Plain { raw: false, ..self.command(seq) });
            }
            Act::Tick => {
                // Of use only to those that end sessions; for all others it would double the states.
                self.settled_in = self.connected && !bounds.poison.is_empty();
                if self.machine.tick(self.now()) {
                    self.fail("overdue without time".to_owned());
                }
            }
            Act::Wait => {
                let due = self.next_due().unwrap_or(self.at);
                (self.waited, self.at) = (self.waited_until(due), due);
            }
            Act::Block(blocked) => {
                self.left.blocks -= u8::from(blocked);
                self.blocked = blocked;
                self.machine.blocked(blocked, self.now());
            }
            Act::Park(seq) => self.operate(seq, Exceptional::Parked),
            Act::Requeue(seq) => self.operate(seq, Exceptional::Requeued),
        }
        watch(&self.machine);
        self.carry_on(bounds, watch);
        self.judge(bounds);
    }

    fn accept(&mut self, bounds: &Bounds, fresh: bool) {
        let seq = self.head() + 1;
        let key = TaskKey::from_value(bounds.tasks[self.ledger.log.len()]);
        let command = Plain { seq, key, raw: bounds.raw.contains(&seq) };
        self.ledger.log.push(command);
        if fresh && self.keep_fresh {
            self.fresh.push(command);
        }
    }

    fn answer(&mut self, bounds: &Bounds, outcome: BrokerAnswer) {
        let Some(seq) = self.flying.pop_front() else { return };
        self.waited = Duration::ZERO;
        if outcome == BrokerAnswer::Confirmed {
            self.routed.insert(seq);
            self.answered.insert(seq);
            self.owed.remove(&seq);
            self.given_up.remove(&seq);
        } else {
            self.refused(bounds, seq);
        }
        self.machine.answered(outcome, self.now());
    }

    fn refused(&mut self, bounds: &Bounds, seq: Seq) {
        self.answered.remove(&seq);
        *self.refusals.entry(seq).or_default() += 1;
        let before = self.ledger.exceptions.get(&seq).map_or(0, |exception| exception.attempts);
        if before + 1 >= bounds.max_attempts {
            self.given_up.insert(seq);
        }
    }

    fn lose(&mut self, bounds: &Bounds, blame: Option<String>) {
        if blame.is_some() && self.flying.len() == 1 {
            let seq = self.flying[0];
            if !bounds.poison.contains(&seq) {
                self.fail(format!("{seq} is blamed and harmless"));
            }
            self.refused(bounds, seq);
        }
        self.flying.clear();
        self.waited = Duration::ZERO;
        self.machine.lost(blame, self.now());
        (self.connected, self.settled_in, self.blocked) = (false, false, false);
        (self.asking, self.reading) = (None, None);
        self.preparing.clear();
    }

    fn crash(&mut self, bounds: &Bounds, written: bool) {
        if written && let Some(settlement) = self.settling.take() {
            self.write(settlement);
        }
        self.machine = machine(bounds);
        (self.settling, self.asking, self.reading) = (None, None, None);
        self.flying.clear();
        self.waited = Duration::ZERO;
        self.preparing.clear();
        self.fresh.clear();
        (self.keep_fresh, self.connected, self.settled_in, self.blocked) = (false, false, false, false);
        // What was told and not written is forgotten.
        self.answered = (1..=self.head()).filter(|seq| self.state(*seq) == State::Published).collect();
        self.given_up.clear();
        self.owed.clear();
    }

    fn settle(&mut self, written: bool, told: bool) {
        let Some(settlement) = self.settling.take() else { return };
        if written {
            self.write(settlement);
        }
        self.machine.settled(told, self.now());
    }

    /// Writes, and checks what is claimed.
    fn write(&mut self, settlement: Settlement) {
        for seq in &settlement.cleared {
            if !self.routed.contains(seq) {
                self.fail(format!("{seq} is cleared but was never confirmed"));
            }
        }
        let before = self.ledger.cursor;
        self.ledger.write(settlement);
        for seq in before + 1..=self.ledger.cursor {
            if !self.routed.contains(&seq) && !self.ledger.exceptions.contains_key(&seq) {
                self.fail(format!("the cursor passes {seq}, neither confirmed nor an exception"));
            }
        }
    }

    fn operate(&mut self, seq: Seq, state: Exceptional) {
        self.left.operator -= 1;
        self.excused.insert(seq);
        self.answered.remove(&seq);
        self.given_up.remove(&seq);
        if state == Exceptional::Parked {
            self.parked_by_operator.insert(seq);
        }
        let reason = "by an operator".to_owned();
        let exception = Exception { seq, state, attempts: 0, next_attempt_at: self.at, reason };
        self.ledger.exceptions.insert(seq, exception);
    }

    fn command(&self, seq: Seq) -> Plain {
        self.ledger.command(seq).expect("it is in the log")
    }

    fn tell(&mut self, readable: bool) {
        let Some((question, answer)) = self.asking.take() else { return };
        let answer = answer.unwrap_or_else(|| self.ledger.look(question));
        let now = self.now();
        answer.tell(&mut self.machine, readable, now);
    }

    fn read(&mut self, readable: bool) {
        let Some((after, limit, read)) = self.reading.take() else { return };
        let read = read.unwrap_or_else(|| self.ledger.since(after, limit));
        self.machine.log_read(readable.then_some(read).ok_or(Unreadable));
    }

    fn carry_on(&mut self, bounds: &Bounds, watch: &mut dyn FnMut(&Machine<Plain>)) {
        let head = if self.connected { self.head() } else { 0 };
        for _ in 0..1000 {
            let Some(effect) = self.machine.next(head, false, self.now()) else { return };
            watch(&self.machine);
            match effect {
                Effect::Publish(command) => {
                    self.check_publish(bounds, command);
                    self.flying.push_back(command.seq);
                }
                // Twice, if the machine has forgotten about it in between.
                Effect::Prepare(command) => drop(self.preparing.insert(command.seq)),
                Effect::TakeFresh => {
                    let fresh = std::mem::take(&mut self.fresh);
                    self.machine.fresh(fresh);
                    watch(&self.machine);
                }
                Effect::KeepFresh(wanted) => {
                    self.keep_fresh = wanted;
                    if !wanted {
                        self.fresh.clear();
                    }
                }
                Effect::ReadLog { after, limit } => {
                    let read = bounds.stale.then(|| self.ledger.since(after, limit));
                    self.reading = Some((after, limit, read));
                }
                Effect::Ask(question) => {
                    if self.settling.is_some() {
                        self.fail(format!("{question:?} while a settlement is under way"));
                    }
                    let answer = bounds.stale.then(|| self.ledger.look(question));
                    self.asking = Some((question, answer));
                }
                Effect::Settle(settlement) => {
                    if self.settling.is_some() {
                        self.fail("two settlements at once".to_owned());
                    }
                    self.settling = Some(settlement);
                }
                Effect::Say(_) => {}
            }
        }
        self.fail("the machine never comes to rest".to_owned());
    }
}

fn machine(bounds: &Bounds) -> Machine<Plain> {
    Machine::new(Rules {
        max_in_flight: bounds.max_in_flight,
        max_attempts: bounds.max_attempts,
        confirm_timeout: Duration::from_secs(30),
        max_exceptions: bounds.max_exceptions,
        max_stragglers: bounds.max_stragglers,
        calm: TICK,
        salt: 0,
    })
}
