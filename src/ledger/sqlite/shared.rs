//! State shared by the writer thread, the checkpointer and their callers.

use std::sync::{
    Arc, Mutex, RwLock,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::watch;

use crate::{
    command::Seq,
    ledger::{Entry, Limits, Remembered, memory::Memory, refused_queue::RefusedCounts},
};

pub(super) struct Shared {
    /// Accepts queued and not yet answered.
    pub(super) waiting: AtomicUsize,
    /// The maximum of [`Self::waiting`] since the last check.
    pub(super) most_waiting: AtomicUsize,
    /// Limit of [`Self::waiting`].
    pub(super) capacity: usize,

    pub(super) refused: RefusedCounts,
    pub(super) memory: Memory,
    /// True while somebody takes fresh commands.
    pub(super) fresh_wanted: AtomicBool,
    pub(super) fresh: Mutex<Fresh>,
    pub(super) head: watch::Sender<Seq>,
    /// Commands in the window, as of the last commit.
    pub(super) remembered: AtomicU64,
    /// Commands dropped from the window early.
    pub(super) forgotten: AtomicU64,
    /// Commits since the start that wrote anything. Each makes the write-ahead log grow.
    pub(super) commits: AtomicU64,
    /// Set by the checkpointer when the log has grown despite its work: the writer must finish.
    pub(super) wal_full: AtomicBool,
    /// Set by an error after which nobody knows what is on the disk. Nothing is promised any more: a later successful
    /// sync says nothing about pages whose write failed before (https://lwn.net/Articles/752063/). Nothing is moved
    /// from the log to the database either: the log may be the only good copy.
    pub(super) poisoned: AtomicBool,
    /// Set while the disk has too little free space: nothing is accepted.
    pub(super) no_room: AtomicBool,
    pub(super) limits: RwLock<Arc<Limits>>,
}

/// Recently committed commands, for the relay.
#[derive(Default)]
pub(super) struct Fresh {
    pub(super) entries: Vec<Entry>,
    pub(super) bytes: usize,
}

impl Shared {
    pub(super) fn remembered(&self) -> Remembered {
        Remembered {
            commands: self.remembered.load(Ordering::Relaxed),
            forgotten: self.forgotten.load(Ordering::Relaxed),
        }
    }

    pub(super) fn new(head: Seq, capacity: usize, limits: Limits) -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            most_waiting: AtomicUsize::new(0),
            capacity,
            refused: RefusedCounts::default(),
            memory: Memory::default(),
            fresh_wanted: AtomicBool::new(false),
            fresh: Mutex::default(),
            head: watch::channel(head).0,
            remembered: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            wal_full: AtomicBool::new(false),
            poisoned: AtomicBool::new(false),
            no_room: AtomicBool::new(false),
            limits: RwLock::new(Arc::new(limits)),
        }
    }

    pub(super) fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.limits.read().expect("nobody panics with the lock"))
    }

    /// Records an error; true if nothing may be promised any more.
    pub(super) fn poison_by(&self, error: &rusqlite::Error) -> bool {
        if poisons(error) {
            self.poisoned.store(true, Ordering::Release);
        }
        self.poisoned.load(Ordering::Acquire)
    }
}

/// True if the error leaves it unknown what is on the disk.
fn poisons(error: &rusqlite::Error) -> bool {
    use rusqlite::{
        ErrorCode::{DatabaseCorrupt, NotADatabase, SystemIoFailure},
        ffi,
    };
    // The index of the log is rebuilt from the log, and locks hold no data. A full disk that shows there first can be
    // cleaned up while we run.
    let extended = error.sqlite_error().map(|error| error.extended_code);
    let harmless = [
        ffi::SQLITE_IOERR_SHMSIZE,
        ffi::SQLITE_IOERR_SHMOPEN,
        ffi::SQLITE_IOERR_SHMMAP,
        ffi::SQLITE_IOERR_SHMLOCK,
        ffi::SQLITE_IOERR_LOCK,
    ];
    if extended.is_some_and(|code| harmless.contains(&code)) {
        return false;
    }
    matches!(error.sqlite_error_code(), Some(SystemIoFailure | DatabaseCorrupt | NotADatabase))
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    fn failure(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn an_error_after_which_nobody_knows_what_is_on_the_disk_poisons_until_the_next_start() {
        let harmless = [
            ffi::SQLITE_FULL,
            ffi::SQLITE_BUSY,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_IOERR_SHMMAP,
            ffi::SQLITE_IOERR_SHMSIZE,
            ffi::SQLITE_IOERR_LOCK,
        ];
        let poison = [
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_IOERR_WRITE,
            ffi::SQLITE_IOERR_READ,
            ffi::SQLITE_CORRUPT,
            ffi::SQLITE_NOTADB,
        ];
        for code in poison {
            let shared = Shared::new(0, 10, Limits::default());
            for code in harmless {
                assert!(!shared.poison_by(&failure(code)), "{code}");
            }
            assert!(shared.poison_by(&failure(code)), "{code}");
            assert!(shared.poison_by(&failure(ffi::SQLITE_BUSY)), "once poisoned, always");
        }
    }
}
