//! What the approval center shows of published decisions: how far they were checked, and what was found.

use std::time::Duration;

use strum::{EnumString, IntoStaticStr};

use crate::time::Timestamp;
use futures_util::future::BoxFuture;
use serde::Serialize;

use super::{AcceptError, LookError};
use crate::command::{Action, CommandId, Seq};

/// What the approval center shows of one published decision. A closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, IntoStaticStr, EnumString)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It shows the decision. Nothing to do.
    Seen,
    /// Somebody else was faster: the task is no longer pending and shows neither decision (`TRANSFERRED`, `DONE`), or
    /// the instance ended without it (`CANCELED`, …). Nothing to do.
    Ended,
    /// It cannot be checked: the command names no instance or no task, its action is custom and has no status, or the
    /// platform does not accept the id. Nothing to do here; give the context an instance and a task.
    Untellable,
    /// The task is still `PENDING`: the decision is not visible. Check that a worker took the command, and that the
    /// third party then synchronised the instance with a larger `update_time`.
    Unseen,
    /// The center has no such instance, or the instance has no such task. Check that the third party synchronises the
    /// instance under the ids in the callback or its context, and under the definition's real code.
    NotFound,
    /// The center shows the other decision. Check the third party's own record of the task: it decides.
    Contradicted,
    /// It was not published when its turn came (refused by the broker, or parked). It is checked again.
    Unpublished,
}

impl Verdict {
    /// The word in answers, metrics, logs, the ledger and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// All but [`Self::Unpublished`], in display order.
    pub const ALL: [Self; 6] =
        [Self::Seen, Self::Unseen, Self::NotFound, Self::Contradicted, Self::Ended, Self::Untellable];

    /// Those that need attention.
    pub const OPEN: [Self; 3] = [Self::Unseen, Self::NotFound, Self::Contradicted];

    /// True if it needs attention.
    #[must_use]
    pub fn is_open(self) -> bool {
        Self::OPEN.contains(&self)
    }
}

/// Which published commands to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The current time.
    pub now: Timestamp,
    /// Only commands published for at least this long.
    pub after: Duration,
    /// Only commands received at most this long ago.
    pub within: Duration,
}

/// A published command to check. Serialized as one object with its finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// Its place in the log.
    pub seq: Seq,
    /// Its id.
    pub command_id: CommandId,
    /// When it was received.
    pub received_at: Timestamp,
    /// Name of the endpoint.
    pub endpoint: String,
    /// What was decided.
    #[serde(serialize_with = "word_of")]
    pub action: Action,
    /// By whom.
    pub user_id: String,
    /// As in the callback: of either pool.
    pub approval_code: Option<String>,
    /// As resolved.
    pub instance_id: Option<String>,
    /// As resolved.
    pub task_id: Option<String>,
    /// False while it is not published.
    #[serde(skip)]
    pub published: bool,
    /// The last finding.
    #[serde(flatten)]
    pub finding: Option<Finding>,
}

fn word_of<S: serde::Serializer>(action: &Action, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(action.as_str())
}

impl Candidate {
    /// True if the center can be asked for it.
    #[must_use]
    pub fn can_be_asked(&self) -> bool {
        self.action != Action::Custom && self.instance_id.is_some() && self.task_id.is_some()
    }
}

/// What was found of one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What the center shows.
    pub verdict: Verdict,
    /// The task's status, in the platform's word; `None` if there is none.
    pub task_status: Option<String>,
    /// The instance's status, in the platform's word.
    pub instance_status: Option<String>,
    /// How often the center was asked.
    pub checks: u32,
    /// When it was first found.
    pub found_at: Option<Timestamp>,
    /// When the center was last asked.
    pub checked_at: Option<Timestamp>,
    /// When the center is asked again; `None` if not automatically.
    pub next_check_at: Option<Timestamp>,
}

impl Finding {
    /// The finding of a decision that the center showed; it leaves no row.
    #[must_use]
    pub fn seen() -> Self {
        Self {
            verdict: Verdict::Seen,
            task_status: None,
            instance_status: None,
            checks: 1,
            found_at: None,
            checked_at: None,
            next_check_at: None,
        }
    }
}

/// The next unchecked commands, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The commands.
    pub candidates: Vec<Candidate>,
    /// Commands up to here are older than [`Reach::within`] and are never checked.
    pub skipped_through: Option<Seq>,
    /// Checking the whole page covers the log up to here.
    pub through: Seq,
    /// True if more follow.
    pub more: bool,
}

/// Which findings to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those received after `since` that are due for another check.
    Due {
        /// The current time.
        now: Timestamp,
        /// See [`Reach::within`].
        since: Timestamp,
    },
    /// All that need attention.
    Open,
    /// These, and all with [`Verdict::Unpublished`].
    Unsettled,
    /// All with this verdict.
    Of(Verdict),
}

/// The result of one step, written in one transaction. May be written twice, and concurrently with another step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// See [`Page::skipped_through`].
    pub skipped_through: Option<Seq>,
    /// Everything up to here was checked.
    pub through: Option<Seq>,
    /// New and changed findings.
    pub findings: Vec<(Seq, Finding)>,
    /// Findings to remove.
    pub cleared: Vec<Seq>,
    /// Decisions that the center showed.
    pub seen: u64,
    /// Commands with [`Verdict::Ended`].
    pub ended: u64,
    /// Commands with [`Verdict::Untellable`].
    pub untellable: u64,
    /// When the pass ended, if it did.
    pub passed_at: Option<Timestamp>,
}

/// Progress of the comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// Commands up to here were checked.
    pub asked_through: Seq,
    /// The cursor. Commands between the two are not checked yet.
    pub published_through: Seq,
    /// When the last pass ended; `None` before the first.
    pub passed_at: Option<Timestamp>,
    /// Decisions that the center showed.
    pub seen: u64,
    /// Decisions that it will never show, for a valid reason.
    pub ended: u64,
    /// Decisions that could not be checked.
    pub untellable: u64,
    /// Open: still pending at the center.
    pub unseen: u64,
    /// Open: unknown to the center.
    pub not_found: u64,
    /// Open: the center shows the other decision.
    pub contradicted: u64,
}

impl Overview {
    /// Findings that need attention.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.unseen + self.not_found + self.contradicted
    }
}

/// Stores the comparison with the approval center. Reads never wait for the writer.
pub trait Findings: Send + Sync {
    /// Up to `limit` unchecked commands within reach.
    fn unasked(&self, reach: Reach, limit: usize) -> BoxFuture<'static, Result<Page, LookError>>;

    /// Up to `limit` findings after a place in the log, in order.
    fn findings(
        &self,
        which: Which,
        after: Seq,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Candidate>, LookError>>;

    /// Progress of the comparison.
    fn overview(&self) -> BoxFuture<'static, Result<Overview, LookError>>;

    /// Writes the result of a step. Resolves after commit and sync.
    fn reconciled(&self, reconciled: Reconciled) -> BoxFuture<'static, Result<(), AcceptError>>;
}

/// Has a part that keeps the comparison.
pub(super) trait Keeps: Send + Sync {
    fn findings(&self) -> &dyn Findings;
}

impl<T: Keeps> Findings for T {
    fn unasked(&self, reach: Reach, limit: usize) -> BoxFuture<'static, Result<Page, LookError>> {
        Keeps::findings(self).unasked(reach, limit)
    }

    fn findings(
        &self,
        which: Which,
        after: Seq,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Candidate>, LookError>> {
        Keeps::findings(self).findings(which, after, limit)
    }

    fn overview(&self) -> BoxFuture<'static, Result<Overview, LookError>> {
        Keeps::findings(self).overview()
    }

    fn reconciled(&self, reconciled: Reconciled) -> BoxFuture<'static, Result<(), AcceptError>> {
        Keeps::findings(self).reconciled(reconciled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_reads_back_by_its_word_and_three_are_for_somebody_to_look_at() {
        let words = [
            ("seen", Verdict::Seen, false),
            ("ended", Verdict::Ended, false),
            ("untellable", Verdict::Untellable, false),
            ("unseen", Verdict::Unseen, true),
            ("not_found", Verdict::NotFound, true),
            ("contradicted", Verdict::Contradicted, true),
            ("unpublished", Verdict::Unpublished, false),
        ];
        for (word, verdict, open) in words {
            assert_eq!((verdict.as_str(), word.parse()), (word, Ok(verdict)));
            assert_eq!(verdict.is_open(), open, "{word}");
        }
        assert!("shown".parse::<Verdict>().is_err());
    }
}
