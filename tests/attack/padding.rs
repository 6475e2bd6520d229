//! An attacker in the manner of Vaudenay ("Security Flaws Induced by CBC Padding", Eurocrypt 2002), against the real
//! program over TCP. He has captured one ciphertext, knows nothing else, and tries to learn for every forgery whether
//! its padding was valid. If any answer reveals it, 128 requests decrypt a byte, and as many encrypt one (CBC-R,
//! Rizzo and Duong 2010).
//!
//! Possible signals are status, headers, body, the end of the connection, and time. The first four are compared byte
//! for byte and must be equal. Time is measured and *reported*: no test fails on a measured time in the normal run,
//! because a busy machine is not a fault of the program. The long run fails if one class of forgeries differs from
//! another beyond noise: an AUC beyond 0.5 ± 0.02 with 50 000 of either, of which the standard error is 0.0018.
//!
//! `COUNTERSIGN_ATTACK_FLOOR_MS` sets another floor under refusals (0 shows what the code alone reveals),
//! `COUNTERSIGN_ATTACK_SCALE` multiplies the numbers of the long run.

use crate::{
    statistics::{ALPHA, Comparison, quantile},
    support::{Answer, App, Callback, Config, KEY, Line, NOWHERE, TOKEN, envelope, open, seal},
    wire::{BLOCK, Blocks, random_below, random_block, report, the_strangers_answer, xor},
};
use aes::{
    Aes256,
    cipher::{BlockCipherDecrypt, KeyInit},
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fmt, fmt::Write as _, sync::Arc, time::Instant};
use tokio::task::JoinSet;

/// The class of a forgery, which only the holder of the key knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// A random block before a captured one, chosen so that the padding is valid: the case of the oracle.
    PaddingRight,
    /// The same with another last byte.
    PaddingWrong,
    /// A captured ciphertext with a block removed, doubled, or moved.
    Spliced,
    /// Decrypts to a whole callback with a wrong token: the longest path through the code.
    TokenWrong,
    /// The text is not base64.
    NoBase64,
    /// Not a whole number of blocks, or too few.
    WrongLength,
    /// Valid, but for an endpoint that does not exist.
    NoEndpoint,
}

impl Class {
    const ALL: [Self; 7] = [
        Self::PaddingRight,
        Self::PaddingWrong,
        Self::Spliced,
        Self::TokenWrong,
        Self::NoBase64,
        Self::WrongLength,
        Self::NoEndpoint,
    ];
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PaddingRight => "padding right",
            Self::PaddingWrong => "padding wrong",
            Self::Spliced => "spliced",
            Self::TokenWrong => "token wrong",
            Self::NoBase64 => "no base64",
            Self::WrongLength => "wrong length",
            Self::NoEndpoint => "no endpoint",
        })
    }
}

/// A forgery to send.
struct Forgery {
    class: Class,
    path: &'static str,
    body: Vec<u8>,
}

/// The captured ciphertext, and the key, with which only the test determines the class of a forgery.
struct Attacker {
    captured: Blocks,
    key: Aes256,
}

impl Attacker {
    fn new() -> Self {
        let body = Callback::list("captured-instance", "captured-task").reason().encrypted(KEY);
        let outer: Value = serde_json::from_slice(&body).expect("the body of a callback");
        let captured = Blocks::captured(outer["encrypt"].as_str().expect("a text"));
        Self { captured, key: Aes256::new(&Sha256::digest(KEY.as_bytes())) }
    }

    /// The raw decryption of a block, before CBC adds the previous one.
    fn decrypted(&self, block: [u8; BLOCK]) -> [u8; BLOCK] {
        let mut block = block.into();
        self.key.decrypt_block(&mut block);
        block.into()
    }

    fn captured_block(&self) -> [u8; BLOCK] {
        self.captured.0[1 + random_below(self.captured.0.len() - 1)]
    }

    /// `random ‖ captured`, with the last byte of the first chosen so that the padding is one byte of 1, or not.
    fn last_byte(&self, right: bool) -> Blocks {
        let target = self.captured_block();
        let mut random = random_block();
        random[BLOCK - 1] = self.decrypted(target)[BLOCK - 1] ^ 1;
        if !right {
            random[BLOCK - 1] ^= 1 + u8::try_from(random_below(255)).expect("below 255");
            // Two bytes of 2 and so on are valid too, once in 65 536.
            if padding_is_right(xor(self.decrypted(target), random)) {
                random[BLOCK - 2] ^= 1;
            }
        }
        Blocks(vec![random, target])
    }

    fn forge(&self, class: Class) -> Forgery {
        let mut path = "/callbacks/purchase";
        let body = match class {
            Class::PaddingRight => self.last_byte(true).body(),
            Class::PaddingWrong => self.last_byte(false).body(),
            Class::Spliced => self.spliced().body(),
            Class::TokenWrong => {
                Callback::list("captured-instance", "captured-task").reason().token("guessed").encrypted(KEY)
            }
            Class::NoBase64 => {
                let mut text = self.last_byte(false).base64();
                text.replace_range(7..8, "*");
                envelope(&text)
            }
            Class::WrongLength => {
                let mut text = self.last_byte(false).base64();
                text.truncate(4 * random_below(11));
                if text.is_empty() {
                    text.push_str("AAAA");
                }
                envelope(&text)
            }
            Class::NoEndpoint => {
                path = "/callbacks/purchases";
                Callback::list("captured-instance", "captured-task").reason().encrypted(KEY)
            }
        };
        Forgery { class, path, body }
    }

    /// Removes, doubles, moves or overwrites blocks. The authentic last block usually keeps valid padding, but a
    /// block in the middle is lost, and so the JSON.
    fn spliced(&self) -> Blocks {
        let mut blocks = self.captured.clone();
        let inner = blocks.0.len() - 3;
        let at = 1 + random_below(inner);
        match random_below(4) {
            0 => drop(blocks.0.remove(at)),
            1 => blocks.0.insert(at, blocks.0[at]),
            2 => blocks.0.swap(at, at + 1),
            _ => blocks.0[at] = random_block(),
        }
        blocks
    }
}

trait WithReason {
    fn reason(self) -> Self;
}

impl WithReason for Callback {
    /// As long as a callback with a comment.
    fn reason(self) -> Self {
        self.with("reason", "no objection, but see the second attachment").context("erp:PO-2026-0077:step-2")
    }
}

fn padding_is_right(block: [u8; BLOCK]) -> bool {
    let says = usize::from(block[BLOCK - 1]);
    (1..=BLOCK).contains(&says) && block[BLOCK - says..].iter().all(|byte| usize::from(*byte) == says)
}

fn floor_ms() -> u64 {
    std::env::var("COUNTERSIGN_ATTACK_FLOOR_MS").ok().and_then(|text| text.parse().ok()).unwrap_or(25)
}

async fn victim() -> App {
    let floor = floor_ms().to_string();
    App::with(Config::with_url(NOWHERE).set("http", "unauthenticated_floor_ms", &floor)).await
}

/// A whole attack: sends every forgery, compares the answers, and keeps the times by class.
struct Campaign {
    times_us: BTreeMap<Class, Vec<u64>>,
    seconds: f64,
    connections: usize,
}

impl Campaign {
    /// Sends `counts` forgeries of each class over this many concurrent connections, in random order, so that no
    /// class meets a quieter machine than another.
    ///
    /// # Panics
    /// If an answer, or the end of its connection, differs from the one answer for strangers.
    async fn run(app: &App, counts: &[(Class, usize)], connections: usize) -> Self {
        let wanted = Arc::new(the_strangers_answer(app).await);
        let attacker = Arc::new(Attacker::new());
        let mut order: Vec<Class> =
            counts.iter().flat_map(|(class, count)| std::iter::repeat_n(*class, *count)).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, random_below(at + 1));
        }
        let share = order.len().div_ceil(connections);
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for part in order.chunks(share) {
            let (part, wanted, attacker) = (part.to_vec(), Arc::clone(&wanted), Arc::clone(&attacker));
            let address = app.public();
            tasks.spawn(async move {
                let mut times = Vec::with_capacity(part.len());
                for (number, class) in part.into_iter().enumerate() {
                    let forgery = attacker.forge(class);
                    let mut line = Line::to(address).await;
                    // One in sixteen uses a connection that has already carried a good callback: behind a proxy that
                    // keeps connections, strangers and the platform share them.
                    if number % 16 == 7 {
                        let good = Callback::list("before", "t").encrypted(KEY);
                        line.post("/callbacks/purchase", &good).await.expect("an open connection");
                        assert_eq!(line.answer().await.map(|answer| answer.status), Some(200));
                    }
                    line.post(forgery.path, &forgery.body).await.expect("an open connection");
                    let sent = Instant::now();
                    let answer = line.answer().await.expect("an answer");
                    let took = u64::try_from(sent.elapsed().as_micros()).expect("below an age");
                    check(&wanted, answer, line, &forgery).await;
                    times.push((class, took));
                }
                times
            });
        }
        let mut times_us: BTreeMap<Class, Vec<u64>> = BTreeMap::new();
        while let Some(times) = tasks.join_next().await {
            for (class, took) in times.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())) {
                times_us.entry(class).or_default().push(took);
            }
        }
        Self { times_us, seconds: began.elapsed().as_secs_f64(), connections }
    }

    /// Compares the classes with "padding wrong", like an attacker.
    fn comparisons(&self) -> Vec<(Class, Comparison)> {
        let wrong = &self.times_us[&Class::PaddingWrong];
        self.times_us
            .iter()
            .filter(|(class, _)| **class != Class::PaddingWrong)
            .map(|(class, times)| (*class, Comparison::of(times, wrong)))
            .collect()
    }

    fn report(&self, name: &str) {
        let sent: usize = self.times_us.values().map(Vec::len).sum();
        let comparisons: BTreeMap<Class, Comparison> = self.comparisons().into_iter().collect();
        let level = ALPHA / comparisons.len() as f64;
        let mut text = format!(
            "{name}: {sent} forgeries over {} connections at once, floor {} ms, {:.0} a second; all answers equal\n\
             class              count   p10 µs   p50 µs   p90 µs   against `padding wrong` (told apart below p {level:.4})",
            self.connections,
            floor_ms(),
            sent as f64 / self.seconds,
        );
        for (class, times) in &self.times_us {
            let against = comparisons.get(class).map(ToString::to_string).unwrap_or_default();
            let [low, middle, high] = [0.1, 0.5, 0.9].map(|share| quantile(times, share));
            let count = times.len();
            write!(text, "\n{class:15} {count:8} {low:8} {middle:8} {high:8}   {against}").expect("a String");
        }
        report(&text);
    }
}

async fn check(wanted: &Answer, answer: Answer, line: Line, forgery: &Forgery) {
    let answer = answer.without_date();
    assert_eq!(answer, *wanted, "{}: {}", forgery.class, String::from_utf8_lossy(&forgery.body));
    let rest = line.until_closed().await;
    assert!(rest.is_empty(), "{}: after the answer came {rest:?}", forgery.class);
}

/// Checks the forgeries' classes; otherwise the attack would prove nothing.
#[test]
fn the_forgeries_are_what_they_are_called() {
    let attacker = Attacker::new();
    for _ in 0..2000 {
        for (right, class) in [(true, Class::PaddingRight), (false, Class::PaddingWrong)] {
            let blocks = attacker.last_byte(right);
            let plain = xor(attacker.decrypted(blocks.0[1]), blocks.0[0]);
            assert_eq!(padding_is_right(plain), right, "{class}");
        }
        assert_ne!(attacker.spliced().0, attacker.captured.0, "a splice that changes nothing is a replay");
    }
    let outer: Value = serde_json::from_slice(&attacker.forge(Class::TokenWrong).body).expect("a body");
    let plain = open(KEY, outer["encrypt"].as_str().expect("a text"));
    assert!(serde_json::from_slice::<Value>(&plain).is_ok_and(|value| value["token"] == "guessed"));
    // Also check the classification itself against known cases.
    let sealed = Blocks::captured(&seal(KEY, TOKEN.as_bytes()));
    let [.., before, last] = sealed.0[..] else { panic!("a text has a block and an IV") };
    let plain = xor(attacker.decrypted(last), before);
    let end = TOKEN.as_bytes().chunks(BLOCK).next_back().expect("it is not empty");
    assert_eq!((&plain[..end.len()], padding_is_right(plain)), (end, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn three_thousand_forged_ciphertexts_get_one_answer() {
    let app = victim().await;
    let counts: Vec<(Class, usize)> = Class::ALL.map(|class| (class, 430)).to_vec();
    Campaign::run(&app, &counts, 64).await.report("padding oracle, short");
}

/// Sends two forgeries in one packet: the first gets the stranger's answer, and the answer to the second does not
/// depend on the class of either.
#[tokio::test(flavor = "multi_thread")]
async fn forgeries_in_one_packet_get_the_same_answers_whatever_they_are() {
    let app = victim().await;
    let wanted = the_strangers_answer(&app).await;
    let attacker = Attacker::new();
    let mut seen = Vec::new();
    for classes in [
        [Class::PaddingRight, Class::PaddingWrong],
        [Class::PaddingWrong, Class::PaddingRight],
        [Class::PaddingWrong, Class::PaddingWrong],
        [Class::TokenWrong, Class::NoBase64],
    ] {
        let mut packet = Vec::new();
        for class in classes {
            let Forgery { path, body, .. } = attacker.forge(class);
            let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
            packet.extend_from_slice(head.as_bytes());
            packet.extend_from_slice(&body);
        }
        let mut line = Line::to(app.public()).await;
        line.write(&packet).await.expect("an open connection");
        let mut answers = Vec::new();
        while let Some(answer) = line.answer().await {
            answers.push(answer.without_date());
        }
        assert_eq!(answers.first(), Some(&wanted));
        seen.push(answers);
    }
    assert!(seen.iter().all(|answers| *answers == seen[0]), "{seen:?}");
}

/// 140 000 forgeries. Reports what time reveals; fails if it reveals much.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: 140 000 forgeries"]
async fn a_hundred_thousand_forged_ciphertexts_get_one_answer_and_time_does_not_tell_them_apart() {
    let app = victim().await;
    let scale: f64 =
        std::env::var("COUNTERSIGN_ATTACK_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let counts: Vec<(Class, usize)> = Class::ALL
        .map(|class| {
            let count =
                if matches!(class, Class::PaddingRight | Class::PaddingWrong) { 50_000 } else { 8_000 };
            (class, (f64::from(count) * scale) as usize)
        })
        .to_vec();
    let loaded = Campaign::run(&app, &counts, 128).await;
    loaded.report("padding oracle, under load");
    // The attacker's best case: no other traffic, and he waits for each answer.
    let counts: Vec<(Class, usize)> = counts.into_iter().map(|(class, count)| (class, count / 20)).collect();
    let quiet = Campaign::run(&app, &counts, 2).await;
    quiet.report("padding oracle, quiet");
    let (_, decisive) = loaded.comparisons()[0];
    assert!(
        floor_ms() == 0 || scale < 1.0 || (decisive.auc - 0.5).abs() < 0.02,
        "right and wrong padding can be told apart: {decisive}"
    );
}

/// A complete attack: the sixteen bytes of a captured block, from the last to the first, by the times of all 256
/// guesses. The attacker is given the right bytes after the current one, so that one bad guess does not spoil the
/// rest, and both ways to interpret the times. Even so, he must not do better than chance.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: 65 536 forgeries"]
async fn an_attacker_with_a_stopwatch_does_not_decrypt_a_block() {
    const REPEATS: usize = 16;
    let app = victim().await;
    let attacker = Arc::new(Attacker::new());
    let target = attacker.captured.0[2];
    let truth = attacker.decrypted(target);
    let mut hits = [0; 2];
    for at in (0..BLOCK).rev() {
        let padding = u8::try_from(BLOCK - at).expect("at most 16");
        let mut guesses: Vec<u8> = (0..=255).cycle().take(256 * REPEATS).collect();
        for at in (1..guesses.len()).rev() {
            guesses.swap(at, random_below(at + 1));
        }
        let mut tasks = JoinSet::new();
        for part in guesses.chunks(guesses.len() / 32) {
            let (part, address) = (part.to_vec(), app.public());
            tasks.spawn(async move {
                let mut times = Vec::new();
                for guess in part {
                    let mut forged = random_block();
                    forged[at] = guess ^ padding;
                    for behind in at + 1..BLOCK {
                        forged[behind] = truth[behind] ^ padding;
                    }
                    let mut line = Line::to(address).await;
                    let body = Blocks(vec![forged, target]).body();
                    line.post("/callbacks/purchase", &body).await.expect("an open connection");
                    let sent = Instant::now();
                    assert_eq!(line.answer().await.map(|answer| answer.status), Some(403));
                    times.push((guess, u64::try_from(sent.elapsed().as_micros()).expect("below an age")));
                }
                times
            });
        }
        let mut by_guess: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
        for (guess, took) in tasks.join_all().await.into_iter().flatten() {
            by_guess.entry(guess).or_default().push(took);
        }
        let middle = |times: &Vec<u64>| quantile(times, 0.5);
        let slowest = by_guess.iter().max_by_key(|(_, times)| middle(times)).map(|(guess, _)| *guess);
        let fastest = by_guess.iter().min_by_key(|(_, times)| middle(times)).map(|(guess, _)| *guess);
        hits[0] += usize::from(slowest == Some(truth[at]));
        hits[1] += usize::from(fastest == Some(truth[at]));
    }
    report(&format!(
        "decrypting a block by time: floor {} ms, {REPEATS} questions a guess, 32 connections at once; {} of 16 bytes by \
         the slowest guess, {} by the fastest; chance gives 1 in 16 blocks",
        floor_ms(),
        hits[0],
        hits[1],
    ));
    // Four of sixteen by chance: once in two million runs.
    assert!(floor_ms() == 0 || hits.iter().all(|hits| *hits < 4), "decrypted: {hits:?}");
}
