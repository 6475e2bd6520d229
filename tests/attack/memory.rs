//! The memory cost of a crowd that opens connections, begins something on each, and never ends it: while it is
//! connected, and afterwards.
//!
//! `cargo test --test attack memory:: -- --nocapture` prints the table in docs/edge.md.

use crate::support::{App, Authority, Callback, Config, NOWHERE, PATIENCE, eventually};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// The default limit of one peer, and well below the limit of a process.
const CROWD: usize = 500;

fn resident_kib(pid: u32) -> usize {
    status_kib(pid, "VmRSS:")
}

fn status_kib(pid: u32, key: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("Linux tells");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The memory once it has not changed for a while.
async fn settled_kib(pid: u32) -> usize {
    let (mut last, mut same) = (0, 0);
    eventually("the memory to settle", async || {
        let now = resident_kib(pid);
        same = if now.abs_diff(last) <= 64 { same + 1 } else { 0 };
        last = now;
        if same >= 5 { Ok(now) } else { Err(now) }
    })
    .await
}

/// Opens a connection and sends these pieces on it, one at a time, until all are sent or the other side stops
/// reading.
fn begin(address: SocketAddr, pieces: &[Vec<u8>]) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("there is room for it");
    stream.set_nodelay(true).expect("a connected socket takes it");
    stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a connected socket takes it");
    for piece in pieces {
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    stream
}

struct Cost {
    what: &'static str,
    each_kib: f64,
    left_kib: f64,
}

async fn with_crowd(
    what: &'static str,
    app: &App,
    open: impl Fn() -> TcpStream + Send + 'static,
) -> (usize, Vec<TcpStream>) {
    let crowd = tokio::task::spawn_blocking(move || (0..CROWD).map(|_| open()).collect::<Vec<_>>());
    let crowd = crowd.await.expect("no panic");
    let there = settled_kib(app.pid()).await;
    let answer = app.post("leave", Callback::list("i", "meanwhile").plain()).await;
    assert_eq!(answer.status, 200, "{what}: others are heard meanwhile: {}", answer.text());
    (there, crowd)
}

/// The memory before the crowd. Allocations at first use do not count as its cost.
async fn without_crowd(app: &App) -> usize {
    assert_eq!(app.post("leave", Callback::list("i", "before").plain()).await.status, 200);
    settled_kib(app.pid()).await
}

fn each_kib(there: usize, before: usize) -> f64 {
    there.saturating_sub(before) as f64 / CROWD as f64
}

/// The memory once most of a crowd's share has been released.
async fn given_back(what: &'static str, app: &App, before: usize, there: usize) -> usize {
    let most_left = before + there.saturating_sub(before) / 4 + 2048;
    eventually(&format!("the memory of the crowd to be given back ({what})"), async || {
        // A thread releases memory only when it has work.
        let answer = app.post("leave", Callback::list("i", "after").plain()).await;
        assert_eq!(answer.status, 200, "{what}: others are heard after it: {}", answer.text());
        let now = resident_kib(app.pid());
        if now <= most_left { Ok(now) } else { Err(format!("{now} KiB, {before} before, {there} with it")) }
    })
    .await
}

/// The cost of each client while connected, and the remainder when all have left.
async fn cost(what: &'static str, app: &App, open: impl Fn() -> TcpStream + Send + 'static) -> Cost {
    let before = without_crowd(app).await;
    let (there, crowd) = with_crowd(what, app, open).await;
    drop(crowd);
    let gone = given_back(what, app, before, there).await;
    Cost { what, each_kib: each_kib(there, before), left_kib: each_kib(gone, before) }
}

fn head(length: &str) -> Vec<u8> {
    format!("POST /callbacks/leave HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n").into_bytes()
}

/// The name of each beginning, the maximum cost per client in KiB, and the bytes sent.
fn beginnings() -> Vec<(&'static str, f64, Vec<Vec<u8>>)> {
    let body = vec![vec![b' '; 600]; 100];
    let chunk = b"1\r\n \r\n".repeat(600);
    vec![
        ("nothing is sent", 32.0, vec![]),
        ("half a head", 32.0, vec![b"POST /callbacks/leave HTTP/1.1\r\nHost: x\r\n".to_vec()]),
        (
            "a head of 120 KiB without an end",
            300.0,
            [vec![b"POST / HTTP/1.1\r\nHost: x\r\nX: ".to_vec()], vec![vec![b'x'; 12_288]; 10]].concat(),
        ),
        ("60 000 bytes of a body", 160.0, [vec![head("Content-Length: 65536")], body].concat()),
        (
            "60 000 chunks of one byte",
            120.0,
            [vec![head("Transfer-Encoding: chunked")], vec![chunk; 100]].concat(),
        ),
    ]
}

fn config() -> Config {
    // So that nothing ends during the measurement.
    Config::with_url(NOWHERE).set("http", "body_read_timeout_ms", "60000")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_costs_little_and_what_it_cost_is_given_back() {
    let mut costs = Vec::new();
    for (what, most_kib, pieces) in beginnings() {
        let app = App::with(config()).await;
        let address = app.public();
        let cost = cost(what, &app, move || begin(address, &pieces)).await;
        costs.push((cost, most_kib));
    }

    let authority = Authority::new();
    let tls = config();
    let files = authority.issue(&["127.0.0.1"]).write(tls.dir(), "server");
    let app = App::with(tls.https(&authority, &files)).await;
    let address = app.public();
    costs.push((cost("TLS, and nothing is sent", &app, move || begin(address, &[])).await, 60.0));
    let app = App::with(config().https(&authority, &files)).await;
    let address = app.public();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("PEM"))
        .expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Arc::new(client);
    let greeted = move || {
        let mut stream = begin(address, &[]);
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let mut connection = rustls::ClientConnection::new(client.clone(), name).expect("a client");
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).expect("a handshake");
        }
        stream
    };
    costs.push((cost("TLS, and nothing is sent after the handshake", &app, greeted).await, 60.0));

    for (cost, most_kib) in &costs {
        show(&format!("{:>6.0} KiB {:>6.1} KiB left   {}", cost.each_kib, cost.left_kib, cost.what));
        assert!(cost.each_kib <= *most_kib, "{}: {:.0} KiB, at most {most_kib}", cost.what, cost.each_kib);
    }
}

#[expect(clippy::print_stderr, reason = "the table is for whoever asks for it")]
fn show(line: &str) {
    eprintln!("{line}");
}

/// Excludes mapped pages of the program itself, whose size depends on the build. Huge pages alone would be 16 MiB.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_nothing_to_do_needs_little_memory() {
    let app = App::with(config()).await;
    without_crowd(&app).await;
    let own = status_kib(app.pid(), "RssAnon:");
    show(&format!("{own:>6} KiB of its own when idle"));
    assert!(own <= 10 * 1024, "{own} KiB");
}

/// The crowd would take 60 MB, but gets 1. The same holds for all later ones.
#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_begun_and_not_ended_shares_one_budget() {
    for (what, _, pieces) in beginnings().into_iter().skip(2) {
        let app = App::with(config().set("http", "max_unread_bytes", "1048576")).await;
        let address = app.public();
        let before = without_crowd(&app).await;
        let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", app.pid())).expect("it runs").count();
        let few = descriptors() + 20;
        // One after another: the next crowd reuses the allocator's remains of the last, and the bound holds for each.
        for crowd in 1..=8 {
            let pieces = pieces.clone();
            let (there, open) = with_crowd(what, &app, move || begin(address, &pieces)).await;
            let (each, most) = (each_kib(there, before), 75.0);
            assert!(each <= most, "{what}: {each:.0} KiB with crowd {crowd}, at most {most}");
            drop(open);
            eventually("the crowd to be gone", async || match descriptors() {
                open if open <= few => Ok(()),
                open => Err(open),
            })
            .await;
        }
        let refused =
            app.metric(r#"countersign_callbacks_total{endpoint="leave",outcome="overloaded"}"#).await;
        let closed = app.metric(r#"countersign_callbacks_total{endpoint="-",outcome="overloaded"}"#).await;
        let small =
            app.metric(r#"countersign_callbacks_total{endpoint="leave",outcome="body_too_large"}"#).await;
        assert!(
            [refused, closed, small].iter().flatten().any(|count| *count > 0.0),
            "{what}: {refused:?}, {closed:?}, {small:?}"
        );
    }
}

/// Connections above a peer's limit are closed at once, whatever others have.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_has_so_many_connections_and_a_trusted_proxy_more() {
    let config = Config::with_url(NOWHERE).set("http", "max_connections_per_peer", "3");
    let app = App::with(config).await;
    let limited = r#"countersign_peers_limited_total{cause="connections"}"#;
    let held: Vec<TcpStream> = (0..3).map(|_| begin(app.public(), &[head("Content-Length: 9")])).collect();
    let refused = eventually("one too many to be closed", async || {
        let mut one = begin(app.public(), &[]);
        one.set_read_timeout(Some(Duration::from_millis(200))).expect("a connected socket takes it");
        // An error is the end too: bytes may have been sent after the close.
        match one.read(&mut [0]) {
            Ok(0) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let () = refused;
    assert!(app.metric(limited).await.is_some_and(|count| count >= 1.0));
    drop(held);
    eventually("a place", async || {
        let answered =
            app.client().post(app.callback_url("leave")).body(Callback::list("i", "t").plain()).send();
        match tokio::time::timeout(PATIENCE, answered).await.expect("in time") {
            Ok(answer) if answer.status() == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    let proxied = Config::with_url(NOWHERE).set("http", "max_connections_per_peer", "3").set(
        "http",
        "trusted_proxies",
        "['127.0.0.1']",
    );
    let app = App::with(proxied).await;
    let many: Vec<TcpStream> = (0..20).map(|_| begin(app.public(), &[head("Content-Length: 9")])).collect();
    assert_eq!(app.post("leave", Callback::list("i", "t").plain()).await.status, 200);
    assert_eq!(app.metric(limited).await, Some(0.0));
    drop(many);
}
