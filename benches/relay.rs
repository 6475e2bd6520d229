//! The relay into a real quorum queue: from the ledger to the settled confirm; and what signing adds to a publish.
//!
//! environment: `AMQP_URL`, a broker to use (its queue `countersign.bench.relay` is deleted); without it a private one is
//! started. `COUNTERSIGN_BENCH_NO_BROKER=1` leaves out what needs it.

mod support;

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use countersign::{
    amqp::{
        self,
        signing::{self, SigningKey},
    },
    command::CommandId,
    ledger::{Accept, Lifecycle, sqlite::SqliteLedger},
    relay::{self},
    secret::Secret,
    telemetry::metrics::Metrics,
    time::Timestamp,
};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use tokio::sync::watch;

const NAME: &str = "countersign.bench.relay";
/// Commands for each measurement: many times what is in flight at once.
const COMMANDS: u64 = 10_000;

/// A broker, and the program that keeps it if it is ours.
struct Broker {
    url: String,
    keeper: Option<Child>,
}

impl Broker {
    fn find_or_start() -> Self {
        if let Ok(url) = std::env::var("AMQP_URL") {
            return Self { url, keeper: None };
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/support/broker");
        let mut keeper = Command::new(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash and deploy/broker.sh are there");
        let mut url = String::new();
        BufReader::new(keeper.stdout.take().expect("a pipe")).read_line(&mut url).expect("it prints text");
        assert!(!url.trim().is_empty(), "the broker did not start; its words are above");
        Self { url: url.trim().to_owned(), keeper: Some(keeper) }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            drop(keeper.stdin.take());
            keeper.wait().expect("it is our child");
        }
    }
}

/// Deletes what earlier runs left, for a queue that is as empty each time.
async fn clean(url: &str) {
    let connection = lapin::Connection::connect(url, lapin::ConnectionProperties::default())
        .await
        .expect("the broker lets us in");
    let channel = connection.create_channel().await.expect("a channel");
    channel.queue_delete(NAME.into(), lapin::options::QueueDeleteOptions::default()).await.expect("deleted");
    connection.close(200, "done".into()).await.expect("closed");
}

/// Keys by which commands are signed, by the name of the measurement.
fn keys() -> [(&'static str, Vec<SigningKey>); 4] {
    let key = |text: Secret| SigningKey::parse(&text).expect("it was made for this");
    let (hmac, ed25519) = (key(SigningKey::hmac_text(&[1; 32])), key(SigningKey::ed25519_text(&[1; 32])));
    let rotating = vec![ed25519.clone(), key(SigningKey::ed25519_text(&[2; 32]))];
    [
        ("unsigned", Vec::new()),
        ("hmac-sha256", vec![hmac]),
        ("ed25519", vec![ed25519]),
        ("ed25519-twice", rotating),
    ]
}

/// What signing adds to one publish, for a body as long as an ordinary command.
fn sign(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sign");
    let (id, body) =
        (CommandId::parse("019a0000-0000-7000-8000-000000000001").expect("an id"), vec![b'a'; 800]);
    for (name, keys) in keys().iter().skip(1) {
        group.bench_function(*name, |bencher| {
            bencher.iter(|| signing::headers(keys, id, Timestamp::now(), &body))
        });
    }
    group.finish();
}

/// Has a relay publish a backlog of [`COMMANDS`]; returns how long it took from its start to the last settled confirm.
async fn drained(url: &str, signing: Vec<SigningKey>) -> Duration {
    clean(url).await;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made");
    let path = directory.path().join("ledger.db");
    let ledger = Arc::new(SqliteLedger::open(&path, &support::sizing()).expect("a new ledger"));
    for from in (0..COMMANDS).step_by(1000) {
        let accepts =
            (from..from + 1000).map(|number| ledger.accept(support::acceptance(number, Timestamp::now())));
        assert!(join_all(accepts).await.iter().all(Result::is_ok), "every decision is another");
    }
    let publisher = amqp::Publisher::new(amqp::Settings {
        urls: vec![Secret::new(url)],
        exchange: NAME.to_owned(),
        queue: NAME.to_owned(),
        signing,
        ..amqp::Settings::default()
    })
    .expect("the URL is one");
    let outbox = ledger.outbox();
    let (stop, stopping) = watch::channel(None);
    let began = Instant::now();
    let running = tokio::spawn(relay::run(
        outbox.clone(),
        publisher,
        relay::Settings::default(),
        None,
        Metrics::new(),
        stopping,
    ));
    while outbox.cursor().await.expect("the ledger can be read") < COMMANDS {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = began.elapsed();
    stop.send_replace(Some(tokio::time::Instant::now() + Duration::from_secs(5)));
    let report = running.await.expect("the relay does not panic");
    assert_eq!(report.confirmed, COMMANDS, "each is published once");
    ledger.flush().await;
    took
}

/// A word to the person.
fn say(words: &str) {
    writeln!(std::io::stderr().lock(), "{words}").ok();
}

fn drain(criterion: &mut Criterion) {
    if std::env::var_os("COUNTERSIGN_BENCH_NO_BROKER").is_some() {
        say("relay: left out, as COUNTERSIGN_BENCH_NO_BROKER says");
        return;
    }
    rustls::crypto::ring::default_provider().install_default().ok();
    let broker = Broker::find_or_start();
    let runtime = support::runtime();
    let mut group = criterion.benchmark_group("relay");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(COMMANDS));
    for (name, keys) in keys() {
        group.bench_function(format!("drain/{name}"), |bencher| {
            bencher.iter_custom(|count| {
                runtime.block_on(async {
                    let mut took = Duration::ZERO;
                    for _ in 0..count {
                        took += drained(&broker.url, keys.clone()).await;
                    }
                    took
                })
            });
        });
    }
    group.finish();
    runtime.block_on(clean(&broker.url));
}

criterion_group!(benches, sign, drain);
criterion_main!(benches);
