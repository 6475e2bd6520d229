//! Every state reachable within small bounds, explored by `stateright`.
//!
//! Two properties are checked in each: no violation has happened, and *if all misfortunes ended now* everything would
//! get through. The second is stronger than stateright's `eventually`, which overlooks cycles.

use stateright::{Checker, Model, Property};

use super::world::{Act, Bounds, Budget, World};

impl Model for Bounds {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, acts: &mut Vec<Act>) {
        // States after a violation are irrelevant.
        if world.fault.is_none() {
            world.acts(self, acts);
        }
    }

    fn next_state(&self, world: &World, act: Act) -> Option<World> {
        let mut next = world.clone();
        next.act(self, act);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing happens that may never be", |_, world: &World| world.fault.is_none()),
            Property::always("in a calm everything comes through", |bounds: &Bounds, world: &World| {
                world.left_over(bounds).is_none()
            }),
            Property::sometimes("everything is published", |bounds: &Bounds, world: &World| {
                world.ledger.cursor == bounds.tasks.len() as u64 && world.ledger.exceptions.is_empty()
            }),
        ]
    }
}

/// Returns the number of states.
fn explore(name: &str, bounds: Bounds) -> usize {
    let began = std::time::Instant::now();
    let checker = bounds.clone().checker().threads(2).spawn_bfs().join();
    if let Some(path) = ["nothing happens that may never be", "in a calm everything comes through"]
        .into_iter()
        .find_map(|property| checker.discovery(property))
    {
        let world = path.last_state();
        let what = world.fault.clone().or_else(|| world.left_over(&bounds));
        let acts = path.clone().into_actions();
        panic!("{name}: {}\nafter {acts:?}\nin {world:?}", what.unwrap_or_default());
    }
    assert!(checker.discovery("everything is published").is_some() || !bounds.poison.is_empty(), "{name}");
    let states = checker.unique_state_count();
    // Shown by `--nocapture`: the number is part of the claim.
    std::io::Write::write_fmt(
        &mut std::io::stderr(),
        format_args!("{name}: {states} states in {:?}\n", began.elapsed()),
    )
    .unwrap();
    states
}

/// Three commands of two tasks, two in flight, unless a test says otherwise.
#[test]
fn every_state_with_a_refusal_a_loss_and_a_crash_is_sound() {
    let budget = Budget { refusals: 1, losses: 1, crashes: 1, ..Budget::default() };
    explore("refusal, loss, crash", Bounds { budget, ..Bounds::default() });
}

#[test]
fn every_state_with_a_ledger_that_fails_is_sound() {
    let budget = Budget { refusals: 1, losses: 1, ledger_failures: 1, ..Budget::default() };
    explore("refusal, loss, failure of the ledger", Bounds { budget, ..Bounds::default() });
}

#[test]
fn every_state_with_refusals_until_one_is_parked_is_sound() {
    let budget = Budget { refusals: 3, ..Budget::default() };
    explore("three refusals", Bounds { budget, tasks: vec![1, 1, 1], ..Bounds::default() });
}

#[test]
fn every_state_of_one_task_with_a_refusal_and_a_loss_is_sound() {
    let budget = Budget { refusals: 1, losses: 1, ..Budget::default() };
    explore("refusal, loss, one task", Bounds { budget, tasks: vec![1, 1, 1], ..Bounds::default() });
}

#[test]
fn every_state_with_a_late_return_is_sound() {
    let budget = Budget { late: 1, losses: 1, ledger_failures: 1, ..Budget::default() };
    explore("late return, loss, failure of the ledger", Bounds { budget, ..Bounds::default() });
}

#[test]
fn every_state_with_an_operator_is_sound() {
    for stale in [false, true] {
        let budget = Budget { refusals: 1, operator: 1, ..Budget::default() };
        explore("refusal, an operator's act", Bounds { budget, stale, ..Bounds::default() });
    }
}

#[test]
fn every_state_with_a_broker_that_blocks_is_sound() {
    let budget = Budget { refusals: 1, blocks: 1, losses: 1, ..Budget::default() };
    explore("refusal, block, loss", Bounds { budget, ..Bounds::default() });
}

#[test]
fn every_state_with_gaps_among_the_fresh_and_a_crowd_is_sound() {
    let budget = Budget { refusals: 1, unfresh: 1, losses: 1, ..Budget::default() };
    let bounds = Bounds { budget, tasks: vec![1, 2, 2], max_exceptions: 1, ..Bounds::default() };
    explore("refusal, gap, loss, crowd", bounds);
}

#[test]
fn every_state_with_a_command_that_ends_the_session_is_sound() {
    for (poison, window) in [(vec![1], 2), (vec![2], 3), (vec![1, 2, 3], 2)] {
        let budget = Budget { ends: 3, crashes: 1, ..Budget::default() };
        let name = format!("poison {poison:?}, window {window}, three ends, crash");
        explore(&name, Bounds { budget, poison, max_in_flight: window, ..Bounds::default() });
    }
    // The poison and the commands behind it fill a look.
    for raw in [vec![], vec![1]] {
        let budget = Budget { refusals: 1, ends: 2, losses: 1, ..Budget::default() };
        let name = format!("poison, raw {raw:?}, window 1, refusal, two ends, loss");
        explore(&name, Bounds { budget, raw, poison: vec![1], max_in_flight: 1, ..Bounds::default() });
    }
}

#[test]
fn every_state_in_which_something_is_prepared_is_sound() {
    for (raw, tasks) in [(vec![1, 2], vec![1, 1, 2]), (vec![1, 3], vec![1, 2, 1]), (vec![1], vec![1, 1, 1])] {
        let budget = Budget { refusals: 1, losses: 1, ..Budget::default() };
        let name = format!("raw {raw:?} of {tasks:?}, refusal, loss");
        explore(&name, Bounds { budget, raw, tasks, ..Bounds::default() });
    }
    let budget = Budget { refusals: 1, operator: 1, blocks: 1, ..Budget::default() };
    let two = Bounds { budget, raw: vec![1], tasks: vec![1, 1], ..Bounds::default() };
    explore("raw, refusal, operator, block", two);
    let budget = Budget { ends: 2, crashes: 1, ..Budget::default() };
    explore("raw poison", Bounds { budget, raw: vec![1, 2], poison: vec![1], ..Bounds::default() });
    let budget = Budget { late: 1, losses: 1, ..Budget::default() };
    explore("raw, late return", Bounds { budget, raw: vec![1, 2, 3], ..Bounds::default() });
}

/// Every other task overtakes commands that wait for preparation, however long that takes.
#[test]
fn a_preparation_that_never_ends_holds_up_its_own_task_only() {
    let tasks = vec![1, 2, 1, 2, 3, 3];
    let bounds = Bounds { tasks, raw: vec![1], max_in_flight: 6, ..Bounds::default() };
    let mut world = World::new(&bounds);
    [Act::Connect].into_iter().chain([Act::Accept; 6]).for_each(|act| world.act(&bounds, act));
    // Everything else that can happen.
    let go_on = |world: &mut World| {
        let mut acts = Vec::new();
        loop {
            acts.clear();
            world.acts(&bounds, &mut acts);
            let usual = [Act::Settle, Act::Tell, Act::Read, Act::Confirm];
            let Some(act) = usual.into_iter().find(|act| acts.contains(act)) else {
                return world.ledger.cursor;
            };
            world.act(&bounds, act);
            assert_eq!(world.fault, None);
        }
    };
    assert_eq!(go_on(&mut world), 0, "the cursor stays before the first");
    assert!([2, 4, 5, 6].iter().all(|seq| world.is_routed(*seq)), "{world:?}");
    assert!([1, 3].iter().all(|seq| !world.is_routed(*seq)), "{world:?}");
    world.act(&bounds, Act::Prepared(1));
    assert_eq!(go_on(&mut world), 6);
}

/// Larger bounds; takes minutes and some memory.
#[test]
#[ignore = "minutes; `deploy/test --all` runs it"]
fn every_state_within_wider_bounds_is_sound() {
    let wide = |name: &str, budget: Budget, tasks: Vec<u64>| {
        explore(name, Bounds { budget, tasks, ..Bounds::default() });
    };
    let budget = Budget { refusals: 1, late: 1, losses: 1, ledger_failures: 1, ..Budget::default() };
    wide("refusal, late return, loss, failure of the ledger", budget, vec![1, 1, 2]);
    let budget = Budget { refusals: 1, returns: 1, losses: 1, crashes: 1, ..Budget::default() };
    wide("refusal, return, loss, crash", budget, vec![1, 1, 2]);
    let budget = Budget { refusals: 1, operator: 2, blocks: 1, ..Budget::default() };
    wide("refusal, two of an operator's acts, block", budget, vec![1, 1, 2]);
    let budget = Budget { refusals: 3, losses: 1, ..Budget::default() };
    wide("three refusals, loss, four commands", budget, vec![1, 1, 1, 2]);
}
