//! The story of a callback, top to bottom; the only code that knows the order.

use std::{borrow::Cow, collections::HashMap, fmt, net::IpAddr, sync::Arc, time::Duration};

use crate::{
    callback::{self, CredentialSettings, Credentials, OpenError, Verified},
    command::{Action, Command, CommandId, Fingerprint, Registered, id::FingerprintParts},
    context::{self, ContextError, Surroundings},
    ledger::{self, AcceptError, Acceptance, Ledger, MAX_KEY_BYTES, OnConflict, Receipt},
    telemetry::metrics::UNKNOWN_ENDPOINT,
    time::Timestamp,
};

/// Everything about the endpoints that the accept path needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// At least one; names are unique.
    pub endpoints: Vec<EndpointSettings>,
    /// The language of sentences before an endpoint is known.
    pub locale: Locale,
}

impl Settings {
    /// The names of all endpoints.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect()
    }
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
    /// The third party's own words for some refusals of authenticated callbacks.
    pub sentences: HashMap<Refusal, Arc<str>>,
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

/// The `action_type` of a probe: a callback by which `countersign doctor` tries address, token and key of an endpoint.
/// Reserved: no endpoint can allow it.
pub const PROBE_ACTION: &str = "COUNTERSIGN_DOCTOR";

/// The word for a probe in its answer and in the log.
pub const PROBE_WORD: &str = "probe";

/// A callback that was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The command it became, now or when it came first.
    pub command_id: CommandId,
    /// True if it had come before.
    pub duplicate: bool,
}

/// How a callback ended.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its command is on the disk.
    Kept(Kept),
    /// Nothing is kept of it but the refusal.
    Refused(Refusal),
    /// Its sender is authenticated and asked for nothing but that ([`PROBE_ACTION`]). Nothing was decided and nothing is
    /// kept, not even a refusal. Who is not authenticated cannot get here.
    Probed,
}

/// How a callback ended, with what the answer, the log line and the metric need.
#[must_use]
#[derive(Debug)]
pub struct Verdict {
    /// The configured endpoint's name; [`crate::telemetry::metrics::UNKNOWN_ENDPOINT`] if it is not configured.
    pub endpoint: Arc<str>,
    /// The language for the approver.
    pub locale: Locale,
    /// The endpoint's own words for the approver, in place of the service's.
    pub sentence: Option<Arc<str>>,
    /// Kept, or the one reason why not.
    pub outcome: Outcome,
    /// The cause in an operator's words, for the log only; nothing secret, no context.
    pub detail: Option<String>,
}

impl Verdict {
    /// Has the approver read it in the endpoint's language and words.
    fn word_by(&mut self, settings: &EndpointSettings) {
        self.locale = settings.locale;
        if let Outcome::Refused(refusal) = &self.outcome {
            self.sentence = settings.sentences.get(refusal).cloned();
        }
    }
}

/// A callback that is refused without being evaluated: too large, too slow, while draining, or for who sent it.
#[derive(Debug, Clone, Copy)]
pub struct Unheard<'a> {
    /// The endpoint that was asked for, which may not be configured.
    pub endpoint: &'a str,
    /// Why it is refused.
    pub refusal: Refusal,
    /// The cause in an operator's words.
    pub detail: Option<&'static str>,
    /// How much of the body was read.
    pub body_bytes: u64,
    /// Who sent it.
    pub peer: Option<IpAddr>,
    /// Whether it is kept among the refused callbacks. One of a flood is not: it would drive out all others.
    pub kept: bool,
}

/// The accept path of all endpoints.
pub struct Intake {
    endpoints: HashMap<String, Endpoint>,
    /// Stands in for every endpoint that is not configured, so that the work for it is the same.
    decoy: Credentials,
    unknown: Arc<str>,
    locale: Locale,
    ledger: Arc<dyn Ledger>,
}

struct Endpoint {
    name: Arc<str>,
    credentials: Credentials,
    settings: EndpointSettings,
}

/// A refusal, with the cause for the operator.
struct Refused {
    refusal: Refusal,
    detail: Option<Cow<'static, str>>,
}

impl Refused {
    fn because(refusal: Refusal, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { refusal, detail: Some(detail.into()) }
    }
}

impl Intake {
    /// Prepares the endpoints: hashes keys and tokens once.
    #[must_use]
    pub fn new(settings: &Settings, ledger: Arc<dyn Ledger>) -> Self {
        let endpoints = settings.endpoints.iter().map(|endpoint| {
            let prepared = Endpoint {
                name: endpoint.name.as_str().into(),
                credentials: Credentials::new(&endpoint.credentials),
                settings: endpoint.clone(),
            };
            (endpoint.name.clone(), prepared)
        });
        Self {
            endpoints: endpoints.collect(),
            decoy: Credentials::decoy(),
            unknown: UNKNOWN_ENDPOINT.into(),
            locale: settings.locale,
            ledger,
        }
    }

    /// Takes one callback from its bytes to its verdict. Refusals are kept in the ledger too.
    ///
    /// Safe to cancel: a command that was handed to the ledger is committed whether or not anybody waits.
    pub async fn receive(&self, endpoint: &str, body: &[u8], peer: Option<IpAddr>) -> Verdict {
        let Some(known) = self.endpoints.get(endpoint) else {
            // The same work as for a known one, whatever comes of it.
            drop(callback::open(&self.decoy, body));
            let refused = Refused::because(Refusal::Unauthenticated, "no such endpoint");
            return self.refuse(endpoint, None, refused, None, body.len() as u64, peer);
        };
        let verified = match callback::open(&known.credentials, body) {
            Ok(verified) => verified,
            Err(error) => {
                let refused = match error {
                    OpenError::Unauthenticated(cause) => Refused::because(Refusal::Unauthenticated, cause),
                    OpenError::Malformed(fault) => Refused::because(Refusal::Malformed, fault.to_string()),
                };
                let mut verdict = self.refuse(endpoint, Some(known), refused, None, body.len() as u64, peer);
                // `malformed` is said to senders who are authenticated, or where anybody may know of the endpoint.
                if verdict.outcome == Outcome::Refused(Refusal::Malformed) {
                    verdict.word_by(&known.settings);
                }
                return verdict;
            }
        };
        let verdict = |outcome| Verdict {
            endpoint: known.name.clone(),
            locale: known.settings.locale,
            sentence: None,
            outcome,
            detail: None,
        };
        if verified.action_type.as_deref() == Some(PROBE_ACTION) {
            return verdict(Outcome::Probed);
        }
        match self.keep(known, &verified).await {
            Ok(kept) => verdict(Outcome::Kept(kept)),
            Err(refused) => {
                self.refuse(endpoint, Some(known), refused, Some(&verified), body.len() as u64, peer)
            }
        }
    }

    /// From a verified callback to a receipt.
    async fn keep(&self, endpoint: &Endpoint, callback: &Verified) -> Result<Kept, Refused> {
        let settings = &endpoint.settings;
        let Some(action_type) =
            callback.action_type.as_ref().filter(|action| settings.actions.contains(action))
        else {
            let detail = if callback.action_type.is_some() {
                "action_type is not among the actions of the endpoint"
            } else {
                "action_type is missing"
            };
            return Err(Refused::because(Refusal::ActionNotAllowed, detail));
        };
        let Some(user_id) = callback.user_id.as_ref() else {
            return Err(Refused::because(Refusal::Malformed, "user_id is missing: nobody decided"));
        };
        if let Some(code) = &callback.approval_code
            && !settings.approval_codes.is_empty()
            && !settings.approval_codes.contains(code)
        {
            let detail = "approval_code is not among the approval_codes of the endpoint";
            return Err(Refused::because(Refusal::DefinitionNotAllowed, detail));
        }
        let received_at = Timestamp::now();
        let registered = self.registered(settings, callback).await?;
        let surroundings =
            Surroundings { endpoint: &endpoint.name, now: received_at, registered: registered.as_ref() };
        let task = context::resolve(&settings.context, callback, surroundings)
            .map_err(|error| Refused::because(context_refusal(error), error.to_string()))?;
        let message_id = callback.message_id.map(|id| id.to_string());
        let fingerprint = Fingerprint::of(&FingerprintParts {
            endpoint: &endpoint.name,
            action_context: callback.action_context.as_deref(),
            instance_id: callback.instance_id.as_deref(),
            task_id: callback.task_id.as_deref(),
            id: callback.id.as_deref(),
            message_id: message_id.as_deref(),
            round: task.round.as_deref(),
            user_id,
            action_type,
        });
        let command = Command {
            command_id: CommandId::new(received_at),
            endpoint: endpoint.name.clone(),
            received_at,
            action: Action::of(action_type),
            action_type: action_type.clone(),
            origin: callback.origin(),
            user_id: user_id.clone(),
            approval_code: callback.approval_code.clone(),
            task,
            reason: callback.reason.clone(),
            attachments: callback.attachments.clone(),
            action_context: callback.action_context.clone(),
            message_id,
            search_id: callback.id.clone(),
            conflicts_with: None,
            extra: callback.extra.clone(),
        };
        let acceptance = Acceptance {
            command,
            fingerprint,
            window: settings.dedupe_window,
            on_conflict: settings.on_conflict,
        };
        match self.ledger.accept(acceptance).await {
            Ok(Receipt::Accepted { command_id }) => Ok(Kept { command_id, duplicate: false }),
            Ok(Receipt::Duplicate { command_id }) => Ok(Kept { command_id, duplicate: true }),
            Ok(Receipt::Conflicting { with }) => {
                Err(Refused::because(Refusal::Conflicting, format!("contradicts {with}")))
            }
            Err(error) => Err(unkept(error)),
        }
    }

    /// What the third party registered for this callback, if its endpoint asks for that at all: by the context, else by
    /// the bot message.
    async fn registered(
        &self,
        settings: &EndpointSettings,
        callback: &Verified,
    ) -> Result<Option<Registered>, Refused> {
        if !settings.context.uses_registry() {
            return Ok(None);
        }
        let key = callback.action_context.as_ref().filter(|context| context.len() <= MAX_KEY_BYTES);
        if key.is_none() && callback.message_id.is_none() {
            return Ok(None);
        }
        self.ledger.registered(key.cloned(), callback.message_id).await.map_err(unkept)
    }

    /// The verdict on a callback that is not evaluated.
    pub fn turn_away(&self, unheard: Unheard<'_>) -> Verdict {
        let Unheard { endpoint, refusal, detail, body_bytes, peer, kept } = unheard;
        let known = self.endpoints.get(endpoint);
        let refused = Refused { refusal, detail: detail.map(Cow::Borrowed) };
        if kept {
            self.refuse(endpoint, known, refused, None, body_bytes, peer)
        } else {
            self.verdict(known, refused, false)
        }
    }

    fn refuse(
        &self,
        asked_for: &str,
        endpoint: Option<&Endpoint>,
        refused: Refused,
        callback: Option<&Verified>,
        body_bytes: u64,
        peer: Option<IpAddr>,
    ) -> Verdict {
        let field = |field: fn(&Verified) -> Option<&String>| callback.and_then(field).cloned();
        self.ledger.refused(ledger::Refused {
            refused_at: Timestamp::now(),
            endpoint: asked_for.chars().filter(|c| !c.is_control()).take(64).collect(),
            reason: refused.refusal.as_str().to_owned(),
            detail: refused.detail.as_deref().map(str::to_owned),
            peer: peer.map(|peer| peer.to_string()),
            body_bytes,
            stranger: callback.is_none(),
            action_type: field(|callback| callback.action_type.as_ref()),
            user_id: field(|callback| callback.user_id.as_ref()),
            approval_code: field(|callback| callback.approval_code.as_ref()),
            instance_id: field(|callback| callback.instance_id.as_ref()),
            task_id: field(|callback| callback.task_id.as_ref()),
            search_id: field(|callback| callback.id.as_ref()),
            message_id: callback.and_then(|callback| callback.message_id).map(|id| id.to_string()),
            context_task: None,
        });
        self.verdict(endpoint, refused, callback.is_some())
    }

    fn verdict(&self, endpoint: Option<&Endpoint>, refused: Refused, authenticated: bool) -> Verdict {
        let Refused { refusal, detail } = refused;
        // Before the sender is authenticated neither language nor words must tell whether the endpoint exists.
        let own = endpoint.filter(|_| authenticated).map(|endpoint| &endpoint.settings);
        let mut verdict = Verdict {
            endpoint: endpoint.map_or_else(|| self.unknown.clone(), |endpoint| endpoint.name.clone()),
            locale: self.locale,
            sentence: None,
            outcome: Outcome::Refused(refusal),
            detail: detail.map(Cow::into_owned),
        };
        if let Some(settings) = own {
            verdict.word_by(settings);
        }
        verdict
    }
}

fn unkept(error: AcceptError) -> Refused {
    let refusal = match error {
        AcceptError::Overloaded => Refusal::Overloaded,
        AcceptError::NoRoom | AcceptError::Unavailable => Refusal::LedgerUnavailable,
    };
    Refused { refusal, detail: None }
}

fn context_refusal(error: ContextError) -> Refusal {
    match error {
        ContextError::Unresolved | ContextError::Contradiction(_) | ContextError::Forged(_) => {
            Refusal::ContextInvalid
        }
        ContextError::Expired => Refusal::ContextExpired,
        ContextError::OperatorNotAllowed => Refusal::OperatorNotAllowed,
        ContextError::ActionNotAllowed => Refusal::ActionNotAllowed,
    }
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").field("endpoints", &self.endpoints.keys()).finish_non_exhaustive()
    }
}
