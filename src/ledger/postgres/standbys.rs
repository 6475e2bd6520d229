//! Whether commits reach a standby: looked at now and then, and logged when it changes.

use std::time::Duration;

use tokio::{sync::watch, time::sleep};

use super::{
    Error,
    durability::{Demands, Durability},
    lease::stopped,
    link::Link,
    values::{Columns, values},
};

/// A standby that falls off is known after so long.
const INTERVAL: Duration = Duration::from_secs(10);

/// How the server keeps commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replication {
    /// `fsync` is on: a commit survives a crash of the machine.
    pub syncs: bool,
    /// `synchronous_standby_names` is not empty: a commit waits for a standby.
    pub waits: bool,
    /// Synchronous standbys that are connected; `None` if the user may not see (it lacks `pg_read_all_stats`).
    pub synchronous: Option<u64>,
    /// Other standbys that are connected; `None` likewise.
    pub asynchronous: Option<u64>,
}

impl Replication {
    pub(super) async fn look(link: &Link) -> Result<Self, Error> {
        let sql = "SELECT current_setting('fsync') = 'on' AS syncs,
                current_setting('synchronous_standby_names') <> '' AS waits,
                count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')) AS synchronous,
                count(*) FILTER (WHERE sync_state IN ('async', 'potential')) AS asynchronous,
                count(*) FILTER (WHERE sync_state IS NULL) AS hidden
            FROM pg_catalog.pg_stat_replication";
        let row = link.query_opt(sql, values![]).await?.ok_or(Error::NoVersion)?;
        let is_seen = row.seq("hidden")? == 0;
        let count = |column| -> Result<Option<u64>, Error> {
            Ok(if is_seen { Some(row.seq(column)?) } else { None })
        };
        Ok(Self {
            syncs: row.try_get("syncs")?,
            waits: row.try_get("waits")?,
            synchronous: count("synchronous")?,
            asynchronous: count("asynchronous")?,
        })
    }

    /// Why callbacks are refused; `None` if they are not.
    #[must_use]
    pub fn refuses(&self, demands: Demands) -> Option<&'static str> {
        if !self.syncs && !demands.trust_storage {
            Some("fsync is off: a crash of PostgreSQL's machine loses decisions; callbacks are refused")
        } else if !self.waits && demands.durability == Durability::Standby {
            Some(
                "ledger.durability is standby, and synchronous_standby_names is empty: callbacks are refused",
            )
        } else if self.waits && self.synchronous == Some(0) {
            Some(
                "no synchronous standby is connected: commits wait for one, and callbacks are refused until then",
            )
        } else {
            None
        }
    }

    /// What an operator should know; `None` if all is as it should be.
    #[must_use]
    pub fn risk(&self, demands: Demands) -> Option<&'static str> {
        if let Some(refuses) = self.refuses(demands) {
            Some(refuses)
        } else if !self.waits {
            Some(
                "synchronous_standby_names is empty: a decision is on one server when it is answered, and a failover can lose \
                 the newest; ledger.durability = \"standby\" would refuse that",
            )
        } else if !self.syncs {
            Some("fsync is off, and ledger.trust_storage accepts it")
        } else {
            None
        }
    }
}

/// Looks until it is to stop.
pub(super) async fn run(link: Link, demands: Demands, mut stop: watch::Receiver<bool>) {
    let mut known = None;
    loop {
        // A server that is away is logged where it is missed.
        if let Ok(found) = Replication::look(&link).await {
            match (found.risk(demands), known) {
                (risk, Some(before)) if risk == before => {}
                (Some(risk), _) => tracing::warn!("PostgreSQL: {risk}"),
                (None, Some(_)) => tracing::info!("PostgreSQL: commits are kept as configured again"),
                (None, None) => {}
            }
            known = Some(found.risk(demands));
        }
        tokio::select! {
            () = sleep(INTERVAL) => {}
            () = stopped(&mut stop) => return,
        }
    }
}
