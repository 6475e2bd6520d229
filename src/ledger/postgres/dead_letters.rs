//! Dead letters: how they are kept, found and pruned.

use super::{
    Error,
    link::{Link, Transaction},
    relay_row,
    values::{Columns, number, text, uuid, values},
};
use crate::{
    command::Seq,
    ledger::{
        Collected, DeadLetter, MAX_STRAYS, Stray, Why,
        dead_letters::{CLOCKS_MS, LETTERS},
        history::{Event, What},
    },
    time::Timestamp,
};

/// Keeps letters with their commands, or among the strays.
pub(super) async fn collect(
    transaction: &Transaction,
    letters: &[DeadLetter],
) -> Result<Vec<Collected>, Error> {
    // Acts and settlements wait until the end, so that a letter is not opened while its command is being requeued.
    relay_row::lock(transaction).await?;
    let mut collected = Vec::with_capacity(letters.len());
    for letter in letters {
        collected.push(collect_one(transaction, letter).await?);
    }
    Ok(collected)
}

/// A letter is open, unless its command was requeued since it died, or a worker has reported an outcome since the last
/// requeue.
async fn collect_one(transaction: &Transaction, letter: &DeadLetter) -> Result<Collected, Error> {
    let now = Timestamp::now().as_millisecond();
    let found = match letter.command_id {
        Some(id) => {
            // Locked, since its outcome may be reported at the same moment.
            let sql = "SELECT seq FROM countersign.commands WHERE command_id = $1 FOR NO KEY UPDATE";
            transaction.query_opt(sql, values![uuid(id)]).await?
        }
        None => None,
    };
    let Some(row) = found else { return stray(transaction, letter, now).await };
    let place: i64 = row.try_get("seq")?;
    let died_at = letter.died_at.map(Timestamp::as_millisecond);
    let rows = transaction
        .query(
            &format!(
                "SELECT requeued_at <= $2 + {CLOCKS_MS} AND NOT EXISTS (SELECT 1 FROM countersign.outcomes o
                    WHERE o.seq = $1 AND o.reported_at > requeued_at) AS is_open
                 FROM (SELECT coalesce(max(c.at), 0) AS requeued_at FROM countersign.act_commands c
                    JOIN countersign.acts a ON a.id = c.act_id WHERE c.seq = $1 AND a.act = 'requeue') r"
            ),
            values![place, died_at.unwrap_or(now)],
        )
        .await?;
    let is_open = rows.first().map_or(Ok(true), |row| row.try_get("is_open"))?;
    if is_open {
        close(transaction, &[place]).await?;
    }
    transaction
        .execute(
            "INSERT INTO countersign.dead_letters (seq, came_at, died_at, why, queue, is_open)
             VALUES ($1, $2, $3, $4, $5, $6)",
            values![
                place,
                now,
                died_at,
                letter.why.unwrap_or(Why::Rejected).as_str(),
                letter.queue.as_deref().map(text),
                is_open,
            ],
        )
        .await?;
    transaction
        .execute(
            "DELETE FROM countersign.dead_letters WHERE seq = $1 AND id <= (
                SELECT id FROM countersign.dead_letters WHERE seq = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)",
            values![place, LETTERS],
        )
        .await?;
    Ok(if is_open { Collected::Open } else { Collected::Closed })
}

async fn stray(transaction: &Transaction, letter: &DeadLetter, now: i64) -> Result<Collected, Error> {
    let kept = transaction
        .execute(
            "INSERT INTO countersign.strays (came_at, why, queue, reason, message_id, type, routing_key, body)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8
             WHERE (SELECT count(*) FROM countersign.strays) < $9",
            values![
                now,
                letter.why.map(Why::as_str),
                letter.queue.as_deref().map(text),
                letter.reason.as_deref().map(text),
                letter.message_id.as_deref().map(text),
                letter.message_type.as_deref().map(text),
                text(&letter.routing_key),
                letter.body.as_slice(),
                number(MAX_STRAYS),
            ],
        )
        .await?;
    Ok(if kept > 0 { Collected::Stray } else { Collected::Full })
}

/// The commands are dealt with: they are published again, or a worker has reported their outcome. Or newer letters of
/// them are about to be open: one is at a time.
pub(super) async fn close(transaction: &Transaction, places: &[i64]) -> Result<(), Error> {
    let sql = "UPDATE countersign.dead_letters SET is_open = false WHERE seq = ANY($1) AND is_open";
    transaction.execute(sql, values![places.to_vec()]).await?;
    Ok(())
}

/// Removes the letters of commands that are gone, which stood between two places in the log.
pub(super) async fn prune(transaction: &Transaction, first: Seq, through: Seq) -> Result<(), Error> {
    transaction
        .execute(
            "DELETE FROM countersign.dead_letters t WHERE t.seq BETWEEN $1 AND $2
               AND NOT EXISTS (SELECT 1 FROM countersign.commands c WHERE c.seq = t.seq)",
            values![number(first), number(through)],
        )
        .await?;
    Ok(())
}

/// The letters of a command, in order.
pub(super) async fn events(transaction: &Transaction, place: i64) -> Result<Vec<Event>, Error> {
    let rows = transaction
        .query(
            "SELECT came_at, why, queue FROM countersign.dead_letters WHERE seq = $1 ORDER BY id",
            values![place],
        )
        .await?;
    let event = |row: &tokio_postgres::Row| {
        let what = What::CameBack { why: row.known_word("why")?, queue: row.try_get("queue")? };
        Ok(Event { at: Some(row.time("came_at")?), what })
    };
    rows.iter().map(event).collect()
}

/// Published commands that came back and are not dealt with, and those of them that retention has not passed. Knows the row
/// of the relay as `r`.
pub(super) const COUNTS: &str = "(SELECT count(*) FROM countersign.strays) AS strays, d.*";

/// The source of [`COUNTS`].
pub(super) const OPEN: &str = "CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE why <> 'unrouted') AS rejected, count(*) FILTER (WHERE why = 'unrouted') AS unrouted,
        count(*) FILTER (WHERE seq > r.pruned_through) AS open_unpruned
    FROM countersign.dead_letters l WHERE is_open AND seq <= r.published_through
        AND NOT EXISTS (SELECT 1 FROM countersign.exceptions e WHERE e.seq = l.seq)) d";

/// Removes strays; returns those that were there.
pub(super) async fn remove(transaction: &Transaction, ids: Vec<u64>) -> Result<Vec<u64>, Error> {
    let ids: Vec<i64> = ids.into_iter().map(number).collect();
    let sql = "DELETE FROM countersign.strays WHERE id = ANY($1) RETURNING id";
    transaction.query(sql, values![ids]).await?.iter().map(|row| row.seq("id")).collect()
}

pub(super) async fn strays(link: &Link, before: Option<u64>, limit: usize) -> Result<Vec<Stray>, Error> {
    let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
    let rows = link
        .query(
            "SELECT id, came_at, why, queue, reason, message_id, type, routing_key, body FROM countersign.strays
             WHERE id < $1 ORDER BY id DESC LIMIT $2",
            values![before, number(limit as u64)],
        )
        .await?;
    let stray = |row: &tokio_postgres::Row| {
        Ok(Stray {
            id: row.seq("id")?,
            came_at: row.time("came_at")?,
            why: row.word("why")?,
            queue: row.try_get("queue")?,
            reason: row.try_get("reason")?,
            message_id: row.try_get("message_id")?,
            message_type: row.try_get("type")?,
            routing_key: row.try_get("routing_key")?,
            body: String::from_utf8_lossy(row.try_get("body")?).into_owned(),
        })
    };
    rows.iter().map(stray).collect()
}
