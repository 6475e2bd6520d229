//! Handles one request: reads it, lets [`Intake`](crate::intake::Intake) decide, answers.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{ALLOW, CONTENT_ENCODING, HeaderValue, RETRY_AFTER},
    },
    web,
};
use tracing::Level;

use super::{
    answer::{self, Rule},
    body::{self, Unread},
    connection,
    gate::{Gate, Live},
    limits::Limited,
    peers::Mode,
    spans,
    target::{self, Target},
    telling::{Reporting, Subject},
};
use crate::{
    intake::{About, Disposition, Kept, NO_CALLBACK, PROBE_WORD, Received, Refusal, Response, Unheard},
    telemetry::{
        failpoint::reach,
        metrics::{LimitCause, Metrics},
        traces::TraceContext,
    },
    time::Timestamp,
};

/// Handles a callback to an endpoint, or to any other path: `asked_for` is as in [`Received`].
pub(super) async fn receive(
    request: &HttpRequest,
    asked_for: &str,
    payload: web::Payload,
    gate: &Gate,
) -> HttpResponse {
    if connection::is_over(request) {
        return connection::unheard(payload);
    }
    let live = gate.live();
    let tcp = request.peer_addr().map(|address| address.ip());
    let callback = Callback {
        began: Instant::now(),
        peer: tcp.map(|tcp| live.peers.peer(tcp, request.headers())),
        endpoint: asked_for,
        trace: spans::incoming(request.headers()),
        scheme: if request.app_config().secure() { "https" } else { "http" },
        live: &live,
        gate,
    };
    let response = callback.receive(request, payload).await;
    connection::note(request, &response);
    response
}

/// Answers a request with a method other than POST, which is never a callback. All are counted, but only one per peer
/// and minute is logged and kept: a health check every few seconds stays visible without filling anything.
pub(super) fn turn_off(
    request: &HttpRequest,
    target: Target<'_>,
    payload: web::Payload,
    gate: &Gate,
) -> HttpResponse {
    let live = gate.live();
    let peer = request.peer_addr().map(|address| live.peers.peer(address.ip(), request.headers()));
    let kind = target::misdirected(request);
    let [not_found, method_not_allowed] = NO_CALLBACK;
    let (status, word, body) = match target {
        Target::Endpoint(_) => (
            StatusCode::METHOD_NOT_ALLOWED,
            method_not_allowed,
            &br#"{"code":40500,"msg":"method_not_allowed"}"#[..],
        ),
        Target::Elsewhere(_) => {
            (StatusCode::NOT_FOUND, not_found, &br#"{"code":40400,"msg":"not_found"}"#[..])
        }
    };
    gate.metrics.http.request_misdirected(kind);
    let told = gate.tell(peer, Subject::NoCallback);
    let (path, detail) = (request.uri().path(), target::detail(kind));
    if told == Reporting::Whole {
        let method = request.method().as_str();
        let shown = peer.map(tracing::field::display);
        tracing::info!(outcome = word, method, path, peer = shown, detail, "not a callback");
    }
    if told != Reporting::Counted {
        live.intake.keep_misdirected(path, word, detail, peer);
    }
    let mut response = answer::json(status);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.insert_header((ALLOW, HeaderValue::from_static("POST")));
    }
    connection::close_after(response, web::Bytes::from_static(body), payload)
}

struct Callback<'a> {
    began: Instant,
    /// The sender. Behind a trusted proxy this is not the TCP peer.
    peer: Option<IpAddr>,
    endpoint: &'a str,
    trace: Option<TraceContext>,
    scheme: &'static str,
    live: &'a Live,
    gate: &'a Gate,
}

impl Callback<'_> {
    async fn receive(&self, request: &HttpRequest, mut payload: web::Payload) -> HttpResponse {
        let Self { live, gate, peer, endpoint, trace, .. } = *self;
        if gate.is_draining() {
            return self.unread(self.unheard(Refusal::ShuttingDown), payload);
        }
        if let Err(limited) = gate.admit(live, peer) {
            return self.limited(limited, 0, Some(payload));
        }
        let limits = body::Limits { max_bytes: live.max_body_bytes, timeout: live.body_read_timeout };
        // Held until the answer is ready, like the body.
        let (body, _held) = match body::read(request, &mut payload, limits, &gate.budget).await {
            Ok(body) => body,
            Err(Unread { refusal, bytes, detail }) => {
                let unheard = Unheard { body_bytes: bytes, detail: Some(detail), ..self.unheard(refusal) };
                return self.unread(unheard, payload);
            }
        };
        let body_bytes = body.len() as u64;
        // Check again: many bodies may have been in flight while others failed.
        if let Err(limited) = gate.check_failures(live, peer) {
            return self.limited(limited, body_bytes, None);
        }

        let complete = tokio::time::Instant::now();
        reach("callback:received");
        let response = if self.is_allowed() {
            let content_encoding =
                request.headers().get(CONTENT_ENCODING).and_then(|coding| coding.to_str().ok());
            live.intake
                .receive(Received { endpoint, body: &body, content_encoding, peer, trace, began: self.began })
                .await
        } else {
            // Read and delayed like any other, so that not even a stranger can tell.
            let detail = Some("the peer is not in http.allowed_peers");
            let unheard = Unheard { body_bytes, detail, ..self.unheard(Refusal::Unauthenticated) };
            live.intake.turn_away(unheard)
        };
        // Before the floor: that wait is not work, and a sender who hangs up during it is still counted.
        self.account(&response);
        if response.outcome == Disposition::Refused(Refusal::Unauthenticated) {
            gate.failed(live, peer);
            // Measured from the end of the body, which the sender knows. Processing takes well under the floor, so
            // the time of the answer does not reveal how far the callback got.
            tokio::time::sleep_until(complete + live.unauthenticated_floor).await;
        }
        reach("callback:answered");
        answer::response(&response)
    }

    /// False if the allow-list excludes this peer. Counted in both modes.
    fn is_allowed(&self) -> bool {
        let peers = &self.live.peers;
        if peers.allowed.is_empty() || self.peer.is_some_and(|peer| peers.allows(peer)) {
            return true;
        }
        self.gate.metrics.http.peer_limited(LimitCause::NotAllowed);
        if peers.allowed_mode == Mode::Enforce {
            return false;
        }
        if self.gate.tell(self.peer, Subject::NotAllowed) == Reporting::Whole {
            let peer = self.peer.map(tracing::field::display);
            tracing::warn!(
                endpoint = self.endpoint,
                peer,
                "peer is not in http.allowed_peers; accepted because the mode is warn"
            );
        }
        true
    }

    fn unheard(&self, refusal: Refusal) -> Unheard<'_> {
        let Self { endpoint, peer, .. } = *self;
        Unheard { endpoint, refusal, detail: None, body_bytes: 0, peer, kept: true }
    }

    fn unread(&self, unheard: Unheard<'_>, payload: web::Payload) -> HttpResponse {
        let refusal = unheard.refusal;
        let response = self.live.intake.turn_away(unheard);
        self.account(&response);
        let body = answer::refusal_body(refusal, response.locale);
        connection::close_after(answer::json(Rule::of(refusal).status), body, payload)
    }

    /// Answers a callback of a peer over its limits; `unread` is the rest of its body.
    fn limited(&self, limited: Limited, body_bytes: u64, unread: Option<web::Payload>) -> HttpResponse {
        let detail = match limited.cause {
            LimitCause::Rate => "the peer exceeded http.rate_limit_per_peer",
            LimitCause::Failures => "the peer has spent http.failure_budget_per_peer",
            LimitCause::NotAllowed => "the peer is not in http.allowed_peers",
            LimitCause::Connections => "the peer reached http.max_connections_per_peer",
        };
        let refusal = Refusal::RateLimited;
        let told = self.gate.tell(self.peer, Subject::Refused { refusal, stranger: true });
        let kept = told != Reporting::Counted;
        let unheard = Unheard { detail: Some(detail), body_bytes, kept, ..self.unheard(refusal) };
        let response = self.live.intake.turn_away(unheard);
        self.account_as(&response, told);
        let body = answer::refusal_body(refusal, response.locale);
        let mut response = answer::json(Rule::of(refusal).status);
        response.insert_header((RETRY_AFTER, HeaderValue::from(limited.retry_after.as_secs())));
        match unread {
            Some(payload) => connection::close_after(response, body, payload),
            None => response.force_close().body(body),
        }
    }

    /// Counts one callback, and logs it unless it belongs to a flood. Called once per callback, before its answer is
    /// sent.
    fn account(&self, response: &Response) {
        let told = match response.outcome {
            Disposition::Refused(refusal) => {
                self.gate.tell(self.peer, Subject::Refused { refusal, stranger: response.stranger })
            }
            Disposition::Kept(_) | Disposition::Probed => Reporting::Whole,
        };
        self.account_as(response, told);
    }

    fn account_as(&self, response: &Response, told: Reporting) {
        let took = self.began.elapsed();
        count(&self.gate.metrics, self.live, response, took);
        if told == Reporting::Whole {
            log(response, took, self.peer);
            // Like the log: of a flood, what is summed up there has no spans either.
            spans::tell(response, took, self.trace, self.scheme);
        }
    }
}

fn count(metrics: &Metrics, live: &Live, response: &Response, took: Duration) {
    // Probes are counted separately from callbacks, where no alert watches. The wait for a worker is not work.
    if response.outcome != Disposition::Probed {
        metrics
            .callbacks
            .took(took.saturating_sub(response.waited.map_or(Duration::ZERO, |(_, waited)| waited)));
    }
    if let Some((waited, _)) = response.waited {
        metrics.callbacks.waited(waited);
    }
    if let Some(counters) = live.counters(&response.endpoint) {
        match &response.outcome {
            Disposition::Kept(kept) if kept.duplicate => counters.duplicate.inc(),
            Disposition::Kept(_) => counters.accepted.inc(),
            Disposition::Refused(refusal) => counters.refused[*refusal as usize].inc(),
            Disposition::Probed => counters.probed.inc(),
        };
        if let Some(used) = response.credential.and_then(|credential| counters.uses.get(credential)) {
            used.note(Timestamp::now());
        }
    }
}

fn log(response: &Response, took: Duration, peer: Option<IpAddr>) {
    let endpoint = &*response.endpoint;
    let duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let peer = peer.map(tracing::field::display);
    let detail = response.detail.as_deref();
    let About { user_id, instance_id, task_id } = &response.about;
    let (user_id, instance_id, task_id) = (user_id.as_deref(), instance_id.as_deref(), task_id.as_deref());
    match &response.outcome {
        Disposition::Probed => {
            tracing::info!(
                endpoint,
                outcome = PROBE_WORD,
                duration_us,
                peer,
                "probe answered; nothing was decided"
            );
        }
        Disposition::Kept(kept) => {
            let (outcome, command_id) = (answer::kept_word(kept), kept.command_id);
            tracing::info!(
                endpoint,
                outcome,
                %command_id,
                user_id,
                instance_id,
                task_id,
                duration_us,
                peer,
                "callback kept"
            );
        }
        Disposition::Refused(refusal) => {
            let outcome = refusal.as_str();
            if let Some(Kept { command_id, .. }) = response.kept {
                tracing::info!(
                    endpoint,
                    outcome,
                    %command_id,
                    user_id,
                    instance_id,
                    task_id,
                    duration_us,
                    peer,
                    "callback kept; the worker declined it"
                );
                return;
            }
            // tracing fixes the level of an event at its call site.
            let at = Timestamp::now();
            macro_rules! refused {
                ($level:ident) => {
                    tracing::$level!(
                        endpoint,
                        outcome,
                        user_id,
                        instance_id,
                        task_id,
                        duration_us,
                        peer,
                        detail,
                        page = %format_args!("/why?q={at}"),
                        "callback refused"
                    )
                };
            }
            match Rule::of(*refusal).level {
                Level::ERROR => refused!(error),
                Level::WARN => refused!(warn),
                _ => refused!(info),
            }
        }
    }
}
