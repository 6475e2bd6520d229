//! All that can be, as a value, and every step from it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Bounds, Budget, Command, Decision, Rule, Term, Who,
    database::{Contents, Database},
    decision, id,
    leader::{Feed, Leader, NOW, look, machine},
};
use crate::{
    command::{CommandId, TaskKey},
    ledger::Settlement,
    relay::{
        BrokerAnswer, LateReturn,
        protocol::{Machine, Question, Unreadable},
    },
};

/// What becomes of a settlement whose answer is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Fate {
    Written,
    NotWritten,
    /// It comes later.
    Delayed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Act {
    // A replica accepts.
    Accept {
        at: Who,
        decision: Decision,
        answered: bool,
    },
    // The lease.
    Take(Who),
    /// It sees that its term is over.
    Depose(Who),
    // The database.
    Poll(Who),
    Settle(Who),
    /// And again later.
    SettleTwice(Who),
    SettleFails {
        at: Who,
        written: bool,
    },
    /// A settlement arrives that nobody waits for any longer.
    Arrive,
    /// All exceptions that rest are due, or none is yet.
    Tell {
        at: Who,
        due: bool,
    },
    TellNothing(Who),
    Read(Who),
    ReadNothing(Who),
    Tick(Who),
    /// The replica's connection to the database is lost, or it is killed or stopped.
    End {
        at: Who,
        settlement: Fate,
    },
    /// Another server is the primary. It may have a commit that the old one never answered.
    FailOver {
        forget: usize,
        unanswered: Option<Who>,
    },
    /// It sees that its connection to the old primary is lost.
    Notice(Who),
    // The broker.
    Connect(Who),
    Lose(Who),
    /// The broker takes, or refuses, what comes next.
    Route(Who),
    Refuse(Who),
    /// And tells.
    Hear(Who),
    ReturnLate {
        at: Who,
        id: CommandId,
    },
}

impl Act {
    /// Happens seldom, or puts an end to something.
    pub(super) fn is_rare(&self) -> bool {
        match self {
            Self::Accept { answered, .. } => !answered,
            Self::Tell { due, .. } => !due,
            Self::Poll(_) | Self::Settle(_) | Self::Read(_) => false,
            Self::Connect(_) | Self::Route(_) | Self::Hear(_) => false,
            _ => true,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Replica {
    pub(super) leader: Option<Leader>,
    feed: Feed,
    /// The machine of the term before, if [`Rule::NewMachine`] is broken.
    old: Option<Machine<Command>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) left: Budget,
    pub(super) database: Database,
    pub(super) replicas: [Replica; 2],
    /// A settlement that is still to arrive, and its term.
    delayed: Option<(Term, Settlement)>,
    /// Terms so far.
    terms: Term,
    // what is known from outside, to judge by
    /// Decisions that were sent to a replica.
    sent: Decision,
    pub(super) answered: BTreeSet<Decision>,
    /// What a failover forgot.
    pub(super) forgotten: BTreeSet<Decision>,
    /// What is or was in the queue.
    pub(super) queued: BTreeSet<CommandId>,
    /// What some leader was told to be there.
    pub(super) confirmed: BTreeSet<CommandId>,
    /// What was returned after that, and the ledger has answered that it knows.
    pub(super) returned: BTreeSet<CommandId>,
    pub(super) refusals: BTreeMap<CommandId, u32>,
    /// Later ones of their task are not held up by them, and may be in the queue first.
    pub(super) overtaken: BTreeSet<CommandId>,
    /// What should never be.
    pub(super) fault: Option<String>,
}

impl World {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            left: bounds.budget,
            database: Database::default(),
            replicas: Default::default(),
            delayed: None,
            terms: 0,
            sent: 0,
            answered: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            queued: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            returned: BTreeSet::new(),
            refusals: BTreeMap::new(),
            overtaken: BTreeSet::new(),
            fault: None,
        }
    }

    /// Whether the term of this leader is the lease's.
    pub(super) fn leads(&self, bounds: &Bounds, at: Who) -> bool {
        let leader = self.replicas[at].leader.as_ref();
        leader.is_some_and(|leader| leader.linked && self.database.is_led_by(bounds, leader.term))
    }

    /// Whether this leader gets to see the database. One that is deposed learns that instead.
    fn sees(&self, bounds: &Bounds, at: Who) -> bool {
        let linked = self.replicas[at].leader.as_ref().is_some_and(|leader| leader.linked);
        linked && (!bounds.holds(Rule::TermInLooks) || self.leads(bounds, at))
    }

    /// What can happen now.
    pub(super) fn acts(&self, bounds: &Bounds, acts: &mut Vec<Act>) {
        let left = &self.left;
        let next = self.sent;
        let is_next = usize::from(next) < bounds.tasks.len();
        for at in 0..bounds.replicas {
            // Where it is accepted matters to a leader, and if another id can be made of it.
            let is_like_first = at > 0 && [0, at].iter().all(|at| self.replicas[*at].leader.is_none());
            let accepts = !is_like_first || bounds.budget.unanswered > 0;
            if accepts && is_next {
                acts.push(Act::Accept { at, decision: next, answered: true });
                if left.unanswered > 0 {
                    acts.push(Act::Accept { at, decision: next, answered: false });
                }
            }
            let again = (0..next).filter(|decision| accepts && !self.answered.contains(decision));
            acts.extend(again.map(|decision| Act::Accept { at, decision, answered: true }));
            match &self.replicas[at].leader {
                Some(leader) => self.acts_of(bounds, at, leader, acts),
                // They are alike until one has led.
                None if left.terms > 0 && (at == 0 || self.terms > 0) => acts.push(Act::Take(at)),
                None => {}
            }
        }
        if self.delayed.is_some() {
            acts.push(Act::Arrive);
        }
        if left.failovers > 0 {
            for forget in 0..=self.database.forgettable() {
                acts.push(Act::FailOver { forget, unanswered: None });
                if is_next && left.unanswered > 0 {
                    acts.extend(
                        (0..bounds.replicas).map(|at| Act::FailOver { forget, unanswered: Some(at) }),
                    );
                }
            }
        }
    }

    fn acts_of(&self, bounds: &Bounds, at: Who, leader: &Leader, acts: &mut Vec<Act>) {
        let left = &self.left;
        let Leader { linked, connected, .. } = *leader;
        if !linked {
            acts.push(Act::Notice(at));
        } else {
            if !self.leads(bounds, at) {
                acts.push(Act::Depose(at));
            }
            if connected
                && self.sees(bounds, at)
                && self.replicas[at].feed.head != self.database.now.ledger.head()
            {
                acts.push(Act::Poll(at));
            }
            if !connected && leader.machine.is_settled() {
                acts.push(Act::Connect(at));
            }
            if leader.settling.is_some() {
                acts.push(Act::Settle(at));
                if left.copies > 0 && self.delayed.is_none() {
                    acts.push(Act::SettleTwice(at));
                }
                if left.failures > 0 {
                    acts.extend([false, true].map(|written| Act::SettleFails { at, written }));
                }
            }
            if left.failures > 0 {
                if leader.asking.is_some() {
                    acts.push(Act::TellNothing(at));
                }
                if leader.reading.is_some() {
                    acts.push(Act::ReadNothing(at));
                }
            }
        }
        if let Some((question, answer)) = &leader.asking
            && (linked || answer.is_some())
        {
            acts.push(Act::Tell { at, due: true });
            if matches!(question, Question::Due { .. }) && !self.database.now.ledger.exceptions.is_empty() {
                acts.push(Act::Tell { at, due: false });
            }
        }
        if let Some((_, _, read)) = &leader.reading
            && (linked || read.is_some())
        {
            acts.push(Act::Read(at));
        }
        if left.ends > 0 {
            acts.push(Act::End { at, settlement: Fate::NotWritten });
            if leader.settling.is_some() && linked {
                acts.push(Act::End { at, settlement: Fate::Written });
                if self.delayed.is_none() {
                    acts.push(Act::End { at, settlement: Fate::Delayed });
                }
            }
        }
        // Of no effect but where something has failed, or rests. A second is long.
        let idle = leader.settling.is_none() && leader.asking.is_none() && leader.reading.is_none();
        if idle && (bounds.budget.failures > 0 || !self.database.now.ledger.exceptions.is_empty()) {
            acts.push(Act::Tick(at));
        }
        if connected {
            if leader.undecided().is_some() {
                acts.push(Act::Route(at));
                if left.refusals > 0 {
                    acts.push(Act::Refuse(at));
                }
            }
            if leader.flying.front().is_some_and(|(_, decided)| decided.is_some()) {
                acts.push(Act::Hear(at));
            }
            if left.losses > 0 {
                acts.push(Act::Lose(at));
            }
            if left.late > 0 {
                acts.extend(leader.heard.iter().map(|id| Act::ReturnLate { at, id: *id }));
            }
        }
    }

    /// Does one of the [`acts`](Self::acts), and then all that the machine wants.
    pub(super) fn act(&mut self, bounds: &Bounds, act: Act) {
        match act {
            Act::Accept { at, decision, answered } => {
                self.left.unanswered -= u8::from(!answered);
                self.accept(bounds, at, decision, answered);
            }
            Act::Take(at) => self.take(bounds, at),
            Act::Depose(at) | Act::Notice(at) => self.over(bounds, at),
            Act::Poll(at) => {
                self.replicas[at].feed.head = self.database.now.ledger.head();
                self.carry_on(bounds, at);
            }
            Act::Settle(at) => self.settle(bounds, at),
            Act::SettleTwice(at) => {
                self.left.copies -= 1;
                self.delay(at);
                self.settle(bounds, at);
            }
            Act::SettleFails { at, written } => {
                self.left.failures -= 1;
                self.settle_fails(bounds, at, written);
            }
            Act::Arrive => {
                if let Some((term, settlement)) = self.delayed.take() {
                    self.write(bounds, term, settlement);
                }
            }
            Act::Tell { at, due } => self.tell(bounds, at, due),
            Act::TellNothing(at) => {
                self.left.failures -= 1;
                self.with(bounds, at, |leader, contents| {
                    if let Some((question, _)) = leader.asking.take() {
                        look(contents, question).tell(&mut leader.machine, false, NOW);
                    }
                });
            }
            Act::Read(at) => self.read(bounds, at),
            Act::ReadNothing(at) => {
                self.left.failures -= 1;
                self.with(bounds, at, |leader, _| {
                    leader.reading = None;
                    leader.machine.log_read(Err(Unreadable));
                });
            }
            Act::Tick(at) => self.with(bounds, at, |leader, _| {
                leader.machine.tick(NOW);
            }),
            Act::End { at, settlement } => {
                self.left.ends -= 1;
                self.end(bounds, at, settlement);
            }
            Act::FailOver { forget, unanswered } => self.fail_over(bounds, forget, unanswered),
            Act::Connect(at) => self.connect(bounds, at),
            Act::Lose(at) => {
                self.left.losses -= 1;
                let Replica { leader, feed, .. } = &mut self.replicas[at];
                if let Some(leader) = leader {
                    leader.lose(feed);
                }
                self.carry_on(bounds, at);
            }
            Act::Route(at) => self.route(bounds, at),
            Act::Refuse(at) => {
                self.left.refusals -= 1;
                self.refuse(bounds, at);
            }
            Act::Hear(at) => self.hear(bounds, at),
            Act::ReturnLate { at, id } => {
                self.left.late -= 1;
                self.overtaken.insert(id);
                *self.refusals.entry(id).or_default() += 1;
                self.with(bounds, at, |leader, _| {
                    leader.heard.remove(&id);
                    leader.returned.insert(id);
                    let reason = "312 NO_ROUTE".to_owned();
                    leader.machine.returned_late(LateReturn { command_id: id, reason });
                });
            }
        }
        self.judge(bounds);
    }

    /// Changes a leader, if there is one, and does what its machine wants then.
    fn with(&mut self, bounds: &Bounds, at: Who, change: impl FnOnce(&mut Leader, &Contents)) {
        if let Some(leader) = &mut self.replicas[at].leader {
            change(leader, &self.database.now);
        }
        self.carry_on(bounds, at);
    }

    fn carry_on(&mut self, bounds: &Bounds, at: Who) {
        let contents = (bounds.stale && self.sees(bounds, at)).then_some(&self.database.now);
        let Replica { leader, feed, .. } = &mut self.replicas[at];
        if let Some(Err(fault)) = leader.as_mut().map(|leader| leader.carry_on(feed, contents)) {
            self.fail(fault);
        }
    }

    fn commit(&mut self, bounds: &Bounds, waits: bool, change: impl FnOnce(&mut Contents)) {
        self.database.commit(bounds, waits, self.left.failovers > 0, change);
    }

    /// Whether the answer to an accept shows that the term is over: by its connection, or by the server that it names.
    fn is_outdated(&self, bounds: &Bounds, at: Who) -> bool {
        self.replicas[at].leader.as_ref().is_some_and(|leader| {
            let elsewhere = leader.server != self.database.server;
            !leader.linked || (elsewhere && bounds.holds(Rule::TermOfOneServer))
        })
    }

    /// Keeps a decision, unless it is kept already. A look for it waits for the standby as well.
    fn accept(&mut self, bounds: &Bounds, at: Who, decision: Decision, answered: bool) {
        if bounds.holds(Rule::AnyLossEndsTheTerm) && self.is_outdated(bounds, at) {
            self.over(bounds, at);
        }
        let kept = self.keep(bounds, at, decision, true);
        let feed = &mut self.replicas[at].feed;
        if let Some(command) = kept.filter(|_| feed.wanted) {
            feed.fresh.push(command);
            feed.head = feed.head.max(command.seq);
        }
        self.carry_on(bounds, at);
        if answered {
            self.answered.insert(decision);
        }
    }

    fn keep(&mut self, bounds: &Bounds, at: Who, asked: Decision, waits: bool) -> Option<Command> {
        self.sent = self.sent.max(asked + 1);
        let ledger = &self.database.now.ledger;
        let is_new = ledger.log.iter().all(|command| decision(command.id) != asked);
        let key = TaskKey::from_value(bounds.tasks[usize::from(asked)]);
        let at = if bounds.budget.unanswered > 0 { at } else { 0 };
        let new = is_new.then(|| Command { seq: ledger.head() + 1, key, id: id(asked, at) });
        self.commit(bounds, waits, |contents| contents.ledger.log.extend(new));
        new
    }

    fn take(&mut self, bounds: &Bounds, at: Who) {
        self.left.terms = self.left.terms.saturating_sub(1);
        self.terms += 1;
        let term = self.terms;
        self.database.take_lease(bounds, term, self.left.failovers > 0);
        let head = self.database.now.ledger.head();
        let Replica { leader, feed, old } = &mut self.replicas[at];
        feed.head = if bounds.holds(Rule::NewHead) { head } else { head.max(feed.head) };
        *leader =
            Some(Leader::new(term, self.database.server, old.take().unwrap_or_else(|| machine(bounds))));
        self.connect(bounds, at);
    }

    /// A session begins, if all is settled.
    fn connect(&mut self, bounds: &Bounds, at: Who) {
        if !self.sees(bounds, at) {
            return self.over(bounds, at);
        }
        let Replica { leader, feed, .. } = &mut self.replicas[at];
        if let Some(leader) = leader
            && leader.machine.is_settled()
        {
            leader.begin(&self.database.now, feed);
        }
        self.carry_on(bounds, at);
    }

    /// The term is over, as far as this replica is concerned.
    fn over(&mut self, bounds: &Bounds, at: Who) {
        if !bounds.holds(Rule::LossEndsTheTerm)
            && !self.replicas[at].leader.as_ref().is_none_or(|leader| leader.linked)
        {
            return self.go_on(bounds, at);
        }
        let Replica { leader, feed, old } = &mut self.replicas[at];
        let leader = leader.take();
        if !bounds.holds(Rule::NewMachine)
            && let Some(mut leader) = leader
        {
            leader.machine.settled(false, NOW);
            leader.lose(feed);
            *old = Some(leader.machine);
        }
        if bounds.holds(Rule::NewFresh) {
            feed.wanted = false;
            feed.fresh.clear();
        }
    }

    /// Instead: the connection is made again, and the machine hears of failures.
    fn go_on(&mut self, bounds: &Bounds, at: Who) {
        self.with(bounds, at, |leader, contents| {
            leader.linked = true;
            leader.settling = None;
            leader.machine.settled(false, NOW);
            if let Some((question, _)) = leader.asking.take() {
                look(contents, question).tell(&mut leader.machine, false, NOW);
            }
            if leader.reading.take().is_some() {
                leader.machine.log_read(Err(Unreadable));
            }
            leader.machine.tick(NOW);
        });
    }

    fn end(&mut self, bounds: &Bounds, at: Who, fate: Fate) {
        match fate {
            Fate::Written => {
                let leader = self.replicas[at].leader.as_ref();
                if let Some((term, settlement)) = leader.and_then(|l| Some((l.term, l.settling.clone()?))) {
                    self.write(bounds, term, settlement);
                }
            }
            Fate::NotWritten => {}
            Fate::Delayed => self.delay(at),
        }
        if !bounds.holds(Rule::LossEndsTheTerm)
            && let Some(leader) = &mut self.replicas[at].leader
        {
            leader.linked = false;
        }
        self.over(bounds, at);
    }

    fn delay(&mut self, at: Who) {
        let leader = self.replicas[at].leader.as_ref();
        self.delayed = leader.and_then(|leader| Some((leader.term, leader.settling.clone()?)));
    }

    fn settle(&mut self, bounds: &Bounds, at: Who) {
        let Some(leader) = &mut self.replicas[at].leader else { return };
        let (term, Some(settlement)) = (leader.term, leader.settling.take()) else { return };
        if !self.write(bounds, term, settlement.clone()) {
            return self.over(bounds, at);
        }
        let mut known = Vec::new();
        self.with(bounds, at, |leader, contents| {
            let excepted = settlement.exceptions.iter().filter_map(|e| contents.ledger.command(e.seq));
            known.extend(excepted.map(|command| command.id).filter(|id| leader.returned.remove(id)));
            leader.machine.settled(true, NOW);
        });
        self.returned.extend(known);
    }

    fn settle_fails(&mut self, bounds: &Bounds, at: Who, written: bool) {
        let Some(leader) = &mut self.replicas[at].leader else { return };
        let (term, Some(settlement)) = (leader.term, leader.settling.take()) else { return };
        if written && !self.write(bounds, term, settlement) {
            return self.over(bounds, at);
        }
        self.with(bounds, at, |leader, _| leader.machine.settled(false, NOW));
    }

    /// Whether it was written.
    fn write(&mut self, bounds: &Bounds, term: Term, settlement: Settlement) -> bool {
        if bounds.holds(Rule::TermInSettlements) && !self.database.is_led_by(bounds, term) {
            return false;
        }
        let waits = !settlement.exceptions.is_empty() && bounds.holds(Rule::ExceptionsWait);
        self.commit(bounds, waits, |contents| contents.ledger.write(settlement));
        true
    }

    fn tell(&mut self, bounds: &Bounds, at: Who, due: bool) {
        let sees = self.sees(bounds, at);
        let Some(leader) = &mut self.replicas[at].leader else { return };
        let Some((question, answer)) = leader.asking.take() else { return };
        let answer = answer.or_else(|| sees.then(|| look(&self.database.now, question)));
        let Some(answer) = answer else { return self.over(bounds, at) };
        self.with(bounds, at, |leader, _| answer.not_due_unless(due).tell(&mut leader.machine, true, NOW));
    }

    fn read(&mut self, bounds: &Bounds, at: Who) {
        let sees = self.sees(bounds, at);
        let Some(leader) = &mut self.replicas[at].leader else { return };
        let Some((after, limit, read)) = leader.reading.take() else { return };
        let read = read.or_else(|| sees.then(|| self.database.now.ledger.since(after, limit)));
        let Some(read) = read else { return self.over(bounds, at) };
        self.with(bounds, at, |leader, _| leader.machine.log_read(Ok(read)));
    }

    fn fail_over(&mut self, bounds: &Bounds, forget: usize, unanswered: Option<Who>) {
        self.left.failovers -= 1;
        let before = self.database.now.ledger.log.clone();
        self.database.fail_over(forget, self.left.failovers > 0);
        let log = &self.database.now.ledger.log;
        for command in before.iter().filter(|command| !log.contains(command)) {
            self.forgotten.insert(decision(command.id));
            if !bounds.is_standby() {
                self.overtaken.insert(command.id);
            }
        }
        if let Some(at) = unanswered {
            self.left.unanswered -= 1;
            self.keep(bounds, at, self.sent, false);
        }
        self.delayed = None;
        for leader in self.replicas.iter_mut().filter_map(|replica| replica.leader.as_mut()) {
            leader.linked = bounds.pooler;
        }
    }

    /// Takes what comes next into the queue.
    fn route(&mut self, bounds: &Bounds, at: Who) {
        let Some((leader, index)) = self.next_at_broker(at) else { return };
        leader.flying[index].1 = Some(true);
        let Command { id, key, .. } = leader.flying[index].0;
        // It was on its way when they were refused.
        let refused =
            |(earlier, taken): &&(Command, Option<bool>)| earlier.key == key && *taken == Some(false);
        let before: Vec<_> =
            leader.flying.range(..index).filter(refused).map(|(earlier, _)| earlier.id).collect();
        self.overtaken.extend(before);
        self.judge_first(bounds, id);
        self.queued.insert(id);
    }

    fn refuse(&mut self, bounds: &Bounds, at: Who) {
        let Some((leader, index)) = self.next_at_broker(at) else { return };
        leader.flying[index].1 = Some(false);
        let id = leader.flying[index].0.id;
        let refusals = self.refusals.entry(id).or_default();
        *refusals += 1;
        if *refusals >= bounds.max_attempts {
            self.overtaken.insert(id);
        }
    }

    fn next_at_broker(&mut self, at: Who) -> Option<(&mut Leader, usize)> {
        let leader = self.replicas[at].leader.as_mut()?;
        let index = leader.undecided()?;
        Some((leader, index))
    }

    fn hear(&mut self, bounds: &Bounds, at: Who) {
        let Some(leader) = &mut self.replicas[at].leader else { return };
        let Some((command, Some(taken))) = leader.flying.pop_front() else { return };
        if taken {
            self.confirmed.insert(command.id);
            self.returned.remove(&command.id);
            leader.returned.remove(&command.id);
            if bounds.budget.late > 0 {
                leader.heard.insert(command.id);
            }
        }
        if !taken && leader.flying.iter().any(|(later, _)| later.key == command.key) {
            self.overtaken.insert(command.id);
        }
        let answer = if taken { BrokerAnswer::Confirmed } else { BrokerAnswer::Nacked };
        self.with(bounds, at, |leader, _| {
            leader.machine.answered(answer, NOW);
        });
    }
}
