//! Accepts: one call of a function for each batch, which holds the lock of the log for no longer than its own commit.
//!
//! While one batch is under way the next accepts queue up, and go together. A batch whose commit is in doubt is sent again:
//! the function finds its own commands by their ids.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::{
    Error, blockers,
    durability::Demands,
    link::Link,
    shared::Shared,
    values::{Columns, text, uuid, values},
};
use crate::{
    command::{Command, CommandId, Fingerprint, TaskKey, id::DecisionKey, message, message::Envelope},
    ledger::{AcceptError, Entry, OnConflict, Receipt},
    telemetry::log::chain,
};

/// A callback waits this long for PostgreSQL: the platform gives up after 5 s (platform.md#callback-transport).
pub(super) const HOLD: Duration = Duration::from_secs(3);

/// A failure that lasts is logged again after this long.
const REMIND: Duration = Duration::from_secs(30);

/// What is left of [`HOLD`] for everything but the wait for the lock, which ends before the statement is given up.
const SLACK: Duration = Duration::from_secs(1);

/// Before a batch that failed is sent again.
const AGAIN: Duration = Duration::from_millis(100);

/// A command on its way to the log.
pub(super) struct Accepting {
    pub(super) command: Command,
    /// The rendered body, without contradiction and repeat, around the values of the two.
    pub(super) body: message::Parts,
    pub(super) fingerprint: Fingerprint,
    pub(super) decision_key: DecisionKey,
    pub(super) task_key: TaskKey,
    pub(super) window: Duration,
    pub(super) repeats_window: Duration,
    pub(super) on_conflict: OnConflict,
    pub(super) since: Instant,
    pub(super) reply: oneshot::Sender<Result<Receipt, AcceptError>>,
}

pub(super) enum Job {
    Accept(Box<Accepting>),
    Probe(oneshot::Sender<Result<(), AcceptError>>),
    Flush(oneshot::Sender<()>),
}

pub(super) struct Writer {
    pub(super) link: Link,
    pub(super) reads: Link,
    pub(super) jobs: mpsc::UnboundedReceiver<Job>,
    pub(super) shared: Arc<Shared>,
    pub(super) max_batch: usize,
    pub(super) demands: Demands,
    /// When a failure was logged last; `None` while commits succeed.
    pub(super) failing: Option<Instant>,
}

impl Writer {
    /// Works until it is flushed, or nobody is left to ask for anything.
    pub(super) async fn run(mut self) {
        let mut waiting: VecDeque<Accepting> = VecDeque::new();
        let mut flush = None;
        while flush.is_none() || !waiting.is_empty() {
            let mut next =
                if waiting.is_empty() { self.jobs.recv().await } else { self.jobs.try_recv().ok() };
            if next.is_none() && waiting.is_empty() {
                return;
            }
            while let Some(job) = next {
                match job {
                    Job::Accept(accepting) => waiting.push_back(*accepting),
                    // While the server hangs, those that asked have given up.
                    Job::Probe(reply) if reply.is_closed() => {}
                    Job::Probe(reply) => drop(reply.send(self.probe().await)),
                    Job::Flush(reply) => flush = Some(reply),
                }
                next = if flush.is_some() { None } else { self.jobs.try_recv().ok() };
            }
            if !waiting.is_empty() {
                let batch = take_batch(&mut waiting, self.max_batch);
                self.commit(batch).await;
            }
        }
        if let Some(reply) = flush {
            // Nobody waits any more if the caller's patience ended before.
            reply.send(()).ok();
        }
    }

    /// A batch of nothing is a commit all the same.
    async fn probe(&mut self) -> Result<(), AcceptError> {
        let answered = call(&self.link, &[], self.demands, HOLD - SLACK, false).await;
        self.judged(answered).await.map(drop)
    }

    /// What a call came to, for callers. Logs the first of several failures, another now and then, and the end.
    async fn judged<T>(&mut self, answered: Result<T, Error>) -> Result<T, AcceptError> {
        let error = match answered {
            Ok(answer) => {
                if self.failing.take().is_some() {
                    tracing::info!("PostgreSQL keeps decisions again; callbacks are accepted");
                }
                return Ok(answer);
            }
            Err(error) => error,
        };
        if self.failing.is_none_or(|logged_at| logged_at.elapsed() >= REMIND) {
            tracing::error!("PostgreSQL keeps no decisions, callbacks are refused: {}", chain(&error));
            if error.is_lock() {
                blockers::log(&self.reads).await;
            }
            self.failing = Some(Instant::now());
        }
        Err(if matches!(error, Error::NotDurable(_)) {
            AcceptError::NotDurable
        } else {
            AcceptError::Unavailable
        })
    }

    async fn commit(&mut self, mut batch: Vec<Accepting>) {
        let (mut failed, mut again) = (None, false);
        let answered = loop {
            let late: Vec<_>;
            (batch, late) = batch.into_iter().partition(|one| one.since.elapsed() < HOLD);
            if !late.is_empty() {
                let error = failed.take().unwrap_or(Error::TimedOut);
                let judged = self.judged::<()>(Err(error)).await;
                self.refuse(late, judged.err().unwrap_or(AcceptError::Unavailable));
            }
            let Some(oldest) = batch.iter().map(|one| one.since).min() else { return };
            let patience = HOLD.saturating_sub(oldest.elapsed()).saturating_sub(SLACK).max(AGAIN);
            match call(&self.link, &batch, self.demands, patience, again).await {
                Ok(answers) => break Ok(answers),
                Err(error) if error.is_passing() => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "a batch of accepts is sent again"
                    );
                    (failed, again) = (Some(error), true);
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => break Err(error),
            }
        };
        let answers = match self.judged(answered).await {
            Ok(answers) => answers,
            Err(why) => return self.refuse(batch, why),
        };
        self.shared.waiting.fetch_sub(batch.len(), Ordering::Relaxed);
        let server = answers.first().map(|answer| answer.server);
        let mut entries = Vec::new();
        for (one, answer) in batch.iter_mut().zip(&answers) {
            entries.extend(answer.entry(one));
        }
        // Before the receipts: a caller that has one finds the command in `head`.
        if let Some(server) = server {
            self.shared.accepted(entries, server);
        }
        self.shared.memory.changes.add();
        for (one, answer) in batch.into_iter().zip(answers) {
            self.shared.memory.note(&answer.receipt, one.command.received_at);
            one.reply.send(Ok(answer.receipt)).ok();
        }
    }

    /// What was sent before may be kept all the same.
    fn refuse(&self, refused: Vec<Accepting>, why: AcceptError) {
        self.shared.waiting.fetch_sub(refused.len(), Ordering::Relaxed);
        for one in refused {
            one.reply.send(Err(why)).ok();
        }
    }
}

/// Takes up to `limit`, of which no two have the same fingerprint or decision key; what is left keeps its order.
fn take_batch(waiting: &mut VecDeque<Accepting>, limit: usize) -> Vec<Accepting> {
    let (mut fingerprints, mut decisions) = (HashSet::new(), HashSet::new());
    let (mut batch, mut left) = (Vec::new(), VecDeque::new());
    for one in waiting.drain(..) {
        let is_new = [fingerprints.insert(one.fingerprint), decisions.insert(one.decision_key)];
        if batch.len() < limit && is_new == [true, true] {
            batch.push(one);
        } else {
            left.push_back(one);
        }
    }
    *waiting = left;
    batch
}

/// What the function says of one command.
struct Answer {
    receipt: Receipt,
    /// By which server.
    server: i64,
    /// Set if it was appended by this very call.
    appended: Option<Appended>,
}

struct Appended {
    seq: u64,
    contradicts: Option<CommandId>,
    repeats: Option<CommandId>,
}

impl Answer {
    /// The command as the relay needs it, by memory.
    fn entry(&self, accepting: &mut Accepting) -> Option<Entry> {
        let Appended { seq, contradicts, repeats } = self.appended.as_ref()?;
        let body = accepting.body.join(*contradicts, *repeats);
        let (envelope, task_key) = (Envelope::of(&accepting.command), accepting.task_key);
        Some(Entry { seq: *seq, task_key, envelope, body })
    }
}

/// Waits for the lock of the log for `patience`. `again` if a call before may have kept the batch.
async fn call(
    link: &Link,
    batch: &[Accepting],
    demands: Demands,
    patience: Duration,
    again: bool,
) -> Result<Vec<Answer>, Error> {
    let of = |get: fn(&Accepting) -> Option<&str>| -> Vec<Option<&str>> { batch.iter().map(get).collect() };
    let texts = |get: fn(&Accepting) -> &str| -> Vec<&str> { batch.iter().map(get).collect() };
    let millis = |get: fn(&Accepting) -> Duration| -> Vec<i64> {
        batch.iter().map(|one| i64::try_from(get(one).as_millis()).unwrap_or(i64::MAX)).collect()
    };
    let numbers = |get: fn(&Accepting) -> i64| -> Vec<i64> { batch.iter().map(get).collect() };
    let bytes = |get: fn(&Accepting) -> &[u8]| -> Vec<&[u8]> { batch.iter().map(get).collect() };
    let flags = |get: fn(&Accepting) -> bool| -> Vec<bool> { batch.iter().map(get).collect() };
    let ids: Vec<Uuid> = batch.iter().map(|one| uuid(one.command.command_id)).collect();
    let lead = |one: &Accepting| {
        one.command.command_id.millis().saturating_sub(one.command.received_at.as_millisecond())
    };
    // Again once it is committed: a wait for a standby also ends, without a word, when the list of standbys is emptied.
    let after = demands.needs_standby().then_some("SELECT countersign.durable_v1(true, true)");
    let rows = link
        .commit(
            "SELECT kind, seq, other, contradicts, repeats, server FROM countersign.accept_v1(
                $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26)",
            values![
                ids,
                numbers(|one| one.command.received_at.as_millisecond()),
                texts(|one| &one.command.endpoint),
                texts(|one| one.command.action.as_str()),
                batch.iter().map(|one| text(&one.command.action_type)).collect::<Vec<_>>(),
                texts(|one| &one.command.user_id),
                of(|one| one.command.approval_code.as_deref()),
                of(|one| one.command.task.instance_id.as_deref()),
                of(|one| one.command.task.task_id.as_deref()),
                of(|one| one.command.message_id.as_deref()),
                numbers(|one| one.task_key.get().cast_signed()),
                bytes(|one| one.fingerprint.as_bytes()),
                numbers(|one| one.fingerprint.short().cast_signed()),
                bytes(|one| one.decision_key.as_bytes()),
                numbers(|one| one.decision_key.short().cast_signed()),
                millis(|one| one.window),
                millis(|one| one.window.max(one.repeats_window)),
                flags(|one| one.on_conflict == OnConflict::Refuse),
                flags(|one| one.command.task.round.is_some()),
                bytes(|one| one.body.head()),
                bytes(|one| one.body.tail()),
                batch.iter().map(lead).max().unwrap_or(0),
                demands.needs_standby(),
                demands.trust_storage,
                i64::try_from(patience.as_millis()).unwrap_or(i64::MAX),
                again,
            ],
            after,
        )
        .await?;
    let answer = |(row, one): (&tokio_postgres::Row, &Accepting)| -> Result<Answer, Error> {
        let other = |column: &str| -> Result<Option<CommandId>, Error> {
            Ok(row.try_get::<_, Option<Uuid>>(column)?.map(|id| CommandId::from_bytes(*id.as_bytes())))
        };
        let missing = || Error::Unreadable("other".to_owned(), "it is absent".into());
        let command_id = one.command.command_id;
        let mut appended = None;
        let receipt = match row.try_get("kind")? {
            "duplicate" => Receipt::Duplicate { command_id: other("other")?.ok_or_else(missing)? },
            "conflicting" => Receipt::Conflicting { with: other("other")?.ok_or_else(missing)? },
            // Kept by a call before, whose answer was lost.
            "kept" => Receipt::Accepted { command_id },
            _ => {
                let (contradicts, repeats) = (other("contradicts")?, other("repeats")?);
                appended = Some(Appended { seq: row.seq("seq")?, contradicts, repeats });
                Receipt::Accepted { command_id }
            }
        };
        Ok(Answer { receipt, server: row.try_get("server")?, appended })
    };
    rows.iter().zip(batch).map(answer).collect()
}
