//! What happens to a connection between the program and a real broker: a TCP proxy that cuts, stalls, slows and
//! half-closes. Whole outages are the business of `support::Proxy`.

use crate::support::{eventually, free_port};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How bytes go in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Free,
    /// Not at all: nothing is read any more, so that buffers fill up as behind a dead router.
    Stalled,
    /// So many bytes a second.
    Slow(usize),
}

/// How all connections end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Fin,
    Reset,
}

/// Who is told that nothing more comes, while the other direction stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Program,
    Broker,
}

#[derive(Clone, Copy, Debug)]
struct State {
    to_broker: Flow,
    to_program: Flow,
    /// Counts the cuts; a connection from before a cut is over.
    cuts: usize,
    cut: Cut,
    half_closes: usize,
    half_closed: Side,
}

/// The proxy. Connections that come after a cut or a half-close are as good as new.
pub(crate) struct Wire {
    port: u16,
    state: watch::Sender<State>,
    accepted: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Wire {
    /// A wire to this address that does nothing yet but forward.
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let port = free_port();
        let listener =
            eventually("the port is free", async || TcpListener::bind(("127.0.0.1", port)).await).await;
        let (state, watched) = watch::channel(State {
            to_broker: Flow::Free,
            to_program: Flow::Free,
            cuts: 0,
            cut: Cut::Fin,
            half_closes: 0,
            half_closed: Side::Program,
        });
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        let server = tokio::spawn(async move {
            let mut pairs = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((client, _)) = listener.accept() => {
                        counter.fetch_add(1, Ordering::Relaxed);
                        pairs.spawn(forward(client, target, watched.clone()));
                    }
                    Some(ended) = pairs.join_next() => ended.expect("forwarding does not panic"),
                }
            }
        });
        Self { port, state, accepted, server }
    }

    /// Where clients find it.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Sets how bytes go from now on, in connections that stand as in new ones.
    pub(crate) fn flow(&self, to_broker: Flow, to_program: Flow) {
        self.state.send_modify(|state| (state.to_broker, state.to_program) = (to_broker, to_program));
    }

    /// Ends all connections.
    pub(crate) fn cut(&self, cut: Cut) {
        self.state.send_modify(|state| (state.cut, state.cuts) = (cut, state.cuts + 1));
    }

    /// Closes one direction of all connections.
    pub(crate) fn half_close(&self, side: Side) {
        self.state
            .send_modify(|state| (state.half_closed, state.half_closes) = (side, state.half_closes + 1));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn forward(client: TcpStream, target: SocketAddr, mut state: watch::Receiver<State>) {
    let cuts = state.borrow_and_update().cuts;
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let up = tokio::spawn(pump(from_client, to_server, Side::Broker, state.clone()));
    let down = tokio::spawn(pump(from_server, to_client, Side::Program, state.clone()));
    let cut = async {
        let cut = state.wait_for(|state| state.cuts > cuts).await.map(|state| state.cut);
        // The sender is gone only with the whole proxy.
        cut.unwrap_or(Cut::Fin)
    };
    let (up_stop, down_stop) = (up.abort_handle(), down.abort_handle());
    let mut both = pin!(async {
        // How a direction ended does not matter.
        drop((up.await, down.await));
    });
    tokio::select! {
        cut = cut => {
            if cut == Cut::Reset {
                // Each direction sees to its socket, unless it is stuck in a write.
                drop(tokio::time::timeout(Duration::from_millis(200), both).await);
            }
            up_stop.abort();
            down_stop.abort();
        }
        () = &mut both => {}
    }
}

/// Forwards in the direction of `side` until one end is over, or the connection is cut.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    side: Side,
    mut state: watch::Receiver<State>,
) {
    let (cuts, half_closes) = {
        let state = state.borrow_and_update();
        (state.cuts, state.half_closes)
    };
    let mut half_closed = false;
    let mut buffer = vec![0; 16 << 10];
    loop {
        let now = *state.borrow_and_update();
        if now.cuts > cuts {
            if now.cut == Cut::Reset {
                to.as_ref().set_zero_linger().expect("an open socket");
                // Or the half would close its direction in an orderly way when it is dropped.
                to.forget();
            }
            return;
        }
        if now.half_closes > half_closes && now.half_closed == side && !half_closed {
            half_closed = true;
            // It may be closed already.
            drop(to.shutdown().await);
        }
        let flow = if side == Side::Broker { now.to_broker } else { now.to_program };
        let most = match flow {
            Flow::Free => buffer.len(),
            Flow::Stalled => 0,
            // In steps of a twentieth of a second.
            Flow::Slow(a_second) => (a_second / 20).clamp(1, buffer.len()),
        };
        tokio::select! {
            changed = state.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            read = from.read(&mut buffer[..most]), if most > 0 => {
                let Ok(length @ 1..) = read else { return };
                // What comes after a half-close goes nowhere.
                if !half_closed && to.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
                if let Flow::Slow(a_second) = flow {
                    tokio::time::sleep(Duration::from_secs_f64(length as f64 / a_second as f64)).await;
                }
            }
        }
    }
}
