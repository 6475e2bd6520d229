//! The power fails: whatever the disk makes of what was not synced, each decision that was answered is there.
//!
//! The program runs behind a layer that writes down every change of its files and every sync, in order
//! (`shim/shim.c`). From that journal any disk can be made that a power failure could have left behind: what was synced is
//! there, of the rest any part, in any order, torn between sectors, with sizes and names of files as they were or as they
//! would have become ([`disk`]). The ledger is opened from each of hundreds of them; and, in another test, the program
//! itself goes on from one, until the power fails again.
//!
//! `COUNTERSIGN_POWER_SEED` repeats a run as far as the choice of disks goes; `COUNTERSIGN_POWER_IMAGES` and
//! `COUNTERSIGN_POWER_FAILURES` make it longer.

mod disk;
mod unsynced;

use crate::oracle::{Decision, Oracle};
use crate::rogue::{Event, Rogue, Session, Then};
use crate::say;
use crate::shim::Shim;
use crate::support::{App, Config, Vhost, Worker, eventually, post};
use countersign::command::id::FingerprintParts;
use countersign::command::{Action, Command, CommandId, Fingerprint, Origin, TaskRef};
use countersign::ledger::sqlite::SqliteLedger;
use countersign::ledger::{
    Accept, Acceptance, Filter, Lifecycle, Limits, Lookup, OnConflict, Receipt as Told, Sizing, State,
};
use countersign::telemetry::failpoint::NAMES;
use disk::{Chance, Disk, Left, records};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Longer than any of these tests takes: whatever was answered is a repeat when it comes again.
const WINDOW: Duration = Duration::from_secs(3600);

/// A decision that was answered, and how long the journal was then.
struct Receipt {
    decision: Decision,
    command_id: String,
    at: u64,
}

async fn send(
    app: &App,
    oracle: &Oracle,
    shim: &Arc<Shim>,
    senders: usize,
    each: usize,
    life: usize,
) -> Vec<Receipt> {
    let mut lanes = JoinSet::new();
    for sender in 0..senders {
        let (client, url, oracle, shim) =
            (app.client(), app.callback_url("purchase"), oracle.clone(), Arc::clone(shim));
        lanes.spawn(async move {
            let mut receipts = Vec::new();
            for number in 0..each {
                let decision = Decision::new(&format!("power-{life}-{sender}-{}", number % 3), number);
                let answer = post(&client, &url, decision.body()).await.expect("an answer");
                let at = shim.written();
                oracle.note(decision.clone(), Some(&answer), true);
                receipts.push(Receipt { decision, command_id: answer.command_id(), at });
            }
            receipts
        });
    }
    lanes.join_all().await.into_iter().flatten().collect()
}

/// How long the journal was when the broker first confirmed a command: the cursor may not pass it in an earlier record.
type Confirmed = Arc<Mutex<BTreeMap<String, u64>>>;

/// A broker that confirms at once and remembers when, but refuses each seventh command once.
fn confirming(shim: Arc<Shim>, confirmed: Confirmed) -> impl FnMut(&mut Session, &Event<'_>) -> Then + Send {
    let mut count = 0_u64;
    move |session, event| {
        let Event::Published(tag) = event else { return Then::Usual };
        count += 1;
        if count.is_multiple_of(7) && session.times(*tag) == 1 {
            session.nack(*tag, false);
            return Then::Nothing;
        }
        let id = session.message_id(*tag);
        confirmed.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_insert(shim.written());
        Then::Usual
    }
}

fn seed() -> u64 {
    match std::env::var("COUNTERSIGN_POWER_SEED") {
        Ok(text) => text.parse().expect("COUNTERSIGN_POWER_SEED is a number"),
        Err(_) => getrandom::u64().expect("the system has randomness"),
    }
}

async fn power_failures(images: usize, each: usize) {
    let seed = seed();
    let mut chance = Chance::new(seed);

    let rogue = Rogue::start().await;
    let (shim, config) = Shim::between(rogue.config());
    let shim = Arc::new(shim);
    let confirmed = Confirmed::default();
    rogue.manner(confirming(Arc::clone(&shim), Arc::clone(&confirmed)));
    let mut app = App::with(config).await;
    let oracle = Oracle::new();
    // A first life that is killed, a second that begins with what it left, and ends in order.
    let mut receipts = send(&app, &oracle, &shim, 12, each, 1).await;
    app.kill();
    app.restart().await;
    receipts.extend(send(&app, &oracle, &shim, 12, each / 2, 2).await);
    // What is nacked comes after what was published behind it.
    let account = oracle.account_of(&app, async || rogue.routed()).await;
    let figures = account.check_any_order("behind the layer");
    app.terminate();
    app.ended().await;

    let bodies: BTreeMap<String, Vec<u8>> =
        rogue.routed().into_iter().map(|message| (message.message_id(), message.body)).collect();
    let records = records(&shim.journal());
    let mut moments: BTreeSet<usize> = (0..images).map(|_| chance.index(records.len())).collect();
    // The last moment of all, when everything was answered and nothing more is synced.
    moments.insert(records.len() - 1);
    let (mut disk, mut next) = (Disk::default(), 0);
    let mut looked_for = Looked::default();
    for moment in moments {
        while next <= moment {
            disk.apply(&records[next]);
            next += 1;
        }
        let end = records[moment].end;
        let failure = Failure {
            left: disk.after_power_failure(&mut chance),
            promised: receipts.iter().filter(|receipt| receipt.at <= end).collect(),
            bodies: &bodies,
            confirmed: {
                let confirmed = confirmed.lock().unwrap_or_else(PoisonError::into_inner);
                confirmed.iter().filter(|(_, at)| **at <= end).map(|(id, _)| id.clone()).collect()
            },
            which: format!("seed {seed}, record {moment} of {}", records.len()),
        };
        failure.check(&mut chance, &mut looked_for).await;
    }
    say(&format!(
        "power failure: seed {seed}, {images} disks from {} changes and syncs, answered 200 {}, receipts looked for {}, missing 0, \
         repeated {}, each a duplicate, published by the cursor {}, each confirmed before",
        records.len(),
        figures.answered,
        looked_for.receipts,
        looked_for.repeats,
        looked_for.published,
    ));
    assert!(looked_for.receipts > 0 && looked_for.repeats > 0 && looked_for.published > 0);
}

/// What was compared, over all disks.
#[derive(Default)]
struct Looked {
    receipts: usize,
    repeats: usize,
    published: usize,
}

/// One moment, and one disk that a failure then could have left.
struct Failure<'a> {
    left: Left,
    /// What had been answered by then.
    promised: Vec<&'a Receipt>,
    /// What was published in the end.
    bodies: &'a BTreeMap<String, Vec<u8>>,
    /// What the broker had confirmed by then.
    confirmed: BTreeSet<String>,
    which: String,
}

impl Failure<'_> {
    async fn check(self, chance: &mut Chance, looked: &mut Looked) {
        let which = &self.which;
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ledger.db");
        self.left.put(&path);
        let limits = Limits { longest_window: WINDOW, ..Limits::default() };
        let sizing = Sizing { queue_capacity: 16, max_batch: 16, limits };
        let ledger = match SqliteLedger::open(&path, &sizing) {
            Ok(ledger) => ledger,
            Err(error) => panic!("{which}: cannot be opened: {error:?}"),
        };
        for receipt in &self.promised {
            let id = CommandId::parse(&receipt.command_id).expect("a command id");
            let found = ledger.find(id).await.expect("the ledger can be read");
            let command = found.and_then(|record| record.command);
            let Some(command) = command else { panic!("{which}: {id} was answered 200, and is not there") };
            assert_eq!(
                command.get().as_bytes(),
                self.bodies[&receipt.command_id].as_slice(),
                "{which}: {id} is another than was published"
            );
        }
        // What counts as published is never published again, so it must have been.
        let filter = Filter { state: Some(State::Published), limit: 1_000_000, ..Filter::default() };
        for record in ledger.list(filter).await.expect("the ledger can be read") {
            let id = record.command_id.to_string();
            assert!(self.confirmed.contains(&id), "{which}: {id} counts as published, and was not confirmed");
            looked.published += 1;
        }
        // Some repeats, the latest among them: their rows are nearest to what was torn.
        let latest = self.promised.iter().max_by_key(|receipt| receipt.at).into_iter();
        let some: Vec<_> = match self.promised.len() {
            0 => Vec::new(),
            count => (0..3).map(|_| &self.promised[chance.index(count)]).chain(latest).collect(),
        };
        for receipt in &some {
            let command_id = CommandId::parse(&receipt.command_id).expect("a command id");
            let again = ledger.accept(repeat(&receipt.decision)).await;
            assert_eq!(
                again,
                Ok(Told::Duplicate { command_id }),
                "{which}: a repeat of {:?}",
                receipt.decision
            );
        }
        looked.receipts += self.promised.len();
        looked.repeats += some.len();
        ledger.flush().await;
    }
}

/// The same decision once more, as the program would hand it to the ledger.
fn repeat(decision: &Decision) -> Acceptance {
    let received_at = countersign::time::Timestamp::now();
    let context = format!("context of {}", decision.task);
    let fingerprint = Fingerprint::of(&FingerprintParts {
        endpoint: "purchase",
        action_context: Some(&context),
        instance_id: Some("instance"),
        task_id: Some(&decision.task),
        user_id: &decision.operator,
        action_type: decision.action,
        ..FingerprintParts::default()
    });
    let command = Command {
        command_id: CommandId::new(received_at),
        endpoint: "purchase".into(),
        received_at,
        action: Action::of(decision.action),
        action_type: decision.action.to_owned(),
        origin: Some(Origin::List),
        user_id: decision.operator.clone(),
        approval_code: None,
        task: TaskRef {
            instance_id: Some("instance".to_owned()),
            task_id: Some(decision.task.clone()),
            ..TaskRef::default()
        },
        reason: None,
        attachments: Vec::new(),
        action_context: Some(context),
        message_id: None,
        search_id: None,
        conflicts_with: None,
        repeats: None,
        extra: Vec::new(),
        trace: None,
    };
    Acceptance {
        since: Instant::now(),
        command,
        fingerprint,
        window: WINDOW,
        repeats_window: WINDOW,
        on_conflict: OnConflict::Publish,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_power_failure_leaves_of_the_disk_what_was_answered_is_there() {
    power_failures(variable("COUNTERSIGN_POWER_IMAGES", 60), 8).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: thousands of disks, and enough load for checkpoints"]
async fn whatever_thousands_of_power_failures_leave_what_was_answered_is_there() {
    power_failures(variable("COUNTERSIGN_POWER_IMAGES", 3000), 150).await;
}

/// A point at which the program stands when the power fails: one of those that it passes while it starts, or of the others.
/// None in particular, in one case of six.
fn point(chance: &mut Chance, starting: bool) -> &'static str {
    let points: Vec<_> = NAMES.into_iter().filter(|name| name.starts_with("start:") == starting).collect();
    if chance.below(6) == 0 { "" } else { points[chance.index(points.len())] }
}

/// The power fails again and again, each time on the disk that the last failure left, and in some cases while the program
/// starts. In the end everything that was ever answered has arrived.
async fn again_and_again(failures: usize, senders: usize) {
    const KILL_AT: &str = "COUNTERSIGN_KILL_AT";
    let seed = seed();
    say(&format!("power fails again and again: COUNTERSIGN_POWER_SEED={seed}"));
    let mut chance = Chance::new(seed);
    let vhost = Vhost::new().await;
    let (shim, config) = Shim::between(Config::new(&vhost));
    let ledger = config.dir().join("ledger.db");
    let mut app = App::with(config).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    let mut disk = Disk::default();
    for _ in 0..failures {
        let load = oracle.load(&app, senders);
        eventually("some answers, or the end", async || match (load.answered() > 200, app.runs()) {
            (false, true) => Err(load.answered()),
            _ => Ok(()),
        })
        .await;
        app.kill();
        load.stop().await;
        disk = fail(disk, &shim, &mut chance, &ledger);
        let start = point(&mut chance, true);
        if !start.is_empty() && chance.below(2) == 0 {
            app.reconfigure(|config| config.env(KILL_AT, start));
            app.restart_to_its_end().await;
            disk = fail(disk, &shim, &mut chance, &ledger);
        }
        let at = match point(&mut chance, false) {
            "" => String::new(),
            point => format!("{point}@{}", 1 + chance.below(60)),
        };
        app.reconfigure(|config| config.env(KILL_AT, &at));
        // With enough left over from before it may get there before it is ready.
        drop(app.try_restart().await);
    }
    app.kill();
    app.reconfigure(|config| config.env(KILL_AT, ""));
    app.restart().await;
    oracle.keep(&app, 3).await;
    drop(oracle.account(&app, &worker).await.check(&format!("power failure, {failures} times")));
}

/// The power fails now: makes the disk of the next life.
fn fail(mut disk: Disk, shim: &Shim, chance: &mut Chance, ledger: &std::path::Path) -> Disk {
    records(&shim.journal()).iter().for_each(|record| disk.apply(record));
    shim.forget();
    let left = disk.after_power_failure(chance);
    left.put(ledger);
    left.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn power_that_fails_again_and_again_costs_nothing_that_was_answered() {
    again_and_again(variable("COUNTERSIGN_POWER_FAILURES", 6), 8).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: a hundred lives"]
async fn power_that_fails_a_hundred_times_costs_nothing_that_was_answered() {
    again_and_again(variable("COUNTERSIGN_POWER_FAILURES", 100), 16).await;
}

fn variable(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}
