//! An empty ledger of each kind, for one test.

use std::{ops::Deref, path::PathBuf, sync::Arc, time::Duration};

use countersign::{
    command::{Seq, TaskKey},
    ledger::{
        self, AcceptError, Client, Due, Entry, Ledger, Limits, Location, LookError, OpenError, Outbox,
        Settings, Settlement, Sizing, postgres,
    },
    time::Timestamp,
};
use tokio::sync::watch;

use crate::{
    support::postgres::{self as server, Bouncer, Postgres},
    turns::Turns,
};

/// The kinds of ledgers that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// A SQLite file.
    Sqlite,
    /// A database of PostgreSQL.
    Postgres,
    /// The same, by way of PgBouncer in transaction mode.
    Bouncer,
    /// A database of PostgreSQL, through two replicas in turn.
    TwoReplicas,
}

/// An open ledger, and its outbox of the current term.
#[derive(Clone)]
pub(crate) struct Handle {
    ledger: Arc<dyn Ledger>,
    outbox: Arc<dyn Outbox>,
}

impl Deref for Handle {
    type Target = dyn Ledger;

    fn deref(&self) -> &Self::Target {
        &*self.ledger
    }
}

impl Handle {
    /// Waits until this process is the leader.
    async fn of(ledger: Arc<dyn Ledger>) -> Self {
        let mut term = ledger.term();
        let begun = tokio::time::timeout(Duration::from_secs(20), term.wait_for(Option::is_some)).await;
        let outbox = begun.expect("a term begins").expect("the ledger is there").clone().expect("waited for");
        Self { ledger, outbox }
    }

    pub(crate) async fn settle(&self, settlement: Settlement) -> Result<(), AcceptError> {
        self.outbox.settle(settlement).await
    }

    pub(crate) async fn cursor(&self) -> Result<Seq, LookError> {
        self.outbox.cursor().await
    }

    pub(crate) async fn since(&self, seq: Seq, limit: usize) -> Result<Vec<Entry>, LookError> {
        self.outbox.since(seq, limit).await
    }

    pub(crate) async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<Due>, LookError> {
        self.outbox.due(now, limit).await
    }

    pub(crate) async fn waiting_tasks(&self) -> Result<Vec<(TaskKey, Seq)>, LookError> {
        self.outbox.waiting_tasks().await
    }

    pub(crate) fn head(&self) -> watch::Receiver<Seq> {
        self.outbox.head()
    }

    pub(crate) fn take_fresh(&self) -> Vec<Entry> {
        self.outbox.take_fresh()
    }

    pub(crate) fn keep_fresh(&self, wanted: bool) {
        self.outbox.keep_fresh(wanted);
    }
}

/// Commits what is queued, and closes the ledger, so that it can be opened again.
pub(crate) async fn close(ledger: Handle) {
    ledger.flush().await;
}

/// A ledger that no other test sees.
pub(crate) struct Scratch {
    backend: Backend,
    place: Place,
}

enum Place {
    File(tempfile::TempDir),
    Database { url: String, of_program: String },
}

impl Scratch {
    pub(crate) async fn new(backend: Backend) -> Self {
        let place = match backend {
            Backend::Sqlite => Place::File(tempfile::tempdir().expect("a directory")),
            Backend::Postgres | Backend::TwoReplicas => {
                let url = database().await;
                Place::Database { of_program: url.clone(), url }
            }
            Backend::Bouncer => {
                let url = database().await;
                let bouncer = tokio::task::block_in_place(Bouncer::shared);
                Place::Database { of_program: bouncer.before_database(&url), url }
            }
        };
        Self { backend, place }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits { refusals_kept: 10, longest_window: Duration::from_secs(60), ..Limits::default() }
    }

    pub(crate) async fn open(&self) -> Handle {
        self.open_with(self.limits(), 1000).await
    }

    pub(crate) async fn open_with(&self, limits: Limits, queue_capacity: usize) -> Handle {
        let replica = async || self.replica(limits.clone(), queue_capacity).await;
        let first = Handle::of(replica().await).await;
        match self.backend {
            Backend::Sqlite | Backend::Postgres | Backend::Bouncer => first,
            Backend::TwoReplicas => {
                Handle::of(Arc::new(Turns::new(first.ledger.clone(), replica().await))).await
            }
        }
    }

    /// Another process with the same ledger.
    pub(crate) async fn replica(&self, limits: Limits, queue_capacity: usize) -> Arc<dyn Ledger> {
        let settings =
            Settings { location: self.location(), search_file: None, sizing: sizing(limits, queue_capacity) };
        ledger::open(&settings).await.expect("a healthy ledger")
    }

    /// A command, beside those that serve.
    pub(crate) async fn client(&self) -> Box<dyn Client> {
        self.try_client().await.expect("a healthy ledger")
    }

    pub(crate) async fn try_replica(&self) -> Result<Arc<dyn Ledger>, OpenError> {
        ledger::open(&Settings {
            location: self.location(),
            search_file: None,
            sizing: sizing(self.limits(), 100),
        })
        .await
    }

    pub(crate) async fn try_client(&self) -> Result<Box<dyn Client>, OpenError> {
        ledger::open_client(&self.location()).await
    }

    fn location(&self) -> Location {
        match &self.place {
            Place::File(directory) => Location::Sqlite(path(directory)),
            Place::Database { of_program, .. } => Location::Postgres(options(of_program)),
        }
    }

    /// A connection to the database, with the ledger's schema.
    pub(crate) async fn connection(&self) -> tokio_postgres::Client {
        match &self.place {
            Place::File(_) => panic!("a file has no connections"),
            Place::Database { url, .. } => client(url).await,
        }
    }

    /// Changes the ledger behind its back, by SQL that each kind understands.
    pub(crate) async fn execute(&self, sql: &str) {
        match &self.place {
            Place::File(directory) => connection(directory).execute_batch(sql).expect("valid SQL"),
            Place::Database { url, .. } => client(url).await.batch_execute(sql).await.expect("valid SQL"),
        }
    }

    /// The first column of a query.
    pub(crate) async fn numbers(&self, sql: &str) -> Vec<i64> {
        match &self.place {
            Place::File(directory) => {
                let connection = connection(directory);
                let mut statement = connection.prepare(sql).expect("valid SQL");
                let rows = statement.query_map([], |row| row.get(0)).expect("valid SQL");
                rows.map(|row| row.expect("a number")).collect()
            }
            Place::Database { url, .. } => {
                let rows = client(url).await.query(sql, &[]).await.expect("valid SQL");
                rows.iter().map(|row| row.get(0)).collect()
            }
        }
    }

    /// How many rows a table has.
    pub(crate) async fn count(&self, table: &str) -> i64 {
        self.numbers(&format!("SELECT count(*) FROM {table}")).await[0]
    }

    /// The places in the log that a table speaks of, in order.
    pub(crate) async fn places(&self, table: &str) -> Vec<i64> {
        self.numbers(&format!("SELECT seq FROM {table} ORDER BY seq")).await
    }

    /// Moves the commands apart: each place in the log becomes so many times as high.
    pub(crate) async fn spread(&self, factor: u64) {
        let cursor = match &self.place {
            Place::File(_) => "cursor",
            Place::Database { .. } => "relay",
        };
        let places = ["commands", "exceptions", "dead_letters"].map(|table| (table, "seq"));
        for (table, column) in places.into_iter().chain([(cursor, "published_through")]) {
            self.execute(&format!("UPDATE {table} SET {column} = {column} * {factor}")).await;
        }
    }

    /// As if so many seconds had passed since the commands up to a place in the log were accepted.
    pub(crate) async fn age(&self, seconds: u64, through: u64) {
        let (millis, through) = (seconds * 1000, through.min(i64::MAX as u64));
        let also = match &self.place {
            Place::File(_) => String::new(),
            Place::Database { .. } => format!(", at_ms = at_ms - {millis}"),
        };
        let sql =
            format!("UPDATE commands SET received_at = received_at - {millis}{also} WHERE seq <= {through}");
        self.execute(&sql).await;
    }
}

async fn database() -> String {
    tokio::task::block_in_place(Postgres::shared).database().await
}

pub(crate) fn options(url: &str) -> postgres::Options {
    postgres::Options {
        address: postgres::Address::parse(url, None).expect("a valid URL"),
        demands: postgres::Demands::default(),
        holder: "a test".to_owned(),
    }
}

pub(crate) fn sizing(limits: Limits, queue_capacity: usize) -> Sizing {
    Sizing { queue_capacity, max_batch: 256, limits }
}

/// A connection that finds the tables by their names alone, as SQLite does.
async fn client(url: &str) -> tokio_postgres::Client {
    let client = server::client(url).await;
    client.batch_execute("SET search_path = countersign").await.expect("any name will do");
    client
}

fn path(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("ledger.db")
}

fn connection(directory: &tempfile::TempDir) -> rusqlite::Connection {
    rusqlite::Connection::open(path(directory)).expect("a healthy ledger")
}
