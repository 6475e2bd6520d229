//! Sample commands for tests, and access to the golden files in `tests/fixtures/commands/` with their published
//! forms.

use std::collections::BTreeMap;

use serde_json::{Value, json, value::RawValue};

use crate::telemetry::traces::TraceContext;

use super::{Action, Attachment, Command, CommandId, Origin, ResolvedBy, TaskRef, message::Envelope};

/// Compares with the golden file of that name, or writes it if `COUNTERSIGN_WRITE_GOLDEN` is set.
pub(crate) fn golden(name: &str, whole: &Value) {
    let path = format!("{}/tests/fixtures/commands/{name}.json", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("COUNTERSIGN_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, serde_json::to_string_pretty(whole).unwrap() + "\n").unwrap();
    }
    let kept: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(*whole, kept, "{path} is the contract with consumers");
}

/// [`golden`] of a plain message.
pub(crate) fn golden_message(name: &str, envelope: &Envelope, body: &[u8]) {
    let headers: BTreeMap<_, _> = envelope.headers().into_iter().collect();
    let body: Value = serde_json::from_slice(body).unwrap();
    golden(name, &json!({ "routing_key": envelope.routing_key(), "headers": headers, "body": body }));
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

/// The card of the reference: five members and no definition.
pub(crate) fn card() -> Command {
    Command {
        command_id: CommandId::parse("019a0000-0000-7000-8000-000000000001").unwrap(),
        endpoint: "purchase".into(),
        received_at: "2026-11-20T08:15:30.123456Z".parse().unwrap(),
        action: Action::Approve,
        action_type: "APPROVE".to_owned(),
        origin: Some(Origin::Card),
        user_id: "zhang3".to_owned(),
        approval_code: None,
        task: TaskRef { resolved_by: Some(ResolvedBy::Opaque), ..TaskRef::default() },
        reason: None,
        attachments: Vec::new(),
        action_context: Some("{\"t\":\"PO-77/n2\"}".to_owned()),
        message_id: Some("7123456789012345678".to_owned()),
        search_id: None,
        conflicts_with: None,
        repeats: None,
        extra: Vec::new(),
        trace: None,
    }
}

pub(crate) fn card_resolved_by(format: ResolvedBy) -> Command {
    let context = match format {
        ResolvedBy::Opaque => "PO-77",
        ResolvedBy::Json => r#"{"i":"PO-77","t":"n2","r":2}"#,
        ResolvedBy::Pattern => "PO-77:n2:2",
        ResolvedBy::Jwt => "eyJhbGciOiJIUzI1NiJ9.e30.ZmFrZQ",
        ResolvedBy::Registry => "key-77",
    };
    Command {
        task: TaskRef {
            instance_id: Some("PO-77".to_owned()),
            task_id: Some("n2".to_owned()),
            round: Some("2".to_owned()),
            resolved_by: Some(format),
            data: matches!(format, ResolvedBy::Jwt | ResolvedBy::Registry).then(|| raw(r#"{"dept":7}"#)),
            ..TaskRef::default()
        },
        action_context: Some(context.to_owned()),
        ..card()
    }
}

/// A callback without ids that show its origin, and with a context that matched no format.
pub(crate) fn card_unresolved() -> Command {
    Command { origin: None, message_id: None, task: TaskRef::default(), ..card() }
}

pub(crate) fn list() -> Command {
    Command {
        action: Action::Reject,
        action_type: "REJECT".to_owned(),
        origin: Some(Origin::List),
        approval_code: Some("0F0E0D0C-1111-4222-8333-444455556666".to_owned()),
        task: TaskRef {
            instance_id: Some("erp:PO-77".to_owned()),
            task_id: Some("erp:PO-77:n2:zhang3".to_owned()),
            round: Some("2".to_owned()),
            business_key: Some("PO-77".to_owned()),
            resolved_by: Some(ResolvedBy::Json),
            data: Some(raw(r#"{"amount":12345678901234567890.10}"#)),
        },
        reason: Some("金额不符".to_owned()),
        attachments: vec![Attachment {
            file_type: Some("ATTACHMENTS".to_owned()),
            file_name: Some("quote.pdf".to_owned()),
            file_size: Some(2048),
            url: Some("https://cdn.example.invalid/q.pdf".to_owned()),
            extra: vec![("pages".to_owned(), raw("3"))],
        }],
        message_id: None,
        conflicts_with: CommandId::parse("019a0000-0000-7000-8000-000000000000"),
        repeats: CommandId::parse("019a0000-0000-7000-8000-00000000000f"),
        extra: vec![("new_member".to_owned(), raw(r#"{"a":[1,2.50]}"#))],
        ..card()
    }
}

/// [`list`], of a request that belongs to a trace.
pub(crate) fn traced() -> Command {
    let trace = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    Command { trace, ..list() }
}

pub(crate) fn search_custom() -> Command {
    Command {
        action: Action::Custom,
        action_type: "HOLD".to_owned(),
        origin: Some(Origin::Search),
        approval_code: Some("采购.A".to_owned()),
        task: TaskRef { task_id: Some("t-9".to_owned()), ..TaskRef::default() },
        action_context: None,
        message_id: None,
        search_id: Some("t-9".to_owned()),
        ..card()
    }
}
