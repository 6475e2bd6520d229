//! `countersign dev`: everything by one command, and nothing of it left behind.

use super::FAILED;
use crate::support::{NOWHERE, PATIENCE, Program, Running, Vhost, client, eventually, eventually_within};
use serde_json::{Value, json};

struct Demo {
    running: Running,
    url: String,
    scratch: tempfile::TempDir,
}

impl Demo {
    async fn start(broker: &str) -> Self {
        Self::with(&[], broker).await
    }

    async fn with(args: &[&str], broker: &str) -> Self {
        let scratch = tempfile::tempdir().expect("a directory");
        let mut running = Program::new([&["dev", "--listen", "127.0.0.1:0"], args].concat())
            .env("COUNTERSIGN_AMQP_URL", broker)
            .env("TMPDIR", scratch.path())
            .start();
        // A node of its own needs longer on a machine that is busy.
        let url = eventually_within(3 * PATIENCE, "the demo to be ready", async || {
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

    /// What stands behind a word among the addresses.
    async fn told(&self, word: &str) -> String {
        let rest = self.until_said(&format!("  {word} ")).await;
        rest.split_whitespace().next().expect("something stands there").to_owned()
    }

    /// Processes that work in its directory: node, epmd and guard.
    fn processes(&self) -> Vec<String> {
        let all = std::fs::read_dir("/proc").expect("Linux");
        let ours = |process: &std::path::Path| {
            // One that has ended has no directory.
            std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(self.scratch.path()))
        };
        let all = all.filter_map(|entry| Some(entry.ok()?.path())).filter(|process| ours(process));
        all.filter_map(|process| std::fs::read_to_string(process.join("comm")).ok()).collect()
    }

    async fn stop(mut self) {
        self.running.interrupt();
        let code =
            eventually("the end of the demo", async || self.running.exit_code().ok_or("it runs")).await;
        assert_eq!(code, Some(0), "{:?}", self.running.lines());
        let left: Vec<_> = std::fs::read_dir(self.scratch.path()).expect("it is ours").collect();
        assert!(left.is_empty(), "{left:?}");
        // Erlang's helpers notice by themselves that their node is gone.
        eventually("its processes to be gone", async || {
            let left = self.processes();
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
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

#[tokio::test(flavor = "multi_thread")]
async fn what_it_prints_serves_the_other_commands() {
    let vhost = Vhost::new().await;
    let demo = Demo::start(vhost.url()).await;
    demo.until_said("the demo's exchange is ").await;
    let file = std::path::PathBuf::from(demo.told("configuration").await);
    let run = async |args: &[&str]| Program::new(args).config(&file).run().await;
    run(&["config", "check"]).await.ended_with(0);
    let context = r#"{"instance":"PO-80","task":"PO-80/1","round":1}"#;
    let send = ["send", "--endpoint", "purchase", "--origin", "card", "--context", context, "--wait", "4s"];
    let answer = run(&send).await.ended_with(0).json();
    assert_eq!(
        (&answer["http_status"], &answer["worker"]["outcome"]),
        (&json!(200), &json!("applied")),
        "{answer}"
    );
    assert!(run(&["ledger", "list"]).await.ended_with(0).stdout.contains("PO-80/1"));
    let callbacks = demo.told("callbacks").await;
    assert_eq!(client().post(&callbacks).body("{}").send().await.expect("it runs").status(), 403);
    let console = demo.told("console").await;
    assert_eq!(client().get(&console).send().await.expect("it runs").status(), 200);
    assert!(vhost.depth(&demo.told("queue").await).await.is_some());
    let lines = demo.running.lines().join("\n");
    assert!(!lines.contains(vhost.url()), "the broker's password: {lines}");
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_a_broker_of_its_own_and_ends_it() {
    let demo = Demo::with(&["--private-broker"], NOWHERE).await;
    demo.until_said("the demo's exchange is ").await;
    assert!(demo.told("broker").await.starts_with("amqp://guest@127.0.0.1:"));
    assert!(demo.processes().len() >= 3, "{:?}", demo.processes());
    let ran = demo.scenario("double-tap").await.ended_with(0);
    assert!(!ran.stdout.contains("DIFFERS"), "{}", ran.stdout);
    demo.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_of_its_own_ends_with_it_however_it_ends() {
    let mut demo = Demo::with(&["--private-broker"], NOWHERE).await;
    demo.running.kill();
    eventually("the broker to be gone", async || {
        let processes = demo.processes();
        if processes.is_empty() { Ok(()) } else { Err(processes) }
    })
    .await;
    eventually("its data to be gone", async || {
        let directories = std::fs::read_dir(demo.scratch.path()).expect("it is ours");
        let left = directories.filter_map(|entry| Some(entry.ok()?.path().join("rabbitmq")));
        let left: Vec<_> = left.filter(|path| path.exists()).collect();
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}
