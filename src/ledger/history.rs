//! What happened to one command, from its acceptance to what the approver sees.

use serde::Serialize;

use super::Surface;
use crate::{command::outcome::Kind, time::Timestamp};

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
