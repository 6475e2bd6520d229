//! What the tests stand on: the real program, a real RabbitMQ, and a way to wait for a state.
//!
//! Nothing here knows the crate from inside. The program is started as an operator would start it, is spoken to
//! over its two listeners, and what it publishes is read from the queue by an ordinary AMQP client.

mod app;
mod broker;
mod callback;
mod certificates;
mod http;
mod ports;
mod program;
mod proxy;
mod worker;

pub(crate) use app::{App, Config, Endpoint, client, post, quoted};
pub(crate) use broker::{Broker, Encrypted, Managed, Vhost};
pub(crate) use callback::{Callback, envelope, open, seal, seal_blocks};
pub(crate) use certificates::{Authority, Pair, PairFiles};
pub(crate) use http::{Answer, Line};
pub(crate) use ports::free as free_port;
pub(crate) use program::{Program, Ran, Running, command};
pub(crate) use proxy::Proxy;
pub(crate) use worker::{Message, Worker};

use std::fmt::Debug;
use std::time::Duration;
use tokio::time::Instant;

/// The token of every endpoint unless a test says otherwise. A fake, like every secret in these tests.
pub(crate) const TOKEN: &str = "fake-token-0f3a-9d";
/// The key of every encrypted endpoint unless a test says otherwise.
pub(crate) const KEY: &str = "fake-key-审批-77c1";

/// A broker that is away for good: nobody listens on port 1 of the loopback. For tests of the accept path, which
/// has to do without one.
pub(crate) const NOWHERE: &str = "amqp://guest:guest@127.0.0.1:1/%2f";

/// How long a state may take to come about before a test gives up. Far above what any of them needs, because a
/// busy machine is not a fault of the program; no test measures time against it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Looks again and again until `look` says `Ok`, at most [`PATIENCE`] long.
///
/// # Panics
/// When the time is over, with `what` was awaited and what the last look saw instead.
pub(crate) async fn eventually<T, E: Debug>(what: &str, look: impl AsyncFnMut() -> Result<T, E>) -> T {
    eventually_within(PATIENCE, what, look).await
}

/// [`eventually`] with a bound of its own.
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
