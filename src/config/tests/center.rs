//! The section `[approval_center]`.

use super::*;
use crate::approval_center::{AppType, Settings};

fn settings(section: &str) -> Option<Settings> {
    Case::file(&format!("[approval_center]\n{section}\n{SMALL}")).config().approval_center
}

fn faults(section: &str) -> Vec<String> {
    Case::file(&format!("[approval_center]\n{section}\n{SMALL}")).faults()
}

#[test]
fn it_is_off_unless_there_is_an_app() {
    assert!(Case::file(SMALL).config().approval_center.is_none());
    assert!(settings("platform = \"lark\"").is_none());
    has(
        &faults("app_secret = \"hush\""),
        "countersign.toml:2: approval_center.app_secret: is given without an app_id; expected app_id as well",
    );
    has(&faults("app_id = \"\""), "countersign.toml:2: approval_center.app_id: \"\" is empty");
}

#[test]
fn the_brand_names_both_hosts_and_a_host_of_ones_own_stands_for_both() {
    let app = "app_id = \"cli_1\"\napp_secret = \"fake\"\n";
    let hosts = |more: &str| {
        let settings = settings(&format!("{app}{more}")).unwrap();
        (settings.base_url, settings.historic_base_url)
    };
    let pair = |one: &str, two: &str| (one.to_owned(), two.to_owned());
    assert_eq!(hosts(""), pair("https://open.feishu.cn", "https://www.feishu.cn"));
    assert_eq!(hosts("platform = \"lark\""), pair("https://open.larksuite.com", "https://www.larksuite.com"));
    assert_eq!(hosts("base_url = \"http://127.0.0.1:1/\""), pair("http://127.0.0.1:1", "http://127.0.0.1:1"));
    assert_eq!(
        hosts("base_url = \"https://g.example/a\"\nhistoric_base_url = \"https://h.example\""),
        pair("https://g.example/a", "https://h.example")
    );
}

#[test]
fn an_app_of_the_store_needs_its_tenant_and_its_ticket() {
    let app = "app_id = \"cli_1\"\napp_secret = \"fake\"\napp_type = \"store\"\n";
    let found = faults(app);
    has(&found, "countersign.toml:1: approval_center.tenant_key: is missing");
    has(&found, "countersign.toml:1: approval_center.app_ticket: is missing");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ticket");
    fs::write(&path, "fake-ticket\n").unwrap();
    let more = format!("tenant_key = \"t\"\napp_ticket_file = {:?}", path.display().to_string());
    let AppType::Store(store) = settings(&format!("{app}{more}")).unwrap().app_type else { panic!() };
    assert!(store.app_ticket.equals("fake-ticket"));
    assert_eq!(store.app_ticket_file, Some(path));
    has(
        &faults("app_id = \"cli_1\"\napp_secret = \"fake\"\ntenant_key = \"t\""),
        "countersign.toml:4: approval_center.tenant_key: is for app_type = \"store\"",
    );
}

#[test]
fn what_is_wrong_is_told_and_the_secret_is_not() {
    let found = faults("app_id = \"cli_1\"\nbase_url = \"open.feishu.cn\"\ncall_deadline_ms = 0");
    has(&found, "countersign.toml:1: approval_center.app_secret: is missing");
    has(&found, "countersign.toml:3: approval_center.base_url: \"open.feishu.cn\" is not a URL");
    has(&found, "countersign.toml:4: approval_center.call_deadline_ms: 0 is out of range");
    let case = Case::file(&format!(
        "[approval_center]\napp_id = \"cli_1\"\napp_secret = \"hush\"\nbase_url = \"http://g.example\"\n{SMALL}"
    ));
    let shown = format!("{:?}{}", case.config(), case.load().effective.to_toml(true));
    assert!(!shown.contains("hush") && shown.contains("app_secret = \"[redacted]\""), "{shown}");
    has(&case.warnings(), "countersign.toml:4: approval_center.base_url: http://g.example is not encrypted");
}
