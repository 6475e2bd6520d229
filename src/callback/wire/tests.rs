use super::*;

fn check(text: &str) -> Result<(), Fault> {
    Members::parse(text.as_bytes()).expect("an object").check()
}

fn raw(text: &str) -> &RawValue {
    serde_json::from_str(text).unwrap()
}

#[test]
fn numbers_keep_all_64_bits() {
    for (literal, expected) in [
        ("7690275278685244603", Some(7_690_275_278_685_244_603)),
        ("\"7690275278685244603\"", Some(7_690_275_278_685_244_603)),
        ("18446744073709551615", Some(u64::MAX)),
        ("9007199254740993", Some(9_007_199_254_740_993)),
        ("1", Some(1)),
        ("0", None),
        ("\"0\"", None),
        ("\"000\"", None),
        ("null", None),
        ("false", None),
        ("\"\"", None),
        ("[]", None),
        ("{ }", None),
    ] {
        assert_eq!(number("message_id", raw(literal)), Ok(expected), "{literal}");
    }
    for literal in
        ["18446744073709551616", "-1", "1.0", "1e3", "\"x\"", "\"+1\"", "\" 1\"", "true", "[1]", "-0", "0.0"]
    {
        assert!(number("message_id", raw(literal)).is_err(), "{literal}");
    }
}

#[test]
fn ids_are_texts_or_the_digits_of_whole_numbers() {
    for (literal, expected) in [
        ("\"zhang3\"", Some("zhang3")),
        ("18500000001", Some("18500000001")),
        ("-5", Some("-5")),
        ("123456789012345678901234567890", Some("123456789012345678901234567890")),
        ("\"0\"", Some("0")),
        ("null", None),
        ("0", None),
        ("false", None),
        ("[ ]", None),
        ("{}", None),
        ("\"\"", None),
        ("\"  \"", None),
        ("\"\u{3000}\"", None),
        (r#""\u6587""#, Some("文")),
    ] {
        assert_eq!(id("user_id", raw(literal)).unwrap().as_deref(), expected, "{literal}");
    }
    for literal in [
        "1.5",
        "1e3",
        "true",
        "[\"a\"]",
        "{\"a\":1}",
        r#""\ud800""#,
        r#""a\u0000""#,
        r#""a\n""#,
        "\"a\u{7f}\"",
        "\"a\u{85}\"",
    ] {
        assert!(id("user_id", raw(literal)).is_err(), "{literal}");
    }
    assert!(id("user_id", raw(&format!("\"{}\"", "x".repeat(512)))).is_ok());
    assert!(id("user_id", raw(&format!("\"{}\"", "x".repeat(513)))).is_err());
}

#[test]
fn half_a_surrogate_pair_is_repaired_and_nothing_else_is_touched() {
    for (json, whole) in [
        (r#""\ud83d""#, "\u{fffd}"),
        (r#""a\ud83d""#, "a\u{fffd}"),
        (r#""\ud83d\ude00""#, "😀"),
        (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
        (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
        (r#""\ud83dx\ude00""#, "\u{fffd}x\u{fffd}"),
        (r#""\\ud83d""#, r"\ud83d"),
        (r#""\\\ud83d\\""#, "\\\u{fffd}\\"),
        (r#""\uD83D\n\u0000""#, "\u{fffd}\n\0"),
    ] {
        assert_eq!(free_text("reason", raw(json)).unwrap().as_deref(), Some(whole), "{json}");
    }
    let nested = raw(r#"{"a\ud83d":["\udc00",1.50],"b":"\\ud83d"}"#);
    assert_eq!(repaired(nested).get(), r#"{"a\ufffd":["\ufffd",1.50],"b":"\\ud83d"}"#);
    // The content of a context is not free text.
    assert!(check_value(nested, 1, Texts::Exact).is_err());
    assert!(check_value(nested, 1, Texts::Free).is_ok());
    assert!(check_value(raw(r#"{"a\ud83d":1}"#), 1, Texts::Exact).is_err());
    assert!(check_value(raw(r#"["\ud83d"]"#), 1, Texts::Exact).is_err());
    assert!(check_value(raw(r#"{"😀":"\ud83d\ude00"}"#), 1, Texts::Exact).is_ok());
}

#[test]
fn a_name_with_half_a_pair_is_a_name() {
    let members = Members::parse(br#"{"x\ud83d":1,"\u0061":2}"#).unwrap();
    assert_eq!(members.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["x\u{fffd}", "a"]);
    assert!(Members::parse(b"{\"a\nb\":1}").is_err(), "a line break by itself is no JSON");
    assert!(check(r#"{"x\ud83d":1,"x\ud83e":2}"#).is_err(), "both are the same then");
}

#[test]
fn a_glimpse_shows_what_is_wrong_without_its_sting() {
    for (json, seen) in [
        (r#""zh\u001b[31m\u0000\ud83d""#, Some("zh\u{fffd}[31m\u{fffd}\u{fffd}")),
        ("1.5", Some("1.5")),
        ("[1]", None),
        ("0", None),
    ] {
        assert_eq!(glimpse(raw(json)).as_deref(), seen, "{json}");
    }
    let long = format!("\"{}\"", "文".repeat(400));
    assert_eq!(glimpse(raw(&long)).map(|seen| seen.len()), Some(510));
}

#[test]
fn only_an_object_is_a_body() {
    for text in
        ["", "[]", "1", "\"x\"", "null", "{", "{}{}", "{} x", "{\"a\":1,}", "{'a':1}", "\u{feff}\u{feff}{}"]
    {
        assert!(Members::parse(text.as_bytes()).is_err(), "{text}");
    }
    assert_eq!(Members::parse(b"{\"a\":\"\xff\"}").unwrap_err(), Unreadable::NotUtf8);
    for text in ["{}", " {} \r\n", "\u{feff}{}\n"] {
        assert!(Members::parse(text.as_bytes()).is_ok(), "{text}");
    }
}

#[test]
fn names_are_unique_at_every_depth_however_they_are_written() {
    assert!(check(r#"{"a":1,"b":{"a":1}}"#).is_ok());
    for text in
        [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":1}"#, r#"{"x":{"a":1,"a":2}}"#, r#"{"x":[[{"a":1,"a":2}]]}"#]
    {
        assert!(check(text).is_err(), "{text}");
    }
}

#[test]
fn a_number_that_no_double_holds_is_refused_at_every_depth() {
    for text in ["1e999999", "-1e309", "[[1e309]]", r#"{"a":1e400}"#, &"9".repeat(310)] {
        assert!(check(&format!(r#"{{"x":{text}}}"#)).is_err(), "{text}");
    }
    for text in ["1e308", "-1.7976931348623157e308", "1e-999999", "-0.0e-0", &"9".repeat(308)] {
        assert!(check(&format!(r#"{{"x":{text}}}"#)).is_ok(), "{text}");
    }
}

#[test]
fn depth_and_width_are_limited() {
    let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    assert!(check(&nested(8)).is_ok());
    assert!(check(&nested(9)).is_err());
    let lists = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(check(&lists(7)).is_ok());
    assert!(check(&lists(8)).is_err());
    assert!(check(&lists(20_000)).is_err());
    let wide = |count: usize| {
        let members: Vec<_> = (0..count).map(|n| format!("\"m{n}\":0")).collect();
        format!("{{{}}}", members.join(","))
    };
    assert!(check(&wide(64)).is_ok());
    assert!(check(&wide(65)).is_err());
}
