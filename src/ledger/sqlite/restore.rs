//! A backup in the place of a ledger: `countersign ledger restore`.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};

use super::{
    acts,
    backup::{self, BackupError, Made},
    columns,
    inspection::open_still,
    moved,
    schema::{self, Lock},
};
use crate::{
    command::{CommandId, Seq},
    ledger::{ActKind, By, NewAct},
    telemetry::failpoint::reach,
    time::Timestamp,
};

/// What becomes of commands that were pending when the backup was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// They are parked: an operator decides.
    Park,
    /// They are published, again or for the first time, with the same `message_id`.
    Publish,
}

/// A command that was pending in a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its place in the log.
    pub seq: Seq,
    /// Its id.
    pub command_id: CommandId,
    /// When it was received.
    pub received_at: Timestamp,
    /// The approver.
    pub user_id: String,
    /// The instance.
    pub instance_id: Option<String>,
    /// The task.
    pub task_id: Option<String>,
}

/// A backup that is ready to take the place of a ledger, whose lock is held.
#[derive(Debug)]
pub struct Restoring {
    made: Made,
    path: PathBuf,
    _lock: Lock,
    /// What was pending in the backup.
    pub pending: Vec<Waiting>,
    /// The last time at which anything happened to the ledger before the backup was made.
    pub as_of: Timestamp,
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The ledger's files, with the database first. A journal is of no ledger of ours, but SQLite would roll back the new one by it.
const FILES: [&str; 3] = ["", "-wal", "-journal"];

/// After the ledger's name: a note of when its files were moved aside, while a restore is under way.
const NOTE: &str = ".restoring";

/// Copies a backup beside a ledger, and parks what is pending there. Blocks.
///
/// # Errors
/// See [`BackupError`]. Nothing is changed then.
pub fn prepare(backup: &Path, path: &Path, pending: Pending, by: &By) -> Result<Restoring, BackupError> {
    let source = open_still(backup)?;
    let lock = Lock::take(path)?;
    moved::check(path)?;
    let made =
        backup::pages(&source, backup, &beside(path, ".restored"), &AtomicBool::new(false), |_, _| {})?;
    let failed = |source| BackupError::Sqlite { path: made.path().to_owned(), source };
    let mut connection = private(made.path()).map_err(failed)?;
    let (waiting, as_of) = waiting(&connection).and_then(|w| Ok((w, as_of(&connection)?))).map_err(failed)?;
    if pending == Pending::Park {
        park(&mut connection, &waiting, by).map_err(failed)?;
    }
    drop(connection);
    Ok(Restoring { made, path: path.to_owned(), _lock: lock, pending: waiting, as_of })
}

/// A connection to a file that nobody else opens. It makes no files beside it.
fn private(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    // Before the first read: in this mode the write-ahead log needs no index that others share.
    connection.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF",
    )?;
    Ok(connection)
}

fn waiting(connection: &Connection) -> rusqlite::Result<Vec<Waiting>> {
    connection
        .prepare(
            "SELECT c.seq, c.command_id, c.received_at, c.user_id, c.instance_id, c.task_id
             FROM commands c LEFT JOIN exceptions e ON e.seq = c.seq
             WHERE e.state IN ('retrying', 'requeued')
                OR e.state IS NULL AND c.seq > (SELECT published_through FROM cursor)
             ORDER BY c.seq",
        )?
        .query_map([], |row| {
            Ok(Waiting {
                seq: columns::seq(row, "seq")?,
                command_id: row.get("command_id")?,
                received_at: row.get("received_at")?,
                user_id: row.get("user_id")?,
                instance_id: row.get("instance_id")?,
                task_id: row.get("task_id")?,
            })
        })?
        .collect()
}

fn as_of(connection: &Connection) -> rusqlite::Result<Timestamp> {
    connection.query_row(
        "SELECT max(probed_at, coalesce((SELECT received_at FROM commands ORDER BY seq DESC LIMIT 1), 0),
            coalesce((SELECT max(last_at) FROM publish_marks), 0), coalesce((SELECT max(changed_at) FROM exceptions), 0))
         FROM cursor",
        [],
        |row| row.get(0),
    )
}

fn park(connection: &mut Connection, waiting: &[Waiting], by: &By) -> rusqlite::Result<()> {
    const NOTE: &str = "restored from a backup: it may have been published since. requeue publishes it with the same message_id";
    if waiting.is_empty() {
        return Ok(());
    }
    let now = Timestamp::now();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let act = acts::add(&transaction, &NewAct::new(ActKind::Park, by, waiting.len()), now)?;
    for Waiting { seq, .. } in waiting {
        transaction
            .prepare_cached(
                "INSERT INTO exceptions (seq, state, attempts, next_attempt_at, changed_at, note)
                 VALUES (?1, 'parked', 0, ?2, ?2, ?3)
                 ON CONFLICT (seq) DO UPDATE SET state = 'parked', attempts = 0, next_attempt_at = ?2, changed_at = ?2, note = ?3",
            )?
            .execute(params![*seq as i64, now.as_millisecond(), NOTE])?;
        acts::changed(&transaction, act, *seq as i64, now.as_millisecond())?;
    }
    transaction.commit()
}

impl Restoring {
    /// The file that takes the place, to be looked at before.
    #[must_use]
    pub fn file(&self) -> &Path {
        self.made.path()
    }

    /// Moves the ledger that is there aside, with its write-ahead log, and puts the backup in its place. Returns where the old
    /// one is, if there was one.
    ///
    /// A crash leaves no ledger in the place, or the old one, or the new one: never one with the log of the other.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn put(self) -> Result<Option<PathBuf>, BackupError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| BackupError::File { path: path.clone(), source }
        };
        // What takes the place is on the disk before the place is empty.
        self.made.sync()?;
        let is_free =
            |suffix: &str, aside| !beside(&self.path, suffix).exists() || !beside(aside, suffix).exists();
        let aside = match noted(&self.path) {
            Some(aside) if FILES.iter().all(|suffix| is_free(suffix, &aside)) => aside,
            _ => note(&self.path)?,
        };
        reach("restore:aside");
        let mut moved = aside.exists().then(|| aside.clone());
        // The database first. Its log alone is no ledger, and is refused at start.
        for suffix in FILES {
            let (from, to) = (beside(&self.path, suffix), beside(&aside, suffix));
            match fs::rename(&from, &to) {
                Ok(()) => moved = Some(aside.clone()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(&from)(error)),
            }
            reach("restore:moved");
        }
        // Made again by SQLite.
        match fs::remove_file(beside(&self.path, "-shm")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&self.path)(error)),
            _ => {}
        }
        schema::sync_directory(&self.path)?;
        self.made.keep_as(&self.path)?;
        reach("restore:named");
        // It says nothing any more: a ledger is there.
        fs::remove_file(beside(&self.path, NOTE)).ok();
        Ok(moved)
    }
}

/// The name of what is moved aside at a time.
fn before(path: &Path, stamp: &str) -> PathBuf {
    beside(path, &format!(".before-{stamp}"))
}

/// Where a restore that did not come to its end has moved the ledger's files to.
fn noted(path: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(beside(path, NOTE)).ok()?;
    // Without its end it was not synced, and nothing was moved.
    let stamp = text.strip_suffix('\n')?;
    let is_stamp = !stamp.is_empty() && stamp.chars().all(|c| c.is_ascii_alphanumeric());
    is_stamp.then(|| before(path, stamp))
}

/// Notes where the ledger's files are moved to, and returns it.
fn note(path: &Path) -> Result<PathBuf, BackupError> {
    let (note, stamp) = (beside(path, NOTE), stamp());
    let write = || {
        match fs::remove_file(&note) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&note)?;
        writeln!(file, "{stamp}").and_then(|()| file.sync_all())
    };
    write().map_err(|source| BackupError::File { path: note.clone(), source })?;
    schema::sync_directory(path)?;
    Ok(before(path, &stamp))
}

/// Now, as a part of a file's name.
fn stamp() -> String {
    let now = Timestamp::now().to_string();
    now.chars().filter(|c| c.is_ascii_alphanumeric()).collect()
}
