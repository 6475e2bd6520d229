//! The outbox of one term.

use std::sync::{Arc, atomic::Ordering};

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    Error, Links, history,
    link::{Transaction, Values},
    shared::Shared,
    values::{Columns, number, text, uuid, values},
};
use crate::{
    command::{
        CommandId, Seq, TaskKey,
        message::{self, Envelope},
    },
    ledger::{
        AcceptError, Due, Entry, LookError, Outbox, Settlement, Standing,
        state::{Exceptional, State},
    },
    time::Timestamp,
};

const ENTRY: &str =
    "c.seq, c.command_id, c.received_at, c.endpoint, c.action, c.approval_code, c.instance_id,
    c.task_id, c.task_key, c.message";

const STANDING: &str = "c.seq, c.task_key, e.state, e.attempts, r.published_through
    FROM countersign.commands c LEFT JOIN countersign.exceptions e ON e.seq = c.seq";

/// No attempt is ever put off so far. One that seems to be was written before the clock was set back.
const FARTHEST_MS: i64 = 600_000;

/// See the module.
pub(super) struct TermOutbox {
    pub(super) term: Uuid,
    /// The generation of connections in which it began.
    pub(super) generation: u64,
    pub(super) head: watch::Receiver<Seq>,
    pub(super) shared: Arc<Shared>,
    pub(super) links: Links,
}

impl Outbox for TermOutbox {
    fn head(&self) -> watch::Receiver<Seq> {
        self.head.clone()
    }

    fn take_fresh(&self) -> Vec<Entry> {
        self.shared.take_fresh()
    }

    fn keep_fresh(&self, wanted: bool) {
        self.shared.fresh_wanted.store(wanted, Ordering::Relaxed);
        if !wanted {
            drop(self.take_fresh());
        }
    }

    fn cursor(&self) -> BoxFuture<'static, Result<Seq, LookError>> {
        let term = self.term;
        self.links.look("read the cursor of", move |links| async move {
            let found = within(&links, "SELECT r.published_through AS seq", values![term]).await?;
            found.first().ok_or(Error::NoVersion)?.seq("seq")
        })
    }

    fn since(&self, seq: Seq, limit: usize) -> BoxFuture<'static, Result<Vec<Entry>, LookError>> {
        let term = self.term;
        self.links.look("read commands from", move |links| async move {
            let look = format!(
                "SELECT {ENTRY} FROM countersign.commands c WHERE c.seq > $2
                   AND NOT EXISTS (SELECT 1 FROM countersign.exceptions e WHERE e.seq = c.seq)
                 ORDER BY c.seq LIMIT $3"
            );
            let found = within(&links, &look, values![term, number(seq), number(limit as u64)]).await?;
            found.iter().map(entry).collect()
        })
    }

    fn due(&self, now: Timestamp, limit: usize) -> BoxFuture<'static, Result<Vec<Due>, LookError>> {
        let term = self.term;
        self.links.look("read exceptions from", move |links| async move {
            let now = now.as_millisecond();
            // Those put off for too long come first. Two searches, so that the index gives each its order.
            let look = format!(
                "SELECT {ENTRY}, e.attempts FROM countersign.exceptions e
                 JOIN countersign.commands c ON c.seq = e.seq
                 WHERE e.seq IN (SELECT seq FROM (
                    (SELECT seq, next_attempt_at FROM countersign.exceptions
                     WHERE state <> 'parked' AND next_attempt_at > $4 ORDER BY next_attempt_at, seq LIMIT $3)
                    UNION ALL
                    (SELECT seq, next_attempt_at FROM countersign.exceptions
                     WHERE state <> 'parked' AND next_attempt_at <= $2 ORDER BY next_attempt_at, seq LIMIT $3)
                 ) due ORDER BY next_attempt_at <= $4, next_attempt_at, seq LIMIT $3)"
            );
            let farthest = now.saturating_add(FARTHEST_MS);
            let found = within(&links, &look, values![term, now, number(limit as u64), farthest]).await?;
            found.iter().map(|row| Ok(Due { entry: entry(row)?, attempts: row.count("attempts")? })).collect()
        })
    }

    fn waiting_tasks(&self) -> BoxFuture<'static, Result<Vec<(TaskKey, Seq)>, LookError>> {
        let term = self.term;
        self.links.look("read waiting tasks from", move |links| async move {
            let look = "SELECT c.task_key, e.seq FROM countersign.exceptions e
                JOIN countersign.commands c ON c.seq = e.seq WHERE e.state <> 'parked'";
            let found = within(&links, look, values![term]).await?;
            found.iter().map(|row| Ok((row.task_key("task_key")?, row.seq("seq")?))).collect()
        })
    }

    fn standing(&self, command_id: CommandId) -> BoxFuture<'static, Result<Option<Standing>, LookError>> {
        let term = self.term;
        self.links.look("look up a command in", move |links| async move {
            let look = format!("SELECT {STANDING} WHERE c.command_id = $2");
            let found = within(&links, &look, values![term, uuid(command_id)]).await?;
            let Some(row) = found.first() else { return Ok(None) };
            let attempts: Option<i32> = row.try_get("attempts")?;
            Ok(Some(Standing {
                seq: row.seq("seq")?,
                state: state(row)?,
                attempts: attempts.map(|attempts| u32::try_from(attempts).unwrap_or(0)),
                task_key: row.task_key("task_key")?,
            }))
        })
    }

    fn is_pending(&self, seq: Seq) -> BoxFuture<'static, Result<bool, LookError>> {
        let term = self.term;
        self.links.look("look up a command in", move |links| async move {
            let look = format!("SELECT {STANDING} WHERE c.seq = $2");
            let found = within(&links, &look, values![term, number(seq)]).await?;
            Ok(found.first().map(state).transpose()? == Some(State::Pending))
        })
    }

    fn settle(&self, settlement: Settlement) -> BoxFuture<'static, Result<(), AcceptError>> {
        // A settlement whose answer was lost is never sent again in its term: it could undo a later one.
        if self.links.changes.generation() != self.generation {
            return Box::pin(std::future::ready(Err(AcceptError::Unavailable)));
        }
        let term = self.term;
        self.links.change("settle commands in", move |transaction| async move {
            settle(&transaction, term, &settlement).await?;
            transaction.commit().await
        })
    }
}

/// Looks, and learns by the same statement whether the term is still the one: what is read after another began may be what that
/// one has written. `look` knows the row of the relay as `r`, and the term as `$1`.
async fn within(links: &Links, look: &str, values: &Values<'_>) -> Result<Vec<Row>, Error> {
    let sql = format!(
        "SELECT r.term IS NOT DISTINCT FROM $1 AND r.server IS NOT DISTINCT FROM countersign.server_v1() AS is_mine, found.*
         FROM countersign.relay r LEFT JOIN LATERAL ({look}) found ON true ORDER BY found.seq"
    );
    let mut rows = links.reads.query(&sql, values).await?;
    if !rows.first().ok_or(Error::NoVersion)?.try_get::<_, bool>("is_mine")? {
        return Err(Error::Deposed);
    }
    // Without anything found there is a row all the same.
    rows.retain(|row| row.try_get::<_, Option<i64>>("seq").is_ok_and(|seq| seq.is_some()));
    Ok(rows)
}

fn entry(row: &Row) -> Result<Entry, Error> {
    let body: Vec<u8> = row.try_get("message")?;
    Ok(Entry {
        seq: row.seq("seq")?,
        task_key: row.task_key("task_key")?,
        envelope: Envelope {
            command_id: row.id("command_id")?,
            received_at: row.time("received_at")?,
            endpoint: row.try_get::<_, &str>("endpoint")?.into(),
            action: row.action("action")?,
            approval_code: row.try_get("approval_code")?,
            instance_id: row.try_get("instance_id")?,
            task_id: row.try_get("task_id")?,
            trace: message::trace_of(&body),
        },
        body,
    })
}

pub(super) fn state(row: &Row) -> Result<State, Error> {
    Ok(State::of(row.seq("seq")?, row.seq("published_through")?, row.word::<Exceptional>("state")?))
}

/// Writes what the relay learned in a term, if that is still the one.
async fn settle(transaction: &Transaction, term: Uuid, settlement: &Settlement) -> Result<(), Error> {
    let Settlement { through, exceptions, cleared, exchange } = settlement;
    let exchange = exchange.as_deref();
    let now = Timestamp::now().as_millisecond();
    // Locks the row until the end: an operator's act waits, and no other term begins meanwhile.
    let sql = "SELECT published_through FROM countersign.relay WHERE id = 1 AND term = $1
        AND server = countersign.server_v1() FOR UPDATE";
    let cursor =
        transaction.query_opt(sql, values![term]).await?.ok_or(Error::Deposed)?.seq("published_through")?;
    // A cursor that is forgotten means publishing again. An exception that is forgotten would be passed over.
    if exceptions.is_empty() && cleared.is_empty() {
        transaction.execute_batch("SET LOCAL synchronous_commit = off").await?;
    }
    if let Some(through) = *through
        && through > cursor
    {
        let place = number(through);
        transaction
            .execute("UPDATE countersign.relay SET published_through = $1 WHERE id = 1", values![place])
            .await?;
        history::mark(transaction, cursor, through, exchange, now).await?;
    }
    for seq in cleared {
        let place = number(*seq);
        let gone =
            transaction.execute("DELETE FROM countersign.exceptions WHERE seq = $1", values![place]).await?;
        if gone > 0 {
            history::confirmed(transaction, *seq, cursor, exchange, now).await?;
        }
    }
    // An operator's park stands, whatever the relay was about to do: it may have read the exception before.
    for exception in exceptions {
        history::excepted(transaction, exception, cursor, now).await?;
        let (place, attempts) =
            (number(exception.seq), i32::try_from(exception.attempts).unwrap_or(i32::MAX));
        let (state, at) = (exception.state.as_str(), exception.next_attempt_at.as_millisecond());
        transaction
            .execute(
                "INSERT INTO countersign.exceptions (seq, state, attempts, next_attempt_at, changed_at, note)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (seq) DO UPDATE SET state = excluded.state, attempts = excluded.attempts,
                    next_attempt_at = excluded.next_attempt_at, changed_at = excluded.changed_at, note = excluded.note
                    WHERE exceptions.state <> 'parked'",
                values![place, state, attempts, at, now, text(&exception.reason)],
            )
            .await?;
    }
    Ok(())
}
