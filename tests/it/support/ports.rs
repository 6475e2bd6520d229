//! Ports for servers that must be configured with a port in advance.

use std::net::TcpStream;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 12_000;
/// Ends below 32768, where the kernel starts to assign ports to outgoing connections: one of those could otherwise
/// take the port between this check and the server's own bind.
const COUNT: u32 = 18_000;

static NEXT: LazyLock<AtomicU32> =
    LazyLock::new(|| AtomicU32::new(std::process::id().wrapping_mul(97) % COUNT));

/// A port of 127.0.0.1 without a listener, returned only once by this process.
pub(crate) fn free() -> u16 {
    for _ in 0..COUNT {
        let candidate = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = u16::try_from(candidate).expect("the range ends below 32768");
        // Check by connecting: a listener of ours would briefly be inherited by every process that another thread
        // starts at this moment, and block the server that needs the port.
        if TcpStream::connect(("127.0.0.1", port)).is_err() {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1 from {FIRST} to {}", FIRST + COUNT);
}
