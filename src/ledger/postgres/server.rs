//! How a connection is made, and what its loss means to the others.

use std::{
    fmt,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::timeout};
use tokio_postgres::{AsyncMessage, Client};

use super::{Error, address::Address, tls};

/// A handshake that takes longer is given up, and the next host is tried.
const PATIENCE: Duration = Duration::from_secs(3);

/// The servers of one database, of which one takes writes.
pub(super) struct Server {
    address: Address,
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
    warnings: Arc<AtomicU64>,
}

impl Connection {
    /// How many warnings the server has sent. A commit that comes with one may not be on a standby: an administrator can end
    /// the wait for it, which returns success and a warning.
    pub(super) fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::Relaxed)
    }
}

impl Server {
    pub(super) fn new(address: Address) -> Self {
        Self { address, generation: watch::Sender::new(0) }
    }

    /// The generation of connections, which changes when one is lost.
    pub(super) fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Notes that a connection of this generation was lost.
    pub(super) fn lost(&self, generation: u64) {
        self.generation.send_if_modified(|current| {
            let is_news = *current == generation;
            *current += u64::from(is_news);
            is_news
        });
    }

    /// Connects to the first host that answers in time and takes writes.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<Connection, Error> {
        let generation = *self.generation.borrow();
        let tls = tls::connector(&self.address)?;
        let mut last = Error::TimedOut;
        for host in &self.address.hosts {
            // The library's own limit covers TCP only: a frozen server accepts the connection and never answers.
            let (client, mut connection) = match timeout(PATIENCE, host.connect(tls.clone())).await {
                Ok(Ok(connected)) => connected,
                Ok(Err(error)) => {
                    last = error.into();
                    continue;
                }
                Err(_elapsed) => {
                    last = Error::TimedOut;
                    continue;
                }
            };
            let warnings = Arc::new(AtomicU64::new(0));
            let (server, counted) = (self.clone(), warnings.clone());
            tokio::spawn(async move {
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
            return Ok(Connection { client, generation, warnings });
        }
        Err(last)
    }
}
