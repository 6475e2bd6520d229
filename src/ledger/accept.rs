//! Keeping commands and refused callbacks: what the accept path needs.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{AcceptError, Dropped, RefusedCallback};
use crate::command::{Command, CommandId, Fingerprint, Registered};

/// What [`Accept::accept`] is asked to keep.
#[derive(Debug)]
pub struct Acceptance {
    /// The command. `conflicts_with` and `repeats` are the ledger's to fill.
    pub command: Command,
    /// What makes its callback the same as another.
    pub fingerprint: Fingerprint,
    /// How long the same callback is a duplicate. A callback with a round is one for ever.
    pub window: Duration,
    /// How long the same callback, when it is none any more, is told as a repeat of the earlier one; and how long a
    /// contradiction is.
    pub repeats_window: Duration,
    /// What to do with a different action by the same operator on the same task within `window`.
    pub on_conflict: OnConflict,
}

/// What to do with a decision that contradicts an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// Keep and publish it, naming the earlier one.
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
        /// The id of the command it became then.
        command_id: CommandId,
    },
    /// Contradicts an earlier decision, and conflicts are refused; nothing was written.
    Conflicting {
        /// The earlier command.
        with: CommandId,
    },
}

/// What the accept path does.
///
/// May be dropped while it waits: what was handed over is carried out whether or not somebody still waits for the answer.
pub trait Accept: Send + Sync {
    /// Keeps a command, or finds that it was kept before.
    ///
    /// INVARIANT 1: resolves to [`Receipt::Accepted`] only after commit and sync. On an error nothing was promised; the
    /// command may or may not be there, and its repeat finds out.
    fn accept(&self, acceptance: Acceptance) -> BoxFuture<'static, Result<Receipt, AcceptError>>;

    /// Keeps a refused callback, soon and if there is room; never waits and never fails the caller. Strangers have room of
    /// their own, and wait behind all others.
    fn refused(&self, refused: RefusedCallback);

    /// How many refused callbacks were not kept.
    fn refusals_dropped(&self) -> Dropped;

    /// What a callback is registered for, even if it has expired: by the key, else by the bot message. For the accept path: by local
    /// data only, and without waiting for the writer. The cause of an error is logged where it arises.
    fn registered(
        &self,
        key: Option<String>,
        message_id: Option<u64>,
    ) -> BoxFuture<'static, Result<Option<Registered>, AcceptError>>;
}
