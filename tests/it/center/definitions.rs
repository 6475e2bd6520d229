//! Definitions: what `get` shows, what `check` finds, and the traps that `apply` avoids
//! (platform.md#reading-a-definition).

use super::{AWAY, Center, FAILED, HOOK, USAGE, definition};
use crate::support::Program;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn get_shows_every_field_and_no_secret() {
    let center = Center::start().await;
    let code = center.definition(HOOK).await;
    let got = &center.json(&["definition", "get", &code]).await[0];
    assert_eq!(
        *got,
        json!({
            "approval_name": "@i18n@po_name", "approval_code": "PO_APPROVAL", "group_code": "erp",
            "group_name": "@i18n@group", "description": "@i18n@po_name",
            "external": {
                "biz_name": "@i18n@biz", "biz_type": "purchase",
                "create_link_mobile": "https://erp.example.com/m/new",
                "create_link_pc": "https://erp.example.com/new",
                "support_pc": true, "support_mobile": true, "support_batch_read": false,
                "action_callback_url": HOOK,
                "action_callback_token": "[redacted]", "action_callback_key": "[redacted]",
                "allow_batch_operate": false, "exclude_efficiency_statistics": false
            },
            "viewers": [{ "viewer_type": "TENANT" }],
            "i18n_resources": [{ "locale": "zh-CN", "is_default": true, "texts": [
                { "key": "@i18n@biz", "value": "ERP" }, { "key": "@i18n@group", "value": "企业资源" },
                { "key": "@i18n@po_name", "value": "采购审批" }] }],
            "managers": ["li4"]
        })
    );
    let shown = center.run(&["definition", "get", &code]).await.ended_with(0).stdout;
    for words in [
        "采购审批 (@i18n@po_name)",
        "external.action_callback_url",
        HOOK,
        "external.support_mobile",
        "external.allow_batch_operate",
        "TENANT",
        "zh-CN, the default:",
        "li4",
    ] {
        assert!(shown.contains(words), "{words} is not in {shown}");
    }
    assert!(!shown.contains("fake-"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_custom_code_is_told_to_be_the_wrong_one() {
    let center = Center::start().await;
    center.definition(HOOK).await;
    let ran = center.run(&["definition", "get", "PO_APPROVAL"]).await.ended_with(FAILED);
    assert!(ran.stderr.contains("code 1390002"), "{}", ran.stderr);
    assert!(ran.stderr.contains("log id emu"), "{}", ran.stderr);
    assert!(ran.stderr.contains("use the real approval_code"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_finds_what_is_wrong_and_says_how_to_mend_it() {
    let center = Center::start().await;
    let code = center.definition(HOOK).await;
    let ran = center.run(&["definition", "check", &code]).await.ended_with(0);
    assert!(!ran.stdout.contains("wrong") && ran.stdout.contains("ok     token and key"), "{}", ran.stdout);
    let public = ["definition", "check", &code, "--public-url", "https://hook.example.com", "--json"];
    let ran = center.run(&public).await.ended_with(FAILED);
    assert!(ran.stdout.contains("set it to https://hook.example.com/callbacks/purchase"), "{}", ran.stdout);
    // Somebody else changes the definition: other secrets, and buttons only on PC.
    let text = definition(HOOK)
        .replace("endpoint = \"purchase\"\n", &format!("real_code = \"{code}\"\n"))
        .replace("public_url = \"http://127.0.0.1:1\"\n", "")
        .replace("support_mobile = true", "support_mobile = false\naction_callback_token = \"fake-other\"");
    let file = center.write("changed.toml", &text);
    center.run(&["definition", "apply", file.to_str().unwrap()]).await.ended_with(0);
    let ran = center.run(&["definition", "check", &code, "--endpoint", "purchase"]).await.ended_with(FAILED);
    assert!(
        ran.stdout.contains("wrong  token and key: action_callback_token is none of those"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("wrong  support_mobile: off"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("fake-"), "{}", ran.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_resets_no_switch_that_the_file_does_not_name() {
    let center = Center::start().await;
    let code = center.definition(HOOK).await;
    let small = format!(
        "approval_code = 'PO_APPROVAL'\nreal_code = '{code}'\n[external]\nallow_batch_operate = true\n"
    );
    let file = center.write("small.toml", &small);
    let file = file.to_str().unwrap();
    let ran = center.run(&["definition", "apply", "--dry-run", file]).await.ended_with(0);
    assert_eq!(ran.stderr.lines().last(), Some("external.allow_batch_operate: false -> true"));
    center.run(&["definition", "apply", file]).await.ended_with(0);
    let external = &center.json(&["definition", "get", &code]).await[0]["external"];
    assert_eq!(
        (&external["allow_batch_operate"], &external["support_mobile"], &external["action_callback_key"]),
        (&json!(true), &json!(true), &json!("[redacted]"))
    );
    let ran = center.run(&["definition", "check", &code]).await.ended_with(0);
    assert!(ran.stdout.contains("ok     token and key"), "the secrets are still the same: {}", ran.stdout);
    let ran = center.run(&["definition", "apply", file]).await.ended_with(0);
    assert!(ran.stderr.contains("nothing to change"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_twin_is_made_of_a_definition() {
    let center = Center::start().await;
    let code = center.definition(HOOK).await;
    let plain = definition(HOOK);
    let count = async || center.state().await["definitions"].as_array().unwrap().len();
    // With the real code instead of the custom one, the platform would silently create a second definition.
    let twin = center.write("twin.toml", &plain.replace("PO_APPROVAL", &code));
    let ran =
        center.run(&["definition", "apply", "--create", twin.to_str().unwrap()]).await.ended_with(USAGE);
    assert!(ran.stderr.contains("is the real code of the definition PO_APPROVAL"), "{}", ran.stderr);
    // A typo in the custom code of a change.
    let slip = format!("real_code = \"{code}\"\n{}", plain.replace("PO_APPROVAL", "PO_APROVAL"));
    let slip = center.write("slip.toml", &slip);
    let ran = center.run(&["definition", "apply", slip.to_str().unwrap()]).await.ended_with(USAGE);
    assert!(
        ran.stderr.contains("has the custom approval_code PO_APPROVAL, not PO_APROVAL"),
        "{}",
        ran.stderr
    );
    // An unwanted creation.
    let other = center.write("other.toml", &plain.replace("PO_APPROVAL", "OTHER"));
    let ran = center.run(&["definition", "apply", other.to_str().unwrap()]).await.ended_with(USAGE);
    assert!(ran.stderr.contains("use --create"), "{}", ran.stderr);
    assert_eq!(count().await, 1);
    // Check that the emulator has the trap; otherwise these tests would show nothing.
    center.run(&["definition", "apply", "--create", other.to_str().unwrap()]).await.ended_with(0);
    assert_eq!(count().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoami_tells_the_app_the_token_and_the_ids_of_a_user() {
    let center = Center::start().await;
    let told = &center.json(&["whoami", "--user", "zhang3"]).await[0];
    assert_eq!((&told["app_id"], &told["app_type"]), (&json!("cli_emulator"), &json!("internal")));
    assert_eq!(told["token_expires_in_seconds"].as_u64().map(|seconds| seconds > 7000), Some(true), "{told}");
    let open_id = told["user"]["open_id"].as_str().unwrap();
    assert!(open_id.starts_with("ou_"), "{told}");
    let back = &center.json(&["whoami", "--user", open_id, "--user-id-type", "open_id"]).await[0];
    assert_eq!(back["user"]["user_id"], "zhang3");
    let ran = center.run(&["whoami", "--user", "nobody"]).await.ended_with(FAILED);
    assert!(ran.stderr.contains("code 41012"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_not_let_in_is_told_why_and_never_its_secret() {
    let center = Center::with(
        &["--without-scope", "approval:approval", "--without-scope", "approval:external_approval"],
        "",
    )
    .await;
    let ran = center.run(&["definition", "get", "X"]).await.ended_with(FAILED);
    assert!(
        ran.stderr.contains("any one of the scopes approval:approval, approval:external_approval"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("/app/cli_emulator/auth"), "{}", ran.stderr);
    center.configure("cli_emulator", "fake-hush-secret", "");
    let ran = center.run(&["whoami"]).await.ended_with(FAILED);
    assert!(ran.stderr.contains("code 10015") && ran.stderr.contains("app_secret"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("hush"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_center_or_a_configuration_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let ran = Program::new(["center", "whoami"]).dir(dir.path()).run().await.ended_with(USAGE);
    assert!(ran.stderr.contains("approval_center.app_id is not configured"), "{}", ran.stderr);
    let text = "[approval_center]\nbase_url = \"http://127.0.0.1:1\"\napp_id = \"a\"\napp_secret = \"hush\"\ncall_deadline_ms = 300\n";
    std::fs::write(dir.path().join("countersign.toml"), text).unwrap();
    let ran = Program::new(["center", "whoami"]).dir(dir.path()).run().await.ended_with(AWAY);
    assert!(
        ran.stderr.contains("http://127.0.0.1:1 cannot be reached") && !ran.stderr.contains("hush"),
        "{}",
        ran.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_of_the_store_gets_its_token_by_its_ticket() {
    let store = "app_type = \"store\"\ntenant_key = \"emulator-tenant\"\napp_ticket = ";
    let center = Center::with(&[], &format!("{store}\"emulator-ticket\"")).await;
    let told = &center.json(&["whoami"]).await[0];
    assert_eq!(told["app_type"], "store");
    center.configure("cli_emulator", "emulator-secret", &format!("{store}\"an-old-one\""));
    let ran = center.run(&["whoami"]).await.ended_with(FAILED);
    assert!(
        ran.stderr.contains("code 10012") && ran.stderr.contains("a new one was asked for"),
        "{}",
        ran.stderr
    );
    assert_eq!(center.state().await["tickets_sent"], 1, "{}", ran.stderr);
}
