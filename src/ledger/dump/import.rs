//! A ledger out of JSON lines: all of it or nothing, in one transaction.
//!
//! Places in the log are closed up behind lost commands, so that the log counts without gaps again. What belongs to a lost
//! command is left out.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use serde_json::{Map, Value};

use super::{Error, FORMAT, Head, Tables, Tail, lines};
use crate::{
    command::CommandId,
    ledger::{
        Location,
        check::places::{ClosedUp, Places},
        copy::tables::{Ends, Portion, TABLES, Table, numbered_by},
        postgres::PostgresImport,
        sqlite::SqliteImport,
    },
};

/// Rows that are written together.
const ROWS: u64 = 1000;

/// Several replicas make ids that are a bit out of the log's order.
const SLACK_MS: i64 = 60_000;

/// What was taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Rows, by the name of their table.
    pub tables: Tables,
    /// Rows that were left out, since their command is lost.
    pub left_out: u64,
    /// Commands that the file says are lost.
    pub lost: u64,
    /// The end of the log.
    pub head: i64,
    /// Published up to here.
    pub cursor: i64,
}

/// What a first reading of the file tells.
struct Survey {
    head: Head,
    /// Where the commands were.
    commands: Places,
    /// Where commands were that have an outcome.
    outcomes: Places,
    /// When each was received, in order of the log.
    times: Vec<(i64, i64)>,
    /// The first id that pruning has not reached.
    eldest: Option<(i64, CommandId)>,
    rows: u64,
}

/// A line of a file.
enum Row {
    Head(Box<Head>),
    Of(&'static Table, Map<String, Value>),
    Tail(Tail),
}

/// Reads a file, line by line.
struct Lines {
    reader: BufReader<File>,
    /// The number of the line that was read last.
    line: u64,
    is_whole: bool,
    text: Vec<u8>,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, Error> {
        let reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(Error::File)?);
        Ok(Self { reader, line: 0, is_whole: false, text: Vec::new() })
    }

    /// The next line; `None` after the last, which says that it is.
    fn next(&mut self) -> Result<Option<Row>, Error> {
        self.text.clear();
        if self.reader.read_until(b'\n', &mut self.text).map_err(Error::File)? == 0 {
            return if self.is_whole { Ok(None) } else { Err(Error::Cut) };
        }
        self.line += 1;
        if self.is_whole {
            return Err(self.wrong("something follows the last line"));
        }
        let value: serde_json::Result<Map<String, Value>> = serde_json::from_slice(&self.text);
        let mut value = value.map_err(|error| self.wrong(format!("it is no JSON object: {error}")))?;
        if self.line == 1 {
            let head: serde_json::Result<Head> = serde_json::from_value(Value::Object(value));
            let head =
                head.map_err(|error| self.wrong(format!("it is not the beginning of a ledger: {error}")))?;
            if head.format != FORMAT {
                let what = format!("the format is {:?}, and this program knows {FORMAT:?}", head.format);
                return Err(self.wrong(what));
            }
            return Ok(Some(Row::Head(Box::new(head))));
        }
        if value.contains_key("end") {
            self.is_whole = true;
            let tail = serde_json::from_value(Value::Object(value));
            return tail.map(|tail| Some(Row::Tail(tail))).map_err(|error| self.wrong(error.to_string()));
        }
        let name = value.remove("table");
        let table = name.as_ref().and_then(Value::as_str).and_then(numbered_by).and_then(|at| TABLES.get(at));
        let table = table.ok_or_else(|| self.wrong("it is of no table that this program knows"))?;
        Ok(Some(Row::Of(table, value)))
    }

    fn wrong(&self, what: impl std::convert::Into<String>) -> Error {
        Error::Line { line: self.line, what: what.into() }
    }
}

fn survey(path: &Path) -> Result<Survey, Error> {
    let mut head = None;
    let (mut commands, mut outcomes, mut times) = (Places::default(), Places::default(), Vec::new());
    let mut eldest: Option<(i64, CommandId)> = None;
    let mut rows = 0;
    let mut file = Lines::open(path)?;
    while let Some(row) = file.next()? {
        let (table, value) = match row {
            Row::Head(first) => {
                head = Some(first);
                continue;
            }
            Row::Tail(tail) if tail.rows != rows => {
                return Err(file.wrong("the file does not have all of its rows"));
            }
            Row::Tail(_) => continue,
            Row::Of(table, value) => (table, value),
        };
        rows += 1;
        // Everything is looked at before anything is written.
        lines::read(&value, table, &mut lines::empty(table), 0, |place| place)
            .map_err(|what| file.wrong(what))?;
        let number = |name: &str| value.get(name).and_then(Value::as_i64);
        if table.name == "commands" {
            let (seq, at) = number("seq").zip(number("received_at")).unwrap_or_default();
            if seq < 1 || !commands.add(seq) {
                return Err(file.wrong("this place in the log is taken, or is no place"));
            }
            times.push((seq, at));
            let id = value.get("command_id").and_then(Value::as_str).and_then(CommandId::parse);
            let pruned = head.as_ref().map_or(0, |head| head.pruned_through);
            if let Some(id) = id.filter(|_| seq > pruned && eldest.is_none_or(|(first, _)| seq < first)) {
                eldest = Some((seq, id));
            }
        } else if table.name == "outcomes" {
            outcomes.add(number("seq").unwrap_or(0));
        }
    }
    // No command is later than one after it, whatever the clock said.
    times.sort_unstable();
    let mut latest = i64::MAX;
    for (_, at) in times.iter_mut().rev() {
        latest = latest.min(*at);
        *at = latest;
    }
    let head = *head.ok_or(Error::Cut)?;
    Ok(Survey { head, commands, outcomes, times, eldest, rows })
}

impl Survey {
    fn ends(&self, closed: &ClosedUp) -> Ends {
        let mut ends = self.head.ends();
        ends.cursor = closed.through(ends.cursor);
        ends.head = closed.last();
        ends.newest = self.times.last().map(|(_, at)| *at);
        let reconciliation = &mut ends.reconciliation;
        reconciliation.skipped_through = closed.through(reconciliation.skipped_through).min(ends.cursor);
        reconciliation.asked_through = closed.through(reconciliation.asked_through).min(ends.cursor);
        ends
    }

    /// True if a row has its command.
    fn belongs(&self, table: &Table, value: &Map<String, Value>, closed: &ClosedUp) -> bool {
        let number = |name: &str| value.get(name).and_then(Value::as_i64);
        match table.name {
            "publish_marks" => match number("after").zip(number("through")) {
                Some((after, through)) => closed.through(after) < closed.through(through),
                None => false,
            },
            // Which version an instance has is needed whatever became of the command.
            "instance_versions" => true,
            "showings" => number("seq").is_some_and(|seq| self.commands.has(seq) && self.outcomes.has(seq)),
            _ => number("seq").is_none_or(|seq| self.commands.has(seq)),
        }
    }
}

/// Where the rows go.
enum Into {
    Sqlite(Box<SqliteImport>),
    Postgres(Box<PostgresImport>),
}

impl Into {
    async fn rows(&mut self, table: &Table, portion: &Portion) -> Result<(), Error> {
        match self {
            Self::Sqlite(import) => Ok(import.rows(table, portion)?),
            Self::Postgres(import) => Ok(import.rows(table, portion).await?),
        }
    }
}

/// Takes a file into a ledger that has nothing yet. `progress` is told now and then how many rows are there, of how many.
///
/// # Errors
/// See [`Error`]. Nothing is there then, unless it is [`Error::Commit`].
pub async fn import(
    from: &Path,
    to: &Location,
    mut progress: impl FnMut(u64, u64),
) -> Result<Imported, Error> {
    let survey = survey(from)?;
    let closed = survey.commands.closed_up(survey.head.pruned_through);
    let ends = survey.ends(&closed);
    let begun = match to {
        Location::Sqlite(path) => SqliteImport::begin(path)?.map(|import| Into::Sqlite(Box::new(import))),
        Location::Postgres(options) => {
            PostgresImport::begin(options, &ends).await?.map(|import| Into::Postgres(Box::new(import)))
        }
    };
    let mut into = begun.map_err(|what| Error::NotEmpty { to: to.to_string(), what })?;
    let mut tables: Tables = TABLES.iter().map(|table| (table.name, 0)).collect();
    let (mut left_out, mut done) = (0, 0);
    let mut waiting: Option<(&'static Table, Portion)> = None;
    let mut file = Lines::open(from)?;
    loop {
        let next = match file.next()? {
            Some(Row::Of(table, value)) => Some((table, value)),
            Some(Row::Head(_)) => continue,
            Some(Row::Tail(_)) | None => None,
        };
        let is_full = match (&waiting, &next) {
            (Some((table, portion)), Some((of, _))) => portion.rows >= ROWS || table.name != of.name,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if is_full && let Some((table, portion)) = waiting.take() {
            into.rows(table, &portion).await?;
            done += portion.rows;
            if let Some((_, count)) = numbered_by(table.name).and_then(|at| tables.get_mut(at)) {
                *count += portion.rows;
            }
            progress(done + left_out, survey.rows);
        }
        let Some((table, value)) = next else { break };
        if !survey.belongs(table, &value, &closed) {
            left_out += 1;
            continue;
        }
        let at = match value.get("seq").and_then(Value::as_i64).filter(|_| table.name == "commands") {
            None => 0,
            Some(seq) => {
                survey.times.binary_search_by_key(&seq, |(seq, _)| *seq).map_or(0, |at| survey.times[at].1)
            }
        };
        let (_, portion) = waiting.get_or_insert_with(|| (table, lines::empty(table)));
        lines::read(&value, table, portion, at, |place| closed.through(place))
            .map_err(|what| file.wrong(what))?;
    }
    // The callback of a lost command is a new one.
    let after = match survey.eldest {
        Some((_, eldest)) if survey.head.pruned_through > 0 => {
            Some(CommandId::floor(eldest.millis().saturating_add(SLACK_MS)))
        }
        _ if survey.head.pruned_through > 0 => None,
        _ => Some(CommandId::floor(0)),
    };
    let forgotten = match &mut into {
        Into::Sqlite(import) => import.finish(&ends, after)?,
        Into::Postgres(import) => import.finish(&ends, after).await?,
    };
    match into {
        Into::Sqlite(import) => import.commit().map_err(|error| Error::Commit(Box::new(error)))?,
        Into::Postgres(import) => import.commit().await.map_err(|error| Error::Commit(Box::new(error)))?,
    }
    if let Some((_, count)) = numbered_by("rounds").and_then(|at| tables.get_mut(at)) {
        *count -= forgotten;
    }
    let lost = lost(&survey.head.lost);
    Ok(Imported { tables, left_out: left_out + forgotten, lost, head: ends.head, cursor: ends.cursor })
}

/// How many places are in these ranges, which a file says: they may be any.
fn lost(ranges: &[(i64, i64)]) -> u64 {
    let of =
        |(first, last): &(i64, i64)| if first <= last { last.abs_diff(*first).saturating_add(1) } else { 0 };
    ranges.iter().map(of).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_ranges_can_be_counted() {
        assert_eq!(lost(&[]), 0);
        assert_eq!(lost(&[(3, 3), (5, 9), (7, 2)]), 6);
        assert_eq!(lost(&[(i64::MIN, i64::MAX), (i64::MIN, i64::MAX)]), u64::MAX);
    }
}
