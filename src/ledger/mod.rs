//! The ledger: durable accept, sameness, and what the broker has not confirmed yet.
//!
//! # Entities
//! - **Log.** `commands` is append-only. [`Seq`] counts 1, 2, 3 … without gaps; a row holds the rendered message and the
//!   few columns that people filter by.
//! - **Cursor.** Everything at or below it is published, unless an exception says otherwise.
//! - **Exception.** A row beside the log for a command that is not in the state its position says: `retrying` (the
//!   broker refused it, or it waits for an earlier command of its task), `parked` (an operator must act), `requeued`
//!   (an operator acted).
//! - **Window.** What was accepted within `dedupe_window`, and as far as there is room within `repeats_window`, in the writer's
//!   memory, rebuilt from the tail of the log.
//!   Fingerprints that have a round are kept for ever, in a table.
//! - **Context.** A row that the third party registered beforehand: which task a key or a bot message means, and who may
//!   do what with it. Kept for a week after it expired, so that "expired" can be told from "unknown".
//! - **Outcome.** What a worker reported of a command, the last word only; and a **showing** for its card and for its
//!   instance: `waiting`, `shown`, or `parked`. Pruned with the command, which stays as long as a showing waits.
//!
//! - **Mark.** When the cursor moved, to the second: when each command below it was published. What the broker said of
//!   exceptions has rows of its own; see [`history`].
//! - **Finding.** A row for a published command whose decision the approval center did not show when it was asked; see
//!   [`findings`]. Commands up to a place in the log were asked for; what has no row was shown.
//!
//! The state of a command is derived ([`state::State::of`]) and never stored twice.
//!
//! # Who writes what
//! One writer thread owns the only connection of `serve` that writes. [`Ledger::accept`] appends to the log;
//! [`Ledger::settle`] moves the cursor and writes exceptions, and only the relay calls it; [`Ledger::refused`] keeps the
//! refused callbacks; [`Ledger::register`] and [`Ledger::unregister`] write the contexts, the verbs of [`Outcomes`] what
//! workers report, and [`Findings::reconciled`] the findings, which the command line's `reconcile` writes as well. The
//! writer also prunes: contexts that expired, and published commands older than the retention, in small steps from the
//! old end. The command line's `ledger requeue` and `park` write exceptions, and `show-again` showings, from another
//! process, in a transaction of their own; they are found at the next look for what is due.
//!
//! # Invariants
//! 1. A receipt is given only after the transaction that holds the command was committed and synced.
//! 2. Sameness is looked up and written in that same transaction.
//! 3. A command leaves `pending` only by [`Ledger::settle`] or by an operator's recorded act.

mod contexts;
mod credentials;
pub mod findings;
pub mod history;
mod outcomes;
mod refusals;
pub mod sqlite;
pub mod state;

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::time::Timestamp;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::command::{
    Command, CommandId, Fingerprint, Registered, Seq, TaskKey, message::Envelope, outcome::Kind,
};
pub use contexts::{MAX_KEY_BYTES, Registering, Registration};
pub use credentials::CredentialUse;
pub use findings::{Finding, Findings, Verdict};
pub use outcomes::{
    OutcomeRecord, Outcomes, RefusedReport, Reported, ShowAgain, Showing, ShowingEnd, ShowingRecord,
    ShowingState, Shown, Surface,
};
pub use refusals::{AROUND, ContextTask, Dropped, KeptRefusal, RefusalFilter, Refused};
pub use state::State;

/// Where the ledger is and how much it may take on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The SQLite file. Its directory must exist and be on a local disk.
    pub path: PathBuf,
    /// Accepts that may wait for the writer; one more is refused as [`AcceptError::Overloaded`].
    pub queue_capacity: usize,
    /// Accepts in one commit at the most.
    pub max_batch: usize,
    /// What may change while it is open.
    pub limits: Limits,
}

/// What the ledger keeps and leaves; may change while it is open ([`Ledger::limit`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Refused callbacks kept of each kind; the oldest go first.
    pub refusals_kept: u64,
    /// The longest `dedupe_window` of any endpoint: how far back the window in memory reaches.
    pub longest_window: Duration,
    /// The longest `repeats_window` of any endpoint: how far back the window reaches as long as there is room. One that is made
    /// longer while the ledger is open fills as time passes.
    pub longest_repeats_window: Duration,
    /// Published commands older than this are pruned; `None` keeps them for ever. Nothing within the longest window is
    /// pruned, whatever this says, and nothing that is not published.
    pub retention: Option<Duration>,
    /// With less room than this on its disk nothing is accepted.
    pub min_free_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            refusals_kept: 10_000,
            longest_window: Duration::from_secs(60),
            longest_repeats_window: Duration::from_secs(24 * 3600),
            retention: Some(Duration::from_secs(90 * 86_400)),
            min_free_bytes: 64 << 20,
        }
    }
}

impl Limits {
    /// Published commands that were received before this are pruned.
    #[must_use]
    pub fn horizon(&self, now: Timestamp) -> Option<Timestamp> {
        /// The window counts from the moment of the commit; a command is received a little before.
        const MARGIN: Duration = Duration::from_secs(60);
        let kept = self.retention?.max(self.longest_window.saturating_add(MARGIN));
        Some(now - kept)
    }
}

/// What [`Ledger::accept`] is asked to keep.
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

/// The answer of [`Ledger::accept`].
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

/// Why nothing was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// The queue to the writer is full.
    #[error("the queue to the ledger's writer is full")]
    Overloaded,
    /// The disk has less room than [`Limits::min_free_bytes`].
    #[error("the ledger's disk has too little room left")]
    NoRoom,
    /// The disk is full, read-only or broken, or the writer has stopped. The cause is logged by the writer.
    #[error("the ledger cannot keep anything now")]
    Unavailable,
}

/// A committed command as the relay needs it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its place in the log.
    pub seq: Seq,
    /// Commands with the same key are published in order.
    pub task_key: TaskKey,
    /// What the broker is told beside the body.
    pub envelope: Envelope,
    /// The rendered message.
    pub body: Vec<u8>,
}

/// An exception that is due: the command, and how often the broker has refused it.
#[derive(Debug, Clone)]
pub struct Due {
    /// The command.
    pub entry: Entry,
    /// Refusals so far.
    pub attempts: u32,
}

/// What the relay learned from the broker; written in one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Settlement {
    /// Everything up to here was confirmed and routed, or has an exception. Never moves back.
    pub through: Option<Seq>,
    /// New exceptions, and new states of old ones.
    pub exceptions: Vec<Exception>,
    /// Exceptions whose command was confirmed and routed at last.
    pub cleared: Vec<Seq>,
    /// The exchange that it was published to, for the history.
    pub exchange: Option<Arc<str>>,
}

/// A command that is not in the state its position in the log says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Exception {
    /// The command.
    pub seq: Seq,
    /// What is to happen with it.
    pub state: state::Exceptional,
    /// How often the broker has refused it; 0 while it only waits for an earlier command of its task.
    pub attempts: u32,
    /// When it is tried again.
    pub next_attempt_at: Timestamp,
    /// Why, in words for an operator. No secret, nothing of the message.
    pub reason: String,
}

/// What the writer holds in memory to know repeats and contradictions by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Remembered {
    /// Commands.
    pub commands: u64,
    /// Commands that were left out before `repeats_window` was over, because there were too many. Since the start.
    pub forgotten: u64,
}

/// Numbers for metrics, health and `ledger stats`.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Stats {
    /// Commands that the broker has not confirmed.
    pub pending: u64,
    /// Commands that it has, and that are still kept.
    pub published: u64,
    /// Commands that wait for an operator.
    pub parked: u64,
    /// When the oldest pending command was received.
    pub oldest_pending_at: Option<Timestamp>,
    /// Highest place in the log.
    pub head: Seq,
    /// The cursor.
    pub cursor: Seq,
    /// Refused callbacks kept.
    pub refusals: u64,
    /// Cards and instances on which an outcome is still to be shown.
    pub outcomes_pending: u64,
    /// Cards and instances for which an outcome was refused for good, and waits for an operator.
    pub outcomes_parked: u64,
    /// Size of the database file.
    pub size_bytes: Option<u64>,
    /// Size of the write-ahead log beside it.
    pub wal_bytes: Option<u64>,
    /// What is left on its disk for this user.
    pub free_bytes: Option<u64>,
    /// What is held in memory to know repeats by; `None` of a ledger that somebody else writes.
    #[serde(skip)]
    pub remembered: Option<Remembered>,
}

/// A command as people look at it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Record {
    /// Its place in the log.
    pub seq: Seq,
    /// Its id.
    pub command_id: CommandId,
    /// When it was received.
    pub received_at: Timestamp,
    /// Its derived state.
    pub state: State,
    /// Name of the endpoint.
    pub endpoint: String,
    /// `approve`, `reject` or `custom`.
    pub action: String,
    /// The operator.
    pub user_id: String,
    /// As in the callback.
    pub approval_code: Option<String>,
    /// As resolved.
    pub instance_id: Option<String>,
    /// As resolved.
    pub task_id: Option<String>,
    /// Refusals by the broker so far; `None` without an exception.
    pub attempts: Option<u32>,
    /// When it is tried again.
    pub next_attempt_at: Option<Timestamp>,
    /// Why it is not published, or what an operator did.
    pub note: Option<String>,
    /// What a worker reported of it, and how far that is shown.
    pub outcome: Option<OutcomeRecord>,
    /// The rendered message; only where one command is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Box<serde_json::value::RawValue>>,
    /// What the approval center shows of it; only where one command is looked at, and only once it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconciliation: Option<Finding>,
    /// What happened to it, in order of time; only where one command is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<Vec<history::Event>>,
}

/// Which commands to list; newest first.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only in this state.
    pub state: Option<State>,
    /// Only of this endpoint.
    pub endpoint: Option<String>,
    /// Only about this instance.
    pub instance_id: Option<String>,
    /// Only about this task.
    pub task_id: Option<String>,
    /// Only by this operator.
    pub user_id: Option<String>,
    /// Only from this card: the `message_id` of the callback.
    pub message_id: Option<String>,
    /// Only with this outcome.
    pub outcome: Option<OutcomeFilter>,
    /// Only received at this time or later.
    pub since: Option<Timestamp>,
    /// Only received before this time.
    pub until: Option<Timestamp>,
    /// Only with a lower [`Seq`]: the place where the page before ended.
    pub before: Option<Seq>,
    /// At most so many.
    pub limit: usize,
}

/// Which outcomes to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeFilter {
    /// No worker has reported one.
    None,
    /// The last report says this.
    Last(Kind),
}

impl OutcomeFilter {
    /// Every filter, in the order in which people read them.
    pub const ALL: [Self; 4] =
        [Self::Last(Kind::Applied), Self::Last(Kind::Refused), Self::Last(Kind::Failed), Self::None];

    /// The word in queries and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Last(kind) => kind.as_str(),
        }
    }

    /// The filter with this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|filter| filter.as_str() == word)
    }
}

/// A look into the ledger failed. The cause is in `source`.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} the ledger")]
pub struct LookError {
    /// What was tried, as a verb.
    pub operation: &'static str,
    /// The cause.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// What a ledger does, in verbs of the domain. SQLite now; PostgreSQL, for several replicas, is the same trait.
///
/// Every method may be called from any thread and may be dropped while it waits: what was handed over is carried out
/// whether or not somebody still waits for the answer.
pub trait Ledger: Findings + Outcomes {
    /// Keeps a command, or finds that it was kept before.
    ///
    /// INVARIANT 1: resolves to [`Receipt::Accepted`] only after commit and sync. On an error nothing was promised; the
    /// command may or may not be there, and its repeat finds out.
    fn accept(&self, acceptance: Acceptance) -> BoxFuture<'static, Result<Receipt, AcceptError>>;

    /// Keeps a refused callback, soon and if there is room; never waits and never fails the caller. Strangers have room of
    /// their own, and wait behind all others.
    fn refused(&self, refused: Refused);

    /// How many refused callbacks are not kept.
    fn refusals_dropped(&self) -> Dropped;

    /// The highest [`Seq`] that is committed; changes after every commit that appended. Never moves back.
    fn head(&self) -> watch::Receiver<Seq>;

    /// Takes the commands that were committed lately and are still in memory: in order, possibly with gaps, possibly
    /// none. For one reader, the relay.
    fn take_fresh(&self) -> Vec<Entry>;

    /// Tells whether anybody takes fresh commands; without a taker none are kept in memory.
    fn keep_fresh(&self, wanted: bool);

    /// The cursor as it stands.
    fn cursor(&self) -> BoxFuture<'static, Result<Seq, LookError>>;

    /// Up to `limit` commands after `seq`, in order, exceptions left out.
    fn since(&self, seq: Seq, limit: usize) -> BoxFuture<'static, Result<Vec<Entry>, LookError>>;

    /// Up to `limit` exceptions to be tried at `now`: those that have been due longest, in order of [`Seq`].
    ///
    /// So each has its turn. The first of the log may be due again before there was room for any other.
    fn due(&self, now: Timestamp, limit: usize) -> BoxFuture<'static, Result<Vec<Due>, LookError>>;

    /// Every `retrying` or `requeued` exception, with the key of its task: later commands of these tasks wait.
    fn waiting_tasks(&self) -> BoxFuture<'static, Result<Vec<(TaskKey, Seq)>, LookError>>;

    /// Writes what the relay learned. Resolves after commit; the commit may share the sync of the next accepts, since
    /// a settlement that is lost only means publishing again.
    fn settle(&self, settlement: Settlement) -> BoxFuture<'static, Result<(), AcceptError>>;

    /// The id of the command at a place in the log.
    fn id_at(&self, seq: Seq) -> BoxFuture<'static, Result<Option<CommandId>, LookError>>;

    /// One command with its message and its history.
    fn find(&self, command_id: CommandId) -> BoxFuture<'static, Result<Option<Record>, LookError>>;

    /// Commands, newest first.
    fn list(&self, filter: Filter) -> BoxFuture<'static, Result<Vec<Record>, LookError>>;

    /// Refused callbacks, newest first.
    fn refusals(&self, filter: RefusalFilter) -> BoxFuture<'static, Result<Vec<KeptRefusal>, LookError>>;

    /// Registers contexts, all of them or none; one whose key is known is replaced, whole.
    ///
    /// Resolves after commit and sync: a callback that is received from then on finds them. No two of one call may have
    /// the same key.
    fn register(
        &self,
        registrations: Vec<Registration>,
    ) -> BoxFuture<'static, Result<Registering, AcceptError>>;

    /// Removes the context with this key; false if there is none. Resolves after commit and sync.
    fn unregister(&self, key: String) -> BoxFuture<'static, Result<bool, AcceptError>>;

    /// The context with this key, be it expired, as it was registered. For people.
    fn registration(&self, key: String) -> BoxFuture<'static, Result<Option<Registration>, LookError>>;

    /// What a callback is registered for, be it expired: by the key, else by the bot message. For the accept path: by local
    /// data only, and without waiting for the writer. The cause of an error is logged where it arises.
    fn registered(
        &self,
        key: Option<String>,
        message_id: Option<u64>,
    ) -> BoxFuture<'static, Result<Option<Registered>, AcceptError>>;

    /// What is known of when credentials were used last.
    fn credential_uses(&self) -> BoxFuture<'static, Result<Vec<CredentialUse>, LookError>>;

    /// Merges this with what is known of credentials, and forgets those that are not in it. Resolves after commit.
    fn keep_credential_uses(&self, uses: Vec<CredentialUse>) -> BoxFuture<'static, Result<(), AcceptError>>;

    /// Numbers.
    fn stats(&self) -> BoxFuture<'static, Result<Stats, LookError>>;

    /// Changes what is kept and left, from the next commit on. A longer window than before reaches back as far as the log does.
    fn limit(&self, limits: Limits);

    /// Whether the writer still does anything at all, if only refuse: false when it has ended, pending for as long as it
    /// hangs. For a watchdog.
    fn answers(&self) -> BoxFuture<'static, bool>;

    /// Checks that a commit can be made now, by making one, and that there is room for more.
    fn probe(&self) -> BoxFuture<'static, Result<(), AcceptError>>;

    /// Commits what is queued and closes the writer. Accepts that come later are refused as unavailable.
    fn flush(&self) -> BoxFuture<'static, ()>;
}
