//! The search file: where in the log a user, an instance or a task is.
//!
//! The ledger has no such index: every accept would have to write to three random pages of it. This file is made beside it from
//! the log, by a task of its own, and nothing waits for it. It only says where to look: each row is read from the ledger
//! and compared with the whole filter, and what the file has not reached yet is searched in slices, as without it.
//!
//! It is not synced. A file that a crash of the machine may have damaged, or that belongs to another log, is made again from
//! the beginning: the log is there.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params, params_from_iter};
use sha2::{Digest, Sha256};

use super::{
    Filter, LookError, Lookup, Subject,
    search::{Hint, LONGEST_READ, Places},
    sqlite::free_bytes,
};
use crate::command::{CommandId, Seq};

/// Commands that one step reads from the log.
const STEP: usize = 4096;

/// Places that are indexed together. Their entries are neighbours in the file, so that adding some writes to few pages.
const SEGMENT: u64 = 1 << 17;

/// A search that finds more places than this reads the rest in slices.
const MANY: usize = 4096;

/// With less room than this on its disk nothing is added: the ledger needs it more.
const ROOM: u64 = 256 << 20;

/// Of another format, or of no format: the file is made again.
const VERSION: i32 = 1;

const SCHEMA: &str = "
    CREATE TABLE reached (id INTEGER PRIMARY KEY CHECK (id = 1), boot TEXT NOT NULL, first INTEGER NOT NULL, seq INTEGER NOT NULL,
        command_id BLOB NOT NULL) STRICT;
    CREATE TABLE places (segment INTEGER NOT NULL, tag INTEGER NOT NULL, place INTEGER NOT NULL,
        PRIMARY KEY (segment, tag, place)) STRICT, WITHOUT ROWID;";

/// An index of the log for searches by user, instance and task.
pub struct SearchFile {
    path: PathBuf,
    connection: Mutex<Option<Connection>>,
}

/// How far the file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reached {
    /// The first place that is indexed.
    first: Seq,
    /// The last place that is indexed.
    seq: Seq,
    /// The command there.
    command_id: CommandId,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// More of the log is left.
    More,
    /// All of the log is indexed.
    Done,
    /// The disk has too little room.
    NoRoom,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The log cannot be read.
    #[error(transparent)]
    Ledger(#[from] LookError),
    /// The file cannot be used. It is removed, and made again by a later step.
    #[error("cannot use the search file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
}

impl std::fmt::Debug for SearchFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SearchFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SearchFile {
    /// Names the file. It is opened, or made, by the first step.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path, connection: Mutex::default() }
    }

    /// The filter with what the file knows of it. Without a usable file, or if that does not help, it is as it was.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn hinted(
        self: &Arc<Self>,
        ledger: &dyn Lookup,
        mut filter: Filter,
    ) -> Result<Filter, LookError> {
        if let Some((hint, reached)) = self.hint(&filter).await
            && ledger.id_at(reached.seq).await? == Some(reached.command_id)
        {
            filter.hint = hint;
        }
        Ok(filter)
    }

    async fn hint(self: &Arc<Self>, filter: &Filter) -> Option<(Hint, Reached)> {
        let names = [&filter.user_id, &filter.instance_id, &filter.task_id];
        let tags: Vec<i64> =
            (0..).zip(names).filter_map(|(kind, name)| name.as_ref().map(|name| tag(kind, name))).collect();
        if tags.is_empty() || filter.after.is_some() {
            return None;
        }
        let before = filter.before.unwrap_or(Seq::MAX);
        let hint = self.work(move |file| {
            // A step may hold it for long, and nobody waits for that.
            let Ok(guard) = file.connection.try_lock() else { return Ok(None) };
            let Some(connection) = guard.as_ref() else { return Ok(None) };
            let Some(reached) = reached(connection)? else { return Ok(None) };
            Ok(Some((hint(connection, &tags, reached, before, LONGEST_READ)?, reached)))
        });
        // A step finds the same fault, and says so.
        hint.await.ok().flatten()
    }

    /// Reads the next commands of the log into the file. It is opened or made if it is not yet open.
    ///
    /// If dropped, what it has begun goes on, and does no harm.
    ///
    /// # Errors
    /// See [`StepError`].
    pub async fn step(self: &Arc<Self>, ledger: &dyn Lookup) -> Result<Step, StepError> {
        let reached = self.file(open).await?;
        // The last one again: it shows that the file is of this log.
        let subjects = ledger.subjects(reached.map_or(0, |reached| reached.seq), STEP).await?;
        if free_bytes(&self.path).is_some_and(|free| free < ROOM) {
            return Ok(Step::NoRoom);
        }
        let done = subjects.len() < STEP;
        let is_known = reached.is_none_or(|reached| {
            subjects.first().is_some_and(|one| (one.seq, one.command_id) == (reached.seq, reached.command_id))
        });
        self.file(move |file| {
            let mut guard = file.connection();
            let Some(connection) = guard.as_mut() else { return Ok(()) };
            if is_known { add(connection, reached, &subjects) } else { clear(connection) }
        })
        .await?;
        Ok(if is_known && done { Step::Done } else { Step::More })
    }

    /// Removes what is of no command any more.
    ///
    /// # Errors
    /// See [`StepError`].
    pub async fn forget(self: &Arc<Self>, ledger: &dyn Lookup) -> Result<(), StepError> {
        let Some(first) = ledger.subjects(0, 1).await?.first().map(|one| one.seq) else { return Ok(()) };
        self.file(move |file| {
            let guard = file.connection();
            let Some(connection) = guard.as_ref() else { return Ok(()) };
            let sql = "DELETE FROM places WHERE segment < ?1";
            connection.execute(sql, [stored(first / SEGMENT)]).map(drop)
        })
        .await
    }

    fn connection(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock().expect("nobody panics with the lock")
    }

    /// Works with the file, and removes it if that fails.
    async fn file<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StepError> {
        self.work(move |file| {
            work(file).inspect_err(|_| {
                *file.connection() = None;
                remove(&file.path);
            })
        })
        .await
        .map_err(|source| StepError::File { path: self.path.clone(), source })
    }

    async fn work<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> rusqlite::Result<T> + Send + 'static,
    ) -> rusqlite::Result<T> {
        let file = self.clone();
        tokio::task::spawn_blocking(move || work(&file))
            .await
            .unwrap_or_else(|ended| Err(rusqlite::Error::ToSqlConversionFailure(ended.into())))
    }
}

/// Opens the file if it is not open, and returns how far it is. Makes it if it is not there, or of no use.
fn open(file: &SearchFile) -> rusqlite::Result<Option<Reached>> {
    let mut guard = file.connection();
    if let Some(connection) = guard.as_ref() {
        return reached(connection);
    }
    let connection = match existing(&file.path) {
        Ok(Some(connection)) => connection,
        Ok(None) | Err(_) => {
            remove(&file.path);
            create(&file.path)?
        }
    };
    let reached = reached(&connection)?;
    *guard = Some(connection);
    Ok(reached)
}

/// The file as it was left; `None` if it is not there, of another format, or from before the machine was started.
fn existing(path: &Path) -> rusqlite::Result<Option<Connection>> {
    if !path.exists() {
        return Ok(None);
    }
    let connection = connect(path)?;
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version != VERSION {
        return Ok(None);
    }
    let boot: Option<String> =
        connection.query_row("SELECT boot FROM reached", [], |row| row.get(0)).optional()?;
    Ok((boot == Some(this_boot())).then_some(connection))
}

fn create(path: &Path) -> rusqlite::Result<Connection> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let connection = connect(path)?;
    connection.execute_batch(SCHEMA)?;
    connection.pragma_update(None, "user_version", VERSION)?;
    Ok(connection)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // A crash of this process loses nothing by it; after one of the machine the file is made again.
    connection.pragma_update(None, "synchronous", "off")?;
    // Room for the entries of one segment.
    connection.pragma_update(None, "cache_size", -8192)?;
    Ok(connection)
}

/// Removes the file. What cannot be removed is found again by the next step.
fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(%error, path = %path.display(), "cannot remove the search file");
            }
            _ => {}
        }
    }
}

/// Differs after each start of the machine.
fn this_boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

fn reached(connection: &Connection) -> rusqlite::Result<Option<Reached>> {
    connection
        .prepare_cached("SELECT first, seq, command_id FROM reached")?
        .query_row([], |row| {
            let place = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
            Ok(Reached { first: place(0)?, seq: place(1)?, command_id: row.get(2)? })
        })
        .optional()
}

fn clear(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN; DELETE FROM places; DELETE FROM reached; COMMIT")
}

fn add(connection: &mut Connection, before: Option<Reached>, subjects: &[Subject]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have the same file.
    if reached(&transaction)? != before {
        return Ok(());
    }
    {
        let mut insert = transaction.prepare_cached("INSERT OR IGNORE INTO places VALUES (?1, ?2, ?3)")?;
        for one in subjects {
            let names = [Some(&one.user_id), one.instance_id.as_ref(), one.task_id.as_ref()];
            for (kind, name) in (0..).zip(names) {
                let Some(name) = name else { continue };
                insert.execute(params![
                    stored(one.seq / SEGMENT),
                    tag(kind, name),
                    stored(one.seq % SEGMENT)
                ])?;
            }
        }
    }
    if let Some(last) = subjects.last() {
        let first =
            before.map_or_else(|| subjects.first().map_or(last.seq, |one| one.seq), |before| before.first);
        transaction.execute(
            "INSERT OR REPLACE INTO reached VALUES (1, ?1, ?2, ?3, ?4)",
            params![this_boot(), stored(first), stored(last.seq), last.command_id.as_bytes()],
        )?;
    }
    transaction.commit()
}

/// Where all of the tags are, from the highest place below `before` down; for as long as it may take, but in one segment at least.
fn hint(
    connection: &Connection,
    tags: &[i64],
    reached: Reached,
    before: Seq,
    longest: Duration,
) -> rusqlite::Result<Hint> {
    // The tags are ?4 and those after it.
    let also: String = (5..4 + tags.len())
        .map(|at| format!(" AND EXISTS (SELECT 1 FROM places o WHERE o.segment = ?1 AND o.tag = ?{at} AND o.place = p.place)"))
        .collect();
    let mut query = connection.prepare_cached(&format!(
        "SELECT place FROM places p WHERE segment = ?1 AND tag = ?4 AND place < ?2{also} ORDER BY place DESC LIMIT ?3"
    ))?;
    let mut first = reached.first;
    let end = before.min(reached.seq + 1);
    let began = Instant::now();
    let (mut below, mut at): (Seq, Vec<Seq>) = (end, Vec::new());
    while below > first {
        let segment = (below - 1) / SEGMENT;
        let base = segment * SEGMENT;
        let limit = MANY - at.len();
        let values =
            [segment, below - base, limit as u64].map(stored).into_iter().chain(tags.iter().copied());
        let places = query.query_map(params_from_iter(values), |row| row.get::<_, i64>(0))?;
        for place in places {
            at.push(base + place?.cast_unsigned());
        }
        below = base;
        if at.len() == MANY {
            first = at.last().copied().unwrap_or(first);
            break;
        }
        // From a cold disk each segment takes some reads.
        if began.elapsed() > longest {
            first = first.max(base);
            break;
        }
    }
    at.reverse();
    Ok(Hint { covers: (first < end).then(|| Places { first, last: end - 1 }), at })
}

/// Stands for a name. Two may share one: what is there is compared with the filter.
fn tag(kind: u8, name: &str) -> i64 {
    let hash = Sha256::new().chain_update([kind]).chain_update(name).finalize();
    i64::from(i32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]))
}

fn stored(place: u64) -> i64 {
    i64::try_from(place).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(places: impl Iterator<Item = Seq>) -> Vec<Subject> {
        places
            .map(|seq| Subject {
                seq,
                command_id: CommandId::floor(i64::try_from(seq).unwrap()),
                user_id: format!("u{}", seq % 3),
                instance_id: (seq % 2 == 0).then(|| format!("i{}", seq % 10)),
                task_id: Some(format!("t{seq}")),
            })
            .collect()
    }

    /// What the index says of the places below `before`, and what is there.
    fn compare(
        connection: &Connection,
        all: &[Subject],
        (before, longest): (Seq, Duration),
        names: &[(u8, &str)],
    ) -> Hint {
        let reached = reached(connection).unwrap().expect("something was added");
        let tags: Vec<i64> = names.iter().map(|(kind, name)| tag(*kind, name)).collect();
        let hint = hint(connection, &tags, reached, before, longest).unwrap();
        let covers = hint.covers.expect("something is covered");
        assert_eq!(covers.last, reached.seq.min(before - 1));
        let is_sought = |one: &&Subject| {
            names.iter().all(|(kind, name)| {
                [Some(&one.user_id), one.instance_id.as_ref(), one.task_id.as_ref()][usize::from(*kind)]
                    .is_some_and(|seen| seen == name)
            })
        };
        let sought = all.iter().filter(is_sought).map(|one| one.seq);
        let expected: Vec<Seq> = sought.filter(|seq| (covers.first..=covers.last).contains(seq)).collect();
        assert_eq!(hint.at, expected, "{names:?} below {before}");
        hint
    }

    #[test]
    fn a_hint_names_all_places_of_a_name_over_all_segments_and_says_how_far_it_goes() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = create(&directory.path().join("search")).unwrap();
        let all = subjects((0..20_000).map(|place| 5 + place * 37));
        let (early, late) = all.split_at(9_000);
        add(&mut connection, None, early).unwrap();
        let first = reached(&connection).unwrap();
        add(&mut connection, first, late).unwrap();
        add(&mut connection, first, &subjects(9_000_000..9_000_001)).unwrap();
        let last = all.last().unwrap().seq;
        assert_eq!(
            reached(&connection).unwrap().map(|reached| reached.seq),
            Some(last),
            "as another has added"
        );

        for before in [Seq::MAX, last, 600_000, 131_073, 131_072, 300] {
            for names in [&[(2, "t412")][..], &[(1, "i4")], &[(0, "u1"), (1, "i4")], &[(0, "nobody")]] {
                let hint = compare(&connection, &all, (before, Duration::MAX), names);
                assert!(hint.at.len() < MANY);
                assert_eq!(hint.covers.map(|covers| covers.first), Some(5), "{names:?} below {before}");
            }
        }
        let hint = compare(&connection, &all, (Seq::MAX, Duration::ZERO), &[(1, "i4")]);
        assert_eq!(
            hint.covers.map(|covers| covers.first),
            Some(last / SEGMENT * SEGMENT),
            "its time is over"
        );
        let hint = compare(&connection, &all, (Seq::MAX, Duration::MAX), &[(0, "u1")]);
        assert_eq!(hint.at.len(), MANY);
        assert_eq!(hint.covers.map(|covers| covers.first), hint.at.first().copied(), "below it is more");
    }
}
