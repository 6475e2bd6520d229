//! Where PostgreSQL is, and how a connection is made.

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
use tokio_postgres::{
    AsyncMessage, Client, Config, NoTls,
    config::{Host, TargetSessionAttrs},
};

use super::Error;

/// A handshake that takes longer is given up, and the next host is tried.
const PATIENCE: Duration = Duration::from_secs(3);

/// The port if the URL names none.
const PORT: u16 = 5432;

/// The servers of one database, of which one takes writes.
pub struct Server {
    /// One for each host, in the order in which they are tried.
    hosts: Vec<Config>,
    /// Goes up whenever a connection is lost. Another server may be the primary from then on, with another end of the log, so
    /// no connection of an earlier generation is used any more.
    generation: watch::Sender<u64>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration holds a password.
        f.debug_struct("Server").field("hosts", &self.hosts.len()).finish_non_exhaustive()
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
    /// Reads a URL: `postgres://user:password@host:port,host:port/database`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let whole: Config = url.parse()?;
        let hosts = whole.get_hosts().iter().enumerate().map(|(index, host)| {
            let mut one = Config::new();
            match host {
                Host::Tcp(name) => one.host(name),
                Host::Unix(path) => one.host_path(path),
            };
            let port = whole.get_ports().get(index).or(whole.get_ports().first());
            one.port(port.copied().unwrap_or(PORT));
            if let Some(user) = whole.get_user() {
                one.user(user);
            }
            if let Some(password) = whole.get_password() {
                one.password(password);
            }
            if let Some(database) = whole.get_dbname() {
                one.dbname(database);
            }
            one.application_name("countersign");
            one.connect_timeout(PATIENCE);
            one.target_session_attrs(TargetSessionAttrs::ReadWrite);
            one
        });
        let hosts: Vec<_> = hosts.collect();
        if hosts.is_empty() {
            Err(Error::NoHost)
        } else {
            Ok(Self { hosts, generation: watch::Sender::new(0) })
        }
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
        let mut last = Error::NoHost;
        for host in &self.hosts {
            // The library's own limit covers TCP only: a frozen server accepts the connection and never answers.
            let (client, mut connection) = match timeout(PATIENCE, host.connect(NoTls)).await {
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
                        None => break,
                    }
                }
                server.lost(generation);
            });
            return Ok(Connection { client, generation, warnings });
        }
        Err(last)
    }
}
