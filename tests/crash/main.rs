//! The promise "200 means kept", tried on the real program: killed at random moments under load, and left alone by
//! its broker. What was answered 200 is compared with what arrives in the queue, one by one.
//!
//! The figures go to standard error whether or not a test fails. At full scale:
//! `COUNTERSIGN_KILL_ROUNDS=20 COUNTERSIGN_OUTAGE_RATE=200 COUNTERSIGN_OUTAGE_SECONDS=60 cargo test --test crash`

#[expect(dead_code, unused_imports, reason = "shared with the tests in `it`, which use all of it")]
#[path = "../it/support/mod.rs"]
mod support;

use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::{App, Broker, Callback, Config, KEY, Message, Proxy, Vhost, Worker, eventually, post};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// Connections that send at the same time.
const SENDERS: usize = 16;

/// One decision, each with a task of its own, so that each is one command.
#[derive(Clone, Debug)]
struct Decision {
    task: String,
    operator: String,
    action: &'static str,
}

impl Decision {
    fn new(round: u64, sender: usize, number: usize) -> Self {
        Self {
            task: format!("r{round}-s{sender}-n{number}"),
            operator: format!("operator-{}", number % 7),
            action: if (sender + number).is_multiple_of(3) { "REJECT" } else { "APPROVE" },
        }
    }

    fn body(&self) -> Vec<u8> {
        Callback::list("instance", &self.task)
            .operator(&self.operator)
            .action(self.action)
            .context(&format!("context of {}", self.task))
            .with("reason", "r".repeat(self.task.len() * 20))
            .encrypted(KEY)
    }

    /// Whether a message is this decision's, in every part that was sent.
    fn is_told_by(&self, message: &Message, command_id: &str) -> bool {
        let command = message.json();
        command["command_id"] == command_id
            && message.message_id() == command_id
            && command["endpoint"] == "purchase"
            && command["action_type"] == self.action
            && command["operator"] == json!({ "user_id": self.operator })
            && command["task"]["task_id"] == self.task.as_str()
            && command["task"]["instance_id"] == "instance"
            && command["action_context"] == format!("context of {}", self.task)
            && command["reason"] == "r".repeat(self.task.len() * 20)
    }
}

/// Sends until the program is gone; each decision with the command id it was answered, if it was.
async fn send_until_it_is_gone(
    client: reqwest::Client,
    url: String,
    round: u64,
    sender: usize,
    answered: Arc<AtomicUsize>,
) -> Vec<(Decision, Option<String>)> {
    let mut sent = Vec::new();
    for number in 0.. {
        let decision = Decision::new(round, sender, number);
        match post(&client, &url, decision.body()).await {
            Ok(answer) if answer.status == 200 => {
                answered.fetch_add(1, Ordering::Relaxed);
                sent.push((decision, Some(answer.command_id())));
            }
            Ok(answer) => panic!("refused under load: {}", answer.text()),
            Err(_) => {
                sent.push((decision, None));
                break;
            }
        }
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_answered_200_is_lost_by_kill_9_under_load() {
    let rounds: u64 = variable("COUNTERSIGN_KILL_ROUNDS", 5);
    let seed: u64 = variable("COUNTERSIGN_KILL_SEED", getrandom::u64().expect("the system has randomness"));
    say(&format!("kill -9: {rounds} rounds, COUNTERSIGN_KILL_SEED={seed}"));
    let mut chance = Chance(seed | 1);

    let vhost = Vhost::new().await;
    let mut proxy = Proxy::shut_before(vhost.address());
    let mut app = App::with(Config::with_url(&vhost.url_through(proxy.port()))).await;
    let worker = Worker::on(&vhost);
    let mut kept: BTreeMap<String, Decision> = BTreeMap::new();
    let (mut answered, mut unanswered, mut found_again) = (0, 0, 0);
    for round in 0..rounds {
        // The broker is there or away when the round begins, and in half of the rounds that changes under load.
        let (there, changes) = (chance.below(2) == 0, chance.below(2) == 0);
        set(&mut proxy, there).await;
        let count = Arc::new(AtomicUsize::new(0));
        let mut senders = JoinSet::new();
        for sender in 0..SENDERS {
            let (client, url) = (app.client(), app.callback_url("purchase"));
            senders.spawn(send_until_it_is_gone(client, url, round, sender, Arc::clone(&count)));
        }
        eventually("the first answers", async || match count.load(Ordering::Relaxed) {
            0 => Err("none"),
            _ => Ok(()),
        })
        .await;
        // Not waits for anything: the moments of the change and of the kill are meant to be any.
        sleep(Duration::from_micros(chance.below(200_000))).await;
        if changes {
            set(&mut proxy, !there).await;
        }
        sleep(Duration::from_micros(chance.below(200_000))).await;
        app.kill();
        let sent: Vec<(Decision, Option<String>)> = senders.join_all().await.into_iter().flatten().collect();
        app.restart().await;
        for (decision, id) in sent {
            let id = match id {
                Some(id) => {
                    answered += 1;
                    id
                }
                None => {
                    // Killed before the answer: kept or not, its repeat has to find out.
                    unanswered += 1;
                    let answer = app.post("purchase", decision.body()).await;
                    found_again += usize::from(answer.status_word() == "duplicate");
                    answer.command_id()
                }
            };
            if let Some(other) = kept.insert(id.clone(), decision.clone()) {
                panic!("{id} was answered to two decisions: {other:?} and {decision:?}");
            }
        }
    }
    proxy.open().await;
    let wanted: BTreeSet<String> = kept.keys().cloned().collect();
    let came = worker.commands(&wanted).await;

    let strangers: Vec<&String> = came.keys().filter(|id| !wanted.contains(*id)).collect();
    let messages = worker.seen();
    let wrong: Vec<&Message> = messages
        .iter()
        .filter(|message| {
            let id = message.message_id();
            !kept.get(&id).is_some_and(|decision| decision.is_told_by(message, &id))
        })
        .collect();
    let mut bodies: BTreeMap<String, &[u8]> = BTreeMap::new();
    let changed = messages
        .iter()
        .filter(|message| {
            *bodies.entry(message.message_id()).or_insert(&message.body) != message.body.as_slice()
        })
        .count();
    say(&format!(
        "kill -9: answered 200 {answered}, unanswered {unanswered} (of these kept before the kill {found_again}), \
         arrived {}, missing 0, wrong {}, changed between repeats {changed}, delivered again {}, strangers {}",
        came.len(),
        wrong.len(),
        messages.len() - came.len(),
        strangers.len(),
    ));
    assert!(wrong.is_empty(), "not what was decided: {:?}", wrong.first());
    assert_eq!(changed, 0, "one message_id, two bodies");
    assert!(strangers.is_empty(), "published, but answered to nobody, not even to the repeat: {strangers:?}");
    assert!(answered > 0, "no load, no test");
}

#[tokio::test(flavor = "multi_thread")]
async fn through_an_outage_of_the_broker_all_is_accepted_and_arrives_in_order_per_task() {
    const TASKS: u32 = 20;
    let rate: u32 = variable("COUNTERSIGN_OUTAGE_RATE", 100);
    let seconds: u32 = variable("COUNTERSIGN_OUTAGE_SECONDS", 3);
    let broker = Broker::stoppable().await;
    let vhost = broker.vhost().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    worker.command(&app.accept(&Callback::list("before", "the outage")).await).await;
    broker.stop().await;

    let start = Instant::now();
    let mut lanes = JoinSet::new();
    for task in 0..TASKS {
        let (client, url) = (app.client(), app.callback_url("purchase"));
        lanes.spawn(async move {
            let mut accepted = Vec::new();
            // One after the other, so that the order of acceptance within a task is known.
            let mut clock = interval(Duration::from_secs(1) * TASKS / rate);
            clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
            for number in 0..rate * seconds / TASKS {
                clock.tick().await;
                let callback =
                    Callback::list("instance", &format!("task-{task}")).operator(&format!("op-{number}"));
                let answer = post(&client, &url, callback.encrypted(KEY)).await.expect("an answer");
                accepted.push(answer.command_id());
            }
            accepted
        });
    }
    let lanes: Vec<Vec<String>> = lanes.join_all().await;
    let took = start.elapsed();
    let accepted: BTreeSet<String> = lanes.iter().flatten().cloned().collect();
    broker.start().await;
    let came = worker.commands(&accepted).await;

    let mut first_seen: BTreeMap<String, usize> = BTreeMap::new();
    for (place, message) in worker.seen().iter().enumerate() {
        first_seen.entry(message.message_id()).or_insert(place);
    }
    let out_of_order = lanes
        .iter()
        .flat_map(|lane| lane.windows(2))
        .filter(|pair| first_seen[&pair[0]] > first_seen[&pair[1]])
        .count();
    say(&format!(
        "outage: answered 200 {} in {took:.1?} with the broker stopped, arrived {}, missing 0, out of order within \
         a task {out_of_order}, delivered again {}",
        accepted.len(),
        accepted.len(),
        came.values().sum::<usize>() - came.len(),
    ));
    assert_eq!(accepted.len(), (rate * seconds / TASKS * TASKS) as usize, "each its own command");
    assert_eq!(out_of_order, 0);
}

async fn set(broker: &mut Proxy, there: bool) {
    if there { broker.open().await } else { broker.shut().await }
}

/// xorshift64*: a run can be repeated from its seed as far as the moments of the kills go.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % bound
    }
}

fn variable<T: std::str::FromStr>(name: &str, otherwise: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}")),
        Err(_) => otherwise,
    }
}

/// Past the harness, which would show it only for a failed test.
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("standard error is open");
}
