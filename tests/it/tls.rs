//! TLS on both sides of the program, as an operator sets it up.

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
    // Without --url it is our own listener, whatever names its certificate is for.
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
