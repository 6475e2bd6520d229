//! What is known of queues that somebody else declared.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Existing queues with an overflow behaviour different from ours, by name, with that behaviour. Remembered to avoid a
/// refusal, and the broker's log line, each time. Clones share what they know.
#[derive(Debug, Clone, Default)]
pub struct Existing(Arc<Mutex<HashMap<String, Option<String>>>>);

impl Existing {
    pub(super) fn known(&self) -> MutexGuard<'_, HashMap<String, Option<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
