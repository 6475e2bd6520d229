//! The platform's JSON, parsed leniently where the platform is lenient and strictly where it matters
//! (platform.md#types-on-the-wire).
//!
//! Values keep their original text until a type is requested: a 64-bit `message_id` never passes through a float, and
//! unknown members are passed on digit by digit.
//!
//! # Free text and identifiers
//! Free text (a comment, a file name, unknown members) is accepted as people and keyboards produce it: half a
//! surrogate pair, left when a client cuts an emoji, becomes U+FFFD, and control characters stay. Identifiers are
//! exact: half a pair is an error there, and so is a control character, which a worker's database may refuse.
//!
//! # Unset
//! The platform omits unset members. Client libraries in between fill them in with `null`, `""`, `0`, `false`, `[]`
//! or `{}`, depending on language and type. All of these mean unset, anywhere ([`is_unset`]).

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::command::is_unset;

/// Nesting of containers, including the body.
const MAX_DEPTH: usize = 8;
/// Members per object.
const MAX_MEMBERS: usize = 64;
/// Attachments per callback.
pub(super) const MAX_ATTACHMENTS: usize = 100;
/// Bytes per identifier. Identifiers become AMQP headers, which must all fit into one frame. The longest that the
/// platform documents is an approval code of 128 characters (platform.md#definitions).
pub(super) const MAX_ID_BYTES: usize = 512;

/// What is wrong with an authenticated body, as a sentence for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(pub(super) String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not one JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    NotUtf8,
    NotJson,
}

/// The members of a JSON object in order, including repeated names, with unparsed values.
#[derive(Debug)]
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Parses exactly one object. A leading byte order mark and surrounding white space are allowed
    /// (platform.md#types-on-the-wire).
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let text = std::str::from_utf8(bytes).map_err(|_| Unreadable::NotUtf8)?;
        serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(text)).map_err(|_| Unreadable::NotJson)
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.all(name).next()
    }

    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &'a RawValue> {
        self.iter().filter(move |(member, _)| *member == name).map(|(_, value)| value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (&**name, *value))
    }

    /// Checks the object, and everything in it, for limits and unique names.
    pub(super) fn check(&self) -> Result<(), Fault> {
        self.check_at(1, Texts::Free)
    }

    fn check_at(&self, depth: usize, texts: Texts) -> Result<(), Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault(format!("nested deeper than {MAX_DEPTH}")));
        }
        if self.0.len() > MAX_MEMBERS {
            return Err(Fault(format!("an object with more than {MAX_MEMBERS} members")));
        }
        for (at, (name, value)) in self.0.iter().enumerate() {
            if self.0[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(Fault("a member name occurs twice in one object".to_owned()));
            }
            check_value(value, depth, texts)?;
        }
        Ok(())
    }

    pub(super) fn into_inner(self) -> Vec<(Cow<'a, str>, &'a RawValue)> {
        self.0
    }
}

/// How the texts of a value are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Texts {
    /// Valid characters only: half a surrogate pair is an error.
    Exact,
    /// Half a pair is allowed and repaired later; see [`repaired`].
    Free,
}

pub(super) fn check_value(value: &RawValue, depth: usize, texts: Texts) -> Result<(), Fault> {
    let no_text = || Fault("a string holds an escape that is not a character".to_owned());
    match value.get().as_bytes()[0] {
        b'{' => {
            if texts == Texts::Exact && matches!(repair(value.get()), Cow::Owned(_)) {
                return Err(no_text());
            }
            let members: Members<'_> =
                serde_json::from_str(value.get()).expect("the text of an object that was scanned before");
            members.check_at(depth + 1, texts)
        }
        b'[' => {
            if depth + 1 > MAX_DEPTH {
                return Err(Fault(format!("nested deeper than {MAX_DEPTH}")));
            }
            let items: Vec<&RawValue> =
                serde_json::from_str(value.get()).expect("the text of an array that was scanned before");
            items.into_iter().try_for_each(|item| check_value(item, depth + 1, texts))
        }
        b'"' if texts == Texts::Exact && matches!(repair(value.get()), Cow::Owned(_)) => Err(no_text()),
        // The number is passed on digit by digit, in a command that every consumer must parse as a whole. Most of
        // their parsers reject numbers beyond a double; some read them as infinity.
        b'-' | b'0'..=b'9' if !value.get().parse().is_ok_and(f64::is_finite) => {
            Err(Fault("a number is out of range".to_owned()))
        }
        _ => Ok(()),
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(12);
                while let Some((name, value)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
                    members.push((free(name), value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// Replaces each half of a surrogate pair with U+FFFD; borrowed if there is none.
fn repair(json: &str) -> Cow<'_, str> {
    let bytes = json.as_bytes();
    let mut repaired = String::new();
    let mut copied = 0;
    let mut at = 0;
    // Backslashes occur only inside strings. Read in order, each one begins an escape.
    while let Some(next) = bytes[at..].iter().position(|byte| *byte == b'\\') {
        at += next;
        match unit(bytes, at) {
            Some(0xD800..=0xDBFF) if matches!(unit(bytes, at + 6), Some(0xDC00..=0xDFFF)) => at += 12,
            Some(0xD800..=0xDFFF) => {
                repaired.push_str(&json[copied..at]);
                repaired.push_str("\\ufffd");
                at += 6;
                copied = at;
            }
            _ => at += 2,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    repaired.push_str(&json[copied..]);
    Cow::Owned(repaired)
}

/// The UTF-16 unit of the `\uXXXX` at this position, if there is one.
fn unit(json: &[u8], at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// A JSON value to pass on, with all its texts repaired.
pub(super) fn repaired(value: &RawValue) -> Box<RawValue> {
    match repair(value.get()) {
        Cow::Borrowed(_) => value.to_owned(),
        Cow::Owned(json) => RawValue::from_string(json).expect("an escape in place of an escape"),
    }
}

/// The characters of a JSON text, repaired.
fn free(text: &RawValue) -> Cow<'_, str> {
    let json = text.get();
    if !json.contains('\\') {
        return Cow::Borrowed(&json[1..json.len() - 1]);
    }
    Cow::Owned(serde_json::from_str(&repair(json)).expect("the text of a text that was scanned before"))
}

/// A JSON text, borrowed unless it contains escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn wrong_type(name: &str, expected: &str) -> Fault {
    Fault(format!("{name} is not {expected}"))
}

/// A text of valid characters.
pub(super) fn text<'a>(name: &str, value: &'a RawValue) -> Result<Option<Cow<'a, str>>, Fault> {
    match value.get().as_bytes()[0] {
        _ if is_unset(value) => Ok(None),
        b'"' => {
            let Text(text) =
                serde_json::from_str(value.get()).map_err(|_| wrong_type(name, "a text of characters"))?;
            Ok(Some(text))
        }
        _ => Err(wrong_type(name, "a text")),
    }
}

/// A text written by people, unchanged except for halves of surrogate pairs.
pub(super) fn free_text<'a>(name: &str, value: &'a RawValue) -> Result<Option<Cow<'a, str>>, Fault> {
    match value.get().as_bytes()[0] {
        _ if is_unset(value) => Ok(None),
        b'"' => Ok(Some(free(value))),
        _ => Err(wrong_type(name, "a text")),
    }
}

/// An identifier: a text, or an integer, which keeps its literal digits. Only blanks means unset.
pub(super) fn id<'a>(name: &str, value: &'a RawValue) -> Result<Option<Cow<'a, str>>, Fault> {
    let literal = value.get();
    let id = match literal.as_bytes()[0] {
        _ if is_unset(value) => None,
        b'-' | b'0'..=b'9' => {
            let digits = literal.strip_prefix('-').unwrap_or(literal);
            if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(wrong_type(name, "a string or an integer"));
            }
            Some(Cow::Borrowed(literal))
        }
        b'"' => text(name, value)?,
        _ => return Err(wrong_type(name, "a string or an integer")),
    };
    name_of(name, id)
}

/// A word of the platform, such as an `action_type`: a text within the limits of an identifier.
pub(super) fn word<'a>(name: &str, value: &'a RawValue) -> Result<Option<Cow<'a, str>>, Fault> {
    name_of(name, text(name, value)?)
}

fn name_of<'a>(name: &str, id: Option<Cow<'a, str>>) -> Result<Option<Cow<'a, str>>, Fault> {
    match id {
        Some(id) if id.len() > MAX_ID_BYTES => {
            Err(Fault(format!("{name} is longer than {MAX_ID_BYTES} bytes")))
        }
        Some(id) if id.chars().any(char::is_control) => {
            Err(Fault(format!("{name} holds a control character")))
        }
        id => Ok(id.filter(|id| !id.trim().is_empty())),
    }
}

/// An unsigned 64-bit number, or its digits in a text. Zero means unset.
pub(super) fn number(name: &str, value: &RawValue) -> Result<Option<u64>, Fault> {
    let expected = "a 64-bit integer, or its digits as a string";
    let digits = match value.get().as_bytes()[0] {
        _ if is_unset(value) => return Ok(None),
        b'0'..=b'9' => Cow::Borrowed(value.get()),
        b'"' => match text(name, value).map_err(|_| wrong_type(name, expected))? {
            None => return Ok(None),
            Some(digits) => digits,
        },
        _ => return Err(wrong_type(name, expected)),
    };
    // `u64::from_str` would accept a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong_type(name, expected));
    }
    let number = digits.parse().map_err(|_| wrong_type(name, expected))?;
    Ok(Some(number).filter(|number| *number != 0))
}

pub(super) fn list<'a>(name: &str, value: &'a RawValue) -> Result<Vec<&'a RawValue>, Fault> {
    match value.get().as_bytes()[0] {
        _ if is_unset(value) => Ok(Vec::new()),
        b'[' => Ok(serde_json::from_str(value.get()).expect("the text of an array that was scanned before")),
        _ => Err(wrong_type(name, "a list")),
    }
}

pub(super) fn object<'a>(name: &str, value: &'a RawValue) -> Result<Members<'a>, Fault> {
    serde_json::from_str(value.get()).map_err(|_| wrong_type(name, "an object"))
}

/// The value of an identifier, even an invalid one, for the record of a refusal.
pub(super) fn glimpse(value: &RawValue) -> Option<String> {
    let literal = value.get();
    let text = match literal.as_bytes()[0] {
        _ if is_unset(value) => return None,
        b'"' => free(value),
        b'-' | b'0'..=b'9' => Cow::Borrowed(literal),
        _ => return None,
    };
    let mut seen = String::with_capacity(text.len().min(MAX_ID_BYTES));
    for char in text.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }) {
        if seen.len() + char.len_utf8() > MAX_ID_BYTES {
            break;
        }
        seen.push(char);
    }
    Some(seen)
}

#[cfg(test)]
mod tests;
