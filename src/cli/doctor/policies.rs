//! Whether the broker drops commands that it has confirmed: by a policy, an operator policy, or a queue argument.
//! AMQP does not expose these. The management API does, and so does `rabbitmqctl` on the broker's machine.

use std::{collections::HashSet, net::IpAddr, time::Duration};

use serde_json::{Map, Value};

use super::{Results, rabbitmqctl, shell};
use crate::{
    amqp::Login,
    cli::{
        Trust,
        center::check::CheckResult::{self, Risky, Wrong},
        client,
        exit::Failure,
        exposed_password, url,
    },
    loopback,
    telemetry::metrics::topology::Role,
};

/// Timeout of one management API request.
const PATIENCE: Duration = Duration::from_secs(5);

/// Known properties of one of our queues.
#[derive(Debug, Clone)]
struct Queue {
    name: String,
    is_quorum: bool,
    arguments: Map<String, Value>,
    policy: Option<String>,
    operator_policy: Option<String>,
    effective: Map<String, Value>,
}

impl Queue {
    fn read(value: &Value) -> Option<Self> {
        let text = |member: &str| value[member].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let arguments = pairs(&value["arguments"]);
        Some(Self {
            name: text("name")?,
            is_quorum: value["type"] == "quorum"
                || arguments.get("x-queue-type").is_some_and(|kind| kind == "quorum"),
            arguments,
            policy: text("policy"),
            operator_policy: text("operator_policy"),
            effective: pairs(&value["effective_policy_definition"]),
        })
    }

    /// The effective overflow behaviour. In a quorum queue a policy overrides the argument; in others the argument
    /// wins. Operator policies cannot set it. (Tested with RabbitMQ 3.10.)
    fn overflow(&self) -> &str {
        let (argument, policy) = (self.arguments.get("x-overflow"), self.effective.get("overflow"));
        let overflow = if self.is_quorum { policy.or(argument) } else { argument.or(policy) };
        overflow.and_then(Value::as_str).unwrap_or("drop-head")
    }

    /// The value of `key` in a policy, or of the equivalent argument, with its source.
    fn limit(&self, key: &str) -> Option<(&Value, String)> {
        if let Some(value) = self.effective.get(key) {
            let policies: Vec<String> =
                [("policy", &self.policy), ("operator policy", &self.operator_policy)]
                    .into_iter()
                    .filter_map(|(kind, name)| Some(format!("{kind} {}", name.as_ref()?)))
                    .collect();
            return Some((value, format!("by the {}", policies.join(" or the "))));
        }
        let value = self.arguments.get(&format!("x-{key}"))?;
        Some((value, format!("by its argument x-{key}")))
    }
}

/// The members of an object. `rabbitmqctl` prints arguments as a list of name, type and value.
fn pairs(value: &Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members.clone(),
        Value::Array(pairs) => pairs
            .iter()
            .filter_map(|pair| {
                let pair = pair.as_array()?;
                Some((pair.first()?.as_str()?.to_owned(), pair.last()?.clone()))
            })
            .collect(),
        _ => Map::new(),
    }
}

/// The broker to query.
pub(super) struct Asked<'a> {
    pub(super) login: &'a Login,
    pub(super) management_url: Option<&'a str>,
    /// The queues that exist.
    pub(super) queues: &'a [(String, Role)],
}

/// Runs the checks and returns the queues known to reject publishes when full.
pub(super) async fn look(results: &mut Results, asked: &Asked<'_>) -> Result<HashSet<String>, Failure> {
    if asked.queues.is_empty() {
        return Ok(HashSet::new());
    }
    let is_local = loopback::is_host(&asked.login.host);
    let mut unseen = Vec::new();
    let base = match asked.management_url {
        Some(url) => Some(url.to_owned()),
        None if is_local => Some(format!("http://{}:15672", bracketed(&asked.login.host))),
        None => {
            unseen.push("the management API is not known (--management-url)".to_owned());
            None
        }
    };
    if let Some(base) = base {
        match manage(&base, asked).await {
            Ok(queues) => return judge(results, asked, &queues, &format!("the management API at {base}")),
            Err(why) => unseen.push(why),
        }
    }
    if is_local {
        let vhost = asked.login.vhost.clone();
        let told = tokio::task::spawn_blocking(move || rabbitmqctl::queues(&vhost)).await;
        match told.unwrap_or_else(|_| Err("rabbitmqctl could not be run".to_owned())) {
            Ok(told) => {
                let queues: Vec<_> = told.iter().filter_map(Queue::read).collect();
                return judge(results, asked, &queues, "rabbitmqctl on this machine");
            }
            Err(why) => unseen.push(why),
        }
    }
    let vhost = shell(&asked.login.vhost);
    results.skipped(
        "policies",
        format!(
            "whether a policy drops confirmed commands could not be looked at: {}. At the broker: rabbitmqctl list_policies -p \
             {vhost}; rabbitmqctl list_operator_policies -p {vhost}; none that matches these queues may have message-ttl, \
             expires, or max-length without overflow=reject-publish",
            unseen.join("; ")
        ),
    )?;
    Ok(HashSet::new())
}

fn bracketed(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => format!("[{host}]"),
        _ => host.to_owned(),
    }
}

/// Queries the management API with the user and password of the broker's URL.
async fn manage(base: &str, asked: &Asked<'_>) -> Result<Vec<Queue>, String> {
    let Login { user, password, vhost, .. } = asked.login;
    let mut root = url(base, "/").map_err(|_| format!("{base} is not a URL"))?;
    if let Some(why) = exposed_password(&root) {
        return Err(format!("{base} was not asked, since it is {why}"));
    }
    // Credentials in the URL are replaced by the broker's.
    root.set_username("")
        .and_then(|()| root.set_password(None))
        .map_err(|()| format!("{base} is not a URL"))?;
    let http =
        client(&root, Trust::System, PATIENCE).map_err(|_| "cannot create an HTTP client".to_owned())?;
    let mut found = Vec::new();
    for (name, _) in asked.queues {
        let mut url = root.clone();
        url.path_segments_mut()
            .map_err(|()| format!("{base} is not a URL"))?
            .pop_if_empty()
            .extend(["api", "queues", vhost, name]);
        let request = http.get(url).basic_auth(user, Some(password.expose()));
        let answer = request.send().await.map_err(|_| format!("no management API answers at {base}"))?;
        match answer.status().as_u16() {
            200 => {}
            401 | 403 => {
                let user = shell(user);
                return Err(format!(
                    "the management API at {base} denies the user access (rabbitmqctl set_user_tags {user} monitoring)"
                ));
            }
            404 if found.is_empty() => {
                return Err(format!("{base} does not know the queue {name}: another broker's?"));
            }
            404 => continue,
            status => return Err(format!("the management API at {base} answers {status}")),
        }
        let told: Value = answer.json().await.map_err(|_| format!("{base} is not a management API"))?;
        found.extend(Queue::read(&told));
    }
    Ok(found)
}

fn judge(
    results: &mut Results,
    asked: &Asked<'_>,
    queues: &[Queue],
    source: &str,
) -> Result<HashSet<String>, Failure> {
    let mut found = Vec::new();
    let mut seen = 0;
    let mut refusing = HashSet::new();
    for (name, role) in asked.queues {
        let Some(queue) = queues.iter().find(|queue| queue.name == *name) else { continue };
        seen += 1;
        found.extend(faults(queue, *role, &asked.login.vhost));
        if queue.overflow() == "reject-publish" {
            refusing.insert(name.clone());
        }
    }
    if seen == 0 {
        let words = format!("{source} knows none of these queues; is it another broker's?");
        results.skipped("policies", words)?;
        return Ok(refusing);
    }
    for (result, words) in &found {
        results.add(*result, "policies", words)?;
    }
    if found.is_empty() {
        results.ok("policies", format!("none drops confirmed commands, according to {source}"))?;
    }
    Ok(refusing)
}

/// Settings that remove unconsumed messages from one of our queues.
fn faults(queue: &Queue, role: Role, vhost: &str) -> Vec<(CheckResult, String)> {
    let name = &queue.name;
    let what = match role {
        Role::Commands => "commands that were confirmed",
        Role::Outcomes => "reports of workers",
        Role::Unrouted | Role::Dead => "messages that people are to look at",
    };
    let mut found = Vec::new();
    let advice = |keys: &str, whose: &str| {
        let vhost = shell(vhost);
        if whose.contains("argument") {
            format!("redeclare the queue without {keys}, once it is empty")
        } else {
            format!(
                "take {keys} out of it, or have it not match {name}: rabbitmqctl list_policies -p {vhost}; rabbitmqctl \
                 list_operator_policies -p {vhost}"
            )
        }
    };
    if let Some((ttl, whose)) = queue.limit("message-ttl") {
        let words = format!("{name} drops {what} after {ttl} ms, {whose}; {}", advice("message-ttl", &whose));
        found.push((Wrong, words));
    }
    if let Some((expires, whose)) = queue.limit("expires") {
        let words = format!(
            "{name} is deleted, with all that is in it, when nobody has used it for {expires} ms, {whose}; {}",
            advice("expires", &whose)
        );
        found.push((Wrong, words));
    }
    for key in ["max-length", "max-length-bytes"] {
        let Some((most, whose)) = queue.limit(key) else { continue };
        match queue.overflow() {
            "reject-publish" => {}
            "reject-publish-dlx" => found.push((
                Risky,
                format!("{name} sends {what} to the dead letters beyond {key} {most}, {whose}; {}", advice(key, &whose)),
            )),
            _ => found.push((
                Wrong,
                format!(
                    "{name} drops its oldest messages, {what}, beyond {key} {most}, {whose}; set overflow to reject-publish by a \
                     policy, so that the ledger keeps what has no room, or {}",
                    advice(key, &whose)
                ),
            )),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(queue: Value, role: Role) -> Vec<(CheckResult, String)> {
        let mut whole = json!({
            "name": "countersign.commands", "arguments": { "x-queue-type": "quorum" },
            "policy": "", "operator_policy": "", "effective_policy_definition": {}
        });
        for (name, value) in queue.as_object().unwrap() {
            whole[name] = value.clone();
        }
        faults(&Queue::read(&whole).unwrap(), role, "team/prod")
    }

    #[test]
    fn what_drops_confirmed_commands_is_wrong_and_names_whose_it_is() {
        let cap = json!({
            "operator_policy": "cap",
            "effective_policy_definition": { "max-length": 2, "message-ttl": 60000, "expires": 86400000 }
        });
        let found = told(cap, Role::Commands);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(
            found
                .iter()
                .all(|(result, words)| *result == Wrong && words.contains("by the operator policy cap"))
        );
        assert!(found[0].1.contains("drops commands that were confirmed after 60000 ms"), "{found:?}");
        assert!(found[0].1.contains("list_operator_policies -p 'team/prod'"), "{found:?}");
        assert!(found[1].1.contains("is deleted, with all that is in it"), "{found:?}");
        assert!(
            found[2].1.contains("drops its oldest messages") && found[2].1.contains("max-length 2"),
            "{found:?}"
        );
        let argument = told(json!({ "arguments": { "x-message-ttl": 5 } }), Role::Commands);
        assert!(argument[0].1.contains("by its argument x-message-ttl; redeclare the queue"), "{argument:?}");
    }

    #[test]
    fn a_queue_that_refuses_what_has_no_room_loses_nothing() {
        let limit = |kind: &str, argument: Option<&str>, policy: Option<&str>| {
            let (mut arguments, mut effective) = (json!({}), json!({ "max-length": 2 }));
            if let Some(argument) = argument {
                arguments["x-overflow"] = json!(argument);
            }
            if let Some(policy) = policy {
                effective["overflow"] = json!(policy);
            }
            let queue = json!({
                "type": kind, "policy": "p", "arguments": arguments, "effective_policy_definition": effective
            });
            told(queue, Role::Commands).first().map(|(result, _)| *result)
        };
        let (refuses, drops) = (Some("reject-publish"), Some("drop-head"));
        for kind in ["quorum", "classic"] {
            assert_eq!(limit(kind, refuses, None), None);
            assert_eq!(limit(kind, None, refuses), None);
            assert_eq!(limit(kind, None, Some("reject-publish-dlx")), Some(Risky));
            assert_eq!(limit(kind, None, None), Some(Wrong));
        }
        assert_eq!(limit("quorum", drops, refuses), None, "the policy wins");
        assert_eq!(limit("quorum", refuses, drops), Some(Wrong), "the policy wins");
        assert_eq!(limit("classic", drops, refuses), Some(Wrong), "the argument wins");
        assert_eq!(limit("classic", refuses, drops), None, "the argument wins");
        assert_eq!(told(json!({}), Role::Dead), Vec::new());
    }

    #[test]
    fn objects_are_read_however_rabbitmqctl_writes_them() {
        assert_eq!(pairs(&json!([])), Map::new());
        assert_eq!(pairs(&json!([["x-max-length", "long", 2]]))["x-max-length"], json!(2));
        assert_eq!(pairs(&json!({ "max-length": 2 }))["max-length"], json!(2));
        assert_eq!(pairs(&Value::Null), Map::new());
    }
}
