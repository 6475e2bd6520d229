//! Commands returned after they were confirmed.

use super::{Bench, NONE, Of, at, rules};
use crate::relay::{
    BrokerAnswer,
    protocol::{Due, Rules, Unreadable},
};

#[test]
fn as_many_late_returns_are_counted_as_exceptions_may_wait() {
    let mut bench = Bench::new(Rules { max_exceptions: 1, ..rules() }, &[7], 1, &[]);
    bench.publishes();
    bench.due(&[]);
    for attempts in 1..=2 {
        bench.return_late(1);
        assert_eq!(bench.found(1), NONE);
        assert_eq!(bench.excepted()[0].1, attempts);
        bench.tick();
        assert_eq!(bench.due(&[(1, attempts)]), [1]);
        bench.answer(BrokerAnswer::Confirmed);
    }
}

#[test]
fn after_a_late_return_later_ones_of_its_task_whose_turn_had_come_wait() {
    let mut bench = Bench::new(Rules { max_in_flight: 1, ..rules() }, &[7, 7, 8, 9], 3, &[2, 3]);
    bench.publishes();
    assert_eq!(bench.read(&[4]), [4]);
    assert_eq!(bench.due(&[(2, 1)]), NONE, "4 is in flight");
    bench.machine.session.retries.push_back(Due { cargo: Of(3, 8), attempts: 1 });
    bench.return_late(1);
    assert_eq!(bench.found(1), NONE);
    assert_eq!(bench.answer(BrokerAnswer::Confirmed), [3], "2 waits for 1");
}

#[test]
fn while_a_late_return_is_looked_up_nothing_is_published_unless_the_ledger_cannot_be_read() {
    let mut bench = Bench::new(rules(), &[7, 7], 1, &[]);
    bench.publishes();
    bench.due(&[]);
    bench.return_late(1);
    assert_eq!(bench.read(&[2]), NONE, "it may be of the same task");
    bench.asked.clear();
    bench.machine.found(Err(Unreadable), at(bench.now));
    assert_eq!(bench.publishes(), [2]);
}
