//! The steps of the accept path that need no disk: opening, resolving, fingerprint, rendering.

#[path = "support/decision.rs"]
mod decision;

use std::hint::black_box;

use countersign::{
    callback::{
        self, CredentialSettings, Credentials,
        cipher::{self, Key},
    },
    command::{Grant, Registered, TaskRef, message},
    context::{
        self, Format, JsonFields, OnUnresolved, ResolveInput, jwt,
        pattern::{Over, Pattern},
    },
    secret::Secret,
    time::Timestamp,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::value::RawValue;

const TOKEN: &str = "fake-token-0f3a";

fn plain(context: &str) -> Vec<u8> {
    serde_json::json!({
        "action_type": "APPROVE", "action_context": context, "user_id": "demo-user", "approval_code": "demo",
        "instance_id": "PO-77", "task_id": "n2", "reason": "within the budget", "token": TOKEN
    })
    .to_string()
    .into_bytes()
}

fn credentials(count: usize, encrypted: bool) -> (Credentials, Vec<Secret>) {
    let keys: Vec<_> = (0..count).map(|number| Secret::new(format!("fake-key-{number}"))).collect();
    let settings: Vec<_> = keys
        .iter()
        .enumerate()
        .map(|(number, key)| CredentialSettings {
            // The last is the one that is used: what is tried before it is work as well.
            action_callback_token: Secret::new(if number + 1 == count {
                TOKEN.to_owned()
            } else {
                format!("fake-other-{number}")
            }),
            action_callback_key: encrypted.then(|| key.clone()),
        })
        .collect();
    (Credentials::new(&settings), keys)
}

fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    let body = plain(&"c".repeat(220));
    for count in [1, 4] {
        let (known, _) = credentials(count, false);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::new("plain", count), |bencher| {
            bencher.iter(|| callback::open(&known, black_box(&body)).expect("it is a good one"));
        });
        let (known, keys) = credentials(count, true);
        let sealed = cipher::encrypt(&Key::derive(&keys[count - 1]), [7; cipher::BLOCK_BYTES], &body);
        let sealed = serde_json::json!({ "encrypt": sealed }).to_string().into_bytes();
        group.throughput(Throughput::Bytes(sealed.len() as u64));
        group.bench_function(BenchmarkId::new("encrypted", count), |bencher| {
            bencher.iter(|| callback::open(&known, black_box(&sealed)).expect("it is a good one"));
        });
    }
}

/// Each format with a context that fits it; the callback's own ids are the same task.
fn formats() -> Vec<(&'static str, Format, String)> {
    let secret = Secret::new("fake-secret-of-more-than-32-bytes-0f3a");
    let json = JsonFields {
        task_id: Some("/t".to_owned()),
        instance_id: Some("/i".to_owned()),
        round: Some("/r".to_owned()),
        ..JsonFields::default()
    };
    let groups = "(?P<instance_id>[^:]+):(?P<task_id>[^:]+):(?P<round>[0-9]+)";
    let pattern = Pattern::new(groups, Over::ActionContext).expect("it names a task");
    let keys = [jwt::KeySettings::Hs256 { kid: None, secret: secret.clone() }];
    let raw = |text: &str| RawValue::from_string(format!("{text:?}")).ok();
    let claims = jwt::Claims {
        instance_id: raw("PO-77"),
        task_id: raw("n2"),
        round: raw("2"),
        exp: RawValue::from_string((Timestamp::now().as_second() + 86_400).to_string()).ok(),
        operators: Some(vec!["demo-user".to_owned()]),
        ..jwt::Claims::default()
    };
    let token = jwt::sign(&jwt::SigningKey::Hs256(secret), None, &claims).expect("the key is long enough");
    vec![
        ("opaque", Format::Opaque, "PO-77/n2".to_owned()),
        ("json", Format::Json(json), r#"{"i":"PO-77","t":"n2","r":2}"#.to_owned()),
        ("pattern", Format::Pattern(pattern), "PO-77:n2:2".to_owned()),
        (
            "jwt",
            Format::Jwt(jwt::Keys::new(&keys, jwt::Demands::default()).expect("the key is long enough")),
            token,
        ),
        ("registry", Format::Registry, "key-77".to_owned()),
    ]
}

fn resolve(criterion: &mut Criterion) {
    let (known, _) = credentials(1, false);
    let task = TaskRef {
        instance_id: Some("PO-77".to_owned()),
        task_id: Some("n2".to_owned()),
        ..TaskRef::default()
    };
    let registered = Registered { grant: Grant::unbound(task), expires_at: None };
    let mut group = criterion.benchmark_group("resolve");
    for (name, format, text) in formats() {
        let verified = callback::open(&known, &plain(&text)).expect("it is a good one");
        let surroundings = ResolveInput {
            endpoint: "bench",
            now: Timestamp::now(),
            registered: (name == "registry").then_some(&registered),
        };
        // Refused if it does not fit: what is measured is a success.
        let settings = context::Settings { formats: vec![format], on_unresolved: OnUnresolved::Refuse };
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                context::resolve(&settings, black_box(&verified), surroundings).expect("the context fits")
            });
        });
    }
}

fn identities(criterion: &mut Criterion) {
    let command = decision::decision(1, Timestamp::now());
    criterion
        .bench_function("fingerprint", |bencher| bencher.iter(|| decision::fingerprint(black_box(&command))));
    let mut group = criterion.benchmark_group("render");
    group.throughput(Throughput::Bytes(message::render(&command).len() as u64));
    group.bench_function("command", |bencher| bencher.iter(|| message::render(black_box(&command))));
    group.bench_function("headers", |bencher| {
        let envelope = message::Envelope::of(&command);
        bencher.iter(|| (black_box(&envelope).routing_key(), envelope.headers()));
    });
}

criterion_group!(benches, open, resolve, identities);
criterion_main!(benches);
