//! A PostgreSQL database: whether it takes writes, and where commits are.

use std::time::Duration;

use crate::{
    cli::{doctor::Results, exit::Failure},
    ledger::{
        Client, Stats,
        postgres::{Error, Options, PostgresClient},
    },
    telemetry::log::chain,
};

/// Clocks that are kept by NTP differ by less.
const CLOCKS: Duration = Duration::from_secs(2);

/// Opens the ledger, or says why not.
pub(super) async fn open(
    results: &mut Results,
    options: &Options,
) -> Result<Option<Box<dyn Client>>, Failure> {
    let address = &options.address;
    match PostgresClient::open(options).await {
        Ok(ledger) => return Ok(Some(Box::new(ledger))),
        Err(error @ Error::NoTables) => results.ok("ledger", format!("{address}: {error}"))?,
        Err(error) => results.wrong(
            "ledger",
            format!(
                "{address}: {}; while it is away every callback is refused as ledger_unavailable",
                chain(&error)
            ),
        )?,
    }
    Ok(None)
}

/// Looks at the server of a ledger that can be read.
pub(super) async fn look(results: &mut Results, options: &Options, stats: &Stats) -> Result<(), Failure> {
    let health = async { PostgresClient::open(options).await?.health().await };
    let health = match health.await {
        Ok(health) => health,
        Err(error) => return results.skipped("postgresql", chain(&error)),
    };
    let version = &health.version;
    if health.isolation == "read committed" {
        results.ok("postgresql", format!("version {version}"))?;
    } else {
        results.wrong(
            "postgresql",
            format!(
                "version {version}; default_transaction_isolation is {:?} for this user, and callbacks are refused: ALTER ROLE … SET \
                 default_transaction_isolation = 'read committed'",
                health.isolation
            ),
        )?;
    }
    let (replication, demands) = (&health.replication, options.demands);
    match (replication.refuses(demands), replication.risk(demands)) {
        (Some(words), _) => results.wrong("durability", words)?,
        (None, Some(words)) => results.risky("durability", words)?,
        (None, None) => results.ok(
            "durability",
            match replication.synchronous {
                Some(count) => format!("commits wait for a standby; {count} in sync"),
                None => "commits wait for a standby; GRANT pg_read_all_stats to this user shows how many there are".to_owned(),
            },
        )?,
    }
    match &stats.leader {
        Some(leader) => results.ok("leader", format!("{leader} publishes"))?,
        None => results.risky("leader", "no replica publishes; is serve running?")?,
    }
    if health.clock_differs > CLOCKS {
        let seconds = health.clock_differs.as_secs();
        results.risky(
            "clocks",
            format!(
                "this machine and PostgreSQL's differ by {seconds} s; use NTP: times in lists are of both"
            ),
        )?;
    }
    Ok(())
}
