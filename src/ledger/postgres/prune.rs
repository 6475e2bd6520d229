//! Retention: published commands that are old enough leave the log at its old end, a few at a time.

use std::time::Duration;

use tokio::time::sleep;

use super::{
    Error, acts, contexts, dead_letters, findings, history,
    link::{Link, Transaction},
    outcomes, relay_row,
    shared::Shared,
    values::{Columns, number, values},
};
use crate::{command::Seq, telemetry::failpoint::reach, time::Timestamp};

/// Commands looked at in one transaction, and the pause until the next.
const ROWS: usize = 256;
/// Expired contexts removed in one transaction.
const CONTEXTS: usize = 64;
const PAUSE: Duration = Duration::from_millis(50);
/// When to look again if nothing was left to prune.
const EVERY: Duration = Duration::from_secs(60);

/// Prunes what its time has come for, until it fails; returns why.
pub(super) async fn run(link: &Link, shared: &Shared) -> &'static str {
    let (mut from, mut acts_from) = (0, 0);
    loop {
        let more = match round(link, shared, &mut from, &mut acts_from).await {
            Ok(more) => more,
            Err(error) if error.is_passing() => return "the connection to PostgreSQL failed",
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot prune the ledger");
                false
            }
        };
        sleep(if more { PAUSE } else { EVERY }).await;
    }
}

/// One transaction; true if there is more to prune.
async fn round(link: &Link, shared: &Shared, from: &mut Seq, acts_from: &mut u64) -> Result<bool, Error> {
    let now = Timestamp::now();
    let transaction = link.begin().await?;
    let contexts = contexts::prune(&transaction, now, CONTEXTS).await?;
    let (next, next_act) = match shared.limits().horizon(now) {
        Some(horizon) => (
            step(&transaction, *from, horizon, ROWS).await?.next,
            acts::prune(&transaction, *acts_from, horizon, ROWS).await?,
        ),
        None => (None, None),
    };
    transaction.commit().await?;
    *from = next.unwrap_or(0);
    *acts_from = next_act.unwrap_or(0);
    Ok(contexts == CONTEXTS || next.is_some() || next_act.is_some())
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// Commands removed.
    pub(super) pruned: usize,
    /// Where the next step goes on; `None` if everything was looked at that is old enough.
    pub(super) next: Option<Seq>,
}

/// What holds of the rows of `commands c` that need not stay.
const FREE: &str = "NOT EXISTS (SELECT 1 FROM countersign.exceptions e WHERE e.seq = c.seq)
    AND NOT EXISTS (SELECT 1 FROM countersign.dead_letters l WHERE l.seq = c.seq AND l.is_open)
    AND NOT EXISTS (SELECT 1 FROM countersign.showings s WHERE s.seq = c.seq AND s.state = 'waiting')";

/// Looks at up to `limit` commands after `from`, the oldest first, and removes those that were received before `before` and
/// are published. `before` leaves the longest window. To be called within a transaction.
///
/// A command that has an exception stays where it is, and what lies beyond the cursor stays as well: what is not published is
/// never pruned, however old it is. Nor is a command that came back and is not dealt with, or whose outcome is still to be shown. Ends at the first command that is
/// young enough; where clocks disagree a few older ones may stand behind it, and wait for their turn.
pub(super) async fn step(
    transaction: &Transaction,
    from: Seq,
    before: Timestamp,
    limit: usize,
) -> Result<Step, Error> {
    let cursor = relay_row::lock(transaction).await?;
    let rows = transaction
        .query(
            "SELECT c.seq, c.received_at FROM countersign.commands c
             WHERE c.seq > $1 AND c.seq <= $2 ORDER BY c.seq LIMIT $3",
            values![number(from), number(cursor), number(limit as u64)],
        )
        .await?;
    let mut old: Vec<i64> = Vec::with_capacity(rows.len());
    for row in &rows {
        if row.try_get::<_, i64>("received_at")? >= before.as_millisecond() {
            break;
        }
        old.push(row.try_get("seq")?);
    }
    let pruned = remove(transaction, &old).await?;
    let all = old.len() == rows.len() && rows.len() == limit;
    Ok(Step { pruned, next: old.last().filter(|_| all).map(|seq| seq.cast_unsigned()) })
}

/// Removes those of these commands that need not stay, and what is known of them.
async fn remove(transaction: &Transaction, old: &[i64]) -> Result<usize, Error> {
    let Some(first) = old.first().map(|seq| seq.cast_unsigned()) else { return Ok(0) };
    // A session that writes a row about a command holds a lock of the command, and waits here or is waited for. What is to stay is
    // looked up afterwards, by a statement of its own: its snapshot is younger than these locks.
    transaction
        .query(
            "SELECT c.seq FROM countersign.commands c WHERE c.seq = ANY($1) ORDER BY c.seq FOR UPDATE",
            values![old.to_vec()],
        )
        .await?;
    let removed = transaction
        .query(
            &format!("DELETE FROM countersign.commands c WHERE c.seq = ANY($1) AND {FREE} RETURNING c.seq"),
            values![old.to_vec()],
        )
        .await?;
    reach("prune:deleted");
    let mut through = None;
    for row in &removed {
        through = through.max(Some(row.seq("seq")?));
    }
    let Some(through) = through else { return Ok(0) };
    acts::forget_commands(transaction, first, through).await?;
    outcomes::prune(transaction, first, through).await?;
    dead_letters::prune(transaction, first, through).await?;
    findings::prune(transaction, first, through).await?;
    history::prune(transaction, first, through).await?;
    transaction
        .execute(
            "UPDATE countersign.relay SET pruned_through = greatest(pruned_through, $1) WHERE id = 1",
            values![number(through)],
        )
        .await?;
    Ok(removed.len())
}

/// How many commands [`step`] would remove in all.
pub(super) async fn count(link: &Link, before: Timestamp) -> Result<u64, Error> {
    /// In portions, since one statement may not take long.
    const ROWS: i64 = 20_000;
    let sql = format!(
        "WITH page AS MATERIALIZED (
            SELECT c.seq, c.received_at FROM countersign.commands c
            WHERE c.seq > $1 AND c.seq <= (SELECT published_through FROM countersign.relay WHERE id = 1)
            ORDER BY c.seq LIMIT $3
         ),
         old AS (
            SELECT p.seq FROM page p
            WHERE p.seq < coalesce((SELECT min(y.seq) FROM page y WHERE y.received_at >= $2), {max})
         )
         SELECT (SELECT count(*) FROM old c WHERE {FREE}) AS count, max(seq) AS last, count(*) = $3 AS more FROM old",
        max = i64::MAX
    );
    let (mut count, mut after) = (0, 0);
    loop {
        let page = link.query_opt(&sql, values![after, before.as_millisecond(), ROWS]).await?;
        let Some(page) = page else { return Ok(count) };
        count += page.seq("count")?;
        if !page.try_get::<_, bool>("more")? {
            return Ok(count);
        }
        after = page.try_get("last")?;
    }
}
