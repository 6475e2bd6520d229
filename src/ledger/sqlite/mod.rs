//! The ledger in one SQLite file: bundled SQLite, WAL, `synchronous=FULL`, one writer thread, separate readers.

mod acts;
mod audit;
mod backup;
mod changes;
mod checkpoint;
mod client;
mod columns;
mod contexts;
mod credentials;
mod dead_letters;
mod files;
mod findings;
mod health;
mod history;
mod import;
mod inspection;
mod lookup;
mod moved;
mod operator;
mod outcomes;
mod pages;
mod prune;
mod reader;
mod readers;
mod recall;
mod record;
mod refusals;
mod restore;
mod room;
mod rows;
mod salvage;
mod schema;
mod search;
mod shared;
mod slices;
mod source;
mod verbs;
mod waiting;
mod window;
mod writer;

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use futures_util::future::BoxFuture;
use rusqlite::OptionalExtension;
use tokio::sync::{Semaphore, oneshot, watch};

pub use backup::{BackupError, Made, back_up};
pub use client::SqliteClient;
pub use health::{MOST_FAULTS, Soundness};
pub(super) use inspection::Inspection as SqliteInspection;
pub use reader::Reader;
pub use restore::{Pending, Restoring, Waiting, prepare};
pub use room::free_bytes;
pub use salvage::{SalvageError, Salvaged, salvage};
pub use schema::OpenError;

use super::{
    AcceptError, Limits, Lookup, Outbox, Sizing, Term, heard::Listeners, lookup::Looks, retention::Pass,
};
use crate::{command::Seq, telemetry::failpoint::reach, time::Timestamp};
use files::Files;
pub(super) use import::Import as SqliteImport;
use lookup::Lookups;
use readers::Readers;
use shared::Shared;
pub(super) use source::Source;
use waiting::Job;
use window::{Spans, Window};
use writer::Writer;

/// The ledger. Dropping it blocks until the writer has finished its queue; [`flush`](super::Lifecycle::flush) waits
/// without blocking.
pub struct SqliteLedger {
    doors: Arc<Doors>,
    /// The only term, which ends with the ledger: no other process publishes from this file.
    term: watch::Sender<Term>,
    threads: Mutex<Option<Threads>>,
}

/// Access to the writer and the readers.
struct Doors {
    jobs: Sender<Job>,
    shared: Arc<Shared>,
    readers: Readers,
    lookups: Arc<Lookups>,
    listeners: Arc<Listeners>,
    /// A permit for each look after a report that a callback waits for, so that they leave room for others.
    hearing: Arc<Semaphore>,
}

/// Looks after reports at the same time.
const HEARING: usize = 4;

struct Threads {
    writer: JoinHandle<()>,
    checkpointer: JoinHandle<()>,
    recaller: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    // Held until the writer has ended.
    lock: schema::Lock,
}

impl std::fmt::Debug for SqliteLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteLedger").field("path", self.doors.readers.path()).finish_non_exhaustive()
    }
}

impl SqliteLedger {
    /// Opens or creates the ledger and starts its writer.
    ///
    /// The time depends on what was accepted within the longest `dedupe_window`, not on the size of the log. What was
    /// accepted within the longest `repeats_window` is read in the background; until then, some repeats are not
    /// recognised.
    ///
    /// # Errors
    /// See [`OpenError`]. A broken ledger is never opened, repaired or recreated.
    pub fn open(path: &Path, sizing: &Sizing) -> Result<Self, OpenError> {
        let lock = schema::Lock::take(path)?;
        moved::check(path)?;
        reach("start:locked");
        let connection = schema::open_writer(path)?;
        history::note_setback(&connection).map_err(OpenError::sqlite(path, "note the clock in"))?;
        let started = Instant::now();
        let Rebuilt { head, window, below, epoch_ms } = rebuild(&connection, spans(&sizing.limits), 0)
            .map_err(OpenError::sqlite(path, "read the tail of"))?;
        let file_failed = |source| OpenError::File { path: path.to_owned(), source };
        let files = Files::of(path).map_err(file_failed)?;
        reach("start:opened");
        let (jobs, receiver) = channel();
        let shared = Arc::new(Shared::new(head, sizing.queue_capacity, sizing.limits.clone()));
        let writer = Writer {
            connection,
            path: path.to_owned(),
            files,
            jobs: receiver,
            shared: shared.clone(),
            max_batch: sizing.max_batch.max(1),
            window,
            started,
            next_seq: head + 1,
            prune_at: started,
            pass: Pass::BEGIN,
        };
        let writer = thread::Builder::new()
            .name("ledger-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(file_failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let checkpointer = {
            let connection = schema::open_checkpointer(path)?;
            let (path, shared, stop) = (path.to_owned(), shared.clone(), stop.clone());
            thread::Builder::new()
                .name("ledger-checkpoint".to_owned())
                .spawn(move || checkpoint::run(&connection, &path, &shared, &stop))
                .map_err(file_failed)?
        };
        let recaller = {
            let (path, jobs, stop) = (path.to_owned(), jobs.clone(), stop.clone());
            thread::Builder::new()
                .name("ledger-recall".to_owned())
                .spawn(move || recall::run(&path, &jobs, &stop, below, epoch_ms))
                .map_err(file_failed)?
        };
        let path: Arc<Path> = path.into();
        let lookups = Arc::new(Lookups::start(&path).map_err(file_failed)?);
        let readers = Readers::new(path, shared.clone());
        let doors = Arc::new(Doors {
            jobs,
            shared,
            readers,
            lookups,
            listeners: Arc::default(),
            hearing: Arc::new(Semaphore::new(HEARING)),
        });
        let outbox: Arc<dyn Outbox> = doors.clone();
        Ok(Self {
            doors,
            term: watch::Sender::new(Some(outbox)),
            threads: Mutex::new(Some(Threads { writer, checkpointer, recaller, stop, lock })),
        })
    }

    /// The outbox. No other process publishes from this file, so this one always leads.
    #[must_use]
    pub fn outbox(&self) -> Arc<dyn Outbox> {
        self.doors.clone()
    }
}

impl Doors {
    fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, AcceptError>>) -> Job,
    ) -> BoxFuture<'static, Result<T, AcceptError>> {
        let (reply, answer) = oneshot::channel();
        let sent = self.jobs.send(job(reply)).is_ok();
        Box::pin(async move {
            if !sent {
                return Err(AcceptError::Unavailable);
            }
            // The writer drops a reply only when it ends.
            answer.await.unwrap_or(Err(AcceptError::Unavailable))
        })
    }
}

impl Looks for SqliteLedger {
    fn lookup(&self) -> &dyn Lookup {
        &self.doors.readers
    }
}

/// What the tail of the log says at start.
struct Rebuilt {
    /// The end of the log.
    head: Seq,
    window: Window,
    /// Commands below this are not in the window yet.
    below: Seq,
    /// When the window's clock was at 0, in milliseconds since 1970.
    epoch_ms: i64,
}

fn spans(limits: &Limits) -> Spans {
    Spans { exact: limits.longest_window, far: limits.longest_repeats_window }
}

/// Finds the end of the log and fills the window from its tail, as far as answers depend on it. `now_ms` is the time on the
/// window's clock.
fn rebuild(connection: &rusqlite::Connection, spans: Spans, now_ms: i64) -> rusqlite::Result<Rebuilt> {
    let mut window = Window::new(spans);
    // After the clock was set back, the newest row is a better time than the clock. Otherwise everything accepted since
    // would count as accepted now.
    let newest: Option<i64> = connection
        .query_row("SELECT received_at FROM commands ORDER BY seq DESC LIMIT 1", [], |row| row.get(0))
        .optional()?;
    let now = Timestamp::now().as_millisecond().max(newest.unwrap_or(i64::MIN));
    let epoch_ms = now.saturating_sub(now_ms);
    let horizon = now_ms.saturating_sub(i64::try_from(spans.exact.as_millis()).unwrap_or(i64::MAX));
    let mut tail = connection
        .prepare("SELECT seq, received_at, fingerprint, decision_key FROM commands ORDER BY seq DESC")?;
    let mut rows = tail.query([])?;
    let mut recent = Vec::new();
    let mut head = None;
    let mut latest = now_ms;
    while let Some(row) = rows.next()? {
        let mut seen = recall::seen(row, epoch_ms)?;
        head.get_or_insert(seen.seq);
        // The log is in order of time, whatever the clock said.
        latest = latest.min(seen.at_ms);
        seen.at_ms = latest;
        if latest < horizon {
            break;
        }
        recent.push(seen);
    }
    let pruned: i64 = connection.query_row("SELECT pruned_through FROM cursor", [], |row| row.get(0))?;
    let head = head.unwrap_or(0).max(pruned as Seq);
    let below = recent.last().map_or(head + 1, |oldest| oldest.seq);
    for seen in recent.into_iter().rev() {
        window.remember(seen);
    }
    Ok(Rebuilt { head, window, below, epoch_ms })
}

impl Drop for SqliteLedger {
    fn drop(&mut self) {
        let threads = self.threads.get_mut().ok().and_then(Option::take);
        if let Some(threads) = threads {
            // The writer may have ended already.
            self.doors.jobs.send(Job::Flush(oneshot::channel().0)).ok();
            threads.join();
        }
    }
}

impl Threads {
    fn join(self) {
        self.stop.store(true, Ordering::Release);
        self.checkpointer.thread().unpark();
        let threads =
            [("checkpointer", self.checkpointer), ("writer", self.writer), ("recaller", self.recaller)];
        for (name, thread) in threads {
            if thread.join().is_err() {
                tracing::error!("the ledger's {name} panicked");
            }
        }
        drop(self.lock);
    }
}

#[cfg(test)]
mod tests;
