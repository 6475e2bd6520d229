//! The public listener.

use super::*;
use crate::{callback::cipher, intake::Refusal};
use double::Fault;

#[tokio::test]
async fn a_callback_is_kept_and_its_repeat_is_a_duplicate() {
    let service = Service::start();
    let first = service.post("plain", &callback("t1")).await;
    assert_eq!((first.status, first.header("content-type")), (200, Some("application/json")));
    let command_id = first.json()["data"]["command_id"].as_str().unwrap().to_owned();
    let expected = |status| {
        format!(r#"{{"code":0,"msg":"success","data":{{"command_id":"{command_id}","status":"{status}"}}}}"#)
    };
    assert_eq!(first.body, expected("accepted"));
    assert_eq!(service.post("plain", &callback("t1")).await.body, expected("duplicate"));
    assert_eq!(service.ledger.len(), 1);

    let metrics = service.get("/metrics").await.body;
    for line in [
        r#"countersign_callbacks_total{endpoint="plain",outcome="accepted"} 1"#,
        r#"countersign_callbacks_total{endpoint="plain",outcome="duplicate"} 1"#,
        r#"countersign_callbacks_total{endpoint="-",outcome="unauthenticated"} 0"#,
        "countersign_callback_duration_seconds_count 2",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is not in\n{metrics}");
    }
    service.stop().await;
}

#[tokio::test]
async fn every_failure_to_authenticate_is_one_answer_byte_for_byte() {
    let service = Service::start();
    let wrong_token = callback("t1").replace(TOKEN, "other-token");
    let encrypt = |key: &str, text: &str| {
        let key = cipher::Key::derive(&Secret::new(key));
        format!(r#"{{"encrypt":"{}"}}"#, cipher::encrypt(&key, [7; 16], text.as_bytes()))
    };
    let causes = [
        ("unknown endpoint", "nowhere", callback("t1")),
        ("unknown endpoint, not JSON", "nowhere", "?".to_owned()),
        ("unknown endpoint, odd name", "%E9%ff%2F..", String::new()),
        ("wrong token", "plain", wrong_token.clone()),
        ("no token", "plain", "{}".to_owned()),
        ("plain where a key is configured", "keyed", callback("t1")),
        ("nothing at all", "keyed", String::new()),
        ("not base64", "keyed", r#"{"encrypt":"***"}"#.to_owned()),
        ("wrong key", "keyed", encrypt("other-key", &callback("t1"))),
        ("wrong token inside", "keyed", encrypt(KEY, &wrong_token)),
        ("not JSON inside", "keyed", encrypt(KEY, "?")),
    ];
    let mut one: Option<String> = None;
    for (cause, endpoint, body) in causes {
        let answer = service.post(endpoint, &body).await;
        assert_eq!(answer.status, 403, "{cause}");
        let bytes = answer.but_the_date();
        assert_eq!(one.get_or_insert_with(|| bytes.clone()), &bytes, "{cause}");
    }
    let one = one.unwrap();
    assert!(one.contains("请联系管理员") && one.contains(r#""msg":"unauthenticated""#), "{one}");
    assert_eq!(service.ledger.len(), 0);

    let kept = service.post("keyed", &encrypt(KEY, &callback("t1"))).await;
    assert_eq!(kept.status, 200, "the same, with the right key: {}", kept.body);
    service.stop().await;
}

#[tokio::test]
async fn an_unauthenticated_answer_waits_for_the_floor() {
    let floor = Duration::from_millis(200);
    let mut settings = settings();
    settings.http.unauthenticated_floor = floor;
    let service = Service::with(settings, idle_relay());
    for endpoint in ["nowhere", "plain", "keyed"] {
        let began = Instant::now();
        assert_eq!(service.post(endpoint, "{}").await.status, 403);
        assert!(began.elapsed() >= floor, "{endpoint}");
    }
    service.stop().await;
}

#[tokio::test]
async fn the_sentence_is_in_the_language_of_its_reader() {
    let service = Service::start();
    let hold = callback("t1").replace("APPROVE", "HOLD");
    let answer = service.post("plain", &hold).await;
    assert_eq!(answer.status, 422);
    assert_eq!(
        answer.body,
        r#"{"code":42201,"msg":"action_not_allowed","message":"ここではこの操作を行えません。業務システムで処理してください。","without_prefix":"true"}"#
    );
    let malformed = service.post("plain", &callback("t1").replace("\"APPROVE\"", "7")).await;
    assert_eq!((malformed.status, &malformed.json()["code"]), (422, &42200.into()));
    assert!(malformed.body.contains("管理者にご連絡ください"), "{}", malformed.body);
    for endpoint in ["keyed", "plain", "nowhere"] {
        let stranger = service.post(endpoint, "?").await;
        assert_eq!((stranger.status, &stranger.json()["code"]), (403, &40300.into()));
        assert!(stranger.body.contains("请联系管理员"), "{}", stranger.body);
    }
    service.stop().await;
}

#[tokio::test]
async fn a_connection_is_kept_for_those_who_authenticate_and_for_nobody_else() {
    let service = Service::start();
    let mut connection = Connection::open(service.callbacks).await;
    for task in ["t1", "t2"] {
        connection.send(&post("plain", &callback(task))).await;
        assert_eq!(connection.answer().await.status, 200);
    }
    connection.send(&post("plain", "{}")).await;
    let answer = connection.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (403, Some("close")));
    connection.closed().await;
    service.stop().await;
}

#[tokio::test]
async fn a_body_in_pieces_is_put_together() {
    let service = Service::start();
    let mut connection = Connection::open(service.callbacks).await;
    connection.send("POST /callbacks/plain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for piece in callback("t1").as_bytes().chunks(7) {
        let piece = std::str::from_utf8(piece).unwrap();
        connection.send(&format!("{:x}\r\n{piece}\r\n", piece.len())).await;
    }
    connection.send("0\r\n\r\n").await;
    assert_eq!(connection.answer().await.status, 200);
    service.stop().await;
}

#[tokio::test]
async fn a_sender_who_asks_first_is_told_to_go_on() {
    let service = Service::start();
    let mut connection = Connection::open(service.callbacks).await;
    let body = callback("t1");
    let request = post("plain", &body);
    let (head, _) = request.split_once("\r\n\r\n").unwrap();
    connection.send(&format!("{head}\r\nExpect: 100-continue\r\n\r\n")).await;
    assert_eq!(connection.answer().await.status, 100);
    connection.send(&body).await;
    assert_eq!(connection.answer().await.status, 200);
    service.stop().await;
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_not() {
    let service = Service::start();
    let limit = settings().http.max_body_bytes;
    let fill = |length: usize| {
        let body = callback("t1");
        format!("{body}{}", " ".repeat(length - body.len()))
    };
    assert_eq!(service.post("plain", &fill(limit)).await.status, 200);
    let answer = service.post("plain", &fill(limit + 1)).await;
    assert_eq!((answer.status, &answer.json()["msg"]), (413, &"body_too_large".into()));
    service.stop().await;
}

#[tokio::test]
async fn a_length_over_the_limit_is_refused_before_the_body_and_the_connection_closed() {
    let service = Service::start();
    let mut connection = Connection::open(service.callbacks).await;
    connection.send("POST /callbacks/plain HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n").await;
    let answer = connection.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
    assert_eq!(answer.json()["code"], 41300);
    connection.closed().await;
    service.stop().await;
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_refused_and_the_connection_closed() {
    let service = Service::start();
    let mut connection = Connection::open(service.callbacks).await;
    let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
    connection
        .send(&format!(
            "POST /callbacks/nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}"
        ))
        .await;
    assert_eq!(connection.answer().await.status, 413);
    // Its last chunk never comes.
    connection.closed().await;
    service.stop().await;
}

#[tokio::test]
async fn a_sender_in_the_middle_of_a_large_body_gets_to_read_the_answer() {
    let service = Service::start();
    let answer = service.post("plain", &"x".repeat(3_000_000)).await;
    assert_eq!(answer.status, 413);
    service.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_refused_as_too_slow_and_the_connection_closed() {
    let mut settings = settings();
    settings.http.body_read_timeout = Duration::from_millis(50);
    let service = Service::with(settings, idle_relay());
    for framing in ["Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"] {
        let mut connection = Connection::open(service.callbacks).await;
        connection.send(&format!("POST /callbacks/plain HTTP/1.1\r\nHost: x\r\n{framing}")).await;
        let answer = connection.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")), "{framing}");
        assert_eq!(answer.json()["code"], 40800);
        connection.closed().await;
    }
    let refusals = service.get("/api/v1/refusals?reason=too_slow").await.json();
    assert_eq!(refusals["refusals"][0]["body_bytes"], 1);
    service.stop().await;
}

#[tokio::test]
async fn a_body_that_ends_early_did_not_arrive() {
    let service = Service::start();
    let mut connection = Connection::open(service.callbacks).await;
    connection.send("POST /callbacks/plain HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{").await;
    connection.stream.shutdown().await.unwrap();
    assert_eq!(connection.answer().await.status, 408);
    connection.closed().await;
    assert_eq!(service.ledger.len(), 0);
    service.stop().await;
}

#[tokio::test]
async fn there_is_nothing_else_on_the_public_listener() {
    let service = Service::start();
    for path in ["/", "/callbacks", "/callbacks/", "/callbacks/a/b", "/livez", "/metrics", "/api/v1/commands"]
    {
        let mut connection = Connection::open(service.callbacks).await;
        connection.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let answer = connection.answer().await;
        assert_eq!((answer.status, &*answer.body), (404, r#"{"code":40400,"msg":"not_found"}"#), "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        connection.closed().await;
    }
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
        let mut connection = Connection::open(service.callbacks).await;
        connection.send(&format!("{method} /callbacks/plain HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let answer = connection.answer().await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{method}");
        assert_eq!(answer.body, r#"{"code":40500,"msg":"method_not_allowed"}"#);
        connection.closed().await;
    }
    service.stop().await;
}

#[tokio::test]
async fn a_stranger_cannot_hold_a_connection_by_a_chunked_body_that_never_ends() {
    let service = Service::start();
    for request in ["POST /nowhere", "PUT /callbacks/plain"] {
        let mut connection = Connection::open(service.callbacks).await;
        connection
            .send(&format!("{request} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n"))
            .await;
        assert!(connection.answer().await.status >= 404);
        connection.closed().await;
    }
    service.stop().await;
}

#[tokio::test]
async fn what_the_ledger_cannot_keep_is_answered_503() {
    let service = Service::start();
    for (fault, refusal) in [(Fault::Full, Refusal::Overloaded), (Fault::Broken, Refusal::LedgerUnavailable)]
    {
        service.ledger.fail(fault);
        let answer = service.post("plain", &callback("t1")).await;
        assert_eq!((answer.status, &answer.json()["msg"]), (503, &refusal.as_str().into()));
    }
    service.ledger.fail(Fault::None);
    assert_eq!(service.post("plain", &callback("t1")).await.status, 200);
    service.stop().await;
}

#[tokio::test]
async fn while_draining_callbacks_are_told_to_come_again() {
    let service = Service::start();
    service.drain();
    let answer = service.post("plain", &callback("t1")).await;
    assert_eq!((answer.status, &answer.json()["code"]), (503, &50302.into()));
    assert_eq!(service.ledger.len(), 0);
    service.stop().await;
}

#[tokio::test]
async fn a_sender_who_hangs_up_is_counted_all_the_same() {
    let service = Service::start();
    let mut connection = Connection::open(service.callbacks).await;
    connection.send(&post("plain", &callback("t1"))).await;
    drop(connection);
    eventually("counted", async || {
        let metrics = service.get("/metrics").await.body;
        metrics.contains(r#"countersign_callbacks_total{endpoint="plain",outcome="accepted"} 1"#)
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_keep_alive_and_not_before() {
    let mut settings = settings();
    settings.http.keep_alive = Duration::from_secs(1);
    let (hasty, patient) = (Service::with(settings, idle_relay()), Service::start());
    let (mut closing, mut staying) =
        (Connection::open(hasty.callbacks).await, Connection::open(patient.callbacks).await);
    for connection in [&mut closing, &mut staying] {
        connection.send(&post("plain", &callback("t1"))).await;
        assert_eq!(connection.answer().await.status, 200);
    }
    let idle = Instant::now();
    closing.closed().await;
    assert!(idle.elapsed() >= Duration::from_millis(900), "{:?}", idle.elapsed());
    staying.send(&post("plain", &callback("t2"))).await;
    assert_eq!(staying.answer().await.status, 200);
    drop(staying);
    hasty.stop().await;
    patient.stop().await;
}

#[tokio::test]
async fn a_body_in_many_small_pieces_is_turned_away_and_one_in_fair_pieces_is_not() {
    let mut settings = settings();
    settings.http.max_body_bytes = 65_536;
    let service = Service::with(settings, idle_relay());
    let chunked = |piece: usize, body: &str| {
        let chunks = body
            .as_bytes()
            .chunks(piece)
            .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).unwrap()));
        let chunks: String = chunks.collect();
        format!(
            "POST /callbacks/plain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
        )
    };
    let large = format!("{}{}", callback("t1"), " ".repeat(20_000));
    for (piece, status) in [(1, 413), (40, 200), (1000, 200), (20_000, 200)] {
        let mut connection = Connection::open(service.callbacks).await;
        // The server may close before it reads the rest of a refused request.
        drop(connection.stream.write_all(chunked(piece, &large).as_bytes()).await);
        let answer = connection.answer().await;
        assert_eq!(answer.status, status, "in pieces of {piece}: {}", answer.body);
    }
    // Up to a thousand chunks are accepted.
    let mut connection = Connection::open(service.callbacks).await;
    connection.send(&chunked(1, &callback("t2"))).await;
    assert_eq!(connection.answer().await.status, 200);
    service.stop().await;
}
