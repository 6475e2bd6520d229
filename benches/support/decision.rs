//! A decision of ordinary size.

use countersign::command::{
    Action, Command, CommandId, Fingerprint, Origin, ResolvedBy, TaskRef, id::FingerprintParts,
};
use countersign::time::Timestamp;

/// A decision of ordinary size, about a task of its own: its message has about 800 bytes.
pub(crate) fn decision(number: u64, at: Timestamp) -> Command {
    Command {
        command_id: CommandId::new(at),
        endpoint: "bench".into(),
        received_at: at,
        action: Action::Approve,
        action_type: "APPROVE".to_owned(),
        origin: Some(Origin::List),
        user_id: "demo-user".to_owned(),
        approval_code: Some("demo".to_owned()),
        task: TaskRef {
            instance_id: Some("demo-instance".to_owned()),
            task_id: Some(format!("demo-task-{number}")),
            resolved_by: Some(ResolvedBy::Opaque),
            ..TaskRef::default()
        },
        reason: Some("within the budget".to_owned()),
        attachments: Vec::new(),
        action_context: Some("c".repeat(220)),
        message_id: None,
        search_id: None,
        conflicts_with: None,
        repeats: None,
        extra: Vec::new(),
        trace: None,
    }
}

/// What a decision is the same by.
pub(crate) fn fingerprint(command: &Command) -> Fingerprint {
    Fingerprint::of(&FingerprintParts {
        endpoint: &command.endpoint,
        action_context: command.action_context.as_deref(),
        instance_id: command.task.instance_id.as_deref(),
        task_id: command.task.task_id.as_deref(),
        user_id: &command.user_id,
        action_type: &command.action_type,
        ..FingerprintParts::default()
    })
}
