//! Outcomes: a worker's reports appear on the card and in the instance of the emulator.

mod permitted;
mod queue;
mod traces;

use super::{Center, FAILED, instance, messages};
use crate::support::{App, Callback, Config, Endpoint, Program, Proxy, Vhost, Worker, eventually, quoted};
use countersign::telemetry::failpoint::OUTCOMES;
use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use serde_json::{Value, json};

const QUEUE: &str = "countersign.outcomes";
const EXCHANGE: &str = "countersign.outcomes";
const DEAD: &str = "countersign.dead";

/// How the context of the tests' cards names an instance and a task.
const CONTEXT: &str = r#"\{"t":"(?P<instance_id>[^/"]+)/(?P<task_id>[^/"]+)"\}"#;

/// All components on the path of a decision, in both directions.
struct Loop {
    vhost: Vhost,
    center: Center,
    app: App,
    code: String,
}

/// A configuration with the approval center at this URL.
pub(super) fn config(vhost: &Vhost, center_url: &str) -> Config {
    let endpoint =
        Endpoint::encrypted("purchase").credentials(&[("fake-token-number-1", Some("fake-key-number-1"))]);
    Config::bare(vhost.url())
        .leaving_dead_letters()
        .endpoint(endpoint)
        .set("approval_center", "base_url", &quoted(center_url))
        .set("approval_center", "app_id", &quoted("cli_emulator"))
        .set("approval_center", "app_secret", &quoted("emulator-secret"))
}

impl Loop {
    async fn new() -> Self {
        Self::with(|config| config).await
    }

    async fn with(change: impl FnOnce(Config) -> Config) -> Self {
        let vhost = Vhost::new().await;
        let center = Center::start().await;
        let app = App::with(change(config(&vhost, &center.url))).await;
        vhost.until_declared(QUEUE).await;
        let code = center.definition(&app.callback_url("purchase")).await;
        Self { vhost, center, app, code }
    }

    /// Sends a card to zhang3, and returns its id.
    async fn card(&self) -> String {
        messages::send(&self.center, &messages::card(&self.app.callback_url("purchase"), false)).await
    }

    /// Presses a button, and returns the resulting command.
    async fn pressed(&self, what: &[&str]) -> String {
        let told = self.center.press(what).await.ended_with(0).json();
        let answer: Value = serde_json::from_str(told["answer"].as_str().expect("an answer")).expect("JSON");
        answer["data"]["command_id"].as_str().expect("a command").to_owned()
    }

    async fn report(&self, outcome: &Value) {
        report(&self.vhost, outcome.to_string().as_bytes()).await;
    }

    /// The statuses of the cards, in the order in which they were sent.
    async fn cards(&self) -> Vec<String> {
        let state = self.center.state().await;
        let cards = state["cards"].as_array().expect("cards");
        cards.iter().map(|card| card["shown"].as_str().expect("a text").to_owned()).collect()
    }

    async fn until_cards_show(&self, wanted: &[&str]) {
        eventually(&format!("cards that show {wanted:?}"), async || {
            let shown = self.cards().await;
            if shown == wanted { Ok(()) } else { Err(shown) }
        })
        .await;
    }

    /// Waits until the log contains this line the given number of times.
    async fn until_told(&self, words: &str, times: usize) {
        eventually(&format!("{words:?} in the log {times} times"), async || {
            let told = self.app.stderr().matches(words).count();
            if told == times { Ok(()) } else { Err(told) }
        })
        .await;
    }

    /// The outcome of a command, from the API.
    async fn outcome(&self, command_id: &str) -> Value {
        self.app.get(&format!("/api/v1/commands/{command_id}")).await.json()["outcome"].clone()
    }

    async fn until_showing(&self, command_id: &str, wanted: &str) -> Value {
        eventually(&format!("an outcome that is {wanted}"), async || {
            let outcome = self.outcome(command_id).await;
            if outcome["showing"] == wanted { Ok(outcome) } else { Err(outcome) }
        })
        .await
    }

    /// The instance in the emulator.
    async fn instance(&self, id: &str) -> Value {
        let state = self.center.state().await;
        let instances = state["instances"].as_array().expect("instances").clone();
        instances.into_iter().find(|one| one["instance_id"] == id).expect("it was synchronised")
    }

    async fn ledger(&self, arguments: &[&str]) -> crate::support::Ran {
        Program::new([&["ledger"], arguments].concat()).config(self.app.file()).run().await
    }
}

/// Publishes like a worker: persistent, to the exchange for reports, with the queue's name, confirmed. Repeats while
/// the message is returned, because the queue is declared a moment before it is bound.
pub(super) async fn report(vhost: &Vhost, body: &[u8]) {
    let (_connection, channel) = vhost.channel().await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    eventually("a queue that takes the report", async || {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let published = channel.basic_publish(EXCHANGE.into(), QUEUE.into(), options, body, properties).await;
        let confirm = published.expect("published").await.expect("confirmed");
        if confirm.is_ack() && confirm.take_message().is_none() { Ok(()) } else { Err("it came back") }
    })
    .await;
}

fn outcome(command_id: &str, word: &str) -> Value {
    json!({ "schema": "approval.outcome/1", "command_id": command_id, "outcome": word })
}

fn with(mut outcome: Value, member: &str, value: Value) -> Value {
    outcome[member] = value;
    outcome
}

/// An instance as a worker reports it after the decision.
fn decided(code: &str, id: &str, update_time: i64) -> Value {
    let mut instance = instance(code, id, update_time);
    for pointer in ["/status", "/task_list/0/status"] {
        *instance.pointer_mut(pointer).expect(pointer) = json!("APPROVED");
    }
    instance
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_shows_what_became_of_the_decision_and_a_repeat_changes_nothing() {
    let all = Loop::new().await;
    let card = all.card().await;
    let command = all.pressed(&["--message", &card]).await;
    assert_eq!(all.cards().await, ["BUTTONS"], "by itself it goes on asking");
    let record = all.app.get(&format!("/api/v1/commands/{command}")).await.json();
    assert_eq!(record["outcome"], Value::Null);

    all.report(&with(outcome(&command, "failed"), "message", json!("ERP 维护中"))).await;
    all.until_cards_show(&["CUSTOM @i18n@status"]).await;
    all.report(&outcome(&command, "applied")).await;
    all.until_cards_show(&["APPROVED"]).await;
    let told = all.until_showing(&command, "shown").await;
    assert_eq!(
        (&told["outcome"], &told["superseded"], &told["instance"]),
        (&json!("applied"), &json!(1), &Value::Null)
    );
    assert_eq!((&told["card"]["id"], &told["card"]["state"]), (&json!(card), &json!("shown")));

    all.report(&outcome(&command, "applied")).await;
    all.app.until_metric("countersign_outcomes_total{outcome=\"duplicate\"}", 1.0).await;
    for (name, value) in [
        ("countersign_outcomes_total{outcome=\"applied\"}", 1.0),
        ("countersign_outcomes_total{outcome=\"failed\"}", 1.0),
        ("countersign_showings_total{surface=\"card\",result=\"shown\"}", 2.0),
        ("countersign_outcomes_pending", 0.0),
        ("countersign_outcomes_parked", 0.0),
    ] {
        assert_eq!(all.app.metric(name).await, Some(value), "{name}");
    }
    assert_eq!(all.outcome(&command).await, told);

    let shown = all.ledger(&["show", &command]).await.ended_with(0).stdout;
    assert!(shown.contains("accepted → published → applied → shown"), "{shown}");
    let listed = all.ledger(&["list"]).await.ended_with(0).stdout;
    assert!(listed.contains("OUTCOME") && listed.contains("applied, shown"), "{listed}");
    eventually("an empty queue", async || match all.vhost.depth(QUEUE).await {
        Some(0) => Ok(()),
        other => Err(other),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_may_say_what_the_card_shows() {
    let all = Loop::new().await;
    let card = all.card().await;
    let command = all.pressed(&["--message", &card, "--action", "REJECT", "--reason", "no"]).await;
    all.report(&outcome(&command, "applied")).await;
    all.until_cards_show(&["REJECTED"]).await;
    all.report(&with(outcome(&command, "applied"), "status", json!("ROLLBACK"))).await;
    all.until_cards_show(&["ROLLBACK"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_synchronised_with_a_version_that_the_center_does_not_ignore() {
    const BEGUN: i64 = 1_790_000_000_001;
    let all = Loop::new().await;
    all.center.sync(&instance(&all.code, "PO-77", BEGUN)).await;
    let command = all.pressed(&["--instance", "PO-77", "--task", "PO-77:n1"]).await;
    // The trap: the worker sends the versions that it began with, which the center would ignore with code 0.
    all.report(&with(outcome(&command, "applied"), "instance", decided(&all.code, "PO-77", BEGUN))).await;
    let version = async |wanted: &str| {
        all.until_showing(&command, "shown").await;
        let instance = all.instance("PO-77").await;
        assert_eq!((&instance["status"], &instance["tasks"][0]["status"]), (&json!(wanted), &json!(wanted)));
        instance["update_time"].as_str().expect("a text").parse::<i64>().expect("a number")
    };
    let first = version("APPROVED").await;
    assert!(first > BEGUN);

    // Another writer, with a clock far ahead.
    let ahead = BEGUN + 1_000_000_000;
    all.center.sync(&instance(&all.code, "PO-77", ahead)).await;
    let mut again = decided(&all.code, "PO-77", BEGUN);
    again["status"] = json!("REJECTED");
    again["task_list"][0]["status"] = json!("REJECTED");
    all.report(&with(outcome(&command, "refused"), "instance", again)).await;
    eventually("the instance to follow", async || {
        let instance = all.instance("PO-77").await;
        if instance["status"] == "REJECTED" { Ok(()) } else { Err(instance) }
    })
    .await;
    assert!(version("REJECTED").await > ahead);

    // Without any version.
    let mut unversioned = decided(&all.code, "PO-77", BEGUN);
    for pointer in ["", "/task_list/0"] {
        unversioned.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove("update_time");
    }
    all.report(&with(outcome(&command, "applied"), "instance", unversioned)).await;
    eventually("the instance to follow", async || {
        let instance = all.instance("PO-77").await;
        if instance["status"] == "APPROVED" { Ok(()) } else { Err(instance) }
    })
    .await;
    assert!(version("APPROVED").await > ahead + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_center_is_away_outcomes_wait_and_a_crash_loses_none() {
    let vhost = Vhost::new().await;
    let center = Center::start().await;
    let address = center.url.strip_prefix("http://").unwrap().parse().unwrap();
    let mut proxy = Proxy::shut_before(address);
    let mut app = App::with(config(&vhost, &format!("http://127.0.0.1:{}", proxy.port()))).await;
    vhost.until_declared(QUEUE).await;
    let code = center.definition(&app.callback_url("purchase")).await;
    let card = messages::send(&center, &messages::card(&app.callback_url("purchase"), false)).await;
    let mut all = Loop { vhost, center, app, code };
    let command = all.pressed(&["--message", &card]).await;
    all.report(&outcome(&command, "applied")).await;
    all.app.until_metric("countersign_outcomes_pending", 1.0).await;
    eventually("the report to be acknowledged", async || match all.vhost.depth(QUEUE).await {
        Some(0) => Ok(()),
        other => Err(other),
    })
    .await;
    // None of it blocks callbacks.
    let other = Callback::list("i", "t").token("fake-token-number-1");
    all.app.post("purchase", other.encrypted("fake-key-number-1")).await.command_id();
    all.until_showing(&command, "waiting").await;
    // One line per start, however often it is retried.
    all.until_told("outcomes wait", 1).await;
    all.app.kill();
    assert_eq!(all.cards().await, ["BUTTONS"]);
    all.app.restart().await;
    all.until_showing(&command, "waiting").await;
    all.until_told("outcomes wait", 2).await;
    proxy.open().await;
    all.until_cards_show(&["APPROVED"]).await;
    all.until_showing(&command, "shown").await;
    all.until_told("accepts outcomes again", 1).await;
    assert_eq!(all.app.stderr().matches("outcomes wait").count(), 2);
    app = all.app;
    app.terminate();
    assert!(app.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_of_its_way_it_shows_the_outcome_after_the_next_start() {
    for point in OUTCOMES {
        // A card names its instance only in its context.
        let mut all = Loop::with(|config| {
            config
                .env("COUNTERSIGN_KILL_AT", point)
                .env("COUNTERSIGN__ENDPOINTS__0__CONTEXT__FORMAT", "pattern")
                .env("COUNTERSIGN__ENDPOINTS__0__CONTEXT__PATTERN", CONTEXT)
        })
        .await;
        let card = all.card().await;
        all.center.sync(&instance(&all.code, "PO-77", 1_790_000_000_001)).await;
        let command = all.pressed(&["--message", &card]).await;
        let applied =
            with(outcome(&command, "applied"), "instance", decided(&all.code, "PO-77", 1_790_000_000_001));
        all.report(&applied).await;
        if point == "stop:outcomes" {
            all.app.terminate();
        }
        assert!(!all.app.ended().await.success(), "{point} was not reached");
        all.app.reconfigure(|config| config.env("COUNTERSIGN_KILL_AT", ""));
        all.app.restart().await;
        all.until_cards_show(&["APPROVED"]).await;
        all.until_showing(&command, "shown").await;
        assert_eq!(all.instance("PO-77").await["tasks"][0]["status"], "APPROVED", "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_center_refuses_for_good_is_parked_with_its_words_until_an_operator_asks_again() {
    let all = Loop::new().await;
    let card = all.card().await;
    let command = all.pressed(&["--message", &card]).await;
    let refusal =
        || json!({ "path": "message/update", "status": 200, "code": 60001, "msg": "message is too old" });
    all.center.fail(refusal()).await;
    all.report(&outcome(&command, "applied")).await;
    let told = all.until_showing(&command, "parked").await;
    let note = told["card"]["note"].as_str().unwrap();
    assert!(note.contains("code 60001 (HTTP 200): message is too old"), "{note}");
    all.app.until_metric("countersign_outcomes_parked", 1.0).await;
    assert_eq!(
        all.app.metric("countersign_showings_total{surface=\"card\",result=\"parked\"}").await,
        Some(1.0)
    );
    let shown = all.ledger(&["show", &command]).await.ended_with(0).stdout;
    assert!(shown.contains("message is too old") && shown.contains("applied, parked"), "{shown}");
    assert!(all.ledger(&["stats"]).await.ended_with(0).stdout.contains("1 parked"));

    // First with the command line, which is refused too, then with the API.
    all.center.fail(refusal()).await;
    let ran = all.ledger(&["show-again", "--all-parked", "--json"]).await.ended_with(0);
    assert_eq!(ran.json(), json!({ "command_id": command, "done": true, "problem": null }));
    eventually("a second refusal", async || {
        match all.app.metric("countersign_showings_total{surface=\"card\",result=\"parked\"}").await {
            Some(2.0) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let url = format!("http://{}/api/v1/commands/{command}/show-again", all.app.admin());
    let answer = all.app.client().post(&url).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let expected = json!({ "command_id": command, "act_id": 2, "showing": "waiting" });
    assert_eq!(answer.json::<Value>().await.unwrap(), expected);
    all.until_cards_show(&["APPROVED"]).await;
    let told = all.until_showing(&command, "shown").await;
    assert_eq!(told["superseded"], 0);

    let other = Callback::list("i", "t").token("fake-token-number-1");
    let other = all.app.post("purchase", other.encrypted("fake-key-number-1")).await.command_id();
    let ran = all.ledger(&["show-again", &other]).await.ended_with(FAILED);
    assert!(ran.stderr.contains("no worker has reported an outcome"), "{}", ran.stderr);
    let url = format!("http://{}/api/v1/commands/{other}/show-again", all.app.admin());
    assert_eq!(all.app.client().post(&url).send().await.unwrap().status(), 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_tried_again_by_itself() {
    let all = Loop::new().await;
    all.center.sync(&instance(&all.code, "PO-77", 1_790_000_000_001)).await;
    let command = all.pressed(&["--instance", "PO-77", "--task", "PO-77:n1"]).await;
    // More often than the client retries within one call.
    all.center
        .fail(json!({ "path": "external_instances", "times": 6, "code": 1395001, "msg": "too soon" }))
        .await;
    all.report(&with(
        outcome(&command, "applied"),
        "instance",
        decided(&all.code, "PO-77", 1_790_000_000_002),
    ))
    .await;
    let told = all.until_showing(&command, "shown").await;
    assert_eq!(told["card"], Value::Null);
    assert!(
        all.app.metric("countersign_showings_total{surface=\"instance\",result=\"retried\"}").await
            >= Some(1.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_report_goes_to_the_dead_letters_and_holds_up_nobody() {
    let all = Loop::new().await;
    let card = all.card().await;
    let command = all.pressed(&["--message", &card]).await;
    let unknown = "019a0000-0000-7000-8000-000000000001";
    report(&all.vhost, b"hush").await;
    report(&all.vhost, outcome(unknown, "applied").to_string().as_bytes()).await;
    report(
        &all.vhost,
        with(outcome(&command, "applied"), "status", json!("CANCELED")).to_string().as_bytes(),
    )
    .await;
    all.report(&outcome(&command, "applied")).await;
    all.until_cards_show(&["APPROVED"]).await;
    let mut dead = Vec::new();
    for _ in 0..3 {
        let message = all.vhost.take(DEAD).await;
        dead.push((message.body.clone(), message.header("countersign-refused")));
    }
    dead.sort();
    assert!(dead.iter().any(|(body, reason)| body == b"hush" && reason.contains("not JSON")), "{dead:?}");
    assert!(dead.iter().any(|(_, reason)| reason == "the ledger has no such command"), "{dead:?}");
    assert_eq!(all.vhost.depth(QUEUE).await, Some(0));
    assert_eq!(all.app.metric("countersign_outcomes_total{outcome=\"malformed\"}").await, Some(2.0));
    assert_eq!(all.app.metric("countersign_outcomes_total{outcome=\"unknown_command\"}").await, Some(1.0));
    assert!(!all.app.stderr().contains("hush"));
    assert!(all.app.stderr().contains(unknown), "a line names the command that is not known");
}

/// The full loop from button to button: emulator, encrypted callback, command, worker, outcome, card and instance.
#[tokio::test(flavor = "multi_thread")]
async fn the_whole_loop_with_a_worker_that_reports() {
    let all = Loop::new().await;
    let card = all.card().await;
    all.center.sync(&instance(&all.code, "PO-77", 1_790_000_000_001)).await;
    let worker = Worker::on(&all.vhost);
    for press in [&["--message", &*card][..], &["--instance", "PO-77", "--task", "PO-77:n1"]] {
        let id = all.pressed(press).await;
        // The worker only reads the command from its queue.
        let command = worker.command(&id).await.json();
        assert_eq!((&command["command_id"], &command["action"]), (&json!(id), &json!("approve")));
        let mut applied = outcome(command["command_id"].as_str().unwrap(), "applied");
        if let Some(instance_id) = command["task"]["instance_id"].as_str() {
            applied["instance"] = decided(&all.code, instance_id, 1_790_000_000_002);
        }
        all.report(&applied).await;
        all.until_showing(&id, "shown").await;
        let shown = all.ledger(&["show", &id]).await.ended_with(0).stdout;
        assert!(shown.contains("accepted → published → applied → shown"), "{shown}");
    }
    assert_eq!(all.cards().await, ["APPROVED"]);
    let instance = all.instance("PO-77").await;
    assert_eq!(
        (&instance["status"], &instance["tasks"][0]["status"]),
        (&json!("APPROVED"), &json!("APPROVED"))
    );
}

/// The approver of the emulator presses, waits, and reads the worker's sentence.
#[tokio::test(flavor = "multi_thread")]
async fn the_approver_at_the_center_reads_what_the_worker_says() {
    let vhost = Vhost::new().await;
    let center = Center::start().await;
    let endpoint = Endpoint::encrypted("purchase")
        .credentials(&[("fake-token-number-1", Some("fake-key-number-1"))])
        .set("answer", "{ wait = \"4s\" }");
    let app = App::with(Config::bare(vhost.url()).endpoint(endpoint)).await;
    vhost.until_declared(QUEUE).await;
    let card = messages::send(&center, &messages::card(&app.callback_url("purchase"), false)).await;
    let (_connection, channel) = vhost.channel().await;
    let worker = async {
        vhost.until_declared("countersign.commands").await;
        let options = lapin::options::BasicConsumeOptions::default();
        let consumer =
            channel.basic_consume("countersign.commands".into(), "w".into(), options, Default::default());
        let mut commands = consumer.await.expect("consuming");
        let command = futures_util::StreamExt::next(&mut commands).await.expect("a command").expect("sound");
        let id = command.properties.message_id().as_ref().expect("an id").to_string();
        let refused = with(outcome(&id, "refused"), "message", json!("预算不足，请先追加预算。"));
        report(&vhost, refused.to_string().as_bytes()).await;
    };
    let (pressed, ()) = tokio::join!(async { center.press(&["--message", &card]).await }, worker);
    let told = pressed.ended_with(FAILED).json();
    assert_eq!((&told["http_status"], &told["accepted"]), (&json!(409), &json!(false)));
    assert_eq!(told["shown"], "预算不足，请先追加预算。");
}
