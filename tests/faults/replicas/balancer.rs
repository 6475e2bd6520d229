//! HAProxy with the settings of `deploy/haproxy.cfg`, but for addresses.

use crate::support::postgres::Watchdog;
use crate::support::{App, PATIENCE, free_port};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A private HAProxy before two replicas.
pub(super) struct Balancer {
    port: u16,
    _watchdog: Watchdog,
}

impl Balancer {
    /// Starts it, and waits until it listens.
    pub(super) fn before(replicas: &[App; 2]) -> Self {
        // Debian keeps it out of the path of those who are not root.
        let installed = Path::new("/usr/sbin/haproxy");
        let program = if installed.exists() { installed } else { Path::new("haproxy") };
        let watchdog = Watchdog::new("haproxy", program, &["-db", "-f", "{dir}/haproxy.cfg"]);
        let port = free_port();
        let mut settings = include_str!("../../../deploy/haproxy.cfg").to_owned();
        let mut replace = |shown: &str, ours: &str| {
            assert!(settings.contains(shown), "deploy/haproxy.cfg has {shown:?}");
            settings = settings.replace(shown, ours);
        };
        replace("bind :443 ssl crt /etc/haproxy/callbacks.pem", &format!("bind 127.0.0.1:{port}"));
        replace(
            "stats socket /run/haproxy/admin.sock",
            &format!("stats socket {}/admin.sock", watchdog.dir().display()),
        );
        for (shown, replica) in
            ["10.0.0.11:8080 check port 9090", "10.0.0.12:8080 check port 9090"].iter().zip(replicas)
        {
            replace(shown, &format!("{} check port {}", replica.public(), replica.admin().port()));
        }
        watchdog.write("haproxy.cfg", &settings);
        watchdog.start();
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "HAProxy does not answer: {}", watchdog.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { port, _watchdog: watchdog }
    }

    /// Where the approval center sends callbacks of the endpoint `purchase`.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/callbacks/purchase", self.port)
    }
}
