//! Signed commands, verified by programs that are not ours: a library of Standard Webhooks, and openssl.

use crate::support::{
    App, Callback, Config, Endpoint, Message, NOWHERE, Program, Vhost, Worker, eventually, quoted,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use lapin::options::BasicPublishOptions;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use standardwebhooks::Webhook;
use std::path::Path;

const OLD: &str = "whsec_b2xkLWZha2UtZmFrZS1mYWtlLWZha2UtZmFrZS1mYWtl";
const NEW: &str = "whsec_bmV3LWZha2UtZmFrZS1mYWtlLWZha2UtZmFrZS1mYWtl";

/// `keys` of `[amqp.signing]`.
fn keys(secrets: &[&str]) -> String {
    let keys: Vec<_> = secrets.iter().map(|secret| format!("{{ secret = {} }}", quoted(secret))).collect();
    format!("[ {} ]", keys.join(", "))
}

fn signed(config: Config, secrets: &[&str]) -> Config {
    config.set("amqp.signing", "keys", &keys(secrets))
}

/// As the library of workers in Rust verifies it, within five minutes.
fn is_by(secret: &str, message: &Message) -> bool {
    let pairs = message.headers().into_iter().filter(|(name, _)| name.starts_with("webhook-"));
    let parsed = |(name, value): (String, String)| {
        Some((name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?))
    };
    let headers: HeaderMap = pairs.filter_map(parsed).collect();
    assert_eq!(headers.len(), 3, "{headers:?}");
    Webhook::new(secret).expect("a key").verify(&message.body, &headers).is_ok()
}

/// A fresh Ed25519 key: the secret for the configuration, and the public key for workers.
async fn pair() -> (String, String) {
    let made = Program::new(["keygen", "--signing", "ed25519", "--json"]).run().await.ended_with(0).json();
    let text = |name: &str| made[name].as_str().expect(name).to_owned();
    (text("secret"), text("public_key"))
}

/// As openssl verifies the Ed25519 signature of a message.
fn is_by_openssl(public: &str, message: &Message, dir: &Path) -> bool {
    // RFC 8410: what stands before the 32 bytes of every Ed25519 public key.
    let mut der = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".to_vec();
    let decoded = |text: &str| STANDARD.decode(text).expect("base64");
    der.extend(decoded(public.strip_prefix("whpk_").expect("a public key")));
    let signatures = message.header("webhook-signature");
    let signature = signatures.split(' ').find_map(|one| one.strip_prefix("v1a,")).expect("one by Ed25519");
    let head = format!("{}.{}.", message.header("webhook-id"), message.header("webhook-timestamp"));
    let content = [head.as_bytes(), &message.body].concat();
    for (name, bytes) in [("key.der", der), ("signature", decoded(signature)), ("content", content)] {
        std::fs::write(dir.join(name), bytes).expect("the directory is ours");
    }
    let verify = "pkeyutl -verify -pubin -keyform DER -inkey key.der -rawin -in content -sigfile signature";
    let mut openssl = std::process::Command::new("openssl");
    let ran = openssl.args(verify.split(' ')).current_dir(dir).output().expect("openssl is there");
    ran.status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_every_profile_are_signed_as_they_are_published() {
    let vhost = Vhost::new().await;
    let (secret, public) = pair().await;
    let config = Config::bare(vhost.url())
        .endpoint(Endpoint::plain("plain"))
        .endpoint(Endpoint::plain("events").set("profile", "\"cloudevents\""))
        .endpoint(Endpoint::plain("tasks").set("profile", "\"celery\""))
        .endpoint(Endpoint::plain("transit").set("profile", "\"masstransit\""));
    let app = App::with(signed(config, &[OLD, &secret])).await;
    let worker = Worker::on(&vhost);
    for endpoint in ["plain", "events", "tasks", "transit"] {
        let id = app.post(endpoint, Callback::list("审批", "t").plain()).await.command_id();
        let message = worker.command(&id).await;
        assert_eq!(message.header("webhook-id"), id);
        assert!(is_by(OLD, &message) && !is_by(NEW, &message), "{endpoint}");
        assert!(is_by_openssl(&public, &message, app.dir()), "{endpoint}");
        let mut forged = message.clone();
        forged.body.push(b' ');
        assert!(!is_by(OLD, &forged) && !is_by_openssl(&public, &forged, app.dir()), "{endpoint}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_without_a_restart_and_never_logged() {
    let vhost = Vhost::new().await;
    let mut app = App::with(Config::new(&vhost).set("log", "filter", "\"debug\"")).await;
    let worker = Worker::on(&vhost);
    let (unsigned, mut reloads) = (app.accept(&Callback::list("i", "unsigned")).await, 0.0);
    let headers = worker.command(&unsigned).await.headers();
    assert!(headers.keys().all(|name| !name.starts_with("webhook-")), "{headers:?}");
    for secrets in [&[OLD][..], &[OLD, NEW], &[NEW]] {
        app.reconfigure(|config| signed(config, secrets));
        app.signal("HUP");
        reloads += 1.0;
        app.until_metric("countersign_config_reloads_total{result=\"applied\"}", reloads).await;
        let message = worker.command(&app.accept(&Callback::list("i", &format!("t{reloads}"))).await).await;
        assert_eq!(is_by(OLD, &message), secrets.contains(&OLD), "{secrets:?}");
        assert_eq!(is_by(NEW, &message), secrets.contains(&NEW), "{secrets:?}");
        assert_eq!(message.header("webhook-signature").split(' ').count(), secrets.len());
    }
    // What is faulty changes nothing.
    app.reconfigure(|config| signed(config, &["whsec_c2hvcnQtZmFrZQ=="]));
    app.signal("HUP");
    app.until_metric("countersign_config_reloads_total{result=\"rejected\"}", 1.0).await;
    assert!(is_by(NEW, &worker.command(&app.accept(&Callback::list("i", "last")).await).await));
    app.terminate();
    app.ended().await;
    let log = app.stderr();
    assert!(log.contains("amqp.signing.keys[0].secret: has 10 bytes"), "{log}");
    for secret in [OLD, NEW, "whsec_c2hvcnQtZmFrZQ=="] {
        assert!(!log.contains(&secret[6..]), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requeued_command_has_the_same_id_and_a_signature_of_its_own_time() {
    let vhost = Vhost::new().await;
    let app = App::with(signed(Config::new(&vhost), &[OLD])).await;
    let worker = Worker::on(&vhost);
    let id = app.accept(&Callback::list("i", "t")).await;
    let first = worker.command(&id).await;
    let seconds = |message: &Message| message.header("webhook-timestamp").parse::<u64>().unwrap();
    app.until_metric("countersign_ledger_rows{state=\"published\"}", 1.0).await;
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    eventually("the next second", async || if now() > seconds(&first) { Ok(()) } else { Err(now()) }).await;
    Program::new(["ledger", "requeue", &id]).config(app.file()).dir(app.dir()).run().await.ended_with(0);
    let again = worker.messages(2).await.remove(1);
    assert_eq!((again.header("webhook-id"), &again.body), (id, &first.body));
    assert!(seconds(&again) > seconds(&first));
    assert!(is_by(OLD, &again) && is_by(OLD, &first));
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_tells_which_commands_are_signed() {
    let vhost = Vhost::new().await;
    let app = App::with(signed(Config::new(&vhost), &[OLD])).await;
    let worker = Worker::on(&vhost);
    let genuine = worker.command(&app.accept(&Callback::list("i", "before")).await).await;
    let tail = Program::new(["tail", "--headers", "--count", "3"]).config(app.file()).dir(app.dir());
    let mut tail = tail.start();
    eventually("the word `ready`", async || {
        assert_eq!(tail.exit_code(), None, "{:?}", tail.lines());
        let lines = tail.lines();
        if lines.iter().any(|line| line.contains("ready")) { Ok(()) } else { Err(lines) }
    })
    .await;
    app.accept(&Callback::list("i", "t")).await;
    let (_connection, channel) = vhost.channel().await;
    let forge = async |body: &[u8], properties: lapin::BasicProperties| {
        let (exchange, key) = ("countersign.commands".into(), genuine.routing_key.as_str().into());
        let confirm =
            channel.basic_publish(exchange, key, BasicPublishOptions::default(), body, properties).await;
        confirm.unwrap().await.unwrap();
    };
    forge(&opposite(&genuine), genuine.properties.clone()).await;
    forge(&genuine.body, lapin::BasicProperties::default().with_message_id("\u{1b}forged".into())).await;
    let signatures = eventually("three commands on the tail", async || {
        let lines = tail.lines();
        let shown = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let shown: Vec<String> =
            shown.filter_map(|value| Some(value["signature"].as_str()?.to_owned())).collect();
        if shown.len() == 3 { Ok(shown) } else { Err(lines) }
    })
    .await;
    let mut sorted = signatures;
    sorted.sort();
    assert_eq!(sorted, ["invalid", "none", "valid"]);
    let told: Vec<String> = tail.lines().into_iter().filter(|line| line.contains("signature ")).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|line| !line.contains('\u{1b}')), "{told:?}");
}

/// The body with the opposite decision.
fn opposite(message: &Message) -> Vec<u8> {
    let text = String::from_utf8(message.body.clone()).expect("UTF-8");
    let forged = text.replace("\"approve\"", "\"reject\"");
    assert_ne!(forged, text);
    forged.into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_key_is_taken_and_doctor_tells_its_public_key() {
    for (kind, prefix, told) in
        [("ed25519", "whsk_", "Ed25519, public key whpk_"), ("hmac-sha256", "whsec_", "HMAC-SHA256")]
    {
        let ran = Program::new(["keygen", "--signing", kind]).run().await.ended_with(0);
        let made: toml::Table = ran.stdout.parse().unwrap();
        let secret = made["keys"][0]["secret"].as_str().unwrap();
        assert!(secret.starts_with(prefix), "{}", ran.stdout);
        let public = ran.stdout.split_once("workers verify with ").unwrap().1.trim();
        assert!(public == "the same secret" || public.starts_with("whpk_"), "{public}");
        let config = signed(Config::with_url(NOWHERE), &[secret]);
        let file = config.write();
        let run = |args: &[&str]| Program::new(args.iter().copied()).config(&file).dir(config.dir()).run();
        let shown = run(&["config", "show"]).await.ended_with(0).stdout;
        assert!(
            shown.contains(&format!("secret = \"{prefix}[redacted]\"")) && !shown.contains(secret),
            "{shown}"
        );
        let doctor = run(&["doctor"]).await.stdout;
        let line = doctor.lines().find(|line| line.contains("signing: ")).unwrap_or(&doctor);
        assert!(line.contains(&format!("[0] {told}")) && !doctor.contains(secret), "{line}");
        assert!(public == "the same secret" || line.contains(public), "{line}");
    }
}
