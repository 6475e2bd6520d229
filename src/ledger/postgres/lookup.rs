//! Looks into the ledger, for people and their programs.

use serde_json::value::RawValue;
use tokio_postgres::Row;

use super::{
    Error, Replication, dead_letters, findings, history,
    lease::{NOW, named},
    link::{Link, Transaction},
    outbox::state,
    outcomes,
    values::{Columns, number, uuid, values},
};
use crate::{
    command::{CommandId, Seq},
    ledger::{Record, Stats, Subject, state::Exceptional},
    time::Timestamp,
};

pub(super) const RECORD: &str =
    "c.seq, c.command_id, c.received_at, c.endpoint, c.action, c.user_id, c.approval_code,
    c.instance_id, c.task_id, e.state, e.attempts, e.next_attempt_at, e.note,
    (SELECT l.why FROM countersign.dead_letters l WHERE l.seq = c.seq AND l.is_open) AS came_back,
    (SELECT published_through FROM countersign.relay) AS published_through";

/// The id of the command at a place in the log.
pub(super) async fn id_at(link: &Link, seq: Seq) -> Result<Option<CommandId>, Error> {
    let seq = number(seq);
    link.query_opt("SELECT command_id FROM countersign.commands WHERE seq = $1", values![seq])
        .await?
        .map(|row| row.id("command_id"))
        .transpose()
}

/// One command with its message and its history.
pub(super) async fn find(link: &Link, command_id: CommandId) -> Result<Option<Record>, Error> {
    let transaction = link.snapshot().await?;
    let found = find_within(&transaction, command_id).await?;
    transaction.commit().await?;
    Ok(found)
}

async fn find_within(transaction: &Transaction, command_id: CommandId) -> Result<Option<Record>, Error> {
    let found = transaction
        .query_opt(
            &format!(
                "SELECT {RECORD}, c.message FROM countersign.commands c
                    LEFT JOIN countersign.exceptions e ON e.seq = c.seq
                 WHERE c.command_id = $1"
            ),
            values![uuid(command_id)],
        )
        .await?;
    let Some(row) = found else { return Ok(None) };
    let mut record = record(&row)?;
    let message: Vec<u8> = row.try_get("message")?;
    record.command = String::from_utf8(message).ok().and_then(|text| RawValue::from_string(text).ok());
    record.reconciliation = findings::finding(transaction, record.seq).await?;
    record.outcome = outcomes::records(transaction, &[record.seq]).await?.remove(&record.seq);
    record.history = Some(history::of(transaction, &record).await?);
    Ok(Some(record))
}

/// What commands are about, from a place in the log on.
pub(super) async fn subjects(link: &Link, from: Seq, limit: usize) -> Result<Vec<Subject>, Error> {
    let rows = link
        .query(
            "SELECT seq, command_id, user_id, instance_id, task_id FROM countersign.commands
             WHERE seq >= $1 ORDER BY seq LIMIT $2",
            values![number(from), i64::try_from(limit).unwrap_or(i64::MAX)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Subject {
                seq: row.seq("seq")?,
                command_id: row.id("command_id")?,
                user_id: row.try_get("user_id")?,
                instance_id: row.try_get("instance_id")?,
                task_id: row.try_get("task_id")?,
            })
        })
        .collect()
}

/// When the oldest command was received that retention has not reached: of those before it, what was published is gone.
/// `None` if nothing was pruned so far.
pub(super) async fn pruned_before(link: &Link) -> Result<Option<Timestamp>, Error> {
    let kept = link
        .query_opt(
            "SELECT (SELECT c.received_at FROM countersign.commands c WHERE c.seq > r.pruned_through
                ORDER BY c.seq LIMIT 1) AS received_at
             FROM countersign.relay r WHERE r.pruned_through > 0",
            values![],
        )
        .await?
        .map(|row| row.time_if_any("received_at"))
        .transpose()?;
    Ok(kept.map(|kept| kept.unwrap_or_else(Timestamp::now)))
}

/// Numbers. Derived from the ends of the log and the exceptions; no row of the log is counted, so a million of them cost
/// nothing.
pub(super) async fn stats(link: &Link) -> Result<Stats, Error> {
    // One statement, so that the numbers belong together. The size is that of the tables of this schema with their indexes:
    // others may use the database, and its own size is summed over all of its files.
    let sql = format!(
        "SELECT r.published_through, r.pruned_through, l.head,
            (SELECT count(*) FROM countersign.exceptions WHERE state = 'parked') AS parked,
            (SELECT count(*) FROM countersign.exceptions WHERE state <> 'parked') AS waiting,
            (SELECT count(*) FROM countersign.exceptions WHERE seq > r.published_through) AS above,
            (SELECT count(*) FROM countersign.exceptions
                WHERE seq > r.pruned_through AND seq <= r.published_through) AS kept_below,
            least(
                (SELECT c.received_at FROM countersign.commands c WHERE c.seq > r.published_through
                   AND NOT EXISTS (SELECT 1 FROM countersign.exceptions e WHERE e.seq = c.seq AND e.state = 'parked')
                 ORDER BY c.seq LIMIT 1),
                (SELECT c.received_at FROM countersign.exceptions e JOIN countersign.commands c ON c.seq = e.seq
                 WHERE e.state <> 'parked' ORDER BY e.seq LIMIT 1)) AS oldest_pending_at,
            (SELECT count(*) FROM countersign.refusals) AS refusals, {}, {},
            (SELECT sum(pg_total_relation_size(t.oid))::bigint FROM pg_catalog.pg_class t
                JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
                WHERE n.nspname = 'countersign' AND t.relkind = 'r') AS size_bytes,
            CASE WHEN r.term IS NOT NULL AND r.expires_at > {NOW} THEN r.holder END AS leader
         FROM countersign.relay r CROSS JOIN countersign.log l {}",
        outcomes::COUNTS,
        dead_letters::COUNTS,
        dead_letters::OPEN
    );
    // In a transaction because that has its statements not compiled.
    let transaction = link.snapshot().await?;
    let row = transaction.query_opt(&sql, values![]).await?;
    transaction.commit().await?;
    let Some(row) = row else { return Ok(Stats::default()) };
    let (cursor, pruned, head) =
        (row.seq("published_through")?, row.seq("pruned_through")?, row.seq("head")?);
    let (waiting, above) = (row.seq("waiting")?, row.seq("above")?);
    let (kept_below, passed_over) = (row.seq("kept_below")?, row.seq("passed_over")?);
    let kept_below = kept_below + row.seq("open_unpruned")?;
    Ok(Stats {
        pending: (head.saturating_sub(cursor.max(pruned)) + waiting).saturating_sub(above),
        published: cursor.saturating_sub(pruned).saturating_sub(kept_below) + passed_over,
        parked: row.seq("parked")?,
        rejected: row.seq("rejected")?,
        unrouted: row.seq("unrouted")?,
        strays: row.seq("strays")?,
        oldest_pending_at: row.time_if_any("oldest_pending_at")?,
        head,
        cursor,
        refusals: row.seq("refusals")?,
        outcomes_pending: row.seq("outcomes_pending")?,
        outcomes_parked: row.seq("outcomes_parked")?,
        size_bytes: row.try_get::<_, Option<i64>>("size_bytes")?.map(i64::cast_unsigned),
        wal_bytes: None,
        free_bytes: None,
        remembered: None,
        leader: row.try_get::<_, Option<&str>>("leader")?.map(named),
        standbys: Replication::look(link).await?.synchronous,
    })
}

pub(super) fn record(row: &Row) -> Result<Record, Error> {
    let is_parked = row.word::<Exceptional>("state")? == Some(Exceptional::Parked);
    Ok(Record {
        seq: row.seq("seq")?,
        command_id: row.id("command_id")?,
        received_at: row.time("received_at")?,
        state: state(row)?.or_came_back(row.word("came_back")?),
        endpoint: row.try_get("endpoint")?,
        action: row.try_get("action")?,
        user_id: row.try_get("user_id")?,
        approval_code: row.try_get("approval_code")?,
        instance_id: row.try_get("instance_id")?,
        task_id: row.try_get("task_id")?,
        attempts: row
            .try_get::<_, Option<i32>>("attempts")?
            .map(|attempts| u32::try_from(attempts).unwrap_or(0)),
        next_attempt_at: if is_parked { None } else { row.time_if_any("next_attempt_at")? },
        note: row.try_get("note")?,
        outcome: None,
        command: None,
        reconciliation: None,
        history: None,
        duplicates_at: None,
    })
}
