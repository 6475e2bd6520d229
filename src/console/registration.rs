//! Registered contexts as JSON, parsed strictly, so that a misspelt member is an error and not ignored.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::problem::Problem;
use crate::{
    command::{Grant, Registered, ResolvedBy, TaskRef},
    ledger::{MAX_KEY_BYTES, Registration},
    time::Timestamp,
};

/// Bytes per identifier: the same limit as in a callback.
const MAX_ID_BYTES: usize = 512;
const MAX_PERMITTED: usize = 1000;
/// Bytes of `data`, which goes into each message verbatim.
const MAX_DATA_BYTES: usize = 16 << 10;
/// Nesting of containers in `data`: a depth that every JSON parser of a worker supports.
const MAX_DATA_DEPTH: usize = 32;
pub(super) const MAX_BATCH: usize = 1000;

/// What is wrong with a body, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    item: Option<usize>,
    member: Option<String>,
    message: Cow<'static, str>,
}

impl Fault {
    pub(super) fn of(member: &str, message: impl Into<Cow<'static, str>>) -> Self {
        // The name is echoed to the sender, so limit its length.
        let member = member.chars().take(64).collect();
        Self { item: None, member: Some(member), message: message.into() }
    }

    fn at(self, item: usize) -> Self {
        Self { item: Some(item), ..self }
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        match fault.member {
            Some(member) => Self::bad_member(fault.item, member, fault.message),
            None => Self::bad_body(fault.item, fault.message),
        }
    }
}

pub(super) fn read(body: &[u8], key: String, now: Timestamp) -> Result<Registration, Problem> {
    let members: Members<'_> = serde_json::from_slice(body)
        .map_err(|_| Problem::bad_body(None, "The body is not one JSON object."))?;
    Ok(registration(members, Some(key), now)?)
}

/// Parses the body of a batch: no key or message may repeat.
pub(super) fn read_batch(body: &[u8], now: Timestamp) -> Result<Vec<Registration>, Problem> {
    let Members(members) = serde_json::from_slice(body)
        .map_err(|_| Problem::bad_body(None, "The body is not one JSON object."))?;
    let mut items = None;
    for (name, value) in members {
        if name != "contexts" {
            return Err(Fault::of(&name, "Unknown member.").into());
        }
        if items.is_some() {
            return Err(Fault::of(&name, "Given more than once.").into());
        }
        items = Some(list(value).ok_or_else(|| Fault::of("contexts", "Must be a list."))?);
    }
    let items = items.ok_or_else(|| Fault::of("contexts", "Is missing."))?;
    if items.is_empty() || items.len() > MAX_BATCH {
        return Err(Fault::of("contexts", format!("Must hold 1 to {MAX_BATCH} contexts.")).into());
    }
    let mut registrations: Vec<Registration> = Vec::with_capacity(items.len());
    for (item, value) in items.into_iter().enumerate() {
        let not_an_object = |_| Problem::bad_body(Some(item), "An item of `contexts` is not a JSON object.");
        let members = serde_json::from_str(value.get()).map_err(not_an_object)?;
        registrations.push(registration(members, None, now).map_err(|fault| fault.at(item))?);
    }
    let (mut keys, mut messages) = (HashSet::new(), HashSet::new());
    for (item, one) in registrations.iter().enumerate() {
        if !keys.insert(&one.key) {
            return Err(Fault::of("key", "Another item of the batch has the same key.").at(item).into());
        }
        if one.message_id.is_some_and(|id| !messages.insert(id)) {
            return Err(Fault::of("message_id", "Another item of the batch has the same message_id.")
                .at(item)
                .into());
        }
    }
    Ok(registrations)
}

/// Checks a key from the path or the body.
pub(super) fn check_key(key: &str) -> Result<(), String> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(format!("A key is a string of 1 to {MAX_KEY_BYTES} bytes."));
    }
    Ok(())
}

/// The body has a member for the key only if no `key` is given.
fn registration(
    Members(members): Members<'_>,
    mut key: Option<String>,
    now: Timestamp,
) -> Result<Registration, Fault> {
    let in_path = key.is_some();
    let mut grant = Grant {
        task: TaskRef { resolved_by: Some(ResolvedBy::Registry), ..TaskRef::default() },
        ..Grant::default()
    };
    let (mut message_id, mut expires_at) = (None, None);
    for (at, (name, value)) in members.iter().enumerate() {
        if members[..at].iter().any(|(earlier, _)| earlier == name) {
            return Err(Fault::of(name, "Given more than once."));
        }
        let read = match &**name {
            "key" if !in_path => text(value, usize::MAX).map(|text| key = text),
            "instance_id" => id(value).map(|text| grant.task.instance_id = text),
            "task_id" => id(value).map(|text| grant.task.task_id = text),
            "round" => id(value).map(|text| grant.task.round = text),
            "business_key" => id(value).map(|text| grant.task.business_key = text),
            "operators" => permitted(value).map(|list| grant.operators = list),
            "actions" => permitted(value).map(|list| grant.actions = list),
            "approval_code" => id(value).map(|text| grant.approval_code = text),
            "endpoint" => endpoint(value).map(|name| grant.endpoint = name),
            "message_id" => number(value).map(|number| message_id = number),
            "expires_at" => time(value).map(|time| expires_at = time),
            "data" => data(value).map(|data| grant.task.data = Some(data)),
            _ => Err("Unknown member.".into()),
        };
        read.map_err(|message| Fault::of(name, message))?;
    }
    let key = key.ok_or_else(|| Fault::of("key", "Is missing."))?;
    check_key(&key).map_err(|message| Fault::of("key", message))?;
    if grant.task.instance_id.is_none() && grant.task.task_id.is_none() {
        return Err(Fault::of("task_id", "Give task_id, instance_id, or both."));
    }
    let registered = Registered { grant, expires_at };
    Ok(Registration { key, message_id, registered, registered_at: now })
}

pub(super) type Read<T> = Result<T, Cow<'static, str>>;

/// A text; null equals absent.
pub(super) fn text(value: &RawValue, max_bytes: usize) -> Read<Option<String>> {
    match value.get().as_bytes()[0] {
        b'n' => Ok(None),
        b'"' => {
            let text: String = serde_json::from_str(value.get())
                .map_err(|_| "Contains an escape that is not a character.")?;
            match text.len() {
                0 => Err("Is empty; omit it instead.".into()),
                length if length > max_bytes => Err(format!("Is longer than {max_bytes} bytes.").into()),
                _ => Ok(Some(text)),
            }
        }
        _ => Err("Must be a string.".into()),
    }
}

/// An identifier, in the same form as in a callback, with which it is compared.
fn id(value: &RawValue) -> Read<Option<String>> {
    match text(value, MAX_ID_BYTES)? {
        Some(id) if id.chars().any(char::is_control) => Err("Contains a control character.".into()),
        Some(id) if id.trim().is_empty() => Err("Is blank; omit it instead.".into()),
        id => Ok(id),
    }
}

/// RFC 3339 only: other formats are for people.
fn time(value: &RawValue) -> Read<Option<Timestamp>> {
    const WRONG: &str = "Must be an RFC 3339 time up to the year 9999, like 2026-11-20T08:15:30Z.";
    let Some(text) = text(value, 64).map_err(|_| WRONG)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| WRONG.into())
}

/// An unsigned 64-bit number, or its digits in a text. Null and 0, which no message has, equal absent.
fn number(value: &RawValue) -> Read<Option<u64>> {
    let wrong = || Cow::from("Must be an unsigned 64-bit integer, or its digits as a string.");
    let digits = match value.get().as_bytes()[0] {
        b'n' => return Ok(None),
        b'"' => text(value, 64).map_err(|_| wrong())?.unwrap_or_default(),
        _ => value.get().to_owned(),
    };
    // `parse` alone would accept a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let number = digits.parse().map_err(|_| wrong())?;
    Ok(Some(number).filter(|number| *number != 0))
}

pub(super) fn list(value: &RawValue) -> Option<Vec<&RawValue>> {
    // All values in it were already scanned.
    value.get().starts_with('[').then(|| serde_json::from_str(value.get()).ok())?
}

/// A list of texts; null equals absent, which means anybody. An empty list would mean nobody, or be a mistake.
fn permitted(value: &RawValue) -> Read<Option<Vec<String>>> {
    if value.get() == "null" {
        return Ok(None);
    }
    let wrong = || format!("Must be a list of 1 to {MAX_PERMITTED} strings; omit it to permit all.");
    let items = list(value).filter(|items| (1..=MAX_PERMITTED).contains(&items.len())).ok_or_else(wrong)?;
    let mut texts = Vec::with_capacity(items.len());
    for item in items {
        texts.push(id(item).map_err(|message| format!("One of them: {message}"))?.ok_or_else(wrong)?);
    }
    Ok(Some(texts))
}

/// The name of an endpoint, which may not be configured yet.
fn endpoint(value: &RawValue) -> Read<Option<String>> {
    let name = text(value, 64)?;
    let sound = name.as_ref().is_none_or(|name| {
        let letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let mut bytes = name.as_bytes().iter();
        bytes.next().is_some_and(letter) && bytes.all(|byte| letter(byte) || matches!(byte, b'_' | b'-'))
    });
    if sound { Ok(name) } else { Err("Must be the name of an endpoint: [a-z0-9][a-z0-9_-]{0,63}.".into()) }
}

/// Any JSON, kept verbatim.
fn data(value: &RawValue) -> Read<Box<RawValue>> {
    if value.get().len() > MAX_DATA_BYTES {
        return Err(format!("Is longer than {MAX_DATA_BYTES} bytes.").into());
    }
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in value.get().bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => depth -= 1,
            _ => {}
        }
        if depth > MAX_DATA_DEPTH {
            return Err(format!("Is nested deeper than {MAX_DATA_DEPTH}.").into());
        }
    }
    Ok(value.to_owned())
}

/// The members of a JSON object in order, including repeated names, with unparsed values.
pub(super) struct Members<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(12);
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// A registered context as shown to people. Omitted members are null.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    key: &'a str,
    instance_id: Option<&'a str>,
    task_id: Option<&'a str>,
    round: Option<&'a str>,
    business_key: Option<&'a str>,
    operators: Option<&'a [String]>,
    actions: Option<&'a [String]>,
    approval_code: Option<&'a str>,
    endpoint: Option<&'a str>,
    /// A text, because floats of other languages cannot represent it.
    message_id: Option<String>,
    expires_at: Option<Timestamp>,
    data: Option<&'a RawValue>,
    registered_at: Timestamp,
}

impl<'a> From<&'a Registration> for Shown<'a> {
    fn from(one: &'a Registration) -> Self {
        let Registration { key, message_id, registered: Registered { grant, expires_at }, registered_at } =
            one;
        Self {
            key,
            instance_id: grant.task.instance_id.as_deref(),
            task_id: grant.task.task_id.as_deref(),
            round: grant.task.round.as_deref(),
            business_key: grant.task.business_key.as_deref(),
            operators: grant.operators.as_deref(),
            actions: grant.actions.as_deref(),
            approval_code: grant.approval_code.as_deref(),
            endpoint: grant.endpoint.as_deref(),
            message_id: message_id.map(|id| id.to_string()),
            expires_at: *expires_at,
            data: grant.task.data.as_deref(),
            registered_at: *registered_at,
        }
    }
}
