//! Two replicas that accept, of which one publishes, until the test has seen enough.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use countersign::{
    ledger::{Exception, Ledger, Limits, Outbox, Settlement, postgres::PostgresLedger, state::Exceptional},
    time::Timestamp,
};
use tokio::task::JoinSet;

use super::oracle::{Decision, Figures, Oracle};
use crate::{
    scratch::{options, sizing},
    support::{eventually, postgres::PostgresPair},
};

/// Decisions under way at the same time.
pub(super) const SENDERS: usize = 8;

/// Another process with the ledger of this URL.
pub(super) async fn replica(url: &str) -> Arc<dyn Ledger> {
    let opened = PostgresLedger::open(&options(url), &sizing(Limits::default(), 1000)).await;
    Arc::new(opened.expect("a healthy ledger"))
}

/// See the module.
pub(super) struct Scene {
    pub(super) oracle: Oracle,
    pub(super) replicas: [Arc<dyn Ledger>; 2],
    database: String,
    stop: Arc<AtomicBool>,
    senders: JoinSet<()>,
    relays: JoinSet<()>,
}

impl Scene {
    /// Opens two replicas of one new database, and lets them work.
    pub(super) async fn begin(pair: &PostgresPair, pause: Duration) -> Self {
        let url = pair.database().await;
        let replicas = [replica(&url).await, replica(&url).await];
        Self::of(replicas, &url, pause)
    }

    /// Lets these replicas of a database work. Each sender makes the pause after each decision.
    pub(super) fn of(replicas: [Arc<dyn Ledger>; 2], url: &str, pause: Duration) -> Self {
        let database = url.rsplit('/').next().unwrap_or_default().to_owned();
        let (oracle, stop) = (Oracle::default(), Arc::new(AtomicBool::new(false)));
        let (mut senders, mut relays) = (JoinSet::new(), JoinSet::new());
        for sender in 0..SENDERS {
            senders.spawn(send(oracle.clone(), replicas.clone(), sender, pause, stop.clone()));
        }
        for replica in &replicas {
            relays.spawn(publish(oracle.clone(), replica.clone()));
        }
        Self { oracle, replicas, database, stop, senders, relays }
    }

    /// Stops sending, waits until all is published, and compares.
    pub(super) async fn end(self, pair: &PostgresPair) -> Figures {
        let Self { oracle, replicas, database, stop, senders, mut relays } = self;
        stop.store(true, Ordering::Relaxed);
        senders.join_all().await;
        let client = pair.client(&database).await;
        eventually("all to be published", async || {
            let sql = "SELECT l.head - r.published_through + (SELECT count(*) FROM countersign.exceptions)
                FROM countersign.log l, countersign.relay r";
            let left: i64 = client.query_one(sql, &[]).await.expect("the tables are there").get(0);
            if left == 0 { Ok(()) } else { Err(left) }
        })
        .await;
        relays.shutdown().await;
        for replica in replicas {
            replica.flush().await;
        }
        let sql = "SELECT command_id::text, task_id, action_type, seq FROM countersign.commands ORDER BY seq";
        let rows = client.query(sql, &[]).await.expect("the tables are there");
        let places: Vec<i64> = rows.iter().map(|row| row.get(3)).collect();
        assert!(places.iter().copied().eq(1..=places.len() as i64), "the log has no gaps");
        let action = |row: &tokio_postgres::Row| match row.get(2) {
            "APPROVE" => "APPROVE",
            _ => "REJECT",
        };
        let log = rows.iter().map(|row| (row.get(0), Decision { task: row.get(1), action: action(row) }));
        oracle.compare(&log.collect::<Vec<_>>())
    }
}

/// Decides one task after the other, and says some of it twice.
async fn send(
    oracle: Oracle,
    replicas: [Arc<dyn Ledger>; 2],
    sender: usize,
    pause: Duration,
    stop: Arc<AtomicBool>,
) {
    let mut turn = sender;
    for number in 0.. {
        let decision = |action| Decision { task: format!("task-{sender}-{number}"), action };
        let approved = decision("APPROVE");
        loop {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            turn += 1;
            let [here, there] = [&replicas[turn % 2], &replicas[(turn + 1) % 2]];
            let done = if number % 4 == 0 {
                // The same callback at both.
                let both = tokio::join!(oracle.accept(here, &approved), oracle.accept(there, &approved));
                both == (true, true)
            } else {
                oracle.accept(here, &approved).await
            };
            tokio::time::sleep(pause).await;
            if done {
                break;
            }
        }
        if number % 5 == 0 {
            // The approver thinks better of it. If it is refused it may be there all the same.
            oracle.accept(&replicas[turn % 2], &decision("REJECT")).await;
        }
    }
}

/// Publishes whenever this replica is the leader.
async fn publish(oracle: Oracle, replica: Arc<dyn Ledger>) {
    let mut term = replica.term();
    loop {
        let begun = term.wait_for(Option::is_some).await.expect("the ledger is there").clone();
        let outbox = begun.expect("waited for");
        term.mark_unchanged();
        oracle.term_began();
        tokio::select! {
            () = lead(&oracle, &*outbox) => {
                // What failed has ended the term, or will.
                drop(tokio::time::timeout(Duration::from_secs(5), term.changed()).await);
            }
            _ = term.changed() => {}
        }
    }
}

/// Until something fails.
async fn lead(oracle: &Oracle, outbox: &dyn Outbox) {
    let Ok(mut cursor) = outbox.cursor().await else { return };
    let mut head = outbox.head();
    loop {
        let Ok(due) = outbox.due(Timestamp::now(), 100).await else { return };
        let Ok(fresh) = outbox.since(cursor, 100).await else { return };
        if due.is_empty() && fresh.is_empty() {
            drop(tokio::time::timeout(Duration::from_millis(50), head.changed()).await);
            continue;
        }
        let mut settlement = Settlement::default();
        for due in due {
            oracle.published(due.entry.envelope.command_id);
            settlement.cleared.push(due.entry.seq);
        }
        for entry in fresh {
            assert_eq!(entry.seq, cursor + 1, "nothing is passed over");
            cursor = entry.seq;
            settlement.through = Some(cursor);
            if cursor % 7 == 0 {
                settlement.exceptions.push(Exception {
                    seq: cursor,
                    state: Exceptional::Retrying,
                    attempts: 1,
                    next_attempt_at: Timestamp::now(),
                    reason: "the broker refused it".to_owned(),
                });
            } else {
                oracle.published(entry.envelope.command_id);
            }
        }
        if outbox.settle(settlement).await.is_err() {
            return;
        }
    }
}
