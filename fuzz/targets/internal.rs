//! Requests to the internal listener, over TCP, to the service as it is: nothing panics, nothing is answered 5xx while the
//! ledger is sound, the API is closed to whoever has no token, and what somebody wrote never becomes a header.
//!
//! The first byte picks the method, the second says what goes with it (a token, a type, what browsers send), then comes the target up to a line end, then the body.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, LazyLock, Mutex, atomic::AtomicBool},
    thread,
    time::Duration,
};

use countersign::{
    console::{self, Reasons, access::Access},
    ledger::{Limits, Sizing, sqlite::SqliteLedger},
    secret::Secret,
    telemetry::metrics::Metrics,
};

const TOKEN: &str = "fake-admin-token";
const METHODS: [&str; 7] = ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"];

/// Header names that answers have, and no others.
const HEADERS: [&str; 18] = [
    "allow",
    "cache-control",
    "connection",
    "content-disposition",
    "content-length",
    "content-security-policy",
    "content-type",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "date",
    "location",
    "referrer-policy",
    "retry-after",
    "set-cookie",
    "transfer-encoding",
    "vary",
    "www-authenticate",
    "x-content-type-options",
];

/// Without a token it needs none; with one, [`TOKEN`].
static SERVICES: LazyLock<[SocketAddr; 2]> = LazyLock::new(|| [start(None), start(Some(Secret::new(TOKEN)))]);

fn start(token: Option<Secret>) -> SocketAddr {
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let directory = directory.expect("a directory");
    let limits = Limits { min_free_bytes: 0, ..Limits::default() };
    let path = directory.path().join("ledger.db");
    let sizing = Sizing { queue_capacity: 64, max_batch: 4, limits };
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("it is bound");
    thread::spawn(move || {
        let ledger = Arc::new(SqliteLedger::open(&path, &sizing).expect("a new ledger"));
        let access = Arc::new(Access::new(&console::Settings {
            listen: address,
            token,
            tokens: Vec::new(),
            public_url: None,
        }));
        let draining = Arc::new(AtomicBool::new(false));
        let reasons =
            Reasons { words: vec!["unauthenticated", "malformed"], sentence: Arc::new(|_, _, _| None) };
        actix_web::rt::System::new().block_on(async {
            console::serve(socket, access, ledger, None, Metrics::new(), draining, reasons)
                .expect("it serves")
                .await
                .expect("it goes on");
        });
        drop(directory);
    });
    address
}

/// One connection to each, kept open for as long as the other side does.
static OPEN: Mutex<[Option<BufReader<TcpStream>>; 2]> = Mutex::new([None, None]);

struct Answer {
    status: u16,
    names: Vec<String>,
    body: Vec<u8>,
    closed: bool,
}

fn ask(stream: &mut BufReader<TcpStream>, request: &[u8], head_only: bool) -> Option<Answer> {
    stream.get_mut().write_all(request).ok()?;
    let mut line = String::new();
    (stream.read_line(&mut line).ok()? > 0).then_some(())?;
    let status = line.get(9..12).and_then(|code| code.parse().ok()).expect("a status line");
    let (mut names, mut length, mut closed) = (Vec::new(), 0, false);
    loop {
        line.clear();
        stream.read_line(&mut line).expect("a head is ASCII and has an end");
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        let name = name.to_ascii_lowercase();
        match &*name {
            "content-length" => length = value.parse().expect("a number"),
            "connection" => closed |= value == "close",
            // An export, or a stream that never ends: what comes is left unread.
            "transfer-encoding" => closed = true,
            _ => {}
        }
        names.push(name);
    }
    let mut body = vec![0; if head_only { 0 } else { length }];
    stream.read_exact(&mut body).expect("the whole body");
    Some(Answer { status, names, body, closed })
}

pub(super) fn run(data: &[u8]) {
    let [method, flags, rest @ ..] = data else { return };
    let method = METHODS[usize::from(*method) % METHODS.len()];
    let (which, with_token, as_json) = (usize::from(flags & 1), flags & 2 != 0, flags & 4 != 0);
    let (as_browser, as_form) = (flags & 8 != 0, flags & 16 != 0);
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (target, body) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
    // What no client can send as a target ends in 400 before any of our code; so it is escaped.
    let target: String = target
        .iter()
        .map(|byte| match byte {
            b'!'..=b'~' => char::from(*byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    let mut request =
        format!("{method} /{target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n", body.len());
    if with_token {
        request.push_str(&format!("Authorization: Bearer {TOKEN}\r\n"));
    }
    if as_json {
        request.push_str("Content-Type: application/json\r\n");
    }
    if as_browser {
        request.push_str("Accept: text/html\r\n");
    }
    if as_form {
        request.push_str("Sec-Fetch-Site: same-origin\r\n");
    }
    request.push_str("\r\n");
    let request = [request.as_bytes(), body].concat();

    let mut open = OPEN.lock().expect("nobody panics with it and goes on");
    let mut answer = None;
    // The other side may have closed the one before.
    for _ in 0..2 {
        let stream = open[which].get_or_insert_with(|| {
            let stream = TcpStream::connect(SERVICES[which]).expect("it listens");
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a connected socket takes it");
            stream.set_nodelay(true).expect("a connected socket takes it");
            BufReader::new(stream)
        });
        answer = ask(stream, &request, method == "HEAD");
        if answer.as_ref().is_none_or(|answer| answer.closed) {
            open[which] = None;
        }
        if answer.is_some() {
            break;
        }
    }
    let answer = answer.expect("every request is answered");
    // There are so many streams at the most.
    let is_stream = answer.status == 503 && answer.names.iter().any(|name| name == "retry-after");
    assert!(answer.status < 500 || is_stream, "{} {}", answer.status, String::from_utf8_lossy(&request));
    for name in &answer.names {
        assert!(HEADERS.contains(&&**name), "a header {name}");
    }
    // An absolute target (`/` and a scheme are a path here) or dots name no other route than they spell.
    if which == 1 && !with_token && target.starts_with("api/v1/") {
        // A method that a path does not have is none whoever asks.
        assert!(matches!(answer.status, 400 | 401 | 404 | 405), "{} for {method} /{target}", answer.status);
    }
    if as_browser && !answer.body.is_empty() {
        let body = String::from_utf8_lossy(&answer.body);
        assert!(!body.contains(TOKEN), "{body}");
    } else if answer.status >= 400 && !answer.body.is_empty() {
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).expect("a problem is JSON");
        assert!(problem["error"].is_string() && problem["message"].is_string(), "{problem}");
        assert!(!problem.to_string().contains(TOKEN), "{problem}");
    }
}
