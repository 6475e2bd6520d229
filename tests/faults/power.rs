//! The power fails: whatever the disk makes of what was not synced, each decision that was answered is there.
//!
//! The program runs behind a layer that writes down every change of its files and every sync, in order
//! (`shim/shim.c`). From that journal any disk can be made that a power failure could have left behind: what was synced is
//! there, of the rest any part, in any order, torn between sectors, with sizes and names of files as they were or as they
//! would have become. The ledger is opened from each of hundreds of them.
//!
//! `COUNTERSIGN_POWER_SEED` repeats a run as far as the choice of disks goes, `COUNTERSIGN_POWER_IMAGES` makes it longer.

use crate::oracle::{Decision, Oracle};
use crate::shim::Shim;
use crate::support::{App, Config, Vhost, Worker, post};
use countersign::command::CommandId;
use countersign::ledger::sqlite::SqliteLedger;
use countersign::ledger::{Filter, Ledger, Limits, Settings, State};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use tokio::task::JoinSet;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// A change of a file, or a promise about it.
#[derive(Debug)]
struct Record {
    kind: u8,
    file: usize,
    offset: usize,
    bytes: Vec<u8>,
    /// Length of the journal after it.
    end: u64,
}

fn records(journal: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    let mut at = 0;
    while at + 32 <= journal.len() {
        let number = |place: usize| {
            let bytes = journal[at + 8 * place..at + 8 * place + 8].try_into().expect("eight bytes");
            usize::try_from(u64::from_ne_bytes(bytes)).expect("64 bits")
        };
        let (kind, file, offset, length) = (number(0), number(1), number(2), number(3));
        let bytes = journal[at + 32..at + 32 + length].to_vec();
        at += 32 + length;
        let kind = u8::try_from(kind).expect("a letter");
        records.push(Record { kind, file, offset, bytes, end: at as u64 });
    }
    assert_eq!(at, journal.len(), "the program was not killed within a record");
    records
}

/// What is not on the disk for sure.
#[derive(Clone)]
enum Change {
    Write(usize, Arc<[u8]>),
    Truncate(usize),
}

/// One file of the ledger.
#[derive(Clone, Default)]
struct FileState {
    /// Its name is on the disk for sure.
    named: bool,
    /// Its name has been made, and the directory was not synced since.
    naming: bool,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

/// The database, and its log.
#[derive(Clone, Default)]
struct Disk([FileState; 2]);

impl Disk {
    fn apply(&mut self, record: &Record) {
        /// As the layer numbers them.
        const DIRECTORY: usize = 3;
        if record.file == DIRECTORY {
            for file in &mut self.0 {
                file.named |= std::mem::take(&mut file.naming);
            }
            return;
        }
        let file = &mut self.0[record.file - 1];
        match record.kind {
            b'C' => file.naming = true,
            b'W' => file.pending.push(Change::Write(record.offset, record.bytes.as_slice().into())),
            b'T' => file.pending.push(Change::Truncate(record.offset)),
            b'S' => {
                for change in std::mem::take(&mut file.pending) {
                    carry_out(&mut file.durable, &change, |_| true);
                }
            }
            b'U' => *file = FileState::default(),
            other => panic!("a record of kind {other}"),
        }
    }

    /// A disk that could be left. `None` for a file that is not there.
    fn after_power_failure(&self, chance: &mut Chance) -> [Option<Vec<u8>>; 2] {
        // From nothing at all to everything of what was not synced.
        let share = chance.below(5);
        let disorder = chance.below(2) == 0;
        std::array::from_fn(|place| {
            let file = &self.0[place];
            if !file.named && (!file.naming || chance.below(2) == 0) {
                return None;
            }
            let mut content = file.durable.clone();
            let mut pending = file.pending.clone();
            if disorder {
                for place in (1..pending.len()).rev() {
                    pending.swap(place, chance.index(place + 1));
                }
            }
            for change in &pending {
                if chance.below(4) < share {
                    let torn = chance.below(4) == 0;
                    carry_out(&mut content, change, |_| !torn || chance.below(2) == 0);
                }
            }
            Some(content)
        })
    }
}

fn carry_out(content: &mut Vec<u8>, change: &Change, mut sector: impl FnMut(usize) -> bool) {
    match change {
        Change::Truncate(length) => content.resize(*length, 0),
        Change::Write(offset, bytes) => {
            let mut at = 0;
            while at < bytes.len() {
                // To the end of this sector of the disk.
                let step = (SECTOR - (offset + at) % SECTOR).min(bytes.len() - at);
                if sector(at) {
                    let (from, to) = (offset + at, offset + at + step);
                    if content.len() < to {
                        content.resize(to, 0);
                    }
                    content[from..to].copy_from_slice(&bytes[at..at + step]);
                }
                at += step;
            }
        }
    }
}

/// A decision that was answered, and how long the journal was then.
struct Receipt {
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
                receipts.push(Receipt { command_id: answer.command_id(), at });
                oracle.note(decision, Some(&answer), true);
            }
            receipts
        });
    }
    lanes.join_all().await.into_iter().flatten().collect()
}

async fn power_failures(images: usize, each: usize) {
    let seed: u64 = match std::env::var("COUNTERSIGN_POWER_SEED") {
        Ok(text) => text.parse().expect("COUNTERSIGN_POWER_SEED is a number"),
        Err(_) => getrandom::u64().expect("the system has randomness"),
    };
    let mut chance = Chance(seed | 1);

    let vhost = Vhost::new().await;
    let (shim, config) = Shim::between(Config::new(&vhost));
    let shim = Arc::new(shim);
    let mut app = App::with(config).await;
    let worker = Worker::on(&vhost);
    let oracle = Oracle::new();
    // A first life that is killed, a second that begins with what it left, and ends in order.
    let mut receipts = send(&app, &oracle, &shim, 12, each, 1).await;
    app.kill();
    app.restart().await;
    receipts.extend(send(&app, &oracle, &shim, 12, each / 2, 2).await);
    let figures = oracle.account(&app, &worker).await.check("behind the layer");
    app.terminate();
    app.ended().await;

    let bodies: BTreeMap<String, Vec<u8>> =
        worker.seen().into_iter().map(|message| (message.message_id(), message.body)).collect();
    let records = records(&shim.journal());
    let mut moments: BTreeSet<usize> = (0..images).map(|_| chance.index(records.len())).collect();
    // The last moment of all, when everything was answered and nothing more is synced.
    moments.insert(records.len() - 1);
    let (mut disk, mut next, mut looked_for) = (Disk::default(), 0, 0);
    for moment in moments {
        while next <= moment {
            disk.apply(&records[next]);
            next += 1;
        }
        let left = disk.after_power_failure(&mut chance);
        let promised: Vec<&Receipt> =
            receipts.iter().filter(|receipt| receipt.at <= records[moment].end).collect();
        looked_for += promised.len();
        check(left, &promised, &bodies, &format!("seed {seed}, record {moment} of {}", records.len())).await;
    }
    let said = format!(
        "power failure: seed {seed}, {images} disks from {} changes and syncs, answered 200 {}, receipts looked for {looked_for}, \
         missing 0",
        records.len(),
        figures.answered,
    );
    writeln!(std::io::stderr(), "{said}").expect("standard error is open");
    assert!(looked_for > 0);
}

/// Opens the ledger from one disk and looks for everything that was answered before the power failed.
async fn check(
    left: [Option<Vec<u8>>; 2],
    promised: &[&Receipt],
    bodies: &BTreeMap<String, Vec<u8>>,
    which: &str,
) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    let [database, log] = left;
    put(&path, database);
    put(&directory.path().join("ledger.db-wal"), log);
    let settings = Settings { path, queue_capacity: 16, max_batch: 16, limits: Limits::default() };
    let ledger = match SqliteLedger::open(&settings) {
        Ok(ledger) => ledger,
        Err(error) => panic!("{which}: cannot be opened: {error:?}"),
    };
    for receipt in promised {
        let id = CommandId::parse(&receipt.command_id).expect("a command id");
        let found = ledger.find(id).await.expect("the ledger can be read");
        let command = found.and_then(|record| record.command);
        let Some(command) = command else { panic!("{which}: {id} was answered 200, and is not there") };
        assert_eq!(
            command.get().as_bytes(),
            bodies[&receipt.command_id].as_slice(),
            "{which}: {id} is another than was published"
        );
    }
    // What counts as published was: else it would never be.
    let filter = Filter { state: Some(State::Published), limit: 1_000_000, ..Filter::default() };
    for record in ledger.list(filter).await.expect("the ledger can be read") {
        let id = record.command_id.to_string();
        assert!(bodies.contains_key(&id), "{which}: {id} counts as published, and is not");
    }
    ledger.flush().await;
}

fn put(path: &Path, content: Option<Vec<u8>>) {
    if let Some(content) = content {
        std::fs::write(path, content).expect("the directory is ours");
    }
}

/// xorshift64*
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("below a usize")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_power_failure_leaves_of_the_disk_what_was_answered_is_there() {
    power_failures(variable("COUNTERSIGN_POWER_IMAGES", 200), 20).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: thousands of disks, and enough load for checkpoints"]
async fn whatever_thousands_of_power_failures_leave_what_was_answered_is_there() {
    power_failures(variable("COUNTERSIGN_POWER_IMAGES", 3000), 150).await;
}

fn variable(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}
