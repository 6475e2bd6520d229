//! Simulates a broker outage within a test: a TCP forwarder that can be closed and reopened.

use super::{eventually, ports};
use std::net::SocketAddr;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Forwards one port to another while open. While shut, it refuses connections; shutting cuts existing ones.
pub(crate) struct Proxy {
    port: u16,
    target: SocketAddr,
    running: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy that is still shut: clients cannot reach the server.
    pub(crate) fn shut_before(target: SocketAddr) -> Self {
        Self { port: ports::free(), target, running: None }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Accepts clients from now on. Does nothing if already open.
    pub(crate) async fn open(&mut self) {
        if self.running.is_some() {
            return;
        }
        // Between fork and exec, a process started by another test holds copies of all our sockets, so the old
        // listener may outlive its closing by a moment.
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
                                // Else a short message waits up to 40 ms, for the acknowledgement of the one before.
                                for stream in [&client, &server] {
                                    stream.set_nodelay(true).expect("a connected socket");
                                }
                                // Ignore how a pair ended: both sockets are closed in any case.
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
            // Wait, so that the listener is closed on return; the error only says "aborted".
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
