//! An empty ledger of each kind, for one test.

use std::{sync::Arc, time::Duration};

use countersign::ledger::{
    Findings, Ledger, Limits, OperatorActs, Settings,
    sqlite::{Auditor, Operator, SqliteLedger},
};

/// The kinds of ledgers that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// A SQLite file.
    Sqlite,
}

/// An open ledger.
pub(crate) type Handle = Arc<dyn Ledger>;

/// Commits what is queued, and closes the ledger, so that it can be opened again.
pub(crate) async fn close(ledger: Handle) {
    ledger.flush().await;
}

/// A ledger that no other test sees.
pub(crate) struct Scratch {
    directory: tempfile::TempDir,
}

impl Scratch {
    pub(crate) async fn new(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => Self { directory: tempfile::tempdir().expect("a directory") },
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits { refusals_kept: 10, longest_window: Duration::from_secs(60), ..Limits::default() }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("ledger.db")
    }

    pub(crate) async fn open(&self) -> Handle {
        self.open_with(self.limits(), 1000).await
    }

    pub(crate) async fn open_with(&self, limits: Limits, queue_capacity: usize) -> Handle {
        let settings = Settings { path: self.path(), queue_capacity, max_batch: 256, limits };
        Arc::new(SqliteLedger::open(&settings).expect("a healthy ledger"))
    }

    /// Another process, for an operator's acts.
    pub(crate) async fn operator(&self) -> Box<dyn OperatorActs> {
        Box::new(Operator::open(&self.path()).expect("a healthy ledger"))
    }

    /// Another process that compares the ledger with the approval center.
    pub(crate) async fn auditor(&self) -> Box<dyn Findings> {
        Box::new(Auditor::open(&self.path()).expect("a healthy ledger"))
    }

    fn connection(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).expect("a healthy ledger")
    }

    /// Changes the ledger behind its back, by SQL that each kind understands.
    pub(crate) async fn execute(&self, sql: &str) {
        self.connection().execute_batch(sql).expect("valid SQL");
    }

    /// The first column of a query.
    pub(crate) async fn numbers(&self, sql: &str) -> Vec<i64> {
        let connection = self.connection();
        let mut statement = connection.prepare(sql).expect("valid SQL");
        let rows = statement.query_map([], |row| row.get(0)).expect("valid SQL");
        rows.map(|row| row.expect("a number")).collect()
    }

    /// How many rows a table has.
    pub(crate) async fn count(&self, table: &str) -> i64 {
        self.numbers(&format!("SELECT count(*) FROM {table}")).await[0]
    }

    /// The places in the log that a table speaks of, in order.
    pub(crate) async fn places(&self, table: &str) -> Vec<i64> {
        self.numbers(&format!("SELECT seq FROM {table} ORDER BY seq")).await
    }

    /// As if so many seconds had passed since the commands up to a place in the log were accepted.
    pub(crate) async fn age(&self, seconds: u64, through: u64) {
        let (millis, through) = (seconds * 1000, through.min(i64::MAX as u64));
        let sql = format!("UPDATE commands SET received_at = received_at - {millis} WHERE seq <= {through}");
        self.execute(&sql).await;
    }
}
