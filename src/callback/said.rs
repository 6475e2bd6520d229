//! The content of a refused body, for the record of the refusal; never used for a decision.

use super::{
    Verified,
    wire::{self, Members},
};

/// Who did what to which task, as far as the body is readable, whatever else is wrong with it.
///
/// Each text has at most 512 bytes, with U+FFFD in place of control characters. The context is complete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// `action_type`
    pub action_type: Option<String>,
    /// `action_context`
    pub action_context: Option<String>,
    /// `user_id`
    pub user_id: Option<String>,
    /// `approval_code`
    pub approval_code: Option<String>,
    /// `instance_id`
    pub instance_id: Option<String>,
    /// `task_id`
    pub task_id: Option<String>,
    /// `id`
    pub id: Option<String>,
    /// `message_id`
    pub message_id: Option<String>,
}

impl Said {
    pub(super) fn by(members: &Members<'_>) -> Self {
        let said = |name| members.get(name).and_then(wire::glimpse);
        let context = members.get("action_context");
        Self {
            action_type: said("action_type"),
            action_context: context
                .and_then(|context| wire::free_text("action_context", context).ok()?)
                .map(Into::into),
            user_id: said("user_id"),
            approval_code: said("approval_code"),
            instance_id: said("instance_id"),
            task_id: said("task_id"),
            id: said("id"),
            message_id: said("message_id"),
        }
    }
}

impl From<&Verified> for Said {
    fn from(verified: &Verified) -> Self {
        let Verified {
            action_type, action_context, user_id, approval_code, instance_id, task_id, id, ..
        } = verified;
        Self {
            action_type: action_type.clone(),
            action_context: action_context.clone(),
            user_id: user_id.clone(),
            approval_code: approval_code.clone(),
            instance_id: instance_id.clone(),
            task_id: task_id.clone(),
            id: id.clone(),
            message_id: verified.message_id.map(|id| id.to_string()),
        }
    }
}
