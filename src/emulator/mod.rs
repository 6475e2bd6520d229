//! An emulator of the approval center. It behaves as `docs/platform.md` describes, including the traps. It lets
//! newcomers run the whole loop without a tenant.
//!
//! It is built from that reference alone and deliberately shares no code with [`crate::center::client`], so that it
//! tests the client independently. Behaviour that the reference leaves open is decided here and marked `OPEN`.
//!
//! # Modules
//! | part | subject |
//! |---|---|
//! | `routes` | every API |
//! | `gate` | who may call, how often, and how answers and failures look |
//! | `tenant` | everything that is kept, in memory |
//! | `definitions`, `instances`, `tasks`, `search`, `messages`, `contact`, `tokens` | the platform's APIs |
//! | `press` | an approver presses a button: the real callback goes out, and what they then see |
//! | `taps` | the last taps, with what became of each |
//! | `desk` | `/emulator/…`: pressing, looking, and making things fail, as JSON |
//! | `demo` | the third party of `countersign dev` |
//! | `page` | the page for browsers: a phone, and what happened |
//! | `scenarios` | what happens in earnest, played in the demo: expected beside seen |
//! | `stream` | tells pages that something has changed |

mod api;
mod contact;
mod definitions;
mod demo;
mod desk;
mod fields;
mod gate;
mod instances;
mod messages;
mod page;
mod press;
mod routes;
mod scenarios;
mod search;
mod stream;
mod taps;
mod tasks;
mod tenant;
mod tokens;
mod values;

use std::{
    io,
    net::TcpListener,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use actix_web::{App, HttpServer, dev::Server, middleware, web};

pub use demo::{DEFINITION, Demo, Manner};
pub use taps::{Arrived, Reported};
use tenant::Tenant;
use tokio::sync::watch;

/// Settings of the emulator.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The only app that exists.
    pub app_id: String,
    /// The app's secret, a fake.
    pub app_secret: String,
    /// For store apps: the expected ticket.
    pub app_ticket: String,
    /// For store apps: the tenant.
    pub tenant_key: String,
    /// Lifetime of an access token.
    pub token_lifetime: Duration,
    /// Maximum calls of one API per second.
    pub per_second: u32,
    /// Maximum calls of one API per minute.
    pub per_minute: u32,
    /// Scopes that the app lacks.
    pub missing_scopes: Vec<String>,
    /// Timeout for the response to a callback: 10 s at Feishu, 5 s at Lark (platform.md#callback-transport).
    pub callback_timeout: Duration,
    /// The tenant's users, by `user_id`.
    pub users: Vec<String>,
    /// How far the emulator's clock is ahead of this machine's.
    pub clock_ahead: Duration,
    /// Host names to accept, in addition to `localhost` and IP addresses.
    pub hosts: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            app_id: "cli_emulator".to_owned(),
            app_secret: "emulator-secret".to_owned(),
            app_ticket: "emulator-ticket".to_owned(),
            tenant_key: "emulator-tenant".to_owned(),
            token_lifetime: Duration::from_secs(7200),
            per_second: 50,
            per_minute: 1000,
            missing_scopes: Vec::new(),
            callback_timeout: Duration::from_secs(10),
            users: ["zhang3", "li4", "wang5"].map(str::to_owned).to_vec(),
            clock_ahead: Duration::ZERO,
            hosts: Vec::new(),
        }
    }
}

/// The approval center's stand-in. Everything is in memory.
pub struct Emulator {
    settings: Settings,
    tenant: Mutex<Tenant>,
    client: reqwest::Client,
    /// Counts changes of anything that a page shows.
    changes: watch::Sender<u64>,
    streams: stream::Streams,
    /// Set once, if this is a demo.
    demo: OnceLock<Demo>,
    /// Set once, if it sees the commands of a real service: whether it does so now.
    followed: OnceLock<watch::Receiver<bool>>,
    scenarios: scenarios::Results,
}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Emulator")
    }
}

impl Emulator {
    /// A tenant without definitions, instances and cards.
    ///
    /// # Errors
    /// The HTTP client for callbacks cannot be created.
    pub fn new(settings: Settings) -> io::Result<Arc<Self>> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("countersign-emulator/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(io::Error::other)?;
        let tenant = Mutex::new(Tenant::new(&settings));
        let (changes, streams) = (watch::Sender::new(0), stream::Streams::default());
        let scenarios = scenarios::Results::default();
        let (demo, followed) = (OnceLock::new(), OnceLock::new());
        Ok(Arc::new(Self { settings, tenant, client, changes, streams, demo, followed, scenarios }))
    }

    /// From now on commands and reports of a real service arrive while `connected`; see [`Self::broker_changed`].
    pub fn follow(&self, connected: watch::Receiver<bool>) {
        self.followed.set(connected).ok();
    }

    /// The connection to the broker has changed: that of the demo's relay, or the one that follows a real service.
    pub fn broker_changed(&self) {
        self.changed();
    }

    /// Whether commands can arrive now; `None` if they never do.
    fn sees_commands(&self) -> Option<bool> {
        let connected = self.demo.get().map(|demo| &demo.connected).or_else(|| self.followed.get());
        connected.map(|connected| *connected.borrow())
    }

    /// A worker received a command.
    pub fn arrived(&self, command: Arrived) {
        self.tenant().taps.arrived(command);
        self.changed();
    }

    /// A worker reported what became of a command.
    pub fn reported(&self, command_id: &str, report: Reported) {
        self.tenant().taps.reported(command_id, report);
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn tenant(&self) -> MutexGuard<'_, Tenant> {
        self.tenant.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the emulator on a socket that already listens. It runs while the result is polled.
///
/// # Errors
/// The socket cannot be used.
pub fn serve(emulator: Arc<Emulator>, socket: TcpListener) -> io::Result<Server> {
    let emulator = web::Data::from(emulator);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(emulator.clone())
            .app_data(web::PayloadConfig::new(4 * 1024 * 1024))
            .wrap(middleware::from_fn(gate::keep_pages_out))
            .configure(desk::routes)
            .configure(page::routes)
            .default_service(web::to(gate::answer))
    })
    .workers(1)
    .shutdown_timeout(1)
    .disable_signals()
    .listen(socket)?
    .run();
    Ok(server)
}
