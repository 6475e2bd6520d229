//! The comparison with the approval center: its reads and writes. A running service and the command line share these
//! statements, and may run them at the same time.

use futures_util::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    client::SqliteClient,
    columns::{seq, word},
    history,
    reader::Reader,
};
use crate::{
    command::Seq,
    ledger::{
        AcceptError, LookError,
        findings::{Candidate, Finding, Findings, Overview, Page, Reach, Reconciled, Verdict, Which},
    },
    time::Timestamp,
};

/// No check is postponed this far. One that seems to be was written before the clock was set back.
const FARTHEST_MS: i64 = 2 * 86_400_000;

const CANDIDATE: &str = "c.seq, c.command_id, c.received_at, c.endpoint, c.action, c.user_id, c.approval_code,
    c.instance_id, c.task_id, e.seq IS NULL AS published, f.verdict, f.task_status, f.instance_status, f.checks, f.found_at,
    f.checked_at, f.next_check_at";

const JOINED: &str =
    "commands c LEFT JOIN exceptions e ON e.seq = c.seq LEFT JOIN findings f ON f.seq = c.seq";

impl Reader {
    /// See [`Findings::unasked`].
    pub(super) fn unasked(&self, reach: Reach, limit: usize) -> rusqlite::Result<Page> {
        // One read transaction, for a consistent view.
        let transaction = self.connection().unchecked_transaction()?;
        let asked = transaction.query_row(
            "SELECT max(asked_through, skipped_through) FROM reconciliation",
            [],
            |row| seq(row, 0),
        )?;
        let head = horizon(&transaction, reach)?;
        let oldest = first_since(&transaction, asked, head, before(reach.now, reach.within))?;
        let skipped_through = Some(oldest - 1).filter(|skipped| *skipped > asked);
        let after = oldest - 1;
        let mut candidates: Vec<Candidate> = transaction
            .prepare_cached(&format!(
                "SELECT {CANDIDATE} FROM {JOINED} WHERE c.seq > ?1 AND c.seq <= ?2 ORDER BY c.seq LIMIT ?3"
            ))?
            .query_map(params![after as i64, head as i64, limit as i64], candidate)?
            .collect::<rusqlite::Result<_>>()?;
        let read = candidates.len();
        // A recently received command cannot have been published for long, whatever a clock that was set back says.
        let young = before(reach.now, reach.after);
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

    /// See [`Findings::findings`].
    pub(super) fn findings(
        &self,
        which: Which,
        after: Seq,
        limit: usize,
    ) -> rusqlite::Result<Vec<Candidate>> {
        let (condition, first, second) = match which {
            Which::Due { now, since } => (
                format!(
                    "f.next_check_at IS NOT NULL AND (f.next_check_at <= ?3 OR f.next_check_at > ?3 + {FARTHEST_MS})
                     AND c.received_at >= ?4"
                ),
                now.as_millisecond(),
                since.as_millisecond(),
            ),
            Which::Open => ("f.verdict NOT IN ('ended', 'unpublished') AND ?3 = ?4".to_owned(), 0, 0),
            Which::Unsettled => ("f.verdict <> 'ended' AND ?3 = ?4".to_owned(), 0, 0),
            Which::Of(verdict) => (format!("f.verdict = '{}' AND ?3 = ?4", verdict.as_str()), 0, 0),
        };
        self.connection()
            .prepare_cached(&format!(
                "SELECT {CANDIDATE} FROM findings f JOIN commands c ON c.seq = f.seq
                    LEFT JOIN exceptions e ON e.seq = f.seq
                 WHERE f.seq > ?1 AND {condition} ORDER BY f.seq LIMIT ?2"
            ))?
            .query_map(params![after as i64, limit as i64, first, second], candidate)?
            .collect()
    }

    /// See [`Findings::overview`].
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn overview(&self) -> rusqlite::Result<Overview> {
        let transaction = self.connection().unchecked_transaction()?;
        let mut overview = transaction.query_row(
            "SELECT max(asked_through, skipped_through) AS asked_through,
                (SELECT published_through FROM cursor) AS published_through, passed_at, seen, ended, untellable
             FROM reconciliation",
            [],
            |row| {
                Ok(Overview {
                    asked_through: seq(row, "asked_through")?,
                    published_through: seq(row, "published_through")?,
                    passed_at: row.get("passed_at")?,
                    seen: seq(row, "seen")?,
                    ended: seq(row, "ended")?,
                    untellable: seq(row, "untellable")?,
                    ..Overview::default()
                })
            },
        )?;
        let mut counts =
            transaction.prepare_cached("SELECT verdict, count(*) AS count FROM findings GROUP BY verdict")?;
        let mut rows = counts.query([])?;
        while let Some(row) = rows.next()? {
            let count = seq(row, "count")?;
            match word::<Verdict>(row, "verdict")? {
                Some(Verdict::Unseen) => overview.unseen = count,
                Some(Verdict::NotFound) => overview.not_found = count,
                Some(Verdict::Contradicted) => overview.contradicted = count,
                _ => {}
            }
        }
        Ok(overview)
    }

    /// What is known of one command; `None` if it was not checked.
    pub(super) fn finding(&self, place: Seq) -> rusqlite::Result<Option<Finding>> {
        let connection = self.connection();
        let (asked, found) = connection
            .prepare_cached(&format!(
                "SELECT {CANDIDATE}, ?1 > skipped_through AND ?1 <= asked_through AS asked
                 FROM {JOINED}, reconciliation WHERE c.seq = ?1"
            ))?
            .query_row([place as i64], |row| Ok((row.get::<_, bool>("asked")?, candidate(row)?)))?;
        Ok(match found.finding {
            Some(finding) => Some(finding).filter(|finding| finding.verdict != Verdict::Unpublished),
            None if !asked => None,
            None if !found.can_be_asked() => {
                Some(Finding { verdict: Verdict::Untellable, ..Finding::seen() })
            }
            None => Some(Finding::seen()),
        })
    }
}

/// The time `ago` before `now`, in milliseconds since 1970.
fn before(now: Timestamp, ago: std::time::Duration) -> i64 {
    now.as_millisecond().saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX))
}

/// The last command published for as long as `reach` asks: the cursor at that time. Before the first mark this is
/// unknown: then the current cursor, and the time of receipt decides.
fn horizon(connection: &Connection, reach: Reach) -> rusqlite::Result<Seq> {
    let since = before(reach.now, reach.after);
    match history::published_by(connection, since, reach.now.as_millisecond())? {
        Some(through) => Ok(through),
        None => connection.query_row("SELECT published_through FROM cursor", [], |row| seq(row, 0)),
    }
}

/// The first place after `after` received at `since` or later, `head + 1` if there is none. Binary search: the log is
/// in order of time, except where the clock was set back.
fn first_since(connection: &Connection, after: Seq, head: Seq, since: i64) -> rusqlite::Result<Seq> {
    let mut received = connection
        .prepare_cached("SELECT seq, received_at FROM commands WHERE seq >= ?1 ORDER BY seq LIMIT 1")?;
    let (mut low, mut high) = (after + 1, head.max(after) + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let found: Option<(Seq, i64)> = received
            .query_row([middle as i64], |row| Ok((seq(row, "seq")?, row.get("received_at")?)))
            .optional()?;
        match found {
            Some((at, received_at)) if at <= head && received_at < since => low = at + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

fn candidate(row: &Row<'_>) -> rusqlite::Result<Candidate> {
    let finding = match word::<Verdict>(row, "verdict")? {
        None => None,
        Some(verdict) => Some(Finding {
            verdict,
            task_status: row.get("task_status")?,
            instance_status: row.get("instance_status")?,
            checks: row.get("checks")?,
            found_at: row.get("found_at")?,
            checked_at: row.get("checked_at")?,
            next_check_at: row.get("next_check_at")?,
        }),
    };
    Ok(Candidate {
        seq: seq(row, "seq")?,
        command_id: row.get("command_id")?,
        received_at: row.get("received_at")?,
        endpoint: row.get("endpoint")?,
        action: row.get("action")?,
        user_id: row.get("user_id")?,
        approval_code: row.get("approval_code")?,
        instance_id: row.get("instance_id")?,
        task_id: row.get("task_id")?,
        published: row.get("published")?,
        finding,
    })
}

/// Writes the result of a step. Call it within a transaction.
pub(super) fn write(transaction: &Connection, reconciled: &Reconciled) -> rusqlite::Result<()> {
    let Reconciled { skipped_through, through, findings, cleared, seen, ended, untellable, passed_at } =
        reconciled;
    let mut insert = transaction.prepare_cached(
        "INSERT INTO findings (seq, verdict, task_status, instance_status, checks, found_at, checked_at, next_check_at)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE EXISTS (SELECT 1 FROM commands WHERE seq = ?1)
         ON CONFLICT (seq) DO UPDATE SET verdict = ?2, task_status = ?3, instance_status = ?4, checks = ?5,
            checked_at = ?7, next_check_at = ?8",
    )?;
    for (place, finding) in findings {
        let millis = |time: Option<Timestamp>| time.map(Timestamp::as_millisecond);
        insert.execute(params![
            *place as i64,
            finding.verdict.as_str(),
            finding.task_status,
            finding.instance_status,
            finding.checks,
            millis(finding.found_at).unwrap_or(0),
            millis(finding.checked_at).unwrap_or(0),
            millis(finding.next_check_at),
        ])?;
    }
    for place in cleared {
        transaction.prepare_cached("DELETE FROM findings WHERE seq = ?1")?.execute([*place as i64])?;
    }
    transaction
        .prepare_cached(
            "UPDATE reconciliation SET skipped_through = max(skipped_through, ?1), asked_through = max(asked_through, ?2),
                passed_at = coalesce(?3, passed_at), seen = seen + ?4, ended = ended + ?5, untellable = untellable + ?6",
        )?
        .execute(params![
            skipped_through.unwrap_or(0) as i64,
            through.unwrap_or(0) as i64,
            passed_at.map(Timestamp::as_millisecond),
            *seen as i64,
            *ended as i64,
            *untellable as i64,
        ])?;
    Ok(())
}

/// Removes findings of pruned commands in this part of the log. Call it within a transaction.
pub(super) fn prune(transaction: &Connection, first: Seq, through: Seq) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "DELETE FROM findings WHERE seq BETWEEN ?1 AND ?2
               AND NOT EXISTS (SELECT 1 FROM commands c WHERE c.seq = findings.seq)",
        )?
        .execute(params![first as i64, through as i64])?;
    Ok(())
}

impl Findings for SqliteClient {
    fn unasked(&self, reach: Reach, limit: usize) -> BoxFuture<'static, Result<Page, LookError>> {
        self.readers.look("read published commands from", move |reader| reader.unasked(reach, limit))
    }

    fn findings(
        &self,
        which: Which,
        after: Seq,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Candidate>, LookError>> {
        self.readers.look("read the findings of", move |reader| reader.findings(which, after, limit))
    }

    fn overview(&self) -> BoxFuture<'static, Result<Overview, LookError>> {
        self.readers.look("count the findings of", Reader::overview)
    }

    fn reconciled(&self, reconciled: Reconciled) -> BoxFuture<'static, Result<(), AcceptError>> {
        let written = self.act(move |transaction| Ok(write(transaction, &reconciled)?));
        Box::pin(async move {
            written.await.map_err(|error| {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "cannot write findings to the ledger");
                AcceptError::Unavailable
            })
        })
    }
}
