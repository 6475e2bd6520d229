//! The contents of the ledger.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{Label, clamped, registered};

/// The contents of the ledger.
#[derive(Debug)]
pub struct LedgerMetrics {
    rows: Family<Label, Gauge>,
    oldest_pending: Gauge<f64, AtomicU64>,
    size: Gauge,
    wal: Gauge,
    free: Gauge,
    remembered: Gauge,
    forgotten: Counter,
    leader: Gauge,
    standbys: Family<Label, Gauge>,
}

impl LedgerMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut gauge = |name, help| registered(registry, name, help, Gauge::default());
        Self {
            size: gauge("ledger_size_bytes", "Size of the ledger's database file"),
            wal: gauge("ledger_wal_bytes", "Size of the ledger's write-ahead log"),
            free: gauge("ledger_free_bytes", "Free space on the ledger's disk"),
            leader: gauge("leader", "1 if this process publishes, 0 if another replica does, or none"),
            remembered: gauge(
                "repeats_remembered",
                "Commands in memory, by which repeats and contradictions are known",
            ),
            forgotten: registered(
                registry,
                "repeats_forgotten",
                "Commands evicted from memory before repeats_window was over, because there were too many",
                Counter::default(),
            ),
            standbys: registered(
                registry,
                "ledger_standbys",
                "Connected standbys of PostgreSQL, by state, as far as its user may see them",
                Family::default(),
            ),
            rows: registered(registry, "ledger_rows", "Commands in the ledger, by state", Family::default()),
            oldest_pending: registered(
                registry,
                "ledger_oldest_pending_seconds",
                "Age of the oldest command that is not published, 0 if there is none",
                Gauge::default(),
            ),
        }
    }

    /// Sets the number of commands in a state.
    pub fn set_rows(&self, state: &'static str, rows: u64) {
        self.rows.get_or_create(&[("state", state)]).set(clamped(rows));
    }

    /// Sets the age of the oldest pending command.
    pub fn set_oldest_pending(&self, age: Duration) {
        self.oldest_pending.set(age.as_secs_f64());
    }

    /// Sets the ledger's size on disk and the free space. Unknown values stay unchanged.
    pub fn set_room(&self, size_bytes: Option<u64>, wal_bytes: Option<u64>, free_bytes: Option<u64>) {
        for (gauge, bytes) in [(&self.size, size_bytes), (&self.wal, wal_bytes), (&self.free, free_bytes)] {
            if let Some(bytes) = bytes {
                gauge.set(clamped(bytes));
            }
        }
    }

    /// Sets whether this process publishes.
    pub fn set_leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// Sets how many synchronous standbys are connected.
    pub fn set_standbys(&self, synchronous: u64) {
        self.standbys.get_or_create(&[("state", "synchronous")]).set(clamped(synchronous));
    }

    /// Sets how many commands are remembered, and how many had to be forgotten since the start.
    pub fn set_remembered(&self, commands: u64, forgotten: u64) {
        self.remembered.set(clamped(commands));
        self.forgotten.inner().store(forgotten, Ordering::Relaxed);
    }
}
