//! The internal listener: health, metrics, the JSON API and the pages for operators, and the registration of contexts
//! by the third party. It must never be reachable from outside.
//!
//! Each route's function declares the permission it needs in its signature: `Anyone`, `Onlooker`, `Operator`,
//! `ContextOnlooker` or `Registrar`.

pub mod access;
mod acts;
mod api;
mod contexts;
mod filters;
mod health;
mod negotiation;
mod orders;
mod pages;
mod permission;
mod problem;
mod reconciliation;
mod registration;
mod session;

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use actix_web::{
    App, FromRequest, HttpRequest, HttpResponse, HttpServer, ResponseError, Route,
    dev::Server,
    guard,
    http::{
        StatusCode,
        header::{ALLOW, CACHE_CONTROL, HeaderValue, X_CONTENT_TYPE_OPTIONS},
    },
    middleware::DefaultHeaders,
    web,
};

use crate::{
    ledger::{Filter, Found, Ledger, LookError, PATIENCE, Record, SearchFile},
    secret::Secret,
    telemetry::metrics::Metrics,
};
use access::{Access, NamedToken, PublicUrl};
use permission::{Anyone, WrongTokens};
use problem::Problem;
use session::Sessions;

/// Settings of the internal listener.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The bearer token that may do everything.
    pub token: Option<Secret>,
    /// Bearer tokens with a name and a role. Without any token none is required, which is allowed on loopback only.
    pub tokens: Vec<NamedToken>,
    /// Where browsers find the pages, if not at `listen`.
    pub public_url: Option<PublicUrl>,
}

/// What is said of refusals.
#[derive(Clone)]
pub struct Reasons {
    /// The possible reasons, for checking operators' filters.
    pub words: Vec<&'static str>,
    /// What the approver saw; `None` if it was no answer to a callback.
    pub sentence: Sentence,
}

/// From an endpoint's name, a reason and its kept cause to a sentence.
pub type Sentence = Arc<dyn Fn(&str, &str, Option<&str>) -> Option<String> + Send + Sync>;

impl fmt::Debug for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reasons").field("words", &self.words).finish_non_exhaustive()
    }
}

/// A route: method, path, and handler. Routes with the same path are adjacent.
type Entry = (&'static str, &'static str, fn() -> Route);

const TABLE: [Entry; 22] = [
    ("GET", "/", || get().to(home)),
    ("GET", "/livez", || get().to(health::livez)),
    ("GET", "/readyz", || get().to(health::readyz)),
    ("GET", "/metrics", || get().to(health::metrics)),
    ("GET", "/api/v1/commands", || get().to(api::list_commands)),
    ("GET", "/api/v1/commands/{command_id}", || get().to(api::find_command)),
    ("POST", "/api/v1/commands/{command_id}/requeue", || web::post().to(orders::requeue)),
    ("POST", "/api/v1/commands/{command_id}/park", || web::post().to(orders::park)),
    ("POST", "/api/v1/commands/{command_id}/show-again", || web::post().to(orders::show_again)),
    ("POST", "/api/v1/commands:requeue", || web::post().to(orders::requeue_many)),
    ("POST", "/api/v1/commands:park", || web::post().to(orders::park_many)),
    ("POST", "/api/v1/commands:show-again", || web::post().to(orders::show_many_again)),
    ("GET", "/api/v1/refusals", || get().to(api::list_refusals)),
    ("GET", "/api/v1/refusals/dropped", || get().to(api::dropped_refusals)),
    ("GET", "/api/v1/refusals/{id}", || get().to(api::find_refusal)),
    ("GET", "/api/v1/strays", || get().to(api::list_strays)),
    ("GET", "/api/v1/acts", || get().to(acts::list)),
    ("GET", "/api/v1/reconciliation", || get().to(reconciliation::get)),
    ("GET", "/api/v1/contexts/{key}", || get().to(contexts::get)),
    ("PUT", "/api/v1/contexts/{key}", || web::put().to(contexts::put)),
    ("DELETE", "/api/v1/contexts/{key}", || web::delete().to(contexts::delete)),
    ("POST", "/api/v1/contexts:batch", || web::post().to(contexts::batch)),
];

/// `GET` also permits `HEAD` (RFC 9110 §9.3.2), which some probes use.
fn get() -> Route {
    Route::new().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// Every internal route: method and path; `GET` includes `HEAD`. A test compares them with `openapi.yaml`.
pub fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    table().map(|(method, path, _)| (*method, *path))
}

fn table() -> impl Iterator<Item = &'static Entry> {
    TABLE.iter().chain(&pages::TABLE)
}

/// Scrapes, probes and a few people.
const MAX_CONNECTIONS: usize = 256;

/// The state that the requests of this listener share.
struct Desk {
    ledger: Arc<dyn Ledger>,
    search_file: Option<Arc<SearchFile>>,
    metrics: Arc<Metrics>,
    draining: Arc<AtomicBool>,
    access: Arc<Access>,
    wrong_tokens: WrongTokens,
    reasons: Reasons,
    probe: health::WriteProbe,
    sessions: Sessions,
    /// The name of the session's cookie. Browsers share cookies between the ports of a host, so it contains the port.
    cookie: String,
    streams: pages::Streams,
    results: pages::Results,
}

impl Desk {
    /// Commands that pass the filter, newest first, as far as they are found while a person waits.
    async fn search(&self, filter: Filter) -> Result<Found<Record>, LookError> {
        let filter = match &self.search_file {
            Some(file) => file.hinted(&*self.ledger, filter).await?,
            None => filter,
        };
        self.ledger.search(filter, PATIENCE).await
    }
}

/// Starts the server on a socket that already listens. It runs while the result is polled.
///
/// `access` decides who may use the API, and may change while the server runs.
///
/// Stop this server last: while `draining` is true, it still answers, and reports unready.
///
/// # Errors
/// The socket cannot be used.
pub fn serve(
    socket: TcpListener,
    access: Arc<Access>,
    ledger: Arc<dyn Ledger>,
    search_file: Option<Arc<SearchFile>>,
    metrics: Arc<Metrics>,
    draining: Arc<AtomicBool>,
    reasons: Reasons,
) -> io::Result<Server> {
    let desk = web::Data::new(Desk {
        probe: health::WriteProbe::new(ledger.clone()),
        ledger,
        search_file,
        metrics,
        draining,
        access,
        wrong_tokens: WrongTokens::default(),
        reasons,
        sessions: Sessions::default(),
        cookie: format!("__Host-countersign-{}", socket.local_addr()?.port()),
        streams: pages::Streams::default(),
        results: pages::Results::default(),
    });
    let server = HttpServer::new(move || {
        App::new()
            .wrap(
                // Answers are valid only for a moment, and must never be interpreted as a document chosen by the
                // sender.
                pages::SECURITY_HEADERS
                    .into_iter()
                    .fold(DefaultHeaders::new(), DefaultHeaders::add)
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
    // A form with the places of a thousand commands is the largest body that is read as a whole.
    config.app_data(web::PayloadConfig::new(64 << 10));
    let table: Vec<&Entry> = table().collect();
    for routes in table.chunk_by(|(_, one, _), (_, other, _)| one == other) {
        let mut resource = web::resource(routes[0].1);
        for (_, _, route) in routes {
            resource = resource.route(route());
        }
        config.service(resource.default_service(web::to(method_not_allowed)));
    }
    config.default_service(web::to(not_found));
}

/// A page for browsers, the list of routes for programs.
async fn home(_: Anyone, request: HttpRequest, desk: web::Data<Desk>) -> HttpResponse {
    if pages::wants_html(&request) {
        let page = match pages::Viewer::extract(&request).await {
            Ok(viewer) => pages::home(viewer, desk).await,
            Err(halt) => Err(halt),
        };
        return page.unwrap_or_else(|halt| halt.error_response());
    }
    let mut page = String::from("countersign, internal listener\n\n");
    for (method, path) in routes() {
        page.push_str(method);
        page.push(' ');
        page.push_str(path);
        page.push('\n');
    }
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(page)
}

async fn not_found(_: Anyone, request: HttpRequest) -> HttpResponse {
    if pages::wants_html(&request) {
        return pages::not_found(&request);
    }
    Problem::new(StatusCode::NOT_FOUND, "not_found", "No such route; `/` lists them all.").response()
}

async fn method_not_allowed(_: Anyone, request: HttpRequest) -> HttpResponse {
    let pattern = request.match_pattern().unwrap_or_default();
    let methods = routes().filter(|(_, path)| *path == pattern).map(|(method, _)| method);
    let possible: Vec<_> =
        methods.flat_map(|method| [method].into_iter().chain((method == "GET").then_some("HEAD"))).collect();
    let possible = possible.join(", ");
    let mut response = Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{} is not allowed here; allowed: {possible}.", request.method()),
    )
    .response();
    let allow = HeaderValue::from_str(&possible).expect("methods are ASCII");
    response.headers_mut().insert(ALLOW, allow);
    response
}
