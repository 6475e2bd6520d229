//! Notices and delays, which the small worlds do not check.

use std::{collections::BTreeSet, time::Duration};

use super::super::{
    Cargo, Due, Effect, Found, Machine, Moment, Notice, Question, REMIND_AFTER, Rules, TICK, Tally, spread,
};
use crate::{
    command::{CommandId, Seq, TaskKey},
    ledger::{Settlement, State},
    relay::{BrokerAnswer, LateReturn},
    time::Timestamp,
};

/// A command without a message, the only one of its task.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Single(Seq);

impl Cargo for Single {
    fn seq(&self) -> Seq {
        self.0
    }

    fn task_key(&self) -> TaskKey {
        TaskKey::from_value(self.0)
    }
}

fn at(elapsed: Duration) -> Moment {
    Moment { at: Timestamp::UNIX_EPOCH + elapsed, elapsed }
}

const START: Duration = Duration::from_secs(100);

/// A machine that serves a log of `head` commands, and the head.
struct Bench {
    machine: Machine<Single>,
    head: Seq,
    /// What the ledger lists as due, once.
    due: Vec<Due<Single>>,
    /// What the ledger lists as waiting.
    waiting: Vec<Seq>,
    settlements: Vec<Settlement>,
}

impl Bench {
    fn new(head: Seq, waiting: &[Seq]) -> Self {
        let rules = Rules {
            max_in_flight: 10,
            max_attempts: 2,
            confirm_timeout: Duration::from_secs(30),
            max_exceptions: 10,
            max_stragglers: 10,
            calm: TICK,
            salt: 7,
        };
        let mut machine = Machine::new(rules);
        let waiting = waiting.iter().map(|seq| (TaskKey::from_value(*seq), *seq)).collect();
        machine.begin(0, waiting, at(START));
        Self { machine, head, due: Vec::new(), waiting: Vec::new(), settlements: Vec::new() }
    }

    /// Carries out all effects and returns the notices. The ledger answers at once, unless it fails.
    fn carry_on(&mut self, now: Duration, ledger_writes: bool) -> Vec<Notice> {
        let mut said = Vec::new();
        while let Some(effect) = self.machine.next(self.head, false, at(now)) {
            match effect {
                Effect::Say(notice) => said.push(notice),
                Effect::ReadLog { after, .. } => {
                    self.machine.log_read(Ok((after + 1..=self.head).map(Single).collect()));
                }
                Effect::TakeFresh => self.machine.fresh(Vec::new()),
                Effect::Ask(Question::Due { .. }) => {
                    self.machine.due(Ok(std::mem::take(&mut self.due)), at(now));
                }
                Effect::Ask(Question::Waiting) => {
                    let listed = self.waiting.iter().map(|seq| (TaskKey::from_value(*seq), *seq));
                    self.machine.waiting(Ok(listed.collect()), at(now));
                }
                Effect::Settle(settlement) => {
                    self.settlements.push(settlement);
                    self.machine.settled(ledger_writes, at(now));
                }
                Effect::Publish(_) | Effect::Prepare(_) | Effect::KeepFresh(_) | Effect::Ask(_) => {}
            }
        }
        said
    }
}

#[test]
fn what_was_refused_since_the_last_tick_is_said_once() {
    let mut bench = Bench::new(3, &[]);
    assert_eq!(bench.carry_on(START, true), []);
    bench.machine.answered(BrokerAnswer::Nacked, at(START));
    bench.machine.answered(BrokerAnswer::Confirmed, at(START));
    bench.machine.answered(BrokerAnswer::Returned("312 NO_ROUTE".to_owned()), at(START));
    assert_eq!(bench.carry_on(START, true), []);
    assert!(!bench.machine.tick(at(START + TICK)));
    let last = Some((3, "returned by the broker: 312 NO_ROUTE".to_owned()));
    let told = [Notice::Refusals(Tally { refused: 2, parked: 0, last })];
    assert_eq!(bench.carry_on(START + TICK, true), told);
    assert!(!bench.machine.tick(at(START + TICK * 2)));
    bench.due = vec![Due { cargo: Single(1), attempts: 1 }];
    assert_eq!(bench.carry_on(START + TICK * 2, true), [], "nothing was refused since");
    bench.machine.answered(BrokerAnswer::Nacked, at(START + TICK * 2));
    assert!(!bench.machine.tick(at(START + TICK * 3)));
    let last = Some((1, "refused by the broker (basic.nack)".to_owned()));
    let told = [Notice::Refusals(Tally { refused: 1, parked: 1, last })];
    assert_eq!(bench.carry_on(START + TICK * 3, true), told, "for the second time, so permanently");
}

#[test]
fn a_ledger_that_takes_no_settlement_is_told_of_at_first_then_by_the_minute_and_when_it_is_over() {
    let mut bench = Bench::new(1, &[]);
    bench.carry_on(START, true);
    bench.machine.answered(BrokerAnswer::Confirmed, at(START));
    assert_eq!(bench.carry_on(START, false), [Notice::SettlementFails { first: true }]);
    let mut again = |after: Duration, ledger_writes: bool| {
        bench.machine.tick(at(START + after));
        bench.carry_on(START + after, ledger_writes)
    };
    assert_eq!(again(TICK, false), []);
    assert_eq!(again(REMIND_AFTER - TICK, false), []);
    assert_eq!(again(REMIND_AFTER, false), [Notice::SettlementFails { first: false }]);
    assert_eq!(again(REMIND_AFTER + TICK, false), []);
    assert_eq!(again(REMIND_AFTER + TICK * 2, true), [Notice::SettlementTaken]);
    assert_eq!(again(REMIND_AFTER + TICK * 3, true), []);
    assert!(bench.machine.is_settled());
}

#[test]
fn exceptions_that_somebody_else_parked_are_forgotten_and_counted() {
    let waiting: Vec<Seq> = (1..=10).collect();
    let mut bench = Bench::new(20, &waiting);
    // As many as may wait: every few ticks they are compared with the ledger, where two are now parked.
    bench.waiting = (3..=10).collect();
    for tick in 0..5 {
        let now = START + TICK * tick;
        bench.machine.tick(at(now));
        let expected = if tick == 0 { vec![Notice::Crowded { waiting: 10 }] } else { Vec::new() };
        assert_eq!(bench.carry_on(now, true), expected, "tick {tick}");
    }
    let now = START + TICK * 5;
    bench.machine.tick(at(now));
    let told = [Notice::NoLongerPending { gone: 2 }, Notice::RoomAgain { waiting: 8 }];
    assert_eq!(bench.carry_on(now, true), told);
}

#[test]
fn a_command_that_was_returned_late_rests_before_it_is_published_again() {
    let mut bench = Bench::new(1, &[]);
    bench.carry_on(START, true);
    bench.machine.answered(BrokerAnswer::Confirmed, at(START));
    bench.carry_on(START, true);
    let late = LateReturn { command_id: CommandId::from_bytes([1; 16]), reason: "312 NO_ROUTE".to_owned() };
    bench.machine.returned_late(late.clone());
    assert_eq!(bench.carry_on(START, true), []);
    let found = Found { seq: 1, state: State::Published, attempts: None, key: Some(TaskKey::from_value(1)) };
    bench.machine.found(Ok(Some(found)), at(START));
    let reason = "returned by the broker after it was confirmed: 312 NO_ROUTE".to_owned();
    assert_eq!(bench.carry_on(START, true), [Notice::LateAgain(late)]);
    let exception = &bench.settlements.last().unwrap().exceptions[0];
    assert_eq!((exception.seq, exception.attempts, &exception.reason), (1, 1, &reason));
    let rests = exception.next_attempt_at.since(at(START).at);
    assert!((500..=1000).contains(&rests.as_millis()), "{rests:?}");
}

#[test]
fn commands_that_are_refused_together_do_not_come_back_together() {
    let waits: BTreeSet<u32> = (1..=1000).map(|seq| spread(7, seq, 1)).collect();
    assert_eq!(waits.len(), 1000);
    for eighth in 0..8_u32 {
        let share = waits.iter().filter(|wait| **wait >> 29 == eighth).count();
        assert!((85..=165).contains(&share), "{share} of 1000 in eighth {eighth}");
    }
    // Another attempt, and another relay, wait differently.
    let same = (1..=1000).filter(|seq| spread(7, *seq, 2) >> 24 == spread(7, *seq, 1) >> 24).count();
    assert!(same < 30, "{same} of 1000 wait as long the second time");
    let same = (1..=1000).filter(|seq| spread(8, *seq, 1) >> 24 == spread(7, *seq, 1) >> 24).count();
    assert!(same < 30, "{same} of 1000 wait as long at another relay");
}
