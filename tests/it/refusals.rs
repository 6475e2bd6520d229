//! `countersign refusals` and the history in `ledger show`: the fate of a callback, for an operator at night.

use crate::support::{App, Callback, Config, NOWHERE, Program, Ran, Vhost, Worker, eventually};
use serde_json::Value;
use std::path::Path;
use tokio::task::JoinSet;

const FAILED: i32 = 1;
const USAGE: i32 = 64;

async fn run(file: &Path, args: &[&str]) -> Ran {
    Program::new(args).config(file).dir(file.parent().expect("a file in a directory")).run().await
}

async fn refusals(app: &App, args: &[&str]) -> Ran {
    run(app.file(), &[&["refusals"][..], args].concat()).await
}

/// Waits until these arguments find the given number of refusals, which are written a moment after the answer.
async fn until_kept(app: &App, args: &[&str], wanted: usize) -> Vec<Value> {
    let args = [args, &["--json", "--limit", "100000"]].concat();
    eventually("the refused callbacks to be kept", async || {
        let ran = refusals(app, &args).await.ended_with(0);
        let found: Vec<Value> =
            ran.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        if found.len() == wanted { Ok(found) } else { Err(ran.stdout) }
    })
    .await
}

/// Zhang3 presses a wrong button and then a right one, li4 a wrong one, and a stranger guesses.
async fn an_evening() -> (App, String) {
    let app = App::with(Config::with_url(NOWHERE)).await;
    app.post("leave", Callback::list("PO-77", "n2").action("HOLD").plain()).await;
    let id = app.accept(&Callback::list("PO-77", "n2")).await;
    app.post("leave", Callback::card("", 7).operator("li4").action("HOLD").plain()).await;
    app.post("purchase", Callback::list("PO-77", "n2").token("a-guess-at-the-token").plain()).await;
    until_kept(&app, &[], 3).await;
    (app, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn why_an_approver_saw_an_error_is_one_command() {
    let (mut app, id) = an_evening().await;
    let ran = refusals(&app, &["--user", "zhang3", "--around", "now"]).await.ended_with(0);
    let rows: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(rows.len(), 2, "a head and one row: {}", ran.stdout);
    for word in
        ["zhang3", "action_not_allowed", "PO-77", "n2", "leave", "not among the actions of the endpoint"]
    {
        assert!(rows[1].contains(word), "no {word} in {}", rows[1]);
    }
    for words in [
        "此处不支持该操作，请到业务系统中处理。",
        "Add the action to `actions`",
        "1 more without a known sender",
    ] {
        assert!(ran.stderr.contains(words), "no {words} in {}", ran.stderr);
    }
    // The suggested next commands find it; each is at the end of its line.
    let next = |mark: &str| -> Vec<String> {
        let line = ran.stderr.lines().find(|line| line.contains(mark)).expect(mark);
        let (_, command) = line.split_once(": countersign ").expect(line);
        command.split(' ').map(|word| word.trim_matches('\'').to_owned()).collect()
    };
    let [accepted, nobodys] = ["ledger list", "countersign refusals"].map(next);
    let accepted: Vec<&str> = accepted.iter().map(String::as_str).collect();
    let listed = run(app.file(), &accepted).await.ended_with(0).stdout;
    assert!(listed.contains(&id), "{accepted:?}: {listed}");
    let nobodys: Vec<&str> = nobodys.iter().map(String::as_str).collect();
    let listed = run(app.file(), &nobodys).await.ended_with(0).stdout;
    assert!(listed.contains("unauthenticated"), "{nobodys:?}: {listed}");
    // The ledger file is read, so the service need not run.
    app.kill();
    let ran = refusals(&app, &["--user", "zhang3"]).await.ended_with(0);
    assert!(ran.stdout.contains("action_not_allowed"), "{}", ran.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_callbacks_are_found_by_each_of_what_is_known_of_them() {
    let (app, _) = an_evening().await;
    let reasons = async |args: &[&str], wanted: &[&str]| {
        let found = until_kept(&app, args, wanted.len()).await;
        let found: Vec<&str> = found.iter().map(|one| one["reason"].as_str().unwrap()).collect();
        assert_eq!(found, wanted, "{args:?}");
    };
    let not_allowed = "action_not_allowed";
    reasons(&["--user", "zhang3"], &[not_allowed]).await;
    reasons(&["--task", "n2"], &[not_allowed]).await;
    reasons(&["--instance", "PO-77"], &[not_allowed]).await;
    reasons(&["--message-id", "7"], &[not_allowed]).await;
    reasons(&["--reason", "unauthenticated"], &["unauthenticated"]).await;
    reasons(&["--endpoint", "leave"], &[not_allowed, not_allowed]).await;
    reasons(&["--since", "5 min ago"], &["unauthenticated", not_allowed, not_allowed]).await;
    reasons(&["--until", "5 min ago"], &[]).await;
    reasons(&["--user", "zhang3", "--endpoint", "purchase"], &[]).await;

    let newest = refusals(&app, &["--limit", "1", "--json"]).await.ended_with(0).json();
    let page = refusals(&app, &["--limit", "1"]).await.ended_with(0);
    let id = newest["id"].to_string();
    assert!(page.stderr.contains(&format!("continue with --before {id}")), "{}", page.stderr);
    reasons(&["--before", &id], &[not_allowed, not_allowed]).await;

    let whole = refusals(&app, &[&id]).await.ended_with(0).stdout;
    for line in
        ["reason    unauthenticated", "endpoint  purchase", "peer      127.0.0.1", "sender    a stranger"]
    {
        assert!(whole.lines().any(|known| known.starts_with(line)), "no {line} in {whole}");
    }
    let shifted = refusals(&app, &[&id, "--utc-offset", "+08:00"]).await.ended_with(0).stdout;
    assert!(shifted.lines().next().is_some_and(|line| line.ends_with("+08:00")), "{shifted}");

    let none = refusals(&app, &["--user", "nobody"]).await.ended_with(0);
    assert!(none.stdout.is_empty() && none.stderr.contains("no refused callback matches"), "{none:?}");
    let missing = refusals(&app, &["4711"]).await.ended_with(FAILED);
    assert!(missing.stderr.contains("no refused callback 4711"), "{}", missing.stderr);
    for wrong in [&["--reason", "unauthorised"][..], &["--around", "soon"], &["--limit", "0"]] {
        let ran = refusals(&app, wrong).await.ended_with(USAGE);
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{wrong:?}: {ran:?}");
    }
}

/// A sender who knows the token controls most of a callback's content.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_wrote_does_not_act_on_the_terminal() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    let nasty = "n\u{202e}2\u{feff}";
    app.post("leave", Callback::list("PO-77", nasty).action("HOLD").plain()).await;
    app.post("%E2%80%AE%C2%9B2J", Callback::list("PO-77", "n2").plain()).await;
    until_kept(&app, &[], 2).await;
    for args in [&[][..], &["--json"], &["1"], &["2"]] {
        let ran = refusals(&app, args).await.ended_with(0);
        let acts = |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{202e}' | '\u{feff}'));
        assert!(!ran.stdout.contains(acts) && !ran.stderr.contains(acts), "{args:?}: {ran:?}");
        assert!(args == ["2"] || ran.stdout.contains("202e"), "shown by its code: {}", ran.stdout);
    }
    let wrong = refusals(&app, &["--reason", "\u{1b}]0;x\u{7}\u{202e}"]).await.ended_with(USAGE);
    assert!(!wrong.stderr.contains(|c: char| c != '\n' && c.is_control() || c == '\u{202e}'), "{wrong:?}");
    assert!(wrong.stderr.lines().count() > 2, "clap's layout stays: {}", wrong.stderr);
    // Searches use the original value, not the displayed one.
    until_kept(&app, &["--task", nasty], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_strangers_hides_no_refusal_of_a_known_sender() {
    const FLOOD: u64 = 3000;
    let mut app = App::with(Config::with_url(NOWHERE).set("ledger", "refusals_kept", "1000")).await;
    let url = app.callback_url("purchase");
    let body = Callback::list("PO-77", "n2").token("a-guess-at-the-token").plain();
    let mut strangers = JoinSet::new();
    for _ in 0..50 {
        let (client, url, body) = (app.client(), url.clone(), body.clone());
        strangers.spawn(async move {
            for _ in 0..FLOOD / 50 {
                let answer =
                    client.post(&url).body(body.clone()).send().await.expect("it answers a stranger");
                assert_eq!(answer.status(), 403);
            }
        });
    }
    for number in 0..40 {
        let task = format!("n{number}");
        app.post("leave", Callback::list("PO-79", &task).operator("wang5").action("HOLD").plain()).await;
    }
    strangers.join_all().await;
    let kept = until_kept(&app, &["--user", "wang5"], 40).await;
    assert!(kept.iter().all(|one| one["reason"] == "action_not_allowed"), "{kept:?}");
    let unknown = "countersign_callbacks_total{endpoint=\"purchase\",outcome=\"unauthenticated\"}";
    app.until_metric(unknown, FLOOD as f64).await;
    for sender in ["known", "stranger"] {
        let dropped = app.metric(&format!("countersign_refusals_dropped_total{{sender=\"{sender}\"}}")).await;
        assert!(dropped.is_some() && (sender == "stranger" || dropped == Some(0.0)), "{sender}: {dropped:?}");
    }
    // At the end of the minute, or of the process, the rest is reported as a number.
    app.terminate();
    app.ended().await;
    let lines = app.log_lines();
    let of = |message: &str, outcome: &str| -> Vec<&Value> {
        lines.iter().filter(|line| line["message"] == message && line["outcome"] == outcome).collect()
    };
    assert_eq!(of("callback refused", "action_not_allowed").len(), 40, "each may be somebody's decision");
    let whole = of("callback refused", "unauthenticated").len() as u64;
    let sums = of("more callbacks refused", "unauthenticated");
    let untold: u64 = sums.iter().map(|line| line["untold"].as_u64().unwrap()).sum();
    assert_eq!(whole + untold, FLOOD, "{sums:?}");
    assert!(whole <= 2 && sums.len() <= 3, "{whole} lines and {} sums", sums.len());
    assert!(sums.iter().all(|line| line["stranger"] == true && line["peer"] == "127.0.0.1"), "{sums:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_history_of_a_command_is_shown() {
    let vhost = Vhost::new().await;
    let app = App::start(&vhost).await;
    let worker = Worker::on(&vhost);
    let id = app.accept(&Callback::list("PO-77", "n2")).await;
    worker.command(&id).await;
    let show = async || run(app.file(), &["ledger", "show", "1"]).await.ended_with(0).stdout;
    let published = "published to countersign.commands, routing key approval.purchase.po_approval.approve; confirmed by the broker";
    let shown = eventually("the history to tell the publish", async || {
        let shown = show().await;
        if shown.contains(published) { Ok(shown) } else { Err(shown) }
    })
    .await;
    assert!(shown.contains(&id) && shown.contains("  accepted\n"), "a seq names it as well: {shown}");
    run(app.file(), &["ledger", "requeue", "1"]).await.ended_with(0);
    worker.messages(2).await;
    eventually("the history to tell both publishes and the operator's act", async || {
        let shown = show().await;
        let at = |words: &str| shown.find(words);
        let in_order = at("accepted").is_some() && at(published) < at("requeued by ");
        if in_order && shown.matches(published).count() == 2 { Ok(()) } else { Err(shown) }
    })
    .await;
    let all = ["ledger", "list", "--user", "zhang3", "--since", "1 h ago"];
    assert!(run(app.file(), &all).await.ended_with(0).stdout.contains(&id));
    for none in [&["--until", "1 h ago"][..], &["--message-id", "7"], &["--outcome", "applied"]] {
        let listed = run(app.file(), &[&["ledger", "list"][..], none].concat()).await.ended_with(0).stdout;
        assert!(!listed.contains(&id), "{none:?}: {listed}");
    }
    let times = run(app.file(), &["ledger", "list", "--utc-offset", "+08:00"]).await.ended_with(0).stdout;
    assert!(times.contains("+08:00"), "{times}");
}
