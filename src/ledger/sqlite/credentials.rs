//! When credentials were last used.

use rusqlite::{Connection, Transaction, params};

use crate::{ledger::CredentialUse, time::Timestamp};

/// Merges the given uses with the stored ones. Removes credentials that are not given: they are no longer configured.
pub(super) fn keep(transaction: &Transaction<'_>, uses: &[CredentialUse]) -> rusqlite::Result<()> {
    let before = all(transaction)?;
    let is_given = |known: &CredentialUse| {
        uses.iter().any(|used| (&used.endpoint, used.tag) == (&known.endpoint, known.tag))
    };
    let mut forget =
        transaction.prepare_cached("DELETE FROM credential_uses WHERE endpoint = ?1 AND tag = ?2")?;
    for known in before.iter().filter(|known| !is_given(known)) {
        forget.execute(params![known.endpoint, known.tag])?;
    }
    let mut keep = transaction.prepare_cached(
        "INSERT INTO credential_uses (endpoint, tag, known_since, last_used_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (endpoint, tag) DO UPDATE SET
             known_since = min(known_since, excluded.known_since),
             last_used_at = max(coalesce(last_used_at, excluded.last_used_at), coalesce(excluded.last_used_at, last_used_at))",
    )?;
    for CredentialUse { endpoint, tag, known_since, last_used_at } in uses {
        let last_used_at = last_used_at.map(Timestamp::as_millisecond);
        keep.execute(params![endpoint, tag, known_since.as_millisecond(), last_used_at])?;
    }
    Ok(())
}

pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<CredentialUse>> {
    let mut all = connection.prepare_cached(
        "SELECT endpoint, tag, known_since, last_used_at FROM credential_uses ORDER BY endpoint, tag",
    )?;
    let uses = all.query_map([], |row| {
        Ok(CredentialUse {
            endpoint: row.get("endpoint")?,
            tag: row.get("tag")?,
            known_since: row.get("known_since")?,
            last_used_at: row.get("last_used_at")?,
        })
    })?;
    uses.collect()
}
