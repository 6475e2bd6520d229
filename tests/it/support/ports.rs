//! Ports for servers whose configuration wants to know them beforehand.

use std::net::TcpStream;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 12_000;
/// Ends below 32768, where the kernel starts to give ports to outgoing connections: one of those could otherwise
/// take the port between this look and the server's own bind.
const COUNT: u32 = 18_000;

static NEXT: LazyLock<AtomicU32> =
    LazyLock::new(|| AtomicU32::new(std::process::id().wrapping_mul(97) % COUNT));

/// A port of 127.0.0.1 on which nobody listens now, and which is not given out twice by this process.
pub(crate) fn free() -> u16 {
    for _ in 0..COUNT {
        let candidate = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = u16::try_from(candidate).expect("the range ends below 32768");
        // Asked by connecting: a listener of our own would be inherited for a moment by every process that another
        // thread starts just now, and be in the way of the server that is to have the port.
        if TcpStream::connect(("127.0.0.1", port)).is_err() {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1 from {FIRST} to {}", FIRST + COUNT);
}
