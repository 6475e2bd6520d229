//! `/login` and `/logout`.
//!
//! The cookie is `Secure` and has a `__Host-` name, which browsers also take over plain HTTP from names that lead to
//! this machine. Over plain HTTP to another machine it would be dropped, and the token would be readable on its way:
//! there a login is refused.

use std::time::{Duration, Instant};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{HeaderValue, SET_COOKIE},
    },
    web,
};
use askama::Template;

use super::{Desk, Frame, Halt, Phrases, Poster, Viewer, chosen, cookie, host, query, see_other, stranger};
use crate::{
    console::{access::Need, permission::desk},
    ledger::{ActKind, NewAct},
    loopback,
};

/// How long a login waits until it is written down. It holds without: who logs in may come to see why nothing can
/// be written.
const RECORDING: Duration = Duration::from_secs(2);

#[derive(Template)]
#[template(path = "login.html", config = "src/console/pages/askama.toml")]
struct LoginPage {
    f: Frame,
    t: &'static Phrases,
    next: String,
    wrong: Option<&'static str>,
    possible: bool,
}

/// Whether a cookie of a login can be kept and nobody can read the token on its way.
fn is_private(request: &HttpRequest) -> bool {
    let Some(host) = host(request) else { return false };
    let name = loopback::without_port(host).trim_end_matches('.').to_ascii_lowercase();
    // Browsers resolve these names themselves, to this machine.
    if loopback::is_authority(host) || name.ends_with(".localhost") {
        return true;
    }
    desk(request).access.public_url().is_some_and(|url| url.is_https_at(host))
}

/// A path of ours to go on to.
fn safe_next(next: &str) -> &str {
    let is_ours = next.starts_with('/')
        && !next.starts_with("//")
        && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if is_ours { next } else { "/" }
}

/// `GET /login`.
pub(super) async fn page(request: HttpRequest, desk: web::Data<Desk>) -> Result<HttpResponse, Halt> {
    let viewer = stranger(&request)?;
    let pairs = query(&request);
    let next = safe_next(chosen(&pairs, "next"));
    let tokens = desk.access.tokens();
    let session = cookie(request.headers(), &desk.cookie);
    if tokens.is_empty()
        || session.is_some_and(|session| desk.sessions.lives(session, &tokens, Instant::now()))
    {
        return Ok(see_other(next));
    }
    let possible = is_private(&request);
    let wrong = (!possible).then_some(viewer.t().login_not_here);
    Ok(form(&viewer, StatusCode::OK, next, wrong, possible))
}

fn form(
    viewer: &Viewer,
    status: StatusCode,
    next: &str,
    wrong: Option<&'static str>,
    possible: bool,
) -> HttpResponse {
    let (t, f) = (viewer.t(), viewer.frame.clone());
    viewer.answer(status, &LoginPage { f, t, next: next.to_owned(), wrong, possible })
}

/// `POST /login`.
pub(super) async fn log_in(
    Poster(mut viewer): Poster,
    request: HttpRequest,
    desk: web::Data<Desk>,
    body: web::Bytes,
) -> Result<HttpResponse, Halt> {
    let t = viewer.t();
    if !is_private(&request) {
        return Ok(form(&viewer, StatusCode::FORBIDDEN, "/", Some(t.login_not_here), false));
    }
    let Some(pairs) = super::acting::form(&body) else {
        return Err(viewer.halt(StatusCode::BAD_REQUEST, t.error_title, t.body_unread));
    };
    let (token, next) = (chosen(&pairs, "token"), safe_next(chosen(&pairs, "next")));
    let (now, peer) = (Instant::now(), request.peer_addr().map(|peer| peer.ip()));
    if peer.is_some_and(|peer| !desk.sessions.may_try(peer, now)) {
        return Ok(form(&viewer, StatusCode::TOO_MANY_REQUESTS, next, Some(t.login_too_often), true));
    }
    let Some(holder) = desk.access.tokens().holder(token).cloned() else {
        desk.wrong_tokens.note(request.peer_addr());
        peer.into_iter().for_each(|peer| desk.sessions.failed(peer, now));
        return Ok(form(&viewer, StatusCode::FORBIDDEN, next, Some(t.login_wrong), true));
    };
    if !holder.may(Need::Look) {
        return Ok(form(&viewer, StatusCode::FORBIDDEN, next, Some(t.login_no_pages), true));
    }
    viewer.actor.name = Some(holder.name.clone());
    let Ok(session) = desk.sessions.open(holder, token, now) else {
        return Err(viewer.halt(StatusCode::SERVICE_UNAVAILABLE, t.error_title, t.unknown));
    };
    let act = NewAct { kind: ActKind::Login, by: viewer.actor.into(), detail: None, count: 0 };
    match tokio::time::timeout(RECORDING, desk.ledger.record(act)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "a login is not among the acts of the ledger");
        }
        Err(_elapsed) => {
            tracing::warn!(timeout = ?RECORDING, "a login is perhaps not among the acts of the ledger")
        }
    }
    Ok(with_cookie(
        see_other(next),
        &format!("{}={session}; Path=/; Secure; HttpOnly; SameSite=Strict", desk.cookie),
    ))
}

/// `POST /logout`.
pub(super) async fn log_out(
    Poster(_): Poster,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Halt> {
    if let Some(session) = cookie(request.headers(), &desk.cookie) {
        desk.sessions.close(session);
    }
    let gone = format!("{}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict", desk.cookie);
    Ok(with_cookie(see_other("/login"), &gone))
}

fn with_cookie(mut response: HttpResponse, cookie: &str) -> HttpResponse {
    let cookie = HeaderValue::from_str(cookie).expect("our cookies are ASCII");
    response.headers_mut().append(SET_COOKIE, cookie);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_to_a_page_of_ours_only() {
        for next in ["/", "/decisions?user_id=zhang3&before=7", "/contexts/%2F"] {
            assert_eq!(safe_next(next), next);
        }
        for next in [
            "",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "evil",
            "/a\nb",
            "/ü",
            "javascript:1",
        ] {
            assert_eq!(safe_next(next), "/", "{next:?}");
        }
    }
}
