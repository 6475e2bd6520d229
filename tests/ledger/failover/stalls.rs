//! A replica that stands still in the middle of a transaction.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use countersign::ledger::{AcceptError, Ledger, Receipt, Settlement};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::scene::replica;
use crate::{
    conformance::acceptance,
    support::{PATIENCE, postgres::Postgres},
};

/// Forwards what a replica and its server say to each other, until it is told to stop: then neither hears anything more, not
/// even that the other has gone.
struct Way {
    port: u16,
    stopped_at: watch::Sender<Option<&'static str>>,
}

impl Way {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let port = listener.local_addr().expect("it is bound").port();
        let stopped_at = watch::Sender::new(None);
        let subscribed = stopped_at.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server).await.expect("the server is there");
                tokio::spawn(forward(client, server, subscribed.clone()));
            }
        });
        Self { port, stopped_at }
    }

    /// Stops each connection before the replica says this.
    fn stop_before(&self, word: &'static str) {
        self.stopped_at.send_replace(Some(word));
    }
}

async fn forward(
    mut client: TcpStream,
    mut server: TcpStream,
    stopped_at: watch::Sender<Option<&'static str>>,
) {
    let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let sent = tokio::select! {
            read = client.read(&mut from_client) => {
                let said = &from_client[..read.unwrap_or(0)];
                let word = *stopped_at.borrow();
                if word.is_some_and(|word| said.windows(word.len()).any(|part| part == word.as_bytes())) {
                    // Both sockets stay open.
                    std::future::pending::<()>().await;
                }
                if said.is_empty() { return }
                server.write_all(said).await
            }
            read = server.read(&mut from_server) => {
                let said = &from_server[..read.unwrap_or(0)];
                if said.is_empty() { return }
                client.write_all(said).await
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn leads(ledger: &Arc<dyn Ledger>) {
    let mut term = ledger.term();
    let led = tokio::time::timeout(PATIENCE, term.wait_for(Option::is_some)).await;
    drop(led.expect("it leads").expect("the ledger is there"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stands_still_in_a_transaction_is_followed_and_stops_nobody() {
    let url = tokio::task::block_in_place(Postgres::shared).database().await;
    let port = Postgres::shared().port();
    let way = Way::to(SocketAddr::from(([127, 0, 0, 1], port))).await;
    let still = replica(&url.replace(&format!(":{port}/"), &format!(":{}/", way.port))).await;
    leads(&still).await;
    let other = replica(&url).await;
    let accepted = still.accept(acceptance("before", "APPROVE", None)).await;
    assert!(matches!(accepted, Ok(Receipt::Accepted { .. })), "{accepted:?}");

    let outbox = still.term().borrow().clone().expect("it leads");
    way.stop_before("COMMIT\0");
    // It holds the row of the relay, which the next leader needs.
    let settlement = Settlement { through: Some(1), ..Settlement::default() };
    assert_eq!(outbox.settle(settlement).await, Err(AcceptError::Unavailable));

    let accepted = other.accept(acceptance("meanwhile", "APPROVE", None)).await;
    assert!(matches!(accepted, Ok(Receipt::Accepted { .. })), "{accepted:?}");
    let led = tokio::time::timeout(Duration::from_secs(30), leads(&other)).await;
    led.expect("the lease and the lock expire");
    let outbox = other.term().borrow().clone().expect("it leads");
    assert_eq!(outbox.cursor().await.expect("its term has begun"), 0, "nothing was settled");
}
