//! Lookups in the ledger, by connections that cannot write.

use std::{path::Path, sync::Arc};

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::value::RawValue;

use super::{
    columns::{id_at, seq, word},
    credentials, dead_letters, history, outcomes,
    room::Room,
    schema::{self, OpenError},
    slices::Stopwatch,
};
use crate::{
    command::{
        CommandId, Seq, TaskKey,
        message::{self, Envelope},
    },
    ledger::{
        CredentialUse, Due, Entry, Record, Standing, Stats,
        state::{Exceptional, State},
    },
    time::Timestamp,
};

/// A connection for lookups. Cheap to keep; not for several threads at the same time.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    pub(super) stopwatch: Arc<Stopwatch>,
}

const ENTRY: &str =
    "c.seq, c.command_id, c.received_at, c.endpoint, c.action, c.approval_code, c.instance_id,
    c.task_id, c.task_key, c.message";

const STANDING: &str =
    "c.seq, e.state, e.attempts, (SELECT published_through FROM cursor) AS published_through";

pub(super) const RECORD: &str =
    "c.seq, c.command_id, c.received_at, c.endpoint, c.action, c.user_id, c.approval_code,
    c.instance_id, c.task_id, e.state, e.attempts, e.next_attempt_at, e.note,
    (SELECT d.why FROM dead_letters d WHERE d.seq = c.seq AND d.is_open = 1) AS came_back,
    (SELECT published_through FROM cursor) AS published_through";

/// No attempt is postponed this far. One that seems to be was written before the clock was set back.
const FARTHEST_MS: i64 = 600_000;

/// The `?2` exceptions that have been due longest at `?1`. Those postponed past `?3` come first: they are from before
/// the clock was set back. Two searches, so that the index orders each and nothing more is read.
pub(super) const DUE_LONGEST: &str = "SELECT seq FROM (
        SELECT * FROM (SELECT seq, next_attempt_at FROM exceptions WHERE state <> 'parked' AND next_attempt_at > ?3
            ORDER BY next_attempt_at, seq LIMIT ?2)
        UNION ALL
        SELECT * FROM (SELECT seq, next_attempt_at FROM exceptions WHERE state <> 'parked' AND next_attempt_at <= ?1
            ORDER BY next_attempt_at, seq LIMIT ?2))
    ORDER BY next_attempt_at <= ?3, next_attempt_at, seq LIMIT ?2";

impl Reader {
    /// Opens an existing ledger.
    ///
    /// # Errors
    /// See [`OpenError`]: missing, of another program, of a newer version, damaged.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let mut connection = schema::open_reader(path)?;
        let stopwatch =
            Stopwatch::watch(&mut connection).map_err(OpenError::sqlite(path, "watch over reads of"))?;
        Ok(Self { connection, stopwatch })
    }

    /// For lookups defined in other files.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn cursor(&self) -> rusqlite::Result<Seq> {
        self.connection.query_row("SELECT published_through FROM cursor", [], |row| seq(row, 0))
    }

    /// Up to `limit` commands after `after`, in order, without exceptions.
    pub(super) fn since(&self, after: Seq, limit: usize) -> rusqlite::Result<Vec<Entry>> {
        self.connection
            .prepare_cached(&format!(
                "SELECT {ENTRY} FROM commands c WHERE c.seq > ?1
                   AND NOT EXISTS (SELECT 1 FROM exceptions e WHERE e.seq = c.seq)
                 ORDER BY c.seq LIMIT ?2"
            ))?
            .query_map(params![after as i64, limit as i64], entry)?
            .collect()
    }

    /// Up to `limit` exceptions that are due: the longest due, in order of the log.
    pub(super) fn due(&self, now: Timestamp, limit: usize) -> rusqlite::Result<Vec<Due>> {
        let now = now.as_millisecond();
        self.connection
            .prepare_cached(&format!(
                "SELECT {ENTRY}, e.attempts FROM exceptions e JOIN commands c ON c.seq = e.seq
                 WHERE e.seq IN ({DUE_LONGEST}) ORDER BY e.seq"
            ))?
            .query_map(params![now, limit as i64, now.saturating_add(FARTHEST_MS)], |row| {
                Ok(Due { entry: entry(row)?, attempts: row.get("attempts")? })
            })?
            .collect()
    }

    /// The exceptions that later commands of their tasks wait for.
    pub(super) fn waiting_tasks(&self) -> rusqlite::Result<Vec<(TaskKey, Seq)>> {
        self.connection
            .prepare_cached(
                "SELECT c.task_key, e.seq FROM exceptions e JOIN commands c ON c.seq = e.seq
                 WHERE e.state <> 'parked'",
            )?
            .query_map([], |row| Ok((row.get("task_key")?, seq(row, "seq")?)))?
            .collect()
    }

    pub(super) fn standing(&self, command_id: CommandId) -> rusqlite::Result<Option<Standing>> {
        self.connection
            .prepare_cached(&format!(
                "SELECT {STANDING}, c.task_key FROM commands c LEFT JOIN exceptions e ON e.seq = c.seq
                 WHERE c.command_id = ?1"
            ))?
            .query_row([command_id.as_bytes().as_slice()], |row| {
                Ok(Standing {
                    seq: seq(row, "seq")?,
                    state: state(row)?,
                    attempts: row.get("attempts")?,
                    task_key: row.get("task_key")?,
                })
            })
            .optional()
    }

    pub(super) fn is_pending(&self, seq: Seq) -> rusqlite::Result<bool> {
        let found = self
            .connection
            .prepare_cached(&format!(
                "SELECT {STANDING} FROM commands c LEFT JOIN exceptions e ON e.seq = c.seq WHERE c.seq = ?1"
            ))?
            .query_row([seq as i64], state)
            .optional()?;
        Ok(found == Some(State::Pending))
    }

    /// The id of the command at a place in the log.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn id_at(&self, seq: Seq) -> rusqlite::Result<Option<CommandId>> {
        id_at(&self.connection, seq)
    }

    /// One command with its message and history.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn find(&self, command_id: CommandId) -> rusqlite::Result<Option<Record>> {
        // One read transaction, for a consistent view.
        let transaction = self.connection.unchecked_transaction()?;
        let found = transaction
            .prepare_cached(&format!(
                "SELECT {RECORD}, c.message FROM commands c LEFT JOIN exceptions e ON e.seq = c.seq
                 WHERE c.command_id = ?1"
            ))?
            .query_row([command_id.as_bytes().as_slice()], |row| {
                let mut record = record(row)?;
                let message: Vec<u8> = row.get("message")?;
                record.reconciliation = self.finding(record.seq)?;
                record.command =
                    String::from_utf8(message).ok().and_then(|text| RawValue::from_string(text).ok());
                Ok(record)
            })
            .optional()?;
        let Some(record) = found else { return Ok(None) };
        let mut record = self.with_outcome(record)?;
        record.history = Some(history::of(&transaction, &record)?);
        Ok(Some(record))
    }

    pub(super) fn with_outcome(&self, mut record: Record) -> rusqlite::Result<Record> {
        record.outcome = outcomes::record(&self.connection, record.seq)?;
        Ok(record)
    }

    /// When the oldest command that retention has not reached was received: published commands before it are gone.
    /// `None` if nothing was pruned yet.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn pruned_before(&self) -> rusqlite::Result<Option<Timestamp>> {
        let kept = self
            .connection
            .prepare_cached(
                "SELECT (SELECT received_at FROM commands WHERE seq > pruned_through ORDER BY seq LIMIT 1)
                 FROM cursor WHERE pruned_through > 0",
            )?
            .query_row([], |row| row.get::<_, Option<Timestamp>>(0))
            .optional()?;
        Ok(kept.map(|kept| kept.unwrap_or_else(Timestamp::now)))
    }

    /// When credentials were last used.
    ///
    /// # Errors
    /// When SQLite fails, and when an older program wrote the ledger.
    pub fn credential_uses(&self) -> rusqlite::Result<Vec<CredentialUse>> {
        credentials::all(&self.connection)
    }

    /// Numbers, derived from the ends of the log and the exceptions. No row of the log is counted, so a million rows
    /// cost nothing.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn stats(&self) -> rusqlite::Result<Stats> {
        // One read transaction, for consistent numbers.
        let transaction = self.connection.unchecked_transaction()?;
        let (cursor, pruned, head) = transaction.query_row(
            "SELECT published_through, pruned_through, coalesce((SELECT max(seq) FROM commands), 0) FROM cursor",
            [],
            |row| Ok((seq(row, 0)?, seq(row, 1)?, seq(row, 2)?)),
        )?;
        let count = |sql: &str| transaction.query_row(sql, [], |row| seq(row, 0));
        let parked = count("SELECT count(*) FROM exceptions WHERE state = 'parked'")?;
        let waiting = count("SELECT count(*) FROM exceptions WHERE state <> 'parked'")?;
        let above =
            count("SELECT count(*) FROM exceptions WHERE seq > (SELECT published_through FROM cursor)")?;
        let kept_below = count(
            "SELECT count(*) FROM exceptions WHERE seq > (SELECT pruned_through FROM cursor)
               AND seq <= (SELECT published_through FROM cursor)",
        )?;
        let oldest_pending_at = transaction.query_row(
            "SELECT min(received_at) FROM (
               SELECT * FROM (SELECT c.received_at FROM commands c
                 WHERE c.seq > (SELECT published_through FROM cursor)
                   AND NOT EXISTS (SELECT 1 FROM exceptions e WHERE e.seq = c.seq AND e.state = 'parked')
                 ORDER BY c.seq LIMIT 1)
               UNION ALL
               SELECT * FROM (SELECT c.received_at FROM exceptions e JOIN commands c ON c.seq = e.seq
                 WHERE e.state <> 'parked' ORDER BY e.seq LIMIT 1))",
            [],
            |row| row.get(0),
        )?;
        let (outcomes_pending, outcomes_parked) = outcomes::count(&transaction)?;
        let passed_over = outcomes::passed_over(&transaction)?;
        let open = dead_letters::open(&transaction)?;
        let room = Room::of(self.connection.path().map_or(Path::new(""), Path::new));
        Ok(Stats {
            pending: (head.saturating_sub(cursor.max(pruned)) + waiting).saturating_sub(above),
            published: cursor.saturating_sub(pruned).saturating_sub(kept_below + open.unpruned) + passed_over,
            parked,
            rejected: open.rejected,
            unrouted: open.unrouted,
            strays: dead_letters::strays_kept(&transaction)?,
            remembered: None,
            oldest_pending_at,
            head,
            cursor,
            refusals: count("SELECT count(*) FROM refusals")?,
            outcomes_pending,
            outcomes_parked,
            size_bytes: room.size_bytes,
            wal_bytes: room.wal_bytes,
            free_bytes: room.free_bytes,
            leader: None,
            standbys: None,
        })
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let body: Vec<u8> = row.get("message")?;
    Ok(Entry {
        seq: seq(row, "seq")?,
        task_key: row.get("task_key")?,
        envelope: Envelope {
            command_id: row.get("command_id")?,
            received_at: row.get("received_at")?,
            endpoint: row.get("endpoint")?,
            action: row.get("action")?,
            approval_code: row.get("approval_code")?,
            instance_id: row.get("instance_id")?,
            task_id: row.get("task_id")?,
            trace: message::trace_of(&body),
        },
        body,
    })
}

fn state(row: &Row<'_>) -> rusqlite::Result<State> {
    let exception = word::<Exceptional>(row, "state")?;
    Ok(State::of(seq(row, "seq")?, seq(row, "published_through")?, exception))
}

pub(super) fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let is_parked = word::<Exceptional>(row, "state")? == Some(Exceptional::Parked);
    Ok(Record {
        seq: seq(row, "seq")?,
        command_id: row.get("command_id")?,
        received_at: row.get("received_at")?,
        state: state(row)?.or_came_back(word(row, "came_back")?),
        endpoint: row.get("endpoint")?,
        action: row.get("action")?,
        user_id: row.get("user_id")?,
        approval_code: row.get("approval_code")?,
        instance_id: row.get("instance_id")?,
        task_id: row.get("task_id")?,
        attempts: row.get("attempts")?,
        next_attempt_at: if is_parked { None } else { row.get("next_attempt_at")? },
        note: row.get("note")?,
        outcome: None,
        command: None,
        reconciliation: None,
        history: None,
        duplicates_at: None,
    })
}
