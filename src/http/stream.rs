//! A connection as the server reads it: a little at a time, and no more of it unheard than there is memory for.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::web::Data;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Gate, budget::Held, connection::Unheard};

/// So many bytes are read before what they say is looked at. Nearly every callback comes in one piece that is smaller. For
/// each chunk that nobody has looked at yet the server takes some 32 bytes, and a chunk of one byte comes in six.
const TURN_BYTES: usize = 4096;

/// So many bytes that nobody has heard yet are nobody's business: the buffer that each connection has holds them.
const FREE_BYTES: usize = 8192;

/// Reading from it pauses after [`TURN_BYTES`]. Without that the server reads on until nothing more has come, or 128 KiB,
/// before it looks at any of it. What was read and not heard counts against the budget of all connections; when that is
/// used up, reading fails.
pub(super) struct Stream<T> {
    io: T,
    gate: Data<Gate>,
    /// Since reading paused last.
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

    /// Takes note of what was read. False if there is no memory for it.
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
