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

use super::{
    Desk,
    access::{LOOPBACK, Need},
    problem::Problem,
};
use crate::{
    ledger::{Actor, Via},
    loopback,
};

/// For information that reveals nothing about any callback.
pub(super) struct Anyone;

impl FromRequest for Anyone {
    type Error = std::convert::Infallible;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(_request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        ready(Ok(Self))
    }
}

/// Finds out who sent a request, and refuses who may not. Without configured tokens, everybody on this machine may.
///
/// In that case a browser on this machine may also send requests for a web page whose name resolves to this address
/// (DNS rebinding), and the browser would treat the answer as that page's own. But such a request has that name in
/// `Host`.
fn admitted(request: &HttpRequest, need: Need) -> Result<Actor, Problem> {
    let tokens = desk(request).access.tokens();
    let name = if tokens.is_empty() {
        if !header(request, &HOST).is_some_and(loopback::is_authority) {
            return Err(foreign("Without a token, `Host` must be localhost or a loopback address."));
        }
        LOOPBACK
    } else {
        let Some(offered) = bearer(request) else { return Err(Problem::unauthorized()) };
        let Some(holder) = tokens.holder(offered) else {
            desk(request).wrong_tokens.note(request.peer_addr());
            return Err(Problem::unauthorized());
        };
        if !holder.may(need) {
            return Err(Problem::not_permitted());
        }
        &holder.name
    };
    Ok(Actor {
        name: Some(name.to_owned()),
        peer: request.peer_addr().map(|peer| peer.ip().to_canonical().to_string()),
        ..Actor::unnamed(Via::Api)
    })
}

/// [`admitted`] for what changes something: not through a web page open in a browser.
fn admitted_to_change(request: &HttpRequest, need: Need) -> Result<Actor, Problem> {
    let actor = admitted(request, need)?;
    match loopback::foreign_page(request.headers()) {
        Some(why) => Err(foreign(why)),
        None => Ok(actor),
    }
}

/// For looking at commands, refusals, findings and acts.
pub(super) struct Onlooker;

/// For acting on commands.
pub(super) struct Operator(pub(super) Actor);

/// For looking at registered contexts.
pub(super) struct ContextOnlooker;

/// For registering contexts and removing them.
pub(super) struct Registrar(pub(super) Actor);

/// How each is found in a request.
macro_rules! permissions {
    ($($permission:ident: $found:expr;)+) => {$(
        impl FromRequest for $permission {
            type Error = Problem;
            type Future = Ready<Result<Self, Self::Error>>;

            fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
                let found: fn(&HttpRequest) -> Result<Self, Problem> = $found;
                ready(found(request))
            }
        }
    )+};
}

permissions! {
    Onlooker: |request| admitted(request, Need::Look).map(|_| Onlooker);
    Operator: |request| admitted_to_change(request, Need::Act).map(Operator);
    ContextOnlooker: |request| admitted(request, Need::LookAtContexts).map(|_| ContextOnlooker);
    Registrar: |request| admitted_to_change(request, Need::Register).map(Registrar);
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

    pub(super) fn note(&self, peer: Option<SocketAddr>) {
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

pub(super) fn desk(request: &HttpRequest) -> &Desk {
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
