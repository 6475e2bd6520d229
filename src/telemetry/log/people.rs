//! The fields of an event for a person: tamed, with the causes of errors.

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{FormatFields, format::Writer},
};

use super::{
    chain,
    pages::{COMMAND_ID, DECISION, PAGE, Pages},
};
use crate::telemetry::taming::Taming;

/// Writes the message, and the other fields as `name=value`.
pub(super) struct People {
    pub(super) pages: Pages,
}

impl<'w> FormatFields<'w> for People {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let base = self.pages.base();
        let mut line = Line { writer, begun: false, result: Ok(()), base: base.as_deref() };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'w, 'b> {
    writer: Writer<'w>,
    begun: bool,
    result: fmt::Result,
    /// Of the console's pages.
    base: Option<&'b str>,
}

impl Line<'_, '_> {
    fn field(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let name = field.name();
        // Source locations from the bridge of the `log` crate.
        if self.result.is_err() || name.starts_with("log.") {
            return;
        }
        self.result = self.write(name.strip_prefix("r#").unwrap_or(name), value);
    }

    fn write(&mut self, name: &str, value: fmt::Arguments<'_>) -> fmt::Result {
        if std::mem::replace(&mut self.begun, true) {
            self.writer.write_char(' ')?;
        }
        match name {
            "message" => {}
            name if self.writer.has_ansi_escapes() => {
                write!(self.writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?;
            }
            name => write!(self.writer, "{name}=")?,
        }
        Taming(&mut self.writer).write_fmt(value)
    }
}

impl Visit for Line<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.field(field, format_args!("{value}"));
        } else {
            self.field(field, format_args!("{value:?}"));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.field(field, format_args!("{}", chain(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match (field.name(), self.base) {
            (PAGE, Some(base)) => self.field(field, format_args!("{base}{value:?}")),
            (PAGE, None) => {}
            (name, base) => {
                self.field(field, format_args!("{value:?}"));
                if let (COMMAND_ID, Some(base), Ok(())) = (name, base, self.result) {
                    self.result = self.write(PAGE, format_args!("{base}{DECISION}{value:?}"));
                }
            }
        }
    }
}
