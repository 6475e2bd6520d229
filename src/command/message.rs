//! The published form of a command: a contract with consumers in other languages and other teams.
//!
//! Within `approval.command/1` changes are additive only. Every member but `traceparent` is always present; absent values are
//! `null`.
//! The golden files in `tests/fixtures/commands/` check this.

use std::{borrow::Cow, sync::Arc};

use crate::{
    telemetry::traces::{self, TraceContext},
    time::Timestamp,
};
use serde::{
    Serialize,
    ser::{SerializeMap, Serializer},
};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{Action, Attachment, Command, CommandId};

/// The schema's name, in the member and the header `schema`.
pub const SCHEMA: &str = "approval.command/1";

/// The metadata for the broker: enough to route a command and to fill its properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// AMQP `message_id`.
    pub command_id: CommandId,
    /// AMQP `timestamp` (whole seconds only).
    pub received_at: Timestamp,
    /// Header `endpoint`, part of the routing key.
    pub endpoint: Arc<str>,
    /// Header `action`, part of the routing key.
    pub action: Action,
    /// Part of the routing key.
    pub approval_code: Option<String>,
    /// Header `instance_id`; AMQP `correlation_id`.
    pub instance_id: Option<String>,
    /// Header `task_id`.
    pub task_id: Option<String>,
    /// Header `traceparent`; `None` for one that starts at the command.
    pub trace: Option<TraceContext>,
}

impl Envelope {
    /// The envelope of a command.
    #[must_use]
    pub fn of(command: &Command) -> Self {
        Self {
            command_id: command.command_id,
            received_at: command.received_at,
            endpoint: command.endpoint.clone(),
            action: command.action,
            approval_code: command.approval_code.clone(),
            instance_id: command.task.instance_id.clone(),
            task_id: command.task.task_id.clone(),
            trace: command.trace,
        }
    }

    /// The parent of the next step of this command's trace.
    #[must_use]
    pub fn trace(&self) -> TraceContext {
        self.trace.unwrap_or_else(|| traces::of_callback(None, self.command_id.as_bytes()))
    }

    /// See [`routing_key`].
    #[must_use]
    pub fn routing_key(&self) -> String {
        routing_key(&self.endpoint, self.approval_code.as_deref(), self.action.as_str())
    }

    /// The flat text headers of every profile: what workers and bindings go by without reading the body.
    ///
    /// An absent value omits its header, because some client libraries do not support null headers.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, Cow<'_, str>)> {
        let ids = [("instance_id", &self.instance_id), ("task_id", &self.task_id)];
        let ids = ids.into_iter().filter_map(|(name, id)| Some((name, Cow::from(id.as_deref()?))));
        let mut headers = Vec::with_capacity(8);
        headers.push(("schema", Cow::from(SCHEMA)));
        headers.push(("endpoint", Cow::from(&*self.endpoint)));
        headers.push(("action", Cow::from(self.action.as_str())));
        headers.extend(ids);
        headers.push(("traceparent", Cow::from(self.trace().traceparent())));
        headers
    }
}

/// `approval.<endpoint>.<approval_code or ->.<action>`: lower case, every byte outside `[a-z0-9_-]` as `%` and two
/// hex digits, at most 255 bytes (the limit of a short string in AMQP 0-9-1 §4.2.5.3).
///
/// A longer code is truncated, and a digest of the whole code replaces the rest.
#[must_use]
pub fn routing_key(endpoint: &str, approval_code: Option<&str>, action: &str) -> String {
    const LIMIT: usize = 255;
    let mut key = String::with_capacity(64);
    key.push_str("approval.");
    escape(endpoint, &mut key);
    key.push('.');
    let room = LIMIT - key.len() - 1 - action.len();
    match approval_code {
        None => key.push('-'),
        Some(code) => {
            let end = key.len() + room;
            escape(code, &mut key);
            if key.len() > end {
                let keep = end - 17;
                // Do not cut inside an escape.
                let escape = key[keep - 2..keep].find('%');
                key.truncate(escape.map_or(keep, |at| keep - 2 + at));
                key.push('-');
                for byte in &Sha256::digest(code.as_bytes())[..8] {
                    push_hex(*byte, &mut key);
                }
            }
        }
    }
    key.push('.');
    key.push_str(action);
    key
}

/// The trace context in a rendered body, which has it as its last member; `None` if the callback brought none.
///
/// Kept there, because a command published again after a crash, or by another replica, must continue the same trace. No
/// sender can forge it: what is foreign in a body stands within `extra`, and without the member that ends with `}}`.
#[must_use]
pub fn trace_of(body: &[u8]) -> Option<TraceContext> {
    let text = body.strip_suffix(b"\"}")?;
    let (rest, value) = text.split_at_checked(text.len().checked_sub(TRACEPARENT_LENGTH)?)?;
    rest.ends_with(TRACEPARENT.as_bytes()).then_some(())?;
    TraceContext::parse(std::str::from_utf8(value).ok()?)
}

const TRACEPARENT: &str = ",\"traceparent\":\"";
const TRACEPARENT_LENGTH: usize = 55;

fn escape(text: &str, into: &mut String) {
    for byte in text.bytes() {
        match byte.to_ascii_lowercase() {
            plain @ (b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-') => into.push(char::from(plain)),
            _ => {
                into.push('%');
                push_hex(byte, into);
            }
        }
    }
}

fn push_hex(byte: u8, into: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    into.push(char::from(DIGITS[usize::from(byte >> 4)]));
    into.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// The body of the message: compact JSON with members in the order of the contract.
#[must_use]
pub fn render(command: &Command) -> Vec<u8> {
    let mut body = Vec::with_capacity(768);
    serde_json::to_writer(&mut body, &Body::of(command))
        .expect("a command holds nothing that JSON cannot express, and a Vec takes every write");
    body
}

/// The body of a message around the two members that a ledger fills: for one that learns their values as it writes.
#[derive(Debug, Clone)]
pub struct Parts {
    body: Vec<u8>,
    head: usize,
    tail: usize,
}

/// Between the two members.
const BETWEEN: &str = ",\"repeats\":";

impl Parts {
    /// Renders a command whose `conflicts_with` and `repeats` are not known yet.
    #[must_use]
    pub fn of(command: &Command) -> Self {
        debug_assert!(command.conflicts_with.is_none() && command.repeats.is_none(), "they are to be filled");
        let body = render(command);
        let extra = serde_json::to_vec(&Extra(&command.extra)).expect("it was rendered once already");
        let trace = command.trace.map_or(0, |_| TRACEPARENT.len() + TRACEPARENT_LENGTH + "\"".len());
        let tail = body.len() - ",\"extra\":}".len() - extra.len() - trace;
        let head = tail - "null".len() - BETWEEN.len() - "null".len();
        debug_assert!(body[..head].ends_with(b"\"conflicts_with\":"), "the order of the members");
        Self { body, head, tail }
    }

    /// Up to the value of `conflicts_with`.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        &self.body[..self.head]
    }

    /// From after the value of `repeats`.
    #[must_use]
    pub fn tail(&self) -> &[u8] {
        &self.body[self.tail..]
    }

    /// The whole body: what [`render`] makes of a command with these two values.
    #[must_use]
    pub fn join(&self, conflicts_with: Option<CommandId>, repeats: Option<CommandId>) -> Vec<u8> {
        let value = |id: Option<CommandId>| id.map_or_else(|| "null".to_owned(), |id| format!("\"{id}\""));
        let middle = [&*value(conflicts_with), BETWEEN, &*value(repeats)].concat();
        [self.head(), middle.as_bytes(), self.tail()].concat()
    }
}

#[derive(Serialize)]
struct Body<'a> {
    schema: &'static str,
    command_id: CommandId,
    endpoint: &'a str,
    received_at: Timestamp,
    action: &'static str,
    action_type: &'a str,
    origin: Option<&'static str>,
    operator: Approver<'a>,
    task: Task<'a>,
    reason: Option<&'a str>,
    attachments: Vec<AttachmentBody<'a>>,
    action_context: Option<&'a str>,
    message_id: Option<&'a str>,
    search_id: Option<&'a str>,
    conflicts_with: Option<CommandId>,
    repeats: Option<CommandId>,
    extra: Extra<'a>,
    /// The last one, see [`trace_of`]. Left out if absent: without traces nothing of the message is different.
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<TraceContext>,
}

#[derive(Serialize)]
struct Approver<'a> {
    user_id: &'a str,
}

#[derive(Serialize)]
struct Task<'a> {
    approval_code: Option<&'a str>,
    instance_id: Option<&'a str>,
    task_id: Option<&'a str>,
    round: Option<&'a str>,
    business_key: Option<&'a str>,
    resolved_by: Option<&'static str>,
    data: Data<'a>,
}

struct Data<'a>(Option<&'a RawValue>);

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(data) => data.serialize(serializer),
            None => serializer.serialize_map(Some(0))?.end(),
        }
    }
}

struct Extra<'a>(&'a [(String, Box<RawValue>)]);

impl Serialize for Extra<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

struct AttachmentBody<'a>(&'a Attachment);

impl Serialize for AttachmentBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let file = self.0;
        let mut map = serializer.serialize_map(Some(4 + file.extra.len()))?;
        map.serialize_entry("file_type", &file.file_type)?;
        map.serialize_entry("file_name", &file.file_name)?;
        map.serialize_entry("file_size", &file.file_size)?;
        map.serialize_entry("url", &file.url)?;
        for (name, value) in &file.extra {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'a> Body<'a> {
    fn of(command: &'a Command) -> Self {
        let task = &command.task;
        Self {
            schema: SCHEMA,
            command_id: command.command_id,
            endpoint: &command.endpoint,
            received_at: command.received_at,
            action: command.action.as_str(),
            action_type: &command.action_type,
            origin: command.origin.map(super::Origin::as_str),
            operator: Approver { user_id: &command.user_id },
            task: Task {
                approval_code: command.approval_code.as_deref(),
                instance_id: task.instance_id.as_deref(),
                task_id: task.task_id.as_deref(),
                round: task.round.as_deref(),
                business_key: task.business_key.as_deref(),
                resolved_by: task.resolved_by.map(super::ResolvedBy::as_str),
                data: Data(task.data.as_deref()),
            },
            reason: command.reason.as_deref(),
            attachments: command.attachments.iter().map(AttachmentBody).collect(),
            action_context: command.action_context.as_deref(),
            message_id: command.message_id.as_deref(),
            search_id: command.search_id.as_deref(),
            conflicts_with: command.conflicts_with,
            repeats: command.repeats,
            extra: Extra(&command.extra),
            traceparent: command.trace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{ResolvedBy, samples};

    fn golden(name: &str, command: &Command) {
        samples::golden_message(name, &Envelope::of(command), &render(command));
        let (conflicts_with, repeats) = (command.conflicts_with, command.repeats);
        let parts = Parts::of(&Command { conflicts_with: None, repeats: None, ..command.clone() });
        assert_eq!(parts.join(conflicts_with, repeats), render(command));
        // `Value` loses the order of members. Consumers do not need it, but people who read a queue do.
        let order = String::from_utf8(render(command)).unwrap();
        let mut last = 0;
        for member in ["schema", "command_id", "endpoint", "received_at", "action", "action_type", "origin"] {
            let at = order.find(&format!("\"{member}\":")).unwrap();
            assert!(at >= last, "{member} is out of order in {order}");
            last = at;
        }
    }

    #[test]
    fn the_card_of_the_reference_renders_as_its_golden_file() {
        golden("card", &samples::card());
    }

    #[test]
    fn the_trace_of_a_request_is_the_last_member_and_is_read_from_there() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let command = samples::traced();
        golden("list_traced", &command);
        let body = render(&command);
        assert!(body.ends_with(format!(",\"traceparent\":\"{text}\"}}").as_bytes()));
        assert_eq!(trace_of(&body), TraceContext::parse(text));
        // What senders write stands within `extra`.
        let forged = Command {
            extra: vec![("traceparent".to_owned(), raw(&format!("\"{text}\"")))],
            ..samples::card()
        };
        for body in [render(&forged), render(&samples::card()), b"{}".to_vec(), b"\"}".to_vec(), Vec::new()] {
            assert_eq!(trace_of(&body), None);
        }
    }

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn a_list_operation_with_everything_renders_as_its_golden_file() {
        let command = samples::list();
        golden("list", &command);
        let text = String::from_utf8(render(&command)).unwrap();
        assert!(
            text.contains("12345678901234567890.10") && text.contains("2.50"),
            "numbers pass untouched: {text}"
        );
    }

    #[test]
    fn a_custom_action_from_a_search_renders_as_its_golden_file() {
        golden("search_custom", &samples::search_custom());
    }

    #[test]
    fn each_context_format_renders_as_its_golden_file() {
        for format in [ResolvedBy::Pattern, ResolvedBy::Jwt, ResolvedBy::Registry] {
            golden(&format!("card_{}", format.as_str()), &samples::card_resolved_by(format));
        }
        golden("card_unresolved", &samples::card_unresolved());
    }

    #[test]
    fn a_routing_key_is_never_longer_than_a_short_string() {
        for length in 0..400 {
            for code in ["C".repeat(length), "采".repeat(length), format!("{}采采", "x".repeat(length))] {
                let mut envelope = Envelope::of(&samples::card());
                envelope.approval_code = Some(code.clone());
                let key = envelope.routing_key();
                assert!(key.len() <= 255, "{key}");
                assert!(key.starts_with("approval.purchase.") && key.ends_with(".approve"), "{key}");
                let escapes_whole = key.match_indices('%').all(|(at, _)| {
                    key[at + 1..].len() >= 2 && key[at + 1..at + 3].bytes().all(|b| b.is_ascii_hexdigit())
                });
                assert!(escapes_whole && key.matches('.').count() == 3, "{key}");
            }
        }
    }

    #[test]
    fn a_code_that_is_too_long_is_cut_as_late_as_possible_and_never_within_an_escape() {
        let key = |code: String| {
            Envelope { approval_code: Some(code), ..Envelope::of(&samples::card()) }.routing_key()
        };
        let room = 255 - key(String::new()).len();
        assert_eq!(key("a".repeat(room)), format!("approval.purchase.{}.approve", "a".repeat(room)));
        assert_eq!(key("a".repeat(room + 1)).len(), 255);
        for letters in 0..6 {
            let key = key("a".repeat(letters) + &"é".repeat(200));
            assert!((253..=255).contains(&key.len()), "{key}");
            let word = key.split('.').nth(2).unwrap();
            let (beginning, digest) = word.split_at(word.len() - 17);
            assert!(
                digest.starts_with('-') && digest[1..].bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{key}"
            );
            let escapes = beginning.strip_prefix(&*"a".repeat(letters)).unwrap();
            assert!(escapes.len().is_multiple_of(3) && "%c3%a9".repeat(200).starts_with(escapes), "{key}");
        }
    }

    #[test]
    fn attachments_render_whatever_the_number_of_their_unknown_members() {
        for count in [0, 1, 5] {
            let mut command = samples::list();
            let raw = RawValue::from_string("7".to_owned()).unwrap();
            command.attachments[0].extra = (0..count).map(|n| (format!("m{n}"), raw.clone())).collect();
            let told: serde_json::Value = serde_json::from_slice(&render(&command)).unwrap();
            assert_eq!(told["attachments"][0].as_object().unwrap().len(), 4 + count);
        }
    }
}
