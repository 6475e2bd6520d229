//! What `doctor` asks a file: whether its pages are sound.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use rusqlite::ErrorCode;

use super::reader::Reader;

/// The condition of a ledger's pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Soundness {
    /// All were checked, and nothing was found.
    Sound,
    /// What SQLite found, at most [`MOST_FAULTS`] lines.
    Damaged(Vec<String>),
    /// The time limit ended the check. SQLite reports faults only at the end, so none are known.
    Unfinished,
}

/// Lines kept of a check: one broken page causes many.
pub const MOST_FAULTS: usize = 3;

impl Reader {
    /// Checks every page of the file for at most `limit`, but not indexes against tables (`PRAGMA quick_check`). Reads
    /// the whole file; meanwhile the write-ahead log cannot be emptied.
    ///
    /// # Errors
    /// When SQLite fails for another reason than a damaged file.
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
}
