//! The span of a callback, by OpenTelemetry's conventions for HTTP servers.

use std::time::Duration;

use actix_web::http::{
    StatusCode,
    header::{HeaderMap, HeaderName},
};

use super::{answer, answer::Rule};
use crate::{
    intake::{Disposition, PROBE_WORD, Response},
    telemetry::{
        metrics::UNKNOWN_ENDPOINT,
        traces::{Span, TraceContext},
    },
};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The trace that a request belongs to. A broken header is none, as W3C Trace Context demands; so are two.
pub(super) fn incoming(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all(TRACEPARENT);
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    TraceContext::parse(value.to_str().ok()?)
}

/// Makes the span of a callback that has its response. It lasts as long as the work: not until the answer of a callback that
/// cannot be authenticated, which waits on purpose.
pub(super) fn tell(response: &Response, took: Duration, trace: Option<TraceContext>, scheme: &'static str) {
    let kept = match &response.outcome {
        Disposition::Kept(kept) => Some(*kept),
        _ => response.kept,
    };
    // The span of a repeat is none of its command's: that one has its callback.
    let own = kept.filter(|kept| !kept.duplicate).map(|kept| kept.command_id);
    let name = "POST /callbacks/{endpoint}";
    // A stranger does not decide what is sampled.
    let trace = trace.filter(|_| !response.stranger);
    let Some(span) = Span::of_request(trace, own.as_ref().map(|id| id.as_bytes()), name) else { return };
    let (status, outcome) = match &response.outcome {
        Disposition::Kept(kept) => (StatusCode::OK, answer::kept_word(kept)),
        Disposition::Refused(refusal) => (Rule::of(*refusal).status, refusal.as_str()),
        Disposition::Probed => (StatusCode::OK, PROBE_WORD),
    };
    let mut span = span
        .for_the_last(took)
        .with("http.request.method", "POST")
        .with("http.route", "/callbacks/{endpoint}")
        .with("url.scheme", scheme)
        .with("http.response.status_code", status.as_u16())
        .with("countersign.endpoint", response.endpoint.to_string())
        .with("countersign.outcome", outcome);
    // Never what a stranger asked for.
    if *response.endpoint != *UNKNOWN_ENDPOINT {
        span = span.with("url.path", format!("/callbacks/{}", response.endpoint));
    }
    if let Some(kept) = kept {
        span = span.with("countersign.command_id", kept.command_id.to_string());
    }
    if status.is_server_error() {
        span = span.failed(outcome);
    }
    span.end();
}
