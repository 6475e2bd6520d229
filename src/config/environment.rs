//! Environment variables: those that set keys, the short names, and lookalikes that set nothing.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
};

use super::{
    REFERENCE,
    fault::{Fault, Warning, probably},
    layers::{self, Entry, Step, Table, Text, Value},
    origin::Origin,
};

const PREFIX: &str = "COUNTERSIGN__";

/// Prefix of all our variables.
const OURS: &str = "COUNTERSIGN_";

/// Names the file to read. Handled by the command line.
const CONFIG: &str = "COUNTERSIGN_CONFIG";

/// The variables that allow starting without a file, with the keys they abbreviate.
fn short_names() -> [(&'static str, Vec<Step>); 6] {
    let text = |key: &str| Step::Key(key.to_owned());
    let credential =
        |key: &str| vec![text("endpoints"), Step::Index(0), text("credentials"), Step::Index(0), text(key)];
    [
        ("COUNTERSIGN_AMQP_URL", vec![text("amqp"), text("url")]),
        ("COUNTERSIGN_AMQP_URL_FILE", vec![text("amqp"), text("url_file")]),
        ("COUNTERSIGN_ACTION_CALLBACK_TOKEN", credential("action_callback_token")),
        ("COUNTERSIGN_ACTION_CALLBACK_TOKEN_FILE", credential("action_callback_token_file")),
        ("COUNTERSIGN_ACTION_CALLBACK_KEY", credential("action_callback_key")),
        ("COUNTERSIGN_ACTION_CALLBACK_KEY_FILE", credential("action_callback_key_file")),
    ]
}

/// Variables by name. Any of them may be a secret.
pub(super) type Variables = HashMap<String, Text>;

/// The environment as text. One of our variables that is not UTF-8 is a fault; others are ignored.
pub(super) fn utf8(environment: impl Iterator<Item = (OsString, OsString)>) -> (Variables, Vec<Fault>) {
    let mut texts = HashMap::new();
    let mut faults = Vec::new();
    for (name, value) in environment {
        let Some(name) = name.to_str() else { continue };
        match value.into_string() {
            Ok(value) => drop(texts.insert(name.to_owned(), Text::new(value))),
            Err(_) if name.starts_with(OURS) => faults.push(Fault {
                key: String::new(),
                problem: "is not UTF-8 text".to_owned(),
                expected: String::new(),
                origin: Some(Origin::Environment(name.to_owned())),
            }),
            Err(_) => {}
        }
    }
    (texts, faults)
}

/// Overlays the environment on the file and reports anything odd.
pub(super) fn lay(
    tree: &mut Table,
    environment: &Variables,
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<Warning>,
) {
    lay_short_names(tree, environment, faults, warnings);
    for (path, entry) in variables(environment, faults) {
        lay_one(tree, &path, entry, faults, warnings);
    }
}

fn lay_one(
    tree: &mut Table,
    path: &[Step],
    entry: Entry,
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<Warning>,
) {
    if let Origin::Environment(name) = &entry.origin
        && let Some(before) = layers::look(tree, path)
        && let Value::Text(text) = &before.value
        && text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) == Some(name)
    {
        warnings.push(Warning {
            key: layers::spell(path),
            problem: format!(
                "the variable {name} sets this key whatever the file says, so \"${{{name}}}\" there has no effect; leave \
                 the key out of the file, or give the variable another name"
            ),
            origin: Some(before.origin.clone()),
        });
    }
    faults.extend(layers::set(tree, path, entry).err());
}

/// `COUNTERSIGN__…`, ordered so that a list precedes its elements and element 9 precedes element 10.
fn variables(environment: &Variables, faults: &mut Vec<Fault>) -> Vec<(Vec<Step>, Entry)> {
    let mut found = Vec::new();
    for (name, value) in environment {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let origin = Origin::Environment(name.clone());
        match layers::path_of_variable(rest) {
            Some(path) => found.push((path, Entry { value: Value::Word(value.clone()), origin })),
            None => faults.push(Fault {
                key: String::new(),
                problem: "names no key".to_owned(),
                expected: format!("{PREFIX}SECTION__KEY"),
                origin: Some(origin),
            }),
        }
    }
    found.sort_by(|(left, _), (right, _)| left.cmp(right));
    found
}

fn lay_short_names(
    tree: &mut Table,
    environment: &Variables,
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<Warning>,
) {
    let endpoints = Step::Key("endpoints".to_owned());
    let configured = tree.get("endpoints").is_some();
    for (name, path) in short_names() {
        let Some(value) = environment.get(name) else { continue };
        let origin = Origin::Environment(name.to_owned());
        let of_endpoint = path[0] == endpoints;
        if of_endpoint && configured {
            warnings.push(Warning {
                key: "endpoints".to_owned(),
                problem: "the file configures endpoints, so this variable has no effect".to_owned(),
                origin: Some(origin),
            });
            continue;
        }
        if of_endpoint && tree.get("endpoints").is_none() {
            let name = Entry { value: Value::Text(Text::new("default".to_owned())), origin: origin.clone() };
            let path = [endpoints.clone(), Step::Index(0), Step::Key("name".to_owned())];
            faults.extend(layers::set(tree, &path, name).err());
        }
        lay_one(tree, &path, Entry { value: Value::Word(value.clone()), origin }, faults, warnings);
    }
}

/// Variables with one underscore where two are needed, which therefore set nothing. Variables that a `"${NAME}"`
/// refers to are excluded.
pub(super) fn lookalikes(environment: &Variables, referenced: &HashSet<String>) -> Vec<Warning> {
    let keys = keys_of_reference();
    let mut found: Vec<_> = environment
        .iter()
        .filter_map(|(name, value)| {
            let rest = name.strip_prefix(OURS).filter(|rest| !rest.starts_with('_'))?;
            let is_known = name == CONFIG || referenced.contains(name);
            if is_known || short_names().iter().any(|(known, _)| known == name) || is_link(rest, value) {
                return None;
            }
            let rest = rest.to_ascii_lowercase();
            let meant = match probably(&rest, keys.keys().map(String::as_str)) {
                Some(key) => keys[key].to_ascii_uppercase().replace('.', "__"),
                None if rest.starts_with("endpoints_") => "ENDPOINTS__0__…".to_owned(),
                None => return None,
            };
            Some(Warning {
                key: String::new(),
                problem: format!("sets nothing; is {PREFIX}{meant} meant, with two underscores?"),
                origin: Some(Origin::Environment(name.clone())),
            })
        })
        .collect();
    found.sort_by_key(|warning| warning.origin.as_ref().map(ToString::to_string));
    found
}

/// True for variables that Kubernetes and Docker set for a service named `countersign`: `…_SERVICE_HOST`,
/// `…_PORT=tcp://10.0.0.7:8080`, `…_PORT_8080_TCP_ADDR`.
fn is_link(rest: &str, value: &str) -> bool {
    let of_service = |word: &str| rest.starts_with(word) || rest.contains(&format!("_{word}"));
    of_service("SERVICE_HOST")
        || of_service("SERVICE_PORT")
        || rest.split('_').any(|part| part == "PORT")
        || value.starts_with("tcp://")
        || value.starts_with("udp://")
}

/// The reference's keys outside lists, including secrets by file: `http_listen` and `http.listen`.
fn keys_of_reference() -> HashMap<String, String> {
    let mut keys = HashMap::new();
    let mut section = String::new();
    for line in REFERENCE.lines() {
        let line = line.trim_start_matches("# ");
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        }
        let Some((key, _)) = line.split_once(" = ") else { continue };
        let is_word =
            key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !is_word || section.contains("endpoints") {
            continue;
        }
        for key in [key.to_owned(), format!("{key}_file")] {
            let path = if section.is_empty() { key } else { format!("{section}.{key}") };
            keys.insert(path.replace('.', "_"), path);
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(variables: &[(&str, &str)]) -> Vec<String> {
        let environment =
            variables.iter().map(|(name, value)| ((*name).to_owned(), Text::new((*value).to_owned())));
        let referenced = HashSet::from(["COUNTERSIGN_LOG_FILTER".to_owned()]);
        lookalikes(&environment.collect(), &referenced).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_variable_with_one_underscore_is_told_with_the_name_that_would_set_something() {
        for (name, meant) in [
            ("COUNTERSIGN_HTTP_LISTEN", "COUNTERSIGN__HTTP__LISTEN"),
            ("COUNTERSIGN_HTTP_LISTN", "COUNTERSIGN__HTTP__LISTEN"),
            ("COUNTERSIGN_ADMIN_TOKEN", "COUNTERSIGN__ADMIN__TOKEN"),
            ("COUNTERSIGN_ADMIN_TOKEN_FILE", "COUNTERSIGN__ADMIN__TOKEN_FILE"),
            ("COUNTERSIGN_AMQP_TLS_CA_FILE", "COUNTERSIGN__AMQP__TLS__CA_FILE"),
            ("COUNTERSIGN_SHUTDOWN_GRACE_MS", "COUNTERSIGN__SHUTDOWN_GRACE_MS"),
            ("COUNTERSIGN_ENDPOINTS_0_NAME", "COUNTERSIGN__ENDPOINTS__0__…"),
        ] {
            assert_eq!(
                told(&[(name, "x")]),
                [format!("environment {name}: sets nothing; is {meant} meant, with two underscores?")]
            );
        }
    }

    #[test]
    fn what_others_set_and_what_is_known_is_not() {
        let links = [
            ("COUNTERSIGN_PORT", "tcp://10.0.0.7:8080"),
            ("COUNTERSIGN_SERVICE_HOST", "10.0.0.7"),
            ("COUNTERSIGN_SERVICE_PORT", "8080"),
            ("COUNTERSIGN_SERVICE_PORT_HTTP", "8080"),
            ("COUNTERSIGN_PORT_8080_TCP", "tcp://10.0.0.7:8080"),
            ("COUNTERSIGN_PORT_8080_TCP_ADDR", "10.0.0.7"),
            ("COUNTERSIGN_ADMIN_SERVICE_HOST", "10.0.0.7"),
            ("COUNTERSIGN_ADMIN_PORT", "tcp://10.0.0.7:9090"),
        ];
        assert_eq!(told(&links), [""; 0]);
        let known = [
            ("COUNTERSIGN_CONFIG", "x"),
            ("COUNTERSIGN_AMQP_URL", "x"),
            ("COUNTERSIGN_ACTION_CALLBACK_KEY_FILE", "x"),
            ("COUNTERSIGN__HTTP__LISTEN", "x"),
            ("COUNTERSIGN_SOMETHING_ELSE", "x"),
            ("COUNTERSIGN_LOG_FILTER", "x"),
            ("HTTP_LISTEN", "x"),
        ];
        assert_eq!(told(&known), [""; 0]);
    }
}
