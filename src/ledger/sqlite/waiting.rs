//! Jobs for the writer, and which of them go into the next commits.

use std::{
    collections::VecDeque,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{changes::Change, shared::Shared, window::Seen};
use crate::{
    command::{Command, Fingerprint, TaskKey, id::DecisionKey},
    ledger::{AcceptError, OnConflict, Receipt, RefusedCallback, Settlement, refused_queue::RefusedQueue},
};

/// Rows of changes in one commit, unless a single change has more: a million contexts must not keep accepts waiting for
/// longer than one change.
const CHANGED_PER_COMMIT: usize = 256;

/// A command on its way to the log.
pub(super) struct Accepting {
    pub(super) command: Command,
    pub(super) body: Vec<u8>,
    pub(super) fingerprint: Fingerprint,
    pub(super) decision_key: DecisionKey,
    pub(super) task_key: TaskKey,
    pub(super) window: Duration,
    pub(super) repeats_window: Duration,
    pub(super) on_conflict: OnConflict,
    pub(super) reply: oneshot::Sender<Result<Receipt, AcceptError>>,
}

pub(super) enum Job {
    Accept(Box<Accepting>),
    Refused(Box<RefusedCallback>),
    Settle(Settlement, oneshot::Sender<Result<(), AcceptError>>),
    Change(Change),
    Probe(oneshot::Sender<Result<(), AcceptError>>),
    Recall(Older),
    Flush(oneshot::Sender<()>),
}

#[derive(Default)]
pub(super) struct Waiting {
    pub(super) accepts: Vec<Accepting>,
    pub(super) changes: VecDeque<Change>,
    pub(super) probes: Vec<oneshot::Sender<Result<(), AcceptError>>>,
    /// To be remembered; writes nothing.
    pub(super) older: Option<Older>,
    pub(super) lazy: Lazy,
    /// Answered when everything before it is done; then nothing more is taken.
    pub(super) flush: Option<oneshot::Sender<()>>,
}

/// Commands for the writer to remember, and the reply whether it wants older ones.
pub(super) struct Older {
    pub(super) seen: Vec<Seen>,
    pub(super) more: std::sync::mpsc::SyncSender<bool>,
}

impl Waiting {
    /// True if a commit had no room for everything.
    pub(super) fn left_over(&self) -> bool {
        !self.lazy.is_empty() || !self.changes.is_empty()
    }

    pub(super) fn take_in(&mut self, job: Job) {
        match job {
            Job::Accept(accepting) => self.accepts.push(*accepting),
            Job::Refused(refused) => self.lazy.refused.push(*refused),
            Job::Settle(settlement, reply) => self.lazy.settlements.push((settlement, reply)),
            Job::Change(change) => self.changes.push_back(change),
            Job::Probe(reply) => self.probes.push(reply),
            // One at a time: the next is sent after this reply.
            Job::Recall(older) => self.older = Some(older),
            Job::Flush(reply) => self.flush = Some(reply),
        }
    }

    /// Takes the changes of one commit in order of their requests, at least one if there is any.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        let mut rows = 0;
        let count = self.changes.iter().take_while(|change| {
            let first = rows == 0;
            rows += change.rows();
            first || rows <= CHANGED_PER_COMMIT
        });
        let count = count.count();
        self.changes.drain(..count).collect()
    }

    /// Refuses everything that waits, and the `changes` of the failed commit.
    pub(super) fn refuse(&mut self, shared: &Shared, changes: Vec<Change>) {
        let Self { accepts, changes: later, probes, older: _, lazy, flush: _ } = self;
        shared.waiting.fetch_sub(accepts.len(), Ordering::Relaxed);
        for accepting in accepts.drain(..) {
            accepting.reply.send(Err(AcceptError::Unavailable)).ok();
        }
        for change in changes.into_iter().chain(later.drain(..)) {
            change.tell(false);
        }
        for (_, reply) in lazy.settlements.drain(..) {
            reply.send(Err(AcceptError::Unavailable)).ok();
        }
        for reply in probes.drain(..) {
            reply.send(Err(AcceptError::Unavailable)).ok();
        }
        // Refused callbacks are only informational: drop what cannot be written now.
        let dropped = lazy.refused.take(usize::MAX);
        shared.refused.written(&dropped);
        dropped.into_iter().for_each(|refused| shared.refused.drop_one(refused));
        lazy.since = None;
    }
}

/// What waits for the next commit without urgency.
#[derive(Default)]
pub(super) struct Lazy {
    pub(super) settlements: Vec<(Settlement, oneshot::Sender<Result<(), AcceptError>>)>,
    pub(super) refused: RefusedQueue,
    pub(super) since: Option<Instant>,
}

impl Lazy {
    pub(super) fn is_empty(&self) -> bool {
        self.settlements.is_empty() && self.refused.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use crate::time::Timestamp;

    use super::*;
    use crate::{
        command::{Grant, Registered, TaskRef},
        ledger::{Actor, Registration, Via},
    };

    fn registering(contexts: usize) -> Change {
        let registered = Registered { grant: Grant::unbound(TaskRef::default()), expires_at: None };
        let one = Registration {
            key: "k".to_owned(),
            message_id: None,
            registered,
            registered_at: Timestamp::UNIX_EPOCH,
        };
        Change::register(vec![one; contexts], Actor::unnamed(Via::Api).into(), oneshot::channel().0)
    }

    #[test]
    fn a_commit_takes_as_many_changes_as_it_has_room_for_and_one_at_least() {
        let mut waiting = Waiting::default();
        waiting.changes.extend([200, 52, 1, 1000, 251, 1, 1].map(registering));
        let taken: Vec<usize> = (0..5).map(|_| waiting.take_changes().len()).collect();
        assert_eq!(taken, [2, 1, 1, 2, 1]);
        assert!(!waiting.left_over());
    }
}
