//! What a worker may speak of.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_may_only_speak_of_its_own_command_and_cannot_freeze_what_it_speaks_of() {
    const BEGUN: i64 = 1_790_000_000_001;
    let all = Loop::new().await;
    for id in ["PO-77", "SALARY-1"] {
        all.center.sync(&instance(&all.code, id, BEGUN)).await;
    }
    let command = all.pressed(&["--instance", "PO-77", "--task", "PO-77:n1"]).await;
    let applied = |instance| with(outcome(&command, "applied"), "instance", instance);

    let mut other_definition = decided(&all.code, "PO-77", BEGUN);
    other_definition["approval_code"] = json!("SALARY");
    let mut trusteeship = decided(&all.code, "PO-77", BEGUN);
    trusteeship["trusteeship_urls"] = json!({ "action_callback_url": "https://evil.example.net/" });
    let mut salary = decided(&all.code, "SALARY-1", i64::MAX);
    salary["links"]["pc_link"] = json!("https://evil.example.net/");
    for (number, (report, reason)) in [
        (salary, "the instance \"SALARY-1\", not the one of its command"),
        (other_definition, "the definition \"SALARY\", not the one of its command"),
        (trusteeship, "where the platform sends decisions"),
    ]
    .into_iter()
    .enumerate()
    {
        let report = applied(report);
        all.report(&report).await;
        let dead = all.vhost.take(DEAD).await;
        assert_eq!(dead.json(), report, "as it was sent");
        assert!(dead.header("countersign-refused").contains(reason), "{:?}", dead.properties);
        let count = (number + 1) as f64;
        all.app.until_metric("countersign_outcomes_total{outcome=\"not_permitted\"}", count).await;
        // The command's history shows it.
        let record = all.app.get(&format!("/api/v1/commands/{command}")).await.json();
        let history = record["history"].as_array().expect("a history");
        let refused = history.iter().rfind(|event| event["event"] == "report_refused").expect("the refusal");
        assert!(refused["reason"].as_str().is_some_and(|told| told.contains(reason)), "{refused}");
        assert_eq!((&refused["outcome"], &record["outcome"]), (&json!("applied"), &Value::Null));
        let shown = all.ledger(&["show", &command]).await.ended_with(0).stdout;
        let told = |line: &str| line.contains("report was refused") && line.contains(reason);
        assert!(shown.lines().any(told), "{shown}");
    }
    for id in ["PO-77", "SALARY-1"] {
        let untouched = all.instance(id).await;
        assert_eq!(untouched["status"], "PENDING", "{id}");
        assert_eq!(untouched["update_time"], BEGUN.to_string(), "{id}");
    }

    // Its own instance, but with the largest version.
    all.report(&applied(decided(&all.code, "PO-77", i64::MAX))).await;
    all.until_showing(&command, "shown").await;
    let version = all.instance("PO-77").await["update_time"].as_str().unwrap().parse::<i64>().unwrap();
    let soon = jiff::Timestamp::now().as_millisecond() + 6 * 60_000;
    assert!(version < soon, "{version} is far ahead of the clock");
    let mut later = decided(&all.code, "PO-77", BEGUN);
    later["status"] = json!("REJECTED");
    all.report(&with(outcome(&command, "refused"), "instance", later)).await;
    eventually("what was reported later", async || {
        let instance = all.instance("PO-77").await;
        if instance["status"] == "REJECTED" { Ok(()) } else { Err(instance) }
    })
    .await;

    // If another writer's version cannot be exceeded, the outcome is not reported as shown.
    all.center.sync(&instance(&all.code, "PO-77", i64::MAX)).await;
    all.report(&applied(decided(&all.code, "PO-77", BEGUN))).await;
    let told = all.until_showing(&command, "parked").await;
    let note = told["instance"]["note"].as_str().expect("a note");
    assert!(note.contains("ignores everything that is not larger"), "{note}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_lists_what_else_its_workers_may_speak_of_and_where_links_may_lead() {
    const BEGUN: i64 = 1_790_000_000_001;
    let mut all = Loop::with(|config| {
        config
            .env("COUNTERSIGN__ENDPOINTS__0__OUTCOMES__INSTANCE_PATTERN", "PO-[0-9]+")
            .env("COUNTERSIGN__ENDPOINTS__0__OUTCOMES__APPROVAL_CODES", "[\"not yet\"]")
            .env("COUNTERSIGN__ENDPOINTS__0__OUTCOMES__LINK_HOSTS", "[\"erp.example.com\"]")
    })
    .await;
    all.app.terminate();
    assert!(all.app.ended().await.success());
    let codes = format!("[{:?}]", all.code);
    all.app.reconfigure(|config| config.env("COUNTERSIGN__ENDPOINTS__0__OUTCOMES__APPROVAL_CODES", &codes));
    all.app.restart().await;

    all.center.sync(&instance(&all.code, "PO-77", BEGUN)).await;
    let card = all.card().await;
    let command = all.pressed(&["--message", &card]).await;
    let applied = |instance| with(outcome(&command, "applied"), "instance", instance);
    all.report(&applied(decided(&all.code, "SALARY-1", BEGUN))).await;
    let dead = all.vhost.take(DEAD).await;
    assert!(dead.header("countersign-refused").contains("its command names none"), "{:?}", dead.properties);
    let mut elsewhere = decided(&all.code, "PO-77", BEGUN);
    elsewhere["task_list"][0]["links"]["pc_link"] = json!("https://erp.example.com@evil.example.net/");
    all.report(&applied(elsewhere)).await;
    let dead = all.vhost.take(DEAD).await;
    assert!(
        dead.header("countersign-refused").contains("a link of a task points to"),
        "{:?}",
        dead.properties
    );
    all.report(&applied(decided(&all.code, "PO-77", BEGUN))).await;
    all.until_showing(&command, "shown").await;
    assert_eq!(all.instance("PO-77").await["status"], "APPROVED");
}
