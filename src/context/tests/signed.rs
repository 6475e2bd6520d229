//! Signed contexts.

use super::*;

fn key(kid: Option<&str>, secret: &str) -> KeySettings {
    KeySettings::Hs256 { kid: kid.map(str::to_owned), secret: Secret::new(secret) }
}

/// Requires only a valid signature.
fn lenient() -> Demands {
    Demands { leeway_seconds: 30, require: Vec::new(), ..Demands::default() }
}

fn jwt(keys: &[KeySettings], on_unresolved: OnUnresolved) -> Settings {
    settings(vec![Format::Jwt(Keys::new(keys, lenient()).unwrap()), Format::Opaque], on_unresolved)
}

fn token(kid: Option<&str>, secret: &str, claims: &str) -> String {
    let claims: Box<RawValue> = serde_json::from_str(claims).unwrap();
    sign(&SigningKey::Hs256(Secret::new(secret)), kid, &claims).unwrap()
}

#[test]
fn a_signed_context_names_its_task() {
    let jwt = jwt(&[key(None, SECRET)], OnUnresolved::Publish);
    let claims = r#"{"instance_id":"people_1234","task_id":7690275278685244603,"round":2,"data":{"a":1.50}}"#;
    let task = solve(&jwt, &with_context(&token(None, SECRET, claims), "")).unwrap();
    assert_eq!(task.instance_id.as_deref(), Some("people_1234"));
    assert_eq!(task.task_id.as_deref(), Some("7690275278685244603"));
    assert_eq!((task.round.as_deref(), task.resolved_by), (Some("2"), Some(ResolvedBy::Jwt)));
    assert_eq!(task.data.unwrap().get(), r#"{"a":1.50}"#);
    let task =
        solve(&jwt, &with_context(&token(None, SECRET, r#"{"task_id":"t","jti":"j-1"}"#), "")).unwrap();
    assert_eq!(task.round.as_deref(), Some("j-1"), "a token is for one decision");
}

#[test]
fn a_forged_context_is_refused_and_never_left_to_another_format() {
    let jwt = jwt(&[key(None, SECRET)], OnUnresolved::Publish);
    let refused = |context: &str| solve(&jwt, &with_context(context, "")).unwrap_err();
    let good = token(None, SECRET, r#"{"task_id":"t"}"#);
    let forged = |error| assert!(matches!(error, ContextError::Forged(_)), "{error:?}");
    forged(refused(&token(None, &SECRET.replace("32", "33"), r#"{"task_id":"t"}"#)));
    forged(refused(&format!("{}AA", &good[..good.len() - 2])));
    forged(refused(&format!("{}.", good.rsplit_once('.').unwrap().0)));
    forged(refused(&token(None, SECRET, r#"{"data":1}"#)));
    forged(refused(&token(None, SECRET, r#"{"task_id":{"x":1}}"#)));
    forged(refused(&token(None, SECRET, r#"{"task_id":"t","data":{"x":1,"x":2}}"#)));
    // The most likely causes have their own messages in the operator's log.
    let words = |context: &str| refused(context).to_string();
    assert_eq!(words(&format!("{}AA", &good[..good.len() - 2])), "the token's signature is wrong");
    let other_algorithm = format!("eyJhbGciOiJFZERTQSJ9.{}", good.split_once('.').unwrap().1);
    assert_eq!(words(&other_algorithm), "the token's algorithm is not that of its key");
    // {"alg":"none"} and {"alg":"HS512"}
    for header in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJIUzUxMiJ9"] {
        let rest = good.split_once('.').unwrap().1;
        forged(refused(&format!("{header}.{rest}")));
        forged(refused(&format!("{header}.{}.", rest.split_once('.').unwrap().0)));
    }
    // A text that does not look like a token does not fit, and the next format takes it.
    let task = solve(&jwt, &with_context("PO-77/n2", "")).unwrap();
    assert_eq!(task.resolved_by, Some(ResolvedBy::Opaque));
}

#[test]
fn keys_are_told_apart_by_kid_while_they_are_rotated() {
    let other = "other-other-other-other-other-32";
    let two = jwt(&[key(Some("a"), SECRET), key(Some("b"), other)], OnUnresolved::Publish);
    let claims = r#"{"task_id":"t"}"#;
    for (kid, secret, fits) in [
        (Some("a"), SECRET, true),
        (Some("b"), other, true),
        (Some("a"), other, false),
        (Some("c"), SECRET, false),
        (None, SECRET, false),
    ] {
        let result = solve(&two, &with_context(&token(kid, secret, claims), ""));
        assert_eq!(result.is_ok(), fits, "{kid:?}");
    }
}

/// A single key without a name is tried for any `kid`; a named key only for its own.
#[test]
fn a_single_key_counts_for_tokens_of_its_name_and_without_one_for_all() {
    let claims = r#"{"task_id":"t"}"#;
    for (name, kid, fits) in [
        (None, None, true),
        (None, Some("a"), true),
        (Some("a"), None, true),
        (Some("a"), Some("a"), true),
        (Some("a"), Some("b"), false),
    ] {
        let one = jwt(&[key(name, SECRET)], OnUnresolved::Publish);
        let result = solve(&one, &with_context(&token(kid, SECRET, claims), ""));
        assert_eq!(result.is_ok(), fits, "{name:?} {kid:?}");
    }
}

#[test]
fn a_jti_is_a_round_of_the_length_of_an_identifier_and_null_is_absent() {
    let jwt = jwt(&[key(None, SECRET)], OnUnresolved::Publish);
    let round = |claims: &str| {
        let token = token(None, SECRET, &format!(r#"{{"task_id":"t",{claims}}}"#));
        solve(&jwt, &with_context(&token, "")).map(|task| task.round.map(|round| round.len()))
    };
    let long = |length: usize| round(&format!(r#""jti":"{}""#, "x".repeat(length)));
    assert_eq!((long(511), long(512)), (Ok(Some(511)), Ok(Some(512))));
    assert!(matches!(long(513), Err(ContextError::Forged(_))));
    assert_eq!(round(r#""jti":"""#), Ok(None));
    assert_eq!(round(r#""round":null,"instance_id":null,"jti":"four""#), Ok(Some(4)));
}

#[test]
fn the_first_secret_signs_and_a_public_key_does_not() {
    let public = KeySettings::EdDsa { kid: Some("p".to_owned()), public_key: PUBLIC_PEM.to_owned() };
    assert_eq!(
        (public.kid(), key(Some("a"), SECRET).kid(), key(None, SECRET).kid()),
        (Some("p"), Some("a"), None)
    );
    let keys =
        Keys::new(&[public.clone(), key(Some("a"), SECRET), key(Some("b"), SECRET)], lenient()).unwrap();
    let (kid, signing) = keys.signing_key().unwrap();
    let SigningKey::Hs256(secret) = signing else { panic!("a secret") };
    assert!(kid == Some("a") && secret.equals(SECRET));
    assert!(Keys::new(&[public], lenient()).unwrap().signing_key().is_none());
    let short = sign(&SigningKey::Hs256(Secret::new("short")), None, &Claims::default());
    assert!(matches!(short, Err(SignError::Key(KeyError::ShortSecret))));
    // The output shows which keys exist, but nothing of their content.
    let shown = format!("{keys:?}");
    assert!(shown.contains(r#"Some("a")"#) && shown.contains("EdDSA") && !shown.contains("fake"), "{shown}");
}

#[test]
fn an_identifier_in_a_context_has_limits() {
    let json = settings(vec![json_format()], OnUnresolved::Refuse);
    let fits = |id: &str| solve(&json, &with_context(&format!(r#"{{"t":{id}}}"#), "")).is_ok();
    assert!(fits(&format!("\"{}\"", "x".repeat(512))) && !fits(&format!("\"{}\"", "x".repeat(513))));
    // Null and "" count as absent, so no task is named.
    assert!(!fits("null") && !fits("\"\"") && fits("7") && !fits("7.0") && !fits("7e1"));
    let other = solve(&json, &with_context(r#"{"t":"t","i":null,"r":""}"#, "")).unwrap();
    assert_eq!((other.instance_id, other.round), (None, None));
}

#[test]
fn time_bounds_are_kept_with_leeway() {
    let jwt = jwt(&[key(None, SECRET)], OnUnresolved::Publish);
    let at = now().as_second();
    let with = |claim: &str, offset: i64| {
        let claims = format!(r#"{{"task_id":"t","{claim}":{}}}"#, at + offset);
        solve(&jwt, &with_context(&token(None, SECRET, &claims), "")).map(|_| ())
    };
    assert_eq!(with("exp", 1), Ok(()));
    assert_eq!(with("exp", -29), Ok(()));
    assert_eq!(with("exp", -30), Err(ContextError::Expired));
    assert_eq!(with("nbf", 30), Ok(()));
    assert!(matches!(with("nbf", 31), Err(ContextError::Forged(_))));
}

#[test]
fn times_are_any_finite_number_up_to_the_year_9999() {
    let jwt = jwt(&[key(None, SECRET)], OnUnresolved::Publish);
    let with = |claims: &str| {
        let claims = format!(r#"{{"task_id":"t",{claims}}}"#);
        solve(&jwt, &with_context(&token(None, SECRET, &claims), "")).map(|_| ())
    };
    let at = now().as_second();
    for fine in [
        format!(r#""exp":{at}.5"#),
        format!(r#""exp":{}.999"#, at - 30),
        r#""exp":2e9,"nbf":1.5e9,"iat":1.5E+9"#.to_owned(),
        r#""exp":20000000000e-1"#.to_owned(),
        r#""exp":null,"nbf":null,"iat":null"#.to_owned(),
        r#""nbf":-1,"iat":-1.5"#.to_owned(),
        r#""nbf":-1e300,"iat":0"#.to_owned(),
        r#""exp":253402300799"#.to_owned(),
        // A clock that is ahead, which RFC 7519 does not forbid.
        format!(r#""iat":{}"#, at + 86_400),
    ] {
        assert_eq!(with(&fine), Ok(()), "{fine}");
    }
    for past in [r#""exp":-1"#, r#""exp":0"#, r#""exp":-1e300"#, r#""exp":1.5e9"#, r#""exp":-0.0"#] {
        assert_eq!(with(past), Err(ContextError::Expired), "{past}");
    }
    assert_eq!(with(&format!(r#""exp":{}.0"#, at - 30)), Err(ContextError::Expired));
    let words = |claims: &str| with(claims).unwrap_err().to_string();
    for claim in ["exp", "nbf", "iat"] {
        for millis in [format!("{}", (at - 86_400) * 1000), "1.79e12".to_owned()] {
            assert_eq!(
                words(&format!(r#""{claim}":{millis}"#)),
                format!("the token's {claim} looks like milliseconds, and a JWT counts seconds since 1970")
            );
        }
        for beyond in ["253402300800", "1e30", "1e999", "1790000000000000"] {
            assert_eq!(
                words(&format!(r#""{claim}":{beyond}"#)),
                format!("the token's {claim} lies beyond the year 9999")
            );
        }
        for odd in [r#""1790000000""#, "true", "[1790000000]", "{}", r#""""#] {
            assert_eq!(
                words(&format!(r#""{claim}":{odd}"#)),
                format!("the token's {claim} is not a number of seconds since 1970")
            );
        }
    }
}

#[test]
fn a_token_has_to_have_what_is_asked_for_and_by_default_what_makes_it_safe() {
    let keys = |require: &[Requirement]| {
        let demands = Demands { require: require.to_vec(), ..Demands::default() };
        settings(vec![Format::Jwt(Keys::new(&[key(None, SECRET)], demands).unwrap())], OnUnresolved::Publish)
    };
    let with = |settings: &Settings, claims: &str| {
        let token = token(None, SECRET, &format!(r#"{{"task_id":"t",{claims}}}"#));
        solve(settings, &with_context(&token, r#","user_id":"zhang3""#)).map(|_| ())
    };
    assert_eq!(Demands::default().require, Requirement::SAFE);
    let safe = keys(&Requirement::SAFE);
    for whole in [r#""round":1"#, r#""jti":"a""#, r#""round":null,"jti":"a""#, r#""round":2,"jti":"""#] {
        assert_eq!(with(&safe, &format!(r#""exp":2e9,"operators":["zhang3"],{whole}"#)), Ok(()), "{whole}");
    }
    for (lacking, word) in [
        (r#""operators":["zhang3"],"round":1"#, "exp"),
        (r#""operators":["zhang3"],"round":1,"exp":null"#, "exp"),
        (r#""operators":["zhang3"],"exp":2e9"#, "round"),
        (r#""operators":["zhang3"],"exp":2e9,"round":null,"jti":"""#, "round"),
        (r#""exp":2e9,"round":1"#, "operators"),
        (r#""exp":2e9,"round":1,"operators":null"#, "operators"),
    ] {
        let refused = with(&safe, lacking).unwrap_err();
        assert!(matches!(refused, ContextError::Forged(text) if text.contains(word)), "{lacking}: {refused}");
    }
    assert_eq!(with(&keys(&[]), r#""data":{}"#), Ok(()));
    for one in Requirement::ALL.iter().copied().filter(|one| *one != Requirement::TaskId) {
        let refused = with(&keys(&[one]), r#""data":{}"#).unwrap_err();
        assert!(matches!(refused, ContextError::Forged(_)), "{one:?}");
        let whole = r#""exp":2e9,"round":1,"operators":["zhang3"],"actions":["APPROVE"],"endpoint":"purchase","approval_code":"C","instance_id":"i""#;
        let rest = r#","user_id":"zhang3","action_type":"APPROVE""#;
        let token = token(None, SECRET, &format!(r#"{{"task_id":"t",{whole}}}"#));
        assert!(solve(&keys(&[one]), &with_context(&token, rest)).is_ok(), "{one:?}");
    }
}

#[test]
fn issuer_audience_and_type_are_looked_at_where_they_are_configured() {
    let demands = Demands {
        require: Vec::new(),
        aud: vec!["countersign".to_owned(), "purchase".to_owned()],
        iss: vec!["oa".to_owned()],
        typ: Some("JWT".to_owned()),
        ..Demands::default()
    };
    let strict =
        settings(vec![Format::Jwt(Keys::new(&[key(None, SECRET)], demands).unwrap())], OnUnresolved::Publish);
    let jwt = jwt(&[key(None, SECRET)], OnUnresolved::Publish);
    let with = |settings: &Settings, token: &str| solve(settings, &with_context(token, "")).map(|_| ());
    let of = |claims: &str| token(None, SECRET, &format!(r#"{{"task_id":"t",{claims}}}"#));
    for fine in [r#""iss":"oa","aud":"countersign""#, r#""iss":"oa","aud":["other","purchase"]"#] {
        assert_eq!(with(&strict, &of(fine)), Ok(()), "{fine}");
    }
    for foreign in [
        r#""iss":"oa""#,
        r#""iss":"oa","aud":"other""#,
        r#""iss":"oa","aud":[]"#,
        r#""iss":"OA","aud":"countersign""#,
        r#""aud":"countersign""#,
    ] {
        assert!(matches!(with(&strict, &of(foreign)), Err(ContextError::Forged(_))), "{foreign}");
        assert_eq!(with(&jwt, &of(foreign)), Ok(()), "not configured: {foreign}");
    }
    let typed = |typ: &str| {
        signed_by_hand(
            &format!(r#"{{"alg":"HS256"{typ}}}"#),
            r#"{"task_id":"t","iss":"oa","aud":"purchase"}"#,
        )
    };
    for (typ, fits) in [
        (r#","typ":"jwt""#, true),
        (r#","typ":"application/JWT""#, true),
        (r#","typ":"at+jwt""#, false),
        ("", false),
    ] {
        assert_eq!(with(&strict, &typed(typ)).is_ok(), fits, "{typ}");
        assert_eq!(with(&jwt, &typed(typ)), Ok(()), "not configured: {typ}");
    }
}

/// Signs with HS256 and [`SECRET`], whatever the header is.
fn signed_by_hand(header: &str, claims: &str) -> String {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
    let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{message}.{}", BASE64.encode(ring::hmac::sign(&key, message.as_bytes())))
}

#[test]
fn extensions_that_must_be_understood_are_not() {
    let jwt = jwt(&[key(None, SECRET)], OnUnresolved::Publish);
    let with = |more: &str| {
        let token = signed_by_hand(&format!(r#"{{"alg":"HS256"{more}}}"#), r#"{"task_id":"t"}"#);
        solve(&jwt, &with_context(&token, "")).map(|_| ())
    };
    assert_eq!(with(""), Ok(()));
    assert_eq!(with(r#","cty":"x","other":1"#), Ok(()), "what nobody calls critical is ignored");
    for crit in
        [r#","crit":["exp"],"exp":1"#, r#","crit":["b64"],"b64":true"#, r#","crit":[]"#, r#","crit":"b64""#]
    {
        assert!(matches!(with(crit), Err(ContextError::Forged(_))), "{crit}");
    }
}

#[test]
fn a_token_behind_what_does_not_show_is_refused_as_one() {
    let jwt = jwt(&[key(None, SECRET)], OnUnresolved::Publish);
    let with = |context: &str| solve(&jwt, &with_context(context, ""));
    let good = token(None, SECRET, r#"{"task_id":"t"}"#);
    assert_eq!(with(&good).unwrap().resolved_by, Some(ResolvedBy::Jwt));
    for round in
        ["\u{feff}", " ", "\n", "\t", "\r\n", "\u{a0}", "\u{3000}", "\u{200b}", "\u{2060}", "\"", "'"]
    {
        for hidden in
            [format!("{round}{good}"), format!("{good}{round}"), format!("{round}{round}{good}{round}")]
        {
            assert!(matches!(with(&hidden), Err(ContextError::Forged(_))), "{hidden:?}");
        }
    }
    // A header with blanks: no library writes it, but all parse it.
    let unsigned = |header: &str| {
        use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
        format!("{}.{}.", BASE64.encode(header), BASE64.encode(r#"{"task_id":"t"}"#))
    };
    for header in
        ["{\"alg\":\"none\"}", "{ \"alg\":\"none\"}", "\n{\n\"alg\":\"none\"}", "\u{feff}{\"alg\":\"none\"}"]
    {
        assert!(matches!(with(&unsigned(header)), Err(ContextError::Forged(_))), "{header:?}");
    }
    assert!(
        matches!(with(&format!("{good}.x.y")), Err(ContextError::Forged(_))),
        "five parts, as an encrypted one has"
    );
    for other in ["a.b.c", "v1.2.3", "PO-77.n2.1", " PO-77 ", "10.42.1.7", "采购.一.二"] {
        assert_eq!(with(other).unwrap().resolved_by, Some(ResolvedBy::Opaque), "{other}");
    }
}

#[test]
fn a_token_is_bound_to_operators_actions_definition_and_endpoint() {
    let jwt = jwt(&[key(None, SECRET)], OnUnresolved::Publish);
    let with = |claims: &str| {
        let token = token(None, SECRET, &format!(r#"{{"task_id":"t",{claims}}}"#));
        let rest = r#","user_id":"zhang3","action_type":"APPROVE","approval_code":"CODE""#;
        solve(&jwt, &with_context(&token, rest)).map(|_| ())
    };
    assert_eq!(with(r#""operators":["li4","zhang3"]"#), Ok(()));
    assert_eq!(with(r#""operators":["li4"]"#), Err(ContextError::OperatorNotAllowed));
    assert_eq!(with(r#""operators":[]"#), Err(ContextError::OperatorNotAllowed));
    assert_eq!(with(r#""actions":["APPROVE"]"#), Ok(()));
    assert_eq!(with(r#""actions":["REJECT"]"#), Err(ContextError::ActionNotAllowed));
    assert_eq!(with(r#""endpoint":"purchase""#), Ok(()));
    assert!(matches!(with(r#""endpoint":"leave""#), Err(ContextError::Forged(_))));
    assert_eq!(with(r#""approval_code":"CODE""#), Ok(()));
    assert_eq!(with(r#""approval_code":"OTHER""#), Err(ContextError::Contradiction("the definition")));
}

// Generated for these tests with `openssl genpkey -algorithm ed25519` and not used elsewhere.
const PRIVATE_PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIPZS3wLRyOCS1u4E0LX7FOrxj9e9Xv+LY50BrJnoYJzA\n-----END PRIVATE KEY-----\n";
const PUBLIC_PEM: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAwQs66WNl9lDBl/hccuD+zPYfdlkWqB7Dm1UDzDnqZew=\n-----END PUBLIC KEY-----\n";

#[test]
fn ed25519_tokens_fit_and_a_public_key_is_no_hmac_secret() {
    let public = KeySettings::EdDsa { kid: None, public_key: PUBLIC_PEM.to_owned() };
    let jwt = jwt(&[public], OnUnresolved::Publish);
    let claims: Claims = serde_json::from_str(r#"{"task_id":"t"}"#).unwrap();
    let token = sign(&SigningKey::EdDsa(Secret::new(PRIVATE_PEM)), None, &claims).unwrap();
    assert!(solve(&jwt, &with_context(&token, "")).is_ok());
    let confused = sign(&SigningKey::Hs256(Secret::new(PUBLIC_PEM)), None, &claims).unwrap();
    assert!(matches!(solve(&jwt, &with_context(&confused, "")), Err(ContextError::Forged(_))));
}

#[test]
fn unusable_keys_are_refused() {
    assert_eq!(Keys::new(&[key(None, "short")], lenient()).unwrap_err(), (0, KeyError::ShortSecret));
    let pem = KeySettings::EdDsa { kid: None, public_key: "not pem".to_owned() };
    assert_eq!(Keys::new(&[key(None, SECRET), pem], lenient()).unwrap_err(), (1, KeyError::Pem));
    assert!(!format!("{:?}", Keys::new(&[key(Some("a"), SECRET)], lenient()).unwrap()).contains("fake"));
}
