//! Named points between two steps of a guarantee, where a debug build can be made to crash.
//!
//! `COUNTERSIGN_KILL_AT="ledger:committed@37"` kills the process by SIGKILL when it passes that point for the 37th
//! time. The tests go through all [`NAMES`] and check that nothing answered is missing. In a release build [`reach`]
//! is empty and the variable has no effect.

/// Every point, in the order in which a command passes them.
pub const NAMES: [&str; 29] = [
    "start:locked",
    "start:migrated",
    "start:log_settled",
    "start:opened",
    "callback:received",
    "ledger:queued",
    "ledger:begun",
    "ledger:appended",
    "ledger:registered",
    "ledger:settled",
    "ledger:refused",
    "prune:deleted",
    "ledger:pruned",
    "ledger:written",
    "ledger:committed",
    "ledger:handed_on",
    "ledger:replied",
    "callback:answered",
    "checkpoint:begun",
    "checkpoint:done",
    "relay:publishing",
    "relay:published",
    "relay:confirmed",
    "relay:settling",
    "relay:settled",
    "stop:draining",
    "stop:requests",
    "stop:relay",
    "stop:ledger",
];

/// The points of a dead letter, in the order in which it passes them.
pub const DEAD_LETTERS: [&str; 2] = ["dead:kept", "dead:acknowledged"];

/// The points of an outcome, in the order in which an outcome passes them: all of them only with an approval center.
pub const OUTCOMES: [&str; 5] =
    ["outcome:kept", "outcome:acknowledged", "outcome:showing", "outcome:shown", "stop:outcomes"];

/// The points of a copy of a ledger, in the order in which it passes them.
pub const COPY: [&str; 4] = ["copy:begun", "copy:portion", "copy:finished", "copy:marked"];

/// The points of a backup and of a restore of a ledger's file, in the order in which each passes them.
pub const BACKUP: [&str; 7] = [
    "backup:copying",
    "backup:copied",
    "backup:synced",
    "backup:named",
    "restore:aside",
    "restore:moved",
    "restore:named",
];

/// Passes a point. The name must be in [`NAMES`], [`OUTCOMES`], [`DEAD_LETTERS`], [`COPY`] or [`BACKUP`].
#[inline]
pub fn reach(name: &'static str) {
    #[cfg(debug_assertions)]
    armed::reach(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };

    use rustix::process::{Signal, getpid, kill_process};

    struct Plan {
        name: String,
        left: AtomicU64,
    }

    static PLAN: LazyLock<Option<Plan>> = LazyLock::new(|| {
        let text = std::env::var("COUNTERSIGN_KILL_AT").ok().filter(|text| !text.is_empty())?;
        let (name, number) = text.split_once('@').unwrap_or((&text, "1"));
        let left = number.parse().expect("COUNTERSIGN_KILL_AT is NAME@NUMBER");
        assert!(is_known(name), "COUNTERSIGN_KILL_AT names no point: {name}");
        Some(Plan { name: name.to_owned(), left: AtomicU64::new(left) })
    });

    fn is_known(name: &str) -> bool {
        [&super::NAMES[..], &super::OUTCOMES, &super::DEAD_LETTERS, &super::COPY, &super::BACKUP]
            .iter()
            .any(|names| names.contains(&name))
    }

    pub(super) fn reach(name: &'static str) {
        debug_assert!(is_known(name), "{name} is not in the list");
        let Some(plan) = &*PLAN else { return };
        if plan.name == name && plan.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            // Does not return.
            kill_process(getpid(), Signal::KILL).ok();
            loop {
                std::thread::park();
            }
        }
    }
}
