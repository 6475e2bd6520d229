//! Filters of the pages, with the names of the JSON API, so that one can be made from the other.

use super::link;
use crate::{
    command::CommandId,
    console::{
        Desk,
        api::{self, Span},
        problem::Problem,
    },
    ledger::{ActFilter, ActKind, Filter, RefusalFilter},
    time::{Timestamp, Zone},
};

/// Entries on one page.
pub(super) const PAGE: usize = 50;

type Pairs = [(String, String)];

/// A filter of decisions, with room for the entry that shows whether there are more.
pub(super) fn decisions(pairs: &Pairs, zone: &Zone) -> Result<Filter, Problem> {
    let mut filter = Filter { limit: PAGE + 1, ..Filter::default() };
    let mut span = Span::in_zone(zone);
    for (name, value) in pairs {
        match &**name {
            "state" => filter.state = Some(api::state(value)?),
            "endpoint" => filter.endpoint = Some(value.clone()),
            "instance_id" => filter.instance_id = Some(value.clone()),
            "task_id" => filter.task_id = Some(value.clone()),
            "user_id" => filter.user_id = Some(value.clone()),
            "message_id" => filter.message_id = Some(api::message_id(value.clone())?),
            "outcome" => filter.outcome = Some(api::outcome(value)?),
            "before" => filter.before = Some(api::before(value)?),
            _ if span.take(name, value)? => {}
            _ => return Err(api::unknown(name)),
        }
    }
    (filter.since, filter.until) = span.bounds()?;
    Ok(filter)
}

/// A filter of refused callbacks.
pub(super) fn refusals(desk: &Desk, pairs: &Pairs, zone: &Zone) -> Result<RefusalFilter, Problem> {
    let mut filter = RefusalFilter { limit: PAGE + 1, ..RefusalFilter::default() };
    let mut span = Span::in_zone(zone);
    for (name, value) in pairs {
        match &**name {
            "reason" => filter.reason = Some(api::known_reason(&desk.reasons.words, value.clone())?),
            "endpoint" => filter.endpoint = Some(value.clone()),
            "instance_id" => filter.instance_id = Some(value.clone()),
            "task_id" => filter.task_id = Some(value.clone()),
            "user_id" => filter.user_id = Some(value.clone()),
            "message_id" => filter.message_id = Some(api::message_id(value.clone())?),
            "before" => filter.before = Some(api::before(value)?),
            _ if span.take(name, value)? => {}
            _ => return Err(api::unknown(name)),
        }
    }
    (filter.since, filter.until) = span.bounds()?;
    Ok(filter)
}

/// A filter of acts.
pub(super) fn acts(pairs: &Pairs, zone: &Zone) -> Result<ActFilter, Problem> {
    let mut filter = ActFilter { limit: PAGE + 1, ..ActFilter::default() };
    let mut span = Span::in_zone(zone);
    for (name, value) in pairs {
        match &**name {
            "act" => {
                let words =
                    || ActKind::ALL.iter().copied().map(ActKind::as_str).collect::<Vec<_>>().join(", ");
                let unknown = |_| Problem::bad_parameter("act", format!("Must be one of: {}.", words()));
                filter.kind = Some(value.parse().map_err(unknown)?);
            }
            "actor" => filter.actor = Some(value.clone()),
            "context" => filter.context = Some(value.clone()),
            "command_id" => {
                let id = CommandId::parse(value);
                filter.command_id =
                    Some(id.ok_or_else(|| Problem::bad_parameter("command_id", "Is not a UUID."))?);
            }
            "before" => filter.before = Some(api::before(value)?),
            _ if span.take(name, value)? => {}
            _ => return Err(api::unknown(name)),
        }
    }
    (filter.since, filter.until) = span.bounds()?;
    Ok(filter)
}

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
