use std::{collections::BTreeSet, time::Duration};

use super::*;
use crate::{
    intake::Refusal,
    telemetry::metrics::topology::{Counts, View},
    time::Timestamp,
};

/// Our metrics in a text, each with the contents of braces after it.
fn named(text: &str) -> Vec<(&str, &str)> {
    let ours = text.match_indices("countersign_").map(|(at, _)| {
        let rest = &text[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let labels = rest[end..].strip_prefix('{').and_then(|rest| rest.split('}').next());
        (&rest[..end], labels.unwrap_or_default())
    });
    // `countersign_X.Y.Z-1_amd64.deb` is a file.
    ours.filter(|(name, _)| !name.starts_with("countersign_X")).collect()
}

/// Panics if the text names a metric, a label or a value that is not in the catalogue; returns how often it names a metric.
/// `job` and `instance` are Prometheus' own, and `$` begins a variable of a dashboard.
fn selectors_are_of_ours(text: &str, known: &str) -> usize {
    let found = named(text);
    for (name, labels) in &found {
        let lines: Vec<_> = known
            .lines()
            .filter_map(|line| line.strip_prefix(name))
            .filter(|rest| rest.starts_with(['{', ' ']))
            .collect();
        assert!(!lines.is_empty(), "{name} is not a metric of ours");
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let key = label.split(['=', '!']).next().unwrap().trim();
            if matches!(key, "job" | "instance") {
                continue;
            }
            assert!(
                lines.iter().all(|line| line.contains(&format!("{key}=\""))),
                "{name} has no label {key}"
            );
            for value in label.split('"').nth(1).unwrap().split('|').filter(|value| !value.starts_with('$')) {
                let there = lines.iter().any(|line| line.contains(&format!("{key}=\"{value}\"")));
                assert!(there, "{name} has no {label}");
            }
        }
    }
    found.len()
}

fn with_every_series_of_an_alert() -> Arc<Metrics> {
    let metrics = Metrics::new();
    for outcome in Refusal::ALL.iter().copied().map(Refusal::as_str).chain(["accepted", "duplicate"]) {
        metrics.callbacks.counter("purchase", outcome).inc();
        metrics.callbacks.counter(UNKNOWN_ENDPOINT, outcome).inc();
    }
    ["pending", "published", "parked", "rejected", "unrouted"]
        .into_iter()
        .for_each(|state| metrics.ledger.set_rows(state, 1));
    metrics.dead_letters.set_strays(1);
    metrics.ledger.set_standbys(1);
    ["unseen", "not_found", "contradicted"]
        .into_iter()
        .for_each(|word| metrics.reconcile.set_findings(word, 1));
    metrics.reconcile.reconciled("seen", 1);
    [true, false].into_iter().for_each(|whole| metrics.reconcile.passed(whole));
    metrics.relay.enriched("busy");
    metrics.process.set_certificate_not_after(CertificateUse::Http, Some(1));
    metrics.process.set_console(Some("https://console.example".to_owned()));
    metrics.callbacks.probe_counter("purchase").inc();
    let counts = Some(Counts { messages: 1, consumers: 1 });
    let checked_at = Timestamp::UNIX_EPOCH;
    metrics.uses.of_endpoint("purchase", &[1], checked_at).iter().for_each(|used| used.note(checked_at));
    metrics.topology.set(Some(View { checked_at, queues: [counts; 4], faults: Vec::new() }));
    metrics
}

#[test]
fn alerts_are_written_against_this_catalogue_and_each_says_what_to_do() {
    let known = with_every_series_of_an_alert().render();
    let alerts = include_str!("../../../deploy/alerts.yaml");
    assert!(selectors_are_of_ours(alerts, &known) > 10);

    let docs = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md").into();
    let mut documented = 0;
    for path in docs.chain([readme]) {
        for (name, _) in named(&std::fs::read_to_string(&path).unwrap()) {
            let there = known
                .lines()
                .any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ', '_'])));
            assert!(there, "{} names {name}, which is not a metric of ours", path.display());
            documented += 1;
        }
    }
    assert!(documented >= 10, "{documented}");
    for name in known.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        for page in ["operations.md", "zh-CN/operations.md"] {
            let path = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).join(page);
            assert!(std::fs::read_to_string(path).unwrap().contains(name), "docs/{page} lacks {name}");
        }
    }

    let rules: serde_json::Value = serde_saphyr::from_str(alerts).unwrap();
    let rules: Vec<_> = rules["groups"][0]["rules"].as_array().unwrap().iter().collect();
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        for text in [&rule["expr"], &rule["annotations"]["summary"], &rule["annotations"]["runbook"]] {
            assert!(text.as_str().is_some_and(|text| !text.is_empty()), "{name}: {rule}");
        }
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("page" | "ticket")), "{name}");
    }
}

/// Every query of a dashboard, those of its variables included.
fn queries(dashboard: &str) -> Vec<String> {
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let members = |list: &serde_json::Value, name: &str| -> Vec<String> {
        let all = list.as_array().unwrap().iter();
        all.filter_map(|one| one[name].as_str()).map(str::to_owned).collect()
    };
    let panels = dashboard["panels"].as_array().unwrap();
    let panels = panels.iter().filter(|panel| panel["type"] != "row");
    let mut found: Vec<_> = panels.flat_map(|panel| members(&panel["targets"], "expr")).collect();
    found.extend(members(&dashboard["templating"]["list"], "query"));
    found
}

#[test]
fn dashboards_ask_for_metrics_and_labels_of_this_catalogue_and_leave_none_out() {
    let metrics = with_every_series_of_an_alert();
    metrics.callbacks.took(Duration::from_millis(3));
    let known = metrics.render();
    let read =
        |name| std::fs::read_to_string(format!("{}/deploy/dashboards/{name}", env!("CARGO_MANIFEST_DIR")));
    let operator = queries(&read("operator.json").unwrap());
    let capacity = queries(&read("capacity.json").unwrap());
    assert!(operator.len() > 50 && capacity.len() > 15, "{} {}", operator.len(), capacity.len());
    for query in operator.iter().chain(&capacity) {
        let ours = selectors_are_of_ours(query, &known);
        assert!(ours > 0 || query.contains("alertname=~\"Countersign") || query == "prometheus", "{query}");
        // `sum by (le, outcome) (…)`, and `label_values(…, endpoint)` of a variable
        let grouped = query.split(" by (").skip(1).filter_map(|rest| rest.split(')').next());
        let listed = query
            .strip_prefix("label_values(")
            .and_then(|rest| rest.trim_end_matches(')').rsplit(", ").next());
        for label in grouped.flat_map(|labels| labels.split(", ")).chain(listed) {
            let there = named(query).iter().any(|(name, _)| {
                let mut lines = known.lines().filter_map(|line| line.strip_prefix(name));
                lines.any(|rest| rest.starts_with('{') && rest.contains(&format!("{label}=\"")))
            });
            assert!(there || matches!(label, "job" | "instance"), "no metric of {query} has a label {label}");
        }
    }
    for family in known.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        let shown = operator.iter().any(|query| {
            named(query).iter().any(|(name, _)| {
                let suffix = name.strip_prefix(family);
                suffix.is_some_and(|suffix| ["", "_total", "_info", "_bucket"].contains(&suffix))
            })
        });
        // Its file grows over months; room and write-ahead log are what an operator watches. Alerts lead to the console.
        let not_for_operators = [
            "countersign_console",
            "countersign_ledger_size_bytes",
            "countersign_repeats_remembered",
            "countersign_repeats_forgotten",
        ];
        assert_eq!(shown, !not_for_operators.contains(&family), "{family} on the operator's dashboard");
    }
}

#[test]
fn every_alert_has_a_case_for_and_a_case_against_it_over_metrics_of_ours() {
    let parse = |text| -> serde_json::Value { serde_saphyr::from_str(text).unwrap() };
    let cases = include_str!("../../../deploy/alerts.test.yaml");
    let known = with_every_series_of_an_alert().render();
    for (name, _) in named(cases) {
        let family = name.trim_end_matches("_total").trim_end_matches("_info").trim_end_matches("_bucket");
        assert!(known.contains(&format!("# TYPE {family} ")), "{name} is not a metric of ours");
    }
    let instances = |text: &serde_json::Value| -> BTreeSet<String> {
        let text = text.to_string().replace('\\', "");
        let found = text.split("instance=\"").skip(1).filter_map(|rest| rest.split('"').next());
        found.map(str::to_owned).collect()
    };
    let (mut fire, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for case in parse(cases)["tests"].as_array().unwrap() {
        for test in case["promql_expr_test"].as_array().into_iter().flatten() {
            let alert = test["expr"].as_str().unwrap().split('"').nth(1).unwrap().to_owned();
            let firing = instances(&test["exp_samples"]);
            // Instances for which it does not fire are negative cases.
            if firing.len() < instances(&case["input_series"]).len() {
                silent.insert(alert.clone());
            }
            if test["exp_samples"].as_array().is_some_and(|samples| !samples.is_empty()) {
                fire.insert(alert);
            }
        }
    }
    let rules = parse(include_str!("../../../deploy/alerts.yaml"));
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        let alert = rule["alert"].as_str().unwrap();
        assert!(fire.contains(alert), "no case has {alert} fire");
        assert!(silent.contains(alert), "no case leaves {alert} silent");
    }
}

#[test]
fn no_reason_of_a_refusal_is_without_an_alert() {
    let rules: serde_json::Value =
        serde_saphyr::from_str(include_str!("../../../deploy/alerts.yaml")).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    let watched: BTreeSet<&str> = rules
        .iter()
        .flat_map(|rule| named(rule["expr"].as_str().unwrap()))
        .flat_map(|(_, labels)| labels.split("outcome=").skip(1))
        .flat_map(|rest| rest.split('"').nth(1).unwrap().split('|'))
        .collect();
    for reason in Refusal::ALL {
        // Stopping is intentional; limited peers have a separate metric; to decline is the worker's own decision.
        let exempt = matches!(reason, Refusal::ShuttingDown | Refusal::RateLimited | Refusal::Declined);
        assert_eq!(watched.contains(reason.as_str()), !exempt, "{}", reason.as_str());
    }
}

#[test]
fn the_catalogue_has_the_names_of_the_contract() {
    let metrics = Metrics::new();
    metrics.callbacks.counter("purchase", "accepted").inc();
    metrics.callbacks.took(Duration::from_millis(3));
    metrics.callbacks.probe_counter("purchase").inc();
    metrics.callbacks.probe_counter("gone").inc();
    metrics.callbacks.forget_probe_counter("gone");
    metrics.ledger.set_rows("pending", 7);
    metrics.relay.published(PublishResult::Returned, 2);
    metrics.relay.set_connected(true);
    metrics.http.peer_limited(LimitCause::Failures);
    metrics.http.request_misdirected(Misdirected::Browser);
    metrics.process.reloaded(false);
    metrics.callbacks.counter("gone", "accepted").inc();
    metrics.callbacks.forget_counter("gone", "accepted");
    metrics.ledger.set_room(Some(4096), None, Some(7));
    metrics.outcomes.reported(ReportResult::UnknownCommand);
    metrics.outcomes.shown(true, ShowingResult::Retried);
    metrics.outcomes.set_waiting(3, 1);
    metrics.callbacks.refusals_dropped(0, 5);
    metrics.callbacks.refusals_dropped(1, 7);
    metrics.callbacks.waited(Waited::Full);
    metrics.dead_letters.collected(LetterResult::Stray);
    metrics.dead_letters.set_strays(2);
    metrics.reconcile.reconciled("seen", 0);
    metrics.reconcile.set_findings("unseen", 3);
    metrics.reconcile.passed(true);
    metrics.relay.enriched("timed_out");
    metrics.http.handshake_failed(HandshakeFailure::CertificateRefused);
    metrics.process.set_certificate_not_after(CertificateUse::Http, Some(1_900_000_000));
    metrics.process.set_certificate_not_after(CertificateUse::Amqp, Some(1));
    metrics.process.set_certificate_not_after(CertificateUse::Amqp, None);
    let text = metrics.render();
    for line in [
        "countersign_outcomes_total{outcome=\"applied\"} 0",
        "countersign_outcomes_total{outcome=\"refused\"} 0",
        "countersign_outcomes_total{outcome=\"failed\"} 0",
        "countersign_outcomes_total{outcome=\"duplicate\"} 0",
        "countersign_outcomes_total{outcome=\"malformed\"} 0",
        "countersign_outcomes_total{outcome=\"unknown_command\"} 1",
        "countersign_outcomes_total{outcome=\"not_permitted\"} 0",
        "countersign_showings_total{surface=\"card\",result=\"retried\"} 1",
        "countersign_showings_total{surface=\"instance\",result=\"shown\"} 0",
        "countersign_repeats_remembered 0",
        "countersign_repeats_forgotten_total 0",
        "countersign_outcomes_pending 3",
        "countersign_refusals_dropped_total{sender=\"known\"} 1",
        "countersign_refusals_dropped_total{sender=\"stranger\"} 7",
        "countersign_outcomes_parked 1",
        "countersign_callbacks_total{endpoint=\"purchase\",outcome=\"accepted\"} 1",
        "countersign_callback_duration_seconds_count 1",
        "countersign_probes_total{endpoint=\"purchase\"} 1",
        "countersign_answers_waited_total{result=\"heard\"} 0",
        "countersign_answers_waited_total{result=\"nothing\"} 0",
        "countersign_answers_waited_total{result=\"full\"} 1",
        "countersign_dead_letters_total{result=\"open\"} 0",
        "countersign_dead_letters_total{result=\"closed\"} 0",
        "countersign_dead_letters_total{result=\"stray\"} 1",
        "countersign_ledger_strays 2",
        "countersign_spans_total{result=\"sent\"} 0",
        "countersign_spans_total{result=\"failed\"} 0",
        "countersign_spans_total{result=\"dropped\"} 0",
        "countersign_ledger_rows{state=\"pending\"} 7",
        "countersign_ledger_oldest_pending_seconds 0.0",
        "countersign_publishes_total{result=\"returned\"} 2",
        "countersign_publishes_total{result=\"confirmed\"} 0",
        "countersign_confirm_duration_seconds_count 0",
        "countersign_ledger_size_bytes 4096",
        "countersign_ledger_wal_bytes 0",
        "countersign_ledger_free_bytes 7",
        "countersign_amqp_connected 1",
        "countersign_amqp_blocked 0",
        "countersign_reconciled_total{verdict=\"seen\"} 0",
        "countersign_findings{verdict=\"unseen\"} 3",
        "countersign_reconciliation_passes_total{result=\"done\"} 1",
        "countersign_enrichments_total{status=\"timed_out\"} 1",
        "countersign_misdirected_requests_total{kind=\"health_check\"} 0",
        "countersign_misdirected_requests_total{kind=\"browser\"} 1",
        "countersign_misdirected_requests_total{kind=\"other\"} 0",
        "countersign_peers_limited_total{cause=\"rate\"} 0",
        "countersign_peers_limited_total{cause=\"failures\"} 1",
        "countersign_peers_limited_total{cause=\"not_allowed\"} 0",
        "countersign_tls_handshake_failures_total{cause=\"certificate_refused\"} 1",
        "countersign_tls_handshake_failures_total{cause=\"timeout\"} 0",
        "countersign_certificate_not_after_seconds{use=\"http\"} 1900000000",
        "countersign_config_reloads_total{result=\"applied\"} 0",
        "countersign_config_reloads_total{result=\"rejected\"} 1",
        "countersign_build_info{version=",
    ] {
        assert!(text.lines().any(|l| l.starts_with(line)), "{line} is not in\n{text}");
    }
    assert!(!text.contains("gone") && !text.contains("use=\"amqp\""), "{text}");
}
