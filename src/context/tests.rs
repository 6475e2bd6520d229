use serde_json::value::RawValue;

use super::{jwt::*, pattern::*, *};
use crate::{
    callback::{self, CredentialSettings, Credentials},
    secret::Secret,
};

fn verified(members: &str) -> Verified {
    let credentials = Credentials::new(&[CredentialSettings {
        action_callback_token: Secret::new("t"),
        action_callback_key: None,
    }]);
    callback::open(&credentials, format!(r#"{{"token":"t",{members}}}"#).as_bytes()).unwrap()
}

fn with_context(context: &str, rest: &str) -> Verified {
    verified(&format!("\"action_context\":{}{rest}", serde_json::to_string(context).unwrap()))
}

fn solve(settings: &Settings, callback: &Verified) -> Result<TaskRef, ContextError> {
    solve_with(settings, callback, None)
}

fn solve_with(
    settings: &Settings,
    callback: &Verified,
    registered: Option<&Registered>,
) -> Result<TaskRef, ContextError> {
    resolve(settings, callback, ResolveInput { endpoint: "purchase", now: now(), registered })
}

fn now() -> Timestamp {
    "2026-11-20T08:00:00Z".parse().unwrap()
}

fn settings(formats: Vec<Format>, on_unresolved: OnUnresolved) -> Settings {
    Settings { formats, on_unresolved }
}

fn json_format() -> Format {
    Format::Json(JsonFields {
        task_id: Some("/t".to_owned()),
        instance_id: Some("/i".to_owned()),
        round: Some("/r".to_owned()),
        business_key: Some("/k".to_owned()),
        data: Some("/d/0".to_owned()),
    })
}

#[test]
fn opaque_takes_the_callbacks_own_fields() {
    let opaque = settings(vec![Format::Opaque], OnUnresolved::Refuse);
    let list = solve(&opaque, &verified(r#""instance_id":"i","task_id":"t""#)).unwrap();
    assert_eq!((list.instance_id.as_deref(), list.task_id.as_deref()), (Some("i"), Some("t")));
    assert_eq!(list.resolved_by, Some(ResolvedBy::Opaque));
    let search = solve(&opaque, &verified(r#""id":"t-9""#)).unwrap();
    assert_eq!((search.instance_id, search.task_id.as_deref()), (None, Some("t-9")));
    let card = solve(&opaque, &with_context("{\"t\":\"x\"}", "")).unwrap();
    assert_eq!((card.instance_id, card.task_id, card.resolved_by), (None, None, Some(ResolvedBy::Opaque)));
}

#[test]
fn a_callback_that_names_nothing_is_published_unresolved_or_refused() {
    let nothing = verified(r#""user_id":"u""#);
    let publish = solve(&settings(vec![Format::Opaque], OnUnresolved::Publish), &nothing).unwrap();
    assert_eq!(publish.resolved_by, None);
    let refuse = solve(&settings(vec![Format::Opaque], OnUnresolved::Refuse), &nothing);
    assert_eq!(refuse.unwrap_err(), ContextError::Unresolved);
}

#[test]
fn json_pointers_find_ids_as_texts_and_as_numbers() {
    let json = settings(vec![json_format()], OnUnresolved::Refuse);
    let context = r#"{"t":"t1","i":7690275278685244603,"r":2,"k":"PO-77","d":[{"a":1.50}]}"#;
    let task = solve(&json, &with_context(context, "")).unwrap();
    assert_eq!(task.task_id.as_deref(), Some("t1"));
    assert_eq!(task.instance_id.as_deref(), Some("7690275278685244603"));
    assert_eq!(task.round.as_deref(), Some("2"));
    assert_eq!(task.business_key.as_deref(), Some("PO-77"));
    assert_eq!(task.data.unwrap().get(), r#"{"a":1.50}"#);
    assert_eq!(task.resolved_by, Some(ResolvedBy::Json));
}

#[test]
fn a_context_that_json_does_not_fit_is_unresolved() {
    let json = settings(vec![json_format()], OnUnresolved::Refuse);
    for context in [
        "PO-77/n2",
        "[1]",
        "\"x\"",
        r#"{"r":1}"#,
        r#"{"t":null,"i":"","r":1}"#,
        r#"{"t":{"x":1},"i":"i1","r":1}"#,
        r#"{"t":1.5,"i":"i1","r":1}"#,
        r#"{"t":"t1","i":"i1","r":[2]}"#,
        r#"{"t":"a","t":"b","i":"i1","r":1}"#,
        r#"{"t":"a","r":1,"r":2}"#,
        r#"{"t":"a","d":[{"x":1,"x":2}]}"#,
        r#"{"t":"a","d":[{"x":"\ud800"}]}"#,
        r#"{"t":"a","d":[[[[[[[[1]]]]]]]]}"#,
    ] {
        assert_eq!(
            solve(&json, &with_context(context, "")).unwrap_err(),
            ContextError::Unresolved,
            "{context}"
        );
    }
}

#[test]
fn json_takes_the_ids_that_are_there() {
    let json = settings(vec![json_format()], OnUnresolved::Refuse);
    let task = solve(&json, &with_context(r#"{"t":"t1"}"#, r#","instance_id":"i1""#)).unwrap();
    assert_eq!((task.task_id.as_deref(), task.instance_id.as_deref()), (Some("t1"), Some("i1")));
    assert_eq!((task.round, task.resolved_by), (None, Some(ResolvedBy::Json)));
    let contradicted = solve(&json, &with_context(r#"{"t":"t1"}"#, r#","task_id":"t2""#)).unwrap_err();
    assert_eq!(contradicted, ContextError::Contradiction("the task"));
}

#[test]
fn what_json_cannot_read_is_left_to_the_next_format() {
    let both = settings(vec![json_format(), Format::Opaque], OnUnresolved::Refuse);
    let task = solve(&both, &with_context("PO-77/n2", r#","task_id":"t1""#)).unwrap();
    assert_eq!((task.resolved_by, task.task_id.as_deref()), (Some(ResolvedBy::Opaque), Some("t1")));
}

#[test]
fn a_contradiction_is_refused_whatever_the_settings_say() {
    let both = settings(vec![json_format(), Format::Opaque], OnUnresolved::Publish);
    let context = r#"{"t":"t1","i":"i1","r":1}"#;
    for (rest, name) in [
        (r#","task_id":"t2""#, "the task"),
        (r#","id":"t2""#, "the task"),
        (r#","instance_id":"i2","task_id":"t1""#, "the instance"),
    ] {
        let refused = solve(&both, &with_context(context, rest)).unwrap_err();
        assert_eq!(refused, ContextError::Contradiction(name), "{rest}");
    }
    assert!(solve(&both, &with_context(context, r#","instance_id":"i1","task_id":"t1""#)).is_ok());
}

#[test]
fn what_the_context_leaves_open_comes_from_the_callback() {
    let fields = JsonFields { task_id: Some("/a~1b/c~0d".to_owned()), ..JsonFields::default() };
    let json = settings(vec![Format::Json(fields)], OnUnresolved::Refuse);
    let task = solve(&json, &with_context(r#"{"a/b":{"c~d":"t1"}}"#, r#","instance_id":"i1""#)).unwrap();
    assert_eq!((task.task_id.as_deref(), task.instance_id.as_deref()), (Some("t1"), Some("i1")));
}

fn pattern(text: &str, over: Over) -> Settings {
    settings(vec![Format::Pattern(Pattern::new(text, over).unwrap())], OnUnresolved::Refuse)
}

#[test]
fn a_pattern_finds_its_groups_in_the_whole_context() {
    let pattern =
        pattern(r"(?P<instance_id>[^:/]+):(?P<task_id>\w+)(?:/r(?P<round>\d+))?", Over::ActionContext);
    let task = solve(&pattern, &with_context("PO-77:n2/r3", "")).unwrap();
    assert_eq!(task.instance_id.as_deref(), Some("PO-77"));
    assert_eq!((task.task_id.as_deref(), task.round.as_deref()), (Some("n2"), Some("3")));
    assert_eq!(task.resolved_by, Some(ResolvedBy::Pattern));
    assert_eq!(solve(&pattern, &with_context("PO-77:n2", "")).unwrap().round, None);
    for context in ["x PO-77:n2/r3 ", "PO-77", "PO-77:n2/r", "", "PO-77:n2\nPO-78:n2"] {
        assert_eq!(
            solve(&pattern, &with_context(context, "")).unwrap_err(),
            ContextError::Unresolved,
            "{context}"
        );
    }
    let contradicted = solve(&pattern, &with_context("PO-77:n2", r#","task_id":"n3""#)).unwrap_err();
    assert_eq!(contradicted, ContextError::Contradiction("the task"));
    // Matched against the context, the pattern must agree with the callback's own instance id.
    let contradicted = solve(&pattern, &with_context("PO-77:n2", r#","instance_id":"PO-78""#)).unwrap_err();
    assert_eq!(contradicted, ContextError::Contradiction("the instance"));
}

#[test]
fn contexts_are_looked_up_only_where_the_formats_say_so() {
    let uses = |formats| settings(formats, OnUnresolved::Refuse).uses_registry();
    assert!(uses(vec![Format::Registry]) && uses(vec![Format::Opaque, Format::Registry]));
    assert!(!uses(vec![Format::Opaque]) && !uses(vec![json_format(), Format::Opaque]));
}

#[test]
fn a_pattern_can_take_the_instance_id_apart() {
    let pattern = pattern(r"erp:(?P<instance_id>[^:]+):(?P<task_id>.+)", Over::InstanceId);
    let task = solve(&pattern, &verified(r#""instance_id":"erp:PO-77:n2""#)).unwrap();
    assert_eq!((task.instance_id.as_deref(), task.task_id.as_deref()), (Some("PO-77"), Some("n2")));
}

#[test]
fn a_pattern_is_checked_when_it_is_made() {
    let fault = |text| Pattern::new(text, Over::ActionContext).unwrap_err();
    assert!(matches!(fault("("), PatternError::Syntax(_)));
    assert!(matches!(fault("a)(?P<task_id>b"), PatternError::Syntax(_)));
    assert_eq!(fault("(?P<task>.*)"), PatternError::UnknownGroup("task".to_owned()));
    assert_eq!(fault("(.*)"), PatternError::NoId);
    assert_eq!(fault("(?P<round>.*)"), PatternError::NoId);
}

const SECRET: &str = "fake-fake-fake-fake-fake-fake-32";

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

fn registered(expires_at: Option<&str>) -> Registered {
    Registered {
        grant: Grant {
            task: TaskRef {
                instance_id: Some("i1".to_owned()),
                task_id: Some("t1".to_owned()),
                resolved_by: Some(ResolvedBy::Registry),
                ..TaskRef::default()
            },
            operators: Some(vec!["zhang3".to_owned()]),
            actions: None,
            approval_code: None,
            endpoint: None,
        },
        expires_at: expires_at.map(|at| at.parse().unwrap()),
    }
}

#[test]
fn a_registered_context_names_its_task_until_it_expires() {
    let registry = settings(vec![Format::Registry], OnUnresolved::Refuse);
    assert!(registry.uses_registry());
    let callback = |user: &str| with_context("any-key", &format!(r#","user_id":"{user}""#));
    let solve =
        |callback: &Verified, found: Option<Registered>| solve_with(&registry, callback, found.as_ref());
    let task = solve(&callback("zhang3"), Some(registered(Some("2026-11-20T08:00:01Z")))).unwrap();
    assert_eq!((task.task_id.as_deref(), task.resolved_by), (Some("t1"), Some(ResolvedBy::Registry)));
    let refused = |user, found| solve(&callback(user), found).unwrap_err();
    assert_eq!(refused("zhang3", Some(registered(Some("2026-11-20T08:00:00Z")))), ContextError::Expired);
    assert_eq!(refused("li4", Some(registered(None))), ContextError::OperatorNotAllowed);
    assert_eq!(refused("zhang3", None), ContextError::Unresolved);
}
