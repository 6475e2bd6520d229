//! Refused callbacks, as they are kept and looked for.

use std::time::Duration;

use crate::time::Timestamp;

/// A refused callback, redacted: it holds neither token nor context nor ciphertext.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct RefusedCallback {
    /// When.
    pub refused_at: Timestamp,
    /// The endpoint's name as asked for, or the whole path if it names none; cut to 64 characters.
    pub endpoint: String,
    /// The reason, the same word as in the answer.
    pub reason: String,
    /// The cause in an operator's words, which the answer does not tell.
    pub detail: Option<String>,
    /// The peer's address.
    pub peer: Option<String>,
    /// Size of the body as far as it was read.
    pub body_bytes: u64,
    /// False if the sender knows a configured key or token: the body opened with the key, or carries the token. Only
    /// then is anything known of what it said. Strangers have room of their own, so that a flood of theirs does not push
    /// out the others.
    pub stranger: bool,
    /// What the body said.
    pub action_type: Option<String>,
    /// What the body said.
    pub user_id: Option<String>,
    /// What the body said.
    pub approval_code: Option<String>,
    /// What the body said.
    pub instance_id: Option<String>,
    /// What the body said.
    pub task_id: Option<String>,
    /// What the body said: the member `id`, the task of a search.
    pub search_id: Option<String>,
    /// What the body said.
    pub message_id: Option<String>,
    /// What the context named, as far as it could be read. Where the context itself was refused nothing proves it.
    pub context_task: Option<ContextTask>,
}

/// The task that a context names.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct ContextTask {
    /// The third party's instance.
    pub instance_id: Option<String>,
    /// The third party's task.
    pub task_id: Option<String>,
    /// Which round of the task.
    pub round: Option<String>,
    /// The third party's document number.
    pub business_key: Option<String>,
}

impl ContextTask {
    /// `None` if nothing is named.
    #[must_use]
    pub fn unless_empty(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }
}

/// How far `around` a time reaches, in both directions: "at about 10:42" was read off a clock with hands.
pub const AROUND: Duration = Duration::from_secs(300);

/// A refused callback that the ledger has. Written as one object.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct KeptRefusal {
    /// Its number: later ones have a higher one.
    pub id: u64,
    /// What was refused.
    #[serde(flatten)]
    pub refused: RefusedCallback,
}

/// Refused callbacks that are not kept, because too many came for the disk, or it failed; since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Of senders who know a key or a token.
    pub known: u64,
    /// Of strangers.
    pub strangers: u64,
}

/// Which refused callbacks to list; newest first.
#[derive(Debug, Clone, Default)]
pub struct RefusalFilter {
    /// Only this one.
    pub id: Option<u64>,
    /// Only for this reason.
    pub reason: Option<String>,
    /// Only of this endpoint, by the name that was asked for.
    pub endpoint: Option<String>,
    /// Only by this operator.
    pub user_id: Option<String>,
    /// Only those that do not tell by whom.
    pub nobody: bool,
    /// Only about this instance, by the callback itself or by its context.
    pub instance_id: Option<String>,
    /// Only about this task, by the callback itself, a search, or its context.
    pub task_id: Option<String>,
    /// Only from this card.
    pub message_id: Option<String>,
    /// Only refused at this time or later.
    pub since: Option<Timestamp>,
    /// Only refused before this time.
    pub until: Option<Timestamp>,
    /// Only with a lower number: the place where the page before ended.
    pub before: Option<u64>,
    /// At most this many.
    pub limit: usize,
}
