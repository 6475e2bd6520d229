//! A broker that goes away and comes back within a test: a TCP forwarder that can be shut and opened again.

use super::{eventually, ports};
use std::net::SocketAddr;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Forwards one port to another while it is open; refuses connections, and has cut all it had, while it is shut.
pub(crate) struct Proxy {
    port: u16,
    target: SocketAddr,
    running: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy that is still shut: to its clients the server is away.
    pub(crate) fn shut_before(target: SocketAddr) -> Self {
        Self { port: ports::free(), target, running: None }
    }

    /// Where clients find it.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Lets clients through from now on. Does nothing while it is open.
    pub(crate) async fn open(&mut self) {
        if self.running.is_some() {
            return;
        }
        // A process that another test starts holds a copy of every socket of this one between its fork and its exec,
        // so the old listener may outlive its closing by a moment.
        let listener =
            eventually("the port is free", async || TcpListener::bind(("127.0.0.1", self.port)).await).await;
        let target = self.target;
        self.running = Some(tokio::spawn(async move {
            let mut pairs = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((mut client, _)) = listener.accept() => {
                        pairs.spawn(async move {
                            if let Ok(mut server) = TcpStream::connect(target).await {
                                // How a pair ended does not matter: its two sockets are closed either way.
                                drop(copy_bidirectional(&mut client, &mut server).await);
                            }
                        });
                    }
                    Some(_) = pairs.join_next() => {}
                }
            }
        }));
    }

    /// Cuts every connection at once and refuses new ones.
    pub(crate) async fn shut(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            // Awaited so that the listener is closed when this returns; the error only says "aborted".
            drop(running.await);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}
