//! The ledger on the disk of the build: accepting and settling with few and with many who wait at once.
//!
//! `TMPDIR` names another disk; on one that is memory the figures say nothing.

mod support;

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use countersign::ledger::{Accept, Receipt, Settlement, sqlite::SqliteLedger};
use countersign::time::Timestamp;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;

const WAITERS: [u64; 3] = [1, 64, 256];

/// A ledger in a directory that goes away with it.
struct Scratch {
    ledger: SqliteLedger,
    #[expect(dead_code, reason = "the directory lasts as long as the ledger")]
    directory: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        let beside =
            std::env::var_os("TMPDIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), Into::into);
        let beside: std::path::PathBuf = beside;
        let directory = tempfile::tempdir_in(beside).expect("a directory can be made");
        let ledger = SqliteLedger::open(&directory.path().join("ledger.db"), &support::sizing())
            .expect("a new ledger");
        Self { ledger, directory }
    }
}

/// Keeps `waiters` accepts waiting until `count` are done; returns how long that took.
async fn accepts(ledger: &SqliteLedger, next: &Cell<u64>, waiters: u64, count: u64) -> Duration {
    let left = Cell::new(count);
    let wait = async || {
        while left.get() > 0 {
            left.set(left.get() - 1);
            let number = next.replace(next.get() + 1);
            let receipt = ledger.accept(support::acceptance(number, Timestamp::now())).await;
            assert!(matches!(receipt, Ok(Receipt::Accepted { .. })), "{receipt:?}");
        }
    };
    let began = Instant::now();
    join_all((0..waiters).map(|_| wait())).await;
    began.elapsed()
}

fn accept(criterion: &mut Criterion) {
    let (scratch, runtime, next) = (Scratch::new(), support::runtime(), Cell::new(0));
    let mut group = criterion.benchmark_group("accept");
    group.sample_size(20).throughput(Throughput::Elements(1));
    for waiters in WAITERS {
        group.bench_function(BenchmarkId::new("waiters", waiters), |bencher| {
            bencher.iter_custom(|count| runtime.block_on(accepts(&scratch.ledger, &next, waiters, count)));
        });
    }
}

fn settle(criterion: &mut Criterion) {
    let (scratch, runtime, next) = (Scratch::new(), support::runtime(), Cell::new(0));
    // What is settled has to be there, whatever the number of iterations: the cursor goes over and over the same rows.
    runtime.block_on(accepts(&scratch.ledger, &next, 256, 1024));
    let mut group = criterion.benchmark_group("settle");
    group.sample_size(20).throughput(Throughput::Elements(1));
    for waiters in WAITERS {
        group.bench_function(BenchmarkId::new("beside_accepts", waiters), |bencher| {
            bencher.iter_custom(|count| {
                runtime.block_on(async {
                    let mut took = Duration::ZERO;
                    for _ in 0..count {
                        let through = Some(next.get());
                        let settlement = Settlement { through, ..Settlement::default() };
                        // As it is in life: a settlement shares the commit of the accepts that come with it.
                        let began = Instant::now();
                        let settled = scratch.ledger.outbox().settle(settlement);
                        let (settled, _) =
                            tokio::join!(settled, accepts(&scratch.ledger, &next, waiters, waiters));
                        took += began.elapsed();
                        assert!(settled.is_ok(), "{settled:?}");
                    }
                    took
                })
            });
        });
    }
}

criterion_group!(benches, accept, settle);
criterion_main!(benches);
