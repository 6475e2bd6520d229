//! The machine in a simulated world, explored in two ways.

mod checker;
mod diagram;
mod found;
mod ledger;
mod replicas;
mod steps;
mod walks;
mod words;
mod world;

use super::Cargo;
use crate::command::{Seq, TaskKey};

/// A place in the log and a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Of(pub(super) Seq, pub(super) u64);

impl Cargo for Of {
    fn seq(&self) -> Seq {
        self.0
    }

    fn task_key(&self) -> TaskKey {
        TaskKey::from_value(self.1)
    }
}
