//! What an operator may do to commands, with or without a running service.

use futures_util::future::BoxFuture;

use super::{
    LookError,
    acts::{By, NewAct},
    requeue::{Requeue, RequeueStep},
    state::{Exceptional, IllegalMove},
};
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
    /// The ledger has no such act, or it requeues nothing.
    #[error("the ledger has no act {0} that requeues by a filter")]
    NoSuchAct(u64),
    /// The act is not where a step begins.
    #[error("another process continues the act {0}")]
    Overtaken(u64),
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
    /// Publishes a parked or published command again, or one that came back. The relay finds it within a second or two.
    ///
    /// [`ActError::Illegal`] if the command is pending.
    fn requeue(&self, command_id: CommandId, by: By) -> BoxFuture<'static, Result<(), ActError>>;

    /// Sets a pending command aside until it is requeued.
    ///
    /// [`ActError::Illegal`] if the command is not pending.
    fn park(&self, command_id: CommandId, by: By) -> BoxFuture<'static, Result<(), ActError>>;

    /// Requeues all parked commands or none, in one act; returns their ids.
    fn requeue_parked(&self, by: By) -> BoxFuture<'static, Result<Vec<CommandId>, ActError>>;

    /// Writes down an act that changes nothing yet, such as [`Requeue::act`]; returns its number.
    fn begin(&self, act: NewAct) -> BoxFuture<'static, Result<u64, ActError>>;

    /// Begins an act that goes on where another has stopped that requeues what passes a filter; returns its number and where
    /// it is. So each part tells who did it. The other goes no further, even if a process still tries.
    ///
    /// [`ActError::NoSuchAct`] if there is no such act, [`ActError::Overtaken`] if it is finished, or was continued before.
    fn resume(&self, act: u64, by: By) -> BoxFuture<'static, Result<(u64, Requeue), ActError>>;

    /// Requeues the commands of one step, and writes down how far the act has come. Commands that are pending, or gone,
    /// are passed over.
    ///
    /// [`ActError::NoSuchAct`] if there is no such act, [`ActError::Overtaken`] if it is not where the step begins.
    fn requeue_step(&self, step: RequeueStep) -> BoxFuture<'static, Result<Requeue, ActError>>;

    /// Shows the outcome of a command again: what was rejected or waits, or everything if everything is shown.
    ///
    /// [`ActError::NoOutcome`] and [`ActError::NothingToShow`] if there is nothing to show.
    fn show_again(&self, command_id: CommandId, by: By) -> BoxFuture<'static, Result<(), ActError>>;

    /// Shows all rejected outcomes again or none, in one act; returns the ids of their commands.
    fn show_parked_again(&self, by: By) -> BoxFuture<'static, Result<Vec<CommandId>, ActError>>;

    /// Removes these strays; returns how many there were. One act, if there were any.
    fn remove_strays(&self, ids: Vec<u64>, by: By) -> BoxFuture<'static, Result<u64, ActError>>;

    /// How many published commands received before `before` the ledger holds.
    fn prunable(&self, before: Timestamp) -> BoxFuture<'static, Result<u64, ActError>>;

    /// Removes the published commands received before `before`, oldest first, and returns how many. Pending and parked
    /// commands stay. Calls `progress` after each small transaction with the count so far. On error, what was removed
    /// stays removed. All of it is one act, if anything was removed.
    fn prune(
        &self,
        before: Timestamp,
        by: By,
        progress: Progress,
    ) -> BoxFuture<'static, Result<u64, ActError>>;
}

/// The note of an exception that an operator made.
pub(super) fn note(state: Exceptional) -> &'static str {
    match state {
        Exceptional::Parked => "parked by an operator",
        Exceptional::Retrying | Exceptional::Requeued => "requeued by an operator",
    }
}

/// Called with an increasing count.
pub type Progress = Box<dyn FnMut(u64) + Send>;
