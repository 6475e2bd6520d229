//! Comparing what was published with what the approval center shows, and telling which decisions never became visible there.
//!
//! The center advances nothing by itself (platform.md#parties-and-order-of-calls): a decision is visible only once
//! the third party has synchronised the instance. If that does not happen, the approver's list shows the task as
//! pending for ever, and nobody is told.
//!
//! # How
//! A *pass* ([`pass`]) walks the published commands in order of the log, in pages, from where the pass before ended, up to
//! those that have been published for [`Settings::after`]. It asks for the tasks of their instances, 20 at a time, and
//! compares (`verdict`). What is not visible becomes a *finding* in the ledger and is asked for again, after growing gaps,
//! as long as [`Settings::within`] allows. A page is written in one transaction together with how far it went, so that a
//! pass that is interrupted anywhere goes on there, at the price of asking for one page twice.
//!
//! # What is asked
//! Tasks are asked for by `instance_ids` alone (platform.md#task-status), which needs no `approval_code`: so it does
//! not matter which of the two pools (platform.md#two-codes-of-a-definition) a callback's code is of. The code only
//! decides between several instances of one id. A command without instance or task, such as a card whose context
//! nothing could be read from, cannot be asked for: [`Verdict::Untellable`].
//!
//! # What it costs
//! Memory for one page. Calls at most every [`Pace::between`]; the client's own limiter stands behind that. Nothing is read on
//! the accept path, and what is written goes to the ledger's writer as one small change for each page.

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
    /// How long a command must have been published before the center is asked for it.
    pub after: Duration,
    /// How often a running service does a pass; `None` for never.
    pub every: Option<Duration>,
    /// How long after its receipt a command is asked for at the most.
    pub within: Duration,
}

/// What somebody should do about a finding, as a sentence; `None` if nothing.
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
