//! The tables, and which programs may use them.
//!
//! Migrations only add. A program starts if every program that wrote the tables leaves them usable for it, so that replicas of
//! two versions run side by side, and a newer one can be taken back.

use super::{Error, link::Link, values::values};

/// One script for each version, applied in order; version 1 is the first.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/1.sql")];

/// The version that this program knows.
const KNOWN: i32 = MIGRATIONS.len() as i32;

/// The oldest program, by the version that it knows, that may still write once this one has migrated.
const OLDEST_WRITER: i32 = 1;

/// Held while the tables are made or changed, so that replicas that start together do it once. Any number, always the same.
const LOCK: i64 = 0x636f_756e_7465_7201;

/// Checks that the tables are there and may be used, and changes nothing.
///
/// # Errors
/// As [`known`], and [`Error::HalfCopied`].
pub(super) async fn check(link: &Link) -> Result<(), Error> {
    known(link).await?;
    whole(link).await
}

/// Makes the tables, or brings them to the version that this program knows, and checks that they may be used.
///
/// # Errors
/// As [`migrate`], and [`Error::HalfCopied`].
pub(super) async fn ready(link: &Link) -> Result<(), Error> {
    migrate(link).await?;
    whole(link).await
}

/// Refuses what is only a part of another ledger.
async fn whole(link: &Link) -> Result<(), Error> {
    let sql = "SELECT source FROM countersign.copied WHERE finished_at IS NULL";
    match link.query_opt(sql, values![]).await? {
        None => Ok(()),
        Some(row) => Err(Error::HalfCopied { source_ledger: row.try_get("source")? }),
    }
}

/// Checks that the tables are there and of a version that this program knows.
///
/// # Errors
/// [`Error::NoTables`], and [`Error::TooNew`] if a newer program has changed them so that this one may not write.
pub(super) async fn known(link: &Link) -> Result<(), Error> {
    let sql = "SELECT 1 WHERE to_regclass('countersign.schema') IS NOT NULL";
    link.query_opt(sql, values![]).await?.ok_or(Error::NoTables)?;
    let sql = "SELECT version, oldest_writer FROM countersign.schema";
    let row = link.query_opt(sql, values![]).await?.ok_or(Error::NoVersion)?;
    let (found, oldest_writer): (i32, i32) = (row.try_get("version")?, row.try_get("oldest_writer")?);
    if oldest_writer > KNOWN { Err(Error::TooNew { found, known: KNOWN }) } else { Ok(()) }
}

/// Makes the tables, or brings them to the version that this program knows.
///
/// # Errors
/// [`Error::TooNew`] if a newer program has changed them so that this one may not write.
pub(super) async fn migrate(link: &Link) -> Result<(), Error> {
    let transaction = link.begin().await?;
    transaction.query("SELECT pg_advisory_xact_lock($1)", values![LOCK]).await?;
    let exists = transaction
        .query_opt("SELECT 1 WHERE to_regclass('countersign.schema') IS NOT NULL", values![])
        .await?
        .is_some();
    let (version, oldest_writer) = if exists {
        let row =
            transaction.query_opt("SELECT version, oldest_writer FROM countersign.schema", values![]).await?;
        let row = row.ok_or(Error::NoVersion)?;
        (row.try_get("version")?, row.try_get("oldest_writer")?)
    } else {
        (0, 0)
    };
    if oldest_writer > KNOWN {
        return Err(Error::TooNew { found: version, known: KNOWN });
    }
    if version >= KNOWN {
        return transaction.roll_back().await;
    }
    if !exists {
        transaction.execute_batch("CREATE SCHEMA IF NOT EXISTS countersign").await?;
        transaction
            .execute_batch(
                "CREATE TABLE countersign.schema (version integer NOT NULL, oldest_writer integer NOT NULL);
                 INSERT INTO countersign.schema VALUES (0, 0)",
            )
            .await?;
    }
    for script in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(0)) {
        transaction.execute_batch(script).await?;
    }
    transaction
        .execute(
            "UPDATE countersign.schema SET version = $1, oldest_writer = greatest(oldest_writer, $2)",
            values![KNOWN, OLDEST_WRITER],
        )
        .await?;
    transaction.commit().await?;
    tracing::info!(version = KNOWN, "the ledger's tables are ready");
    Ok(())
}
