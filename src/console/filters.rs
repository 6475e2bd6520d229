//! The filters of lists, as a query writes them: the same for the JSON API and the pages, so that one can be made from the
//! other.

use super::problem::Problem;
use crate::{
    command::{Action, CommandId, Seq},
    ledger::{AROUND, ActFilter, ActKind, Filter, OutcomeFilter, RefusalFilter, State},
    time::{Timestamp, Zone, parse},
};

/// Entries on a page, unless it is said.
pub(super) const DEFAULT_LIMIT: usize = 50;

const MAX_LIMIT: usize = 500;

type Pairs = [(String, String)];

/// A filter of commands. Times without an offset are of `zone`.
pub(super) fn commands(pairs: &Pairs, zone: &Zone) -> Result<Filter, Problem> {
    let mut filter = Filter { limit: DEFAULT_LIMIT, ..Filter::default() };
    let mut span = Span::in_zone(zone);
    for (name, value) in pairs {
        match &**name {
            "state" => filter.state = Some(state(value)?),
            "endpoint" => filter.endpoint = Some(value.clone()),
            "action" => filter.action = Some(action(value)?),
            "instance_id" => filter.instance_id = Some(value.clone()),
            "task_id" => filter.task_id = Some(value.clone()),
            "user_id" => filter.user_id = Some(value.clone()),
            "message_id" => filter.message_id = Some(message_id(value)?),
            "outcome" => filter.outcome = Some(outcome(value)?),
            "before" => filter.before = Some(before(value)?),
            "limit" => filter.limit = limit(value)?,
            _ if span.take(name, value)? => {}
            _ => return Err(unknown(name)),
        }
    }
    (filter.since, filter.until) = span.bounds()?;
    Ok(filter)
}

/// A filter of refused callbacks, whose reason is one of these.
pub(super) fn refusals(reasons: &[&str], pairs: &Pairs, zone: &Zone) -> Result<RefusalFilter, Problem> {
    let mut filter = RefusalFilter { limit: DEFAULT_LIMIT, ..RefusalFilter::default() };
    let mut span = Span::in_zone(zone);
    for (name, value) in pairs {
        match &**name {
            "reason" => filter.reason = Some(known_reason(reasons, value)?),
            "endpoint" => filter.endpoint = Some(value.clone()),
            "peer" => filter.peer = Some(value.clone()),
            "instance_id" => filter.instance_id = Some(value.clone()),
            "task_id" => filter.task_id = Some(value.clone()),
            "user_id" => filter.user_id = Some(value.clone()),
            "message_id" => filter.message_id = Some(message_id(value)?),
            "before" => filter.before = Some(before(value)?),
            "limit" => filter.limit = limit(value)?,
            _ if span.take(name, value)? => {}
            _ => return Err(unknown(name)),
        }
    }
    (filter.since, filter.until) = span.bounds()?;
    Ok(filter)
}

/// A filter of acts.
pub(super) fn acts(pairs: &Pairs, zone: &Zone) -> Result<ActFilter, Problem> {
    let mut filter = ActFilter { limit: DEFAULT_LIMIT, ..ActFilter::default() };
    let mut span = Span::in_zone(zone);
    for (name, value) in pairs {
        match &**name {
            "command_id" => filter.command_id = Some(command_id(value)?),
            "context" => filter.context = Some(value.clone()),
            "act" => filter.kind = Some(kind(value)?),
            "actor" => filter.actor = Some(value.clone()),
            "before" => filter.before = Some(before(value)?),
            "limit" => filter.limit = limit(value)?,
            _ if span.take(name, value)? => {}
            _ => return Err(unknown(name)),
        }
    }
    (filter.since, filter.until) = span.bounds()?;
    Ok(filter)
}

/// The time range of a list, as written in the query.
struct Span {
    since: Option<String>,
    until: Option<String>,
    around: Option<String>,
    /// Of times without an offset.
    zone: Zone,
}

impl Span {
    fn in_zone(zone: &Zone) -> Self {
        Self { since: None, until: None, around: None, zone: zone.clone() }
    }

    /// Accepts a parameter; false if it does not belong to a time range.
    fn take(&mut self, name: &str, value: &str) -> Result<bool, Problem> {
        let place = match name {
            "since" => &mut self.since,
            "until" => &mut self.until,
            "around" => &mut self.around,
            "utc_offset" => {
                self.zone = Zone::at_offset(value).map_err(|error| unread(name, value, error))?;
                return Ok(true);
            }
            _ => return Ok(false),
        };
        *place = Some(value.to_owned());
        Ok(true)
    }

    /// The first and the last moment.
    fn bounds(&self) -> Result<(Option<Timestamp>, Option<Timestamp>), Problem> {
        let (now, zone) = (Timestamp::now(), &self.zone);
        let read = |name: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => parse(text, now, zone).map(Some).map_err(|error| unread(name, text, error)),
        };
        // Refuse a range in the future: it matches nothing, and usually yesterday or another offset was meant.
        let past = |name: &str, text: &Option<String>| match read(name, text)? {
            Some(at) if at > now => {
                Err(Problem::bad_parameter(name, format!("Is {}, which is in the future.", zone.show(at))))
            }
            read => Ok(read),
        };
        let Some(around) = past("around", &self.around)? else {
            return Ok((past("since", &self.since)?, read("until", &self.until)?));
        };
        if self.since.is_some() || self.until.is_some() {
            return Err(Problem::bad_parameter("around", "Cannot be given with `since` or `until`."));
        }
        Ok((Some(around - AROUND), Some(around + AROUND)))
    }
}

/// The error for a time or an offset that cannot be parsed.
fn unread(name: &str, value: &str, error: impl std::fmt::Display) -> Problem {
    // Forms decode a `+` as a blank.
    let hint = if value.contains(' ') { "; write a `+` in it as %2B" } else { "" };
    Problem::bad_parameter(name, format!("{value:?} {error}{hint}."))
}

pub(super) fn unknown(name: &str) -> Problem {
    Problem::bad_parameter(name, "Unknown parameter.")
}

fn state(value: &str) -> Result<State, Problem> {
    value.parse().map_err(|_| {
        let words = State::ALL.iter().copied().map(State::as_str).collect::<Vec<_>>().join(", ");
        Problem::bad_parameter("state", format!("Must be one of: {words}."))
    })
}

fn action(value: &str) -> Result<Action, Problem> {
    value.parse().map_err(|_| {
        let words = Action::ALL.iter().copied().map(Action::as_str).collect::<Vec<_>>().join(", ");
        Problem::bad_parameter("action", format!("Must be one of: {words}."))
    })
}

fn known_reason(reasons: &[&str], value: &str) -> Result<String, Problem> {
    if reasons.contains(&value) {
        return Ok(value.to_owned());
    }
    Err(Problem::bad_parameter("reason", format!("Must be one of: {}.", reasons.join(", "))))
}

fn outcome(value: &str) -> Result<OutcomeFilter, Problem> {
    OutcomeFilter::parse(value).ok_or_else(|| {
        let words = OutcomeFilter::ALL.map(OutcomeFilter::as_str).join(", ");
        Problem::bad_parameter("outcome", format!("Must be one of: {words}."))
    })
}

fn message_id(value: &str) -> Result<String, Problem> {
    match digits(value) {
        Some(_) => Ok(value.to_owned()),
        None => Err(Problem::bad_parameter("message_id", "The id of a card's message is a number.")),
    }
}

pub(super) fn before(value: &str) -> Result<Seq, Problem> {
    // The ledger uses signed 64-bit numbers.
    digits(value)
        .filter(|seq| (1..=i64::MAX as u64).contains(seq))
        .ok_or_else(|| Problem::bad_parameter("before", "Must be the next_before of the previous page."))
}

pub(super) fn limit(value: &str) -> Result<usize, Problem> {
    digits(value)
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|limit| (1..=MAX_LIMIT).contains(limit))
        .ok_or_else(|| Problem::bad_parameter("limit", format!("Must be a number from 1 to {MAX_LIMIT}.")))
}

/// Parses digits only; `parse` alone would also accept a sign.
pub(super) fn digits(value: &str) -> Option<u64> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())?
}

fn command_id(value: &str) -> Result<CommandId, Problem> {
    CommandId::parse(value).ok_or_else(|| Problem::bad_parameter("command_id", "Is not a UUID."))
}

fn kind(value: &str) -> Result<ActKind, Problem> {
    value.parse().map_err(|_| {
        let words = ActKind::ALL.iter().copied().map(ActKind::as_str).collect::<Vec<_>>().join(", ");
        Problem::bad_parameter("act", format!("Must be one of: {words}."))
    })
}
