//! Checks `openapi.yaml` against the program: routes, refusals, names.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, value::RawValue};

use crate::{
    command::{CommandId, outcome::Kind},
    console,
    http::{self, answer},
    intake::{Locale, NO_CALLBACK, PROBE_WORD, Refusal},
    ledger::{
        ActKind, ActRecord, Actor, Finding, KeptRefusal, OutcomeRecord, Record, RefusedCallback,
        ShowingRecord, ShowingState, State, Stray, Via, Why,
    },
    time::Timestamp,
};

fn document() -> Value {
    serde_saphyr::from_str(include_str!("../../openapi.yaml")).unwrap()
}

fn words(value: &Value) -> BTreeSet<&str> {
    value.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

/// Method, path, and the listener's port.
type Route = (String, String, u16);

#[test]
fn the_routes_of_both_listeners_are_those_of_the_document() {
    let document = document();
    let port = |servers: &Value| -> u16 {
        let url = servers[0]["url"].as_str().unwrap();
        url.rsplit_once(':').unwrap().1.parse().unwrap()
    };
    let public = port(&document["servers"]);

    let mut documented = BTreeSet::<Route>::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let port = item.get("servers").map_or(public, port);
        for member in item.as_object().unwrap().keys() {
            if !matches!(&**member, "servers" | "parameters") {
                documented.insert((member.to_uppercase(), path.clone(), port));
            }
        }
    }

    let route = |(method, path): (&str, &str), port| (method.to_owned(), path.to_owned(), port);
    let served: BTreeSet<Route> = http::ROUTES
        .into_iter()
        .map(|entry| route(entry, 8080))
        .chain(console::routes().map(|entry| route(entry, 9090)))
        .collect();
    assert_eq!(documented, served);
}

#[test]
fn every_refusal_has_its_answer_as_an_example_under_its_status() {
    let document = document();
    let responses = document["paths"]["/callbacks/{endpoint}"]["post"]["responses"].as_object().unwrap();

    let mut documented = BTreeMap::new();
    for (status, response) in responses {
        let media = &response["content"]["application/json"];
        // Answers without a reason are shared, and given by reference.
        if status == "200" || response.get("$ref").is_some() {
            continue;
        }
        let narrowed = &media["schema"]["allOf"][1]["properties"];
        let examples = media["examples"].as_object().unwrap();
        let (mut codes, mut reasons) = (BTreeSet::new(), BTreeSet::new());
        for (name, example) in examples {
            let value = &example["value"];
            assert_eq!(&value["msg"], name, "an example is named after its reason");
            assert!(example["summary"].is_string(), "{name} is explained");
            codes.insert(value["code"].as_u64().unwrap());
            reasons.insert(name.as_str());
            documented.insert(name.clone(), (status.clone(), value.clone()));
        }
        assert_eq!(words(&narrowed["msg"]["enum"]), reasons, "reasons of {status}");
        let narrowed: BTreeSet<_> =
            narrowed["code"]["enum"].as_array().unwrap().iter().map(|code| code.as_u64().unwrap()).collect();
        assert_eq!(narrowed, codes, "codes of {status}");
    }

    let answered: BTreeMap<_, _> = Refusal::ALL
        .iter()
        .map(|&refusal| {
            let status = answer::Rule::of(refusal).status.as_str().to_owned();
            let body = answer::refusal_body(refusal, Locale::Zh);
            (refusal.as_str().to_owned(), (status, serde_json::from_slice::<Value>(&body).unwrap()))
        })
        .chain([(
            PROBE_WORD.to_owned(),
            (
                answer::PROBE_STATUS.as_str().to_owned(),
                serde_json::from_slice(&answer::probe_body(Locale::Zh)).unwrap(),
            ),
        )])
        .collect();
    assert_eq!(documented, answered);
}

#[test]
fn the_closed_lists_are_those_of_the_program() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    let reasons = Refusal::ALL.iter().copied().map(Refusal::as_str).chain(NO_CALLBACK).collect();
    assert_eq!(words(&schemas["Reason"]["enum"]), reasons);
    let states = State::ALL.iter().copied().map(State::as_str).collect();
    assert_eq!(words(&schemas["State"]["enum"]), states);
    let why = Why::ALL.iter().copied().map(Why::as_str).collect();
    assert_eq!(words(&schemas["Event"]["properties"]["why"]["enum"]), why);
    let acts = ActKind::ALL.iter().copied().map(ActKind::as_str).collect();
    assert_eq!(words(&schemas["ActKind"]["enum"]), acts);
}

/// A member added to the ledger's views must be added to the document.
#[test]
fn what_the_ledger_shows_has_the_members_of_the_document() {
    let document = document();
    let members = |value: Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let documented = |name: &str| {
        let schema = &document["components"]["schemas"][name];
        members(schema.get("allOf").map_or(schema, |all| &all[1])["properties"].clone())
    };
    let now = Timestamp::UNIX_EPOCH;
    let id = CommandId::new(now);
    let place = ShowingRecord {
        id: String::new(),
        state: ShowingState::Shown,
        shown_at: None,
        attempts: 0,
        next_attempt_at: None,
        note: None,
    };
    let outcome = OutcomeRecord {
        outcome: Kind::Applied,
        status: None,
        message: None,
        reported_at: now,
        superseded: 0,
        showing: ShowingState::Shown,
        card: None,
        instance: None,
    };
    let record = Record {
        seq: 1,
        command_id: id,
        received_at: now,
        state: State::Pending,
        endpoint: String::new(),
        action: String::new(),
        user_id: String::new(),
        approval_code: None,
        instance_id: None,
        task_id: None,
        attempts: None,
        next_attempt_at: None,
        note: None,
        outcome: None,
        command: Some(RawValue::NULL.to_owned()),
        reconciliation: Some(Finding::seen()),
        history: Some(Vec::new()),
        duplicates_at: Some(vec![now]),
    };
    let refused = RefusedCallback {
        refused_at: now,
        endpoint: String::new(),
        reason: String::new(),
        detail: None,
        peer: None,
        body_bytes: 0,
        stranger: true,
        action_type: None,
        user_id: None,
        approval_code: None,
        instance_id: None,
        task_id: None,
        search_id: None,
        message_id: None,
        context_task: None,
    };
    let stray = Stray {
        id: 1,
        came_at: now,
        why: None,
        queue: None,
        reason: None,
        message_id: None,
        message_type: None,
        routing_key: String::new(),
        body: String::new(),
    };
    let actor = Actor {
        name: Some(String::new()),
        sudo_user: Some(String::new()),
        host: Some(String::new()),
        peer: Some(String::new()),
        ..Actor::unnamed(Via::Cli)
    };
    let act = ActRecord {
        id: 1,
        at: now,
        changed_at: now,
        act: ActKind::Park,
        actor: actor.clone(),
        reason: None,
        count: 1,
        detail: None,
    };
    fn shown(value: &impl serde::Serialize) -> BTreeSet<String> {
        serde_json::to_value(value).unwrap().as_object().unwrap().keys().cloned().collect()
    }
    let record_documented = &documented("Record") | &documented("RecordWithCommand");
    assert_eq!(shown(&record), record_documented);
    assert_eq!(shown(&outcome), documented("Outcome"));
    assert_eq!(shown(&place), documented("Showing"));
    assert_eq!(shown(&Finding::seen()), documented("Finding"));
    assert_eq!(shown(&actor), documented("Actor"));
    assert_eq!(shown(&act), documented("Act"));
    let refusal_documented = &documented("RefusedCallback") | &documented("Refused");
    assert_eq!(shown(&KeptRefusal { id: 1, refused }), refusal_documented);
    assert_eq!(shown(&stray), documented("Stray"));
}

#[test]
fn every_reference_leads_somewhere() {
    fn check(value: &Value, document: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(to)) = members.get("$ref") {
                    let pointer = to.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{to} leads nowhere");
                }
                members.values().for_each(|member| check(member, document));
            }
            Value::Array(items) => items.iter().for_each(|item| check(item, document)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document = document();
    check(&document, &document);
}
