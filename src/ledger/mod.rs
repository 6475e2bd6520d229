//! The ledger: durable accept, sameness, and what the broker has not confirmed yet.
//!
//! # Entities
//! - **Log.** `commands` is append-only. [`Seq`](crate::command::Seq) counts 1, 2, 3 … without gaps. A row holds the
//!   rendered message and the few columns people filter by.
//! - **Cursor.** Everything up to it is published, unless an exception says otherwise.
//! - **Exception.** A row for a command whose state is not the one its place says: `retrying` (refused by the broker,
//!   or waiting for an earlier command of its task), `parked` (an operator must act), `requeued` (an operator acted).
//! - **Window.** What was accepted within `dedupe_window`, and, while there is room, within `repeats_window`. Kept in
//!   the writer's memory, and rebuilt from the tail of the log. Fingerprints with a round are kept permanently, in a
//!   table.
//! - **Context.** A row that the third party registered in advance: which task a key or bot message means, and who may
//!   do what with it. Kept for a week after it expires, so that "expired" differs from "unknown".
//! - **Outcome.** A worker's last report on a command, with a **showing** for its card and for its instance: `waiting`,
//!   `shown` or `parked`. Pruned with the command, which is kept while a showing waits.
//! - **Dead letter.** A published command that came back from the broker. It is open until the command is requeued or
//!   a worker reports an outcome. One that is no command of this ledger is a **stray**; see [`DeadLetters`].
//! - **Mark.** When the cursor moved, to the second, and so when each command below it was published. What the broker
//!   said of exceptions has its own rows; see [`history`].
//! - **Act.** A change by a person or a program of theirs: when, by whom, why, and what it changed; see [`Actor`].
//! - **Finding.** A row for a published command whose decision the approval center did not show; see [`findings`].
//!   Commands up to a place in the log were checked; those without a row were shown.
//!
//! The state of a command is derived ([`state::State::of`]) and never stored twice.
//!
//! # Who writes what
//! One writer thread owns the only writing connection of `serve`. [`Accept::accept`] appends to the log.
//! [`Outbox::settle`] moves the cursor and writes exceptions; only the relay calls it. [`Accept::refused`] keeps
//! refused callbacks, [`Contexts::register`] and [`Contexts::unregister`] write contexts, the methods of [`Outcomes`]
//! write reports, [`DeadLetters::collect`] writes dead letters, and [`Findings::reconciled`] writes findings. The writer also prunes expired contexts, and published
//! commands older than the retention, in small steps from the oldest on.
//!
//! The command line writes from another process, in transactions of its own: `ledger requeue` and `park` write
//! exceptions, `show-again` showings, `reconcile` findings. The service finds them when it next looks for what is due.
//!
//! # Who publishes
//! Of several processes with one ledger, one at a time is the leader ([`Leadership`]). A SQLite file has one process,
//! which always leads.
//!
//! # Invariants
//! 1. A receipt is given only after the command's transaction was committed and synced.
//! 2. Sameness is looked up and written in that same transaction.
//! 3. A command leaves `pending` only by [`Outbox::settle`] or by an operator's recorded act.

mod accept;
mod acts;
pub mod check;
mod contexts;
pub mod copy;
mod credentials;
mod dead_letters;
pub mod dump;
mod error;
pub mod findings;
mod heard;
pub mod history;
mod index;
mod lifecycle;
mod lookup;
mod memory;
mod operator;
mod orders;
mod outbox;
mod outcomes;
pub mod postgres;
mod refusals;
mod refused_queue;
mod requeue;
mod retention;
mod search;
pub mod sqlite;
pub mod state;

use std::{fmt, path::PathBuf, sync::Arc};

pub use accept::{Accept, Acceptance, OnConflict, Receipt};
pub use acts::{ActFilter, ActKind, ActRecord, Actor, By, MAX_REASON_CHARS, NewAct, Via};
pub use contexts::{Contexts, MAX_KEY_BYTES, Registering, Registration};
pub use credentials::CredentialUse;
pub use dead_letters::{Collected, DeadLetter, DeadLetters, MAX_STRAYS, Stray, Why};
pub use error::{AcceptError, LookError};
pub use findings::{Finding, Findings, Verdict};
pub use heard::Heard;
pub use index::{SearchFile, Step, StepError};
pub use lifecycle::{Lifecycle, Limits};
pub use lookup::{Filter, Lookup, OutcomeFilter, Record, Remembered, Stats, Subject};
pub use operator::{ActError, OperatorActs, Progress};
pub use orders::{Acts, CarriedOut, MAX_ORDERED, Order, OrderKind, Ordered};
pub use outbox::{Due, Entry, Exception, Leadership, Outbox, Settlement, Standing, Term};
pub use outcomes::{
    OutcomeRecord, Outcomes, RefusedReport, Reported, ShowAgain, Showing, ShowingEnd, ShowingRecord,
    ShowingState, Shown, Surface,
};
pub use refusals::{AROUND, ContextTask, Dropped, KeptRefusal, RefusalFilter, RefusedCallback};
pub use requeue::{Requeue, RequeueFilter, RequeueStep};
pub use search::{Found, Hint, PATIENCE, Stopped};
pub use state::State;

use postgres::{PostgresClient, PostgresLedger};
use sqlite::{SqliteClient, SqliteLedger};

/// Where a ledger is.
#[derive(Debug, Clone)]
pub enum Location {
    /// A SQLite file. Its directory must exist and be on a local disk.
    Sqlite(PathBuf),
    /// A PostgreSQL database, shared by several replicas.
    Postgres(postgres::Options),
}

impl fmt::Display for Location {
    /// For people. Without passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(options) => options.address.fmt(f),
        }
    }
}

/// How much a ledger may take on and keeps.
#[derive(Debug, Clone)]
pub struct Sizing {
    /// Accepts that may wait for the writer; one more is refused as [`AcceptError::Overloaded`].
    pub queue_capacity: usize,
    /// Maximum number of accepts in one commit.
    pub max_batch: usize,
    /// What may change while it is open.
    pub limits: Limits,
}

/// Where the ledger is, and its sizes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it is.
    pub location: Location,
    /// Where its [`SearchFile`] is, if it has one.
    pub search_file: Option<PathBuf>,
    /// Its sizes.
    pub sizing: Sizing,
}

/// A ledger, as a command sees it: beside the processes that serve from it, or while none does.
pub trait Client: Lookup + Findings + OperatorActs {}

impl<T: Lookup + Findings + OperatorActs> Client for T {}

/// Why a ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The SQLite file cannot be used.
    #[error(transparent)]
    Sqlite(#[from] sqlite::OpenError),
    /// The PostgreSQL database cannot be used.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
}

/// Opens a ledger to serve from. A PostgreSQL server that is away is waited for afterwards.
///
/// # Errors
/// What waiting does not help against.
pub async fn open(settings: &Settings) -> Result<Arc<dyn Ledger>, OpenError> {
    let Settings { location, sizing, .. } = settings;
    Ok(match location {
        Location::Sqlite(path) => Arc::new(SqliteLedger::open(path, sizing)?),
        Location::Postgres(options) => Arc::new(PostgresLedger::open(options, sizing).await?),
    })
}

/// Opens a ledger that exists, for a command. Everything it does must be awaited on the runtime that this is called on.
///
/// # Errors
/// It is not there, or away, or not of this program.
pub async fn open_client(location: &Location) -> Result<Box<dyn Client>, OpenError> {
    Ok(match location {
        Location::Sqlite(path) => Box::new(SqliteClient::open(path)?),
        Location::Postgres(options) => Box::new(PostgresClient::open(options).await?),
    })
}

/// The whole ledger. Each part of the program holds only the trait it needs, so that a test double needs no other
/// methods.
///
/// Every method may be called from any thread.
pub trait Ledger:
    Accept + Leadership + Lookup + Contexts + Outcomes + DeadLetters + Findings + Acts + Lifecycle
{
}

impl<T: Accept + Leadership + Lookup + Contexts + Outcomes + DeadLetters + Findings + Acts + Lifecycle> Ledger
    for T
{
}
