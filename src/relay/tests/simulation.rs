//! The real relay in virtual time, with a broker, a disk and an operator driven by a seed.
//!
//! `COUNTERSIGN_SIMULATION_SEEDS` sets the number of seeds (the ignored test tries thousands by default),
//! `COUNTERSIGN_SIMULATION_SEED` names one seed to repeat. The ledger double checks every settlement, the broker
//! double the order of every task.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use super::*;
use crate::backoff;

/// One life: forty steps of commands and misfortunes, then a calm in which everything gets through.
struct Life {
    dice: Dice,
    handle: Handle,
    bench: Bench,
    parked: Vec<Seq>,
}

fn settings() -> Settings {
    Settings { max_in_flight: 8, max_attempts: 6, max_exceptions: 12, ..Settings::default() }
}

impl Life {
    async fn live(seed: u64) {
        backoff::seeded::seed(seed);
        let handle = Handle::new();
        if seed % 2 == 1 {
            // Exceeds its time limit now and then.
            handle.world().enrich = Some(preparing::Slow::new(seed, Some(2_500)));
        }
        let bench = Bench::start(&handle, settings());
        let mut life = Self { dice: Dice(seed), handle, bench, parked: Vec::new() };
        life.answer_by_dice(seed);
        for _ in 0..40 {
            life.accept();
            life.suffer().await;
            sleep(Duration::from_millis(life.dice.below(1500))).await;
        }
        life.come_through().await;
    }

    fn answer_by_dice(&self, seed: u64) {
        let mut trouble = Dice(seed ^ 0x5eed);
        self.bench.answer_all(move |_| match trouble.below(12) {
            0 => Some(BrokerAnswer::Nacked),
            1 => Some(returned()),
            // No answer at all: rarely, since it costs half a minute.
            2 if trouble.below(20) == 0 => None,
            _ => Some(BrokerAnswer::Confirmed),
        });
    }

    fn accept(&mut self) {
        let tasks: Vec<_> = (0..self.dice.below(6)).map(|_| self.dice.below(5)).collect();
        for task in tasks {
            let next = self.bench.world().log.len() as Seq + 1;
            if self.dice.below(8) == 0 {
                self.bench.world().not_fresh.insert(next);
            }
            if self.dice.below(25) == 0 {
                self.bench.world().poison.insert(next);
            }
            self.bench.accept([task]);
        }
    }

    async fn suffer(&mut self) {
        match self.dice.below(16) {
            0 => self.bench.cut(),
            1 => self.bench.block(true),
            2 => self.bench.world().ledger_fails = true,
            3 | 4 => self.bench.world().ledger_fails = false,
            5 => {
                let confirmed: Vec<_> = self.bench.world().confirmed.iter().copied().collect();
                if let Some(seq) = self.one_of(&confirmed) {
                    self.bench.return_late(seq);
                }
            }
            6 => self.crash().await,
            7 => self.bench.world().writes_early ^= true,
            8 => {
                let waiting: Vec<_> = self.bench.world().exceptions.keys().copied().collect();
                if let Some(seq) = self.one_of(&waiting) {
                    self.bench.operator(seq, Exceptional::Parked);
                    self.parked.push(seq);
                }
            }
            9 => {
                if let Some(seq) = self.parked.pop() {
                    self.bench.operator(seq, Exceptional::Requeued);
                }
            }
            10 => {
                // An hour without a broker, or a minute of one that flaps every second.
                if self.dice.below(2) == 0 {
                    self.bench.world().away = true;
                    self.bench.cut();
                    sleep(Duration::from_secs(3600)).await;
                    self.bench.world().away = false;
                } else {
                    for _ in 0..60 {
                        self.bench.cut();
                        sleep(Duration::from_secs(1)).await;
                    }
                }
            }
            _ => self.bench.block(false),
        }
    }

    fn one_of(&mut self, all: &[Seq]) -> Option<Seq> {
        let index = self.dice.below(all.len().max(1) as u64);
        all.get(usize::try_from(index).unwrap()).copied()
    }

    /// The program dies and starts again.
    async fn crash(&mut self) {
        assert!(!self.bench.relay.is_finished(), "the relay has ended by itself");
        self.bench.relay.abort();
        (&mut self.bench.relay).await.expect_err("it was aborted");
        self.bench.world().crash();
        self.bench = Bench::start(&self.handle, settings());
    }

    async fn come_through(self) {
        self.bench.world().ledger_fails = false;
        self.bench.block(false);
        self.bench.confirm_all();
        let is_through = |world: &World, seq: Seq| {
            let parked = |e: &crate::ledger::Exception| e.state == Exceptional::Parked;
            match world.exceptions.get(&seq) {
                Some(exception) => parked(exception),
                None => seq <= world.cursor && world.confirmed.contains(&seq),
            }
        };
        let all = self.bench.world().log.len() as Seq;
        // Poison is parked, and its task goes on, only if the broker takes other commands, so there must be some.
        let began = Instant::now();
        while !(1..=all).all(|seq| is_through(&self.bench.world(), seq)) {
            assert!(began.elapsed() < Duration::from_secs(3600), "{:?}", self.bench.world().exceptions);
            self.bench.accept([1000]);
            sleep(Duration::from_secs(10)).await;
        }
        self.bench.world().poison.clear();
        let all = self.bench.world().log.len() as Seq;
        self.bench.until("all", |world| (1..=all).all(|seq| is_through(world, seq))).await;
        let (exceptions, refused) = {
            let world = self.bench.world();
            (world.exceptions.clone(), world.refusals.clone())
        };
        for (seq, exception) in exceptions {
            let refusals = refused.get(&seq).copied().unwrap_or(0);
            let legal = self.parked.contains(&seq) || refusals >= settings().max_attempts;
            assert!(legal, "{exception:?} after {refusals} refusals");
        }
        let report = self.bench.stop_within(Duration::from_secs(5)).await;
        assert!(report.settled);
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs `seeds` lives, or only the requested seed; names the failing one.
fn simulate(seeds: u64) {
    let seeds = match number("COUNTERSIGN_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("COUNTERSIGN_SIMULATION_SEEDS").unwrap_or(seeds),
    };
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let lived = runtime.block_on(AssertUnwindSafe(Life::live(seed)).catch_unwind());
        if let Err(panic) = lived {
            let words = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            panic!("COUNTERSIGN_SIMULATION_SEED={seed} fails: {words}");
        }
    }
}

#[test]
fn whatever_befalls_the_relay_everything_comes_through_in_order() {
    simulate(100);
}

#[test]
#[ignore = "minutes; `deploy/test --all` runs it"]
fn whatever_befalls_the_relay_in_thousands_of_lives() {
    simulate(10_000);
}
