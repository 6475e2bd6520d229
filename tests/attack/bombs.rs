//! Bodies made to hurt parsers. Each gets the right answer, and the next good callback is accepted. Accepted content
//! is kept exactly, to the digit.

use crate::{
    support::{App, Callback, Config, KEY, NOWHERE, TOKEN, envelope, seal},
    wire::{strangers_answer, the_strangers_answer},
};

/// A body with the right token and this member.
fn with(member: &str) -> Vec<u8> {
    [
        br#"{"action_type":"APPROVE","user_id":"u","task_id":"t","token":""#,
        TOKEN.as_bytes(),
        b"\",",
        member.as_bytes(),
        b"}",
    ]
    .concat()
}

fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let many = |count: usize, item: &str| vec![item; count].join(",");
    let members: Vec<String> = (0..5000).map(|number| format!("\"m{number}\":0")).collect();
    let deep_names = |depth: usize| {
        let twice = r#"{"a":1,"a":2}"#;
        format!("\"x\":{}{twice}{}", "[".repeat(depth), "]".repeat(depth))
    };
    vec![
        ("lists in lists", with(&format!("\"x\":{}{}", "[".repeat(30_000), "]".repeat(30_000)))),
        ("lists that never end", with(&format!("\"x\":{}", "[".repeat(60_000)))),
        ("objects in objects", with(&format!("\"x\":{}1{}", "{\"a\":".repeat(9000), "}".repeat(9000)))),
        ("members by the thousand", with(&members.join(","))),
        ("members by the thousand inside", with(&format!("\"x\":{{{}}}", members.join(",")))),
        ("one name by the thousand", with(&many(5000, "\"a\":1"))),
        ("names twice in a list", with(&deep_names(1))),
        ("names twice deep down", with(&deep_names(6))),
        ("names twice in an attachment", with(r#""attachments":[{"url":"a","url":"b"}]"#)),
        ("names twice, one escaped", with(r#""reason":"a","re\u0061son":"b""#)),
        ("a message_id of 50 000 digits", with(&format!("\"message_id\":{}", "9".repeat(50_000)))),
        ("a message_id beyond 64 bits", with("\"message_id\":18446744073709551616")),
        ("a message_id out of range", with("\"message_id\":1e999999")),
        ("a message_id that is zero in a roundabout way", with("\"message_id\":0e0")),
        ("a user id of 50 000 digits", with(&format!("\"id\":{}", "9".repeat(50_000)))),
        ("an id of 60 000 characters", with(&format!("\"id\":\"{}\"", "a".repeat(60_000)))),
        ("an id just too long", with(&format!("\"id\":\"{}\"", "a".repeat(513)))),
        (
            "an action of 60 000 characters",
            with(&format!("\"action_context\":\"c\",\"instance_id\":\"{}\"", "a".repeat(60_000))),
        ),
        ("attachments by the thousand", with(&format!("\"attachments\":[{}]", many(20_000, "{}")))),
        ("half a surrogate pair in an id", with(r#""id":"\ud83d""#)),
        ("the other half", with(r#""id":"\ude00""#)),
        ("surrogates the wrong way round in a context", with(r#""action_context":"\ude00\ud83d""#)),
        ("halves of surrogate pairs that make two names one", with(r#""x":{"\ud83d":1,"\ude00":2}"#)),
        ("NUL in an id", with(r#""instance_id":"a\u0000b""#)),
        ("a number that no double holds", with("\"x\":1e999999")),
        ("a number that no double holds, in an attachment", with(r#""attachments":[{"x":[-1e400]}]"#)),
        ("a whole number that no double holds", with(&format!("\"x\":{}", "9".repeat(400)))),
        ("a fraction for an id", with("\"id\":1.0")),
        ("a truth for an id", with("\"id\":true")),
    ]
}

/// Bodies that are not JSON, whatever is inside.
fn no_json() -> Vec<(&'static str, Vec<u8>)> {
    let text = String::from_utf8(with("\"x\":1")).expect("ASCII");
    let utf16 = |big: bool| -> Vec<u8> {
        let order = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
        text.encode_utf16().flat_map(order).collect()
    };
    vec![
        ("UTF-16, big end first", utf16(true)),
        ("UTF-16, little end first", utf16(false)),
        ("two byte order marks", format!("\u{feff}\u{feff}{text}").into()),
        ("a byte order mark behind", format!("{text}\u{feff}").into()),
        ("a comment", text.replace("\"x\"", "/* x */ \"x\"").into()),
        ("a comment behind", format!("{text} // x").into()),
        ("a comma behind the last", text.replace("\"x\":1", "\"x\":1,").into()),
        ("single quotes", text.replace('"', "'").into()),
        ("a number with a leading zero", with("\"x\":01")),
        ("a number with a plus", with("\"x\":+1")),
        ("NaN", with("\"x\":NaN")),
        ("a raw newline in a text", with("\"x\":\"a\nb\"")),
        ("a raw NUL in a text", with("\"x\":\"a\0b\"")),
        ("NUL behind", format!("{text}\0").into()),
        (
            "no UTF-8 in a text",
            text.replace("\"u\"", "\"?\"")
                .into_bytes()
                .iter()
                .map(|b| if *b == b'?' { 0xff } else { *b })
                .collect(),
        ),
        ("an overlong slash", [&with("\"x\":\"")[..text.len() - 2], b"\xc0\xaf\"}"].concat()),
        ("a surrogate in UTF-8", [&with("\"x\":\"")[..text.len() - 2], b"\xed\xa0\x80\"}"].concat()),
        ("a vertical tab for a space", text.replace(",\"x\"", ",\u{b}\"x\"").into()),
        ("a no-break space for a space", text.replace(",\"x\"", ",\u{a0}\"x\"").into()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_malformed_with_the_token_and_a_strangers_without() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let wanted = the_strangers_answer(&app).await;
    for (bomb, body) in bombs() {
        // Unclosed lists are not JSON, and so a stranger's.
        let closed = serde_json::from_slice::<&serde_json::value::RawValue>(&body).is_ok();
        let reason = if closed { "malformed" } else { "unauthenticated" };
        let answer = app.post("leave", body.clone()).await;
        assert_eq!(answer.reason(), reason, "{bomb}: {}", answer.text());
        // Base64 adds a third; a body that becomes too large is not inspected.
        let sealed = envelope(&seal(KEY, &body));
        if sealed.len() <= 65_536 {
            let answer = app.post("purchase", sealed).await;
            assert_eq!(answer.reason(), reason, "{bomb}, encrypted");
        }
        let text = String::from_utf8(body).expect("text");
        let stranger = text.replace(TOKEN, "fake-token-other");
        assert_eq!(strangers_answer(&app, "/callbacks/leave", stranger.as_bytes()).await, wanted, "{bomb}");
        let sealed = envelope(&seal(KEY, stranger.as_bytes()));
        if sealed.len() <= 65_536 {
            assert_eq!(
                strangers_answer(&app, "/callbacks/purchase", &sealed).await,
                wanted,
                "{bomb}, encrypted"
            );
        }
    }
    assert_eq!(app.post("purchase", Callback::list("i", "t").encrypted(KEY)).await.status, 200);
    assert_eq!(app.get("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_json_is_a_strangers_wherever_it_is_sent() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let wanted = the_strangers_answer(&app).await;
    for (fault, body) in no_json() {
        assert_eq!(strangers_answer(&app, "/callbacks/leave", &body).await, wanted, "{fault}, without a key");
        let sealed = envelope(&seal(KEY, &body));
        assert_eq!(
            strangers_answer(&app, "/callbacks/purchase", &sealed).await,
            wanted,
            "{fault}, encrypted"
        );
        assert_eq!(strangers_answer(&app, "/callbacks/purchase", &body).await, wanted, "{fault}, plain");
    }
}

/// Odd but within the limits: kept verbatim, and delivered to consumers as sent.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_odd_but_allowed_is_kept_to_the_digit() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let digits = "9".repeat(300);
    let odd = [
        ("\"x\":1e-999999".to_owned(), "1e-999999".to_owned()),
        ("\"x\":1.79e308".to_owned(), "1.79e308".to_owned()),
        (format!("\"x\":0.{digits}{digits}"), format!("0.{digits}{digits}")),
        (format!("\"x\":{digits}.50"), format!("{digits}.50")),
        ("\"x\":-0.0e-0".to_owned(), "-0.0e-0".to_owned()),
        ("\"message_id\":18446744073709551615".to_owned(), "18446744073709551615".to_owned()),
        (r#""reason":"a\u0000b\u001b[31mc\u202ed\ud83d\ude00""#.to_owned(), "\u{202e}d\u{1f600}".to_owned()),
        (r#""reason":"a\ud83d""#.to_owned(), "a\u{fffd}".to_owned()),
        (r#""x":{"\ud83d":["\ude00\ud83d"]}"#.to_owned(), r#"{"\ufffd":["\ufffd\ufffd"]}"#.to_owned()),
        (format!("\"instance_id\":\"{}\"", "\u{6587}".repeat(170)), "\u{6587}".repeat(170)),
        ("\"x\":[[[[[[1]]]]]]".to_owned(), "[[[[[[1]]]]]]".to_owned()),
    ];
    for (number, (member, kept)) in odd.into_iter().enumerate() {
        // A different operator for each, to avoid duplicates.
        let operator = format!("\"operator {number}\"");
        let body = String::from_utf8(with(&member)).expect("text").replacen("\"u\"", &operator, 1);
        let id = app.post("leave", body).await.command_id();
        let command = app.get(&format!("/api/v1/commands/{id}")).await.text();
        assert!(command.contains(&kept), "{member}: {command}");
    }
}
