//! The section `[http]`.

use std::time::Duration;

use super::{
    certificates::{check_validity, identity_fault, identity_files},
    read::Section,
    sections::{LOCALES, listen},
};
use crate::{
    http::{
        self,
        peers::{self, Mode, Network},
        tls,
    },
    intake::Locale,
};

const NETWORK: &str = "an address, or a range such as \"192.0.2.0/24\" or \"2001:db8::/32\"";

pub(super) fn http(section: &mut Section<'_, '_, '_>) -> (Option<http::Settings>, Option<Locale>) {
    let listen = listen(section);
    let max_body_bytes = section.number::<usize>("max_body_bytes", 1_024..=16_777_216);
    if max_body_bytes.is_some_and(|bytes| bytes > 1_048_576) {
        section.warn("max_body_bytes", "over 1 MiB lets anybody fill much memory; callbacks have a few KiB");
    }
    let body_read_timeout = section.millis("body_read_timeout_ms", 1..=600_000);
    if body_read_timeout.is_some_and(|timeout| timeout > Duration::from_secs(5)) {
        section.warn("body_read_timeout_ms", "the approval center itself gives up after 5 to 10 s");
    }
    let max_unread_bytes = section.number::<usize>("max_unread_bytes", 1_048_576..=68_719_476_736);
    if let (Some(one), Some(all)) = (max_body_bytes, max_unread_bytes)
        && all < 4 * one
    {
        section.fault(
            "max_unread_bytes",
            "has no room for four bodies of http.max_body_bytes, each of which may take twice its size",
            format!("{} or more", 4 * one),
        );
    }
    let keep_alive = section.duration("keep_alive", Duration::from_secs(86_400));
    match keep_alive {
        Some(idle) if idle < Duration::from_secs(1) => {
            section.fault("keep_alive", "is less than a second", "\"1s\" to \"24h\"");
        }
        Some(idle) if idle <= Duration::from_secs(60) => section.warn(
            "keep_alive",
            "is not longer than the 60 s for which common proxies and balancers keep idle connections: a callback may \
             be sent into one that was just closed, and is lost",
        ),
        _ => {}
    }
    let unauthenticated_floor = section.millis("unauthenticated_floor_ms", 0..=5_000);
    if unauthenticated_floor.is_some_and(|floor| floor.is_zero()) {
        section
            .warn("unauthenticated_floor_ms", "0 lets the response time show how far a forged callback came");
    }
    let workers = section.number("workers", 0..=1_024);
    let locale = section.one_of("locale", &LOCALES);
    let peers = peers(section);
    if let (Some(listen), Some(peers)) = (listen, &peers) {
        let by_peer = peers.rate > 0 || peers.failure_budget > 0 || !peers.allowed.is_empty();
        if by_peer && peers.trusted_proxies.is_empty() && listen.ip().is_loopback() {
            section.warn(
                "trusted_proxies",
                "is empty although callbacks come from this machine only, through a proxy then: all who send through \
                 it are one peer, and one stranger could use up what it may",
            );
        }
    }
    let tls = section.table("tls", tls);
    let settings = || {
        Some(http::Settings {
            listen: listen?,
            max_body_bytes: max_body_bytes?,
            body_read_timeout: body_read_timeout?,
            keep_alive: keep_alive?,
            max_unread_bytes: max_unread_bytes?,
            unauthenticated_floor: unauthenticated_floor?,
            workers: workers?,
            tls: tls?,
            peers: peers?,
        })
    };
    (settings(), locale)
}

fn peers(section: &mut Section<'_, '_, '_>) -> Option<peers::Settings> {
    let trusted_proxies = networks(section, "trusted_proxies");
    if trusted_proxies.iter().flatten().any(|network| network.is_everybody()) {
        section.warn("trusted_proxies", "holds every address, so anybody can claim any address");
    }
    let allowed = networks(section, "allowed_peers");
    let allowed_mode =
        section.maybe_one_of("allowed_peers_mode", &[("enforce", Mode::Enforce), ("warn", Mode::Warn)]);
    let rate = section.number("rate_limit_per_peer", 0..=100_000);
    let burst = section.number("rate_limit_burst", 0..=1_000_000);
    if let (Some(0), Some(1..)) = (rate, burst) {
        section.warn("rate_limit_burst", "has no effect, since rate_limit_per_peer is 0");
    }
    let failure_budget = section.number("failure_budget_per_peer", 0..=1_000_000);
    let max_connections = section.number("max_connections_per_peer", 0..=16_384);
    Some(peers::Settings {
        trusted_proxies: trusted_proxies?,
        allowed: allowed?,
        allowed_mode: allowed_mode?.unwrap_or_default(),
        rate: rate?,
        burst: burst?,
        failure_budget: failure_budget?,
        max_connections: max_connections?,
    })
}

fn networks(section: &mut Section<'_, '_, '_>, key: &'static str) -> Option<Vec<Network>> {
    let texts = section.texts(key, NETWORK, |text| Network::parse(text).map(drop).map_err(str::to_owned))?;
    let networks = texts.iter().map(|text| Network::parse(text).ok());
    networks.collect()
}

/// `Some(None)` if TLS is off.
fn tls(section: &mut Section<'_, '_, '_>) -> Option<Option<tls::Settings>> {
    let check_interval = section.duration("check_interval", Duration::from_secs(86_400));
    if check_interval.is_some_and(|interval| interval.is_zero()) {
        section.fault("check_interval", "is 0", "a second or more");
        return None;
    }
    let Some((cert_file, key_file)) = identity_files(section)? else { return Some(None) };
    let settings = tls::Settings { cert_file, key_file, check_interval: check_interval? };
    match settings.check() {
        Ok(facts) => {
            check_validity(section, &settings.cert_file, facts);
            if facts.is_authority {
                section.warn(
                    "cert_file",
                    "is an authority's certificate (CA:TRUE), which many clients reject as a server's; to make one that \
                     they accept: openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj /CN=HOST \
                     -addext subjectAltName=DNS:HOST -addext basicConstraints=critical,CA:FALSE \
                     -keyout privkey.pem -out fullchain.pem",
                );
            }
            Some(Some(settings))
        }
        Err(error) => {
            identity_fault(section, &settings.key_file, &error);
            None
        }
    }
}
