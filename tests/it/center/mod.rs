//! `countersign center …` against `countersign emulator`: the real program on both sides.

mod definitions;
mod dev;
mod doctor;
mod emulator;
mod enrichment;
mod follow;
mod instances;
mod limits;
mod messages;
mod outcomes;
mod press;
mod reconcile;
mod taps;

use crate::support::{Program, Ran, Running, client, eventually, quoted};
use serde_json::{Value, json};
use std::path::PathBuf;

pub(crate) const FAILED: i32 = 1;
pub(crate) const USAGE: i32 = 64;
pub(crate) const AWAY: i32 = 69;

/// The code of the emulator's own native instance.
pub(crate) const NATIVE: &str = "81D31358-93AF-92D6-7425-01A5D67C4E71";

/// A running emulator, and a configuration for it.
pub(crate) struct Center {
    pub(crate) url: String,
    dir: tempfile::TempDir,
    client: reqwest::Client,
    _running: Running,
}

impl Center {
    /// An emulator without flags.
    pub(crate) async fn start() -> Self {
        Self::with(&[], "").await
    }

    /// An emulator with these flags, and a configuration with additional keys in `[approval_center]`.
    pub(crate) async fn with(flags: &[&str], keys: &str) -> Self {
        let mut running = Program::new([&["emulator", "--listen", "127.0.0.1:0"], flags].concat()).start();
        let url = eventually("the emulator to be ready", async || {
            assert_eq!(running.exit_code(), None, "{:?}", running.lines());
            let lines = running.lines();
            let ready = lines.iter().find_map(|line| line.strip_prefix("ready at ").map(str::to_owned));
            ready.ok_or(lines)
        })
        .await;
        let dir = tempfile::tempdir().expect("a directory");
        let center = Self { url, dir, client: client(), _running: running };
        center.configure("cli_emulator", "emulator-secret", keys);
        center
    }

    /// Writes the configuration: one app, and the endpoint `purchase` with a credential.
    pub(crate) fn configure(&self, app_id: &str, app_secret: &str, keys: &str) {
        let text = format!(
            "[approval_center]\nbase_url = {}\napp_id = {}\napp_secret = {}\n{keys}\n[[endpoints]]\nname = \"purchase\"\n\
             credentials = [ {{ action_callback_token = \"fake-token-number-1\", action_callback_key = \"fake-key-number-1\" }} ]\n",
            quoted(&self.url),
            quoted(app_id),
            quoted(app_secret),
        );
        self.write("countersign.toml", &text);
    }

    /// Writes a file to the program's working directory.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("the directory is ours");
        path
    }

    /// Runs `countersign center` with these arguments.
    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        Program::new([&["center"], args].concat()).dir(self.dir.path()).run().await
    }

    /// Like [`Self::run`], without waiting for the end.
    pub(crate) fn begin(&self, args: &[&str]) -> Running {
        Program::new([&["center"], args].concat()).dir(self.dir.path()).start()
    }

    /// Like [`Self::run`], but the run must succeed and print lines of JSON.
    pub(crate) async fn json(&self, args: &[&str]) -> Vec<Value> {
        let ran = self.run(&[args, &["--json"]].concat()).await.ended_with(0);
        ran.stdout.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// Presses a button with `countersign emulator press`.
    pub(crate) async fn press(&self, args: &[&str]) -> Ran {
        Program::new([&["emulator", "press", "--url", &self.url, "--json"], args].concat()).run().await
    }

    /// Reads the emulator's state.
    pub(crate) async fn state(&self) -> Value {
        let answer = self.client.get(format!("{}/emulator/state", self.url)).send().await;
        answer.expect("it runs").json().await.expect("JSON")
    }

    /// Plans a failure for the next calls whose path contains this text.
    pub(crate) async fn fail(&self, planned: Value) {
        let answer = self.client.post(format!("{}/emulator/failures", self.url)).json(&planned).send().await;
        assert!(answer.expect("it runs").status().is_success());
    }

    /// Invalidates all issued access tokens.
    pub(crate) async fn forget_tokens(&self) {
        let answer = self.client.delete(format!("{}/emulator/tokens", self.url)).send().await;
        assert!(answer.expect("it runs").status().is_success());
    }

    /// Creates the definition `PO_APPROVAL` that leads to `callback_url`, and returns its real code.
    pub(crate) async fn definition(&self, callback_url: &str) -> String {
        let file = self.write("definition.toml", &definition(callback_url));
        let file = file.to_str().expect("a plain path");
        let saved = self.json(&["definition", "apply", "--create", file]).await;
        saved[0]["real_code"].as_str().expect("a code").to_owned()
    }

    /// Synchronises an instance, which must succeed.
    pub(crate) async fn sync(&self, instance: &Value) -> Value {
        let file = self.write("instance.json", &instance.to_string());
        self.json(&["sync", file.to_str().expect("a plain path")]).await.remove(0)
    }
}

/// The file of the definition `PO_APPROVAL`.
pub(crate) fn definition(callback_url: &str) -> String {
    let base = callback_url.strip_suffix("/callbacks/purchase").expect("a URL of the endpoint");
    format!(
        r#"
approval_code = "PO_APPROVAL"
endpoint = "purchase"
public_url = "{base}"
approval_name = "@i18n@po_name"
group_code = "erp"
group_name = "@i18n@group"
description = "@i18n@po_name"
viewers = [ {{ viewer_type = "TENANT" }} ]
managers = ["li4"]
[external]
biz_name = "@i18n@biz"
biz_type = "purchase"
create_link_mobile = "https://erp.example.com/m/new"
create_link_pc = "https://erp.example.com/new"
support_pc = true
support_mobile = true
[[i18n_resources]]
locale = "zh-CN"
is_default = true
texts = {{ "@i18n@po_name" = "采购审批", "@i18n@group" = "企业资源", "@i18n@biz" = "ERP" }}
"#
    )
}

/// An instance with one task for zhang3 and these times.
pub(crate) fn instance(code: &str, id: &str, update_time: i64) -> Value {
    json!({
        "approval_code": code, "instance_id": id, "status": "PENDING", "extra": "{\"business_key\":\"PO-77\"}",
        "links": { "pc_link": "https://erp.example.com/77", "mobile_link": "https://erp.example.com/m/77" },
        "title": "@i18n@t", "user_id": "li4", "start_time": "1790000000000", "end_time": "0",
        "update_time": update_time.to_string(), "update_mode": "UPDATE",
        "task_list": [{
            "task_id": format!("{id}:n1"), "user_id": "zhang3", "links": { "pc_link": "https://erp.example.com/77" },
            "status": "PENDING", "create_time": "1790000000000", "end_time": "0",
            "update_time": update_time.to_string(), "node_id": "n1", "node_name": "@i18n@n",
            "action_context": "{\"t\":\"PO-77/n1\"}",
            "action_configs": [{ "action_type": "APPROVE" }, { "action_type": "REJECT", "is_need_reason": true }]
        }],
        "i18n_resources": [{ "locale": "zh-CN", "is_default": true, "texts": [
            { "key": "@i18n@t", "value": "采购单 77" }, { "key": "@i18n@n", "value": "部门经理" }] }]
    })
}

/// The callback URL of tests that receive none.
pub(crate) const HOOK: &str = "http://127.0.0.1:1/callbacks/purchase";
