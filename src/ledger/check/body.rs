//! A message of the log, read back.

use std::sync::Arc;

use serde::Deserialize;

use crate::{
    command::{Action, Command, CommandId, TaskKey, TaskRef, id::DecisionKey, message::SCHEMA},
    time::Timestamp,
};

/// The members that columns repeat, and those by which tasks and decisions are told apart.
#[derive(Debug, Deserialize)]
pub(in crate::ledger) struct Body {
    schema: String,
    command_id: String,
    endpoint: String,
    received_at: String,
    pub(in crate::ledger) action: String,
    action_type: String,
    operator: Decider,
    task: Task,
    action_context: Option<String>,
    message_id: Option<String>,
    search_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Decider {
    user_id: String,
}

#[derive(Debug, Deserialize)]
struct Task {
    approval_code: Option<String>,
    instance_id: Option<String>,
    task_id: Option<String>,
    round: Option<String>,
}

impl Body {
    /// The command in a message, or what is wrong with that.
    pub(in crate::ledger) fn read(message: &[u8]) -> Result<(Command, String), String> {
        let body: Self = serde_json::from_slice(message).map_err(|error| error.to_string())?;
        if body.schema != SCHEMA {
            return Err(format!("its schema is {:?}", body.schema));
        }
        let command_id = CommandId::parse(&body.command_id)
            .ok_or_else(|| format!("its command_id {:?} is no UUID", body.command_id))?;
        let received_at: Timestamp = body
            .received_at
            .parse()
            .map_err(|_| format!("its received_at {:?} is no time", body.received_at))?;
        let command = Command {
            command_id,
            endpoint: Arc::from(body.endpoint),
            received_at,
            action: Action::of(&body.action_type),
            action_type: body.action_type,
            origin: None,
            user_id: body.operator.user_id,
            approval_code: body.task.approval_code,
            task: TaskRef {
                instance_id: body.task.instance_id,
                task_id: body.task.task_id,
                round: body.task.round,
                ..TaskRef::default()
            },
            reason: None,
            attachments: Vec::new(),
            action_context: body.action_context,
            message_id: body.message_id,
            search_id: body.search_id,
            conflicts_with: None,
            repeats: None,
            trace: None,
            extra: Vec::new(),
        };
        Ok((command, body.action))
    }
}

/// The values of the numbers and bytes that are derived from a command.
pub(in crate::ledger) fn keys(command: &Command) -> (i64, [u8; 16]) {
    (TaskKey::of(command).get().cast_signed(), *DecisionKey::of(command).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{message::render, samples};

    #[test]
    fn a_rendered_command_reads_back_with_its_keys() {
        for command in
            [samples::card(), samples::list(), samples::search_custom(), samples::card_unresolved()]
        {
            let (read, action) = Body::read(&render(&command)).unwrap();
            assert_eq!(keys(&read), keys(&command));
            assert_eq!((read.command_id, &*action), (command.command_id, command.action.as_str()));
            assert_eq!((read.received_at, read.message_id), (command.received_at, command.message_id));
        }
    }

    #[test]
    fn what_is_no_command_is_said() {
        let whole = String::from_utf8(render(&samples::card())).unwrap();
        assert!(Body::read(&whole.as_bytes()[..100]).is_err());
        let other = whole.replace("approval.command/1", "approval.command/9");
        assert_eq!(Body::read(other.as_bytes()).unwrap_err(), "its schema is \"approval.command/9\"");
    }
}
