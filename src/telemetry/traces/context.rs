//! The W3C trace context: what the header `traceparent` says.

use std::fmt::{self, Write as _};

use uuid::Uuid;

/// The trace of a request or a message, and the span in it that is the parent of what follows.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
    pub(super) flags: u8,
}

/// Of `traceparent`, version 00.
const LENGTH: usize = 55;

const SAMPLED: u8 = 0b01;

/// The flags that this version knows: sampled, and random trace id. Others must not be passed on.
const KNOWN_FLAGS: u8 = 0b11;

impl TraceContext {
    /// Parses `traceparent` as strictly as W3C Trace Context demands: lower case, no id of zeros, version `ff` never, version
    /// 00 without anything behind it. A later version may have more behind a hyphen.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (known, rest) = text.split_at_checked(LENGTH)?;
        let mut fields = known.split('-');
        let [version] = hex(fields.next()?)?;
        let context = Self {
            trace_id: hex(fields.next()?)?,
            span_id: hex(fields.next()?)?,
            flags: hex::<1>(fields.next()?)?[0],
        };
        let ends = if version == 0 { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
        let is_valid = fields.next().is_none()
            && ends
            && version != 0xff
            && context.trace_id != [0; 16]
            && context.span_id != [0; 8];
        is_valid.then_some(Self { flags: context.flags & KNOWN_FLAGS, ..context })
    }

    /// The context that starts at a command with this id: a command published again after a crash keeps it, on every
    /// replica, and a trace leads to the command.
    #[must_use]
    pub fn of_command(id: &[u8; 16]) -> Self {
        Self { trace_id: *id, span_id: span_of_command(id), flags: 0 }
    }

    /// The header's text, in one allocation: every command has it.
    #[must_use]
    pub fn traceparent(self) -> String {
        let mut text = String::with_capacity(LENGTH);
        write!(text, "{self}").expect("a String takes every text");
        text
    }

    /// Whether spans of the trace are to be recorded.
    #[must_use]
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    pub(super) fn sampled(self, sampled: bool) -> Self {
        Self { flags: self.flags & !SAMPLED | if sampled { SAMPLED } else { 0 }, ..self }
    }
}

/// The id of the span of the callback that a command came from.
pub(super) fn span_of_command(id: &[u8; 16]) -> [u8; 8] {
    let [.., a, b, c, d, e, f, g, h] = *id;
    [a, b, c, d, e, f, g, h]
}

/// The header's text, always version 00.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trace_id = Uuid::from_bytes(self.trace_id);
        write!(f, "00-{}-{:016x}-{:02x}", trace_id.as_simple(), u64::from_be_bytes(self.span_id), self.flags)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for TraceContext {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Bytes in lower-case hexadecimal digits, exactly as many as needed.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_good_traceparent_is_read_and_written_alike() {
        let context = TraceContext::parse(GOOD).unwrap();
        assert!(context.is_sampled());
        assert_eq!(context.to_string(), GOOD);
        assert_eq!(format!("{:?}", context.sampled(false)), GOOD.replace("-01", "-00"));
    }

    #[test]
    fn a_later_version_is_read_and_unknown_flags_are_not_passed_on() {
        for text in [
            GOOD.replacen("00", "01", 1),
            format!("{}-more", GOOD.replacen("00", "cc", 1)),
            GOOD.replace("-01", "-f1"),
        ] {
            assert_eq!(
                TraceContext::parse(&text).map(|context| context.to_string()).as_deref(),
                Some(GOOD),
                "{text}"
            );
        }
        assert_eq!(
            TraceContext::parse(&GOOD.replace("-01", "-03")).unwrap().to_string(),
            GOOD.replace("-01", "-03")
        );
    }

    #[test]
    fn a_broken_traceparent_is_none() {
        for text in [
            "",
            "00",
            &GOOD[..54],
            &GOOD.to_uppercase(),
            &format!("{GOOD}-more"),
            &format!("{GOOD} "),
            &format!(" {GOOD}"),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replacen("00", "0x", 1),
            &format!("{}more", GOOD.replacen("00", "01", 1)),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            &GOOD.replace("00f067aa0ba902b7", "0000000000000000"),
            &GOOD.replace("00f067aa0ba902b7", "00f067aa0ba902bg"),
            &GOOD.replace('-', "_"),
            &GOOD.replace("4736-", "-4736"),
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "00-forged-event",
            "00-审批审批审批审批审批审批审批审批审批审批审批审批",
        ] {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_command_has_a_context_of_its_own() {
        let id = *Uuid::parse_str("019a0000-0000-7000-8000-000000000001").unwrap().as_bytes();
        let context = TraceContext::of_command(&id);
        assert_eq!(context.to_string(), "00-019a0000000070008000000000000001-8000000000000001-00");
    }
}
