//! Why callbacks are refused.

/// Why a callback was refused: the closed list. The same word stands in answer, log, metric and console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Unknown endpoint or path, wrong or missing token, anything wrong with the cipher or with a body that no token
    /// vouches for: one answer for all.
    Unauthenticated,
    /// An authenticated body with a field of the wrong type.
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
    /// The peer sends too much, or failed to authenticate too often: not read, not evaluated.
    RateLimited,
    /// The queue to the ledger's writer is full.
    Overloaded,
    /// Disk full, read-only, failed fsync.
    LedgerUnavailable,
    /// The service is draining.
    ShuttingDown,
}

impl Refusal {
    /// Every refusal, in the order of the table in `openapi.yaml`.
    pub const ALL: [Self; 14] = [
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
        Self::RateLimited,
        Self::Overloaded,
        Self::LedgerUnavailable,
        Self::ShuttingDown,
    ];

    /// The refusals that only an authenticated sender sees, so that an endpoint may have its own words for them.
    pub const OF_AUTHENTICATED: [Self; 9] = [
        Self::Malformed,
        Self::ActionNotAllowed,
        Self::DefinitionNotAllowed,
        Self::ContextInvalid,
        Self::ContextExpired,
        Self::OperatorNotAllowed,
        Self::Conflicting,
        Self::Overloaded,
        Self::LedgerUnavailable,
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
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::LedgerUnavailable => "ledger_unavailable",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

/// The words in answer, log and record for what is no callback: a request by another method than POST, at a path that
/// is not there or where callbacks go. Nobody pressed anything, so they are counted apart from callbacks.
pub const NO_CALLBACK: [&str; 2] = ["not_found", "method_not_allowed"];
