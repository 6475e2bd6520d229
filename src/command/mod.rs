//! The domain: what an approver decided, about which task. Pure: no I/O, no clock, no async.

pub mod enrichment;
pub mod id;
pub mod message;
pub mod outcome;
pub mod profile;
#[cfg(test)]
pub(crate) mod samples;
mod unset;

use std::sync::Arc;

use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::{telemetry::traces::TraceContext, time::Timestamp};
use serde_json::value::RawValue;

pub use id::{CommandId, Fingerprint, Seq, TaskKey};
pub use unset::is_unset;

/// One decision of one approver, ready to be committed and published.
///
/// Identifiers are texts, whatever their type on the wire. Absent, null and empty values are `None`.
#[derive(Debug, Clone)]
pub struct Command {
    /// The permanent identity of the command; also the AMQP `message_id`.
    pub command_id: CommandId,
    /// Name of the endpoint that received the callback.
    pub endpoint: Arc<str>,
    /// When the callback was received, by this machine's clock, in milliseconds.
    pub received_at: Timestamp,
    /// The decision, in this product's words.
    pub action: Action,
    /// The decision, in the platform's words (`APPROVE`, `REJECT` or a custom key, platform.md#custom-actions).
    pub action_type: String,
    /// Where the approver acted, if the callback's fields show it.
    pub origin: Option<Origin>,
    /// The approver's tenant-wide `user_id` (platform.md#the-operator).
    pub user_id: String,
    /// The definition's code from the callback: real or custom (platform.md#two-codes-of-a-definition), often absent
    /// (platform.md#callback-origins).
    pub approval_code: Option<String>,
    /// The third party's task that this decision is about.
    pub task: TaskRef,
    /// The approver's comment.
    pub reason: Option<String>,
    /// Files the approver added.
    pub attachments: Vec<Attachment>,
    /// The context as the platform echoed it, byte for byte.
    pub action_context: Option<String>,
    /// The bot message's id in decimal digits, for a card.
    pub message_id: Option<String>,
    /// The member `id` of the callback, for a search.
    pub search_id: Option<String>,
    /// The earlier command of the same operator on the same task that this one contradicts.
    pub conflicts_with: Option<CommandId>,
    /// The newest earlier command with an identical callback, older than `dedupe_window`: the task was reopened, or
    /// this is a replay.
    pub repeats: Option<CommandId>,
    /// Members unknown to this version, verbatim and in order.
    pub extra: Vec<(String, Box<RawValue>)>,
    /// The trace that the callback belongs to, if its request said so. A command without one starts a trace of its own.
    pub trace: Option<TraceContext>,
}

/// What to do with the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum Action {
    /// `APPROVE`
    Approve,
    /// `REJECT`
    Reject,
    /// Any other configured action type.
    Custom,
}

impl Action {
    /// All of them.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The word in the message, the header and the routing key.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The action for an `action_type` of the platform. Case-sensitive, as platform.md#types-on-the-wire advises.
    #[must_use]
    pub fn of(action_type: &str) -> Self {
        match action_type {
            "APPROVE" => Self::Approve,
            "REJECT" => Self::Reject,
            _ => Self::Custom,
        }
    }
}

/// Where in the platform's client the approver acted (platform.md#callback-origins).
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Origin {
    /// The list of pending approvals.
    List,
    /// The approval bot's card.
    Card,
    /// A search hit.
    Search,
}

impl Origin {
    /// The word in the message.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A task of the third-party approval system, resolved from local data.
#[derive(Debug, Clone, Default)]
pub struct TaskRef {
    /// The third party's instance id.
    pub instance_id: Option<String>,
    /// The third party's task id.
    pub task_id: Option<String>,
    /// The round of the task: a task that was rolled back and reopened has a new one.
    pub round: Option<String>,
    /// The third party's document number.
    pub business_key: Option<String>,
    /// The context format that matched; `None` if none did.
    pub resolved_by: Option<ResolvedBy>,
    /// Free data in the context for the worker: a JSON value, `{}` if absent.
    pub data: Option<Box<RawValue>>,
}

/// The permissions in a context from the third party: the task, and who may do what with it.
#[derive(Debug, Clone, Default)]
pub struct Grant {
    /// The task.
    pub task: TaskRef,
    /// The `user_id`s that may decide; `None` for anybody.
    pub operators: Option<Vec<String>>,
    /// The allowed `action_type`s; `None` for any.
    pub actions: Option<Vec<String>>,
    /// The definition it is bound to; `None` for any.
    pub approval_code: Option<String>,
    /// The endpoint it is bound to; `None` for any.
    pub endpoint: Option<String>,
}

impl Grant {
    /// A grant without restrictions.
    #[must_use]
    pub fn unbound(task: TaskRef) -> Self {
        Self { task, ..Self::default() }
    }
}

/// A context that the third party registered beforehand.
#[derive(Debug, Clone)]
pub struct Registered {
    /// What it permits.
    pub grant: Grant,
    /// It is invalid from then on.
    pub expires_at: Option<Timestamp>,
}

/// The context format that identified the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum ResolvedBy {
    /// The callback's own fields; the context is passed on unchanged.
    Opaque,
    /// JSON pointers into the context.
    Json,
    /// A regular expression over the context or the instance id.
    Pattern,
    /// A token signed by the third party.
    Jwt,
    /// A registration made by the third party beforehand.
    Registry,
}

impl ResolvedBy {
    /// The word in the message and in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A file the approver added (platform.md#callback-fields). Members may be absent; the URL may be short-lived
/// (platform.md#open-questions).
#[derive(Debug, Clone, Default)]
pub struct Attachment {
    /// `IMAGE` or `ATTACHMENTS`.
    pub file_type: Option<String>,
    /// The file's name.
    pub file_name: Option<String>,
    /// Size in bytes, according to the platform.
    pub file_size: Option<u64>,
    /// Where the platform keeps the file.
    pub url: Option<String>,
    /// Members unknown to this version, verbatim.
    pub extra: Vec<(String, Box<RawValue>)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_platform_are_taken_to_the_letter() {
        let word = |action_type| Action::of(action_type).as_str();
        assert_eq!((word("APPROVE"), word("REJECT")), ("approve", "reject"));
        for custom in ["approve", "APPROVAL", "REJECT ", "HOLD", ""] {
            assert_eq!(word(custom), "custom", "{custom}");
        }
    }
}
