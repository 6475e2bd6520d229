//! `countersign emulator --demo`: everything in one process, and nothing of it left behind.

use super::FAILED;
use crate::support::{NOWHERE, Program, Running, Vhost, client, eventually};
use serde_json::{Value, json};

struct Demo {
    running: Running,
    url: String,
    scratch: tempfile::TempDir,
}

impl Demo {
    async fn start(broker: &str) -> Self {
        let scratch = tempfile::tempdir().expect("a directory");
        let mut running = Program::new(["emulator", "--demo", "--listen", "127.0.0.1:0"])
            .env("COUNTERSIGN_AMQP_URL", broker)
            .env("TMPDIR", scratch.path())
            .start();
        let url = eventually("the demo to be ready", async || {
            assert_eq!(running.exit_code(), None, "{:?}", running.lines());
            let lines = running.lines();
            lines.iter().find_map(|line| line.strip_prefix("ready at ").map(str::to_owned)).ok_or(lines)
        })
        .await;
        Self { running, url, scratch }
    }

    async fn until_said(&self, words: &str) -> String {
        eventually(words, async || {
            let lines = self.running.lines();
            lines.iter().find_map(|line| line.split_once(words).map(|(_, rest)| rest.to_owned())).ok_or(lines)
        })
        .await
    }

    async fn state(&self) -> Value {
        let answer = client().get(format!("{}/emulator/state", self.url)).send().await.expect("it runs");
        answer.json().await.expect("JSON")
    }

    async fn press(&self, card: &Value) -> Value {
        let body = json!({ "message_id": card["message_id"], "action_type": "APPROVE" });
        let asked = client().post(format!("{}/emulator/press", self.url)).json(&body).send().await;
        asked.expect("it runs").json().await.expect("JSON")
    }

    async fn scenario(&self, name: &str) -> crate::support::Ran {
        Program::new(["emulator", "scenario", name, "--url", &self.url]).run().await
    }

    async fn stop(mut self) {
        self.running.interrupt();
        let code =
            eventually("the end of the demo", async || self.running.exit_code().ok_or("it runs")).await;
        assert_eq!(code, Some(0), "{:?}", self.running.lines());
        let left: Vec<_> = std::fs::read_dir(self.scratch.path()).expect("it is ours").collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_has_all_of_the_loop_and_leaves_nothing_with_the_broker() {
    let vhost = Vhost::new().await;
    let demo = Demo::start(vhost.url()).await;
    let exchange = demo.until_said("the demo's exchange is ").await;
    let state = demo.state().await;
    let tasks: usize = state["instances"]
        .as_array()
        .expect("instances")
        .iter()
        .map(|one| one["tasks"].as_array().map_or(0, Vec::len))
        .sum();
    assert_eq!((tasks, state["cards"].as_array().map(Vec::len)), (3, Some(2)), "{state}");
    assert_eq!(demo.press(&state["cards"][0]).await["http_status"], 200);
    eventually("a card that says approved", async || {
        let state = demo.state().await;
        if state["cards"][0]["shown"] == "APPROVED" { Ok(()) } else { Err(state["cards"].clone()) }
    })
    .await;
    for name in ["double-tap", "broker-away"] {
        let ran = demo.scenario(name).await.ended_with(0);
        assert!(ran.stdout.contains("EXPECTED") && !ran.stdout.contains("DIFFERS"), "{}", ran.stdout);
    }
    let queues = ["commands", "outcomes"].map(|queue| format!("{exchange}.{queue}"));
    assert!(vhost.has_exchange(&exchange).await);
    for queue in &queues {
        assert!(vhost.depth(queue).await.is_some(), "{queue}");
    }
    demo.stop().await;
    assert!(!vhost.has_exchange(&exchange).await);
    for queue in queues.iter().map(String::as_str).chain(["countersign.commands", "countersign.dead"]) {
        assert_eq!(vhost.depth(queue).await, None, "{queue}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_without_a_broker_accepts_and_says_so() {
    let demo = Demo::start(NOWHERE).await;
    demo.until_said("commands wait in the ledger until it is there").await;
    let state = demo.state().await;
    let told = demo.press(&state["cards"][0]).await;
    assert_eq!((&told["http_status"], &told["accepted"]), (&json!(200), &json!(true)), "{told}");
    demo.scenario("strangers").await.ended_with(0);
    demo.scenario("nothing").await.ended_with(FAILED);
    demo.stop().await;
}
