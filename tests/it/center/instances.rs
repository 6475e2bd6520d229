//! Synchronising, listing, searching, reading (seeds 000, 001, 003 and 004).

use super::{Center, FAILED, HOOK, NATIVE, USAGE, instance};
use serde_json::{Value, json};
use std::collections::BTreeSet;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_synchronised_is_told_by_every_list_field_by_field() {
    let center = Center::start().await;
    let code = center.definition(HOOK).await;
    let synced = center.sync(&instance(&code, "PO-77", 1_790_000_000_001)).await;
    assert_eq!(synced["process_record"]["task"]["insert_num"], 1, "{synced}");
    assert_eq!((&synced["data"]["instance_id"], &synced["ignored"]), (&json!("PO-77"), &json!([])));
    let v4 = center.json(&["tasks", "--instance", "PO-77"]).await;
    let number = v4[0]["approval_id"].clone();
    let expected = json!({
        "instance_id": "PO-77", "approval_id": number, "approval_code": code, "status": "PENDING",
        "update_time": "1790000000001",
        "tasks": [{ "id": "PO-77:n1", "status": "PENDING", "update_time": "1790000000001" }]
    });
    assert_eq!(v4, [expected]);
    assert_eq!(
        center.json(&["tasks", "--historic", "--instance", "PO-77"]).await,
        v4,
        "v2 has times as numbers"
    );
    let pending = ["tasks", "--definition", &code, "--status", "PENDING"];
    assert_eq!(center.json(&pending).await, v4);
    assert_eq!(center.json(&[&pending[..], &["--user", "zhang3"]].concat()).await, v4);
    assert!(center.json(&[&pending[..], &["--user", "li4"]].concat()).await.is_empty());
    let shown = center.run(&["tasks", "--instance", "PO-77"]).await.ended_with(0).stdout;
    for words in ["PO-77", "PO-77:n1", "PENDING", "2026-09-21T14:13:20.001Z", &code, number.as_str().unwrap()]
    {
        assert!(shown.contains(words), "{words} is not in {shown}");
    }

    let found = center.json(&["instances", "--external-id", "PO-77"]).await;
    let own = &found[0]["instance"];
    let expected = json!({
        "approval": { "code": code, "name": "采购审批", "is_external": true, "external": { "batch_cc_read": false },
            "approval_id": found[0]["approval"]["approval_id"], "icon": "https://icons.example.com/approval.png" },
        "group": { "external_id": "erp", "name": "企业资源" },
        "instance": { "code": own["code"], "external_id": "PO-77", "user_id": "li4",
            "start_time": "1790000000000", "end_time": "0", "status": "pending", "title": "采购单 77",
            "extra": "{\"business_key\":\"PO-77\"}", "serial_id": own["serial_id"],
            "link": { "pc_link": "https://erp.example.com/77", "mobile_link": "https://erp.example.com/m/77" } }
    });
    assert_eq!(found, [expected]);
    let shown = center.run(&["instances", "--definition", &code]).await.ended_with(0).stdout;
    for words in ["PO-77", "PENDING", "采购单 77", "li4", "企业资源"] {
        assert!(shown.contains(words), "{words} is not in {shown}");
    }
    let both = center.json(&["instances", "--definition", &code, "--group", "no such group"]).await;
    assert_eq!(both.len(), 1, "definition and group add to one another");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_not_larger_is_ignored_by_the_platform_and_told_by_us() {
    let center = Center::start().await;
    let code = center.definition(HOOK).await;
    center.sync(&instance(&code, "PO-77", 1_790_000_000_005)).await;
    let mut stale = instance(&code, "PO-77", 1_790_000_000_005);
    stale["status"] = json!("APPROVED");
    let file = center.write("stale.json", &stale.to_string());
    let ran = center.run(&["sync", file.to_str().unwrap()]).await.ended_with(FAILED);
    assert!(ran.stderr.contains("update_time is not larger"), "{}", ran.stderr);
    assert_eq!(center.state().await["instances"][0]["status"], "PENDING");
    stale["update_time"] = json!("1790000000006");
    // As editors on Windows write it.
    let file = center.write("half.json", &format!("\u{feff}{stale}"));
    center.run(&["sync", file.to_str().unwrap()]).await.ended_with(0);
    let state = center.state().await;
    assert_eq!(state["instances"][0]["status"], "APPROVED", "the outer version was larger");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_instances_tells_what_is_unknown_and_what_is_otherwise() {
    let center = Center::start().await;
    let code = center.definition(HOOK).await;
    let ours = instance(&code, "PO-77", 1_790_000_000_001);
    center.sync(&ours).await;
    let same = center.write("same.json", &ours.to_string());
    let ran = center.run(&["check-instances", same.to_str().unwrap()]).await.ended_with(0);
    assert_eq!(ran.stdout, "1 up to date\n");
    let mut later = ours.clone();
    later["task_list"][0]["update_time"] = json!("1790000000009");
    let all = json!([
        later,
        { "instance_id": "PO-78", "update_time": "1", "tasks": [] },
        { "instance_id": "PO-77", "update_time": "1790000000001", "tasks": [{ "task_id": "none", "update_time": "1" }] }
    ]);
    let file = center.write("other.json", &all.to_string());
    let ran = center.run(&["check-instances", file.to_str().unwrap(), "--json"]).await.ended_with(FAILED);
    let told: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let task = |id: &str, time: &str| json!([{ "task_id": id, "update_time": time }]);
    assert_eq!(
        told,
        [
            json!({ "instance_id": "PO-77", "update_time": "1790000000001", "tasks": task("PO-77:n1", "1790000000001") }),
            json!({ "instance_id": "PO-78", "update_time": "0", "tasks": [] }),
            json!({ "instance_id": "PO-77", "update_time": "1790000000001", "tasks": task("none", "0") }),
        ]
    );
    let shown = center.run(&["check-instances", file.to_str().unwrap()]).await.ended_with(FAILED).stdout;
    assert!(
        shown.contains("PO-78") && shown.contains("unknown") && shown.contains("1790000000009"),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_wrong_with_an_instance_is_told_before_it_is_sent() {
    let center = Center::start().await;
    let mut broken = instance("CODE", "PO-77", 1);
    broken["task_list"][0]["assignees"] = json!(["zhang3"]);
    broken["task_list"][0]["node_name"] = json!("部门经理");
    broken["task_list"][0]["update_time"] = Value::Null;
    let file = center.write("broken.json", &broken.to_string());
    let file = file.to_str().unwrap();
    let ran = center.run(&["sync", file]).await.ended_with(USAGE);
    for fault in
        ["assignees: is not a member", "node_name: \"部门经理\" is not a key", "update_time: is missing"]
    {
        assert!(ran.stderr.contains(fault), "{fault} is not in {}", ran.stderr);
    }
    // The platform reports one layer at a time: of the same three faults it names one, and one never.
    let ran = center.run(&["sync", "--force", file]).await.ended_with(FAILED);
    assert!(
        ran.stderr.contains("code 99992402") && ran.stderr.contains("task_list[0].node_name"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("task_list[0].update_time: is required"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_instances_come_in_pages_and_each_comes_once() {
    let center = Center::with(&["--per-second", "100000", "--per-minute", "100000"], "").await;
    let code = center.definition(HOOK).await;
    let many: Vec<_> =
        (0..47).map(|number| instance(&code, &format!("PO-{number}"), 1_790_000_000_000 + number)).collect();
    let file = center.write("many.json", &Value::from(many).to_string());
    center.run(&["sync", file.to_str().unwrap()]).await.ended_with(0);
    let pending = ["--definition", &code, "--status", "PENDING"];
    for args in [
        [&["tasks"], &pending[..], &["--page-size", "10"]].concat(),
        [&["tasks", "--historic"], &pending[..]].concat(),
        ["instances", "--definition", &code, "--page-size", "5"].to_vec(),
    ] {
        let ran = center.run(&[&args[..], &["--json"]].concat()).await.ended_with(0);
        let found: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let id = |found: &Value| {
            found["instance_id"].as_str().or(found["instance"]["external_id"].as_str()).map(str::to_owned)
        };
        let ids: BTreeSet<_> = found.iter().filter_map(id).collect();
        assert_eq!((found.len(), ids.len()), (47, 47), "{args:?}");
        assert!(ran.stderr.contains("page 3: "), "progress is told: {}", ran.stderr);
    }
    let limited =
        center.run(&["instances", "--definition", &code, "--limit", "7", "--json"]).await.ended_with(0);
    assert_eq!(limited.stdout.lines().count(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_native_instance_is_shown_with_form_tasks_comments_and_history() {
    let center = Center::start().await;
    let v4 = &center.json(&["instance", NATIVE]).await[0];
    assert_eq!((&v4["approval_name"], &v4["status"]), (&json!("出差申请"), &json!("PENDING")));
    assert_eq!((&v4["start_time"], &v4["end_time"]), (&json!("1790000000000"), &json!("0")));
    assert_eq!(v4["task_list"][0]["custom_node_id"], "manager");
    assert_eq!(v4["comment_list"][0]["files"][0]["url"], "https://files.example.com/c?a=1&b=2");
    assert_eq!(v4["timeline"][2]["cc_user_list"][0]["cc_id"], "c1");
    assert_eq!(v4["timeline"][3]["type"], "SHRUGGED", "an unknown word is kept");
    assert_eq!(v4["widgets"][5]["value"]["schedule"][0]["transport"], "Train");
    assert_eq!(v4["widgets"][8]["value"], json!({ "depth": 3 }), "an unknown widget is kept");
    // By its uuid, in the historic format: times as numbers, another word for transport, missing members.
    let v2 = &center.json(&["instance", "emulator-trip-1", "--historic"]).await[0];
    assert_eq!((&v2["start_time"], &v2["widgets"][5]), (&v4["start_time"], &v4["widgets"][5]));
    assert_eq!((v2.get("reverted"), v2.get("instance_code")), (None, None));
    let shown = center.run(&["instance", NATIVE]).await.ended_with(0).stdout;
    for words in [
        "出差申请",
        "202610010001",
        "2026-09-21T14:13:20.000Z",
        "拜访客户",
        "1234.56",
        "China/Beijing to China/Shanghai by Train",
        "[住宿: 2]",
        "+86 13100000000",
        "部门经理 manager",
        "SEQUENTIAL",
        "早去早回",
        "https://files.example.com/c?a=1&b=2",
        "SHRUGGED",
    ] {
        assert!(shown.contains(words), "{words} is not in {shown}");
    }
    let ran = center.run(&["instance", "nope"]).await.ended_with(FAILED);
    assert!(ran.stderr.contains("code 1390003"), "{}", ran.stderr);
    let ran = center.run(&["instance", "nope", "--historic"]).await.ended_with(FAILED);
    assert!(ran.stderr.contains("code 60003 (HTTP 200)"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_that_the_platform_would_refuse_are_told_without_asking_it() {
    let center = Center::start().await;
    for (args, words) in [
        (&["tasks", "--status", "PENDING"][..], "instance ids alone"),
        (&["tasks", "--user", "zhang3", "--status", "PENDING"], "instance ids alone"),
        (&["tasks", "--definition", "C"], "instance ids alone"),
        (&["tasks", "--definition", "C", "--status", "PENDNG"], "it must be one of PENDING"),
        (&["instances", "--title", "x"], "one of user_id, approval_code"),
        (&["instances", "--user", "u", "--from", "31d"], "more than 30 days"),
        (&["instances", "--user", "u", "--status", "REJECTED"], "RECALL, REJECT"),
    ] {
        let ran = center.run(args).await.ended_with(USAGE);
        assert!(ran.stderr.contains(words), "{args:?}: {}", ran.stderr);
    }
    assert_eq!(center.state().await["tokens_given"], 0, "nobody was asked");
}
