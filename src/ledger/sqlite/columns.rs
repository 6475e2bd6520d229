//! Values as their columns hold them.

use rusqlite::{Connection, OptionalExtension, Row};

use crate::{
    command::{Action, CommandId, Seq},
    time::Timestamp,
};

pub(super) fn id_at(connection: &Connection, seq: Seq) -> rusqlite::Result<Option<CommandId>> {
    connection
        .prepare_cached("SELECT command_id FROM commands WHERE seq = ?1")?
        .query_row([i64::try_from(seq).unwrap_or(i64::MAX)], |row| row.get(0).map(CommandId::from_bytes))
        .optional()
}

pub(super) fn seq(row: &Row<'_>, column: usize) -> rusqlite::Result<Seq> {
    Ok(row.get::<_, i64>(column)? as Seq)
}

pub(super) fn timestamp(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
}

pub(super) fn action(row: &Row<'_>, column: usize) -> rusqlite::Result<Action> {
    Ok(match row.get_ref(column)?.as_str()? {
        "approve" => Action::Approve,
        "reject" => Action::Reject,
        _ => Action::Custom,
    })
}
