//! Retention: removes old published commands from the start of the log, a few at a time.

use rusqlite::{Connection, params};

use super::{acts, dead_letters, findings, history, outcomes};
use crate::{command::Seq, telemetry::failpoint::reach, time::Timestamp};

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
/// for their turn.
pub(super) fn step(
    transaction: &Connection,
    from: Seq,
    below: Seq,
    before: Timestamp,
    limit: usize,
) -> rusqlite::Result<Step> {
    // One upper bound, so that the search ends there: with two, SQLite may use the wider one and read everything
    // pending.
    let rows: Vec<(i64, i64, bool)> = transaction
        .prepare_cached(&format!(
            "SELECT c.seq, c.received_at, {KEPT} FROM commands c
             WHERE c.seq > ?1 AND c.seq <= min(?2 - 1, (SELECT published_through FROM cursor))
             ORDER BY c.seq LIMIT ?3"
        ))?
        .query_map(params![from as i64, below as i64, limit as i64], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let old = rows.iter().take_while(|(_, received_at, _)| *received_at < before.as_millisecond());
    let old: Vec<_> = old.collect();
    let all_old = old.len() == rows.len();
    let mut pruned = 0;
    let mut through = None;
    for (seq, _, _) in old.iter().filter(|(_, _, excepted)| !excepted) {
        pruned += transaction.prepare_cached("DELETE FROM commands WHERE seq = ?1")?.execute([seq])?;
        through = Some(*seq);
    }
    reach("prune:deleted");
    if let Some(through) = through {
        let first = old.first().map_or(&through, |(seq, _, _)| seq);
        acts::forget_commands(transaction, *first, through)?;
        outcomes::prune(transaction, *first, through)?;
        dead_letters::prune(transaction, *first, through)?;
        findings::prune(transaction, *first as Seq, through as Seq)?;
        history::prune(transaction, *first as Seq, through as Seq)?;
        transaction
            .prepare_cached("UPDATE cursor SET pruned_through = max(pruned_through, ?1)")?
            .execute([through])?;
    }
    let last = rows.last().map(|(seq, _, _)| *seq as Seq);
    let next = last.filter(|_| all_old && rows.len() == limit);
    Ok(Step { pruned, next })
}

/// Condition for rows of `commands c` that stay.
const KEPT: &str = "(EXISTS (SELECT 1 FROM exceptions e WHERE e.seq = c.seq)
    OR EXISTS (SELECT 1 FROM dead_letters d WHERE d.seq = c.seq AND d.is_open = 1)
    OR EXISTS (SELECT 1 FROM showings s WHERE s.seq = c.seq AND s.state = 'waiting'))";

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
