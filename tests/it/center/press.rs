//! Buttons of the emulator: a real callback into the real service, and the approver's view.

use super::{Center, FAILED, instance, messages};
use crate::support::{App, Config, Endpoint, NOWHERE};
use serde_json::{Value, json};

/// The service with the endpoint `purchase` as in the emulator's definition; accepting needs no broker.
async fn service() -> App {
    let endpoint =
        Endpoint::encrypted("purchase").credentials(&[("fake-token-number-1", Some("fake-key-number-1"))]);
    App::with(Config::bare(NOWHERE).endpoint(endpoint)).await
}

async fn commands(app: &App) -> Vec<Value> {
    let listed = app.get("/api/v1/commands").await.json();
    let list = listed.as_array().or_else(|| listed["commands"].as_array()).cloned();
    list.unwrap_or_else(|| panic!("no list of commands: {listed}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pressed_task_comes_as_an_encrypted_callback_and_is_kept() {
    let app = service().await;
    let center = Center::start().await;
    let code = center.definition(&app.callback_url("purchase")).await;
    center.sync(&instance(&code, "PO-77", 1_790_000_000_001)).await;
    let task = ["--instance", "PO-77", "--task", "PO-77:n1"];
    let told = center.press(&[&task[..], &["--action", "APPROVE"]].concat()).await.ended_with(0).json();
    assert_eq!(
        (&told["encrypted"], &told["http_status"], &told["origin"], &told["user_id"]),
        (&json!(true), &json!(200), &json!("list"), &json!("zhang3"))
    );
    assert!(told["answer"].as_str().unwrap().contains("\"accepted\""), "{told}");
    let kept = commands(&app).await;
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(
        (&kept[0]["instance_id"], &kept[0]["task_id"], &kept[0]["user_id"]),
        (&json!("PO-77"), &json!("PO-77:n1"), &json!("zhang3"))
    );
    // The center never advances a task: it stays pending until it is synchronised again.
    assert_eq!(center.json(&["tasks", "--instance", "PO-77"]).await[0]["tasks"][0]["status"], "PENDING");
    let mut done = instance(&code, "PO-77", 1_790_000_000_002);
    done["status"] = json!("APPROVED");
    done["task_list"][0]["status"] = json!("APPROVED");
    center.sync(&done).await;
    assert_eq!(center.json(&["tasks", "--instance", "PO-77"]).await[0]["tasks"][0]["status"], "APPROVED");
    let again = center.press(&task).await.ended_with(FAILED);
    assert!(again.stderr.contains("the task is APPROVED"), "{}", again.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pressed_card_turns_only_if_it_was_sent_with_a_next_status() {
    let app = service().await;
    let center = Center::start().await;
    for (next_status, shown) in [(false, "BUTTONS"), (true, "APPROVED")] {
        let card = messages::card(&app.callback_url("purchase"), next_status);
        let id = messages::send(&center, &card).await;
        let told = center.press(&["--message", &id]).await.ended_with(0).json();
        assert_eq!((&told["origin"], &told["card"]), (&json!("card"), &json!(shown)), "{told}");
    }
    let kept = commands(&app).await;
    assert_eq!(kept.len(), 2, "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_approver_reads_the_services_sentence_and_an_unreached_one_that_it_failed() {
    let app = service().await;
    let center = Center::start().await;
    let code = center.definition(&app.callback_url("purchase")).await;
    let mut custom = instance(&code, "PO-77", 1_790_000_000_001);
    custom["task_list"][0]["action_configs"] = json!([{ "action_type": "HOLD", "action_name": "@i18n@n" }]);
    center.sync(&custom).await;
    let task = ["--instance", "PO-77", "--task", "PO-77:n1", "--action", "HOLD"];
    let told = center.press(&task).await.ended_with(FAILED).json();
    assert_eq!((&told["accepted"], &told["http_status"]), (&json!(false), &json!(422)), "{told}");
    let answer: Value = serde_json::from_str(told["answer"].as_str().unwrap()).unwrap();
    assert_eq!(told["shown"], answer["message"], "the sentence for the approver");
    drop(app);
    let told = center.press(&task).await.ended_with(FAILED).json();
    assert_eq!((&told["http_status"], &told["shown"]), (&Value::Null, &json!("提交失败 (not reached)")));
}
