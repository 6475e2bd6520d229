//! A row as it is stored, and whether it fits a table.

use rusqlite::types::{ToSqlOutput, Value, ValueRef};

use super::pages::varint;

/// No table has so many. A column takes more room here than its one byte in the row.
const MOST_COLUMNS: usize = 64;

/// The values of a row. `None` if the bytes are no row.
pub(super) fn decode(content: &[u8]) -> Option<Vec<Value>> {
    let (length, mut at) = varint(content, 0)?;
    let length = usize::try_from(length).ok().filter(|length| *length <= content.len() && *length >= at)?;
    let mut body = length;
    let mut values = Vec::new();
    while at < length {
        if values.len() == MOST_COLUMNS {
            return None;
        }
        let (kind, bytes) = varint(&content[..length], at)?;
        at += bytes;
        let size = match kind {
            0 | 8 | 9 => 0,
            1..=4 => usize::try_from(kind).ok()?,
            5 => 6,
            6 | 7 => 8,
            12.. => usize::try_from((kind - 12) / 2).ok()?,
            _ => return None,
        };
        let bytes = content.get(body..body.checked_add(size)?)?;
        body += size;
        values.push(match kind {
            0 => Value::Null,
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            7 => Value::Real(f64::from_be_bytes(*bytes.first_chunk()?)),
            1..=6 => Value::Integer(integer(bytes)),
            _ if kind % 2 == 0 => Value::Blob(bytes.to_vec()),
            _ => Value::Text(String::from_utf8(bytes.to_vec()).ok()?),
        });
    }
    (body == content.len()).then_some(values)
}

fn integer(bytes: &[u8]) -> i64 {
    let first = bytes.first().map_or(0, |byte| i64::from(byte.cast_signed()));
    bytes.iter().skip(1).fold(first, |value, byte| value << 8 | i64::from(*byte))
}

/// A column of a table.
#[derive(Debug, Clone)]
pub(super) struct Holds {
    pub(super) name: String,
    kind: String,
    is_needed: bool,
    /// Stored as the number of the row, and as nothing in it.
    pub(super) is_rowid: bool,
}

/// What the rows of a table look like.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) table: String,
    pub(super) columns: Vec<Holds>,
    /// True if rows are stored by their content, as in an index.
    pub(super) is_index: bool,
    /// The page that a new ledger has its root in.
    pub(super) usual_root: u32,
}

impl Shape {
    /// The shapes of all tables of a ledger.
    pub(super) fn all(connection: &rusqlite::Connection) -> rusqlite::Result<Vec<Self>> {
        let mut statement = connection.prepare(
            "SELECT name, rootpage, sql LIKE '%WITHOUT ROWID' FROM sqlite_schema
             WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
        )?;
        let tables = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let tables: Vec<(String, u32, bool)> = tables.collect::<rusqlite::Result<_>>()?;
        let mut shapes = Vec::new();
        for (table, usual_root, is_index) in tables {
            let mut columns = connection
                .prepare("SELECT name, type, \"notnull\", pk FROM pragma_table_info(?1) ORDER BY cid")?;
            let columns = columns.query_map([&table], |row| {
                let (kind, key): (String, i64) = (row.get(1)?, row.get(3)?);
                let is_rowid = !is_index && key == 1 && kind == "INTEGER";
                Ok(Holds { name: row.get(0)?, is_needed: row.get(2)?, kind, is_rowid })
            })?;
            let columns = columns.collect::<rusqlite::Result<_>>()?;
            shapes.push(Self { table, columns, is_index, usual_root });
        }
        Ok(shapes)
    }

    /// True if a row has these columns. It may lack the last ones: an older program knew fewer.
    pub(super) fn fits(&self, values: &[Value]) -> bool {
        let is_whole = values.len() <= self.columns.len() && !values.is_empty();
        is_whole
            && self.columns.iter().zip(values).all(|(column, value)| match (&*column.kind, value) {
                (_, Value::Null) => column.is_rowid || !column.is_needed,
                ("INTEGER", Value::Integer(_)) => !column.is_rowid,
                ("TEXT", Value::Text(_)) | ("BLOB", Value::Blob(_)) => true,
                _ => false,
            })
    }

    /// True if only a row of this table can look so: all columns are there, not merely some.
    pub(super) fn is_all_of(&self, values: &[Value]) -> bool {
        self.fits(values) && values.len() == self.columns.len() && self.lengths(values)
    }

    /// Bytes of the ids tell a round from an entry of an index.
    fn lengths(&self, values: &[Value]) -> bool {
        self.columns.iter().zip(values).all(|(column, value)| match (&*column.name, value) {
            ("command_id" | "decision_key", Value::Blob(bytes)) => bytes.len() == 16,
            ("fingerprint", Value::Blob(bytes)) => bytes.len() == 32,
            _ => true,
        })
    }

    /// The statement that adds a row with so many columns.
    pub(super) fn insert(&self, columns: usize, how: &str) -> String {
        let names: Vec<String> =
            self.columns.iter().take(columns).map(|column| format!("\"{}\"", column.name)).collect();
        let places: Vec<String> = (1..=names.len()).map(|place| format!("?{place}")).collect();
        format!("INSERT {how} INTO \"{}\" ({}) VALUES ({})", self.table, names.join(", "), places.join(", "))
    }

    /// The values as they are inserted.
    pub(super) fn values<'a>(
        &'a self,
        rowid: i64,
        values: &'a [Value],
    ) -> impl Iterator<Item = ToSqlOutput<'a>> {
        self.columns.iter().zip(values).map(move |(column, value)| match value {
            Value::Null if column.is_rowid => ToSqlOutput::Borrowed(ValueRef::Integer(rowid)),
            value => ToSqlOutput::Borrowed(ValueRef::from(value)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_more_columns_than_a_table_has_is_none() {
        assert_eq!(decode(&[3, 0, 9]), Some(vec![Value::Null, Value::Integer(1)]));
        let many = [&[0x87, 0x68][..], &[0; 998]].concat();
        assert_eq!(decode(&many), None);
    }

    #[test]
    fn every_table_has_fewer_columns_than_a_row_may_have() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        for step in crate::ledger::sqlite::schema::MIGRATIONS {
            connection.execute_batch(step).unwrap();
        }
        assert!(Shape::all(&connection).unwrap().iter().all(|shape| shape.columns.len() * 2 < MOST_COLUMNS));
    }
}
