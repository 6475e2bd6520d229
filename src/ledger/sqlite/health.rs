//! What `doctor` asks a ledger: whether its pages are sound, and what was refused lately.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use rusqlite::{ErrorCode, OptionalExtension, params};

use super::reader::Reader;
use crate::time::Timestamp;

/// How the pages of a ledger are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Soundness {
    /// All were looked at, and nothing was found.
    Sound,
    /// What SQLite found, at most [`MOST_FAULTS`] lines.
    Damaged(Vec<String>),
    /// The time was over before all were looked at. Nothing had been found, which SQLite tells at the end only.
    Unfinished,
}

/// One broken page makes many complaints.
pub const MOST_FAULTS: usize = 3;

/// The refused callbacks of one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedLately {
    /// The reason.
    pub reason: String,
    /// How many are kept.
    pub count: u64,
    /// The newest of them: when.
    pub refused_at: Timestamp,
    /// To which endpoint, as asked for.
    pub endpoint: String,
    /// The cause in an operator's words.
    pub detail: Option<String>,
    /// What an authenticated body said.
    pub user_id: Option<String>,
    /// What an authenticated body said.
    pub instance_id: Option<String>,
    /// What an authenticated body said.
    pub task_id: Option<String>,
}

impl Reader {
    /// Looks at every page of the file, but not at what indexes say against tables (`PRAGMA quick_check`), for so long at
    /// the most. Reads the whole file; the log beside it cannot be emptied meanwhile.
    ///
    /// # Errors
    /// When SQLite fails over something else than a damaged file.
    pub fn quick_check(&self, limit: Duration) -> rusqlite::Result<Soundness> {
        let connection = self.connection();
        let interrupt = connection.get_interrupt_handle();
        let (done, ended) = mpsc::channel::<()>();
        let told: rusqlite::Result<Vec<String>> = thread::scope(|scope| {
            scope.spawn(move || {
                if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                    interrupt.interrupt();
                }
            });
            let told = connection
                .prepare(&format!("PRAGMA quick_check({MOST_FAULTS})"))
                .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect());
            drop(done);
            told
        });
        match told {
            Ok(lines) if lines == ["ok"] => Ok(Soundness::Sound),
            Ok(lines) => Ok(Soundness::Damaged(lines)),
            Err(error) => match error.sqlite_error_code() {
                Some(ErrorCode::OperationInterrupted) => Ok(Soundness::Unfinished),
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                    Ok(Soundness::Damaged(vec![error.to_string()]))
                }
                _ => Err(error),
            },
        }
    }

    /// What was refused since `since` and is still kept, by reason, the newest reason first.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn refused_since(&self, since: Timestamp) -> rusqlite::Result<Vec<RefusedLately>> {
        let connection = self.connection();
        let reasons: Vec<(String, i64, i64)> = connection
            .prepare(
                "SELECT reason, count(*), max(id) FROM refusals WHERE refused_at >= ?1 GROUP BY reason ORDER BY max(id) DESC",
            )?
            .query_map(params![since.as_millisecond()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let mut newest = connection.prepare(
            "SELECT refused_at, endpoint, detail, user_id, instance_id, task_id FROM refusals WHERE id = ?1",
        )?;
        let mut found = Vec::with_capacity(reasons.len());
        for (reason, count, id) in reasons {
            let one = newest.query_row([id], |row| {
                Ok(RefusedLately {
                    reason: reason.clone(),
                    count: u64::try_from(count).unwrap_or(0),
                    refused_at: row.get("refused_at")?,
                    endpoint: row.get("endpoint")?,
                    detail: row.get("detail")?,
                    user_id: row.get("user_id")?,
                    instance_id: row.get("instance_id")?,
                    task_id: row.get("task_id")?,
                })
            });
            // It may have had to make room meanwhile.
            found.extend(one.optional()?);
        }
        Ok(found)
    }
}
