//! A copy of a ledger from a SQLite file to a PostgreSQL database: `countersign ledger copy`.
//!
//! The file is read by one transaction, and nobody writes to it meanwhile. The database notes with each portion how far the
//! copy has come, so that one that was interrupted goes on from there, as long as the file is as it was. At the end a note
//! beside the file keeps a `serve` off it.
//!
//! A command keeps its place in the log, its id and its age: what is a duplicate, a repeat or a contradiction in the file is
//! one in the database. What is not published yet is not copied: the file must be drained first.

pub(in crate::ledger) mod tables;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::task::{JoinHandle, spawn_blocking};

use super::{
    postgres::{self, Held, Options, Target, Under, Way},
    sqlite::{self, Source},
};
use crate::{telemetry::failpoint::reach, time::Timestamp};
use tables::{Census, Place, Portion, TABLES, numbered_by};

/// A database that is away, or slow, is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Why nothing, or not everything, was copied.
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
    #[error("cannot copy to {to}")]
    Postgres {
        /// The database.
        to: String,
        /// The cause.
        #[source]
        source: Box<postgres::Error>,
    },
    /// Commands of the file are not published yet.
    #[error(
        "{} of its commands are not published: {fresh} pending, {retrying} retrying, {requeued} requeued. Let a `countersign serve` that \
         takes no callbacks publish them, or park them (`countersign ledger park`)",
        fresh + retrying + requeued
    )]
    NotDrained {
        /// Not tried yet.
        fresh: u64,
        /// Refused by the broker, or waiting for one that was.
        retrying: u64,
        /// Requeued by an operator.
        requeued: u64,
    },
    /// It was copied before, to another place.
    #[error("it was {words} already; to copy it again, remove {}", note.display())]
    Moved {
        /// Where to, and when.
        words: String,
        /// The file that says so.
        note: PathBuf,
    },
    /// A replica works with the database.
    #[error("{leader} serves from {to}; stop all replicas, and wait for six seconds if one was killed")]
    Led {
        /// The database.
        to: String,
        /// The replica.
        leader: String,
    },
    /// The database is a ledger of its own.
    #[error(
        "{to} holds a ledger already ({commands} commands, {contexts} contexts, {refusals} refused callbacks); a copy goes into an \
         empty one. If nobody needs it: DROP SCHEMA countersign CASCADE"
    )]
    NotEmpty {
        /// The database.
        to: String,
        /// Accepted so far.
        commands: u64,
        /// Registered.
        contexts: u64,
        /// Kept.
        refusals: u64,
    },
    /// The database is the ledger that another one was moved to, or this one before it changed.
    #[error(
        "{to} holds a ledger already: {source_ledger} was copied there at {at}, and is another ledger or has changed since"
    )]
    Finished {
        /// The database.
        to: String,
        /// What was copied.
        source_ledger: String,
        /// When.
        at: Timestamp,
    },
    /// The database has a part of another ledger, or of this one as it was.
    #[error(
        "{to} holds a part of {source_ledger}, which is another ledger or has changed since; --restart removes the part and \
         copies all again"
    )]
    Changed {
        /// The database.
        to: String,
        /// What was copied.
        source_ledger: String,
    },
    /// Somebody else copies into the database.
    #[error("another process copies into {0}")]
    Overtaken(String),
    /// The database did not keep a row for each in the file.
    #[error("{to} has {there} of the {here} rows; --restart copies all again")]
    Missing {
        /// The database.
        to: String,
        /// Rows that were copied.
        there: u64,
        /// Rows of the file.
        here: u64,
    },
}

/// What a copy would take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// Rows, by the name of their table.
    pub tables: Vec<(&'static str, u64)>,
    /// Rows that an earlier copy has brought already.
    pub there: u64,
}

/// What a copy did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Rows, by the name of their table.
    pub tables: Vec<(&'static str, u64)>,
    /// How many of them were there before, by an earlier copy that was interrupted.
    pub there: u64,
    /// When all was there, if it was before.
    pub before: Option<Timestamp>,
}

fn by_table(census: &Census) -> Vec<(&'static str, u64)> {
    TABLES.iter().map(|table| table.name).zip(census.rows.iter().copied()).collect()
}

/// Looks what a copy would take, and whether it would be refused. A `serve` may use the file.
///
/// # Errors
/// What would refuse it, but for a `serve`.
pub async fn preview(from: &Path, to: &Options) -> Result<Preview, Error> {
    let source = Source::look(from)?;
    let census = counted(from, &source)?;
    let held = Target::new(to).look().await.map_err(failed(to))?;
    let there = match &held {
        Held::Nothing | Held::Empty => 0,
        held => admitted(held, to, &census)?.rows,
    };
    let is_done = matches!(&held, Held::Copy(Under { finished_at: Some(_), .. }));
    if !is_done {
        not_moved(from)?;
        drained(&census)?;
    }
    Ok(Preview { tables: by_table(&census), there })
}

/// Copies a ledger; goes on with a copy that was interrupted. `restart` removes what one has brought. `progress` is told now
/// and then how many rows are there, of how many.
///
/// # Errors
/// Refused, or interrupted.
pub async fn copy(
    from: &Path,
    to: &Options,
    restart: bool,
    mut progress: impl FnMut(u64, u64),
) -> Result<Copied, Error> {
    let source = Source::hold(from)?;
    let census = counted(from, &source)?;
    let total = census.rows.iter().sum();
    let target = Target::new(to);
    if restart {
        target.discard().await.or_else(without_tables).map_err(failed(to))?;
    }
    let held = target.look().await.map_err(failed(to))?;
    if let Held::Copy(under) = &held
        && let Some(finished_at) = under.finished_at
    {
        admitted(&held, to, &census)?;
        Source::mark_moved(from, &to.address.to_string())?;
        return Ok(Copied { tables: by_table(&census), there: total, before: Some(finished_at) });
    }
    not_moved(from)?;
    drained(&census)?;
    let held = match held {
        Held::Nothing | Held::Empty => {
            let begun = target.begin(&from.display().to_string(), &census).await;
            reach("copy:begun");
            begun.map_err(failed(to))?
        }
        held => held,
    };
    let there = admitted(&held, to, &census)?.rows;
    progress(there, total);
    let mut work = Work { from, to, target, source: Arc::new(Mutex::new(source)), census };
    let mut since = Instant::now();
    let mut rows = there;
    loop {
        let passing = match work.go_on(&mut |rows| progress(rows, total)).await {
            Ok(()) => break,
            Err(Error::Postgres { source, .. }) if source.is_passing() => source,
            Err(error) => return Err(error),
        };
        let now_there = work.there().await.unwrap_or(rows);
        if now_there > rows {
            (rows, since) = (now_there, Instant::now());
        }
        if since.elapsed() > PATIENCE {
            return Err(failed(to)(*passing));
        }
        tracing::debug!(error = &*passing as &dyn std::error::Error, "the copy goes on in a moment");
        tokio::time::sleep(AGAIN).await;
    }
    reach("copy:finished");
    Source::mark_moved(from, &to.address.to_string())?;
    reach("copy:marked");
    work.target.analyze().await;
    Ok(Copied { tables: by_table(&work.census), there, before: None })
}

fn counted(from: &Path, source: &Source) -> Result<Census, Error> {
    source.census().map_err(unreadable(from))
}

fn unreadable(from: &Path) -> impl Fn(rusqlite::Error) -> Error {
    move |source| Error::Read { path: from.to_owned(), source }
}

fn failed(to: &Options) -> impl Fn(postgres::Error) -> Error {
    move |source| Error::Postgres { to: to.address.to_string(), source: Box::new(source) }
}

/// Where there are no tables there is nothing to remove.
fn without_tables(error: postgres::Error) -> Result<bool, postgres::Error> {
    if error.is_missing_table() { Ok(false) } else { Err(error) }
}

fn not_moved(from: &Path) -> Result<(), Error> {
    match Source::moved(from)? {
        None => Ok(()),
        Some(moved) => Err(Error::Moved { words: moved.words, note: moved.note }),
    }
}

fn drained(census: &Census) -> Result<(), Error> {
    let Census { fresh, retrying, requeued, .. } = *census;
    if fresh + retrying + requeued == 0 {
        Ok(())
    } else {
        Err(Error::NotDrained { fresh, retrying, requeued })
    }
}

/// The copy to go on with.
fn admitted<'a>(held: &'a Held, to: &Options, census: &Census) -> Result<&'a Under, Error> {
    let to = to.address.to_string();
    match held {
        Held::Copy(under) if under.content == census.content => Ok(under),
        Held::Copy(Under { source, finished_at, .. }) => Err(match *finished_at {
            None => Error::Changed { to, source_ledger: source.clone() },
            Some(at) => Error::Finished { to, source_ledger: source.clone(), at },
        }),
        Held::Ledger { commands, contexts, refusals } => {
            Err(Error::NotEmpty { to, commands: *commands, contexts: *contexts, refusals: *refusals })
        }
        Held::Led(leader) => Err(Error::Led { to, leader: leader.clone() }),
        // Nobody else empties it in the middle.
        Held::Nothing | Held::Empty => Err(Error::Overtaken(to)),
    }
}

struct Work<'a> {
    from: &'a Path,
    to: &'a Options,
    target: Target,
    source: Arc<Mutex<Source>>,
    census: Census,
}

type Read = JoinHandle<rusqlite::Result<Option<Portion>>>;

impl Work<'_> {
    async fn under(&self) -> Result<Under, Error> {
        let held = self.target.look().await.map_err(failed(self.to))?;
        admitted(&held, self.to, &self.census).cloned()
    }

    /// The rows that are there.
    async fn there(&self) -> Option<u64> {
        self.under().await.ok().map(|under| under.rows)
    }

    /// Reads on another thread, while what was read before is written.
    fn read(&self, table: usize, after: Option<Place>) -> Read {
        let source = self.source.clone();
        spawn_blocking(move || {
            let mut source = source.lock().expect("nobody panics with the lock");
            source.portion(&TABLES[table], after.as_ref())
        })
    }

    /// Goes on from where the copy is, to its end.
    async fn go_on(&mut self, progress: &mut impl FnMut(u64)) -> Result<(), Error> {
        let Under { rows: mut done, mut way, finished_at, .. } = self.under().await?;
        if finished_at.is_some() {
            // The answer to the last commit was lost.
            return Ok(());
        }
        let mut at = numbered_by(&way.doing).unwrap_or(0);
        let mut next = self.read(at, way.place.clone());
        loop {
            let portion = next.await.expect("reading does not panic").map_err(unreadable(self.from))?;
            let table = &TABLES[at];
            let moved = match portion {
                Some(portion) => {
                    next = self.read(at, Some(portion.last.clone()));
                    let kept = self.target.keep(table, &way, &portion).await.map_err(failed(self.to))?;
                    reach("copy:portion");
                    done += portion.rows;
                    progress(done);
                    way = Way { doing: table.name.to_owned(), place: Some(portion.last), ..way };
                    kept
                }
                None if at + 1 < TABLES.len() => {
                    at += 1;
                    next = self.read(at, None);
                    let turned = self.target.turn_to(&TABLES[at], &way).await.map_err(failed(self.to))?;
                    way = Way { doing: TABLES[at].name.to_owned(), place: None, ..way };
                    turned
                }
                None => break,
            };
            if !moved {
                return Err(Error::Overtaken(self.to.address.to_string()));
            }
        }
        let total = self.census.rows.iter().sum();
        if done != total {
            return Err(Error::Missing { to: self.to.address.to_string(), there: done, here: total });
        }
        let finished = self.target.finish(&way, &self.census.ends).await.map_err(failed(self.to))?;
        if finished { Ok(()) } else { Err(Error::Overtaken(self.to.address.to_string())) }
    }
}
