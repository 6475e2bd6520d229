//! Retention: removes old published commands from the start of the log, a few at a time.

use rusqlite::{Connection, params};

use super::{acts, contexts, dead_letters, findings, history, outcomes};
use crate::{
    command::Seq,
    ledger::{
        Limits,
        retention::{self, Looked, Pass},
    },
    telemetry::failpoint::reach,
    time::Timestamp,
};

/// Expired contexts removed per commit. Each is on a page of its own.
const CONTEXTS: usize = 64;
/// Published commands looked at per commit when they are old enough. They are adjacent, three or four to a page. Twenty
/// commits a second remove five thousand: as many as can arrive.
const COMMANDS: usize = 256;
/// Acts looked at per commit when they are old enough.
const ACTS: usize = 64;

/// Goes on with a pass as far as one commit may; stays `below` a place in the log (see [`step`]).
pub(super) fn advance(
    transaction: &Connection,
    pass: &Pass,
    limits: &Limits,
    now: Timestamp,
    below: Seq,
) -> rusqlite::Result<Pass> {
    let horizon = limits.horizon(now);
    let contexts = pass.contexts && contexts::prune(transaction, now, CONTEXTS)? == CONTEXTS;
    let commands = match (pass.commands, horizon) {
        (Some(from), Some(horizon)) => step(transaction, from, below, horizon, COMMANDS)?.next,
        _ => None,
    };
    let acts = match (pass.acts, horizon) {
        (Some(from), Some(horizon)) => acts::prune(transaction, from, horizon, ACTS)?,
        _ => None,
    };
    Ok(Pass { contexts, commands, acts })
}

/// A `below` for the whole log.
pub(super) const EVERYWHERE: Seq = i64::MAX as Seq;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) pruned: usize,
    /// Where the next step continues; `None` if everything old enough was looked at.
    pub(super) next: Option<Seq>,
}

/// Looks at up to `limit` commands after `from`, oldest first, and removes those that are published and were received
/// before `before`. Stays `below` a place in the log: the commands in the in-memory window must be there, whatever the
/// clock says. Call it within a transaction.
///
/// Commands that are not published, that came back and are not dealt with, or whose outcome is still to be shown, are never removed, however old they are.
/// Ends at the first command that is too young. After the clock was set back, a few older ones may follow it; they wait
/// for their turn. Ends as well where the acts on these commands and what the broker said of them would be too many rows.
pub(super) fn step(
    transaction: &Connection,
    from: Seq,
    below: Seq,
    before: Timestamp,
    limit: usize,
) -> rusqlite::Result<Step> {
    // One upper bound, so that the search ends there: with two, SQLite may use the wider one and read everything
    // pending.
    let rows: Vec<(i64, i64, bool, i64)> = transaction
        .prepare_cached(&format!(
            "SELECT c.seq, c.received_at, {KEPT}, {ROWS} FROM commands c
             WHERE c.seq > ?1 AND c.seq <= min(?2 - 1, (SELECT published_through FROM cursor))
             ORDER BY c.seq LIMIT ?3"
        ))?
        .query_map(params![from as i64, below as i64, limit as i64], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let looked = rows.iter().map(|(seq, received_at, _, rows)| Looked {
        seq: *seq,
        is_old: *received_at < before.as_millisecond(),
        rows: *rows,
    });
    let (old, next) = retention::portion(looked, limit);
    let old = &rows[..old];
    let mut pruned = 0;
    let mut through = None;
    for (seq, ..) in old.iter().filter(|(_, _, excepted, _)| !excepted) {
        pruned += transaction.prepare_cached("DELETE FROM commands WHERE seq = ?1")?.execute([seq])?;
        through = Some(*seq);
    }
    reach("prune:deleted");
    if let Some(through) = through {
        let first = old.first().map_or(&through, |(seq, ..)| seq);
        acts::forget_commands(transaction, *first, through)?;
        outcomes::prune(transaction, *first, through)?;
        dead_letters::prune(transaction, *first, through)?;
        findings::prune(transaction, *first as Seq, through as Seq)?;
        history::prune(transaction, *first as Seq, through as Seq)?;
        transaction
            .prepare_cached("UPDATE cursor SET pruned_through = max(pruned_through, ?1)")?
            .execute([through])?;
    }
    Ok(Step { pruned, next })
}

/// Condition for rows of `commands c` that stay.
const KEPT: &str = "(EXISTS (SELECT 1 FROM exceptions e WHERE e.seq = c.seq)
    OR EXISTS (SELECT 1 FROM dead_letters d WHERE d.seq = c.seq AND d.is_open = 1)
    OR EXISTS (SELECT 1 FROM showings s WHERE s.seq = c.seq AND s.state = 'waiting'))";

/// What goes with a row of `commands c`, where that may be much. Of all else a command has a few rows at the most.
const ROWS: &str = "(SELECT count(*) FROM act_commands k WHERE k.seq = c.seq)
    + (SELECT count(*) FROM publish_events p WHERE p.seq = c.seq)";

/// How many commands [`step`] would remove in total.
pub(super) fn count(connection: &Connection, before: Timestamp) -> rusqlite::Result<u64> {
    let young: Option<i64> = connection
        .prepare_cached(
            "SELECT min(seq) FROM (SELECT seq FROM commands WHERE received_at >= ?1 ORDER BY seq LIMIT 1)",
        )?
        .query_row([before.as_millisecond()], |row| row.get(0))?;
    connection
        .prepare_cached(&format!(
            "SELECT count(*) FROM commands c
             WHERE c.seq <= (SELECT published_through FROM cursor) AND (?1 IS NULL OR c.seq < ?1) AND NOT {KEPT}"
        ))?
        .query_row([young], |row| row.get::<_, i64>(0))
        .map(|count| count as u64)
}
