//! What `doctor` asks a file: whether its pages are sound.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use rusqlite::ErrorCode;

use super::reader::Reader;

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
}
