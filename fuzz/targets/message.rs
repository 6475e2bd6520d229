//! What is published: every command renders as JSON that says what the command says, in every profile, and its headers
//! and properties have what AMQP 0-9-1 allows.

use std::sync::Arc;

use countersign::{
    callback::{CredentialSettings, Credentials, open},
    command::{
        Action, Command, CommandId, TaskRef,
        message::{Envelope, render, trace_of},
        profile::Profile,
    },
    secret::Secret,
    time::Timestamp,
};
use serde_json::Value;

pub(super) fn run(data: &[u8]) {
    let Some((members, round, business_key, at)) =
        super::read::<(&[u8], Option<&str>, Option<&str>, i64)>(data)
    else {
        return;
    };
    let credentials = Credentials::new(&[CredentialSettings {
        action_callback_token: Secret::new("t"),
        action_callback_key: None,
    }]);
    let body = [br#"{"token":"t","user_id":"u","action_type":"APPROVE","#, members, b"}"].concat();
    let Ok(callback) = open(&credentials, &body) else { return };
    let text = |text: &Option<String>| text.clone();
    let received_at = Timestamp::from_millisecond(at % 253_402_207_200_000).unwrap_or(Timestamp::UNIX_EPOCH);
    let action_type = text(&callback.action_type).unwrap_or_default();
    let command = Command {
        command_id: CommandId::new(received_at),
        endpoint: Arc::from("purchase"),
        received_at,
        action: Action::of(&action_type),
        action_type,
        origin: callback.origin(),
        user_id: text(&callback.user_id).unwrap_or_default(),
        approval_code: text(&callback.approval_code),
        task: TaskRef {
            instance_id: text(&callback.instance_id),
            task_id: text(&callback.task_id),
            round: round.map(str::to_owned),
            business_key: business_key.map(str::to_owned),
            resolved_by: None,
            data: callback.extra.first().map(|(_, value)| value.clone()),
        },
        reason: text(&callback.reason),
        attachments: callback.attachments.clone(),
        action_context: text(&callback.action_context),
        message_id: callback.message_id.map(|id| id.to_string()),
        search_id: text(&callback.id),
        conflicts_with: None,
        repeats: None,
        trace: None,
        extra: callback.extra.clone(),
    };

    let body = render(&command);
    assert_eq!(trace_of(&body), None, "no sender writes the trace of a command");
    let told: Value = serde_json::from_slice(&body).expect("what is published is JSON for everybody");
    let says = |pointer: &str, wanted: &Option<String>| {
        assert_eq!(told.pointer(pointer).and_then(Value::as_str), wanted.as_deref(), "{pointer}");
    };
    says("/operator/user_id", &Some(command.user_id.clone()));
    says("/action_type", &Some(command.action_type.clone()));
    says("/task/instance_id", &command.task.instance_id);
    says("/task/task_id", &command.task.task_id);
    says("/task/round", &command.task.round);
    says("/reason", &command.reason);
    says("/action_context", &command.action_context);
    says("/message_id", &command.message_id);
    says("/search_id", &command.search_id);
    assert_eq!(told["attachments"].as_array().map(Vec::len), Some(command.attachments.len()));
    assert_eq!(told["extra"].as_object().map(serde_json::Map::len), Some(command.extra.len()));

    let envelope = Envelope::of(&command);
    for profile in [
        Profile::Plain,
        Profile::CloudEvents,
        Profile::Celery { task: "tasks.decide".to_owned() },
        Profile::MassTransit,
    ] {
        let form = profile.form(&envelope, "approval.command.v1", &body);
        serde_json::from_slice::<Value>(&form.body).expect("a profile wraps JSON in JSON");
        let inside = form.body.windows(body.len()).any(|window| window == body);
        assert!(inside, "{profile:?} changes the command");
        // All headers and properties have to fit into one frame, which is 128 KiB unless agreed otherwise.
        let size: usize = form.headers.iter().map(|(name, value)| name.len() + value.len() + 6).sum();
        assert!(size < 16 * 1024, "{size} bytes of headers");
        let mut names: Vec<&str> = form.headers.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), form.headers.len(), "a header stands twice");
    }
}
