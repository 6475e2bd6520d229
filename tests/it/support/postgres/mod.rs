//! Real PostgreSQL: one private server per test process, with a database per test; pairs of servers for those tests that take
//! one away; PgBouncer before the one of all.
//!
//! Without an installed PostgreSQL, or PgBouncer, the tests fail: a skipped test proves nothing.

mod bouncer;
mod pair;
mod server;
mod watchdog;

use std::sync::OnceLock;

pub(crate) use bouncer::Bouncer;
pub(crate) use pair::PostgresPair;
use server::Server;
pub(crate) use watchdog::Watchdog;

/// A private server.
pub(crate) struct Postgres {
    server: Server,
}

impl Postgres {
    /// The server that all tests of this process share.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| {
            let server = Server::vacant();
            server.initialize();
            server.configure("");
            server.start();
            Self { server }
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.port()
    }

    /// A new, empty database.
    pub(crate) async fn database(&self) -> String {
        let name = self.server.database().await;
        self.server.url(&name)
    }
}

/// A connection of the test's own.
pub(crate) async fn client(url: &str) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("the server takes connections");
    tokio::spawn(connection);
    client
}
