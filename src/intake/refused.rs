//! Builds refusals: the reason, and the cause for the operator.

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

/// For the operator only.
pub(super) const NO_SUCH_ENDPOINT: &str = "no such endpoint";

/// A refusal with its cause for the operator.
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) detail: Option<Cow<'static, str>>,
    /// The registration for the callback, if it was already looked up.
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

/// Who sent a refused callback, and about what.
pub(super) fn about(said: &Said, named: Option<&ContextTask>) -> About {
    About {
        user_id: said.user_id.clone(),
        instance_id: said.instance_id.clone().or_else(|| named?.instance_id.clone()),
        task_id: said.task_id.clone().or_else(|| said.id.clone()).or_else(|| named?.task_id.clone()),
    }
}

/// The requested name or path, cut to the length that is kept.
pub(super) fn shown(asked_for: &str) -> String {
    asked_for.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Why a sender is a stranger, for the operator.
pub(super) fn stranger(cause: Cause, received: &Received<'_>, is_known: bool) -> Cow<'static, str> {
    // A body that is not a callback is in the wrong place at any endpoint.
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
            // Never repeat the sender's value: it may be anything.
            let known = ["gzip", "deflate", "br", "zstd", "compress"];
            let name = known.into_iter().find(|name| coding.eq_ignore_ascii_case(name)).unwrap_or("another");
            format!("the body is compressed (Content-Encoding: {name}); callbacks must be uncompressed")
                .into()
        }
        (cause, _) => cause.as_str().into(),
    }
}

/// The task named by the context of a refused callback.
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
        AcceptError::NoRoom | AcceptError::NotDurable | AcceptError::Unavailable => {
            Refusal::LedgerUnavailable
        }
    };
    Refused::because(refusal, error.to_string())
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
