//! What comes to the accept path, and how it ends.

use std::{net::IpAddr, sync::Arc};

use super::{
    refusal::Refusal,
    settings::{EndpointSettings, Locale},
};
use crate::command::CommandId;

/// The `action_type` of a probe: a callback by which `countersign doctor` tries address, token and key of an endpoint.
/// Reserved: no endpoint can allow it.
pub const PROBE_ACTION: &str = "COUNTERSIGN_DOCTOR";

/// The word for a probe in its answer and in the log.
pub const PROBE_WORD: &str = "probe";

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
    /// kept, not even a refusal. A sender who is not authenticated cannot get here.
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
    pub(super) fn word_by(&mut self, settings: &EndpointSettings) {
        self.locale = settings.locale;
        if let Disposition::Refused(refusal) = &self.outcome {
            self.sentence = settings.sentences.get(refusal).cloned();
        }
    }
}
