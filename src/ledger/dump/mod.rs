//! A ledger as JSON lines: written by `countersign ledger salvage`, taken in by `countersign ledger import`.
//!
//! The first line says what the file is, each further one is a row, and the last one says that the file is whole. Rows have the
//! names of PostgreSQL's columns. What stands in `exceptions` and in the first line is what counts; the state that stands with
//! each command is for people.

mod import;
mod lines;

use std::{
    io::{self, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

pub use import::{Imported, import};

use super::{
    check::Rows,
    copy::tables::{Ends, Reconciliation, TABLES},
    postgres,
    sqlite::{self, Salvaged, Source},
    state::{Exceptional, State},
};
use crate::time::Timestamp;
use lines::Line;

/// What the first line says the file is.
const FORMAT: &str = "countersign-ledger/1";

/// Why a ledger was not written or not taken in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A line is not what this program writes.
    #[error("line {line}: {what}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// It has no end.
    #[error("the file ends before its last line: it is not whole")]
    Cut,
    /// The file cannot be read or written.
    #[error("cannot read or write the file")]
    File(#[source] io::Error),
    /// The ledger cannot be opened.
    #[error(transparent)]
    Open(#[from] sqlite::OpenError),
    /// SQLite failed.
    #[error("cannot read or write the ledger")]
    Sqlite(#[from] rusqlite::Error),
    /// PostgreSQL failed.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
    /// The commit failed, or its answer was lost. What was imported may be there.
    #[error("the commit failed")]
    Commit(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is one already.
    #[error("{to} holds a ledger already ({what}); an import goes into an empty one")]
    NotEmpty {
        /// The ledger.
        to: String,
        /// What it holds.
        what: String,
    },
}

/// The first line.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Head {
    format: String,
    made_at: String,
    published_through: i64,
    pruned_through: i64,
    head: i64,
    id_lead_ms: i64,
    last_showing: i64,
    skipped_through: i64,
    asked_through: i64,
    passed_at: Option<i64>,
    reconciled: [i64; 3],
    /// Places in the log whose command could not be read.
    lost: Vec<(i64, i64)>,
}

impl Head {
    fn ends(&self) -> Ends {
        Ends {
            cursor: self.published_through,
            pruned: self.pruned_through,
            head: self.head,
            id_lead: self.id_lead_ms,
            newest: None,
            has_clock: false,
            last_showing: self.last_showing,
            reconciliation: Reconciliation {
                skipped_through: self.skipped_through,
                asked_through: self.asked_through,
                passed_at: self.passed_at,
                counts: self.reconciled,
            },
        }
    }
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
struct Tail {
    end: bool,
    rows: u64,
}

/// Rows, by the name of their table.
pub type Tables = Vec<(&'static str, u64)>;

/// Writes what was salvaged. Blocks.
///
/// # Errors
/// When it cannot be written.
pub fn write(salvaged: &Salvaged, into: &mut dyn Write) -> Result<Tables, Error> {
    let made_at = Timestamp::now().to_string();
    write_file(salvaged.path(), made_at, salvaged.head, &salvaged.lost, into)
}

fn write_file(
    path: &Path,
    made_at: String,
    head: i64,
    lost: &[(i64, i64)],
    into: &mut dyn Write,
) -> Result<Tables, Error> {
    let source = Source::look(path)?;
    let ends = source.ends()?;
    let reconciliation = &ends.reconciliation;
    let first = Head {
        format: FORMAT.to_owned(),
        made_at,
        published_through: ends.cursor,
        pruned_through: ends.pruned,
        head: head.max(ends.head),
        id_lead_ms: ends.id_lead,
        last_showing: ends.last_showing,
        skipped_through: reconciliation.skipped_through,
        asked_through: reconciliation.asked_through,
        passed_at: reconciliation.passed_at,
        reconciled: reconciliation.counts,
        lost: lost.to_vec(),
    };
    let mut line = |value: &dyn erased::Line| -> Result<(), Error> { value.write(into).map_err(Error::File) };
    line(&first)?;
    let mut tables = Vec::new();
    for table in &TABLES {
        let (mut count, mut place) = (0, None);
        while let Some(portion) = source.rows(table, place.as_ref())? {
            let rows = Rows { table, portion: &portion };
            for row in rows.each() {
                let state = if table.name == "commands" {
                    let seq = rows.number("seq", row).unwrap_or(0);
                    let exception: Option<Exceptional> =
                        source.exception(seq)?.and_then(|word| word.parse().ok());
                    Some(State::of(seq.cast_unsigned(), ends.cursor.cast_unsigned(), exception).as_str())
                } else {
                    None
                };
                line(&Line { table, portion: &portion, row, state })?;
            }
            count += portion.rows;
            place = Some(portion.last);
        }
        tables.push((table.name, count));
    }
    line(&Tail { end: true, rows: tables.iter().map(|(_, rows)| rows).sum() })?;
    into.flush().map_err(Error::File)?;
    Ok(tables)
}

/// Lines of several types.
mod erased {
    use std::io::{self, Write};

    use serde::Serialize;

    pub(super) trait Line {
        fn write(&self, into: &mut dyn Write) -> io::Result<()>;
    }

    impl<T: Serialize> Line for T {
        fn write(&self, into: &mut dyn Write) -> io::Result<()> {
            serde_json::to_writer(&mut *into, self)?;
            into.write_all(b"\n")
        }
    }
}
