//! What the approval center shows of published decisions: how far they were compared with it, and what was found.

use std::time::Duration;

use strum::{EnumString, IntoStaticStr};

use crate::time::Timestamp;
use futures_util::future::BoxFuture;
use serde::Serialize;

use super::{AcceptError, LookError};
use crate::command::{Action, CommandId, Seq};

/// What the approval center shows of one published decision: a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, IntoStaticStr, EnumString)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It shows the decision. Nothing is to be done.
    Seen,
    /// The task is no longer pending and shows neither decision (`TRANSFERRED`, `DONE`), or the instance has ended without
    /// it (`CANCELED`, …): somebody else was faster. Nothing is to be done.
    Ended,
    /// There is nothing to ask for: the command names no instance or no task, its action is a custom one, which no status
    /// stands for, or the platform does not take the id. Nothing can be done here; give the context an instance and a task.
    Untellable,
    /// The task is still `PENDING`: the decision did not become visible. Look whether a worker took the command, and
    /// whether the third party synchronised the instance after it, with a larger `update_time`.
    Unseen,
    /// The center knows no such instance, or the instance has no such task. Look whether the third party synchronises the
    /// instance under the ids that the callback or its context name, and by the definition's real code.
    NotFound,
    /// The center shows the other decision. Look at the third party's own record of the task: it decides.
    Contradicted,
    /// Its turn to be asked for came while it was not published (refused by the broker, or parked). It is looked at again.
    Unpublished,
}

impl Verdict {
    /// The word in answers, metrics, logs, the ledger and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Those that the center can be asked for, in the order in which people read them.
    pub const ALL: [Self; 6] =
        [Self::Seen, Self::Unseen, Self::NotFound, Self::Contradicted, Self::Ended, Self::Untellable];

    /// Those that somebody should look at.
    pub const OPEN: [Self; 3] = [Self::Unseen, Self::NotFound, Self::Contradicted];

    /// True if somebody should look at it.
    #[must_use]
    pub fn is_open(self) -> bool {
        Self::OPEN.contains(&self)
    }
}

/// Which published commands are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The time.
    pub now: Timestamp,
    /// Only those that have been published for so long.
    pub after: Duration,
    /// Only those that were received no longer ago than this.
    pub within: Duration,
}

/// A published command that the center is asked for. Written as one object, with what was found of it.
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
    /// False if it is not published, for now.
    #[serde(skip)]
    pub published: bool,
    /// What was found before.
    #[serde(flatten)]
    pub finding: Option<Finding>,
}

fn word_of<S: serde::Serializer>(action: &Action, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(action.as_str())
}

impl Candidate {
    /// True if it names what the center can be asked for.
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
    /// How often the center was asked for it.
    pub checks: u32,
    /// When it was found for the first time.
    pub found_at: Option<Timestamp>,
    /// When the center was last asked for it.
    pub checked_at: Option<Timestamp>,
    /// When it is asked again; `None` if that will not happen by itself.
    pub next_check_at: Option<Timestamp>,
}

impl Finding {
    /// Of a command that was asked for and left no row: the center showed it.
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

/// The next commands that were never asked for, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The commands.
    pub candidates: Vec<Candidate>,
    /// Commands up to here are older than [`Reach::within`] and are never compared.
    pub skipped_through: Option<Seq>,
    /// When all of the page has been asked for, this is how far it goes.
    pub through: Seq,
    /// There are more after it.
    pub more: bool,
}

/// Which findings to read, by place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those whose time to be asked again has come, and that were received after `since`.
    Due {
        /// The time.
        now: Timestamp,
        /// As [`Reach::within`] says.
        since: Timestamp,
    },
    /// All that somebody should look at.
    Open,
    /// The same, and all that were not published when their turn came.
    Unsettled,
    /// All with one verdict.
    Of(Verdict),
}

/// What a step of a comparison came to; written in one transaction. Safe to write twice, and beside another's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// As [`Page::skipped_through`].
    pub skipped_through: Option<Seq>,
    /// Everything up to here was asked for.
    pub through: Option<Seq>,
    /// New findings, and what became of old ones.
    pub findings: Vec<(Seq, Finding)>,
    /// Findings that are none any longer.
    pub cleared: Vec<Seq>,
    /// Decisions that the center showed.
    pub seen: u64,
    /// Commands that came to [`Verdict::Ended`].
    pub ended: u64,
    /// Commands that came to [`Verdict::Untellable`].
    pub untellable: u64,
    /// A pass has come to its end.
    pub passed_at: Option<Timestamp>,
}

/// How the comparison stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// Commands up to here were asked for.
    pub asked_through: Seq,
    /// The cursor: commands between the two wait for their turn.
    pub published_through: Seq,
    /// When a pass last came to its end; `None` before the first.
    pub passed_at: Option<Timestamp>,
    /// Decisions that the center showed.
    pub seen: u64,
    /// Decisions that it will never show, for a sound reason.
    pub ended: u64,
    /// Decisions that it could not be asked for.
    pub untellable: u64,
    /// Open now: still pending at the center.
    pub unseen: u64,
    /// Open now: not known to the center.
    pub not_found: u64,
    /// Open now: the other decision at the center.
    pub contradicted: u64,
}

impl Overview {
    /// Findings that somebody should look at.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.unseen + self.not_found + self.contradicted
    }
}

/// The part of a ledger in which the comparison with the approval center is kept. Reading never waits for the writer.
pub trait Findings: Send + Sync {
    /// Up to `limit` commands that were never asked for, within reach.
    fn unasked(&self, reach: Reach, limit: usize) -> BoxFuture<'static, Result<Page, LookError>>;

    /// Up to `limit` findings after a place in the log, in order.
    fn findings(
        &self,
        which: Which,
        after: Seq,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Candidate>, LookError>>;

    /// How the comparison stands.
    fn overview(&self) -> BoxFuture<'static, Result<Overview, LookError>>;

    /// Writes what a step came to. Resolves after commit and sync.
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
