//! The bodies that the approval center sends (platform.md#callback-fields), one for each place where approvers act.

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Map, Value};
use serde_with::skip_serializing_none;

use crate::{
    callback::{CredentialSettings, Credentials, open},
    command::ResolvedBy,
    context::{Format, JsonFields, OnUnresolved, ResolveInput, Settings, resolve},
    intake::EndpointSettings,
    secret::Secret,
    time::Timestamp,
};

/// Where the approver acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Origin {
    /// The list of pending approvals: carries instance_id, task_id and approval_code
    List,
    /// The approval bot's card: carries message_id, and only the context says which task is meant
    Card,
    /// A search hit: carries id, which is the task's, and approval_code
    Search,
}

/// The content of a callback, whatever its shape.
#[derive(Debug, Clone)]
pub(super) struct Decision {
    pub(super) action: String,
    pub(super) user: String,
    pub(super) approval_code: Option<String>,
    pub(super) instance: String,
    pub(super) task: String,
    pub(super) message_id: u64,
    pub(super) context: Option<String>,
    pub(super) reason: Option<String>,
}

/// Members in the order of the captured callback. Unset members are omitted, as the platform does.
#[skip_serializing_none]
#[derive(Serialize)]
struct Body<'a> {
    action_type: &'a str,
    action_context: Option<&'a str>,
    user_id: &'a str,
    approval_code: Option<&'a str>,
    instance_id: Option<&'a str>,
    task_id: Option<&'a str>,
    /// An unquoted number, as captured, although a double may not represent it exactly.
    message_id: Option<u64>,
    id: Option<&'a str>,
    reason: Option<&'a str>,
    token: &'a str,
}

/// The plain JSON of a callback.
pub(super) fn render(origin: Origin, decision: &Decision, token: &str) -> Vec<u8> {
    let listed = origin == Origin::List;
    let body = Body {
        action_type: &decision.action,
        action_context: decision.context.as_deref(),
        user_id: &decision.user,
        approval_code: decision.approval_code.as_deref(),
        instance_id: listed.then_some(&*decision.instance),
        task_id: listed.then_some(&*decision.task),
        message_id: (origin == Origin::Card).then_some(decision.message_id),
        id: (origin == Origin::Search).then_some(&*decision.task),
        reason: decision.reason.as_deref(),
        token,
    };
    serde_json::to_vec(&body).expect("texts and a number are JSON")
}

/// The instance and task that an endpoint reads from a given context. Only ids in the context itself count:
/// registrations are in the service's ledger and unknown here.
pub(super) fn named(endpoint: &EndpointSettings, decision: &Decision) -> (Option<String>, Option<String>) {
    let token = "nobody's";
    let credential =
        CredentialSettings { action_callback_token: Secret::new(token), action_callback_key: None };
    // A card's body contains no ids, so any ids found come from the context.
    let body = render(Origin::Card, decision, token);
    let Ok(callback) = open(&Credentials::new(&[credential]), &body) else { return (None, None) };
    let settings =
        Settings { formats: endpoint.context.formats.clone(), on_unresolved: OnUnresolved::Publish };
    let input = ResolveInput { endpoint: &endpoint.name, now: Timestamp::now(), registered: None };
    match resolve(&settings, &callback, input) {
        Ok(task) if task.resolved_by.is_some_and(|by| by != ResolvedBy::Opaque) => {
            (task.instance_id, task.task_id)
        }
        // The service reports any problems.
        Ok(_) | Err(_) => (None, None),
    }
}

/// A context that this endpoint resolves to the task; `None` if it needs none. For a card, only the context names the
/// task.
pub(super) fn context(origin: Origin, formats: &[Format], instance: &str, task: &str) -> Option<String> {
    let fields = formats.iter().find_map(|format| match format {
        Format::Json(fields) => Some(fields.clone()),
        _ => None,
    });
    let fields = match (fields, origin) {
        (Some(fields), _) => fields,
        (None, Origin::Card) => JsonFields {
            instance_id: Some("/instance_id".to_owned()),
            task_id: Some("/task_id".to_owned()),
            ..JsonFields::default()
        },
        (None, Origin::List | Origin::Search) => return None,
    };
    let mut context = Value::Object(Map::new());
    for (pointer, value) in [(&fields.instance_id, instance), (&fields.task_id, task)] {
        if let Some(pointer) = pointer {
            place(&mut context, pointer, value);
        }
    }
    Some(context.to_string())
}

/// Inserts a text at a JSON pointer, creating the objects on its path.
fn place(root: &mut Value, pointer: &str, value: &str) {
    let mut here = root;
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        if !here.is_object() {
            *here = Value::Object(Map::new());
        }
        here = &mut here[token];
    }
    *here = value.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision() -> Decision {
        Decision {
            action: "APPROVE".to_owned(),
            user: "zhang3".to_owned(),
            approval_code: None,
            instance: "PO-77".to_owned(),
            task: "PO-77/n2".to_owned(),
            message_id: 7_123_456_789_012_345_678,
            context: Some("{\"t\":\"PO-77/n2\"}".to_owned()),
            reason: None,
        }
    }

    fn text(origin: Origin, decision: &Decision) -> String {
        String::from_utf8(render(origin, decision, "s3cr3t-demo")).unwrap()
    }

    #[test]
    fn a_card_is_the_captured_one_byte_for_byte() {
        assert_eq!(
            text(Origin::Card, &decision()),
            r#"{"action_type":"APPROVE","action_context":"{\"t\":\"PO-77/n2\"}","user_id":"zhang3","message_id":7123456789012345678,"token":"s3cr3t-demo"}"#
        );
    }

    #[test]
    fn list_and_search_carry_what_the_platform_says_they_must() {
        let decision = Decision {
            approval_code: Some("A".to_owned()),
            context: None,
            reason: Some("同意".to_owned()),
            ..decision()
        };
        assert_eq!(
            text(Origin::List, &decision),
            r#"{"action_type":"APPROVE","user_id":"zhang3","approval_code":"A","instance_id":"PO-77","task_id":"PO-77/n2","reason":"同意","token":"s3cr3t-demo"}"#
        );
        assert_eq!(
            text(Origin::Search, &decision),
            r#"{"action_type":"APPROVE","user_id":"zhang3","approval_code":"A","id":"PO-77/n2","reason":"同意","token":"s3cr3t-demo"}"#
        );
    }

    #[test]
    fn a_context_is_made_for_the_endpoints_pointers() {
        let json = Format::Json(JsonFields {
            task_id: Some("/task/id".to_owned()),
            instance_id: Some("/a~1b".to_owned()),
            ..JsonFields::default()
        });
        let made: Value = serde_json::from_str(&context(Origin::List, &[json], "I", "T").unwrap()).unwrap();
        assert_eq!(made.pointer("/task/id").unwrap(), "T");
        assert_eq!(made.pointer("/a~1b").unwrap(), "I");
        assert_eq!(context(Origin::List, &[Format::Opaque], "I", "T"), None);
        assert_eq!(
            context(Origin::Card, &[Format::Opaque], "I", "T").unwrap(),
            r#"{"instance_id":"I","task_id":"T"}"#
        );
    }
}
