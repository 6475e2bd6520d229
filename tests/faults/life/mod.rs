//! The life of the program: how it starts, is reloaded, is watched over, and stops; and bursts of one decision.

mod bursts;
mod reload;
mod starting;
mod stopping;
mod supervised;

use crate::support::{App, eventually};
use serde_json::Value;
use std::process::Command;

/// Sends a signal, by its name without SIG.
fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(sent.expect("kill can be started").success(), "SIG{name} to our own child");
}

/// Reloads so far, of this result.
async fn reloads(app: &App, result: &str) -> f64 {
    app.metric(&format!("countersign_config_reloads_total{{result={result:?}}}"))
        .await
        .expect("is always there")
}

/// Has the file changed by `edit`, and read again; returns when it was, with this result.
pub(crate) async fn reload_with(app: &App, result: &str, edit: impl FnOnce(String) -> String) {
    let before = reloads(app, result).await;
    edit_file(app, edit);
    signal(app.pid(), "HUP");
    eventually(&format!("the reload to be {result}"), async || match reloads(app, result).await {
        now if now > before => Ok(()),
        now => Err((now, app.stderr().lines().last().map(str::to_owned))),
    })
    .await;
}

fn edit_file(app: &App, edit: impl FnOnce(String) -> String) {
    let text = std::fs::read_to_string(app.file()).expect("our own file");
    // As an operator's tools do it: nobody ever reads half of it.
    let fresh = app.file().with_extension("fresh");
    std::fs::write(&fresh, edit(text)).expect("our own directory");
    std::fs::rename(fresh, app.file()).expect("our own directory");
}

/// What `/readyz` says of the configuration.
async fn configuration(app: &App) -> Value {
    app.get("/readyz").await.json()["configuration"].take()
}
