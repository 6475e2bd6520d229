//! Who is the leader: a row with a term and the time at which it expires, by PostgreSQL's clock.
//!
//! A lock of the session would be lost behind PgBouncer in transaction mode. A term is a random number: an asynchronous
//! failover can turn a counter back to one that was used already.
//!
//! Every connection that is lost ends the term, whichever it was: the server may have failed over, and its log may end
//! elsewhere. The next term begins with what the ledger holds then.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::{
    Error, Links,
    link::Link,
    outbox::TermOutbox,
    prune,
    server::Server,
    shared::Shared,
    values::{Columns, values},
};
use crate::command::Seq;

/// A lease that is not renewed for so long is over.
const TTL_MS: i64 = 6_000;
/// A lease is renewed this often.
const RENEW: Duration = Duration::from_secs(2);
/// The end of the log is looked at this often, by the leader alone: other replicas append to it.
const POLL: Duration = Duration::from_millis(50);
/// Whether the lease of another has expired is looked at this often.
const CANDIDACY: Duration = Duration::from_millis(500);

/// The milliseconds since 1970, by PostgreSQL's clock.
const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

pub(super) struct Lease {
    pub(super) server: Arc<Server>,
    pub(super) link: Link,
    pub(super) links: Links,
    pub(super) shared: Arc<Shared>,
    /// Names this process to people.
    pub(super) holder: String,
}

impl Lease {
    /// Leads whenever nobody else does, until `stop` is set; then the lease is given back.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow_and_update() {
            let term = Uuid::from_bytes(rand_bytes());
            let mut generation = self.server.generation();
            generation.borrow_and_update();
            match self.take(term).await {
                Ok(Some(head)) => {
                    tracing::info!(%term, holder = self.holder, "this process is the leader");
                    let ended = self.hold(term, head, &mut generation, &mut stop).await;
                    self.shared.end_term();
                    tracing::info!(%term, cause = ended, "this process is the leader no longer");
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "the lease cannot be looked at"
                    );
                }
            }
            tokio::select! {
                () = sleep(CANDIDACY) => {}
                () = stopped(&mut stop) => {}
            }
        }
    }

    /// Takes the lease if it is free; returns the end of the log.
    async fn take(&self, term: Uuid) -> Result<Option<Seq>, Error> {
        let taken = self
            .link
            .query_opt(
                &format!(
                    "UPDATE countersign.relay SET term = $1, holder = $2, expires_at = {NOW} + $3
                     WHERE id = 1 AND (term IS NULL OR expires_at <= {NOW}) RETURNING 1"
                ),
                values![term, self.holder.as_str(), TTL_MS],
            )
            .await?;
        if taken.is_none() {
            return Ok(None);
        }
        self.head().await.map(Some)
    }

    async fn head(&self) -> Result<Seq, Error> {
        let row = self.link.query_opt("SELECT head FROM countersign.log", values![]).await?;
        row.ok_or(Error::NoVersion)?.seq("head")
    }

    /// True if the lease is still this term's.
    async fn renew(&self, term: Uuid) -> Result<bool, Error> {
        let sql = format!(
            "UPDATE countersign.relay SET expires_at = {NOW} + $2 WHERE id = 1 AND term = $1 RETURNING 1"
        );
        Ok(self.link.query_opt(&sql, values![term, TTL_MS]).await?.is_some())
    }

    /// Leads; returns why no longer.
    async fn hold(
        &self,
        term: Uuid,
        head: Seq,
        generation: &mut watch::Receiver<u64>,
        stop: &mut watch::Receiver<bool>,
    ) -> &'static str {
        let head = self.shared.begin_term(head);
        let outbox = TermOutbox { term, head, shared: self.shared.clone(), links: self.links.clone() };
        self.shared.term.send_replace(Some(Arc::new(outbox)));
        tokio::select! {
            ended = self.tend(term) => ended,
            ended = prune::run(&self.links.changes, &self.shared) => ended,
            _ = generation.changed() => "a connection to PostgreSQL was lost",
            () = stopped(stop) => {
                // Readers of the outbox end first.
                self.shared.end_term();
                let sql = "UPDATE countersign.relay SET term = NULL, expires_at = 0 WHERE id = 1 AND term = $1";
                if let Err(error) = self.link.query(sql, values![term]).await {
                    tracing::debug!(error = &error as &dyn std::error::Error, "the lease could not be given back");
                }
                "it stops"
            }
        }
    }

    /// Renews the lease, and looks how far the log reaches.
    async fn tend(&self, term: Uuid) -> &'static str {
        let mut renewed = Instant::now();
        loop {
            sleep(POLL).await;
            if renewed.elapsed() >= RENEW {
                // From before the request: the server counts from a later moment.
                renewed = Instant::now();
                match self.renew(term).await {
                    Ok(true) => {}
                    Ok(false) => return "another process took the lease",
                    Err(_lost) => return "the lease could not be renewed",
                }
            }
            match self.head().await {
                Ok(head) => self.shared.reached(head),
                Err(_lost) => return "the end of the log could not be read",
            }
        }
    }
}

/// Resolves when it is to stop.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The ledger is gone, or says so.
    drop(stop.wait_for(|stop| *stop).await);
}

fn rand_bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    bytes
}
