//! `ledger requeue` by what one knows, with the real program.

use crate::support::{
    App, Callback, Config, NOWHERE, PATIENCE, Program, Ran, Vhost, Worker, eventually, eventually_within,
    post, postgres::Postgres, quoted,
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

fn run(app: &App, args: &[&str]) -> Program {
    let args = [&["ledger", "requeue"], args].concat();
    Program::new(args).config(app.file()).dir(app.dir())
}

async fn act(app: &App, id: u64) -> Value {
    let listed = app.get("/api/v1/acts?act=requeue&limit=500").await.json();
    let acts = listed["acts"].as_array().expect("a list").clone();
    acts.into_iter().find(|act| act["id"] == id).unwrap_or(Value::Null)
}

async fn postgres() -> String {
    tokio::task::block_in_place(Postgres::shared).database().await
}

/// The ids of a task's messages, in order of their arrival.
fn by_task(worker: &Worker) -> BTreeMap<String, Vec<String>> {
    let mut tasks = BTreeMap::<_, Vec<_>>::new();
    for message in worker.seen() {
        let task = message.json()["task"]["task_id"].as_str().expect("a task").to_owned();
        tasks.entry(task).or_default().push(message.message_id());
    }
    tasks
}

/// Requeues all of many published commands, is killed in the middle, and continued.
async fn killed_and_continued(config: Config, vhost: &Vhost, commands: usize, rate: &str) {
    const OF_A_TASK: usize = 10;
    let app = App::with(config).await;
    let worker = Worker::on(vhost);
    // In order for each task, the tasks beside one another.
    let tasks = stream::iter(0..commands / OF_A_TASK).map(|task| {
        let (client, url) = (app.client(), app.callback_url("leave"));
        async move {
            for operator in 0..OF_A_TASK {
                let callback = Callback::list("i", &format!("t{task}")).operator(&format!("u{operator}"));
                let answer = post(&client, &url, callback.plain()).await.expect("an answer");
                assert_eq!(answer.status_word(), "accepted", "{}", answer.text());
            }
        }
    });
    tasks.buffer_unordered(32).collect::<Vec<()>>().await;
    eventually_within(3 * PATIENCE, "all in the queue", async || match worker.count() {
        count if count >= commands => Ok(()),
        count => Err(count),
    })
    .await;
    app.until_metric("countersign_ledger_rows{state=\"pending\"}", 0.0).await;
    let first = by_task(&worker);

    let filter = ["--state", "published", "--since", "1 h ago", "--endpoint", "leave"];
    let dry: Value =
        run(&app, &[&filter[..], &["--dry-run", "--json"]].concat()).run().await.ended_with(0).json();
    assert_eq!(dry["matching"], commands);
    let reason = ["--yes", "--rate", rate, "--reason", "the queue was deleted"];
    let mut running = run(&app, &[&filter[..], &reason].concat()).start();
    let id = eventually("the act", async || {
        let listed = app.get("/api/v1/acts?act=requeue").await.json();
        listed["acts"][0]["id"].as_u64().ok_or(listed)
    })
    .await;
    eventually("a part of it", async || match act(&app, id).await["count"].as_u64() {
        Some(count) if count >= commands as u64 / 10 => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(running.exit_code(), None, "it is in the middle: {:?}", running.lines());
    drop(running);
    let killed = act(&app, id).await;
    assert_eq!(killed["detail"]["finished"], false);
    assert!(killed["count"].as_u64() < Some(commands as u64), "{killed}");
    let told = Program::new(["audit"]).config(app.file()).dir(app.dir()).run().await.ended_with(0);
    let go_on = format!("countersign ledger requeue --resume {id}");
    assert!(
        told.stderr.contains(&format!("act {id} is not finished; to continue: {go_on}")),
        "{}",
        told.stderr
    );

    // What was accepted since is not meant.
    let late = app.post("leave", Callback::list("i", "late").plain()).await.command_id();
    worker.command(&late).await;
    let id_text = id.to_string();
    let resume = ["--resume", &id_text, "--rate", "100000", "--json", "--reason", "it was killed"];
    let resumed: Value = run(&app, &resume).env("SUDO_USER", "wang5").run().await.ended_with(0).json();
    let rest = commands as u64 - killed["count"].as_u64().expect("a number");
    let continued = resumed["act"].as_u64().expect("an act of its own");
    assert!(continued > id);
    assert_eq!(resumed, json!({ "act": continued, "requeued": rest, "skipped": 0, "finished": true }));
    eventually_within(3 * PATIENCE, "all in the queue again", async || match worker.count() {
        count if count > 2 * commands => Ok(()),
        count => Err(count),
    })
    .await;
    app.until_metric("countersign_ledger_rows{state=\"pending\"}", 0.0).await;
    let mut second = by_task(&worker);
    assert_eq!(second.remove("late"), Some(vec![late]), "once");
    for (task, ids) in &first {
        let came = second.remove(task).unwrap_or_default();
        assert_eq!(came.iter().take(ids.len()).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
        // A term that ends on a busy machine publishes again what it has not settled: more often than twice is allowed.
        let mut again = Vec::new();
        for id in &came[ids.len()..] {
            if !again.contains(id) {
                again.push(id.clone());
            }
        }
        assert_eq!(&again, ids, "{task}: each once more, in their order");
    }
    let (stopped, finished) = (act(&app, id).await, act(&app, continued).await);
    assert_eq!((&stopped["count"], &stopped["reason"]), (&killed["count"], &json!("the queue was deleted")));
    assert_eq!((&finished["count"], &finished["reason"]), (&json!(rest), &json!("it was killed")));
    assert_eq!(
        (&stopped["actor"]["sudo_user"], &finished["actor"]["sudo_user"]),
        (&Value::Null, &json!("wang5"))
    );
    let told = Program::new(["audit"]).config(app.file()).dir(app.dir()).run().await.ended_with(0);
    assert!(told.stdout.contains(&format!("continued by act {continued}")), "{}", told.stdout);
    assert!(told.stdout.contains(&format!("continues act {id}")), "{}", told.stdout);
    assert!(!told.stderr.contains("is not finished"), "{}", told.stderr);
    let before = worker.count();
    let again = run(&app, &["--resume", &id_text]).run().await.ended_with(0);
    assert!(again.stderr.contains(&format!("act {continued} is finished")), "{}", again.stderr);
    app.until_metric("countersign_ledger_rows{state=\"pending\"}", 0.0).await;
    assert_eq!(worker.count(), before, "nothing is published again");
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_that_were_published_come_again_in_order_though_it_is_killed_in_the_middle() {
    let vhost = Vhost::new().await;
    killed_and_continued(Config::new(&vhost), &vhost, 2000, "400").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_from_postgres() {
    let vhost = Vhost::new().await;
    let config = Config::new(&vhost).set("ledger", "url", &quoted(&postgres().await));
    killed_and_continued(config, &vhost, 1000, "200").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_it_after_a_step_and_says_how_to_continue() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    for task in 0..20 {
        app.accept(&Callback::list("i", &format!("t{task}"))).await;
    }
    Worker::on(&vhost).messages(20).await;
    app.until_metric("countersign_ledger_rows{state=\"pending\"}", 0.0).await;
    let filter = ["--state", "published", "--instance", "i", "--rate", "1", "--yes"];
    let mut running = run(&app, &filter).start();
    let id = eventually("the first step", async || {
        let listed = app.get("/api/v1/acts?act=requeue").await.json();
        let act = &listed["acts"][0];
        act["id"].as_u64().filter(|_| act["count"].as_u64() > Some(0)).ok_or(listed.clone())
    })
    .await;
    running.interrupt();
    let code = eventually("its end", async || running.exit_code().ok_or(())).await;
    assert_eq!(code, Some(1));
    let told = running.lines().join("\n");
    assert!(
        told.contains(&format!("interrupted; to continue: countersign ledger requeue --resume {id}")),
        "{told}"
    );
    let stopped = act(&app, id).await;
    let requeued = stopped["count"].as_u64().expect("a number");
    assert!((1..20).contains(&requeued), "{stopped}");
}

/// Commands that an operator of this test set aside, by task.
async fn parked(app: &App, tasks: &[(&str, &str, &str)]) -> HashMap<String, String> {
    let mut ids = HashMap::new();
    for (instance, task, operator) in tasks {
        let id = app.accept(&Callback::list(instance, task).operator(operator)).await;
        Program::new(["ledger", "park", &id]).config(app.file()).dir(app.dir()).run().await.ended_with(0);
        ids.insert((*task).to_owned(), id);
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_ones_are_chosen_by_what_one_knows_of_them() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let tasks = [("i1", "t1", "li4"), ("i1", "t2", "zhang3"), ("i2", "t3", "zhang3"), ("i2", "t4", "li4")];
    let ids = parked(&app, &tasks).await;
    app.accept(&Callback::list("i1", "t5")).await;
    let state =
        async |task: &str| app.get(&format!("/api/v1/commands/{}", ids[task])).await.json()["state"].clone();
    let count = async |args: &[&str]| {
        let counted: Value =
            run(&app, &[args, &["--dry-run", "--json"]].concat()).run().await.ended_with(0).json();
        (counted["matching"].as_u64().expect("a number"), counted["pending"].as_u64().expect("a number"))
    };
    assert_eq!(count(&["--state", "parked"]).await, (4, 0));
    assert_eq!(count(&["--instance", "i1"]).await, (2, 0));
    assert_eq!(count(&["--user", "zhang3"]).await, (2, 0));
    assert_eq!(count(&["--task", "t3"]).await, (1, 0));
    assert_eq!(count(&["--since", "1 h ago"]).await, (4, 0));
    assert_eq!(count(&["--until", "1 h ago"]).await, (0, 0));
    assert_eq!(count(&["--endpoint", "leave"]).await, (0, 0));
    assert_eq!(count(&["--state", "parked", "--state", "published", "--instance", "i1"]).await, (2, 1));
    assert_eq!(state("t1").await, "parked", "that was only counted");

    // Without a terminal it asks for a word of its own.
    let refused = run(&app, &["--instance", "i1"]).run().await.ended_with(64);
    assert!(
        refused.stderr.contains("2 commands would be requeued (2 parked); without a terminal"),
        "{refused:?}"
    );
    let all = run(&app, &["--state", "published", "--yes"]).run().await.ended_with(64);
    assert!(all.stderr.contains("would publish everything again"), "{all:?}");
    assert!(run(&app, &[]).run().await.ended_with(64).stderr.contains("required"));
    run(&app, &["--task", "t1", "--all-parked"]).run().await.ended_with(64);
    run(&app, &["1", "--task", "t1"]).run().await.ended_with(64);
    let unknown = run(&app, &["--resume", "4711"]).run().await.ended_with(1);
    assert!(unknown.stderr.contains("no act 4711 that requeues by a filter"), "{unknown:?}");
    assert_eq!(state("t1").await, "parked");

    let Ran { stdout, .. } =
        run(&app, &["--instance", "i1", "--yes", "--reason", "fixed"]).run().await.ended_with(0);
    assert!(stdout.starts_with("2 commands requeued (act "), "{stdout}");
    let mut states = Vec::new();
    for (_, task, _) in tasks {
        states.push(state(task).await);
    }
    assert_eq!(states, ["pending", "pending", "parked", "parked"]);
    let nothing = run(&app, &["--instance", "i1", "--yes"]).run().await.ended_with(0);
    assert_eq!(nothing.stdout.trim(), "nothing to requeue");
    let listed = app.get("/api/v1/acts?act=requeue").await.json();
    assert_eq!(listed["acts"].as_array().map(Vec::len), Some(1), "what changes nothing is no act: {listed}");
    assert_eq!(listed["acts"][0]["detail"]["filter"], json!({ "states": ["parked"], "instance_id": "i1" }));
}
