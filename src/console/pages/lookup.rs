//! Addresses of filtered lists.

use super::{Phrases, Viewer, link};
use crate::{
    console::problem::Problem,
    ledger::Stopped,
    time::{Timestamp, Zone},
};

type Pairs = [(String, String)];

/// The same place with absolute times, if a time was typed as people say it: the address of a page means the same
/// tomorrow.
pub(super) fn absolute(
    path: &str,
    pairs: &Pairs,
    (since, until): (Option<Timestamp>, Option<Timestamp>),
    zone: &Zone,
) -> Option<String> {
    let typed = |name: &str, value: &str| match name {
        "since" | "until" => value.parse::<Timestamp>().is_err(),
        "around" | "utc_offset" => true,
        _ => false,
    };
    if !pairs.iter().any(|(name, value)| typed(name, value)) {
        return None;
    }
    let shown = |at: Option<Timestamp>| at.map(|at| zone.show(at)).unwrap_or_default();
    let (since, until) = (shown(since), shown(until));
    let others = pairs.iter().map(|(name, value)| (&**name, &**value));
    let others = others.filter(|(name, _)| !matches!(*name, "since" | "until" | "around" | "utc_offset"));
    Some(link(path, others.chain([("since", &*since), ("until", &*until)])))
}

/// The same filter on another page.
pub(super) fn at(path: &str, pairs: &Pairs, before: Option<u64>) -> String {
    let before = before.map(|before| before.to_string()).unwrap_or_default();
    let others = pairs.iter().map(|(name, value)| (&**name, &**value)).filter(|(name, _)| *name != "before");
    link(path, others.chain([("before", &*before)]))
}

/// How far a search came whose time was over.
pub(super) fn stopped(stopped: Stopped, viewer: &Viewer) -> String {
    let t = viewer.t();
    stopped.back_to.map_or_else(|| t.stopped.to_owned(), |at| (t.searched_back_to)(&viewer.shown(at)))
}

/// What is wrong with a filter, and in which of its fields.
pub(super) fn wrong(problem: &Problem, labels: &[(&'static str, &'static str)], t: &Phrases) -> String {
    let name = problem.parameter().unwrap_or("?");
    let label = labels.iter().find(|(one, _)| *one == name).map_or(name, |(_, label)| label);
    (t.bad_parameter)(label, &t.cause(&problem.to_string()))
}
