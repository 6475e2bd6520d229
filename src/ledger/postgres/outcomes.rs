//! What workers report: how it is written, found, shown again, and pruned.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde_json::value::RawValue;
use tokio::{sync::watch, time::sleep};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    Error, acts, dead_letters,
    link::{Link, Transaction},
    values::{Columns, number, text, uuid, values},
};
use crate::{
    command::{
        CommandId, Seq,
        outcome::{CardStatus, Instance, Kind, Outcome},
    },
    ledger::{
        ActKind, By, Heard, NewAct, OutcomeRecord, RefusedReport, Reported, Showing, ShowingEnd,
        ShowingRecord, ShowingState, Shown, Surface, heard::Listeners, history,
    },
    time::Timestamp,
};

/// No attempt is ever put off so far. One that seems to be was written before the clock was set back.
const FARTHEST_MS: i64 = 3_600_000;

/// Reports that were refused, kept of each command: a worker that goes wrong does so again and again.
const REFUSED: i64 = 10;

/// A command, locked until the transaction ends: what is reported of it, shown and pruned comes one after the other.
struct Locked {
    seq: i64,
    /// The message of the card that it came from.
    card: Option<String>,
}

async fn lock(transaction: &Transaction, command_id: CommandId) -> Result<Option<Locked>, Error> {
    let found = transaction
        .query_opt(
            "SELECT seq, message_id FROM countersign.commands WHERE command_id = $1 FOR NO KEY UPDATE",
            values![uuid(command_id)],
        )
        .await?;
    found.map(|row| Ok(Locked { seq: row.try_get("seq")?, card: row.try_get("message_id")? })).transpose()
}

/// Keeps a report, by the rules in `command::outcome`.
pub(super) async fn report(
    transaction: &Transaction,
    outcome: &Outcome,
    shows: bool,
) -> Result<Reported, Error> {
    let Some(Locked { seq, card }) = lock(transaction, outcome.command_id).await? else {
        return Ok(Reported::UnknownCommand);
    };
    // Compared as it is kept.
    let outcome = &Outcome {
        message: outcome.message.as_deref().map(|message| text(message).into_owned()),
        ..outcome.clone()
    };
    // By a repeat too: it may be the worker's answer to a requeue.
    dead_letters::close(transaction, &[seq]).await?;
    if last(transaction, seq, outcome.command_id).await?.is_some_and(|last| outcome.repeats(&last)) {
        return Ok(Reported::Repeat);
    }
    let now = Timestamp::now().as_millisecond();
    transaction
        .execute(
            "INSERT INTO countersign.outcomes AS o (seq, reported_at, superseded, outcome, status, message, instance)
             VALUES ($1, $2, 0, $3, $4, $5, $6)
             ON CONFLICT (seq) DO UPDATE SET reported_at = excluded.reported_at, superseded = o.superseded + 1,
                outcome = excluded.outcome, status = excluded.status, message = excluded.message,
                instance = coalesce(excluded.instance, o.instance)",
            values![
                seq,
                now,
                outcome.kind.as_str(),
                outcome.status.map(CardStatus::as_str),
                outcome.message.as_deref().map(text),
                outcome.instance.as_ref().map(|instance| instance.json.get()),
            ],
        )
        .await?;
    let instance = outcome.instance.as_ref().map(|instance| &instance.instance_id);
    for (surface, target) in [(Surface::Card, card.as_ref()), (Surface::Instance, instance)] {
        if let Some(target) = target.filter(|_| shows) {
            begin_showing(transaction, seq, surface, target, now).await?;
        }
    }
    Ok(Reported::Kept)
}

/// Writes down a report that was refused.
pub(super) async fn refuse(transaction: &Transaction, refused: &RefusedReport) -> Result<(), Error> {
    let RefusedReport { command_id, kind, reason } = refused;
    let Some(Locked { seq, .. }) = lock(transaction, *command_id).await? else { return Ok(()) };
    transaction
        .execute(
            "INSERT INTO countersign.refused_reports (seq, at, outcome, reason) VALUES ($1, $2, $3, $4)",
            values![seq, Timestamp::now().as_millisecond(), kind.as_str(), text(reason)],
        )
        .await?;
    transaction
        .execute(
            "DELETE FROM countersign.refused_reports WHERE seq = $1 AND id <= (
                SELECT id FROM countersign.refused_reports WHERE seq = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)",
            values![seq, REFUSED],
        )
        .await?;
    Ok(())
}

/// The reports of a command that were refused, in their order.
pub(super) async fn refused(
    transaction: &Transaction,
    place: i64,
) -> Result<Vec<history::RefusedReport>, Error> {
    let rows = transaction
        .query(
            "SELECT at, outcome, reason FROM countersign.refused_reports WHERE seq = $1 ORDER BY id",
            values![place],
        )
        .await?;
    rows.iter().map(|row| Ok((row.time("at")?, row.known_word("outcome")?, row.try_get("reason")?))).collect()
}

/// What the last reports of these commands say.
pub(super) async fn listeners(
    link: &Link,
    commands: Vec<CommandId>,
) -> Result<Vec<(CommandId, Heard)>, Error> {
    let ids: Vec<Uuid> = commands.into_iter().map(uuid).collect();
    let rows = link
        .query(
            "SELECT c.command_id, o.outcome, o.message FROM countersign.outcomes o
                JOIN countersign.commands c ON c.seq = o.seq WHERE c.command_id = ANY($1)",
            values![ids],
        )
        .await?;
    let heard = |row: &Row| {
        let heard = Heard { kind: row.known_word("outcome")?, message: row.try_get("message")? };
        Ok((row.id("command_id")?, heard))
    };
    rows.iter().map(heard).collect()
}

/// Tells those who wait what other replicas have kept, and what was kept before they came.
pub(super) async fn tell(link: Link, listeners: Arc<Listeners>, mut stop: watch::Receiver<bool>) {
    /// Another replica's report is heard so much later.
    const PAUSE: Duration = Duration::from_millis(50);
    loop {
        tokio::select! {
            () = listeners.any() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        // Waits are short: what cannot be looked up is looked up again, or answered without.
        match self::listeners(&link, listeners.commands()).await {
            Ok(known) => known.iter().for_each(|(id, heard)| listeners.tell(*id, heard)),
            Err(error) => tracing::debug!(%error, "cannot look for outcomes"),
        }
        sleep(PAUSE).await;
    }
}

/// The last report of a command, as it was read from its message. One that cannot be read any more is none.
async fn last(transaction: &Transaction, seq: i64, command_id: CommandId) -> Result<Option<Outcome>, Error> {
    let found = transaction
        .query_opt(
            "SELECT outcome, status, message, instance FROM countersign.outcomes WHERE seq = $1",
            values![seq],
        )
        .await?;
    let Some(row) = found else { return Ok(None) };
    let Some(kind) = row.word::<Kind>("outcome")? else { return Ok(None) };
    let instance = match row.try_get::<_, Option<String>>("instance")? {
        None => None,
        Some(text) => match RawValue::from_string(text).ok().map(Instance::of) {
            Some(Ok(instance)) => Some(instance),
            _ => return Ok(None),
        },
    };
    let status = row.word::<CardStatus>("status")?;
    Ok(Some(Outcome { command_id, kind, status, message: row.try_get("message")?, instance }))
}

/// Another id for each: what was under way for the report before settles nothing of this one, and of several that wait
/// for one card or instance the last to be reported is the last to be shown.
async fn begin_showing(
    transaction: &Transaction,
    seq: i64,
    surface: Surface,
    target: &str,
    now: i64,
) -> Result<(), Error> {
    let surface = surface.as_str();
    transaction
        .execute("DELETE FROM countersign.showings WHERE seq = $1 AND surface = $2", values![seq, surface])
        .await?;
    transaction
        .execute(
            "INSERT INTO countersign.showings (seq, surface, target, state, attempts, next_attempt_at, changed_at)
             VALUES ($1, $2, $3, 'waiting', 0, $4, $4)",
            values![seq, surface, target, now],
        )
        .await?;
    Ok(())
}

/// Writes what came of showings.
pub(super) async fn settle(transaction: &Transaction, shown: &[Shown]) -> Result<(), Error> {
    let now = Timestamp::now().as_millisecond();
    for one in shown {
        let Shown { id, end, .. } = one;
        if let ShowingEnd::Shown { version: Some(version) } = end {
            remember_version(transaction, one, *version).await?;
        }
        let (state, attempts, next, note) = match end {
            ShowingEnd::Shown { .. } => (ShowingState::Shown, 0, now, None),
            ShowingEnd::Again { at, reason } => {
                (ShowingState::Waiting, 1, at.as_millisecond(), Some(text(reason)))
            }
            ShowingEnd::Parked { reason } => (ShowingState::Parked, 1, now, Some(text(reason))),
        };
        transaction
            .execute(
                "UPDATE countersign.showings SET state = $2, attempts = attempts + $3, next_attempt_at = $4,
                    changed_at = $5, note = $6 WHERE id = $1 AND state = 'waiting'",
                values![*id, state.as_str(), attempts, next, now, note],
            )
            .await?;
    }
    Ok(())
}

/// Remembers with which `update_time` an instance was synchronised, whatever has become of the showing meanwhile.
async fn remember_version(transaction: &Transaction, shown: &Shown, update_time: i64) -> Result<(), Error> {
    transaction
        .execute(
            "INSERT INTO countersign.instance_versions AS v (instance_id, update_time, seq)
             SELECT $1, $2, seq FROM countersign.commands WHERE command_id = $3
             ON CONFLICT (instance_id) DO UPDATE SET update_time = greatest(v.update_time, excluded.update_time),
                seq = greatest(v.seq, excluded.seq)",
            values![shown.target.as_str(), update_time, uuid(shown.command_id)],
        )
        .await?;
    Ok(())
}

/// Has everything shown again that is parked; returns whose outcomes it is.
pub(super) async fn show_parked_again(transaction: &Transaction, by: &By) -> Result<Vec<CommandId>, Error> {
    let parked = transaction
        .query(
            "SELECT c.seq, c.command_id FROM countersign.commands c
             WHERE c.seq IN (SELECT s.seq FROM countersign.showings s WHERE s.state = 'parked')
             ORDER BY c.seq FOR NO KEY UPDATE",
            values![],
        )
        .await?;
    if parked.is_empty() {
        return Ok(Vec::new());
    }
    let now = Timestamp::now();
    let (mut ids, mut places) = (Vec::with_capacity(parked.len()), Vec::with_capacity(parked.len()));
    for row in &parked {
        let place = row.try_get("seq")?;
        order(transaction, place, now).await?;
        places.push(place);
        ids.push(row.id("command_id")?);
    }
    let act = acts::add(transaction, &NewAct::new(ActKind::ShowAgain, by, places.len()), now).await?;
    acts::changed(transaction, act, places, now.as_millisecond()).await?;
    Ok(ids)
}

/// Has the outcome of the command at a place in the log shown again. True if there is anything to show. What is parked goes before what is shown already: of a command whose card was
/// refused, the instance is left in peace.
pub(super) async fn order(transaction: &Transaction, seq: i64, now: Timestamp) -> Result<bool, Error> {
    let changed = transaction
        .execute(
            "UPDATE countersign.showings SET state = 'waiting', attempts = 0, next_attempt_at = $2, changed_at = $2,
                note = 'asked for by an operator'
             WHERE seq = $1 AND (state <> 'shown'
                OR NOT EXISTS (SELECT 1 FROM countersign.showings o WHERE o.seq = $1 AND o.state <> 'shown'))",
            values![seq, now.as_millisecond()],
        )
        .await?;
    Ok(changed > 0)
}

/// Removes the outcomes of commands that are gone, which stood between two places in the log.
pub(super) async fn prune(transaction: &Transaction, first: Seq, through: Seq) -> Result<(), Error> {
    for table in ["outcomes", "showings", "instance_versions", "refused_reports"] {
        transaction
            .execute(
                &format!(
                    "DELETE FROM countersign.{table} t WHERE t.seq BETWEEN $1 AND $2
                       AND NOT EXISTS (SELECT 1 FROM countersign.commands c WHERE c.seq = t.seq)"
                ),
                values![number(first), number(through)],
            )
            .await?;
    }
    Ok(())
}

/// What is to be shown now: of each card and instance the first that waits, if it is due.
pub(super) async fn showings(link: &Link, now: Timestamp, limit: usize) -> Result<Vec<Showing>, Error> {
    let now = now.as_millisecond();
    let mut found = Vec::new();
    // In two searches, each by the index: what is due, and what seems to be put off for too long.
    for (from, to) in [(i64::MIN, now), (now.saturating_add(FARTHEST_MS), i64::MAX)] {
        let left = number(limit.saturating_sub(found.len()) as u64);
        let rows = link
            .query(
                "SELECT s.id, c.command_id, s.surface, s.target, s.attempts, c.action, o.outcome, o.status, o.message,
                    CASE s.surface WHEN 'instance' THEN o.instance END AS instance,
                    CASE s.surface WHEN 'instance' THEN (
                        SELECT v.update_time FROM countersign.instance_versions v WHERE v.instance_id = s.target
                    ) END AS version
                 FROM countersign.showings s JOIN countersign.outcomes o ON o.seq = s.seq
                    JOIN countersign.commands c ON c.seq = s.seq
                 WHERE s.state = 'waiting' AND s.next_attempt_at > $1 AND s.next_attempt_at <= $2
                   AND NOT EXISTS (SELECT 1 FROM countersign.showings e WHERE e.surface = s.surface
                        AND e.target = s.target AND e.state = 'waiting' AND e.id < s.id)
                 ORDER BY s.next_attempt_at, s.id LIMIT $3",
                values![from, to, left],
            )
            .await?;
        for row in &rows {
            found.push(showing(row)?);
        }
    }
    Ok(found)
}

fn showing(row: &Row) -> Result<Showing, Error> {
    Ok(Showing {
        id: row.try_get("id")?,
        command_id: row.id("command_id")?,
        surface: row.known_word("surface")?,
        target: row.try_get("target")?,
        attempts: row.count("attempts")?,
        action: row.action("action")?,
        kind: row.known_word("outcome")?,
        status: row.word("status")?,
        message: row.try_get("message")?,
        instance: row.try_get("instance")?,
        version: row.try_get("version")?,
    })
}

/// The outcomes of the commands at these places in the log, for people.
pub(super) async fn records(
    transaction: &Transaction,
    places: &[Seq],
) -> Result<HashMap<Seq, OutcomeRecord>, Error> {
    let places: Vec<i64> = places.iter().copied().map(number).collect();
    let rows = transaction
        .query(
            "SELECT seq, outcome, status, message, reported_at, superseded FROM countersign.outcomes
             WHERE seq = ANY($1)",
            values![places],
        )
        .await?;
    let mut outcomes = HashMap::with_capacity(rows.len());
    for row in &rows {
        let outcome = OutcomeRecord {
            outcome: row.known_word("outcome")?,
            status: row.word("status")?,
            message: row.try_get("message")?,
            reported_at: row.time("reported_at")?,
            superseded: row.count("superseded")?,
            showing: ShowingState::Nothing,
            card: None,
            instance: None,
        };
        outcomes.insert(row.seq("seq")?, outcome);
    }
    if outcomes.is_empty() {
        return Ok(outcomes);
    }
    let rows = transaction
        .query(
            "SELECT seq, surface, target, state, attempts, next_attempt_at, changed_at, note
             FROM countersign.showings WHERE seq = ANY($1)",
            values![places],
        )
        .await?;
    for row in &rows {
        let state: ShowingState = row.known_word("state")?;
        let (next, changed) = (row.time("next_attempt_at")?, row.time("changed_at")?);
        let record = ShowingRecord {
            id: row.try_get("target")?,
            state,
            attempts: row.count("attempts")?,
            next_attempt_at: (state == ShowingState::Waiting).then_some(next),
            shown_at: (state == ShowingState::Shown).then_some(changed),
            note: row.try_get("note")?,
        };
        let Some(outcome) = outcomes.get_mut(&row.seq("seq")?) else { continue };
        match row.known_word("surface")? {
            Surface::Card => outcome.card = Some(record),
            Surface::Instance => outcome.instance = Some(record),
        }
    }
    for outcome in outcomes.values_mut() {
        let places = [&outcome.card, &outcome.instance];
        outcome.showing = ShowingState::of_all(places.into_iter().flatten().map(|place| place.state));
    }
    Ok(outcomes)
}

/// The places of commands with a parked showing, oldest first.
pub(super) async fn parked(link: &Link, limit: usize) -> Result<Vec<Seq>, Error> {
    let rows = link
        .query(
            "SELECT DISTINCT seq FROM countersign.showings WHERE state = 'parked' ORDER BY seq LIMIT $1",
            values![number(limit as u64)],
        )
        .await?;
    rows.iter().map(|row| row.seq("seq")).collect()
}

/// How many showings wait, how many are parked, and how many published commands retention has passed over because their
/// outcome is still to be shown.
pub(super) const COUNTS: &str =
    "(SELECT count(*) FROM countersign.showings WHERE state = 'waiting') AS outcomes_pending,
    (SELECT count(*) FROM countersign.showings WHERE state = 'parked') AS outcomes_parked,
    (SELECT count(DISTINCT s.seq) FROM countersign.showings s WHERE s.state = 'waiting'
        AND s.seq <= (SELECT pruned_through FROM countersign.relay)
        AND NOT EXISTS (SELECT 1 FROM countersign.exceptions e WHERE e.seq = s.seq)
        AND NOT EXISTS (SELECT 1 FROM countersign.dead_letters l WHERE l.seq = s.seq AND l.is_open)) AS passed_over";
