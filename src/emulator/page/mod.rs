//! The page for browsers: a phone on one side, what its taps set off on the other. Rendered here; the script only makes
//! it live.
//!
//! Everything that others wrote passes through [`tame`] or [`tame_lines`] and the template's escaping.

mod assets;
mod bytes;
mod forms;
mod look;
mod phone;
mod phrases;
mod story;

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    guard::{self, GuardContext},
    http::{
        StatusCode,
        header::{self, Accept},
    },
    web,
};
use askama::Template;

use super::{
    Emulator,
    demo::Manner,
    press,
    scenarios::{self, Scenario, Words},
};
use crate::{
    loopback,
    telemetry::taming,
    time::{Timestamp, Zone},
};
use assets::NAMES;
use forms::see;
use look::Look;
use phone::Phone;
use phrases::Phrases;
use story::{Line, Shown, Story};

/// Taps listed beside the open one.
const LISTED: usize = 10;

/// Nothing but what comes from here. The script may make a document of a page that it has fetched from here, and nothing
/// else, through the one policy `cs`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'; \
                      require-trusted-types-for 'script'; trusted-types cs";

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(
            web::resource("/")
                .route(web::get().guard(guard::fn_guard(wants_a_page)).to(home))
                .default_service(web::to(super::gate::answer)),
        )
        .route("/assets/{name}", web::get().to(assets::asset))
        .route("/scenarios", web::get().to(list_scenarios))
        .route("/scenarios/{name}", web::get().to(scenario))
        .route("/taps", web::get().to(list))
        .route("/taps/{id}", web::get().to(one))
        .route("/taps/{id}/edit", web::get().to(edit_form))
        .service(
            web::scope("/do")
                .guard(guard::fn_guard(comes_from_here))
                .route("/tap", web::post().to(forms::tap))
                .route("/taps/{id}/replay", web::post().to(forms::replay))
                .route("/taps/{id}/edit", web::post().to(forms::edit))
                .route("/taps/{id}/worker", web::post().to(forms::worker))
                .route("/scenarios/{name}", web::post().to(play))
                .route("/valve", web::post().to(forms::valve))
                .route("/new/{what}", web::post().to(forms::make)),
        )
        .route("/do/{tail:.*}", web::post().to(forms::foreign));
}

/// A program that asks for nothing special gets what the platform answers.
fn wants_a_page(context: &GuardContext<'_>) -> bool {
    context
        .header::<Accept>()
        .is_some_and(|accept| accept.iter().any(|range| range.item.essence_str() == "text/html"))
}

/// Only forms of our own pages: a browser says so in `Sec-Fetch-Site`, or over plain HTTP on a network at least in
/// `Origin`. Programs have `/emulator/…`.
fn comes_from_here(context: &GuardContext<'_>) -> bool {
    let headers = context.head().headers();
    loopback::foreign_page(headers).is_none()
        && (loopback::single(headers, &header::HeaderName::from_static("sec-fetch-site"))
            == Some("same-origin")
            || headers.contains_key(header::ORIGIN))
}

/// A text of somebody else, on one line, without characters that act.
fn tame(text: &str) -> String {
    taming::Tamed(text).to_string()
}

/// The same with its line breaks.
fn tame_lines(text: &str) -> String {
    taming::lines(text).into_owned()
}

/// The time of day with its offset.
fn time_of(millis: i64) -> String {
    let zone = Zone::local().unwrap_or(Zone::UTC);
    let shown = zone.show(Timestamp::from_millisecond(millis).unwrap_or_default());
    shown.split_once('T').map_or(shown.clone(), |(_, time)| time.to_owned())
}

/// What every page has.
struct Frame<'a> {
    t: &'static Phrases,
    look: &'a Look,
    assets: &'static assets::Names,
    console: Option<String>,
    /// Words about the broker; a demo has them.
    broker: Option<Broker>,
}

struct Broker {
    words: &'static str,
    is_up: bool,
    is_open: bool,
    /// What the worker does, if that is not the usual.
    manner: Option<&'static str>,
}

impl<'a> Frame<'a> {
    fn of(emulator: &Emulator, look: &'a Look) -> Self {
        let t = look.phrases();
        let demo = emulator.demo.get();
        let broker = demo.map(|demo| {
            let (is_up, is_open) = (*demo.connected.borrow(), *demo.valve.borrow());
            let words = match (is_up, is_open) {
                (true, true) => t.broker_up,
                (false, true) => t.broker_away,
                (_, false) => t.broker_cut,
            };
            let manner = *demo.manner.borrow();
            let manner = (manner != Manner::Applied).then(|| t.manner(manner));
            Broker { words, is_up, is_open, manner }
        });
        Self { t, look, assets: &NAMES, console: demo.map(|demo| demo.console.clone()), broker }
    }
}

#[derive(Template)]
#[template(path = "page.html", config = "src/emulator/page/askama.toml")]
struct Page<'a> {
    frame: Frame<'a>,
    /// Changes that the page has in it.
    count: u64,
    phone: Phone,
    story: Option<Story>,
    lines: Vec<Line>,
    is_demo: bool,
    /// The newest tap, if another one is open.
    newer: Option<String>,
    /// The tap asked for is not kept.
    is_gone: bool,
    problem: Option<String>,
}

#[derive(Template)]
#[template(path = "taps.html", config = "src/emulator/page/askama.toml")]
struct List<'a> {
    frame: Frame<'a>,
    lines: Vec<Line>,
}

#[derive(Template)]
#[template(path = "edit.html", config = "src/emulator/page/askama.toml")]
struct Edit<'a> {
    frame: Frame<'a>,
    id: u64,
    back: String,
    body: String,
}

/// A scenario in the reader's language.
struct Told {
    name: &'static str,
    title: &'static str,
    lesson: &'static str,
    link: String,
    takes: String,
    needs_broker: bool,
    /// How it went, if it was played.
    is_fine: Option<bool>,
}

struct Checked {
    what: &'static str,
    expected: String,
    seen: String,
    is_fine: bool,
    tap: Option<(u64, String)>,
}

#[derive(Template)]
#[template(path = "scenarios.html", config = "src/emulator/page/askama.toml")]
struct Scenarios<'a> {
    frame: Frame<'a>,
    scenarios: Vec<Told>,
}

#[derive(Template)]
#[template(path = "scenario.html", config = "src/emulator/page/askama.toml")]
struct One<'a> {
    frame: Frame<'a>,
    s: Told,
    is_demo: bool,
    problem: Option<String>,
    /// Empty if it was not played.
    played_at: String,
    checks: Vec<Checked>,
    fine: usize,
    result: String,
    /// Of this emulator, as the browser knows it.
    url: String,
}

fn html(mut response: HttpResponseBuilder, look: &Look, page: &impl Template) -> HttpResponse {
    for cookie in look.cookies() {
        response.append_header((header::SET_COOKIE, cookie.as_str()));
    }
    response
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        // Not `no-referrer`: with it a browser sends `Origin: null` with a form.
        .insert_header((header::REFERRER_POLICY, "same-origin"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("cross-origin-opener-policy", "same-origin"))
        .insert_header(("cross-origin-resource-policy", "same-origin"));
    match page.render() {
        Ok(text) => response.body(text),
        Err(error) => {
            tracing::error!(%error, "a page cannot be rendered");
            HttpResponse::InternalServerError().finish()
        }
    }
}

fn look_of(emulator: &Emulator, request: &HttpRequest) -> Look {
    Look::of(request, &emulator.settings.users)
}

fn page(emulator: &Emulator, look: &Look, wanted: Option<u64>, problem: Option<String>) -> HttpResponse {
    let frame = Frame::of(emulator, look);
    let tenant = emulator.tenant();
    let taps = &tenant.taps;
    let newest = taps.newest().map(|tap| tap.id);
    let open = wanted.or(newest).and_then(|id| taps.get(id));
    let status = match (&problem, wanted, open) {
        (Some(_), ..) => StatusCode::CONFLICT,
        (None, Some(_), None) => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    };
    let page = Page {
        frame,
        count: *emulator.changes.borrow(),
        phone: phone::phone(&tenant, look),
        story: open.map(|tap| story::story(emulator, taps, tap, look)),
        lines: story::lines(taps, look, open.map(|tap| tap.id), LISTED),
        is_demo: emulator.demo.get().is_some(),
        newer: newest.filter(|newest| wanted.is_some_and(|wanted| wanted < *newest)).map(|_| look.link("/")),
        is_gone: wanted.is_some() && open.is_none(),
        problem,
    };
    drop(tenant);
    html(HttpResponse::build(status), look, &page)
}

async fn home(emulator: web::Data<Emulator>, request: HttpRequest) -> HttpResponse {
    page(&emulator, &look_of(&emulator, &request), None, None)
}

async fn one(emulator: web::Data<Emulator>, request: HttpRequest, id: web::Path<u64>) -> HttpResponse {
    page(&emulator, &look_of(&emulator, &request), Some(*id), None)
}

async fn list(emulator: web::Data<Emulator>, request: HttpRequest) -> HttpResponse {
    let look = look_of(&emulator, &request);
    let lines = story::lines(&emulator.tenant().taps, &look, None, usize::MAX);
    html(HttpResponse::Ok(), &look, &List { frame: Frame::of(&emulator, &look), lines })
}

const fn said(words: Words, look: &Look) -> &'static str {
    match look.lang {
        phrases::Lang::Zh => words.zh,
        phrases::Lang::En => words.en,
    }
}

fn told(emulator: &Emulator, look: &Look, scenario: &Scenario) -> Told {
    Told {
        name: scenario.name,
        title: said(scenario.title, look),
        lesson: said(scenario.lesson, look),
        link: look.link(format!("/scenarios/{}", scenario.name)),
        takes: (look.phrases().takes)(scenario.seconds),
        needs_broker: scenario.needs_broker,
        is_fine: emulator.scenarios.last(scenario.name).map(|played| played.is_fine()),
    }
}

/// A value of a check in the reader's words, as far as the page has some.
fn value_of(look: &Look, value: &str) -> String {
    let t = look.phrases();
    match value {
        "none" => t.no_answer.to_owned(),
        "pending" => t.kept_pending.to_owned(),
        "published" => t.kept_published.to_owned(),
        "parked" => t.kept_parked.to_owned(),
        press::TOO_LATE => t.no_answer_in_time.to_owned(),
        press::NOT_REACHED => t.nobody_there.to_owned(),
        other => phone::word_of(look, other),
    }
}

async fn list_scenarios(emulator: web::Data<Emulator>, request: HttpRequest) -> HttpResponse {
    let look = look_of(&emulator, &request);
    let scenarios = scenarios::all().iter().map(|scenario| told(&emulator, &look, scenario)).collect();
    html(HttpResponse::Ok(), &look, &Scenarios { frame: Frame::of(&emulator, &look), scenarios })
}

async fn scenario(
    emulator: web::Data<Emulator>,
    request: HttpRequest,
    name: web::Path<String>,
) -> HttpResponse {
    let look = look_of(&emulator, &request);
    let Some(scenario) = scenarios::find(&name) else { return see(&look.link("/scenarios")) };
    let played = emulator.scenarios.last(scenario.name);
    let checks = played.iter().flat_map(|played| &played.checks).map(|check| Checked {
        what: said(check.what, &look),
        expected: value_of(&look, &check.expected),
        seen: value_of(&look, &check.seen),
        is_fine: check.is_fine(),
        tap: check.tap.map(|tap| (tap, look.link(format!("/taps/{tap}")))),
    });
    let checks: Vec<Checked> = checks.collect();
    let fine = checks.iter().filter(|check| check.is_fine).count();
    let one = One {
        frame: Frame::of(&emulator, &look),
        s: told(&emulator, &look, scenario),
        is_demo: emulator.demo.get().is_some(),
        problem: played.as_ref().and_then(|played| played.problem.as_deref()).map(tame),
        played_at: played.as_ref().map(|played| time_of(played.at)).unwrap_or_default(),
        fine,
        result: (look.phrases().result)(fine, checks.len()),
        checks,
        // The guard has looked at the header.
        url: format!("http://{}", request.connection_info().host()),
    };
    html(HttpResponse::Ok(), &look, &one)
}

async fn play(emulator: web::Data<Emulator>, request: HttpRequest, name: web::Path<String>) -> HttpResponse {
    let look = look_of(&emulator, &request);
    let Some(scenario) = scenarios::find(&name) else { return see(&look.link("/scenarios")) };
    match scenarios::play(&emulator, scenario).await {
        Ok(_) => see(&look.link(format!("/scenarios/{}", scenario.name))),
        Err(problem) => page(&emulator, &look, None, Some(tame(&problem))),
    }
}

async fn edit_form(emulator: web::Data<Emulator>, request: HttpRequest, id: web::Path<u64>) -> HttpResponse {
    let look = look_of(&emulator, &request);
    let body = emulator.tenant().taps.get(*id).map(|tap| story::pretty(&tap.request.shown_plain()));
    let Some(body) = body else { return page(&emulator, &look, Some(*id), None) };
    let back = look.link(format!("/taps/{id}"));
    html(HttpResponse::Ok(), &look, &Edit { frame: Frame::of(&emulator, &look), id: *id, back, body })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use regex::Regex;

    /// What in a template goes round the escaping or the policy.
    fn faults(template: &str) -> Vec<String> {
        let squeezed = template.replace(' ', "");
        let mut faults: Vec<String> = ["|safe", "{%filter", "{%autoescape", "escape=\"none\""]
            .into_iter()
            .filter(|way| squeezed.contains(way))
            .map(str::to_owned)
            .collect();
        let expressions = Regex::new(r"(?s)\{[{%#].*?[}%#]\}").unwrap();
        let values = Regex::new(r#""[^"]*""#).unwrap();
        let wrong = Regex::new(r"=[^\s>]|(?i:\s(style|on[a-z]+)=)").unwrap();
        let text = expressions.replace_all(template, "x");
        for tag in text.split('<').skip(1) {
            // Values first: they may hold `=` and `>`.
            let tag = values.replace_all(tag, " ");
            let tag = tag.split('>').next().unwrap_or_default();
            if wrong.is_match(tag) {
                faults.push(tag.to_owned());
            }
        }
        faults
    }

    #[test]
    fn templates_have_no_way_round_the_escaping_or_the_policy() {
        for bad in [
            "<p>{{ text|safe }}</p>",
            "<p title={{ text }}>",
            "<p title=x>",
            "<p title='x'>",
            "<p class=\"a=b\" style=\"color: red\">",
            "<p {% if a %}x{% endif %} onclick=\"x()\">",
        ] {
            assert_ne!(faults(bad), Vec::<String>::new(), "{bad}");
        }
        assert_eq!(
            faults("<p title=\"{{ a(\"b\") }}\" class=\"x>y=z\"{% if a == b %} hidden{% endif %}>a=b</p>"),
            Vec::<String>::new()
        );
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/emulator/page/templates");
        let mut seen = 0;
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(
                faults(&fs::read_to_string(&path).unwrap()),
                Vec::<String>::new(),
                "{}",
                path.display()
            );
            seen += 1;
        }
        assert!(seen > 5, "templates are found: {seen}");
    }
}
