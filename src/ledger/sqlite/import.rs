//! A new file as the target of an import: one transaction.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, params, params_from_iter, types::Value};

use super::{
    moved,
    schema::{self, Lock, OpenError},
};
use crate::{
    command::CommandId,
    ledger::copy::tables::{Ends, Portion, TABLES, Table, Values},
};

/// See the module. Dropping it takes everything back.
pub(in crate::ledger) struct Import {
    connection: Connection,
    path: PathBuf,
    // Released after the transaction.
    _lock: Lock,
}

impl Import {
    /// Begins, or says what is there already.
    pub(in crate::ledger) fn begin(path: &Path) -> Result<Result<Self, String>, OpenError> {
        let lock = Lock::take(path)?;
        moved::check(path)?;
        let connection = schema::open_writer(path)?;
        let failed = OpenError::sqlite(path, "write to");
        connection.execute_batch("BEGIN IMMEDIATE").map_err(&failed)?;
        let mut held = Vec::new();
        for table in &TABLES {
            let rows: i64 = connection
                .query_row(&format!("SELECT count(*) FROM {}", table.name), [], |row| row.get(0))
                .map_err(&failed)?;
            // A service that was tried has noted its credentials.
            if rows > 0 && table.if_there.is_empty() {
                held.push(format!("{rows} {}", table.name));
            }
        }
        if !held.is_empty() {
            return Ok(Err(held.join(", ")));
        }
        Ok(Ok(Self { connection, path: path.to_owned(), _lock: lock }))
    }

    pub(in crate::ledger) fn rows(&mut self, table: &Table, portion: &Portion) -> rusqlite::Result<()> {
        let own = || {
            table
                .columns
                .iter()
                .zip(&portion.columns)
                .filter_map(|(column, values)| Some((column.own?, values)))
        };
        let names: Vec<&str> = own().map(|(name, _)| name).collect();
        let places: Vec<String> = (1..=names.len()).map(|place| format!("?{place}")).collect();
        // Only what may be there before is replaced. Two rows with one key are no file of ours.
        let how = if table.if_there.is_empty() { "" } else { "OR REPLACE " };
        let sql =
            format!("INSERT {how}INTO {} ({}) VALUES ({})", table.name, names.join(", "), places.join(", "));
        let mut insert = self.connection.prepare_cached(&sql)?;
        for row in 0..usize::try_from(portion.rows).unwrap_or(0) {
            insert.execute(params_from_iter(own().map(|(name, values)| value(table, name, values, row))))?;
        }
        Ok(())
    }

    /// Writes the single values, and removes rounds whose command, younger than `after`, is not there; returns how many.
    pub(in crate::ledger) fn finish(
        &mut self,
        ends: &Ends,
        after: Option<CommandId>,
    ) -> rusqlite::Result<u64> {
        let reconciliation = &ends.reconciliation;
        let [seen, ended, untellable] = reconciliation.counts;
        self.connection.execute(
            "UPDATE cursor SET published_through = ?1, pruned_through = ?2",
            params![ends.cursor, ends.pruned],
        )?;
        self.connection.execute("UPDATE id_lead SET ms = max(ms, ?1)", [ends.id_lead])?;
        self.connection.execute(
            "UPDATE reconciliation SET skipped_through = ?1, asked_through = ?2, passed_at = ?3, seen = ?4, ended = ?5,
                untellable = ?6",
            params![
                reconciliation.skipped_through,
                reconciliation.asked_through,
                reconciliation.passed_at,
                seen,
                ended,
                untellable
            ],
        )?;
        self.connection.execute(
            "INSERT INTO sqlite_sequence (name, seq) SELECT 'showings', 0
             WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'showings')",
            [],
        )?;
        self.connection.execute(
            "UPDATE sqlite_sequence SET seq = max(seq, ?1) WHERE name = 'showings'",
            [ends.last_showing],
        )?;
        let Some(after) = after else { return Ok(0) };
        let removed = self.connection.execute(
            "DELETE FROM rounds WHERE command_id >= ?1
               AND NOT EXISTS (SELECT 1 FROM commands c WHERE c.command_id = rounds.command_id)",
            [after.as_bytes().as_slice()],
        )?;
        Ok(removed as u64)
    }

    pub(in crate::ledger) fn commit(self) -> Result<(), OpenError> {
        self.connection.execute_batch("COMMIT").map_err(OpenError::sqlite(&self.path, "write to"))?;
        schema::sync_directory(&self.path)
    }
}

fn value(table: &Table, name: &str, values: &Values, row: usize) -> Value {
    fn of<T>(values: &[Option<T>], row: usize, value: impl Fn(&T) -> Value) -> Value {
        values.get(row).and_then(Option::as_ref).map_or(Value::Null, value)
    }
    match values {
        Values::Number(values) => of(values, row, |number| Value::Integer(*number)),
        Values::Count(values) => of(values, row, |count| Value::Integer(i64::from(*count))),
        Values::Flag(values) => of(values, row, |flag| Value::Integer(i64::from(*flag))),
        Values::Text(values) => of(values, row, |text| Value::Text(text.clone())),
        // A text may hold a zero byte here, but not in PostgreSQL.
        Values::Bytes(values) if table.name == "contexts" && name == "key" => {
            of(values, row, |text| Value::Text(String::from_utf8_lossy(text).into_owned()))
        }
        Values::Bytes(values) => of(values, row, |bytes| Value::Blob(bytes.clone())),
        Values::Id(values) => of(values, row, |id| Value::Blob(id.as_bytes().to_vec())),
    }
}
