//! The whole service except the broker, over real sockets.

mod callbacks;
mod contexts;
pub(super) mod double;
mod internal;
mod pages;
mod peers;
mod registry;
mod reloading;
mod stopping;
mod told;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::ready};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};

use super::{App, Controls, Resources, Settings, Start};
use crate::{
    callback::CredentialSettings,
    console, context, http,
    intake::{self, EndpointSettings, Locale},
    ledger::{Ledger, OnConflict},
    secret::Secret,
    telemetry::metrics::Metrics,
};
use double::Double;

const TOKEN: &str = "fake-token";
const KEY: &str = "fake-key";

/// Only keeps a broken test from hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `reached`; fails with `what` on timeout.
async fn eventually(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !reached().await {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn endpoint(name: &str, key: Option<&str>, locale: Locale) -> EndpointSettings {
    EndpointSettings {
        name: name.to_owned(),
        approval_codes: Vec::new(),
        credentials: vec![CredentialSettings {
            action_callback_token: Secret::new(TOKEN),
            action_callback_key: key.map(Secret::new),
        }],
        actions: vec!["APPROVE".to_owned(), "REJECT".to_owned()],
        locale,
        sentences: std::collections::HashMap::new(),
        dedupe_window: Duration::from_secs(60),
        on_conflict: OnConflict::Refuse,
        repeats_window: Duration::from_secs(3600),
        answer_wait: None,
        context: context::Settings {
            formats: vec![context::Format::Opaque],
            on_unresolved: context::OnUnresolved::Publish,
        },
    }
}

/// Two endpoints: `plain`, whose approvers read Japanese, and `keyed`, English. Strangers read Chinese.
fn settings() -> Settings {
    Settings {
        http: http::Settings {
            listen: loopback(),
            max_body_bytes: 1024,
            body_read_timeout: Duration::from_secs(2),
            keep_alive: Duration::from_secs(75),
            max_unread_bytes: 1 << 20,
            unauthenticated_floor: Duration::from_millis(5),
            workers: 1,
            tls: None,
            peers: http::peers::Settings::default(),
        },
        console: console::Settings { listen: loopback(), token: None, tokens: Vec::new(), public_url: None },
        traces: None,
        intake: intake::Settings {
            endpoints: vec![endpoint("plain", None, Locale::Ja), endpoint("keyed", Some(KEY), Locale::En)],
            identities: true,
            locale: Locale::Zh,
        },
        client_certificate: None,
        shutdown_delay: Duration::ZERO,
        shutdown_grace: Duration::from_secs(5),
        search_file: None,
    }
}

/// A relay that does nothing until stop is requested.
fn idle_relay() -> Start {
    Arc::new(|mut resources: Resources| {
        async move {
            resources.stop.wait_for(Option::is_some).await.unwrap();
        }
        .boxed()
    })
}

struct Service {
    callbacks: SocketAddr,
    internal: SocketAddr,
    ledger: Arc<Double>,
    draining: Arc<AtomicBool>,
    leaving: Arc<AtomicBool>,
    controls: Arc<Controls>,
    metrics: Arc<Metrics>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Service {
    fn start() -> Self {
        Self::with(settings(), idle_relay())
    }

    fn with(settings: Settings, relay: Start) -> Self {
        let ledger = Arc::new(Double::default());
        let opened = ready(Ok(ledger.clone() as Arc<dyn Ledger>));
        let app = App::build(&settings, opened, relay).now_or_never().expect("nothing to wait for").unwrap();
        let (stop, stopped) = oneshot::channel();
        Self {
            callbacks: app.callbacks_address(),
            internal: app.console_address(),
            ledger,
            draining: app.draining.clone(),
            leaving: app.leaving.clone(),
            controls: Arc::new(app.controls()),
            metrics: app.metrics.clone(),
            stop,
            running: tokio::spawn(app.run(stopped.map(|stopped| {
                stopped.unwrap();
                std::future::pending()
            }))),
        }
    }

    async fn post(&self, endpoint: &str, body: &str) -> Answer {
        let mut connection = Connection::open(self.callbacks).await;
        connection.send(&post(endpoint, body)).await;
        connection.answer().await
    }

    async fn get(&self, path: &str) -> Answer {
        self.get_with(path, "").await
    }

    async fn get_with(&self, path: &str, headers: &str) -> Answer {
        let mut connection = Connection::open(self.internal).await;
        connection.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")).await;
        connection.answer().await
    }

    /// Only sets the flag, as the first step of stopping does.
    fn drain(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.draining.store(true, Ordering::Relaxed);
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.running).await.unwrap().unwrap().unwrap();
    }
}

fn post(endpoint: &str, body: &str) -> String {
    format!("POST /callbacks/{endpoint} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn callback(task: &str) -> String {
    format!(
        r#"{{"action_type":"APPROVE","user_id":"u1","instance_id":"i1","task_id":"{task}","token":"{TOKEN}"}}"#
    )
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (header, value) = line.split_once(": ")?;
            header.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}\n{}", self.head, self.body))
    }

    /// Everything except the date.
    fn but_the_date(&self) -> String {
        let mut head: Vec<_> =
            self.head.lines().filter(|line| !line.to_lowercase().starts_with("date:")).collect();
        head.push(&self.body);
        head.join("\n")
    }
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), received: Vec::new() }
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    async fn read_some(&mut self) -> usize {
        tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await.unwrap().unwrap()
    }

    /// The next head: the whole answer to `HEAD`, whatever length it states.
    async fn head(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            assert!(self.read_some().await > 0, "closed after {:?}", String::from_utf8_lossy(&self.received));
        };
        let head = String::from_utf8(self.received[..end].to_vec()).unwrap();
        self.received.drain(..end + 4);
        Answer { status: head[9..12].parse().unwrap(), head, body: String::new() }
    }

    async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        let length: usize = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.received.len() < length {
            assert!(self.read_some().await > 0, "closed in the middle of a body");
        }
        answer.body = String::from_utf8(self.received.drain(..length).collect()).unwrap();
        answer
    }

    /// Resolves when the peer has closed the connection; no more data may come before that.
    async fn closed(&mut self) {
        assert_eq!(self.read_some().await, 0, "got {:?}", String::from_utf8_lossy(&self.received));
    }
}
