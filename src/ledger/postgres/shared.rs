//! What the tasks of one ledger know of each other.

use std::sync::{
    Arc, Mutex, RwLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::{Notify, watch};

use crate::{
    command::Seq,
    ledger::{Entry, Limits, Term, memory::Memory, refused_queue::RefusedCounts},
};

/// Fresh commands kept for the relay; beyond that it reads the log.
const FRESH_BYTES: usize = 4 << 20;

pub(super) struct Shared {
    /// Accepts handed over and not yet answered, and what that may be.
    pub(super) waiting: AtomicUsize,
    pub(super) capacity: usize,
    pub(super) refused: RefusedCounts,
    pub(super) memory: Arc<Memory>,
    pub(super) limits: RwLock<Arc<Limits>>,
    /// True while somebody takes fresh commands.
    pub(super) fresh_wanted: AtomicBool,
    /// What belongs to the term in which this process is the leader.
    current: Mutex<Option<Current>>,
    pub(super) term: watch::Sender<Term>,
    leader: Mutex<Option<String>>,
    /// The term is to end.
    pub(super) resigned: Notify,
}

/// What is known within one term only.
struct Current {
    server: i64,
    head: watch::Sender<Seq>,
    fresh: Vec<Entry>,
    fresh_bytes: usize,
}

impl Current {
    fn reached(&self, head: Seq) {
        self.head.send_if_modified(|known| {
            let grown = head > *known;
            *known = head.max(*known);
            grown
        });
    }
}

impl Shared {
    pub(super) fn new(capacity: usize, limits: Limits, memory: Arc<Memory>) -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            capacity,
            refused: RefusedCounts::default(),
            memory,
            limits: RwLock::new(Arc::new(limits)),
            fresh_wanted: AtomicBool::new(false),
            current: Mutex::default(),
            term: watch::Sender::new(None),
            leader: Mutex::default(),
            resigned: Notify::new(),
        }
    }

    pub(super) fn limits(&self) -> Arc<Limits> {
        self.limits.read().expect("nobody panics with the lock").clone()
    }

    fn current<T>(&self, act: impl FnOnce(&mut Current) -> T) -> Option<T> {
        self.current.lock().expect("nobody panics with the lock").as_mut().map(act)
    }

    /// Which process leads, as it was last seen.
    pub(super) fn leader(&self) -> Option<String> {
        self.leader.lock().expect("nobody panics with the lock").clone()
    }

    pub(super) fn saw_leader(&self, leader: Option<String>) {
        *self.leader.lock().expect("nobody panics with the lock") = leader;
    }

    /// A term begins on a server with this end of the log. Nothing that was known before counts any more.
    pub(super) fn begin_term(&self, head: Seq, server: i64) -> watch::Receiver<Seq> {
        let (sender, receiver) = watch::channel(head);
        let current = Current { server, head: sender, fresh: Vec::new(), fresh_bytes: 0 };
        *self.current.lock().expect("nobody panics with the lock") = Some(current);
        receiver
    }

    pub(super) fn end_term(&self) {
        self.term.send_replace(None);
        *self.current.lock().expect("nobody panics with the lock") = None;
    }

    /// The log reaches this far.
    pub(super) fn reached(&self, head: Seq) {
        self.current(|current| current.reached(head));
    }

    /// These were accepted here, by a server. They go by memory if somebody takes them and there is room. What another server
    /// than that of the term says is for the next term to read: the log may end elsewhere there.
    pub(super) fn accepted(&self, entries: Vec<Entry>, server: i64) {
        let Some(last) = entries.last() else { return };
        let head = last.seq;
        let wanted = self.fresh_wanted.load(Ordering::Relaxed);
        self.current(|current| {
            if current.server != server {
                return;
            }
            if wanted && current.fresh_bytes < FRESH_BYTES {
                current.fresh_bytes += entries.iter().map(|entry| entry.body.len() + 256).sum::<usize>();
                current.fresh.extend(entries);
            }
            current.reached(head);
        });
    }

    pub(super) fn take_fresh(&self) -> Vec<Entry> {
        let taken = self.current(|current| {
            current.fresh_bytes = 0;
            std::mem::take(&mut current.fresh)
        });
        taken.unwrap_or_default()
    }
}
