//! Who may ask for what. Each handler names the permission it needs in its signature.

use std::{
    future::{Ready, ready},
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::{
        StatusCode,
        header::{AUTHORIZATION, HOST, HeaderName, ORIGIN},
    },
    web,
};

use super::{Desk, problem::Problem};

/// The permission to look at what tells nothing about any callback.
pub(super) struct Anyone;

impl FromRequest for Anyone {
    type Error = std::convert::Infallible;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(_request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        ready(Ok(Self))
    }
}

/// The permission of operators: whoever has the configured token; if none is configured, everybody on this machine.
///
/// Then a browser on this machine may ask too, for a page whose name was made to lead here (DNS rebinding): to the browser
/// the answer would be that page's own. But that name stands in `Host`.
pub(super) struct Operator;

impl FromRequest for Operator {
    type Error = Problem;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        ready(match desk(request).access.token() {
            Some(token) if bearer(request).is_some_and(|offered| token.equals(offered)) => Ok(Self),
            Some(_) => {
                if bearer(request).is_some() {
                    desk(request).wrong_tokens.note(request.peer_addr());
                }
                Err(Problem::unauthorized())
            }
            None if header(request, HOST).is_some_and(is_loopback) => Ok(Self),
            None => Err(foreign("Without a token, `Host` must be localhost or a loopback address.")),
        })
    }
}

/// The permission to change what is registered: an operator's, and not by way of a page that somebody has open.
///
/// What such a page sends carries its own `Origin`, or at least what the browser thinks of it, in `Sec-Fetch-Site`.
pub(super) struct Registrar;

impl FromRequest for Registrar {
    type Error = Problem;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let operator = Operator::from_request(request, payload).into_inner();
        ready(operator.and_then(|Operator| {
            let has = |name: &HeaderName| request.headers().contains_key(name);
            if has(&ORIGIN) && !same_origin(header(request, ORIGIN), header(request, HOST)) {
                return Err(foreign("`Origin` is another page than this listener's."));
            }
            // `none` is what somebody typed or scripted himself.
            if has(&SEC_FETCH_SITE)
                && !matches!(header(request, SEC_FETCH_SITE), Some("same-origin" | "none"))
            {
                return Err(foreign("`Sec-Fetch-Site` says that another page sent this."));
            }
            Ok(Self)
        }))
    }
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Wrong tokens that were offered. They are told, but not limited: whoever sits behind the same proxy as a monitor with
/// an old token would be locked out too, in the middle of an incident. What protects is a token that cannot be guessed.
#[derive(Debug, Default)]
pub(super) struct WrongTokens(Mutex<Untold>);

#[derive(Debug, Default)]
struct Untold {
    told_at: Option<Instant>,
    count: u32,
}

impl WrongTokens {
    /// A line for the first, then at most one in this time.
    const TELL_AGAIN: Duration = Duration::from_secs(10);

    fn note(&self, peer: Option<SocketAddr>) {
        let mut untold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        untold.count = untold.count.saturating_add(1);
        if untold.told_at.is_none_or(|told_at| told_at.elapsed() >= Self::TELL_AGAIN) {
            let count = std::mem::take(&mut untold.count);
            untold.told_at = Some(Instant::now());
            let peer = peer.map(|peer| tracing::field::display(peer.ip()));
            tracing::warn!(count, peer, "a wrong token was offered to the internal listener");
        }
    }
}

fn desk(request: &HttpRequest) -> &Desk {
    request.app_data::<web::Data<Desk>>().expect("the listener shares its desk with every route")
}

fn foreign(message: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "foreign_page", message)
}

fn bearer(request: &HttpRequest) -> Option<&str> {
    let (scheme, token) = header(request, AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

/// The one header of this name. One that stands twice is not believed.
fn header(request: &HttpRequest, name: HeaderName) -> Option<&str> {
    let mut values = request.headers().get_all(name);
    let value = values.next()?;
    values.next().is_none().then(|| value.to_str().ok())?
}

/// Names that lead to this machine whoever is asked.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn same_origin(origin: Option<&str>, host: Option<&str>) -> bool {
    let (Some(origin), Some(host)) = (origin, host) else { return false };
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_always_lead_here_are_loopback() {
        for host in
            ["localhost", "LocalHost:9090", "127.0.0.1", "127.0.0.1:9090", "127.8.8.8", "[::1]", "[::1]:9090"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            ":9090",
            "evil.example",
            "localhost.evil.example:9090",
            "127.0.0.1.evil.example",
            "192.0.2.1:9090",
            "[::2]:1",
            "localhost:x",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_page_is_its_own_origin_and_nobody_elses() {
        assert!(same_origin(Some("http://localhost:9090"), Some("localhost:9090")));
        assert!(same_origin(Some("https://countersign.example"), Some("countersign.example")));
        for origin in
            ["null", "", "http://evil.example", "http://localhost:9091", "http://localhost", "localhost:9090"]
        {
            assert!(!same_origin(Some(origin), Some("localhost:9090")), "{origin}");
        }
        assert!(!same_origin(None, Some("localhost:9090")));
    }
}
