//! Lookups in the ledger, by connections that cannot write.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params, types::ToSql};
use serde_json::value::RawValue;

use super::{
    columns::{id_at, seq, word},
    credentials, dead_letters, history, outcomes,
    room::Room,
    schema::{self, OpenError},
};
use crate::{
    command::{
        CommandId, Seq, TaskKey,
        message::{self, Envelope},
    },
    ledger::{
        CredentialUse, Due, Entry, Filter, OutcomeFilter, Record, Standing, Stats,
        state::{Exceptional, State},
    },
    time::Timestamp,
};

/// A connection for lookups. Cheap to keep; not for several threads at the same time.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
}

const ENTRY: &str =
    "c.seq, c.command_id, c.received_at, c.endpoint, c.action, c.approval_code, c.instance_id,
    c.task_id, c.task_key, c.message";

const STANDING: &str =
    "c.seq, e.state, e.attempts, (SELECT published_through FROM cursor) AS published_through";

const RECORD: &str = "c.seq, c.command_id, c.received_at, c.endpoint, c.action, c.user_id, c.approval_code,
    c.instance_id, c.task_id, e.state, e.attempts, e.next_attempt_at, e.note,
    (SELECT d.why FROM dead_letters d WHERE d.seq = c.seq AND d.is_open = 1) AS came_back,
    (SELECT published_through FROM cursor) AS published_through";

/// The first place in the log of ids from `?1` on. The index is named because SQLite would walk the log for a minimum.
pub(super) const SINCE: &str =
    "SELECT min(seq), ?2 FROM commands INDEXED BY commands_by_id WHERE command_id >= ?1";

/// The first and last place in the log of ids from `?1` on and below `?2`.
pub(super) const BETWEEN: &str = "SELECT min(seq), max(seq) FROM commands INDEXED BY commands_by_id
    WHERE command_id >= ?1 AND command_id < ?2";

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
        let connection = schema::open_reader(path)?;
        Ok(Self { connection })
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

    fn with_outcome(&self, mut record: Record) -> rusqlite::Result<Record> {
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

    /// Commands that pass the filter, newest first.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn list(&self, filter: &Filter) -> rusqlite::Result<Vec<Record>> {
        let mut conditions = vec!["1".to_owned()];
        let mut values: Vec<Box<dyn ToSql>> = Vec::new();
        let mut narrow = |condition: &str, value: Box<dyn ToSql>| {
            values.push(value);
            conditions.push(condition.replace('?', &format!("?{}", values.len())));
        };
        for (column, value) in [
            ("endpoint", &filter.endpoint),
            ("instance_id", &filter.instance_id),
            ("task_id", &filter.task_id),
            ("user_id", &filter.user_id),
        ] {
            if let Some(value) = value {
                narrow(&format!("c.{column} = ?"), Box::new(value.clone()));
            }
        }
        if let Some(message_id) = &filter.message_id {
            // Only the message has it. Most rows are skipped by their bytes, without parsing JSON.
            let member = format!("\"message_id\":\"{message_id}\"");
            narrow("instr(c.message, ?) > 0", Box::new(member.into_bytes()));
            let member = "json_extract(CAST(c.message AS TEXT), '$.message_id') = ?";
            narrow(member, Box::new(message_id.clone()));
        }
        if let Some(before) = filter.before {
            narrow("c.seq < ?", Box::new(i64::try_from(before).unwrap_or(i64::MAX)));
        }
        if let Some(after) = filter.after {
            narrow("c.seq > ?", Box::new(i64::try_from(after).unwrap_or(i64::MAX)));
        }
        let order = if filter.after.is_some() { "ASC" } else { "DESC" };
        let (since, until) =
            (filter.since.map(Timestamp::as_millisecond), filter.until.map(Timestamp::as_millisecond));
        if since.is_some() || until.is_some() {
            let Some((first, last)) = self.between(since, until)? else { return Ok(Vec::new()) };
            narrow("c.seq >= ?", Box::new(first));
            narrow("c.seq <= ?", Box::new(last));
        }
        if let Some(since) = since {
            narrow("c.received_at >= ?", Box::new(since));
        }
        if let Some(until) = until {
            narrow("c.received_at < ?", Box::new(until));
        }
        match filter.outcome {
            None => {}
            Some(OutcomeFilter::None) => {
                conditions.push("NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.seq = c.seq)".to_owned());
            }
            Some(OutcomeFilter::Last(kind)) => conditions.push(format!(
                "EXISTS (SELECT 1 FROM outcomes o WHERE o.seq = c.seq AND o.outcome = '{}')",
                kind.as_str()
            )),
        }
        conditions.push(
            match filter.state {
                None => "1",
                Some(State::Parked) => "e.state = 'parked'",
                Some(State::Pending) => {
                    "(e.state IN ('retrying', 'requeued')
                      OR (e.seq IS NULL AND c.seq > (SELECT published_through FROM cursor)))"
                }
                Some(State::Published) => {
                    "(e.seq IS NULL AND c.seq <= (SELECT published_through FROM cursor)
                      AND NOT EXISTS (SELECT 1 FROM dead_letters d WHERE d.seq = c.seq AND d.is_open = 1))"
                }
                Some(State::Rejected) => {
                    "(e.seq IS NULL AND d.is_open = 1 AND d.why <> 'unrouted'
                      AND c.seq <= (SELECT published_through FROM cursor))"
                }
                Some(State::Unrouted) => {
                    "(e.seq IS NULL AND d.is_open = 1 AND d.why = 'unrouted'
                      AND c.seq <= (SELECT published_through FROM cursor))"
                }
            }
            .to_owned(),
        );
        values.push(Box::new(filter.limit as i64));
        // States other than published are rare in a long log: start with the few rows that can have them.
        let from = match filter.state {
            Some(State::Parked) => "exceptions e JOIN commands c ON c.seq = e.seq",
            Some(State::Rejected | State::Unrouted) => {
                "dead_letters d JOIN commands c ON c.seq = d.seq LEFT JOIN exceptions e ON e.seq = c.seq"
            }
            _ => "commands c LEFT JOIN exceptions e ON e.seq = c.seq",
        };
        let sql = format!(
            "SELECT {RECORD} FROM {from} WHERE {} ORDER BY c.seq {order} LIMIT ?{}",
            conditions.join(" AND "),
            values.len()
        );
        let values: Vec<&dyn ToSql> = values.iter().map(AsRef::as_ref).collect();
        let mut statement = self.connection.prepare(&sql)?;
        statement.query_map(&*values, record)?.map(|found| self.with_outcome(found?)).collect()
    }

    /// Places in the log that enclose all commands received between two times, in milliseconds; `None` if there are
    /// none.
    ///
    /// There is no index by time: it would slow down the accept path. The index of ids serves instead. An id may be
    /// ahead of its command's time; the ledger knows by how much at most. The index has 24 bytes for each command of
    /// that time.
    fn between(&self, since: Option<i64>, until: Option<i64>) -> rusqlite::Result<Option<(i64, i64)>> {
        let lead = history::id_lead(&self.connection)?;
        let first = CommandId::floor(since.unwrap_or(i64::MIN));
        let last = CommandId::floor(until.map_or(i64::MAX, |until| until.saturating_add(lead)));
        let bounds = |row: &Row<'_>| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?));
        let (first, last) = match (since, until) {
            // The newest come first anyway.
            (Some(_), None) => self
                .connection
                .prepare_cached(SINCE)?
                .query_row(params![first.as_bytes().as_slice(), i64::MAX], bounds)?,
            _ => self
                .connection
                .prepare_cached(BETWEEN)?
                .query_row(params![first.as_bytes().as_slice(), last.as_bytes().as_slice()], bounds)?,
        };
        Ok(first.zip(last))
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

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
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
    })
}
