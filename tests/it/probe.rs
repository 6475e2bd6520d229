//! Probes, with which `countersign doctor` tests an endpoint; strangers cannot use them to hide.

use crate::support::{App, Callback, Config, Endpoint, KEY, NOWHERE, Program, eventually};
use serde_json::json;

const PROBE: &str = "COUNTERSIGN_DOCTOR";

async fn refusals(app: &App) -> Vec<serde_json::Value> {
    let listed = app.get("/api/v1/refusals").await.json();
    listed["refusals"].as_array().expect("a list").clone()
}

/// The sum of `countersign_callbacks_total`.
async fn callbacks(app: &App) -> f64 {
    let text = app.get("/metrics").await.text();
    let lines = text.lines().filter(|line| line.starts_with("countersign_callbacks_total{"));
    lines.map(|line| line.rsplit_once(' ').expect("a value").1.parse::<f64>().expect("a number")).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authenticated_probe_decides_nothing_and_is_seen_by_no_alert() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    for (endpoint, body) in [
        ("purchase", Callback::list("i", "t").action(PROBE).encrypted(KEY)),
        ("leave", Callback::card("c", 7).action(PROBE).without("user_id").plain()),
    ] {
        let answer = app.post(endpoint, body).await;
        assert_eq!(answer.status, 422);
        assert_eq!(
            answer.json(),
            json!({ "code": 42203, "msg": "probe", "message": "这只是一次连通性检查，未作出任何决定。", "without_prefix": "true" })
        );
        let counted = app.metric(&format!("countersign_probes_total{{endpoint=\"{endpoint}\"}}")).await;
        assert_eq!(counted, Some(1.0), "{endpoint}");
    }
    // After this callback, all requests above have been processed.
    app.accept(&Callback::list("i", "t")).await;
    assert_eq!(callbacks(&app).await, 1.0);
    assert_eq!(app.metric("countersign_callback_duration_seconds_count").await, Some(1.0));
    assert_eq!(refusals(&app).await, Vec::<serde_json::Value>::new());
    let listed = app.get("/api/v1/commands").await.json();
    assert_eq!(listed["commands"].as_array().map(Vec::len), Some(1), "{listed}");
    let lines = eventually("two lines about probes", async || {
        let found: Vec<_> =
            app.log_lines().into_iter().filter(|line| line["outcome"] == json!("probe")).collect();
        if found.len() == 2 { Ok(found) } else { Err(app.stderr()) }
    })
    .await;
    assert!(lines.iter().all(|line| line["level"] == json!("INFO")), "{lines:?}");
    assert!(!app.stderr().contains("callback refused"), "{}", app.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_cannot_hide_behind_the_mark_of_a_probe() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let probe = Callback::list("i", "t").action(PROBE);
    for (endpoint, body) in [
        ("purchase", probe.encrypted("guessed-key")),
        ("purchase", probe.clone().token("guessed-token").encrypted(KEY)),
        ("purchase", probe.plain()),
        ("leave", probe.clone().token("guessed-token").plain()),
        ("nowhere", probe.plain()),
    ] {
        let (answer, other) =
            (app.post(endpoint, body).await, app.post("nowhere", Callback::list("i", "t").plain()).await);
        assert_eq!((answer.status, answer.body), (403, other.body));
    }
    assert_eq!(callbacks(&app).await, 10.0);
    for endpoint in ["purchase", "leave", "-"] {
        let counted = app.metric(&format!("countersign_probes_total{{endpoint=\"{endpoint}\"}}")).await;
        assert_eq!(counted, Some(0.0), "{endpoint}");
    }
    eventually("a row for each of them", async || match refusals(&app).await.len() {
        10 => Ok(()),
        rows => Err(rows),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_endpoint_can_allow_the_action_of_a_probe() {
    let endpoint = Endpoint::encrypted("purchase").set("actions", &json!(["APPROVE", PROBE]).to_string());
    let config = Config::bare(NOWHERE).endpoint(endpoint);
    let ran = Program::new(["config", "check"]).config(&config.write()).run().await.ended_with(64);
    assert!(ran.stderr.contains("\"COUNTERSIGN_DOCTOR\" is reserved for the probes"), "{ran:?}");
}
