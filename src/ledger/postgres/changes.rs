//! Notices what other processes change, for those who watch.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};

use super::{Error, lease::stopped, link::Link, values::values};
use crate::ledger::memory::Memory;

/// What another process has changed is noticed so much later.
const PAUSE: Duration = Duration::from_millis(500);

/// Numbers of which one grows with each change, from the ends of indexes and single rows. A report changes a row in place
/// that nothing orders: PostgreSQL's own count of such rows tells of it some seconds later.
const NUMBERS: &str = "SELECT ARRAY[
        (SELECT head FROM countersign.log),
        (SELECT published_through FROM countersign.relay),
        (SELECT max(id) FROM countersign.acts),
        (SELECT max(id) FROM countersign.refusals),
        (SELECT max(id) FROM countersign.dead_letters),
        (SELECT max(id) FROM countersign.showings),
        (SELECT sum(pg_stat_get_tuples_inserted(o) + pg_stat_get_tuples_updated(o) + pg_stat_get_tuples_deleted(o))::bigint
         FROM unnest(ARRAY['countersign.outcomes'::regclass, 'countersign.exceptions', 'countersign.showings']) o)
    ] AS numbers";

type Numbers = Vec<Option<i64>>;

/// Looks while somebody watches, until it is to stop.
pub(super) async fn run(link: Link, memory: Arc<Memory>, mut stop: watch::Receiver<bool>) {
    let mut known: Option<Numbers> = None;
    loop {
        if !memory.changes.is_watched() {
            known = None;
        }
        tokio::select! {
            () = memory.changes.watched() => {}
            () = stopped(&mut stop) => return,
        }
        match look(&link).await {
            Ok(found) => {
                // The first look counts: what came between it and the beginning of the watch would be missed.
                if known.as_ref() != Some(&found) {
                    memory.changes.add();
                }
                known = Some(found);
            }
            Err(error) => tracing::debug!(%error, "cannot look for changes"),
        }
        tokio::select! {
            () = sleep(PAUSE) => {}
            () = stopped(&mut stop) => return,
        }
    }
}

async fn look(link: &Link) -> Result<Numbers, Error> {
    Ok(link.query_opt(NUMBERS, values![]).await?.ok_or(Error::NoVersion)?.try_get("numbers")?)
}
