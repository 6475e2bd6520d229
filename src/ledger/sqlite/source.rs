//! A ledger's file as the source of a copy: all rows as of one moment, a portion at a time.

use std::{collections::BTreeMap, fmt, fmt::Write, path::Path};

use rusqlite::{
    Connection, OptionalExtension, Row, ToSql, params,
    types::{ToSqlOutput, ValueRef},
};
use uuid::Uuid;

use super::{
    moved::{self, Moved},
    schema::{self, Lock, OpenError},
};
use crate::{
    ledger::copy::tables::{Census, Ends, Kind, Place, Portion, Reconciliation, TABLES, Table, Values},
    time::Timestamp,
};

/// Rows of a portion.
pub(super) const ROWS: usize = 2000;
/// A portion ends when its texts have grown to this.
const BYTES: usize = 2 << 20;
/// Places in the log of which one earliest time is remembered.
const BLOCK: i64 = 1024;

/// A file that is read by one transaction. With the lock, nobody writes to it meanwhile.
pub(in crate::ledger) struct Source {
    connection: Connection,
    /// The earliest time of all commands from the start of each block to the end of the log, once it is known.
    earliest: Option<BTreeMap<i64, i64>>,
    // Released after the transaction.
    lock: Option<Lock>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("is_locked", &self.lock.is_some()).finish_non_exhaustive()
    }
}

impl Source {
    /// Opens it to look at, beside a `serve`.
    pub(in crate::ledger) fn look(path: &Path) -> Result<Self, OpenError> {
        let connection = schema::open_reader(path)?;
        connection.execute_batch("BEGIN").map_err(OpenError::sqlite(path, "read"))?;
        Ok(Self { connection, earliest: None, lock: None })
    }

    /// Opens it, and keeps everybody from writing to it: a `serve`, and what an operator orders.
    pub(in crate::ledger) fn hold(path: &Path) -> Result<Self, OpenError> {
        // Before the lock, which would leave its file where there is no ledger.
        drop(schema::open_reader(path)?);
        let lock = Lock::take(path)?;
        let connection = schema::open_actor(path)?;
        connection.execute_batch("BEGIN IMMEDIATE").map_err(OpenError::sqlite(path, "lock"))?;
        Ok(Self { connection, earliest: None, lock: Some(lock) })
    }

    pub(in crate::ledger) fn census(&self) -> rusqlite::Result<Census> {
        let ends = ends(&self.connection)?;
        let mut content = format!("{} {} {}", ends.cursor, ends.pruned, ends.head);
        let mut rows = Vec::with_capacity(TABLES.len());
        for table in &TABLES {
            let (count, changed): (i64, String) = self.connection.query_row(
                &format!("SELECT count(*), quote(max({})) FROM {}", table.changes, table.name),
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            write!(content, " {} {count} {changed}", table.name).ok();
            rows.push(count.cast_unsigned());
        }
        let last: Option<String> = self
            .connection
            .query_row("SELECT hex(command_id) FROM commands ORDER BY seq DESC LIMIT 1", [], |row| row.get(0))
            .optional()?;
        write!(content, " {}", last.as_deref().unwrap_or("-")).ok();
        let count = |sql: &str| -> rusqlite::Result<u64> {
            self.connection.query_row(sql, [], |row| row.get(0).map(i64::cast_unsigned))
        };
        Ok(Census {
            rows,
            content,
            fresh: count(
                "SELECT count(*) FROM commands c WHERE c.seq > (SELECT published_through FROM cursor)
                   AND NOT EXISTS (SELECT 1 FROM exceptions e WHERE e.seq = c.seq)",
            )?,
            retrying: count("SELECT count(*) FROM exceptions WHERE state = 'retrying'")?,
            requeued: count("SELECT count(*) FROM exceptions WHERE state = 'requeued'")?,
            ends,
        })
    }

    /// The single values.
    pub(in crate::ledger) fn ends(&self) -> rusqlite::Result<Ends> {
        ends(&self.connection)
    }

    /// The state in the exception of a place in the log, if it has one.
    pub(in crate::ledger) fn exception(&self, seq: i64) -> rusqlite::Result<Option<String>> {
        self.connection
            .prepare_cached("SELECT state FROM exceptions WHERE seq = ?1")?
            .query_row([seq], |row| row.get(0))
            .optional()
    }

    /// The rows after a place, with times as they are; `None` if there are none.
    pub(in crate::ledger) fn rows(
        &self,
        table: &Table,
        after: Option<&Place>,
    ) -> rusqlite::Result<Option<Portion>> {
        portion(&self.connection, table, after, ROWS)
    }

    /// The rows after a place; `None` if there are none.
    pub(in crate::ledger) fn portion(
        &mut self,
        table: &Table,
        after: Option<&Place>,
    ) -> rusqlite::Result<Option<Portion>> {
        let portion = portion(&self.connection, table, after, ROWS)?;
        let Some(mut portion) = portion else { return Ok(None) };
        if let Some(at) = table.columns.iter().position(|column| column.kind == Kind::At) {
            self.in_order_of_time(&mut portion, at)?;
        }
        Ok(Some(portion))
    }

    /// The log is in order of time, whatever the clock said: no command is later than one after it.
    fn in_order_of_time(&mut self, portion: &mut Portion, column: usize) -> rusqlite::Result<()> {
        let last =
            portion.last.get(1..).and_then(<[u8]>::first_chunk).map_or(0, |key| i64::from_be_bytes(*key));
        let mut latest = self.earliest_after(last)?;
        if let Some(Values::Number(times)) = portion.columns.get_mut(column) {
            for time in times.iter_mut().rev().flatten() {
                latest = latest.min(*time);
                *time = latest;
            }
        }
        Ok(())
    }

    /// The earliest time of the commands after a place in the log.
    fn earliest_after(&mut self, place: i64) -> rusqlite::Result<i64> {
        if self.earliest.is_none() {
            let mut earliest = BTreeMap::new();
            let mut statement =
                self.connection.prepare("SELECT seq, received_at FROM commands ORDER BY seq DESC")?;
            let mut rows = statement.query([])?;
            let mut latest = i64::MAX;
            while let Some(row) = rows.next()? {
                latest = latest.min(row.get(1)?);
                earliest.insert(row.get::<_, i64>(0)? / BLOCK, latest);
            }
            self.earliest = Some(earliest);
        }
        let next = (place / BLOCK + 1) * BLOCK;
        let of_blocks = self.earliest.iter().flat_map(|known| known.range(next / BLOCK..)).next();
        let within: Option<i64> = self
            .connection
            .prepare_cached("SELECT min(received_at) FROM commands WHERE seq > ?1 AND seq < ?2")?
            .query_row(params![place, next], |row| row.get(0))?;
        Ok(of_blocks.map_or(i64::MAX, |(_, at)| *at).min(within.unwrap_or(i64::MAX)))
    }

    /// Where the ledger was moved to, if it was.
    pub(in crate::ledger) fn moved(path: &Path) -> Result<Option<Moved>, OpenError> {
        moved::read(path)
    }

    /// Notes that the ledger was moved: no `serve` uses the file any more.
    pub(in crate::ledger) fn mark_moved(path: &Path, to: &str) -> Result<(), OpenError> {
        moved::mark(path, to, Timestamp::now())
    }
}

/// The single values.
pub(super) fn ends(connection: &Connection) -> rusqlite::Result<Ends> {
    let reconciliation = connection.query_row(
        "SELECT skipped_through, asked_through, passed_at, seen, ended, untellable FROM reconciliation",
        [],
        |row| {
            Ok(Reconciliation {
                skipped_through: row.get(0)?,
                asked_through: row.get(1)?,
                passed_at: row.get(2)?,
                counts: [row.get(3)?, row.get(4)?, row.get(5)?],
            })
        },
    )?;
    connection.query_row(
        "SELECT published_through, pruned_through, coalesce((SELECT max(seq) FROM commands), 0),
            (SELECT ms FROM id_lead), (SELECT received_at FROM commands ORDER BY seq DESC LIMIT 1),
            coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'showings'), 0)
         FROM cursor",
        [],
        |row| {
            let (pruned, last): (i64, i64) = (row.get(1)?, row.get(2)?);
            Ok(Ends {
                cursor: row.get(0)?,
                pruned,
                head: last.max(pruned),
                id_lead: row.get(3)?,
                newest: row.get(4)?,
                has_clock: false,
                last_showing: row.get(5)?,
                reconciliation,
            })
        },
    )
}

/// Up to so many rows after a place, with times as they are; `None` if there are none.
pub(super) fn portion(
    connection: &Connection,
    table: &Table,
    after: Option<&Place>,
    limit: usize,
) -> rusqlite::Result<Option<Portion>> {
    let mut selected: Vec<&str> = table.columns.iter().map(|column| column.from).collect();
    selected.push(table.key);
    let condition = if after.is_some() { format!("WHERE {} > ?1", table.key) } else { String::new() };
    let sql = format!(
        "SELECT {} FROM {} {condition} ORDER BY {} LIMIT {limit}",
        selected.join(", "),
        table.name,
        table.key
    );
    let mut portion = Portion {
        rows: 0,
        columns: table.columns.iter().map(|column| Values::none_of(column.kind)).collect(),
        last: Place::new(),
    };
    let mut bytes = 0;
    let mut before = after.cloned();
    let mut statement = connection.prepare_cached(&sql)?;
    let after = after.map(Key);
    let mut rows = match &after {
        Some(key) => statement.query([key])?,
        None => statement.query([])?,
    };
    while bytes < BYTES
        && let Some(row) = rows.next()?
    {
        for (at, (column, values)) in table.columns.iter().zip(&mut portion.columns).enumerate() {
            bytes += push(row, at, column.kind, values)?;
        }
        portion.last = next(place(row.get_ref(table.columns.len())?), before.as_ref())?;
        before = Some(portion.last.clone());
        portion.rows += 1;
    }
    drop(rows);
    drop(statement);
    if portion.rows == 0 {
        return Ok(None);
    }
    Ok(Some(portion))
}

/// A place as a value of SQLite.
pub(super) struct Key<'a>(pub(super) &'a Place);

impl ToSql for Key<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let (kind, key) = self.0.split_first().unwrap_or((&b'b', &[]));
        Ok(ToSqlOutput::Borrowed(match kind {
            b'i' => ValueRef::Integer(key.first_chunk().map_or(i64::MIN, |key| i64::from_be_bytes(*key))),
            b't' => ValueRef::Text(key),
            _ => ValueRef::Blob(key),
        }))
    }
}

pub(super) fn place(key: ValueRef<'_>) -> Place {
    match key {
        ValueRef::Integer(key) => [&b"i"[..], &key.to_be_bytes()].concat(),
        ValueRef::Text(key) => [b"t", key].concat(),
        ValueRef::Blob(key) => [b"b", key].concat(),
        ValueRef::Null | ValueRef::Real(_) => Place::new(),
    }
}

/// A place that was found after another. An error if it is not after it: SQLite believes the order of a damaged tree, and who
/// asks for what is after each place would go round for ever.
pub(super) fn next(found: Place, after: Option<&Place>) -> rusqlite::Result<Place> {
    let number =
        |place: &Place| place.get(1..).and_then(<[u8]>::first_chunk).map(|key| i64::from_be_bytes(*key));
    let is_after = match (found.first(), after) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(b'i'), Some(after)) => after.first() == Some(&b'i') && number(&found) > number(after),
        (Some(kind), Some(after)) => after.first() == Some(kind) && found > *after,
    };
    if is_after {
        return Ok(found);
    }
    let damaged = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(rusqlite::Error::SqliteFailure(damaged, Some("its keys are out of order".to_owned())))
}

/// Adds a value; returns how long it is.
fn push(row: &Row<'_>, at: usize, kind: Kind, values: &mut Values) -> rusqlite::Result<usize> {
    let mut bytes = 8;
    match values {
        Values::Number(values) if kind == Kind::First8 => {
            let whole = row.get_ref(at)?.as_blob()?;
            values.push(whole.first_chunk().map(|head| i64::from_be_bytes(*head)));
        }
        Values::Number(values) => values.push(row.get(at)?),
        Values::Count(values) => values.push(row.get(at)?),
        Values::Flag(values) => values.push(row.get(at)?),
        Values::Text(values) => {
            let value: Option<String> = row.get(at)?;
            bytes += value.as_ref().map_or(0, String::len);
            values.push(value);
        }
        Values::Bytes(values) => {
            let value: Option<Vec<u8>> = row.get(at)?;
            bytes += value.as_ref().map_or(0, Vec::len);
            values.push(value);
        }
        Values::Id(values) => {
            let value: Option<[u8; 16]> = row.get(at)?;
            values.push(value.map(Uuid::from_bytes));
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one ledger has beside the rows that are copied: the relay's place, and what belongs to the file.
    const NOT_COPIED: [&str; 3] = ["cursor", "reconciliation", "id_lead"];

    #[test]
    fn every_column_of_every_table_is_copied() {
        let directory = tempfile::tempdir().unwrap();
        let connection = schema::open_writer(&directory.path().join("ledger.db")).unwrap();
        let columns: Vec<(String, String)> = connection
            .prepare(
                "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c
                 WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'",
            )
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        for (table, column) in columns.iter().filter(|(table, _)| !NOT_COPIED.contains(&&**table)) {
            let known = TABLES.iter().find(|known| known.name == table);
            let known = known.unwrap_or_else(|| panic!("{table} is not copied"));
            assert!(known.columns.iter().any(|one| one.from.contains(&**column)), "{table}.{column}");
        }
    }

    #[test]
    fn a_place_reads_back_as_the_key_that_it_was() {
        let connection = Connection::open_in_memory().unwrap();
        for sql in ["-9007199254740993", "'采购\u{1}'", "x'00ff'", "''"] {
            let (before, key) = connection
                .query_row(&format!("SELECT quote({sql}), {sql}"), [], |row| {
                    Ok((row.get::<_, String>(0)?, place(row.get_ref(1)?)))
                })
                .unwrap();
            let after: String =
                connection.query_row("SELECT quote(?1)", [Key(&key)], |row| row.get(0)).unwrap();
            assert_eq!(after, before);
        }
    }

    #[test]
    fn times_are_in_the_order_of_the_log_across_portions_and_blocks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        let connection = schema::open_writer(&path).unwrap();
        // Jitter, and a clock that was set back by 9000 at 4000.
        let time = |seq: i64| 10_000 + seq - if seq >= 4000 { 9000 } else { 0 } + seq % 3;
        for seq in 1..=5000 {
            connection
                .prepare_cached(
                    "INSERT INTO commands VALUES (?1, randomblob(16), ?2, '', '', '', '', NULL, NULL, NULL, 0,
                        zeroblob(32), zeroblob(16), x'7b7d')",
                )
                .unwrap()
                .execute(params![seq, time(seq)])
                .unwrap_or_else(|error| panic!("{error}"));
        }
        drop(connection);
        let mut source = Source::look(&path).unwrap();
        let table = &TABLES[crate::ledger::copy::tables::numbered_by("commands").unwrap()];
        let (mut found, mut after) = (Vec::new(), None);
        while let Some(portion) = source.portion(table, after.as_ref()).unwrap() {
            let Values::Number(times) = &portion.columns[2] else { panic!("times are numbers") };
            found.extend(times.iter().flatten().copied());
            after = Some(portion.last);
        }
        let mut latest = i64::MAX;
        let mut expected: Vec<i64> = (1..=5000)
            .rev()
            .map(|seq| {
                latest = latest.min(time(seq));
                latest
            })
            .collect();
        expected.reverse();
        assert_eq!(found, expected);
    }
}
