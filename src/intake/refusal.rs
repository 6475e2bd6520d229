//! Why callbacks are refused.

use strum::{EnumString, IntoStaticStr, VariantArray};

/// Why a callback was refused: the closed list. Answer, log, metric and console use the same word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantArray, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum Refusal {
    /// Unknown endpoint or path, wrong or missing token, any problem with the cipher or with an unauthenticated body:
    /// one answer for all.
    Unauthenticated,
    /// The body is authenticated, but a field has the wrong type.
    Malformed,
    /// `action_type` is not in the endpoint's `actions`.
    ActionNotAllowed,
    /// `approval_code` is not in the endpoint's `approval_codes`.
    DefinitionNotAllowed,
    /// The context does not match a required format, or contradicts the callback's own fields.
    ContextInvalid,
    /// The context was valid but has expired.
    ContextExpired,
    /// The context does not permit this operator.
    OperatorNotAllowed,
    /// The callback contradicts an earlier decision, and conflicts are refused.
    Conflicting,
    /// The command is kept and published, but the worker answered that it will not or could not do it.
    Declined,
    /// The body is larger than `max_body_bytes`.
    BodyTooLarge,
    /// The body did not arrive within `body_read_timeout_ms`.
    TooSlow,
    /// The peer sends too much, or failed to authenticate too often. The callback is neither read nor evaluated.
    RateLimited,
    /// The queue to the ledger's writer is full.
    Overloaded,
    /// The disk is full, read-only, or an fsync failed.
    LedgerUnavailable,
    /// The service is draining.
    ShuttingDown,
}

impl Refusal {
    /// All refusals.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The refusals that only authenticated senders see, so an endpoint may have its own sentences for them.
    pub const OF_AUTHENTICATED: [Self; 10] = [
        Self::Malformed,
        Self::ActionNotAllowed,
        Self::DefinitionNotAllowed,
        Self::ContextInvalid,
        Self::ContextExpired,
        Self::OperatorNotAllowed,
        Self::Conflicting,
        Self::Declined,
        Self::Overloaded,
        Self::LedgerUnavailable,
    ];

    /// Advice for an operator, in one sentence. The cause kept with a refusal says which case applies.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Unauthenticated => {
                "From the approval center: compare token and key of the definition and of the bot message with the \
                 endpoint's credentials (`countersign doctor`). From anybody else: nothing to do."
            }
            Self::Malformed => {
                "The cause names the field. If the approval center sent it, its format has changed: report it."
            }
            Self::ActionNotAllowed => {
                "Add the action to `actions` of the endpoint or of the context, or leave its button out of `action_configs`."
            }
            Self::DefinitionNotAllowed => "Add the definition's code to `approval_codes` of the endpoint.",
            Self::ContextInvalid => {
                "Compare the `action_context` of the task or bot message with `context` of the endpoint; `countersign context \
                 verify` reads a token."
            }
            Self::ContextExpired => {
                "The card or task was older than its context permits: send it again, with a later expiry."
            }
            Self::OperatorNotAllowed => {
                "The context permits others: compare its `operators` with the task's assignee."
            }
            Self::Conflicting => {
                "`countersign ledger show` with the id in the cause shows the earlier decision."
            }
            Self::Declined => {
                "The decision is kept. The cause has its id and the worker's words; `countersign ledger show` has the rest."
            }
            Self::BodyTooLarge => "Raise `http.max_body_bytes` if such bodies are to pass.",
            Self::TooSlow => {
                "Check the network and the proxies in front of countersign; `http.body_read_timeout_ms` is the limit."
            }
            Self::RateLimited => {
                "The cause names the limit. If all callbacks come through a proxy, name it in `http.trusted_proxies`."
            }
            Self::Overloaded => {
                "The ledger's disk is too slow for the load: `countersign bench disk` measures it."
            }
            Self::LedgerUnavailable => "Check the log and the ledger's disk: `countersign doctor`.",
            Self::ShuttingDown => "countersign was being restarted: the approver may press again.",
        }
    }
}

/// The words in answer, log and record for requests that are not callbacks: a method other than POST, at an unknown
/// path or at a callback path. Nobody clicked anything, so they are counted separately from callbacks.
pub const NO_CALLBACK: [&str; 2] = ["not_found", "method_not_allowed"];
