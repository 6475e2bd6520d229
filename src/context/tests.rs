mod signed;

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
