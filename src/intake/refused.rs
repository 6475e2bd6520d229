//! A callback on its way to being refused: the reason, and the causes in an operator's words.

use std::borrow::Cow;

use super::{
    refusal::Refusal,
    response::{About, Received},
};
use crate::{
    callback::{Cause, Said},
    command::Registered,
    context::{self, ContextError},
    ledger::{AcceptError, ContextTask},
};

/// For the operator alone.
pub(super) const NO_SUCH_ENDPOINT: &str = "no such endpoint";

/// A refusal, with the cause for the operator.
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) detail: Option<Cow<'static, str>>,
    /// What was registered for the callback, if it got so far.
    pub(super) registered: Option<Registered>,
}

impl Refused {
    pub(super) fn of(refusal: Refusal, detail: Option<Cow<'static, str>>) -> Self {
        Self { refusal, detail, registered: None }
    }

    pub(super) fn because(refusal: Refusal, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::of(refusal, Some(detail.into()))
    }
}

/// Who a refused callback is from, and what about.
pub(super) fn about(said: &Said, named: Option<&ContextTask>) -> About {
    About {
        user_id: said.user_id.clone(),
        instance_id: said.instance_id.clone().or_else(|| named?.instance_id.clone()),
        task_id: said.task_id.clone().or_else(|| said.id.clone()).or_else(|| named?.task_id.clone()),
    }
}

/// What was asked for, cut to what is kept of it.
pub(super) fn shown(asked_for: &str) -> String {
    asked_for.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Why a stranger is one, for the operator.
pub(super) fn stranger(cause: Cause, received: &Received<'_>, is_known: bool) -> Cow<'static, str> {
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
pub(super) fn named(
    settings: &context::Settings,
    said: &Said,
    registered: Option<&Registered>,
) -> Option<ContextTask> {
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

pub(super) fn unkept(error: AcceptError) -> Refused {
    let refusal = match error {
        AcceptError::Overloaded => Refusal::Overloaded,
        AcceptError::NoRoom | AcceptError::Unavailable => Refusal::LedgerUnavailable,
    };
    Refused::of(refusal, None)
}

pub(super) fn context_refusal(error: ContextError) -> Refusal {
    match error {
        ContextError::Unresolved | ContextError::Contradiction(_) | ContextError::Forged(_) => {
            Refusal::ContextInvalid
        }
        ContextError::Expired => Refusal::ContextExpired,
        ContextError::OperatorNotAllowed => Refusal::OperatorNotAllowed,
        ContextError::ActionNotAllowed => Refusal::ActionNotAllowed,
    }
}
