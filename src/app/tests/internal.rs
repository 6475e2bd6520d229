//! The internal listener.

use std::sync::atomic::Ordering;

use futures_util::future::join_all;

use super::*;
use crate::{command::CommandId, telemetry::exposition::Exposition};
use double::Fault;

const API: [&str; 3] =
    ["/api/v1/commands", "/api/v1/commands/019a0000-0000-7000-8000-000000000001", "/api/v1/refusals"];

fn with_token() -> Settings {
    let mut settings = settings();
    settings.console.token = Some(Secret::new("fake-admin-token"));
    settings
}

/// Keeps tasks `t1`, `t2` …; returns their ids.
async fn keep(service: &Service, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for task in 1..=count {
        let answer = service.post("plain", &callback(&format!("t{task}"))).await;
        ids.push(answer.json()["data"]["command_id"].as_str().unwrap().to_owned());
    }
    ids
}

#[tokio::test]
async fn ready_means_that_a_callback_can_be_kept() {
    for (fault, check) in [
        (Fault::None, "ok"),
        (Fault::Full, "overloaded"),
        (Fault::Broken, "unavailable"),
        (Fault::Hanging, "timeout"),
    ] {
        let service = Service::start();
        service.ledger.fail(fault);
        let answer = service.get("/readyz").await;
        let ready = fault == Fault::None;
        assert_eq!(answer.status, if ready { 200 } else { 503 }, "{fault:?}");
        let mut said = answer.json();
        let configuration = said.as_object_mut().unwrap().remove("configuration").unwrap();
        assert_eq!(configuration["last_reload"], serde_json::Value::Null);
        assert_eq!(configuration["restart_needed"], serde_json::json!([]));
        let credentials = said.as_object_mut().unwrap().remove("credentials").unwrap();
        assert_eq!(credentials[0]["last_used_at"], serde_json::Value::Null);
        // No broker was ever connected here.
        assert_eq!(
            said,
            serde_json::json!({
                "ready": ready, "checks": {"ledger": check, "accepting": "ok"}, "broker": "disconnected",
                "topology": null,
            })
        );
        assert_eq!(service.get("/livez").await.status, 200, "alive whatever happens: {fault:?}");
        service.stop().await;
    }
}

#[tokio::test]
async fn draining_is_unready_and_alive() {
    let service = Service::start();
    service.drain();
    let answer = service.get("/readyz").await;
    assert_eq!((answer.status, &answer.json()["checks"]["accepting"]), (503, &"draining".into()));
    assert_eq!(service.get("/livez").await.status, 200);
    service.stop().await;
}

#[tokio::test]
async fn probers_that_come_together_share_one_probe() {
    let service = Service::start();
    for answer in join_all((0..20).map(|_| service.get("/readyz"))).await {
        assert_eq!(answer.status, 200);
    }
    // One, or two if the machine was so slow that a second passed.
    assert!(service.ledger.probes.load(Ordering::Relaxed) <= 2);
    service.stop().await;
}

#[tokio::test]
async fn metrics_tell_the_state_of_the_ledger_at_the_scrape() {
    let service = Service::start();
    keep(&service, 3).await;
    service.ledger.publish_through(2);
    // Ages are in whole milliseconds.
    tokio::time::sleep(Duration::from_millis(2)).await;
    let answer = service.get("/metrics").await;
    assert_eq!(answer.header("content-type"), Some(Exposition::Text.content_type()));
    assert_eq!(answer.header("vary"), Some("accept"));
    for line in [
        r#"countersign_ledger_rows{state="pending"} 1"#,
        r#"countersign_ledger_rows{state="published"} 2"#,
        r#"countersign_ledger_rows{state="parked"} 0"#,
    ] {
        assert!(answer.body.lines().any(|l| l == line), "{line} is not in\n{}", answer.body);
    }
    let age =
        answer.body.lines().find_map(|line| line.strip_prefix("countersign_ledger_oldest_pending_seconds "));
    assert!(age.unwrap().parse::<f64>().unwrap() > 0.0, "{age:?}");

    service.ledger.fail(Fault::Broken);
    let stale = service.get("/metrics").await;
    assert_eq!(stale.status, 200);
    assert!(stale.body.contains(r#"countersign_ledger_rows{state="pending"} 1"#));
    service.stop().await;
}

#[tokio::test]
async fn metrics_come_in_the_form_that_the_scraper_reads() {
    let service = Service::start();
    let openmetrics =
        service.get_with("/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n").await;
    assert_eq!(openmetrics.header("content-type"), Some(Exposition::OpenMetrics.content_type()));
    assert!(openmetrics.body.ends_with("\n# EOF\n"), "{}", openmetrics.body);
    assert!(openmetrics.body.contains("# TYPE countersign_build info\n"), "{}", openmetrics.body);
    for accept in ["", "Accept: text/plain;version=0.0.4\r\n"] {
        let text = service.get_with("/metrics", accept).await;
        assert_eq!(text.header("content-type"), Some(Exposition::Text.content_type()));
        assert!(text.body.contains("# TYPE countersign_build_info gauge\n"), "{}", text.body);
        assert!(!text.body.contains("# EOF"), "{}", text.body);
    }
    service.stop().await;
}

#[tokio::test]
async fn what_may_be_read_may_be_asked_for_its_head_alone() {
    let service = Service::start();
    for path in ["/livez", "/readyz", "/metrics", "/", "/api/v1/commands"] {
        let body_length = service.get(path).await.body.len();
        let mut connection = Connection::open(service.internal).await;
        connection
            .send(&format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
            .await;
        let head = connection.head().await;
        assert_eq!(head.status, 200, "{path}");
        // Other activity is counted meanwhile.
        assert!(
            path == "/metrics" || head.header("content-length") == Some(&body_length.to_string()),
            "{path}: {}",
            head.head
        );
        connection.closed().await;
    }
    service.stop().await;

    let service = Service::start();
    service.ledger.fail(Fault::Broken);
    let mut connection = Connection::open(service.internal).await;
    connection.send("HEAD /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(connection.head().await.status, 503);
    service.stop().await;
}

#[tokio::test]
async fn the_api_asks_for_the_token_and_health_does_not() {
    let service = Service::with(with_token(), idle_relay());
    for path in API {
        for headers in [
            "",
            "Authorization: Bearer\r\n",
            "Authorization: Bearer \r\n",
            "Authorization: Bearer other\r\n",
            "Authorization: Basic fake-admin-token\r\n",
            "Authorization: fake-admin-token\r\n",
        ] {
            let answer = service.get_with(path, headers).await;
            assert_eq!(
                (answer.status, &answer.json()["error"]),
                (401, &"unauthorized".into()),
                "{path} {headers}"
            );
            assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"countersign\""));
        }
        for scheme in ["Bearer", "bearer"] {
            let answer =
                service.get_with(path, &format!("Authorization: {scheme} fake-admin-token\r\n")).await;
            assert!(matches!(answer.status, 200 | 404), "{path}: {}", answer.status);
        }
    }
    for path in ["/", "/livez", "/readyz", "/metrics"] {
        assert_eq!(service.get(path).await.status, 200, "{path}");
    }
    service.stop().await;
}

#[tokio::test]
async fn without_a_token_a_page_whose_name_leads_here_cannot_read_the_api() {
    let service = Service::start();
    let ids = keep(&service, 1).await;
    let paths = API.map(str::to_owned).into_iter().chain([format!("/api/v1/commands/{}", ids[0])]);
    for path in paths {
        for host in
            ["Host: evil.example\r\n", "Host: evil.example:9090\r\n", "Host: localhost.evil.example\r\n", ""]
        {
            let mut connection = Connection::open(service.internal).await;
            connection.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            let answer = connection.answer().await;
            assert_eq!(answer.status, 403, "{path} {host}");
            assert_eq!(answer.json()["error"], "foreign_page");
            assert!(!answer.body.contains(&ids[0]), "{}", answer.body);
        }
        for host in ["localhost", "127.0.0.1:9090", "[::1]:9090"] {
            let mut connection = Connection::open(service.internal).await;
            connection.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            assert!(matches!(connection.answer().await.status, 200 | 404), "{path} {host}");
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn paths_lead_nowhere_but_to_their_routes() {
    let service = Service::with(with_token(), idle_relay());
    for path in [
        "/../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/livez/../api/v1/commands",
        "/livez/..%2fapi/v1/commands",
        "//api/v1/commands",
        "/api/v1/commands/..",
        "/api/v1/../v1/commands",
        "/API/v1/commands",
        "/api/v1/commands%00",
        "/metrics/;/api/v1/commands",
    ] {
        let answer = service.get(path).await;
        assert!(matches!(answer.status, 401 | 404), "{path}: {} {}", answer.status, answer.body);
        assert!(!answer.body.contains("root:") && !answer.body.contains("\"commands\""), "{path}");
    }
    service.stop().await;
}

#[tokio::test]
async fn no_answer_is_stored_or_taken_for_something_else() {
    let service = Service::with(with_token(), idle_relay());
    for path in ["/", "/readyz", "/api/v1/commands", "/nowhere"] {
        let answer = service.get(path).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
    service.stop().await;
}

#[tokio::test]
async fn commands_are_listed_newest_first_page_by_page() {
    let service = Service::start();
    let ids = keep(&service, 5).await;
    let mut seen = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let page = service.get(&format!("/api/v1/commands{query}")).await.json();
        for record in page["commands"].as_array().unwrap() {
            assert!(record.get("command").is_none(), "a list is short");
            seen.push(record["command_id"].as_str().unwrap().to_owned());
        }
        let Some(before) = page["next_before"].as_u64() else { break };
        query = format!("?limit=2&before={before}");
    }
    seen.reverse();
    assert_eq!(seen, ids);

    service.ledger.publish_through(3);
    for (query, count) in [
        ("state=pending", 2),
        ("state=published", 3),
        ("state=parked", 0),
        ("task_id=t4", 1),
        ("task_id=t4&state=published", 0),
        ("instance_id=i1&user_id=u1&endpoint=plain", 5),
        ("endpoint=ke%79ed", 0),
        ("before=3", 2),
    ] {
        let page = service.get(&format!("/api/v1/commands?{query}")).await.json();
        assert_eq!(page["commands"].as_array().unwrap().len(), count, "{query}");
        assert!(page["next_before"].is_null(), "{query}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_command_is_shown_with_its_message() {
    let service = Service::start();
    let ids = keep(&service, 1).await;
    let record = service.get(&format!("/api/v1/commands/{}", ids[0])).await.json();
    assert_eq!(record["command_id"], ids[0]);
    assert_eq!(record["command"]["schema"], "approval.command/1");
    assert_eq!(record["command"]["task"]["task_id"], "t1");
    assert_eq!(service.get("/api/v1/commands/1").await.json(), record, "by its place in the log");

    let absent = CommandId::new(crate::time::Timestamp::now());
    for (id, status, error) in [
        (absent.to_string(), 404, "no_such_command"),
        ("2".to_owned(), 404, "no_such_command"),
        ("0".to_owned(), 400, "bad_parameter"),
        ("%2B1".to_owned(), 400, "bad_parameter"),
        ("%F0%9F".to_owned(), 400, "bad_parameter"),
        (format!("{}?limit=1", ids[0]), 400, "bad_parameter"),
    ] {
        let answer = service.get(&format!("/api/v1/commands/{id}")).await;
        assert_eq!((answer.status, &answer.json()["error"]), (status, &error.into()), "{id}");
    }
    service.stop().await;
}

#[tokio::test]
async fn refused_callbacks_are_listed_with_their_cause() {
    let service = Service::start();
    assert_eq!(service.post("plain", &callback("t1").replace("APPROVE", "HOLD")).await.status, 422);
    assert_eq!(service.post("nowhere", "{}").await.status, 403);
    let all = service.get("/api/v1/refusals").await.json();
    let reasons: Vec<_> =
        all["refusals"].as_array().unwrap().iter().map(|refused| &refused["reason"]).collect();
    assert_eq!(reasons, ["unauthenticated", "action_not_allowed"]);
    assert!(all["next_before"].is_null());
    let first = service.get("/api/v1/refusals?limit=1").await.json();
    let id = first["next_before"].as_u64().unwrap();
    assert_eq!(first["refusals"][0]["id"], id);
    let second = service.get(&format!("/api/v1/refusals?limit=1&before={id}")).await.json();
    assert_eq!(
        (&second["refusals"][0], &second["next_before"]),
        (&all["refusals"][1], &serde_json::Value::Null)
    );
    assert_eq!(service.get(&format!("/api/v1/refusals/{id}")).await.json(), all["refusals"][0]);
    let none = service.get("/api/v1/refusals/99").await;
    assert_eq!((none.status, &none.json()["error"]), (404, &"no_such_refusal".into()));
    for (query, count) in
        [("reason=unauthenticated", 1), ("endpoint=nowhere", 1), ("limit=1", 1), ("reason=malformed", 0)]
    {
        let some = service.get(&format!("/api/v1/refusals?{query}")).await.json();
        assert_eq!(some["refusals"].as_array().unwrap().len(), count, "{query}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_time_is_asked_for_as_on_the_command_line() {
    let service = Service::start();
    assert_eq!(service.post("plain", &callback("t1")).await.status, 200);
    assert_eq!(service.post("nowhere", "{}").await.status, 403);
    for (query, count) in [
        ("since=2%20h%20ago", 1),
        ("since=1h30m", 1),
        ("until=2%20h+ago", 0),
        ("since=yesterday&until=9999-12-31T23:59:59Z", 1),
        ("since=yesterday%2010:42", 1),
        ("until=yesterday", 0),
        ("since=2026-11-20%2010:42", 1),
        ("since=2026-11-20T10:42:00%2B08:00", 1),
        ("around=now", 1),
        ("around=2%20h%20ago", 0),
        ("until=9999-12-31%2020:00", 1),
        ("until=9999-12-31%2010:00&utc_offset=-12:00", 1),
    ] {
        for list in ["commands", "refusals"] {
            let answer = service.get(&format!("/api/v1/{list}?{query}")).await;
            assert_eq!(answer.status, 200, "{list}?{query}: {}", answer.body);
            assert_eq!(answer.json()[list].as_array().unwrap().len(), count, "{list}?{query}");
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn a_bad_parameter_is_named() {
    let service = Service::start();
    for (query, parameter) in [
        ("commands?state=lost", "state"),
        ("commands?state=Pending", "state"),
        ("commands?limit=0", "limit"),
        ("commands?limit=501", "limit"),
        ("commands?limit=-1", "limit"),
        ("commands?limit=%2B1", "limit"),
        ("commands?limit=many", "limit"),
        ("commands?limit=99999999999999999999", "limit"),
        ("commands?before=0", "before"),
        ("commands?before=9223372036854775808", "before"),
        ("commands?endpoint=", "endpoint"),
        ("commands?endpoint", "endpoint"),
        ("commands?task_id=a&task_id=b", "task_id"),
        ("commands?task=a", "task"),
        ("commands?reason=malformed", "reason"),
        ("refusals?reason=other", "reason"),
        ("refusals?before=0", "before"),
        ("refusals?message_id=a-b", "message_id"),
        ("refusals?outcome=applied", "outcome"),
        ("commands?outcome=shown", "outcome"),
        ("commands?message_id=019a0000-0000-7000-8000-000000000001", "message_id"),
        ("commands?since=soon", "since"),
        ("commands?until=2026-02-30", "until"),
        ("refusals?around=2026-11-20T10:42:00+08:00", "around"),
        ("refusals?since=9999-12-31", "since"),
        ("commands?utc_offset=Shanghai", "utc_offset"),
        // Without an offset, the time is in the query's `utc_offset`, ahead of or behind it.
        ("commands?until=9999-12-31%2020:00&utc_offset=-12:00", "until"),
        ("refusals?utc_offset=-12:00&until=9999-12-31%2020:00", "until"),
        ("commands?around=2026-11-20T08:15:30Z&since=2026-11-20T08:15:30Z", "around"),
        ("refusals/1x", "id"),
    ] {
        let answer = service.get(&format!("/api/v1/{query}")).await;
        let problem = answer.json();
        assert_eq!((answer.status, &problem["error"]), (400, &"bad_parameter".into()), "{query}");
        assert_eq!(problem["parameter"], parameter, "{query}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_ledger_that_cannot_be_read_is_503() {
    let service = Service::start();
    service.ledger.fail(Fault::Broken);
    for path in API {
        let answer = service.get(path).await;
        assert_eq!((answer.status, &answer.json()["error"]), (503, &"ledger_unavailable".into()), "{path}");
    }
    service.stop().await;
}

#[tokio::test]
async fn other_paths_and_methods_are_answered_in_json() {
    let service = Service::start();
    for path in ["/nowhere", "/api", "/api/v1/commands/", "/callbacks/plain"] {
        let answer = service.get(path).await;
        assert_eq!((answer.status, &answer.json()["error"]), (404, &"not_found".into()), "{path}");
    }
    for (_, path) in console::routes() {
        let possible: Vec<_> =
            console::routes().filter(|(_, other)| *other == path).map(|(method, _)| method).collect();
        let allow = possible.join(", ").replace("GET", "GET, HEAD");
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"] {
            if possible.contains(&method) {
                continue;
            }
            let mut connection = Connection::open(service.internal).await;
            connection
                .send(&format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"))
                .await;
            let answer = connection.answer().await;
            assert_eq!((answer.status, answer.header("allow")), (405, Some(&*allow)), "{method} {path}");
            assert_eq!(answer.json()["error"], "method_not_allowed");
        }
    }
    let home = service.get("/").await.body;
    for (_, path) in console::routes() {
        assert!(home.contains(path), "{path} is not on the front page");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_shared_server_that_is_away_for_a_moment_takes_no_replica_out_of_service() {
    let service = Service::start();
    *service.ledger.tolerance.lock().unwrap() = Duration::from_secs(3600);
    service.ledger.fail(Fault::Broken);
    let never_kept = service.get("/readyz").await;
    assert_eq!(never_kept.status, 503, "nothing was ever kept");
    service.ledger.fail(Fault::None);
    ready_when(&service, "ok").await;
    service.ledger.fail(Fault::Broken);
    let said = ready_when(&service, "unavailable").await;
    assert_eq!(said["ready"], true);
    *service.ledger.tolerance.lock().unwrap() = Duration::ZERO;
    assert_eq!(service.get("/readyz").await.status, 503);
    service.stop().await;
}

/// Asks until the ledger's check says this word; a probe is kept for a second.
async fn ready_when(service: &Service, word: &str) -> serde_json::Value {
    loop {
        let said = service.get("/readyz").await.json();
        if said["checks"]["ledger"] == word {
            return said;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn readyz_and_metrics_say_who_publishes() {
    let service = Service::start();
    assert!(service.get("/readyz").await.json().get("leader").is_none(), "there is one process only");
    *service.ledger.leader.lock().unwrap() = Some("host-a/17".to_owned());
    let said = service.get("/readyz").await.json();
    assert_eq!(said["leader"], serde_json::json!({ "name": "host-a/17", "here": true }));
    assert!(service.get("/metrics").await.body.contains("countersign_leader 1\n"));
    service.stop().await;
}
