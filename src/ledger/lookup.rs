//! Lookups for people and their programs.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{
    ActFilter, ActRecord, CredentialUse, Finding, Found, KeptRefusal, LookError, OutcomeRecord,
    RefusalFilter, State, Stray, history, search::Hint,
};
use crate::{
    command::{Action, CommandId, Seq, message, outcome::Kind},
    telemetry::traces::{self, TraceContext},
    time::Timestamp,
};

/// What the writer keeps in memory to detect repeats and conflicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Remembered {
    /// Commands.
    pub commands: u64,
    /// Commands dropped before `repeats_window` ended, because there were too many. Since the start.
    pub forgotten: u64,
}

/// Numbers for metrics, health and `ledger stats`.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Stats {
    /// Commands that the broker has not confirmed.
    pub pending: u64,
    /// Commands that it has confirmed and that are still kept.
    pub published: u64,
    /// Commands that wait for an operator.
    pub parked: u64,
    /// Published commands that a worker rejected or a queue dropped, not requeued since, without an outcome.
    pub rejected: u64,
    /// Published commands that no queue was bound for, not requeued since, without an outcome.
    pub unrouted: u64,
    /// When the oldest pending command was received.
    pub oldest_pending_at: Option<Timestamp>,
    /// Highest place in the log.
    pub head: Seq,
    /// The cursor.
    pub cursor: Seq,
    /// Refused callbacks kept.
    pub refusals: u64,
    /// Dead letters kept that are no command of this ledger.
    pub strays: u64,
    /// Cards and instances that do not show their outcome yet.
    pub outcomes_pending: u64,
    /// Cards and instances whose outcome is parked.
    pub outcomes_parked: u64,
    /// Size of the database file.
    pub size_bytes: Option<u64>,
    /// Size of the write-ahead log.
    pub wal_bytes: Option<u64>,
    /// Free space on its disk for this user.
    pub free_bytes: Option<u64>,
    /// Which replica publishes; `None` if none does at this moment, or the ledger has one process only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Synchronous standbys that are connected; `None` if that is not known, or the ledger is a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standbys: Option<u64>,
    /// What the writer keeps in memory; `None` if another process writes the ledger.
    #[serde(skip)]
    pub remembered: Option<Remembered>,
}

/// A command as people see it.
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
    /// What a worker reported, and how far it is shown.
    pub outcome: Option<OutcomeRecord>,
    /// The rendered message; only when one command is looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Box<serde_json::value::RawValue>>,
    /// What the approval center shows of it; only when one command is looked up, and only once checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconciliation: Option<Finding>,
    /// What happened to it, in order of time; only when one command is looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<Vec<history::Event>>,
    /// When the same callback came again, oldest first: a double tap, or a retry of the approval center. Only when one
    /// command is looked up, by the service, as far as this process remembers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicates_at: Option<Vec<Timestamp>>,
}

impl Record {
    /// The parent of the next step of the command's trace. Only of one that was looked up alone.
    #[must_use]
    pub fn trace(&self) -> TraceContext {
        let kept = self.command.as_ref().and_then(|command| message::trace_of(command.get().as_bytes()));
        kept.unwrap_or_else(|| traces::of_callback(None, self.command_id.as_bytes()))
    }
}

/// Which commands to list; newest first, unless `after` is given.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only in this state.
    pub state: Option<State>,
    /// Only of this endpoint.
    pub endpoint: Option<String>,
    /// Only with this action.
    pub action: Option<Action>,
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
    /// Only with a lower [`Seq`]: where the previous page ended.
    pub before: Option<Seq>,
    /// Only with a higher [`Seq`], and oldest first.
    pub after: Option<Seq>,
    /// At most this many.
    pub limit: usize,
    /// What a [`SearchFile`](super::SearchFile) knows of it.
    pub hint: Hint,
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
    /// Every filter, in display order.
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

/// What a command is found by in an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its place in the log.
    pub seq: Seq,
    /// Its id.
    pub command_id: CommandId,
    /// The operator.
    pub user_id: String,
    /// As resolved.
    pub instance_id: Option<String>,
    /// As resolved.
    pub task_id: Option<String>,
}

/// Lookups in the ledger.
pub trait Lookup: Send + Sync {
    /// The id of the command at a place in the log.
    fn id_at(&self, seq: Seq) -> BoxFuture<'static, Result<Option<CommandId>, LookError>>;

    /// One command with its message and history.
    fn find(&self, command_id: CommandId) -> BoxFuture<'static, Result<Option<Record>, LookError>>;

    /// Commands, newest first: all that pass the filter, however long that takes. Each read is short.
    fn list(&self, filter: Filter) -> BoxFuture<'static, Result<Vec<Record>, LookError>>;

    /// Commands, newest first, as far as they are found within `patience`, for a person who waits.
    fn search(
        &self,
        filter: Filter,
        patience: Duration,
    ) -> BoxFuture<'static, Result<Found<Record>, LookError>>;

    /// What commands are about: up to `limit` from a place in the log on, in its order.
    fn subjects(&self, from: Seq, limit: usize) -> BoxFuture<'static, Result<Vec<Subject>, LookError>>;

    /// When the oldest command that retention has not reached was received: published commands before it are gone.
    /// `None` if nothing was pruned yet.
    fn pruned_before(&self) -> BoxFuture<'static, Result<Option<Timestamp>, LookError>>;

    /// Refused callbacks, newest first: all that pass the filter. Each read is short.
    fn refusals(&self, filter: RefusalFilter) -> BoxFuture<'static, Result<Vec<KeptRefusal>, LookError>>;

    /// Refused callbacks, newest first, as far as they are found within `patience`, for a person who waits.
    fn search_refusals(
        &self,
        filter: RefusalFilter,
        patience: Duration,
    ) -> BoxFuture<'static, Result<Found<KeptRefusal>, LookError>>;

    /// Of the refused callbacks since `since` that are kept: the newest of each reason, and how many there are; the newest
    /// reason first.
    fn refused_since(
        &self,
        since: Timestamp,
    ) -> BoxFuture<'static, Result<Vec<(u64, KeptRefusal)>, LookError>>;

    /// Acts, newest first.
    fn acts(&self, filter: ActFilter) -> BoxFuture<'static, Result<Vec<ActRecord>, LookError>>;

    /// Of acts that changed commands, the first command of each that is still kept.
    fn first_of_acts(&self, acts: Vec<u64>) -> BoxFuture<'static, Result<Vec<(u64, CommandId)>, LookError>>;

    /// Up to `limit` places of commands with a parked showing, oldest first.
    fn parked_showings(&self, limit: usize) -> BoxFuture<'static, Result<Vec<Seq>, LookError>>;

    /// When each credential was last used.
    fn credential_uses(&self) -> BoxFuture<'static, Result<Vec<CredentialUse>, LookError>>;

    /// Up to `limit` strays with a lower id than `before`, newest first.
    fn strays(&self, before: Option<u64>, limit: usize) -> BoxFuture<'static, Result<Vec<Stray>, LookError>>;

    /// Numbers.
    fn stats(&self) -> BoxFuture<'static, Result<Stats, LookError>>;
}

/// Has a part that looks into the ledger.
pub(super) trait Looks: Send + Sync {
    fn lookup(&self) -> &dyn Lookup;
}

impl<T: Looks> Lookup for T {
    fn id_at(&self, seq: Seq) -> BoxFuture<'static, Result<Option<CommandId>, LookError>> {
        self.lookup().id_at(seq)
    }

    fn find(&self, command_id: CommandId) -> BoxFuture<'static, Result<Option<Record>, LookError>> {
        self.lookup().find(command_id)
    }

    fn list(&self, filter: Filter) -> BoxFuture<'static, Result<Vec<Record>, LookError>> {
        self.lookup().list(filter)
    }

    fn search(
        &self,
        filter: Filter,
        patience: Duration,
    ) -> BoxFuture<'static, Result<Found<Record>, LookError>> {
        self.lookup().search(filter, patience)
    }

    fn subjects(&self, from: Seq, limit: usize) -> BoxFuture<'static, Result<Vec<Subject>, LookError>> {
        self.lookup().subjects(from, limit)
    }

    fn pruned_before(&self) -> BoxFuture<'static, Result<Option<Timestamp>, LookError>> {
        self.lookup().pruned_before()
    }

    fn refusals(&self, filter: RefusalFilter) -> BoxFuture<'static, Result<Vec<KeptRefusal>, LookError>> {
        self.lookup().refusals(filter)
    }

    fn search_refusals(
        &self,
        filter: RefusalFilter,
        patience: Duration,
    ) -> BoxFuture<'static, Result<Found<KeptRefusal>, LookError>> {
        self.lookup().search_refusals(filter, patience)
    }

    fn refused_since(
        &self,
        since: Timestamp,
    ) -> BoxFuture<'static, Result<Vec<(u64, KeptRefusal)>, LookError>> {
        self.lookup().refused_since(since)
    }

    fn acts(&self, filter: ActFilter) -> BoxFuture<'static, Result<Vec<ActRecord>, LookError>> {
        self.lookup().acts(filter)
    }

    fn first_of_acts(&self, acts: Vec<u64>) -> BoxFuture<'static, Result<Vec<(u64, CommandId)>, LookError>> {
        self.lookup().first_of_acts(acts)
    }

    fn parked_showings(&self, limit: usize) -> BoxFuture<'static, Result<Vec<Seq>, LookError>> {
        self.lookup().parked_showings(limit)
    }

    fn credential_uses(&self) -> BoxFuture<'static, Result<Vec<CredentialUse>, LookError>> {
        self.lookup().credential_uses()
    }

    fn strays(&self, before: Option<u64>, limit: usize) -> BoxFuture<'static, Result<Vec<Stray>, LookError>> {
        self.lookup().strays(before, limit)
    }

    fn stats(&self) -> BoxFuture<'static, Result<Stats, LookError>> {
        self.lookup().stats()
    }
}
