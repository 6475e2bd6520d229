//! What the accept path needs: keeping commands and refused callbacks.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use super::{AcceptError, Dropped, Heard, RefusedCallback};
use crate::command::{Command, CommandId, Fingerprint, Registered};

/// Input of [`Accept::accept`].
#[derive(Debug)]
pub struct Acceptance {
    /// When work on its callback began. A ledger on a server lets the callback wait for 3 s from then at the most.
    pub since: Instant,
    /// The command. The ledger fills in `conflicts_with` and `repeats`.
    pub command: Command,
    /// Identifies the same callback.
    pub fingerprint: Fingerprint,
    /// How long the same callback is a duplicate. With a round, it always is.
    pub window: Duration,
    /// How long a later callback names the earlier command: the same one as `repeats`, a conflicting one as
    /// `conflicts_with`.
    pub repeats_window: Duration,
    /// What to do with a conflict within `window`: another action by the same operator on the same task.
    pub on_conflict: OnConflict,
}

/// What to do with a conflicting decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// Keep and publish it, naming the earlier command.
    #[default]
    Publish,
    /// Refuse it.
    Refuse,
}

/// The answer of [`Accept::accept`].
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// Committed and synced now.
    Accepted {
        /// The new command's id.
        command_id: CommandId,
    },
    /// The same callback was committed before; nothing was written.
    Duplicate {
        /// The id of its command.
        command_id: CommandId,
    },
    /// Conflicts with an earlier decision, and conflicts are refused; nothing was written.
    Conflicting {
        /// The earlier command.
        with: CommandId,
    },
}

/// The methods of the accept path.
///
/// Cancel safe: what was handed over is carried out even if nobody waits for the answer.
pub trait Accept: Send + Sync {
    /// Keeps a command, or finds that it is already kept.
    ///
    /// INVARIANT 1: resolves to [`Receipt::Accepted`] only after commit and sync. An error promises nothing: the
    /// command may or may not be kept, and a retry finds out.
    fn accept(&self, acceptance: Acceptance) -> BoxFuture<'static, Result<Receipt, AcceptError>>;

    /// Keeps a refused callback soon, if there is room. Never waits and never fails the caller. Strangers have room of
    /// their own and wait behind all others.
    fn refused(&self, refused: RefusedCallback);

    /// How many refused callbacks were not kept.
    fn refusals_dropped(&self) -> Dropped;

    /// The newest of those that were not kept, newest first, as far as this process remembers them. Reads no ledger, so it
    /// also tells why approvers see an error while there is none.
    fn newest_refusals_dropped(&self) -> Vec<RefusedCallback>;

    /// What a callback is registered for, even if expired: by key, else by bot message. For the accept path: reads
    /// local data only, and does not wait for the writer. Errors are logged where they occur.
    fn registered(
        &self,
        key: Option<String>,
        message_id: Option<u64>,
    ) -> BoxFuture<'static, Result<Option<Registered>, AcceptError>>;

    /// Waits until a worker's report of a command is in the ledger, which it may be already. `None` if there was none by
    /// the deadline. Never fails, and never takes longer: a ledger that cannot tell is one that has no report.
    fn heard(
        &self,
        command_id: CommandId,
        deadline: tokio::time::Instant,
    ) -> BoxFuture<'static, Option<Heard>>;
}
