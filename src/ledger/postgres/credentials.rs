//! When credentials were used last.

use tokio_postgres::Row;

use super::{
    Error,
    link::{Link, Transaction},
    values::{Columns, values},
};
use crate::{ledger::CredentialUse, time::Timestamp};

/// Merges what is given with what is there, and forgets the credentials that are not given: they are configured no more. To
/// be called within a transaction.
pub(super) async fn keep(transaction: &Transaction, uses: &[CredentialUse]) -> Result<(), Error> {
    let endpoints: Vec<&str> = uses.iter().map(|used| used.endpoint.as_str()).collect();
    let tags: Vec<i32> = uses.iter().map(|used| used.tag.into()).collect();
    transaction
        .execute(
            "DELETE FROM countersign.credential_uses u WHERE NOT EXISTS (
                SELECT 1 FROM unnest($1, $2) AS given (endpoint, tag)
                WHERE given.endpoint = u.endpoint AND given.tag = u.tag
             )",
            values![endpoints, tags],
        )
        .await?;
    let known_since: Vec<i64> = uses.iter().map(|used| used.known_since.as_millisecond()).collect();
    let last_used_at = uses.iter().map(|used| used.last_used_at.map(Timestamp::as_millisecond));
    let last_used_at: Vec<Option<i64>> = last_used_at.collect();
    // Grouped, since two credentials may have the same tag and one statement writes a row once; in order, since another
    // replica may write the same rows.
    transaction
        .execute(
            "INSERT INTO countersign.credential_uses AS u (endpoint, tag, known_since, last_used_at)
             SELECT endpoint, tag, min(known_since), max(last_used_at)
             FROM unnest($1, $2, $3, $4) AS given (endpoint, tag, known_since, last_used_at)
             GROUP BY endpoint, tag ORDER BY endpoint, tag
             ON CONFLICT (endpoint, tag) DO UPDATE SET
                known_since = least(u.known_since, excluded.known_since),
                last_used_at = greatest(u.last_used_at, excluded.last_used_at)",
            values![endpoints, tags, known_since, last_used_at],
        )
        .await?;
    Ok(())
}

/// What is known of all credentials.
pub(super) async fn all(link: &Link) -> Result<Vec<CredentialUse>, Error> {
    let rows = link
        .query(
            "SELECT endpoint, tag, known_since, last_used_at FROM countersign.credential_uses
             ORDER BY endpoint COLLATE \"C\", tag",
            values![],
        )
        .await?;
    rows.iter().map(used).collect()
}

fn used(row: &Row) -> Result<CredentialUse, Error> {
    let tag = u16::try_from(row.try_get::<_, i32>("tag")?);
    Ok(CredentialUse {
        endpoint: row.try_get("endpoint")?,
        tag: tag.map_err(|error| Error::Unreadable("tag".to_owned(), Box::new(error)))?,
        known_since: row.time("known_since")?,
        last_used_at: row.time_if_any("last_used_at")?,
    })
}
