//! Callbacks to an endpoint with registered contexts, from their bytes to the ledger's contents.

use serde_json::{Value, value::RawValue};

use super::*;
use crate::{
    command::{CommandId, Grant, Registered, ResolvedBy, TaskRef},
    context::{Format, OnUnresolved},
    intake::{Disposition, Intake, Refusal},
    ledger::{self, Actor, Contexts, Lookup, Registering, Registration, Via, sqlite::SqliteLedger},
    time::Timestamp,
};

struct Registry {
    ledger: Arc<SqliteLedger>,
    intake: Intake,
    directory: tempfile::TempDir,
}

impl Registry {
    /// `registry` refuses unregistered tasks, `both` tries `registry` and publishes the rest as it is, and `opaque`
    /// never asks the registry.
    fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sizing = ledger::Sizing {
            queue_capacity: 100,
            max_batch: 100,
            limits: ledger::Limits {
                refusals_kept: 100,
                longest_window: Duration::from_secs(60),
                ..ledger::Limits::default()
            },
        };
        let ledger = Arc::new(SqliteLedger::open(&directory.path().join("ledger.db"), &sizing).unwrap());
        let with = |name, formats, on_unresolved| EndpointSettings {
            context: context::Settings { formats, on_unresolved },
            ..endpoint(name, None, Locale::En)
        };
        let endpoints = vec![
            with("registry", vec![Format::Registry], OnUnresolved::Refuse),
            with("both", vec![Format::Registry, Format::Opaque], OnUnresolved::Refuse),
            with("opaque", vec![Format::Opaque], OnUnresolved::Publish),
        ];
        let intake = Intake::new(
            &intake::Settings { endpoints, locale: Locale::Zh, identities: true },
            ledger.clone(),
        );
        Self { ledger, intake, directory }
    }

    async fn register(&self, one: Registration) -> bool {
        match self.ledger.register(vec![one], Actor::unnamed(Via::Api).into()).await {
            Ok(Registering::Kept { replaced }) => replaced[0],
            other => panic!("expected to be kept, got {other:?}"),
        }
    }

    /// Receives these members plus action, operator and token; returns the command.
    async fn receive(&self, endpoint: &str, members: &str) -> Result<Value, Refusal> {
        let mut callback = format!(r#"{{{members},"token":"{TOKEN}""#);
        for (name, value) in [("action_type", "APPROVE"), ("user_id", "zhang3")] {
            if !members.contains(name) {
                callback.push_str(&format!(r#","{name}":"{value}""#));
            }
        }
        callback.push('}');
        let response = self
            .intake
            .receive(intake::Received {
                endpoint,
                body: callback.as_bytes(),
                content_encoding: None,
                peer: None,
                trace: None,
                began: Instant::now(),
            })
            .await;
        match response.outcome {
            Disposition::Kept(kept) => Ok(self.command(kept.command_id).await),
            Disposition::Refused(refusal) => Err(refusal),
            Disposition::Probed => panic!("no test sends a probe here"),
        }
    }

    async fn command(&self, command_id: CommandId) -> Value {
        let record = self.ledger.find(command_id).await.unwrap().unwrap();
        serde_json::from_str(record.command.unwrap().get()).unwrap()
    }

    fn execute(&self, sql: &str) {
        let path = self.directory.path().join("ledger.db");
        rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
    }
}

/// The task `t1` of the instance `i1`, for `zhang3` to approve.
fn registration(key: &str) -> Registration {
    let task = TaskRef {
        instance_id: Some("i1".to_owned()),
        task_id: Some("t1".to_owned()),
        round: Some("2".to_owned()),
        business_key: Some("PO-77".to_owned()),
        resolved_by: Some(ResolvedBy::Registry),
        data: Some(RawValue::from_string(r#"{"amount":12345678901234567890.10}"#.to_owned()).unwrap()),
    };
    let grant = Grant {
        task,
        operators: Some(vec!["li4".to_owned(), "zhang3".to_owned()]),
        actions: Some(vec!["APPROVE".to_owned()]),
        approval_code: Some("CODE".to_owned()),
        endpoint: None,
    };
    Registration {
        key: key.to_owned(),
        message_id: None,
        registered: Registered { grant, expires_at: None },
        registered_at: Timestamp::now(),
    }
}

fn expiring(mut one: Registration, seconds: i64) -> Registration {
    one.registered.expires_at =
        Timestamp::from_millisecond(Timestamp::now().as_millisecond() + seconds * 1000).ok();
    one
}

const K: &str = r#""action_context":"k""#;

#[tokio::test]
async fn a_registered_context_tells_the_task_and_passes_its_data_on() {
    let registry = Registry::open();
    registry.register(registration("k")).await;
    let mut command = registry.receive("registry", K).await.unwrap();
    // Compared as text below: a number of this size does not survive parsing.
    assert!(command["task"].as_object_mut().unwrap().remove("data").is_some());
    assert_eq!(
        command["task"],
        serde_json::json!({
            "approval_code": null, "instance_id": "i1", "task_id": "t1", "round": "2",
            "business_key": "PO-77", "resolved_by": "registry",
        })
    );
    let records = registry.ledger.list(ledger::Filter { limit: 1, ..Default::default() }).await.unwrap();
    let record = registry.ledger.find(records[0].command_id).await.unwrap().unwrap();
    let message = record.command.unwrap();
    assert!(message.get().contains(r#""data":{"amount":12345678901234567890.10}"#), "verbatim: {message}");
    assert_eq!(command["action_context"], "k");
    // With a round, the same decision stays a duplicate forever.
    assert_eq!(registry.receive("registry", K).await.unwrap()["command_id"], command["command_id"]);
}

#[tokio::test]
async fn what_is_not_registered_is_left_to_the_next_format_or_to_on_unresolved() {
    let registry = Registry::open();
    registry.register(registration("k")).await;
    let long = format!(r#""action_context":"{}""#, "x".repeat(2000));
    for members in [
        r#""action_context":"K""#,
        r#""action_context":"k ","task_id":"t1""#,
        r#""task_id":"k""#,
        r#""message_id":7"#,
        &long,
    ] {
        assert_eq!(
            registry.receive("registry", members).await.unwrap_err(),
            Refusal::ContextInvalid,
            "{members}"
        );
    }
    let both = registry.receive("both", r#""action_context":"other","task_id":"t9""#).await.unwrap();
    assert_eq!((&both["task"]["resolved_by"], &both["task"]["task_id"]), (&"opaque".into(), &"t9".into()));
    let registered = registry.receive("both", K).await.unwrap();
    assert_eq!(registered["task"]["resolved_by"], "registry");
}

#[tokio::test]
async fn a_callback_that_contradicts_what_is_registered_is_refused_whatever_other_formats_say() {
    let registry = Registry::open();
    registry.register(registration("k")).await;
    registry.register(Registration { message_id: Some(7), ..registration("of another endpoint") }).await;
    let mut bound = registration("bound");
    bound.registered.grant.endpoint = Some("both".to_owned());
    registry.register(bound).await;
    for endpoint in ["registry", "both"] {
        for (members, refusal) in [
            (r#","task_id":"t2""#, Refusal::ContextInvalid),
            (r#","instance_id":"i2","task_id":"t1""#, Refusal::ContextInvalid),
            (r#","id":"t2""#, Refusal::ContextInvalid),
            (r#","approval_code":"OTHER""#, Refusal::ContextInvalid),
            (r#","user_id":"wang5""#, Refusal::OperatorNotAllowed),
            (r#","action_type":"REJECT""#, Refusal::ActionNotAllowed),
        ] {
            let outcome = registry.receive(endpoint, &format!("{K}{members}")).await;
            assert_eq!(outcome.unwrap_err(), refusal, "{endpoint} {members}");
        }
    }
    let agreeing = r#","instance_id":"i1","task_id":"t1","approval_code":"CODE","user_id":"li4""#;
    assert!(registry.receive("registry", &format!("{K}{agreeing}")).await.is_ok());
    let elsewhere = registry.receive("registry", r#""action_context":"bound""#).await;
    assert_eq!(elsewhere.unwrap_err(), Refusal::ContextInvalid);
    assert!(registry.receive("both", r#""action_context":"bound""#).await.is_ok());
}

#[tokio::test]
async fn a_card_is_known_by_its_message_if_not_by_its_context() {
    let registry = Registry::open();
    let message_id = 18_446_744_073_709_551_615_u64;
    registry.register(Registration { message_id: Some(message_id), ..registration("k") }).await;
    for (context, user) in [("", "zhang3"), (r#""action_context":"whatever the card carries","#, "li4")] {
        let members = format!(r#"{context}"message_id":{message_id},"user_id":"{user}""#);
        let command = registry.receive("registry", &members).await.unwrap();
        assert_eq!((&command["task"]["task_id"], &command["origin"]), (&"t1".into(), &"card".into()));
        assert_eq!(command["message_id"], message_id.to_string());
    }
    let wrong = format!(r#""message_id":{message_id},"user_id":"wang5""#);
    assert_eq!(registry.receive("registry", &wrong).await.unwrap_err(), Refusal::OperatorNotAllowed);
    // The key takes precedence, so one card may meanwhile show data of another task.
    let mut other = registration("other");
    other.registered.grant.task.task_id = Some("t2".to_owned());
    registry.register(other).await;
    let members = format!(r#""action_context":"other","message_id":{message_id}"#);
    assert_eq!(registry.receive("registry", &members).await.unwrap()["task"]["task_id"], "t2");
}

#[tokio::test]
async fn what_has_expired_is_told_from_what_was_never_registered() {
    let registry = Registry::open();
    registry.register(expiring(registration("k"), -1)).await;
    for endpoint in ["registry", "both"] {
        assert_eq!(registry.receive(endpoint, K).await.unwrap_err(), Refusal::ContextExpired);
    }
    // Expiry is checked first: the sender learns that it has expired, and nothing about who was permitted.
    let stranger = registry.receive("registry", &format!(r#"{K},"user_id":"wang5""#)).await;
    assert_eq!(stranger.unwrap_err(), Refusal::ContextExpired);
    assert!(registry.register(expiring(registration("k"), 3600)).await);
    assert!(registry.receive("registry", K).await.is_ok());
}

#[tokio::test]
async fn what_is_replaced_or_removed_counts_from_the_next_callback_on() {
    let registry = Registry::open();
    registry.register(registration("k")).await;
    assert_eq!(registry.receive("registry", K).await.unwrap()["task"]["task_id"], "t1");
    let mut second = registration("k");
    second.registered.grant.task.task_id = Some("t2".to_owned());
    second.registered.grant.task.round = Some("3".to_owned());
    second.registered.grant.operators = Some(vec!["wang5".to_owned()]);
    assert!(registry.register(second).await);
    assert_eq!(registry.receive("registry", K).await.unwrap_err(), Refusal::OperatorNotAllowed);
    let moved = registry.receive("registry", &format!(r#"{K},"user_id":"wang5""#)).await.unwrap();
    assert_eq!((&moved["task"]["task_id"], &moved["task"]["round"]), (&"t2".into(), &"3".into()));
    assert!(registry.ledger.unregister("k".to_owned(), Actor::unnamed(Via::Api).into()).await.unwrap());
    let gone = registry.receive("registry", &format!(r#"{K},"user_id":"wang5""#)).await;
    assert_eq!(gone.unwrap_err(), Refusal::ContextInvalid);
}

#[tokio::test]
async fn only_endpoints_that_ask_for_the_registry_depend_on_it() {
    let registry = Registry::open();
    registry.register(registration("k")).await;
    registry.execute("ALTER TABLE contexts RENAME TO gone");
    assert_eq!(registry.receive("registry", K).await.unwrap_err(), Refusal::LedgerUnavailable);
    assert_eq!(registry.receive("both", K).await.unwrap_err(), Refusal::LedgerUnavailable);
    let opaque = registry.receive("opaque", K).await.unwrap();
    assert_eq!(opaque["task"]["resolved_by"], "opaque");
    registry.execute("ALTER TABLE gone RENAME TO contexts");
    assert_eq!(registry.receive("registry", K).await.unwrap()["task"]["resolved_by"], "registry");
}
