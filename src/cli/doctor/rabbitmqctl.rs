//! Queues and policies reported by the local `rabbitmqctl`, which must belong to the broker.

use std::{
    io::Read,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use regex::Regex;
use serde_json::{Map, Value, json};

/// Its startup alone takes seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// The queues of a virtual host, empty if it does not exist. Each has these members of the management API: `name`,
/// `arguments`, `policy`, `operator_policy` and `effective_policy_definition`.
///
/// Only newer versions have the last two as columns, so they are derived from the policies.
pub(super) fn queues(vhost: &str) -> Result<Vec<Value>, String> {
    let program = in_path("rabbitmqctl").ok_or("there is no rabbitmqctl on this machine")?;
    let ask = |what: &[&str]| run(&program, &[what, &["-p", vhost, "--formatter", "json"]].concat());
    let mut queues = ask(&["list_queues", "name", "arguments", "policy", "type"])?;
    if !queues.is_empty() {
        let (policies, of_operators) = (ask(&["list_policies"])?, ask(&["list_operator_policies"])?);
        for queue in &mut queues {
            apply(queue, &policies, &of_operators)?;
        }
    }
    Ok(queues)
}

fn run(program: &PathBuf, args: &[&str]) -> Result<Vec<Value>, String> {
    let mut command = Command::new(program);
    command
        .args(["--silent", "--timeout", &PATIENCE.as_secs().to_string()])
        .args(args)
        // Debian's runs as the user rabbitmq, which must not see countersign's environment.
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| {
            let name = name.to_string_lossy();
            ["PATH", "HOME", "LANG"].contains(&&*name)
                || name.starts_with("RABBITMQ_")
                || name.starts_with("ERL_")
        }))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("rabbitmqctl cannot be run: {error}"))?;
    let mut stdout = child.stdout.take().ok_or("rabbitmqctl has no output")?;
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        stdout.read_to_end(&mut text).map(|_| text)
    });
    let deadline = Instant::now() + PATIENCE + Duration::from_secs(5);
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(50)),
            _ => {
                // It may have exited meanwhile; ignore errors.
                child.kill().and_then(|()| child.wait()).ok();
                return Err("rabbitmqctl does not answer".to_owned());
            }
        }
    };
    let text = reader.join().ok().and_then(Result::ok).unwrap_or_default();
    let told = serde_json::from_slice(&text).ok().filter(|_| status.success());
    told.ok_or_else(|| "rabbitmqctl reaches no node (run doctor as root, on the broker's machine)".to_owned())
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// Adds the matching operator policy to a queue, and the effective definition of both policies.
fn apply(queue: &mut Value, policies: &[Value], of_operators: &[Value]) -> Result<(), String> {
    let policy =
        policies.iter().find(|policy| policy["name"].is_string() && policy["name"] == queue["policy"]);
    let mut effective = policy.map(definition).unwrap_or_default();
    let mut operators: Option<&Value> = None;
    for policy in of_operators {
        let priority = |policy: &Value| policy["priority"].as_i64().unwrap_or(0);
        if matches(policy, queue)? && operators.is_none_or(|other| priority(policy) > priority(other)) {
            operators = Some(policy);
        }
    }
    if let Some(policy) = operators {
        for (key, value) in definition(policy) {
            // Of two numbers the smaller one applies.
            let smaller = match (effective.get(&key).and_then(Value::as_u64), value.as_u64()) {
                (Some(one), Some(other)) => json!(one.min(other)),
                _ => value,
            };
            effective.insert(key, smaller);
        }
        queue["operator_policy"] = policy["name"].clone();
    }
    queue["effective_policy_definition"] = Value::Object(effective);
    Ok(())
}

/// A definition is a text that contains JSON.
fn definition(policy: &Value) -> Map<String, Value> {
    match &policy["definition"] {
        Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
        Value::Object(members) => members.clone(),
        _ => Map::new(),
    }
}

fn matches(policy: &Value, queue: &Value) -> Result<bool, String> {
    let kind = queue["type"].as_str().unwrap_or_default();
    let applies = match policy["apply-to"].as_str().unwrap_or_default() {
        "all" | "queues" => true,
        "classic_queues" => kind == "classic",
        "quorum_queues" => kind == "quorum",
        "streams" => kind == "stream",
        _ => false,
    };
    if !applies {
        return Ok(false);
    }
    let pattern = policy["pattern"].as_str().unwrap_or_default();
    let name = policy["name"].as_str().unwrap_or_default();
    let pattern = Regex::new(pattern)
        .map_err(|_| format!("what the pattern of the operator policy {name} matches is not known here"))?;
    Ok(pattern.is_match(queue["name"].as_str().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, pattern: &str, to: &str, definition: Value, priority: i64) -> Value {
        json!({
            "vhost": "/", "name": name, "pattern": pattern, "apply-to": to, "definition": definition.to_string(),
            "priority": priority
        })
    }

    #[test]
    fn what_is_in_force_is_found_from_policies_as_the_broker_does() {
        let policies = [
            policy("other", ".*", "queues", json!({ "expires": 1 }), 9),
            policy("mine", ".*", "queues", json!({ "max-length": 5, "overflow": "reject-publish" }), 0),
        ];
        let of_operators = [
            policy("low", ".*", "all", json!({ "message-ttl": 1 }), 1),
            policy("cap", "^orders", "quorum_queues", json!({ "max-length": 2, "message-ttl": 9 }), 2),
            policy("exchanges", ".*", "exchanges", json!({ "message-ttl": 1 }), 8),
            policy("classic", ".*", "classic_queues", json!({ "message-ttl": 1 }), 8),
            policy("elsewhere", "^returns$", "queues", json!({ "message-ttl": 1 }), 8),
        ];
        let mut queue = json!({ "name": "orders.in", "arguments": [], "policy": "mine", "type": "quorum" });
        apply(&mut queue, &policies, &of_operators).unwrap();
        assert_eq!(queue["operator_policy"], "cap");
        let expected = json!({ "max-length": 2, "message-ttl": 9, "overflow": "reject-publish" });
        assert_eq!(queue["effective_policy_definition"], expected);

        let mut bare = json!({ "name": "q", "arguments": [], "policy": "", "type": "quorum" });
        apply(&mut bare, &policies, &[]).unwrap();
        assert_eq!(bare["effective_policy_definition"], json!({}));
        assert_eq!(bare["operator_policy"], Value::Null);

        // Erlang supports patterns that other regex engines do not.
        let unknown = [policy("ahead", "^(?!x)", "queues", json!({ "message-ttl": 1 }), 0)];
        let error = apply(&mut bare, &policies, &unknown).unwrap_err();
        assert!(error.contains("the operator policy ahead"), "{error}");
    }
}
