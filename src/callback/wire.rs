//! The platform's JSON, read loosely where the platform is loose and strictly where it matters (§1.5).
//!
//! Values stay as the text they were sent as until somebody asks for their type: a 64-bit `message_id` never passes
//! through a float, and unknown members are handed on digit by digit.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// Containers within containers, the body itself included.
const MAX_DEPTH: usize = 8;
/// Members of one object.
const MAX_MEMBERS: usize = 64;
/// Attachments of one callback.
pub(super) const MAX_ATTACHMENTS: usize = 100;
/// Bytes of an identifier. They become AMQP headers, which all have to fit into one frame; the longest that the platform
/// documents is an approval code of 128 characters (§4.1).
pub(super) const MAX_ID_BYTES: usize = 512;

/// What is wrong with a body that its sender was allowed to send: a sentence for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(pub(super) String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The members of a JSON object in their order, names repeated or not, values unread.
#[derive(Debug)]
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Reads an object and nothing after it. A byte order mark before and white space around cost nothing (§1.5).
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes)).ok()
    }

    /// The first member of this name.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(member, _)| member == name).map(|(_, value)| *value)
    }

    /// Holds the object, and everything in it, to the limits and to unique names.
    pub(super) fn check(&self) -> Result<(), Fault> {
        self.check_at(1)
    }

    fn check_at(&self, depth: usize) -> Result<(), Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault(format!("nested deeper than {MAX_DEPTH}")));
        }
        if self.0.len() > MAX_MEMBERS {
            return Err(Fault(format!("an object with more than {MAX_MEMBERS} members")));
        }
        for (at, (name, value)) in self.0.iter().enumerate() {
            if self.0[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(Fault("a member name stands twice in one object".to_owned()));
            }
            check_value(value, depth)?;
        }
        Ok(())
    }

    pub(super) fn into_inner(self) -> Vec<(Cow<'a, str>, &'a RawValue)> {
        self.0
    }
}

pub(super) fn check_value(value: &RawValue, depth: usize) -> Result<(), Fault> {
    match value.get().as_bytes()[0] {
        b'{' => {
            let members: Members<'_> = serde_json::from_str(value.get())
                .map_err(|_| Fault("a member name is not text".to_owned()))?;
            members.check_at(depth + 1)
        }
        b'[' => {
            if depth + 1 > MAX_DEPTH {
                return Err(Fault(format!("nested deeper than {MAX_DEPTH}")));
            }
            let items: Vec<&RawValue> =
                serde_json::from_str(value.get()).expect("the text of an array that was scanned before");
            items.into_iter().try_for_each(|item| check_value(item, depth + 1))
        }
        b'"' => match serde_json::from_str::<Text<'_>>(value.get()) {
            Ok(_) => Ok(()),
            Err(_) => Err(Fault("a text holds an escape that is no character".to_owned())),
        },
        // It is passed on digit by digit, inside a command that every consumer has to read as a whole; most of their
        // parsers refuse what no double holds, some take it for infinity.
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
                while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// A JSON text, borrowed unless it holds escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The type of a member is wrong.
fn wrong_type(name: &str, expected: &str) -> Fault {
    Fault(format!("{name} is not {expected}"))
}

/// A text; null and "" are the same as absent.
pub(super) fn text<'a>(name: &str, value: &'a RawValue) -> Result<Option<Cow<'a, str>>, Fault> {
    match value.get().as_bytes()[0] {
        b'n' => Ok(None),
        b'"' => {
            let Text(text) =
                serde_json::from_str(value.get()).map_err(|_| wrong_type(name, "a text of characters"))?;
            Ok((!text.is_empty()).then_some(text))
        }
        _ => Err(wrong_type(name, "a text")),
    }
}

/// An identifier: a text, or a whole number, of which the literal digits are taken.
pub(super) fn id<'a>(name: &str, value: &'a RawValue) -> Result<Option<Cow<'a, str>>, Fault> {
    let literal = value.get();
    let id = match literal.as_bytes()[0] {
        b'-' | b'0'..=b'9' => {
            let digits = literal.strip_prefix('-').unwrap_or(literal);
            if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(wrong_type(name, "a text or a whole number"));
            }
            Some(Cow::Borrowed(literal))
        }
        b'n' | b'"' => text(name, value)?,
        _ => return Err(wrong_type(name, "a text or a whole number")),
    };
    match id {
        Some(id) if id.len() > MAX_ID_BYTES => {
            Err(Fault(format!("{name} is longer than {MAX_ID_BYTES} bytes")))
        }
        id => Ok(id),
    }
}

/// A full 64-bit number without sign, or its digits in a text; null and "" are the same as absent.
pub(super) fn number(name: &str, value: &RawValue) -> Result<Option<u64>, Fault> {
    let expected = "a whole number of 64 bits, or its digits in a text";
    let digits = match value.get().as_bytes()[0] {
        b'0'..=b'9' => Cow::Borrowed(value.get()),
        b'n' | b'"' => match text(name, value).map_err(|_| wrong_type(name, expected))? {
            None => return Ok(None),
            Some(digits) => digits,
        },
        _ => return Err(wrong_type(name, expected)),
    };
    // `u64::from_str` would take a sign as well.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong_type(name, expected));
    }
    digits.parse().map(Some).map_err(|_| wrong_type(name, expected))
}

/// A list; null is the same as absent.
pub(super) fn list<'a>(name: &str, value: &'a RawValue) -> Result<Vec<&'a RawValue>, Fault> {
    match value.get().as_bytes()[0] {
        b'n' => Ok(Vec::new()),
        b'[' => Ok(serde_json::from_str(value.get()).expect("the text of an array that was scanned before")),
        _ => Err(wrong_type(name, "a list")),
    }
}

/// An object inside the body.
pub(super) fn object<'a>(name: &str, value: &'a RawValue) -> Result<Members<'a>, Fault> {
    serde_json::from_str(value.get()).map_err(|_| wrong_type(name, "an object"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), Fault> {
        Members::parse(text.as_bytes()).expect("an object").check()
    }

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn numbers_keep_all_64_bits() {
        for (literal, expected) in [
            ("7690275278685244603", Some(7_690_275_278_685_244_603)),
            ("\"7690275278685244603\"", Some(7_690_275_278_685_244_603)),
            ("18446744073709551615", Some(u64::MAX)),
            ("9007199254740993", Some(9_007_199_254_740_993)),
            ("0", Some(0)),
            ("null", None),
            ("\"\"", None),
        ] {
            assert_eq!(number("message_id", raw(literal)), Ok(expected), "{literal}");
        }
        for literal in
            ["18446744073709551616", "-1", "1.0", "1e3", "\"x\"", "\"+1\"", "\" 1\"", "true", "[]", "{}"]
        {
            assert!(number("message_id", raw(literal)).is_err(), "{literal}");
        }
    }

    #[test]
    fn ids_are_texts_or_the_digits_of_whole_numbers() {
        for (literal, expected) in [
            ("\"zhang3\"", Some("zhang3")),
            ("18500000001", Some("18500000001")),
            ("-5", Some("-5")),
            ("123456789012345678901234567890", Some("123456789012345678901234567890")),
            ("null", None),
            ("\"\"", None),
            (r#""\u6587""#, Some("文")),
        ] {
            assert_eq!(id("user_id", raw(literal)).unwrap().as_deref(), expected, "{literal}");
        }
        for literal in ["1.5", "1e3", "true", "[\"a\"]", "{}", r#""\ud800""#] {
            assert!(id("user_id", raw(literal)).is_err(), "{literal}");
        }
        assert!(id("user_id", raw(&format!("\"{}\"", "x".repeat(512)))).is_ok());
        assert!(id("user_id", raw(&format!("\"{}\"", "x".repeat(513)))).is_err());
    }

    #[test]
    fn only_an_object_is_a_body() {
        for text in [
            "",
            "[]",
            "1",
            "\"x\"",
            "null",
            "{",
            "{}{}",
            "{} x",
            "{\"a\":1,}",
            "{'a':1}",
            "\u{feff}\u{feff}{}",
        ] {
            assert!(Members::parse(text.as_bytes()).is_none(), "{text}");
        }
        assert!(Members::parse(b"{\"a\":\"\xff\"}").is_none());
        for text in ["{}", " {} \r\n", "\u{feff}{}\n"] {
            assert!(Members::parse(text.as_bytes()).is_some(), "{text}");
        }
    }

    #[test]
    fn names_are_unique_at_every_depth_however_they_are_written() {
        assert!(check(r#"{"a":1,"b":{"a":1}}"#).is_ok());
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"{"x":{"a":1,"a":2}}"#,
            r#"{"x":[[{"a":1,"a":2}]]}"#,
        ] {
            assert!(check(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_that_no_double_holds_is_refused_at_every_depth() {
        for text in ["1e999999", "-1e309", "[[1e309]]", r#"{"a":1e400}"#, &"9".repeat(310)] {
            assert!(check(&format!(r#"{{"x":{text}}}"#)).is_err(), "{text}");
        }
        for text in ["1e308", "-1.7976931348623157e308", "1e-999999", "-0.0e-0", &"9".repeat(308)] {
            assert!(check(&format!(r#"{{"x":{text}}}"#)).is_ok(), "{text}");
        }
    }

    #[test]
    fn depth_and_width_are_limited() {
        let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert!(check(&nested(8)).is_ok());
        assert!(check(&nested(9)).is_err());
        let lists = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(check(&lists(7)).is_ok());
        assert!(check(&lists(8)).is_err());
        assert!(check(&lists(20_000)).is_err());
        let wide = |count: usize| {
            let members: Vec<_> = (0..count).map(|n| format!("\"m{n}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert!(check(&wide(64)).is_ok());
        assert!(check(&wide(65)).is_err());
    }
}
