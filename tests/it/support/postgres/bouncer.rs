//! PgBouncer in transaction mode: each transaction of a client may go to another session of the server.

use std::{
    net::TcpStream,
    path::Path,
    sync::OnceLock,
    time::{Duration, Instant},
};

use super::{super::ports, Postgres, watchdog::Watchdog};

/// For machines that are busy with other builds.
const BOOT: Duration = Duration::from_secs(60);

/// A private PgBouncer before [`Postgres::shared`].
pub(crate) struct Bouncer {
    port: u16,
    _watchdog: Watchdog,
}

impl Bouncer {
    /// The one that all tests of this process share.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Bouncer> = OnceLock::new();
        SHARED.get_or_init(|| Self::before(Postgres::shared()))
    }

    fn before(postgres: &Postgres) -> Self {
        // Debian keeps it out of the path of those who are not root.
        let installed = Path::new("/usr/sbin/pgbouncer");
        let program = if installed.exists() { installed } else { Path::new("pgbouncer") };
        let watchdog = Watchdog::new("pgbouncer", program, &["{dir}/pgbouncer.ini"]);
        let (port, server) = (ports::free(), postgres.port());
        // Fewer sessions for each database than a replica has connections.
        let settings = format!(
            "[databases]\n\
             * = host=127.0.0.1 port={server} user=countersign\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir =\n\
             auth_type = any\n\
             pool_mode = transaction\n\
             max_client_conn = 1000\n\
             default_pool_size = 4\n"
        );
        watchdog.write("pgbouncer.ini", &settings);
        watchdog.start();
        let deadline = Instant::now() + BOOT;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "PgBouncer does not answer: {}", watchdog.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { port, _watchdog: watchdog }
    }

    /// A database of [`Postgres::shared`], by way of PgBouncer.
    pub(crate) fn before_database(&self, url: &str) -> String {
        url.replacen(&format!(":{}/", Postgres::shared().port()), &format!(":{}/", self.port), 1)
    }
}
