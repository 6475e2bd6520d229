//! Dead letters: kept by the writer, found by readers.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::columns::{seq, word};
use crate::{
    command::Seq,
    ledger::{
        Collected, DeadLetter, MAX_STRAYS, Stray, Why,
        dead_letters::{CLOCKS_MS, LETTERS},
        history::{Event, What},
    },
    time::Timestamp,
};

/// Keeps a letter with its command, or among the strays. It is open, unless its command was requeued since it died, or a
/// worker has reported an outcome since the last requeue.
pub(super) fn collect(transaction: &Connection, letter: &DeadLetter) -> rusqlite::Result<Collected> {
    let now = Timestamp::now().as_millisecond();
    let place: Option<i64> = match letter.command_id {
        Some(id) => transaction
            .prepare_cached("SELECT seq FROM commands WHERE command_id = ?1")?
            .query_row([id.as_bytes().as_slice()], |row| row.get(0))
            .optional()?,
        None => None,
    };
    let Some(place) = place else { return stray(transaction, letter, now) };
    let died_at = letter.died_at.map(Timestamp::as_millisecond);
    let is_open: bool = transaction
        .prepare_cached(&format!(
            "SELECT requeued_at <= ?2 + {CLOCKS_MS}
                AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.seq = ?1 AND o.reported_at > requeued_at)
             FROM (SELECT coalesce(max(c.at), 0) AS requeued_at FROM act_commands c JOIN acts a ON a.id = c.act_id
                WHERE c.seq = ?1 AND a.act = 'requeue')"
        ))?
        .query_row(params![place, died_at.unwrap_or(now)], |row| row.get(0))?;
    if is_open {
        close(transaction, place)?;
    }
    transaction
        .prepare_cached(
            "INSERT INTO dead_letters (seq, came_at, died_at, why, queue, is_open) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![place, now, died_at, letter.why.unwrap_or(Why::Rejected).as_str(), letter.queue, is_open])?;
    transaction
        .prepare_cached(&format!(
            "DELETE FROM dead_letters WHERE seq = ?1
               AND id <= (SELECT id FROM dead_letters WHERE seq = ?1 ORDER BY id DESC LIMIT 1 OFFSET {LETTERS})"
        ))?
        .execute([place])?;
    Ok(if is_open { Collected::Open } else { Collected::Closed })
}

fn stray(transaction: &Connection, letter: &DeadLetter, now: i64) -> rusqlite::Result<Collected> {
    if strays_kept(transaction)? >= MAX_STRAYS {
        return Ok(Collected::Full);
    }
    transaction
        .prepare_cached(
            "INSERT INTO strays (came_at, why, queue, reason, message_id, type, routing_key, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            now,
            letter.why.map(Why::as_str),
            letter.queue,
            letter.reason,
            letter.message_id,
            letter.message_type,
            letter.routing_key,
            letter.body,
        ])?;
    Ok(Collected::Stray)
}

/// The command is dealt with: it is published again, or a worker has reported its outcome. Or a newer letter of it is
/// about to be open: one is at a time.
pub(super) fn close(transaction: &Connection, place: i64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("UPDATE dead_letters SET is_open = 0 WHERE seq = ?1 AND is_open = 1")?
        .execute([place])?;
    Ok(())
}

/// Removes the letters of pruned commands in this part of the log.
pub(super) fn prune(transaction: &Connection, first: i64, through: i64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "DELETE FROM dead_letters WHERE seq BETWEEN ?1 AND ?2
               AND NOT EXISTS (SELECT 1 FROM commands c WHERE c.seq = dead_letters.seq)",
        )?
        .execute(params![first, through])?;
    Ok(())
}

/// The letters of a command, in order.
pub(super) fn events(connection: &Connection, place: i64) -> rusqlite::Result<Vec<Event>> {
    connection
        .prepare_cached("SELECT came_at, why, queue FROM dead_letters WHERE seq = ?1 ORDER BY id")?
        .query_map([place], |row| {
            let what = What::CameBack { why: row.get("why")?, queue: row.get("queue")? };
            Ok(Event { at: row.get("came_at")?, what })
        })?
        .collect()
}

/// Published commands that came back and are not dealt with.
#[derive(Debug, Default)]
pub(super) struct Open {
    pub(super) rejected: u64,
    pub(super) unrouted: u64,
    /// Those of them that retention has not passed.
    pub(super) unpruned: u64,
}

pub(super) fn open(connection: &Connection) -> rusqlite::Result<Open> {
    connection
        .prepare_cached(
            "SELECT count(*) FILTER (WHERE why <> 'unrouted'), count(*) FILTER (WHERE why = 'unrouted'),
                count(*) FILTER (WHERE seq > (SELECT pruned_through FROM cursor))
             FROM dead_letters d
             WHERE is_open = 1 AND seq <= (SELECT published_through FROM cursor)
               AND NOT EXISTS (SELECT 1 FROM exceptions e WHERE e.seq = d.seq)",
        )?
        .query_row([], |row| {
            Ok(Open { rejected: seq(row, 0)?, unrouted: seq(row, 1)?, unpruned: seq(row, 2)? })
        })
}

pub(super) fn strays_kept(connection: &Connection) -> rusqlite::Result<u64> {
    connection.prepare_cached("SELECT count(*) FROM strays")?.query_row([], |row| seq(row, 0))
}

/// Removes strays; returns those that were there.
pub(super) fn remove(transaction: &Connection, ids: &[u64]) -> rusqlite::Result<Vec<u64>> {
    let mut statement = transaction.prepare_cached("DELETE FROM strays WHERE id = ?1")?;
    let mut removed = Vec::new();
    for id in ids {
        if statement.execute([i64::try_from(*id).unwrap_or(i64::MAX)])? > 0 {
            removed.push(*id);
        }
    }
    Ok(removed)
}

pub(super) fn strays(
    connection: &Connection,
    before: Option<Seq>,
    limit: usize,
) -> rusqlite::Result<Vec<Stray>> {
    let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "SELECT id, came_at, why, queue, reason, message_id, type, routing_key, body FROM strays
             WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
        )?
        .query_map(params![before, limit as i64], |row: &Row<'_>| {
            Ok(Stray {
                id: seq(row, "id")?,
                came_at: row.get("came_at")?,
                why: word(row, "why")?,
                queue: row.get("queue")?,
                reason: row.get("reason")?,
                message_id: row.get("message_id")?,
                message_type: row.get("type")?,
                routing_key: row.get("routing_key")?,
                body: String::from_utf8_lossy(&row.get::<_, Vec<u8>>("body")?).into_owned(),
            })
        })?
        .collect()
}
