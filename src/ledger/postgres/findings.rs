//! The comparison with the approval center: what is read for it and written of it. Replicas and the command line may do it
//! at the same time.

use std::{collections::BTreeMap, time::Duration};

use tokio_postgres::Row;

use super::{
    Error, history,
    link::{Link, Transaction},
    values::{Columns, number, text, values},
};
use crate::{
    command::Seq,
    ledger::findings::{Candidate, Finding, Overview, Page, Reach, Reconciled, Verdict, Which},
    time::Timestamp,
};

/// No check is put off so far. One that seems to be was written by a clock that was ahead.
const FARTHEST_MS: i64 = 2 * 86_400_000;

const CANDIDATE: &str = "c.seq, c.command_id, c.received_at, c.endpoint, c.action, c.user_id, c.approval_code,
    c.instance_id, c.task_id, e.seq IS NULL AS published, f.verdict, f.task_status, f.instance_status, f.checks, f.found_at,
    f.checked_at, f.next_check_at";

const JOINED: &str = "countersign.commands c LEFT JOIN countersign.exceptions e ON e.seq = c.seq
    LEFT JOIN countersign.findings f ON f.seq = c.seq";

/// As [`Findings::unasked`](crate::ledger::Findings::unasked).
pub(super) async fn unasked(link: &Link, reach: Reach, limit: usize) -> Result<Page, Error> {
    let transaction = link.snapshot().await?;
    let page = page(&transaction, reach, limit).await?;
    transaction.commit().await?;
    Ok(page)
}

async fn page(transaction: &Transaction, reach: Reach, limit: usize) -> Result<Page, Error> {
    let standing = transaction
        .query_opt(
            "SELECT greatest(r.asked_through, r.skipped_through) AS asked, relay.published_through
             FROM countersign.reconciliation r CROSS JOIN countersign.relay WHERE r.id = 1 AND relay.id = 1",
            values![],
        )
        .await?;
    let Some(standing) = standing else { return Ok(Page::default()) };
    let asked = standing.seq("asked")?;
    // Up to here commands have been published for as long as is asked: where the cursor stood that long ago. Of what was
    // published before it was marked nobody knows, and the time of their receipt has to do.
    let young = before(reach.now, reach.after);
    let head = match history::published_by(transaction, young, reach.now.as_millisecond()).await? {
        Some(through) => through,
        None => standing.seq("published_through")?,
    };
    let oldest = first_since(transaction, asked, head, before(reach.now, reach.within)).await?;
    let skipped_through = Some(oldest - 1).filter(|skipped| *skipped > asked);
    let after = oldest - 1;
    let rows = transaction
        .query(
            &format!(
                "SELECT {CANDIDATE} FROM {JOINED} WHERE c.seq > $1 AND c.seq <= $2 ORDER BY c.seq LIMIT $3"
            ),
            values![number(after), number(head), number(limit as u64)],
        )
        .await?;
    let mut candidates: Vec<Candidate> = rows.iter().map(candidate).collect::<Result<_, _>>()?;
    let read = candidates.len();
    // What was received lately cannot have been published for long, whatever a clock that was set back says.
    let ripe = candidates.iter().position(|one| one.received_at.as_millisecond() > young);
    candidates.truncate(ripe.unwrap_or(read));
    let last = candidates.last().map_or(after, |last| last.seq);
    let all = ripe.is_none() && read < limit;
    Ok(Page {
        through: if all { head.max(last) } else { last },
        more: ripe.is_none() && read == limit,
        candidates,
        skipped_through,
    })
}

/// As [`Findings::findings`](crate::ledger::Findings::findings).
pub(super) async fn findings(
    link: &Link,
    which: Which,
    after: Seq,
    limit: usize,
) -> Result<Vec<Candidate>, Error> {
    let sql = |condition| {
        format!(
            "SELECT {CANDIDATE} FROM countersign.findings f JOIN countersign.commands c ON c.seq = f.seq
                LEFT JOIN countersign.exceptions e ON e.seq = f.seq
             WHERE f.seq > $1 AND {condition} ORDER BY f.seq LIMIT $2"
        )
    };
    let (after, limit) = (number(after), number(limit as u64));
    let rows = match which {
        Which::Due { now, since } => {
            let sql = sql("(f.next_check_at <= $3 OR f.next_check_at > $4) AND c.received_at >= $5");
            let (now, since) = (now.as_millisecond(), since.as_millisecond());
            let farthest = now.saturating_add(FARTHEST_MS);
            link.query(&sql, values![after, limit, now, farthest, since]).await?
        }
        Which::Open => {
            link.query(&sql("f.verdict NOT IN ('ended', 'unpublished')"), values![after, limit]).await?
        }
        Which::Unsettled => link.query(&sql("f.verdict <> 'ended'"), values![after, limit]).await?,
        Which::Of(verdict) => {
            link.query(&sql("f.verdict = $3"), values![after, limit, verdict.as_str()]).await?
        }
    };
    rows.iter().map(candidate).collect()
}

/// As [`Findings::overview`](crate::ledger::Findings::overview).
pub(super) async fn overview(link: &Link) -> Result<Overview, Error> {
    let transaction = link.snapshot().await?;
    let mut overview = Overview::default();
    let standing = transaction
        .query_opt(
            "SELECT greatest(r.asked_through, r.skipped_through) AS asked_through, relay.published_through,
                r.passed_at, r.seen, r.ended, r.untellable
             FROM countersign.reconciliation r CROSS JOIN countersign.relay WHERE r.id = 1 AND relay.id = 1",
            values![],
        )
        .await?;
    if let Some(row) = standing {
        overview = Overview {
            asked_through: row.seq("asked_through")?,
            published_through: row.seq("published_through")?,
            passed_at: row.time_if_any("passed_at")?,
            seen: row.seq("seen")?,
            ended: row.seq("ended")?,
            untellable: row.seq("untellable")?,
            ..overview
        };
    }
    let counts = transaction
        .query("SELECT verdict, count(*) AS count FROM countersign.findings GROUP BY verdict", values![])
        .await?;
    for row in counts {
        let count = row.seq("count")?;
        match row.word::<Verdict>("verdict")? {
            Some(Verdict::Unseen) => overview.unseen = count,
            Some(Verdict::NotFound) => overview.not_found = count,
            Some(Verdict::Contradicted) => overview.contradicted = count,
            _ => {}
        }
    }
    transaction.commit().await?;
    Ok(overview)
}

/// What is known of one command; `None` if the center was not asked for it, or there is no such command.
pub(super) async fn finding(transaction: &Transaction, place: Seq) -> Result<Option<Finding>, Error> {
    let row = transaction
        .query_opt(
            &format!(
                "SELECT {CANDIDATE}, c.seq > r.skipped_through AND c.seq <= r.asked_through AS asked
                 FROM {JOINED} CROSS JOIN countersign.reconciliation r WHERE c.seq = $1 AND r.id = 1"
            ),
            values![number(place)],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let asked: bool = row.try_get("asked")?;
    let found = candidate(&row)?;
    Ok(match found.finding {
        Some(finding) => Some(finding).filter(|finding| finding.verdict != Verdict::Unpublished),
        None if !asked => None,
        None if !found.can_be_asked() => Some(Finding { verdict: Verdict::Untellable, ..Finding::seen() }),
        None => Some(Finding::seen()),
    })
}

/// So long ago, in milliseconds since 1970.
fn before(now: Timestamp, ago: Duration) -> i64 {
    now.as_millisecond().saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX))
}

/// The first place after `after` that was received at `since` or later, `head + 1` if there is none. By halves, since the log
/// is in order of time but for what clocks do; within one statement, since each half would be a way to the server.
async fn first_since(transaction: &Transaction, after: Seq, head: Seq, since: i64) -> Result<Seq, Error> {
    let found = transaction
        .query_opt(
            "WITH RECURSIVE halves AS (
                SELECT $1 + 1 AS low, greatest($1, $2) + 1 AS high
                UNION ALL
                SELECT CASE WHEN is_old THEN found.seq + 1 ELSE low END, CASE WHEN is_old THEN high ELSE middle END
                FROM halves
                CROSS JOIN LATERAL (SELECT low + (high - low) / 2 AS middle) m
                LEFT JOIN LATERAL (
                    SELECT c.seq, c.received_at FROM countersign.commands c WHERE c.seq >= middle ORDER BY c.seq LIMIT 1
                ) found ON true
                CROSS JOIN LATERAL (
                    SELECT coalesce(found.seq <= $2 AND found.received_at < $3, false) AS is_old
                ) o
                WHERE low < high
             )
             SELECT low FROM halves WHERE low >= high",
            values![number(after), number(head), since],
        )
        .await?;
    match found {
        Some(row) => row.seq("low"),
        None => Ok(after + 1),
    }
}

fn candidate(row: &Row) -> Result<Candidate, Error> {
    let finding = match row.word::<Verdict>("verdict")? {
        None => None,
        Some(verdict) => Some(Finding {
            verdict,
            task_status: row.try_get("task_status")?,
            instance_status: row.try_get("instance_status")?,
            checks: row.count("checks")?,
            found_at: row.time_if_any("found_at")?,
            checked_at: row.time_if_any("checked_at")?,
            next_check_at: row.time_if_any("next_check_at")?,
        }),
    };
    Ok(Candidate {
        seq: row.seq("seq")?,
        command_id: row.id("command_id")?,
        received_at: row.time("received_at")?,
        endpoint: row.try_get("endpoint")?,
        action: row.action("action")?,
        user_id: row.try_get("user_id")?,
        approval_code: row.try_get("approval_code")?,
        instance_id: row.try_get("instance_id")?,
        task_id: row.try_get("task_id")?,
        published: row.try_get("published")?,
        finding,
    })
}

/// Writes what a step came to. To be called within a transaction.
pub(super) async fn write(transaction: &Transaction, reconciled: &Reconciled) -> Result<(), Error> {
    let Reconciled { skipped_through, through, findings, cleared, seen, ended, untellable, passed_at } =
        reconciled;
    // First, since this row is one lock for all that write findings.
    transaction
        .execute(
            "UPDATE countersign.reconciliation SET skipped_through = greatest(skipped_through, $1),
                asked_through = greatest(asked_through, $2), passed_at = coalesce($3, passed_at), seen = seen + $4,
                ended = ended + $5, untellable = untellable + $6
             WHERE id = 1",
            values![
                number(skipped_through.unwrap_or(0)),
                number(through.unwrap_or(0)),
                passed_at.map(Timestamp::as_millisecond),
                number(*seen),
                number(*ended),
                number(*untellable),
            ],
        )
        .await?;
    if !findings.is_empty() {
        keep(transaction, findings).await?;
    }
    if !cleared.is_empty() {
        let cleared: Vec<i64> = cleared.iter().copied().map(number).collect();
        transaction.execute("DELETE FROM countersign.findings WHERE seq = ANY($1)", values![cleared]).await?;
    }
    Ok(())
}

async fn keep(transaction: &Transaction, findings: &[(Seq, Finding)]) -> Result<(), Error> {
    // One statement writes a row once. Of two findings of a command the last one counts.
    let findings: BTreeMap<Seq, &Finding> = findings.iter().map(|(seq, finding)| (*seq, finding)).collect();
    let seqs: Vec<i64> = findings.keys().copied().map(number).collect();
    let texts = |of: fn(&Finding) -> &Option<String>| -> Vec<_> {
        findings.values().map(|finding| of(finding).as_deref().map(text)).collect()
    };
    let times = |of: fn(&Finding) -> Option<Timestamp>| -> Vec<Option<i64>> {
        findings.values().map(|finding| of(finding).map(Timestamp::as_millisecond)).collect()
    };
    let verdicts: Vec<&str> = findings.values().map(|finding| finding.verdict.as_str()).collect();
    let checks = findings.values().map(|finding| i32::try_from(finding.checks).unwrap_or(i32::MAX));
    let checks: Vec<i32> = checks.collect();
    // The locks keep commands from being pruned before their findings can be seen. A command that was pruned gets none.
    transaction
        .execute(
            "WITH here AS MATERIALIZED (
                SELECT c.seq FROM countersign.commands c WHERE c.seq = ANY($1) ORDER BY c.seq FOR KEY SHARE
             )
             INSERT INTO countersign.findings
                (seq, verdict, task_status, instance_status, checks, found_at, checked_at, next_check_at)
             SELECT n.seq, n.verdict, n.task_status, n.instance_status, n.checks, coalesce(n.found_at, 0),
                coalesce(n.checked_at, 0), n.next_check_at
             FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) AS n
                (seq, verdict, task_status, instance_status, checks, found_at, checked_at, next_check_at)
             JOIN here ON here.seq = n.seq
             ON CONFLICT (seq) DO UPDATE SET verdict = excluded.verdict, task_status = excluded.task_status,
                instance_status = excluded.instance_status, checks = excluded.checks, checked_at = excluded.checked_at,
                next_check_at = excluded.next_check_at",
            values![
                seqs,
                verdicts,
                texts(|finding| &finding.task_status),
                texts(|finding| &finding.instance_status),
                checks,
                times(|finding| finding.found_at),
                times(|finding| finding.checked_at),
                times(|finding| finding.next_check_at),
            ],
        )
        .await?;
    Ok(())
}

/// Forgets what was found of commands in this part of the log that are there no longer. To be called within a transaction.
pub(super) async fn prune(transaction: &Transaction, first: Seq, through: Seq) -> Result<(), Error> {
    transaction
        .execute(
            "DELETE FROM countersign.findings f WHERE f.seq BETWEEN $1 AND $2
               AND NOT EXISTS (SELECT 1 FROM countersign.commands c WHERE c.seq = f.seq)",
            values![number(first), number(through)],
        )
        .await?;
    Ok(())
}
