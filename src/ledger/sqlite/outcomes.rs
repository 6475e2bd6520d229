//! Reports of workers: written by the writer, found by readers, shown again, pruned.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{acts, columns::word, dead_letters};
use crate::{
    command::{
        CommandId, Seq,
        outcome::{CardStatus, Instance, Kind, Outcome},
    },
    ledger::{
        ActKind, By, Heard, NewAct, OutcomeRecord, RefusedReport, Reported, Showing, ShowingEnd,
        ShowingRecord, ShowingState, Shown, Surface,
    },
    time::Timestamp,
};

/// No attempt is postponed this far. One that seems to be was written before the clock was set back.
const FARTHEST_MS: i64 = 3_600_000;

/// The part of a rendered command that says whether it came from a card.
#[derive(Deserialize)]
struct Rendered {
    #[serde(default)]
    message_id: Option<String>,
}

/// Keeps a report, by the rules in `command::outcome`.
pub(super) fn report(transaction: &Connection, outcome: &Outcome, shows: bool) -> rusqlite::Result<Reported> {
    let found: Option<(i64, Vec<u8>)> = transaction
        .prepare_cached("SELECT seq, message FROM commands WHERE command_id = ?1")?
        .query_row([outcome.command_id.as_bytes().as_slice()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((seq, command)) = found else { return Ok(Reported::UnknownCommand) };
    // By a repeat too: it may be the worker's answer to a requeue.
    dead_letters::close(transaction, seq)?;
    if last(transaction, seq, outcome.command_id)?.is_some_and(|last| outcome.repeats(&last)) {
        return Ok(Reported::Repeat);
    }
    let now = Timestamp::now().as_millisecond();
    transaction
        .prepare_cached(
            "INSERT INTO outcomes (seq, reported_at, superseded, outcome, status, message, instance)
             VALUES (?1, ?2, 0, ?3, ?4, ?5, ?6)
             ON CONFLICT (seq) DO UPDATE SET reported_at = ?2, superseded = superseded + 1, outcome = ?3, status = ?4,
                message = ?5, instance = coalesce(?6, instance)",
        )?
        .execute(params![
            seq,
            now,
            outcome.kind.as_str(),
            outcome.status.map(CardStatus::as_str),
            outcome.message,
            outcome.instance.as_ref().map(|instance| instance.json.get()),
        ])?;
    // The ledger rendered it, so it can be parsed. If not, there is no card.
    let card = serde_json::from_slice::<Rendered>(&command).ok().and_then(|command| command.message_id);
    let instance = outcome.instance.as_ref().map(|instance| &instance.instance_id);
    for (surface, target) in [(Surface::Card, card.as_ref()), (Surface::Instance, instance)] {
        if let Some(target) = target.filter(|_| shows) {
            begin_showing(transaction, seq, surface, target, now)?;
        }
    }
    Ok(Reported::Kept)
}

/// Refused reports kept per command: a faulty worker fails again and again.
const REFUSED: i64 = 10;

pub(super) fn refuse(transaction: &Connection, refused: &RefusedReport) -> rusqlite::Result<()> {
    let RefusedReport { command_id, kind, reason } = refused;
    let found: Option<i64> = transaction
        .prepare_cached("SELECT seq FROM commands WHERE command_id = ?1")?
        .query_row([command_id.as_bytes().as_slice()], |row| row.get(0))
        .optional()?;
    let Some(seq) = found else { return Ok(()) };
    transaction
        .prepare_cached("INSERT INTO refused_reports (seq, at, outcome, reason) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![seq, Timestamp::now().as_millisecond(), kind.as_str(), reason])?;
    transaction
        .prepare_cached(&format!(
            "DELETE FROM refused_reports WHERE seq = ?1
               AND id <= (SELECT id FROM refused_reports WHERE seq = ?1 ORDER BY id DESC LIMIT 1 OFFSET {REFUSED})"
        ))?
        .execute([seq])?;
    Ok(())
}

/// The refused reports of a command, in order: when, the claimed outcome, and why.
pub(super) fn refused(
    connection: &Connection,
    place: i64,
) -> rusqlite::Result<Vec<(Timestamp, Kind, String)>> {
    connection
        .prepare_cached("SELECT at, outcome, reason FROM refused_reports WHERE seq = ?1 ORDER BY id")?
        .query_map([place], |row| Ok((row.get("at")?, row.get("outcome")?, row.get("reason")?)))?
        .collect()
}

/// What the last report of a command says.
pub(super) fn heard(connection: &Connection, command_id: CommandId) -> rusqlite::Result<Option<Heard>> {
    connection
        .prepare_cached(
            "SELECT o.outcome, o.message FROM outcomes o JOIN commands c ON c.seq = o.seq WHERE c.command_id = ?1",
        )?
        .query_row([command_id.as_bytes().as_slice()], |row| {
            Ok(Heard { kind: row.get("outcome")?, message: row.get("message")? })
        })
        .optional()
}

/// The last report of a command. An unreadable one counts as none: this transaction holds accepts too, and must not
/// fail because of it.
fn last(transaction: &Connection, seq: i64, command_id: CommandId) -> rusqlite::Result<Option<Outcome>> {
    let found = transaction
        .prepare_cached("SELECT outcome, status, message, instance FROM outcomes WHERE seq = ?1")?
        .query_row([seq], |row| {
            let Some(kind) = word::<Kind>(row, "outcome")? else { return Ok(None) };
            let instance = match row.get("instance")? {
                None => None,
                Some(text) => match RawValue::from_string(text).ok().map(Instance::of) {
                    Some(Ok(instance)) => Some(instance),
                    _ => return Ok(None),
                },
            };
            let status = word::<CardStatus>(row, "status")?;
            Ok(Some(Outcome { command_id, kind, status, message: row.get("message")?, instance }))
        })
        .optional()?;
    Ok(found.flatten())
}

/// Each report gets new ids. So a result for the previous report settles nothing of this one, and of several that wait
/// for one card or instance, the last reported is shown last.
fn begin_showing(
    transaction: &Connection,
    seq: i64,
    surface: Surface,
    target: &str,
    now: i64,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("DELETE FROM showings WHERE seq = ?1 AND surface = ?2")?
        .execute(params![seq, surface.as_str()])?;
    transaction
        .prepare_cached(
            "INSERT INTO showings (seq, surface, target, state, attempts, next_attempt_at, changed_at)
             VALUES (?1, ?2, ?3, 'waiting', 0, ?4, ?4)",
        )?
        .execute(params![seq, surface.as_str(), target, now])?;
    Ok(())
}

/// Writes the results of showings.
pub(super) fn settle(transaction: &Connection, shown: &[Shown]) -> rusqlite::Result<()> {
    let now = Timestamp::now().as_millisecond();
    for one in shown {
        let Shown { id, end, .. } = one;
        if let ShowingEnd::Shown { version: Some(version) } = end {
            remember_version(transaction, one, *version)?;
        }
        let (state, attempts, next, note) = match end {
            ShowingEnd::Shown { .. } => (ShowingState::Shown, 0, now, None),
            ShowingEnd::Again { at, reason } => {
                (ShowingState::Waiting, 1, at.as_millisecond(), Some(reason.as_str()))
            }
            ShowingEnd::Parked { reason } => (ShowingState::Parked, 1, now, Some(reason.as_str())),
        };
        transaction
            .prepare_cached(
                "UPDATE showings SET state = ?2, attempts = attempts + ?3, next_attempt_at = ?4, changed_at = ?5,
                    note = ?6 WHERE id = ?1 AND state = 'waiting'",
            )?
            .execute(params![id, state.as_str(), attempts, next, now, note])?;
    }
    Ok(())
}

/// Remembers the `update_time` an instance was synchronised with, whatever became of the showing.
fn remember_version(transaction: &Connection, shown: &Shown, update_time: i64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO instance_versions (instance_id, update_time, seq)
             SELECT ?1, ?2, seq FROM commands WHERE command_id = ?3
             ON CONFLICT (instance_id) DO UPDATE SET update_time = max(update_time, excluded.update_time),
                seq = max(seq, excluded.seq)",
        )?
        .execute(params![shown.target, update_time, shown.command_id.as_bytes().as_slice()])?;
    Ok(())
}

/// Whether a worker has reported on the command at a place in the log.
pub(super) fn is_reported(transaction: &Connection, seq: Seq) -> rusqlite::Result<bool> {
    transaction
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM outcomes WHERE seq = ?1)")?
        .query_row([seq as i64], |row| row.get(0))
}

/// Shows all parked outcomes again; returns their commands.
pub(super) fn show_parked_again(transaction: &Connection, by: &By) -> rusqlite::Result<Vec<CommandId>> {
    let parked: Vec<(i64, CommandId)> = transaction
        .prepare(
            "SELECT DISTINCT s.seq, c.command_id FROM showings s JOIN commands c ON c.seq = s.seq
             WHERE s.state = 'parked' ORDER BY s.seq",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    if parked.is_empty() {
        return Ok(Vec::new());
    }
    let now = Timestamp::now();
    let act = acts::add(transaction, &NewAct::new(ActKind::ShowAgain, by, parked.len()), now)?;
    for (seq, _) in &parked {
        order(transaction, *seq, now)?;
        acts::changed(transaction, act, *seq, now.as_millisecond())?;
    }
    Ok(parked.into_iter().map(|(_, id)| id).collect())
}

/// The places of commands with a parked showing, oldest first.
pub(super) fn parked(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<Seq>> {
    connection
        .prepare_cached("SELECT DISTINCT seq FROM showings WHERE state = 'parked' ORDER BY seq LIMIT ?1")?
        .query_map([limit as i64], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))?
        .collect()
}

/// Has the outcome of the command at a place in the log shown again. True if there is anything to show. Leaves alone what is already shown while something is not: if the card was
/// refused, the instance is not shown again.
pub(super) fn order(transaction: &Connection, seq: i64, now: Timestamp) -> rusqlite::Result<bool> {
    let changed = transaction
        .prepare_cached(
            "UPDATE showings SET state = 'waiting', attempts = 0, next_attempt_at = ?2, changed_at = ?2,
                note = 'asked for by an operator'
             WHERE seq = ?1 AND (state <> 'shown'
                OR NOT EXISTS (SELECT 1 FROM showings o WHERE o.seq = ?1 AND o.state <> 'shown'))",
        )?
        .execute(params![seq, now.as_millisecond()])?;
    Ok(changed > 0)
}

/// Removes the outcomes of pruned commands in this part of the log.
pub(super) fn prune(transaction: &Connection, first: i64, through: i64) -> rusqlite::Result<()> {
    for table in ["outcomes", "showings", "instance_versions", "refused_reports"] {
        transaction
            .prepare_cached(&format!(
                "DELETE FROM {table} WHERE seq BETWEEN ?1 AND ?2
                   AND NOT EXISTS (SELECT 1 FROM commands c WHERE c.seq = {table}.seq)"
            ))?
            .execute(params![first, through])?;
    }
    Ok(())
}

/// Showings to try now: for each card and instance the first that waits, if it is due.
pub(super) fn showings(
    connection: &Connection,
    now: Timestamp,
    limit: usize,
) -> rusqlite::Result<Vec<Showing>> {
    let now = now.as_millisecond();
    let mut found = Vec::new();
    // Two searches, each by the index: what is due, and what seems postponed too far.
    for (from, to) in [(i64::MIN, now), (now.saturating_add(FARTHEST_MS), i64::MAX)] {
        let limit = limit.saturating_sub(found.len());
        let mut statement = connection.prepare_cached(
            "SELECT s.id, c.command_id, s.surface, s.target, s.attempts, c.action, o.outcome, o.status, o.message,
                CASE s.surface WHEN 'instance' THEN o.instance END AS instance,
                CASE s.surface WHEN 'instance'
                    THEN (SELECT v.update_time FROM instance_versions v WHERE v.instance_id = s.target) END AS version
             FROM showings s JOIN outcomes o ON o.seq = s.seq JOIN commands c ON c.seq = s.seq
             WHERE s.state = 'waiting' AND s.next_attempt_at > ?1 AND s.next_attempt_at <= ?2
               AND NOT EXISTS (SELECT 1 FROM showings e WHERE e.surface = s.surface AND e.target = s.target
                    AND e.state = 'waiting' AND e.id < s.id)
             ORDER BY s.next_attempt_at, s.id LIMIT ?3",
        )?;
        let rows = statement.query_map(params![from, to, limit as i64], showing)?;
        for row in rows {
            found.push(row?);
        }
    }
    Ok(found)
}

fn showing(row: &Row<'_>) -> rusqlite::Result<Showing> {
    Ok(Showing {
        id: row.get("id")?,
        command_id: row.get("command_id")?,
        surface: row.get("surface")?,
        target: row.get("target")?,
        attempts: row.get("attempts")?,
        action: row.get("action")?,
        kind: row.get("outcome")?,
        status: word::<CardStatus>(row, "status")?,
        message: row.get("message")?,
        instance: row.get("instance")?,
        version: row.get("version")?,
    })
}

/// The outcome of the command at a place in the log, for people.
pub(super) fn record(connection: &Connection, seq: Seq) -> rusqlite::Result<Option<OutcomeRecord>> {
    let outcome = connection
        .prepare_cached(
            "SELECT outcome, status, message, reported_at, superseded FROM outcomes WHERE seq = ?1",
        )?
        .query_row([seq as i64], |row| {
            Ok(OutcomeRecord {
                outcome: row.get("outcome")?,
                status: word::<CardStatus>(row, "status")?,
                message: row.get("message")?,
                reported_at: row.get("reported_at")?,
                superseded: row.get("superseded")?,
                showing: ShowingState::Nothing,
                card: None,
                instance: None,
            })
        })
        .optional()?;
    let Some(mut outcome) = outcome else { return Ok(None) };
    let mut statement = connection.prepare_cached(
        "SELECT surface, target, state, attempts, next_attempt_at, changed_at, note FROM showings WHERE seq = ?1",
    )?;
    let mut rows = statement.query([seq as i64])?;
    while let Some(row) = rows.next()? {
        let state: ShowingState = row.get("state")?;
        let (next, changed): (Timestamp, Timestamp) = (row.get("next_attempt_at")?, row.get("changed_at")?);
        let record = ShowingRecord {
            id: row.get("target")?,
            state,
            attempts: row.get("attempts")?,
            next_attempt_at: (state == ShowingState::Waiting).then_some(next),
            shown_at: (state == ShowingState::Shown).then_some(changed),
            note: row.get("note")?,
        };
        match row.get("surface")? {
            Surface::Card => outcome.card = Some(record),
            Surface::Instance => outcome.instance = Some(record),
        }
    }
    let places = [&outcome.card, &outcome.instance];
    outcome.showing = ShowingState::of_all(places.into_iter().flatten().map(|place| place.state));
    Ok(Some(outcome))
}

/// How many showings wait and how many are parked.
pub(super) fn count(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    connection
        .prepare_cached(
            "SELECT (SELECT count(*) FROM showings WHERE state = 'waiting'),
                    (SELECT count(*) FROM showings WHERE state = 'parked')",
        )?
        .query_row([], |row| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64)))
}

/// How many published commands retention has passed over because their outcome is not shown yet.
pub(super) fn passed_over(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached(
            "SELECT count(DISTINCT s.seq) FROM showings s WHERE s.state = 'waiting'
               AND s.seq <= (SELECT pruned_through FROM cursor)
               AND NOT EXISTS (SELECT 1 FROM exceptions e WHERE e.seq = s.seq)
               AND NOT EXISTS (SELECT 1 FROM dead_letters d WHERE d.seq = s.seq AND d.is_open = 1)",
        )?
        .query_row([], |row| row.get::<_, i64>(0))
        .map(|count| count as u64)
}
