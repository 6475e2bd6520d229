//! A complete rotation of a credential: who still uses the old one.

use crate::support::{App, Callback, Config, Endpoint, NOWHERE, Program};
use serde_json::Value;
use std::time::Duration;

const OLD: (&str, &str) = ("fake-token-old-of-many", "fake-key-old-of-many");
const NEW: (&str, &str) = ("fake-token-new-of-many", "fake-key-new-of-many");

async fn last_used(app: &App) -> Vec<Value> {
    let said = app.get("/readyz").await.json();
    let credentials = said["credentials"].as_array().expect("a list").clone();
    credentials.into_iter().map(|one| one["last_used_at"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_use_of_a_credential_outlives_a_restart_and_doctor_tells_it() {
    let pairs = [(OLD.0, Some(OLD.1)), (NEW.0, Some(NEW.1))];
    let config = Config::bare(NOWHERE).endpoint(Endpoint::encrypted("purchase").credentials(&pairs));
    let mut app = App::with(config.clone()).await;
    let send = async |app: &App, (token, key): (&str, &str), task: &str| {
        let callback = Callback::list("i", task).token(token);
        assert_eq!(app.post("purchase", callback.encrypted(key)).await.status, 200);
    };
    assert_eq!(last_used(&app).await, [Value::Null, Value::Null]);
    send(&app, OLD, "t1").await;
    let before = last_used(&app).await;
    assert!(before[0].is_string() && before[1].is_null(), "{before:?}");
    app.terminate();
    assert_eq!(app.ended().await.code(), Some(0), "{}", app.stderr());

    let app = App::with(config).await;
    crate::support::eventually("what the ledger remembers", async || match last_used(&app).await {
        now if now == before => Ok(()),
        now => Err(now),
    })
    .await;
    let seconds = "countersign_credential_last_used_seconds{endpoint=\"purchase\",credential=\"0\"}";
    assert!(app.metric(seconds).await.is_some_and(|seconds| seconds > 1.7e9));
    send(&app, NEW, "t2").await;
    let told = crate::support::eventually("the use that just was, while it runs", async || {
        let ran = Program::new(["doctor"]).config(app.file()).dir(app.dir()).run().await;
        let line = ran.stdout.lines().find(|line| line.contains("rotation: ")).unwrap_or_default().to_owned();
        if line.contains("[1] was last used ") { Ok(line) } else { Err(line) }
    });
    // Uses are stored once a minute; the first one at once.
    let line = tokio::time::timeout(Duration::from_secs(30), told).await.expect("well within the minute");
    assert!(line.starts_with("ok     rotation: purchase has 2 credentials: [0] was last used "), "{line}");
}
