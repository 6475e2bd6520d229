//! The contract with consumers: JSON Schema and AsyncAPI document as the program prints them, checked against the
//! golden files and real messages.

mod additive;
mod asyncapi;
mod messages;

use crate::support::Program;
use jsonschema::Validator;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The JSON Schema of a command, as the program prints it.
async fn schema() -> Value {
    Program::new(["schema"]).run().await.ended_with(0).json()
}

/// The JSON Schema of an outcome, as the program prints it.
async fn outcome_schema() -> Value {
    Program::new(["schema", "--outcome"]).run().await.ended_with(0).json()
}

/// A validator that also checks formats, and does not use the network.
fn validator(schema: &Value) -> Validator {
    assert!(jsonschema::draft202012::meta::is_valid(schema), "not JSON Schema 2020-12: {schema}");
    jsonschema::draft202012::options().should_validate_formats(true).build(schema).expect("a sound schema")
}

/// What is wrong with a value, one line per fault.
fn faults(validator: &Validator, value: &Value) -> Vec<String> {
    validator.iter_errors(value).map(|fault| format!("{}: {fault}", fault.instance_path())).collect()
}

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a fixture")).expect("fixtures are JSON")
}

/// The golden files of a folder, with their names.
fn golden(folder: &str) -> Vec<(String, Value)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(fixture(folder))
        .expect("a folder of fixtures")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    files
        .iter()
        .map(|path| (path.file_stem().expect("a name").to_string_lossy().into_owned(), read(path)))
        .collect()
}

#[tokio::test]
async fn the_printed_schema_is_the_file_in_the_repository_byte_for_byte() {
    for (arguments, name) in
        [(&["schema"][..], "approval.command.1.json"), (&["schema", "--outcome"], "approval.outcome.1.json")]
    {
        let printed = Program::new(arguments.to_vec()).run().await.ended_with(0).stdout;
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/command").join(name);
        assert_eq!(printed, std::fs::read_to_string(file).unwrap());
    }
}

#[tokio::test]
async fn every_golden_file_is_valid_and_every_origin_action_and_context_format_has_one() {
    let validator = validator(&schema().await);
    let commands = golden("commands");
    for (name, file) in &commands {
        assert_eq!(faults(&validator, &file["body"]), [""; 0], "{name}");
    }
    let has = |pointer: &str, value: Value| {
        let found = commands.iter().any(|(_, file)| file["body"].pointer(pointer) == Some(&value));
        assert!(found, "no golden file has {value} at {pointer}");
    };
    for origin in ["list", "card", "search"].map(Value::from).into_iter().chain([Value::Null]) {
        has("/origin", origin);
    }
    for action in ["approve", "reject", "custom"] {
        has("/action", action.into());
    }
    for format in
        ["opaque", "json", "pattern", "jwt", "registry"].map(Value::from).into_iter().chain([Value::Null])
    {
        has("/task/resolved_by", format);
    }
}

/// Without this, the tests above could not fail.
#[tokio::test]
async fn the_schema_refuses_what_is_no_command() {
    let validator = validator(&schema().await);
    let (_, list) = golden("commands").into_iter().find(|(name, _)| name == "list").expect("list.json");
    let body = &list["body"];
    for member in body.as_object().unwrap().keys() {
        let mut without = body.clone();
        without.as_object_mut().unwrap().remove(member);
        assert_eq!(faults(&validator, &without).len(), 1, "{member} is always there");
    }
    for (pointer, wrong) in [
        ("/schema", "approval.command/2".into()),
        ("/command_id", "019a0000-0000-4000-8000-000000000001".into()),
        ("/received_at", "2026-11-20T08:15:30Z".into()),
        ("/received_at", "2026-13-20T08:15:30.123Z".into()),
        ("/action", "hold".into()),
        ("/origin", "mail".into()),
        ("/operator/user_id", Value::Null),
        ("/task/task_id", 7.into()),
        ("/task/instance_id", "".into()),
        ("/task/round", "r".repeat(513).into()),
        ("/message_id", 7_123_456_789_012_345_678_u64.into()),
        ("/attachments", Value::Null),
        ("/attachments/0/file_size", "2048".into()),
        ("/conflicts_with", "".into()),
        ("/extra", Value::Null),
    ] {
        let mut broken = body.clone();
        *broken.pointer_mut(pointer).expect(pointer) = wrong;
        assert_ne!(faults(&validator, &broken), [""; 0], "{pointer}");
    }
}

#[tokio::test]
async fn every_golden_outcome_is_valid_and_every_outcome_has_one() {
    let validator = validator(&outcome_schema().await);
    let outcomes = golden("outcomes");
    for (name, file) in &outcomes {
        assert_eq!(faults(&validator, file), [""; 0], "{name}");
    }
    for outcome in ["applied", "refused", "failed"] {
        assert!(outcomes.iter().any(|(_, file)| file["outcome"] == outcome), "{outcome}");
    }
    assert!(outcomes.iter().any(|(_, file)| file["instance"].is_object()));
}

/// Without this, the test above could not fail.
#[tokio::test]
async fn the_schema_of_outcomes_refuses_what_is_none() {
    let validator = validator(&outcome_schema().await);
    let (_, outcome) = golden("outcomes").into_iter().find(|(name, _)| name == "applied_instance").unwrap();
    for member in ["schema", "command_id", "outcome"] {
        let mut without = outcome.clone();
        without.as_object_mut().unwrap().remove(member);
        assert_eq!(faults(&validator, &without).len(), 1, "{member} is always there");
    }
    for (pointer, wrong) in [
        ("/schema", "approval.outcome/2".into()),
        ("/command_id", "7".into()),
        ("/outcome", "done".into()),
        ("/status", "CANCELED".into()),
        ("/message", 7.into()),
        ("/instance", "{}".into()),
        ("/instance/instance_id", Value::Null),
    ] {
        let mut broken = outcome.clone();
        *broken.pointer_mut(pointer).expect(pointer) = wrong;
        assert_ne!(faults(&validator, &broken), [""; 0], "{pointer}");
    }
}
