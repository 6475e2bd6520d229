//! A ledger's file, for a command: beside the writer of `serve`, or while none runs.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex},
};

use futures_util::future::BoxFuture;
use rusqlite::{Connection, TransactionBehavior};
use tokio::task::spawn_blocking;

use super::{
    readers::Readers,
    schema::{self, OpenError},
};
use crate::ledger::{ActError, Lookup, lookup::Looks};

/// Reads, and does what an operator orders. Each act is one short transaction of its own.
pub struct SqliteClient {
    pub(super) readers: Readers,
    /// Opened for the first act: what only reads must work on a file that it may not write.
    writer: Arc<Mutex<Option<Connection>>>,
}

impl fmt::Debug for SqliteClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteClient").field("path", self.readers.path()).finish_non_exhaustive()
    }
}

impl From<rusqlite::Error> for ActError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(Box::new(error))
    }
}

impl From<OpenError> for ActError {
    fn from(error: OpenError) -> Self {
        Self::Failed(Box::new(error))
    }
}

impl SqliteClient {
    /// Opens a ledger that exists.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self { readers: Readers::open(path.into())?, writer: Arc::default() })
    }

    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, ActError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, ActError>> {
        let (path, writer) = (self.readers.path().clone(), self.writer.clone());
        let work = move || {
            let mut held = writer.lock().expect("nobody panics with the lock");
            let connection = match &mut *held {
                Some(connection) => connection,
                None => held.insert(schema::open_actor(&path)?),
            };
            work(connection)
        };
        Box::pin(async move {
            spawn_blocking(work).await.unwrap_or_else(|ended| Err(ActError::Failed(Box::new(ended))))
        })
    }

    /// Runs an act in one transaction, committed if it succeeds.
    pub(super) fn act<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Connection) -> Result<T, ActError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, ActError>> {
        self.run(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = act(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })
    }
}

impl Looks for SqliteClient {
    fn lookup(&self) -> &dyn Lookup {
        &self.readers
    }
}
