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
use crate::{
    command::Seq,
    ledger::retention::{self, Looked, Pass},
    telemetry::failpoint::reach,
    time::Timestamp,
};

/// Commands looked at in one transaction, and the pause until the next.
const ROWS: usize = 256;
/// Expired contexts removed in one transaction.
const CONTEXTS: usize = 64;
const PAUSE: Duration = Duration::from_millis(50);
/// When to look again if nothing was left to prune.
const EVERY: Duration = Duration::from_secs(60);

/// Prunes what its time has come for, until it fails; returns why.
pub(super) async fn run(link: &Link, shared: &Shared) -> &'static str {
    let mut pass = Pass::BEGIN;
    loop {
        match advance(link, shared, &mut pass).await {
            Ok(()) => {}
            Err(error) if error.is_passing() => return "the connection to PostgreSQL failed",
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot prune the ledger");
                sleep(EVERY).await;
                continue;
            }
        }
        if pass.is_over() {
            sleep(EVERY).await;
            pass = Pass::BEGIN;
        } else {
            sleep(PAUSE).await;
        }
    }
}

/// Goes on with a pass: a transaction for each kind, since only that of the commands needs the lock of the relay's row.
async fn advance(link: &Link, shared: &Shared, pass: &mut Pass) -> Result<(), Error> {
    let now = Timestamp::now();
    if pass.contexts {
        let transaction = link.begin().await?;
        let pruned = contexts::prune(&transaction, now, CONTEXTS).await?;
        transaction.commit().await?;
        pass.contexts = pruned == CONTEXTS;
    }
    let Some(horizon) = shared.limits().horizon(now) else {
        (pass.commands, pass.acts) = (None, None);
        return Ok(());
    };
    if let Some(from) = pass.commands {
        let transaction = link.begin().await?;
        let step = step(&transaction, from, horizon, ROWS).await?;
        transaction.commit().await?;
        pass.commands = step.next;
    }
    if let Some(from) = pass.acts {
        let transaction = link.begin().await?;
        let next = acts::prune(&transaction, from, horizon, ROWS).await?;
        transaction.commit().await?;
        pass.acts = next;
    }
    Ok(())
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
/// young enough; where clocks disagree a few older ones may stand behind it, and wait for their turn. Ends as well where the
/// acts on these commands and what the broker said of them would be too many rows.
pub(super) async fn step(
    transaction: &Transaction,
    from: Seq,
    before: Timestamp,
    limit: usize,
) -> Result<Step, Error> {
    let cursor = relay_row::lock(transaction).await?;
    let rows = transaction
        .query(
            &format!(
                "SELECT c.seq, c.received_at, {ROWS_OF} FROM countersign.commands c
                 WHERE c.seq > $1 AND c.seq <= $2 ORDER BY c.seq LIMIT $3"
            ),
            values![number(from), number(cursor), number(limit as u64)],
        )
        .await?;
    let mut looked = Vec::with_capacity(rows.len());
    for row in &rows {
        looked.push(Looked {
            seq: row.try_get("seq")?,
            is_old: row.try_get::<_, i64>("received_at")? < before.as_millisecond(),
            rows: row.try_get("rows")?,
        });
    }
    let (taken, next) = retention::portion(looked.iter().copied(), limit);
    let old: Vec<i64> = looked[..taken].iter().map(|one| one.seq).collect();
    let pruned = remove(transaction, &old).await?;
    Ok(Step { pruned, next })
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

/// What goes with a row of `commands c`, where that may be much. Of all else a command has a few rows at the most.
const ROWS_OF: &str = "((SELECT count(*) FROM countersign.act_commands k WHERE k.seq = c.seq)
    + (SELECT count(*) FROM countersign.publish_events p WHERE p.seq = c.seq)) AS rows";

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
