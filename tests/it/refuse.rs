//! What is refused, for which reason, and that an attacker learns nothing from it.

use crate::support::{
    Answer, App, Callback, Config, Endpoint, KEY, Line, NOWHERE, TOKEN, envelope, eventually, seal,
    seal_blocks,
};
use serde_json::Value;
use std::collections::BTreeSet;

/// The refusal table of the contract: reason, status, stable number.
const TABLE: [(&str, u16, u64); 14] = [
    ("unauthenticated", 403, 40300),
    ("malformed", 422, 42200),
    ("action_not_allowed", 422, 42201),
    ("definition_not_allowed", 403, 40301),
    ("context_invalid", 422, 42202),
    ("context_expired", 410, 41000),
    ("operator_not_allowed", 403, 40302),
    ("conflicting", 409, 40900),
    ("body_too_large", 413, 41300),
    ("too_slow", 408, 40800),
    ("rate_limited", 429, 42900),
    ("overloaded", 503, 50300),
    ("ledger_unavailable", 503, 50301),
    ("shutting_down", 503, 50302),
];

/// Checks a refusal against the table and the form that the platform shows to the approver
/// (platform.md#callback-answers).
#[track_caller]
pub(crate) fn assert_refused(answer: &Answer, reason: &str) {
    let (_, status, code) =
        TABLE.into_iter().find(|(known, ..)| *known == reason).expect("a reason of the table");
    assert_eq!((answer.status, answer.reason().as_str()), (status, reason), "{}", answer.text());
    let body = answer.json();
    let members: BTreeSet<&str> = body.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(members, BTreeSet::from(["code", "msg", "message", "without_prefix"]), "{body}");
    assert_eq!(body["code"], code, "{body}");
    assert_eq!(body["without_prefix"], "true", "{body}");
    assert!(
        !body["message"].as_str().expect("a string").trim().is_empty(),
        "a sentence for the approver: {body}"
    );
    assert!(answer.header("content-type").is_some_and(|value| value.starts_with("application/json")));
}

/// Sends a body and returns the raw answer, header by header, without its date. Also checks that in all cases the
/// connection is then closed without further output.
async fn wire_answer(app: &App, path: &str, body: &[u8]) -> Answer {
    let mut line = Line::to(app.public()).await;
    line.post(path, body).await.expect("an open connection");
    let answer = line.answer().await.expect("an answer").without_date();
    assert_eq!(String::from_utf8_lossy(&line.until_closed().await), "");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_to_authenticate_gets_one_answer_byte_for_byte() {
    const VECTOR_KEY: &str = "quick-approve-key-01";
    let config = Config::with_url(NOWHERE)
        .set("", "allow_weak_secrets", "true")
        .endpoint(Endpoint::encrypted("vectors").credentials(&[("tok-1", Some(VECTOR_KEY))]))
        .endpoint(Endpoint::encrypted("english").set("locale", "\"en\""));
    let app = App::with(config).await;
    let good = Callback::list("i", "t1");
    let sealed = |text: &[u8]| envelope(&seal(KEY, text));
    let mut flipped = good.encrypted(KEY);
    let at = flipped.len() - 10;
    flipped[at] = if flipped[at] == b'A' { b'B' } else { b'A' };
    let text = seal(KEY, &good.plain());
    let twice = format!(r#"{{"encrypt":"{text}","encrypt":"{text}"}}"#).into_bytes();
    let causes: Vec<(&str, &str, Vec<u8>)> = vec![
        ("unknown endpoint, encrypted body", "/callbacks/nowhere", good.encrypted(KEY)),
        ("unknown endpoint, plain body", "/callbacks/nowhere", good.plain()),
        ("unknown endpoint, no JSON", "/callbacks/nowhere", b"hello".to_vec()),
        ("endpoint in another case", "/callbacks/Purchase", good.encrypted(KEY)),
        ("endpoint with escapes", "/callbacks/purchase%20", good.encrypted(KEY)),
        ("plain body where a key is configured", "/callbacks/purchase", good.plain()),
        ("no JSON where a key is configured", "/callbacks/purchase", b"hello".to_vec()),
        ("empty body where a key is configured", "/callbacks/purchase", Vec::new()),
        ("an array where a key is configured", "/callbacks/purchase", b"[]".to_vec()),
        ("encrypt is empty", "/callbacks/purchase", envelope("")),
        ("encrypt is a number", "/callbacks/purchase", br#"{"encrypt":7}"#.to_vec()),
        ("encrypt is null", "/callbacks/purchase", br#"{"encrypt":null}"#.to_vec()),
        ("no base64", "/callbacks/purchase", envelope("!!!not base64!!!")),
        ("base64 of the other alphabet", "/callbacks/purchase", envelope("____________________-w==")),
        ("fewer bytes than an IV", "/callbacks/purchase", envelope("QUJD")),
        ("another key", "/callbacks/purchase", good.encrypted("fake-key-other")),
        ("a flipped bit in the last block", "/callbacks/purchase", flipped),
        ("invalid UTF-8 inside", "/callbacks/purchase", sealed(b"{\"token\":\"\xff\xfe\"}")),
        ("no JSON inside", "/callbacks/purchase", sealed(b"hello world")),
        ("an array inside", "/callbacks/purchase", sealed(b"[1]")),
        ("half an object inside", "/callbacks/purchase", sealed(&good.plain()[..60])),
        ("wrong token inside", "/callbacks/purchase", good.clone().token("fake-token-other").encrypted(KEY)),
        ("almost the token inside", "/callbacks/purchase", good.clone().token(&TOKEN[1..]).encrypted(KEY)),
        ("token missing inside", "/callbacks/purchase", good.clone().without("token").encrypted(KEY)),
        ("token null inside", "/callbacks/purchase", good.clone().raw("token", "null").encrypted(KEY)),
        ("token empty inside", "/callbacks/purchase", good.clone().token("").encrypted(KEY)),
        ("token an object inside", "/callbacks/purchase", good.clone().raw("token", "{}").encrypted(KEY)),
        (
            "wrong token beside a wrong type",
            "/callbacks/purchase",
            good.clone().token("x").raw("user_id", "[]").encrypted(KEY),
        ),
        (
            "wrong token beside a name twice",
            "/callbacks/purchase",
            good.clone().token("x").again("reason", "1").again("reason", "2").encrypted(KEY),
        ),
        ("wrong token in another language", "/callbacks/english", good.clone().token("x").encrypted(KEY)),
        ("wrong token, plain", "/callbacks/leave", good.clone().token("fake-token-other").plain()),
        ("token missing, plain", "/callbacks/leave", good.clone().without("token").plain()),
        ("token empty, plain", "/callbacks/leave", good.clone().token("").plain()),
        (
            "wrong token beside an unknown action, plain",
            "/callbacks/leave",
            good.clone().token("x").action("NO").plain(),
        ),
        ("an empty object, plain", "/callbacks/leave", b"{}".to_vec()),
        ("no JSON, plain", "/callbacks/leave", b"hello".to_vec()),
        ("nothing at all, plain", "/callbacks/leave", Vec::new()),
        ("an array, plain", "/callbacks/leave", b"[]".to_vec()),
        ("no UTF-8, plain", "/callbacks/leave", b"\xff\xfe".to_vec()),
        ("compressed, plain", "/callbacks/leave", vec![0x1f, 0x8b, 8, 0]),
        (
            "a challenge, plain",
            "/callbacks/leave",
            br#"{"challenge":"c","type":"url_verification"}"#.to_vec(),
        ),
        ("another path", "/callback/leave", good.plain()),
        ("no path", "/", good.encrypted(KEY)),
        ("a name with an escape", "/callbacks/%6ceave", good.plain()),
        ("encrypt twice", "/callbacks/purchase", twice),
        ("encrypted body where no key is configured", "/callbacks/leave", good.encrypted(KEY)),
        // platform.md#test-vectors. A3, A4 and N4 open, but contain no token; the others do not open.
        (
            "A3 under its key's endpoint",
            "/callbacks/vectors",
            envelope("/////////////////////05t0OmfP51WxHlU4l9FnhSbHFDBb5MUCiu0EOY6+0JC"),
        ),
        (
            "N1 padded with zeros",
            "/callbacks/vectors",
            envelope("EBESExQVFhcYGRobHB0eH939Er73mdi8ZVbqEM3pjOE="),
        ),
        (
            "N2 padded with 20 bytes",
            "/callbacks/vectors",
            envelope("EBESExQVFhcYGRobHB0eH6Aa3jfoso8YbGNW7idbU1ahz60PpBNb9nJFGnPM5E04"),
        ),
        (
            "N3 padded unevenly",
            "/callbacks/vectors",
            envelope("EBESExQVFhcYGRobHB0eH/w7327mjDX7GNLTe/k8Tws="),
        ),
        (
            "N4 valid padding, no JSON",
            "/callbacks/vectors",
            envelope("EBESExQVFhcYGRobHB0eH/6VEiUsPOiBlQ8/sWdXNqw="),
        ),
        (
            "N5 valid padding, nothing in it",
            "/callbacks/vectors",
            envelope("EBESExQVFhcYGRobHB0eH3BHhgy+4lKfUAnOksAQ9bg="),
        ),
        ("N6 padded with ff", "/callbacks/vectors", envelope("EBESExQVFhcYGRobHB0eH2rjmgaoNX8VUF8aG1wpzvE=")),
        ("N7 the IV alone", "/callbacks/vectors", envelope("EBESExQVFhcYGRobHB0eHw==")),
        ("N8 seventeen bytes", "/callbacks/vectors", envelope("EBESExQVFhcYGRobHB0eHwA=")),
    ];
    let mut first: Option<Answer> = None;
    for (cause, path, body) in &causes {
        let answer = wire_answer(&app, path, body).await;
        let first = first.get_or_insert_with(|| answer.clone());
        assert_eq!(answer, *first, "{cause}");
    }
    assert_refused(&first.expect("at least one cause"), "unauthenticated");
}

/// A3 and A4 of platform.md#test-vectors with their own key: they open, but their content is a stranger's.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_opens_but_holds_no_token_is_a_strangers() {
    let endpoint = Endpoint::encrypted("k").credentials(&[("tok", Some("k"))]);
    let config = Config::bare(NOWHERE).set("", "allow_weak_secrets", "true");
    let app = App::with(config.endpoint(endpoint)).await;
    let vectors = [
        "/////////////////////05t0OmfP51WxHlU4l9FnhSbHFDBb5MUCiu0EOY6+0JC",
        "Dw4NDAsKCQgHBgUEAwIBAKsPkkiXClfwfTbHpAuNIDw=",
    ];
    for vector in vectors {
        assert_refused(&app.post("k", envelope(vector)).await, "unauthenticated");
    }
}

/// J2 of platform.md#test-vectors has a valid token and a reason, but no decision.
#[tokio::test(flavor = "multi_thread")]
async fn an_authenticated_callback_without_a_decision_is_not_a_strangers() {
    let endpoint = Endpoint::encrypted("j").credentials(&[("tok-2", Some("审批密钥-demo"))]);
    let config = Config::bare(NOWHERE).set("", "allow_weak_secrets", "true");
    let app = App::with(config.endpoint(endpoint)).await;
    let vector = "iWhBhfQrjwLKNBoYBshMV1X/QBeB7PXV8gaIGXXetY9fzc/egv8zLszRuJVb1NIGBVQSB5lRf+VBfqIpIEW10w==";
    assert_refused(&app.post("j", envelope(vector)).await, "action_not_allowed");
}

/// PKCS#7 is checked completely: a text that is valid up to bad padding must not pass.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_callback_with_bad_padding_is_refused() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let mut text = Callback::list("i", "t").plain();
    while text.len() % 16 != 12 {
        text.insert(text.len() - 1, b' ');
    }
    let padded = |padding: [u8; 4]| envelope(&seal_blocks(KEY, &[text.as_slice(), &padding].concat()));
    assert_eq!(app.post("purchase", padded([4, 4, 4, 4])).await.status, 200);
    for padding in [[3, 4, 4, 4], [4, 4, 4, 0], [0, 0, 0, 0], [32, 32, 32, 1], [17, 17, 17, 17], [5, 5, 5, 5]]
    {
        let answer = app.post("purchase", padded(padding)).await;
        // One byte of padding leaves three blanks, which JSON allows.
        if padding == [32, 32, 32, 1] {
            assert_eq!(answer.status, 200);
        } else {
            assert_refused(&answer, "unauthenticated");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_body_that_is_not_one_json_object_is_a_strangers() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let twice = [Callback::list("i", "t").plain(), b"{}".to_vec()].concat();
    let bodies: [&[u8]; 7] = [b"", b"hello", b"[]", b"\"text\"", b"{\"a\":1", b"\xff\xfe", &twice];
    for body in bodies {
        let answer = app.post("leave", body).await;
        assert_eq!(
            answer.reason(),
            "unauthenticated",
            "{:?}: {}",
            String::from_utf8_lossy(body),
            answer.text()
        );
        assert_refused(&answer, "unauthenticated");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authenticated_callback_with_a_wrong_type_or_a_name_twice_is_malformed() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let good = Callback::list("i", "t");
    let many: Vec<String> = (0..101)
        .map(|number| {
            format!(
                r#"{{"file_type":"IMAGE","file_size":1,"file_name":"{number}","url":"https://x.invalid"}}"#
            )
        })
        .collect();
    let crowded = (0..65).fold(good.clone(), |callback, number| callback.raw(&format!("m{number}"), "1"));
    let callbacks = [
        ("user_id an object", good.clone().raw("user_id", "{}")),
        ("user_id absent", good.clone().without("user_id")),
        ("user_id null", good.clone().raw("user_id", "null")),
        ("action_type a list", good.clone().raw("action_type", "[\"APPROVE\"]")),
        ("task_id true", good.clone().raw("task_id", "true")),
        ("action_context an object", good.clone().raw("action_context", "{\"a\":1}")),
        ("message_id a fraction", good.clone().raw("message_id", "1.5")),
        ("message_id with an exponent", good.clone().raw("message_id", "1e3")),
        ("message_id negative", good.clone().raw("message_id", "-1")),
        ("message_id above u64", good.clone().raw("message_id", "18446744073709551616")),
        ("message_id no digits", good.clone().raw("message_id", "\"om_abc\"")),
        ("message_id a list", good.clone().raw("message_id", "[1]")),
        ("attachments an object", good.clone().raw("attachments", "{\"url\":\"u\"}")),
        ("attachments of text", good.clone().raw("attachments", "[\"a.png\"]")),
        ("101 attachments", good.clone().raw("attachments", &format!("[{}]", many.join(",")))),
        ("reason a list", good.clone().raw("reason", "[1]")),
        ("a name twice", good.clone().again("task_id", "\"other\"")),
        ("an unknown name twice", good.clone().again("new", "1").again("new", "2")),
        ("a name twice, once escaped", good.clone().again("task\\u005fid", "\"other\"")),
        ("a name twice inside", good.clone().raw("nested", r#"{"a":1,"a":2}"#)),
        ("deeper than 8", good.clone().raw("nested", &format!("{}{}", "[".repeat(12), "]".repeat(12)))),
        ("more than 64 members", crowded),
    ];
    for (fault, callback) in callbacks {
        // The escaped name must reach the wire as an escape.
        let plain = String::from_utf8(callback.plain()).unwrap().replace("task\\\\u005fid", "task\\u005fid");
        for (endpoint, body) in
            [("leave", plain.clone().into_bytes()), ("purchase", envelope(&seal(KEY, plain.as_bytes())))]
        {
            let answer = app.post(endpoint, body).await;
            assert_eq!(answer.reason(), "malformed", "{fault} at {endpoint}: {}", answer.text());
            assert_refused(&answer, "malformed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_type_that_is_not_configured_is_refused() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    for action in ["approve", "APPROVAL", "HOLD", "APPROVE "] {
        let answer = app.post("purchase", Callback::list("i", "t").action(action).encrypted(KEY)).await;
        assert_refused(&answer, "action_not_allowed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_outside_the_allow_list_is_refused() {
    let endpoint = Endpoint::plain("strict").set("approval_codes", r#"["PO_APPROVAL"]"#);
    let app = App::with(Config::bare(NOWHERE).endpoint(endpoint)).await;
    for code in ["PO_APPROVAL2", "po_approval", "OTHER"] {
        let answer = app.post("strict", Callback::list("i", "t").with("approval_code", code).plain()).await;
        assert_refused(&answer, "definition_not_allowed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_refused_however_it_is_framed() {
    let app = App::with(Config::with_url(NOWHERE).set("http", "max_body_bytes", "4096")).await;
    let with_length = |wanted: usize| {
        let mut body = Callback::list("i", "t").plain();
        body.resize(wanted, b' ');
        body
    };
    assert_eq!(app.post("leave", with_length(4096)).await.status, 200);
    assert_refused(&app.post("leave", with_length(4097)).await, "body_too_large");
    assert_refused(&app.post("nowhere", with_length(4097)).await, "body_too_large");
    let mut line = Line::to(app.public()).await;
    line.write(b"POST /callbacks/leave HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let chunk = with_length(2048);
    for _ in 0..3 {
        line.write(b"800\r\n").await.unwrap();
        line.write(&[chunk.as_slice(), b"\r\n"].concat()).await.unwrap();
    }
    assert_refused(&line.answer().await.expect("an answer before the body ends"), "body_too_large");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_arrive_in_time_is_refused() {
    let app = App::with(Config::with_url(NOWHERE).set("http", "body_read_timeout_ms", "200")).await;
    let mut line = Line::to(app.public()).await;
    line.write(b"POST /callbacks/leave HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{\"token\":")
        .await
        .unwrap();
    assert_refused(&line.answer().await.expect("an answer without the rest"), "too_slow");
    let mut line = Line::to(app.public()).await;
    line.write(b"POST /callbacks/leave HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{").await.unwrap();
    line.end().await;
    assert_refused(&line.answer().await.expect("an answer to what was broken off"), "too_slow");
}

/// SQLite allows one writer at a time, so our transaction blocks the program's commits.
#[tokio::test(flavor = "multi_thread")]
async fn when_the_queue_to_the_ledger_is_full_callbacks_are_refused_as_overloaded_and_none_is_lost() {
    let config =
        Config::with_url(NOWHERE).set("ledger", "queue_capacity", "4").set("ledger", "max_batch", "1");
    let app = App::with(config).await;
    let other = rusqlite::Connection::open(app.dir().join("ledger.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut posts = tokio::task::JoinSet::new();
    let send = |number: usize| {
        let (client, url) = (app.client(), app.callback_url("leave"));
        async move {
            let body = Callback::list("i", &format!("t{number}")).plain();
            crate::support::post(&client, &url, body).await.expect("an answer")
        }
    };
    for number in 0..40 {
        posts.spawn(send(number));
    }
    eventually("a refusal as overloaded", async || match app.metric(OVERLOADED).await {
        Some(count) if count > 0.0 => Ok(()),
        other => Err(other),
    })
    .await;
    other.execute_batch("ROLLBACK").unwrap();
    let mut accepted = 0;
    let mut overloaded = 0;
    while let Some(answer) = posts.join_next().await {
        let answer = answer.unwrap();
        match answer.status {
            200 => accepted += 1,
            _ if answer.reason() == "ledger_unavailable" => assert_refused(&answer, "ledger_unavailable"),
            _ => {
                assert_refused(&answer, "overloaded");
                overloaded += 1;
            }
        }
    }
    assert!(overloaded > 0, "{accepted} accepted");
    // It recovers without help.
    assert_eq!(send(99).await.status, 200);
    app.until_metric("countersign_ledger_rows{state=\"pending\"}", f64::from(accepted + 1)).await;
}

const OVERLOADED: &str = "countersign_callbacks_total{endpoint=\"leave\",outcome=\"overloaded\"}";

/// To the program, a limit on file sizes looks like a full disk: the write of the next page fails.
#[tokio::test(flavor = "multi_thread")]
async fn when_the_disk_is_full_callbacks_are_refused_as_ledger_unavailable_and_what_was_answered_200_is_there()
 {
    let mut app = App::with(Config::with_url(NOWHERE).file_size_limit_kib(512)).await;
    let mut accepted = BTreeSet::new();
    let refused = loop {
        let callback = Callback::list("i", &format!("t{}", accepted.len())).with("reason", "x".repeat(8192));
        let answer = app.post("leave", callback.plain()).await;
        if answer.status != 200 {
            break answer;
        }
        accepted.insert(answer.command_id());
        assert!(accepted.len() < 1000, "the limit of 512 KiB was never reached");
    };
    assert_refused(&refused, "ledger_unavailable");
    eventually("/readyz to say 503", async || match app.get("/readyz").await.status {
        503 => Ok(()),
        other => Err(other),
    })
    .await;
    app.kill();
    app.reconfigure(Config::without_limits);
    app.restart().await;
    for id in accepted {
        assert_eq!(app.get(&format!("/api/v1/commands/{id}")).await.status, 200, "{id} was answered 200");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_approver_reads_a_sentence_in_the_language_of_the_endpoint() {
    let named = |name: &str, locale: &str| Endpoint::plain(name).set("locale", &format!("\"{locale}\""));
    let config = Config::bare(NOWHERE)
        .endpoint(named("zh", "zh"))
        .endpoint(named("en", "en"))
        .endpoint(named("ja", "ja"));
    let app = App::with(config).await;
    let sentence = async |endpoint: &str| {
        let answer = app.post(endpoint, Callback::list("i", "t").action("HOLD").plain()).await;
        answer.json()["message"].as_str().unwrap().to_owned()
    };
    let kana = |text: &str| text.chars().any(|c| ('\u{3040}'..='\u{30ff}').contains(&c));
    let han = |text: &str| text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
    let (zh, en, ja) = (sentence("zh").await, sentence("en").await, sentence("ja").await);
    assert!(han(&zh) && !kana(&zh), "{zh}");
    assert!(en.is_ascii() && en.contains(' '), "{en}");
    assert!(kana(&ja), "{ja}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_listener_serves_callbacks_and_nothing_else() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let client = app.client();
    let public = |path: &str| format!("http://{}{path}", app.public());
    for path in ["/", "/livez", "/readyz", "/metrics", "/api/v1/commands", "/callbacks", "/callbacks/a/b"] {
        let status = client.get(public(path)).send().await.unwrap().status().as_u16();
        assert_eq!(status, 404, "GET {path} on the public listener");
    }
    for path in ["/callbacks/purchase", "/callbacks/nowhere"] {
        let status = client.get(public(path)).send().await.unwrap().status().as_u16();
        assert_eq!(status, 405, "GET {path}: whether an endpoint exists is not told either");
    }
    let elsewhere = format!("http://{}/callbacks/leave", app.admin());
    let answer = crate::support::post(&client, &elsewhere, Callback::list("i", "t").plain()).await.unwrap();
    assert_eq!(answer.status, 404, "a callback on the internal listener");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_callbacks_are_kept_without_anything_secret() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let callback = Callback::list("inst-7", "task-7").context("private-context").action("HOLD");
    assert_refused(&app.post("purchase", callback.encrypted(KEY)).await, "action_not_allowed");
    let stranger = Callback::list("inst-8", "task-8").encrypted("guessed-key");
    assert_refused(&app.post("purchase", stranger.clone()).await, "unauthenticated");
    let plain = Callback::list("inst-8", "task-8").token("guessed-token").plain();
    assert_refused(&app.post("leave", plain).await, "unauthenticated");
    // A sender who knows the key is no stranger: the log has the decision they wanted, but not the token they tried.
    let with_key = Callback::list("inst-9", "task-9").token("guessed-token").encrypted(KEY);
    assert_refused(&app.post("purchase", with_key).await, "unauthenticated");
    let refusals = eventually("four refusals in the ledger", async || {
        let answer = app.get("/api/v1/refusals").await;
        let text = answer.text();
        if text.matches("\"reason\"").count() == 4 { Ok(text) } else { Err(text) }
    })
    .await;
    for word in ["action_not_allowed", "unauthenticated", "purchase", "task-7", "task-9", "zhang3", "HOLD"] {
        assert!(refusals.contains(word), "{word} is not in {refusals}");
    }
    let outer: Value = serde_json::from_slice(&stranger).unwrap();
    let ciphertext = outer["encrypt"].as_str().unwrap();
    for secret in [TOKEN, KEY, "guessed-token", "private-context", "task-8", ciphertext] {
        assert!(!refusals.contains(secret), "{secret} is in {refusals}");
    }
}
