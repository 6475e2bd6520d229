//! Commands that end sessions, and the commands published meanwhile.

use super::{Bench, CALM, NONE, rules};
use crate::relay::{
    BrokerAnswer,
    protocol::{Notice, TICK},
};

#[test]
fn one_that_ends_sessions_is_tried_alone_in_a_session_that_is_some_seconds_old() {
    let mut bench = Bench::new(rules(), &[1], 0, &[]);
    bench.publishes();
    assert_eq!(bench.read(&[1]), [1]);
    bench.end();
    bench.begin(1, &[1]);
    bench.publishes();
    assert_eq!(bench.due(&[(1, 1)]), NONE, "not in a young session");
    bench.log.push(2);
    bench.now += CALM - TICK;
    assert_eq!(bench.tick(), NONE);
    bench.now += TICK;
    assert_eq!(bench.tick(), [1]);
    assert_eq!(bench.read(&[2]), NONE, "nothing beside it");
    assert_eq!(bench.answer(BrokerAnswer::Confirmed), [2]);
}

#[test]
fn one_that_ended_a_session_and_waits_no_longer_is_like_any_other_afterwards() {
    let mut bench = Bench::new(rules(), &[1, 2], 0, &[]);
    bench.publishes();
    assert_eq!(bench.read(&[1]), [1]);
    bench.end();
    // An operator parks it and requeues it later.
    bench.begin(1, &[]);
    bench.publishes();
    bench.end();
    bench.begin(1, &[1]);
    bench.publishes();
    assert_eq!(bench.due(&[(1, 0)]), [1], "it is not waited for a calm");
    bench.end();
    let set_aside = bench.said.iter().filter(|notice| matches!(notice, Notice::SetAside { .. })).count();
    assert_eq!(set_aside, 2, "it has to show again that it is the only one");
}

#[test]
fn beside_one_that_ends_sessions_others_are_tried_as_ever() {
    let mut bench = Bench::new(rules(), &[1], 0, &[]);
    bench.publishes();
    assert_eq!(bench.read(&[1]), [1]);
    bench.end();
    bench.log.push(2);
    bench.begin(2, &[1, 2]);
    bench.publishes();
    assert_eq!(bench.due(&[(1, 1), (2, 1)]), [2], "in a young session");
}

#[test]
fn that_commands_are_published_one_at_a_time_is_said_once() {
    let mut bench = Bench::new(rules(), &[1, 2], 0, &[]);
    bench.publishes();
    assert_eq!(bench.read(&[1, 2]), [1, 2]);
    bench.end();
    let careful = [Notice::Careful { in_flight: 2 }];
    assert_eq!(bench.said, careful);
    bench.begin(0, &[]);
    bench.publishes();
    assert_eq!(bench.read(&[1, 2]), [1]);
    assert_eq!(bench.answer(BrokerAnswer::Confirmed), [2]);
    assert_eq!(bench.said, careful);
}
