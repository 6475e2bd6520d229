//! Replays, downgrades, members next to `encrypt`, guesses of tokens and of endpoint names.
//!
//! A replay is a genuine callback sent again. The platform sends no time and no nonce
//! (platform.md#callback-transport), so within `dedupe_window` it is a duplicate, and with a round forever. After
//! the window and without a round it is a new decision. The same ciphertext is valid at every endpoint with the same
//! credential: endpoints that must be separate need their own credentials.

use crate::{
    support::{
        Answer, App, Callback, Config, Endpoint, KEY, Line, NOWHERE, TOKEN, envelope, eventually, seal,
    },
    wire::{strangers_answer, the_strangers_answer},
};
use serde_json::Value;

fn ciphertext(callback: &Callback) -> String {
    let outer: Value = serde_json::from_slice(&callback.encrypted(KEY)).expect("a body");
    outer["encrypt"].as_str().expect("a text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_a_duplicate_within_the_window_and_with_a_round_for_ever() {
    let short = |name: &str| Endpoint::encrypted(name).set("dedupe_window", "\"300ms\"");
    let rounds = short("rounds")
        .context("format", "\"json\"")
        .context("fields", r#"{ task_id = "/t", instance_id = "/i", round = "/r" }"#);
    let long = Endpoint::encrypted("long").set("dedupe_window", "\"1h\"");
    let app = App::with(Config::bare(NOWHERE).endpoint(short("short")).endpoint(rounds).endpoint(long)).await;
    let captured = Callback::list("i", "t").context(r#"{"i":"i","t":"t","r":1}"#).encrypted(KEY);
    let mut first = Vec::new();
    for endpoint in ["short", "rounds", "long"] {
        let answer = app.post(endpoint, captured.clone()).await;
        assert_eq!(answer.status_word(), "accepted", "{endpoint}");
        first.push(answer.command_id());
    }
    assert_eq!(app.post("long", captured.clone()).await.command_id(), first[2]);
    // Once the replay without a round counts as new, the window is over for the others too.
    let second = eventually("the window to pass", async || {
        let answer = app.post("short", captured.clone()).await;
        if answer.status_word() == "accepted" { Ok(answer.command_id()) } else { Err(answer.text()) }
    })
    .await;
    assert_ne!(second, first[0]);
    for (endpoint, first) in [("rounds", &first[1]), ("long", &first[2])] {
        let answer = app.post(endpoint, captured.clone()).await;
        assert_eq!((answer.status_word().as_str(), &answer.command_id()), ("duplicate", first), "{endpoint}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_at_an_endpoint_with_credentials_of_its_own_is_a_strangers() {
    let other = Endpoint::encrypted("other").credentials(&[(TOKEN, Some("fake-key-of-its-own"))]);
    let plain = Endpoint::plain("plain").credentials(&[("fake-token-of-its-own", None)]);
    let app = App::with(Config::with_url(NOWHERE).endpoint(other).endpoint(plain)).await;
    let wanted = the_strangers_answer(&app).await;
    let captured = Callback::list("i", "t");
    assert_eq!(app.post("purchase", captured.encrypted(KEY)).await.status, 200);
    for (path, body) in [
        ("/callbacks/other", captured.encrypted(KEY)),
        ("/callbacks/plain", captured.encrypted(KEY)),
        ("/callbacks/plain", captured.plain()),
        ("/callbacks/nowhere", captured.encrypted(KEY)),
    ] {
        assert_eq!(strangers_answer(&app, path, &body).await, wanted, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_beside_encrypt_counts() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let wanted = the_strangers_answer(&app).await;
    let (good, bad) = (Callback::list("i", "t"), Callback::list("i", "t").token("guessed"));
    let (good_text, bad_text) = (ciphertext(&good), ciphertext(&bad));
    let plain = String::from_utf8(good.plain()).expect("JSON");
    let inner = &plain[1..plain.len() - 1];
    let strangers = [
        format!(r#"{{"encrypt":"{bad_text}","token":"{TOKEN}"}}"#),
        format!(r#"{{"token":"{TOKEN}","encrypt":"{bad_text}"}}"#),
        format!(r#"{{{inner},"encrypt":"{bad_text}"}}"#),
        format!(r#"{{"encrypt":"","challenge":"c","type":"url_verification",{inner}}}"#),
        format!(r#"{{"encrypt":null,{inner}}}"#),
        format!(r#"{{"encrypt":{{"encrypt":"{good_text}"}}}}"#),
        format!(r#"{{"encrypt":["{good_text}"]}}"#),
        format!(r#"{{"Encrypt":"{good_text}"}}"#),
        format!(r#"{{"challenge":"c","token":"{TOKEN}","type":"url_verification"}}"#),
        // Which of the two is meant is unknown.
        format!(r#"{{"encrypt":"{good_text}","encrypt":"{good_text}"}}"#),
        format!(r#"{{"encrypt":"{good_text}","encrypt":"{bad_text}","encrypt":7}}"#),
        format!(r#"{{"encrypt":"{good_text}","\u0065ncrypt":null}}"#),
        format!(r#"{{"encrypt":"{bad_text}","encrypt":"{good_text}"}}"#),
        format!(r#"{{"encrypt":"","encrypt":"{good_text}"}}"#),
        format!(r#"[{{"encrypt":"{good_text}"}}]"#),
        format!(r#"{{"encrypt":"{good_text}"}}{{"encrypt":"{good_text}"}}"#),
    ];
    for body in &strangers {
        assert_eq!(strangers_answer(&app, "/callbacks/purchase", body.as_bytes()).await, wanted, "{body}");
    }
    for body in [
        format!(
            r#"{{"user_id":"mallory","action_type":"REJECT","encrypt":"{good_text}","task_id":"other"}}"#
        ),
        format!(r#"{{"\u0065ncrypt":"{good_text}"}}"#),
    ] {
        let id = app.post("purchase", body.clone()).await.command_id();
        let command = app.get(&format!("/api/v1/commands/{id}")).await.text();
        assert!(
            !command.contains("mallory") && !command.contains("REJECT") && !command.contains("other"),
            "{body}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_body_does_not_pass_for_an_encrypted_one_whatever_token_it_has() {
    let plain_token = "fake-token-of-a-plain-endpoint";
    let config = Config::with_url(NOWHERE)
        .endpoint(Endpoint::plain("plain").credentials(&[(plain_token, None)]))
        .endpoint(
            Endpoint::encrypted("rotating")
                .credentials(&[(TOKEN, Some(KEY)), ("fake-token-new", Some("fake-key-new"))]),
        );
    let app = App::with(config).await;
    let wanted = the_strangers_answer(&app).await;
    let callback = Callback::list("i", "t");
    for token in [TOKEN, plain_token, "fake-token-new", KEY, ""] {
        for path in ["/callbacks/purchase", "/callbacks/rotating"] {
            let body = callback.clone().token(token).plain();
            assert_eq!(strangers_answer(&app, path, &body).await, wanted, "{token} at {path}");
        }
    }
    // A token counts only with its own key.
    for (token, key) in [(TOKEN, "fake-key-new"), ("fake-token-new", KEY), (plain_token, KEY)] {
        let body = callback.clone().token(token).encrypted(key);
        assert_eq!(strangers_answer(&app, "/callbacks/rotating", &body).await, wanted, "{token} under {key}");
    }
    assert_eq!(
        app.post("rotating", callback.token("fake-token-new").encrypted("fake-key-new")).await.status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guess_at_the_token_is_right_or_a_strangers_however_near_it_is() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let wanted = the_strangers_answer(&app).await;
    let mut guesses: Vec<String> = (0..TOKEN.len()).map(|length| TOKEN[..length].to_owned()).collect();
    guesses.extend([
        format!("{TOKEN} "),
        format!(" {TOKEN}"),
        format!("{TOKEN}\0"),
        format!("{TOKEN}\n"),
        TOKEN.to_uppercase(),
        TOKEN.replace('a', "\u{430}"),
        TOKEN.replace('f', "\u{ff46}"),
        format!("\u{feff}{TOKEN}"),
        TOKEN.repeat(2),
        "x".repeat(40_000),
    ]);
    let mut raw: Vec<String> = guesses.iter().map(|guess| Value::from(guess.as_str()).to_string()).collect();
    raw.extend(
        ["null", "true", "0", "1e999", "-1", "[]", "{}", "\"\\ud800\"", "\"\\u0000\""].map(str::to_owned),
    );
    raw.push(format!("[\"{TOKEN}\"]"));
    raw.push(format!("{{\"token\":\"{TOKEN}\"}}"));
    for guess in &raw {
        let callback = Callback::list("i", "t").raw("token", guess);
        for (path, body) in
            [("/callbacks/leave", callback.plain()), ("/callbacks/purchase", callback.encrypted(KEY))]
        {
            let shown: String = guess.chars().take(60).collect();
            assert_eq!(strangers_answer(&app, path, &body).await, wanted, "{shown} at {path}");
        }
    }
    // Repeated, with one of them right: the first authenticates the sender, and then the repeated name is an error.
    let twice = Callback::list("i", "t").again("token", "\"x\"");
    assert_eq!(app.post("leave", twice.plain()).await.reason(), "malformed");
    let twice = Callback::list("i", "t").token("x").again("token", &format!("\"{TOKEN}\""));
    assert_eq!(strangers_answer(&app, "/callbacks/leave", &twice.plain()).await, wanted);
    // Another spelling of the same text is equal.
    let spelled: String = TOKEN.chars().map(|char| format!("\\u{:04x}", u32::from(char))).collect();
    assert_eq!(
        app.post("leave", Callback::list("i", "t").raw("token", &format!("\"{spelled}\"")).plain())
            .await
            .status,
        200
    );
}

/// Sends a raw request line and reads the answer.
async fn asked(app: &App, method: &str, target: &[u8], body: &[u8]) -> Option<Answer> {
    let mut line = Line::to(app.public()).await;
    let mut request = format!("{method} ").into_bytes();
    request.extend_from_slice(target);
    request.extend_from_slice(
        format!(" HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(),
    );
    request.extend_from_slice(body);
    line.write(&request).await.expect("an open connection");
    let mut answer = line.answer().await?.without_date();
    // The server stores headers in a map with a random order for each answer, whatever the request was.
    answer.headers.sort();
    Some(answer)
}

/// A transformation of an endpoint's name in a request.
type Trick = (&'static str, Box<dyn Fn(&str) -> Vec<u8>>);

/// For every trick, a name that exists and one that does not give the same answer.
#[tokio::test(flavor = "multi_thread")]
async fn no_trick_with_the_path_tells_which_endpoints_exist() {
    let config = Config::with_url(NOWHERE).set("http", "max_body_bytes", "4096");
    let app = App::with(config.endpoint(Endpoint::encrypted("english").set("locale", "\"en\""))).await;
    let hex = |name: &str| name.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let tricks: Vec<Trick> = vec![
        ("as it is", Box::new(|name| format!("/callbacks/{name}").into())),
        ("slash behind", Box::new(|name| format!("/callbacks/{name}/").into())),
        ("two slashes", Box::new(|name| format!("/callbacks//{name}").into())),
        ("slashes before", Box::new(|name| format!("//callbacks/{name}").into())),
        ("dot segment", Box::new(|name| format!("/callbacks/./{name}").into())),
        ("dot dot segment", Box::new(|name| format!("/x/../callbacks/{name}").into())),
        ("encoded dot dot", Box::new(|name| format!("/callbacks/%2e%2e/callbacks/{name}").into())),
        ("encoded dot behind", Box::new(|name| format!("/callbacks/{name}%2e").into())),
        ("encoded slash", Box::new(|name| format!("/callbacks/{name}%2f").into())),
        ("encoded slash inside", Box::new(|name| format!("/callbacks%2f{name}").into())),
        ("backslash", Box::new(|name| format!("/callbacks\\{name}").into())),
        ("upper case", Box::new(|name| format!("/callbacks/{}", name.to_uppercase()).into())),
        ("route in upper case", Box::new(|name| format!("/CALLBACKS/{name}").into())),
        ("a space behind", Box::new(|name| format!("/callbacks/{name}%20").into())),
        ("NUL behind", Box::new(|name| format!("/callbacks/{name}%00").into())),
        ("parameter", Box::new(|name| format!("/callbacks/{name};v=1").into())),
        ("no UTF-8", Box::new(|name| format!("/callbacks/{name}%ff%fe").into())),
        ("half an escape", Box::new(|name| format!("/callbacks/{name}%2").into())),
        ("raw bytes", Box::new(|name| [b"/callbacks/", name.as_bytes(), b"\xff"].concat())),
        ("very long", Box::new(|name| format!("/callbacks/{name}{}", "a".repeat(9000)).into())),
        ("absolute", Box::new(|name| format!("http://elsewhere.invalid/callbacks/{name}").into())),
    ];
    let big = vec![b' '; 5000];
    let bodies: [&[u8]; 4] = [b"{}", b"", br#"{"encrypt":"AAAA"}"#, &big];
    for (trick, target) in &tricks {
        for method in ["POST", "GET", "PUT", "OPTIONS", "DELETE", "PATCH"] {
            for body in bodies {
                let known = asked(&app, method, &target("purchase"), body).await;
                let english = asked(&app, method, &target("english"), body).await;
                let unknown = asked(&app, method, &target("nowhere"), body).await;
                assert_eq!(known, unknown, "{trick}, {method}, {} bytes", body.len());
                assert_eq!(english, unknown, "{trick}, {method}, {} bytes, in English", body.len());
            }
        }
    }
    // A proxy in front of the service decides by the path it sees: a name with an escape is a different name,
    // although RFC 3986 §6.2.2.2 considers them equal. A query is not part of the path, and extra slashes have no
    // meaning.
    for (target, status) in [
        (format!("/callbacks/{}", hex("purchase")), 403),
        ("/callbacks/%70urchase".to_owned(), 403),
        ("/callbacks/purchase?x=y".to_owned(), 200),
        ("/callbacks/purchase/".to_owned(), 200),
    ] {
        let good = envelope(&seal(KEY, &Callback::list("i", "t").plain()));
        assert_eq!(
            asked(&app, "POST", target.as_bytes(), &good).await.map(|answer| answer.status),
            Some(status),
            "{target}"
        );
    }
}
