//! Who is the leader: a row with a term and the time at which it expires, by PostgreSQL's clock.
//!
//! A lock of the session would be lost behind PgBouncer in transaction mode. A term is a random number: an asynchronous
//! failover can turn a counter back to one that was used already.
//!
//! A term belongs to one server: every statement of it names both. After a failover the log may end elsewhere, and the next
//! term begins with what the ledger holds then. Every connection that is lost ends the term as well, whichever it was.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    Error, Links,
    link::{Link, Values},
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
/// One that has resigned has given the lease back, and leaves it to others for so many looks of each. If none of them took it,
/// none is there, and it leads again: not to lead for longer helps nobody.
const ABSTINENCE: u32 = 4;

const RESIGNED: &str = "it does not reach the broker";

/// The milliseconds since 1970, by PostgreSQL's clock.
pub(super) const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

pub(super) struct Lease {
    pub(super) server: Arc<Server>,
    pub(super) link: Link,
    pub(super) links: Links,
    pub(super) shared: Arc<Shared>,
    /// Names this process, and no other.
    pub(super) holder: String,
}

impl Lease {
    /// Leads whenever nobody else does, until `stop` is set; then the lease is given back.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow_and_update() {
            let term = Uuid::from_bytes(rand_bytes());
            let mut generation = self.server.generation();
            let begun = *generation.borrow_and_update();
            match self.take(term, begun).await {
                Ok(Some(taken)) => {
                    self.shared.saw_leader(Some(named(&self.holder)));
                    tracing::info!(%term, holder = self.holder, "this process is the leader");
                    let ended = self.hold(term, taken, &mut generation, &mut stop).await;
                    self.shared.end_term();
                    self.shared.saw_leader(None);
                    tracing::info!(%term, cause = ended, "this process is the leader no longer");
                    if ended == RESIGNED {
                        self.abstain(&mut stop).await;
                    }
                }
                Ok(None) => self.shared.saw_leader(leader(&self.link).await.unwrap_or_default()),
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "the lease cannot be looked at"
                    );
                }
            }
            pause(&mut stop).await;
        }
    }

    /// Leaves the lease to others until one has it or none wants it.
    async fn abstain(&self, stop: &mut watch::Receiver<bool>) {
        for _ in 1..ABSTINENCE {
            pause(stop).await;
            let leader = leader(&self.link).await.unwrap_or_default();
            let is_taken = leader.is_some();
            self.shared.saw_leader(leader);
            if is_taken || *stop.borrow() {
                return;
            }
        }
    }

    /// Takes the lease if it is free, or this process had it before and lost a connection. Waits for the standby: all that the leader can read is there then as well, and no
    /// failover takes it back.
    async fn take(&self, term: Uuid, generation: u64) -> Result<Option<Taken>, Error> {
        let free = format!(
            "SELECT 1 FROM countersign.relay WHERE id = 1 AND (term IS NULL OR expires_at <= {NOW} OR holder = $1)"
        );
        if self.link.query_opt(&free, values![self.holder.as_str()]).await?.is_none() {
            return Ok(None);
        }
        let transaction = self.link.begin().await?;
        let taken = transaction
            .query_opt(
                &format!(
                    "UPDATE countersign.relay SET term = $1, server = countersign.server_v1(), holder = $2,
                        expires_at = {NOW} + $3
                     WHERE id = 1 AND (term IS NULL OR expires_at <= {NOW} OR holder = $2) RETURNING server"
                ),
                values![term, self.holder.as_str(), TTL_MS],
            )
            .await?;
        let Some(row) = taken else {
            transaction.roll_back().await?;
            return Ok(None);
        };
        let end = transaction.query_opt("SELECT head FROM countersign.log", values![]).await?;
        let taken = Taken {
            generation,
            server: row.try_get("server")?,
            head: end.ok_or(Error::NoVersion)?.seq("head")?,
        };
        transaction.commit().await?;
        Ok(Some(taken))
    }

    /// The end of the log.
    async fn head(&self, term: Uuid) -> Result<Seq, Error> {
        let sql = "SELECT l.head FROM countersign.log l, countersign.relay r
            WHERE r.term = $1 AND r.server = countersign.server_v1()";
        self.link.query_opt(sql, values![term]).await?.ok_or(Error::Deposed)?.seq("head")
    }

    async fn renew(&self, term: Uuid) -> Result<(), Error> {
        let sql = format!(
            "UPDATE countersign.relay SET expires_at = {NOW} + $2
             WHERE id = 1 AND term = $1 AND server = countersign.server_v1() RETURNING 1"
        );
        self.change(&sql, values![term, TTL_MS]).await?.ok_or(Error::Deposed).map(drop)
    }

    /// Changes the lease without waiting for the disk or a standby: a failover ends the term, whatever the lease says.
    async fn change(&self, sql: &str, values: &Values<'_>) -> Result<Option<Row>, Error> {
        let transaction = self.link.begin().await?;
        transaction.execute_batch("SET LOCAL synchronous_commit = off").await?;
        let changed = transaction.query_opt(sql, values).await?;
        transaction.commit().await?;
        Ok(changed)
    }

    /// Leads; returns why no longer.
    async fn hold(
        &self,
        term: Uuid,
        taken: Taken,
        generation: &mut watch::Receiver<u64>,
        stop: &mut watch::Receiver<bool>,
    ) -> &'static str {
        let head = self.shared.begin_term(taken.head, taken.server);
        let outbox = TermOutbox {
            term,
            generation: taken.generation,
            head,
            shared: self.shared.clone(),
            links: self.links.clone(),
        };
        // Before anybody can see the term, and resign.
        let resigned = self.shared.resigned.notified();
        self.shared.term.send_replace(Some(Arc::new(outbox)));
        tokio::select! {
            ended = self.tend(term) => ended,
            ended = prune::run(&self.links.changes, &self.shared) => ended,
            _ = generation.changed() => "a connection to PostgreSQL was lost",
            () = stopped(stop) => {
                self.give_back(term).await;
                "it stops"
            }
            () = resigned => {
                self.give_back(term).await;
                RESIGNED
            }
        }
    }

    async fn give_back(&self, term: Uuid) {
        // Readers of the outbox end first.
        self.shared.end_term();
        let sql = "UPDATE countersign.relay SET term = NULL, expires_at = 0 WHERE id = 1 AND term = $1";
        if let Err(error) = self.change(sql, values![term]).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "the lease could not be given back");
        }
    }

    /// Renews the lease, and looks how far the log reaches.
    async fn tend(&self, term: Uuid) -> &'static str {
        let mut renewed = Instant::now();
        loop {
            sleep(POLL).await;
            let due = renewed.elapsed() >= RENEW;
            if due {
                // From before the request: the server counts from a later moment.
                renewed = Instant::now();
            }
            let looked = async {
                if due {
                    self.renew(term).await?;
                }
                self.head(term).await
            };
            match looked.await {
                Ok(head) => self.shared.reached(head),
                Err(Error::Deposed) => return "another process took the lease, or another server took over",
                Err(_lost) => return "the lease could not be renewed",
            }
        }
    }
}

/// Which process leads now.
pub(super) async fn leader(link: &Link) -> Result<Option<String>, Error> {
    let sql = format!(
        "SELECT holder FROM countersign.relay WHERE id = 1 AND term IS NOT NULL AND expires_at > {NOW}"
    );
    let row = link.query_opt(&sql, values![]).await?;
    row.map(|row| Ok(named(row.try_get("holder")?))).transpose()
}

/// A holder without what makes it unique.
pub(super) fn named(holder: &str) -> String {
    holder.rsplit_once(' ').map_or(holder, |(name, _unique)| name).to_owned()
}

/// What holds when a term begins.
struct Taken {
    /// The generation of connections.
    generation: u64,
    /// The server that the term belongs to.
    server: i64,
    /// The end of the log.
    head: Seq,
}

/// Until the lease is looked at again.
async fn pause(stop: &mut watch::Receiver<bool>) {
    tokio::select! {
        () = sleep(CANDIDACY) => {}
        () = stopped(stop) => {}
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
