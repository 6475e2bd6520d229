//! `countersign doctor` on healthy and broken set-ups, checked by the lines it prints.

use super::{Center, FAILED};
use crate::support::{
    App, Callback, Config, Endpoint, NOWHERE, Program, Ran, Vhost, Worker, eventually, quoted,
};
use std::path::{Path, PathBuf};

/// All components on the path of a decision.
struct Setup {
    vhost: Vhost,
    center: Center,
    app: App,
    code: String,
}

impl Setup {
    async fn new(flags: &[&str]) -> Self {
        let vhost = Vhost::new().await;
        let center = Center::with(flags, "").await;
        let endpoint = Endpoint::encrypted("purchase")
            .credentials(&[("fake-token-number-1", Some("fake-key-number-1"))])
            .context("format", "\"json\"")
            .context("fields", "{ task_id = \"/task\", round = \"/round\" }");
        let config = Config::bare(vhost.url())
            .leaving_dead_letters()
            .endpoint(endpoint)
            .set("approval_center", "base_url", &quoted(&center.url))
            .set("approval_center", "app_id", &quoted("cli_emulator"))
            .set("approval_center", "app_secret", &quoted("emulator-secret"));
        let app = App::with(config).await;
        vhost.until_declared("countersign.commands").await;
        let code = center.definition(&app.callback_url("purchase")).await;
        Self { vhost, center, app, code }
    }

    async fn doctor(&self) -> Ran {
        doctor(self.app.file(), &self.code).await
    }

    /// The configuration with one line changed.
    fn altered(&self, from: &str, to: &str) -> PathBuf {
        let text = std::fs::read_to_string(self.app.file()).expect("the configuration");
        assert!(text.contains(from), "{from} is not in {text}");
        let path = self.app.dir().join("altered.toml");
        std::fs::write(&path, text.replace(from, to)).expect("the directory is ours");
        path
    }

    /// Changes keys of the definition's `external` at the center.
    async fn redefine(&self, external: &str) {
        let code = quoted(&self.code);
        let text = format!("approval_code = \"PO_APPROVAL\"\nreal_code = {code}\n[external]\n{external}\n");
        let file = self.center.write("redefined.toml", &text);
        self.center.run(&["definition", "apply", file.to_str().expect("a plain path")]).await.ended_with(0);
    }

    /// Sends a callback, which must be kept, and returns the command id.
    async fn accept(&self) -> String {
        let callback = Callback::list("i", "t").token("fake-token-number-1");
        self.app.post("purchase", callback.encrypted("fake-key-number-1")).await.command_id()
    }
}

async fn doctor(file: &Path, code: &str) -> Ran {
    let dir = file.parent().expect("a directory");
    // Hide the rabbitmqctl of this machine's own node.
    Program::new(["doctor", "--definition", code])
        .config(file)
        .dir(dir)
        .env("PATH", "/nonexistent")
        .run()
        .await
}

#[track_caller]
fn says(ran: Ran, line: &str) {
    let ran = ran.ended_with(FAILED);
    assert!(ran.stdout.lines().any(|found| found.starts_with(line)), "{line:?} is not in\n{}", ran.stdout);
    assert!(!ran.stdout.contains("fake-") && !ran.stderr.contains("fake-"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_set_up_is_green_and_no_command_comes_of_looking() {
    let setup = Setup::new(&[]).await;
    let worker = Worker::on(&setup.vhost);
    worker.command(&setup.accept().await).await;
    let ran = eventually("all to be well", async || {
        let ran = setup.doctor().await;
        // The worker's subscription and the relay's last settlement may lag for a moment.
        if ran.code == Some(0) && ran.stderr.contains("all is well") { Ok(ran) } else { Err(ran) }
    })
    .await;
    for line in [
        "ok     configuration: ",
        "ok     ledger: ",
        "ok     ledger pages: sound",
        "ok     disk: ",
        "ok     refusals: none within 24 h",
        "ok     service: ready at ",
        "ok     broker: connected",
        "ok     exchange: countersign.commands",
        "ok     queue: countersign.commands: 1 consumer,",
        "ok     outcomes: countersign.outcomes: 0 waiting to be taken",
        "ok     bindings: ",
        "ok     dead letters: none",
        "ok     clock: ",
        "ok     approval center: ",
        "ok     definition 采购审批",
        "ok     callback to purchase: ",
    ] {
        assert!(ran.stdout.contains(line), "{line:?} is not in\n{}", ran.stdout);
    }
    assert!(
        ran.stdout.lines().all(|line| line.starts_with("ok ") || line.starts_with("-  ")),
        "{}",
        ran.stdout
    );
    let listed =
        Program::new(["ledger", "list", "--json"]).config(setup.app.file()).run().await.ended_with(0);
    assert_eq!(listed.stdout.lines().count(), 1, "the probes are no commands: {}", listed.stdout);
    // They must not raise an alarm either.
    assert_eq!(setup.app.get("/api/v1/refusals").await.json()["refusals"], serde_json::json!([]));
    assert!(setup.app.metric("countersign_probes_total{endpoint=\"purchase\"}").await >= Some(1.0));
    assert_eq!(setup.app.metric("countersign_callback_duration_seconds_count").await, Some(1.0));
    let loud: Vec<_> = setup
        .app
        .log_lines()
        .into_iter()
        .filter(|line| line["level"] != "INFO" && line["level"] != "DEBUG")
        .collect();
    assert_eq!(loud, Vec::<serde_json::Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_at_the_center_is_named() {
    let setup = Setup::new(&[]).await;
    says(
        doctor(setup.app.file(), "PO_APPROVAL").await,
        "wrong  definition PO_APPROVAL: no definition has it as its real code",
    );
    let elsewhere = setup.altered("[approval_center]", "[outcomes]\nqueue = 'elsewhere'\n[approval_center]");
    says(doctor(&elsewhere, &setup.code).await, "wrong  outcomes: elsewhere is not there; serve makes it");
    let expired = setup.altered("emulator-secret", "expired-secret");
    says(
        doctor(&expired, &setup.code).await,
        "wrong  approval center: POST /open-apis/auth/v3/tenant_access_token/internal: code 10015",
    );
    let subject = format!("wrong  definition 采购审批 ({})", setup.code);
    for (external, words) in [
        ("action_callback_token = 'fake-other'", "token and key: action_callback_token is none of those"),
        (
            "action_callback_token = 'fake-token-number-1'\naction_callback_key = 'fake-other'",
            "token and key: action_callback_key is not that of the endpoint",
        ),
        ("support_pc = true\nsupport_mobile = false", "support_mobile: off"),
    ] {
        setup.redefine(external).await;
        says(setup.doctor().await, &format!("{subject}, {words}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_leads_elsewhere_is_told_by_the_definition_and_by_the_callback() {
    let setup = Setup::new(&[]).await;
    setup.redefine("action_callback_url = 'http://127.0.0.1:1/callbacks/purchase'").await;
    says(
        setup.doctor().await,
        "wrong  callback to purchase: http://127.0.0.1:1/callbacks/purchase cannot be reached: ",
    );
    let elsewhere = setup.app.callback_url("leave");
    setup.redefine(&format!("action_callback_url = '{elsewhere}'")).await;
    let ran = setup.doctor().await;
    assert!(
        ran.stdout.contains(&format!("{elsewhere} is not the path /callbacks/purchase")),
        "{}",
        ran.stdout
    );
    says(ran, &format!("wrong  callback to purchase: {elsewhere} does not know this endpoint, token or key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_broker_ledger_clock_and_scopes_is_named() {
    let flags = [
        "--clock-ahead",
        "10m",
        "--without-scope",
        "approval:approval",
        "--without-scope",
        "approval:external_approval",
    ];
    let vhost = Vhost::new().await;
    let center = Center::with(&flags, "").await;
    let config = Config::bare(NOWHERE)
        .endpoint(
            Endpoint::encrypted("purchase")
                .credentials(&[("fake-token-number-1", Some("fake-key-number-1"))]),
        )
        .set("approval_center", "base_url", &quoted(&center.url))
        .set("approval_center", "app_id", &quoted("cli_emulator"))
        .set("approval_center", "app_secret", &quoted("emulator-secret"));
    let not_a_file = config.dir().join("directory");
    std::fs::create_dir(&not_a_file).unwrap();
    let config = config.set("ledger", "url", &quoted(&format!("sqlite:{}", not_a_file.display())));
    let ran = doctor(&config.write(), "X").await.ended_with(FAILED);
    for line in [
        "wrong  ledger: ",
        "wrong  broker: ",
        "wrong  clock: ",
        "wrong  definition X: GET /open-apis/approval/v4/external_approvals: code 99991672",
        "wrong  callback to purchase: ",
    ] {
        assert!(
            ran.stdout.lines().any(|found| found.starts_with(line)),
            "{line:?} is not in\n{}",
            ran.stdout
        );
    }
    assert!(
        ran.stdout.contains("cannot be written") && ran.stdout.contains("apply for one of the listed scopes")
    );
    // A ledger that nobody can create, and a broker without our topology.
    let config = config.set("ledger", "url", &quoted("sqlite:/proc/countersign.db")).set(
        "amqp",
        "url",
        &quoted(vhost.url()),
    );
    let ran = doctor(&config.write(), "X").await.ended_with(FAILED);
    assert!(
        ran.stdout.contains("wrong  queue: countersign.commands is not there; serve makes it"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("wrong  ledger: /proc/countersign.db does not exist yet and cannot be created: "),
        "{}",
        ran.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_unbound_is_told_by_what_found_no_queue() {
    let setup = Setup::new(&[]).await;
    setup.vhost.unbind("countersign.commands", "countersign.commands", "#").await;
    setup.accept().await;
    eventually("the command to be without a queue", async || {
        match setup.vhost.depth("countersign.unrouted").await {
            Some(1) => Ok(()),
            depth => Err(depth),
        }
    })
    .await;
    says(
        setup.doctor().await,
        "wrong  bindings: commands that found no queue, in countersign.unrouted: 1; bind",
    );
}
