//! The ledger in one SQLite file: bundled SQLite, WAL, `synchronous=FULL`, one writer thread, readers beside it.

mod changes;
mod checkpoint;
mod columns;
mod contexts;
mod credentials;
mod files;
mod findings;
mod health;
mod history;
mod lookup;
mod operator;
mod outcomes;
mod prune;
mod reader;
mod recall;
mod refusals;
mod replies;
mod room;
mod rows;
mod schema;
mod shared;
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
use tokio::sync::{oneshot, watch};

pub use findings::{AuditError, Auditor};
pub use health::{MOST_FAULTS, RefusedLately, Soundness};
pub use operator::{ActError, Operator};
pub use reader::Reader;
pub use schema::OpenError;

use super::{
    AcceptError, Acceptance, CredentialUse, Dropped, Due, Entry, Filter, KeptRefusal, Ledger, Limits,
    LookError, Outcomes, Receipt, Record, RefusalFilter, Refused, RefusedReport, Registering, Registration,
    Remembered, Reported, Settings, Settlement, ShowAgain, Showing, Shown, Stats,
    findings::{Candidate, Findings, Overview, Page, Reach, Reconciled, Which},
};
use crate::{
    command::{CommandId, Registered, Seq, TaskKey, id::DecisionKey, message, outcome::Outcome},
    telemetry::failpoint::reach,
    time::Timestamp,
};
use changes::Change;
use files::Files;
use lookup::{Lookup, Lookups};
use shared::Shared;
use waiting::{Accepting, Job};
use window::{Spans, Window};
use writer::Writer;

/// The ledger. Dropping it waits until the writer has finished what it was given; [`Ledger::flush`] does so without
/// blocking.
pub struct SqliteLedger {
    jobs: Sender<Job>,
    shared: Arc<Shared>,
    path: Arc<Path>,
    readers: Arc<Mutex<Vec<Reader>>>,
    lookups: Arc<Lookups>,
    threads: Mutex<Option<Threads>>,
}

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
        f.debug_struct("SqliteLedger").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SqliteLedger {
    /// Opens or creates the ledger and starts its writer.
    ///
    /// The time this takes depends on what was accepted within the longest `dedupe_window`, not on the size of the log. What was
    /// accepted within the longest `repeats_window` is read meanwhile: until then not every repeat is told as one.
    ///
    /// # Errors
    /// See [`OpenError`]. A broken ledger is never opened, repaired or begun anew.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        let path = &*settings.path;
        let lock = schema::Lock::take(path)?;
        reach("start:locked");
        let connection = schema::open_writer(path)?;
        let started = Instant::now();
        let Rebuilt { head, window, below, epoch_ms } = rebuild(&connection, spans(&settings.limits), 0)
            .map_err(OpenError::sqlite(path, "read the tail of"))?;
        let file_failed = |source| OpenError::File { path: path.to_owned(), source };
        let files = Files::of(path).map_err(file_failed)?;
        reach("start:opened");
        let (jobs, receiver) = channel();
        let shared = Arc::new(Shared::new(head, settings.queue_capacity, settings.limits.clone()));
        let writer = Writer {
            connection,
            path: path.to_owned(),
            files,
            jobs: receiver,
            shared: shared.clone(),
            max_batch: settings.max_batch.max(1),
            window,
            started,
            next_seq: head + 1,
            prune_at: started,
            prune_from: 0,
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
        Ok(Self {
            jobs,
            shared,
            path,
            readers: Arc::default(),
            lookups,
            threads: Mutex::new(Some(Threads { writer, checkpointer, recaller, stop, lock })),
        })
    }

    /// Runs a look-up on a thread that may block, with a connection from the pool.
    fn look<T: Send + 'static>(
        &self,
        operation: &'static str,
        look: impl FnOnce(&Reader) -> rusqlite::Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, LookError>> {
        let (path, readers) = (self.path.clone(), self.readers.clone());
        let work = move || -> Result<T, LookError> {
            let failed = |source| LookError { operation, source };
            let pooled = readers.lock().expect("nobody panics with the lock").pop();
            let reader = match pooled {
                Some(reader) => reader,
                None => Reader::open(&path).map_err(|error| failed(error.into()))?,
            };
            let found = look(&reader).map_err(|error| failed(error.into()))?;
            // A connection whose look-up failed is not put back.
            readers.lock().expect("nobody panics with the lock").push(reader);
            Ok(found)
        };
        Box::pin(async move {
            tokio::task::spawn_blocking(work)
                .await
                .unwrap_or_else(|ended| Err(LookError { operation, source: ended.into() }))
        })
    }

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

/// What the log's tail tells at start.
struct Rebuilt {
    /// The end of the log.
    head: Seq,
    window: Window,
    /// Commands below this are not in the window yet.
    below: Seq,
    /// The time since 1970 at which the window's clock showed 0.
    epoch_ms: i64,
}

fn spans(limits: &Limits) -> Spans {
    Spans { exact: limits.longest_window, far: limits.longest_repeats_window }
}

/// Finds the end of the log and fills the window from its tail, as far as answers depend on it. `now_ms` is the time on the
/// window's clock.
fn rebuild(connection: &rusqlite::Connection, spans: Spans, now_ms: i64) -> rusqlite::Result<Rebuilt> {
    let mut window = Window::new(spans);
    // After the clock was set back the newest row tells the time better than the clock: otherwise all that was accepted
    // since then would count as of now.
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
        // The log is in the order of time, whatever the clock said then.
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

impl Ledger for SqliteLedger {
    fn accept(&self, acceptance: Acceptance) -> BoxFuture<'static, Result<Receipt, AcceptError>> {
        let refused = |why| -> BoxFuture<'static, _> { Box::pin(std::future::ready(Err(why))) };
        if self.shared.no_room.load(Ordering::Relaxed) {
            return refused(AcceptError::NoRoom);
        }
        let waiting = self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        self.shared.most_waiting.fetch_max(waiting + 1, Ordering::Relaxed);
        if waiting >= self.shared.capacity {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            return refused(AcceptError::Overloaded);
        }
        let Acceptance { command, fingerprint, window, repeats_window, on_conflict } = acceptance;
        // Rendered and hashed here, on the caller's core: the writer has only rows to write.
        let body = message::render(&command);
        let decision_key = DecisionKey::of(&command);
        let task_key = TaskKey::of(&command);
        let (reply, answer) = replies::reply();
        let accepting = Accepting {
            command,
            body,
            fingerprint,
            decision_key,
            task_key,
            window,
            repeats_window,
            on_conflict,
            reply,
        };
        if self.jobs.send(Job::Accept(Box::new(accepting))).is_err() {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            return refused(AcceptError::Unavailable);
        }
        reach("ledger:queued");
        // The writer drops a reply only when it ends.
        Box::pin(async move { answer.await.unwrap_or(Err(AcceptError::Unavailable)) })
    }

    fn refused(&self, refused: Refused) {
        let stranger = refused.stranger;
        if self.shared.refused.admit(stranger) && self.jobs.send(Job::Refused(Box::new(refused))).is_err() {
            self.shared.refused.drop_one(stranger);
        }
    }

    fn refusals_dropped(&self) -> Dropped {
        self.shared.refused.dropped()
    }

    fn head(&self) -> watch::Receiver<Seq> {
        self.shared.head.subscribe()
    }

    fn take_fresh(&self) -> Vec<Entry> {
        let mut fresh = self.shared.fresh.lock().expect("nobody panics with the lock");
        fresh.bytes = 0;
        std::mem::take(&mut fresh.entries)
    }

    fn keep_fresh(&self, wanted: bool) {
        self.shared.fresh_wanted.store(wanted, Ordering::Relaxed);
        if !wanted {
            drop(self.take_fresh());
        }
    }

    fn cursor(&self) -> BoxFuture<'static, Result<Seq, LookError>> {
        self.look("read the cursor of", Reader::cursor)
    }

    fn since(&self, seq: Seq, limit: usize) -> BoxFuture<'static, Result<Vec<Entry>, LookError>> {
        self.look("read commands from", move |reader| reader.since(seq, limit))
    }

    fn due(&self, now: Timestamp, limit: usize) -> BoxFuture<'static, Result<Vec<Due>, LookError>> {
        self.look("read exceptions from", move |reader| reader.due(now, limit))
    }

    fn waiting_tasks(&self) -> BoxFuture<'static, Result<Vec<(TaskKey, Seq)>, LookError>> {
        self.look("read waiting tasks from", Reader::waiting_tasks)
    }

    fn settle(&self, settlement: Settlement) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.ask(|reply| Job::Settle(settlement, reply))
    }

    fn id_at(&self, seq: Seq) -> BoxFuture<'static, Result<Option<CommandId>, LookError>> {
        self.look("look up a command in", move |reader| reader.id_at(seq))
    }

    fn find(&self, command_id: CommandId) -> BoxFuture<'static, Result<Option<Record>, LookError>> {
        self.look("look up a command in", move |reader| reader.find(command_id))
    }

    fn list(&self, filter: Filter) -> BoxFuture<'static, Result<Vec<Record>, LookError>> {
        self.look("list commands of", move |reader| reader.list(&filter))
    }

    fn refusals(&self, filter: RefusalFilter) -> BoxFuture<'static, Result<Vec<KeptRefusal>, LookError>> {
        self.look("list refusals of", move |reader| reader.refusals(&filter))
    }

    fn register(
        &self,
        registrations: Vec<Registration>,
    ) -> BoxFuture<'static, Result<Registering, AcceptError>> {
        if self.shared.no_room.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(AcceptError::NoRoom)));
        }
        self.ask(|reply| Job::Change(Change::register(registrations, reply)))
    }

    fn unregister(&self, key: String) -> BoxFuture<'static, Result<bool, AcceptError>> {
        self.ask(|reply| Job::Change(Change::unregister(key, reply)))
    }

    fn registration(&self, key: String) -> BoxFuture<'static, Result<Option<Registration>, LookError>> {
        self.look("look up a context in", move |reader| contexts::by_key(reader.connection(), &key))
    }

    fn registered(
        &self,
        key: Option<String>,
        message_id: Option<u64>,
    ) -> BoxFuture<'static, Result<Option<Registered>, AcceptError>> {
        let (reply, answer) = oneshot::channel();
        self.lookups.ask(Lookup { key, message_id, reply });
        // A thread drops a reply only when the ledger is closed.
        Box::pin(async move { answer.await.unwrap_or(Err(AcceptError::Unavailable)) })
    }

    fn credential_uses(&self) -> BoxFuture<'static, Result<Vec<CredentialUse>, LookError>> {
        self.look("look up the credentials in", Reader::credential_uses)
    }

    fn keep_credential_uses(&self, uses: Vec<CredentialUse>) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.ask(|reply| Job::Change(Change::credentials(uses, reply)))
    }

    fn stats(&self) -> BoxFuture<'static, Result<Stats, LookError>> {
        let shared = self.shared.clone();
        self.look("take the numbers of", move |reader| {
            let remembered = Remembered {
                commands: shared.remembered.load(Ordering::Relaxed),
                forgotten: shared.forgotten.load(Ordering::Relaxed),
            };
            Ok(Stats { remembered: Some(remembered), ..reader.stats()? })
        })
    }

    fn limit(&self, limits: Limits) {
        *self.shared.limits.write().expect("nobody panics with the lock") = Arc::new(limits);
    }

    fn answers(&self) -> BoxFuture<'static, bool> {
        let (reply, answer) = oneshot::channel();
        let sent = self.jobs.send(Job::Probe(reply)).is_ok();
        // An error is an answer, too: of a writer whose disk is full, which a restart does not mend.
        Box::pin(async move { sent && answer.await.is_ok() })
    }

    fn probe(&self) -> BoxFuture<'static, Result<(), AcceptError>> {
        if self.shared.no_room.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(AcceptError::NoRoom)));
        }
        self.ask(Job::Probe)
    }

    fn flush(&self) -> BoxFuture<'static, ()> {
        let (reply, answer) = oneshot::channel();
        let sent = self.jobs.send(Job::Flush(reply)).is_ok();
        let lookups = self.lookups.clone();
        let threads = self.threads.lock().expect("nobody panics with the lock").take();
        // Readers would keep the last checkpoint from truncating the log.
        self.readers.lock().expect("nobody panics with the lock").clear();
        Box::pin(async move {
            if sent && answer.await.is_err() {
                tracing::error!("the ledger's writer ended without finishing");
            }
            if let Some(threads) = threads {
                let joined = tokio::task::spawn_blocking(move || {
                    lookups.close();
                    threads.join();
                })
                .await;
                if joined.is_err() {
                    tracing::error!("the ledger's threads could not be joined");
                }
            }
        })
    }
}

impl Outcomes for SqliteLedger {
    fn report(&self, outcome: Outcome) -> BoxFuture<'static, Result<Reported, AcceptError>> {
        if self.shared.no_room.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(AcceptError::NoRoom)));
        }
        self.ask(|reply| Job::Change(Change::report(outcome, reply)))
    }

    fn refuse_report(&self, refused: RefusedReport) -> BoxFuture<'static, Result<(), AcceptError>> {
        if self.shared.no_room.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(AcceptError::NoRoom)));
        }
        self.ask(|reply| Job::Change(Change::refuse_report(refused, reply)))
    }

    fn showings(&self, now: Timestamp, limit: usize) -> BoxFuture<'static, Result<Vec<Showing>, LookError>> {
        self.look("read outcomes from", move |reader| outcomes::showings(reader.connection(), now, limit))
    }

    fn settle_showings(&self, shown: Vec<Shown>) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.ask(|reply| Job::Change(Change::settle_showings(shown, reply)))
    }

    fn show_again(&self, command_id: CommandId) -> BoxFuture<'static, Result<ShowAgain, AcceptError>> {
        self.ask(|reply| Job::Change(Change::show_again(command_id, reply)))
    }
}

impl Findings for SqliteLedger {
    fn unasked(&self, reach: Reach, limit: usize) -> BoxFuture<'static, Result<Page, LookError>> {
        self.look("read published commands from", move |reader| reader.unasked(reach, limit))
    }

    fn findings(
        &self,
        which: Which,
        after: Seq,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Candidate>, LookError>> {
        self.look("read the findings of", move |reader| reader.findings(which, after, limit))
    }

    fn overview(&self) -> BoxFuture<'static, Result<Overview, LookError>> {
        self.look("count the findings of", Reader::overview)
    }

    fn reconciled(&self, reconciled: Reconciled) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.ask(|reply| Job::Change(Change::reconciled(reconciled, reply)))
    }
}

impl Drop for SqliteLedger {
    fn drop(&mut self) {
        let threads = self.threads.get_mut().ok().and_then(Option::take);
        if let Some(threads) = threads {
            // The writer may have ended already.
            self.jobs.send(Job::Flush(oneshot::channel().0)).ok();
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
