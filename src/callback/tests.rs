use super::*;

fn credentials(list: &[(&str, Option<&str>)]) -> Credentials {
    let settings: Vec<_> = list
        .iter()
        .map(|(token, key)| CredentialSettings {
            action_callback_token: Secret::new(*token),
            action_callback_key: key.map(Secret::new),
        })
        .collect();
    Credentials::new(&settings)
}

fn sealed(key: &str, plain: &str) -> String {
    let text = cipher::encrypt(&cipher::Key::derive(&Secret::new(key)), [7; 16], plain.as_bytes());
    format!(r#"{{"encrypt":"{text}"}}"#)
}

fn unauthenticated(result: Result<Verified, OpenError>) -> &'static str {
    match result {
        Err(OpenError::Unauthenticated(cause)) => cause,
        other => panic!("expected unauthenticated, got {other:?}"),
    }
}

const CARD: &str = r#"{"action_type":"APPROVE","action_context":"{\"t\":\"PO-77/n2\"}","user_id":"zhang3","message_id":7123456789012345678,"token":"tok-1"}"#;

#[test]
fn the_captured_card_opens_plain_and_encrypted() {
    for (credentials, body) in [
        (credentials(&[("tok-1", None)]), CARD.to_owned()),
        (credentials(&[("tok-1", Some("审批密钥-demo"))]), sealed("审批密钥-demo", CARD)),
    ] {
        let verified = open(&credentials, body.as_bytes()).unwrap();
        assert_eq!(verified.action_type.as_deref(), Some("APPROVE"));
        assert_eq!(verified.action_context.as_deref(), Some(r#"{"t":"PO-77/n2"}"#));
        assert_eq!(verified.user_id.as_deref(), Some("zhang3"));
        assert_eq!(verified.message_id, Some(7_123_456_789_012_345_678));
        assert_eq!(verified.origin(), Some(Origin::Card));
        assert!(
            verified.approval_code.is_none() && verified.instance_id.is_none() && verified.extra.is_empty()
        );
    }
}

#[test]
fn every_credential_of_a_rotation_opens_with_its_own_key_only() {
    let four = credentials(&[
        ("t-1", Some("k-1")),
        ("t-2", Some("k-2")),
        ("t-3", Some("k-3")),
        ("t-4", Some("k-4")),
    ]);
    for n in 1..=4 {
        let body = sealed(&format!("k-{n}"), &format!(r#"{{"token":"t-{n}"}}"#));
        assert_eq!(open(&four, body.as_bytes()).unwrap().credential, n - 1);
        let crossed = sealed(&format!("k-{n}"), &format!(r#"{{"token":"t-{}"}}"#, n % 4 + 1));
        unauthenticated(open(&four, crossed.as_bytes()));
    }
    let plain = credentials(&[("t-1", None), ("t-2", None)]);
    assert_eq!(open(&plain, br#"{"token":"t-2"}"#).unwrap().credential, 1);
}

#[test]
fn a_plain_body_is_refused_where_a_key_is_configured_whatever_it_says() {
    let with_key = credentials(&[("tok-1", Some("k"))]);
    unauthenticated(open(&with_key, CARD.as_bytes()));
    unauthenticated(open(&with_key, CARD.replace("\"token\"", "\"encrypt\":\"\",\"token\"").as_bytes()));
    unauthenticated(open(&with_key, b"not json"));
    unauthenticated(open(&with_key, br#"{"encrypt":5}"#));
}

#[test]
fn nothing_beside_encrypt_counts() {
    let with_key = credentials(&[("tok-1", Some("k"))]);
    let body = sealed("k", r#"{"token":"wrong"}"#).replace('}', r#","token":"tok-1"}"#);
    unauthenticated(open(&with_key, body.as_bytes()));
    let body = sealed("k", CARD).replace("{\"encrypt\"", "{\"user_id\":\"mallory\",\"encrypt\"");
    assert_eq!(open(&with_key, body.as_bytes()).unwrap().user_id.as_deref(), Some("zhang3"));
    let plain = credentials(&[("tok-1", None)]);
    let body = CARD.replace("\"token\"", "\"encrypt\":\"x\",\"token\"");
    unauthenticated(open(&plain, body.as_bytes()));
}

#[test]
fn a_token_must_be_there_and_right() {
    let plain = credentials(&[("tok-1", None)]);
    for token in ["\"tok-2\"", "\"\"", "null", "\"TOK-1\"", "\"tok-1 \"", "true", "{}"] {
        unauthenticated(open(&plain, CARD.replace("\"tok-1\"", token).as_bytes()));
    }
    unauthenticated(open(&plain, b"{}"));
    assert!(open(&credentials(&[("12345", None)]), br#"{"token":12345}"#).is_ok());
    assert_eq!(
        unauthenticated(open(&Credentials::decoy(), CARD.as_bytes())),
        "a plain body, but a key is configured"
    );
}

#[test]
fn bad_padding_is_refused_even_around_a_right_token() {
    let with_key = credentials(&[("tok-1", Some("k"))]);
    let good = sealed("k", CARD);
    assert!(open(&with_key, good.as_bytes()).is_ok());
    // Flipping a bit of the last block but one flips the same bit of the padding's last byte.
    let text = good.strip_prefix("{\"encrypt\":\"").unwrap().strip_suffix("\"}").unwrap();
    use base64::Engine;
    let mut bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let at = bytes.len() - 17;
    bytes[at] ^= 0x40;
    let body = format!(r#"{{"encrypt":"{}"}}"#, base64::engine::general_purpose::STANDARD.encode(bytes));
    assert_eq!(unauthenticated(open(&with_key, body.as_bytes())), "does not decrypt with any configured key");
}

#[test]
fn an_authenticated_body_is_held_to_its_types() {
    let plain = credentials(&[("tok-1", None)]);
    let with = |member: &str| open(&plain, format!(r#"{{"token":"tok-1",{member}}}"#).as_bytes());
    for member in [
        r#""message_id":1.5"#,
        r#""message_id":"12a""#,
        r#""action_context":{"t":1}"#,
        r#""action_type":1"#,
        r#""user_id":["u"]"#,
        r#""reason":5"#,
        r#""attachments":{}"#,
        r#""attachments":[1]"#,
        r#""attachments":[{"file_size":"x"}]"#,
        r#""user_id":"a","user_id":"a""#,
        r#""extra":{"a":1,"a":2}"#,
    ] {
        assert!(matches!(with(member), Err(OpenError::Malformed(_))), "{member}");
    }
    let verified = with(
        r#""instance_id":77,"task_id":null,"approval_code":"","user_id":18500000001,"attachments":[{"file_type":"IMAGE","file_size":"12","pages":2}],"new":{"deep":[1,2.50]}"#,
    )
    .unwrap();
    assert_eq!(verified.instance_id.as_deref(), Some("77"));
    assert_eq!(verified.user_id.as_deref(), Some("18500000001"));
    assert_eq!((verified.task_id, verified.approval_code), (None, None));
    assert_eq!(verified.attachments[0].file_size, Some(12));
    assert_eq!(verified.attachments[0].extra[0].1.get(), "2");
    assert_eq!(verified.extra[0].1.get(), r#"{"deep":[1,2.50]}"#);
}

#[test]
fn a_hundred_attachments_are_taken_and_one_more_is_not() {
    let plain = credentials(&[("tok-1", None)]);
    for (count, taken) in [(100, true), (101, false)] {
        let files = vec!["{}"; count].join(",");
        let body = format!(r#"{{"token":"tok-1","attachments":[{files}]}}"#);
        assert_eq!(open(&plain, body.as_bytes()).is_ok(), taken);
    }
}

#[test]
fn a_plain_body_that_is_no_object_is_malformed_where_no_key_is_configured() {
    let plain = credentials(&[("tok-1", None)]);
    for body in ["", "[]", "{\"token\":\"tok-1\"", "x", "\"tok-1\""] {
        assert!(matches!(open(&plain, body.as_bytes()), Err(OpenError::Malformed(_))), "{body}");
    }
    assert!(open(&plain, "\u{feff}{\"token\":\"tok-1\"}\n".as_bytes()).is_ok());
}

#[test]
fn nothing_secret_shows_in_debug() {
    let shown = format!("{:?}", credentials(&[("fake-token-1", Some("fake-key-1"))]));
    let hash = format!("{:?}", credentials::hash("fake-token-1"));
    assert!(!shown.contains("fake") && !shown.contains(&hash[1..8]), "{shown}");
    // That there is something is shown, or an operator would take it for not configured.
    assert!(shown.contains("token: [redacted]") && shown.contains("Some(Key([redacted]))"), "{shown}");
}

#[test]
fn the_origin_is_told_by_the_member_that_each_must_carry() {
    let plain = credentials(&[("tok-1", None)]);
    for (members, origin) in [
        (r#""message_id":1,"instance_id":"i","task_id":"t","id":"x""#, Some(Origin::Card)),
        (r#""instance_id":"i","id":"x""#, Some(Origin::List)),
        (r#""task_id":"t","id":"x""#, Some(Origin::List)),
        (r#""instance_id":"i","task_id":"t""#, Some(Origin::List)),
        (r#""id":"x""#, Some(Origin::Search)),
        (r#""message_id":null,"instance_id":"","id":"""#, None),
    ] {
        let verified = open(&plain, format!(r#"{{"token":"tok-1",{members}}}"#).as_bytes()).unwrap();
        assert_eq!(verified.origin(), origin, "{members}");
    }
}

/// The causes are for the operator's log alone, but there they should be right.
#[test]
fn the_log_is_told_the_cause() {
    let with_key = credentials(&[("tok-1", Some("k"))]);
    for (body, cause) in [
        ("hello".to_owned(), "the body is no JSON object"),
        (r#"{"encrypt":7}"#.to_owned(), "encrypt is no text"),
        (r#"{"encrypt":""}"#.to_owned(), "a plain body, but a key is configured"),
        (CARD.to_owned(), "a plain body, but a key is configured"),
        (r#"{"encrypt":"AAAA"}"#.to_owned(), "does not decrypt with any configured key"),
        (sealed("other", CARD), "does not decrypt with any configured key"),
        (sealed("k", "hello"), "decrypts, but the token is wrong or missing"),
        (sealed("k", r#"{"token":"tok-2"}"#), "decrypts, but the token is wrong or missing"),
        (sealed("k", "{}"), "decrypts, but the token is wrong or missing"),
    ] {
        assert_eq!(unauthenticated(open(&with_key, body.as_bytes())), cause, "{body}");
    }
    let plain = credentials(&[("tok-1", None)]);
    assert_eq!(unauthenticated(open(&plain, b"{}")), "the token is wrong or missing");
    assert_eq!(
        unauthenticated(open(&plain, sealed("k", CARD).as_bytes())),
        "an encrypted body, but no key is configured"
    );
}

#[test]
fn a_fault_says_which_member_and_what_was_expected() {
    let plain = credentials(&[("tok-1", None)]);
    for (member, fault) in [
        (r#""user_id":{}"#, "user_id is not a text or a whole number"),
        (r#""reason":5"#, "reason is not a text"),
        (r#""attachments":{}"#, "attachments is not a list"),
        (r#""attachments":[1]"#, "an attachment is not an object"),
        (
            r#""attachments":[{"file_size":-1}]"#,
            "attachments[].file_size is not a whole number of 64 bits, or its digits in a text",
        ),
        (r#""x":1e999"#, "a number is out of range"),
    ] {
        let error = open(&plain, format!(r#"{{"token":"tok-1",{member}}}"#).as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), fault);
    }
}

#[test]
fn of_several_credentials_with_the_same_token_the_first_counts() {
    let same = credentials(&[("t", Some("k-1")), ("t", Some("k-1")), ("t", Some("k-3"))]);
    assert_eq!(open(&same, sealed("k-1", r#"{"token":"t"}"#).as_bytes()).unwrap().credential, 0);
    assert_eq!(open(&same, sealed("k-3", r#"{"token":"t"}"#).as_bytes()).unwrap().credential, 2);
    let plain = credentials(&[("s", None), ("t", None), ("t", None)]);
    assert_eq!(open(&plain, br#"{"token":"t"}"#).unwrap().credential, 1);
}

/// No configuration has the empty token; if one had, an absent token would still not be it.
#[test]
fn an_absent_token_is_not_the_empty_token() {
    let empty = credentials(&[("", None)]);
    for body in ["{}", r#"{"token":null}"#, r#"{"token":""}"#] {
        unauthenticated(open(&empty, body.as_bytes()));
    }
}

#[test]
fn an_action_type_has_the_length_of_an_identifier_and_other_texts_have_any() {
    let plain = credentials(&[("tok-1", None)]);
    let with = |name: &str, length: usize| {
        open(&plain, format!(r#"{{"token":"tok-1","{name}":"{}"}}"#, "x".repeat(length)).as_bytes())
    };
    assert_eq!(with("action_type", 512).unwrap().action_type.map(|text| text.len()), Some(512));
    assert!(with("action_type", 513).is_err());
    assert!(with("reason", 20_000).is_ok() && with("action_context", 20_000).is_ok());
}

#[test]
fn token_and_an_empty_encrypt_are_not_among_the_unknown_members() {
    let plain = credentials(&[("tok-1", None)]);
    for encrypt in ["null", "\"\""] {
        let body = format!(r#"{{"token":"tok-1","encrypt":{encrypt},"reason":"r","challenge":"c"}}"#);
        let verified = open(&plain, body.as_bytes()).unwrap();
        let names: Vec<&str> = verified.extra.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, verified.reason.as_deref()), (vec!["challenge"], Some("r")));
    }
    // Inside a cipher it means nothing, and is passed on as what nobody knows.
    let with_key = credentials(&[("tok-1", Some("k"))]);
    let verified = open(&with_key, sealed("k", r#"{"token":"tok-1","encrypt":"x"}"#).as_bytes()).unwrap();
    assert_eq!(verified.extra[0].0, "encrypt");
}

#[test]
fn every_member_of_an_attachment_arrives() {
    let plain = credentials(&[("tok-1", None)]);
    let body =
        r#"{"token":"tok-1","attachments":[{"file_type":"IMAGE","file_name":"n","file_size":7,"url":"u"}]}"#;
    let [file] = &open(&plain, body.as_bytes()).unwrap().attachments[..] else { panic!("one") };
    assert_eq!(
        (file.file_type.as_deref(), file.file_name.as_deref(), file.file_size, file.url.as_deref()),
        (Some("IMAGE"), Some("n"), Some(7), Some("u"))
    );
    assert!(file.extra.is_empty());
    let none = open(&plain, br#"{"token":"tok-1","attachments":null}"#).unwrap();
    assert!(none.attachments.is_empty());
}

/// What is registered and what a context carries is held to the limits of a callback, as if it stood in one.
#[test]
fn a_value_alone_is_held_to_the_limits_of_one_in_a_callback() {
    let value = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
    let nested = |depth: usize| value(&format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
    assert!(check(&nested(7)).is_ok());
    assert!(check(&nested(8)).is_err());
    assert!(check(&value(r#"{"a":1,"a":1}"#)).is_err());
    assert!(check(&value(r#""\ud800""#)).is_err());
}
