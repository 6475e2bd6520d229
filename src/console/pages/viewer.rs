//! Who looks at a page, what they may, and how a request ends early.

use std::{fmt, future::Future, time::Duration};

use actix_web::{
    FromRequest, HttpRequest, HttpResponse, ResponseError,
    dev::Payload,
    http::{
        StatusCode,
        header::{ACCEPT, HOST, HeaderValue, LOCATION, SET_COOKIE},
    },
};
use askama::Template;

use super::{
    frame::{Frame, Person, cookie, framed},
    parts::{When, link},
    phrases::Phrases,
};
use crate::{
    console::{
        access::{LOOPBACK, Need},
        permission::desk,
        problem::Problem,
    },
    ledger::{Actor, LookError, Via},
    loopback,
    telemetry::taming,
    time::{Timestamp, Zone},
};

/// Whether a page is wanted: the client names `text/html`. Programs that accept anything get what they got before
/// there were pages.
pub(in crate::console) fn wants_html(request: &HttpRequest) -> bool {
    let mut named = request.headers().get_all(ACCEPT).filter_map(|value| value.to_str().ok());
    named.any(|value| {
        value.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"))
                && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
        })
    })
}

/// How long a person waits for the ledger.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Who looks at a page, in which language.
pub(in crate::console) struct Viewer {
    pub(super) frame: Frame,
    pub(super) actor: Actor,
    pub(super) zone: Zone,
    pub(super) cookies: Vec<String>,
}

impl Viewer {
    /// The words of the language.
    pub(super) fn t(&self) -> &'static Phrases {
        self.frame.language.phrases()
    }

    pub(super) fn when(&self, at: Timestamp) -> When {
        When::of(at, &self.zone)
    }

    /// A person's name and time on a page, to the second.
    pub(super) fn shown(&self, at: Timestamp) -> String {
        self.when(at).shown
    }

    /// The rendered page.
    pub(super) fn page(&self, page: &impl Template) -> HttpResponse {
        self.answer(StatusCode::OK, page)
    }

    pub(super) fn answer(&self, status: StatusCode, page: &impl Template) -> HttpResponse {
        let mut response = HttpResponse::build(status);
        response.content_type("text/html; charset=utf-8");
        set_cookies(&mut response, &self.cookies);
        response.body(rendered(page))
    }

    /// The page for what went wrong; takes the frame, since the page is the answer.
    pub(super) fn halt(self, status: StatusCode, title: &'static str, message: impl Into<String>) -> Halt {
        let t = self.t();
        let next = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(t.next_doctor);
        let cookies = self.cookies;
        let page = ErrorPage { f: self.frame, t, title, message: message.into(), next };
        Halt::page(status, rendered(&page), cookies)
    }

    /// Waits for the ledger.
    pub(super) async fn look<T>(
        &self,
        looking: impl Future<Output = Result<T, LookError>>,
    ) -> Result<T, Unread> {
        match tokio::time::timeout(PATIENCE, looking).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot show a page");
                Err(Unread(self.t().failed_read))
            }
            Err(_elapsed) => {
                tracing::warn!(timeout = ?PATIENCE, "ledger query timed out");
                Err(Unread(self.t().failed_late))
            }
        }
    }

    pub(super) fn unread(self, unread: &Unread) -> Halt {
        let t = self.t();
        self.halt(StatusCode::SERVICE_UNAVAILABLE, t.error_title, unread.0)
    }

    pub(super) fn not_found(self, message: &'static str) -> Halt {
        let t = self.t();
        self.halt(StatusCode::NOT_FOUND, t.not_found_title, message)
    }
}

/// Why the ledger gave no answer, in a sentence.
pub(super) struct Unread(pub(super) &'static str);

/// Runs a look-up, and answers with a page that says so if it fails.
macro_rules! look {
    ($viewer:ident, $looking:expr) => {
        match $viewer.look($looking).await {
            Ok(found) => found,
            Err(unread) => return Err($viewer.unread(&unread)),
        }
    };
}
pub(super) use look;

#[derive(Template)]
#[template(path = "error.html", config = "src/console/pages/askama.toml")]
pub(super) struct ErrorPage {
    pub(super) f: Frame,
    pub(super) t: &'static Phrases,
    pub(super) title: &'static str,
    pub(super) message: String,
    pub(super) next: Option<&'static str>,
}

/// An answer that ends a request early.
#[derive(Debug)]
pub(in crate::console) enum Halt {
    Page { status: StatusCode, body: String, cookies: Vec<String> },
    SeeOther(String),
    Problem(Problem),
}

impl Halt {
    pub(super) fn page(status: StatusCode, body: String, cookies: Vec<String>) -> Self {
        Self::Page { status, body, cookies }
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request ended early")
    }
}

impl ResponseError for Halt {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Page { status, .. } => *status,
            Self::SeeOther(_) => StatusCode::SEE_OTHER,
            Self::Problem(problem) => problem.status_code(),
        }
    }

    fn error_response(&self) -> HttpResponse {
        match self {
            Self::Page { status, body, cookies } => {
                let mut response = HttpResponse::build(*status);
                response.content_type("text/html; charset=utf-8");
                set_cookies(&mut response, cookies);
                response.body(body.clone())
            }
            Self::SeeOther(to) => see_other(to),
            Self::Problem(problem) => problem.response(),
        }
    }
}

pub(super) fn rendered(page: &impl Template) -> String {
    let html = page.render().expect("a page of texts and numbers always renders");
    taming::lines(&html).into_owned()
}

pub(super) fn set_cookies(response: &mut actix_web::HttpResponseBuilder, cookies: &[String]) {
    for cookie in cookies {
        let value = HeaderValue::from_str(cookie).expect("our cookies are ASCII");
        response.append_header((SET_COOKIE, value));
    }
}

/// After a change: the browser gets the page by a request of its own, and reloading it repeats nothing.
pub(super) fn see_other(to: &str) -> HttpResponse {
    let place = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("/"));
    HttpResponse::SeeOther().insert_header((LOCATION, place)).finish()
}

/// The zone of this machine: what its log and its people go by.
pub(super) fn zone() -> Zone {
    Zone::local().unwrap_or(Zone::UTC)
}

pub(super) fn host(request: &HttpRequest) -> Option<&str> {
    loopback::single(request.headers(), &HOST)
}

/// A viewer without a name: for the page of the login, and for errors.
pub(super) fn stranger(request: &HttpRequest) -> Result<Viewer, Halt> {
    if !wants_html(request) {
        let message = "This is a page for browsers: send `Accept: text/html`. Programs use /api/v1.";
        return Err(Halt::Problem(Problem::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", message)));
    }
    let zone = zone();
    let (frame, cookies) = framed(request, &zone);
    let peer = request.peer_addr().map(|peer| peer.ip().to_canonical().to_string());
    let actor = Actor { peer, ..Actor::unnamed(Via::Console) };
    Ok(Viewer { frame, actor, zone, cookies })
}

/// The answer to a browser without a session: the page of the login.
///
/// A link on another site brings no `SameSite=Strict` cookie. That may be somebody who is logged in, so the browser is
/// told to come again by itself, from a page of ours.
fn login_wanted(request: &HttpRequest, viewer: Viewer) -> Halt {
    let here = request.uri().path_and_query().map_or("/", |here| here.as_str());
    let site = request.headers().get("sec-fetch-site").and_then(|site| site.to_str().ok());
    if request.method().is_safe() && matches!(site, Some("cross-site" | "same-site")) {
        let page = AgainPage { here: here.to_owned(), t: viewer.t() };
        return Halt::page(StatusCode::OK, rendered(&page), viewer.cookies);
    }
    let next = if request.method().is_safe() { here } else { "/" };
    Halt::SeeOther(link("/login", [("next", if next == "/" { "" } else { next })]))
}

#[derive(Template)]
#[template(
    ext = "html",
    source = "<!doctype html><html lang=\"{{ t.code }}\"><head><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"0;url={{ here }}\"><title>countersign</title></head><body><p><a href=\"{{ here }}\">countersign</a></p></body></html>"
)]
struct AgainPage {
    here: String,
    t: &'static Phrases,
}

/// Finds out who looks.
pub(super) fn admitted(request: &HttpRequest, need: Need) -> Result<Viewer, Halt> {
    let mut viewer = stranger(request)?;
    let t = viewer.t();
    let desk = desk(request);
    let tokens = desk.access.tokens();
    let person = if tokens.is_empty() {
        // A page whose name was made to lead here would be this listener's own for a browser; but it has that name.
        if !host(request).is_some_and(loopback::is_authority) {
            return Err(viewer.halt(StatusCode::FORBIDDEN, t.error_title, t.foreign_page));
        }
        Person { name: LOOPBACK.to_owned(), label: t.loopback.to_owned(), may_act: true, by_session: false }
    } else {
        let value = cookie(request.headers(), &desk.cookie);
        let holder = value.and_then(|value| desk.sessions.used(value, &tokens, std::time::Instant::now()));
        let Some(holder) = holder else { return Err(login_wanted(request, viewer)) };
        if !holder.may(need) {
            return Err(viewer.halt(StatusCode::FORBIDDEN, t.error_title, t.not_permitted));
        }
        Person {
            label: holder.name.clone(),
            may_act: holder.may(Need::Act),
            name: holder.name,
            by_session: true,
        }
    };
    viewer.actor.name = Some(person.name.clone());
    viewer.frame.holder = Some(person);
    Ok(viewer)
}

impl FromRequest for Viewer {
    type Error = Halt;
    type Future = std::future::Ready<Result<Self, Halt>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        std::future::ready(admitted(request, Need::Look))
    }
}

/// Someone who may look at registered contexts.
pub(super) struct ContextViewer(pub(super) Viewer);

impl FromRequest for ContextViewer {
    type Error = Halt;
    type Future = std::future::Ready<Result<Self, Halt>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        std::future::ready(admitted(request, Need::LookAtContexts).map(Self))
    }
}

/// Someone whose request may change something, and who sent it from a page of ours.
pub(super) struct Changer(pub(super) Viewer);

impl FromRequest for Changer {
    type Error = Halt;
    type Future = std::future::Ready<Result<Self, Halt>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let admitted = own(request).and_then(|()| admitted(request, Need::Act));
        std::future::ready(admitted.map(Self))
    }
}

/// A stranger who sent a form from a page of ours: who logs in or out.
pub(super) struct Poster(pub(super) Viewer);

impl FromRequest for Poster {
    type Error = Halt;
    type Future = std::future::Ready<Result<Self, Halt>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        std::future::ready(own(request).and_then(|()| stranger(request)).map(Self))
    }
}

/// Refuses what no page of ours sent. A cookie goes along with requests from other ports of this machine, so it is no
/// proof.
pub(super) fn own(request: &HttpRequest) -> Result<(), Halt> {
    if loopback::own_page(request.headers()) {
        return Ok(());
    }
    let viewer = stranger(request)?;
    let t = viewer.t();
    Err(viewer.halt(StatusCode::FORBIDDEN, t.error_title, t.foreign_page))
}
