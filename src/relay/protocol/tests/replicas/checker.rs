//! Every state that can be reached within small bounds, by `stateright`.

use std::{collections::HashSet, sync::Mutex};

use stateright::{Checker, HasDiscoveries, Model, Property};

use super::{
    Bounds, Budget, Durability,
    world::{Act, World},
};

const FAULTLESS: &str = "nothing happens that may never be";
const THROUGH: &str = "in a calm everything comes through";
const DONE: &str = "everything is published";
const ZOMBIE: &str = "a deposed leader publishes";

/// The bounds, and what is known to come through in a calm.
struct Explored {
    bounds: Bounds,
    calm: Mutex<HashSet<u64>>,
}

impl Model for Explored {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.bounds)]
    }

    fn actions(&self, world: &World, acts: &mut Vec<Act>) {
        // What follows upon a fault is of no interest.
        if world.fault.is_none() {
            world.acts(&self.bounds, acts);
        }
    }

    fn next_state(&self, world: &World, act: Act) -> Option<World> {
        let mut next = world.clone();
        next.act(&self.bounds, act);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(FAULTLESS, |_, world: &World| world.fault.is_none()),
            Property::always(THROUGH, |explored: &Self, world: &World| {
                world.left_over(&explored.bounds, &explored.calm).is_none()
            }),
            Property::sometimes(DONE, |explored: &Self, world: &World| {
                world.confirmed.len() == explored.bounds.tasks.len() && world.is_done(&explored.bounds)
            }),
            Property::sometimes(ZOMBIE, |explored: &Self, world: &World| {
                let deposed = |at: usize| !world.leads(&explored.bounds, at);
                let at_work =
                    |at: usize| world.replicas[at].leader.as_ref().is_some_and(|l| l.undecided().is_some());
                (0..2).any(|at| deposed(at) && at_work(at))
            }),
        ]
    }
}

/// Explores everything, or up to the first fault, which it tells.
pub(super) fn explore(name: &str, bounds: Bounds) -> Option<String> {
    let began = std::time::Instant::now();
    let explored = Explored { bounds: bounds.clone(), calm: Mutex::default() };
    let checker = explored.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    // Shown by `--nocapture`: the number belongs to the claim.
    let states = checker.unique_state_count();
    std::io::Write::write_fmt(
        &mut std::io::stderr(),
        format_args!("{name}: {states} states in {:?}\n", began.elapsed()),
    )
    .unwrap();
    let path = [FAULTLESS, THROUGH].into_iter().find_map(|property| checker.discovery(property));
    let Some(path) = path else {
        let unseen = [DONE, ZOMBIE].into_iter().find(|property| checker.discovery(property).is_none());
        return unseen.map(|unseen| format!("nowhere {unseen}"));
    };
    let world = path.last_state();
    let what =
        world.fault.clone().or_else(|| world.left_over(&bounds, &Mutex::default())).unwrap_or_default();
    Some(format!("{what}\nafter {:?}\nin {:?}", path.clone().into_actions(), world.database.now))
}

fn sound(name: &str, bounds: Bounds) {
    if let Some(fault) = explore(name, bounds) {
        panic!("{name}: {fault}");
    }
}

/// Two decisions about one task, two terms, two in flight, unless a test says otherwise.
#[test]
fn every_state_with_a_zombie_is_sound() {
    let budget = Budget { terms: 3, ..Budget::default() };
    sound("three terms", Bounds { budget, ..Bounds::default() });
}

#[test]
fn every_state_with_a_zombie_and_a_refusal_is_sound() {
    let budget = Budget { terms: 2, refusals: 1, ..Budget::default() };
    sound("two terms, refusal, stale", Bounds { budget, stale: true, ..Bounds::default() });
}

#[test]
fn every_state_with_settlements_that_are_lost_late_or_come_twice_is_sound() {
    let budget = Budget { terms: 2, ends: 1, copies: 1, ..Budget::default() };
    sound("two terms, end, copy", Bounds { budget, ..Bounds::default() });
    let budget = Budget { terms: 2, ends: 1, copies: 1, refusals: 1, ..Budget::default() };
    sound(
        "two terms, end, copy, refusal, one decision",
        Bounds { budget, tasks: vec![1], ..Bounds::default() },
    );
}

#[test]
fn every_state_with_failures_and_a_broker_that_is_lost_is_sound() {
    let budget = Budget { terms: 2, failures: 1, ..Budget::default() };
    sound("two terms, failure", Bounds { budget, ..Bounds::default() });
    let budget = Budget { terms: 2, losses: 1, ..Budget::default() };
    sound("two terms, loss", Bounds { budget, ..Bounds::default() });
}

#[test]
fn every_state_with_a_failover_to_a_synchronous_standby_is_sound() {
    let budget = Budget { terms: 2, failovers: 1, ..Budget::default() };
    sound("two terms, failover, standby", Bounds { budget, ..Bounds::default() });
}

#[test]
fn every_state_with_a_failover_to_an_asynchronous_standby_is_sound() {
    let budget = Budget { terms: 2, failovers: 1, ..Budget::default() };
    let durability = Durability::Asynchronous;
    let bounds = Bounds { budget, durability, pooler: true, ..Bounds::default() };
    sound("two terms, failover, asynchronous, pooler", bounds);
    // What is fresh comes from another server than what was read.
    let budget = Budget { terms: 1, failovers: 1, ..Budget::default() };
    let bounds = Bounds { budget, lag: 1, tasks: vec![1, 1, 1], pooler: true, ..Bounds::default() };
    let bounds = Bounds { durability: Durability::Asynchronous, ..bounds };
    sound("a term, failover, asynchronous, pooler, three decisions", bounds);
}

#[test]
fn every_state_with_a_late_return_and_a_failover_is_sound() {
    let budget = Budget { terms: 2, late: 1, failovers: 1, ..Budget::default() };
    sound(
        "two terms, late return, failover, one decision",
        Bounds { budget, tasks: vec![1], ..Bounds::default() },
    );
    let budget = Budget { terms: 2, late: 1, refusals: 1, ends: 1, ..Budget::default() };
    sound(
        "two terms, late return, refusal, end, one decision",
        Bounds { budget, tasks: vec![1], ..Bounds::default() },
    );
}

/// More of everything; minutes, and some memory.
#[test]
#[ignore = "minutes; `deploy/test --all` runs it"]
fn every_state_of_two_replicas_within_wider_bounds_is_sound() {
    let standby = Bounds::default();
    let asynchronous = Bounds { durability: Durability::Asynchronous, ..Bounds::default() };
    let budget = Budget { terms: 2, refusals: 1, ..Budget::default() };
    sound("two terms, refusal", Bounds { budget, ..standby.clone() });
    let budget = Budget { terms: 3, failovers: 2, unanswered: 1, ..Budget::default() };
    let one = Bounds { budget, tasks: vec![1], ..standby.clone() };
    sound("three terms, two failovers, unanswered, standby, one decision", one);
    let budget = Budget { terms: 2, failovers: 1, ..Budget::default() };
    sound("two terms, failover, asynchronous", Bounds { budget, ..asynchronous.clone() });
    let budget = Budget { terms: 2, ..Budget::default() };
    sound("two terms, three decisions", Bounds { budget, tasks: vec![1, 2, 1], ..standby.clone() });
    let budget = Budget { terms: 2, failures: 1, losses: 1, ..Budget::default() };
    sound("two terms, failure, loss", Bounds { budget, ..standby.clone() });
    let budget = Budget { terms: 2, refusals: 1, ends: 1, ..Budget::default() };
    sound("two terms, refusal, end", Bounds { budget, ..standby.clone() });
    let budget = Budget { terms: 2, refusals: 1, failovers: 1, ..Budget::default() };
    sound("two terms, refusal, failover, standby", Bounds { budget, ..standby.clone() });
    let budget = Budget { terms: 2, failovers: 2, unanswered: 1, ..Budget::default() };
    sound("two terms, two failovers, unanswered, standby", Bounds { budget, ..standby });
    let budget = Budget { terms: 2, failovers: 1, ..Budget::default() };
    let three = Bounds { budget, lag: 2, tasks: vec![1, 1, 1], ..asynchronous };
    sound("two terms, failover, asynchronous, three decisions", three);
}
