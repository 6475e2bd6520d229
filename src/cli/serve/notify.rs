//! Notifies systemd by the protocol `sd_notify(3)`: when the service is ready, its status and, for the watchdog, that
//! it is not stuck. Without `NOTIFY_SOCKET` in the environment, this is a no-op.
//!
//! Implemented here because each message is one datagram; a crate would be no less code to review.

use std::{convert::Infallible, env, ffi::OsStr, io, os::unix::net::UnixDatagram, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, sleep_until, timeout};

use crate::app::{Condition, Controls};

/// How often the status line is checked. It is sent only if it changed.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// How long to wait for a supervisor that does not read.
const SEND_LIMIT: Duration = Duration::from_secs(1);

/// The supervisor, if there is one.
#[derive(Debug)]
pub(super) struct Supervisor {
    socket: Option<UnixDatagram>,
    /// systemd kills the service after this long without a keep-alive.
    watchdog: Option<Duration>,
}

impl Supervisor {
    pub(super) fn from_environment() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()).and_then(|name| {
            connect(&name)
                .inspect_err(|error| tracing::warn!(%error, "the supervisor's NOTIFY_SOCKET cannot be used"))
                .ok()
        });
        let word = |name| env::var(name).ok();
        let watchdog = watchdog(word("WATCHDOG_USEC").as_deref(), word("WATCHDOG_PID").as_deref());
        Self { watchdog: watchdog.filter(|_| socket.is_some()), socket }
    }

    fn send(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(message.as_bytes()) {
            tracing::warn!(%error, message, "cannot notify the supervisor");
        }
    }

    /// Both listeners serve and the ledger is open, or a reload has ended.
    pub(super) fn ready(&self, condition: &Condition) {
        self.send(&format!("READY=1\nSTATUS={condition}"));
    }

    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let usec = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}\nSTATUS=reading the configuration again"));
    }

    pub(super) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=draining");
    }

    /// Keeps the line of `systemctl status` up to date.
    pub(super) async fn tell(&self, controls: &Controls) -> Infallible {
        if self.socket.is_none() {
            return std::future::pending().await;
        }
        let mut told = String::new();
        loop {
            let status = controls.condition().await.to_string();
            if status != told {
                self.send(&format!("STATUS={status}"));
                told = status;
            }
            tokio::time::sleep(TELL_EVERY).await;
        }
    }

    /// Sends keep-alives at half the watchdog interval, as long as this runtime makes progress and `answers`, which
    /// asks the ledger's writer, returns true in time. The broker is not asked: a missing broker does not mean that
    /// the service is stuck.
    pub(super) async fn watch(&self, answers: impl AsyncFn() -> bool) -> Infallible {
        let Some(limit) = self.watchdog else { return std::future::pending().await };
        let half = limit / 2;
        let mut next = Instant::now();
        loop {
            match timeout(half, answers()).await {
                Ok(true) => self.send("WATCHDOG=1"),
                Ok(false) => tracing::error!("the ledger's writer has ended; the watchdog is left to act"),
                Err(_elapsed) => {
                    tracing::error!(waited = ?half, "the ledger's writer does not answer; the watchdog will act");
                }
            }
            next = (next + half).max(Instant::now());
            sleep_until(next).await;
        }
    }
}

/// A path, or `@` and a name in Linux's abstract namespace.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match name.as_encoded_bytes().strip_prefix(b"@") {
        None => socket.connect(name)?,
        Some(name) => connect_abstract(&socket, name)?,
    }
    socket.set_write_timeout(Some(SEND_LIMIT))?;
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn connect_abstract(socket: &UnixDatagram, name: &[u8]) -> io::Result<()> {
    use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
    socket.connect_addr(&SocketAddr::from_abstract_name(name)?)
}

#[cfg(not(target_os = "linux"))]
fn connect_abstract(_: &UnixDatagram, _: &[u8]) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// The watchdog interval, if one is set for this process.
fn watchdog(usec: Option<&str>, pid: Option<&str>) -> Option<Duration> {
    let usec: u64 = usec?.parse().ok().filter(|usec| *usec > 0)?;
    let ours = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
    ours.then(|| Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervised(watchdog: Duration) -> (UnixDatagram, Supervisor) {
        let (theirs, ours) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (theirs, Supervisor { socket: Some(ours), watchdog: Some(watchdog) })
    }

    fn received(socket: &UnixDatagram) -> Vec<String> {
        let mut bytes = [0; 1024];
        let messages = std::iter::from_fn(|| {
            let length = socket.recv(&mut bytes).ok()?;
            Some(String::from_utf8(bytes[..length].to_vec()).unwrap())
        });
        messages.collect()
    }

    #[test]
    fn a_watchdog_for_another_process_is_not_ours() {
        let ours = std::process::id().to_string();
        assert_eq!(watchdog(Some("30000000"), None), Some(Duration::from_secs(30)));
        assert_eq!(watchdog(Some("1"), Some(&ours)), Some(Duration::from_micros(1)));
        for (usec, pid) in [(None, None), (Some("0"), None), (Some("x"), None), (Some("1"), Some("1"))] {
            assert_eq!(watchdog(usec, pid), None, "{usec:?} {pid:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_told_twice_in_its_time_while_the_writer_answers() {
        let (theirs, supervisor) = supervised(Duration::from_secs(30));
        let watched = timeout(Duration::from_secs(59), supervisor.watch(async || true)).await;
        assert!(watched.is_err());
        assert_eq!(received(&theirs), ["WATCHDOG=1"; 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_not_told_while_the_writer_hangs_or_when_it_has_ended() {
        let (theirs, supervisor) = supervised(Duration::from_secs(30));
        let hangs = supervisor.watch(async || std::future::pending().await);
        assert!(timeout(Duration::from_secs(90), hangs).await.is_err());
        assert!(timeout(Duration::from_secs(90), supervisor.watch(async || false)).await.is_err());
        assert_eq!(received(&theirs), [""; 0]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_socket_may_be_a_path_or_an_abstract_name() {
        use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
        let name = format!("countersign-test-{}", std::process::id());
        let listening = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let supervisor =
            Supervisor { socket: Some(connect(OsStr::new(&format!("@{name}"))).unwrap()), watchdog: None };
        supervisor.stopping();
        let mut bytes = [0; 64];
        let length = listening.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"STOPPING=1\nSTATUS=draining");

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listening = UnixDatagram::bind(&path).unwrap();
        Supervisor { socket: Some(connect(path.as_os_str()).unwrap()), watchdog: None }.reloading();
        let length = listening.recv(&mut bytes).unwrap();
        let message = std::str::from_utf8(&bytes[..length]).unwrap();
        assert!(message.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{message}");
        assert!(connect(dir.path().join("nobody").as_os_str()).is_err());
    }
}
