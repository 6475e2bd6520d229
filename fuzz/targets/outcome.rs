//! Reports of workers: nothing panics, what is taken is within the limits and says the same when it is read again, and what
//! is refused is told in words that carry nothing of it.

use countersign::command::outcome::{MAX_BYTES, MAX_MESSAGE_CHARS, Outcome};
use serde_json::{Value, json};

/// The same report as countersign itself would write it.
fn written(outcome: &Outcome) -> Vec<u8> {
    let instance: Option<Value> = outcome
        .instance
        .as_ref()
        .map(|instance| serde_json::from_str(instance.json.get()).expect("an instance is JSON"));
    let report = json!({
        "schema": "approval.outcome/1",
        "command_id": outcome.command_id.to_string(),
        "outcome": outcome.kind.as_str(),
        "status": outcome.status.map(|status| status.as_str()),
        "message": outcome.message,
        "instance": instance,
    });
    serde_json::to_vec(&report).expect("it is JSON")
}

pub(super) fn run(body: &[u8]) {
    let outcome = match Outcome::parse(body) {
        Ok(outcome) => outcome,
        Err(refused) => {
            let words = refused.to_string();
            assert!(
                !words.is_empty() && words.len() < 400 && !words.contains(|c: char| c.is_control()),
                "{words:?}"
            );
            return;
        }
    };
    assert!(body.len() <= MAX_BYTES);
    assert!(outcome.message.as_ref().is_none_or(|message| message.chars().count() <= MAX_MESSAGE_CHARS));
    if let Some(instance) = &outcome.instance {
        assert!(!instance.instance_id.is_empty());
        assert!(instance.json.get().starts_with('{'), "an instance is an object");
    }
    assert!(outcome.repeats(&outcome), "a report says what it says");
    // A number that a double does not hold is written otherwise than it was read; it is compared as text elsewhere.
    if let Ok(again) = Outcome::parse(&written(&outcome)) {
        assert_eq!(
            (again.command_id, again.kind, again.status),
            (outcome.command_id, outcome.kind, outcome.status)
        );
        assert_eq!(again.message, outcome.message);
        assert_eq!(
            again.instance.map(|instance| instance.instance_id),
            outcome.instance.map(|instance| instance.instance_id)
        );
    }
}
