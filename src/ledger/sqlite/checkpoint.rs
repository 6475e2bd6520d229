//! Copying pages from the write-ahead log to the database while the writer runs.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rusqlite::Connection;

use crate::telemetry::failpoint::reach;

use super::{
    room::{self, Watch},
    shared::Shared,
};

/// Size of the write-ahead log above which the writer itself finishes the checkpoint.
pub(super) const WAL_FULL_BYTES: u64 = 32 << 20;

const PAGE_BYTES: u64 = 4096;

/// Copies pages from the write-ahead log to the database, so that no commit has to.
///
/// Also watches the disk space, and what other processes write. Ends when `stop` is set and the thread is unparked.
pub(super) fn run(connection: &Connection, path: &Path, shared: &Shared, stop: &AtomicBool) {
    const CHECK_EVERY: Duration = Duration::from_millis(200);
    const WORTH_IT_BYTES: u64 = 4 << 20;
    let wal = room::wal(path);
    let mut watch = Watch::new();
    let mut hindered = Hindered::default();
    let mut done_at = 0;
    let mut seen = None;
    while !stop.load(Ordering::Acquire) && !shared.poisoned.load(Ordering::Acquire) {
        watch.look(path, shared);
        notice(connection, shared, &mut seen);
        thread::park_timeout(CHECK_EVERY);
        let bytes = fs::metadata(&wal).map(|wal| wal.len()).unwrap_or(0);
        // The file keeps its size when the log restarts, so size alone only says that there was a lot.
        let commits = shared.commits.load(Ordering::Relaxed);
        if bytes < WORTH_IT_BYTES || commits == done_at {
            continue;
        }
        reach("checkpoint:begun");
        let result =
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, Option<i64>>(1));
        match result {
            Ok(pages) => {
                reach("checkpoint:done");
                done_at = commits;
                // The number of moved pages says nothing: SQLite counts by the log as it was when the checkpoint began,
                // and a log restarts only when a commit finds that nothing was appended since.
                let pages = pages.and_then(|pages| u64::try_from(pages).ok()).unwrap_or(0);
                if is_full(pages) {
                    shared.wal_full.store(true, Ordering::Relaxed);
                }
                hindered.note(pages);
            }
            // Never retry a failed sync of the database: the kernel reports an error once. A second sync that succeeds
            // would let the only good copy of these pages, in the log, be overwritten.
            Err(error) if shared.poison_by(&error) => {
                tracing::error!(%error, "ledger disk failed; nothing is accepted until countersign restarts on a healthy disk");
                return;
            }
            Err(error) => tracing::warn!(%error, "ledger checkpoint failed; retrying"),
        }
    }
}

/// Notices for those who watch that something was written, by this process or another.
fn notice(connection: &Connection, shared: &Shared, seen: &mut Option<i64>) {
    if !shared.memory.changes.is_watched() {
        *seen = None;
        return;
    }
    // https://www.sqlite.org/pragma.html#pragma_data_version
    match connection.query_row("PRAGMA data_version", [], |row| row.get(0)) {
        Ok(version) => {
            // The first look counts: what came between it and the beginning of the watch would be missed.
            if seen.replace(version) != Some(version) {
                shared.memory.changes.add();
            }
        }
        Err(error) => tracing::debug!(%error, "cannot look for changes"),
    }
}

fn is_full(pages: u64) -> bool {
    pages * PAGE_BYTES > WAL_FULL_BYTES
}

/// Warns of a log that grows despite checkpoints: a reader does not end.
#[derive(Default)]
struct Hindered {
    /// Size of the log at the last check.
    pages: u64,
    since: Option<Instant>,
    told_at: Option<Instant>,
}

impl Hindered {
    fn note(&mut self, pages: u64) {
        /// The writer finishes the rest within a commit, unless a reader hinders it.
        const USUAL: Duration = Duration::from_secs(30);
        const QUIET: Duration = Duration::from_secs(600);
        // A full log that does not grow only waits for the next commit, which may come late.
        let grown = pages > std::mem::replace(&mut self.pages, pages);
        if !grown || !is_full(pages) {
            self.since = None;
            return;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= USUAL && self.told_at.is_none_or(|at| at.elapsed() >= QUIET) {
            self.told_at = Some(Instant::now());
            tracing::warn!(
                wal_bytes = pages * PAGE_BYTES,
                "ledger write-ahead log grows: another process keeps the ledger open for reading"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: u64 = WAL_FULL_BYTES / PAGE_BYTES;

    /// Full for longer than usual, and not reported yet.
    fn hindered() -> Hindered {
        let mut hindered = Hindered::default();
        hindered.note(FULL + 1);
        assert_eq!(hindered.told_at, None, "the writer may be about to finish it");
        let long_ago = Instant::now().checked_sub(Duration::from_secs(31));
        hindered.since = Some(long_ago.expect("the machine has run for longer"));
        hindered
    }

    #[test]
    fn a_log_that_stays_full_and_grows_is_told_of_after_a_while_and_not_each_time() {
        let mut hindered = hindered();
        hindered.note(FULL + 2);
        let told_at = hindered.told_at;
        assert!(told_at.is_some());
        hindered.note(FULL + 3);
        assert_eq!(hindered.told_at, told_at);
    }

    #[test]
    fn a_log_that_was_restarted_or_that_nobody_writes_to_is_in_nobodys_way() {
        for then in [&[FULL + 1][..], &[1, 2], &[1, FULL]] {
            let mut hindered = hindered();
            for pages in then {
                hindered.note(*pages);
            }
            assert_eq!((hindered.told_at, hindered.since), (None, None), "{then:?}");
        }
    }
}
