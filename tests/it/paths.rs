//! Requests to the public listener other than `POST /callbacks/{endpoint}`: all of them are observable.

use crate::refuse::assert_refused;
use crate::support::{Answer, App, Callback, Config, KEY, NOWHERE, TOKEN, eventually};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

async fn send(app: &App, method: &str, path: &str, agent: &str, body: Vec<u8>) -> Answer {
    let mut line = crate::support::Line::to(app.public()).await;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: {agent}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    line.write(&[head.as_bytes(), &body].concat()).await.expect("an open connection");
    line.answer().await.expect("an answer").without_date()
}

async fn refusals(app: &App, count: usize) -> Vec<Value> {
    eventually("the refusals in the ledger", async || {
        let listed = app.get("/api/v1/refusals?limit=500").await.json();
        let rows = listed["refusals"].as_array().expect("a list").clone();
        if rows.len() == count { Ok(rows.into_iter().rev().collect()) } else { Err(rows.len()) }
    })
    .await
}

const UNKNOWN: &str = "countersign_callbacks_total{endpoint=\"-\",outcome=\"unauthenticated\"}";

/// Usually `action_callback_url` is wrong: the approver reads a sentence, and the operator finds the cause.
#[tokio::test(flavor = "multi_thread")]
async fn a_callback_to_a_path_that_is_none_is_refused_as_one_to_an_unknown_endpoint() {
    let config = Config::with_url(NOWHERE).set("http", "unauthenticated_floor_ms", "100");
    let mut app = App::with(config).await;
    let body = Callback::list("i", "t").encrypted(KEY);
    let wanted = send(&app, "POST", "/callbacks/nowhere", "x", body.clone()).await;
    assert_refused(&wanted, "unauthenticated");
    let paths = [
        "/",
        "//",
        "/callback/purchase",
        "/callbacks",
        "/callbacks/",
        "/callbacks/a/b",
        "/api/callbacks/purchase",
        "/callbacks%2fpurchase",
        "/CALLBACKS/purchase",
        "/index.php",
        "///callbacks/purchase",
        "/callbacks/purchase//",
        "/callbacks/%70urchase",
    ];
    for path in paths {
        let began = Instant::now();
        let answer = send(&app, "POST", path, "x", body.clone()).await;
        assert!(began.elapsed() >= Duration::from_millis(100), "{path}: the floor");
        assert_eq!(answer, wanted, "{path}");
    }
    let rows = refusals(&app, paths.len() + 1).await;
    for (path, row) in paths.iter().zip(&rows[1..]) {
        let (endpoint, detail) = match *path {
            "/callbacks/%70urchase" => ("%70urchase", "no such endpoint"),
            path => (path, "no such path: callbacks go to /callbacks/{endpoint}"),
        };
        assert_eq!(
            [&row["endpoint"], &row["reason"], &row["detail"], &row["stranger"]],
            [&json!(endpoint), &json!("unauthenticated"), &json!(detail), &json!(true)],
            "{path}"
        );
    }
    assert_eq!(app.metric(UNKNOWN).await, Some(paths.len() as f64 + 1.0));
    // One peer and one reason: the first is logged in full; at the end of the minute or of the process follows the
    // number of the others.
    app.terminate();
    app.ended().await;
    let lines = app.log_lines();
    let lines = lines.iter().filter(|line| line["outcome"] == "unauthenticated");
    let told: Vec<_> = lines.map(|line| (line["message"].as_str().unwrap(), &line["untold"])).collect();
    let (first, more) = (("callback refused", &Value::Null), ("more callbacks refused", &json!(paths.len())));
    assert_eq!(told, [first, more]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_slash_too_many_at_each_place_is_tolerated() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let paths = [
        "/callbacks/purchase/",
        "//callbacks/purchase",
        "/callbacks//purchase",
        "//callbacks/purchase/",
        "/callbacks/purchase/?a=b",
    ];
    for (number, path) in paths.into_iter().enumerate() {
        let body = Callback::list("i", &format!("t{number}")).encrypted(KEY);
        assert_eq!(send(&app, "POST", path, "x", body).await.status, 200, "{path}");
    }
    let accepted = "countersign_callbacks_total{endpoint=\"purchase\",outcome=\"accepted\"}";
    assert_eq!(app.metric(accepted).await, Some(paths.len() as f64));
}

/// Wrong paths and bodies that are not JSON count against a stranger's budget like everything else.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_path_and_a_body_that_is_no_json_cost_what_a_wrong_token_costs() {
    let app = App::with(Config::with_url(NOWHERE).set("http", "failure_budget_per_peer", "4")).await;
    let wanted = send(&app, "POST", "/nowhere", "x", b"{}".to_vec()).await;
    for (path, body) in [("/callbacks/leave", &b"no JSON"[..]), ("/callbacks/leave", b""), ("/", b"[]")] {
        assert_eq!(send(&app, "POST", path, "x", body.to_vec()).await, wanted, "{path}");
    }
    for path in ["/callbacks/leave", "/callbacks/purchase", "/", "/callbacks/nowhere"] {
        assert_refused(&send(&app, "POST", path, "x", b"?".to_vec()).await, "rate_limited");
    }
}

/// Health checks and browsers are visible and distinguished, but they do not count as callbacks and fill nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_callback_is_counted_by_kind_and_told_once_a_minute() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let browser = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    for _ in 0..50 {
        let answer = send(&app, "GET", "/callbacks/purchase", "kube-probe/1.33", Vec::new()).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    }
    for (method, path, agent, status) in [
        ("GET", "/healthz", "x", 404),
        ("GET", "/callbacks/purchase", browser, 405),
        ("GET", "/callbacks/nowhere", browser, 405),
        ("GET", "/", "curl/8.5.0", 404),
        ("PUT", "/callbacks/purchase", "x", 405),
    ] {
        let answer = send(&app, method, path, agent, Vec::new()).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.header("connection"), Some("close"), "{method} {path}");
    }
    let head = app.client().head(format!("http://{}/", app.public())).send().await.expect("an answer");
    assert_eq!(head.status().as_u16(), 404);
    // After this callback, all requests above have been processed.
    app.accept(&Callback::list("i", "t")).await;
    for (kind, count) in [("health_check", 52.0), ("browser", 2.0), ("other", 2.0)] {
        let name = format!("countersign_misdirected_requests_total{{kind=\"{kind}\"}}");
        assert_eq!(app.metric(&name).await, Some(count), "{kind}");
    }
    assert_eq!(app.metric("countersign_callback_duration_seconds_count").await, Some(1.0));
    assert_eq!(app.metric(UNKNOWN).await, Some(0.0));
    let rows = refusals(&app, 1).await;
    assert_eq!(rows[0]["reason"], "method_not_allowed");
    assert_eq!(rows[0]["endpoint"], "/callbacks/purchase");
    let detail = rows[0]["detail"].as_str().expect("a detail");
    assert!(detail.starts_with("a health check") && detail.contains("/livez or /readyz"), "{detail}");
    let listed = app.get("/api/v1/refusals?reason=method_not_allowed").await.json();
    assert_eq!(listed["refusals"].as_array().map(Vec::len), Some(1));
    let lines: Vec<_> =
        app.log_lines().into_iter().filter(|line| line["message"] == "not a callback").collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!((&lines[0]["level"], &lines[0]["method"]), (&json!("INFO"), &json!("GET")));
    assert!(!app.stderr().contains(TOKEN));
}
