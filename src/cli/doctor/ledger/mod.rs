//! The ledger: whether it is writable, sound and durable, what is waiting, and recent refusals.

mod postgres;
mod sqlite;

use std::time::Duration;

use super::Results;
use crate::{
    cli::{exit::Failure, output::counted},
    config::Loaded,
    intake::Refusal,
    ledger::{Client, KeptRefusal, Location, Sizing, Stats},
    telemetry::log::chain,
    time::Timestamp,
};

/// Fresh commands reach the broker within a second; older ones are waiting for something.
const OLD: Duration = Duration::from_secs(60);

/// People notice a decision that waits this long.
const TOO_OLD: Duration = Duration::from_secs(15 * 60);

const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) async fn look(results: &mut Results, loaded: &Loaded) -> Result<(), Failure> {
    let Ok(settings) = loaded.ledger() else {
        return results.skipped("ledger", "its configuration is wrong");
    };
    let (location, sizing) = (&settings.location, &settings.sizing);
    let opened = match location {
        Location::Sqlite(path) => sqlite::open(results, path, sizing)?,
        Location::Postgres(options) => postgres::open(results, options).await?,
    };
    let Some(ledger) = opened else { return Ok(()) };
    let ledger: &dyn Client = &*ledger;
    let stats = match ledger.stats().await {
        Ok(stats) => stats,
        Err(error) => {
            let words = format!("{location}: cannot be read: {}; {RESTORE}", chain(&error));
            return results.wrong("ledger", words);
        }
    };
    results.ok("ledger", format!("{location}: {} published, {} pending", stats.published, stats.pending))?;
    match location {
        Location::Sqlite(path) => sqlite::look(results, path, sizing, &stats)?,
        Location::Postgres(options) => postgres::look(results, options, &stats).await?,
    }
    waiting(results, &stats)?;
    refused(results, sizing, ledger).await
}

const RESTORE: &str = "stop serve, and restore the ledger from a backup (ledger restore), or save what can be read (ledger salvage)";

/// Reports what is pending or parked.
fn waiting(results: &mut Results, stats: &Stats) -> Result<(), Failure> {
    if let Some(age) = stats.oldest_pending_at.map(|at| Timestamp::now().since(at)).filter(|age| *age > OLD) {
        let words = format!(
            "{} pending, the oldest for {} s; is serve running, and the broker there? `countersign ledger list \
             --state pending` says why each waits",
            counted(stats.pending, "command"),
            age.as_secs()
        );
        if age > TOO_OLD { results.wrong("pending", words) } else { results.risky("pending", words) }?;
    }
    if stats.parked > 0 {
        let words = format!(
            "{} parked, and no worker gets them: `countersign ledger list --state parked` says why; fix that, \
             then `countersign ledger requeue --all-parked`",
            counted(stats.parked, "command")
        );
        results.wrong("parked commands", words)?;
    }
    if stats.rejected > 0 {
        let words = format!(
            "{} came back, and nothing says that its decision was carried out: `countersign ledger list --state \
             rejected` says which; fix the worker, then `countersign ledger requeue`",
            counted(stats.rejected, "command")
        );
        results.wrong("rejected commands", words)?;
    }
    if stats.unrouted > 0 {
        let words = format!(
            "{} reached no queue: bind one to the exchange, then `countersign ledger requeue --state unrouted`",
            counted(stats.unrouted, "command")
        );
        results.wrong("unrouted commands", words)?;
    }
    if stats.strays > 0 {
        let words = format!(
            "{} of other senders in the queue of dead letters: `countersign ledger strays` shows them",
            counted(stats.strays, "message")
        );
        results.risky("strays", words)?;
    }
    if stats.outcomes_parked > 0 {
        let words = format!(
            "{} outcomes were rejected by the approval center, and its cards or lists do not show them: `countersign \
             ledger show COMMAND` says why; fix that, then `countersign ledger show-again --all-parked`",
            stats.outcomes_parked
        );
        results.wrong("parked outcomes", words)?;
    }
    Ok(())
}

async fn refused(results: &mut Results, sizing: &Sizing, ledger: &dyn Client) -> Result<(), Failure> {
    let found = match ledger.refused_since(Timestamp::now() - DAY).await {
        Ok(found) => found,
        Err(error) => return results.skipped("refusals", format!("cannot be read: {}", chain(&error))),
    };
    if found.is_empty() {
        return match sizing.limits.refusals_kept {
            0 => results.skipped("refusals", "ledger.refusals_kept is 0: none is kept"),
            _ => results.ok("refusals", "none within 24 h"),
        };
    }
    for (count, KeptRefusal { refused, .. }) in found {
        let (reason, endpoint) = (refused.reason, refused.endpoint);
        let about: Vec<String> =
            [("user", refused.user_id), ("instance", refused.instance_id), ("task", refused.task_id)]
                .into_iter()
                .filter_map(|(name, value)| Some(format!("{name} {}", value?)))
                .collect();
        let about = if about.is_empty() { String::new() } else { format!(" ({})", about.join(", ")) };
        let words = format!(
            "{count} within 24 h, the newest at {} for {endpoint}{about}: {}",
            results.at(refused.refused_at),
            refused.detail.as_deref().unwrap_or("no more is known")
        );
        let advice = reason.parse().map_or("See the documentation of the reason.", Refusal::advice);
        results.risky(
            &format!("refusals, {reason}"),
            format!("{words}. {advice} See `countersign refusals --reason {reason}`"),
        )?;
    }
    Ok(())
}
