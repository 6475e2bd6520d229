//! The ledger in PostgreSQL: one log for several replicas, ordered by a row lock.
//!
//! # Who writes what
//! An accept locks the row of `log` until it commits, so the order of commits is the order of the log, on all replicas. One
//! replica at a time is the leader, by a lease: it alone publishes, settles and prunes. Everything else may be
//! asked of every replica: reports of workers, registrations, findings, operators' acts.
//!
//! # Durability
//! 200 means as much as a commit of the server does. Nothing that was promised rests on one machine's memory or disk: there is
//! no spool.

mod acts;
mod address;
mod blockers;
mod changes;
mod client;
mod contexts;
mod credentials;
mod dead_letters;
mod durability;
mod findings;
mod history;
mod import;
mod inspection;
mod lease;
mod link;
mod looks;
mod lookup;
mod operator;
mod outbox;
mod outcomes;
mod prune;
mod refusals;
mod registry;
mod relay_row;
mod schema;
mod search;
mod server;
mod shared;
mod standbys;
mod target;
mod tls;
mod values;
mod verbs;
mod writer;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    runtime::{self, Runtime},
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_postgres::error::SqlState;
use tokio_util::task::TaskTracker;

pub use address::{Address, AddressFault, SslMode};
pub use client::{Health, PostgresClient};
pub use durability::{Demands, Durability};
pub(super) use import::Import as PostgresImport;
pub(super) use inspection::Inspection as PostgresInspection;
pub use standbys::Replication;
pub(super) use target::{Held, Target, Under, Way};

use super::{AcceptError, ActError, LookError, Sizing, heard::Listeners, memory::Memory};
use crate::certificates;
use lease::Lease;
use link::{Link, Transaction};
use server::Server;
use shared::Shared;
use writer::{Job, Writer};

/// Where the database is, and what is demanded of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// The servers.
    pub address: Address,
    /// What 200 shall mean.
    pub demands: Demands,
    /// Names this process to people who look for the leader, such as a host name. Need not be unique.
    pub holder: String,
}

/// The connections by which everything but accepts is done.
#[derive(Debug, Clone)]
struct Links {
    /// Statements of their own, several at a time.
    reads: Link,
    /// Transactions that read.
    snapshots: Link,
    /// Transactions that write.
    changes: Link,
    /// Where the connections live, and what was begun is carried out.
    runtime: runtime::Handle,
    /// Changes under way. Once it is closed no more begin.
    begun: TaskTracker,
    /// Of the process that serves.
    memory: Option<Arc<Memory>>,
}

impl Links {
    fn new(server: &Arc<Server>, runtime: runtime::Handle) -> Self {
        let link = || Link::new(server.clone());
        let begun = TaskTracker::new();
        Self { reads: link(), snapshots: link(), changes: link(), runtime, begun, memory: None }
    }

    fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Error>> {
        let work = self.runtime.spawn(work);
        Box::pin(async move { work.await.unwrap_or(Err(Error::Closed)) })
    }

    fn look<T: Send + 'static, F: Future<Output = Result<T, Error>> + Send + 'static>(
        &self,
        operation: &'static str,
        look: impl FnOnce(Links) -> F,
    ) -> BoxFuture<'static, Result<T, LookError>> {
        let looked = self.run(look(self.clone()));
        Box::pin(
            async move { looked.await.map_err(|error| LookError { operation, source: Box::new(error) }) },
        )
    }

    /// Hands a transaction to `change`, which commits it.
    fn change<T: Send + 'static, F: Future<Output = Result<T, Error>> + Send + 'static>(
        &self,
        operation: &'static str,
        change: impl FnOnce(Transaction) -> F + Send + 'static,
    ) -> BoxFuture<'static, Result<T, AcceptError>> {
        let (link, closed) = (self.changes.clone(), self.begun.is_closed());
        let memory = self.memory.clone();
        let work = async move {
            let done = if closed { Err(Error::Closed) } else { change(link.begin().await?).await };
            if let Some(memory) = memory {
                memory.changes.add();
            }
            done
        };
        let changed = self.begun.spawn_on(work, &self.runtime);
        Box::pin(async move {
            changed.await.unwrap_or(Err(Error::Closed)).map_err(|error| {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "cannot {operation} the ledger");
                AcceptError::Unavailable
            })
        })
    }

    /// [`Links::change`] for an operator's act.
    fn act<T: Send + 'static, F: Future<Output = Result<T, ActError>> + Send + 'static>(
        &self,
        act: impl FnOnce(Transaction) -> F + Send + 'static,
    ) -> BoxFuture<'static, Result<T, ActError>> {
        let link = self.changes.clone();
        let work = self.begun.spawn_on(async move { act(link.begin().await?).await }, &self.runtime);
        Box::pin(async move { work.await.unwrap_or(Err(Error::Closed.into())) })
    }
}

/// The ledger, as one replica sees it. Dropping it gives up what is under way; [`flush`](super::Lifecycle::flush) finishes it.
pub struct PostgresLedger {
    links: Links,
    shared: Arc<Shared>,
    jobs: mpsc::UnboundedSender<Job>,
    refused: mpsc::UnboundedSender<super::RefusedCallback>,
    questions: mpsc::UnboundedSender<registry::Question>,
    listeners: Arc<Listeners>,
    stop: watch::Sender<bool>,
    tasks: Mutex<Option<Tasks>>,
    /// `None` once it is dropped.
    runtime: Option<Runtime>,
}

struct Tasks {
    lease: JoinHandle<()>,
    refusals: JoinHandle<()>,
}

impl Tasks {
    async fn end(self) {
        for (name, task) in [("lease", self.lease), ("refusals", self.refusals)] {
            if task.await.is_err() {
                tracing::error!("the ledger's task {name} panicked");
            }
        }
    }
}

impl std::fmt::Debug for PostgresLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresLedger").finish_non_exhaustive()
    }
}

impl PostgresLedger {
    /// Connects, makes the tables if they are missing, and begins to work. If the server is away, that happens as soon as it
    /// is back; until then nothing is accepted.
    ///
    /// # Errors
    /// What waiting does not help against: a wrong password or database, tables of a newer program.
    pub async fn open(options: &Options, sizing: &Sizing) -> Result<Self, Error> {
        let Options { address, demands, holder } = options;
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("ledger")
            .enable_all()
            .build()
            .map_err(Error::Thread)?;
        let server = Arc::new(Server::new(address.clone()));
        let memory = Arc::<Memory>::default();
        let links = Links { memory: Some(memory.clone()), ..Links::new(&server, runtime.handle().clone()) };
        let changes = links.changes.clone();
        let made = links.run(async move { ready(&changes).await }).await;
        let is_made = match made {
            Ok(()) => true,
            Err(error) if error.is_passing() => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, %address, "PostgreSQL is away; waiting for it, nothing is accepted until then");
                false
            }
            Err(error) => {
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let shared = Arc::new(Shared::new(sizing.queue_capacity, sizing.limits.clone(), memory.clone()));
        let (jobs, receiver) = mpsc::unbounded_channel();
        let writer = Writer {
            link: Link::new(server.clone()),
            jobs: receiver,
            reads: links.reads.clone(),
            shared: shared.clone(),
            max_batch: sizing.max_batch.max(1),
            demands: *demands,
            failing: None,
        };
        runtime.spawn(writer.run());
        let (stop, stopping) = watch::channel(false);
        let (refused, receiver) = mpsc::unbounded_channel();
        let refusals = runtime.spawn(refusals::run(
            Link::new(server.clone()),
            receiver,
            shared.clone(),
            stopping.clone(),
        ));
        let (questions, receiver) = mpsc::unbounded_channel();
        runtime.spawn(registry::run(links.reads.clone(), receiver));
        runtime.spawn(changes::run(links.reads.clone(), memory, stopping.clone()));
        runtime.spawn(standbys::run(links.reads.clone(), *demands, stopping.clone()));
        let listeners = Arc::<Listeners>::default();
        runtime.spawn(outcomes::tell(links.reads.clone(), listeners.clone(), stopping.clone()));
        let lease = Lease {
            server: server.clone(),
            link: Link::new(server),
            links: links.clone(),
            shared: shared.clone(),
            holder: format!("{holder} {}", uuid::Uuid::now_v7()),
        };
        let changes = links.changes.clone();
        let lease = runtime.spawn(async move {
            if is_made || made_at_last(&changes, stopping.clone()).await {
                lease.run(stopping).await;
            }
        });
        let tasks = Mutex::new(Some(Tasks { lease, refusals }));
        Ok(Self { links, shared, jobs, refused, questions, listeners, stop, tasks, runtime: Some(runtime) })
    }
}

/// Makes the tables if they are missing, and notes what is to be known of this start.
async fn ready(link: &Link) -> Result<(), Error> {
    schema::ready(link).await?;
    history::note_setback(link).await
}

/// Tries to make the tables until they are there; false if it is to stop first.
async fn made_at_last(link: &Link, mut stop: watch::Receiver<bool>) -> bool {
    const PAUSE: Duration = Duration::from_secs(1);
    loop {
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = lease::stopped(&mut stop) => return false,
        }
        match ready(link).await {
            Ok(()) => return true,
            Err(error) if error.is_passing() => {}
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "the ledger's tables cannot be used"
            ),
        }
    }
}

impl Drop for PostgresLedger {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(runtime) = self.runtime.take() {
            // May be dropped by a thread that must not block.
            runtime.shutdown_background();
        }
    }
}

/// Why PostgreSQL did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server said so, or the way to it failed.
    #[error("{}", said(.0))]
    Postgres(tokio_postgres::Error),
    /// The server does not keep commits as it must. The text says what is missing.
    #[error("{0}")]
    NotDurable(String),
    /// No TLS is possible.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The file of `sslrootcert` cannot be used.
    #[error(transparent)]
    Certificates(#[from] certificates::Error),
    /// A certificate is to be verified, and there is none to verify it by.
    #[error("no trusted authority is known on this machine; sslrootcert=FILE in ledger.url names them")]
    NoAuthorities,
    /// There was no answer in time.
    #[error("PostgreSQL did not answer in time")]
    TimedOut,
    /// A commit came with a warning: it may not be on the standby.
    #[error("PostgreSQL warned about the commit")]
    Warned,
    /// The ledger was closed meanwhile.
    #[error("the ledger is closed")]
    Closed,
    /// No thread could be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// Another process is the leader, or none.
    #[error("this process is not the leader any more")]
    Deposed,
    /// A column holds what this program did not write.
    #[error("the column {0} cannot be read")]
    Unreadable(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// There are no tables.
    #[error("the database holds no ledger yet; `countersign serve` makes it")]
    NoTables,
    /// The schema `countersign` is there, and says nothing of its version.
    #[error("the schema countersign has no version; it is not the ledger of this program")]
    NoVersion,
    /// The copy of another ledger into this one is not finished.
    #[error(
        "it holds a part of {source_ledger}, whose copy is not finished: `countersign ledger copy` goes on where it stopped"
    )]
    HalfCopied {
        /// The other one.
        source_ledger: String,
    },
    /// A newer program has changed the tables.
    #[error(
        "a newer program has changed the ledger's tables: they have version {found}, this program knows {known}"
    )]
    TooNew {
        /// The version of the tables.
        found: i32,
        /// The version that this program knows.
        known: i32,
    },
}

/// Raised by `durable_v1` (migrations/1.sql).
const NOT_DURABLE: &str = "ZS001";

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(said) if said.code().code() == NOT_DURABLE => Self::NotDurable(said.message().to_owned()),
            _ => Self::Postgres(error),
        }
    }
}

/// In one line, and without the names of the library.
fn said(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("PostgreSQL says: {} (SQLSTATE {})", said.message(), said.code().code());
    }
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let tls = next.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref()?.downcast_ref());
        words = match tls {
            Some(fault) => return format!("{words}: {}", certificates::plain(fault)),
            None => format!("{words}: {next}"),
        };
        cause = next.source();
    }
    words
}

impl Error {
    /// True if nothing more can be done by this connection.
    fn ends_connection(&self) -> bool {
        match self {
            // A server that has become a standby says so to each statement.
            Self::Postgres(error) => error.as_db_error().is_none_or(|error| error.code().code() == "25006"),
            Self::TimedOut => true,
            _ => false,
        }
    }

    /// True if somebody else held a lock for too long.
    fn is_lock(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE))
    }

    /// True if the server stopped a statement because it took too long.
    fn is_stopped(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.code() == Some(&SqlState::QUERY_CANCELED))
    }

    /// True if a table was asked that is not there.
    pub(super) fn is_missing_table(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE))
    }

    /// True if trying again soon may help: the server starts, stops or fails over, or somebody else holds a lock.
    pub(super) fn is_passing(&self) -> bool {
        let Self::Postgres(error) = self else { return matches!(self, Self::TimedOut | Self::Warned) };
        // Classes of SQLSTATE (PostgreSQL, appendix A): connection, transaction rollback, insufficient resources, operator
        // intervention; then a lock that is held by another, and a server that takes no writes.
        error.code().is_none_or(|state| {
            ["08", "40", "53", "57"].contains(&&state.code()[..2])
                || ["55P03", "25006"].contains(&state.code())
        })
    }
}
