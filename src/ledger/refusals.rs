//! Refused callbacks, as they are kept and listed.

use std::time::Duration;

use super::search::Places;
use crate::time::Timestamp;

/// A refused callback, redacted: without token, context and ciphertext.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct RefusedCallback {
    /// When.
    pub refused_at: Timestamp,
    /// The endpoint's name as requested, or the whole path if it has none; cut to 64 characters.
    pub endpoint: String,
    /// The reason, the same word as in the answer.
    pub reason: String,
    /// The cause, for operators; not in the answer.
    pub detail: Option<String>,
    /// The peer's address.
    pub peer: Option<String>,
    /// Size of the body as far as it was read.
    pub body_bytes: u64,
    /// False if the sender knows a configured key or token: the body decrypts with the key or carries the token. Only
    /// then is its content recorded. Strangers have room of their own, so that a flood of theirs does not push out the
    /// others.
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
    /// What the context named, as far as it was readable. If the context itself was refused, this is unproven.
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

/// How far `around` a time reaches, in both directions: people read "about 10:42" off an analog clock.
pub const AROUND: Duration = Duration::from_secs(300);

/// A refused callback in the ledger. Serialized as one object.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct KeptRefusal {
    /// Its number. Later ones have higher numbers.
    pub id: u64,
    /// What was refused.
    #[serde(flatten)]
    pub refused: RefusedCallback,
}

/// Refused callbacks that were not kept, because too many came for the disk, or it failed. Since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// From senders who know a key or token.
    pub known: u64,
    /// From strangers.
    pub strangers: u64,
}

/// Which refused callbacks to list; newest first.
#[derive(Debug, Clone, Default)]
pub struct RefusalFilter {
    /// Only this one.
    pub id: Option<u64>,
    /// Only for this reason.
    pub reason: Option<String>,
    /// Only of this endpoint, as requested.
    pub endpoint: Option<String>,
    /// Only from this peer, as it is kept.
    pub peer: Option<String>,
    /// Only by this operator.
    pub user_id: Option<String>,
    /// Only those without an operator.
    pub nobody: bool,
    /// Only about this instance, named by the callback or its context.
    pub instance_id: Option<String>,
    /// Only about this task, named by the callback, a search, or its context.
    pub task_id: Option<String>,
    /// Only from this card.
    pub message_id: Option<String>,
    /// Only refused at this time or later.
    pub since: Option<Timestamp>,
    /// Only refused before this time.
    pub until: Option<Timestamp>,
    /// Only with a lower number: where the previous page ended.
    pub before: Option<u64>,
    /// At most this many.
    pub limit: usize,
}

impl RefusalFilter {
    /// The numbers among those that are kept that may pass the filter; `None` if there are none.
    pub(super) fn within(&self, kept: Places) -> Option<Places> {
        let Places { mut first, mut last } = kept;
        if let Some(id) = self.id {
            (first, last) = (first.max(id), last.min(id));
        }
        if let Some(before) = self.before {
            last = last.min(before.saturating_sub(1));
        }
        (first <= last).then_some(Places { first, last })
    }
}
