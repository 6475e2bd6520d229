//! The rows of one commit: sameness, the log, the cursor, exceptions.

use std::time::Duration;

use rusqlite::{OptionalExtension, Transaction, params};

use super::{
    history,
    waiting::Accepting,
    window::{Displaced, Kind, Seen, Window},
};
use crate::{
    command::{CommandId, Seq, message, message::Envelope},
    ledger::{Entry, OnConflict, Receipt, Settlement},
    time::Timestamp,
};

/// What one commit appended, until its result is known.
#[derive(Default)]
pub(super) struct Appended {
    pub(super) entries: Vec<Entry>,
    pub(super) remembered: Vec<Displaced>,
}

/// Looks for the same callback and for a conflict, and appends the command.
///
/// INVARIANT 2: the lookups, the insert, and the entry in `rounds` are one transaction. The in-memory window is
/// extended here, so that a repeat within the same commit is found too, and cut back if the commit fails.
pub(super) fn accept(
    transaction: &Transaction<'_>,
    window: &mut Window,
    next_seq: &mut Seq,
    accepting: &mut Accepting,
    appended: &mut Appended,
    now_ms: i64,
) -> rusqlite::Result<Receipt> {
    match same(transaction, window, accepting, now_ms)? {
        Same::Duplicate(command_id) => return Ok(Receipt::Duplicate { command_id }),
        Same::Earlier(command_id) => accepting.command.repeats = Some(command_id),
        Same::Nothing => {}
    }
    if let Some((with, age)) = contradicted(transaction, window, accepting, now_ms)? {
        // Beyond `dedupe_window` a task may have been rolled back: do not refuse a decision because of one made hours
        // ago.
        if accepting.on_conflict == OnConflict::Refuse && age < accepting.window {
            return Ok(Receipt::Conflicting { with });
        }
        accepting.command.conflicts_with = Some(with);
    }
    if accepting.command.repeats.is_some() || accepting.command.conflicts_with.is_some() {
        accepting.body = message::render(&accepting.command);
    }
    let seq = *next_seq;
    append(transaction, seq, accepting)?;
    *next_seq += 1;
    let (fingerprint, decision) = (accepting.fingerprint.short(), accepting.decision_key.short());
    appended.remembered.push(window.remember(Seen { seq, at_ms: now_ms, fingerprint, decision }));
    appended.entries.push(Entry {
        seq,
        task_key: accepting.task_key,
        envelope: Envelope::of(&accepting.command),
        body: std::mem::take(&mut accepting.body),
    });
    Ok(Receipt::Accepted { command_id: accepting.command.command_id })
}

/// Whether the same callback was accepted before.
enum Same {
    Nothing,
    /// Yes, and this one does not count.
    Duplicate(CommandId),
    /// Yes, but so long ago that this one counts again.
    Earlier(CommandId),
}

fn same(
    transaction: &Transaction<'_>,
    window: &Window,
    accepting: &Accepting,
    now_ms: i64,
) -> rusqlite::Result<Same> {
    if accepting.command.task.round.is_some() {
        let found = transaction
            .prepare_cached("SELECT command_id FROM rounds WHERE fingerprint = ?1")?
            .query_row([accepting.fingerprint.as_bytes().as_slice()], |row| row.get(0))
            .optional()?;
        return Ok(found.map_or(Same::Nothing, Same::Duplicate));
    }
    let reach = accepting.window.max(accepting.repeats_window);
    let found = window.find(Kind::Fingerprint, accepting.fingerprint.short(), now_ms);
    let Some(found) = found.filter(|found| found.age < reach) else { return Ok(Same::Nothing) };
    let command_id = transaction
        .prepare_cached("SELECT command_id FROM commands WHERE seq = ?1 AND fingerprint = ?2")?
        .query_row(params![found.seq as i64, accepting.fingerprint.as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(match command_id {
        // A colliding key, or a pruned row.
        None => Same::Nothing,
        Some(command_id) if found.age < accepting.window => Same::Duplicate(command_id),
        Some(command_id) => Same::Earlier(command_id),
    })
}

/// The newest decision of the same operator on the same task and its age, if its action differs.
fn contradicted(
    transaction: &Transaction<'_>,
    window: &Window,
    accepting: &Accepting,
    now_ms: i64,
) -> rusqlite::Result<Option<(CommandId, Duration)>> {
    let reach = accepting.window.max(accepting.repeats_window);
    let found = window.find(Kind::Decision, accepting.decision_key.short(), now_ms);
    let Some(found) = found.filter(|found| found.age < reach) else { return Ok(None) };
    let with = transaction
        .prepare_cached(
            "SELECT command_id FROM commands WHERE seq = ?1 AND decision_key = ?2 AND action_type <> ?3",
        )?
        .query_row(
            params![found.seq as i64, accepting.decision_key.as_bytes(), accepting.command.action_type],
            |row| row.get(0),
        )
        .optional()?;
    Ok(with.map(|with| (with, found.age)))
}

fn append(transaction: &Transaction<'_>, seq: Seq, accepting: &Accepting) -> rusqlite::Result<()> {
    let command = &accepting.command;
    history::note_lead(transaction, command)?;
    transaction
        .prepare_cached(
            "INSERT INTO commands (seq, command_id, received_at, endpoint, action, action_type, user_id,
                approval_code, instance_id, task_id, task_key, fingerprint, decision_key, message)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .execute(params![
            seq as i64,
            command.command_id.as_bytes(),
            command.received_at.as_millisecond(),
            &*command.endpoint,
            command.action.as_str(),
            command.action_type,
            command.user_id,
            command.approval_code,
            command.task.instance_id,
            command.task.task_id,
            accepting.task_key.get() as i64,
            accepting.fingerprint.as_bytes(),
            accepting.decision_key.as_bytes(),
            accepting.body,
        ])?;
    if command.task.round.is_some() {
        transaction
            .prepare_cached("INSERT INTO rounds (fingerprint, command_id) VALUES (?1, ?2)")?
            .execute(params![accepting.fingerprint.as_bytes(), command.command_id.as_bytes()])?;
    }
    Ok(())
}

/// Writes what the broker answered, and when.
pub(super) fn settle(transaction: &Transaction<'_>, settlement: &Settlement) -> rusqlite::Result<()> {
    let Settlement { through, exceptions, cleared, exchange } = settlement;
    let exchange = exchange.as_deref();
    let now = Timestamp::now().as_millisecond();
    let cursor = transaction
        .prepare_cached("SELECT published_through FROM cursor")?
        .query_row([], |row| row.get::<_, i64>(0))? as Seq;
    if let Some(through) = *through
        && through > cursor
    {
        transaction.prepare_cached("UPDATE cursor SET published_through = ?1")?.execute([through as i64])?;
        history::mark(transaction, cursor, through, exchange, now)?;
    }
    for seq in cleared {
        let gone =
            transaction.prepare_cached("DELETE FROM exceptions WHERE seq = ?1")?.execute([*seq as i64])?;
        if gone > 0 {
            history::confirmed(transaction, *seq, cursor, exchange, now)?;
        }
    }
    // An operator's park wins over the relay, which may have read the exception before.
    for exception in exceptions {
        history::excepted(transaction, exception, cursor, now)?;
        transaction
            .prepare_cached(
                "INSERT INTO exceptions (seq, state, attempts, next_attempt_at, changed_at, note)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (seq) DO UPDATE SET state = ?2, attempts = ?3, next_attempt_at = ?4, changed_at = ?5,
                    note = ?6
                    WHERE exceptions.state <> 'parked'",
            )?
            .execute(params![
                exception.seq as i64,
                exception.state.as_str(),
                exception.attempts,
                exception.next_attempt_at.as_millisecond(),
                now,
                exception.reason,
            ])?;
    }
    Ok(())
}
