//! A row as a line of JSON, and back.

use std::fmt::Write as _;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::ledger::copy::tables::{Column, Kind, Portion, Table, Values};

/// Bytes that are texts.
const TEXTS: [&str; 2] = ["message", "key"];

/// Columns that hold a place in the log.
pub(super) const PLACES: [&str; 3] = ["seq", "after", "through"];

/// A row, as it is written.
pub(super) struct Line<'a> {
    pub(super) table: &'a Table,
    pub(super) portion: &'a Portion,
    pub(super) row: usize,
    /// Of a command.
    pub(super) state: Option<&'static str>,
}

/// True if a column is written: what follows from others is not.
fn is_written(column: &Column) -> bool {
    !matches!(column.kind, Kind::At | Kind::First8)
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").ok();
    }
    text
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_map(None)?;
        line.serialize_entry("table", self.table.name)?;
        if let Some(state) = self.state {
            line.serialize_entry("state", state)?;
        }
        for (column, values) in self.table.columns.iter().zip(&self.portion.columns) {
            let (name, row) = (column.name, self.row);
            if !is_written(column) {
                continue;
            }
            match values {
                Values::Number(values) => line.serialize_entry(name, &values[row])?,
                Values::Count(values) => line.serialize_entry(name, &values[row])?,
                Values::Flag(values) => line.serialize_entry(name, &values[row])?,
                Values::Text(values) => line.serialize_entry(name, &values[row])?,
                Values::Id(values) => line.serialize_entry(name, &values[row].map(|id| id.to_string()))?,
                Values::Bytes(values) if TEXTS.contains(&name) => {
                    line.serialize_entry(name, &values[row].as_deref().map(String::from_utf8_lossy))?;
                }
                Values::Bytes(values) => line.serialize_entry(name, &values[row].as_deref().map(hex))?,
            }
        }
        line.end()
    }
}

/// Adds the row of a line to a portion. `at` is its time by the log's clock, and `place` maps places in the log. Says what is
/// wrong.
pub(super) fn read(
    line: &Map<String, Value>,
    table: &Table,
    portion: &mut Portion,
    at: i64,
    place: impl Fn(i64) -> i64,
) -> Result<(), String> {
    for (column, values) in table.columns.iter().zip(&mut portion.columns) {
        let name = column.name;
        let source = if column.kind == Kind::First8 { name.trim_end_matches('8') } else { name };
        let value = line.get(source).filter(|value| !value.is_null());
        let wrong =
            || format!("{name} is not what it holds: {}", value.map_or_else(String::new, Value::to_string));
        let bytes = || -> Result<Option<Vec<u8>>, String> {
            let Some(value) = value else { return Ok(None) };
            let text = value.as_str().ok_or_else(wrong)?;
            if TEXTS.contains(&name) {
                Ok(Some(text.as_bytes().to_vec()))
            } else {
                unhex(text).map(Some).ok_or_else(wrong)
            }
        };
        match values {
            Values::Number(values) if column.kind == Kind::At => values.push(Some(at)),
            Values::Number(values) if column.kind == Kind::First8 => {
                let head = bytes()?.and_then(|bytes| Some(i64::from_be_bytes(*bytes.first_chunk()?)));
                values.push(Some(head.ok_or_else(wrong)?));
            }
            Values::Number(values) => {
                let number = value.map(|value| value.as_i64().ok_or_else(wrong)).transpose()?;
                values.push(number.map(|number| if PLACES.contains(&name) { place(number) } else { number }));
            }
            Values::Count(values) => {
                let number = value.map(|value| {
                    value.as_i64().and_then(|number| i32::try_from(number).ok()).ok_or_else(wrong)
                });
                values.push(number.transpose()?);
            }
            Values::Flag(values) => {
                values.push(value.map(|value| value.as_bool().ok_or_else(wrong)).transpose()?)
            }
            Values::Text(values) => {
                values.push(
                    value.map(|value| value.as_str().map(str::to_owned).ok_or_else(wrong)).transpose()?,
                );
            }
            Values::Id(values) => {
                let id = value
                    .map(|value| value.as_str().and_then(|id| Uuid::try_parse(id).ok()).ok_or_else(wrong));
                values.push(id.transpose()?);
            }
            Values::Bytes(values) => values.push(bytes()?),
        }
    }
    portion.rows += 1;
    Ok(())
}

/// A portion without a row.
pub(super) fn empty(table: &Table) -> Portion {
    let columns = table.columns.iter().map(|column| Values::none_of(column.kind)).collect();
    Portion { rows: 0, columns, last: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::copy::tables::TABLES;

    #[test]
    fn a_row_of_every_table_reads_back_as_it_was() {
        for table in &TABLES {
            let mut portion = empty(table);
            for (column, values) in table.columns.iter().zip(&mut portion.columns) {
                match values {
                    Values::Number(values) if column.kind == Kind::First8 => {
                        values.push(Some(0x3031_3233_3435_3637))
                    }
                    Values::Number(values) => values.push(Some(-9_007_199_254_740_993)),
                    Values::Count(values) => values.push(Some(7)),
                    Values::Flag(values) => values.push(Some(true)),
                    Values::Text(values) => values.push(Some("采\u{0}\u{202e}\"".to_owned())),
                    Values::Id(values) => values.push(Some(Uuid::max())),
                    Values::Bytes(values) => values.push(Some(b"0123456789".to_vec())),
                }
            }
            portion.rows = 1;
            let line = Line { table, portion: &portion, row: 0, state: Some("pending") };
            let text = serde_json::to_string(&line).unwrap();
            let line: Map<String, Value> = serde_json::from_str(&text).unwrap();
            assert_eq!(line["table"], table.name);
            let mut read_back = empty(table);
            read(&line, table, &mut read_back, -9_007_199_254_740_993, |place| place).unwrap();
            assert_eq!(format!("{read_back:?}"), format!("{portion:?}"));
        }
    }

    #[test]
    fn what_is_no_row_is_refused() {
        let table = TABLES.iter().find(|table| table.name == "rounds").unwrap();
        for line in [
            r#"{"fingerprint":"0g"}"#,
            r#"{"fingerprint":"123"}"#,
            r#"{"fingerprint":7}"#,
            r#"{"command_id":"x"}"#,
        ] {
            let line: Map<String, Value> = serde_json::from_str(line).unwrap();
            assert!(read(&line, table, &mut empty(table), 0, |place| place).is_err(), "{line:?}");
        }
    }
}
