//! The public listener: callbacks and nothing else. Transport only; what a callback means is decided by
//! [`Intake`](crate::intake::Intake).
//!
//! # What bounds a stranger
//! | resource | bound |
//! |---|---|
//! | time to send a request's head | 5 s, first request of a connection; a stranger's connection is closed after it |
//! | size of the head | 128 KiB (the server's own), answered 431 |
//! | size of the body, time to send it | `max_body_bytes`, `body_read_timeout` |
//! | idle connection | `keep_alive` |
//! | time for a TLS handshake | 5 s |
//! | what is begun and not ended: heads, bodies | `max_unread_bytes` of memory, of all connections together, beyond some KiB each |
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

/// The public listener's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// A callback's body may have so many bytes.
    pub max_body_bytes: usize,
    /// A callback's body must be complete so long after its head.
    pub body_read_timeout: Duration,
    /// Bytes of memory for what is on its way on all connections together, in so far as it comes in pieces.
    pub max_unread_bytes: usize,
    /// A connection on which nothing comes for so long after an answer is closed.
    pub keep_alive: Duration,
    /// An `unauthenticated` answer leaves no sooner than this after the end of the body.
    pub unauthenticated_floor: Duration,
    /// Threads that serve; 0 is one for every two cores.
    pub workers: usize,
    /// TLS; plain HTTP without.
    pub tls: Option<tls::Settings>,
    /// Who may send callbacks, and how many.
    pub peers: peers::Settings,
}

/// Every public route: method and path. `openapi.yaml` documents them, and a test compares.
pub const ROUTES: [(&str, &str); 1] = [("POST", "/callbacks/{endpoint}")];

/// The platform sends a head in one packet; a sender that needs longer has a broken line or bad intentions.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts the listener on a socket that listens already. The server runs while the result is polled.
///
/// The `gate` was made with these settings; of them only `workers` and `keep_alive` are looked at here. After a graceful stop, requests
/// have `shutdown_grace` (rounded up to seconds) to finish. There are at most `max_connections` at a time, of all workers
/// together; more wait in the accept queue.
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
        // The ledger's writer, the relay and its connection have as much to do, on threads of their own; with a worker for
        // each core they would wake one another for less work at a time.
        0 => std::thread::available_parallelism()?.get().div_ceil(2),
        workers => workers,
    };
    // Of each worker.
    let most = max_connections.div_ceil(workers);
    let builder = Server::build()
        .workers(workers)
        .max_concurrent_connections(most)
        .shutdown_timeout(shutdown_grace.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))
        .disable_signals();
    let tls = identity.map(tls::config).transpose()?;
    // The server's own 256 handshakes at a time are little for strangers who begin one and say no more until HEAD_TIMEOUT is
    // over.
    let limits = listener::Limits { keep_alive: settings.keep_alive, handshakes: most };
    listener::listen(builder, socket, tls, gate, limits)
}

/// All of it: the path is looked at by [`Target`], since the router of actix decodes it first.
fn routes(config: &mut web::ServiceConfig) {
    config.default_service(web::to(answer));
}

async fn answer(request: HttpRequest, payload: web::Payload, gate: web::Data<Gate>) -> HttpResponse {
    connection::heard(&request);
    let target = Target::of(request.uri().path());
    if request.method() == Method::POST {
        // One that is not for an endpoint is a callback all the same: mostly one of a wrong `action_callback_url`.
        return callback::receive(&request, target.asked_for(), payload, &gate).await;
    }
    if connection::is_over(&request) {
        return connection::unheard(payload);
    }
    let response = callback::turn_off(&request, target, payload, &gate);
    connection::note(&request, &response);
    response
}
