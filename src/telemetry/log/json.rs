//! Writes an event directly as an object on one line.
//!
//! There is a line for each callback. The serializer of `tracing_subscriber` takes 17 500 instructions for it
//! (callgrind), one in twelve of all that the program executes for the callback outside the kernel. This one takes 8
//! 900 for the same object. Events that need more than their own fields, those of a span or of the `log` crate, are
//! left to that serializer.

use std::fmt::{self, Write};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{self, Format, Writer},
        time::FormatTime,
    },
    registry::LookupSpan,
};

use super::{
    Utc,
    pages::{COMMAND_ID, DECISION, PAGE, Pages},
};
use crate::telemetry::taming;

/// The target of events from the `log` crate.
const LOG: &str = "log";

/// Writes events as `{"timestamp":…,"level":…,"message":…,…,"target":…}`.
pub(super) struct Json {
    general: Format<format::Json, Utc>,
    pages: Pages,
}

impl Json {
    pub(super) fn new(pages: Pages) -> Self {
        let general = Format::default().with_timer(Utc).json().flatten_event(true);
        Self { general: general.with_current_span(true).with_span_list(false), pages }
    }
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let has_span = event.parent().is_some() || context.lookup_current().is_some();
        if has_span || metadata.target() == LOG {
            let mut line = String::new();
            self.general.format_event(context, Writer::new(&mut line), event)?;
            writer.write_str(&taming::json(line.trim_end()))?;
            return writer.write_char('\n');
        }
        writer.write_str("{\"timestamp\":\"")?;
        Utc.format_time(&mut writer)?;
        writer.write_str("\",\"level\":\"")?;
        writer.write_str(metadata.level().as_str())?;
        writer.write_char('"')?;
        let base = self.pages.base();
        let mut members = Members { writer, result: Ok(()), base: base.as_deref() };
        event.record(&mut members);
        members.member("target", |writer| string(writer, metadata.target()));
        members.result?;
        members.writer.write_str("}\n")
    }
}

/// Writes fields as members until one fails.
struct Members<'w, 'b> {
    writer: Writer<'w>,
    result: fmt::Result,
    /// Of the console's pages.
    base: Option<&'b str>,
}

impl Members<'_, '_> {
    fn member(&mut self, name: &str, value: impl FnOnce(&mut dyn Write) -> fmt::Result) {
        let writer = &mut self.writer;
        let write = || {
            writer.write_char(',')?;
            string(writer, name)?;
            writer.write_char(':')?;
            value(writer)
        };
        if self.result.is_ok() {
            self.result = write();
        }
    }
}

impl Members<'_, '_> {
    fn text(&mut self, name: &str, value: fmt::Arguments<'_>) {
        self.member(name, |writer| {
            writer.write_char('"')?;
            Escaped(writer).write_fmt(value)?;
            writer.write_char('"')
        });
    }

    fn page(&mut self, base: &str, path: &str, rest: &dyn fmt::Debug) {
        self.text(PAGE, format_args!("{base}{path}{rest:?}"));
    }
}

impl Visit for Members<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field.name(), |writer| string(writer, value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field.name(), |writer| write!(writer, "{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field.name(), |writer| write!(writer, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field.name(), |writer| write!(writer, "{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has neither infinity nor NaN.
        let number = serde_json::Number::from_f64(value);
        self.member(field.name(), |writer| match number {
            Some(number) => write!(writer, "{number}"),
            None => writer.write_str("null"),
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match (field.name(), self.base) {
            (PAGE, Some(base)) => self.page(base, "", value),
            (PAGE, None) => {}
            (COMMAND_ID, Some(base)) => {
                self.text(COMMAND_ID, format_args!("{value:?}"));
                self.page(base, DECISION, value);
            }
            (name, _) => self.text(name, format_args!("{value:?}")),
        }
    }
}

fn string(writer: &mut dyn Write, text: &str) -> fmt::Result {
    writer.write_char('"')?;
    Escaped(writer).write_str(text)?;
    writer.write_char('"')
}

/// Escapes characters that a JSON string must not contain (RFC 8259, section 7), and those that act on a terminal.
struct Escaped<'a>(&'a mut dyn Write);

/// True for the first byte of a character that may need escaping. Chinese, Japanese and most other text is not
/// affected.
fn is_suspect(byte: u8) -> bool {
    // C1 begins with 0xC2; the marks that act with 0xD8, 0xE2 and 0xEF.
    byte < b' ' || matches!(byte, b'"' | b'\\' | 0x7f | 0xc2 | 0xd8 | 0xe2 | 0xef)
}

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Checked, but not yet written.
        let (mut rest, mut seen) = (text, 0);
        while let Some(at) = rest.as_bytes()[seen..].iter().position(|byte| is_suspect(*byte)) {
            let at = seen + at;
            let c = rest[at..].chars().next().expect("a byte that begins a character");
            seen = at + c.len_utf8();
            let escape = match c {
                '\n' => "\\n",
                '\r' => "\\r",
                '\t' => "\\t",
                '"' => "\\\"",
                '\\' => "\\\\",
                c if taming::acts(c) => "",
                _ => continue,
            };
            self.0.write_str(&rest[..at])?;
            if escape.is_empty() {
                write!(self.0, "\\u{:04x}", u32::from(c))?;
            } else {
                self.0.write_str(escape)?;
            }
            (rest, seen) = (&rest[seen..], 0);
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use tracing_subscriber::{Layer, layer::SubscriberExt};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The events as written here and by the serializer of `tracing_subscriber`, without the time.
    fn both(events: impl Fn()) -> [Vec<Value>; 2] {
        let (ours, theirs) = (Written::default(), Written::default());
        let (our_writer, their_writer) = (ours.clone(), theirs.clone());
        let layers = tracing_subscriber::fmt::layer()
            .json()
            .with_writer(move || our_writer.clone())
            .event_format(Json::new(Pages::default()))
            .and_then(
                tracing_subscriber::fmt::layer()
                    .json()
                    .with_writer(move || their_writer.clone())
                    .event_format(Json::new(Pages::default()).general),
            );
        let subscriber = tracing_subscriber::registry().with(layers);
        tracing::subscriber::with_default(subscriber, events);
        [ours, theirs].map(|written| {
            let bytes = written.0.lock().unwrap().clone();
            let text = String::from_utf8(bytes).unwrap();
            let mut lines: Vec<Value> =
                text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
            for line in &mut lines {
                let time = line.as_object_mut().unwrap().remove("timestamp").unwrap();
                assert!(time.as_str().unwrap().parse::<crate::time::Timestamp>().is_ok(), "{time}");
            }
            lines
        })
    }

    #[test]
    fn a_line_says_what_the_general_serializer_would_say() {
        let nasty: String = (0..=0xff_u8).map(char::from).chain("审批\u{2028}\u{10ffff}".chars()).collect();
        let error = std::io::Error::other("a \"quoted\"\nerror");
        let [ours, theirs] = both(|| {
            tracing::info!(n = 1_u64, m = -1_i64, yes = true, "callback {}", "kept");
            tracing::warn!(target: "else\"where", text = nasty, shown = %nasty, debugged = ?nasty, "{nasty}");
            tracing::error!(error = &error as &dyn std::error::Error, large = u128::MAX, small = i128::MIN);
            tracing::info!(half = 0.5_f64, whole = 1e300_f64, no = f64::NAN, none = Option::<u64>::None);
            tracing::info!(r#type = "x", "{}", "");
        });
        assert_eq!(ours.len(), 5);
        assert_eq!(ours[1]["text"], nasty.as_str());
        assert_eq!(ours[0]["message"], "callback kept");
        for (ours, theirs) in ours.into_iter().zip(theirs) {
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn an_event_of_a_span_has_the_span_as_well() {
        let [ours, theirs] = both(|| {
            let span = tracing::info_span!("reading", file = "a");
            let _entered = span.enter();
            tracing::info!("inside");
        });
        assert_eq!(ours[0]["span"]["name"], "reading");
        assert_eq!(ours, theirs);
    }
}
