//! Long random walks through larger worlds, by `proptest`, which shrinks failing ones.
//!
//! The reference is the bookkeeping of [`World`]: the acts of broker, ledger and operator, independent of how the
//! machine works.

use proptest::prelude::*;

use super::world::{Bounds, Budget, World};

fn bounds() -> impl Strategy<Value = Bounds> {
    let tasks = prop::collection::vec(0..4_u64, 1..12);
    let misfortunes = prop::array::uniform9(0..5_u8);
    let poison = prop::collection::vec(1..8_u64, 0..3);
    let raw = (prop::collection::vec(1..12_u64, 0..8), 1..4_usize);
    (tasks, 1..5_usize, 1..4_u32, 1..6_usize, poison, raw, any::<bool>(), misfortunes).prop_map(
        |(tasks, max_in_flight, max_attempts, max_exceptions, poison, raw, stale, misfortunes)| {
            let (raw, max_stragglers) = raw;
            let [refusals, returns, late, losses, crashes, ledger_failures, operator, blocks, unfresh] =
                misfortunes;
            let budget = Budget {
                refusals,
                returns,
                late,
                losses,
                crashes,
                ledger_failures,
                operator,
                blocks,
                ends: 4,
                unfresh,
            };
            Bounds {
                tasks,
                max_in_flight,
                max_attempts,
                max_exceptions,
                poison,
                raw,
                max_stragglers,
                stale,
                budget,
            }
        },
    )
}

/// As many cases as `PROPTEST_CASES` says, by default as many as take a second or two.
///
/// A failing case is printed as shrunk by proptest. Once its fault is fixed, add it to [`found`](super::found).
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(4096);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// A choice selects one of the acts possible at that time; smaller values select milder acts.
    #[test]
    fn no_walk_ends_where_the_relay_may_not_be(
        bounds in bounds(),
        choices in prop::collection::vec(any::<u16>(), 0..160),
    ) {
        prop_assert_eq!(walk(&bounds, &choices), Ok(()));
    }
}

/// Returns the violation, also if something does not get through.
pub(super) fn walk(bounds: &Bounds, choices: &[u16]) -> Result<(), String> {
    let mut world = World::new(bounds);
    let (mut acts, mut done) = (Vec::new(), Vec::new());
    for choice in choices {
        acts.clear();
        world.acts(bounds, &mut acts);
        let act = acts[(usize::from(*choice) * acts.len()) >> 16];
        done.push(act);
        world.act(bounds, act);
        if let Some(fault) = world.fault {
            return Err(format!("{fault}, by {done:?}"));
        }
    }
    world.left_over(bounds).map_or(Ok(()), |left| Err(format!("{left}, after {done:?}")))
}
