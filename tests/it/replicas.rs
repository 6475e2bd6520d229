//! Two programs on one PostgreSQL, without faults: what one is told is true at the other.

use crate::support::{
    Answer, App, Callback, Config, Endpoint, NOWHERE, Program, Vhost, Worker, client, eventually,
    postgres::{self, Postgres},
    quoted,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Two programs on a new database, and its URL.
async fn two(amqp_url: &str) -> ([App; 2], String) {
    let url = tokio::task::block_in_place(Postgres::shared).database().await;
    let replica = || {
        let registered = Endpoint::plain("registered").context("format", "\"registry\"");
        Config::with_url(amqp_url).endpoint(registered).set("ledger", "url", &quoted(&url))
    };
    let (first, second) = tokio::join!(App::with(replica()), App::with(replica()));
    ([first, second], url)
}

/// The answer that is not for the machine's sake: where so much is built and tested PostgreSQL may stand still for some seconds,
/// and an approver who is told so taps again.
async fn decided(app: &App, endpoint: &str, body: &[u8]) -> Answer {
    eventually("an answer of a ledger that is there", async || {
        let answer = app.post(endpoint, body.to_vec()).await;
        if answer.reason() == "ledger_unavailable" { Err(answer.text()) } else { Ok(answer) }
    })
    .await
}

async fn accepted(app: &App, endpoint: &str, callback: &Callback) -> String {
    decided(app, endpoint, &callback.plain()).await.command_id()
}

/// What each replica says of the leader, once they agree: its name, and which of them it is.
async fn leader(replicas: &[App; 2]) -> (String, usize) {
    eventually("both to name one leader, which is one of them", async || {
        let mut told = Vec::new();
        for replica in replicas {
            told.push(replica.get("/readyz").await.json()["leader"].take());
        }
        let here: Vec<usize> = (0..2).filter(|number| told[*number]["here"] == true).collect();
        match (told[0]["name"].as_str(), &here[..]) {
            (Some(name), &[here]) if told[1]["name"] == name => Ok((name.to_owned(), here)),
            _ => Err(told),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn both_name_the_same_leader_and_the_next_one_when_it_stops() {
    let (mut replicas, _) = two(NOWHERE).await;
    let (name, here) = leader(&replicas).await;
    let pid = format!("/{}", replicas[here].pid());
    assert!(name.ends_with(&pid), "{name} is host and process of the one that leads, {pid}");
    assert_eq!(replicas[here].metric("countersign_leader").await, Some(1.0));
    assert_eq!(replicas[1 - here].metric("countersign_leader").await, Some(0.0));

    replicas[here].terminate();
    assert_eq!(replicas[here].ended().await.code(), Some(0));
    eventually("the other to lead", async || {
        let told = replicas[1 - here].get("/readyz").await.json()["leader"].take();
        if told["here"] == true { Ok(()) } else { Err(told) }
    })
    .await;
    replicas[here].restart().await;
    let (name, next) = leader(&replicas).await;
    assert_eq!(next, 1 - here, "nobody takes it away");
    assert!(name.ends_with(&format!("/{}", replicas[next].pid())), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_that_was_registered_at_one_is_used_and_forgotten_at_the_other() {
    let vhost = Vhost::new().await;
    let ([here, there], _) = two(vhost.url()).await;
    let worker = Worker::on(&vhost);
    let url = |app: &App| format!("http://{}/api/v1/contexts/k-1", app.admin());
    let body = json!({ "instance_id": "i1", "task_id": "t1", "operators": ["zhang3"] });
    let sent = client().put(url(&here)).json(&body).send().await.expect("an answer");
    assert!(sent.status().is_success(), "{}", sent.text().await.expect("text"));

    let id = accepted(&there, "registered", &Callback::card("k-1", 7)).await;
    let command = worker.command(&id).await.json();
    assert_eq!(command["task"]["task_id"], "t1", "{command}");
    assert_eq!(command["task"]["resolved_by"], "registry", "{command}");
    // What is known of it holds there too.
    let by_another = Callback::card("k-1", 8).operator("li4").plain();
    assert_eq!(decided(&there, "registered", &by_another).await.reason(), "operator_not_allowed");

    let deleted = client().delete(url(&there)).send().await.expect("an answer");
    assert!(deleted.status().is_success());
    let again = accepted(&here, "registered", &Callback::card("k-1", 9)).await;
    assert_eq!(worker.command(&again).await.json()["task"]["resolved_by"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_requeued_through_either_replica_whichever_leads() {
    let vhost = Vhost::new().await;
    let (replicas, _) = two(vhost.url()).await;
    let worker = Worker::on(&vhost);
    let id = accepted(&replicas[0], "leave", &Callback::list("i", "t")).await;
    worker.command(&id).await;
    let published = r#"countersign_ledger_rows{state="published"}"#;
    replicas[0].until_metric(published, 1.0).await;
    leader(&replicas).await;
    // The command line has the configuration of the one, then of the other: one of them does not lead.
    for (round, replica) in replicas.iter().enumerate() {
        Program::new(["ledger", "requeue", &id]).config(replica.file()).run().await.ended_with(0);
        let messages = worker.messages(2 + round).await;
        let ids: BTreeSet<String> = messages.iter().map(|message| message.message_id()).collect();
        assert_eq!(ids, BTreeSet::from([id.clone()]));
        for app in &replicas {
            app.until_metric(published, 1.0).await;
        }
    }
    for app in &replicas {
        let shown = Program::new(["ledger", "show", &id, "--json"]).config(app.file()).run().await;
        let told = shown.ended_with(0).stdout;
        assert!(told.matches("requeue").count() >= 2, "both acts are on record: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_the_session_that_locks_the_ledger_and_its_query() {
    let (replicas, url) = two(NOWHERE).await;
    let (_, here) = leader(&replicas).await;
    let administrator = postgres::client(&url).await;
    let pid: i32 = administrator.query_one("SELECT pg_backend_pid()", &[]).await.expect("it answers").get(0);
    let query = "LOCK TABLE countersign.log IN ACCESS EXCLUSIVE MODE /* a look at it */";
    administrator.batch_execute("SET application_name = 'psql'; BEGIN").await.expect("SQL of ours");
    administrator.batch_execute(query).await.expect("SQL of ours");

    for replica in &replicas {
        let refused = replica.post("leave", Callback::list("i", "t").plain()).await;
        assert_eq!((refused.status, refused.reason().as_str()), (503, "ledger_unavailable"));
        let line = eventually("the log to name the session", async || {
            let named = |line: &String| {
                line.contains("holds a lock on the ledger") && line.contains(&format!("({pid})"))
            };
            replica.stderr().lines().map(str::to_owned).find(named).ok_or_else(|| replica.stderr())
        })
        .await;
        for word in [format!("\"pid\":{pid}"), "a look at it".to_owned(), "psql".to_owned()] {
            assert!(line.contains(&word), "{word}: {line}");
        }
    }
    administrator.batch_execute("ROLLBACK").await.expect("SQL of ours");
    let body = Callback::list("i", "t").plain();
    eventually("callbacks to be accepted", async || {
        let answer = replicas[here].post("leave", body.clone()).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
}
