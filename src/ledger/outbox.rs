//! What is to be published, and what became of it: what the relay needs.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::{AcceptError, LookError, State, state};
use crate::{
    command::{CommandId, Seq, TaskKey, message::Envelope},
    time::Timestamp,
};

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

/// Where a command stands.
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

/// The outbox of the term in which this process is the leader, `None` while it is not.
pub type Term = Option<Arc<dyn Outbox>>;

/// Who publishes. Of several processes with one ledger one is the leader at a time.
pub trait Leadership: Send + Sync {
    /// The current term, and every change of it.
    ///
    /// Each term has an outbox of its own. All that was read through it, and [`Outbox::head`], holds for that term only: a
    /// ledger whose server failed over may have forgotten the end of its log. Who publishes begins again with the next.
    fn term(&self) -> watch::Receiver<Term>;

    /// Names the process that leads, as far as this one knows; `None` if it knows of none, or the ledger can have one process
    /// only.
    fn leader(&self) -> Option<String>;
}

/// The outbox, for its one reader.
///
/// May be dropped while it waits: what was handed over is carried out whether or not somebody still waits for the answer.
pub trait Outbox: Send + Sync {
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

    /// Where a command stands.
    fn standing(&self, command_id: CommandId) -> BoxFuture<'static, Result<Option<Standing>, LookError>>;

    /// Whether the command at this place in the log is [`State::Pending`].
    fn is_pending(&self, seq: Seq) -> BoxFuture<'static, Result<bool, LookError>>;

    /// Writes what the relay learned. Resolves after commit; the commit may share the sync of the next accepts, since
    /// a settlement that is lost only means publishing again.
    fn settle(&self, settlement: Settlement) -> BoxFuture<'static, Result<(), AcceptError>>;
}
