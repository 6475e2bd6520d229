//! The row of the relay, and its lock.

use super::{
    Error,
    link::Transaction,
    values::{Columns, values},
};
use crate::command::Seq;

/// Locks the relay's row until the transaction ends, so that settlements, acts, dead letters and pruning come one after the
/// other; returns the cursor.
pub(super) async fn lock(transaction: &Transaction) -> Result<Seq, Error> {
    let relay = transaction
        .query_opt("SELECT published_through FROM countersign.relay WHERE id = 1 FOR UPDATE", values![])
        .await?;
    relay.map_or(Ok(0), |row| row.seq("published_through"))
}
