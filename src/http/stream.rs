//! Limits how much the server reads from a connection before processing it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::web::Data;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Gate, budget::Held, connection::Unheard};

/// Bytes to read before the server must process them. Nearly every callback is smaller and arrives in one piece. Each
/// unprocessed chunk costs the server some 32 bytes, while a chunk of one byte needs only six on the wire.
const TURN_BYTES: usize = 4096;

/// Unprocessed bytes up to this size are free: they fit into the buffer that each connection has anyway.
const FREE_BYTES: usize = 8192;

/// A stream that pauses reading after [`TURN_BYTES`]. Otherwise the server reads until no more input is available, or
/// 128 KiB, before it processes anything. Unprocessed bytes count against the budget of all connections; reading
/// fails when it is exhausted.
pub(super) struct Stream<T> {
    io: T,
    gate: Data<Gate>,
    /// Bytes read since the last pause.
    turn_bytes: usize,
    unheard: Unheard,
    held: Held,
}

impl<T> Stream<T> {
    pub(super) fn new(io: T, gate: &Data<Gate>) -> Self {
        Self {
            io,
            turn_bytes: 0,
            unheard: Unheard::default(),
            held: Held::of(&gate.budget),
            gate: gate.clone(),
        }
    }

    pub(super) fn unheard(&self) -> Unheard {
        self.unheard.clone()
    }

    /// Counts bytes just read. False if there is no memory for them.
    fn note(&mut self, bytes: usize) -> bool {
        self.turn_bytes += bytes;
        let unheard = self.unheard.add(bytes);
        // A buffer grows by doubling.
        let held = if unheard > FREE_BYTES { unheard.next_power_of_two() } else { 0 };
        self.held.set(held)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Stream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.turn_bytes >= TURN_BYTES {
            self.turn_bytes = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if read.is_pending() {
            self.turn_bytes = 0;
        } else if !self.note(buf.filled().len() - before) {
            self.gate.head_unread();
            return Poll::Ready(Err(io::Error::other("no memory for what is on its way")));
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Stream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
