//! What workers report of commands, and how it is shown to the approver.

use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::time::Timestamp;
use futures_util::future::BoxFuture;

use super::{AcceptError, LookError, acts::By};
use crate::command::{
    Action, CommandId,
    outcome::{CardStatus, Kind, Outcome},
};

/// Where an outcome is shown.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, IntoStaticStr, VariantArray, EnumString,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Surface {
    /// On the card of the approval bot, if the command came from one.
    Card,
    /// In the instance, if the worker gave it.
    Instance,
}

impl Surface {
    /// All of them.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The word in the ledger, the API and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How far the showing of an outcome has come.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, IntoStaticStr, VariantArray, EnumString,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum ShowingState {
    /// Nothing to show: the command did not come from a card, and the worker gave no instance.
    Nothing,
    /// To be shown, now or at the next attempt.
    Waiting,
    /// The approval center accepted it.
    Shown,
    /// The approval center rejected it; an operator must act.
    Parked,
}

impl ShowingState {
    /// All of them.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The word in the ledger, answers and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The state of the whole outcome: of its surfaces' states, the one that needs attention first.
    #[must_use]
    pub fn of_all(states: impl IntoIterator<Item = Self>) -> Self {
        let weight = |state: &Self| match state {
            Self::Nothing => 0,
            Self::Shown => 1,
            Self::Waiting => 2,
            Self::Parked => 3,
        };
        states.into_iter().max_by_key(weight).unwrap_or(Self::Nothing)
    }
}

/// The answer of [`Outcomes::report`].
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// Committed and synced now; to be shown.
    Kept,
    /// The last report of this command said the same; nothing was written.
    Repeat,
    /// The ledger does not have the command, or no longer.
    UnknownCommand,
}

/// A showing that is due.
#[derive(Debug, Clone)]
pub struct Showing {
    /// Grows with every report. Each card or instance shows them in this order.
    pub id: i64,
    /// The command.
    pub command_id: CommandId,
    /// Where.
    pub surface: Surface,
    /// The id of the bot message or instance.
    pub target: String,
    /// Failed attempts.
    pub attempts: u32,
    /// What the approver decided.
    pub action: Action,
    /// The outcome.
    pub kind: Kind,
    /// The status for the card, if the worker gave one.
    pub status: Option<CardStatus>,
    /// The worker's words.
    pub message: Option<String>,
    /// The instance as the worker gave it, if that is to be shown.
    pub instance: Option<String>,
    /// The `update_time` of the instance's last synchronisation.
    pub version: Option<i64>,
}

/// The result of a [`Showing`].
#[derive(Debug, Clone)]
pub struct Shown {
    /// Its id.
    pub id: i64,
    /// Its command.
    pub command_id: CommandId,
    /// The id of the bot message or instance.
    pub target: String,
    /// How it ended.
    pub end: ShowingEnd,
}

/// How an attempt to show ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShowingEnd {
    /// The approval center accepted it.
    Shown {
        /// For an instance: the `update_time` it was synchronised with.
        version: Option<i64>,
    },
    /// To be tried again.
    Again {
        /// When.
        at: Timestamp,
        /// Why, for an operator. Contains no secret.
        reason: String,
    },
    /// It was rejected.
    Parked {
        /// Why, for an operator. Contains no secret.
        reason: String,
    },
}

/// The answer of [`Outcomes::show_again`].
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShowAgain {
    /// It is shown again soon.
    Ordered,
    /// No worker has reported on this command.
    NoOutcome,
    /// The outcome has nothing to show.
    NothingToShow,
    /// The ledger has no such command.
    UnknownCommand,
}

/// The outcome of a command, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct OutcomeRecord {
    /// The outcome.
    pub outcome: Kind,
    /// The status for the card, if the worker gave one.
    pub status: Option<CardStatus>,
    /// The worker's words.
    pub message: Option<String>,
    /// When it was reported.
    pub reported_at: Timestamp,
    /// How many outcomes it superseded.
    pub superseded: u32,
    /// How far showing it has come, card and instance together.
    pub showing: ShowingState,
    /// The card, if the command came from one.
    pub card: Option<ShowingRecord>,
    /// The instance, if the worker gave one.
    pub instance: Option<ShowingRecord>,
}

/// The showing of an outcome in one place, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ShowingRecord {
    /// The id of the bot message or instance.
    pub id: String,
    /// How far it has come.
    pub state: ShowingState,
    /// When the approval center accepted it.
    pub shown_at: Option<Timestamp>,
    /// Failed attempts since the report or an operator's request.
    pub attempts: u32,
    /// When it is tried again.
    pub next_attempt_at: Option<Timestamp>,
    /// Why it is not shown, or what an operator did.
    pub note: Option<String>,
}

/// A refused report of a command that the ledger has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedReport {
    /// The command.
    pub command_id: CommandId,
    /// The outcome that the worker claims.
    pub kind: Kind,
    /// Why it was refused.
    pub reason: String,
}

/// Stores reports of workers. [`super::Ledger`] says what applies to every method.
pub trait Outcomes: Send + Sync + 'static {
    /// Keeps a report, or finds that it says nothing new, by the rules in [`crate::command::outcome`]. If it `shows`,
    /// its showings wait from then on. It closes a dead letter of the command.
    ///
    /// Resolves after commit and sync; several reports may share one.
    fn report(&self, outcome: Outcome, shows: bool) -> BoxFuture<'static, Result<Reported, AcceptError>>;

    /// Records that a report was refused, for people who look at the command. Only the newest of each command are kept.
    /// Does nothing if the ledger does not have the command.
    ///
    /// Resolves after commit and sync.
    fn refuse_report(&self, refused: RefusedReport) -> BoxFuture<'static, Result<(), AcceptError>>;

    /// Up to `limit` showings to try at `now`: for each card and instance the first that waits, if it is due.
    fn showings(&self, now: Timestamp, limit: usize) -> BoxFuture<'static, Result<Vec<Showing>, LookError>>;

    /// Writes the results of showings. A superseded showing stays as it is, except for the version of its instance.
    fn settle_showings(&self, shown: Vec<Shown>) -> BoxFuture<'static, Result<(), AcceptError>>;

    /// Shows the outcome of a command again for an operator, whatever its state.
    fn show_again(&self, command_id: CommandId, by: By)
    -> BoxFuture<'static, Result<ShowAgain, AcceptError>>;
}

#[cfg(test)]
mod tests {
    use super::{
        ShowingState::{Nothing, Parked, Shown, Waiting},
        *,
    };

    #[test]
    fn the_words_are_a_contract_and_read_back() {
        let states = ["nothing", "waiting", "shown", "parked"];
        assert!(ShowingState::ALL.iter().copied().map(ShowingState::as_str).eq(states));
        assert!(Surface::ALL.iter().copied().map(Surface::as_str).eq(["card", "instance"]));
        assert_eq!(states.map(str::parse), [Nothing, Waiting, Shown, Parked].map(Ok));
        assert_eq!(["card", "instance"].map(str::parse), [Surface::Card, Surface::Instance].map(Ok));
        assert_eq!(serde_json::to_value(ShowingState::ALL).unwrap(), serde_json::json!(states));
        assert_eq!(serde_json::to_value(Surface::ALL).unwrap(), serde_json::json!(["card", "instance"]));
    }

    #[test]
    fn an_outcome_as_a_whole_is_what_has_to_be_looked_at_first() {
        assert_eq!(ShowingState::of_all([]), Nothing);
        assert_eq!(ShowingState::of_all([Shown]), Shown);
        assert_eq!(ShowingState::of_all([Shown, Waiting]), Waiting);
        assert_eq!(ShowingState::of_all([Parked, Waiting]), Parked);
    }
}
