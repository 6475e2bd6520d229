//! The internal listener: health, metrics, and the JSON API for operators. Never to be reachable from outside.
//!
//! Each route's function names the permission it needs in its signature: `Anyone` or `Operator`.

mod api;
mod health;
mod problem;

use std::{
    future::{Ready, ready},
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use actix_web::{
    App, FromRequest, HttpRequest, HttpResponse, HttpServer, Route,
    dev::{Payload, Server},
    http::{
        StatusCode,
        header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, HeaderValue, X_CONTENT_TYPE_OPTIONS},
    },
    middleware::DefaultHeaders,
    web,
};

use crate::{ledger::Ledger, secret::Secret, telemetry::metrics::Metrics};
use problem::Problem;

/// The internal listener's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The bearer token of the API; if absent none is asked for, which is for loopback only.
    pub token: Option<Secret>,
}

/// A route: method, path, and what serves it. All methods here are `GET`: nothing is changed through this listener.
type Entry = (&'static str, &'static str, fn() -> Route);

const TABLE: [Entry; 7] = [
    ("GET", "/", || web::get().to(home)),
    ("GET", "/livez", || web::get().to(health::livez)),
    ("GET", "/readyz", || web::get().to(health::readyz)),
    ("GET", "/metrics", || web::get().to(health::metrics)),
    ("GET", "/api/v1/commands", || web::get().to(api::list_commands)),
    ("GET", "/api/v1/commands/{command_id}", || web::get().to(api::find_command)),
    ("GET", "/api/v1/refusals", || web::get().to(api::list_refusals)),
];

/// Every internal route: method and path. `openapi.yaml` documents them, and a test compares.
pub fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.iter().map(|(method, path, _)| (*method, *path))
}

/// Scrapes, probes and a few people.
const MAX_CONNECTIONS: usize = 256;

/// What the requests of this listener share.
struct Desk {
    ledger: Arc<dyn Ledger>,
    metrics: Arc<Metrics>,
    draining: Arc<AtomicBool>,
    token: Option<Secret>,
    reasons: Vec<&'static str>,
    probe: health::Probe,
}

/// Starts the listener on a socket that listens already. The server runs while the result is polled.
///
/// `reasons` are the words that a callback may be refused with, for checking what operators ask for.
///
/// It is meant to be stopped last: while `draining` is true it goes on answering, and says unready.
///
/// # Errors
/// The socket cannot be used.
pub fn serve(
    settings: &Settings,
    socket: TcpListener,
    ledger: Arc<dyn Ledger>,
    metrics: Arc<Metrics>,
    draining: Arc<AtomicBool>,
    reasons: Vec<&'static str>,
) -> io::Result<Server> {
    let probe = health::Probe::new(ledger.clone());
    let desk =
        web::Data::new(Desk { ledger, metrics, draining, token: settings.token.clone(), reasons, probe });
    let server = HttpServer::new(move || {
        App::new()
            .wrap(
                // What is shown here is true for a moment, and never a document of the sender's choice.
                DefaultHeaders::new()
                    .add((CACHE_CONTROL, HeaderValue::from_static("no-store")))
                    .add((X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))),
            )
            .app_data(desk.clone())
            .configure(register)
    })
    .workers(1)
    .max_connections(MAX_CONNECTIONS)
    .client_request_timeout(Duration::from_secs(5))
    .keep_alive(Duration::from_secs(75))
    .disable_signals()
    .listen(socket)?
    .run();
    Ok(server)
}

fn register(config: &mut web::ServiceConfig) {
    for (_, path, route) in TABLE {
        config.service(web::resource(path).route(route()).default_service(web::to(method_not_allowed)));
    }
    config.default_service(web::to(not_found));
}

/// The permission to look at what tells nothing about any callback.
struct Anyone;

impl FromRequest for Anyone {
    type Error = std::convert::Infallible;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(_request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        ready(Ok(Self))
    }
}

/// The permission of operators: whoever has the configured token, everybody if none is configured.
struct Operator;

impl FromRequest for Operator {
    type Error = Problem;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let desk =
            request.app_data::<web::Data<Desk>>().expect("the listener shares its desk with every route");
        let permitted = match &desk.token {
            None => true,
            Some(token) => bearer(request).is_some_and(|offered| token.equals(offered)),
        };
        ready(if permitted { Ok(Self) } else { Err(Problem::unauthorized()) })
    }
}

fn bearer(request: &HttpRequest) -> Option<&str> {
    let (scheme, token) = request.headers().get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

async fn home(_: Anyone) -> HttpResponse {
    let mut page = String::from("countersign, internal listener\n\n");
    for (method, path) in routes() {
        page.push_str(method);
        page.push(' ');
        page.push_str(path);
        page.push('\n');
    }
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(page)
}

async fn not_found(_: Anyone) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "There is no such route; `/` names them all.")
}

async fn method_not_allowed(_: Anyone, request: HttpRequest) -> HttpResponse {
    let mut response = Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{} is not possible here, only GET.", request.method()),
    )
    .response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    response
}
