//! Whether a ledger keeps its invariants: `countersign ledger check`.
//!
//! Everything is read as of one moment, a portion at a time, also beside a running service. The rules are the same for both
//! kinds of ledger; what only one kind can have wrong (pages, tables that somebody changed) each finds by itself.

pub(in crate::ledger) mod body;
mod fault;
pub(in crate::ledger) mod places;
mod rules;

use std::path::{Path, PathBuf};

use uuid::Uuid;

pub(in crate::ledger) use fault::Seen;
pub use fault::{Fault, Kind};
pub(in crate::ledger) use rules::Rows;

use super::{
    Location,
    copy::tables::{Ends, Place, TABLES, Table},
    postgres::{self, PostgresInspection},
    sqlite::{self, SqliteInspection},
};
use crate::time::Timestamp;
use rules::{Rules, Wanted};

/// Why a ledger could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened.
    #[error(transparent)]
    Open(#[from] sqlite::OpenError),
    /// The file cannot be read.
    #[error("cannot read the ledger {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// The database is away, or refuses.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
}

/// What was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// What was found.
    pub faults: u64,
    /// Rows, by the name of their table.
    pub tables: Vec<(&'static str, u64)>,
    /// The end of the log.
    pub head: i64,
    /// Published up to here.
    pub cursor: i64,
    /// Pruned up to here.
    pub pruned: i64,
    /// When the newest command was received.
    pub newest: Option<Timestamp>,
}

/// A ledger as of one moment.
enum Inspection {
    Sqlite(SqliteInspection),
    Postgres(PostgresInspection),
}

fn unreadable(path: &Path) -> impl Fn(rusqlite::Error) -> Error {
    move |source| Error::Read { path: path.to_owned(), source }
}

impl Inspection {
    async fn open(location: &Location) -> Result<Self, Error> {
        Ok(match location {
            Location::Sqlite(path) => Self::Sqlite(SqliteInspection::open(path)?),
            Location::Postgres(options) => Self::Postgres(PostgresInspection::open(options).await?),
        })
    }

    async fn own(&mut self) -> Result<Vec<Fault>, Error> {
        Ok(match self {
            Self::Sqlite(inspection) => inspection.file(),
            Self::Postgres(inspection) => inspection.tables().await?,
        })
    }

    async fn ends(&mut self) -> Result<Ends, Error> {
        Ok(match self {
            Self::Sqlite(inspection) => inspection.ends().map_err(unreadable(inspection.path()))?,
            Self::Postgres(inspection) => inspection.ends().await?,
        })
    }

    async fn after(&mut self, table: &Table, place: Option<&Place>) -> Result<Seen, Error> {
        Ok(match self {
            Self::Sqlite(inspection) => inspection.after(table, place),
            Self::Postgres(inspection) => inspection.after(table, place).await?,
        })
    }

    /// The commands that rounds name, by fingerprint.
    async fn rounds(&mut self, wanted: &[Wanted]) -> Result<Vec<Option<Uuid>>, Error> {
        let fingerprints = wanted.iter().map(|(fingerprint, ..)| fingerprint.clone()).collect();
        Ok(match self {
            Self::Sqlite(inspection) => {
                inspection.rounds(fingerprints).map_err(unreadable(inspection.path()))?
            }
            Self::Postgres(inspection) => inspection.rounds(fingerprints).await?,
        })
    }

    /// Those of these commands that are not there.
    async fn unknown(&mut self, ids: Vec<Uuid>) -> Result<Vec<Uuid>, Error> {
        Ok(match self {
            Self::Sqlite(inspection) => inspection.unknown(ids).map_err(unreadable(inspection.path()))?,
            Self::Postgres(inspection) => inspection.unknown(ids).await?,
        })
    }
}

/// Looks at a whole ledger. `told` is given each fault, and `progress` now and then the number of rows that were read.
///
/// # Errors
/// When it cannot be looked at at all.
pub async fn check(
    location: &Location,
    told: &mut (dyn FnMut(&Fault) + Send),
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Checked, Error> {
    match Inspection::open(location).await {
        Ok(inspection) => look(inspection, told, progress).await,
        Err(Error::Open(sqlite::OpenError::Damaged { path, what })) => {
            told(&Fault { kind: Kind::File, place: path.display().to_string(), what });
            Ok(Checked { faults: 1, ..Checked::default() })
        }
        Err(error) => Err(error),
    }
}

/// [`check`] for a file that nobody else has open and that is not to be touched: a copy.
///
/// # Errors
/// When it cannot be looked at at all.
pub async fn check_copy(
    path: &Path,
    told: &mut (dyn FnMut(&Fault) + Send),
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Checked, Error> {
    look(Inspection::Sqlite(SqliteInspection::still(path)?), told, progress).await
}

async fn look(
    mut inspection: Inspection,
    told: &mut (dyn FnMut(&Fault) + Send),
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Checked, Error> {
    let mut report = Checked::default();
    let mut tell = |faults: Vec<Fault>| {
        faults.iter().for_each(&mut *told);
        faults.len() as u64
    };
    report.faults += tell(inspection.own().await?);
    let ends = match inspection.ends().await {
        Ok(ends) => ends,
        Err(Error::Read { source, .. }) => {
            report.faults += tell(vec![Fault::new(Kind::Unreadable, "cursor", source.to_string())]);
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    (report.head, report.cursor, report.pruned) = (ends.head, ends.cursor, ends.pruned);
    report.newest = ends.newest.and_then(|at| Timestamp::from_millisecond(at).ok());
    let mut rules = Rules::new(ends);
    report.faults += tell(rules.take());
    let mut read = 0;
    // The log first: what else there is belongs to its commands.
    let (commands, others): (Vec<&Table>, Vec<&Table>) =
        TABLES.iter().partition(|table| table.name == "commands");
    for table in commands.into_iter().chain(others) {
        let (mut place, mut count) = (None, 0);
        loop {
            match inspection.after(table, place.as_ref()).await? {
                Seen::Rows(portion) => {
                    let rows = Rows { table, portion: &portion };
                    let wanted = rules.see(&rows);
                    for (wanted, found) in wanted.iter().zip(inspection.rounds(&wanted).await?) {
                        rules.round(wanted, found);
                    }
                    if table.name == "rounds" {
                        rounds(&mut inspection, &mut rules, &rows).await?;
                    }
                    count += portion.rows;
                    place = Some(portion.last);
                }
                Seen::Bad(at, fault) => {
                    report.faults += tell(vec![fault]);
                    place = Some(at);
                }
                Seen::Lost(fault) => {
                    report.faults += tell(vec![fault]);
                    break;
                }
                Seen::End => break,
            }
            report.faults += tell(rules.take());
            progress(read + count);
        }
        if table.name == "commands" {
            rules.commands_end();
            report.faults += tell(rules.take());
        }
        read += count;
        report.tables.push((table.name, count));
    }
    Ok(report)
}

async fn rounds(inspection: &mut Inspection, rules: &mut Rules, rows: &Rows<'_>) -> Result<(), Error> {
    let mut ids = Vec::new();
    for row in rows.each() {
        let id = rows.id("command_id", row).unwrap_or_default();
        ids.push(id);
        let length = rows.bytes("fingerprint", row).unwrap_or_default().len();
        if length != 32 {
            rules.wrong_fingerprint(id, length);
        }
    }
    for id in inspection.unknown(ids).await? {
        rules.unknown(id);
    }
    Ok(())
}
