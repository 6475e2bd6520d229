//! The section `[traces]`: off unless `endpoint` is set.

use percent_encoding::percent_decode_str;
use reqwest::{
    Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};

use super::{read::Section, secrets::Kind};
use crate::{loopback, telemetry::traces::Settings};

const ENDPOINT: &str =
    "\"\" for no spans, or the collector's address for OTLP over HTTP such as \"http://127.0.0.1:4318\"";

const HEADERS: &str = "name=value, with commas between several and other characters percent-encoded";

/// `None` if faulty, `Some(None)` if off.
pub(super) fn traces(section: &mut Section<'_, '_, '_>) -> Option<Option<Settings>> {
    let endpoint = section.required("endpoint", ENDPOINT, endpoint);
    let check = |text: &str| headers(text).map(drop).map_err(|problem| format!("{problem}; it is {HEADERS}"));
    let show = |_: &str| super::show::REDACTED.to_owned();
    let secret = section.secret_shown("headers", "headers_file", Kind::Given, check, show);
    let sample_percent = section.number("sample_percent", 0..=100);
    let timeout = section.millis("timeout_ms", 1..=600_000);
    let Some(url) = endpoint? else {
        for key in ["headers", "headers_file"] {
            if section.is_set(key) {
                section.fault(key, "is given without an endpoint", "traces.endpoint as well");
                return None;
            }
        }
        return Some(None);
    };
    let headers = secret?.and_then(|secret| headers(secret.expose()).ok()).unwrap_or_default();
    if loopback::is_in_clear(url.as_str()) {
        let what = if headers.is_empty() { "spans go" } else { "spans and headers go" };
        section.warn(
            "endpoint",
            format!("is not encrypted: {what} over the wire as they are; use https://, or a collector on this machine"),
        );
    }
    let proxied = !loopback::is_url(&url);
    Some(Some(Settings { url, headers, sample_percent: sample_percent?, timeout: timeout?, proxied }))
}

/// The collector's URL with the path of traces; `None` if empty.
fn endpoint(text: &str) -> Result<Option<Url>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let url: Url = text.parse().map_err(|_| "is not a URL".to_owned())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is neither http:// nor https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user or a password in it; they belong into headers".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has more than scheme, host and path".to_owned());
    }
    if url.path().ends_with("/v1/traces") {
        return Err("ends with /v1/traces, which is added".to_owned());
    }
    let whole = format!("{}/v1/traces", text.trim_end_matches('/'));
    whole.parse().map(Some).map_err(|_| "is not a URL".to_owned())
}

/// The form of `OTEL_EXPORTER_OTLP_HEADERS`, which collectors' documents show. An error quotes nothing.
fn headers(text: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (at, pair) in text.split(',').enumerate() {
        let of = |problem: &str| format!("[{at}] {problem}");
        let (name, value) = pair.split_once('=').ok_or_else(|| of("has no ="))?;
        let name: HeaderName = name.trim().parse().map_err(|_| of("has a name that no header has"))?;
        if ["content-type", "content-length", "host"].contains(&name.as_str()) {
            return Err(of("is a header that countersign sets itself"));
        }
        let value: Vec<u8> = percent_decode_str(value.trim()).collect();
        let mut value = HeaderValue::from_bytes(&value).map_err(|_| of("has a value that no header has"))?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}
