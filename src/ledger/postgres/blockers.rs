//! Sessions that hold a lock on the log for long, such as those of an administrator.

use std::time::Duration;

use super::{Error, link::Link, values::values};

/// A program's own accepts lock the log for milliseconds.
const LONG_MS: i64 = 1000;

/// Names the sessions in the log.
pub(super) async fn log(link: &Link) {
    match find(link).await {
        Ok(found) if found.is_empty() => {
            tracing::warn!("the session that locked the ledger is not known; it may have ended meanwhile");
        }
        Ok(found) => found.iter().for_each(|one| {
            let Blocker { pid, user, application, state, lasts, query } = one;
            tracing::error!(
                pid,
                user,
                application,
                state,
                query,
                seconds = lasts.as_secs(),
                "a session of PostgreSQL holds a lock on the ledger; pg_terminate_backend({pid}) ends it"
            );
        }),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the session that locked the ledger cannot be looked up");
        }
    }
}

/// A session. What it does is visible to a user with `pg_read_all_stats`.
struct Blocker {
    pid: i32,
    user: String,
    application: String,
    state: String,
    /// Its transaction.
    lasts: Duration,
    query: String,
}

async fn find(link: &Link) -> Result<Vec<Blocker>, Error> {
    let sql = "SELECT DISTINCT a.pid, coalesce(a.usename, '')::text AS usename, coalesce(a.application_name, '') AS application,
            coalesce(a.state, '') AS state, left(coalesce(a.query, ''), 200) AS query,
            (extract(epoch FROM clock_timestamp() - a.xact_start) * 1000)::bigint AS lasts
        FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
        WHERE l.relation = 'countersign.log'::regclass AND l.granted AND l.mode <> 'AccessShareLock'
          AND a.pid <> pg_backend_pid() AND a.wait_event_type IS DISTINCT FROM 'Lock'
          AND coalesce(clock_timestamp() - a.xact_start > make_interval(secs => $1::bigint / 1000.0), true)";
    let rows = link.query(sql, values![LONG_MS]).await?;
    rows.iter()
        .map(|row| {
            Ok(Blocker {
                pid: row.try_get("pid")?,
                user: row.try_get("usename")?,
                application: row.try_get("application")?,
                state: row.try_get("state")?,
                lasts: Duration::from_millis(
                    row.try_get::<_, Option<i64>>("lasts")?.unwrap_or(0).max(0).cast_unsigned(),
                ),
                query: row.try_get("query")?,
            })
        })
        .collect()
}
