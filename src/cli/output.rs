//! Data on stdout, words on stderr.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use anyhow::Context;
use serde::Serialize;

use super::exit::{Exit, Failure};

/// Says a line to the person. If stderr is gone, nobody is there to be told so.
pub(super) fn say(line: impl Display) {
    writeln!(io::stderr().lock(), "{line}").ok();
}

/// Writes a line of data.
pub(super) fn line(line: impl Display) -> Result<(), Failure> {
    write(format!("{line}\n").as_bytes())
}

/// Writes a value as one line of JSON.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    line(serde_json::to_string(value).context("cannot express the result as JSON")?)
}

/// Writes bytes of data as they are. A reader that has seen enough, such as `head`, is no failure.
pub(super) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::Said(Exit::Done)),
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to stdout").into()),
    }
}

/// True if a person looks at stdout.
pub(super) fn is_seen() -> bool {
    io::stdout().is_terminal()
}

/// Rows in columns that are as wide as they need to be. What the platform or an approver wrote cannot move the cursor:
/// control characters are shown by their code.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let printable = |text: &str| -> String {
        text.chars()
            .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
            .collect()
    };
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned))
        .chain(rows.iter().cloned())
        .map(|row| row.map(|cell| printable(&cell)))
        .collect();
    let widths: Vec<usize> =
        (0..N).map(|column| rows.iter().map(|row| width(&row[column])).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, wanted) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(wanted - width(cell) + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Columns on a terminal, near enough: from Hangul Jamo on, scripts are drawn two columns wide.
fn width(text: &str) -> usize {
    text.chars().map(|c| if c >= '\u{1100}' { 2 } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_cannot_be_broken_by_what_is_in_it() {
        let rows = [["采购".to_owned(), "a\u{1b}[2J\nb".to_owned()], ["x".to_owned(), String::new()]];
        assert_eq!(table(["ENDPOINT", "TASK"], &rows), "ENDPOINT  TASK\n采购      a\\u{1b}[2J\\nb\nx\n");
    }
}
