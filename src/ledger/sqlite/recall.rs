//! Reads from the log what was accepted within the longest `repeats_window`, while the service already accepts.
//!
//! A thread with its own connection walks down the log and hands the writer a few thousand commands at a time, newest
//! first; the writer only has to remember them. It ends at the end of the span, when the window is full, or when the
//! ledger is closed.

use std::{
    path::Path,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{Sender, sync_channel},
    },
    time::{Duration, Instant},
};

use rusqlite::{Connection, Row};

use super::{
    columns::seq,
    schema,
    waiting::{Job, Older},
    window::Seen,
};
use crate::command::Seq;

/// Commands handed over at a time. They take the writer some hundred microseconds.
const TOGETHER: usize = 2048;

/// Pause after each batch, so that disk and writer serve accepts first.
const PAUSE: Duration = Duration::from_millis(1);

/// Reads commands below `below`. `epoch_ms` is when the window's clock was at 0, in milliseconds since 1970.
pub(super) fn run(path: &Path, jobs: &Sender<Job>, stop: &AtomicBool, mut below: Seq, epoch_ms: i64) {
    let (began, mut count) = (Instant::now(), 0);
    let connection = match schema::open_reader(path) {
        Ok(connection) => connection,
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "cannot read earlier commands; repeats of them are not recognised");
            return;
        }
    };
    while !stop.load(Ordering::Acquire) {
        let seen = match page(&connection, below, epoch_ms) {
            Ok(seen) => seen,
            Err(error) => {
                tracing::warn!(%error, "cannot read earlier commands; repeats of them are not recognised");
                return;
            }
        };
        let Some(last) = seen.last() else { break };
        below = last.seq;
        count += seen.len();
        let (more, answer) = sync_channel(1);
        // The writer has ended or is ending.
        if jobs.send(Job::Recall(Older { seen, more })).is_err() {
            return;
        }
        if !matches!(answer.recv(), Ok(true)) {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    tracing::debug!(commands = count, took = ?began.elapsed(), "earlier commands loaded; repeats are recognised");
}

fn page(connection: &Connection, below: Seq, epoch_ms: i64) -> rusqlite::Result<Vec<Seen>> {
    connection
        .prepare_cached(
            "SELECT seq, received_at, fingerprint, decision_key FROM commands WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2",
        )?
        .query_map([below as i64, TOGETHER as i64], |row| seen(row, epoch_ms))?
        .collect()
}

/// What the window remembers of a row of `commands`.
pub(super) fn seen(row: &Row<'_>, epoch_ms: i64) -> rusqlite::Result<Seen> {
    let first = |column: &str| -> rusqlite::Result<u64> {
        let bytes = row.get_ref(column)?.as_blob()?;
        Ok(bytes.first_chunk().map_or(0, |head| u64::from_be_bytes(*head)))
    };
    Ok(Seen {
        seq: seq(row, "seq")?,
        at_ms: row.get::<_, i64>("received_at")?.saturating_sub(epoch_ms),
        fingerprint: first("fingerprint")?,
        decision: first("decision_key")?,
    })
}
