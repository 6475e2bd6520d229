//! `ledger salvage` and `ledger import`: files whose pages are overwritten, and what is left of them.

use crate::backup::{config, file, run, stop};
use crate::support::{App, Config, NOWHERE, Program, postgres, postgres::Postgres, quoted};
use countersign::command::{
    Action, Command, CommandId, Fingerprint, ResolvedBy, TaskRef, id::FingerprintParts,
};
use countersign::ledger::{
    Accept, Acceptance, Lifecycle, Limits, OnConflict, Receipt, Settlement, Sizing, sqlite::SqliteLedger,
};
use countersign::time::Timestamp;
use rusqlite::Connection;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const DONE: i32 = 0;
const FAILED: i32 = 1;
const PAGE: usize = 4096;

/// Numbers that are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).expect("smaller than the sides")
    }
}

fn acceptance(number: u64, at: Timestamp, comment: usize) -> Acceptance {
    let task_id = format!("task-{number}");
    let round = number.is_multiple_of(7).then(|| "1".to_owned());
    let command = Command {
        command_id: CommandId::new(at),
        endpoint: "leave".into(),
        received_at: at,
        action: Action::Approve,
        action_type: "APPROVE".to_owned(),
        origin: None,
        user_id: format!("user-{}", number % 50),
        approval_code: Some("CODE".to_owned()),
        task: TaskRef {
            instance_id: Some(format!("PO-{}", number / 3)),
            task_id: Some(task_id.clone()),
            round: round.clone(),
            resolved_by: Some(ResolvedBy::Json),
            ..TaskRef::default()
        },
        reason: Some("好".repeat(comment)),
        attachments: Vec::new(),
        action_context: None,
        message_id: None,
        search_id: None,
        conflicts_with: None,
        repeats: None,
        trace: None,
        extra: Vec::new(),
    };
    let parts = FingerprintParts {
        endpoint: "leave",
        task_id: Some(&task_id),
        round: round.as_deref(),
        ..Default::default()
    };
    Acceptance {
        since: Instant::now(),
        command,
        fingerprint: Fingerprint::of(&parts),
        window: Duration::ZERO,
        repeats_window: Duration::ZERO,
        on_conflict: OnConflict::Publish,
    }
}

/// A ledger of so many commands, of which the last are pending. Some messages take more than a page.
async fn filled(path: &Path, rows: u64, pending: u64) {
    let sizing = Sizing { queue_capacity: 10_000, max_batch: 256, limits: Limits::default() };
    let ledger = SqliteLedger::open(path, &sizing).expect("a new ledger");
    let newest = Timestamp::now() - Duration::from_secs(3600);
    let mut dice = Dice(7);
    for from in (0..rows).step_by(256) {
        let accepts: Vec<_> = (from..rows.min(from + 256))
            .map(|number| {
                let comment = if number % 11 == 0 { dice.throw(3000) } else { dice.throw(60) };
                ledger.accept(acceptance(number, newest - Duration::from_millis(rows - number), comment))
            })
            .collect();
        for accept in accepts {
            assert!(matches!(accept.await, Ok(Receipt::Accepted { .. })), "each is new");
        }
    }
    let through = Some(rows - pending);
    ledger.outbox().settle(Settlement { through, ..Settlement::default() }).await.expect("it is written");
    ledger.flush().await;
    drop(ledger);
    execute(
        path,
        "INSERT INTO exceptions SELECT seq, 'parked', 5, 0, 1790000000000, 'no queue' FROM commands WHERE seq % 97 = 0;
         INSERT INTO publish_events (seq, at, event, attempt, passed, words)
            SELECT seq, 1790000000000, 'refused', 1, 0, 'no queue' FROM commands WHERE seq % 97 = 0;
         INSERT INTO outcomes SELECT seq, 1790000000000, 0, 'applied', NULL, 'fine', NULL FROM commands WHERE seq % 5 = 0
            AND seq <= (SELECT published_through FROM cursor);
         INSERT INTO showings (seq, surface, target, state, attempts, next_attempt_at, changed_at)
            SELECT seq, 'instance', 'PO-' || seq, 'shown', 1, 0, 1790000000000 FROM outcomes WHERE seq % 10 = 0;
         INSERT INTO instance_versions SELECT 'PO-' || seq, seq, seq FROM outcomes WHERE seq % 10 = 0;
         INSERT INTO contexts (key, message_id, registered_at, operators, data)
            SELECT '上下文-' || seq, seq, 1790000000000, '[\"zhang3\"]', '{}' FROM commands WHERE seq % 9 = 0;
         PRAGMA wal_checkpoint(TRUNCATE)",
    );
}

fn execute(path: &Path, sql: &str) {
    Connection::open(path).expect("a ledger").execute_batch(sql).expect("SQL of ours");
}

/// What a command was, by its place.
type Before = BTreeMap<i64, (String, &'static str)>;

fn before(path: &Path) -> Before {
    let connection = Connection::open(path).expect("a ledger");
    let mut statement = connection
        .prepare(
            "SELECT c.seq, lower(hex(c.command_id)), CASE WHEN e.state = 'parked' THEN 2 WHEN e.state IS NOT NULL THEN 1
                WHEN c.seq <= (SELECT published_through FROM cursor) THEN 0 ELSE 1 END
             FROM commands c LEFT JOIN exceptions e ON e.seq = c.seq",
        )
        .expect("SQL of ours");
    let rows = statement.query_map([], |row| {
        let state = ["published", "pending", "parked"][usize::from(row.get::<_, u8>(2)?)];
        Ok((row.get(0)?, (row.get(1)?, state)))
    });
    rows.expect("SQL of ours").map(|row| row.expect("a row")).collect()
}

/// The pages that each command is in, as SQLite says.
fn pages(path: &Path) -> BTreeMap<i64, BTreeSet<u32>> {
    let connection = Connection::open(path).expect("a ledger");
    let places: Vec<i64> = column(&connection, "SELECT seq FROM commands ORDER BY seq");
    let mut statement = connection
        .prepare("SELECT path, pageno, ncell FROM dbstat WHERE name = 'commands' AND pagetype = 'leaf' ORDER BY path")
        .expect("SQL of ours");
    let leaves: Vec<(String, u32, u32)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .expect("SQL of ours")
        .map(|row| row.expect("a row"))
        .collect();
    let mut of: BTreeMap<i64, BTreeSet<u32>> = BTreeMap::new();
    let mut cells = BTreeMap::new();
    let mut next = places.iter();
    for (path, page, count) in leaves {
        for cell in 0..count {
            let seq = *next.next().expect("as many cells as commands");
            of.insert(seq, BTreeSet::from([page]));
            cells.insert(format!("{path}{cell:03x}"), seq);
        }
    }
    assert!(next.next().is_none(), "every command is in a leaf");
    let mut statement = connection
        .prepare("SELECT path, pageno FROM dbstat WHERE name = 'commands' AND pagetype = 'overflow'")
        .expect("SQL of ours");
    let overflow =
        statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?))).expect("SQL of ours");
    for (path, page) in overflow.map(|row| row.expect("a row")) {
        let cell = path.split('+').next().expect("a text");
        let seq = cells.get(cell).unwrap_or_else(|| panic!("no cell {cell}"));
        of.get_mut(seq).expect("it has a leaf").insert(page);
    }
    of
}

fn column<T: rusqlite::types::FromSql>(connection: &Connection, sql: &str) -> Vec<T> {
    let mut statement = connection.prepare(sql).expect("SQL of ours");
    statement.query_map([], |row| row.get(0)).expect("SQL of ours").map(|row| row.expect("a row")).collect()
}

/// Overwrites pages: with nothing, with noise, or with another page, as a disk does that loses its way.
fn overwrite(path: &Path, pages: &BTreeSet<u32>, dice: &mut Dice) {
    let whole = std::fs::read(path).expect("a file");
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("a file");
    for page in pages {
        let bytes: Vec<u8> = match dice.throw(3) {
            0 => vec![0; PAGE],
            1 => (0..PAGE).map(|_| u8::try_from(dice.throw(256)).expect("a byte")).collect(),
            _ => {
                let other = dice.throw(whole.len() / PAGE - 1) + 1;
                whole[other * PAGE..(other + 1) * PAGE].to_vec()
            }
        };
        file.write_all_at(&bytes, u64::from(page - 1) * PAGE as u64).expect("it is ours");
    }
}

fn program(dir: &Path, args: &[&str]) -> Program {
    Program::new(args).dir(dir)
}

/// The commands of a file of JSON lines: id and state by place.
fn salvaged(path: &Path) -> Before {
    let text = std::fs::read_to_string(path).expect("UTF-8");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines
        .filter(|line| line["table"] == "commands")
        .map(|line| {
            let state = ["published", "pending", "parked"].into_iter().find(|state| line["state"] == **state);
            let id = line["command_id"].as_str().expect("a text").replace('-', "");
            (line["seq"].as_i64().expect("a place"), (id, state.expect("a state")))
        })
        .collect()
}

async fn salvage(dir: &Path, from: &Path, to: &Path) -> (i32, Value) {
    let (from, to) = (from.display().to_string(), to.display().to_string());
    let ran = program(dir, &["ledger", "salvage", &from, "--output", &to, "--force", "--json"]).run().await;
    (ran.code.unwrap_or(-1), ran.json())
}

/// Takes a file into a new ledger, which must be sound then.
async fn imported(dir: &Path, file: &Path, ledger: &str) -> Value {
    let set = format!("ledger.url={ledger}");
    let ran =
        program(dir, &["ledger", "import", &file.display().to_string(), "--json", "--set", &set]).run().await;
    let told = ran.ended_with(DONE).json();
    assert_eq!(told["faults"], json!(0), "{told}");
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_outside_of_overwritten_pages_is_salvaged_and_nothing_is_published_that_was() {
    overwritten(1..=6).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: half a minute"]
async fn everything_outside_of_many_overwritten_pages_is_salvaged_and_nothing_is_published_that_was() {
    overwritten(7..=48).await;
}

/// Salvages a ledger once for each seed, which says what pages are overwritten.
async fn overwritten(seeds: RangeInclusive<u64>) {
    let config = Config::bare(NOWHERE);
    let dir = config.dir();
    let (whole, damaged, out) = (dir.join("whole.db"), dir.join("damaged.db"), dir.join("out.jsonl"));
    filled(&whole, 3000, 200).await;
    let (before, pages_of) = (before(&whole), pages(&whole));
    let count = u32::try_from(std::fs::metadata(&whole).expect("a file").len()).expect("small") / PAGE as u32;
    // Those that matter most are hit for certain in some rounds: the first, the cursor, the exceptions, inner ones.
    let roots: Vec<u32> = column(
        &Connection::open(&whole).expect("a ledger"),
        "SELECT 1 UNION SELECT rootpage FROM sqlite_schema WHERE name IN ('commands', 'cursor', 'exceptions', 'publish_marks')
         UNION SELECT pageno FROM dbstat WHERE name = 'commands' AND pagetype = 'internal'",
    );
    assert!(roots.len() >= 6, "{roots:?}");
    for seed in seeds {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut bad: BTreeSet<u32> =
            (0..dice.throw(12) + 1).map(|_| dice.throw(count as usize) as u32 + 1).collect();
        if seed % 2 == 0 {
            bad.insert(roots[dice.throw(roots.len())]);
        }
        std::fs::copy(&whole, &damaged).expect("ours");
        overwrite(&damaged, &bad, &mut dice);
        let (code, told) = salvage(dir, &damaged, &out).await;
        let found = salvaged(&out);
        let hit: BTreeSet<i64> =
            pages_of.iter().filter(|(_, pages)| !pages.is_disjoint(&bad)).map(|(seq, _)| *seq).collect();
        let expected: Vec<i64> = before.keys().copied().filter(|seq| !hit.contains(seq)).collect();
        let there: Vec<i64> = found.keys().copied().filter(|seq| !hit.contains(seq)).collect();
        assert_eq!(there, expected, "seed {seed}, pages {bad:?}: {told}");
        for (seq, (id, state)) in &found {
            let (was_id, was) = &before[seq];
            assert_eq!(id, was_id, "seed {seed}: {seq}");
            assert!(
                state == was || *state == "parked",
                "seed {seed}: {seq} was {was} and is {state}: {told}"
            );
        }
        // Each lost one is named by its place, and the rest of the file by nothing.
        let lost: i64 = told["lost"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|range| range[1].as_i64().expect("a place") - range[0].as_i64().expect("a place") + 1)
            .sum();
        let missing = before.len() - found.len();
        if *before.keys().last().expect("some") == found.keys().last().copied().unwrap_or(0) {
            assert_eq!(lost, i64::try_from(missing).expect("few"), "seed {seed}: {told}");
        }
        assert!(missing == 0 || code == FAILED, "seed {seed}: {told}");
        if seed % 6 == 0 {
            let ledger = dir.join(format!("new-{seed}.db"));
            let told = imported(dir, &out, &format!("sqlite:{}", ledger.display())).await;
            assert_eq!(told["tables"]["commands"], json!(found.len()), "{told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_file_is_the_same_ledger_after_salvage_and_import_on_either_kind() {
    let config = Config::bare(NOWHERE);
    let dir = config.dir();
    let (whole, out) = (dir.join("whole.db"), dir.join("out.jsonl"));
    filled(&whole, 500, 20).await;
    // The newest commits are in the write-ahead log only.
    let connection = Connection::open(&whole).expect("a ledger");
    let late = "PRAGMA wal_autocheckpoint = 0; UPDATE exceptions SET note = 'late' WHERE seq = 97;
         INSERT INTO acts (id, at, changed_at, act, via, count) VALUES (1, 1790000000000, 1790000000000, 'park', 'cli', 1);
         INSERT INTO act_commands (act_id, seq, at) VALUES (1, 97, 1790000000000)";
    connection.execute_batch(late).expect("SQL of ours");
    let (code, told) = salvage(dir, &whole, &out).await;
    assert_eq!((code, &told["lost"], &told["parked"]), (DONE, &json!([]), &json!(0)), "{told}");
    drop(connection);
    assert_eq!(salvaged(&out), before(&whole));
    let database = tokio::task::block_in_place(Postgres::shared).database().await;
    let list = async |ledger: &str| {
        let set = format!("ledger.url={ledger}");
        let mut told = String::new();
        for args in [
            &["ledger", "list", "--json", "--limit", "10000"][..],
            &["ledger", "list", "--json", "--state", "parked"],
            &["ledger", "show", "97", "--json"],
        ] {
            told += &program(dir, &[args, &["--set", &set]].concat()).run().await.ended_with(DONE).stdout;
        }
        let stats =
            program(dir, &["ledger", "stats", "--json", "--set", &set]).run().await.ended_with(DONE).json();
        (told, stats["pending"].clone(), stats["published"].clone(), stats["head"].clone())
    };
    let expected = list(&format!("sqlite:{}", whole.display())).await;
    let other = format!("sqlite:{}", dir.join("other.db").display());
    for ledger in [&other, &database] {
        imported(dir, &out, ledger).await;
        assert_eq!(list(ledger).await, expected, "{ledger}");
        // Nothing goes into a ledger that has something.
        let set = format!("ledger.url={ledger}");
        let again =
            program(dir, &["ledger", "import", &out.display().to_string(), "--set", &set]).run().await;
        assert!(again.ended_with(FAILED).stderr.contains("holds a ledger already"));
    }
    let shown = "SELECT nextval(pg_get_serial_sequence('countersign.showings', 'id'))";
    let row = postgres::client(&database).await.query_one(shown, &[]).await.expect("SQL of ours");
    assert!(row.get::<_, i64>(0) > 40, "ids go on after the largest");
}

/// A frame of a write-ahead log: its header and a page.
const FRAME: usize = 24 + PAGE;

/// What happens to a log, which has so many frames.
type Harm = fn(&mut Vec<u8>, usize);

/// Commands are published in the part of the log that cannot be read, or after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_damaged_makes_nothing_pending_that_was_published() {
    let config = Config::bare(NOWHERE);
    let dir = config.dir();
    let (whole, damaged, out) = (dir.join("whole.db"), dir.join("damaged.db"), dir.join("out.jsonl"));
    let log = |of: &Path| PathBuf::from(format!("{}-wal", of.display()));
    filled(&whole, 300, 100).await;
    let connection = Connection::open(&whole).expect("a ledger");
    connection.execute_batch("PRAGMA wal_autocheckpoint = 0").expect("SQL of ours");
    // An older log, longer than the new one, whose frames stay in the file.
    for _ in 0..30 {
        connection.execute_batch("UPDATE showings SET attempts = attempts + 1").expect("SQL of ours");
    }
    connection.execute_batch("PRAGMA wal_checkpoint(RESTART)").expect("SQL of ours");
    for sql in [
        "INSERT INTO exceptions VALUES (10, 'requeued', 0, 0, 1790000000000, '')",
        "UPDATE cursor SET published_through = 220; INSERT INTO publish_marks VALUES (220, 200, 1790000000000, 1790000000000, NULL)",
        "DELETE FROM exceptions WHERE seq = 10; UPDATE cursor SET published_through = 240",
        "INSERT INTO publish_marks VALUES (240, 220, 1790000000000, 1790000000000, NULL)",
        "UPDATE cursor SET published_through = 260",
    ] {
        connection.execute_batch(&format!("BEGIN; {sql}; COMMIT")).expect("SQL of ours");
    }
    let before = before(&whole);
    let frames = {
        let bytes = std::fs::read(log(&whole)).expect("a log");
        let is_new = |frame: &&[u8]| frame[8..16] == bytes[16..24];
        assert!(bytes.len() > 32 + 20 * FRAME, "the older log is longer");
        bytes[32..].chunks_exact(FRAME).take_while(is_new).count()
    };
    assert!(frames >= 7, "{frames}");
    let (code, told) = salvage(dir, &whole, &out).await;
    assert_eq!((code, &told["log_cut"], &told["parked"]), (DONE, &json!(false), &json!(0)), "{told}");
    assert_eq!(salvaged(&out), before, "what an older log has left is no damage");
    let harms: [(&str, Harm); 6] = [
        ("a frame of nothing", |log, at| log[32 + at * FRAME..][..FRAME].fill(0)),
        ("a frame with another salt", |log, at| log[32 + at * FRAME + 8] ^= 1),
        ("a frame with the salt of the log before", |log, at| {
            log[32 + at * FRAME + 11] ^= log[19] ^ (log[19].wrapping_sub(1))
        }),
        ("a page that does not match its checksum", |log, at| log[32 + at * FRAME + 99] ^= 1),
        ("noise up to the end", |log, at| log[32 + at * FRAME..].fill(0xa5)),
        ("an end in the middle of a frame", |log, at| log.truncate(32 + at * FRAME + 99)),
    ];
    for (is_moved, (harm, damage)) in
        [false, true].into_iter().flat_map(|moved| harms.map(|harm| (moved, harm)))
    {
        if is_moved {
            // The pages are in the database too, and those in the log are older.
            connection.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").expect("SQL of ours");
        }
        for at in (0..frames).rev().step_by(2) {
            std::fs::copy(&whole, &damaged).expect("ours");
            let mut bytes = std::fs::read(log(&whole)).expect("a log");
            damage(&mut bytes, at);
            std::fs::write(log(&damaged), bytes).expect("ours");
            let (code, told) = salvage(dir, &damaged, &out).await;
            let about = format!("{harm}: frame {at} of {frames}, moved {is_moved}: {told}");
            assert_eq!((code, &told["log_cut"]), (FAILED, &json!(true)), "{about}");
            let found = salvaged(&out);
            assert_eq!(found.len(), before.len(), "{about}");
            let mut parked = 0;
            for (seq, (id, state)) in &found {
                let (was_id, was) = &before[seq];
                assert!(
                    id == was_id && (state == was || *state == "parked"),
                    "{seq} was {was}: {state}: {about}"
                );
                parked += u64::from(state != was);
            }
            assert!(parked < 150, "what was published before the log stays so: {parked}: {about}");
        }
    }
}

/// A number of SQLite with a variable length ends here.
fn after_number(bytes: &[u8], at: usize) -> usize {
    at + 1 + bytes[at..].iter().take(8).take_while(|byte| **byte >= 0x80).count()
}

fn number(bytes: &[u8], at: usize) -> usize {
    usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1])
}

/// The whole file and what of it is salvaged after some bytes were changed: rows by table.
async fn rows_after(dir: &Path, whole: &Path, change: impl FnOnce(&mut [u8])) -> (i32, Value, Before) {
    let (damaged, out) = (dir.join("damaged.db"), dir.join("out.jsonl"));
    let mut bytes = std::fs::read(whole).expect("a file");
    change(&mut bytes);
    std::fs::write(&damaged, bytes).expect("ours");
    let (code, told) = salvage(dir, &damaged, &out).await;
    (code, told, salvaged(&out))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pointer_into_another_table_takes_nothing_from_it() {
    let config = Config::bare(NOWHERE);
    let dir = config.dir();
    let whole = dir.join("whole.db");
    filled(&whole, 3000, 200).await;
    let before = before(&whole);
    let (_, expected, _) = rows_after(dir, &whole, |_| ()).await;
    let connection = Connection::open(&whole).expect("a ledger");
    let page = |sql: &str| column::<u32>(&connection, sql)[0] as usize;
    let parent = page("SELECT pageno FROM dbstat WHERE name = 'outcomes' AND pagetype = 'internal'");
    for table in ["showings", "publish_events", "contexts", "exceptions", "commands", "rounds", "cursor"] {
        for kind in ["leaf", "internal"] {
            let sql = format!(
                "SELECT coalesce(max(pageno), 0) FROM dbstat WHERE name = '{table}' AND pagetype = '{kind}'"
            );
            let other = page(&sql);
            if other == 0 {
                continue;
            }
            let (code, told, found) = rows_after(dir, &whole, |bytes| {
                let inner = &mut bytes[(parent - 1) * PAGE..parent * PAGE];
                let cell = number(inner, 12);
                inner[cell..cell + 4].copy_from_slice(&u32::try_from(other).expect("small").to_be_bytes());
            })
            .await;
            assert_eq!(code, FAILED, "{kind} of {table}: {told}");
            assert_eq!(told["tables"], expected["tables"], "{kind} of {table}: {told}");
            assert_eq!(found, before, "{kind} of {table}: {told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_the_list_of_tables_has_lost_is_not_taken_for_an_empty_one() {
    let config = Config::bare(NOWHERE);
    let dir = config.dir();
    let whole = dir.join("whole.db");
    filled(&whole, 600, 200).await;
    for is_vacuumed in [false, true] {
        if is_vacuumed {
            // First pages of tables are elsewhere then.
            execute(&whole, "VACUUM; PRAGMA wal_checkpoint(TRUNCATE)");
        }
        let before = before(&whole);
        let connection = Connection::open(&whole).expect("a ledger");
        let leaves: Vec<u32> = column(
            &connection,
            "SELECT pageno FROM dbstat WHERE name = 'sqlite_schema' AND pagetype = 'leaf' ORDER BY path",
        );
        let bytes = std::fs::read(&whole).expect("a file");
        let mut hit = BTreeSet::new();
        for leaf in leaves {
            let start = (leaf as usize - 1) * PAGE;
            let head = start + if leaf == 1 { 100 } else { 0 };
            for cell in 0..number(&bytes, head + 3) {
                let at = start + number(&bytes, head + 8 + 2 * cell);
                let record = after_number(&bytes, after_number(&bytes, at));
                let text = String::from_utf8_lossy(&bytes[record..record + 60]).into_owned();
                if !text.contains("table") {
                    continue;
                }
                hit.insert(text.chars().filter(char::is_ascii_graphic).collect::<String>());
                for is_short in [false, true] {
                    let (code, told, found) = rows_after(dir, &whole, |bytes| {
                        if is_short {
                            // The page says that it has fewer.
                            bytes[head + 3..head + 5]
                                .copy_from_slice(&u16::try_from(cell).expect("few").to_be_bytes());
                        } else {
                            bytes[record] = 0;
                        }
                    })
                    .await;
                    assert_eq!(code, FAILED, "{text:?}: {told}");
                    for (seq, (id, state)) in &found {
                        let (was_id, was) = &before[seq];
                        assert!(
                            id == was_id && (state == was || *state == "parked"),
                            "{text:?} vacuumed {is_vacuumed} short {is_short}: {seq} was {was} and is {state}: {told}"
                        );
                    }
                    if !is_vacuumed {
                        assert_eq!(found.len(), before.len(), "{text:?}: {told}");
                    }
                }
            }
        }
        assert!(hit.len() >= 15, "{hit:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_or_changed_is_not_imported_at_all() {
    let config = Config::bare(NOWHERE);
    let dir = config.dir();
    let (whole, out) = (dir.join("whole.db"), dir.join("out.jsonl"));
    filled(&whole, 60, 5).await;
    salvage(dir, &whole, &out).await;
    let text = std::fs::read_to_string(&out).expect("UTF-8");
    let lines: Vec<&str> = text.lines().collect();
    let without = |left_out: usize| {
        let kept = lines.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, line)| *line);
        kept.collect::<Vec<_>>().join("\n") + "\n"
    };
    let cases = [
        (lines[..lines.len() - 1].join("\n") + "\n", "it is not whole"),
        (without(0), "line 1: it is not the beginning of a ledger"),
        (without(5), "the file does not have all of its rows"),
        (text.clone() + "{}\n", "something follows the last line"),
        (text.replace("\"table\":\"rounds\"", "\"table\":\"sounds\""), "it is of no table"),
        (text.replacen("\"received_at\":1", "\"received_at\":\"1", 1), "it is no JSON object"),
        (text.replace("countersign-ledger/1", "countersign-ledger/2"), "this program knows"),
    ];
    let ledger = dir.join("new.db");
    let set = format!("ledger.url=sqlite:{}", ledger.display());
    let changed = dir.join("changed.jsonl");
    for (text, words) in cases {
        std::fs::write(&changed, text).expect("ours");
        let ran =
            program(dir, &["ledger", "import", &changed.display().to_string(), "--set", &set]).run().await;
        assert!(ran.code == Some(FAILED) && ran.stderr.contains(words), "{words}: {ran:?}");
        assert!(!ledger.exists(), "{words}");
    }
    // Two rows of one key: neither takes the place of the other.
    let round = lines.iter().find(|line| line.contains("\"table\":\"rounds\"")).expect("some have rounds");
    let rows = format!("\"rows\":{}", lines.len() - 2);
    let twice = text
        .replace(round, &format!("{round}\n{round}"))
        .replace(&rows, &format!("\"rows\":{}", lines.len() - 1));
    std::fs::write(&changed, twice).expect("ours");
    let ran = program(dir, &["ledger", "import", &changed.display().to_string(), "--set", &set]).run().await;
    let said = ran.ended_with(FAILED).stderr;
    assert!(
        said.contains("nothing was changed") && said.contains("UNIQUE constraint failed: rounds"),
        "{said}"
    );
    let nothing = dir.join("nothing");
    std::fs::write(&nothing, vec![7; 50_000]).expect("ours");
    let ran = program(dir, &["ledger", "salvage", &nothing.display().to_string()]).run().await;
    assert!(ran.code == Some(FAILED) && ran.stdout.is_empty(), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn salvage_writes_over_no_ledger_and_removes_nothing_of_others() {
    let config = Config::bare(NOWHERE);
    let dir = config.dir();
    let whole = dir.join("whole.db");
    filled(&whole, 60, 5).await;
    let (link, copy, headless) = (dir.join("link.db"), dir.join("copy.db"), dir.join("headless.db"));
    std::fs::hard_link(&whole, &link).expect("ours");
    std::fs::copy(&whole, &copy).expect("ours");
    let mut bytes = std::fs::read(&whole).expect("a file");
    bytes[..PAGE].fill(0);
    std::fs::write(&headless, bytes).expect("ours");
    let log = dir.join("headless.db-wal");
    std::fs::create_dir(dir.join("sub")).expect("ours");
    let roundabout = dir.join("sub/../headless.db");
    for (from, to) in [
        (&whole, &whole),
        (&whole, &link),
        (&whole, &copy),
        (&headless, &headless),
        (&headless, &roundabout),
        (&headless, &log),
    ] {
        let before = std::fs::read(to).ok();
        let (from, name) = (from.display().to_string(), to.display().to_string());
        let ran = program(dir, &["ledger", "salvage", &from, "--output", &name, "--force"]).run().await;
        assert!(ran.ended_with(FAILED).stderr.contains("OUT is"), "{from} to {name}");
        assert_eq!(std::fs::read(to).ok(), before, "{from} to {name}");
    }
    let out = dir.join("out.jsonl");
    let other = dir.join("out.jsonl.part");
    std::fs::write(&other, "of somebody").expect("ours");
    let (code, told) = salvage(dir, &whole, &out).await;
    assert_eq!(code, DONE, "{told}");
    assert_eq!(std::fs::read(&other).expect("it is left"), b"of somebody");
}

/// A ledger whose commands were lost goes on: what was pending is published, and the callback of a lost one is taken again.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_goes_on_with_what_was_imported() {
    let vhost = crate::support::Vhost::new().await;
    let mut app = App::with(config(NOWHERE)).await;
    let mut ids = Vec::new();
    for number in 0..6 {
        ids.push(app.post("rounds", crate::backup::round(&number.to_string())).await.command_id());
    }
    stop(&mut app).await;
    // The third is lost, and its round left.
    execute(&file(&app), "DELETE FROM commands WHERE seq = 3");
    let set_aside: PathBuf = app.dir().join("aside.db");
    std::fs::rename(file(&app), &set_aside).expect("ours");
    let out = app.dir().join("out.jsonl");
    let (code, told) = salvage(app.dir(), &set_aside, &out).await;
    assert_eq!((code, &told["lost"]), (FAILED, &json!([[3, 3]])), "{told}");
    let done = run(&app, &["ledger", "import", &out.display().to_string(), "--json"])
        .run()
        .await
        .ended_with(DONE)
        .json();
    assert_eq!(
        (&done["head"], &done["lost"], &done["left_out"]),
        (&json!(5), &json!(1), &json!(1)),
        "{done}"
    );
    app.reconfigure(|config| config.set("amqp", "url", &quoted(vhost.url())));
    app.restart().await;
    let worker = crate::support::Worker::on(&vhost);
    for id in ids.iter().filter(|id| **id != ids[2]) {
        worker.command(id).await;
    }
    let known = app.post("rounds", crate::backup::round("1")).await;
    assert_eq!((known.status_word(), known.command_id()), ("duplicate".to_owned(), ids[1].clone()));
    let lost = app.post("rounds", crate::backup::round("2")).await;
    assert_eq!(lost.status_word(), "accepted", "nobody knows it any more");
    let stats = run(&app, &["ledger", "stats", "--json"]).run().await.ended_with(DONE).json();
    assert_eq!(stats["head"], json!(6), "{stats}");
}

/// By hand, for the figures in docs/operations.md: `cargo test --release --test it -- --ignored two_hundred --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn two_hundred_thousand_commands_are_backed_up_checked_salvaged_and_imported() {
    let config = Config::bare(NOWHERE);
    let dir = config.dir();
    let (whole, out) = (dir.join("ledger.db"), dir.join("out.jsonl"));
    filled(&whole, 200_000, 1000).await;
    let config_file = config.write();
    let (backup, jsonl) = (dir.join("backup.db").display().to_string(), out.display().to_string());
    let new = format!("ledger.url=sqlite:{}", dir.join("new.db").display());
    let database = tokio::task::block_in_place(Postgres::shared).database().await;
    let postgres = format!("ledger.url={database}");
    let own = whole.display().to_string();
    for args in [
        &["ledger", "backup", &backup, "--json"][..],
        &["ledger", "check", "--json"],
        &["ledger", "salvage", &own, "--output", &jsonl, "--json"],
        &["ledger", "import", &jsonl, "--json", "--set", &new],
        &["ledger", "import", &jsonl, "--json", "--set", &postgres],
        &["ledger", "check", "--json", "--set", &postgres],
    ] {
        let began = Instant::now();
        let mut timed = std::process::Command::new("/usr/bin/env");
        timed.args([
            "bash",
            "-c",
            "ulimit -v 1500000; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_countersign"),
        ]);
        timed.args(args).env("COUNTERSIGN_CONFIG", &config_file);
        let ran =
            tokio::task::spawn_blocking(move || timed.output()).await.expect("it runs").expect("it ran");
        let told = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(ran.status.success(), "{args:?}: {told}{}", String::from_utf8_lossy(&ran.stderr));
        let seconds = began.elapsed().as_secs_f64();
        writeln!(std::io::stderr(), "{:?} {seconds:.1} s {told}", &args[..2]).expect("somebody looks on");
    }
}
