//! Where spans go.

use super::*;

const HEADERS: &str = "authorization=Bearer%20fake-hush,x-tenant=blue";

fn traces(keys: &str) -> Case {
    Case::file(&format!("[traces]\n{keys}\n{SMALL}"))
}

#[test]
fn spans_are_off_unless_there_is_an_endpoint() {
    assert!(Case::file(SMALL).config().traces.is_none());
    assert!(traces("endpoint = ''\nsample_percent = 1").config().traces.is_none());
    let case = traces("endpoint = 'http://127.0.0.1:4318/'");
    let settings = case.config().traces.unwrap();
    assert_eq!(settings.url.as_str(), "http://127.0.0.1:4318/v1/traces");
    assert_eq!(
        (settings.sample_percent, settings.timeout, settings.proxied),
        (100, Duration::from_secs(10), false)
    );
    assert!(settings.headers.is_empty());
    assert_eq!(case.warnings(), [""; 0]);
    let elsewhere = traces("endpoint = 'https://collector.example.com/team'").config().traces.unwrap();
    assert_eq!(elsewhere.url.as_str(), "https://collector.example.com/team/v1/traces");
    assert!(elsewhere.proxied);
}

#[test]
fn headers_are_a_secret() {
    let by_variable = traces("endpoint = 'https://c'\nheaders = '${HEADERS}'").env("HEADERS", HEADERS);
    let direct = traces(&format!("endpoint = 'https://c'\nheaders = '{HEADERS}'"));
    for case in [by_variable, direct] {
        let settings = case.config().traces.unwrap();
        assert_eq!(settings.headers["authorization"], "Bearer fake-hush");
        assert_eq!(settings.headers["x-tenant"], "blue");
        let shown = format!("{}{:?}{settings:?}", case.load().effective.to_toml(true), case.load().effective);
        assert!(shown.contains("headers = \"[redacted]\""), "{shown}");
        assert!(!shown.contains("hush") && !shown.contains("blue"), "{shown}");
    }
}

#[test]
fn all_faults_are_told_at_once_and_quote_no_header() {
    let faults =
        traces("endpoint = 'ftp://c'\nheaders = 'a=b,hush'\nsample_percent = 101\ntimeout_ms = 0\nratio = 1")
            .faults();
    for expected in [
        "countersign.toml:2: traces.endpoint: \"ftp://c\" is neither http:// nor https://",
        "countersign.toml:3: traces.headers: [1] has no =",
        "countersign.toml:4: traces.sample_percent: 101 is out of range",
        "countersign.toml:5: traces.timeout_ms: 0 is out of range",
        "countersign.toml:6: traces.ratio: is not a key of this version",
    ] {
        has(&faults, expected);
    }
    assert!(faults.iter().all(|fault| !fault.contains("hush")), "{faults:?}");
    for (endpoint, expected) in [
        ("collector", "is not a URL"),
        ("http://u:hush@c", "has a user or a password in it"),
        ("http://c/?q", "has more than scheme, host and path"),
        ("http://c/v1/traces", "ends with /v1/traces, which is added"),
    ] {
        let faults = traces(&format!("endpoint = '{endpoint}'")).faults();
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{faults:?}");
    }
    for headers in ["content-type=text", "sp ace=1", "x=%0a", "host=h"] {
        let faults = traces(&format!("endpoint = 'https://c'\nheaders = '{headers}'")).faults();
        assert!(faults.iter().any(|fault| fault.contains("traces.headers: [0] ")), "{faults:?}");
    }
    has(
        &traces("headers = 'a=b'").faults(),
        "countersign.toml:2: traces.headers: is given without an endpoint",
    );
}

#[test]
fn a_collector_elsewhere_is_to_be_reached_encrypted() {
    for (keys, expected) in [
        ("endpoint = 'http://collector:4318'", "spans go over the wire as they are"),
        (
            "endpoint = 'http://collector:4318'\nheaders = 'a=b'",
            "spans and headers go over the wire as they are",
        ),
    ] {
        let warnings = traces(keys).warnings();
        assert!(warnings.iter().any(|warning| warning.contains(expected)), "{warnings:?}");
    }
}
