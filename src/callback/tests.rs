mod agreement;
mod members;

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
    cipher::envelope(&Key::derive(&Secret::new(key)), [7; 16], plain.as_bytes())
}

fn unauthenticated(result: Result<Verified, OpenError>) -> Cause {
    match result {
        Err(OpenError::Unauthenticated { cause, .. }) => cause,
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
    assert_eq!(unauthenticated(open(&Credentials::decoy(), CARD.as_bytes())), Cause::NotEncrypted);
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
    assert_eq!(unauthenticated(open(&with_key, body.as_bytes())), Cause::Padding);
}

#[test]
fn a_plain_body_that_is_no_object_is_a_strangers_wherever_it_is_sent() {
    let plain = credentials(&[("tok-1", None)]);
    for body in ["", "[]", "{\"token\":\"tok-1\"", "x", "\"tok-1\""] {
        unauthenticated(open(&plain, body.as_bytes()));
    }
    assert!(open(&plain, "\u{feff}{\"token\":\"tok-1\"}\n".as_bytes()).is_ok());
}

#[test]
fn nothing_secret_shows_in_debug() {
    let shown = format!("{:?}", credentials(&[("fake-token-1", Some("fake-key-1"))]));
    let hash = <[u8; 32]>::from(Sha256::digest("fake-token-1"));
    let hash = format!("{hash:?}");
    assert!(!shown.contains("fake") && !shown.contains(&hash[1..8]), "{shown}");
    // The output must show that a value exists; otherwise an operator would think it is not configured.
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
        (r#""message_id":0,"instance_id":"i","task_id":"t""#, Some(Origin::List)),
        (r#""message_id":"0","id":"x""#, Some(Origin::Search)),
        (r#""message_id":5,"instance_id":0,"id":0"#, Some(Origin::Card)),
        (r#""message_id":null,"instance_id":"","id":"""#, None),
        (r#""message_id":0,"instance_id":"  ","task_id":false,"id":[]"#, None),
    ] {
        let verified = open(&plain, format!(r#"{{"token":"tok-1",{members}}}"#).as_bytes()).unwrap();
        assert_eq!(verified.origin(), origin, "{members}");
    }
}

/// The causes are only for the operator's log, but they must be right.
#[test]
fn the_log_is_told_the_cause() {
    let with_key = credentials(&[("tok-1", Some("k")), ("tok-2", Some("k-2"))]);
    let with_padding = |plain: &str, padding: &[u8]| {
        // Encrypts a text that already has its padding, with the platform's own encryption, then cuts off the last
        // block.
        let padded = [plain.as_bytes(), padding].concat();
        assert_eq!(padded.len() % 16, 0);
        let text = cipher::encrypt(&Key::derive(&Secret::new("k")), [7; 16], &padded);
        use base64::Engine;
        let mut bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        bytes.truncate(bytes.len() - 16);
        format!(r#"{{"encrypt":"{}"}}"#, base64::engine::general_purpose::STANDARD.encode(bytes))
    };
    let bytes_inside = |plain: &[u8]| cipher::envelope(&Key::derive(&Secret::new("k")), [7; 16], plain);
    let challenge = r#"{"challenge":"c","token":"tok-1","type":"url_verification"}"#;
    let card = r#"{"schema":"2.0","header":{"event_type":"card.action.trigger","token":"tok-1"},"event":{}}"#;
    let event = r#"{"uuid":"u","token":"x","type":"event_callback","event":{"type":"approval_task"}}"#;
    for (body, cause) in [
        (String::new(), Cause::Empty),
        ("hello".to_owned(), Cause::NotJson),
        ("encrypt=AAAA".to_owned(), Cause::NotJson),
        (r#"{"encrypt":7}"#.to_owned(), Cause::EncryptNotText),
        (r#"{"encrypt":["AAAA"]}"#.to_owned(), Cause::EncryptNotText),
        (r#"{"encrypt":"AAAA","encrypt":"AAAA"}"#.to_owned(), Cause::EncryptTwice),
        (r#"{"encrypt":"AAAA","\u0065ncrypt":null}"#.to_owned(), Cause::EncryptTwice),
        (r#"{"encrypt":""}"#.to_owned(), Cause::NotEncrypted),
        (CARD.to_owned(), Cause::NotEncrypted),
        (challenge.to_owned(), Cause::Foreign(Foreign::UrlVerification)),
        (card.to_owned(), Cause::Foreign(Foreign::CardAction)),
        (event.to_owned(), Cause::Foreign(Foreign::Event)),
        (r#"{"encrypt":"=sfasdfasfsdafasfaf="}"#.to_owned(), Cause::NotBase64),
        (r#"{"encrypt":"AA AA"}"#.to_owned(), Cause::NotBase64),
        (r#"{"encrypt":"____________________-w=="}"#.to_owned(), Cause::NotBase64),
        (r#"{"encrypt":"AAAA"}"#.to_owned(), Cause::Length),
        (sealed("other", CARD), Cause::Key),
        (with_padding(r#"{"token":"tok-1"}"#, &[15; 15]), Cause::TokenMissing),
        (with_padding(r#"{"token":"tok-1"}"#, &[31; 31]), Cause::Padding),
        (with_padding(r#"{"token":"tok-1"}"#, &[0; 15]), Cause::Padding),
        (bytes_inside(b"{\"token\":\"\xd0\xc5\"}"), Cause::NotUtf8Inside),
        (
            bytes_inside(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xab, 0xae, 5, 0, 0x43, 0xbf]),
            Cause::GzipInside,
        ),
        (sealed("k", "hello"), Cause::NotJsonInside),
        (sealed("k", r#""{\"token\":\"tok-1\"}""#), Cause::NotJsonInside),
        (sealed("k", "{\"token\":\"tok-1\"}\0\0"), Cause::NotJsonInside),
        (sealed("k", r#"{"token":"tok-2"}"#), Cause::TokenOfAnother),
        (sealed("k", r#"{"token":"tok-3"}"#), Cause::TokenWrongInside),
        (sealed("k", "{}"), Cause::TokenMissingInside),
        (sealed("k-2", r#"{"token":null}"#), Cause::TokenMissingInside),
        (sealed("k", challenge), Cause::Foreign(Foreign::UrlVerification)),
        (sealed("k", event), Cause::Foreign(Foreign::Event)),
    ] {
        if cause == Cause::TokenMissing {
            // Check the construction itself: with valid padding it opens.
            assert!(open(&with_key, body.as_bytes()).is_ok());
            continue;
        }
        let told = open(&with_key, body.as_bytes());
        if body == sealed("k", challenge) {
            // A correct token does not prove that it is a callback.
            assert_eq!(told.unwrap().foreign(), Some(Foreign::UrlVerification));
            continue;
        }
        assert_eq!(unauthenticated(told), cause, "{body}");
    }
    assert_eq!(unauthenticated(open(&with_key, b"\xff\xfe{\0")), Cause::NotUtf8);
    assert_eq!(unauthenticated(open(&with_key, &[0x1f, 0x8b, 8, 0])), Cause::Gzip);
    let plain = credentials(&[("tok-1", None)]);
    for (body, cause) in [
        ("{}".to_owned(), Cause::TokenMissing),
        (r#"{"token":"tok-2"}"#.to_owned(), Cause::TokenWrong),
        (card.to_owned(), Cause::Foreign(Foreign::CardAction)),
        (sealed("k", CARD), Cause::Encrypted),
        ("[]".to_owned(), Cause::NotJson),
    ] {
        assert_eq!(unauthenticated(open(&plain, body.as_bytes())), cause, "{body}");
    }
}

/// If the log says that a text is not UTF-8, an operator looks at encodings and not at the wrong key.
#[test]
fn a_wrong_key_is_told_as_one_even_where_its_padding_comes_out_right_by_chance() {
    let four: Vec<(String, String)> = (0..4).map(|n| (format!("tok-{n}"), format!("k-{n}"))).collect();
    let four: Vec<(&str, Option<&str>)> = four.iter().map(|(token, key)| (&**token, Some(&**key))).collect();
    let four = credentials(&four);
    let mut by_chance = 0;
    for n in 0..2000 {
        let body = sealed(&format!("wrong-{n}"), CARD);
        let outer = Members::parse(body.as_bytes()).unwrap();
        let text = wire::text("encrypt", outer.get("encrypt").unwrap()).unwrap().unwrap();
        let keys = four.list.iter().filter_map(|one| one.key.as_ref());
        let opened = unseal_with(keys, &Sealed::decode(&text));
        by_chance += opened.iter().filter(|one| bool::from(one.sound)).count();
        assert_eq!(unauthenticated(open(&four, body.as_bytes())), Cause::Key, "{n}");
    }
    assert!(by_chance > 10, "{by_chance} of 8000: a padding of one byte is right once in 256");
}

#[test]
fn line_breaks_in_base64_do_not_count_and_nothing_else_is_skipped() {
    let with_key = credentials(&[("tok-1", Some("k"))]);
    let text = cipher::encrypt(&Key::derive(&Secret::new("k")), [7; 16], CARD.as_bytes());
    let lines = |breaks: &str| {
        text.as_bytes()
            .chunks(76)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect::<Vec<_>>()
            .join(breaks)
    };
    let body = |text: &str| format!("{{\"encrypt\":{}}}", serde_json::to_string(text).unwrap());
    for sound in [lines("\r\n"), lines("\n"), lines("\r"), format!("{text}\n"), format!("\r\n{text}\r\n\r\n")]
    {
        assert!(open(&with_key, body(&sound).as_bytes()).is_ok(), "{sound:?}");
    }
    for bad in
        [lines(" "), lines("\t"), lines("\u{85}"), format!("{text} "), format!(" {text}"), lines("\\n")]
    {
        assert_eq!(unauthenticated(open(&with_key, body(&bad).as_bytes())), Cause::NotBase64, "{bad:?}");
    }
}

#[test]
fn what_a_key_opened_is_on_record_though_nobody_is_authenticated() {
    let with_key = credentials(&[("tok-1", Some("k"))]);
    let body = r#"{"action_type":"APPROVE","action_context":"ctx\ud83d","user_id":"zh\u0000","approval_code":7,
        "instance_id":"i","task_id":[1],"message_id":"71","id":"","token":"other"}"#;
    let said = |result: Result<Verified, OpenError>| match result.unwrap_err() {
        OpenError::Unauthenticated { said, .. } => said.map(|said| *said),
        OpenError::Malformed { said, .. } => Some(*said),
    };
    let text = |text: &str| Some(text.to_owned());
    let expected = Said {
        action_type: text("APPROVE"),
        action_context: text("ctx\u{fffd}"),
        user_id: text("zh\u{fffd}"),
        approval_code: text("7"),
        instance_id: text("i"),
        task_id: None,
        id: None,
        message_id: text("71"),
    };
    assert_eq!(said(open(&with_key, sealed("k", body).as_bytes())), Some(expected.clone()));
    assert_eq!(said(open(&with_key, sealed("k-2", body).as_bytes())), None);
    assert_eq!(said(open(&credentials(&[("tok-1", None)]), body.as_bytes())), None, "no key, and no token");
    let malformed = said(open(&credentials(&[("other", None)]), body.as_bytes()));
    assert_eq!(malformed, Some(expected), "the sender is known, and the body is not read");
}

/// A stranger's body causes the work of four credentials at every endpoint, known or not.
#[test]
fn a_refusal_takes_the_same_work_whatever_the_endpoint_has() {
    let endpoints = [
        ("unknown", Credentials::decoy()),
        ("plain", credentials(&[("t-1", None)])),
        ("plain in rotation", credentials(&[("t-1", None), ("t-2", None)])),
        ("one", credentials(&[("t-1", Some("k-1"))])),
        ("two", credentials(&[("t-1", Some("k-1")), ("t-2", Some("k-2"))])),
        ("four", credentials(&[("1", Some("1")), ("2", Some("2")), ("3", Some("3")), ("4", Some("4"))])),
    ];
    let large = format!(r#"{{"encrypt":"{}"}}"#, "AAAA".repeat(4000));
    let bodies = [
        large,
        sealed("other", CARD),
        CARD.to_owned(),
        "{}".to_owned(),
        "?".to_owned(),
        r#"{"encrypt":7}"#.to_owned(),
    ];
    for body in bodies {
        for (name, credentials) in &endpoints {
            cipher::work::take();
            unauthenticated(open(credentials, body.as_bytes()));
            let (trials, bytes) = cipher::work::take();
            assert_eq!(trials, MAX_CREDENTIALS, "{name}: {body:.40}");
            let blocks = if body.contains("AAAA") { 12_000 / 16 * 16 - 16 } else { bytes / trials };
            assert_eq!(bytes, MAX_CREDENTIALS * blocks, "{name}: {body:.40}");
        }
    }
    // A known sender does not pay for the others.
    cipher::work::take();
    open(&endpoints[3].1, sealed("k-1", r#"{"token":"t-1"}"#).as_bytes()).unwrap();
    assert_eq!(cipher::work::take().0, 1);
    open(&endpoints[1].1, br#"{"token":"t-1"}"#).unwrap();
    assert_eq!(cipher::work::take().0, 0);
}

#[test]
fn of_several_credentials_with_the_same_token_the_first_counts() {
    let same = credentials(&[("t", Some("k-1")), ("t", Some("k-1")), ("t", Some("k-3"))]);
    assert_eq!(open(&same, sealed("k-1", r#"{"token":"t"}"#).as_bytes()).unwrap().credential, 0);
    assert_eq!(open(&same, sealed("k-3", r#"{"token":"t"}"#).as_bytes()).unwrap().credential, 2);
    let plain = credentials(&[("s", None), ("t", None), ("t", None)]);
    assert_eq!(open(&plain, br#"{"token":"t"}"#).unwrap().credential, 1);
}

/// No configuration has an empty token. Even if one had, an absent token would not match it.
#[test]
fn an_absent_token_is_not_the_empty_token() {
    let empty = credentials(&[("", None)]);
    for body in ["{}", r#"{"token":null}"#, r#"{"token":""}"#] {
        unauthenticated(open(&empty, body.as_bytes()));
    }
}
