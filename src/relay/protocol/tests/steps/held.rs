//! Exceptions whose turn has come, but that wait for earlier ones of their task.

use super::{Bench, NONE, rules};
use crate::relay::{
    BrokerAnswer,
    protocol::{Rules, TICK},
};

#[test]
fn those_held_behind_one_go_out_one_after_the_other() {
    let mut bench = Bench::new(Rules { max_in_flight: 3, ..rules() }, &[7, 7, 7], 3, &[1, 2, 3]);
    bench.publishes();
    assert_eq!(bench.due(&[(1, 1), (2, 0), (3, 0)]), [1]);
    assert_eq!(bench.answer(BrokerAnswer::Confirmed), [2]);
    assert_eq!(bench.answer(BrokerAnswer::Confirmed), [3]);
    assert_eq!(bench.asked, [], "nothing had to be looked for");
}

#[test]
fn one_that_is_held_is_read_again_if_its_turn_does_not_come_at_once() {
    let mut bench = Bench::new(rules(), &[7, 7, 7], 3, &[1, 2, 3]);
    bench.publishes();
    assert_eq!(bench.due(&[(1, 1), (3, 0)]), [1]);
    assert_eq!(bench.machine.session.held, 1);
    assert_eq!(bench.answer(BrokerAnswer::Confirmed), NONE, "2 comes first, and was not listed");
    assert_eq!(bench.machine.session.held, 0, "an operator may act on 3 until then");
}

#[test]
fn of_those_behind_one_that_is_tried_only_as_many_are_held_as_may_be_in_flight() {
    let mut bench = Bench::new(rules(), &[7, 7, 7, 7], 4, &[1, 2, 3, 4]);
    bench.publishes();
    assert_eq!(bench.due(&[(1, 1), (2, 0), (3, 0), (4, 0)]), [1]);
    // The others are out of the way of those that can be published.
    assert_eq!(bench.excepted(), [(4, 0, TICK)]);
    assert_eq!(bench.asked, [], "1 is not missing");
}

#[test]
fn one_that_is_held_and_found_in_the_log_is_held_no_longer() {
    let mut bench = Bench::new(rules(), &[7, 7], 1, &[1]);
    bench.publishes();
    // An operator acts on 2 while the log is read.
    assert_eq!(bench.due(&[(1, 1), (2, 0)]), [1]);
    assert_eq!(bench.machine.session.held, 1);
    assert_eq!(bench.read(&[2]), NONE);
    assert_eq!(bench.machine.session.held, 0);
}
