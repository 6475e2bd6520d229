//! Data on stdout, messages on stderr. All output passes through here and is escaped for terminals unless noted.

use std::{
    fmt::Display,
    io::{self, BufRead, BufWriter, IsTerminal, Write},
};

use anyhow::Context;
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::exit::{Exit, Failure};
use crate::telemetry::taming::{self, Tamed};

/// Prints a message line. Errors are ignored: if stderr is closed, nobody can be notified.
pub(super) fn say(line: impl Display) {
    writeln!(io::stderr().lock(), "{}", Tamed(line)).ok();
}

/// Prints a message of several lines. All parts must be escaped or ours.
pub(super) fn say_lines(text: &str) {
    text.lines().for_each(say);
}

/// Prints a line of data.
pub(super) fn line(line: impl Display) -> Result<(), Failure> {
    write(format!("{}\n", Tamed(line)).as_bytes())
}

/// Prints a value as one line of JSON without terminal control characters.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).context("cannot express the result as JSON")?;
    line(taming::json(&text))
}

/// Prints several lines: a [`table`], or a document.
pub(super) fn lines(text: &str) -> Result<(), Failure> {
    write(taming::lines(text).as_bytes())
}

/// Writes raw bytes for a program, but escapes them on a terminal.
pub(super) fn exactly(bytes: &[u8]) -> Result<(), Failure> {
    if is_seen() { line(String::from_utf8_lossy(bytes)) } else { write(bytes) }
}

/// Standard output for a long document: as it is for a program, harmless on a terminal.
pub(super) fn document() -> impl Write {
    BufWriter::with_capacity(1 << 20, Document { is_seen: is_seen() })
}

struct Document {
    is_seen: bool,
}

impl Write for Document {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stdout = io::stdout().lock();
        if self.is_seen {
            stdout.write_all(taming::lines(&String::from_utf8_lossy(bytes)).as_bytes())?;
        } else {
            stdout.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// A count with its noun, in the singular or the plural: `1 call`, `2 calls`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A reader that stops early, such as `head`, is not a failure.
fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::Said(Exit::Done)),
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to stdout").into()),
    }
}

/// Replaces the line last drawn on the terminal; an empty line clears it. Errors are ignored.
pub(super) fn draw(line: impl Display) {
    let mut stderr = io::stderr().lock();
    write!(stderr, "\r\x1b[K{}", Tamed(line)).and_then(|()| stderr.flush()).ok();
}

/// True if there is somebody at a terminal to ask.
pub(super) fn can_ask() -> bool {
    is_heard() && io::stdin().is_terminal()
}

/// Asks on the terminal; true if the answer is yes.
pub(super) fn agreed(question: impl Display) -> Result<bool, Failure> {
    let mut stderr = io::stderr().lock();
    write!(stderr, "{} [y/N] ", Tamed(question)).and_then(|()| stderr.flush()).ok();
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    Ok(["y", "yes"].contains(&&*answer.trim().to_lowercase()))
}

/// Asks on the terminal, and returns the line without blanks around it. The end of the input is a failure: a question
/// that is asked until the answer is good would be asked for ever.
pub(super) fn answer(question: impl Display) -> Result<String, Failure> {
    let mut stderr = io::stderr().lock();
    write!(stderr, "{}", Tamed(question)).and_then(|()| stderr.flush()).ok();
    let mut answer = String::new();
    match io::stdin().lock().read_line(&mut answer).context("cannot read the answer")? {
        0 => Err(anyhow::anyhow!("the input ended before all was answered; nothing was written").into()),
        _ => Ok(answer.trim().to_owned()),
    }
}

/// True if stderr is a terminal.
pub(super) fn is_heard() -> bool {
    io::stderr().is_terminal()
}

/// True if stdout is a terminal.
pub(super) fn is_seen() -> bool {
    io::stdout().is_terminal()
}

/// Rows in aligned columns. Text from the platform or an approver cannot move the cursor: control characters are
/// shown by their code.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned))
        .chain(rows.iter().cloned())
        .map(|row| row.map(|cell| Tamed(cell).to_string()))
        .collect();
    let widths: Vec<usize> =
        (0..N).map(|column| rows.iter().map(|row| row[column].width()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, wanted) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(wanted - cell.width() + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_cannot_be_broken_by_what_is_in_it() {
        let rows = [["采购".to_owned(), "a\u{1b}[2J\nb".to_owned()], ["x".to_owned(), String::new()]];
        assert_eq!(table(["", ""], &[["a\u{202e}b".to_owned(), "c".to_owned()]]), "\na\\u{202e}b  c\n");
        assert_eq!(table(["ENDPOINT", "TASK"], &rows), "ENDPOINT  TASK\n采购      a\\u{1b}[2J\\nb\nx\n");
    }
}
