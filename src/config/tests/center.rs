//! The section `[approval_center]`.

use super::*;
use crate::center::client::{AppType, Settings};

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

#[test]
fn a_host_that_only_begins_like_this_machine_is_another() {
    let warnings = |keys: &str| {
        Case::file(&format!("[approval_center]\napp_id = 'cli_1'\napp_secret = 'fake'\n{keys}\n{SMALL}"))
            .warnings()
    };
    for host in ["localhost.example.com", "127.0.0.1.example.com", "127.example.com:8900"] {
        let told = warnings(&format!("historic_base_url = 'http://{host}'"));
        has(
            &told,
            &format!("countersign.toml:4: approval_center.historic_base_url: http://{host} is not encrypted"),
        );
        let told = warnings(&format!("base_url = 'http://{host}'"));
        has(&told, &format!("countersign.toml:4: approval_center.base_url: http://{host} is not encrypted"));
    }
    for host in ["localhost:8900", "127.0.0.1:8900", "[::1]:8900"] {
        let keys = format!("base_url = 'http://{host}'\nhistoric_base_url = 'http://{host}'");
        assert_eq!(warnings(&keys), Vec::<String>::new(), "{host}");
    }
}

#[test]
fn decisions_are_compared_every_so_often_or_never() {
    let reconcile = |section: &str| Case::file(&format!("[reconcile]\n{section}\n{SMALL}"));
    let seconds = |span: Duration| span.as_secs();
    let default = Case::file(SMALL).config().reconcile;
    assert_eq!(
        (seconds(default.after), default.every.map(seconds), seconds(default.within)),
        (600, Some(600), 604_800)
    );
    assert_eq!(reconcile("every = \"off\"").config().reconcile.every, None);
    let found = reconcile("after = \"soon\"\nevery = \"500ms\"\nwithin = \"91d\"").faults();
    has(&found, "countersign.toml:2: reconcile.after: \"soon\" is not a duration");
    has(&found, "countersign.toml:3: reconcile.every: \"500ms\" is out of range");
    has(&found, "countersign.toml:4: reconcile.within: \"91d\" is out of range");
    let found = reconcile("after = \"1h\"\nwithin = \"1h\"").faults();
    has(&found, "countersign.toml:3: reconcile.within: is no longer than reconcile.after");
}

#[test]
fn commands_are_completed_only_where_that_is_asked_for_and_by_a_center_that_is_configured() {
    let case = |center: &str, enrichment: &str| {
        Case::file(&format!("{center}\n{SMALL}\n[endpoints.enrichment]\n{enrichment}\n"))
    };
    let app = "[approval_center]\napp_id = \"cli_1\"\napp_secret = \"fake\"";
    assert!(Case::file(SMALL).config().enrichment.is_empty());
    assert!(case("", "timeout = \"1s\"").config().enrichment.is_empty());
    let config = case(app, "fields = [\"task\", \"operator\"]").config();
    let (_, settings) = config.enrichment.iter().next().unwrap();
    assert_eq!((settings.operator, settings.task, settings.instance), (true, true, false));
    assert_eq!(settings.timeout.as_secs(), 2);
    let found = case(app, "fields = [\"tasks\"]\ntimeout = \"11s\"").faults();
    assert!(
        found.iter().any(|fault| fault.contains("fields[0]: \"tasks\" cannot be completed")),
        "{found:?}"
    );
    assert!(found.iter().any(|fault| fault.contains("timeout: \"11s\" is out of range")), "{found:?}");
    let found = case("", "fields = [\"task\"]").faults();
    assert!(
        found.iter().any(|fault| fault.contains("enrichment.fields: needs the approval center")),
        "{found:?}"
    );
}
