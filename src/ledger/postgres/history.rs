//! What happened to commands: written with each settlement, read when a person looks at one command.
//!
//! A command that is published in the log's order has no row of its own: the mark that covers its place says when. One that
//! the broker refused, or that waits for such a one, has rows among the events.

use tokio_postgres::Row;

use super::{
    Error, acts, dead_letters,
    link::{Link, Transaction},
    outcomes,
    values::{Columns, number, text, values},
};
use crate::{
    command::{Seq, message::routing_key},
    ledger::{
        Exception, Record,
        history::{self, Event, Said, What},
    },
    time::Timestamp,
};

/// A mark covers so much time at the most.
const MARK_MS: i64 = 1000;

/// Events kept of one command: more than the broker may refuse it before it is parked, by default.
const EVENTS: i64 = 32;

/// Ids that are less ahead are not noted: callbacks overtake one another.
const LEAD_MS: i64 = 1000;

/// Notes that the cursor moves from `before` to `through`.
pub(super) async fn mark(
    transaction: &Transaction,
    before: Seq,
    through: Seq,
    exchange: Option<&str>,
    now: i64,
) -> Result<(), Error> {
    let (before, through) = (number(before), number(through));
    // The clock may have been set back meanwhile: then a mark of its own.
    let widened = transaction
        .execute(
            &format!(
                "UPDATE countersign.publish_marks SET through = $2, last_at = $4
                 WHERE through = $1 AND exchange IS NOT DISTINCT FROM $3 AND last_at <= $4 AND first_at > $4 - {MARK_MS}"
            ),
            values![before, through, exchange, now],
        )
        .await?;
    if widened == 0 {
        transaction
            .execute(
                "INSERT INTO countersign.publish_marks (through, after, first_at, last_at, exchange)
                 VALUES ($2, $1, $4, $4, $3)",
                values![before, through, exchange, now],
            )
            .await?;
    }
    Ok(())
}

/// Notes an exception that is about to be written: a refusal, or that a command begins to wait.
pub(super) async fn excepted(
    transaction: &Transaction,
    exception: &Exception,
    cursor: Seq,
    now: i64,
) -> Result<(), Error> {
    let place = number(exception.seq);
    let known = transaction
        .query_opt("SELECT attempts FROM countersign.exceptions WHERE seq = $1", values![place])
        .await?
        .map(|row| row.count("attempts"))
        .transpose()?;
    if exception.attempts > known.unwrap_or(0) {
        let (attempt, words) = (Some(exception.attempts), Some(exception.reason.as_str()));
        return add(
            transaction,
            exception.seq,
            cursor,
            now,
            Words { event: "refused", attempt, words, exchange: None },
        )
        .await;
    }
    if known.is_none() {
        return add(transaction, exception.seq, cursor, now, Words { event: "waiting", ..Words::default() })
            .await;
    }
    // It was moved to another time.
    Ok(())
}

/// Notes that the command of an exception was confirmed.
pub(super) async fn confirmed(
    transaction: &Transaction,
    seq: Seq,
    cursor: Seq,
    exchange: Option<&str>,
    now: i64,
) -> Result<(), Error> {
    add(transaction, seq, cursor, now, Words { event: "published", exchange, ..Words::default() }).await
}

/// What the broker said.
#[derive(Default)]
struct Words<'a> {
    event: &'a str,
    attempt: Option<u32>,
    words: Option<&'a str>,
    exchange: Option<&'a str>,
}

async fn add(
    transaction: &Transaction,
    seq: Seq,
    cursor: Seq,
    now: i64,
    said: Words<'_>,
) -> Result<(), Error> {
    let place = number(seq);
    let attempt = said.attempt.map(|attempt| i32::try_from(attempt).unwrap_or(i32::MAX));
    transaction
        .execute(
            "INSERT INTO countersign.publish_events (seq, at, event, attempt, passed, words, exchange)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            values![place, now, said.event, attempt, seq <= cursor, said.words.map(text), said.exchange],
        )
        .await?;
    // The first row stays: it tells whether the command was published before.
    transaction
        .execute(
            &format!(
                "DELETE FROM countersign.publish_events WHERE seq = $1
                   AND id > (SELECT min(id) FROM countersign.publish_events WHERE seq = $1)
                   AND id <= (SELECT id FROM countersign.publish_events WHERE seq = $1
                              ORDER BY id DESC LIMIT 1 OFFSET {})",
                EVENTS - 1
            ),
            values![place],
        )
        .await?;
    Ok(())
}

/// Forgets what happened to commands in this part of the log that are there no longer.
pub(super) async fn prune(transaction: &Transaction, first: Seq, through: Seq) -> Result<(), Error> {
    let (first, through) = (number(first), number(through));
    transaction
        .execute(
            "DELETE FROM countersign.publish_events e WHERE e.seq BETWEEN $1 AND $2
               AND NOT EXISTS (SELECT 1 FROM countersign.commands c WHERE c.seq = e.seq)",
            values![first, through],
        )
        .await?;
    transaction
        .execute(
            "DELETE FROM countersign.publish_marks m WHERE m.through <= $1
               AND NOT EXISTS (SELECT 1 FROM countersign.commands c WHERE c.seq > m.after AND c.seq <= m.through)",
            values![through],
        )
        .await?;
    Ok(())
}

/// Notes how far the clock of this machine is behind the ids: the next ones are lower than those.
pub(super) async fn note_setback(link: &Link) -> Result<(), Error> {
    let sql = "SELECT command_id FROM countersign.commands ORDER BY command_id DESC LIMIT 1";
    let Some(row) = link.query_opt(sql, values![]).await? else { return Ok(()) };
    let lead = row.id("command_id")?.millis().saturating_sub(Timestamp::now().as_millisecond());
    let sql = "UPDATE countersign.log SET id_lead_ms = $1 WHERE id_lead_ms < $1";
    if lead > LEAD_MS {
        link.query(sql, values![lead]).await?;
    }
    Ok(())
}

/// How many milliseconds the id of a command may be ahead of its time.
pub(super) async fn id_lead(transaction: &Transaction) -> Result<i64, Error> {
    let row = transaction.query_opt("SELECT id_lead_ms FROM countersign.log", values![]).await?;
    Ok(row.ok_or(Error::NoVersion)?.try_get("id_lead_ms")?)
}

/// The place up to which commands were published by `since`, as far as the ledger knows; what is marked after `now` was
/// written before the clock was set back, and nobody knows when.
pub(super) async fn published_by(
    transaction: &Transaction,
    since: i64,
    now: i64,
) -> Result<Option<Seq>, Error> {
    let marked = transaction
        .query_opt(
            "SELECT through FROM countersign.publish_marks WHERE last_at <= $1 OR last_at > $2
             ORDER BY through DESC LIMIT 1",
            values![since, now],
        )
        .await?;
    if let Some(row) = marked {
        return row.seq("through").map(Some);
    }
    // What lies before the oldest mark was published earlier: the mark was pruned with what it covered.
    let oldest = transaction
        .query_opt("SELECT after FROM countersign.publish_marks ORDER BY through LIMIT 1", values![])
        .await?;
    oldest.map(|row| row.seq("after")).transpose()
}

/// All that is known to have happened to a command, in order of time.
pub(super) async fn of(transaction: &Transaction, record: &Record) -> Result<Vec<Event>, Error> {
    let place = number(record.seq);
    let routing_key = &routing_key(&record.endpoint, record.approval_code.as_deref(), &record.action);
    let said = said(transaction, place, routing_key).await?;
    let acts = acts::of_command(transaction, place).await?;
    let row = transaction.query_opt("SELECT published_through FROM countersign.relay", values![]).await?;
    let cursor = row.ok_or(Error::NoVersion)?.seq("published_through")?;
    let published = if history::left_in_order(record.seq, cursor, &said, &acts) {
        Some(marked(transaction, place, routing_key).await?)
    } else {
        None
    };
    Ok(history::of(
        record.received_at,
        record.outcome.as_ref(),
        published,
        said,
        acts,
        outcomes::refused(transaction, place).await?,
        dead_letters::events(transaction, place).await?,
    ))
}

/// What the mark over a place in the log says.
async fn marked(transaction: &Transaction, place: i64, routing_key: &str) -> Result<Event, Error> {
    let published = |at, not_before, exchange| Event {
        at,
        what: What::Published { not_before, exchange, routing_key: routing_key.to_owned() },
    };
    let found = transaction
        .query_opt(
            "SELECT after, first_at, last_at, exchange FROM countersign.publish_marks WHERE through >= $1
             ORDER BY through LIMIT 1",
            values![place],
        )
        .await?;
    match found {
        Some(row) if row.try_get::<_, i64>("after")? < place => {
            Ok(published(Some(row.time("last_at")?), Some(row.time("first_at")?), row.try_get("exchange")?))
        }
        _ => Ok(published(None, None, None)),
    }
}

/// What the broker said of a command as an exception, and whether the cursor had passed it by then.
async fn said(transaction: &Transaction, place: i64, routing_key: &str) -> Result<Vec<Said>, Error> {
    let rows = transaction
        .query(
            "SELECT at, event, attempt, words, exchange, passed FROM countersign.publish_events WHERE seq = $1 ORDER BY id",
            values![place],
        )
        .await?;
    let event = |row: &Row| -> Result<(Event, bool), Error> {
        let at = Some(row.time("at")?);
        let what = match row.try_get("event")? {
            "waiting" => What::Waiting,
            "refused" => What::Refused {
                attempt: row.count("attempt")?,
                reason: row.try_get::<_, Option<String>>("words")?.unwrap_or_default(),
            },
            _ => What::Published {
                not_before: at,
                exchange: row.try_get("exchange")?,
                routing_key: routing_key.to_owned(),
            },
        };
        Ok((Event { at, what }, row.try_get("passed")?))
    };
    rows.iter().map(event).collect()
}
