//! The one writer thread: a bounded queue in, many accepts per commit, a reply for each.
//!
//! While one commit waits for the disk, the next accepts queue up; they all go into the next commit. So the rate grows
//! with the load, one sync is shared by everybody who waited for it, and nobody waits for a timer.

use std::{
    collections::VecDeque,
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::{oneshot, watch};

use super::window::{Kind, Window};
use crate::{
    command::{Command, CommandId, Fingerprint, Seq, TaskKey, id::DecisionKey, message, message::Envelope},
    ledger::{AcceptError, Entry, OnConflict, Receipt, Refused, Settlement},
};

/// Settlements and refused callbacks wait this long for accepts to share a commit with.
const LAZY: Duration = Duration::from_millis(50);
/// Refused callbacks written in one commit: a flood of them must not keep accepts waiting.
const REFUSED_PER_COMMIT: usize = 64;
/// Fresh commands kept for the relay; beyond that it reads the log.
const FRESH_BYTES: usize = 4 << 20;
/// The write-ahead log beyond which the writer itself finishes what the checkpointer began.
pub(super) const WAL_FULL_BYTES: u64 = 32 << 20;

/// A command on its way to the log.
pub(super) struct Accepting {
    pub(super) command: Command,
    pub(super) body: Vec<u8>,
    pub(super) fingerprint: Fingerprint,
    pub(super) decision_key: DecisionKey,
    pub(super) task_key: TaskKey,
    pub(super) window: Duration,
    pub(super) on_conflict: OnConflict,
    pub(super) reply: oneshot::Sender<Result<Receipt, AcceptError>>,
}

/// What the writer is asked to do.
pub(super) enum Job {
    Accept(Box<Accepting>),
    Refused(Box<Refused>),
    Settle(Settlement, oneshot::Sender<Result<(), AcceptError>>),
    Probe(oneshot::Sender<Result<(), AcceptError>>),
    Flush(oneshot::Sender<()>),
}

/// What the writer shares with everybody.
pub(super) struct Shared {
    /// Accepts handed over and not yet answered.
    pub(super) waiting: AtomicUsize,
    /// Refused callbacks handed over and not yet written.
    pub(super) refused_waiting: AtomicUsize,
    /// True while somebody takes fresh commands.
    pub(super) fresh_wanted: AtomicBool,
    pub(super) fresh: Mutex<Fresh>,
    pub(super) head: watch::Sender<Seq>,
    /// Set by the checkpointer when the log has grown although it works.
    pub(super) wal_full: AtomicBool,
}

/// Commands that were committed lately, for the relay.
#[derive(Default)]
pub(super) struct Fresh {
    pub(super) entries: Vec<Entry>,
    pub(super) bytes: usize,
}

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) jobs: Receiver<Job>,
    pub(super) shared: Arc<Shared>,
    pub(super) max_batch: usize,
    pub(super) refusals_kept: u64,
    pub(super) window: Window,
    pub(super) started: Instant,
    pub(super) next_seq: Seq,
    /// Set by an error after which nobody knows what is on the disk. Nothing is promised from then on: a later sync that
    /// succeeds says nothing about pages whose write failed before (https://lwn.net/Articles/752063/).
    pub(super) poisoned: bool,
}

/// What waits for the next commit without anybody waiting for it urgently.
#[derive(Default)]
struct Lazy {
    settlements: Vec<(Settlement, oneshot::Sender<Result<(), AcceptError>>)>,
    refused: VecDeque<Box<Refused>>,
    since: Option<Instant>,
}

impl Lazy {
    fn is_empty(&self) -> bool {
        self.settlements.is_empty() && self.refused.is_empty()
    }
}

/// What one commit appended, until it is known whether it succeeded.
#[derive(Default)]
struct Appended {
    entries: Vec<Entry>,
    remembered: Vec<(Kind, u64, Seq)>,
}

impl Writer {
    /// Works until it is flushed, or nobody is left to ask for anything.
    pub(super) fn run(mut self) {
        let mut lazy = Lazy::default();
        let mut batch: Vec<Accepting> = Vec::with_capacity(self.max_batch);
        let mut flush = None;
        loop {
            let first = match lazy.since {
                None => self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(since) => {
                    self.jobs.recv_timeout((since + LAZY).saturating_duration_since(Instant::now()))
                }
            };
            let mut next = match first {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let mut probes = Vec::new();
            while let Some(job) = next {
                match job {
                    Job::Accept(accepting) => batch.push(*accepting),
                    Job::Refused(refused) => lazy.refused.push_back(refused),
                    Job::Settle(settlement, reply) => lazy.settlements.push((settlement, reply)),
                    Job::Probe(reply) => probes.push(reply),
                    Job::Flush(reply) => flush = Some(reply),
                }
                if batch.len() >= self.max_batch || flush.is_some() {
                    break;
                }
                next = self.jobs.try_recv().ok();
            }
            if !lazy.is_empty() && lazy.since.is_none() {
                lazy.since = Some(Instant::now());
            }
            let lazy_due = lazy.since.is_some_and(|since| since.elapsed() >= LAZY);
            if !batch.is_empty() || !probes.is_empty() || lazy_due || flush.is_some() {
                self.commit(&mut batch, &mut lazy, probes);
            }
            if flush.is_some() && lazy.is_empty() {
                break;
            }
        }
        while !lazy.is_empty() && !self.poisoned {
            self.commit(&mut batch, &mut lazy, Vec::new());
        }
        // A clean end leaves one file without a log beside it; if a reader is in the way, the next start does it.
        if let Err(error) = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            tracing::debug!(%error, "the last checkpoint of the ledger was left to the next start");
        }
        drop(self.connection);
        if let Some(reply) = flush {
            // Nobody waits any more if the caller's patience ended before.
            reply.send(()).ok();
        }
    }

    fn commit(
        &mut self,
        batch: &mut Vec<Accepting>,
        lazy: &mut Lazy,
        probes: Vec<oneshot::Sender<Result<(), AcceptError>>>,
    ) {
        if self.poisoned {
            refuse(&self.shared, batch, lazy, probes);
            return;
        }
        let now_ms = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.window.advance(now_ms);
        let mut appended = Appended::default();
        let refused: Vec<_> = lazy.refused.drain(..lazy.refused.len().min(REFUSED_PER_COMMIT)).collect();
        let done =
            self.transact(batch, &lazy.settlements, &refused, !probes.is_empty(), &mut appended, now_ms);
        self.shared.refused_waiting.fetch_sub(refused.len(), Ordering::Relaxed);
        match done {
            Ok(receipts) => {
                // INVARIANT 1: the commit has returned, so the sync has.
                self.shared.waiting.fetch_sub(batch.len(), Ordering::Relaxed);
                for (accepting, receipt) in batch.drain(..).zip(receipts) {
                    // An approver whose connection is gone finds the duplicate when the tap is repeated.
                    accepting.reply.send(Ok(receipt)).ok();
                }
                self.hand_on(appended.entries);
                for (_, reply) in lazy.settlements.drain(..) {
                    reply.send(Ok(())).ok();
                }
                for reply in probes {
                    reply.send(Ok(())).ok();
                }
                lazy.since = (!lazy.is_empty()).then(Instant::now);
            }
            Err(error) => {
                for (kind, key, seq) in appended.remembered {
                    self.window.remove(kind, key, seq);
                }
                self.next_seq -= appended.entries.len() as Seq;
                self.poisoned = poisons(&error);
                let path = self.path.display();
                if self.poisoned {
                    tracing::error!(%error, %path, "the ledger's disk failed; nothing is accepted until countersign is started again on a sound disk");
                } else {
                    tracing::error!(%error, %path, "a commit to the ledger failed; callbacks are refused until it works again");
                }
                refuse(&self.shared, batch, lazy, probes);
            }
        }
        if self.shared.wal_full.swap(false, Ordering::Relaxed) {
            self.finish_checkpoint();
        }
    }

    fn transact(
        &mut self,
        batch: &mut [Accepting],
        settlements: &[(Settlement, oneshot::Sender<Result<(), AcceptError>>)],
        refused: &[Box<Refused>],
        probe: bool,
        appended: &mut Appended,
        now_ms: i64,
    ) -> rusqlite::Result<Vec<Receipt>> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut receipts = Vec::with_capacity(batch.len());
        for accepting in batch {
            let receipt =
                accept(&transaction, &mut self.window, &mut self.next_seq, accepting, appended, now_ms)?;
            receipts.push(receipt);
        }
        for (settlement, _) in settlements {
            settle(&transaction, settlement)?;
        }
        if !refused.is_empty() {
            keep_refused(&transaction, refused, self.refusals_kept)?;
        }
        if probe {
            let now = Timestamp::now().as_millisecond();
            transaction.execute("UPDATE cursor SET probed_at = ?1", [now])?;
        }
        transaction.commit()?;
        Ok(receipts)
    }

    /// Tells the relay. Entries go by memory if there is room, and the new head in any case.
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
    }

    /// Finishes a checkpoint that other connections cannot, because the writer keeps appending: for this once it does
    /// not, so all pages get copied and the log begins anew.
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
                self.poisoned = poisons(&error);
                tracing::error!(%error, "a checkpoint of the ledger failed");
            }
        }
    }
}

/// True if an error leaves it unknown what is on the disk.
fn poisons(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, SystemIoFailure};
    matches!(error.sqlite_error_code(), Some(SystemIoFailure | DatabaseCorrupt | NotADatabase))
}

fn refuse(
    shared: &Shared,
    batch: &mut Vec<Accepting>,
    lazy: &mut Lazy,
    probes: Vec<oneshot::Sender<Result<(), AcceptError>>>,
) {
    shared.waiting.fetch_sub(batch.len(), Ordering::Relaxed);
    for accepting in batch.drain(..) {
        accepting.reply.send(Err(AcceptError::Unavailable)).ok();
    }
    for (_, reply) in lazy.settlements.drain(..) {
        reply.send(Err(AcceptError::Unavailable)).ok();
    }
    for reply in probes {
        reply.send(Err(AcceptError::Unavailable)).ok();
    }
    // Refused callbacks are told for information; what cannot be written now is not worth holding on to.
    shared.refused_waiting.fetch_sub(lazy.refused.len(), Ordering::Relaxed);
    lazy.refused.clear();
    lazy.since = None;
}

/// Looks for the same callback and for a contradiction, and appends the command.
///
/// INVARIANT 2: the look-ups, the insert, and the entry in `rounds` are one transaction; the window in memory is
/// extended here, so that a repeat within the same commit is seen too, and cut back if the commit fails.
fn accept(
    transaction: &Transaction<'_>,
    window: &mut Window,
    next_seq: &mut Seq,
    accepting: &mut Accepting,
    appended: &mut Appended,
    now_ms: i64,
) -> rusqlite::Result<Receipt> {
    if let Some(command_id) = duplicate(transaction, window, accepting, now_ms)? {
        return Ok(Receipt::Duplicate { command_id });
    }
    if let Some(with) = contradicted(transaction, window, accepting, now_ms)? {
        if accepting.on_conflict == OnConflict::Refuse {
            return Ok(Receipt::Conflicting { with });
        }
        accepting.command.conflicts_with = Some(with);
        accepting.body = message::render(&accepting.command);
    }
    let seq = *next_seq;
    append(transaction, seq, accepting)?;
    *next_seq += 1;
    for (kind, key) in
        [(Kind::Fingerprint, accepting.fingerprint.short()), (Kind::Decision, accepting.decision_key.short())]
    {
        window.insert(kind, key, seq, now_ms);
        appended.remembered.push((kind, key, seq));
    }
    appended.entries.push(Entry {
        seq,
        task_key: accepting.task_key,
        envelope: Envelope::of(&accepting.command),
        body: std::mem::take(&mut accepting.body),
    });
    Ok(Receipt::Accepted { command_id: accepting.command.command_id })
}

fn duplicate(
    transaction: &Transaction<'_>,
    window: &Window,
    accepting: &Accepting,
    now_ms: i64,
) -> rusqlite::Result<Option<CommandId>> {
    if accepting.command.task.round.is_some() {
        return transaction
            .prepare_cached("SELECT command_id FROM rounds WHERE fingerprint = ?1")?
            .query_row([accepting.fingerprint.as_bytes().as_slice()], |row| {
                row.get(0).map(CommandId::from_bytes)
            })
            .optional();
    }
    let Some(seq) = window.find(Kind::Fingerprint, accepting.fingerprint.short(), now_ms, accepting.window)
    else {
        return Ok(None);
    };
    transaction
        .prepare_cached("SELECT command_id FROM commands WHERE seq = ?1 AND fingerprint = ?2")?
        .query_row(params![seq as i64, accepting.fingerprint.as_bytes()], |row| {
            row.get(0).map(CommandId::from_bytes)
        })
        .optional()
}

fn contradicted(
    transaction: &Transaction<'_>,
    window: &Window,
    accepting: &Accepting,
    now_ms: i64,
) -> rusqlite::Result<Option<CommandId>> {
    let Some(seq) = window.find(Kind::Decision, accepting.decision_key.short(), now_ms, accepting.window)
    else {
        return Ok(None);
    };
    transaction
        .prepare_cached(
            "SELECT command_id FROM commands WHERE seq = ?1 AND decision_key = ?2 AND action_type <> ?3",
        )?
        .query_row(
            params![seq as i64, accepting.decision_key.as_bytes(), accepting.command.action_type],
            |row| row.get(0).map(CommandId::from_bytes),
        )
        .optional()
}

fn append(transaction: &Transaction<'_>, seq: Seq, accepting: &Accepting) -> rusqlite::Result<()> {
    let command = &accepting.command;
    transaction
        .prepare_cached(
            "INSERT INTO commands (seq, command_id, received_at, endpoint, action, action_type, user_id,
                approval_code, instance_id, task_id, task_key, fingerprint, decision_key, message)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .execute(params![
            seq as i64,
            command.command_id.as_bytes(),
            command.received_at.as_millisecond(),
            &*command.endpoint,
            command.action.as_str(),
            command.action_type,
            command.user_id,
            command.approval_code,
            command.task.instance_id,
            command.task.task_id,
            accepting.task_key.get() as i64,
            accepting.fingerprint.as_bytes(),
            accepting.decision_key.as_bytes(),
            accepting.body,
        ])?;
    if command.task.round.is_some() {
        transaction
            .prepare_cached("INSERT INTO rounds (fingerprint, command_id) VALUES (?1, ?2)")?
            .execute(params![accepting.fingerprint.as_bytes(), command.command_id.as_bytes()])?;
    }
    Ok(())
}

fn settle(transaction: &Transaction<'_>, settlement: &Settlement) -> rusqlite::Result<()> {
    if let Some(through) = settlement.through {
        transaction
            .prepare_cached("UPDATE cursor SET published_through = max(published_through, ?1)")?
            .execute([through as i64])?;
    }
    for seq in &settlement.cleared {
        transaction.prepare_cached("DELETE FROM exceptions WHERE seq = ?1")?.execute([*seq as i64])?;
    }
    let now = Timestamp::now().as_millisecond();
    for exception in &settlement.exceptions {
        transaction
            .prepare_cached(
                "INSERT INTO exceptions (seq, state, attempts, next_attempt_at, changed_at, note)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (seq) DO UPDATE SET state = ?2, attempts = ?3, next_attempt_at = ?4, changed_at = ?5,
                    note = ?6",
            )?
            .execute(params![
                exception.seq as i64,
                exception.state.as_str(),
                exception.attempts,
                exception.next_attempt_at.as_millisecond(),
                now,
                exception.reason,
            ])?;
    }
    Ok(())
}

fn keep_refused(transaction: &Transaction<'_>, refused: &[Box<Refused>], kept: u64) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO refusals (refused_at, endpoint, reason, detail, peer, body_bytes, action_type, user_id,
            approval_code, instance_id, task_id, message_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    for one in refused {
        insert.execute(params![
            one.refused_at.as_millisecond(),
            one.endpoint,
            one.reason,
            one.detail,
            one.peer,
            one.body_bytes as i64,
            one.action_type,
            one.user_id,
            one.approval_code,
            one.instance_id,
            one.task_id,
            one.message_id,
        ])?;
    }
    transaction
        .prepare_cached("DELETE FROM refusals WHERE id <= (SELECT max(id) FROM refusals) - ?1")?
        .execute([i64::try_from(kept).unwrap_or(i64::MAX)])?;
    Ok(())
}

/// Copies pages from the write-ahead log to the database beside the writer, so that no commit has to.
///
/// Ends when `stop` is set and it is unparked.
pub(super) fn checkpoint(connection: &Connection, wal: &std::path::Path, shared: &Shared, stop: &AtomicBool) {
    const CHECK_EVERY: Duration = Duration::from_millis(200);
    const WORTH_IT_BYTES: u64 = 4 << 20;
    let mut done_at = 0;
    while !stop.load(Ordering::Acquire) {
        std::thread::park_timeout(CHECK_EVERY);
        let bytes = fs::metadata(wal).map(|wal| wal.len()).unwrap_or(0);
        // The file keeps its size when the log begins anew inside it, so size alone says only that there was a lot.
        let head = *shared.head.borrow();
        if bytes < WORTH_IT_BYTES || head == done_at {
            continue;
        }
        let result = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        match result {
            Ok((pages, moved)) => {
                done_at = head;
                // 4 KiB a page; what is left is what was appended meanwhile.
                let pages_bytes = u64::try_from(pages).unwrap_or(0) * 4096;
                if moved < pages && pages_bytes > WAL_FULL_BYTES {
                    shared.wal_full.store(true, Ordering::Relaxed);
                }
            }
            Err(error) => tracing::warn!(%error, "a checkpoint of the ledger failed and is tried again"),
        }
    }
}
