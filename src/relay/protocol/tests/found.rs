//! Failures found by [`walks`](super::walks), kept as drawn steps: a seed reproduces its walk only until the drawing
//! of walks changes.

use super::{
    steps::{Bench, NONE, rules},
    walks::walk,
    world::{Act, Bounds, Budget, World},
};
use crate::relay::BrokerAnswer;

/// 6 ended every session, and each look at the ledger listed 6 and 7 of its task: 8, of another task, had been due for
/// longer and never got its turn.
#[test]
fn a_walk_after_which_one_that_ended_every_session_held_up_another_task() {
    let bounds = Bounds {
        tasks: vec![0, 0, 0, 1, 2, 0, 0, 1, 0],
        max_in_flight: 1,
        max_attempts: 2,
        max_exceptions: 5,
        poison: vec![6],
        raw: vec![3, 5, 4, 6],
        max_stragglers: 3,
        stale: false,
        budget: Budget {
            refusals: 1,
            returns: 2,
            late: 1,
            losses: 2,
            crashes: 4,
            ledger_failures: 1,
            operator: 2,
            blocks: 2,
            ends: 4,
            unfresh: 3,
        },
    };
    let choices = [
        0, 26215, 0, 10923, 32768, 15124, 0, 0, 20165, 32768, 32768, 0, 0, 0, 0, 32768, 0, 0, 24576, 43691,
        0, 0, 0, 0, 13108, 0, 0, 0, 16384, 21846, 0, 0, 0, 16384, 32768, 0, 0, 43691, 43691, 43691, 0, 0,
        26215, 13108, 32768, 16384, 52429, 0, 0, 0, 0, 0, 43691, 0, 0, 21846, 0, 32768, 0, 32768, 0, 0, 0, 0,
        21846, 32768, 32768, 32768, 32768, 0, 21846, 0, 0, 32768, 0, 32768, 0, 32768, 0, 32768, 32768, 0,
        32768, 0,
    ];
    assert_eq!(walk(&bounds, &choices), Ok(()));
}

/// The same in few steps: one in flight, so a look lists two; and each time the broker is back only when the first is
/// due again.
#[test]
fn what_has_been_due_for_longer_than_one_that_ends_every_session_has_its_turn() {
    let bounds = Bounds {
        tasks: vec![1, 1, 2],
        max_in_flight: 1,
        max_attempts: 2,
        poison: vec![1],
        budget: Budget { refusals: 1, ends: 20, ..Budget::default() },
        ..Bounds::default()
    };
    let mut world = World::new(&bounds);
    let mut acts = Vec::new();
    for act in [Act::Connect, Act::Accept, Act::Accept, Act::Accept, Act::Tell, Act::Read] {
        world.act(&bounds, act);
    }
    let mut ends = 0;
    while !world.is_routed(3) {
        acts.clear();
        world.acts(&bounds, &mut acts);
        // Time passes between sessions, until everything is due.
        let away = acts.contains(&Act::Connect);
        let usual =
            [Act::Wait, Act::Connect, Act::Nack, Act::Confirm, Act::End, Act::Settle, Act::Tell, Act::Read];
        let usual = &usual[usize::from(!away)..];
        let act = usual.iter().find(|act| acts.contains(act)).copied().unwrap_or(Act::Tick);
        world.act(&bounds, act);
        assert_eq!(world.fault, None);
        ends += usize::from(act == Act::End);
        assert!(ends < 10, "{world:?}");
    }
}

/// Both wait to be published while others are with the broker; the earlier one was requeued last.
#[test]
fn what_an_operator_requeues_goes_before_later_ones_of_its_task_that_are_about_to_be_published() {
    let mut bench = Bench::new(rules(), &[7, 9, 8, 8], 4, &[1, 2, 4]);
    bench.publishes();
    assert_eq!(bench.due(&[(1, 1), (2, 1), (4, 1)]), [1, 2]);
    // 3 was parked until now.
    bench.tick();
    assert_eq!(bench.due(&[(1, 1), (2, 1), (3, 0), (4, 1)]), NONE);
    assert_eq!(bench.answer(BrokerAnswer::Confirmed), [3]);
    assert_eq!(bench.answer(BrokerAnswer::Confirmed), NONE, "4 waits for 3");
}
