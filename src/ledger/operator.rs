//! What an operator may do to commands, with or without a running service.

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
    /// No worker has reported on this command, or the ledger is from a program that asked for no reports.
    #[error("no worker has reported an outcome of it")]
    NoOutcome,
    /// The outcome has nothing to show.
    #[error("it did not come from a card, and its outcome has no instance")]
    NothingToShow,
    /// The ledger failed.
    #[error("the ledger could not be written")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<LookError> for ActError {
    fn from(error: LookError) -> Self {
        Self::Failed(error.source)
    }
}

/// An operator's acts. Each is one short, recorded transaction.
///
/// Cancel safe: an act that has begun is carried out.
pub trait OperatorActs: Send + Sync {
    /// Publishes a parked or published command again. The relay finds it within a second or two.
    ///
    /// [`ActError::Illegal`] if the command is pending.
    fn requeue(&self, command_id: CommandId) -> BoxFuture<'static, Result<(), ActError>>;

    /// Sets a pending command aside until it is requeued.
    ///
    /// [`ActError::Illegal`] if the command is not pending.
    fn park(&self, command_id: CommandId) -> BoxFuture<'static, Result<(), ActError>>;

    /// Requeues all parked commands or none; returns their ids.
    fn requeue_parked(&self) -> BoxFuture<'static, Result<Vec<CommandId>, ActError>>;

    /// Shows the outcome of a command again: what was rejected or waits, or everything if everything is shown.
    ///
    /// [`ActError::NoOutcome`] and [`ActError::NothingToShow`] if there is nothing to show.
    fn show_again(&self, command_id: CommandId) -> BoxFuture<'static, Result<(), ActError>>;

    /// Shows all rejected outcomes again or none; returns the ids of their commands.
    fn show_parked_again(&self) -> BoxFuture<'static, Result<Vec<CommandId>, ActError>>;

    /// Removes these strays; returns how many there were.
    fn remove_strays(&self, ids: Vec<u64>) -> BoxFuture<'static, Result<u64, ActError>>;

    /// How many published commands received before `before` the ledger holds.
    fn prunable(&self, before: Timestamp) -> BoxFuture<'static, Result<u64, ActError>>;

    /// Removes the published commands received before `before`, oldest first, and returns how many. Pending and parked
    /// commands stay. Calls `progress` after each small transaction with the count so far. On error, what was removed
    /// stays removed.
    fn prune(&self, before: Timestamp, progress: Progress) -> BoxFuture<'static, Result<u64, ActError>>;
}

/// Called with an increasing count.
pub type Progress = Box<dyn FnMut(u64) + Send>;
