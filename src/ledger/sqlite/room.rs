//! Disk space: how much the ledger uses, how much is left, and refusing in time.
//!
//! A full disk hurts more than callbacks: the broker and the system often keep files on it too, and a commit that fails
//! half-way is only as good as the file system. So callbacks are refused while there is still room for the writes that
//! kept callbacks need.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::shared::Shared;

/// Minimum time between warnings about the writer's queue.
const QUIET: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) size_bytes: Option<u64>,
    pub(super) wal_bytes: Option<u64>,
    pub(super) free_bytes: Option<u64>,
}

impl Room {
    /// Measures now. What cannot be measured is `None`.
    pub(super) fn of(path: &Path) -> Self {
        let size = |path: &Path| match fs::metadata(path) {
            Ok(found) => Some(found.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(0),
            Err(_) => None,
        };
        Self { size_bytes: size(path), wal_bytes: size(&wal(path)), free_bytes: free_bytes(path) }
    }
}

pub(super) fn wal(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// How many bytes this process may still write to the file system of a ledger; the file need not exist. Root's reserve
/// does not count. `None` if the file system does not say.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let found = rustix::fs::statvfs(directory).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

/// Watches disk and queue, logs once per crossing, and stops accepts when there is no room.
pub(super) struct Watch {
    low: bool,
    complained_at: Option<Instant>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { low: false, complained_at: None }
    }

    /// Checks disk and queue. Called several times a second: between two checks, less can be accepted than the minimum
    /// holds.
    pub(super) fn look(&mut self, path: &Path, shared: &Shared) {
        let min_free_bytes = shared.limits().min_free_bytes;
        self.look_at(free_bytes(path), min_free_bytes, shared);
        self.look_at_queue(shared);
    }

    fn look_at(&mut self, free_bytes: Option<u64>, min_free_bytes: u64, shared: &Shared) {
        // An unknown size is no reason to refuse: a commit without room is refused anyway.
        let free_bytes = free_bytes.unwrap_or(u64::MAX);
        let barred = shared.no_room.load(Ordering::Relaxed);
        if free_bytes < min_free_bytes {
            if !barred {
                shared.no_room.store(true, Ordering::Relaxed);
                tracing::error!(
                    free_bytes,
                    min_free_bytes,
                    "ledger disk is low on space; callbacks are refused until some is freed"
                );
            }
            self.low = true;
            return;
        }
        // A little above the minimum, so as not to switch back and forth with every page.
        if barred && free_bytes >= min_free_bytes.saturating_add(min_free_bytes / 16) {
            shared.no_room.store(false, Ordering::Relaxed);
            tracing::info!(free_bytes, "ledger disk has space again; callbacks are accepted");
        }
        let low = free_bytes < min_free_bytes.saturating_mul(2);
        if low && !self.low {
            tracing::warn!(
                free_bytes,
                min_free_bytes,
                "ledger disk is filling up; below min_free_bytes callbacks are refused"
            );
        }
        self.low = low;
    }

    fn look_at_queue(&mut self, shared: &Shared) {
        let most = shared.most_waiting.swap(0, Ordering::Relaxed);
        if most == 0
            || most < shared.capacity - shared.capacity / 5
            || self.complained_at.is_some_and(|at| at.elapsed() < QUIET)
        {
            return;
        }
        self.complained_at = Some(Instant::now());
        tracing::warn!(
            waiting = most,
            queue_capacity = shared.capacity,
            "ledger writer queue was nearly full; callbacks are refused as overloaded while it is full"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_found_for_a_ledger_in_the_working_directory_and_elsewhere() {
        assert!(free_bytes(Path::new("ledger.db")).is_some());
        assert_eq!(free_bytes(Path::new("/nonexistent/ledger.db")), None);
        let nothing_yet = Room::of(Path::new("/proc/self/ledger.db"));
        assert_eq!((nothing_yet.size_bytes, nothing_yet.wal_bytes), (Some(0), Some(0)));
        assert_eq!(
            Room::of(Path::new("/proc/self/status/ledger.db")).size_bytes,
            None,
            "no directory at all"
        );
    }

    #[test]
    fn the_way_in_is_barred_below_the_minimum_and_opens_again_a_little_above_it() {
        let shared = Shared::new(0, 10, crate::ledger::Limits::default());
        let mut watch = Watch::new();
        let mut look = |free: Option<u64>| {
            watch.look_at(free, 1600, &shared);
            shared.no_room.load(Ordering::Relaxed)
        };
        assert!(!look(Some(1600)));
        assert!(look(Some(1599)));
        assert!(look(Some(1650)), "still too near");
        assert!(!look(Some(1700)));
        assert!(!look(None), "a file system that does not tell");
        assert!(look(Some(0)));
        assert!(!look(None));
    }

    #[test]
    fn a_queue_that_was_filled_to_four_fifths_is_told_of_once_in_a_while() {
        let shared = Shared::new(0, 10, crate::ledger::Limits::default());
        let mut watch = Watch::new();
        let mut told = |most| {
            shared.most_waiting.store(most, Ordering::Relaxed);
            watch.look_at_queue(&shared);
            watch.complained_at
        };
        assert_eq!(told(7), None);
        let first = told(8);
        assert!(first.is_some());
        assert_eq!(told(10), first);
    }

    #[test]
    fn a_file_system_tells_its_room_and_a_missing_log_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        fs::write(&path, [0; 100]).unwrap();
        let room = Room::of(&path);
        assert_eq!((room.size_bytes, room.wal_bytes), (Some(100), Some(0)));
        assert!(room.free_bytes.is_some_and(|bytes| bytes > 0));
    }
}
