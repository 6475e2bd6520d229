//! The story of a callback, top to bottom; the only code that knows the order.

use std::{net::IpAddr, sync::Arc, time::Duration};

use crate::{
    callback::CredentialSettings,
    command::CommandId,
    context,
    ledger::{Ledger, OnConflict},
};

/// Everything about the endpoints that the accept path needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// At least one; names are unique.
    pub endpoints: Vec<EndpointSettings>,
    /// The language of sentences before an endpoint is known.
    pub locale: Locale,
}

/// What one `action_callback_url` points at.
#[derive(Debug, Clone)]
pub struct EndpointSettings {
    /// `POST /callbacks/{name}`.
    pub name: String,
    /// If not empty, a callback with another `approval_code` is refused; one without passes.
    pub approval_codes: Vec<String>,
    /// 1 to 4; all with a key or all without.
    pub credentials: Vec<CredentialSettings>,
    /// Allowed `action_type`s.
    pub actions: Vec<String>,
    /// The language of sentences for its approvers.
    pub locale: Locale,
    /// How long a callback without a round is the same callback.
    pub dedupe_window: Duration,
    /// What to do with contradictions.
    pub on_conflict: OnConflict,
    /// How contexts are read.
    pub context: context::Settings,
}

/// A language that refusals are worded in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Locale {
    /// Chinese.
    #[default]
    Zh,
    /// English.
    En,
    /// Japanese.
    Ja,
}

/// Why a callback was refused: the closed list. The same word stands in answer, log, metric and console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Unknown endpoint, wrong or missing token, anything wrong with the cipher: one answer for all.
    Unauthenticated,
    /// A plain body that is not one JSON object, or an authenticated one with a field of the wrong type.
    Malformed,
    /// `action_type` is not among the endpoint's `actions`.
    ActionNotAllowed,
    /// `approval_code` is not among the endpoint's `approval_codes`.
    DefinitionNotAllowed,
    /// The context fits no format and must, or contradicts the callback's own fields.
    ContextInvalid,
    /// The context was valid once.
    ContextExpired,
    /// The context does not permit this operator.
    OperatorNotAllowed,
    /// Contradicts an earlier decision, and conflicts are refused.
    Conflicting,
    /// The body is larger than `max_body_bytes`.
    BodyTooLarge,
    /// The body did not arrive within `body_read_timeout_ms`.
    TooSlow,
    /// The queue to the ledger's writer is full.
    Overloaded,
    /// Disk full, read-only, failed fsync.
    LedgerUnavailable,
    /// The service is draining.
    ShuttingDown,
}

impl Refusal {
    /// Every refusal, in the order of the table in `design.md` §4.
    pub const ALL: [Self; 13] = [
        Self::Unauthenticated,
        Self::Malformed,
        Self::ActionNotAllowed,
        Self::DefinitionNotAllowed,
        Self::ContextInvalid,
        Self::ContextExpired,
        Self::OperatorNotAllowed,
        Self::Conflicting,
        Self::BodyTooLarge,
        Self::TooSlow,
        Self::Overloaded,
        Self::LedgerUnavailable,
        Self::ShuttingDown,
    ];

    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Malformed => "malformed",
            Self::ActionNotAllowed => "action_not_allowed",
            Self::DefinitionNotAllowed => "definition_not_allowed",
            Self::ContextInvalid => "context_invalid",
            Self::ContextExpired => "context_expired",
            Self::OperatorNotAllowed => "operator_not_allowed",
            Self::Conflicting => "conflicting",
            Self::BodyTooLarge => "body_too_large",
            Self::TooSlow => "too_slow",
            Self::Overloaded => "overloaded",
            Self::LedgerUnavailable => "ledger_unavailable",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

/// A callback that was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The command it became, now or when it came first.
    pub command_id: CommandId,
    /// True if it had come before.
    pub duplicate: bool,
}

/// How a callback ended, with what the answer, the log line and the metric need.
#[must_use]
#[derive(Debug)]
pub struct Verdict {
    /// The configured endpoint's name; [`crate::telemetry::metrics::UNKNOWN_ENDPOINT`] if it is not configured.
    pub endpoint: Arc<str>,
    /// The language for the approver.
    pub locale: Locale,
    /// Kept, or the one reason why not.
    pub outcome: Result<Kept, Refusal>,
    /// The cause in an operator's words, for the log only; nothing secret, no context.
    pub detail: Option<String>,
}

/// The accept path of all endpoints.
pub struct Intake {
    #[expect(dead_code, reason = "the body of this type is being written")]
    ledger: Arc<dyn Ledger>,
}

impl Intake {
    /// Prepares the endpoints: hashes keys and tokens once.
    #[must_use]
    pub fn new(_settings: &Settings, ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger }
    }

    /// Takes one callback from its bytes to its verdict. Refusals are kept in the ledger too.
    ///
    /// Safe to cancel: a command that was handed to the ledger is committed whether or not anybody waits.
    pub async fn receive(&self, _endpoint: &str, _body: &[u8], _peer: Option<IpAddr>) -> Verdict {
        unimplemented!("being written")
    }

    /// The verdict on a callback that the transport could not even read: too large, too slow, or while draining.
    /// `body_bytes` is how much of it was read.
    pub fn turn_away(
        &self,
        _endpoint: &str,
        _refusal: Refusal,
        _body_bytes: u64,
        _peer: Option<IpAddr>,
    ) -> Verdict {
        unimplemented!("being written")
    }
}
