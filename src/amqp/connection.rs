//! Connecting, blocking, closing; the only owner of a lapin `Connection`.

use std::{
    net::Shutdown,
    os::fd::AsFd,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use lapin::{
    AsyncTcpStream, Channel, Connection, ConnectionProperties, Event,
    options::ConfirmSelectOptions,
    uri::{AMQPScheme, AMQPUri},
};
use tokio::time::timeout;

use super::{Address, Broker, Error, Settings, declare::Declaring, tls, topology, words::advice};

/// How long the broker may take to close the connection.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// A connection with one channel in confirm mode.
pub(super) struct Link {
    pub(super) broker: Address,
    pub(super) channel: Arc<Channel>,
    /// Channels that the broker closed while the topology was declared; see [`Declaring`].
    _closed: Vec<Channel>,
    connection: Connection,
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    blocked: bool,
    /// Last, so the socket outlives its writers.
    socket: Socket,
}

pub(super) enum Turn {
    Blocked(bool),
    Ended(Option<lapin::Error>),
}

impl Link {
    /// Connects to one broker, applies the topology, and opens a channel in confirm mode, all within
    /// [`Settings::connect_timeout`].
    pub(super) async fn open(broker: &Broker, settings: &Settings) -> Result<Self, Error> {
        let limit = settings.connect_timeout;
        let opening = Self::open_unbounded(broker, settings);
        timeout(limit, opening)
            .await
            .unwrap_or_else(|_| Err(Error::ConnectTimeout { broker: broker.address.clone(), limit }))
    }

    async fn open_unbounded(broker: &Broker, settings: &Settings) -> Result<Self, Error> {
        let address = || broker.address.clone();
        let socket = Socket::default();
        let connection = connect(&broker.uri, &socket.0, settings, "countersign")
            .await
            .map_err(|source| unconnected(broker, settings, source))?;
        let events = Box::pin(connection.events_listener());
        let declaring = Declaring::begin(&connection, &broker.address, &settings.existing).await?;
        let mut closed = declaring.carry_out(topology::plan(settings), settings.topology).await?;
        let channel = closed.pop().expect("one is open");
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .map_err(|source| Error::Channel { broker: address(), source: source.into() })?;
        let link = Self {
            broker: address(),
            channel: Arc::new(channel),
            _closed: closed,
            connection,
            events,
            blocked: false,
            socket,
        };
        Ok(link)
    }

    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        loop {
            // The status rather than the event: a connection may be blocked before anybody listens.
            let blocked = self.connection.status().blocked();
            if blocked != self.blocked {
                self.blocked = blocked;
                return Poll::Ready(Turn::Blocked(blocked));
            }
            match self.events.poll_next_unpin(cx) {
                // lapin reports the end of every channel. Channels closed over a declaration are not the session's,
                // and their ends may arrive late. lapin changes the state before it reports (4.12.3).
                Poll::Ready(Some(Event::Error(_))) if self.is_open() => {}
                Poll::Ready(Some(Event::Error(error))) => return Poll::Ready(Turn::Ended(Some(error))),
                Poll::Ready(None) => return Poll::Ready(Turn::Ended(None)),
                Poll::Ready(Some(_)) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// True while connection and channel are open. Not every end causes an event.
    pub(super) fn is_open(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    /// Closes channel and connection within [`CLOSE_LIMIT`], then the socket in any case.
    pub(super) async fn close(self) {
        let Self { channel, _closed, connection, socket, .. } = self;
        let goodbye = async {
            // Errors are irrelevant: the connection is over either way.
            channel.close(200, "OK".into()).await.ok();
            connection.close(200, "OK".into()).await.ok();
        };
        timeout(CLOSE_LIMIT, goodbye).await.ok();
        drop(socket);
    }
}

/// A connection that only listens. Dropping it cuts it off.
pub struct Listening {
    broker: Address,
    connection: Connection,
    /// Held until the end. lapin (4.12.3) closes a channel when its last handle is dropped, and cannot close a
    /// connection while a channel is closing.
    channels: Mutex<Vec<Channel>>,
    /// Last, so the socket outlives its writers.
    _socket: Socket,
}

impl Listening {
    /// Connects to the first broker that answers, each within [`Settings::connect_timeout`].
    pub(super) async fn open(brokers: &[Broker], settings: &Settings, name: &str) -> Result<Self, Error> {
        let limit = settings.connect_timeout;
        let mut failure = Error::NoUrl;
        for broker in brokers {
            let address = broker.address.clone();
            let socket = Socket::default();
            failure = match timeout(limit, connect(&broker.uri, &socket.0, settings, name)).await {
                Ok(Ok(connection)) => {
                    let channels = Mutex::default();
                    return Ok(Self { broker: address, connection, channels, _socket: socket });
                }
                Ok(Err(source)) => unconnected(broker, settings, source),
                Err(_elapsed) => Error::ConnectTimeout { broker: address, limit },
            };
        }
        Err(failure)
    }

    /// The broker's address.
    #[must_use]
    pub fn broker(&self) -> &Address {
        &self.broker
    }

    /// True while the connection is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.connection.status().connected()
    }

    /// Opens a channel, which lives until the end of the connection unless the broker closes it. A silent peer is
    /// detected by its missing heartbeats, within 20 s unless the URL says otherwise; pending operations then fail.
    ///
    /// # Errors
    /// The connection is gone, or the broker opens no channel.
    pub async fn channel(&self) -> lapin::Result<Channel> {
        let channel = self.connection.create_channel().await?;
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).push(channel.clone());
        Ok(channel)
    }

    /// Declares or looks for a table as `settings` say; returns an open channel.
    pub(super) async fn prepare(&self, plan: topology::Plan, settings: &Settings) -> Result<Channel, Error> {
        let declaring = Declaring::begin(&self.connection, &self.broker, &settings.existing).await?;
        let channels = declaring.carry_out(plan, settings.topology).await?;
        let channel = channels.last().expect("one is open").clone();
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).extend(channels);
        Ok(channel)
    }

    /// Declares or looks for the queue of dead letters or of unrouted commands; returns an open channel.
    ///
    /// # Errors
    /// [`Error::Topology`], or the broker opens no channel.
    pub async fn prepare_dead_letters(&self, queue: &str, settings: &Settings) -> Result<Channel, Error> {
        self.prepare(topology::dead_letters_plan(queue), settings).await
    }

    /// The error of a queue that the broker does not let us consume.
    #[must_use]
    pub fn refused_to_consume(&self, queue: &str, source: lapin::Error) -> Error {
        let object = format!("queue {queue}");
        Error::Topology {
            verb: "consume from",
            broker: self.broker.clone(),
            advice: advice(&source, &object),
            object,
            source: source.into(),
        }
    }

    /// Declares or looks for the queue of workers' reports as `settings` say; returns an open channel.
    ///
    /// # Errors
    /// [`Error::Topology`], or the broker opens no channel.
    pub async fn prepare_outcomes(&self, queue: &str, settings: &Settings) -> Result<Channel, Error> {
        self.prepare(topology::outcomes_plan(queue, true), settings).await
    }

    /// Closes the connection, within two seconds whether or not the broker answers.
    pub async fn close(self, reason: &str) {
        let Self { connection, channels, _socket: socket, .. } = self;
        let channels = channels.into_inner().unwrap_or_else(PoisonError::into_inner);
        let goodbye = async {
            // Errors are irrelevant: the connection is over either way.
            for channel in &channels {
                channel.close(200, "OK".into()).await.ok();
            }
            connection.close(200, reason.into()).await.ok();
        };
        timeout(CLOSE_LIMIT, goodbye).await.ok();
        drop(socket);
    }
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listening").finish_non_exhaustive()
    }
}

fn unconnected(broker: &Broker, settings: &Settings, source: lapin::Error) -> Error {
    let encrypted = broker.uri.scheme == AMQPScheme::AMQPS;
    let advice = encrypted
        .then(|| tls::advice(&source, settings.tls.identity.is_some(), &broker.uri.authority.host))
        .flatten();
    let broker = broker.address.clone();
    match advice {
        Some(tls::Advice { words: advice, whole }) => {
            let source = (!whole).then(|| source.into());
            Error::Tls { broker, advice, source }
        }
        None => Error::Connect { broker, source: source.into() },
    }
}

async fn connect(
    uri: &AMQPUri,
    socket: &SocketState,
    settings: &Settings,
    name: &str,
) -> lapin::Result<Connection> {
    // Two providers are compiled in through different dependencies, so rustls cannot choose. An error means that one
    // is already installed.
    rustls::crypto::ring::default_provider().install_default().ok();
    let properties = ConnectionProperties::default()
        .with_connection_name(name.into())
        .with_client_property("product".into(), "countersign".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let runtime = lapin::runtime::default_runtime()?;
    // Connect before handing over to lapin. lapin would connect on its own thread, which outlives an abandoned
    // connect; and if that fails, the tasks it started leak (4.12.3, `IoLoop::start`): a broker that is away for a
    // week would cost some ten thousand of them.
    let opening = async {
        let authority = &uri.authority;
        let addresses = tokio::net::lookup_host((authority.host.as_str(), authority.port)).await?;
        let addresses: Vec<_> = addresses.collect();
        let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
        if let AsyncTcpStream::Plain(plain) = &stream {
            hold(socket, plain.get_ref())?;
        }
        match uri.scheme {
            AMQPScheme::AMQP => Ok::<_, std::io::Error>(stream),
            AMQPScheme::AMQPS => stream.into_rustls(&tls::connector(&settings.tls)?, &authority.host).await,
        }
    };
    let stream = Mutex::new(Some(opening.await?));
    let take = async move |_, _| {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        // lapin asks again if the peer closes before it has sent anything.
        Ok(stream.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::ConnectionAborted))?)
    };
    Connection::connector(uri.clone(), runtime, take, properties).await
}

/// A second handle of the connection's socket, which shuts it down on drop.
///
/// lapin runs a connection on a thread that ends when the socket does. It cannot write while the broker blocks
/// publishing, not even `connection.close`, and it waits for the answer of a silent peer. Each abandoned session would
/// leak a thread and a socket until the kernel gives up, after a quarter of an hour.
#[derive(Default)]
struct Socket(SocketState);

type SocketState = Arc<Mutex<Option<Handle>>>;

enum Handle {
    Open(std::net::TcpStream),
    Dropped,
}

/// Keeps a handle of a socket, unless it is not wanted any more.
fn hold(state: &SocketState, socket: &tokio::net::TcpStream) -> std::io::Result<()> {
    let handle = std::net::TcpStream::from(socket.as_fd().try_clone_to_owned()?);
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(Handle::Dropped) = *state {
        return Err(std::io::ErrorKind::ConnectionAborted.into());
    }
    *state = Some(Handle::Open(handle));
    Ok(())
}

impl Drop for Socket {
    fn drop(&mut self) {
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(Handle::Dropped);
        if let Some(Handle::Open(socket)) = before {
            // An error means that it is already shut down.
            socket.shutdown(Shutdown::Both).ok();
        }
    }
}

/// Connects as the relay does (same parsing of the URLs, same TLS), only to listen, under a `name` that the broker
/// shows. Declares nothing. Cancel safe.
///
/// # Errors
/// A URL is missing or unusable, or no broker answers: then the error of the last one.
pub async fn listen_in(settings: &Settings, name: &str) -> Result<Listening, Error> {
    Listening::open(&Broker::parse_all(&settings.urls)?, settings, name).await
}
