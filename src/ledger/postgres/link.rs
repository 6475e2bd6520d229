//! Connections that are made when they are needed, and made again when they are lost.
//!
//! A statement that takes too long ends the connection, since a server that is frozen never answers. The server is never
//! asked to cancel a statement: one that waits for a standby would then return success without being replicated.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, OwnedMutexGuard, Semaphore},
    time::timeout,
};
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

use super::{
    Error,
    server::{Connection, Server},
};

/// A statement that takes longer is given up with its connection. Longer than the wait for a lock, and short enough that an
/// accept that was on its way to a server that froze reaches another in time. A connection is waited for as long.
pub(super) const PATIENCE: Duration = Duration::from_millis(2500);

/// Connections of one link at the most: the one in use, and those that were given up and whose server has not answered yet. A
/// server that waits for its standby keeps a session for each, and it has sessions for others as well.
const CONNECTIONS: usize = 4;

/// A lock is waited for, and held by a transaction whose client does nothing, for so long. Nothing is compiled: PostgreSQL
/// guesses that a statement over tables without statistics is expensive, and compiling the one for the figures took 1.2 s
/// where the statement takes 8 ms. Set in each transaction: behind PgBouncer the next one may have another session.
const LIMITS: &str = "set_config('lock_timeout', '2s', true),
    set_config('idle_in_transaction_session_timeout', '2s', true), set_config('jit', 'off', true)";

/// The values of a statement with their types; see [`values!`](super::values::values).
pub(super) type Values<'a> = [(&'a (dyn ToSql + Sync), Type)];

/// One connection to the server, or none for now.
#[derive(Debug, Clone)]
pub(super) struct Link {
    server: Arc<Server>,
    connection: Arc<Mutex<Option<Arc<Connection>>>>,
    permits: Arc<Semaphore>,
}

impl Link {
    pub(super) fn new(server: Arc<Server>) -> Self {
        Self { server, connection: Arc::default(), permits: Arc::new(Semaphore::new(CONNECTIONS)) }
    }

    /// The generation of connections, which changes when one is lost.
    pub(super) fn generation(&self) -> u64 {
        *self.server.generation().borrow()
    }

    /// Runs a statement of its own. Several may be under way at the same time.
    pub(super) async fn query(&self, sql: &str, values: &Values<'_>) -> Result<Vec<Row>, Error> {
        let connection = within(self.connected()).await?;
        let done = within(connection.query(sql, values)).await;
        self.keep_if_sound(&connection, done).await
    }

    /// [`Link::query`] for at most one row.
    pub(super) async fn query_opt(&self, sql: &str, values: &Values<'_>) -> Result<Option<Row>, Error> {
        Ok(self.query(sql, values).await?.into_iter().next())
    }

    /// [`Link::query`] for a statement that must be on a standby once it has returned, if there is one. `after`, if any, is run
    /// once it is committed; on its error nobody knows how durable the commit is.
    pub(super) async fn commit(
        &self,
        sql: &str,
        values: &Values<'_>,
        after: Option<&str>,
    ) -> Result<Vec<Row>, Error> {
        let connection = within(self.connected()).await?;
        let before = connection.warnings();
        let after = async {
            match after {
                None => Ok(Vec::new()),
                Some(after) => connection.query(after, &[]).await,
            }
        };
        // Sent together, so that the second costs no round trip.
        let done = within(async {
            let (done, after) = tokio::join!(biased; connection.query(sql, values), after);
            done.and_then(|rows| after.map(|_| rows))
        });
        let done = done.await;
        let done =
            done.and_then(|rows| if connection.warnings() == before { Ok(rows) } else { Err(Error::Warned) });
        self.keep_if_sound(&connection, done).await
    }

    async fn connected(&self) -> Result<Arc<Connection>, Error> {
        self.connect(&mut *self.connection.lock().await).await
    }

    /// Ends this connection for everybody if it failed and is still the one in use.
    async fn keep_if_sound<T>(&self, used: &Arc<Connection>, done: Result<T, Error>) -> Result<T, Error> {
        if done.as_ref().is_err_and(Error::ends_connection) {
            used.failed();
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
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED;
             SELECT {LIMITS};
             SELECT set_config('synchronous_commit', 'on', true)
             WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')"
        );
        self.begin_by(&begin).await
    }

    /// Begins a transaction that only reads, and in which everything read belongs together.
    pub(super) async fn snapshot(&self) -> Result<Transaction, Error> {
        self.begin_by(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT {LIMITS}")).await
    }

    async fn begin_by(&self, sql: &str) -> Result<Transaction, Error> {
        let connected = async {
            let mut held = self.connection.clone().lock_owned().await;
            self.connect(&mut held).await?;
            Ok(held)
        };
        let transaction = Transaction { connection: within(connected).await?, over: false };
        transaction.execute_batch(sql).await?;
        Ok(transaction)
    }

    /// The connection that is held, or a new one.
    async fn connect(&self, held: &mut Option<Arc<Connection>>) -> Result<Arc<Connection>, Error> {
        let generation = self.generation();
        match held {
            Some(connection) if connection.generation == generation && !connection.client.is_closed() => {
                Ok(connection.clone())
            }
            _ => {
                *held = None;
                let permit = self.permits.clone().acquire_owned().await.map_err(|_closed| Error::Closed)?;
                Ok(held.insert(Arc::new(self.server.connect(permit).await?)).clone())
            }
        }
    }
}

/// A transaction. One that is dropped without a commit ends its connection, and the server takes everything back.
pub(super) struct Transaction {
    connection: OwnedMutexGuard<Option<Arc<Connection>>>,
    over: bool,
}

impl Transaction {
    fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("connected when it began, and nobody else has it")
    }

    async fn run<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let done = within(work).await;
        if done.as_ref().is_err_and(Error::ends_connection) {
            self.connection().failed();
        }
        done
    }

    pub(super) async fn execute_batch(&self, sql: &str) -> Result<(), Error> {
        self.run(async { Ok(self.connection().client.batch_execute(sql).await?) }).await
    }

    pub(super) async fn query(&self, sql: &str, values: &Values<'_>) -> Result<Vec<Row>, Error> {
        self.run(self.connection().query(sql, values)).await
    }

    pub(super) async fn query_opt(&self, sql: &str, values: &Values<'_>) -> Result<Option<Row>, Error> {
        Ok(self.query(sql, values).await?.into_iter().next())
    }

    /// Runs a statement; returns how many rows it changed.
    pub(super) async fn execute(&self, sql: &str, values: &Values<'_>) -> Result<u64, Error> {
        self.run(async { Ok(self.connection().client.execute_typed(sql, values).await?) }).await
    }

    /// Commits. On an error nobody knows whether it was.
    pub(super) async fn commit(mut self) -> Result<(), Error> {
        let before = self.connection().warnings();
        self.execute_batch("COMMIT").await?;
        if self.connection().warnings() != before {
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
            connection.lost();
        }
    }
}

async fn within<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(PATIENCE, work).await.unwrap_or(Err(Error::TimedOut))
}
