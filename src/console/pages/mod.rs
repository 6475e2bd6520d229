//! The operator's pages: HTML over the same view types as the JSON API, made here and complete without a script.
//!
//! Every text on a page may come from a stranger. Two rules keep it harmless, and neither depends on an author who
//! remembers it: templates escape everything (a test forbids the filter that does not), and each rendered page passes
//! [`taming::lines`], so that control and bidirectional characters are shown by their code.
//!
//! [`Viewer`] is who looks at a page, and the frame round it; [`Changer`] is a viewer whose request may change
//! something. A handler that takes neither serves strangers.

mod acting;
mod acts;
mod assets;
mod contexts;
mod decisions;
mod export;
mod findings;
mod health;
mod home;
mod live;
mod login;
mod lookup;
mod parked;
mod phrases;
mod refusals;
mod why;

use std::{fmt, future::Future, time::Duration};

use actix_web::{
    FromRequest, HttpRequest, HttpResponse, ResponseError,
    dev::Payload,
    http::{
        StatusCode,
        header::{ACCEPT, ACCEPT_LANGUAGE, COOKIE, HOST, HeaderMap, HeaderValue, LOCATION, SET_COOKIE},
    },
    web,
};
use askama::Template;

use super::{
    Desk, Entry,
    access::{LOOPBACK, Need},
    get,
    problem::Problem,
};
use crate::{
    command::CommandId,
    ledger::{Actor, LookError, Record, State, Via},
    loopback,
    telemetry::taming,
    time::{Timestamp, Zone},
};
use phrases::{FaultWords, Language, Phrases};

pub(super) use live::Streams;
pub(super) use parked::Results;

/// The routes of the pages; `/` is the listener's own, since programs read it as well.
pub(super) const TABLE: [Entry; 25] = [
    ("GET", "/assets/{name}", || get().to(assets::get)),
    ("GET", "/login", || get().to(login::page)),
    ("POST", "/login", || web::post().to(login::log_in)),
    ("POST", "/logout", || web::post().to(login::log_out)),
    ("GET", "/why", || get().to(why::page)),
    ("GET", "/decisions", || get().to(decisions::list)),
    ("GET", "/decisions.csv", || get().to(export::decisions_csv)),
    ("GET", "/decisions.jsonl", || get().to(export::decisions_jsonl)),
    ("GET", "/decisions/{command_id}", || get().to(decisions::one)),
    ("POST", "/decisions/{command_id}/requeue", || web::post().to(acting::requeue)),
    ("POST", "/decisions/{command_id}/park", || web::post().to(acting::park)),
    ("POST", "/decisions/{command_id}/show-again", || web::post().to(acting::show_again)),
    ("GET", "/refusals", || get().to(refusals::list)),
    ("GET", "/refusals.csv", || get().to(export::refusals_csv)),
    ("GET", "/refusals.jsonl", || get().to(export::refusals_jsonl)),
    ("GET", "/refusals/{id}", || get().to(refusals::one)),
    ("GET", "/parked", || get().to(parked::page)),
    ("GET", "/parked/requeue", || get().to(parked::confirm)),
    ("POST", "/parked/requeue", || web::post().to(parked::requeue)),
    ("GET", "/parked/results/{id}", || get().to(parked::result)),
    ("GET", "/findings", || get().to(findings::page)),
    ("GET", "/health", || get().to(health::page)),
    ("GET", "/acts", || get().to(acts::page_of)),
    ("GET", "/contexts/{key}", || get().to(contexts::page)),
    ("GET", "/live", || get().to(live::stream)),
];

pub(super) use home::page as home;

/// What a browser may do with a page: run our one script, show our one style sheet, send forms here, and nothing
/// else. Harmless on every other answer of this listener.
pub(super) const SECURITY_HEADERS: [(&str, &str); 4] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; \
         trusted-types cs",
    ),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

const LANGUAGE_COOKIE: &str = "countersign-lang";
const THEME_COOKIE: &str = "countersign-theme";

/// A language or theme is kept this long.
const YEAR_SECONDS: u32 = 31_536_000;

/// How long a person waits for the ledger.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether a page is wanted: the client names `text/html`. Programs that accept anything get what they got before
/// there were pages.
pub(super) fn wants_html(request: &HttpRequest) -> bool {
    let mut named = request.headers().get_all(ACCEPT).filter_map(|value| value.to_str().ok());
    named.any(|value| {
        value.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"))
                && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
        })
    })
}

/// Light or dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Theme {
    /// As the system says.
    Auto,
    Light,
    Dark,
}

impl Theme {
    fn parse(word: &str) -> Option<Self> {
        [Self::Auto, Self::Light, Self::Dark].into_iter().find(|theme| theme.as_str() == word)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    fn color_scheme(self) -> &'static str {
        match self {
            Self::Auto => "light dark",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Auto => Self::Dark,
            Self::Dark => Self::Light,
            Self::Light => Self::Auto,
        }
    }

    /// The name of the theme in force; its link leads to the next.
    fn label(self, t: &Phrases) -> &'static str {
        match self {
            Self::Auto => t.theme_auto,
            Self::Light => t.theme_light,
            Self::Dark => t.theme_dark,
        }
    }
}

/// The person that a page names.
#[derive(Debug, Clone)]
struct Person {
    name: String,
    may_act: bool,
    /// There is a login, so there is a logout.
    by_session: bool,
}

/// One entry of the navigation.
struct NavItem {
    href: &'static str,
    label: &'static str,
    current: bool,
}

/// What stands round every page.
#[derive(Clone)]
struct Frame {
    theme: Theme,
    holder: Option<Person>,
    host: String,
    /// What was asked, so that it can be changed.
    q: String,
    other_language: String,
    next_theme: String,
    css: &'static str,
    js: &'static str,
    icon: &'static str,
    version: &'static str,
    /// Of the times on the page, now.
    offset: String,
    path: String,
    language: Language,
}

impl Frame {
    fn nav(&self) -> Vec<NavItem> {
        let t = self.language.phrases();
        let items = [
            ("/", t.nav_home),
            ("/decisions", t.nav_decisions),
            ("/refusals", t.nav_refusals),
            ("/parked", t.nav_parked),
            ("/findings", t.nav_findings),
            ("/acts", t.nav_acts),
            ("/health", t.nav_health),
        ];
        let is_current = |href: &str| match self.path.strip_prefix(href) {
            Some(rest) => rest.is_empty() || (href != "/" && rest.starts_with('/')),
            None => false,
        };
        items.map(|(href, label)| NavItem { href, label, current: is_current(href) }).into()
    }

    fn may_act(&self) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.may_act)
    }
}

/// Who looks at a page, in which language.
pub(super) struct Viewer {
    frame: Frame,
    actor: Actor,
    zone: Zone,
    cookies: Vec<String>,
}

impl Viewer {
    /// The words of the language.
    fn t(&self) -> &'static Phrases {
        self.frame.language.phrases()
    }

    fn when(&self, at: Timestamp) -> When {
        When::of(at, &self.zone)
    }

    /// A person's name and time on a page, to the second.
    fn shown(&self, at: Timestamp) -> String {
        self.when(at).shown
    }

    /// The rendered page.
    fn page(&self, page: &impl Template) -> HttpResponse {
        self.answer(StatusCode::OK, page)
    }

    fn answer(&self, status: StatusCode, page: &impl Template) -> HttpResponse {
        let mut response = HttpResponse::build(status);
        response.content_type("text/html; charset=utf-8");
        set_cookies(&mut response, &self.cookies);
        response.body(rendered(page))
    }

    /// The page for what went wrong; takes the frame, since the page is the answer.
    fn halt(self, status: StatusCode, title: &'static str, message: impl Into<String>) -> Halt {
        let t = self.t();
        let next = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(t.next_doctor);
        let cookies = self.cookies;
        let page = ErrorPage { f: self.frame, t, title, message: message.into(), next };
        Halt::page(status, rendered(&page), cookies)
    }

    /// Waits for the ledger.
    async fn look<T>(&self, looking: impl Future<Output = Result<T, LookError>>) -> Result<T, Unread> {
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

    fn unread(self, unread: &Unread) -> Halt {
        let t = self.t();
        self.halt(StatusCode::SERVICE_UNAVAILABLE, t.error_title, unread.0)
    }

    fn not_found(self, message: &'static str) -> Halt {
        let t = self.t();
        self.halt(StatusCode::NOT_FOUND, t.not_found_title, message)
    }
}

/// Why the ledger gave no answer, in a sentence.
struct Unread(&'static str);

/// Runs a look-up, and answers with a page that says so if it fails.
macro_rules! look {
    ($viewer:ident, $looking:expr) => {
        match $viewer.look($looking).await {
            Ok(found) => found,
            Err(unread) => return Err($viewer.unread(&unread)),
        }
    };
}
use look;

#[derive(Template)]
#[template(path = "error.html", config = "src/console/pages/askama.toml")]
struct ErrorPage {
    f: Frame,
    t: &'static Phrases,
    title: &'static str,
    message: String,
    next: Option<&'static str>,
}

/// An answer that ends a request early.
#[derive(Debug)]
pub(super) enum Halt {
    Page { status: StatusCode, body: String, cookies: Vec<String> },
    SeeOther(String),
    Problem(Problem),
}

impl Halt {
    fn page(status: StatusCode, body: String, cookies: Vec<String>) -> Self {
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

fn rendered(page: &impl Template) -> String {
    let html = page.render().expect("a page of texts and numbers always renders");
    taming::lines(&html).into_owned()
}

fn set_cookies(response: &mut actix_web::HttpResponseBuilder, cookies: &[String]) {
    for cookie in cookies {
        let value = HeaderValue::from_str(cookie).expect("our cookies are ASCII");
        response.append_header((SET_COOKIE, value));
    }
}

/// After a change: the browser gets the page by a request of its own, and reloading it repeats nothing.
fn see_other(to: &str) -> HttpResponse {
    let place = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("/"));
    HttpResponse::SeeOther().insert_header((LOCATION, place)).finish()
}

/// A time as pages show it.
#[derive(Debug, Clone)]
struct When {
    utc: String,
    shown: String,
}

impl When {
    fn of(at: Timestamp, zone: &Zone) -> Self {
        // `2026-11-20T16:15:30.123+08:00`: the offset stays, milliseconds only where they tell apart.
        let text = zone.show(at);
        let (date, time) = text.split_once('T').unwrap_or((&text, ""));
        let (time, offset) = time.split_at_checked(12).unwrap_or((time, ""));
        let second = time.split('.').next().unwrap_or_default();
        Self { utc: at.to_string(), shown: format!("{date} {second}{offset}") }
    }

    /// With milliseconds.
    fn exact(at: Timestamp, zone: &Zone) -> Self {
        Self { utc: at.to_string(), shown: zone.show(at).replacen('T', " ", 1) }
    }
}

/// A span of time in its largest unit: what people say.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A word with a shape and a colour: no state is told by colour alone.
#[derive(Debug, Clone)]
struct Mark {
    class: &'static str,
    shape: &'static str,
    word: String,
}

impl Mark {
    fn of(state: State) -> Self {
        let (class, shape) = match state {
            State::Pending => ("pending", "○"),
            State::Published => ("published", "●"),
            State::Parked => ("parked", "■"),
            State::Rejected => ("rejected", "▲"),
            State::Unrouted => ("unrouted", "△"),
        };
        Self { class, shape, word: state.as_str().to_owned() }
    }

    fn good(word: impl Into<String>) -> Self {
        Self { class: "good", shape: "✓", word: word.into() }
    }

    fn bad(word: impl Into<String>) -> Self {
        Self { class: "bad", shape: "✕", word: word.into() }
    }
}

/// One line of a list of details.
struct Fact {
    name: &'static str,
    value: String,
    href: Option<String>,
}

impl Fact {
    fn of(name: &'static str, value: impl Into<String>) -> Self {
        Self { name, value: value.into(), href: None }
    }

    fn link(name: &'static str, value: impl Into<String>, href: String) -> Self {
        Self { name, value: value.into(), href: Some(href) }
    }
}

/// A choice in a form.
struct Choice {
    value: &'static str,
    word: &'static str,
    chosen: bool,
}

fn choices(words: impl IntoIterator<Item = &'static str>, chosen: &str) -> Vec<Choice> {
    words.into_iter().map(|word| Choice { value: word, word, chosen: word == chosen }).collect()
}

/// A text field of a form.
struct Field {
    name: &'static str,
    label: &'static str,
    value: String,
    wrong: bool,
}

/// What a page brings to its pill of new entries.
struct Live {
    head: u64,
    refusals: u64,
}

/// Where a page of one command is.
fn decision_href(id: CommandId) -> String {
    format!("/decisions/{id}")
}

/// `instance / task`, as far as they are known.
fn task_of(instance: Option<&str>, task: Option<&str>) -> String {
    match (instance, task) {
        (Some(instance), Some(task)) => format!("{instance} / {task}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "–".to_owned(),
    }
}

fn action_of(word: &str, t: &Phrases) -> String {
    match word {
        "approve" => t.approve.to_owned(),
        "reject" => t.reject.to_owned(),
        "custom" => t.custom.to_owned(),
        other => other.to_owned(),
    }
}

fn meaning_of(state: State, t: &Phrases) -> &'static str {
    match state {
        State::Pending => t.state_pending,
        State::Published => t.state_published,
        State::Parked => t.state_parked,
        State::Rejected => t.state_rejected,
        State::Unrouted => t.state_unrouted,
    }
}

/// A decision in a list.
struct DecisionRow {
    href: String,
    at: When,
    user: String,
    action: String,
    task: String,
    endpoint: String,
    mark: Mark,
    outcome: Option<String>,
    note: Option<String>,
}

impl DecisionRow {
    fn of(record: &Record, viewer: &Viewer) -> Self {
        let outcome = record.outcome.as_ref().map(|outcome| match outcome.showing {
            crate::ledger::ShowingState::Nothing => outcome.outcome.as_str().to_owned(),
            showing => format!("{}, {}", outcome.outcome.as_str(), showing.as_str()),
        });
        Self {
            href: decision_href(record.command_id),
            at: viewer.when(record.received_at),
            user: clipped(&record.user_id),
            action: action_of(&record.action, viewer.t()),
            task: clipped(&task_of(record.instance_id.as_deref(), record.task_id.as_deref())),
            endpoint: clipped(&record.endpoint),
            mark: Mark::of(record.state),
            outcome,
            note: record.note.as_deref().map(clipped),
        }
    }
}

/// A path with a query. Empty values are left out.
fn link<'a>(path: &str, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut href = path.to_owned();
    let mut sign = '?';
    for (name, value) in pairs {
        if !value.is_empty() {
            href.push(sign);
            href.push_str(name);
            href.push('=');
            href.push_str(&encoded(value));
            sign = '&';
        }
    }
    href
}

fn encoded(text: &str) -> String {
    const PLAIN: percent_encoding::AsciiSet =
        percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encoding::utf8_percent_encode(text, &PLAIN).to_string()
}

/// The query, without what is for the frame, and without the fields of a form that were left empty.
fn query(request: &HttpRequest) -> Vec<(String, String)> {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
    let pairs = pairs.map(web::Query::into_inner).unwrap_or_default();
    pairs
        .into_iter()
        .map(|(name, value)| (name, value.trim().to_owned()))
        .filter(|(name, value)| !value.is_empty() && !matches!(&**name, "lang" | "theme"))
        .collect()
}

/// The value of a cookie.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut all =
        headers.get_all(COOKIE).filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    all.find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// A frame in the language and theme that the request asks for, and the cookies that keep them.
fn framed(request: &HttpRequest, zone: &Zone) -> (Frame, Vec<String>) {
    let headers = request.headers();
    let asked = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
    let asked = asked.map(web::Query::into_inner).unwrap_or_default();
    let of_query = |name: &str| asked.iter().find(|(one, _)| one == name).map(|(_, value)| value.as_str());
    let mut cookies = Vec::new();
    let mut keep = |name: &str, value: &str| {
        cookies.push(format!("{name}={value}; Path=/; Max-Age={YEAR_SECONDS}; SameSite=Strict"));
    };
    let language = match of_query("lang").and_then(Language::parse) {
        Some(language) => {
            keep(LANGUAGE_COOKIE, language.code());
            language
        }
        None => cookie(headers, LANGUAGE_COOKIE).and_then(Language::parse).unwrap_or_else(|| {
            let header = headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
            Language::accepted(header.unwrap_or_default())
        }),
    };
    let theme = match of_query("theme").and_then(Theme::parse) {
        Some(theme) => {
            keep(THEME_COOKIE, theme.as_str());
            theme
        }
        None => cookie(headers, THEME_COOKIE).and_then(Theme::parse).unwrap_or(Theme::Auto),
    };
    let path = request.path().to_owned();
    let is_read = request.method().is_safe();
    let others = query(request);
    let here = |name: &str, value: &str| {
        let others = others.iter().filter(|_| is_read).map(|(name, value)| (&**name, &**value));
        link(if is_read { &path } else { "/" }, others.chain([(name, value)]))
    };
    let now = zone.show(Timestamp::now());
    let frame = Frame {
        theme,
        holder: None,
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        q: if path == "/why" { of_query("q").unwrap_or_default().to_owned() } else { String::new() },
        other_language: here("lang", language.other().code()),
        next_theme: here("theme", theme.next().as_str()),
        css: assets::css(),
        js: assets::js(),
        icon: assets::icon_path(),
        version: env!("CARGO_PKG_VERSION"),
        offset: now.get(23..).unwrap_or("Z").replace('Z', "UTC"),
        path,
        language,
    };
    (frame, cookies)
}

/// A text for a list: a stranger may have made it long.
fn clipped(text: &str) -> String {
    const MOST: usize = 120;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The zone of this machine: what its log and its people go by.
fn zone() -> Zone {
    Zone::local().unwrap_or(Zone::UTC)
}

fn desk(request: &HttpRequest) -> &Desk {
    request.app_data::<web::Data<Desk>>().expect("the listener shares its desk with every route")
}

fn host(request: &HttpRequest) -> Option<&str> {
    loopback::single(request.headers(), &HOST)
}

/// A viewer without a name: for the page of the login, and for errors.
fn stranger(request: &HttpRequest) -> Result<Viewer, Halt> {
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

/// Finds out who looks.
fn admitted(request: &HttpRequest, need: Need) -> Result<Viewer, Halt> {
    let mut viewer = stranger(request)?;
    let t = viewer.t();
    let desk = desk(request);
    let tokens = desk.access.tokens();
    let person = if tokens.is_empty() {
        // A page whose name was made to lead here would be this listener's own for a browser; but it has that name.
        if !host(request).is_some_and(loopback::is_authority) {
            return Err(viewer.halt(StatusCode::FORBIDDEN, t.error_title, t.foreign_page));
        }
        Person { name: LOOPBACK.to_owned(), may_act: true, by_session: false }
    } else {
        let value = cookie(request.headers(), &desk.cookie);
        let holder = value.and_then(|value| desk.sessions.used(value, &tokens, std::time::Instant::now()));
        let Some(holder) = holder else { return Err(login::wanted(request, viewer)) };
        if !holder.may(need) {
            return Err(viewer.halt(StatusCode::FORBIDDEN, t.error_title, t.not_permitted));
        }
        Person { may_act: holder.may(Need::Act), name: holder.name, by_session: true }
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
pub(super) struct ContextViewer(Viewer);

impl FromRequest for ContextViewer {
    type Error = Halt;
    type Future = std::future::Ready<Result<Self, Halt>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        std::future::ready(admitted(request, Need::LookAtContexts).map(Self))
    }
}

/// Someone whose request may change something, and who sent it from a page of ours.
pub(super) struct Changer(Viewer);

impl FromRequest for Changer {
    type Error = Halt;
    type Future = std::future::Ready<Result<Self, Halt>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let admitted = own(request).and_then(|()| admitted(request, Need::Act));
        std::future::ready(admitted.map(Self))
    }
}

/// A stranger who sent a form from a page of ours: who logs in or out.
pub(super) struct Poster(Viewer);

impl FromRequest for Poster {
    type Error = Halt;
    type Future = std::future::Ready<Result<Self, Halt>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        std::future::ready(own(request).and_then(|()| stranger(request)).map(Self))
    }
}

/// Refuses what no page of ours sent. A cookie goes along with requests from other ports of this machine, so it is no
/// proof.
fn own(request: &HttpRequest) -> Result<(), Halt> {
    if loopback::own_page(request.headers()) {
        return Ok(());
    }
    let viewer = stranger(request)?;
    let t = viewer.t();
    Err(viewer.halt(StatusCode::FORBIDDEN, t.error_title, t.foreign_page))
}

/// For a browser that went to no page.
pub(super) fn not_found(request: &HttpRequest) -> HttpResponse {
    match stranger(request) {
        Ok(viewer) => {
            let message = viewer.t().not_found_message;
            viewer.not_found(message).error_response()
        }
        Err(halt) => halt.error_response(),
    }
}

/// The text fields of a form.
fn fields<const N: usize>(
    pairs: &[(String, String)],
    names: [(&'static str, &'static str); N],
    wrong: Option<&str>,
) -> Vec<Field> {
    let value = |name: &str| pairs.iter().find(|(one, _)| one == name).map(|(_, value)| value.clone());
    let field = |(name, label)| Field {
        name,
        label,
        value: value(name).unwrap_or_default(),
        wrong: wrong == Some(name),
    };
    names.map(field).into()
}

/// The value of a form's choice.
fn chosen<'a>(pairs: &'a [(String, String)], name: &str) -> &'a str {
    pairs.iter().find(|(one, _)| one == name).map_or("", |(_, value)| value)
}

#[cfg(test)]
mod tests;
