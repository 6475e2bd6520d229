//! The one writer thread: a bounded queue in, many accepts per commit, a reply for each.
//!
//! While one commit waits for the disk, the next accepts queue up and go into the next commit. So throughput grows with
//! the load, and all who wait share one sync. Where the disk is so fast that few would share, commits in close
//! succession begin a millisecond apart; a single one never waits.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use super::{
    changes::Change,
    files::Files,
    prune, refusals,
    rows::{self, Appended},
    shared::Shared,
    waiting::{Accepting, Job, Waiting},
    window::{Spans, Window},
};
use crate::{
    command::Seq,
    ledger::{AcceptError, Entry, Limits, Receipt, RefusedCallback, Settlement, retention::Pass},
    telemetry::failpoint::reach,
    time::Timestamp,
};

/// How long settlements and refused callbacks wait for accepts to share a commit with.
const LAZY: Duration = Duration::from_millis(50);
/// Minimum time between the starts of two commits, if several accepts shared the first and it had room for more.
///
/// Fewer commits save a fifth of the program's CPU at half load. Less busy cores help the slowest callbacks more than a
/// millisecond costs. A slower disk sets the pace by itself.
const APART: Duration = Duration::from_millis(1);
/// Refused callbacks per commit: a flood of them must not keep accepts waiting.
const REFUSED_PER_COMMIT: usize = 64;
/// Fresh commands kept for the relay, in bytes; beyond that it reads the log.
const FRESH_BYTES: usize = 4 << 20;
/// Between two commits that prune.
const PRUNE_PAUSE: Duration = Duration::from_millis(50);
/// When to look again if nothing is left to prune.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) files: Files,
    pub(super) jobs: Receiver<Job>,
    pub(super) shared: Arc<Shared>,
    pub(super) max_batch: usize,
    pub(super) window: Window,
    pub(super) started: Instant,
    pub(super) next_seq: Seq,
    /// When to prune expired contexts, and commands older than the retention.
    pub(super) prune_at: Instant,
    /// What has been looked at.
    pub(super) pass: Pass,
}

/// What one commit writes.
struct Batch<'a> {
    accepts: &'a mut [Accepting],
    changes: &'a mut [Change],
    settlements: &'a [(Settlement, oneshot::Sender<Result<(), AcceptError>>)],
    refused: &'a [RefusedCallback],
    probe: bool,
    prune: bool,
}

impl Batch<'_> {
    /// Whether there is something in it that people watch.
    fn is_watched(&self) -> bool {
        let Self { accepts, changes, settlements, refused, probe: _, prune: _ } = self;
        !(accepts.is_empty() && changes.is_empty() && settlements.is_empty() && refused.is_empty())
    }
}

/// What one commit did.
struct Done {
    receipts: Vec<Receipt>,
    /// Where the pass is after it, if it pruned.
    pass: Option<Pass>,
}

/// Why a commit promises nothing.
enum Failed {
    Sqlite(rusqlite::Error),
    /// Committed and synced to a file that nobody will find again.
    Gone(PathBuf),
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Writer {
    fn now_ms(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn poisoned(&self) -> bool {
        self.shared.poisoned.load(Ordering::Acquire)
    }

    /// Runs until flushed, or until all senders are gone.
    pub(super) fn run(mut self) {
        let mut waiting = Waiting { accepts: Vec::with_capacity(self.max_batch), ..Waiting::default() };
        let mut not_before = Instant::now();
        loop {
            let mut next = match self.next_job(&waiting) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            // Sleep here and not on the queue: then callers have no thread to wake.
            thread::sleep(not_before.saturating_duration_since(Instant::now()));
            while let Some(job) = next {
                waiting.take_in(job);
                if waiting.accepts.len() >= self.max_batch || waiting.flush.is_some() {
                    break;
                }
                next = self.jobs.try_recv().ok();
            }
            if let Some(older) = waiting.older.take() {
                let now_ms = self.now_ms();
                // The reader may have been stopped.
                older.more.send(self.window.recall(&older.seen, now_ms)).ok();
                self.count_remembered();
            }
            let lazy = &mut waiting.lazy;
            if !lazy.is_empty() && lazy.since.is_none() {
                lazy.since = Some(Instant::now());
            }
            let due = lazy.since.is_some_and(|since| since.elapsed() >= LAZY)
                || Instant::now() >= self.prune_at
                || waiting.flush.is_some();
            if due || !waiting.accepts.is_empty() || !waiting.changes.is_empty() || !waiting.probes.is_empty()
            {
                if (2..self.max_batch).contains(&waiting.accepts.len()) {
                    not_before = Instant::now() + APART;
                }
                self.commit(&mut waiting);
            }
            if waiting.flush.is_some() && !waiting.left_over() {
                break;
            }
        }
        while waiting.left_over() && !self.poisoned() {
            self.commit(&mut waiting);
        }
        // A clean end leaves one file without a log. If a reader is in the way, the next start does it.
        if !self.poisoned()
            && let Err(error) = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        {
            tracing::debug!(%error, "last ledger checkpoint skipped; the next start makes it");
        }
        drop(self.connection);
        if let Some(reply) = waiting.flush {
            // The caller may have given up.
            reply.send(()).ok();
        }
    }

    /// Waits for a job, at most until waiting work is due.
    fn next_job(&self, waiting: &Waiting) -> Result<Job, RecvTimeoutError> {
        let until = match waiting.lazy.since {
            // What the last commit had no room for.
            _ if !waiting.changes.is_empty() => Instant::now(),
            Some(since) => self.prune_at.min(since + LAZY),
            None => self.prune_at,
        };
        self.jobs.recv_timeout(until.saturating_duration_since(Instant::now()))
    }

    fn commit(&mut self, waiting: &mut Waiting) {
        if self.poisoned() {
            // Otherwise pruning would stay due and the loop would spin.
            self.prune_at = Instant::now() + PRUNE_EVERY;
            waiting.refuse(&self.shared, Vec::new());
            return;
        }
        let now_ms = self.now_ms();
        let limits = self.shared.limits();
        self.reach(super::spans(&limits), now_ms);
        self.window.advance(now_ms);
        let mut appended = Appended::default();
        let mut changes = waiting.take_changes();
        let lazy = &mut waiting.lazy;
        let refused = lazy.refused.take(REFUSED_PER_COMMIT);
        let batch = Batch {
            accepts: &mut waiting.accepts,
            changes: &mut changes,
            settlements: &lazy.settlements,
            refused: &refused,
            probe: !waiting.probes.is_empty(),
            prune: Instant::now() >= self.prune_at,
        };
        let prune = batch.prune;
        let watched = batch.is_watched();
        let done = self.transact(batch, &limits, &mut appended, now_ms);
        self.shared.refused.written(&refused);
        if prune {
            let pass = done.as_ref().ok().and_then(|done| done.pass.clone()).filter(|pass| !pass.is_over());
            self.prune_at = Instant::now() + if pass.is_some() { PRUNE_PAUSE } else { PRUNE_EVERY };
            self.pass = pass.unwrap_or(Pass::BEGIN);
        }
        match done {
            Ok(done) => {
                // INVARIANT 1: the commit has returned, so the sync has.
                self.shared.waiting.fetch_sub(waiting.accepts.len(), Ordering::Relaxed);
                self.shared.commits.fetch_add(1, Ordering::Relaxed);
                // Before the receipts: a caller with a receipt finds the command in `head`.
                self.hand_on(appended.entries);
                for (accepting, receipt) in waiting.accepts.drain(..).zip(done.receipts) {
                    self.shared.memory.note(&receipt, accepting.command.received_at);
                    // An approver whose connection is gone gets the duplicate at the next tap.
                    accepting.reply.send(Ok(receipt)).ok();
                }
                reach("ledger:replied");
                for change in changes {
                    change.tell(true);
                }
                for (_, reply) in lazy.settlements.drain(..) {
                    reply.send(Ok(())).ok();
                }
                for reply in waiting.probes.drain(..) {
                    reply.send(Ok(())).ok();
                }
                lazy.since = (!lazy.is_empty()).then(Instant::now);
            }
            Err(failed) => {
                refused.into_iter().for_each(|one| self.shared.refused.drop_one(one));
                for displaced in appended.remembered.into_iter().rev() {
                    self.window.take_back(displaced);
                }
                self.next_seq -= appended.entries.len() as Seq;
                self.tell(&failed);
                waiting.refuse(&self.shared, changes);
            }
        }
        if watched {
            // Also if it failed: then there is something to see as well.
            self.shared.memory.changes.add();
        }
        self.count_remembered();
        if self.shared.wal_full.swap(false, Ordering::Relaxed) && !self.poisoned() {
            self.finish_checkpoint();
        }
    }

    fn count_remembered(&self) {
        self.shared.remembered.store(self.window.len() as u64, Ordering::Relaxed);
        self.shared.forgotten.store(self.window.forgotten(), Ordering::Relaxed);
    }

    /// Records and logs why a commit failed.
    fn tell(&self, failed: &Failed) {
        let path = self.path.display();
        match failed {
            Failed::Gone(file) => {
                self.shared.poisoned.store(true, Ordering::Release);
                let file = file.display();
                tracing::error!(%file, "a ledger file was removed or replaced while in use; nothing is accepted until countersign restarts with the file in place");
            }
            Failed::Sqlite(error) if self.shared.poison_by(error) => {
                tracing::error!(%error, %path, "ledger disk failed; nothing is accepted until countersign restarts on a healthy disk");
            }
            Failed::Sqlite(error) => {
                tracing::error!(%error, %path, "ledger commit failed; callbacks are refused until commits work again");
            }
        }
    }

    /// Changes how far back the window reaches. A longer `dedupe_window` is read from the log at once, since answers
    /// depend on it; what only marks repeats then starts empty.
    fn reach(&mut self, spans: Spans, now_ms: i64) {
        if spans.exact <= self.window.spans().exact {
            return self.window.reach(spans);
        }
        match super::rebuild(&self.connection, spans, now_ms) {
            Ok(rebuilt) => self.window = rebuilt.window,
            Err(error) => {
                tracing::warn!(%error, "cannot extend the window; retrying at the next commit")
            }
        }
    }

    fn transact(
        &mut self,
        batch: Batch<'_>,
        limits: &Limits,
        appended: &mut Appended,
        now_ms: i64,
    ) -> Result<Done, Failed> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        reach("ledger:begun");
        let mut receipts = Vec::with_capacity(batch.accepts.len());
        for accepting in batch.accepts {
            let receipt = rows::accept(
                &transaction,
                &mut self.window,
                &mut self.next_seq,
                accepting,
                appended,
                now_ms,
            )?;
            reach("ledger:appended");
            receipts.push(receipt);
        }
        for change in batch.changes {
            change.apply(&transaction)?;
            reach("ledger:registered");
        }
        for (settlement, _) in batch.settlements {
            rows::settle(&transaction, settlement)?;
            reach("ledger:settled");
        }
        if !batch.refused.is_empty() {
            refusals::keep(&transaction, batch.refused, limits.refusals_kept)?;
            reach("ledger:refused");
        }
        let now = Timestamp::now();
        let mut pass = None;
        if batch.prune {
            let below = self.window.oldest(now_ms).unwrap_or(prune::EVERYWHERE);
            pass = Some(prune::advance(&transaction, &self.pass, limits, now, below)?);
            reach("ledger:pruned");
        }
        if batch.probe {
            transaction.execute("UPDATE cursor SET probed_at = ?1", [now.as_millisecond()])?;
        }
        reach("ledger:written");
        transaction.commit()?;
        reach("ledger:committed");
        if let Some(gone) = self.files.missing() {
            return Err(Failed::Gone(gone.to_owned()));
        }
        Ok(Done { receipts, pass })
    }

    /// Notifies the relay. Entries are passed in memory if there is room, the new head always.
    fn hand_on(&self, entries: Vec<Entry>) {
        let Some(last) = entries.last() else { return };
        let head = last.seq;
        if self.shared.fresh_wanted.load(Ordering::Relaxed) {
            let mut fresh = self.shared.fresh.lock().expect("nobody panics with the lock");
            if fresh.bytes < FRESH_BYTES {
                fresh.bytes += entries.iter().map(|entry| entry.body.len() + 256).sum::<usize>();
                fresh.entries.extend(entries);
            }
        }
        self.shared.head.send_replace(head);
        reach("ledger:handed_on");
    }

    /// Finishes a checkpoint that the checkpointer cannot, because the writer keeps appending. Here it does not, so all
    /// pages are copied and the log restarts.
    fn finish_checkpoint(&mut self) {
        let before = Instant::now();
        let done = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        match done {
            Ok((pages, moved)) => {
                tracing::debug!(pages, moved, took = ?before.elapsed(), "checkpoint by the writer");
            }
            Err(error) => {
                self.shared.poison_by(&error);
                tracing::error!(%error, "ledger checkpoint failed");
            }
        }
    }
}
