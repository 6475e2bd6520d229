//! The running service, according to its `/readyz`.

use std::time::Duration;

use serde_json::Value;

use super::Results;
use crate::{
    cli::{
        Trust,
        center::check::CheckResult::{self, Risky, Wrong},
        client,
        exit::Failure,
        reachable, url,
    },
    config::Loaded,
};

/// Timeout of a local listener.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn look(results: &mut Results, loaded: &Loaded) -> Result<(), Failure> {
    let Ok(listen) = loaded.internal() else {
        return results.skipped("service", "its configuration is wrong");
    };
    if listen.port() == 0 {
        return results.skipped("service", "admin.listen has no fixed port");
    }
    let url = url(&format!("http://{}", reachable(listen)), "/readyz")?;
    let answer = match client(&url, Trust::System, PATIENCE)?.get(url.clone()).send().await {
        Ok(answer) => answer,
        Err(error) if error.is_timeout() => {
            let words = format!("does not answer at {url} within 5 s; look at the log, then restart it");
            return results.wrong("service", words);
        }
        Err(_) => {
            let words = format!(
                "nobody listens at {url}; start `countersign serve`, if it should run on this machine"
            );
            return results.risky("service", words);
        }
    };
    let status = answer.status().as_u16();
    let told: Value = answer.json().await.unwrap_or_default();
    if !told["ready"].is_boolean() {
        let words = format!(
            "{url} answers {status}, and is not countersign; is admin.listen the port of another program?"
        );
        return results.wrong("service", words);
    }
    if told["ready"] == true {
        results.ok("service", format!("ready at {url}"))?;
    }
    for (result, subject, words) in words(&told) {
        results.add(result, subject, words)?;
    }
    Ok(())
}

/// The problems reported by `/readyz`, in words.
fn words(told: &Value) -> Vec<(CheckResult, &'static str, String)> {
    let mut found = Vec::new();
    let mut add = |result, subject, words: String| found.push((result, subject, words));
    let refused = |reason: &str| format!("callbacks are refused as {reason}");
    match told["checks"]["ledger"].as_str().unwrap_or("unknown") {
        "ok" => {}
        "overloaded" => add(
            Wrong,
            "service, ledger",
            format!(
                "the queue to the ledger is full, and {}; the disk is too slow: `countersign bench disk`",
                refused("overloaded")
            ),
        ),
        "no_room" => add(
            Wrong,
            "service, ledger",
            format!(
                "the disk has less room than ledger.min_free_bytes, and {}; make room",
                refused("ledger_unavailable")
            ),
        ),
        "unavailable" => add(
            Wrong,
            "service, ledger",
            format!(
                "nothing can be committed, and {}; the log says why; after a disk fault restart it",
                refused("ledger_unavailable")
            ),
        ),
        "timeout" => add(
            Wrong,
            "service, ledger",
            "a commit takes longer than 0.8 s, and approvers wait; look at the disk".to_owned(),
        ),
        other => add(Wrong, "service, ledger", format!("it says {other}; look at the log")),
    }
    if told["checks"]["accepting"] == "draining" {
        let words = format!("it is being stopped, and {}", refused("shutting_down"));
        add(Wrong, "service", words);
    }
    if told["broker"].as_str().is_some_and(|broker| broker != "connected") {
        add(
            Wrong,
            "service, broker",
            "serve has no connection to publish by: callbacks are kept and wait; its log says why, and so do the lines below".to_owned(),
        );
    }
    for fault in told["topology"]["faults"].as_array().into_iter().flatten() {
        let text = |member: &str| fault[member].as_str().unwrap_or("unknown").to_owned();
        add(Wrong, "service, topology", format!("{}: {}", text("object"), text("problem").replace('_', " ")));
    }
    let configuration = &told["configuration"];
    if configuration["last_reload"]["result"] == "rejected" {
        let at = configuration["last_reload"]["at"].as_str().unwrap_or("last");
        add(
            Wrong,
            "service, configuration",
            format!(
                "the reload at {at} was rejected, and the configuration before is in force; `countersign config check`, then reload again"
            ),
        );
    }
    let waiting: Vec<&str> =
        configuration["restart_needed"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !waiting.is_empty() {
        add(Risky, "service, configuration", format!("{} waits for a restart", waiting.join(", ")));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn healthy() -> Value {
        json!({
            "ready": true, "checks": { "ledger": "ok", "accepting": "ok" }, "broker": "connected", "topology": null,
            "configuration": { "in_force_since": "2026-11-20T08:15:30.123Z", "last_reload": null, "restart_needed": [] }
        })
    }

    #[test]
    fn readiness_is_told_in_words_with_what_to_do() {
        assert_eq!(words(&healthy()), Vec::new());
        for (pointer, value, result, expected) in [
            ("/checks/ledger", json!("no_room"), Wrong, "less room than ledger.min_free_bytes"),
            ("/checks/ledger", json!("overloaded"), Wrong, "the queue to the ledger is full"),
            ("/checks/ledger", json!("unavailable"), Wrong, "nothing can be committed"),
            ("/checks/ledger", json!("timeout"), Wrong, "a commit takes longer"),
            ("/checks/ledger", json!("newer"), Wrong, "it says newer"),
            ("/checks/accepting", json!("draining"), Wrong, "it is being stopped"),
            ("/broker", json!("disconnected"), Wrong, "no connection to publish by"),
            (
                "/topology",
                json!({ "faults": [{ "object": "queue q", "problem": "declared_otherwise" }] }),
                Wrong,
                "queue q: declared otherwise",
            ),
            (
                "/configuration/last_reload",
                json!({ "at": "2026-11-20T08:15:30.123Z", "result": "rejected" }),
                Wrong,
                "the reload at 2026-11-20T08:15:30.123Z was rejected",
            ),
            (
                "/configuration/restart_needed",
                json!(["http.listen"]),
                Risky,
                "http.listen waits for a restart",
            ),
        ] {
            let mut told = healthy();
            *told.pointer_mut(pointer).unwrap() = value;
            let found = words(&told);
            assert_eq!(found.len(), 1, "{pointer}: {found:?}");
            assert!(found[0].0 == result && found[0].2.contains(expected), "{pointer}: {found:?}");
        }
    }
}
