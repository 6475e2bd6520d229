//! The AsyncAPI document is complete and correct.

use super::{faults, golden, validator};
use crate::support::Program;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The document as the program prints it.
pub(super) async fn document() -> Value {
    let printed = Program::new(["schema", "--asyncapi"]).run().await.ended_with(0).stdout;
    serde_saphyr::from_str(&printed).expect("YAML")
}

/// A value with every reference resolved.
///
/// # Panics
/// If a reference leads nowhere, or out of the document.
fn resolved(value: &Value, document: &Value) -> Value {
    match value {
        Value::Object(object) => match object.get("$ref").map(|to| to.as_str().expect("a text")) {
            Some(to) => {
                let target = to.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
                resolved(target.unwrap_or_else(|| panic!("{to} leads nowhere")), document)
            }
            None => object.iter().map(|(name, value)| (name.clone(), resolved(value, document))).collect(),
        },
        Value::Array(list) => list.iter().map(|value| resolved(value, document)).collect(),
        other => other.clone(),
    }
}

/// The message definition for a golden file or a real message.
fn message_of<'a>(document: &'a Value, content_type: &str, headers: &Value) -> &'a Value {
    let name = match content_type {
        "application/json" if headers.get("task").is_some() => "approvalCommandCelery",
        "application/json" if headers.get("cloudEvents_id").is_some() => "approvalCommandCloudEventBinary",
        "application/json" => "approvalCommand",
        "application/cloudevents+json" => "approvalCommandCloudEvent",
        "application/vnd.masstransit+json" => "approvalCommandMassTransit",
        other => panic!("{other} is no profile's"),
    };
    let message = &document["components"]["messages"][name];
    assert_eq!(message["contentType"], content_type);
    message
}

/// What is wrong with headers and body of a message.
pub(super) fn faults_of_message(
    document: &Value,
    content_type: &str,
    headers: &Value,
    body: &Value,
) -> Vec<String> {
    let message = resolved(message_of(document, content_type, headers), document);
    assert_eq!(message["payload"]["schemaFormat"], "application/schema+json;version=draft-2020-12");
    let mut found = faults(&validator(&message["payload"]["schema"]), body);
    found.extend(faults(&validator(&message["headers"]), headers));
    let listed = listed_headers(&message["headers"]);
    let unlisted = headers.as_object().expect("a table").keys().filter(|name| !listed.contains(*name));
    found.extend(unlisted.map(|name| format!("the header {name} is not in the document")));
    found
}

fn listed_headers(schema: &Value) -> BTreeSet<String> {
    let parts = schema["allOf"].as_array().cloned().unwrap_or_else(|| vec![schema.clone()]);
    parts.iter().flat_map(|part| part["properties"].as_object().expect("headers").keys().cloned()).collect()
}

/// Every golden file: name, content type, headers, body.
fn every_golden() -> Vec<(String, String, Value, Value)> {
    let files = golden("commands").into_iter().chain(golden("commands/profiles"));
    files
        .map(|(name, file)| {
            let content_type = file["content_type"].as_str().unwrap_or("application/json").to_owned();
            (name, content_type, file["headers"].clone(), file["body"].clone())
        })
        .collect()
}

#[tokio::test]
async fn it_is_asyncapi_3_0_and_every_reference_leads_somewhere() {
    let document = document().await;
    assert_eq!(document["asyncapi"], "3.0.0");
    for part in ["info", "servers", "channels", "operations", "components"] {
        assert!(document[part].as_object().is_some_and(|part| !part.is_empty()), "{part}");
    }
    for (text, what) in [(&document["info"]["title"], "title"), (&document["info"]["version"], "version")] {
        assert!(text.as_str().is_some_and(|text| !text.is_empty()), "{what}");
    }
    let whole = resolved(&document, &document);
    assert!(!whole.to_string().contains("\"$ref\""), "nothing refers out of the document");
    // An operation's channel must be one of the document's own.
    for (name, operation) in document["operations"].as_object().unwrap() {
        assert!(["send", "receive"].contains(&operation["action"].as_str().unwrap()), "{name}");
        assert!(operation["channel"]["$ref"].as_str().unwrap().starts_with("#/channels/"), "{name}");
    }
}

#[tokio::test]
async fn commands_and_reports_alike_end_among_the_dead_letters() {
    let document = document().await;
    let names = |channel: &str| -> BTreeSet<String> {
        document["channels"][channel]["messages"].as_object().unwrap().keys().cloned().collect()
    };
    let sent: BTreeSet<_> = names("commands").union(&names("outcomes")).cloned().collect();
    assert_eq!(names("dead"), sent);
}

#[tokio::test]
async fn its_queues_are_those_that_the_program_declares() {
    let document = document().await;
    // With an approval center, so that there is a queue for reports.
    let printed = Program::new(["topology", "print"])
        .env("COUNTERSIGN__APPROVAL_CENTER__APP_ID", "cli_fake")
        .env("COUNTERSIGN__APPROVAL_CENTER__APP_SECRET", "fake-secret")
        .run()
        .await
        .ended_with(0)
        .json();
    let names = |list: &Value| -> BTreeSet<String> {
        list.as_array().unwrap().iter().map(|queue| queue["name"].as_str().unwrap().to_owned()).collect()
    };
    let channels = document["channels"].as_object().unwrap();
    let queues: BTreeSet<String> =
        channels.values().map(|channel| channel["address"].as_str().unwrap().to_owned()).collect();
    assert_eq!(queues, names(&printed["queues"]));
    for (name, channel) in channels {
        let queue = &channel["bindings"]["amqp"]["queue"];
        assert_eq!((&queue["name"], &queue["durable"]), (&channel["address"], &json!(true)));
        let messages = channel["messages"].as_object().map(serde_json::Map::len);
        // One message for each profile of a command, plus a report where reports are possible.
        let expected = match &**name {
            "outcomes" => 1,
            "dead" => 6,
            _ => 5,
        };
        assert_eq!(messages, Some(expected), "{name}");
    }
}

#[tokio::test]
async fn every_golden_outcome_is_a_message_of_the_document() {
    let document = document().await;
    let message = resolved(&document["components"]["messages"]["approvalOutcome"], &document);
    let validator = validator(&message["payload"]["schema"]);
    for (name, file) in golden("outcomes") {
        assert_eq!(faults(&validator, &file), [""; 0], "{name}");
    }
}

#[tokio::test]
async fn only_a_service_that_takes_no_reports_has_no_queue_of_outcomes() {
    let print = async |set: &[&str]| {
        let arguments = [&["topology", "print"][..], set].concat();
        Program::new(arguments).run().await.ended_with(0).stdout
    };
    assert!(print(&[]).await.contains("countersign.outcomes"));
    let without = print(&["--set", "outcomes.queue="]).await;
    assert!(!without.contains("outcomes"), "{without}");
}

#[tokio::test]
async fn every_golden_file_is_a_message_of_the_document() {
    let document = document().await;
    let files = every_golden();
    assert!(files.len() >= 13, "{} golden files", files.len());
    for (name, content_type, headers, body) in &files {
        assert_eq!(faults_of_message(&document, content_type, headers, body), [""; 0], "{name}");
    }
}

#[tokio::test]
async fn the_headers_it_lists_are_those_that_are_produced() {
    let document = resolved(&document().await, &document().await);
    for name in [
        "approvalCommand",
        "approvalCommandCelery",
        "approvalCommandCloudEvent",
        "approvalCommandMassTransit",
    ] {
        let message = &document["components"]["messages"][name];
        let mut produced: BTreeSet<String> = every_golden()
            .into_iter()
            .filter(|(_, content_type, headers, _)| message_of(&document, content_type, headers) == message)
            .flat_map(|(_, _, headers, _)| {
                headers.as_object().expect("a table").keys().cloned().collect::<Vec<_>>()
            })
            .collect();
        // Golden files are not signed, since a signature has a time; `messages` looks at messages that are.
        produced.extend(["webhook-id", "webhook-timestamp", "webhook-signature"].map(str::to_owned));
        assert_eq!(listed_headers(&message["headers"]), produced, "{name}");
    }
}

/// Without this, the tests above could not fail.
#[tokio::test]
async fn what_is_not_as_documented_is_found() {
    let document = document().await;
    for (name, content_type, headers, body) in every_golden() {
        let find = |headers: &Value, body: &Value| faults_of_message(&document, &content_type, headers, body);
        let mut more = headers.clone();
        more["x-new"] = "1".into();
        assert_eq!(find(&more, &body), ["the header x-new is not in the document"], "{name}");
        let mut less = headers.clone();
        less.as_object_mut().unwrap().remove("traceparent");
        assert_eq!(find(&less, &body).len(), 1, "{name}");
        let text = body.to_string();
        let other = text.replace("\"approval.command/1\"", "\"approval.command/9\"");
        assert_ne!(text, other, "{name}");
        assert_eq!(find(&headers, &serde_json::from_str(&other).unwrap()).len(), 1, "{name}");
    }
}
