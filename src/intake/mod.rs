//! The path of a callback from its bytes to its response. Only this module knows the order of the steps.

mod refusal;
mod refused;
mod response;
mod settings;

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

use crate::{
    callback::{self, Credentials, OpenError, Said, Verified},
    command::{Action, Command, CommandId, Fingerprint, Registered, id::FingerprintParts},
    context::{self, ResolveInput},
    ledger::{self, Accept, Acceptance, MAX_KEY_BYTES, Receipt},
    telemetry::{
        metrics::{UNKNOWN_ENDPOINT, Waited},
        traces::{self, Kind, Span, TraceContext},
    },
    time::Timestamp,
};

pub use refusal::{NO_CALLBACK, Refusal};
pub use refused::sentence_of_worker;
pub use response::{About, Disposition, Kept, PROBE_ACTION, PROBE_WORD, Received, Response, Unheard};
pub use settings::{Counted, EndpointSettings, LONGEST_WAIT, Locale, Settings};

use refused::{
    Declined, NO_SUCH_ENDPOINT, Refused, about, context_refusal, declined, named, shown, stranger, unkept,
};

/// The accept path of all endpoints.
pub struct Intake {
    endpoints: HashMap<String, Endpoint>,
    /// Replaces the credentials of an unconfigured endpoint, so that the work is the same.
    decoy: Credentials,
    unknown: Arc<str>,
    locale: Locale,
    identities: bool,
    ledger: Arc<dyn Accept>,
    /// A permit for each callback that may wait for its worker.
    waiting: Semaphore,
}

/// Callbacks that may wait for their workers at the same time. Each holds a connection.
const MAX_WAITING: usize = 4096;

/// The platform gives up after 5 s (platform.md#callback-answers); the way there and back takes its share.
const PLATFORM_PATIENCE: Duration = Duration::from_millis(4500);

struct Endpoint {
    name: Arc<str>,
    credentials: Credentials,
    settings: EndpointSettings,
}

/// Where a refused callback was sent, and other facts known without parsing its body.
struct Sent<'a> {
    asked_for: &'a str,
    endpoint: Option<&'a Endpoint>,
    body_bytes: u64,
    peer: Option<IpAddr>,
}

/// What a callback brings to its commit.
struct Begun {
    /// When work on it began.
    since: Instant,
    /// The trace that its request belongs to.
    incoming: Option<TraceContext>,
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
            waiting: Semaphore::new(MAX_WAITING),
        }
    }

    /// The language in which approvers of an endpoint read a refusal, and its own sentence if it has one.
    #[must_use]
    pub fn words(&self, endpoint: &str, refusal: Refusal) -> (Locale, Option<Arc<str>>) {
        let known = self.endpoints.get(endpoint).filter(|_| Refusal::OF_AUTHENTICATED.contains(&refusal));
        match known {
            Some(known) => (known.settings.locale, known.settings.sentences.get(&refusal).cloned()),
            None => (self.locale, None),
        }
    }

    /// Processes one callback, from its bytes to its response. Refusals are kept in the ledger too.
    ///
    /// Cancel safe: once a command is handed to the ledger, it is committed even if nobody waits.
    pub async fn receive(&self, received: Received<'_>) -> Response {
        let Received { endpoint: asked_for, body, peer, began, .. } = received;
        let endpoint = self.endpoints.get(asked_for);
        let sent = Sent { asked_for, endpoint, body_bytes: body.len() as u64, peer };
        // Do the same work for an unknown endpoint.
        let credentials = endpoint.map_or(&self.decoy, |endpoint| &endpoint.credentials);
        let (mut credential, mut waited) = (None, None);
        let (refused, said) = match (callback::open(credentials, body), endpoint) {
            (Ok(verified), Some(known)) => {
                credential =
                    (verified.action_type.as_deref() != Some(PROBE_ACTION)).then_some(verified.credential);
                let ended = match verified.action_type.as_deref() {
                    Some(PROBE_ACTION) => Ok((Disposition::Probed, About::default())),
                    _ => match self.keep(known, &verified, received.trace).await {
                        Ok((kept, about)) => {
                            let (declined, how) = self.hear(known, kept, began).await;
                            waited = how;
                            declined.map_or(Ok((Disposition::Kept(kept), about)), Err)
                        }
                        Err(refused) => Err(refused),
                    },
                };
                match ended {
                    Ok((outcome, about)) => {
                        return Response {
                            endpoint: known.name.clone(),
                            locale: known.settings.locale,
                            sentence: None,
                            outcome,
                            kept: None,
                            waited,
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
            // Nobody has the decoy's credentials.
            (Ok(_), None) => (Refused::because(Refusal::Unauthenticated, NO_SUCH_ENDPOINT), None),
        };
        Response { credential, waited, ..self.refuse(&sent, refused, said.as_ref()) }
    }

    /// Waits for what the worker says of a kept command, where the endpoint is configured so. Returns the refusal if the
    /// worker declined it.
    ///
    /// Whatever happens while it waits, 200 is right: the command is kept.
    async fn hear(
        &self,
        endpoint: &Endpoint,
        kept: Kept,
        began: Instant,
    ) -> (Option<Refused>, Option<(Waited, Duration)>) {
        let Some(wait) = endpoint.settings.answer_wait else { return (None, None) };
        let Ok(_permit) = self.waiting.try_acquire() else {
            return (None, Some((Waited::Full, Duration::ZERO)));
        };
        let kept_at = Instant::now();
        let deadline = (kept_at + wait).min(began + PLATFORM_PATIENCE);
        let heard = self.ledger.heard(kept.command_id, deadline.into()).await;
        let how = if heard.is_some() { Waited::Heard } else { Waited::Nothing };
        (heard.and_then(|heard| declined(kept, heard)), Some((how, kept_at.elapsed())))
    }

    /// Turns a verified callback into a receipt.
    async fn keep(
        &self,
        endpoint: &Endpoint,
        callback: &Verified,
        incoming: Option<TraceContext>,
    ) -> Result<(Kept, About), Refused> {
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
        let begun = Begun { since: Instant::now(), incoming };
        let registered = self.registered(settings, callback).await?;
        match self.commit(endpoint, callback, (action_type, user_id), registered.as_ref(), begun).await {
            Err(refused) => Err(Refused { registered, ..refused }),
            kept => kept,
        }
    }

    /// Turns an allowed callback into a receipt for its command.
    async fn commit(
        &self,
        endpoint: &Endpoint,
        callback: &Verified,
        (action_type, user_id): (&str, &str),
        registered: Option<&Registered>,
        Begun { since, incoming }: Begun,
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
        let command_id = CommandId::new(received_at);
        let trace = traces::of_callback(incoming, command_id.as_bytes());
        let command = Command {
            command_id,
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
            trace: incoming.map(|_| trace),
        };
        let acceptance = Acceptance {
            since,
            command,
            fingerprint,
            window: settings.dedupe_window,
            repeats_window: settings.repeats_window,
            on_conflict: settings.on_conflict,
        };
        let span = Span::below(trace, Kind::Internal, "commit");
        match self.ledger.accept(acceptance).await {
            Ok(Receipt::Accepted { command_id }) => {
                if let Some(span) = span {
                    span.with("countersign.command_id", command_id.to_string()).end();
                }
                Ok((Kept { command_id, duplicate: false }, about))
            }
            Ok(Receipt::Duplicate { command_id }) => Ok((Kept { command_id, duplicate: true }, about)),
            Ok(Receipt::Conflicting { with }) => {
                Err(Refused::because(Refusal::Conflicting, format!("contradicts {with}")))
            }
            Err(error) => Err(unkept(error)),
        }
    }

    /// The third party's registration for this callback, if its endpoint uses registrations: looked up by context,
    /// else by bot message.
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

    /// The response to a callback that is refused without evaluation.
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

    /// Keeps a request that is not a callback among the refused ones, with its word and the cause for the operator.
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
        let Refused { refusal, detail, declined, .. } = refused;
        let mut response = Response {
            endpoint: endpoint.map_or_else(|| self.unknown.clone(), |endpoint| endpoint.name.clone()),
            locale: self.locale,
            sentence: None,
            outcome: Disposition::Refused(refusal),
            kept: None,
            waited: None,
            detail: detail.map(Cow::into_owned),
            stranger,
            about: About::default(),
            credential: None,
        };
        // Before authentication, neither language nor words may reveal whether the endpoint exists.
        if let Some(endpoint) = endpoint.filter(|_| Refusal::OF_AUTHENTICATED.contains(&refusal)) {
            response.word_by(&endpoint.settings);
        }
        if let Some(Declined { kept, sentence }) = declined {
            response.kept = Some(kept);
            response.sentence = sentence.or(response.sentence);
        }
        response
    }
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").field("endpoints", &self.endpoints.keys()).finish_non_exhaustive()
    }
}
