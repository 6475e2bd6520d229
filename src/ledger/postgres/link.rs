//! Connections that are made when they are needed, and made again when they are lost.
//!
//! A statement that takes too long ends the connection, since a server that is frozen never answers. The server is never
//! asked to cancel a statement: one that waits for a standby would then return success without being replicated.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::timeout,
};
use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};

use super::{
    Error,
    server::{Connection, Server},
};

/// A statement that takes longer is given up with its connection.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// The values of a statement with their types; see [`values!`](super::values::values).
pub(super) type Values<'a> = [(&'a (dyn ToSql + Sync), Type)];

/// One connection to the server, or none for now.
#[derive(Debug, Clone)]
pub(super) struct Link {
    server: Arc<Server>,
    connection: Arc<Mutex<Option<Arc<Connection>>>>,
}

impl Link {
    pub(super) fn new(server: Arc<Server>) -> Self {
        Self { server, connection: Arc::default() }
    }

    /// The generation of connections, which changes when one is lost.
    pub(super) fn generation(&self) -> u64 {
        *self.server.generation().borrow()
    }

    /// Runs a statement of its own. Several may be under way at the same time.
    pub(super) async fn query(&self, sql: &str, values: &Values<'_>) -> Result<Vec<Row>, Error> {
        let connection = connected(&self.server, &mut *self.connection.lock().await).await?;
        let done = within(connection.client.query_typed(sql, values)).await;
        self.keep_if_sound(&connection, done).await
    }

    /// [`Link::query`] for at most one row.
    pub(super) async fn query_opt(&self, sql: &str, values: &Values<'_>) -> Result<Option<Row>, Error> {
        Ok(self.query(sql, values).await?.into_iter().next())
    }

    /// [`Link::query`] for a statement that must be on a standby once it has returned, if there is one. `after` is run once it
    /// is committed; on its error nobody knows how durable the commit is.
    pub(super) async fn commit(
        &self,
        (sql, values): (&str, &Values<'_>),
        (after, its): (&str, &Values<'_>),
    ) -> Result<Vec<Row>, Error> {
        let connection = connected(&self.server, &mut *self.connection.lock().await).await?;
        let before = connection.warnings();
        let client = &connection.client;
        // Sent together, so that the second costs no round trip.
        let done = within(async {
            let (done, after) =
                tokio::join!(biased; client.query_typed(sql, values), client.query_typed(after, its));
            done.and_then(|rows| after.map(|_| rows))
        });
        let done = done.await;
        let done =
            done.and_then(|rows| if connection.warnings() == before { Ok(rows) } else { Err(Error::Warned) });
        self.keep_if_sound(&connection, done).await
    }

    /// Ends this connection for everybody if it failed and is still the one in use.
    async fn keep_if_sound<T>(&self, used: &Arc<Connection>, done: Result<T, Error>) -> Result<T, Error> {
        if done.as_ref().is_err_and(Error::ends_connection) {
            self.server.lost(used.generation);
            let mut held = self.connection.lock().await;
            if held.as_ref().is_some_and(|held| Arc::ptr_eq(held, used)) {
                *held = None;
            }
        }
        done
    }

    /// Begins a transaction, when the one before on this connection has ended. Its commit waits for the disk, and for a standby
    /// where there is a synchronous one, whatever the database defaults to.
    pub(super) async fn begin(&self) -> Result<Transaction, Error> {
        // What is read after a lock must be younger than the lock, so not by the snapshot of the whole transaction.
        let begin = "BEGIN ISOLATION LEVEL READ COMMITTED;
            SELECT set_config('synchronous_commit', 'on', true)
            WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')";
        self.begin_by(begin).await
    }

    /// Begins a transaction that only reads, and in which everything read belongs together.
    pub(super) async fn snapshot(&self) -> Result<Transaction, Error> {
        self.begin_by("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    async fn begin_by(&self, sql: &str) -> Result<Transaction, Error> {
        let mut connection = self.connection.clone().lock_owned().await;
        connected(&self.server, &mut connection).await?;
        let transaction = Transaction { server: self.server.clone(), connection, over: false };
        transaction.execute_batch(sql).await?;
        Ok(transaction)
    }
}

async fn connected(
    server: &Arc<Server>,
    held: &mut Option<Arc<Connection>>,
) -> Result<Arc<Connection>, Error> {
    let generation = *server.generation().borrow();
    match held {
        Some(connection) if connection.generation == generation && !connection.client.is_closed() => {
            Ok(connection.clone())
        }
        _ => {
            *held = None;
            Ok(held.insert(Arc::new(server.connect().await?)).clone())
        }
    }
}

/// A transaction. One that is dropped without a commit ends its connection, and the server takes everything back.
pub(super) struct Transaction {
    server: Arc<Server>,
    connection: OwnedMutexGuard<Option<Arc<Connection>>>,
    over: bool,
}

impl Transaction {
    fn client(&self) -> &Client {
        &self.connection.as_ref().expect("connected when it began, and nobody else has it").client
    }

    pub(super) async fn execute_batch(&self, sql: &str) -> Result<(), Error> {
        within(self.client().batch_execute(sql)).await
    }

    pub(super) async fn query(&self, sql: &str, values: &Values<'_>) -> Result<Vec<Row>, Error> {
        within(self.client().query_typed(sql, values)).await
    }

    pub(super) async fn query_opt(&self, sql: &str, values: &Values<'_>) -> Result<Option<Row>, Error> {
        Ok(self.query(sql, values).await?.into_iter().next())
    }

    /// Runs a statement; returns how many rows it changed.
    pub(super) async fn execute(&self, sql: &str, values: &Values<'_>) -> Result<u64, Error> {
        within(self.client().execute_typed(sql, values)).await
    }

    /// Commits. On an error nobody knows whether it was.
    pub(super) async fn commit(mut self) -> Result<(), Error> {
        let connection = self.connection.as_ref().expect("connected when it began");
        let before = connection.warnings();
        self.execute_batch("COMMIT").await?;
        if connection.warnings() != before {
            return Err(Error::Warned);
        }
        self.over = true;
        Ok(())
    }

    /// Takes everything back, and keeps the connection.
    pub(super) async fn roll_back(mut self) -> Result<(), Error> {
        self.execute_batch("ROLLBACK").await?;
        self.over = true;
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.over
            && let Some(connection) = self.connection.take()
        {
            // At once, so that nobody who learns of the failure goes on in the same term.
            self.server.lost(connection.generation);
        }
    }
}

async fn within<T>(work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Error> {
    match timeout(PATIENCE, work).await {
        Ok(done) => Ok(done?),
        Err(_elapsed) => Err(Error::TimedOut),
    }
}
