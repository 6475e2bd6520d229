//! Within `approval.command/1` changes are additive only.
//!
//! Two parties may have different versions of the schema: a worker may be older than the service, and a command
//! rendered by an older service may still be in its ledger when a newer one publishes it. So the constraints of an
//! old version stay: neither wider (the old worker would get unexpected values) nor narrower (the old message would
//! be refused). Only optional members and annotations may be added.

use super::{fixture, outcome_schema, read, schema};
use serde_json::{Map, Value, json};

/// Keywords that do not affect validity.
const WORDS: [&str; 5] = ["title", "description", "examples", "$comment", "deprecated"];

/// Each change from `old` to `new` that is not additive.
fn breaking(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", &Pair { old, new, old_root: old, new_root: new }, &mut found);
    found
}

#[derive(Clone, Copy)]
struct Pair<'a> {
    old: &'a Value,
    new: &'a Value,
    old_root: &'a Value,
    new_root: &'a Value,
}

/// A schema with its reference resolved; keywords next to the reference are kept.
fn followed(schema: &Value, root: &Value) -> Value {
    let Some(object) = schema.as_object() else { return schema.clone() };
    let mut whole = Map::new();
    if let Some(to) = object.get("$ref").and_then(Value::as_str) {
        let target = to.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        let target = followed(target.unwrap_or_else(|| panic!("{to} refers to nothing")), root);
        whole.extend(target.as_object().expect("references are to objects").clone());
    }
    let own = object.iter().filter(|(keyword, _)| !["$ref", "$defs"].contains(&keyword.as_str()));
    whole.extend(
        own.filter(|(keyword, _)| !WORDS.contains(&keyword.as_str())).map(|(k, v)| (k.clone(), v.clone())),
    );
    whole.retain(|keyword, _| !WORDS.contains(&keyword.as_str()));
    Value::Object(whole)
}

fn compare(at: &str, pair: &Pair<'_>, found: &mut Vec<String>) {
    let (old, new) = (followed(pair.old, pair.old_root), followed(pair.new, pair.new_root));
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
        if old != new {
            found.push(format!("{at}: {old} has become {new}"));
        }
        return;
    };
    for keyword in new.keys().filter(|keyword| !old.contains_key(*keyword)) {
        // New optional members, in an object that had none so far.
        if keyword != "properties" {
            found.push(format!("{at}: there is a new restriction, {keyword}"));
        }
    }
    for (keyword, before) in old {
        let Some(after) = new.get(keyword) else {
            found.push(format!("{at}: {keyword} has gone"));
            continue;
        };
        let inner = |old, new| Pair { old, new, ..*pair };
        match keyword.as_str() {
            "properties" | "patternProperties" => {
                for (name, before) in before.as_object().expect("an object of schemas") {
                    match after.get(name) {
                        Some(after) => compare(&format!("{at}/{name}"), &inner(before, after), found),
                        None => found.push(format!("{at}/{name}: the member has gone")),
                    }
                }
            }
            "items" | "additionalProperties" | "not" | "contains" | "propertyNames" => {
                compare(&format!("{at}/{keyword}"), &inner(before, after), found);
            }
            "anyOf" | "oneOf" | "allOf" | "prefixItems" if same_length(before, after) => {
                let both =
                    before.as_array().into_iter().flatten().zip(after.as_array().into_iter().flatten());
                for (index, (before, after)) in both.enumerate() {
                    compare(&format!("{at}/{keyword}/{index}"), &inner(before, after), found);
                }
            }
            "type" | "enum" | "required" => sets(at, keyword, before, after, found),
            _ if before != after => found.push(format!("{at}: {keyword} was {before} and is {after}")),
            _ => {}
        }
    }
}

fn same_length(before: &Value, after: &Value) -> bool {
    before.as_array().map(Vec::len) == after.as_array().map(Vec::len)
}

/// Keywords whose values have no order.
fn sets(at: &str, keyword: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    let set = |value: &Value| value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    let (before, after) = (set(before), set(after));
    for gone in before.iter().filter(|value| !after.contains(value)) {
        found.push(format!("{at}: {keyword} has lost {gone}"));
    }
    for new in after.iter().filter(|value| !before.contains(value)) {
        found.push(format!("{at}: {keyword} has got {new}"));
    }
}

#[tokio::test]
async fn the_schema_has_changed_by_additions_only_since_its_first_release() {
    let released = read(&fixture("contract/approval.command.1.json"));
    assert_eq!(breaking(&released, &schema().await), [""; 0], "make it approval.command/2");
}

#[tokio::test]
async fn the_schema_of_outcomes_has_changed_by_additions_only_since_its_first_release() {
    let released = read(&fixture("contract/approval.outcome.1.json"));
    assert_eq!(breaking(&released, &outcome_schema().await), [""; 0], "make it approval.outcome/2");
}

/// The released schema with the value at a pointer changed by a function.
fn changed(pointer: &str, change: impl FnOnce(&mut Value)) -> (Value, Value) {
    let old = read(&fixture("contract/approval.command.1.json"));
    let mut new = old.clone();
    change(new.pointer_mut(pointer).unwrap_or_else(|| panic!("nothing at {pointer}")));
    assert_ne!(old, new, "{pointer}: the example changes something");
    (old, new)
}

fn put(key: &'static str, value: Value) -> impl FnOnce(&mut Value) {
    move |object| drop(object.as_object_mut().expect("an object").insert(key.to_owned(), value))
}

fn take(key: &'static str) -> impl FnOnce(&mut Value) {
    move |object| drop(object.as_object_mut().expect("an object").remove(key).expect(key))
}

fn replace(value: Value) -> impl FnOnce(&mut Value) {
    move |place| *place = value
}

#[test]
fn what_only_adds_is_let_through() {
    let fresh = json!({"description": "new", "type": ["string", "null"]});
    let additions = [
        changed("/properties", put("tenant", fresh.clone())),
        changed("/properties/task/properties", put("node_id", fresh.clone())),
        changed("/properties/attachments/items/properties", put("sha256", fresh.clone())),
        changed("/properties/extra", put("properties", json!({"tenant": fresh}))),
        changed("/properties/reason/description", replace("other words".into())),
        changed("/properties/reason", put("examples", json!(["ok"]))),
        changed("/$defs", put("another", json!({"type": "integer"}))),
        changed("/properties/action/enum", replace(json!(["custom", "reject", "approve"]))),
        // The same without a reference.
        changed(
            "/properties/search_id",
            replace(json!({"type": ["null", "string"], "minLength": 1, "maxLength": 512})),
        ),
    ];
    for (old, new) in additions {
        assert_eq!(breaking(&old, &new), [""; 0]);
    }
}

#[test]
fn what_takes_away_or_restricts_or_widens_is_found() {
    let broken = [
        ("/reason: the member has gone", changed("/properties", take("reason"))),
        ("/task/round: the member has gone", changed("/properties/task/properties", take("round"))),
        (
            "/attachments/items/url: the member has gone",
            changed("/properties/attachments/items/properties", take("url")),
        ),
        (
            ": required has lost \"extra\"",
            changed("/required", |list| drop(list.as_array_mut().map(Vec::pop))),
        ),
        (": required has gone", changed("", take("required"))),
        (
            ": required has got \"tenant\"",
            changed("/required", |list| {
                list.as_array_mut().into_iter().for_each(|list| list.push("tenant".into()))
            }),
        ),
        (
            "/operator: required has got \"name\"",
            changed("/properties/operator/required", replace(json!(["user_id", "name"]))),
        ),
        ("/reason: type has lost \"null\"", changed("/properties/reason/type", replace("string".into()))),
        (
            "/reason: type has got \"integer\"",
            changed("/properties/reason/type", replace(json!(["string", "null", "integer"]))),
        ),
        (
            "/action: enum has lost \"custom\"",
            changed("/properties/action/enum", replace(json!(["approve", "reject"]))),
        ),
        (
            "/action: enum has got \"hold\"",
            changed("/properties/action/enum", replace(json!(["approve", "reject", "custom", "hold"]))),
        ),
        ("/schema: const was", changed("/properties/schema/const", replace("approval.command/2".into()))),
        (
            "/message_id: pattern was",
            changed("/properties/message_id/pattern", replace("^[0-9]{1,19}$".into())),
        ),
        ("/message_id: pattern has gone", changed("/properties/message_id", take("pattern"))),
        (
            "/reason: there is a new restriction, maxLength",
            changed("/properties/reason", put("maxLength", 100.into())),
        ),
        ("/attachments: maxItems was", changed("/properties/attachments/maxItems", replace(50.into()))),
        (
            ": there is a new restriction, additionalProperties",
            changed("", put("additionalProperties", false.into())),
        ),
        // Behind references, wherever they lead.
        ("/search_id: maxLength was 512 and is 64", changed("/$defs/id/maxLength", replace(64.into()))),
        (
            "/search_id: type has lost \"null\"",
            changed("/properties/search_id/$ref", replace("#/$defs/command_id".into())),
        ),
        (
            "/conflicts_with/anyOf/0: pattern was",
            changed("/$defs/command_id/pattern", replace("^.*$".into())),
        ),
        (
            "/conflicts_with: anyOf was",
            changed("/properties/conflicts_with/anyOf", |list| drop(list.as_array_mut().map(Vec::pop))),
        ),
    ];
    for (wanted, (old, new)) in broken {
        let found = breaking(&old, &new);
        assert!(found.iter().any(|line| line.starts_with(wanted)), "{wanted}: {found:?}");
    }
}
