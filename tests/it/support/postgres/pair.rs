//! Two servers of which one is the standby, and what can happen to them.

use std::net::SocketAddr;

use tokio::task::block_in_place;

use super::{
    super::{Proxy, eventually},
    client,
    server::Server,
};

/// A primary, and a standby that the primary waits for if the pair is synchronous. Needs a runtime with several threads.
pub(crate) struct PostgresPair {
    nodes: [Node; 2],
    primary: usize,
    is_synchronous: bool,
}

struct Node {
    server: Server,
    /// The way by which the other is its standby.
    replication: Proxy,
}

impl Node {
    fn new() -> Self {
        let server = Server::vacant();
        let replication = Proxy::shut_before(address(&server));
        Self { server, replication }
    }
}

impl PostgresPair {
    pub(crate) async fn boot(is_synchronous: bool) -> Self {
        let mut pair = Self { nodes: [Node::new(), Node::new()], primary: 0, is_synchronous };
        let first = &pair.nodes[0].server;
        block_in_place(|| {
            first.initialize();
            first.configure("");
            first.start();
        });
        pair.rebuild().await;
        pair
    }

    fn primary(&self) -> &Server {
        &self.nodes[self.primary].server
    }

    fn other(&self) -> &Server {
        &self.nodes[1 - self.primary].server
    }

    /// A new, empty database, by an URL that names both servers.
    pub(crate) async fn database(&self) -> String {
        let name = self.primary().database().await;
        let [first, second] = self.addresses();
        format!("postgres://countersign@{first},{second}/{name}")
    }

    /// Where the two are. It does not change.
    pub(crate) fn addresses(&self) -> [SocketAddr; 2] {
        [&self.nodes[0], &self.nodes[1]].map(|node| address(&node.server))
    }

    /// A connection of the test's own to the primary.
    pub(crate) async fn client(&self, database: &str) -> tokio_postgres::Client {
        client(&self.primary().url(database)).await
    }

    /// Ends all processes of the primary at once.
    pub(crate) fn kill_primary(&self) {
        block_in_place(|| self.primary().kill());
    }

    /// Which of [`addresses`](Self::addresses) is the primary.
    pub(crate) fn primary_number(&self) -> usize {
        self.primary
    }

    /// Ends all processes of the standby at once.
    pub(crate) fn kill_standby(&self) {
        block_in_place(|| self.other().kill());
    }

    /// Starts the standby again where it was killed, and waits until it has all.
    pub(crate) async fn revive_standby(&self) {
        block_in_place(|| self.other().start());
        self.standby_follows().await;
    }

    /// Stops all processes of the standby where they are.
    pub(crate) fn freeze_standby(&self) {
        block_in_place(|| self.other().freeze());
    }

    /// Starts the primary again where it was killed.
    pub(crate) fn revive_primary(&self) {
        block_in_place(|| self.primary().start());
    }

    /// Stops all processes of the primary where they are. The kernel still takes connections for it.
    pub(crate) fn freeze_primary(&self) {
        block_in_place(|| self.primary().freeze());
    }

    /// Lets both go on, if one was frozen.
    pub(crate) fn thaw(&self) {
        self.nodes.iter().for_each(|node| node.server.thaw());
    }

    /// Ends the sessions of countersign on the primary.
    pub(crate) async fn end_sessions(&self) {
        let all =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'countersign'";
        self.client("postgres").await.batch_execute(all).await.expect("an administrator may");
    }

    /// What a primary with a standby has in its settings.
    fn synchronous(&self) -> &'static str {
        if self.is_synchronous { "synchronous_standby_names = '*'" } else { "" }
    }

    /// Has the primary refuse to write, as a standby does, without ending a session.
    pub(crate) async fn demote_primary(&self) {
        let settings = format!("{}\ndefault_transaction_read_only = on", self.synchronous());
        block_in_place(|| self.primary().configure(&settings));
        self.primary().reload();
        let client = self.client("postgres").await;
        eventually("the primary to be read only", async || {
            let shown =
                client.query_one("SHOW default_transaction_read_only", &[]).await.expect("it answers");
            if shown.get::<_, &str>(0) == "on" { Ok(()) } else { Err(()) }
        })
        .await;
    }

    /// Makes the standby the primary. It waits for no standby until [`rebuild`](Self::rebuild).
    pub(crate) async fn promote(&mut self) {
        let standby = client(&self.other().url("postgres")).await;
        let promoted = standby.query_one("SELECT pg_promote(true, 60)", &[]).await.expect("it is a standby");
        assert!(promoted.get::<_, bool>(0), "a standby that runs can be promoted");
        self.primary = 1 - self.primary;
    }

    /// Makes the other one a standby of the primary, whatever it was, and waits until it has all.
    pub(crate) async fn rebuild(&mut self) {
        let (primary, other) = (self.primary, 1 - self.primary);
        self.nodes[primary].replication.open().await;
        self.nodes[other].replication.shut().await;
        let source = self.nodes[primary].replication.port();
        let server = &self.nodes[other].server;
        block_in_place(|| {
            server.kill();
            server.copy(source);
            server.configure("");
            server.start();
        });
        self.primary().configure(self.synchronous());
        self.primary().reload();
        self.standby_follows().await;
    }

    /// Ends the connection of the standby, and allows no other.
    pub(crate) async fn cut_replication(&mut self) {
        self.nodes[self.primary].replication.shut().await;
    }

    /// Lets the standby connect again, and waits until it has all.
    pub(crate) async fn restore_replication(&mut self) {
        self.nodes[self.primary].replication.open().await;
        self.standby_follows().await;
    }

    async fn standby_follows(&self) {
        let wanted = if self.is_synchronous { "sync" } else { "async" };
        let client = self.client("postgres").await;
        eventually("the standby to follow", async || {
            let sql = "SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'";
            let found = client.query(sql, &[]).await.expect("the primary answers");
            let found: Vec<String> = found.iter().map(|row| row.get(0)).collect();
            if found == [wanted] { Ok(()) } else { Err(found) }
        })
        .await;
    }
}

fn address(server: &Server) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], server.port()))
}
