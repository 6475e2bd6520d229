//! The story of a callback, top to bottom; the only code that knows the order.

mod refusal;

use std::{borrow::Cow, collections::HashMap, fmt, net::IpAddr, sync::Arc, time::Duration};

use crate::{
    callback::{self, Cause, CredentialSettings, Credentials, OpenError, Said, Verified},
    command::{Action, Command, CommandId, Fingerprint, Registered, id::FingerprintParts},
    context::{self, ContextError, ResolveInput},
    ledger::{self, Accept, AcceptError, Acceptance, ContextTask, MAX_KEY_BYTES, OnConflict, Receipt},
    telemetry::metrics::UNKNOWN_ENDPOINT,
    time::Timestamp,
};

pub use refusal::{NO_CALLBACK, Refusal};

/// Everything about the endpoints that the accept path needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// At least one; names are unique.
    pub endpoints: Vec<EndpointSettings>,
    /// The language of sentences before an endpoint is known.
    pub locale: Locale,
    /// Whether a [`Response`] says who decided about what, for the log.
    pub identities: bool,
}

impl Settings {
    /// The language, and the words of its own if it has any, in which approvers of an endpoint read a refusal. Before the
    /// sender is authenticated neither must tell whether the endpoint exists.
    #[must_use]
    pub fn words(&self, endpoint: &str, refusal: Refusal) -> (Locale, Option<Arc<str>>) {
        let known = self.endpoints.iter().find(|known| known.name == endpoint);
        match known.filter(|_| Refusal::OF_AUTHENTICATED.contains(&refusal)) {
            Some(known) => (known.locale, known.sentences.get(&refusal).cloned()),
            None => (self.locale, None),
        }
    }

    /// What has counters of its own: the endpoints, and their credentials.
    #[must_use]
    pub fn counted(&self) -> Vec<Counted> {
        let counted = self.endpoints.iter().map(|endpoint| Counted {
            endpoint: endpoint.name.clone(),
            credentials: endpoint.credentials.iter().map(CredentialSettings::tag).collect(),
        });
        counted.collect()
    }
}

/// An endpoint as far as there are counters of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Its name.
    pub endpoint: String,
    /// A tag for each of its credentials, in their order; see [`CredentialSettings::tag`].
    pub credentials: Vec<u16>,
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
    /// Within this a callback that is no duplicate any more is told as a repeat, and a contradiction as one.
    pub repeats_window: Duration,
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

/// The `action_type` of a probe: a callback by which `countersign doctor` tries address, token and key of an endpoint.
/// Reserved: no endpoint can allow it.
pub const PROBE_ACTION: &str = "COUNTERSIGN_DOCTOR";

/// The word for a probe in its answer and in the log.
pub const PROBE_WORD: &str = "probe";

/// For the operator alone.
const NO_SUCH_ENDPOINT: &str = "no such endpoint";

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
pub enum Disposition {
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
pub struct Response {
    /// The configured endpoint's name; [`crate::telemetry::metrics::UNKNOWN_ENDPOINT`] if it is not configured.
    pub endpoint: Arc<str>,
    /// The language for the approver.
    pub locale: Locale,
    /// The endpoint's own words for the approver, in place of the service's.
    pub sentence: Option<Arc<str>>,
    /// Kept, or the one reason why not.
    pub outcome: Disposition,
    /// The cause in an operator's words, for the log only; nothing secret, no context.
    pub detail: Option<String>,
    /// False if the sender knows a key or a token of the endpoint, as far as that was looked at.
    pub stranger: bool,
    /// Who decided about what, for the log; empty unless it is wanted and known.
    pub about: About,
    /// The credential by which the sender came in, counted from 0: `None` for strangers, for what was not evaluated, and for
    /// probes, which say nothing about who still uses one.
    pub credential: Option<usize>,
}

/// Who decided about what, as far as it is known: by the callback, and where that does not say it, by its context.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// The operator.
    pub user_id: Option<String>,
    /// The instance.
    pub instance_id: Option<String>,
    /// The task.
    pub task_id: Option<String>,
}

impl Response {
    /// Has the approver read it in the endpoint's language and words.
    fn word_by(&mut self, settings: &EndpointSettings) {
        self.locale = settings.locale;
        if let Disposition::Refused(refusal) = &self.outcome {
            self.sentence = settings.sentences.get(refusal).cloned();
        }
    }
}

/// A callback as it came.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// The endpoint that was asked for, which may not be configured. A path that names none stands here whole; it begins
    /// with a slash, which no name does.
    pub endpoint: &'a str,
    /// All of it.
    pub body: &'a [u8],
    /// The header `Content-Encoding`, which is not obeyed.
    pub content_encoding: Option<&'a str>,
    /// Who sent it.
    pub peer: Option<IpAddr>,
}

/// A callback that is refused without being evaluated: too large, too slow, while draining, or for who sent it.
#[derive(Debug, Clone, Copy)]
pub struct Unheard<'a> {
    /// As in [`Received`].
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
    identities: bool,
    ledger: Arc<dyn Accept>,
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
    /// What was registered for the callback, if it got so far.
    registered: Option<Registered>,
}

impl Refused {
    fn of(refusal: Refusal, detail: Option<Cow<'static, str>>) -> Self {
        Self { refusal, detail, registered: None }
    }

    fn because(refusal: Refusal, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::of(refusal, Some(detail.into()))
    }
}

/// Where a refused callback was sent, and what else is known of it without a look at what it says.
struct Sent<'a> {
    asked_for: &'a str,
    endpoint: Option<&'a Endpoint>,
    body_bytes: u64,
    peer: Option<IpAddr>,
}

impl Intake {
    /// Prepares the endpoints: hashes keys and tokens once.
    #[must_use]
    pub fn new(settings: &Settings, ledger: Arc<dyn Accept>) -> Self {
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
            identities: settings.identities,
            ledger,
        }
    }

    /// Takes one callback from its bytes to its response. Refusals are kept in the ledger too.
    ///
    /// Safe to cancel: a command that was handed to the ledger is committed whether or not anybody waits.
    pub async fn receive(&self, received: Received<'_>) -> Response {
        let Received { endpoint: asked_for, body, peer, .. } = received;
        let endpoint = self.endpoints.get(asked_for);
        let sent = Sent { asked_for, endpoint, body_bytes: body.len() as u64, peer };
        // The same work for an endpoint that is not known, whatever comes of it.
        let credentials = endpoint.map_or(&self.decoy, |endpoint| &endpoint.credentials);
        let mut credential = None;
        let (refused, said) = match (callback::open(credentials, body), endpoint) {
            (Ok(verified), Some(known)) => {
                credential =
                    (verified.action_type.as_deref() != Some(PROBE_ACTION)).then_some(verified.credential);
                let ended = match verified.action_type.as_deref() {
                    Some(PROBE_ACTION) => Ok((Disposition::Probed, About::default())),
                    _ => self
                        .keep(known, &verified)
                        .await
                        .map(|(kept, about)| (Disposition::Kept(kept), about)),
                };
                match ended {
                    Ok((outcome, about)) => {
                        return Response {
                            endpoint: known.name.clone(),
                            locale: known.settings.locale,
                            sentence: None,
                            outcome,
                            detail: None,
                            stranger: false,
                            about,
                            credential,
                        };
                    }
                    Err(refused) => (refused, Some(Said::from(&verified))),
                }
            }
            (Err(OpenError::Malformed { fault, said }), _) => {
                (Refused::because(Refusal::Malformed, fault.to_string()), Some(*said))
            }
            (Err(OpenError::Unauthenticated { cause, said }), _) => {
                let detail = stranger(cause, &received, endpoint.is_some());
                (Refused::because(Refusal::Unauthenticated, detail), said.map(|said| *said))
            }
            // Nobody has the credentials of the decoy.
            (Ok(_), None) => (Refused::because(Refusal::Unauthenticated, NO_SUCH_ENDPOINT), None),
        };
        Response { credential, ..self.refuse(&sent, refused, said.as_ref()) }
    }

    /// From a verified callback to a receipt.
    async fn keep(&self, endpoint: &Endpoint, callback: &Verified) -> Result<(Kept, About), Refused> {
        let settings = &endpoint.settings;
        let Some(action_type) =
            callback.action_type.as_ref().filter(|action| settings.actions.contains(action))
        else {
            let detail = match (&callback.action_type, callback.foreign()) {
                (Some(_), _) => "action_type is not among the actions of the endpoint",
                (None, Some(foreign)) => foreign.as_str(),
                (None, None) => "action_type is missing",
            };
            return Err(Refused::because(Refusal::ActionNotAllowed, detail));
        };
        let Some(user_id) = callback.user_id.as_ref() else {
            return Err(Refused::because(Refusal::Malformed, "user_id is missing: no approver is named"));
        };
        if let Some(code) = &callback.approval_code
            && !settings.approval_codes.is_empty()
            && !settings.approval_codes.contains(code)
        {
            let detail = "approval_code is not among the approval_codes of the endpoint";
            return Err(Refused::because(Refusal::DefinitionNotAllowed, detail));
        }
        let registered = self.registered(settings, callback).await?;
        match self.commit(endpoint, callback, action_type, user_id, registered.as_ref()).await {
            Err(refused) => Err(Refused { registered, ..refused }),
            kept => kept,
        }
    }

    /// From a callback that may be taken to a receipt for its command.
    async fn commit(
        &self,
        endpoint: &Endpoint,
        callback: &Verified,
        action_type: &str,
        user_id: &str,
        registered: Option<&Registered>,
    ) -> Result<(Kept, About), Refused> {
        let settings = &endpoint.settings;
        let received_at = Timestamp::now();
        let input = ResolveInput { endpoint: &endpoint.name, now: received_at, registered };
        let task = context::resolve(&settings.context, callback, input)
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
        let about = if self.identities {
            About {
                user_id: Some(user_id.to_owned()),
                instance_id: task.instance_id.clone(),
                task_id: task.task_id.clone(),
            }
        } else {
            About::default()
        };
        let command = Command {
            command_id: CommandId::new(received_at),
            endpoint: endpoint.name.clone(),
            received_at,
            action: Action::of(action_type),
            action_type: action_type.to_owned(),
            origin: callback.origin(),
            user_id: user_id.to_owned(),
            approval_code: callback.approval_code.clone(),
            task,
            reason: callback.reason.clone(),
            attachments: callback.attachments.clone(),
            action_context: callback.action_context.clone(),
            message_id,
            search_id: callback.id.clone(),
            conflicts_with: None,
            repeats: None,
            extra: callback.extra.clone(),
        };
        let acceptance = Acceptance {
            command,
            fingerprint,
            window: settings.dedupe_window,
            repeats_window: settings.repeats_window,
            on_conflict: settings.on_conflict,
        };
        match self.ledger.accept(acceptance).await {
            Ok(Receipt::Accepted { command_id }) => Ok((Kept { command_id, duplicate: false }, about)),
            Ok(Receipt::Duplicate { command_id }) => Ok((Kept { command_id, duplicate: true }, about)),
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

    /// The response on a callback that is not evaluated.
    pub fn turn_away(&self, unheard: Unheard<'_>) -> Response {
        let Unheard { endpoint: asked_for, refusal, detail, body_bytes, peer, kept } = unheard;
        let endpoint = self.endpoints.get(asked_for);
        let refused = Refused::of(refusal, detail.map(Cow::Borrowed));
        if kept {
            self.refuse(&Sent { asked_for, endpoint, body_bytes, peer }, refused, None)
        } else {
            self.response(endpoint, refused, true)
        }
    }

    /// Keeps a request that is no callback among the refused ones: by its word, and the cause in an operator's words.
    pub fn keep_misdirected(&self, target: &str, word: &str, detail: &str, peer: Option<IpAddr>) {
        self.ledger.refused(ledger::RefusedCallback {
            refused_at: Timestamp::now(),
            endpoint: shown(target),
            reason: word.to_owned(),
            detail: Some(detail.to_owned()),
            peer: peer.map(|peer| peer.to_string()),
            stranger: true,
            ..ledger::RefusedCallback::default()
        });
    }

    fn refuse(&self, sent: &Sent<'_>, refused: Refused, said: Option<&Said>) -> Response {
        let stranger = said.is_none();
        let context_task = sent.endpoint.zip(said).and_then(|(endpoint, said)| {
            named(&endpoint.settings.context, said, refused.registered.as_ref())
        });
        let said = said.cloned().unwrap_or_default();
        let about = if self.identities { about(&said, context_task.as_ref()) } else { About::default() };
        self.ledger.refused(ledger::RefusedCallback {
            refused_at: Timestamp::now(),
            endpoint: shown(sent.asked_for),
            reason: refused.refusal.as_str().to_owned(),
            detail: refused.detail.as_deref().map(str::to_owned),
            peer: sent.peer.map(|peer| peer.to_string()),
            body_bytes: sent.body_bytes,
            stranger,
            action_type: said.action_type,
            user_id: said.user_id,
            approval_code: said.approval_code,
            instance_id: said.instance_id,
            task_id: said.task_id,
            search_id: said.id,
            message_id: said.message_id,
            context_task,
        });
        Response { about, ..self.response(sent.endpoint, refused, stranger) }
    }

    fn response(&self, endpoint: Option<&Endpoint>, refused: Refused, stranger: bool) -> Response {
        let Refused { refusal, detail, .. } = refused;
        let mut response = Response {
            endpoint: endpoint.map_or_else(|| self.unknown.clone(), |endpoint| endpoint.name.clone()),
            locale: self.locale,
            sentence: None,
            outcome: Disposition::Refused(refusal),
            detail: detail.map(Cow::into_owned),
            stranger,
            about: About::default(),
            credential: None,
        };
        // Before the sender is authenticated neither language nor words must tell whether the endpoint exists.
        if let Some(endpoint) = endpoint.filter(|_| Refusal::OF_AUTHENTICATED.contains(&refusal)) {
            response.word_by(&endpoint.settings);
        }
        response
    }
}

/// Who a refused callback is from, and what about.
fn about(said: &Said, named: Option<&ContextTask>) -> About {
    About {
        user_id: said.user_id.clone(),
        instance_id: said.instance_id.clone().or_else(|| named?.instance_id.clone()),
        task_id: said.task_id.clone().or_else(|| said.id.clone()).or_else(|| named?.task_id.clone()),
    }
}

/// What was asked for, cut to what is kept of it.
fn shown(asked_for: &str) -> String {
    asked_for.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Why a stranger is one, for the operator.
fn stranger(cause: Cause, received: &Received<'_>, is_known: bool) -> Cow<'static, str> {
    // A body that is no callback is in the wrong place wherever it is sent.
    if let Cause::Foreign(foreign) = cause {
        return foreign.as_str().into();
    }
    if received.endpoint.starts_with('/') {
        return "no such path: callbacks go to /callbacks/{endpoint}".into();
    }
    if !is_known {
        return NO_SUCH_ENDPOINT.into();
    }
    let coding = received.content_encoding.map(str::trim).filter(|coding| !coding.is_empty());
    match (cause, coding) {
        (Cause::NotUtf8 | Cause::NotJson | Cause::Gzip, Some(coding))
            if !coding.eq_ignore_ascii_case("identity") =>
        {
            // The sender's word is not repeated: it may be anything.
            let known = ["gzip", "deflate", "br", "zstd", "compress"];
            let name = known.into_iter().find(|name| coding.eq_ignore_ascii_case(name)).unwrap_or("another");
            format!("the body is compressed (Content-Encoding: {name}); callbacks must be uncompressed")
                .into()
        }
        (cause, _) => cause.as_str().into(),
    }
}

/// What the context of a refused callback names.
fn named(settings: &context::Settings, said: &Said, registered: Option<&Registered>) -> Option<ContextTask> {
    let task =
        context::named(settings, said.action_context.as_deref(), said.instance_id.as_deref(), registered)?;
    let cut = |id: Option<String>| id.map(|id| id.chars().filter(|c| !c.is_control()).collect());
    ContextTask {
        instance_id: cut(task.instance_id),
        task_id: cut(task.task_id),
        round: cut(task.round),
        business_key: cut(task.business_key),
    }
    .unless_empty()
}

fn unkept(error: AcceptError) -> Refused {
    let refusal = match error {
        AcceptError::Overloaded => Refusal::Overloaded,
        AcceptError::NoRoom | AcceptError::Unavailable => Refusal::LedgerUnavailable,
    };
    Refused::of(refusal, None)
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
