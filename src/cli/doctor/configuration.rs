//! The configuration: its faults, lapsed and risky settings, and the certificates it names.

use std::path::Path;

use super::Results;
use crate::{
    amqp::signing::SigningKey,
    certificates::{self, Facts, Validity},
    cli::exit::Failure,
    config::Loaded,
    time::Timestamp,
};

pub(super) fn look(results: &mut Results, loaded: &Loaded) -> Result<(), Failure> {
    for fault in loaded.faults().iter().chain(loaded.lapsed()) {
        results.wrong("configuration", fault.to_string())?;
    }
    for warning in &loaded.warnings {
        results.risky("configuration", warning.to_string())?;
    }
    if loaded.faults().is_empty() && loaded.lapsed().is_empty() {
        let from = loaded.file.as_ref().map_or_else(
            || "no file; the environment and the defaults".to_owned(),
            |file| file.display().to_string(),
        );
        results.ok("configuration", from)?;
    }
    signing(results, loaded)?;
    certificates(results, loaded)
}

/// Which keys sign commands; here is where an operator finds the public keys of workers again.
fn signing(results: &mut Results, loaded: &Loaded) -> Result<(), Failure> {
    let Ok(amqp) = loaded.amqp() else { return Ok(()) };
    let told = |key: &SigningKey| match key.public_key() {
        None => "HMAC-SHA256".to_owned(),
        Some(public) => format!("Ed25519, public key {public}"),
    };
    let keys = amqp.broker.signing.iter().enumerate();
    let keys: Vec<_> = keys.map(|(at, key)| format!("[{at}] {}", told(key))).collect();
    if keys.is_empty() {
        Ok(())
    } else {
        results.ok("signing", format!("commands are signed: {}", keys.join("; ")))
    }
}

/// Dates of our own certificates are already reported above.
fn certificates(results: &mut Results, loaded: &Loaded) -> Result<(), Failure> {
    if let Ok(http) = loaded.http()
        && let Some(tls) = &http.tls
    {
        own(results, "http.tls", &tls.cert_file)?;
    }
    let Ok(amqp) = loaded.amqp() else { return Ok(()) };
    if let Some((cert_file, _)) = &amqp.broker.tls.identity {
        own(results, "amqp.tls", cert_file)?;
    }
    if let Some(ca_file) = &amqp.broker.tls.ca_file {
        authorities(results, ca_file)?;
    }
    Ok(())
}

fn own(results: &mut Results, section: &str, path: &Path) -> Result<(), Failure> {
    // An unreadable file is already a configuration fault.
    let Ok(chain) = certificates::read(path).and_then(|pem| certificates::chain(path, &pem)) else {
        return Ok(());
    };
    let Ok(facts) = Facts::of(path, &chain) else { return Ok(()) };
    let (subject, shown) = (format!("certificate of {section}"), path.display());
    if facts.is_authority {
        return results.risky(&subject, format!("{shown}: {AUTHORITY}"));
    }
    match facts.validity(Timestamp::now()) {
        Validity::Fine => {
            results.ok(&subject, format!("{shown} is valid until {}", results.at(facts.not_after)))
        }
        Validity::Soon | Validity::AtOnce | Validity::Expired | Validity::NotYet => Ok(()),
    }
}

/// Message for a server or client certificate that is a CA.
pub(super) const AUTHORITY: &str = "it is an authority's (CA:TRUE), which many clients reject as a server's; make one with \
     -addext basicConstraints=critical,CA:FALSE, or have an authority issue one";

/// One of several CAs may have been replaced. As long as one is valid, the broker may be trusted.
fn authorities(results: &mut Results, path: &Path) -> Result<(), Failure> {
    let Ok(chain) = certificates::read(path).and_then(|pem| certificates::chain(path, &pem)) else {
        return Ok(());
    };
    let now = Timestamp::now();
    let all: Vec<Facts> =
        chain.iter().filter_map(|one| Facts::of(path, std::slice::from_ref(one)).ok()).collect();
    let Some(last) = all.iter().max_by_key(|facts| facts.not_after) else { return Ok(()) };
    let (subject, shown, end) = ("authorities of amqp.tls", path.display(), results.at(last.not_after));
    match last.validity(now) {
        Validity::Fine => results.ok(subject, format!("{shown} is valid until {end}")),
        Validity::Soon | Validity::AtOnce => {
            results.risky(subject, format!("{shown} expires at {end}; add the authority's next certificate"))
        }
        Validity::Expired => results.wrong(
            subject,
            format!("{shown} expired at {end}, so no broker is trusted; add the authority's new certificate"),
        ),
        Validity::NotYet => results
            .wrong(subject, format!("{shown} is not valid before {}; is the clock right?", last.not_before)),
    }
}
