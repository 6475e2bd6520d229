//! The file: who may open it, what it must be, how it is opened, and how it migrates between versions.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use crate::telemetry::failpoint::reach;

/// `CSGN`: marks a file as a countersign ledger (SQLite's `application_id`).
pub(super) const APPLICATION_ID: i32 = 0x4353_474E;

/// One migration per version, oldest first. A released migration never changes. A new one widens the schema, so that
/// the previous program still works.
pub(super) const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001_ledger.sql")];

/// Why a ledger was not opened. It is never repaired or recreated: a ledger must not forget.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory is missing, or the file cannot be read, written or created.
    #[error("cannot open the ledger file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another `serve` holds it.
    #[error("the ledger {path} is in use by another countersign; one ledger has one writer")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// It was copied to another place, which is the ledger now.
    #[error(
        "the ledger {path} was {words}; set ledger.url to that. To serve from the old one again, without what came after \
         the copy, remove {note}"
    )]
    Moved {
        /// The file.
        path: PathBuf,
        /// Where to, and when.
        words: String,
        /// The file that says so.
        note: PathBuf,
    },
    /// It is another program's database.
    #[error("{path} is an SQLite database, but not a ledger of countersign (application id {found:#x})")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its application id.
        found: i32,
    },
    /// A newer program wrote it.
    #[error(
        "the ledger {path} has schema version {found}; this program knows versions up to {known}. Run the newer program"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The newest that this program knows.
        known: usize,
    },
    /// Its content is inconsistent.
    #[error(
        "the ledger {path} is damaged: {what}. Restore it from a backup (countersign ledger restore), or move it away and save \
         what can be read (countersign ledger salvage)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// SQLite failed.
    #[error("cannot {operation} the ledger {path}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What was tried, as a verb.
        operation: &'static str,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
}

impl OpenError {
    pub(super) fn sqlite(path: &Path, operation: &'static str) -> impl Fn(rusqlite::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => {
                Self::Damaged { path: path.clone(), what: "it is not an SQLite database".to_owned() }
            }
            Some(rusqlite::ErrorCode::DatabaseCorrupt) => {
                Self::Damaged { path: path.clone(), what: source.to_string() }
            }
            _ => Self::Sqlite { path: path.clone(), operation, source },
        }
    }
}

/// The right to write to a ledger. Released when dropped, or by the kernel when the process ends.
#[derive(Debug)]
pub(super) struct Lock {
    #[expect(dead_code, reason = "the lock lasts as long as the file is open")]
    file: File,
}

impl Lock {
    /// Takes `<ledger>.lock`. A separate file, because SQLite's locks on the ledger must stay usable for readers.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock_path = PathBuf::from(name);
        let file = create(&lock_path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(OpenError::File { path: lock_path, source }),
        }
    }
}

/// Opens a file, or creates it with access for its owner only: it holds who decided what. SQLite gives `-wal` and
/// `-shm` the mode of the database. Refuses a symbolic link in its place and leaves the target alone.
pub(super) fn create(path: &Path) -> Result<File, OpenError> {
    let opened = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path);
    opened.map_err(|source| {
        if is_link(path) { is_a_link(path) } else { OpenError::File { path: path.to_owned(), source } }
    })
}

/// Opens an existing database, unless its name is a symbolic link. Links among its parent directories are followed.
fn connect(path: &Path) -> Result<Connection, OpenError> {
    if is_link(path) {
        return Err(is_a_link(path));
    }
    let in_directory = || {
        let directory = path.parent().filter(|directory| *directory != Path::new(""));
        Some(fs::canonicalize(directory.unwrap_or(Path::new("."))).ok()?.join(path.file_name()?))
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        // It may become a link after the check.
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let resolved = in_directory().unwrap_or_else(|| path.to_owned());
    Connection::open_with_flags(resolved, flags).map_err(OpenError::sqlite(path, "open"))
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

fn is_a_link(path: &Path) -> OpenError {
    let source = io::Error::other("it is a symbolic link; name the file itself");
    OpenError::File { path: path.to_owned(), source }
}

/// Opens the writing connection: creates the file if there is none, checks it, and migrates its schema.
pub(super) fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    let fresh = match fs::metadata(path) {
        Ok(found) => is_empty(path, found.len())?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => is_empty(path, 0)?,
        Err(source) => return Err(OpenError::File { path: path.to_owned(), source }),
    };
    if fresh {
        create(path)?;
        sync_directory(path)?;
    }
    let failed = OpenError::sqlite(path, "open");
    let mut connection = connect(path)?;
    // Another process writes only for an operator's act, which is short.
    connection.busy_timeout(Duration::from_secs(5)).map_err(&failed)?;
    identify(&connection, path, fresh)?;
    let pragma = |name: &str, value: &str| {
        connection.query_row(&format!("PRAGMA {name} = {value}"), [], |row| row.get::<_, String>(0))
    };
    // Readers concurrent with one writer, and a commit that appends to one file and syncs it once.
    // https://www.sqlite.org/wal.html
    let mode = pragma("journal_mode", "WAL").map_err(&failed)?;
    if mode != "wal" {
        let what = format!("its journal mode cannot be set to WAL ({mode}); is it on a network file system?");
        return Err(OpenError::Damaged { path: path.to_owned(), what });
    }
    // INVARIANT 1: in WAL mode anything less than FULL does not sync at commit.
    // https://www.sqlite.org/pragma.html#pragma_synchronous
    connection.pragma_update(None, "synchronous", "FULL").map_err(&failed)?;
    // A checkpoint inside a commit makes its callers pay for everybody's pages; see `checkpoint.rs`.
    connection.pragma_update(None, "wal_autocheckpoint", 0).map_err(&failed)?;
    connection.pragma_update(None, "cache_size", -8192).map_err(&failed)?;
    connection.pragma_update(None, "trusted_schema", false).map_err(&failed)?;
    connection.set_prepared_statement_cache_capacity(32);
    keep_log_at_close(&connection).map_err(&failed)?;
    migrate(&mut connection, path)?;
    reach("start:migrated");
    verify(&connection, path)?;
    settle_log(&connection, path)?;
    reach("start:log_settled");
    Ok(connection)
}

/// Whether a database of this size is new. Refuses the remains of one: SQLite also takes a file of one byte for an
/// empty one (`os_unix.c`, `unixFileSize`), and removes the write-ahead log of an empty one.
fn is_empty(path: &Path, bytes: u64) -> Result<bool, OpenError> {
    if bytes > 1 {
        return Ok(false);
    }
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let what = if fs::metadata(&wal).is_ok_and(|wal| wal.len() > 0) {
        "its -wal file is there, but the database is empty or missing"
    } else if bytes == 1 {
        "it has a single byte"
    } else {
        return Ok(true);
    };
    Err(OpenError::Damaged { path: path.to_owned(), what: what.to_owned() })
}

/// Moves everything from the write-ahead log to the database, and syncs it.
///
/// INVARIANT 1: a crash may leave commits in the log that were written and never synced. They are visible, and from now
/// on they count: as duplicates, as commands to publish. After a failed sync, the log may even have a hole that only
/// the page cache covers; a commit appended after it would be lost with it. Writing and syncing them again makes them
/// durable.
fn settle_log(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let (pages, moved): (i64, i64) = connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok((row.get(1)?, row.get(2)?)))
        .map_err(OpenError::sqlite(path, "sync"))?;
    // A reader may keep the log from being truncated, but not its pages from being moved.
    if moved < pages {
        let source = io::Error::other("another process reads it and does not let its log be moved");
        return Err(OpenError::File { path: path.to_owned(), source });
    }
    Ok(())
}

/// Opens a connection that cannot write, to an existing ledger.
pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let failed = OpenError::sqlite(path, "open");
    let found = fs::metadata(path).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
    is_empty(path, found.len())?;
    // Not SQLITE_OPEN_READ_ONLY: after a crash, the first reader of a WAL must recover its index.
    let connection = connect(path)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(&failed)?;
    identify(&connection, path, false)?;
    connection.pragma_update(None, "query_only", true).map_err(&failed)?;
    connection.pragma_update(None, "cache_size", -2048).map_err(&failed)?;
    connection.pragma_update(None, "trusted_schema", false).map_err(&failed)?;
    connection.set_prepared_statement_cache_capacity(32);
    keep_log_at_close(&connection).map_err(&failed)?;
    Ok(connection)
}

/// The writer alone decides whether closing a connection moves the log: after its disk failed, the log may be the only
/// good copy.
pub(super) fn keep_log_at_close(connection: &Connection) -> rusqlite::Result<bool> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
}

/// Opens a connection for short writes while the writer runs.
pub(super) fn open_actor(path: &Path) -> Result<Connection, OpenError> {
    let connection = open_reader(path)?;
    let failed = OpenError::sqlite(path, "open");
    connection.pragma_update(None, "query_only", false).map_err(&failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(&failed)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0).map_err(&failed)?;
    Ok(connection)
}

/// Opens the connection that checkpoints the write-ahead log.
pub(super) fn open_checkpointer(path: &Path) -> Result<Connection, OpenError> {
    let connection = open_reader(path)?;
    let failed = OpenError::sqlite(path, "open");
    connection.pragma_update(None, "query_only", false).map_err(&failed)?;
    // Sync the database before the log may be overwritten.
    connection.pragma_update(None, "synchronous", "FULL").map_err(&failed)?;
    Ok(connection)
}

pub(super) fn identify(connection: &Connection, path: &Path, fresh: bool) -> Result<(), OpenError> {
    let failed = OpenError::sqlite(path, "read");
    let number =
        |pragma: &str| connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i32>(0));
    let found = number("application_id").map_err(&failed)?;
    let version = usize::try_from(number("user_version").map_err(&failed)?).unwrap_or(usize::MAX);
    if found != APPLICATION_ID && !fresh {
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(&failed)?;
        // A crash between creating the file and the first migration leaves an empty database.
        if tables > 0 || found != 0 || version != 0 {
            return Err(OpenError::Foreign { path: path.to_owned(), found });
        }
    }
    if found == APPLICATION_ID { admit(path, version, MIGRATIONS.len()) } else { Ok(()) }
}

/// Refuses version `found` in a program that knows versions up to `known`.
pub(super) fn admit(path: &Path, found: usize, known: usize) -> Result<(), OpenError> {
    if found > known {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    Ok(())
}

pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let failed = OpenError::sqlite(path, "migrate");
    let version: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(&failed)?;
    let done = usize::try_from(version).unwrap_or(0);
    for (at, step) in MIGRATIONS.iter().enumerate().skip(done) {
        // One transaction for each migration and its version number: a crash leaves the version before or after.
        let transaction = connection.transaction().map_err(&failed)?;
        transaction.execute_batch(step).map_err(&failed)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(&failed)?;
        transaction.pragma_update(None, "user_version", at as i32 + 1).map_err(&failed)?;
        transaction.commit().map_err(&failed)?;
    }
    Ok(())
}

/// Cheap checks for a log that lost its end. A full check of a large file would take minutes at every start.
fn verify(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let failed = OpenError::sqlite(path, "check");
    let damaged = |what: String| Err(OpenError::Damaged { path: path.to_owned(), what });
    let (cursor, pruned, head): (i64, i64, i64) = connection
        .query_row(
            "SELECT published_through, pruned_through, coalesce((SELECT max(seq) FROM commands), 0) FROM cursor",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .map_err(&failed)?;
    if cursor > head.max(pruned) {
        return damaged(format!("{cursor} commands are marked as published, but the log ends at {head}"));
    }
    let above: i64 = connection
        .query_row("SELECT count(*) FROM exceptions WHERE seq > ?1", [head], |row| row.get(0))
        .map_err(&failed)?;
    if above > 0 {
        return damaged(format!("{above} exceptions are beyond the end of the log"));
    }
    Ok(())
}

pub(super) fn sync_directory(path: &Path) -> Result<(), OpenError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| OpenError::File { path: directory.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_that_is_synced_is_the_ledgers_own() {
        assert!(sync_directory(Path::new("ledger.db")).is_ok(), "the working directory");
        let error = sync_directory(Path::new("/nonexistent/ledger.db"));
        assert!(matches!(error, Err(OpenError::File { path, .. }) if path == Path::new("/nonexistent")));
    }

    #[test]
    fn what_is_left_of_a_ledger_is_neither_recreated_nor_is_its_log_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        let log = directory.path().join("ledger.db-wal");
        let files = || [&path, &log].map(|file| fs::read(file).ok());
        for (left, with_log) in [("", true), ("S", true), ("S", false)] {
            open_writer(&path).unwrap().execute_batch("UPDATE cursor SET probed_at = 1").unwrap();
            fs::write(&path, left).unwrap();
            if !with_log {
                fs::remove_file(&log).unwrap();
            }
            let before = files();
            assert_eq!(before[1].as_ref().is_some_and(|log| !log.is_empty()), with_log);
            for open in [open_writer, open_reader, open_actor, open_checkpointer] {
                let error = open(&path).err();
                assert!(matches!(error, Some(OpenError::Damaged { .. })), "{left:?} {with_log}: {error:?}");
                assert_eq!(files(), before);
            }
            for file in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
                drop(fs::remove_file(directory.path().join(file)));
            }
        }
    }

    #[test]
    fn a_file_without_a_table_is_taken_over_and_closing_a_reader_leaves_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        // As left by a crash between the first pragma and the first migration.
        Connection::open(&path).unwrap().execute_batch("PRAGMA journal_mode = WAL").unwrap();
        assert_ne!(fs::metadata(&path).unwrap().len(), 0);
        let writer = open_writer(&path).unwrap();
        writer.execute_batch("UPDATE cursor SET probed_at = 1").unwrap();
        drop(open_reader(&path).unwrap());
        drop(writer);
        let log = fs::metadata(directory.path().join("ledger.db-wal")).map(|log| log.len());
        assert!(log.is_ok_and(|bytes| bytes > 0), "whether it is moved is for the writer to say");
    }
}
