//! `schema`

use clap::Args;
use serde_json::Value;

use super::{
    exit::{Exit, Failure},
    output::lines,
};

/// The JSON Schema of a command.
const SCHEMA: &str = include_str!("../command/approval.command.1.json");

/// The JSON Schema of an outcome, as reported by workers.
const OUTCOME: &str = include_str!("../command/approval.outcome.1.json");

/// The AsyncAPI document, which refers to both schemas by their paths in the repository.
const ASYNCAPI: &str = include_str!("../../asyncapi.yaml");

/// The document's reference to each schema.
const REFERENCES: [(&str, &str); 2] = [
    ("$ref: ./src/command/approval.command.1.json", SCHEMA),
    ("$ref: ./src/command/approval.outcome.1.json", OUTCOME),
];

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign schema > approval.command.1.json
  countersign schema --outcome
  countersign schema --asyncapi > asyncapi.yaml")]
pub(super) struct Arguments {
    /// Print the AsyncAPI document (YAML) with the JSON Schema in it: exchanges, queues, headers, wire profiles
    #[arg(long)]
    asyncapi: bool,
    /// Print the JSON Schema of an outcome, which workers report, instead of that of a command
    #[arg(long, conflicts_with = "asyncapi")]
    outcome: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    if arguments.asyncapi {
        lines(&asyncapi())?;
    } else if arguments.outcome {
        lines(OUTCOME)?;
    } else {
        lines(SCHEMA)?;
    }
    Ok(Exit::Done)
}

/// The document with each reference replaced by its schema. Indented JSON is valid YAML.
fn asyncapi() -> String {
    let mut document = String::with_capacity(ASYNCAPI.len() + 4 * SCHEMA.len());
    for line in ASYNCAPI.lines() {
        let reference = REFERENCES.iter().find_map(|(reference, schema)| {
            let (indentation, rest) = line.split_once(reference)?;
            rest.is_empty().then_some((indentation, schema))
        });
        match reference {
            Some((indentation, schema)) => {
                for line in inlined(schema).lines() {
                    document.push_str(indentation);
                    document.push_str(line);
                    document.push('\n');
                }
            }
            None => {
                document.push_str(line);
                document.push('\n');
            }
        }
    }
    document
}

/// The schema without references: within another document, `#` would refer to that document.
fn inlined(schema: &str) -> String {
    let mut schema: Value = serde_json::from_str(schema).expect("the schema is JSON, or a test would fail");
    let definitions = schema.as_object_mut().and_then(|object| object.remove("$defs")).unwrap_or_default();
    expand(&mut schema, &definitions);
    serde_json::to_string_pretty(&schema).expect("what was read as JSON can be written as JSON")
}

fn expand(schema: &mut Value, definitions: &Value) {
    match schema {
        Value::Object(object) => {
            let name = object.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix("#/$defs/"));
            if let Some(Value::Object(definition)) = name.and_then(|name| definitions.get(name)) {
                object.remove("$ref");
                // Siblings of a `$ref` apply together with its target (JSON Schema 2020-12).
                object.extend(definition.clone());
            }
            object.values_mut().for_each(|value| expand(value, definitions));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| expand(value, definitions)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_asyncapi_document_has_the_schema_in_it_and_refers_to_no_file() {
        let document = asyncapi();
        let read: Value = serde_saphyr::from_str(&document).unwrap();
        let schema = &read["components"]["schemas"]["approvalCommand"]["schema"];
        assert_eq!(schema["$id"], crate::command::profile::DATA_SCHEMA);
        assert_eq!(schema["properties"]["task"]["properties"]["round"]["maxLength"], 512);
        assert_eq!(document.matches("$ref: ./").count(), 0);
        assert_eq!(
            read["components"]["schemas"]["approvalOutcome"]["schema"]["$id"],
            "urn:countersign:approval.outcome:1"
        );
        for (_, schema) in REFERENCES {
            assert!(!inlined(schema).contains("$ref") && !inlined(schema).contains("$defs"));
        }
    }

    #[test]
    fn nothing_beside_a_reference_is_overwritten_by_what_it_refers_to() {
        fn look(schema: &Value, definitions: &Value) {
            if let Some(name) = schema["$ref"].as_str().and_then(|to| to.strip_prefix("#/$defs/")) {
                let definition = definitions[name].as_object().expect("references have what they refer to");
                let both = schema.as_object().unwrap().keys().find(|key| definition.contains_key(*key));
                assert_eq!(both, None, "{schema}");
            }
            let children = schema.as_object().into_iter().flat_map(|object| object.values());
            children
                .chain(schema.as_array().into_iter().flatten())
                .for_each(|child| look(child, definitions));
        }
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        look(&schema, &schema["$defs"]);
    }
}
