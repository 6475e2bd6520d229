//! What can be read of a damaged file: `countersign ledger salvage`.
//!
//! The trees of all tables are walked as far as they can be. Pages that a damaged one led to are then found by what is in
//! them. What is read goes into a new ledger beside, whose constraints it must pass, and from there to JSON lines.

mod states;
mod trees;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rusqlite::Connection;
use uuid::Uuid;

use super::{
    pages::{Pages, be32},
    record::Shape,
    schema::{self, MIGRATIONS, OpenError},
};
use crate::ledger::{By, check::places::Places};
use trees::Trees;

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// The file cannot be opened.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A service writes to it.
    #[error("a `countersign serve` uses {}; stop it, and move the ledger's files aside", .0.display())]
    InUse(PathBuf),
    /// The new ledger beside cannot be written.
    #[error("cannot write {}", path.display())]
    Scratch {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is nothing in it of a ledger.
    #[error("{} has no row of a ledger that can be read", .0.display())]
    Nothing(PathBuf),
}

/// What was read. The rows are in a file of their own, which is removed when this is dropped.
#[derive(Debug)]
pub struct Salvaged {
    scratch: Scratch,
    /// Damaged pages, with the table or index that they belong to.
    pub bad_pages: Vec<(u32, String)>,
    /// Rows that are there and cannot be read, by table.
    pub unreadable: BTreeMap<String, u64>,
    /// Places in the log whose command could not be read.
    pub lost: Vec<(i64, i64)>,
    /// The ids of those whose id is known.
    pub lost_ids: BTreeMap<i64, Uuid>,
    /// Commands whose state is not known; they are parked.
    pub unknown: u64,
    /// False if the row that says how far publishing has come could not be read.
    pub cursor_is_known: bool,
    /// True if the write-ahead log has more than could be read, or may have had.
    pub log_is_cut: bool,
    /// The end of the log, as far as anything tells.
    pub head: i64,
}

/// The new ledger.
#[derive(Debug)]
struct Scratch {
    path: PathBuf,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok();
    }
}

impl Salvaged {
    /// The ledger with what was read.
    pub(in crate::ledger) fn path(&self) -> &Path {
        &self.scratch.path
    }
}

/// What could not be read.
#[derive(Debug, Default)]
struct Tally {
    bad_pages: BTreeMap<u32, String>,
    unreadable: BTreeMap<String, u64>,
    /// Tables of which pages were found that nothing leads to.
    damaged: BTreeSet<String>,
}

/// Reads a file, with its write-ahead log. The rows go to a file at `scratch`, which must not exist. What is
/// parked there is parked `by` somebody. `progress` is told how many pages were read, of how many. Blocks.
///
/// # Errors
/// See [`SalvageError`].
pub fn salvage(
    from: &Path,
    scratch: PathBuf,
    by: &By,
    mut progress: impl FnMut(u64, u64),
) -> Result<Salvaged, SalvageError> {
    let unreadable = |source| SalvageError::Read { path: from.to_owned(), source };
    if fs::symlink_metadata(from).map_err(unreadable)?.is_dir() {
        return Err(unreadable(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    not_in_use(from)?;
    let pages = Pages::open(from).map_err(unreadable)?;
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| SalvageError::Scratch {
        path: scratch.clone(),
        source,
    };
    let (connection, kept) = begin(&scratch).map_err(failed)?;
    let version = pages.read(1).and_then(|first| be32(&first, 60)).unwrap_or(0) as usize;
    let then = MIGRATIONS.len().min(if version == 0 { usize::MAX } else { version });
    let read = || -> rusqlite::Result<Salvaged> {
        let shapes = Shape::all(&connection)?;
        let old = Connection::open_in_memory()?;
        for step in MIGRATIONS.iter().take(then) {
            old.execute_batch(step)?;
        }
        let transaction = connection.unchecked_transaction()?;
        let mut trees = Trees::new(&pages, &transaction, &shapes, &Shape::all(&old)?)?;
        trees.walk(&mut progress)?;
        states::rounds(&transaction)?;
        let (has_cursor, present) = (trees.has_cursor(), states::present(&transaction)?);
        let index_head = trees.last_in_index();
        let tally = trees.tally();
        let states = states::decide(&transaction, &tally, has_cursor, index_head, pages.log_is_cut, by)?;
        let lost = present.holes(states.pruned, states.head);
        let lost_ids = trees.ids_of(&lost);
        transaction.commit()?;
        Ok(Salvaged {
            scratch: kept,
            bad_pages: tally.bad_pages.into_iter().collect(),
            unreadable: tally.unreadable,
            lost,
            lost_ids,
            unknown: states.unknown,
            cursor_is_known: states.cursor_is_known,
            log_is_cut: pages.log_is_cut,
            head: states.head,
        })
    };
    let salvaged = read().map_err(|error| failed(Box::new(error)))?;
    if salvaged.head == 0 && !salvaged.cursor_is_known {
        return Err(SalvageError::Nothing(from.to_owned()));
    }
    Ok(salvaged)
}

/// A service that writes would make the pages of the file and those of the log differ while they are read.
fn not_in_use(path: &Path) -> Result<(), SalvageError> {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    match File::open(PathBuf::from(lock)).map(|lock| lock.try_lock()) {
        Ok(Err(TryLockError::WouldBlock)) => Err(SalvageError::InUse(path.to_owned())),
        _ => Ok(()),
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn begin(path: &Path) -> Result<(Connection, Scratch), Failed> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let scratch = Scratch { path: path.to_owned() };
    let mut connection = Connection::open(path)?;
    // It is of no use after a crash.
    connection.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF",
    )?;
    schema::migrate(&mut connection, path).map_err(|error: OpenError| Box::new(error))?;
    Ok((connection, scratch))
}

/// Places, for the parts of this module.
type Taken = Places;
