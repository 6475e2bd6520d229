//! What happened to one command, from acceptance to what the approver sees.

use serde::Serialize;
use serde_with::skip_serializing_none;

use super::{Actor, OutcomeRecord, Surface, Why, acts::ActKind};
use crate::{
    command::{Seq, outcome::Kind},
    time::Timestamp,
};

/// An event of a command. Serialized as one object with a member `event`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When; `None` if unknown.
    pub at: Option<Timestamp>,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// It was received; the response followed the commit.
    Accepted,
    /// Its turn came, but it waits for an earlier, unpublished command of its task.
    Waiting,
    /// The broker refused it, returned it, or ended the session because of it.
    Refused {
        /// The number of the attempt since the last requeue.
        attempt: u32,
        /// The broker's words.
        reason: String,
    },
    /// The broker confirmed and routed it; `at` is when that was recorded.
    Published {
        /// Recorded between this time and `at`, at most a second apart.
        not_before: Option<Timestamp>,
        /// The exchange; `None` if unknown.
        exchange: Option<String>,
        /// The routing key.
        routing_key: String,
    },
    /// It came back: a worker rejected it, a queue dropped it, or no queue was bound for it. Only the newest are kept.
    CameBack {
        /// Why.
        why: Why,
        /// The queue that it was in.
        queue: Option<String>,
    },
    /// A worker reported the outcome. The last report replaces earlier ones.
    Reported {
        /// The outcome.
        outcome: Kind,
        /// How many reports it superseded.
        superseded: u32,
    },
    /// A worker's report was refused: it named something that is not this command's. Only the newest are kept.
    ReportRefused {
        /// The outcome that the worker claims.
        outcome: Kind,
        /// Why.
        reason: String,
    },
    /// The approval center accepted the outcome.
    Shown {
        /// Where it is shown.
        surface: Surface,
        /// The id of the bot message or instance.
        target: String,
    },
    /// An operator requeued it.
    RequeuedByOperator(ByOperator),
    /// An operator parked it.
    ParkedByOperator(ByOperator),
    /// An operator had its outcome shown again.
    ShownAgainByOperator(ByOperator),
}

/// By whom, and why.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ByOperator {
    /// The number of the act.
    pub act_id: u64,
    /// By whom.
    pub actor: Actor,
    /// Why, in the actor's words.
    pub reason: Option<String>,
}

impl What {
    /// An act on a command.
    pub(super) fn act(kind: ActKind, by: ByOperator) -> Self {
        match kind {
            ActKind::Park => Self::ParkedByOperator(by),
            ActKind::ShowAgain => Self::ShownAgainByOperator(by),
            _ => Self::RequeuedByOperator(by),
        }
    }
}

/// What the broker said of a command with an exception, and whether the cursor had passed it by then.
pub(super) type Said = (Event, bool);

/// A refused report: when, the claimed outcome, and why.
pub(super) type RefusedReport = (Timestamp, Kind, String);

/// True if the cursor passed a command because it was published, not because it had an exception.
pub(super) fn left_in_order(seq: Seq, cursor: Seq, said: &[Said], acts: &[Event]) -> bool {
    let first = said.first();
    if seq > cursor || first.is_some_and(|(_, passed)| !passed) {
        return false;
    }
    // Only pending commands can be parked, so a park before all else took it out of order.
    let act = acts.iter().find(|act| !matches!(act.what, What::ShownAgainByOperator(_)));
    let parked_first = act.is_some_and(|act| {
        matches!(act.what, What::ParkedByOperator(_)) && first.is_none_or(|(event, _)| act.at <= event.at)
    });
    !parked_first
}

/// Everything known to have happened to a command, in order of time. `published` comes from the mark over its place, if
/// it left the log in order.
pub(super) fn of(
    received_at: Timestamp,
    outcome: Option<&OutcomeRecord>,
    published: Option<Event>,
    said: Vec<Said>,
    acts: Vec<Event>,
    refused: Vec<RefusedReport>,
    came_back: Vec<Event>,
) -> Vec<Event> {
    let mut events = vec![Event { at: Some(received_at), what: What::Accepted }];
    events.extend(published);
    let mut later: Vec<Event> = said.into_iter().map(|(event, _)| event).chain(acts).collect();
    later.extend(
        refused.into_iter().map(|(at, outcome, reason)| Event {
            at: Some(at),
            what: What::ReportRefused { outcome, reason },
        }),
    );
    later.extend(came_back);
    later.extend(outcome.map(shown).into_iter().flatten());
    // Stable: events with the same time keep their order.
    later.sort_by_key(|event| event.at);
    events.append(&mut later);
    events
}

/// The report and its showings.
fn shown(outcome: &OutcomeRecord) -> Vec<Event> {
    let what = What::Reported { outcome: outcome.outcome, superseded: outcome.superseded };
    let mut events = vec![Event { at: Some(outcome.reported_at), what }];
    for (surface, place) in [(Surface::Card, &outcome.card), (Surface::Instance, &outcome.instance)] {
        if let Some(place) = place
            && place.shown_at.is_some()
        {
            let what = What::Shown { surface, target: place.id.clone() };
            events.push(Event { at: place.shown_at, what });
        }
    }
    events
}
