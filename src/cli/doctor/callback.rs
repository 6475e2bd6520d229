//! Sends a callback to each endpoint, the way the platform would. It tests address, token and key and decides
//! nothing.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    time::{Duration, Instant},
};

use reqwest::tls::TlsInfo;
use rustls::{CertificateError, pki_types::CertificateDer};
use serde_json::{Value, json};

use super::{Arguments, Results, configuration::AUTHORITY};
use crate::{
    certificates::{self, Facts, Validity},
    cli::{Trust, client, credentials::envelope, exit::Failure, exposed, reachable, url},
    config::Loaded,
    intake::{EndpointSettings, PROBE_ACTION, PROBE_WORD},
    proxy,
    telemetry::log::chain,
    time::Timestamp,
};

/// The platform gives up after 5 s (Lark) or 10 s (Feishu).
const PATIENCE: Duration = Duration::from_secs(5);

const SLOW: Duration = Duration::from_secs(2);

pub(super) async fn look(
    results: &mut Results,
    arguments: &Arguments,
    loaded: &Loaded,
    urls: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let Ok(endpoints) = loaded.endpoints() else {
        return results.skipped("callback", "the configuration of the endpoints is wrong");
    };
    for endpoint in endpoints {
        let path = format!("/callbacks/{}", endpoint.name);
        let subject = format!("callback to {}", endpoint.name);
        let (to, is_public) = match (&arguments.public_url, urls.get(&endpoint.name), loaded.http()) {
            (Some(base), ..) => (format!("{}{path}", base.trim_end_matches('/')), true),
            (None, Some(url), _) => (url.clone(), true),
            (None, None, Ok(http)) if http.listen.port() != 0 => {
                let scheme = if http.tls.is_some() { "https" } else { "http" };
                (format!("{scheme}://{}{path}", reachable(http.listen)), false)
            }
            _ => {
                results.skipped(&subject, "its address is not known; use --public-url")?;
                continue;
            }
        };
        for number in 0..endpoint.credentials.len() {
            let subject = match endpoint.credentials.len() {
                1 => subject.clone(),
                _ => format!("{subject}, credential {}", number + 1),
            };
            post(results, &subject, endpoint, number, &to, is_public).await?;
        }
    }
    Ok(())
}

async fn post(
    results: &mut Results,
    subject: &str,
    endpoint: &EndpointSettings,
    number: usize,
    to: &str,
    is_public: bool,
) -> Result<(), Failure> {
    let url = match url(to, "/") {
        Ok(url) => url,
        Err(_) => return results.wrong(subject, format!("{to} is not a URL")),
    };
    let credential = &endpoint.credentials[number];
    let exposed = exposed(&url, credential.action_callback_key.is_some());
    if let (Some(exposed), None) = (exposed, &credential.action_callback_key) {
        return results.wrong(subject, format!("{to} is {exposed}. Not tried, so as not to show the token"));
    }
    let plain = json!({
        "action_type": PROBE_ACTION, "user_id": "countersign-doctor",
        "token": credential.action_callback_token.expose(),
    })
    .to_string();
    let body = match &credential.action_callback_key {
        Some(key) => envelope(key, plain.as_bytes()),
        None => plain,
    };
    // A certificate names the public address, not the local one.
    let trust = if is_public { Trust::System } else { Trust::Own };
    let began = Instant::now();
    let sent = client(&url, trust, PATIENCE)?
        .post(url)
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await;
    let answer = match sent {
        Ok(answer) => answer,
        Err(error) => {
            let how = if error.is_timeout() { "does not answer within 5 s" } else { "cannot be reached" };
            let advice = "approvers see 提交失败. Is serve running, and do DNS, proxy, certificate and firewall let it through?";
            if let Some(fault) = certificate_fault(&error) {
                return results.wrong(
                    subject,
                    format!("{to} shows a certificate that {fault}; approvers see 提交失败"),
                );
            }
            let (proxy, why) = (proxy::words(to), chain(&error.without_url()));
            return results.wrong(subject, format!("{to} {how}{proxy}: {why}; {advice}"));
        }
    };
    let elapsed = began.elapsed();
    if let Some(shown) = answer.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate) {
        certificate(results, subject, to, shown)?;
    }
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap_or_default();
    let reason = serde_json::from_str::<Value>(&text).unwrap_or_default()["msg"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    match (status, reason.as_str()) {
        (422, PROBE_WORD) if elapsed > SLOW => {
            let words = format!("{to} takes {} ms, and the platform waits 5000 at the most", elapsed.as_millis());
            results.risky(subject, format!("{words}; check the proxy and the network between"))
        }
        (422, PROBE_WORD) if exposed.is_some() => {
            results.risky(subject, format!("{to} knows token and key, and is {}", exposed.unwrap_or_default()))
        }
        (422, PROBE_WORD) => {
            let local = if is_public { "" } else { "; only from this machine: use --public-url to test the public address" };
            results.ok(subject, format!("{to} knows token and key ({} ms){local}", elapsed.as_millis()))
        }
        (403, "unauthenticated") => results.wrong(
            subject,
            format!("{to} does not know this endpoint, token or key; does it use this configuration, and is this machine in http.allowed_peers?"),
        ),
        (status, "") => results.wrong(subject, format!("{to} answers {status}, and is not countersign; check the URL and the proxy")),
        (404, reason) => results.wrong(subject, format!("{to} answers {reason}; the path is not that of an endpoint")),
        (status, reason) => results.wrong(subject, format!("{to} answers {status} {reason}")),
    }
}

/// The certificate problem, worded to end a sentence; `None` if the failure has another cause.
fn certificate_fault(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(rustls::Error::InvalidCertificate(fault)) = error.downcast_ref() {
        return Some(fault_in_words(fault));
    }
    // `io::Error` contains its cause but skips it in the source chain.
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => certificate_fault(inner),
        None => certificate_fault(error.source()?),
    }
}

fn unacceptable(fault: &CertificateError) -> String {
    let fault = certificates::plain(&rustls::Error::InvalidCertificate(fault.clone()));
    format!("cannot be accepted: {fault}")
}

fn fault_in_words(fault: &CertificateError) -> String {
    match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "has expired; renew it and reload the server".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet; is a clock wrong?".to_owned()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "is signed by no authority that this machine trusts: the server must send the whole chain (fullchain.pem), and the \
             authority must be a public one"
                .to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is for another name than that of the URL".to_owned()
        }
        CertificateError::Revoked => "was revoked; it needs another".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not for servers (extendedKeyUsage has no serverAuth)".to_owned()
        }
        CertificateError::Other(other) => match other.0.downcast_ref() {
            Some(webpki::Error::CaUsedAsEndEntity) => {
                "is an authority's (CA:TRUE), not a server's, and the platform rejects it. Have a public authority issue one"
                    .to_owned()
            }
            _ => unacceptable(fault),
        },
        _ => unacceptable(fault),
    }
}

/// Checks a certificate that was accepted, or our own, which was not verified.
fn certificate(results: &mut Results, subject: &str, to: &str, shown: &[u8]) -> Result<(), Failure> {
    let Ok(facts) = Facts::of(Path::new(to), &[CertificateDer::from(shown)]) else { return Ok(()) };
    let subject = format!("certificate of the {subject}");
    if facts.is_authority {
        return results.risky(&subject, format!("{to}: {AUTHORITY}"));
    }
    let (begins, ends) = (results.at(facts.not_before), results.at(facts.not_after));
    match facts.validity(Timestamp::now()) {
        Validity::Fine => results.ok(&subject, format!("{to} shows one that is valid until {ends}")),
        Validity::Soon => results.risky(&subject, format!("{to} shows one that expires at {ends}; why was it not renewed?")),
        Validity::AtOnce => results.wrong(&subject, format!("{to} shows one that expires at {ends}; renew it now")),
        Validity::Expired => results.wrong(
            &subject,
            format!("{to} shows one that expired at {ends}: approvers see 提交失败; renew it and reload the server"),
        ),
        Validity::NotYet => {
            results.wrong(&subject, format!("{to} shows one that is not valid before {begins}; is a clock wrong?"))
        }
    }
}
