//! The machine step by step: states that the worlds pass without checking, and those that would only cost time or
//! memory there.

mod exceptions;
mod feeding;
mod held;
mod late_returns;
mod suspicion;

use std::time::Duration;

use super::Of;
use crate::{
    command::{CommandId, Seq},
    ledger::{Exception, Settlement, State},
    relay::{
        BrokerAnswer, LateReturn,
        protocol::{Cargo, Due, Effect, Found, Machine, Moment, Notice, Question, Rules},
    },
    time::Timestamp,
};

fn at(elapsed: Duration) -> Moment {
    Moment { at: Timestamp::UNIX_EPOCH + elapsed, elapsed }
}

const START: Duration = Duration::from_secs(100);
pub(super) const NONE: [Seq; 0] = [];
const CALM: Duration = Duration::from_secs(5);

pub(super) fn rules() -> Rules {
    Rules {
        max_in_flight: 2,
        max_attempts: 3,
        confirm_timeout: Duration::from_secs(30),
        max_exceptions: 10,
        max_stragglers: 10,
        calm: CALM,
        salt: 7,
    }
}

/// A machine and the log it serves. The test answers questions and reads.
pub(super) struct Bench {
    machine: Machine<Of>,
    log: Vec<u64>,
    now: Duration,
    asked: Vec<Question>,
    settlements: Vec<Settlement>,
    said: Vec<Notice>,
    keep_fresh: Vec<bool>,
    /// Where each read of the log started.
    reads: Vec<Seq>,
    taken_fresh: usize,
}

impl Bench {
    pub(super) fn new(rules: Rules, log: &[u64], cursor: Seq, waiting: &[Seq]) -> Self {
        let mut bench = Self {
            machine: Machine::new(rules),
            log: log.to_vec(),
            now: START,
            asked: Vec::new(),
            settlements: Vec::new(),
            said: Vec::new(),
            keep_fresh: Vec::new(),
            reads: Vec::new(),
            taken_fresh: 0,
        };
        bench.begin(cursor, waiting);
        bench
    }

    fn begin(&mut self, cursor: Seq, waiting: &[Seq]) {
        let waiting = waiting.iter().map(|seq| (self.of(*seq).task_key(), *seq)).collect();
        self.machine.begin(cursor, waiting, at(self.now));
    }

    fn of(&self, seq: Seq) -> Of {
        Of(seq, self.log[usize::try_from(seq - 1).unwrap()])
    }

    /// Carries out all effects; returns the published commands. Settlements are written.
    pub(super) fn publishes(&mut self) -> Vec<Seq> {
        let mut published = Vec::new();
        while let Some(effect) = self.machine.next(self.log.len() as Seq, false, at(self.now)) {
            match effect {
                Effect::Publish(command) => published.push(command.0),
                Effect::Prepare(command) => panic!("{command:?} needs nothing"),
                Effect::TakeFresh => {
                    self.taken_fresh += 1;
                    self.machine.fresh(Vec::new());
                }
                Effect::KeepFresh(wanted) => self.keep_fresh.push(wanted),
                Effect::ReadLog { after, .. } => self.reads.push(after),
                Effect::Ask(question) => self.asked.push(question),
                Effect::Settle(settlement) => {
                    self.settlements.push(settlement);
                    self.machine.settled(true, at(self.now));
                }
                Effect::Say(notice) => self.said.push(notice),
            }
        }
        published
    }

    pub(super) fn due(&mut self, due: &[(Seq, u32)]) -> Vec<Seq> {
        assert!(matches!(self.asked.pop(), Some(Question::Due { .. })), "it is not asked");
        let due = due.iter().map(|(seq, attempts)| Due { cargo: self.of(*seq), attempts: *attempts });
        self.machine.due(Ok(due.collect()), at(self.now));
        self.publishes()
    }

    fn read(&mut self, read: &[Seq]) -> Vec<Seq> {
        self.reads.pop().expect("it is read");
        self.machine.log_read(Ok(read.iter().map(|seq| self.of(*seq)).collect()));
        self.publishes()
    }

    pub(super) fn answer(&mut self, outcome: BrokerAnswer) -> Vec<Seq> {
        self.machine.answered(outcome, at(self.now));
        self.publishes()
    }

    pub(super) fn tick(&mut self) -> Vec<Seq> {
        assert!(!self.machine.tick(at(self.now)));
        self.publishes()
    }

    fn return_late(&mut self, seq: Seq) -> Vec<Seq> {
        self.machine.returned_late(late(seq));
        self.publishes()
    }

    fn found(&mut self, seq: Seq) -> Vec<Seq> {
        assert!(matches!(self.asked.pop(), Some(Question::Find { .. })), "it is not asked");
        let found =
            Found { seq, state: State::Published, attempts: None, key: Some(self.of(seq).task_key()) };
        self.machine.found(Ok(Some(found)), at(self.now));
        self.publishes()
    }

    /// The exceptions of the last settlement: place, refusals, and how long each rests.
    fn excepted(&self) -> Vec<(Seq, u32, Duration)> {
        let exceptions = &self.settlements.last().expect("something is settled").exceptions;
        let rests = |exception: &Exception| exception.next_attempt_at.since(at(self.now).at);
        exceptions.iter().map(|exception| (exception.seq, exception.attempts, rests(exception))).collect()
    }

    fn end(&mut self) {
        self.machine.lost(Some("406 PRECONDITION_FAILED".to_owned()), at(self.now));
        (self.asked, self.reads) = (Vec::new(), Vec::new());
        self.publishes();
    }
}

fn late(seq: Seq) -> LateReturn {
    let command_id = CommandId::from_bytes(u128::from(seq).to_be_bytes());
    LateReturn { command_id, reason: "312 NO_ROUTE".to_owned() }
}
