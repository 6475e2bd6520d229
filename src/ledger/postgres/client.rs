//! A ledger's database, for a command: beside the replicas, or while none runs.

use std::{sync::Arc, time::Duration};

use tokio::runtime::Handle;

use super::{
    Error, Links, Options, Replication, schema,
    server::Server,
    values::{Columns, values},
};
use crate::ledger::{
    Lookup,
    findings::{Findings, Keeps},
    lookup::Looks,
};

/// Reads, and does what an operator orders.
#[derive(Debug)]
pub struct PostgresClient {
    pub(super) links: Links,
}

/// The server, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Its version, such as `15.18`.
    pub version: String,
    /// How it keeps commits.
    pub replication: Replication,
    /// The isolation level of transactions that ask for none.
    pub isolation: String,
    /// The replica that publishes; `None` if none does.
    pub leader: Option<String>,
    /// How far its clock is ahead of this machine's, or behind it.
    pub clock_differs: Duration,
}

impl PostgresClient {
    /// Connects to a ledger. The connections live on the runtime that this is called on.
    ///
    /// # Errors
    /// When PostgreSQL is away, or has no tables of this program, or those of a newer one.
    pub async fn open(options: &Options) -> Result<Self, Error> {
        let server = Arc::new(Server::new(options.address.clone()));
        let links = Links::new(&server, Handle::current());
        schema::check(&links.reads).await?;
        Ok(Self { links })
    }

    /// Looks at the server.
    ///
    /// # Errors
    /// When it fails.
    pub async fn health(&self) -> Result<Health, Error> {
        let links = self.links.clone();
        let looked = self.links.run(async move {
            let replication = Replication::look(&links.reads).await?;
            let sql = "SELECT current_setting('server_version') AS version,
                    current_setting('default_transaction_isolation') AS isolation,
                    (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now";
            let row = links.reads.query_opt(sql, values![]).await?.ok_or(Error::NoVersion)?;
            let (server, here) = (row.time("now")?, crate::time::Timestamp::now());
            Ok(Health {
                version: row.try_get("version")?,
                replication,
                isolation: row.try_get("isolation")?,
                leader: super::lease::leader(&links.reads).await?,
                clock_differs: server.since(here).max(here.since(server)),
            })
        });
        looked.await
    }
}

impl Looks for PostgresClient {
    fn lookup(&self) -> &dyn Lookup {
        &self.links
    }
}

impl Keeps for PostgresClient {
    fn findings(&self) -> &dyn Findings {
        &self.links
    }
}
