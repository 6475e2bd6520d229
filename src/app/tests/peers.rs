//! Limits on peers, and connections after their last answer.

use super::*;
use crate::http::peers::{Mode, Network};

fn with_peers(peers: http::peers::Settings) -> Service {
    let mut settings = settings();
    settings.http.peers = peers;
    Service::with(settings, idle_relay())
}

/// The test's address is that of a proxy, which forwards the client's address.
fn behind_a_proxy(peers: http::peers::Settings) -> Service {
    let trusted_proxies = vec![Network::parse("127.0.0.1").unwrap()];
    with_peers(http::peers::Settings { trusted_proxies, ..peers })
}

async fn post_for(service: &Service, peer: &str, body: &str) -> Answer {
    let mut connection = Connection::open(service.callbacks).await;
    connection
        .send(&post("plain", body).replace("Host: x", &format!("Host: x\r\nX-Forwarded-For: {peer}")))
        .await;
    connection.answer().await
}

async fn count(service: &Service, line: &str) -> u64 {
    let metrics = service.get("/metrics").await.body;
    let value =
        metrics.lines().find_map(|l| l.strip_prefix(line)).unwrap_or_else(|| panic!("{line}: {metrics}"));
    value.trim().parse().unwrap()
}

fn rate_limited(answer: &Answer) {
    assert_eq!((answer.status, &answer.json()["code"]), (429, &42900.into()), "{}", answer.body);
    assert_eq!(answer.json()["msg"], "rate_limited");
    assert_eq!(answer.json()["without_prefix"], "true");
    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(answer.header("connection"), Some("close"));
}

const FAILURES: &str = r#"countersign_peers_limited_total{cause="failures"}"#;
const RATE: &str = r#"countersign_peers_limited_total{cause="rate"}"#;
const NOT_ALLOWED: &str = r#"countersign_peers_limited_total{cause="not_allowed"}"#;

#[tokio::test]
async fn who_guesses_too_often_is_not_heard_and_others_at_the_same_endpoint_are() {
    let service = behind_a_proxy(http::peers::Settings { failure_budget: 3, ..Default::default() });
    let guess = callback("t").replace(TOKEN, "guess");
    for _ in 0..3 {
        assert_eq!(post_for(&service, "192.0.2.66", &guess).await.status, 403);
    }
    for _ in 0..5 {
        rate_limited(&post_for(&service, "192.0.2.66", &guess).await);
        // Not even with the right token: the failures before may have been guesses at it.
        rate_limited(&post_for(&service, "192.0.2.66", &callback("t1")).await);
    }
    assert_eq!(service.ledger.len(), 0);
    for other in ["192.0.2.67", "2001:db8::1", "unknown, 127.0.0.1"] {
        assert_eq!(post_for(&service, other, &callback(&format!("t-{other}"))).await.status, 200, "{other}");
    }
    assert_eq!(count(&service, FAILURES).await, 10);
    let outcome = r#"countersign_callbacks_total{endpoint="plain",outcome="rate_limited"}"#;
    assert_eq!(count(&service, outcome).await, 10);
    // One row for the peer: one per refusal would displace the rows of others.
    let rows = service.get("/api/v1/refusals?reason=rate_limited").await.json();
    assert_eq!(rows["refusals"].as_array().unwrap().len(), 1, "{rows}");
    assert_eq!(rows["refusals"][0]["peer"], "192.0.2.66");
    service.stop().await;
}

#[tokio::test]
async fn a_forged_forwarding_header_neither_frees_a_guesser_nor_shuts_out_another() {
    let service = with_peers(http::peers::Settings { failure_budget: 2, ..Default::default() });
    let guess = callback("t").replace(TOKEN, "guess");
    for victim in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(post_for(&service, victim, &guess).await.status, 403);
    }
    rate_limited(&post_for(&service, "192.0.2.3", &guess).await);
    service.stop().await;

    let service = behind_a_proxy(http::peers::Settings { failure_budget: 2, ..Default::default() });
    for _ in 0..2 {
        assert_eq!(post_for(&service, "192.0.2.1, 203.0.113.5", &guess).await.status, 403);
    }
    rate_limited(&post_for(&service, "198.51.100.7, 203.0.113.5", &guess).await);
    assert_eq!(post_for(&service, "192.0.2.1", &callback("t")).await.status, 200);
    service.stop().await;
}

#[tokio::test]
async fn a_peer_over_its_rate_is_answered_before_its_body_is_read() {
    let service = with_peers(http::peers::Settings { rate: 1, burst: 2, ..Default::default() });
    for task in ["t1", "t2"] {
        assert_eq!(service.post("plain", &callback(task)).await.status, 200);
    }
    let mut connection = Connection::open(service.callbacks).await;
    connection.send("POST /callbacks/plain HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n").await;
    rate_limited(&connection.answer().await);
    connection.closed().await;
    assert!(count(&service, RATE).await >= 1);
    service.stop().await;
}

#[tokio::test]
async fn a_peer_outside_the_allow_list_gets_the_bytes_of_every_failure_and_only_the_log_knows() {
    let allowed = vec![Network::parse("192.0.2.0/24").unwrap()];
    let service = behind_a_proxy(http::peers::Settings { allowed: allowed.clone(), ..Default::default() });
    let wrong = post_for(&service, "192.0.2.1", &callback("t").replace(TOKEN, "guess")).await;
    assert_eq!(wrong.status, 403);
    let outside = post_for(&service, "198.51.100.1", &callback("t")).await;
    assert_eq!(outside.but_the_date(), wrong.but_the_date());
    let too_large = post_for(&service, "198.51.100.1", &" ".repeat(2000)).await;
    assert_eq!(too_large.status, 413, "as to anybody");
    assert_eq!(service.ledger.len(), 0);
    assert_eq!(post_for(&service, "192.0.2.1", &callback("t")).await.status, 200);
    assert_eq!(count(&service, NOT_ALLOWED).await, 1);
    let rows = service.get("/api/v1/refusals?reason=unauthenticated").await.json();
    let told: Vec<_> = rows["refusals"].as_array().unwrap().iter().map(|row| &row["detail"]).collect();
    assert_eq!(told[0], "the peer is not in http.allowed_peers");
    service.stop().await;

    let warning = http::peers::Settings { allowed, allowed_mode: Mode::Warn, ..Default::default() };
    let service = behind_a_proxy(warning);
    assert_eq!(post_for(&service, "198.51.100.1", &callback("t")).await.status, 200);
    assert_eq!(count(&service, NOT_ALLOWED).await, 1);
    service.stop().await;
}

#[tokio::test]
async fn what_comes_behind_the_last_answer_of_a_connection_is_not_heard() {
    let service = Service::start();
    let stranger = post("plain", &callback("t1").replace(TOKEN, "guess"));
    for first in [
        stranger,
        post("plain", "{"),
        "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "GET /callbacks/plain HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        post("plain", &callback("t0")).replace("Host: x", "Host: x\r\nConnection: close"),
    ] {
        let before = service.ledger.len();
        let expected = before + usize::from(first.contains("\"t0\""));
        let mut connection = Connection::open(service.callbacks).await;
        connection.send(&format!("{first}{}", post("plain", &callback("t9")))).await;
        let closing = connection.answer().await;
        let asked_to = first.contains("Connection: close");
        assert!(asked_to || closing.header("connection") == Some("close"), "{first}: {}", closing.head);
        // The server may also close without an answer; it must not act.
        if connection.received.is_empty() && connection.read_some().await == 0 {
            assert_eq!(service.ledger.len(), expected, "{first}");
            continue;
        }
        let behind = connection.answer().await;
        assert_eq!((behind.status, &behind.json()["msg"]), (421, &"connection_closed".into()), "{first}");
        connection.closed().await;
        assert_eq!(service.ledger.len(), expected, "{first}");
    }
    service.stop().await;
}

#[tokio::test]
async fn endpoints_limits_and_peers_are_exchanged_together_for_requests_that_begin_later() {
    let mut settings = settings();
    let service = Service::with(settings.clone(), idle_relay());
    let callbacks = service.callbacks;

    // One that began before, and one on a kept-alive connection.
    let body = callback("t1");
    let mut begun = Connection::open(callbacks).await;
    begun.send(&post("plain", &body)[..60]).await;
    let mut kept = Connection::open(callbacks).await;
    kept.send(&post("plain", &callback("t2"))).await;
    assert_eq!(kept.answer().await.status, 200);
    assert_eq!(service.post("fresh", &body).await.status, 403);

    settings.intake.endpoints.push(endpoint("fresh", None, Locale::En));
    settings.intake.endpoints.retain(|endpoint| endpoint.name != "keyed");
    settings.http.max_body_bytes = 2048;
    settings.http.peers.rate = 1;
    settings.http.peers.burst = 3;
    let limits = crate::ledger::Limits::default();
    assert!(service.controls.replace(&settings, limits, None).unwrap().is_empty());

    begun.send(&post("plain", &body)[60..]).await;
    assert_eq!(begun.answer().await.status, 200);
    kept.send(&post("fresh", &format!("{}{}", callback("t3"), " ".repeat(1500)))).await;
    assert_eq!(kept.answer().await.status, 200, "a connection lives on");
    assert_eq!(service.post("plain", &callback("t4")).await.status, 200);
    let counted = r#"countersign_callbacks_total{endpoint="fresh",outcome="accepted"}"#;
    assert_eq!(count(&service, counted).await, 1);
    let mut last = 200;
    for task in ["t5", "t6", "t7", "t8"] {
        last = service.post("plain", &callback(task)).await.status;
    }
    assert_eq!(last, 429, "the new limit holds");
    service.stop().await;
}
