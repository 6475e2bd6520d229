//! Wire profiles: the same command in the form that the consumer's framework expects.
//!
//! The command is rendered and stored once, in the plain form; a profile wraps it when it is published. In every
//! profile the command is inside verbatim, and `message_id`, `type`, routing key and the headers of
//! [`Envelope::headers`] are the same. So bindings, traces and idempotence do not depend on it. A profile adds headers, and
//! never changes one.

use std::borrow::Cow;

use crate::time::Timestamp;
use serde::Serialize;

use super::{CommandId, message::Envelope};

/// The `$id` of the JSON Schema; the `dataschema` of a structured CloudEvent.
pub const DATA_SCHEMA: &str = "urn:countersign:approval.command:1";

/// MassTransit's URN for the type `Countersign.ApprovalCommand`, by which its consumers select messages.
const MASSTRANSIT_TYPE: &str = "urn:message:Countersign:ApprovalCommand";

/// Names and values of headers.
pub type Headers<'a> = Vec<(&'static str, Cow<'a, str>)>;

/// The form of an endpoint's commands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Profile {
    /// The bare command.
    #[default]
    Plain,
    /// A CloudEvent 1.0 in structured mode, with the command as its `data`.
    CloudEvents,
    /// The bare command, with headers that make it a CloudEvent 1.0 in binary mode.
    CloudEventsBinary,
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
    pub correlation_id: Option<Cow<'a, str>>,
    /// Flat text headers.
    pub headers: Headers<'a>,
    /// The body; borrowed if it is the unchanged rendered command.
    pub body: Cow<'a, [u8]>,
}

impl Profile {
    /// Builds the published form of a command. `message_type` is the configured AMQP `type`; `body` is the output of
    /// [`render`](super::message::render), one JSON object, which is copied byte for byte.
    #[must_use]
    pub fn form<'a>(&'a self, envelope: &'a Envelope, message_type: &'a str, body: &'a [u8]) -> Form<'a> {
        let mut form = Form {
            content_type: "application/json",
            correlation_id: envelope.instance_id.as_deref().map(Cow::from),
            headers: envelope.headers(),
            body: Cow::Borrowed(body),
        };
        match self {
            Self::Plain => {}
            Self::CloudEvents => {
                form.content_type = "application/cloudevents+json";
                form.body = Cow::Owned(cloud_event(envelope, message_type, body));
            }
            Self::CloudEventsBinary => form.headers.extend(event_headers(envelope, message_type)),
            Self::Celery { task } => {
                let id = envelope.command_id.to_string();
                form.headers.extend(celery_headers(envelope, task, &id));
                form.correlation_id = Some(id.into());
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

/// CloudEvents' AMQP binding, binary mode: the attributes are headers with this prefix, the data's type is the message's.
const EVENT_PREFIX: &str = "cloudEvents_";

fn event_headers<'a>(envelope: &'a Envelope, message_type: &'a str) -> Headers<'a> {
    let subject = envelope.instance_id.as_deref().map(|id| ("cloudEvents_subject", id.into()));
    let attributes: [(_, Cow<'a, str>); 6] = [
        ("cloudEvents_specversion", "1.0".into()),
        ("cloudEvents_id", envelope.command_id.to_string().into()),
        ("cloudEvents_source", format!("/callbacks/{}", envelope.endpoint).into()),
        ("cloudEvents_type", message_type.into()),
        ("cloudEvents_time", envelope.received_at.to_string().into()),
        ("cloudEvents_dataschema", DATA_SCHEMA.into()),
    ];
    attributes.into_iter().chain(subject).collect()
}

/// Structured mode: the same attributes, and the extension "distributed tracing".
fn cloud_event(envelope: &Envelope, message_type: &str, body: &[u8]) -> Vec<u8> {
    struct Attributes<'a>(Headers<'a>);
    impl Serialize for Attributes<'_> {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let attribute = |name: &'static str| name.strip_prefix(EVENT_PREFIX).unwrap_or(name);
            serializer.collect_map(self.0.iter().map(|(name, value)| (attribute(name), value)))
        }
    }
    let mut attributes = event_headers(envelope, message_type);
    attributes.push(("datacontenttype", "application/json".into()));
    attributes.push(("traceparent", envelope.trace().traceparent().into()));
    with_member(&Attributes(attributes), "data", body)
}

/// The headers of protocol 2 that a Celery 5 worker reads. `parent_id`, `group`, `eta`, `expires` and similar are
/// omitted, which Celery treats as `None`: some client libraries do not support null headers.
///
/// Celery logs `argsrepr`, so it contains the command's id but not its content.
fn celery_headers<'a>(envelope: &Envelope, task: &'a str, id: &str) -> [(&'static str, Cow<'a, str>); 7] {
    [
        ("lang", "py".into()),
        ("task", task.into()),
        ("id", id.to_owned().into()),
        ("root_id", id.to_owned().into()),
        ("argsrepr", format!("(<command {id}>,)").into()),
        ("kwargsrepr", "{}".into()),
        ("origin", format!("countersign@{}", envelope.endpoint).into()),
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
fn masstransit_envelope(envelope: &Envelope, headers: &Headers<'_>, body: &[u8]) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Attributes<'a> {
        message_id: CommandId,
        conversation_id: CommandId,
        message_type: [&'static str; 1],
        sent_time: Timestamp,
        #[serde(serialize_with = "as_object")]
        headers: &'a Headers<'a>,
    }
    fn as_object<S: serde::Serializer>(headers: &Headers<'_>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(headers.iter().map(|(name, value)| (name, value)))
    }
    let attributes = Attributes {
        message_id: envelope.command_id,
        conversation_id: envelope.command_id,
        message_type: [MASSTRANSIT_TYPE],
        sent_time: envelope.received_at,
        headers,
    };
    with_member(&attributes, "message", body)
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

    /// A form that borrows nothing.
    fn owned(form: Form<'_>) -> Form<'static> {
        let text = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Form {
            content_type: form.content_type,
            correlation_id: form.correlation_id.map(text),
            headers: form.headers.into_iter().map(|(name, value)| (name, text(value))).collect(),
            body: Cow::Owned(form.body.into_owned()),
        }
    }

    fn header<'a>(form: &'a Form<'_>, name: &str) -> &'a str {
        &form.headers.iter().find(|(known, _)| *known == name).expect(name).1
    }

    fn rendered(profile: &Profile, command: &Command) -> (Form<'static>, Value, String) {
        let body = render(command);
        let envelope = Envelope::of(command);
        let form = profile.form(&envelope, TYPE, &body);
        let text = String::from_utf8(form.body.to_vec()).unwrap();
        assert!(text.contains(std::str::from_utf8(&body).unwrap()), "the command is inside verbatim");
        let shared = envelope.headers();
        assert_eq!(form.headers[..shared.len()], shared, "a profile adds headers and changes none");
        let value = serde_json::from_str(&text).unwrap();
        (owned(form), value, text)
    }

    fn keep(name: &str, profile: &Profile, command: &Command) {
        let (form, body, _) = rendered(profile, command);
        let headers: serde_json::Map<_, _> =
            form.headers.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
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
        assert_eq!((form.content_type, form.headers), ("application/json", envelope.headers()));
        assert_eq!(form.correlation_id.as_deref(), Some("erp:PO-77"));
    }

    #[test]
    fn each_profile_renders_its_golden_files() {
        for (kind, command) in [("card", samples::card()), ("list", samples::list())] {
            keep(&format!("cloudevents_{kind}"), &Profile::CloudEvents, &command);
            keep(&format!("cloudevents_binary_{kind}"), &Profile::CloudEventsBinary, &command);
            keep(&format!("celery_{kind}"), &celery(), &command);
            keep(&format!("masstransit_{kind}"), &Profile::MassTransit, &command);
        }
    }

    #[test]
    fn a_cloud_event_has_the_attributes_that_1_0_asks_for_and_those_of_the_headers() {
        let (_, event, _) = rendered(&Profile::CloudEvents, &samples::list());
        for required in ["id", "source", "specversion", "type"] {
            assert!(event[required].as_str().is_some_and(|value| !value.is_empty()), "{required}");
        }
        let (binary, ..) = rendered(&Profile::CloudEventsBinary, &samples::list());
        let attributes =
            binary.headers.iter().filter_map(|(name, value)| Some((name.strip_prefix(EVENT_PREFIX)?, value)));
        let mut count = 0;
        for (attribute, value) in attributes {
            count += 1;
            assert_eq!(event[attribute], **value, "{attribute}");
        }
        assert_eq!(count, 7, "{binary:?}");
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
        assert_eq!((Some(header(&form, "id")), header(&form, "task")), (id, "approval.command"));
        assert!(!header(&form, "argsrepr").contains("金额"), "what approvers write is not for logs");
        assert!(text.contains("12345678901234567890.10"), "numbers pass untouched: {text}");
    }

    #[test]
    fn a_masstransit_envelope_names_the_type_and_is_the_same_each_time() {
        let (form, envelope, _) = rendered(&Profile::MassTransit, &samples::list());
        assert_eq!(envelope["messageType"], json!(["urn:message:Countersign:ApprovalCommand"]));
        assert_eq!(envelope["messageId"], envelope["message"]["command_id"]);
        assert_eq!(envelope["headers"]["traceparent"], header(&form, "traceparent"));
        let again = rendered(&Profile::MassTransit, &samples::list()).0;
        assert_eq!(again, form);
    }
}
