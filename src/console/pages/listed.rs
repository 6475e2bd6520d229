//! A decision as lists show it.

use super::{Mark, Viewer, When, action_of, clipped, decision_href, task_of};
use crate::ledger::Record;

/// A decision in a list.
pub(super) struct DecisionRow {
    pub(super) href: String,
    pub(super) at: When,
    pub(super) user: String,
    pub(super) action: String,
    pub(super) task: String,
    pub(super) endpoint: String,
    pub(super) marks: Vec<Mark>,
    pub(super) note: Option<String>,
}

impl DecisionRow {
    pub(super) fn of(record: &Record, viewer: &Viewer) -> Self {
        let t = viewer.t();
        Self {
            href: decision_href(record.command_id),
            at: viewer.when(record.received_at),
            user: clipped(&record.user_id),
            action: action_of(&record.action, t),
            task: clipped(&task_of(record.instance_id.as_deref(), record.task_id.as_deref())),
            endpoint: clipped(&record.endpoint),
            marks: Mark::all(record, t),
            note: record.note.as_deref().map(|note| clipped(&t.cause(note))),
        }
    }
}
