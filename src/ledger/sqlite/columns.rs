//! Values as stored in columns.

use std::str::FromStr;

use rusqlite::{
    Connection, OptionalExtension, Row, RowIndex,
    types::{FromSql, FromSqlError, FromSqlResult, ValueRef},
};

use crate::{
    command::{Action, CommandId, Seq, TaskKey, outcome::Kind},
    ledger::{ShowingState, Surface, Why},
    time::Timestamp,
};

pub(super) fn id_at(connection: &Connection, seq: Seq) -> rusqlite::Result<Option<CommandId>> {
    connection
        .prepare_cached("SELECT command_id FROM commands WHERE seq = ?1")?
        .query_row([i64::try_from(seq).unwrap_or(i64::MAX)], |row| row.get(0))
        .optional()
}

/// A [`Seq`], or any other count.
pub(super) fn seq(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Seq> {
    Ok(row.get::<_, i64>(column)? as Seq)
}

/// A word, or `None` if unknown: a newer program may know more.
pub(super) fn word<T: FromStr>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>> {
    Ok(row.get_ref(column)?.as_str_or_null()?.and_then(|word| word.parse().ok()))
}

impl FromSql for Timestamp {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(Self::from_millisecond(value.as_i64()?).unwrap_or(Self::UNIX_EPOCH))
    }
}

impl FromSql for CommandId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        FromSql::column_result(value).map(Self::from_bytes)
    }
}

impl FromSql for TaskKey {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(Self::from_value(value.as_i64()? as u64))
    }
}

impl FromSql for Action {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(match value.as_str()? {
            "approve" => Self::Approve,
            "reject" => Self::Reject,
            _ => Self::Custom,
        })
    }
}

macro_rules! words {
    ($($word:ty),+) => {$(
        impl FromSql for $word {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                value.as_str()?.parse().map_err(|_| FromSqlError::Other("an unknown word".into()))
            }
        }
    )+};
}

words!(Kind, ShowingState, Surface, Why);
