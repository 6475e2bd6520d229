//! Refused commands, the commands behind them, and when each is looked up again.

use std::time::Duration;

use super::{Bench, NONE, Of, START, at, late, rules};
use crate::{
    command::TaskKey,
    relay::{
        BrokerAnswer,
        protocol::{Due, Effect, Machine, Question, Rules, Stage, TICK, tasks::Known},
    },
};

#[test]
fn what_only_waits_is_postponed_with_the_first_and_what_was_refused_is_not() {
    let mut bench = Bench::new(rules(), &[7, 7, 7], 0, &[]);
    bench.publishes();
    bench.due(&[]);
    assert_eq!(bench.read(&[1, 2, 3]), [1, 2]);
    bench.answer(BrokerAnswer::Nacked);
    bench.answer(BrokerAnswer::Nacked);
    bench.now += TICK * 2;
    bench.tick();
    assert_eq!(bench.due(&[(1, 1)]), [1]);
    bench.answer(BrokerAnswer::Nacked);
    let [(1, 2, first), (3, 0, waits)] = bench.excepted()[..] else { panic!("{:?}", bench.excepted()) };
    assert!(first == waits && !first.is_zero(), "{first:?} {waits:?}");
}

#[test]
fn a_refusal_postpones_nothing_before_it() {
    // An operator has requeued 1 while 2 is tried; the broker blocks before 1 was published.
    let mut bench = Bench::new(Rules { max_in_flight: 1, ..rules() }, &[7, 7], 2, &[2]);
    bench.publishes();
    assert_eq!(bench.due(&[(2, 1)]), [2]);
    bench.tick();
    assert_eq!(bench.due(&[(1, 0)]), NONE);
    bench.machine.blocked(true, at(bench.now));
    bench.answer(BrokerAnswer::Nacked);
    let excepted: Vec<_> = bench.excepted().iter().map(|(seq, attempts, _)| (*seq, *attempts)).collect();
    assert_eq!(excepted, [(2, 2)]);
}

#[test]
fn once_the_first_is_through_what_only_waits_is_due_and_is_looked_for_when_that_is_written() {
    let mut bench = Bench::new(Rules { max_in_flight: 3, ..rules() }, &[7, 7, 7, 7], 3, &[1, 2, 3]);
    bench.publishes();
    assert_eq!(bench.due(&[(1, 1)]), [1]);
    // 2 was refused itself, 3 waits until later, 4 until now.
    let rests = |attempts, rests| Known {
        attempts: Some(attempts),
        next_attempt_at: Some(at(START + rests).at),
        stage: Stage::Resting,
    };
    bench.machine.note(TaskKey::from_value(7), 2, rests(1, TICK));
    bench.machine.note(TaskKey::from_value(7), 3, rests(0, TICK));
    assert_eq!(bench.read(&[4]), NONE);
    assert_eq!(bench.excepted(), [(4, 0, Duration::ZERO)]);
    assert_eq!(bench.asked, []);
    bench.answer(BrokerAnswer::Confirmed);
    assert_eq!(bench.excepted(), [(3, 0, Duration::ZERO)]);
    assert_eq!(bench.settlements.last().unwrap().cleared, [1]);
    let look = Question::Due { at: at(START).at, limit: 6 };
    assert_eq!(bench.asked, [look], "before the next tick");
    // 2 is tried and 3 held behind it: once 2 is through, no look is needed.
    assert_eq!(bench.due(&[(2, 1), (3, 0)]), [2]);
    assert_eq!(bench.answer(BrokerAnswer::Confirmed), [3]);
    assert_eq!(bench.settlements.last().unwrap().cleared, [2]);
    assert_eq!(bench.asked, []);
}

#[test]
fn what_was_tried_in_a_session_that_is_over_is_postponed_like_the_rest_of_its_task() {
    let mut bench = Bench::new(rules(), &[7, 7], 2, &[2]);
    bench.publishes();
    assert_eq!(bench.due(&[(2, 0)]), [2]);
    bench.machine.returned_late(late(1));
    bench.machine.lost(None, at(bench.now));
    bench.publishes();
    assert_eq!(bench.found(1), NONE);
    let [(1, 1, first), (2, 0, waits)] = bench.excepted()[..] else { panic!("{:?}", bench.excepted()) };
    assert!(first == waits && !first.is_zero(), "{first:?} {waits:?}");
}

#[test]
fn what_was_listed_before_the_broker_blocked_is_looked_for_again() {
    let mut bench = Bench::new(rules(), &[7], 1, &[1]);
    bench.publishes();
    bench.machine.blocked(true, at(bench.now));
    let stale = Due { cargo: bench.of(1), attempts: 0 };
    bench.machine.due(Ok(vec![stale]), at(bench.now));
    bench.asked.clear();
    bench.machine.blocked(false, at(bench.now));
    assert_eq!(bench.publishes(), NONE, "an operator may have parked it meanwhile");
    assert_eq!(bench.due(&[(1, 0)]), [1]);
}

#[test]
fn exceptions_are_not_looked_for_while_as_many_as_may_be_in_flight_have_their_turn() {
    fn two() -> [Due<Of>; 2] {
        [1, 2].map(|seq| Due { cargo: Of(seq, seq), attempts: 1 })
    }
    let looks = |fill: fn(&mut Machine<Of>)| {
        let mut bench = Bench::new(rules(), &[], 0, &[]);
        fill(&mut bench.machine);
        matches!(bench.machine.write(false, at(START)), Some(Effect::Ask(Question::Due { .. })))
    };
    assert!(looks(|machine| machine.session.held = 1));
    assert!(!looks(|machine| machine.session.held = 2));
    assert!(!looks(|machine| machine.session.retries.extend(two())));
    assert!(!looks(|machine| machine.session.alone.extend(two())));
    assert!(!looks(|machine| {
        machine.session.preparing.extend([1, 2].map(|seq| (seq, (TaskKey::from_value(seq), 1))));
    }));
}

#[test]
fn exceptions_that_all_wait_still_are_not_worth_a_word() {
    let mut bench = Bench::new(rules(), &[7], 1, &[1]);
    bench.machine.looking.review();
    bench.publishes();
    assert_eq!(bench.asked, [Question::Waiting]);
    bench.machine.waiting(Ok(vec![(TaskKey::from_value(7), 1)]), at(bench.now));
    bench.publishes();
    assert_eq!(bench.said, []);
}
