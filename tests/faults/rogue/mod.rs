//! A broker that misbehaves on request: an AMQP 0-9-1 server in the process of the test, which decides by the frame how
//! it answers.
//!
//! It holds to what is worst for its client: a publish counts as routed only if it was acked and never returned. What it
//! nacks, returns, or leaves without an answer is gone; a real broker may have kept it. So [`Rogue::routed`] is exactly
//! what the oracle may count as arrived.

mod answers;
mod ends;
mod limits;
mod session;

pub(crate) use ends::Held;
pub(crate) use session::{Event, Session, Then};

use crate::support::{Config, Message, eventually, free_port};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// Decides what happens at an event; see [`Event`].
type Manner = Box<dyn FnMut(&mut Session, &Event<'_>) -> Then + Send>;

type Order = Box<dyn FnOnce(&mut Session) + Send>;

/// The server. Dropping it cuts everybody off.
pub(crate) struct Rogue {
    port: u16,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    manner: Mutex<Manner>,
    orders: Mutex<VecDeque<Order>>,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    /// Every publish that was received whole, in order.
    publishes: Vec<Publish>,
    /// Where the publish of a session and tag stands.
    places: HashMap<(usize, u64), usize>,
    /// How often each `message_id` was received.
    received: BTreeMap<String, usize>,
    /// Connections accepted so far.
    accepted: usize,
    /// Of these, the ones that came as far as a channel that confirms.
    served: usize,
}

/// A publish that was received whole.
struct Publish {
    message: Message,
    answer: Option<Answer>,
    returned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Ack,
    Nack,
}

impl Publish {
    fn is_routed(&self) -> bool {
        self.answer == Some(Answer::Ack) && !self.returned
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn manner(&self) -> MutexGuard<'_, Manner> {
        self.manner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self) -> Option<Order> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// Without the connection that looks after the queues.
pub(crate) fn alone(config: Config) -> Config {
    config.only_publishing().set("amqp", "check_interval", "\"off\"")
}

impl Rogue {
    /// A server that behaves.
    pub(crate) async fn start() -> Self {
        let shared = Shared {
            manner: Mutex::new(Box::new(|_, _| Then::Usual)),
            orders: Mutex::default(),
            book: Mutex::default(),
        };
        let shared = Arc::new(shared);
        let port = free_port();
        let listener =
            eventually("the port is free", async || TcpListener::bind(("127.0.0.1", port)).await).await;
        let sharing = Arc::clone(&shared);
        let server = tokio::spawn(async move {
            let mut sessions = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => {
                        sessions.spawn(session::serve(stream, Arc::clone(&sharing)));
                    }
                    Some(ended) = sessions.join_next() => ended.expect("a session does not panic"),
                }
            }
        });
        Self { port, shared, server }
    }

    /// Where clients find it; heartbeats every second, so that a dead peer is noticed within two.
    pub(crate) fn url(&self) -> String {
        format!("amqp://fake-user:fake-password@127.0.0.1:{}/%2f?heartbeat=1", self.port)
    }

    /// A program that publishes to it on the one connection that a test counts and orders.
    pub(crate) fn config(&self) -> Config {
        alone(Config::with_url(&self.url()))
    }

    /// From now on, what happens at an event is decided by this.
    pub(crate) fn manner(&self, manner: impl FnMut(&mut Session, &Event<'_>) -> Then + Send + 'static) {
        *self.shared.manner() = Box::new(manner);
    }

    /// From now on it does what a broker should do.
    pub(crate) fn behave(&self) {
        self.manner(|_, _| Then::Usual);
    }

    /// From now on it takes publishes and answers none.
    pub(crate) fn hold(&self) {
        self.manner(
            |_, event| if matches!(event, Event::Published(_)) { Then::Nothing } else { Then::Usual },
        );
    }

    /// Has something done in a session, waiting for one, and returns what it gave.
    pub(crate) async fn tell<T: Send + 'static>(
        &self,
        order: impl FnOnce(&mut Session) -> T + Send + 'static,
    ) -> T {
        let (done, told) = oneshot::channel();
        let order: Order = Box::new(move |session| drop(done.send(order(session))));
        self.shared.orders.lock().unwrap_or_else(PoisonError::into_inner).push_back(order);
        let told = tokio::time::timeout(crate::support::PATIENCE, told);
        told.await.expect("a session takes the order").expect("the session lives until it is done")
    }

    /// What counts as routed, in the order in which it was received.
    pub(crate) fn routed(&self) -> Vec<Message> {
        let book = self.shared.book();
        book.publishes
            .iter()
            .filter(|publish| publish.is_routed())
            .map(|publish| publish.message.clone())
            .collect()
    }

    /// How often each `message_id` was received, routed or not.
    pub(crate) fn received(&self) -> BTreeMap<String, usize> {
        self.shared.book().received.clone()
    }

    /// Connections that came as far as a channel that confirms.
    pub(crate) fn served(&self) -> usize {
        self.shared.book().served
    }

    /// Connections that were accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.book().accepted
    }

    /// Waits until so many publishes were received.
    pub(crate) async fn until_received(&self, count: usize) {
        eventually(&format!("{count} publishes"), async || {
            let received = self.shared.book().publishes.len();
            if received >= count { Ok(()) } else { Err(received) }
        })
        .await;
    }

    /// Waits until so many more publishes were routed.
    pub(crate) async fn until_routed(&self, more: usize) {
        let count = || self.shared.book().publishes.iter().filter(|publish| publish.is_routed()).count();
        let wanted = count() + more;
        eventually(&format!("{more} more routed"), async || {
            let routed = count();
            if routed >= wanted { Ok(()) } else { Err((routed, self.accepted(), self.served())) }
        })
        .await;
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.server.abort();
    }
}
