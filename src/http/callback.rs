//! One request: bytes in, [`Intake`] decides, answer out.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use actix_web::{HttpRequest, HttpResponse, web};
use prometheus_client::metrics::counter::Counter;
use tracing::Level;

use super::{
    Settings,
    answer::{self, Rule},
    body::{self, Unread},
};
use crate::{
    intake::{Intake, Refusal, Verdict},
    telemetry::{
        failpoint::reach,
        metrics::{Metrics, UNKNOWN_ENDPOINT},
    },
};

/// What the requests of this listener share.
pub(super) struct Desk {
    intake: Arc<Intake>,
    max_body_bytes: usize,
    body_read_timeout: Duration,
    unauthenticated_floor: Duration,
    draining: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    counters: HashMap<Box<str>, Counters>,
}

/// The counters of one endpoint, one per outcome.
struct Counters {
    accepted: Counter,
    duplicate: Counter,
    /// By [`Refusal`], in the order of [`Refusal::ALL`].
    refused: [Counter; Refusal::ALL.len()],
}

impl Desk {
    pub(super) fn new(
        settings: &Settings,
        intake: Arc<Intake>,
        endpoints: &[String],
        metrics: Arc<Metrics>,
        draining: Arc<AtomicBool>,
    ) -> Self {
        // Every series exists from the start, at zero: an alert on a rate sees the first refusal too.
        let counters = endpoints
            .iter()
            .map(String::as_str)
            .chain([UNKNOWN_ENDPOINT])
            .map(|endpoint| {
                let counter = |outcome| metrics.callback_counter(endpoint, outcome);
                let counters = Counters {
                    accepted: counter("accepted"),
                    duplicate: counter("duplicate"),
                    refused: Refusal::ALL.map(|refusal| counter(refusal.as_str())),
                };
                (Box::from(endpoint), counters)
            })
            .collect();
        Self {
            intake,
            max_body_bytes: settings.max_body_bytes,
            body_read_timeout: settings.body_read_timeout,
            unauthenticated_floor: settings.unauthenticated_floor,
            draining,
            metrics,
            counters,
        }
    }

    /// Counts and logs one callback: exactly once each, before its answer leaves.
    fn account(&self, verdict: &Verdict, took: Duration, peer: Option<IpAddr>) {
        self.metrics.callback_took(took);
        let counters = self.counters.get(&*verdict.endpoint).or_else(|| self.counters.get(UNKNOWN_ENDPOINT));
        if let Some(counters) = counters {
            match &verdict.outcome {
                Ok(kept) if kept.duplicate => counters.duplicate.inc(),
                Ok(_) => counters.accepted.inc(),
                Err(refusal) => counters.refused[*refusal as usize].inc(),
            };
        }

        let endpoint = &*verdict.endpoint;
        let duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let peer = peer.map(tracing::field::display);
        let detail = verdict.detail.as_deref();
        match &verdict.outcome {
            Ok(kept) => {
                let (outcome, command_id) = (answer::kept_word(kept), kept.command_id);
                tracing::info!(endpoint, outcome, %command_id, duration_us, peer, detail, "callback kept");
            }
            Err(refusal) => {
                let outcome = refusal.as_str();
                // The level of an event is fixed where it stands.
                match Rule::of(*refusal).level {
                    Level::ERROR => {
                        tracing::error!(endpoint, outcome, duration_us, peer, detail, "callback refused");
                    }
                    Level::WARN => {
                        tracing::warn!(endpoint, outcome, duration_us, peer, detail, "callback refused");
                    }
                    _ => tracing::info!(endpoint, outcome, duration_us, peer, detail, "callback refused"),
                }
            }
        }
    }
}

/// `POST /callbacks/{endpoint}`.
pub(super) async fn receive(
    request: HttpRequest,
    mut payload: web::Payload,
    desk: web::Data<Desk>,
) -> HttpResponse {
    let began = Instant::now();
    let peer = request.peer_addr().map(|address| address.ip());
    let endpoint = request.match_info().get("endpoint").unwrap_or_default();

    if desk.draining.load(Ordering::Relaxed) {
        let verdict = desk.intake.turn_away(endpoint, Refusal::ShuttingDown, 0, peer);
        return desk.turn_away(verdict, None, began, peer, payload);
    }
    let body = body::read(&request, &mut payload, desk.max_body_bytes, desk.body_read_timeout).await;
    let body = match body {
        Ok(body) => body,
        Err(Unread { refusal, bytes, detail }) => {
            let verdict = desk.intake.turn_away(endpoint, refusal, bytes, peer);
            return desk.turn_away(verdict, Some(detail), began, peer, payload);
        }
    };

    let complete = tokio::time::Instant::now();
    reach("callback:received");
    let verdict = desk.intake.receive(endpoint, &body, peer).await;
    // Before the floor: what is waited there is not work, and a sender who hangs up meanwhile is counted all the same.
    desk.account(&verdict, began.elapsed(), peer);
    if verdict.outcome == Err(Refusal::Unauthenticated) {
        // Counted from the end of the body, which the sender knows. What was done with it takes well under the floor,
        // so the moment of the answer does not tell how far the callback got.
        tokio::time::sleep_until(complete + desk.unauthenticated_floor).await;
    }
    reach("callback:answered");
    answer::response(&verdict)
}

impl Desk {
    /// Answers a callback whose body was not read.
    fn turn_away(
        &self,
        mut verdict: Verdict,
        detail: Option<&str>,
        began: Instant,
        peer: Option<IpAddr>,
        payload: web::Payload,
    ) -> HttpResponse {
        if verdict.detail.is_none() {
            verdict.detail = detail.map(str::to_owned);
        }
        self.account(&verdict, began.elapsed(), peer);
        match verdict.outcome {
            Err(refusal) => body::close_after(
                answer::json(Rule::of(refusal).status),
                answer::refusal_body(refusal, verdict.locale),
                payload,
            ),
            Ok(_) => answer::response(&verdict),
        }
    }
}
