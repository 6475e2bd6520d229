//! The approval center's stand-in: behaves as `docs/platform.md` says, its traps included, so that a newcomer without
//! a tenant can walk the whole loop, and so that tests of [`crate::center::client`] stand on something that was not
//! written by reading that client.
//!
//! Built from the reference alone; nothing of [`crate::center::client`] is used, on purpose. What the reference leaves
//! open is decided here and marked `OPEN`.
//!
//! # What it is made of
//! | part | subject |
//! |---|---|
//! | `routes` | every API |
//! | `gate` | who may call, how often, and how answers and failures look |
//! | `tenant` | everything that is kept, in memory |
//! | `definitions`, `instances`, `tasks`, `search`, `messages`, `contact`, `tokens` | the platform's APIs |
//! | `press` | an approver presses a button: the real callback goes out, and what they then see |
//! | `desk` | `/emulator/…`: pressing, looking, and making things fail; a page for browsers will stand on it |

mod api;
mod contact;
mod definitions;
mod desk;
mod fields;
mod gate;
mod instances;
mod messages;
mod press;
mod routes;
mod search;
mod tasks;
mod tenant;
mod tokens;

use std::{
    io,
    net::TcpListener,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix_web::{App, HttpServer, dev::Server, middleware, web};

use tenant::Tenant;

/// What the emulator is like.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The only app it knows.
    pub app_id: String,
    /// That app's secret: a fake.
    pub app_secret: String,
    /// For store apps: the ticket it expects.
    pub app_ticket: String,
    /// For store apps: the tenant it has.
    pub tenant_key: String,
    /// Lifetime of an access token.
    pub token_lifetime: Duration,
    /// Calls of one API in a second.
    pub per_second: u32,
    /// Calls of one API in a minute.
    pub per_minute: u32,
    /// Scopes that the app does not have.
    pub missing_scopes: Vec<String>,
    /// How long it waits for the answer to a callback: 10 s at Feishu, 5 s at Lark (platform.md#callback-transport).
    pub callback_timeout: Duration,
    /// The users of the tenant, by `user_id`.
    pub users: Vec<String>,
    /// How far its clock is ahead of this machine's.
    pub clock_ahead: Duration,
    /// Names under which it may be asked, beside `localhost` and addresses.
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

/// What every request sees.
struct Emulator {
    settings: Settings,
    tenant: Mutex<Tenant>,
    client: reqwest::Client,
}

impl Emulator {
    fn tenant(&self) -> MutexGuard<'_, Tenant> {
        self.tenant.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts it on a socket that listens already. It runs while the result is polled, keeps everything in memory, and forgets
/// it at its end.
///
/// # Errors
/// The socket cannot be used, or no HTTP client for callbacks can be made.
pub fn serve(settings: Settings, socket: TcpListener) -> io::Result<Server> {
    let client = reqwest::Client::builder()
        .user_agent(concat!("countersign-emulator/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(settings.callback_timeout)
        .build()
        .map_err(io::Error::other)?;
    let tenant = Mutex::new(Tenant::new(&settings));
    let emulator = web::Data::from(Arc::new(Emulator { settings, tenant, client }));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(emulator.clone())
            .app_data(web::PayloadConfig::new(4 * 1024 * 1024))
            .wrap(middleware::from_fn(gate::keep_pages_out))
            .configure(desk::routes)
            .default_service(web::to(gate::answer))
    })
    .workers(1)
    .shutdown_timeout(1)
    .disable_signals()
    .listen(socket)?
    .run();
    Ok(server)
}
