//! The foundation of the tests: the real program, a real RabbitMQ, and a way to wait for a state.
//!
//! Nothing here uses the crate's internals. The program is started like an operator would start it, the tests use its
//! two listeners, and an ordinary AMQP client reads its messages from the queue.

mod app;
mod broker;
mod callback;
mod certificates;
mod collector;
mod config;
mod http;
mod ports;
pub(crate) mod postgres;
mod program;
mod proxy;
mod worker;

pub(crate) use app::{App, client, post};
pub(crate) use broker::{Broker, Encrypted, Managed, Vhost};
pub(crate) use callback::{Callback, envelope, open, seal, seal_blocks};
pub(crate) use certificates::{Authority, Pair, PairFiles};
pub(crate) use collector::Collector;
pub(crate) use config::{Config, Endpoint, quoted};
pub(crate) use http::{Answer, Line};
pub(crate) use ports::free as free_port;
pub(crate) use program::{Program, Ran, Running, command};
pub(crate) use proxy::Proxy;
pub(crate) use worker::{Message, Worker};

use std::fmt::Debug;
use std::time::Duration;
use tokio::time::Instant;

/// The default token of every endpoint. A fake, like every secret in these tests.
pub(crate) const TOKEN: &str = "fake-token-0f3a-9d";
/// The default key of every encrypted endpoint.
pub(crate) const KEY: &str = "fake-key-审批-77c1";

/// A broker that is permanently down: nobody listens on port 1 of the loopback. For tests of the accept path, which
/// must work without one.
pub(crate) const NOWHERE: &str = "amqp://guest:guest@127.0.0.1:1/%2f";

/// How long to wait for a state before a test fails. Far longer than any of them needs, because a busy machine is not
/// a fault of the program; no test measures time against it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `look` returns `Ok`, for at most [`PATIENCE`].
///
/// # Panics
/// On timeout, with `what` was awaited and the last error.
pub(crate) async fn eventually<T, E: Debug>(what: &str, look: impl AsyncFnMut() -> Result<T, E>) -> T {
    eventually_within(PATIENCE, what, look).await
}

/// [`eventually`] with another bound.
pub(crate) async fn eventually_within<T, E: Debug>(
    bound: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + bound;
    loop {
        match look().await {
            Ok(value) => return value,
            Err(last) if Instant::now() >= deadline => {
                panic!("{what}: not within {bound:?}; the last look saw {last:?}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
