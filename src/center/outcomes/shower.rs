//! Reads due showings from the ledger, makes the calls, and records the results.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::{
    Resources, Settings,
    retry::{Retry, judge, some_delay},
    showing::{Problem, show},
};
use crate::{
    center::client::{Center, Millis},
    ledger::{Showing, ShowingEnd, Shown, Surface},
    stop::requested,
    telemetry::{
        failpoint::reach,
        log::chain,
        metrics::ShowingResult,
        traces::{self, Kind, Span},
    },
    time::Timestamp,
};

/// How often the ledger is polled without a notification: for retries, and for requests of an operator.
const TICK: Duration = Duration::from_secs(1);

const LEDGER_PAUSE: Duration = Duration::from_millis(500);

/// Time for pending calls after a stop request. Calls take milliseconds; a longer one most likely waits for an
/// unreachable center. It is repeated after the next start.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// Maximum characters of a reason in the ledger.
const REASON_CHARS: usize = 1000;

/// A card or an instance with a pending call.
type Place = (Surface, String);

struct Done {
    place: Place,
    /// The reason, if it is unrelated to the outcome: everything that waits would fail with it.
    elsewhere: Option<String>,
}

pub(super) async fn run(resources: &Resources, settings: &Settings, center: &Center) {
    let mut stop = resources.stop.clone();
    let mut busy: HashSet<Place> = HashSet::new();
    let mut calls = FuturesUnordered::new();
    // Outages are logged once, and again when they end. They are tracked per surface, whose APIs need different scopes.
    let mut away: HashSet<Surface> = HashSet::new();
    loop {
        if busy.len() < settings.max_calls && stop.borrow().is_none() {
            // The result may include each busy place once.
            let limit = 2 * settings.max_calls;
            match resources.ledger.showings(Timestamp::now(), limit).await {
                Ok(due) => {
                    for showing in due {
                        let place = (showing.surface, showing.target.clone());
                        if busy.len() < settings.max_calls && busy.insert(place.clone()) {
                            calls.push(attempt(resources, settings, center, showing, place));
                        }
                    }
                }
                Err(error) => {
                    warn!(error = %chain(&error), "cannot read outcomes from the ledger; retrying")
                }
            }
        }
        tokio::select! {
            biased;
            () = requested(&mut stop) => break,
            Some(Done { place, elsewhere }) = calls.next() => {
                busy.remove(&place);
                let surface = place.0;
                match elsewhere {
                    Some(reason) => {
                        if away.insert(surface) {
                            let surface = surface.as_str();
                            warn!(surface, reason, "approval center is unreachable or denies access; outcomes wait");
                        }
                    }
                    None => {
                        if away.remove(&surface) {
                            info!(surface = surface.as_str(), "approval center accepts outcomes again");
                        }
                    }
                }
            }
            () = resources.bell.notified() => {}
            () = sleep(TICK) => {}
        }
    }
    let left = async { while calls.next().await.is_some() {} };
    if timeout(STOP_PATIENCE, left).await.is_err() {
        warn!(
            calls = calls.len(),
            "calls to the approval center aborted; they are repeated after the next start"
        );
    }
}

/// Makes the call and records its result, retrying until the ledger has it.
async fn attempt(
    resources: &Resources,
    settings: &Settings,
    center: &Center,
    showing: Showing,
    place: Place,
) -> Done {
    let began = Instant::now();
    reach("outcome:showing");
    let ended = show(center, &showing, Millis(Timestamp::now().as_millisecond())).await;
    reach("outcome:shown");
    let (end, result, elsewhere) = match ended {
        Ok(version) => (ShowingEnd::Shown { version }, ShowingResult::Shown, None),
        Err(problem) => judged(&problem, &showing, settings.max_attempts),
    };
    tell(&showing, &end);
    let took = began.elapsed();
    let Showing { id, command_id, ref target, .. } = showing;
    let shown = Shown { id, command_id, target: target.clone(), end };
    let mut stop = resources.stop.clone();
    loop {
        match resources.ledger.settle_showings(vec![shown.clone()]).await {
            Ok(()) => break,
            Err(error) => {
                warn!(error = %chain(&error), "cannot record shown outcomes in the ledger; retrying");
            }
        }
        tokio::select! {
            () = sleep(LEDGER_PAUSE) => {}
            // It is shown again after the next start, which changes nothing.
            () = requested(&mut stop) => break,
        }
    }
    resources.metrics.outcomes.shown(place.0 == Surface::Card, result);
    traces::within_patience(trace(resources, &showing, result, took)).await;
    Done { place, elsewhere }
}

fn judged(
    problem: &Problem,
    showing: &Showing,
    max_attempts: u32,
) -> (ShowingEnd, ShowingResult, Option<String>) {
    let attempts = showing.attempts.saturating_add(1);
    let reason = reason(problem);
    let retry = judge(&problem.error);
    let again = match retry {
        Retry::Always => true,
        Retry::Limited => attempts < max_attempts,
        Retry::Never => false,
    };
    if !again {
        return (ShowingEnd::Parked { reason }, ShowingResult::Parked, None);
    }
    let now = Timestamp::now();
    let at = now + some_delay(attempts);
    let elsewhere = (retry == Retry::Always).then(|| reason.clone());
    (ShowingEnd::Again { at, reason }, ShowingResult::Retried, elsewhere)
}

/// The center's message, a fix, and other faults.
fn reason(problem: &Problem) -> String {
    let mut reason = chain(&problem.error);
    if let Some(advice) = problem.error.fault().and_then(|fault| fault.advice()) {
        reason = format!("{reason}. {advice}");
    }
    if !problem.faults.is_empty() {
        reason = format!("{reason}. The instance: {}", problem.faults.join("; "));
    }
    reason.chars().take(REASON_CHARS).collect()
}

/// Makes the span of one attempt, below the callback of its command.
async fn trace(resources: &Resources, showing: &Showing, result: ShowingResult, took: Duration) {
    if !traces::is_on() {
        return;
    }
    let (command_id, surface) = (showing.command_id, showing.surface.as_str());
    let Ok(Some(record)) = resources.ledger.find(command_id).await else { return };
    let Some(span) = Span::below(record.trace(), Kind::Client, format!("show {surface}")) else { return };
    let word: &'static str = result.into();
    let span = span
        .for_the_last(took)
        .with("countersign.command_id", command_id.to_string())
        .with("countersign.surface", surface)
        .with("countersign.reported", showing.kind.as_str())
        .with("countersign.outcome", word);
    if matches!(result, ShowingResult::Shown) { span } else { span.failed(word) }.end();
}

fn tell(showing: &Showing, end: &ShowingEnd) {
    let (command_id, surface, id) = (showing.command_id, showing.surface.as_str(), &*showing.target);
    match end {
        ShowingEnd::Shown { version } => {
            info!(%command_id, surface, id, outcome = showing.kind.as_str(), version, "outcome shown");
        }
        ShowingEnd::Again { at, reason } => {
            let attempts = showing.attempts + 1;
            tracing::debug!(%command_id, surface, id, attempts, %at, reason, "outcome not shown; retrying later");
        }
        ShowingEnd::Parked { reason } => {
            error!(%command_id, surface, id, reason, "outcome rejected by the approval center; fix the cause, then run `countersign ledger show-again`");
        }
    }
}
