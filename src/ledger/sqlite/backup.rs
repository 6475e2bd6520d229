//! A copy of a ledger's file while a `serve` writes to it: `countersign ledger backup`.
//!
//! SQLite's backup interface copies pages, a few at a time. `VACUUM INTO` was rejected: it is one statement that builds every
//! tree again, tells nothing of how far it is, and ends at the first damaged page.
//!
//! The copy is made within one read transaction. Without it SQLite begins again whenever somebody else has committed, and
//! beside a busy writer would never end. In WAL mode a reader holds up no writer; what it costs is that the write-ahead log
//! grows until the copy is made. What was copied is looked at before it gets its name.

use std::{
    fs::{self, File, Permissions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup, StepResult},
};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::schema::{self, OpenError};
use crate::telemetry::failpoint::reach;

/// Pages of one step: a mebibyte.
const STEP: i32 = 256;

/// A file under way has this after its name.
const PART: &str = ".part";

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The ledger cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is something by that name.
    #[error("{} exists already; --force replaces it", .0.display())]
    Exists(PathBuf),
    /// It is a ledger that a program has open, or had when it crashed.
    #[error("{} belongs to a ledger in use; name another file", .0.display())]
    InUse(PathBuf),
    /// A ledger would be replaced by its own copy.
    #[error("{} is the ledger itself; name another file", .0.display())]
    Itself(PathBuf),
    /// Two at the same time.
    #[error("another backup writes {}", .0.display())]
    Busy(PathBuf),
    /// The copy cannot be written.
    #[error("cannot write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// SQLite failed.
    #[error("cannot copy the ledger to {}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// It was told to stop.
    #[error("interrupted")]
    Interrupted,
}

/// A copy that has not got its name yet. Dropping it removes it.
#[derive(Debug)]
pub struct Made {
    part: PathBuf,
    to: PathBuf,
    /// Held until the end, so that no other backup writes the same file.
    file: File,
    is_kept: bool,
    /// How long it is.
    pub bytes: u64,
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Refuses to replace what is there, unless it is to be.
///
/// An empty write-ahead log and its index are left by anyone who has looked into a backup. They say nothing of the file.
fn vacant(to: &Path, replaces: bool) -> Result<(), BackupError> {
    for companion in ["-wal", "-journal"] {
        let companion = beside(to, companion);
        if fs::symlink_metadata(&companion).is_ok_and(|found| !found.is_file() || found.len() > 0) {
            return Err(BackupError::InUse(companion));
        }
    }
    // The log of a ledger that was just started is empty too. A restore, which replaces nothing, has the lock itself.
    let lock = beside(to, ".lock");
    if replaces
        && File::open(&lock).is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
    {
        return Err(BackupError::InUse(lock));
    }
    match fs::symlink_metadata(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(BackupError::File { path: to.to_owned(), source }),
        Ok(found) if found.is_file() && replaces => Ok(()),
        Ok(_) => Err(BackupError::Exists(to.to_owned())),
    }
}

/// Copies a ledger to a file of another name beside `to`; [`Made::keep`] gives it its own. `progress` is told how many pages
/// are copied, of how many. Blocks.
///
/// # Errors
/// See [`BackupError`]. Nothing is left then.
pub fn back_up(
    from: &Path,
    to: &Path,
    replaces: bool,
    stop: &AtomicBool,
    progress: impl FnMut(u64, u64),
) -> Result<Made, BackupError> {
    let source = schema::open_reader(from)?;
    vacant(to, replaces)?;
    let identity = |path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    if identity(to).is_ok_and(|to| identity(from).is_ok_and(|from| from == to)) {
        return Err(BackupError::Itself(to.to_owned()));
    }
    pages(&source, from, to, stop, progress)
}

/// [`back_up`] of a file that nobody has open, such as a copy.
pub(super) fn pages(
    source: &Connection,
    from: &Path,
    to: &Path,
    stop: &AtomicBool,
    progress: impl FnMut(u64, u64),
) -> Result<Made, BackupError> {
    source
        .execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")
        .map_err(OpenError::sqlite(from, "read"))?;
    let part = beside(to, PART);
    let failed = |source| BackupError::File { path: part.clone(), source };
    let file = schema::create(&part)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(BackupError::Busy(part)),
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    // Another backup may have given it its name between the two calls.
    let is_ours = fs::symlink_metadata(&part).and_then(|found| Ok((found.ino(), file.metadata()?.ino())));
    if !is_ours.is_ok_and(|(found, ours)| found == ours) {
        return Err(BackupError::Busy(part));
    }
    // What a backup that was killed has left.
    file.set_len(0).and_then(|()| file.set_permissions(Permissions::from_mode(0o600))).map_err(failed)?;
    let mut made = Made { part: part.clone(), to: to.to_owned(), file, is_kept: false, bytes: 0 };
    copy(source, &part, stop, progress)?;
    reach("backup:copied");
    made.bytes = made.file.metadata().map_err(failed)?.len();
    Ok(made)
}

fn copy(
    source: &Connection,
    part: &Path,
    stop: &AtomicBool,
    mut progress: impl FnMut(u64, u64),
) -> Result<(), BackupError> {
    let failed = |source| BackupError::Sqlite { path: part.to_owned(), source };
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let directory = part.parent().filter(|directory| *directory != Path::new(""));
    let resolved = fs::canonicalize(directory.unwrap_or(Path::new(".")))
        .map(|directory| directory.join(part.file_name().unwrap_or_default()));
    let resolved = resolved.map_err(|source| BackupError::File { path: part.to_owned(), source })?;
    let mut target = Connection::open_with_flags(resolved, flags).map_err(failed)?;
    // It has no use before it is whole, so it needs no journal, and is synced once.
    target
        .execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
        .map_err(failed)?;
    let backup = Backup::new(source, &mut target).map_err(failed)?;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(BackupError::Interrupted);
        }
        let step = backup.step(STEP).map_err(failed)?;
        let told = backup.progress();
        let (total, left) = (told.pagecount, told.remaining);
        progress(u64::try_from(total - left).unwrap_or(0), u64::try_from(total).unwrap_or(0));
        reach("backup:copying");
        match step {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            // Only for a moment: no other process uses the target, and the source is read within a transaction.
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

impl Made {
    /// The file, as long as it has no other name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.part
    }

    /// Syncs it, under the name that it has.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub(super) fn sync(&self) -> Result<(), BackupError> {
        let failed = |source| BackupError::File { path: self.part.clone(), source };
        self.file.sync_all().map_err(failed)?;
        Ok(schema::sync_directory(&self.part)?)
    }

    /// Syncs it and gives it its name, which was free or is to be replaced.
    ///
    /// # Errors
    /// See [`BackupError`]. Nothing is left then.
    pub fn keep(mut self, replaces: bool) -> Result<u64, BackupError> {
        let part = self.part.clone();
        let failed = |source| BackupError::File { path: part.clone(), source };
        self.file.sync_all().map_err(failed)?;
        reach("backup:synced");
        vacant(&self.to, replaces)?;
        // They would be taken for those of the new file.
        for companion in ["-wal", "-shm", "-journal"] {
            match fs::remove_file(beside(&self.to, companion)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        let flags = if replaces { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        match renameat_with(CWD, &self.part, CWD, &self.to, flags) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Err(BackupError::Exists(self.to.clone())),
            // Not every file system can refuse to replace.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                fs::rename(&self.part, &self.to).map_err(failed)?;
            }
            Err(error) => return Err(failed(error.into())),
        }
        self.is_kept = true;
        reach("backup:named");
        schema::sync_directory(&self.to)?;
        Ok(self.bytes)
    }
}

impl Made {
    /// [`Made::keep`] under another name, which is free.
    pub(super) fn keep_as(mut self, to: &Path) -> Result<u64, BackupError> {
        to.clone_into(&mut self.to);
        self.keep(false)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if !self.is_kept {
            fs::remove_file(&self.part).ok();
        }
    }
}
