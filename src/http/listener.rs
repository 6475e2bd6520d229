//! The public listener, built from actix-web's own parts. `HttpServer` falls short in three ways: it drops failed
//! handshakes silently, it lets one peer take all connections, and it reads 128 KiB of a body in small pieces before
//! passing on the first, using memory for each of them.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_http::{HttpService, Protocol, error::DispatchError};
use actix_server::{GracefulShutdownSignal, Server, ServerBuilder};
use actix_service::{
    IntoServiceFactory, Service as _, ServiceFactory, ServiceFactoryExt, apply_fn_factory, map_config,
};
use actix_tls::accept::{
    TlsError, max_concurrent_tls_connect,
    rustls_0_23::{Acceptor, TlsStream},
};
use actix_web::{App, Error, dev::AppConfig, rt::net::TcpStream, web::Data};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Gate, HEAD_TIMEOUT, connection, handshakes::Tellings, routes, slots::ConnectionSlot, stream::Stream,
};

/// actix-web's default.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// A connection is closed after this long without a request.
    pub(super) keep_alive: Duration,
    /// Concurrent handshakes per worker. At the limit, no new connections are accepted.
    pub(super) handshakes: usize,
}

/// Serves the public routes on `socket`, with TLS if configured. The `builder` already knows workers and the
/// connection limit.
pub(super) fn listen(
    builder: ServerBuilder,
    socket: TcpListener,
    tls: Option<ServerConfig>,
    gate: Data<Gate>,
    limits: Limits,
) -> io::Result<Server> {
    let shutdown = builder.graceful_shutdown_signal();
    let server = match tls {
        None => builder.listen("callbacks", socket, move || {
            let gate = gate.clone();
            let http = http(gate.clone(), limits, shutdown.clone());
            apply_fn_factory(http, move |io: TcpStream, service: &_| {
                let served = admit(&io, &gate).map(|(peer, slot)| {
                    (service.call((Stream::new(io, &gate), Protocol::Http1, Some(peer))), slot)
                });
                async move {
                    // Keep the slot until the connection ends.
                    let Some((served, _slot)) = served else { return Ok(()) };
                    served.await
                }
            })
        }),
        Some(tls) => {
            max_concurrent_tls_connect(limits.handshakes);
            let told = Arc::new(Tellings::default());
            builder.listen("callbacks over TLS", socket, move || {
                let gate = gate.clone();
                let mut acceptor = Acceptor::new(tls.clone());
                acceptor.set_handshake_timeout(HEAD_TIMEOUT);
                let reading = gate.clone();
                let over = acceptor
                    .map_init_err(|()| unreachable!("making it cannot fail"))
                    .map_err(TlsError::into_service_error)
                    .map(move |io: TlsStream<TcpStream>| {
                        let peer = io.get_ref().0.peer_addr().ok();
                        (Stream::new(io, &reading), Protocol::Http1, peer)
                    })
                    .and_then(http(gate.clone(), limits, shutdown.clone()).map_err(TlsError::Service));
                let told = told.clone();
                apply_fn_factory(over, move |io: TcpStream, service: &_| {
                    let served = admit(&io, &gate).map(|(peer, slot)| (service.call(io), peer, slot));
                    let (gate, told) = (gate.clone(), told.clone());
                    async move {
                        let Some((served, peer, _slot)) = served else { return Ok(()) };
                        let served = served.await;
                        if let Err(error) = &served {
                            told.note(error, Some(peer.ip()), &gate.metrics);
                        }
                        served
                    }
                })
            })
        }
    }?;
    Ok(server.run())
}

/// The peer's address and its slot, if it needs one; `None` if the connection must be closed.
fn admit(io: &TcpStream, gate: &Gate) -> Option<(SocketAddr, Option<ConnectionSlot>)> {
    let peer = io.peer_addr().ok()?;
    let slot = gate.slot(peer.ip()).ok()?;
    // An answer is one small packet; batching it with others only adds delay. The call fails if the connection is
    // already closed, which shows soon enough.
    drop(io.set_nodelay(true));
    Some((peer, slot))
}

fn http<T: AsyncRead + AsyncWrite + Unpin + 'static>(
    gate: Data<Gate>,
    limits: Limits,
    shutdown: GracefulShutdownSignal,
) -> impl ServiceFactory<
    (Stream<T>, Protocol, Option<SocketAddr>),
    Config = (),
    Response = (),
    Error = DispatchError,
    InitError = (),
> {
    let app = App::new().app_data(gate).configure(routes).into_factory();
    let app = app.map_err(|error: Error| error.error_response());
    HttpService::build()
        .graceful_shutdown_signal(move || {
            let shutdown = shutdown.clone();
            async move { shutdown.notified().await }
        })
        .keep_alive(limits.keep_alive)
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        .on_connect_ext(|io: &Stream<T>, extensions: &mut _| connection::begin(io.unheard(), extensions))
        .finish(map_config(app, |()| AppConfig::default()))
}
