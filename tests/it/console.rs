//! The internal listener: health, metrics, the operators' API.

use crate::support::{App, Callback, Config, Endpoint, KEY, NOWHERE, Vhost, Worker, eventually};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

#[tokio::test(flavor = "multi_thread")]
async fn with_the_broker_away_it_is_alive_and_ready() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    assert_eq!(app.get("/livez").await.status, 200);
    assert_eq!(app.get("/readyz").await.status, 200);
    assert_eq!(app.metric("countersign_amqp_connected").await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_the_catalogue_is_there_from_the_start() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let answer = app.get("/metrics").await;
    let text = answer.text();
    for name in [
        "countersign_callbacks_total{",
        "countersign_callback_duration_seconds_bucket{",
        "countersign_callback_duration_seconds_count ",
        "countersign_ledger_rows{state=\"pending\"} ",
        "countersign_ledger_rows{state=\"published\"} ",
        "countersign_ledger_rows{state=\"parked\"} ",
        "countersign_ledger_oldest_pending_seconds ",
        "countersign_publishes_total{",
        "countersign_confirm_duration_seconds_count ",
        "countersign_amqp_connected ",
        "countersign_amqp_blocked ",
        "countersign_build_info{",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is not in\n{text}");
    }
}

/// Parses both formats with Prometheus' parser and checks the names of series and types, and the linter's output.
#[tokio::test(flavor = "multi_thread")]
async fn prometheus_reads_the_metrics() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    app.post("purchase", Callback::list("i", "t").plain()).await;
    let text = app.get("/metrics").await.text();
    assert!(
        text.contains("# TYPE countersign_callbacks_total counter"),
        "the form that promtool reads: {text}"
    );
    #[expect(clippy::print_stderr, reason = "what was left out is not to look as if it had passed")]
    let mut promtool = match Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    {
        Ok(promtool) => promtool,
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("ignored: there is no promtool (apt install prometheus): {error}");
            return;
        }
        Err(error) => panic!("no promtool, which CI wants (apt install prometheus): {error}"),
    };
    promtool.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("promtool reads");
    let said = promtool.wait_with_output().expect("promtool ends");
    let words = String::from_utf8_lossy(&said.stderr).into_owned() + &String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success() && words.is_empty(), "{words}\n{text}");
}

/// The values of one label over all lines of a metric.
fn label_values(text: &str, metric: &str, label: &str) -> BTreeSet<String> {
    let mark = format!("{label}=\"");
    text.lines()
        .filter(|line| line.starts_with(metric))
        .filter_map(|line| line.split_once(&mark)?.1.split('"').next().map(str::to_owned))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_a_sender_writes_becomes_a_label() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    for number in 0..20 {
        app.post(&format!("invented-{number}"), Callback::list("i", "t").plain()).await;
        app.post("leave", Callback::list("i", "t").action(&format!("ACTION-{number}")).plain()).await;
    }
    let text = app.get("/metrics").await.text();
    let endpoints = label_values(&text, "countersign_callbacks_total", "endpoint");
    let unknown: Vec<&String> =
        endpoints.iter().filter(|name| !["purchase", "leave"].contains(&name.as_str())).collect();
    assert_eq!(unknown.len(), 1, "all endpoints that do not exist share one label: {endpoints:?}");
    let known = BTreeSet::from(
        [
            "accepted",
            "duplicate",
            "unauthenticated",
            "malformed",
            "action_not_allowed",
            "definition_not_allowed",
            "context_invalid",
            "context_expired",
            "operator_not_allowed",
            "conflicting",
            "declined",
            "body_too_large",
            "too_slow",
            "rate_limited",
            "overloaded",
            "ledger_unavailable",
            "shutting_down",
        ]
        .map(str::to_owned),
    );
    let outcomes = label_values(&text, "countersign_callbacks_total", "outcome");
    assert!(outcomes.is_subset(&known), "{outcomes:?}");
    let states = label_values(&text, "countersign_ledger_rows", "state");
    assert_eq!(
        states,
        BTreeSet::from(["pending", "published", "parked", "rejected", "unrouted"].map(str::to_owned))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_are_counted_by_endpoint_and_outcome() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let callback = Callback::list("i", "t");
    for _ in 0..3 {
        app.post("purchase", callback.encrypted(KEY)).await;
    }
    app.post("purchase", callback.plain()).await;
    app.post("leave", callback.clone().action("HOLD").plain()).await;
    let counted = async |endpoint: &str, outcome: &str| {
        app.metric(&format!("countersign_callbacks_total{{endpoint=\"{endpoint}\",outcome=\"{outcome}\"}}"))
            .await
    };
    assert_eq!(counted("purchase", "accepted").await, Some(1.0));
    assert_eq!(counted("purchase", "duplicate").await, Some(2.0));
    assert_eq!(counted("purchase", "unauthenticated").await, Some(1.0));
    assert_eq!(counted("leave", "action_not_allowed").await, Some(1.0));
    assert_eq!(app.metric("countersign_callback_duration_seconds_count").await, Some(5.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_and_confirms_are_counted() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    for number in 0..7 {
        app.accept(&Callback::list("i", &format!("t{number}"))).await;
    }
    Worker::on(&vhost).messages(7).await;
    app.until_metric("countersign_publishes_total{result=\"confirmed\"}", 7.0).await;
    app.until_metric("countersign_confirm_duration_seconds_count", 7.0).await;
    app.until_metric("countersign_ledger_rows{state=\"published\"}", 7.0).await;
    app.until_metric("countersign_ledger_oldest_pending_seconds", 0.0).await;
    app.until_metric("countersign_amqp_connected", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_age_of_the_oldest_pending_command_grows() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    app.accept(&Callback::list("i", "t")).await;
    eventually("an age above zero", async || {
        match app.metric("countersign_ledger_oldest_pending_seconds").await {
            Some(age) if age > 0.0 => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

fn ids(page: &Value) -> Vec<String> {
    let commands = page["commands"].as_array().expect("a list of commands");
    commands.iter().map(|record| record["command_id"].as_str().expect("a string").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_listed_newest_first_by_state_and_page_by_page() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let mut accepted = Vec::new();
    for number in 0..5 {
        accepted.push(app.accept(&Callback::list("i", &format!("t{number}"))).await);
    }
    app.until_metric("countersign_ledger_rows{state=\"published\"}", 5.0).await;
    accepted.reverse();
    let all = app.get("/api/v1/commands").await.json();
    assert_eq!(ids(&all), accepted);
    let record = &all["commands"][0];
    assert_eq!(
        (&record["state"], &record["endpoint"], &record["task_id"]),
        (&json!("published"), &json!("purchase"), &json!("t4"))
    );
    assert_eq!(ids(&app.get("/api/v1/commands?state=published&limit=2").await.json()), accepted[..2]);
    assert_eq!(ids(&app.get("/api/v1/commands?state=pending").await.json()), [""; 0]);
    assert_eq!(ids(&app.get("/api/v1/commands?task_id=t1").await.json()), accepted[3..4]);
    let page = app.get("/api/v1/commands?limit=3").await.json();
    let next = page["next_before"].to_string();
    assert_eq!(ids(&app.get(&format!("/api/v1/commands?limit=3&before={next}")).await.json()), accepted[3..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_is_shown_with_its_message() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let id = app.accept(&Callback::list("i", "t").context("ctx")).await;
    let message = Worker::on(&vhost).command(&id).await.json();
    let record = app.get(&format!("/api/v1/commands/{id}")).await.json();
    assert_eq!((&record["command_id"], &record["command"]), (&json!(id), &message));
    assert_eq!(app.get("/api/v1/commands/019a0000-0000-7000-8000-000000000001").await.status, 404);
    let status = app.get("/api/v1/commands/no-id").await.status;
    assert!((400..500).contains(&status), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_the_api_asks_for_it_and_health_and_metrics_do_not() {
    let config = Config::with_url(NOWHERE).set("admin", "token", "\"fake-admin-token\"");
    let app = App::with(config).await;
    for path in
        ["/api/v1/commands", "/api/v1/commands/019a0000-0000-7000-8000-000000000001", "/api/v1/refusals"]
    {
        let answer = app.get(path).await;
        assert_eq!(answer.status, 401, "{path} without a token");
        assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")), "{path}");
        for wrong in ["fake-admin-toke", "fake-admin-token2", "x"] {
            assert_eq!(app.get_as(wrong, path).await.status, 401, "{path} with a wrong token");
        }
        let status = app.get_as("fake-admin-token", path).await.status;
        assert!(status == 200 || status == 404, "{path} with the token: {status}");
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(app.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_listed_newest_first_and_by_reason() {
    let config = Config::bare(NOWHERE).endpoint(Endpoint::plain("leave")).endpoint(Endpoint::plain("other"));
    let app = App::with(config).await;
    app.post("leave", Callback::list("i", "t").action("HOLD").plain()).await;
    app.post("other", Callback::list("i", "t").token("x").plain()).await;
    let reasons = |page: &Value| -> Vec<String> {
        let rows = page["refusals"].as_array().expect("a list of refusals");
        rows.iter().map(|row| row["reason"].as_str().unwrap().to_owned()).collect()
    };
    eventually("both refusals", async || {
        let reasons = reasons(&app.get("/api/v1/refusals").await.json());
        if reasons == ["unauthenticated", "action_not_allowed"] { Ok(()) } else { Err(reasons) }
    })
    .await;
    let one = app.get("/api/v1/refusals?reason=action_not_allowed").await.json();
    assert_eq!(reasons(&one), ["action_not_allowed"]);
    let row = &one["refusals"][0];
    assert_eq!(
        (&row["endpoint"], &row["user_id"], &row["task_id"]),
        (&json!("leave"), &json!("zhang3"), &json!("t"))
    );
}
