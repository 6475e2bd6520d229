//! Compares the diagram of a command's stages with the machine.

use std::collections::{BTreeSet, HashSet};

use super::{
    super::{Machine, Stage, stragglers::Place},
    world::{Act, Bounds, Budget, Plain, World},
};
use crate::command::Seq;

/// From one stage to another; `[*]` is the ledger.
type Step = (String, String);

fn stage(machine: &Machine<Plain>, seq: Seq) -> &'static str {
    let session = &machine.session;
    let in_flight = session.in_flight.iter().find(|flight| flight.seq == seq);
    if let Some(flight) = in_flight {
        return if flight.attempts.is_some() { "Tried" } else { "Published" };
    }
    if let Some((_, known)) = machine.tasks.all().find(|(other, _)| *other == seq) {
        return match known.stage {
            Stage::Resting => "Resting",
            Stage::Held(_) => "Held",
            Stage::Tried if session.preparing.contains_key(&seq) => "Completing",
            Stage::Tried => "Due",
        };
    }
    match session.stragglers.place(seq) {
        Some(Place::Preparing(_)) => return "Preparing",
        Some(Place::Prepared(_)) => return "Prepared",
        Some(Place::Flying) | None => {}
    }
    if session.reading.is_ready(seq) { "Ready" } else { "[*]" }
}

/// Every step of a command within the bounds, except ends of sessions.
fn steps(bounds: &Bounds, into: &mut BTreeSet<Step>) {
    let count = bounds.tasks.len();
    let stages =
        |machine: &Machine<Plain>| -> Vec<_> { (1..=count as Seq).map(|seq| stage(machine, seq)).collect() };
    let mut seen = HashSet::new();
    let mut open = vec![World::new(bounds)];
    while let Some(world) = open.pop() {
        let mut acts = Vec::new();
        world.acts(bounds, &mut acts);
        for act in acts {
            let ends = matches!(act, Act::Connect | Act::Lose | Act::End | Act::Crash { .. });
            let (mut next, mut before) = (world.clone(), stages(&world.machine));
            let mut first = true;
            next.act_watched(bounds, act, &mut |machine| {
                let after = stages(machine);
                for (from, to) in before.iter().zip(&after).filter(|(from, to)| from != to) {
                    if !(ends && first) {
                        into.insert(((*from).to_owned(), (*to).to_owned()));
                    }
                }
                (before, first) = (after, false);
            });
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
}

/// The arrows of the first diagram after this heading.
fn drawn(text: &str, heading: &str) -> BTreeSet<Step> {
    let diagram = text.split(heading).nth(1).and_then(|rest| rest.split("stateDiagram-v2").nth(1));
    let diagram = diagram.and_then(|rest| rest.split("```").next()).expect("there is a diagram");
    let arrows = diagram.lines().filter_map(|line| {
        let line = line.trim_start_matches("//!").trim();
        let (from, to) = line.split(':').next()?.split_once(" --> ")?;
        Some((from.trim().to_owned(), to.trim().to_owned()))
    });
    arrows.collect()
}

#[test]
fn the_diagram_of_a_command_shows_every_step_and_no_other() {
    let mut found = BTreeSet::new();
    let all = |tasks: &[u64], budget: Budget| Bounds { tasks: tasks.to_vec(), budget, ..Bounds::default() };
    let raw = |raw: &[Seq], bounds: Bounds| Bounds { raw: raw.to_vec(), ..bounds };
    for bounds in [
        all(&[1, 1, 1], Budget { refusals: 2, ..Budget::default() }),
        // With one in flight others wait for their turn, ready or due.
        Bounds { max_in_flight: 1, ..all(&[1, 2], Budget { refusals: 2, blocks: 1, ..Budget::default() }) },
        all(&[1, 2], Budget { late: 1, operator: 1, ..Budget::default() }),
        all(&[1, 1], Budget { refusals: 1, operator: 1, ..Budget::default() }),
        raw(&[1, 2], all(&[1, 1], Budget { refusals: 1, operator: 1, ..Budget::default() })),
        raw(&[1, 2], all(&[1, 1], Budget { refusals: 1, blocks: 1, ..Budget::default() })),
        raw(&[1], all(&[1, 1, 2], Budget { refusals: 1, ..Budget::default() })),
    ] {
        steps(&bounds, &mut found);
    }
    let code = drawn(include_str!("../mod.rs"), "# The stages of a command");
    let missing: Vec<_> = found.difference(&code).collect();
    let invented: Vec<_> = code.difference(&found).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "not drawn: {missing:?}\ndrawn and never taken: {invented:?}"
    );
    let docs = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/architecture.md"));
    assert_eq!(drawn(docs, "**A command**"), code, "docs/architecture.md shows the same diagram");
}
