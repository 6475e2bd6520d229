//! What the members of a body may be.

use super::*;

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
        r#""attachments":{"a":1}"#,
        r#""attachments":"[]""#,
        r#""attachments":[1]"#,
        r#""attachments":[{"file_size":"x"}]"#,
        r#""user_id":"a","user_id":"a""#,
        r#""extra":{"a":1,"a":2}"#,
    ] {
        assert!(matches!(with(member), Err(OpenError::Malformed { .. })), "{member}");
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
fn a_fault_says_which_member_and_what_was_expected() {
    let plain = credentials(&[("tok-1", None)]);
    for (member, fault) in [
        (r#""user_id":{"a":1}"#, "user_id is not a string or an integer"),
        (r#""reason":5"#, "reason is not a text"),
        (r#""attachments":{"a":1}"#, "attachments is not a list"),
        (r#""user_id":"a\u0000""#, "user_id holds a control character"),
        (r#""attachments":[1]"#, "an attachment is not an object"),
        (
            r#""attachments":[{"file_size":-1}]"#,
            "attachments[].file_size is not a 64-bit integer, or its digits as a string",
        ),
        (r#""x":1e999"#, "a number is out of range"),
    ] {
        let error = open(&plain, format!(r#"{{"token":"tok-1",{member}}}"#).as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), fault);
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
    // Inside the ciphertext it has no meaning and is passed on as an unknown member.
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
    for none in ["null", "\"\"", "{}", "[]", "0", "false"] {
        let body = format!(r#"{{"token":"tok-1","attachments":{none}}}"#);
        assert!(open(&plain, body.as_bytes()).unwrap().attachments.is_empty(), "{none}");
    }
    // PHP encodes an empty object as a list.
    let empty = open(&plain, br#"{"token":"tok-1","attachments":[[],{"file_size":0,"url":""}]}"#).unwrap();
    assert_eq!(empty.attachments.len(), 2);
    assert!(empty.attachments.iter().all(|file| file.file_size.is_none() && file.url.is_none()));
}

/// Registered values and contexts must keep the limits of a callback, as if they were part of one.
#[test]
fn a_value_alone_is_held_to_the_limits_of_one_in_a_callback() {
    let value = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
    let nested = |depth: usize| value(&format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
    assert!(check(&nested(7)).is_ok());
    assert!(check(&nested(8)).is_err());
    assert!(check(&value(r#"{"a":1,"a":1}"#)).is_err());
    assert!(check(&value(r#""\ud800""#)).is_err());
}

/// Client libraries fill in unset members; none of these values decides anything.
#[test]
fn what_is_unset_is_absent_in_every_member() {
    let plain = credentials(&[("tok-1", None)]);
    for unset in ["null", "\"\"", "0", "false", "[]", "{}", "[ ]"] {
        let members: Vec<_> = [
            "action_type",
            "action_context",
            "user_id",
            "approval_code",
            "instance_id",
            "task_id",
            "message_id",
            "id",
            "reason",
            "attachments",
            "encrypt",
        ]
        .map(|name| format!("\"{name}\":{unset}"))
        .into();
        let body = format!("{{\"token\":\"tok-1\",{}}}", members.join(","));
        let verified = open(&plain, body.as_bytes()).unwrap();
        assert_eq!(Said::from(&verified), Said::default(), "{unset}");
        assert_eq!((verified.reason, verified.attachments.len()), (None, 0), "{unset}");
        assert!(verified.extra.is_empty(), "{unset}");
        let token = format!("{{\"token\":{unset}}}");
        assert_eq!(unauthenticated(open(&plain, token.as_bytes())), Cause::TokenMissing, "{unset}");
    }
}

#[test]
fn free_text_is_taken_and_identifiers_are_exact() {
    let plain = credentials(&[("tok-1", None)]);
    let with = |member: &str| open(&plain, format!(r#"{{"token":"tok-1",{member}}}"#).as_bytes());
    let verified = with(
        r#""reason":"好\ud83d\u0000\u001b[1m","attachments":[{"file_name":"a\udc00\n"}],"new\ud83d":{"x":["\ud83d"]}"#,
    )
    .unwrap();
    assert_eq!(verified.reason.as_deref(), Some("好\u{fffd}\0\u{1b}[1m"));
    assert_eq!(verified.attachments[0].file_name.as_deref(), Some("a\u{fffd}\n"));
    assert_eq!((&*verified.extra[0].0, verified.extra[0].1.get()), ("new\u{fffd}", r#"{"x":["\ufffd"]}"#));
    for name in ["action_type", "action_context", "user_id", "approval_code", "instance_id", "task_id", "id"]
    {
        let member = format!(r#""{name}":"a\ud83d""#);
        assert!(matches!(with(&member), Err(OpenError::Malformed { .. })), "{name}");
        let control = with(&format!(r#""{name}":"a\u0000""#));
        assert_eq!(control.is_ok(), name == "action_context", "{name}: a context is verbatim");
    }
    assert_eq!(
        with(r#""action_context":"PO-77\nn2\r\n\t\u0000""#).unwrap().action_context.as_deref(),
        Some("PO-77\nn2\r\n\t\0")
    );
    assert_eq!(with("\"user_id\":\" \\t \"").unwrap_err().to_string(), "user_id holds a control character");
    assert_eq!(with("\"user_id\":\"   \"").unwrap().user_id, None);
    unauthenticated(open(&plain, br#"{"token":"tok-1\ud83d"}"#));
}
