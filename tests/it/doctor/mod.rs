//! `countersign doctor` on real damage: each finding with its cause.

mod broker;

use crate::support::{
    App, Authority, Callback, Config, Endpoint, KEY, NOWHERE, Program, Ran, TOKEN, eventually, quoted,
};
use serde_json::{Value, json};
use std::{
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

const DONE: i32 = 0;
const FAILED: i32 = 1;

async fn doctor(file: &Path, args: &[&str]) -> Ran {
    Program::new([&["doctor"], args].concat())
        .config(file)
        .dir(file.parent().expect("a directory"))
        .run()
        .await
}

/// The only line with this beginning, including its status.
#[track_caller]
fn line<'a>(ran: &'a Ran, begins: &str) -> &'a str {
    let found: Vec<&str> = ran.stdout.lines().filter(|line| line.starts_with(begins)).collect();
    assert_eq!(found.len(), 1, "{begins:?} stands {} times in\n{}{}", found.len(), ran.stdout, ran.stderr);
    found[0]
}

#[track_caller]
fn lacks(ran: &Ran, subject: &str) {
    let found = ran.stdout.lines().find(|line| line[7..].starts_with(subject));
    assert_eq!(found, None, "{}", ran.stdout);
}

fn ledger(app: &App) -> PathBuf {
    app.dir().join("ledger.db")
}

fn execute(ledger: &Path, sql: &str) {
    rusqlite::Connection::open(ledger).expect("a ledger").execute_batch(sql).expect("SQL of ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_configuration_leaves_open_is_risky() {
    let config = Config::bare(NOWHERE).endpoint(Endpoint::plain("bare")).endpoint(
        Endpoint::encrypted("rounds")
            .context("format", "'json'")
            .context("fields", "{ task_id = '/t', round = '/r' }"),
    );
    let app = App::with(config).await;
    let ran = doctor(app.file(), &[]).await;
    let risky: Vec<&str> =
        ran.stdout.lines().filter(|line| line.starts_with("risky  configuration: ")).collect();
    let told = |words: &str| risky.iter().filter(|line| line.contains(words)).count();
    assert_eq!(told("endpoints[0].plain: true: callbacks come unencrypted"), 1, "{}", ran.stdout);
    assert_eq!(told("endpoints[0].context.format: opaque: contexts have neither a round nor an end"), 1);
    assert_eq!(told("endpoints[1]."), 0, "{risky:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_ledger_is_found_by_its_pages() {
    let mut app = App::with(Config::with_url(NOWHERE)).await;
    for number in 0..200 {
        app.accept(&Callback::list("i", &format!("t{number}")).with("reason", "x".repeat(2000))).await;
    }
    app.terminate();
    app.ended().await;
    let sound = doctor(app.file(), &[]).await;
    assert!(line(&sound, "ok     ledger pages: ").contains("sound"), "{}", sound.stdout);
    // Write everything back, so that the log does not hide the damage.
    execute(&ledger(&app), "PRAGMA wal_checkpoint(TRUNCATE)");
    let mut file = std::fs::OpenOptions::new().write(true).open(ledger(&app)).expect("a ledger");
    let pages = file.metadata().expect("a file").len() / 4096;
    assert!(pages > 60, "{pages} pages");
    // In the middle of the log, which normal operation does not read.
    file.seek(SeekFrom::Start(pages / 2 * 4096)).expect("a page");
    file.write_all(&[0xa5; 4096]).expect("room");
    drop(file);
    let ran = doctor(app.file(), &[]).await.ended_with(FAILED);
    let found = line(&ran, "wrong  ledger pages: ");
    assert!(found.contains("is damaged: ") && found.contains("restore the ledger from a backup"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_is_told_before_and_when_callbacks_are_refused() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let set = |bytes: u64| format!("ledger.min_free_bytes={bytes}");
    let ran = doctor(app.file(), &["--set", &set(1 << 60)]).await.ended_with(FAILED);
    let found = line(&ran, "wrong  disk: ");
    assert!(found.contains("callbacks are refused: now. make room"), "{found}");
    let ran = doctor(app.file(), &["--set", &set(1)]).await;
    assert!(line(&ran, "ok     disk: ").contains("MiB left"), "{}", ran.stdout);
    // Between one and two times as much: a warning.
    let free = app.metric("countersign_ledger_free_bytes").await.expect("it is known");
    let ran = doctor(app.file(), &["--set", &set((free * 0.7) as u64)]).await;
    assert!(line(&ran, "risky  disk: ").contains("make room"), "{}", ran.stdout);

    // Before the first start the file does not exist, but the disk does.
    let nowhere = format!("ledger.url=sqlite:{}", app.dir().join("later.db").display());
    let ran = doctor(app.file(), &["--set", &nowhere, "--set", &set(1 << 60)]).await.ended_with(FAILED);
    assert!(line(&ran, "ok     ledger: ").contains("later.db does not exist yet"), "{}", ran.stdout);
    assert!(line(&ran, "wrong  disk: ").contains("make room"), "{}", ran.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_and_what_was_refused_is_told_with_its_cure() {
    let mut app = App::with(Config::with_url(NOWHERE)).await;
    let ran = doctor(app.file(), &[]).await;
    assert!(line(&ran, "ok     refusals: ").contains("none within 24 h"), "{}", ran.stdout);
    for subject in ["pending", "parked commands", "parked outcomes"] {
        lacks(&ran, subject);
    }

    let id = app.accept(&Callback::list("i", "t")).await;
    app.accept(&Callback::list("i2", "t2")).await;
    app.post("leave", Callback::list("PO-77", "n2").action("HOLD").plain()).await;
    app.post("leave", Callback::list("PO-78", "n3").action("HOLD").plain()).await;
    app.post("purchase", Callback::list("i", "t").plain()).await;
    let run = |args: &[&str]| Program::new(args).config(app.file()).dir(app.dir());
    run(&["ledger", "park", &id]).run().await.ended_with(DONE);
    eventually("three refusals to be kept", async || {
        let kept = app.get("/api/v1/refusals").await.json()["refusals"].as_array().map(Vec::len);
        if kept == Some(3) { Ok(()) } else { Err(kept) }
    })
    .await;
    app.terminate();
    app.ended().await;
    // Simulates an old clock and a platform that rejects the card.
    let (seq, hour) = (1, 3_600_000);
    execute(
        &ledger(&app),
        &format!(
            "UPDATE commands SET received_at = received_at - {hour};
             INSERT INTO showings (seq, surface, target, state, attempts, next_attempt_at, changed_at, note)
             VALUES ({seq}, 'card', '7', 'parked', 1, 0, 0, 'rejected');
             INSERT INTO refusals (refused_at, endpoint, reason, body_bytes, strange)
             SELECT refused_at - 25 * {hour}, endpoint, 'too_slow', 0, 1 FROM refusals LIMIT 1;"
        ),
    );
    let ran = doctor(app.file(), &[]).await.ended_with(FAILED);
    let found = line(&ran, "wrong  pending: ");
    assert!(found.contains("1 command pending, the oldest for 36"), "{found}");
    assert!(line(&ran, "wrong  parked commands: ").contains("`countersign ledger requeue --all-parked`"));
    assert!(line(&ran, "wrong  parked outcomes: ").contains("`countersign ledger show-again --all-parked`"));
    let found = line(&ran, "risky  refusals, action_not_allowed: ");
    assert!(
        found.contains(": 2 within 24 h, the newest at ") && found.contains("for leave (user zhang3, "),
        "{found}"
    );
    assert!(
        found.contains("instance PO-78, task n3)") && found.contains("Add the action to `actions`"),
        "{found}"
    );
    assert!(line(&ran, "risky  refusals, unauthenticated: ").contains(": 1 within 24 h"));
    lacks(&ran, "refusals, too_slow");
    let there = doctor(app.file(), &["--utc-offset", "+08:00"]).await.ended_with(FAILED);
    let found = line(&there, "risky  refusals, action_not_allowed: ");
    assert!(found.contains("+08:00 for leave"), "{found}");
    let stats = Program::new(["ledger", "stats", "--utc-offset", "+08:00"]).config(app.file()).run().await;
    let stats = stats.ended_with(DONE);
    let oldest = stats.stdout.lines().find(|line| line.starts_with("oldest pending"));
    assert!(oldest.is_some_and(|line| line.ends_with("+08:00")), "{}", stats.stdout);
    assert!(!ran.stdout.contains(TOKEN) && !ran.stdout.contains(KEY), "{}", ran.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_is_told_in_words() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let ran = doctor(app.file(), &[]).await.ended_with(FAILED);
    assert!(line(&ran, "ok     service: ready at http://").contains("/readyz"));
    assert!(line(&ran, "wrong  service, broker: ").contains("callbacks are kept and wait"), "{}", ran.stdout);
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let listen = format!("admin.listen={}", stranger.local_addr().expect("an address"));
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = stranger.accept() {
            drop(stream.read(&mut [0; 4096]));
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi"));
        }
    });
    let ran = doctor(app.file(), &["--set", &listen]).await.ended_with(FAILED);
    assert!(line(&ran, "wrong  service: ").contains("is not countersign"), "{}", ran.stdout);
}

/// Root created a ledger in the service's directory. The service cannot write it, but root would not notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_of_another_user_than_its_directory_is_told_to_root() {
    let mut app = App::with(Config::with_url(NOWHERE)).await;
    app.terminate();
    app.ended().await;
    if std::os::unix::fs::chown(app.dir(), Some(12345), None).is_err() {
        return; // Only root can provoke it, and only root needs it.
    }
    let ran = doctor(app.file(), &[]).await.ended_with(FAILED);
    let found: Vec<&str> = ran.stdout.lines().filter(|line| line.starts_with("wrong  ledger: ")).collect();
    assert!(found.len() >= 2 && found[0].contains("chown --reference='"), "{}", ran.stdout);
    std::os::unix::fs::chown(app.dir(), Some(0), None).expect("as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_told_by_their_files_and_by_what_the_url_shows() {
    let authority = Authority::new();
    let config = Config::bare(NOWHERE).endpoint(Endpoint::encrypted("purchase"));
    let files = authority.issue(&["127.0.0.1"]).write(config.dir(), "server");
    let old_ca = config.dir().join("old-ca.pem");
    std::fs::write(&old_ca, authority.issue_until(&["ca"], 2020).cert).expect("the directory is ours");
    let ca = config.dir().join("ca.pem");
    std::fs::write(&ca, authority.pem()).expect("the directory is ours");
    let config =
        config.https(&authority, &files).set("amqp.tls", "ca_file", &quoted(&old_ca.display().to_string()));
    let app = App::with(config).await;
    let public = format!("https://{}", app.public());
    let tried = async |public: &str, ca: &Path| {
        let program = Program::new(["doctor", "--public-url", public]).config(app.file()).dir(app.dir());
        program.env("SSL_CERT_FILE", ca).run().await
    };
    let ran = tried(&public, &ca).await.ended_with(FAILED);
    assert!(line(&ran, "ok     certificate of http.tls: ").contains("is valid until 2099"), "{}", ran.stdout);
    assert!(
        line(&ran, "wrong  authorities of amqp.tls: ").contains("expired at 2020-01-01"),
        "{}",
        ran.stdout
    );
    assert!(line(&ran, "ok     certificate of the callback to purchase: ").contains("valid until 2099"));
    assert!(line(&ran, "ok     callback to purchase: ").contains("knows token and key"), "{}", ran.stdout);
    let ran = tried(&public, &old_ca).await.ended_with(FAILED);
    let found = line(&ran, "wrong  callback to purchase: ");
    assert!(
        found.contains("shows a certificate that is signed by no authority that this machine trusts"),
        "{found}"
    );
    let ran = tried(&format!("https://localhost:{}", app.public().port()), &ca).await.ended_with(FAILED);
    assert!(line(&ran, "wrong  callback to purchase: ").contains("is for another name"), "{}", ran.stdout);

    // A pair that has expired since: the service uses it until it reads another.
    let own = async || doctor(app.file(), &[]).await.ended_with(FAILED);
    authority.issue_until(&["127.0.0.1"], 2020).write(app.dir(), "server");
    app.signal("HUP");
    let ran = eventually("the expired certificate to be shown", async || {
        let ran = own().await;
        let shown = ran.stdout.contains("wrong  certificate of the callback to purchase: ");
        if shown { Ok(ran) } else { Err(ran) }
    })
    .await;
    assert!(line(&ran, "wrong  certificate of the callback to purchase: ").contains("expired at 2020-01-01"));
    assert!(line(&ran, "wrong  configuration: ").contains("expired at 2020-01-01"), "{}", ran.stdout);
    let ran = tried(&public, &ca).await.ended_with(FAILED);
    assert!(line(&ran, "wrong  callback to purchase: ").contains("shows a certificate that has expired"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_not_sent_in_clear_to_another_machine() {
    let config = Config::with_url(NOWHERE);
    let file = config.write();
    let args = ["doctor", "--public-url", "http://hook.example.com"];
    let ran = Program::new(args)
        .config(&file)
        .env("http_proxy", "http://127.0.0.1:1")
        .run()
        .await
        .ended_with(FAILED);
    let found = line(&ran, "wrong  callback to leave: ");
    assert!(
        found.contains("the token goes over the wire as it is") && found.contains("Not tried"),
        "{found}"
    );
    assert!(
        line(&ran, "wrong  callback to purchase: ")
            .contains("cannot be reached through the proxy 127.0.0.1:1")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_is_an_object_with_json_and_nothing_acts_on_a_terminal() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    app.post("leave", Callback::list("i\u{9b}2J", "t").action("HOLD").plain()).await;
    app.post("%1b%5b2J", Callback::list("i", "t").plain()).await;
    eventually("a refusal to be kept", async || {
        let ran = doctor(app.file(), &[]).await;
        assert!(!ran.stdout.contains(['\u{1b}', '\u{9b}']), "{}", ran.stdout);
        if ran.stdout.contains("refusals, ") { Ok(()) } else { Err(ran.stdout) }
    })
    .await;
    let ran = doctor(app.file(), &["--json"]).await;
    for line in ran.stdout.lines() {
        let told: Value = serde_json::from_str(line).expect("a line of JSON");
        assert!(
            told["verdict"].is_string() && told["subject"].is_string() && told["words"].is_string(),
            "{line}"
        );
    }
    assert_eq!(ran.stderr, "", "{}", json!(ran.stdout));
}
