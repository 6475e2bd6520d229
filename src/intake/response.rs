//! The input and the output of the accept path.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    refusal::Refusal,
    settings::{EndpointSettings, Locale},
};
use crate::{
    command::CommandId,
    telemetry::{metrics::Waited, traces::TraceContext},
};

/// The `action_type` of a probe: `countersign doctor` sends it to test address, token and key of an endpoint.
/// Reserved: no endpoint can allow it.
pub const PROBE_ACTION: &str = "COUNTERSIGN_DOCTOR";

/// The word for a probe in its answer and in the log.
pub const PROBE_WORD: &str = "probe";

/// A received callback.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// The requested endpoint, which may not be configured. If the path names none, this is the whole path. It begins
    /// with a slash, which no name does.
    pub endpoint: &'a str,
    /// The complete body.
    pub body: &'a [u8],
    /// The header `Content-Encoding`, which is not applied.
    pub content_encoding: Option<&'a str>,
    /// The sender.
    pub peer: Option<IpAddr>,
    /// The trace that the request belongs to.
    pub trace: Option<TraceContext>,
    /// When its head was read: the platform's patience began before.
    pub began: Instant,
}

/// A callback refused without evaluation: too large, too slow, while draining, or because of its sender.
#[derive(Debug, Clone, Copy)]
pub struct Unheard<'a> {
    /// As in [`Received`].
    pub endpoint: &'a str,
    /// Why it is refused.
    pub refusal: Refusal,
    /// The cause for the operator.
    pub detail: Option<&'static str>,
    /// How much of the body was read.
    pub body_bytes: u64,
    /// The sender.
    pub peer: Option<IpAddr>,
    /// Whether to keep it among the refused callbacks. False during a flood, which would drive out all others.
    pub kept: bool,
}

/// A callback that was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The command created from it, now or by an earlier delivery.
    pub command_id: CommandId,
    /// True if it was received before.
    pub duplicate: bool,
}

/// How a callback ended.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Its command is on disk.
    Kept(Kept),
    /// Only the refusal is kept.
    Refused(Refusal),
    /// The sender is authenticated and asked only for that ([`PROBE_ACTION`]). Nothing was decided and nothing is
    /// kept, not even a refusal. Unauthenticated senders never get here.
    Probed,
}

/// How a callback ended, with everything that the answer, the log line and the metric need.
#[must_use]
#[derive(Debug)]
pub struct Response {
    /// The configured endpoint's name; [`crate::telemetry::metrics::UNKNOWN_ENDPOINT`] if it is not configured.
    pub endpoint: Arc<str>,
    /// The language for the approver.
    pub locale: Locale,
    /// The endpoint's own sentence for the approver, instead of the service's.
    pub sentence: Option<Arc<str>>,
    /// Kept, or the one reason why not.
    pub outcome: Disposition,
    /// The kept command of a [`Refusal::Declined`] callback.
    pub kept: Option<Kept>,
    /// How waiting for the worker ended, and how long it took; `None` if nobody waited.
    pub waited: Option<(Waited, Duration)>,
    /// The cause for the operator, for the log only. Contains no secrets and no context.
    pub detail: Option<String>,
    /// False if the sender is known to have a key or a token of the endpoint.
    pub stranger: bool,
    /// Who decided about what, for the log; empty unless requested and known.
    pub about: About,
    /// Index of the sender's credential, from 0. `None` for strangers, for callbacks that were not evaluated, and for
    /// probes, which do not show who still uses a credential.
    pub credential: Option<usize>,
}

/// Who decided about what, as far as known: from the callback, otherwise from its context.
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
    /// Applies the endpoint's language and sentences.
    pub(super) fn word_by(&mut self, settings: &EndpointSettings) {
        self.locale = settings.locale;
        if let Disposition::Refused(refusal) = &self.outcome {
            self.sentence = settings.sentences.get(refusal).cloned();
        }
    }
}
