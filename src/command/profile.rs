//! Wire profiles: the same command in the form that the consumer's framework expects.
//!
//! The command is rendered and stored once, in the plain form; a profile wraps it when it is published. In every
//! profile the command is inside verbatim, and `message_id`, `type`, routing key and the headers of
//! [`Envelope::headers`] (including `cloudEvents_*`) are the same. So bindings, traces and idempotence do not depend
//! on it. A profile adds headers, and never changes one.

use std::borrow::Cow;

use crate::time::Timestamp;
use serde::Serialize;

use super::{CommandId, message::Envelope};

/// The `$id` of the JSON Schema; the `dataschema` of a structured CloudEvent.
pub const DATA_SCHEMA: &str = "urn:countersign:approval.command:1";

/// MassTransit's URN for the type `Countersign.ApprovalCommand`, by which its consumers select messages.
const MASSTRANSIT_TYPE: &str = "urn:message:Countersign:ApprovalCommand";

/// The form of an endpoint's commands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Profile {
    /// The bare command.
    #[default]
    Plain,
    /// A CloudEvent 1.0 in structured mode, with the command as its `data`.
    CloudEvents,
    /// A Celery task call (message protocol 2) with the command as its only argument.
    Celery {
        /// The name under which the worker registered the task. At most 255 bytes.
        task: String,
    },
    /// MassTransit's JSON envelope, with the command as its `message`.
    MassTransit,
}

/// The published form of one command, as far as the profile determines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form<'a> {
    /// AMQP `content_type`. The `content_encoding` is always `utf-8`.
    pub content_type: &'static str,
    /// AMQP `correlation_id`, of any length.
    pub correlation_id: Option<String>,
    /// Flat text headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body; borrowed if it is the unchanged rendered command.
    pub body: Cow<'a, [u8]>,
}

impl Profile {
    /// Builds the published form of a command. `message_type` is the configured AMQP `type`; `body` is the output of
    /// [`render`](super::message::render), one JSON object, which is copied byte for byte.
    #[must_use]
    pub fn form<'a>(&self, envelope: &Envelope, message_type: &str, body: &'a [u8]) -> Form<'a> {
        let mut form = Form {
            content_type: "application/json",
            correlation_id: envelope.instance_id.clone(),
            headers: envelope.headers(message_type),
            body: Cow::Borrowed(body),
        };
        match self {
            Self::Plain => {}
            Self::CloudEvents => {
                form.content_type = "application/cloudevents+json";
                form.body = Cow::Owned(cloud_event(envelope, message_type, &form.headers, body));
            }
            Self::Celery { task } => {
                let id = envelope.command_id.to_string();
                form.headers.extend(celery_headers(envelope, task, &id));
                form.correlation_id = Some(id);
                form.body = Cow::Owned(celery_call(body));
            }
            Self::MassTransit => {
                form.content_type = "application/vnd.masstransit+json";
                form.body = Cow::Owned(masstransit_envelope(envelope, &form.headers, body));
            }
        }
        form
    }
}

/// The attributes equal those of the `cloudEvents_*` headers, so that both modes describe the same event.
fn cloud_event(
    envelope: &Envelope,
    message_type: &str,
    headers: &[(&'static str, String)],
    body: &[u8],
) -> Vec<u8> {
    #[derive(Serialize)]
    struct Attributes<'a> {
        specversion: &'static str,
        id: CommandId,
        source: &'a str,
        r#type: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        subject: Option<&'a str>,
        time: &'a str,
        datacontenttype: &'static str,
        dataschema: &'static str,
        /// The extension "distributed tracing".
        traceparent: &'a str,
    }
    let attributes = Attributes {
        specversion: "1.0",
        id: envelope.command_id,
        source: header(headers, "cloudEvents_source"),
        r#type: message_type,
        subject: envelope.instance_id.as_deref(),
        time: header(headers, "cloudEvents_time"),
        datacontenttype: "application/json",
        dataschema: DATA_SCHEMA,
        traceparent: header(headers, "traceparent"),
    };
    with_member(&attributes, "data", body)
}

/// The headers of protocol 2 that a Celery 5 worker reads. `parent_id`, `group`, `eta`, `expires` and similar are
/// omitted, which Celery treats as `None`: some client libraries do not support null headers.
///
/// Celery logs `argsrepr`, so it contains the command's id but not its content.
fn celery_headers(envelope: &Envelope, task: &str, id: &str) -> [(&'static str, String); 7] {
    [
        ("lang", "py".to_owned()),
        ("task", task.to_owned()),
        ("id", id.to_owned()),
        ("root_id", id.to_owned()),
        ("argsrepr", format!("(<command {id}>,)")),
        ("kwargsrepr", "{}".to_owned()),
        ("origin", format!("countersign@{}", envelope.endpoint)),
    ]
}

/// `[args, kwargs, embed]`.
fn celery_call(body: &[u8]) -> Vec<u8> {
    const EMBED: &[u8] = br#"],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]"#;
    let mut call = Vec::with_capacity(2 + body.len() + EMBED.len());
    call.extend_from_slice(b"[[");
    call.extend_from_slice(body);
    call.extend_from_slice(EMBED);
    call
}

/// Contains no addresses, because there is no MassTransit endpoint to reply to. `sentTime` is when the callback was
/// received, so that a command published again is the same message.
fn masstransit_envelope(envelope: &Envelope, headers: &[(&'static str, String)], body: &[u8]) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Attributes<'a> {
        message_id: CommandId,
        conversation_id: CommandId,
        message_type: [&'static str; 1],
        sent_time: Timestamp,
        headers: Headers<'a>,
    }
    struct Headers<'a>(&'a [(&'static str, String)]);
    impl Serialize for Headers<'_> {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let own = self.0.iter().filter(|(name, _)| !name.starts_with("cloudEvents_"));
            serializer.collect_map(own.map(|(name, value)| (name, value)))
        }
    }
    let attributes = Attributes {
        message_id: envelope.command_id,
        conversation_id: envelope.command_id,
        message_type: [MASSTRANSIT_TYPE],
        sent_time: envelope.received_at,
        headers: Headers(headers),
    };
    with_member(&attributes, "message", body)
}

fn header<'a>(headers: &'a [(&'static str, String)], name: &str) -> &'a str {
    let found = headers.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| value.as_str()).expect("Envelope::headers has it for every command")
}

/// Appends a member with a raw value to an object. Parsing the value as JSON would cost time at every publish, and
/// digits of long numbers.
fn with_member(object: &impl Serialize, name: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len() + 768);
    serde_json::to_writer(&mut bytes, object).expect("texts are JSON, and a Vec takes every write");
    let end = bytes.pop();
    debug_assert_eq!(end, Some(b'}'), "an object");
    bytes.extend_from_slice(b",\"");
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(b"\":");
    bytes.extend_from_slice(value);
    bytes.push(b'}');
    bytes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::command::{
        Command,
        message::render,
        samples::{self, golden},
    };

    const TYPE: &str = "approval.command.v1";

    fn rendered(profile: &Profile, command: &Command) -> (Form<'static>, Value, String) {
        let body = render(command);
        let envelope = Envelope::of(command);
        let form = profile.form(&envelope, TYPE, &body);
        let text = String::from_utf8(form.body.to_vec()).unwrap();
        assert!(text.contains(std::str::from_utf8(&body).unwrap()), "the command is inside verbatim");
        let shared = envelope.headers(TYPE);
        assert_eq!(form.headers[..shared.len()], shared, "a profile adds headers and changes none");
        let value = serde_json::from_str(&text).unwrap();
        let form = Form { body: Cow::Owned(form.body.into_owned()), ..form };
        (form, value, text)
    }

    fn keep(name: &str, profile: &Profile, command: &Command) {
        let (form, body, _) = rendered(profile, command);
        let headers: serde_json::Map<_, _> =
            form.headers.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let whole = json!({
            "routing_key": Envelope::of(command).routing_key(),
            "content_type": form.content_type, "correlation_id": form.correlation_id,
            "headers": headers, "body": body,
        });
        golden(&format!("profiles/{name}"), &whole);
    }

    fn celery() -> Profile {
        Profile::Celery { task: "approval.command".to_owned() }
    }

    #[test]
    fn plain_is_the_command_and_no_copy_of_it() {
        let command = samples::list();
        let body = render(&command);
        let envelope = Envelope::of(&command);
        let form = Profile::Plain.form(&envelope, TYPE, &body);
        assert!(matches!(form.body, Cow::Borrowed(same) if std::ptr::eq(same, &raw const body[..])));
        assert_eq!((form.content_type, form.headers), ("application/json", envelope.headers(TYPE)));
        assert_eq!(form.correlation_id.as_deref(), Some("erp:PO-77"));
    }

    #[test]
    fn each_profile_renders_its_golden_files() {
        for (kind, command) in [("card", samples::card()), ("list", samples::list())] {
            keep(&format!("cloudevents_{kind}"), &Profile::CloudEvents, &command);
            keep(&format!("celery_{kind}"), &celery(), &command);
            keep(&format!("masstransit_{kind}"), &Profile::MassTransit, &command);
        }
    }

    #[test]
    fn a_cloud_event_has_the_attributes_that_1_0_asks_for_and_those_of_the_headers() {
        let (form, event, _) = rendered(&Profile::CloudEvents, &samples::list());
        for required in ["id", "source", "specversion", "type"] {
            assert!(event[required].as_str().is_some_and(|value| !value.is_empty()), "{required}");
        }
        for (name, value) in &form.headers {
            if let Some(attribute) = name.strip_prefix("cloudEvents_") {
                assert_eq!(event[attribute], **value, "{attribute}");
            }
        }
        let named = |name: &String| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        assert!(event.as_object().unwrap().keys().all(named), "attribute names are a-z and 0-9: {event}");
        let (_, event, _) = rendered(&Profile::CloudEvents, &samples::card());
        assert!(event.get("subject").is_none(), "absent attributes are left out, not null");
    }

    #[test]
    fn a_celery_call_has_the_command_as_its_only_argument() {
        let (form, call, text) = rendered(&celery(), &samples::list());
        assert_eq!(call.as_array().map(Vec::len), Some(3));
        assert_eq!(call[0].as_array().map(Vec::len), Some(1));
        assert_eq!(call[1], json!({}));
        assert_eq!(call[2], json!({"callbacks": null, "errbacks": null, "chain": null, "chord": null}));
        let id = call[0][0]["command_id"].as_str();
        assert_eq!(form.correlation_id.as_deref(), id);
        assert_eq!(
            (Some(header(&form.headers, "id")), header(&form.headers, "task")),
            (id, "approval.command")
        );
        assert!(!header(&form.headers, "argsrepr").contains("金额"), "what approvers write is not for logs");
        assert!(text.contains("12345678901234567890.10"), "numbers pass untouched: {text}");
    }

    #[test]
    fn a_masstransit_envelope_names_the_type_and_is_the_same_each_time() {
        let (form, envelope, _) = rendered(&Profile::MassTransit, &samples::list());
        assert_eq!(envelope["messageType"], json!(["urn:message:Countersign:ApprovalCommand"]));
        assert_eq!(envelope["messageId"], envelope["message"]["command_id"]);
        assert_eq!(envelope["headers"]["traceparent"], header(&form.headers, "traceparent"));
        let again = rendered(&Profile::MassTransit, &samples::list()).0;
        assert_eq!(again, form);
    }
}
