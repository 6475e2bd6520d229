//! What the relay needs: commands to publish, and how publishing ended.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::{AcceptError, LookError, State, state};
use crate::{
    command::{CommandId, Seq, TaskKey, message::Envelope},
    time::Timestamp,
};

/// A committed command, as the relay needs it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its place in the log.
    pub seq: Seq,
    /// Commands with the same key are published in order.
    pub task_key: TaskKey,
    /// What the broker gets besides the body.
    pub envelope: Envelope,
    /// The rendered message.
    pub body: Vec<u8>,
}

/// An exception that is due.
#[derive(Debug, Clone)]
pub struct Due {
    /// The command.
    pub entry: Entry,
    /// Refusals so far.
    pub attempts: u32,
}

/// What the broker answered, written in one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Settlement {
    /// Everything up to here was confirmed and routed, or has an exception. Never moves back.
    pub through: Option<Seq>,
    /// New and changed exceptions.
    pub exceptions: Vec<Exception>,
    /// Exceptions whose command was finally confirmed and routed.
    pub cleared: Vec<Seq>,
    /// The exchange published to, for the history.
    pub exchange: Option<Arc<str>>,
}

/// A command whose state is not the one its place in the log says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Exception {
    /// The command.
    pub seq: Seq,
    /// What happens next.
    pub state: state::Exceptional,
    /// How often the broker refused it; 0 while it only waits for an earlier command of its task.
    pub attempts: u32,
    /// When it is tried again.
    pub next_attempt_at: Timestamp,
    /// Why, for an operator. Contains no secret and nothing of the message.
    pub reason: String,
}

/// Place and state of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its place in the log.
    pub seq: Seq,
    /// Its derived state.
    pub state: State,
    /// Refusals by the broker so far; `None` without an exception.
    pub attempts: Option<u32>,
    /// Its task.
    pub task_key: TaskKey,
}

/// The outbox of the current term; `None` while this process is not the leader.
pub type Term = Option<Arc<dyn Outbox>>;

/// Which process publishes. Of several processes with one ledger, one at a time is the leader.
pub trait Leadership: Send + Sync {
    /// The current term, and every change of it.
    ///
    /// Each term has its own outbox. What was read through it, including [`Outbox::head`], is valid in that term only:
    /// a ledger whose server failed over may have lost the end of its log. The relay starts over with each term.
    fn term(&self) -> watch::Receiver<Term>;

    /// Names the process that leads, as far as this one knows; `None` if it knows of none, or the ledger can have one process
    /// only.
    fn leader(&self) -> Option<String>;

    /// Ends the term, and leaves the lead to other processes for two seconds. If none has taken it by then, this process leads
    /// again, in another term. Returns at once: [`Leadership::term`] tells when the term has ended.
    ///
    /// True if this process led and others may: a ledger cannot know whether there are any. False, and nothing changes, if it
    /// did not lead, or the ledger can have one process only.
    fn resign(&self) -> bool;
}

/// The outbox, for a single reader.
///
/// Cancel safe: what was handed over is carried out even if nobody waits for the answer.
pub trait Outbox: Send + Sync {
    /// The highest committed [`Seq`]. Changes after every commit that appended; never moves back.
    fn head(&self) -> watch::Receiver<Seq>;

    /// Takes recently committed commands that are still in memory: in order, possibly with gaps, possibly none. For one
    /// reader, the relay.
    fn take_fresh(&self) -> Vec<Entry>;

    /// Sets whether somebody takes fresh commands; otherwise none are kept in memory.
    fn keep_fresh(&self, wanted: bool);

    /// The current cursor.
    fn cursor(&self) -> BoxFuture<'static, Result<Seq, LookError>>;

    /// Up to `limit` commands after `seq`, in order, without exceptions.
    fn since(&self, seq: Seq, limit: usize) -> BoxFuture<'static, Result<Vec<Entry>, LookError>>;

    /// Up to `limit` exceptions due at `now`: the longest due, in order of [`Seq`].
    ///
    /// So each gets its turn: the first of the log may be due again before there was room for others.
    fn due(&self, now: Timestamp, limit: usize) -> BoxFuture<'static, Result<Vec<Due>, LookError>>;

    /// Every `retrying` or `requeued` exception with the key of its task. Later commands of these tasks wait.
    fn waiting_tasks(&self) -> BoxFuture<'static, Result<Vec<(TaskKey, Seq)>, LookError>>;

    /// Place and state of a command.
    fn standing(&self, command_id: CommandId) -> BoxFuture<'static, Result<Option<Standing>, LookError>>;

    /// Whether the command at this place is [`State::Pending`].
    fn is_pending(&self, seq: Seq) -> BoxFuture<'static, Result<bool, LookError>>;

    /// Writes what the broker answered. Resolves after commit. The commit may share the sync of the next accepts:
    /// losing a settlement only means publishing again.
    fn settle(&self, settlement: Settlement) -> BoxFuture<'static, Result<(), AcceptError>>;
}
