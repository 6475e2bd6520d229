//! Compares published commands with the approval center, and reports decisions that never became visible there.
//!
//! The center advances nothing on its own (platform.md#parties-and-order-of-calls): a decision is visible only after
//! the third party has synchronised the instance. Otherwise the approver's list shows the task as pending forever, and
//! nobody is notified.
//!
//! # How
//! A *pass* ([`pass`]) walks the published commands in log order, in pages. It starts where the last pass ended, and
//! stops at commands published less than [`Settings::after`] ago. It requests the tasks of their instances, 20 at a
//! time, and compares (`verdict`). A decision that is not visible becomes a *finding* in the ledger. It is checked
//! again at growing intervals, within [`Settings::within`]. Each page is written in one transaction with the position,
//! so an interrupted pass resumes there and requests at most one page twice.
//!
//! # Requests
//! Tasks are requested by `instance_ids` alone (platform.md#task-status), without `approval_code`. So it does not
//! matter from which of the two pools (platform.md#two-codes-of-a-definition) a callback's code is. The code only
//! decides between several instances with one id. A command without instance or task, such as a card with an unreadable
//! context, cannot be checked: [`Verdict::Untellable`].
//!
//! # Cost
//! Memory for one page. Calls at most every [`Pace::between`], in addition to the client's own limits. The accept path
//! reads nothing. Each page is one small change for the ledger's writer.

mod pass;
mod verdict;
mod worker;

use std::time::Duration;

pub use pass::{Again, Error, Pace, Summary, Witness, pass};
pub use verdict::compare;
pub use worker::run;

use crate::ledger::Verdict;

/// The section `[reconcile]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long a command must have been published before it is checked.
    pub after: Duration,
    /// Interval of passes in a running service; `None` for never.
    pub every: Option<Duration>,
    /// How long after its receipt a command is checked.
    pub within: Duration,
}

/// What to do about a finding, as a sentence; `None` if nothing.
#[must_use]
pub fn advice(verdict: Verdict) -> Option<&'static str> {
    Some(match verdict {
        Verdict::Unseen => {
            "the task is still PENDING: check that a worker consumed the command, and that the instance was synchronised after it, with a larger update_time"
        }
        Verdict::NotFound => {
            "the center has no such instance or task: check that it is synchronised under these ids, with the definition's real approval_code"
        }
        Verdict::Contradicted => {
            "the center shows the other decision: check the third party's record of the task, and look for a later command of the same task"
        }
        Verdict::Seen | Verdict::Ended | Verdict::Untellable | Verdict::Unpublished => return None,
    })
}
