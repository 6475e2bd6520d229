//! A prober who keeps the service busy: processing sixty large bodies at once takes longer than the floor, so he
//! measures the work for each. It must be the same at every kind of endpoint. Otherwise he can tell which endpoints
//! exist, which have no key, and which are in the middle of a rotation.
//!
//! A count of decryptions in `src/callback/tests.rs` checks without a clock that the work *is* the same. This test
//! measures and reports how well the answers of one kind can be distinguished from those of a nonexistent endpoint.

use crate::{
    statistics::{Comparison, quantile},
    support::{App, Config, Endpoint, KEY, Line, NOWHERE, TOKEN, envelope},
    wire::{random_below, report},
};
use base64::prelude::{BASE64_STANDARD, Engine};
use std::{collections::BTreeMap, fmt::Write as _, time::Instant};
use tokio::task::JoinSet;

const AT_ONCE: usize = 60;

/// The paths, by kind of endpoint.
const KINDS: [(&str, &str); 7] = [
    ("unknown", "/callbacks/nowhere"),
    ("no path", "/callback/one"),
    ("plain", "/callbacks/plain"),
    ("one key", "/callbacks/one"),
    ("two keys", "/callbacks/two"),
    ("four keys", "/callbacks/four"),
    ("unknown again", "/callbacks/elsewhere"),
];

async fn victim() -> App {
    let keys: Vec<String> = (0..4).map(|number| format!("fake-key-{number}")).collect();
    let rotating = |name: &str, count: usize| {
        let list: Vec<_> = keys.iter().take(count).map(|key| (TOKEN, Some(key.as_str()))).collect();
        Endpoint::encrypted(name).credentials(&list)
    };
    let floor = std::env::var("COUNTERSIGN_ATTACK_FLOOR_MS").unwrap_or_else(|_| "25".to_owned());
    let config = Config::bare(NOWHERE)
        .set("http", "unauthenticated_floor_ms", &floor)
        .endpoint(Endpoint::plain("plain"))
        .endpoint(Endpoint::encrypted("one").credentials(&[(TOKEN, Some(KEY))]))
        .endpoint(rotating("two", 2))
        .endpoint(rotating("four", 4));
    App::with(config).await
}

/// A ciphertext of random blocks, nearly as large as the body limit.
fn large_body() -> Vec<u8> {
    // Without optimizations, processing sixty large ones takes longer than the time limit for a body.
    let blocks = if cfg!(debug_assertions) { 200 } else { 3000 };
    let mut bytes = vec![0; blocks * 16];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    envelope(&BASE64_STANDARD.encode(bytes))
}

/// Sends a volley to one path. Returns the time of each answer from the last byte of its body, in microseconds.
async fn volley(app: &App, path: &'static str, body: &[u8]) -> Vec<u64> {
    let mut posts = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (address, body) = (app.public(), body.to_vec());
        posts.spawn(async move {
            let mut line = Line::to(address).await;
            line.post(path, &body).await.expect("an open connection");
            let sent = Instant::now();
            let answer = line.answer().await.expect("an answer");
            assert_eq!((answer.status, answer.reason().as_str()), (403, "unauthenticated"), "{path}");
            u64::try_from(sent.elapsed().as_micros()).expect("below an age")
        });
    }
    posts.join_all().await
}

/// Volleys to each kind in random order, so that none meets a quieter machine than another.
async fn measure(rounds: usize) -> BTreeMap<&'static str, Vec<u64>> {
    let app = victim().await;
    let body = large_body();
    let mut times: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for _ in 0..rounds {
        let mut order = KINDS;
        for at in (1..order.len()).rev() {
            order.swap(at, random_below(at + 1));
        }
        for (kind, path) in order {
            times.entry(kind).or_default().extend(volley(&app, path, &body).await);
        }
    }
    let mut text = format!("{rounds} volleys of {AT_ONCE} bodies of {} bytes to each kind", body.len());
    for (kind, _) in KINDS {
        let sample = &times[kind];
        let [low, middle, high] = [0.1, 0.5, 0.9].map(|share| quantile(sample, share));
        let against = Comparison::of(sample, &times["unknown"]);
        write!(text, "\n{kind:15} {low:8} {middle:8} {high:8} µs   {against}").expect("a String");
    }
    report(&text);
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_large_bodies_at_once_get_one_answer_at_every_kind_of_endpoint() {
    measure(2).await;
}

/// Volleys vary more among themselves than endpoints do. So the reference is the distance between two kinds that do
/// not exist; the others may not be much farther apart.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: 25 000 large bodies"]
async fn under_load_time_does_not_tell_what_stands_behind_a_path() {
    let scale: f64 =
        std::env::var("COUNTERSIGN_ATTACK_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let times = measure((60.0 * scale) as usize).await;
    for (kind, _) in KINDS {
        let told = Comparison::of(&times[kind], &times["unknown"]);
        assert!((told.auc - 0.5).abs() < 0.1, "{kind} can be told from what does not exist: {told}");
    }
}
