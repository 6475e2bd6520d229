//! How a connection is made, and what its loss means to the others.

use std::{
    fmt,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, interval_at, timeout},
};
use tokio_postgres::{
    AsyncMessage, Client, Row,
    types::{ToSql, Type},
};

use super::{Error, address::Address, tls};

/// A handshake that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(3);

/// The first host is tried alone for so long, and one that failed again after so long.
const HEAD_START: Duration = Duration::from_millis(250);

/// The servers of one database, of which one takes writes.
pub(super) struct Server {
    address: Address,
    /// The host that is tried first: the one that answered last, or the next after one that failed.
    first: AtomicUsize,
    /// Goes up whenever a connection is lost. Another server may be the primary from then on, with another end of the log, so
    /// no connection of an earlier generation is used any more.
    generation: watch::Sender<u64>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.address).finish()
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: Client,
    /// The generation that it belongs to.
    pub(super) generation: u64,
    server: Arc<Server>,
    host: usize,
    warnings: Arc<AtomicU64>,
}

impl Connection {
    pub(super) async fn query(
        &self,
        sql: &str,
        values: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, Error> {
        Ok(self.client.query_typed(sql, values).await?)
    }

    /// Notes that it is given up.
    pub(super) fn lost(&self) {
        self.server.lost(self.generation);
    }

    /// Notes that it is given up, for its host does not answer or takes no writes.
    pub(super) fn failed(&self) {
        let next = (self.host + 1) % self.server.address.hosts.len();
        self.server.first.compare_exchange(self.host, next, Ordering::Relaxed, Ordering::Relaxed).ok();
        self.lost();
    }

    /// How many warnings the server has sent. A commit that comes with one may not be on a standby: an administrator can end
    /// the wait for it, which returns success and a warning.
    pub(super) fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::Relaxed)
    }
}

impl Server {
    pub(super) fn new(address: Address) -> Self {
        Self { address, first: AtomicUsize::new(0), generation: watch::Sender::new(0) }
    }

    /// The generation of connections, which changes when one is lost.
    pub(super) fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Notes that a connection of this generation was lost.
    fn lost(&self, generation: u64) {
        self.generation.send_if_modified(|current| {
            let is_news = *current == generation;
            *current += u64::from(is_news);
            is_news
        });
    }

    /// Connects to a host that answers in time and takes writes. The permit is held until the connection has ended, which may be
    /// long after it was given up.
    pub(super) async fn connect(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Result<Connection, Error> {
        let generation = *self.generation.borrow();
        let tls = tls::connector(&self.address)?;
        let shake_hands = |host: usize| {
            let tls = tls.clone();
            async move {
                // The library's own limit covers TCP only: a frozen server accepts the connection and never answers.
                let done = timeout(PATIENCE, self.address.hosts[host].connect(tls)).await;
                (host, done.map_err(|_elapsed| Error::TimedOut).and_then(|done| Ok(done?)))
            }
        };
        let (host, (client, mut connection)) = self.race(shake_hands).await?;
        self.first.store(host, Ordering::Relaxed);
        let warnings = Arc::new(AtomicU64::new(0));
        let (server, counted) = (self.clone(), warnings.clone());
        tokio::spawn(async move {
            let _permit = permit;
            loop {
                match poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(AsyncMessage::Notice(notice))) if notice.severity() == "WARNING" => {
                        tracing::warn!(notice = notice.message(), "PostgreSQL warns");
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        tracing::debug!(%error, "the connection to PostgreSQL failed");
                        break;
                    }
                    // Nobody uses it any more, so nothing was lost.
                    None => return,
                }
            }
            server.lost(generation);
        });
        Ok(Connection { client, generation, server: self.clone(), host, warnings })
    }

    /// Tries the first host, and all others as soon as that fails or takes long; then, while one of them takes long, those that
    /// failed again and again. So one that is frozen does not delay the way to another, nor hides that it took over. Returns
    /// the first that succeeds.
    async fn race<T, F>(&self, attempt: impl Fn(usize) -> F) -> Result<(usize, T), Error>
    where
        F: Future<Output = (usize, Result<T, Error>)>,
    {
        let first = self.first.load(Ordering::Relaxed);
        let mut waiting: Vec<usize> = (0..self.address.hosts.len()).filter(|host| *host != first).collect();
        let mut all_tried = false;
        let mut attempts = FuturesUnordered::from_iter([attempt(first)]);
        let mut turns = interval_at(Instant::now() + HEAD_START, HEAD_START);
        let mut failed: Option<Error> = None;
        while !attempts.is_empty() {
            let over = tokio::select! {
                Some(over) = attempts.next() => Some(over),
                _ = turns.tick() => None,
            };
            if over.is_none() || !all_tried {
                attempts.extend(waiting.drain(..).map(&attempt));
                all_tried = true;
            }
            match over {
                Some((host, Ok(reached))) => return Ok((host, reached)),
                Some((host, Err(error))) => {
                    waiting.push(host);
                    // As long as waiting may help with one of them, it does.
                    if !failed.as_ref().is_some_and(Error::is_passing) {
                        failed = Some(error);
                    }
                }
                None => {}
            }
        }
        Err(failed.unwrap_or(Error::TimedOut))
    }
}
