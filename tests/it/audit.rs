//! `audit` and what `ledger show` says of acts, with the real program.

use crate::support::{App, Callback, Config, NOWHERE, Program, Ran};
use serde_json::{Value, json};

fn run(app: &App, args: &[&str]) -> Program {
    Program::new(args.iter().copied()).config(app.file()).dir(app.dir())
}

async fn done(app: &App, args: &[&str]) -> Ran {
    run(app, args).run().await.ended_with(0)
}

async fn acts(app: &App, args: &[&str]) -> Vec<Value> {
    let ran = done(app, &[&["audit", "--json"], args].concat()).await;
    ran.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn ids(acts: &[Value]) -> Vec<u64> {
    acts.iter().map(|act| act["id"].as_u64().expect("a number")).collect()
}

/// A reason that would colour the terminal and forge a line of a table.
const HOSTILE: &str = "the worker\u{1b}[2J was down\n2026-11-20 nothing";

#[tokio::test(flavor = "multi_thread")]
async fn it_says_who_parked_and_requeued_a_command_and_why() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let id = app.accept(&Callback::list("i", "t1")).await;
    let other = app.accept(&Callback::list("i", "t2")).await;
    let park = run(&app, &["ledger", "park", &id, &other, "--reason", HOSTILE]).env("SUDO_USER", "wang5");
    park.run().await.ended_with(0);
    done(&app, &["ledger", "requeue", "--all-parked"]).await;

    let all = acts(&app, &[]).await;
    let told: Vec<_> = all.iter().map(|act| json!([act["act"], act["count"], act["reason"]])).collect();
    assert_eq!(
        told,
        [json!(["requeue", 2, null]), json!(["park", 1, HOSTILE]), json!(["park", 1, HOSTILE]),]
    );
    let actor = &all[2]["actor"];
    assert_eq!((&actor["via"], &actor["sudo_user"]), (&json!("cli"), &json!("wang5")));
    let name = actor["name"].as_str().expect("a user");
    assert!(!name.is_empty() && actor["host"].is_string(), "{actor}");
    assert_eq!(all[0]["actor"].get("sudo_user"), None);

    assert_eq!(ids(&acts(&app, &["--command", &id]).await), [ids(&all)[0], ids(&all)[2]]);
    assert_eq!(ids(&acts(&app, &["--command", "2"]).await), ids(&all)[..2]);
    assert_eq!(ids(&acts(&app, &["--act", "park", "-n", "1"]).await), [ids(&all)[1]]);
    assert_eq!(ids(&acts(&app, &["--actor", "wang5"]).await), ids(&all)[1..]);
    assert_eq!(acts(&app, &["--actor", name, "--since", "1 h ago"]).await.len(), 3);
    assert_eq!(ids(&acts(&app, &["--before", &ids(&all)[1].to_string()]).await), [ids(&all)[2]]);
    assert!(acts(&app, &["--until", "1 h ago"]).await.is_empty());
    assert_eq!(ids(&acts(&app, &[&ids(&all)[0].to_string()]).await), [ids(&all)[0]]);

    // For people, in a table that no reason can break.
    let table = done(&app, &["audit"]).await.stdout;
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(
        table.contains("(sudo of wang5)") && table.contains("the worker\\u{1b}[2J was down\\n2026"),
        "{table}"
    );
    let shown = done(&app, &["ledger", "show", &id]).await.stdout;
    let parked = shown.lines().find(|line| line.contains("parked by ")).expect("the act").to_owned();
    assert!(parked.contains(name) && parked.contains("was down\\n2026"), "{parked}");
    assert!(shown.contains("requeued by "), "{shown}");
    let shown = app.get(&format!("/api/v1/commands/{id}")).await.json();
    let event = shown["history"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|event| event["event"] == "parked_by_operator");
    assert_eq!(event.expect("the act")["actor"], *actor);
    assert_eq!(event.expect("the act")["reason"], HOSTILE);

    let long = "x".repeat(501);
    let refused = run(&app, &["ledger", "park", &id, "--reason", &long]).run().await.ended_with(64);
    assert!(refused.stderr.contains("501 characters"), "{}", refused.stderr);
    let none = done(&app, &["audit", "--act", "login"]).await;
    assert_eq!((&*none.stdout, none.stderr.trim()), ("", "no act matches"));
}
