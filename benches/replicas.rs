//! Accepts of the ledger on PostgreSQL beside the SQLite ledger, and beside plain inserts into the same table: a table of
//! medians over interleaved rounds. Starts private servers, as the tests do; `TMPDIR` names another disk for all of them.
//!
//! `cargo bench --bench replicas -- [ROUNDS] [SECONDS]`, by default 5 rounds of 2 s for each cell.

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

#[expect(dead_code, reason = "the other benchmarks use the rest")]
#[path = "support/mod.rs"]
mod bench;
#[expect(dead_code, unused_imports, reason = "shared with the tests, which use all of it")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use countersign::{
    ledger::{self, Ledger, Location, Receipt, Settings, postgres},
    time::Timestamp,
};
use futures_util::future::join_all;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use support::postgres::{Postgres, PostgresPair};

/// Callbacks that wait at each replica at the same time; of the plain inserts, rows in a statement.
const WAITING: [usize; 3] = [1, 64, 256];

/// Rows into a table with the columns and indexes of the log, a statement at a time: what PostgreSQL itself can do with them.
const RAW: &str = "INSERT INTO countersign.raw
    SELECT $1 + i.n, i.id, $2, $2, 'bench', 'approve', 'APPROVE', i.user_id, 'demo', i.instance_id, i.task_id, NULL, i.task_key,
        i.fingerprint, i.fingerprint8, i.decision_key, i.decision_key8, i.message
    FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bytea[], $9::bigint[], $10::bytea[],
        $11::bigint[], $12::bytea[]) WITH ORDINALITY
        AS i (id, user_id, instance_id, task_id, task_key, fingerprint, fingerprint8, decision_key, decision_key8, message, n)";

struct Contestant {
    name: &'static str,
    what: What,
}

enum What {
    Ledgers(Vec<Arc<dyn Ledger>>),
    Raw(tokio_postgres::Client),
}

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let rounds = numbers.first().copied().unwrap_or(5);
    let time = Duration::from_secs(numbers.get(1).copied().unwrap_or(2));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be started");
    runtime.block_on(run(rounds, time));
}

async fn run(rounds: u64, time: Duration) {
    let directory = tempfile::tempdir_in(
        std::env::var_os("TMPDIR").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into()),
    );
    let directory = directory.expect("a directory can be made");
    let server = tokio::task::block_in_place(Postgres::shared);
    let pair = PostgresPair::boot(true).await;
    let sqlite = open(Location::Sqlite(directory.path().join("ledger.db"))).await;
    let (one, two, with_standby) = (server.database().await, server.database().await, pair.database().await);
    let contestants = [
        Contestant {
            name: "plain inserts, 1 connection",
            what: What::Raw(raw(&server.database().await).await),
        },
        Contestant { name: "SQLite", what: What::Ledgers(vec![sqlite]) },
        Contestant { name: "PostgreSQL, 1 replica", what: What::Ledgers(replicas(&one, 1).await) },
        Contestant { name: "PostgreSQL, 2 replicas", what: What::Ledgers(replicas(&two, 2).await) },
        Contestant {
            name: "  and a synchronous standby",
            what: What::Ledgers(replicas(&with_standby, 2).await),
        },
    ];
    let mut seen = vec![[const { Vec::new() }; WAITING.len()]; contestants.len()];
    for _ in 0..rounds {
        for (column, waiting) in WAITING.into_iter().enumerate() {
            for (row, contestant) in contestants.iter().enumerate() {
                seen[row][column].push(contestant.rate(waiting, time).await);
            }
        }
    }
    println!("accepts in a second, median of {rounds} rounds of {time:?} (least to most)");
    println!("{:<30} {:>24} {:>24} {:>24}", "", "1 waiting", "64 waiting", "256 waiting");
    for (contestant, cells) in contestants.iter().zip(&mut seen) {
        let cells = cells.each_mut().map(|rates| {
            rates.sort_by(f64::total_cmp);
            let median = rates[rates.len() / 2];
            format!("{median:.0} ({:.0} to {:.0})", rates[0], rates[rates.len() - 1])
        });
        println!("{:<30} {:>24} {:>24} {:>24}", contestant.name, cells[0], cells[1], cells[2]);
    }
    for contestant in &contestants {
        if let What::Ledgers(ledgers) = &contestant.what {
            join_all(ledgers.iter().map(|ledger| ledger.flush())).await;
        }
    }
}

impl Contestant {
    async fn rate(&self, waiting: usize, time: Duration) -> f64 {
        let began = Instant::now();
        let done = match &self.what {
            What::Raw(client) => inserts(client, waiting, began, time).await,
            What::Ledgers(ledgers) => {
                let done =
                    ledgers.iter().flat_map(|ledger| (0..waiting).map(|_| accepts(ledger, began, time)));
                join_all(done).await.into_iter().sum()
            }
        };
        done as f64 / began.elapsed().as_secs_f64()
    }
}

async fn open(location: Location) -> Arc<dyn Ledger> {
    ledger::open(&Settings { location, search_file: None, sizing: bench::sizing() })
        .await
        .expect("a new ledger")
}

async fn replicas(url: &str, count: usize) -> Vec<Arc<dyn Ledger>> {
    let mut ledgers = Vec::with_capacity(count);
    for _ in 0..count {
        let address = postgres::Address::parse(url, None).expect("a valid URL");
        let demands = postgres::Demands::default();
        let options = postgres::Options { address, demands, holder: "a benchmark".to_owned() };
        ledgers.push(open(Location::Postgres(options)).await);
    }
    ledgers
}

async fn accepts(ledger: &Arc<dyn Ledger>, began: Instant, time: Duration) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut done = 0;
    while began.elapsed() < time {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let receipt = ledger.accept(bench::acceptance(number, Timestamp::now())).await;
        assert!(matches!(receipt, Ok(Receipt::Accepted { .. })), "{receipt:?}");
        done += 1;
    }
    done
}

/// A table like that of the log, beside a ledger that has one.
async fn raw(url: &str) -> tokio_postgres::Client {
    drop(replicas(url, 1).await);
    let client = support::postgres::client(url).await;
    let sql = "CREATE TABLE countersign.raw (LIKE countersign.commands INCLUDING ALL)";
    client.batch_execute(sql).await.expect("a new table");
    client
}

async fn inserts(client: &tokio_postgres::Client, rows: usize, began: Instant, time: Duration) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let statement = client.prepare(RAW).await.expect("a statement");
    let mut done = 0;
    while began.elapsed() < time {
        let first = NEXT.fetch_add(rows as u64, Ordering::Relaxed);
        let numbers: Vec<u64> = (first..first + rows as u64).collect();
        let hashes: Vec<[u8; 32]> =
            numbers.iter().map(|number| Sha256::digest(number.to_be_bytes()).into()).collect();
        let texts = |what: &str| -> Vec<String> {
            numbers.iter().map(|number| format!("{what}-{number:08}")).collect()
        };
        let part = |at: usize| -> Vec<i64> {
            let part = |hash: &[u8; 32]| hash[at..at + 8].try_into().map(i64::from_be_bytes);
            hashes.iter().map(|hash| part(hash).expect("8 bytes")).collect()
        };
        let ids: Vec<Uuid> = numbers.iter().map(|_| Uuid::now_v7()).collect();
        let (whole, half) = (hashes.iter().map(|hash| &hash[..]), hashes.iter().map(|hash| &hash[16..]));
        client
            .execute(
                &statement,
                &[
                    &first.cast_signed(),
                    &Timestamp::now().as_millisecond(),
                    &ids,
                    &texts("user"),
                    &texts("instance"),
                    &texts("task"),
                    &part(8),
                    &whole.collect::<Vec<_>>(),
                    &part(0),
                    &half.collect::<Vec<_>>(),
                    &part(16),
                    &vec![&[b'x'; 820][..]; rows],
                ],
            )
            .await
            .expect("inserted");
        done += rows as u64;
    }
    done
}
