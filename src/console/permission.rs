//! Permissions. Each handler declares the one it needs in its signature.

use std::{
    future::{Ready, ready},
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::{
        StatusCode,
        header::{AUTHORIZATION, HOST, HeaderName},
    },
    web,
};

use super::{Desk, problem::Problem};
use crate::loopback;

/// For information that reveals nothing about any callback.
pub(super) struct Anyone;

impl FromRequest for Anyone {
    type Error = std::convert::Infallible;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(_request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        ready(Ok(Self))
    }
}

/// For operators: requires the configured token. Without a configured token, everybody on this machine has it.
///
/// In that case a browser on this machine may also send requests for a web page whose name resolves to this address
/// (DNS rebinding), and the browser would treat the answer as that page's own. But such a request has that name in
/// `Host`.
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
            None if header(request, &HOST).is_some_and(loopback::is_authority) => Ok(Self),
            None => Err(foreign("Without a token, `Host` must be localhost or a loopback address.")),
        })
    }
}

/// For changing registrations: an operator, but not through a web page open in a browser.
pub(super) struct Registrar;

impl FromRequest for Registrar {
    type Error = Problem;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let operator = Operator::from_request(request, payload).into_inner();
        ready(operator.and_then(|Operator| match loopback::foreign_page(request.headers()) {
            Some(why) => Err(foreign(why)),
            None => Ok(Self),
        }))
    }
}

/// Counts wrong tokens. They are logged but not limited: a limit would also lock out a person behind the same proxy
/// as a monitor with an old token, in the middle of an incident. The protection is a token that cannot be guessed.
#[derive(Debug, Default)]
pub(super) struct WrongTokens(Mutex<Untold>);

#[derive(Debug, Default)]
struct Untold {
    told_at: Option<Instant>,
    count: u32,
}

impl WrongTokens {
    /// The first is logged at once, then at most one line per interval.
    const TELL_AGAIN: Duration = Duration::from_secs(10);

    fn note(&self, peer: Option<SocketAddr>) {
        let mut untold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        untold.count = untold.count.saturating_add(1);
        if untold.told_at.is_none_or(|told_at| told_at.elapsed() >= Self::TELL_AGAIN) {
            let count = std::mem::take(&mut untold.count);
            untold.told_at = Some(Instant::now());
            let peer = peer.map(|peer| tracing::field::display(peer.ip()));
            tracing::warn!(count, peer, "wrong token on the internal listener");
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
    let (scheme, token) = header(request, &AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

fn header<'a>(request: &'a HttpRequest, name: &HeaderName) -> Option<&'a str> {
    loopback::single(request.headers(), name)
}
