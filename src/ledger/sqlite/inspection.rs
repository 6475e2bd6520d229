//! A ledger's file as `ledger check` sees it: its pages, its tables, and all rows as of one moment.

use std::{
    collections::BTreeMap,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use uuid::Uuid;

use super::{
    schema::{self, MIGRATIONS, OpenError},
    source::{self, Key, ROWS},
};
use crate::ledger::{
    check::{Fault, Kind, Seen},
    copy::tables::{Ends, Place, Table},
};

/// What of a path stands for itself in a URI of SQLite.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

/// Lines kept of SQLite's own check: one damaged page causes many.
const MOST_LINES: u32 = 20;

/// See the module.
pub(in crate::ledger) struct Inspection {
    connection: Connection,
    path: PathBuf,
    /// So many rows are read one by one, since one of them cannot be read.
    one_by_one: usize,
}

/// Opens a file that nobody writes to, without making any other beside it.
pub(super) fn open_still(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let file = |source| OpenError::File { path: path.to_owned(), source };
    let absolute = std::path::absolute(path).map_err(file)?;
    let name = absolute.file_name().unwrap_or_default();
    let directory = absolute.parent().unwrap_or(&absolute).canonicalize().map_err(file)?;
    let uri =
        format!("file:{}?immutable=1", percent_encode(directory.join(name).as_os_str().as_bytes(), PLAIN));
    let connection = Connection::open_with_flags(uri, flags).map_err(OpenError::sqlite(path, "open"))?;
    schema::identify(&connection, path, false)?;
    connection.pragma_update(None, "trusted_schema", false).map_err(OpenError::sqlite(path, "open"))?;
    Ok(connection)
}

impl Inspection {
    /// Opens a ledger as it is now, beside a `serve`.
    pub(in crate::ledger) fn open(path: &Path) -> Result<Self, OpenError> {
        Self::of(schema::open_reader(path)?, path)
    }

    /// Opens a file that nobody has open.
    pub(in crate::ledger) fn still(path: &Path) -> Result<Self, OpenError> {
        Self::of(open_still(path)?, path)
    }

    fn of(connection: Connection, path: &Path) -> Result<Self, OpenError> {
        // The first read makes it a snapshot.
        let begun = connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema");
        begun.map_err(OpenError::sqlite(path, "read"))?;
        Ok(Self { connection, path: path.to_owned(), one_by_one: 0 })
    }

    pub(in crate::ledger) fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with pages, indexes and tables.
    pub(in crate::ledger) fn file(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let lines = self.connection.prepare(&format!("PRAGMA integrity_check({MOST_LINES})")).and_then(
            |mut check| check.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>(),
        );
        match lines {
            Ok(lines) if lines == ["ok"] => {}
            Ok(lines) => {
                let lines = lines.iter().flat_map(|line| line.lines()).map(str::trim);
                let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("***"));
                faults.extend(lines.map(|line| Fault::new(Kind::File, "file", line)));
            }
            Err(error) => faults.push(Fault::new(Kind::File, "file", error.to_string())),
        }
        match self.schema() {
            Ok(found) => faults.extend(found),
            Err(error) => faults.push(Fault::new(Kind::Schema, "schema", error.to_string())),
        }
        faults
    }

    fn schema(&self) -> rusqlite::Result<Vec<Fault>> {
        let version: usize = self.connection.query_row("PRAGMA user_version", [], |row| {
            Ok(usize::try_from(row.get::<_, i64>(0)?).unwrap_or(0))
        })?;
        let fresh = Connection::open_in_memory()?;
        for step in MIGRATIONS.iter().take(version) {
            fresh.execute_batch(step)?;
        }
        let (ours, found) = (things(&fresh)?, things(&self.connection)?);
        let mut faults = Vec::new();
        for (name, sql) in &ours {
            match found.get(name) {
                None => faults.push(Fault::new(Kind::Schema, name, "is missing")),
                Some(other) if other != sql => {
                    faults.push(Fault::new(Kind::Schema, name, "is not as this program makes it"));
                }
                Some(_) => {}
            }
        }
        let foreign = found.keys().filter(|name| !ours.contains_key(*name));
        faults.extend(foreign.map(|name| Fault::new(Kind::Schema, name, "is not of countersign")));
        if !found.contains_key("index commands_by_id") {
            let mut twice = self.connection.prepare(
                "SELECT hex(command_id), min(seq), max(seq) FROM commands GROUP BY command_id HAVING count(*) > 1 LIMIT 20",
            )?;
            let twice = twice.query_map([], |row| {
                let (id, first, last): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                let what = format!("command_id {} is also at {first}", id.to_lowercase());
                Ok(Fault::new(Kind::CommandId, format!("commands {last}"), what))
            })?;
            faults.extend(twice.collect::<rusqlite::Result<Vec<_>>>()?);
        }
        let single = |table: &str| -> rusqlite::Result<i64> {
            self.connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
        };
        for table in ["cursor", "reconciliation", "id_lead"] {
            let rows = single(table)?;
            if rows != 1 {
                faults.push(Fault::new(Kind::Cursor, table, format!("has {rows} rows, not one")));
            }
        }
        Ok(faults)
    }

    pub(in crate::ledger) fn ends(&self) -> rusqlite::Result<Ends> {
        source::ends(&self.connection)
    }

    pub(in crate::ledger) fn after(&mut self, table: &Table, place: Option<&Place>) -> Seen {
        if self.one_by_one == 0 {
            match source::portion(&self.connection, table, place, ROWS) {
                Ok(Some(portion)) => return Seen::Rows(portion),
                Ok(None) => return Seen::End,
                Err(_) => self.one_by_one = ROWS,
            }
        }
        self.one_by_one -= 1;
        let error = match source::portion(&self.connection, table, place, 1) {
            Ok(Some(portion)) => return Seen::Rows(portion),
            Ok(None) => return Seen::End,
            Err(error) => error,
        };
        match self.next_key(table, place) {
            Ok(Some(next)) => {
                let at = format!("{} {}", table.name, key(&next));
                Seen::Bad(next, Fault::new(Kind::Unreadable, at, error.to_string()))
            }
            Ok(None) => Seen::End,
            Err(error) => {
                self.one_by_one = 0;
                let after = place.map_or_else(String::new, |place| format!(" after {}", key(place)));
                Seen::Lost(Fault::new(Kind::Unreadable, format!("{}{after}", table.name), error.to_string()))
            }
        }
    }

    fn next_key(&self, table: &Table, after: Option<&Place>) -> rusqlite::Result<Option<Place>> {
        let (name, key) = (table.name, table.key);
        let read = |row: &rusqlite::Row<'_>| Ok(source::place(row.get_ref(0)?));
        let found = match after {
            None => self.connection.query_row(
                &format!("SELECT {key} FROM {name} ORDER BY {key} LIMIT 1"),
                [],
                read,
            ),
            Some(after) => self.connection.query_row(
                &format!("SELECT {key} FROM {name} WHERE {key} > ?1 ORDER BY {key} LIMIT 1"),
                [Key(after)],
                read,
            ),
        };
        found.optional()?.map(|found| source::next(found, after)).transpose()
    }

    pub(in crate::ledger) fn rounds(
        &self,
        fingerprints: Vec<Vec<u8>>,
    ) -> rusqlite::Result<Vec<Option<Uuid>>> {
        let find = |fingerprint: Vec<u8>| -> rusqlite::Result<Option<Uuid>> {
            let found: Option<Vec<u8>> = self
                .connection
                .prepare_cached("SELECT command_id FROM rounds WHERE fingerprint = ?1")?
                .query_row([fingerprint], |row| row.get(0))
                .optional()?;
            Ok(found.map(|id| Uuid::from_slice(&id).unwrap_or_default()))
        };
        fingerprints.into_iter().map(find).collect()
    }

    pub(in crate::ledger) fn unknown(&self, ids: Vec<Uuid>) -> rusqlite::Result<Vec<Uuid>> {
        let mut unknown = Vec::new();
        for id in ids {
            let known = self
                .connection
                .prepare_cached("SELECT 1 FROM commands WHERE command_id = ?1")
                .and_then(|mut find| find.exists([id.as_bytes().as_slice()]))?;
            if !known {
                unknown.push(id);
            }
        }
        Ok(unknown)
    }
}

/// Tables, indexes and whatever else there is, by kind and name.
fn things(connection: &Connection) -> rusqlite::Result<BTreeMap<String, String>> {
    connection
        .prepare("SELECT type || ' ' || name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// A key, for people.
fn key(place: &Place) -> String {
    match place.split_first() {
        Some((b'i', bytes)) => bytes.first_chunk().map_or(0, |key| i64::from_be_bytes(*key)).to_string(),
        Some((b't', text)) => format!("{:?}", String::from_utf8_lossy(text)),
        Some((_, bytes)) => bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::ledger::copy::tables::TABLES;

    /// All orders of five.
    fn orders() -> Vec<[usize; 5]> {
        let all =
            (0..5_usize.pow(5)).map(|number| [0, 1, 2, 3, 4].map(|digit| number / 5_usize.pow(digit) % 5));
        all.filter(|order| (0..5).all(|one| order.contains(&one))).collect()
    }

    #[test]
    fn a_page_whose_keys_are_out_of_order_is_read_to_an_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        let connection = schema::open_writer(&path).unwrap();
        connection
            .execute_batch(
                "WITH n (n) AS (VALUES (1), (2), (3), (4), (5)) INSERT INTO exceptions SELECT n, 'parked', 0, 0, 0, '' FROM n;
                 WITH n (n) AS (VALUES (1), (2), (3), (4), (5)) INSERT INTO contexts (key, registered_at) SELECT n, 0 FROM n;
                 PRAGMA wal_checkpoint(TRUNCATE)",
            )
            .unwrap();
        for name in ["exceptions", "contexts"] {
            let table = TABLES.iter().find(|table| table.name == name).unwrap();
            let root: u32 = connection
                .query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [name], |row| row.get(0))
                .unwrap();
            let whole = fs::read(&path).unwrap();
            let pointers = (root as usize - 1) * 4096 + 8;
            let other = directory.path().join("other.db");
            for order in orders() {
                let mut bytes = whole.clone();
                for (to, from) in order.into_iter().enumerate() {
                    bytes[pointers + 2 * to..][..2].copy_from_slice(&whole[pointers + 2 * from..][..2]);
                }
                fs::write(&other, bytes).unwrap();
                let mut inspection = Inspection::still(&other).unwrap();
                let (mut place, mut rows, mut faults, mut looks) = (None, 0, inspection.file().len(), 0);
                loop {
                    looks += 1;
                    assert!(looks < 20, "{name} {order:?}: there is no end");
                    place = match inspection.after(table, place.as_ref()) {
                        Seen::Rows(portion) => {
                            rows += portion.rows;
                            Some(portion.last)
                        }
                        Seen::Bad(at, _) => {
                            faults += 1;
                            Some(at)
                        }
                        Seen::Lost(_) => {
                            faults += 1;
                            break;
                        }
                        Seen::End => break,
                    };
                }
                assert!(rows <= 5, "{name} {order:?}: no row is told twice");
                let is_whole = order == [0, 1, 2, 3, 4];
                assert_eq!((faults == 0, rows == 5 && faults == 0), (is_whole, is_whole), "{name} {order:?}");
            }
        }
    }
}
