//! The shower between a real ledger and a fake center with controlled delays.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::*;
use crate::{
    center::client::double,
    command::{Action, Command, CommandId, Fingerprint, TaskRef, id::FingerprintParts, outcome::Outcome},
    ledger::{
        self, Accept, Acceptance, Limits, Lookup, OnConflict, Receipt, Reported, ShowingState,
        sqlite::SqliteLedger,
    },
};

#[derive(Default)]
struct Seen {
    /// Cards in the order in which their calls ended, with the status.
    shown: Vec<(String, String)>,
    under_way: usize,
    most_under_way: usize,
}

/// Answers every call with success. Calls for the card `1` wait until released.
struct Platform {
    inner: double::Platform,
    seen: Arc<Mutex<Seen>>,
    go: watch::Sender<bool>,
}

impl Platform {
    async fn start() -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let go = watch::Sender::new(false);
        let (noted, going) = (seen.clone(), go.subscribe());
        let inner = double::Platform::start(move |body| show(body, noted.clone(), going.clone())).await;
        Self { inner, seen, go }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    fn shown(&self) -> Vec<(String, String)> {
        self.seen().shown.clone()
    }

    fn center(&self) -> Center {
        self.inner.center()
    }
}

async fn show(body: String, seen: Arc<Mutex<Seen>>, mut go: watch::Receiver<bool>) -> Option<&'static str> {
    let body: Value = serde_json::from_str(&body).unwrap();
    let text = |member: &str| body[member].as_str().unwrap().to_owned();
    {
        let mut seen = seen.lock().unwrap();
        seen.under_way += 1;
        seen.most_under_way = seen.most_under_way.max(seen.under_way);
    }
    if body["message_id"] == "1" {
        go.wait_for(|go| *go).await.unwrap();
    } else {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut seen = seen.lock().unwrap();
    seen.under_way -= 1;
    seen.shown.push((text("message_id"), text("status")));
    Some(r#"{"code":0,"msg":"success","data":{"message_id":"7"}}"#)
}

fn open(directory: &Path) -> Arc<SqliteLedger> {
    let sizing = ledger::Sizing { queue_capacity: 100, max_batch: 100, limits: Limits::default() };
    Arc::new(SqliteLedger::open(&directory.join("ledger.db"), &sizing).unwrap())
}

/// A decision on a card.
async fn decided(ledger: &SqliteLedger, message_id: &str, task_id: &str) -> CommandId {
    let received_at = crate::time::Timestamp::now();
    let command = Command {
        command_id: CommandId::new(received_at),
        endpoint: "purchase".into(),
        received_at,
        action: Action::Approve,
        action_type: "APPROVE".to_owned(),
        origin: None,
        user_id: "zhang3".to_owned(),
        approval_code: None,
        task: TaskRef { task_id: Some(task_id.to_owned()), ..TaskRef::default() },
        reason: None,
        attachments: Vec::new(),
        action_context: None,
        message_id: Some(message_id.to_owned()),
        search_id: None,
        conflicts_with: None,
        repeats: None,
        extra: Vec::new(),
        trace: None,
    };
    let parts = FingerprintParts { endpoint: "purchase", task_id: Some(task_id), ..Default::default() };
    let acceptance = Acceptance {
        since: std::time::Instant::now(),
        command,
        fingerprint: Fingerprint::of(&parts),
        window: Duration::from_secs(60),
        repeats_window: Duration::ZERO,
        on_conflict: OnConflict::Publish,
    };
    match ledger.accept(acceptance).await {
        Ok(Receipt::Accepted { command_id }) => command_id,
        other => panic!("{other:?}"),
    }
}

async fn report(ledger: &SqliteLedger, command_id: CommandId, word: &str, status: Option<&str>) {
    let body = json!({ "schema": "approval.outcome/1", "command_id": command_id.to_string(),
        "outcome": word, "status": status });
    let outcome = Outcome::parse(body.to_string().as_bytes()).unwrap();
    let reported = ledger::Outcomes::report(ledger, outcome, true).await;
    assert_eq!(reported, Ok(Reported::Kept));
}

fn run_shower(
    ledger: &Arc<SqliteLedger>,
    center: Center,
    max_calls: usize,
) -> (JoinHandle<()>, watch::Sender<Option<Instant>>) {
    let (stop, stopping) = watch::channel(None);
    let (metrics, bell) = (Metrics::new(), Arc::default());
    let resources = Resources { ledger: ledger.clone(), metrics, bell, stop: stopping };
    let settings = Settings { max_calls, ..Settings::default() };
    let task = tokio::spawn(async move {
        shower::run(&resources, &settings, &center).await;
    });
    (task, stop)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..4000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what}: not within 20 s");
}

#[tokio::test]
async fn a_slow_card_holds_up_no_other_and_keeps_its_own_order() {
    let directory = tempfile::tempdir().unwrap();
    let (ledger, platform) = (open(directory.path()), Platform::start().await);
    let (first, second) = (decided(&ledger, "1", "a").await, decided(&ledger, "1", "b").await);
    report(&ledger, first, "applied", Some("FORWARDED")).await;
    report(&ledger, second, "applied", Some("ADD")).await;
    for card in 2..30 {
        let id = decided(&ledger, &card.to_string(), &format!("t{card}")).await;
        report(&ledger, id, "applied", None).await;
    }
    let (task, stop) = run_shower(&ledger, platform.center(), 4);
    until("all others", || platform.shown().len() == 28).await;
    assert!(platform.shown().iter().all(|(card, status)| card != "1" && status == "APPROVED"));
    assert_eq!(platform.seen().most_under_way, 4, "as many as are allowed, and no more");
    platform.go.send_replace(true);
    until("the slow one", || platform.shown().len() == 30).await;
    let slow: Vec<_> = platform.shown().into_iter().filter(|(card, _)| card == "1").collect();
    assert_eq!(slow.iter().map(|(_, status)| &**status).collect::<Vec<_>>(), ["FORWARDED", "ADD"]);
    stop.send_replace(Some(Instant::now() + Duration::from_secs(5)));
    task.await.unwrap();
    assert_eq!(ledger.stats().await.unwrap().outcomes_pending, 0);
}

#[tokio::test]
async fn what_is_superseded_while_it_is_being_shown_is_followed_by_what_superseded_it() {
    let directory = tempfile::tempdir().unwrap();
    let (ledger, platform) = (open(directory.path()), Platform::start().await);
    let id = decided(&ledger, "1", "a").await;
    report(&ledger, id, "failed", Some("PROCESSED")).await;
    let (task, stop) = run_shower(&ledger, platform.center(), 4);
    until("a call under way", || platform.seen().under_way == 1).await;
    report(&ledger, id, "applied", None).await;
    platform.go.send_replace(true);
    until("both", || platform.shown().len() == 2).await;
    let shown: Vec<_> = platform.shown().into_iter().map(|(_, status)| status).collect();
    assert_eq!(shown, ["PROCESSED", "APPROVED"]);
    stop.send_replace(Some(Instant::now() + Duration::from_secs(5)));
    task.await.unwrap();
    let record = ledger.find(id).await.unwrap().unwrap().outcome.unwrap();
    assert_eq!((record.showing, record.superseded), (ShowingState::Shown, 1));
}

#[tokio::test]
async fn stopping_waits_for_a_call_only_a_moment_and_it_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let (ledger, platform) = (open(directory.path()), Platform::start().await);
    let id = decided(&ledger, "1", "a").await;
    report(&ledger, id, "applied", None).await;
    let (task, stop) = run_shower(&ledger, platform.center(), 4);
    until("a call under way", || platform.seen().under_way == 1).await;
    let began = Instant::now();
    stop.send_replace(Some(Instant::now() + Duration::from_secs(60)));
    task.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(20));
    let record = async || ledger.find(id).await.unwrap().unwrap().outcome.unwrap();
    assert_eq!(record().await.showing, ShowingState::Waiting);
    platform.go.send_replace(true);
    let (task, stop) = run_shower(&ledger, platform.center(), 4);
    until("the call", || !platform.shown().is_empty()).await;
    stop.send_replace(Some(Instant::now() + Duration::from_secs(5)));
    task.await.unwrap();
    assert_eq!(record().await.showing, ShowingState::Shown);
}
