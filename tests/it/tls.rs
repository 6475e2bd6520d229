//! TLS on both sides of the program, as an operator configures it.

use crate::support::{
    App, Authority, Broker, Callback, Config, Encrypted, Pair, PairFiles, Program, Worker, eventually, quoted,
};
use std::path::Path;

const DONE: i32 = 0;
const USAGE: i32 = 64;
const AWAY: i32 = 69;

fn write(dir: &Path, name: &str, pair: &Pair) -> PairFiles {
    pair.write(dir, name)
}

fn by_certificate(config: Config, broker: &Encrypted) -> Config {
    let client = write(config.dir(), "client", &broker.authority.issue(&["countersign"]));
    let ca = config.dir().join("broker-ca.pem");
    std::fs::write(&ca, broker.authority.pem()).expect("the directory is ours");
    let file = |path: &Path| quoted(&path.display().to_string());
    config.set("amqp.tls", "ca_file", &file(&ca)).set("amqp.tls", "cert_file", &file(&client.cert)).set(
        "amqp.tls",
        "key_file",
        &file(&client.key),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_approver_to_the_worker_over_tls() {
    let broker = Broker::encrypted(Authority::new()).await;
    let vhost = broker.vhost();
    let authority = Authority::new();
    let config = by_certificate(Config::with_url(&broker.tls_url(&vhost, "localhost")), &broker);
    let files = write(config.dir(), "server", &authority.issue(&["127.0.0.1"]));
    let app = App::with(config.https(&authority, &files)).await;
    let worker = Worker::on(&vhost);
    let id = app.accept(&Callback::list("i", "t")).await;
    worker.command(&id).await;

    let run = |args: &[&str]| Program::new(args).config(app.file()).dir(app.dir());
    let tail = run(&["tail", "--count", "1"]).start();
    eventually("tail to listen", async || {
        let lines = tail.lines();
        if lines.iter().any(|line| line.contains("ready")) { Ok(()) } else { Err(lines) }
    })
    .await;
    // Without --url the target is our own listener, whatever names its certificate has.
    run(&["send", "--endpoint", "purchase", "--task", "sent"]).run().await.ended_with(DONE);
    eventually("tail to show the command", async || {
        let lines = tail.lines();
        if lines.iter().any(|line| line.contains("\"sent\"")) { Ok(()) } else { Err(lines) }
    })
    .await;

    let url = format!("https://{}", app.public());
    let ca = app.dir().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let ca = ca.display().to_string();
    let send = |more: &[&str]| run(&[&["send", "--endpoint", "purchase", "--url", &url], more].concat());
    send(&["--ca-file", &ca]).run().await.ended_with(DONE);
    let unknown = send(&[]).run().await.ended_with(AWAY);
    assert!(unknown.stdout.contains("UnknownIssuer"), "says why: {}", unknown.stdout);
    let broker_ca = app.dir().join("broker-ca.pem").display().to_string();
    send(&["--ca-file", &broker_ca]).run().await.ended_with(AWAY);
    send(&["--ca-file", &files.key.display().to_string()]).run().await.ended_with(USAGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_certificate_is_told_before_anything_starts() {
    let config = Config::with_url(crate::support::NOWHERE);
    let authority = Authority::new();
    let mut files = write(config.dir(), "a", &authority.issue(&["localhost"]));
    files.key = write(config.dir(), "b", &authority.issue(&["localhost"])).key;
    let file = config.https(&authority, &files);
    for command in [&["config", "check"][..], &["serve"]] {
        let ran = Program::new(command).config(&file.write()).dir(file.dir()).run().await.ended_with(USAGE);
        assert!(ran.stderr.contains("http.tls.key_file"), "{}", ran.stderr);
        assert!(ran.stderr.contains("b.key does not belong to the first certificate in"), "{}", ran.stderr);
    }
}

/// The first bytes of files from Windows.
const BOM: &str = "\u{feff}";

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_fails_the_check_and_the_service_starts_and_says_so() {
    let authority = Authority::new();
    let config = Config::with_url(crate::support::NOWHERE);
    let files = write(config.dir(), "old", &authority.issue_until(&["127.0.0.1"], 2020));
    let config = config.https(&authority, &files);
    let check = |args: &'static [&'static str]| Program::new(args).config(&config.write()).dir(config.dir());
    let ran = check(&["config", "check"]).run().await.ended_with(USAGE);
    assert!(ran.stderr.contains("http.tls.cert_file: the certificate in"), "{}", ran.stderr);
    assert!(ran.stderr.contains("old.pem expired at 2020-01-01T00:00:00.000Z"), "{}", ran.stderr);
    let ran = check(&["config", "check", "--json"]).run().await.ended_with(USAGE);
    let told: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&told["ok"], &told["faults"][0]["key"]), (&false.into(), &"http.tls.cert_file".into()));

    let mut fresh = authority.issue(&["127.0.0.1"]);
    let app = App::with(config.set("http.tls", "check_interval", "\"1s\"")).await;
    let metric = "countersign_certificate_not_after_seconds{use=\"http\"}";
    app.until_metric(metric, 1_577_836_800.0).await;
    let told = |message: &str| {
        let lines = app.log_lines();
        lines.into_iter().filter(|line| line["message"] == message).collect::<Vec<_>>()
    };
    // The line may follow the metric.
    let written = async || told("the certificate has expired").into_iter().next().ok_or(());
    eventually("the log to say so", written).await;
    let expired = told("the certificate has expired");
    assert_eq!(expired.len(), 1, "at start, then each day: {}", app.stderr());
    assert_eq!(expired[0]["level"], "ERROR");
    assert_eq!(expired[0]["key"], "http.tls.cert_file");
    assert_eq!(expired[0]["not_after"], "2020-01-01T00:00:00.000Z");

    // A new pair is loaded without a restart, even from an editor that writes a BOM.
    fresh.cert.insert_str(0, BOM);
    fresh.key.insert_str(0, BOM);
    fresh.write(app.dir(), "old");
    eventually("the new certificate to be in force", async || {
        app.client()
            .get(app.callback_url("purchase"))
            .send()
            .await
            .map(drop)
            .map_err(|error| format!("{error:?}"))
    })
    .await;
    app.signal("HUP");
    app.until_metric(metric, 4_070_908_800.0).await;
    assert_eq!(told("the certificate has expired").len(), 1, "{}", app.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_fail_are_counted_by_their_cause_and_a_line_a_minute_tells_each() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let authority = Authority::new();
    let config = Config::with_url(crate::support::NOWHERE);
    let files = write(config.dir(), "server", &authority.issue(&["127.0.0.1"]));
    let app = App::with(config.https(&authority, &files)).await;
    let metric = |cause: &str| format!("countersign_tls_handshake_failures_total{{cause=\"{cause}\"}}");

    let doubting = crate::support::client();
    for _ in 0..3 {
        assert!(doubting.get(app.callback_url("purchase")).send().await.is_err());
    }
    app.until_metric(&metric("certificate_refused"), 3.0).await;

    let mut plain = tokio::net::TcpStream::connect(app.public()).await.unwrap();
    plain.write_all(b"POST /callbacks/purchase HTTP/1.1\r\n\r\n").await.unwrap();
    plain.read_to_end(&mut Vec::new()).await.ok();
    app.until_metric(&metric("not_tls"), 1.0).await;

    drop(tokio::net::TcpStream::connect(app.public()).await.unwrap());
    app.until_metric(&metric("closed"), 1.0).await;

    let authority = reqwest::Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    let modern = reqwest::Client::builder().no_proxy().tls_certs_only([authority]);
    let modern = modern.http2_prior_knowledge().build().unwrap();
    assert!(modern.get(app.callback_url("purchase")).send().await.is_err());
    app.until_metric(&metric("nothing_in_common"), 1.0).await;

    // A handshake that never completes.
    let stalled = tokio::net::TcpStream::connect(app.public()).await.unwrap();
    app.until_metric(&metric("timeout"), 1.0).await;
    drop(stalled);

    app.accept(&Callback::list("i", "t")).await;
    let told: Vec<_> =
        app.log_lines().into_iter().filter(|line| line["message"] == "TLS handshake failed").collect();
    let causes: Vec<_> = told.iter().map(|line| line["cause"].as_str().unwrap()).collect();
    assert_eq!(causes, ["certificate_refused", "not_tls", "closed", "nothing_in_common", "timeout"]);
    assert_eq!((&told[0]["level"], &told[0]["peer"]), (&"WARN".into(), &"127.0.0.1".into()));
}
