//! The public listener: it accepts callbacks and nothing else. This is transport only;
//! [`Intake`](crate::intake::Intake) decides what a callback means.
//!
//! # What bounds a stranger
//! | resource | bound |
//! |---|---|
//! | time to send a request's head | 5 s, first request of a connection; a stranger's connection is closed after it |
//! | size of the head | 128 KiB (the server's own), answered 431 |
//! | size of the body, time to send it | `max_body_bytes`, `body_read_timeout` |
//! | idle connection | `keep_alive` |
//! | time for a TLS handshake | 5 s |
//! | unfinished heads and bodies | `max_unread_bytes` of memory for all connections together, beyond some KiB each |
//! | pieces of a body | 1024, and one more for each 64 bytes |
//! | connections of one peer | `peers.max_connections`; more are closed |
//! | connections | 16384, or as many as there are descriptors but 512; more wait in the accept queue |
//! | callbacks of one peer, failures of one peer | `peers`; off unless configured |

pub mod answer;
mod body;
mod budget;
mod callback;
mod connection;
mod gate;
mod handshakes;
mod limits;
mod listener;
pub mod peers;
mod slots;
mod spans;
mod stream;
mod target;
mod telling;
pub mod tls;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::{HttpRequest, HttpResponse, dev::Server, http::Method, web};

pub use gate::{Gate, Replacement};
use target::Target;

/// Settings of the public listener.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Maximum size of a callback's body, in bytes.
    pub max_body_bytes: usize,
    /// Time for a callback's body to arrive, from the end of its head.
    pub body_read_timeout: Duration,
    /// Memory, in bytes, for incomplete input of all connections together.
    pub max_unread_bytes: usize,
    /// An idle connection is closed this long after its last answer.
    pub keep_alive: Duration,
    /// Minimum delay of an `unauthenticated` answer after the end of the body.
    pub unauthenticated_floor: Duration,
    /// Worker threads; 0 means one for every two cores.
    pub workers: usize,
    /// Plain HTTP if `None`.
    pub tls: Option<tls::Settings>,
    /// Who may send callbacks, and how many.
    pub peers: peers::Settings,
}

/// Every public route: method and path. A test compares them with `openapi.yaml`.
pub const ROUTES: [(&str, &str); 1] = [("POST", "/callbacks/{endpoint}")];

/// The platform sends a head in one packet. A slower sender has a broken line or bad intentions.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts the server on a socket that already listens. It runs while the result is polled.
///
/// The `gate` must be built from these settings; of `settings`, only `workers` and `keep_alive` are read here. After
/// a graceful stop, requests have `shutdown_grace` (rounded up to seconds) to finish. `max_connections` limits the
/// connections of all workers together; more wait in the accept queue.
///
/// # Errors
/// The socket cannot be used.
pub fn serve(
    settings: &Settings,
    socket: TcpListener,
    gate: Arc<Gate>,
    shutdown_grace: Duration,
    max_connections: usize,
) -> io::Result<Server> {
    let identity = gate.identity();
    let gate = web::Data::from(gate);
    let workers = match settings.workers {
        // The ledger's writer, the relay and its connection do as much work on their own threads. With a worker per
        // core, threads would wake one another for less work each time.
        0 => std::thread::available_parallelism()?.get().div_ceil(2),
        workers => workers,
    };
    // Per worker.
    let most = max_connections.div_ceil(workers);
    let builder = Server::build()
        .workers(workers)
        .max_concurrent_connections(most)
        .shutdown_timeout(shutdown_grace.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))
        .disable_signals();
    let tls = identity.map(tls::config).transpose()?;
    // The server's default of 256 concurrent handshakes is too low: strangers can begin them and then stay silent
    // until HEAD_TIMEOUT.
    let limits = listener::Limits { keep_alive: settings.keep_alive, handshakes: most };
    listener::listen(builder, socket, tls, gate, limits)
}

/// Catches all paths: [`Target`] inspects the path itself, because actix's router decodes it first.
fn routes(config: &mut web::ServiceConfig) {
    config.default_service(web::to(answer));
}

async fn answer(request: HttpRequest, payload: web::Payload, gate: web::Data<Gate>) -> HttpResponse {
    connection::heard(&request);
    let target = Target::of(request.uri().path());
    if request.method() == Method::POST {
        // Even without an endpoint this counts as a callback: usually `action_callback_url` is wrong.
        return callback::receive(&request, target.asked_for(), payload, &gate).await;
    }
    if connection::is_over(&request) {
        return connection::unheard(payload);
    }
    let response = callback::turn_off(&request, target, payload, &gate);
    connection::note(&request, &response);
    response
}
