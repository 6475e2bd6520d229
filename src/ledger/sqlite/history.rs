//! The history of commands: written with each settlement, read when a person looks at one command.
//!
//! A command published in log order has no row of its own: the mark over its place says when. One that the broker
//! refused, or that waits for such a command, has rows in `publish_events`.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{acts, columns::seq, dead_letters, outcomes};
use crate::{
    command::{Command, CommandId, Seq, message::routing_key},
    ledger::{
        Exception, Record,
        history::{self, Event, Said, What},
    },
    time::Timestamp,
};

/// Maximum time span of a mark.
const MARK_MS: i64 = 1000;

/// Events kept of one command: more than the refusals before it is parked, by default.
const EVENTS: i64 = 32;

/// Smaller leads of ids are not recorded: ids made at the same time by several threads come in any order.
const LEAD_MS: i64 = 1000;

/// Records that the cursor moves from `before` to `through`.
pub(super) fn mark(
    transaction: &Connection,
    before: Seq,
    through: Seq,
    exchange: Option<&str>,
    now: i64,
) -> rusqlite::Result<()> {
    let values = params![before as i64, through as i64, exchange, now];
    // If the clock was set back, this adds a new mark.
    let widened = transaction
        .prepare_cached(&format!(
            "UPDATE publish_marks SET through = ?2, last_at = ?4
             WHERE through = ?1 AND exchange IS ?3 AND last_at <= ?4 AND first_at > ?4 - {MARK_MS}"
        ))?
        .execute(values)?;
    if widened == 0 {
        transaction
            .prepare_cached(
                "INSERT INTO publish_marks (through, after, first_at, last_at, exchange) VALUES (?2, ?1, ?4, ?4, ?3)",
            )?
            .execute(values)?;
    }
    Ok(())
}

/// Records an exception before it is written: a refusal, or that a command starts to wait.
pub(super) fn excepted(
    transaction: &Connection,
    exception: &Exception,
    cursor: Seq,
    now: i64,
) -> rusqlite::Result<()> {
    let known: Option<u32> = transaction
        .prepare_cached("SELECT attempts FROM exceptions WHERE seq = ?1")?
        .query_row([exception.seq as i64], |row| row.get(0))
        .optional()?;
    let (event, attempt, words) = if exception.attempts > known.unwrap_or(0) {
        ("refused", Some(exception.attempts), Some(exception.reason.as_str()))
    } else if known.is_none() {
        ("waiting", None, None)
    } else {
        // Only its time changed.
        return Ok(());
    };
    add(transaction, exception.seq, cursor, now, event, attempt, words, None)
}

/// Records that the command of an exception was confirmed.
pub(super) fn confirmed(
    transaction: &Connection,
    seq: Seq,
    cursor: Seq,
    exchange: Option<&str>,
    now: i64,
) -> rusqlite::Result<()> {
    add(transaction, seq, cursor, now, "published", None, None, exchange)
}

#[expect(clippy::too_many_arguments, reason = "the columns of a row")]
fn add(
    transaction: &Connection,
    seq: Seq,
    cursor: Seq,
    now: i64,
    event: &str,
    attempt: Option<u32>,
    words: Option<&str>,
    exchange: Option<&str>,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO publish_events (seq, at, event, attempt, passed, words, exchange)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![seq as i64, now, event, attempt, seq <= cursor, words, exchange])?;
    // Keep the first row: it says whether the command was published before.
    transaction
        .prepare_cached(&format!(
            "DELETE FROM publish_events WHERE seq = ?1
               AND id > (SELECT min(id) FROM publish_events WHERE seq = ?1)
               AND id <= (SELECT id FROM publish_events WHERE seq = ?1 ORDER BY id DESC LIMIT 1 OFFSET {})",
            EVENTS - 1
        ))?
        .execute([seq as i64])?;
    Ok(())
}

/// Records how far a command's id is ahead of its time, to find commands by time in the index of ids.
pub(super) fn note_lead(transaction: &Connection, command: &Command) -> rusqlite::Result<()> {
    let lead = command.command_id.millis().saturating_sub(command.received_at.as_millisecond());
    if lead > LEAD_MS {
        transaction.prepare_cached("UPDATE id_lead SET ms = ?1 WHERE ms < ?1")?.execute([lead])?;
    }
    Ok(())
}

/// Records how far the clock is behind the ids, at start: the next ids are lower than those.
pub(super) fn note_setback(connection: &Connection) -> rusqlite::Result<()> {
    let newest: Option<CommandId> = connection
        .prepare("SELECT command_id FROM commands ORDER BY command_id DESC LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let lead = newest.map_or(0, |id| id.millis().saturating_sub(Timestamp::now().as_millisecond()));
    if lead > LEAD_MS {
        connection.execute("UPDATE id_lead SET ms = ?1 WHERE ms < ?1", [lead])?;
    }
    Ok(())
}

/// How far a command's id may be ahead of its time, and how far ids may be out of order, in milliseconds.
pub(super) fn id_lead(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT ms FROM id_lead")?.query_row([], |row| row.get(0))
}

/// Removes the history of pruned commands in this part of the log. Call it within a transaction.
pub(super) fn prune(transaction: &Connection, first: Seq, through: Seq) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "DELETE FROM publish_events WHERE seq BETWEEN ?1 AND ?2
               AND NOT EXISTS (SELECT 1 FROM commands c WHERE c.seq = publish_events.seq)",
        )?
        .execute(params![first as i64, through as i64])?;
    transaction
        .prepare_cached(
            "DELETE FROM publish_marks WHERE through <= ?1
               AND NOT EXISTS (SELECT 1 FROM commands c WHERE c.seq > after AND c.seq <= through)",
        )?
        .execute([through as i64])?;
    Ok(())
}

/// The place up to which commands were published by `since`, as far as the ledger knows. Marks after `now` count too:
/// they were written before the clock was set back, at an unknown time.
pub(super) fn published_by(connection: &Connection, since: i64, now: i64) -> rusqlite::Result<Option<Seq>> {
    let marked = connection
        .prepare_cached(
            "SELECT through FROM publish_marks WHERE last_at <= ?1 OR last_at > ?2 ORDER BY through DESC LIMIT 1",
        )?
        .query_row([since, now], |row| seq(row, 0))
        .optional()?;
    if marked.is_some() {
        return Ok(marked);
    }
    // What is before the oldest mark was published earlier: its mark was pruned with it.
    connection
        .prepare_cached("SELECT after FROM publish_marks ORDER BY through LIMIT 1")?
        .query_row([], |row| seq(row, 0))
        .optional()
}

pub(super) fn of(connection: &Connection, record: &Record) -> rusqlite::Result<Vec<Event>> {
    let place = record.seq as i64;
    let routing_key = &routing_key(&record.endpoint, record.approval_code.as_deref(), &record.action);
    let said = said(connection, place, routing_key)?;
    let acts = acts::of_command(connection, place)?;
    let cursor = connection
        .prepare_cached("SELECT published_through FROM cursor")?
        .query_row([], |row| seq(row, 0))?;
    let left = history::left_in_order(record.seq, cursor, &said, &acts);
    let published = left.then(|| marked(connection, place, routing_key)).transpose()?;
    Ok(history::of(
        record.received_at,
        record.outcome.as_ref(),
        published,
        said,
        acts,
        outcomes::refused(connection, place)?,
        dead_letters::events(connection, place)?,
    ))
}

/// What the mark over a place in the log says.
fn marked(connection: &Connection, place: i64, routing_key: &str) -> rusqlite::Result<Event> {
    let published = |at, not_before, exchange| Event {
        at,
        what: What::Published { not_before, exchange, routing_key: routing_key.to_owned() },
    };
    let found = connection
        .prepare_cached(
            "SELECT after, first_at, last_at, exchange FROM publish_marks WHERE through >= ?1 ORDER BY through LIMIT 1",
        )?
        .query_row([place], |row| {
            let covers = row.get::<_, i64>("after")? < place;
            let event = published(row.get("last_at")?, row.get("first_at")?, row.get("exchange")?);
            Ok(covers.then_some(event))
        })
        .optional()?;
    Ok(found.flatten().unwrap_or_else(|| published(None, None, None)))
}

fn said(connection: &Connection, place: i64, routing_key: &str) -> rusqlite::Result<Vec<Said>> {
    let event = |row: &Row<'_>| {
        let at = row.get("at")?;
        let what = match row.get_ref("event")?.as_str()? {
            "waiting" => What::Waiting,
            "refused" => What::Refused {
                attempt: row.get::<_, Option<u32>>("attempt")?.unwrap_or(0),
                reason: row.get::<_, Option<String>>("words")?.unwrap_or_default(),
            },
            _ => What::Published {
                not_before: at,
                exchange: row.get("exchange")?,
                routing_key: routing_key.to_owned(),
            },
        };
        Ok((Event { at, what }, row.get("passed")?))
    };
    connection
        .prepare_cached(
            "SELECT at, event, attempt, words, exchange, passed FROM publish_events WHERE seq = ?1 ORDER BY id",
        )?
        .query_map([place], event)?
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::schema, *};

    #[test]
    fn moves_of_the_cursor_within_a_second_are_one_mark_and_a_clock_that_is_set_back_begins_another() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = schema::open_writer(&directory.path().join("ledger.db")).unwrap();
        let transaction = connection.transaction().unwrap();
        for (through, now) in
            [(1, 5_000), (2, 5_400), (3, 5_999), (4, 6_000), (5, 9_000), (6, 8_000), (7, 8_900)]
        {
            mark(&transaction, through - 1, through, None, now).unwrap();
        }
        let marks: Vec<(i64, i64, i64, i64)> = transaction
            .prepare("SELECT after, through, first_at, last_at FROM publish_marks ORDER BY through")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(
            marks,
            [(0, 3, 5_000, 5_999), (3, 4, 6_000, 6_000), (4, 5, 9_000, 9_000), (5, 7, 8_000, 8_900)]
        );
    }
}
