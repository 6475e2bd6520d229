//! The looks into the file, for the service and for commands alike.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;

use super::{dead_letters, outcomes, reader::Reader, schema::OpenError, shared::Shared};
use crate::{
    command::{CommandId, Seq},
    ledger::{
        ActFilter, ActRecord, CredentialUse, Filter, Found, KeptRefusal, LookError, Lookup, Record,
        RefusalFilter, Stats, Stray, Subject,
    },
    time::Timestamp,
};

/// A pool of connections that read.
#[derive(Clone)]
pub(super) struct Readers {
    path: Arc<Path>,
    pool: Arc<Mutex<Vec<Reader>>>,
    /// The writer of this process, if there is one.
    writer: Option<Arc<Shared>>,
}

impl Readers {
    /// Connections are made when they are needed.
    pub(super) fn new(path: Arc<Path>, writer: Arc<Shared>) -> Self {
        Self { path, pool: Arc::default(), writer: Some(writer) }
    }

    /// Makes the first connection now.
    pub(super) fn open(path: Arc<Path>) -> Result<Self, OpenError> {
        let pool = Arc::new(Mutex::new(vec![Reader::open(&path)?]));
        Ok(Self { path, pool, writer: None })
    }

    pub(super) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Closes the connections that are not in use.
    pub(super) fn close(&self) {
        self.pool.lock().expect("nobody panics with the lock").clear();
    }

    /// Runs a look-up on a thread that may block.
    pub(super) fn look<T: Send + 'static>(
        &self,
        operation: &'static str,
        look: impl FnOnce(&Reader) -> rusqlite::Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, LookError>> {
        let (path, pool) = (self.path.clone(), self.pool.clone());
        let work = move || -> Result<T, LookError> {
            let failed = |source| LookError { operation, source };
            let pooled = pool.lock().expect("nobody panics with the lock").pop();
            let reader = match pooled {
                Some(reader) => reader,
                None => Reader::open(&path).map_err(|error| failed(error.into()))?,
            };
            let found = look(&reader).map_err(|error| failed(error.into()))?;
            // A connection whose lookup failed is not returned to the pool.
            pool.lock().expect("nobody panics with the lock").push(reader);
            Ok(found)
        };
        Box::pin(async move {
            tokio::task::spawn_blocking(work)
                .await
                .unwrap_or_else(|ended| Err(LookError { operation, source: ended.into() }))
        })
    }
}

impl Lookup for Readers {
    fn id_at(&self, seq: Seq) -> BoxFuture<'static, Result<Option<CommandId>, LookError>> {
        self.look("look up a command in", move |reader| reader.id_at(seq))
    }

    fn find(&self, command_id: CommandId) -> BoxFuture<'static, Result<Option<Record>, LookError>> {
        let writer = self.writer.clone();
        self.look("look up a command in", move |reader| {
            let found = reader.find(command_id)?;
            Ok(match writer {
                Some(writer) => writer.memory.complete(found),
                None => found,
            })
        })
    }

    fn list(&self, filter: Filter) -> BoxFuture<'static, Result<Vec<Record>, LookError>> {
        self.look("list commands of", move |reader| reader.list(&filter))
    }

    fn search(
        &self,
        filter: Filter,
        patience: Duration,
    ) -> BoxFuture<'static, Result<Found<Record>, LookError>> {
        self.look("search", move |reader| reader.search(&filter, Some(patience)))
    }

    fn subjects(&self, from: Seq, limit: usize) -> BoxFuture<'static, Result<Vec<Subject>, LookError>> {
        self.look("read", move |reader| reader.subjects(from, limit))
    }

    fn pruned_before(&self) -> BoxFuture<'static, Result<Option<Timestamp>, LookError>> {
        self.look("read the retention of", Reader::pruned_before)
    }

    fn refusals(&self, filter: RefusalFilter) -> BoxFuture<'static, Result<Vec<KeptRefusal>, LookError>> {
        self.look("list refusals of", move |reader| reader.refusals(&filter))
    }

    fn search_refusals(
        &self,
        filter: RefusalFilter,
        patience: Duration,
    ) -> BoxFuture<'static, Result<Found<KeptRefusal>, LookError>> {
        self.look("search", move |reader| reader.search_refusals(&filter, Some(patience)))
    }

    fn refused_since(
        &self,
        since: Timestamp,
    ) -> BoxFuture<'static, Result<Vec<(u64, KeptRefusal)>, LookError>> {
        self.look("count refusals of", move |reader| reader.refused_since(since))
    }

    fn acts(&self, filter: ActFilter) -> BoxFuture<'static, Result<Vec<ActRecord>, LookError>> {
        self.look("list the acts of", move |reader| reader.acts(&filter))
    }

    fn first_of_acts(&self, acts: Vec<u64>) -> BoxFuture<'static, Result<Vec<(u64, CommandId)>, LookError>> {
        self.look("list the acts of", move |reader| reader.first_of_acts(&acts))
    }

    fn parked_showings(&self, limit: usize) -> BoxFuture<'static, Result<Vec<Seq>, LookError>> {
        self.look("list the parked outcomes of", move |reader| outcomes::parked(reader.connection(), limit))
    }

    fn credential_uses(&self) -> BoxFuture<'static, Result<Vec<CredentialUse>, LookError>> {
        self.look("look up the credentials in", Reader::credential_uses)
    }

    fn strays(&self, before: Option<u64>, limit: usize) -> BoxFuture<'static, Result<Vec<Stray>, LookError>> {
        self.look("list strays of", move |reader| dead_letters::strays(reader.connection(), before, limit))
    }

    fn stats(&self) -> BoxFuture<'static, Result<Stats, LookError>> {
        let writer = self.writer.clone();
        self.look("read the figures of", move |reader| {
            let remembered = writer.as_ref().map(|writer| writer.remembered());
            Ok(Stats { remembered, ..reader.stats()? })
        })
    }
}
