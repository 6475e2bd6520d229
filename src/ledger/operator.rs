//! What an operator may do to commands, whether or not a service is running.

use futures_util::future::BoxFuture;

use super::{LookError, state::IllegalMove};
use crate::{
    command::{CommandId, Seq},
    time::Timestamp,
};

/// Why an act was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// The ledger has no such command.
    #[error("the ledger has no command {0}")]
    NotFound(CommandId),
    /// The log has no command at this place.
    #[error("the ledger has no command with seq {0}")]
    NoSuchPlace(Seq),
    /// The command's state does not allow it.
    #[error(transparent)]
    Illegal(#[from] IllegalMove),
    /// No worker has reported anything of this command, or this ledger is of a program that asked for no reports.
    #[error("no worker has reported an outcome of it")]
    NoOutcome,
    /// There is an outcome, and nothing of it to show.
    #[error("it did not come from a card, and its outcome has no instance")]
    NothingToShow,
    /// The ledger failed; the cause is in `source`.
    #[error("the ledger could not be written")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<LookError> for ActError {
    fn from(error: LookError) -> Self {
        Self::Failed(error.source)
    }
}

/// The acts of an operator. Each is one short transaction, and recorded.
///
/// May be dropped while it waits: an act that has begun is carried out.
pub trait OperatorActs: Send + Sync {
    /// Has a command published again that is parked or was published. The relay finds it within a second or two.
    ///
    /// [`ActError::Illegal`] for a command that is still pending.
    fn requeue(&self, command_id: CommandId) -> BoxFuture<'static, Result<(), ActError>>;

    /// Takes a pending command out of the way, until it is requeued.
    ///
    /// [`ActError::Illegal`] for a command that is not pending.
    fn park(&self, command_id: CommandId) -> BoxFuture<'static, Result<(), ActError>>;

    /// Requeues everything that is parked, or nothing; returns what it was.
    fn requeue_parked(&self) -> BoxFuture<'static, Result<Vec<CommandId>, ActError>>;

    /// Shows the outcome of a command again: what of it was rejected or waits; all of it if all of it is shown.
    ///
    /// [`ActError::NoOutcome`] and [`ActError::NothingToShow`] if there is nothing to show.
    fn show_again(&self, command_id: CommandId) -> BoxFuture<'static, Result<(), ActError>>;

    /// Shows every rejected outcome again, or none; returns their commands.
    fn show_parked_again(&self) -> BoxFuture<'static, Result<Vec<CommandId>, ActError>>;

    /// How many published commands that were received before `before` the ledger holds.
    fn prunable(&self, before: Timestamp) -> BoxFuture<'static, Result<u64, ActError>>;

    /// Removes the published commands that were received before `before`, the oldest first, and returns how many. What
    /// is pending or parked stays. After each small transaction `progress` is called with how many it were so far. On an
    /// error what was removed before stays removed.
    fn prune(&self, before: Timestamp, progress: Progress) -> BoxFuture<'static, Result<u64, ActError>>;
}

/// Called with a count that grows.
pub type Progress = Box<dyn FnMut(u64) + Send>;
