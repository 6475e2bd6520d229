//! Builds refusals: the reason, and the cause for the operator.

use std::{borrow::Cow, sync::Arc};

use super::{
    refusal::Refusal,
    response::{About, Kept, Received},
};
use crate::{
    callback::{Cause, Said},
    command::{Registered, outcome::Kind},
    context::{self, ContextError},
    ledger::{AcceptError, ContextTask, Heard},
};

/// For the operator only.
pub(super) const NO_SUCH_ENDPOINT: &str = "no such endpoint";

/// A refusal with its cause for the operator.
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) detail: Option<Cow<'static, str>>,
    /// The registration for the callback, if it was already looked up.
    pub(super) registered: Option<Registered>,
    /// For [`Refusal::Declined`].
    pub(super) declined: Option<Declined>,
}

/// A kept command that a worker declined.
pub(super) struct Declined {
    pub(super) kept: Kept,
    /// The worker's words, fit for a phone.
    pub(super) sentence: Option<Arc<str>>,
}

impl Refused {
    pub(super) fn of(refusal: Refusal, detail: Option<Cow<'static, str>>) -> Self {
        Self { refusal, detail, registered: None, declined: None }
    }

    pub(super) fn because(refusal: Refusal, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::of(refusal, Some(detail.into()))
    }
}

/// The longest sentence that an approver gets from a worker, in characters.
const SENTENCE_CHARS: usize = 120;

/// The two parts of a kept cause around the id of the command and what the worker reported.
const KEPT_AS: &str = "kept as ";
const REPORTED: &str = "; a worker reported ";

/// A worker's words, as the approver gets them.
fn on_a_phone(message: &str) -> String {
    match message.char_indices().nth(SENTENCE_CHARS) {
        Some((end, _)) => format!("{}…", message[..end].trim_end()),
        None => message.to_owned(),
    }
}

/// The sentence that an approver got from a worker, by the kept cause of the refusal; `None` if it was the service's.
#[must_use]
pub fn sentence_of_worker(refusal: Refusal, detail: Option<&str>) -> Option<String> {
    let detail = detail.filter(|_| refusal == Refusal::Declined)?;
    let (_, reported) = detail.strip_prefix(KEPT_AS)?.split_once(REPORTED)?;
    let (_kind, message) = reported.split_once(": ")?;
    Some(on_a_phone(message))
}

/// The refusal of a callback whose command a worker declined; `None` if it did what was decided.
pub(super) fn declined(kept: Kept, heard: Heard) -> Option<Refused> {
    let Heard { kind, message } = heard;
    if kind == Kind::Applied {
        return None;
    }
    let message = message.map(|message| {
        let message: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        message.split_whitespace().collect::<Vec<_>>().join(" ")
    });
    let message = message.filter(|message| !message.is_empty());
    let words = message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
    let detail = format!("{KEPT_AS}{}{REPORTED}{}{words}", kept.command_id, kind.as_str());
    let sentence = message.map(|message| on_a_phone(&message).into());
    Some(Refused {
        declined: Some(Declined { kept, sentence }),
        ..Refused::because(Refusal::Declined, detail)
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{command::CommandId, time::Timestamp};

    #[test]
    fn the_sentence_of_a_worker_is_found_again_in_the_kept_cause() {
        let of = |kind, message: Option<&str>| {
            let kept = Kept { command_id: CommandId::new(Timestamp::now()), duplicate: false };
            let refused = declined(kept, Heard { kind, message: message.map(str::to_owned) }).unwrap();
            let sent = refused.declined.unwrap().sentence.map(|sentence| sentence.to_string());
            assert_eq!(sentence_of_worker(Refusal::Declined, refused.detail.as_deref()), sent, "{message:?}");
            sent
        };
        assert_eq!(of(Kind::Refused, Some("预算不足，没有执行")).as_deref(), Some("预算不足，没有执行"));
        assert_eq!(of(Kind::Failed, Some(" a: b;\nc ")).as_deref(), Some("a: b; c"));
        assert_eq!(of(Kind::Refused, Some(&"审".repeat(200))).unwrap().chars().count(), SENTENCE_CHARS + 1);
        assert_eq!(of(Kind::Refused, None), None);
        assert_eq!(of(Kind::Refused, Some(" ")), None);
        assert_eq!(
            sentence_of_worker(Refusal::Conflicting, Some("kept as 1; a worker reported refused: x")),
            None
        );
    }
}
