//! What happened to one command, from its acceptance to what the approver sees.

use serde::Serialize;

use super::{OutcomeRecord, Surface};
use crate::{
    command::{Seq, outcome::Kind},
    time::Timestamp,
};

/// Something that happened to a command. Written as one object with a member `event`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When; `None` if the ledger does not know.
    pub at: Option<Timestamp>,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// It was received; the answer was given after it was committed.
    Accepted,
    /// Its turn came while an earlier command of its task was not published: it waits for that one.
    Waiting,
    /// The broker refused it, returned it, or ended the session over it.
    Refused {
        /// The number of the attempt, since the last requeue.
        attempt: u32,
        /// The broker's words.
        reason: String,
    },
    /// The broker confirmed it and it was routed; `at` is when that was noted.
    Published {
        /// It was noted at this time or later, and at `at` or before: a second apart at the most.
        not_before: Option<Timestamp>,
        /// The exchange; `None` if the ledger does not know.
        exchange: Option<String>,
        /// The routing key.
        routing_key: String,
    },
    /// A worker reported what became of it: the last report, which stands for those before.
    Reported {
        /// What became of it.
        outcome: Kind,
        /// How many reports it superseded.
        superseded: u32,
    },
    /// A worker's report was refused: it spoke of what is not this command's. Of each command the newest are known.
    ReportRefused {
        /// What the worker says became of the command.
        outcome: Kind,
        /// Why.
        reason: String,
    },
    /// The approval center took the outcome.
    Shown {
        /// Where it is shown.
        surface: Surface,
        /// The id of the bot message or of the instance.
        target: String,
    },
    /// An operator had it published again.
    RequeuedByOperator,
    /// An operator set it aside.
    ParkedByOperator,
    /// An operator had its outcome shown again.
    ShownAgainByOperator,
}

/// What the broker said of a command as an exception, and whether the cursor had passed it by then.
pub(super) type Said = (Event, bool);

/// A report that was refused: when, what it says, and why.
pub(super) type RefusedReport = (Timestamp, Kind, String);

/// Whether the cursor passed a command because it was published, and not because it had an exception.
pub(super) fn left_in_order(seq: Seq, cursor: Seq, said: &[Said], acts: &[Event]) -> bool {
    let first = said.first();
    if seq > cursor || first.is_some_and(|(_, passed)| !passed) {
        return false;
    }
    // Only what is pending can be parked: an operator who did so before all else took it out of the order.
    let act = acts.iter().find(|act| act.what != What::ShownAgainByOperator);
    let parked_first = act.is_some_and(|act| {
        act.what == What::ParkedByOperator && first.is_none_or(|(event, _)| act.at <= event.at)
    });
    !parked_first
}

/// All that is known to have happened to a command, in order of time. `published` is what the mark over its place says, if it
/// left the log in order.
pub(super) fn of(
    received_at: Timestamp,
    outcome: Option<&OutcomeRecord>,
    published: Option<Event>,
    said: Vec<Said>,
    acts: Vec<Event>,
    refused: Vec<RefusedReport>,
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
    later.extend(outcome.map(shown).into_iter().flatten());
    // Stable: what has the same time stays as it was found.
    later.sort_by_key(|event| event.at);
    events.append(&mut later);
    events
}

/// What became of it at the worker, and at the approval center.
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
