//! Long random walks through larger worlds, by `proptest`, which shortens the one that fails.

use std::sync::Mutex;

use proptest::prelude::*;

use super::{
    Bounds, Budget, Durability,
    world::{Act, World},
};

fn bounds() -> impl Strategy<Value = Bounds> {
    let tasks = prop::collection::vec(0..3_u64, 1..8);
    let machine = (1..4_usize, 1..4_u32);
    let durability = prop_oneof![Just(Durability::Standby), Just(Durability::Asynchronous)];
    let ledger = (durability, 1..5_usize, any::<bool>(), any::<bool>());
    let misfortunes = prop::array::uniform7(0..4_u8);
    (tasks, machine, ledger, 1..8_u8, misfortunes, any::<bool>()).prop_map(
        |(tasks, (max_in_flight, max_attempts), ledger, terms, misfortunes, copied)| {
            let (durability, lag, stale, pooler) = ledger;
            let [ends, failovers, unanswered, losses, refusals, rare, failures] = misfortunes;
            // A settlement that arrives again may undo what became of a late return since.
            let (late, copies) = if copied { (0, rare) } else { (rare, 0) };
            let budget =
                Budget { terms, ends, failovers, unanswered, losses, refusals, late, failures, copies };
            Bounds {
                replicas: 2,
                tasks,
                durability,
                lag,
                max_in_flight,
                max_attempts,
                stale,
                pooler,
                without: &[],
                budget,
            }
        },
    )
}

/// As many cases as `PROPTEST_CASES` says, else what takes a second or two.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2048);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// A choice names one of the acts that are possible then; three of four one that is no misfortune.
    #[test]
    fn no_walk_ends_where_two_replicas_may_not_be(
        bounds in bounds(),
        choices in prop::collection::vec(any::<u16>(), 0..160),
    ) {
        prop_assert_eq!(walk(&bounds, &choices), Ok(()));
    }
}

/// Walks, and looks whether everything comes through afterwards; tells what is wrong.
fn walk(bounds: &Bounds, choices: &[u16]) -> Result<(), String> {
    let mut world = World::new(bounds);
    let (mut acts, mut done) = (Vec::new(), Vec::new());
    for choice in choices {
        acts.clear();
        world.acts(bounds, &mut acts);
        // Nothing is left to be done.
        if acts.is_empty() {
            break;
        }
        acts.sort_by_key(Act::is_rare);
        let usual = acts.partition_point(|act| !act.is_rare());
        let among = if usual == 0 || choice % 4 == 3 { acts.len() } else { usual };
        let act = acts[(usize::from(*choice) * among) >> 16];
        done.push(act);
        world.act(bounds, act);
        if let Some(fault) = world.fault {
            return Err(format!("{fault}, by {done:?}"));
        }
    }
    world.left_over(bounds, &Mutex::default()).map_or(Ok(()), |left| Err(format!("{left}, after {done:?}")))
}
