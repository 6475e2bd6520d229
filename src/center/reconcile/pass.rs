//! One pass: page by page, call by call.

use std::{collections::BTreeSet, time::Duration};

use futures_util::TryStreamExt;
use tokio::time::{Instant, sleep_until};

use super::compare;
use crate::{
    center::client::{self, Center, Fault, InstanceTasks, TaskFilter},
    ledger::{
        AcceptError, LookError, Verdict,
        findings::{Candidate, Finding, Findings, Reach, Reconciled, Which},
    },
    time::Timestamp,
};

/// Commands per page. They are read without their messages.
const PAGE: usize = 500;

/// Maximum instances per call (platform.md#task-status).
const INSTANCES: usize = 20;

/// The longest interval between two checks of one finding.
const LONGEST_GAP: Duration = Duration::from_secs(86_400);

const SHORTEST_GAP: Duration = Duration::from_secs(1);

/// Which findings a pass checks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Those that are due.
    Due,
    /// All open ones, given up or not.
    All,
}

/// Limits of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Minimum time between two calls.
    pub between: Duration,
    /// Maximum pages of each kind, findings and new commands; `None` for all.
    pub pages: Option<usize>,
}

/// Why a pass ended early. Written pages stay.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The center did not answer as expected.
    #[error("cannot query the approval center")]
    Center(#[source] client::Error),
    /// The ledger cannot be read.
    #[error(transparent)]
    Read(#[from] LookError),
    /// The ledger cannot be written.
    #[error("cannot store what was found")]
    Write(#[from] AcceptError),
}

/// The result of a pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Commands checked, including repeated checks.
    pub commands: u64,
    /// Calls made.
    pub calls: u64,
    /// By verdict, in the order of [`Verdict::ALL`].
    pub verdicts: [u64; Verdict::ALL.len()],
    /// [`Pace::pages`] ended the pass, and another one would have something to do.
    pub more: bool,
}

/// Observes a pass.
pub trait Witness {
    /// A page was written; `summary` is the total so far.
    fn passed(&mut self, summary: &Summary);

    /// A new finding needs attention.
    fn found(&mut self, candidate: &Candidate, finding: &Finding);
}

/// Checks everything that is due, within reach and pace. May be dropped at any time: the next pass repeats unwritten
/// pages.
///
/// # Errors
/// See [`Error`]. An unreachable center ends the pass, since further calls would fail too.
pub async fn pass(
    center: &Center,
    book: &dyn Findings,
    reach: impl Fn() -> Reach,
    again: Again,
    pace: Pace,
    witness: &mut (dyn Witness + Send),
) -> Result<Summary, Error> {
    let began = reach().now;
    let mut walk = Walk { center, pace, next_call: Instant::now(), summary: Summary::default(), witness };

    let (mut place, mut pages) = (0, 0);
    loop {
        let Reach { within, .. } = reach();
        let which = match again {
            Again::Due => Which::Due { now: began, since: began - within },
            Again::All => Which::Unsettled,
        };
        let found = book.findings(which, place, PAGE).await?;
        let Some(last) = found.last() else { break };
        place = last.seq;
        if pace.pages == Some(pages) {
            walk.summary.more = true;
            break;
        }
        pages += 1;
        let reconciled = walk.examine(found, reach()).await?;
        book.reconciled(reconciled).await?;
        walk.witness.passed(&walk.summary);
    }

    pages = 0;
    loop {
        let page = book.unasked(reach(), PAGE).await?;
        if pace.pages == Some(pages) {
            walk.summary.more |= !page.candidates.is_empty();
            break;
        }
        pages += 1;
        if page.candidates.is_empty() && page.skipped_through.is_none() {
            break;
        }
        let (through, more) = (page.through, page.more);
        let mut reconciled = walk.examine(page.candidates, reach()).await?;
        reconciled.through = Some(through);
        reconciled.skipped_through = page.skipped_through;
        book.reconciled(reconciled).await?;
        walk.witness.passed(&walk.summary);
        if !more {
            break;
        }
    }
    if !walk.summary.more {
        book.reconciled(Reconciled { passed_at: Some(Timestamp::now()), ..Reconciled::default() }).await?;
    }
    Ok(walk.summary)
}

struct Walk<'a> {
    center: &'a Center,
    pace: Pace,
    next_call: Instant,
    summary: Summary,
    witness: &'a mut (dyn Witness + Send),
}

impl Walk<'_> {
    /// Requests the tasks of all candidates that can be checked, and compares.
    async fn examine(&mut self, candidates: Vec<Candidate>, reach: Reach) -> Result<Reconciled, Error> {
        let wanted: BTreeSet<&str> = candidates
            .iter()
            .filter(|one| one.published && one.can_be_asked())
            .filter_map(|one| one.instance_id.as_deref())
            .collect();
        let wanted: Vec<String> = wanted.into_iter().map(str::to_owned).collect();
        let mut answered = Vec::new();
        let mut not_taken = BTreeSet::new();
        for ids in wanted.chunks(INSTANCES) {
            self.ask(ids.to_vec(), &mut answered, &mut not_taken).await?;
        }
        // Sorted by instance: a page may have hundreds, each with hundreds of tasks.
        answered.sort_unstable_by(|one, other| one.instance_id.cmp(&other.instance_id));
        let mut reconciled = Reconciled::default();
        for candidate in &candidates {
            let own = of_instance(&answered, candidate.instance_id.as_deref().unwrap_or_default());
            let refused = candidate.instance_id.as_ref().is_some_and(|id| not_taken.contains(id));
            self.conclude(candidate, own, refused, reach, &mut reconciled);
        }
        Ok(reconciled)
    }

    /// Requests up to 20 instances. An id that the platform rejects must not block the others forever, so a batch
    /// rejected for its content is split in half.
    async fn ask(
        &mut self,
        ids: Vec<String>,
        answered: &mut Vec<InstanceTasks>,
        not_taken: &mut BTreeSet<String>,
    ) -> Result<(), Error> {
        let mut lots = vec![ids];
        while let Some(mut ids) = lots.pop() {
            sleep_until(self.next_call).await;
            self.next_call = Instant::now() + self.pace.between;
            self.summary.calls += 1;
            let asked = self.center.tasks(&TaskFilter::Instances(ids.clone())).try_collect::<Vec<_>>().await;
            match asked {
                Ok(found) => answered.extend(found),
                Err(error) => match error.fault() {
                    Some(Fault::InstanceUnknown) if ids.len() == 1 => {}
                    Some(Fault::Parameter | Fault::Field | Fault::InstanceUnknown) => {
                        if ids.len() == 1 {
                            tracing::debug!(%error, "approval center rejected an instance id");
                            not_taken.extend(ids);
                        } else {
                            lots.push(ids.split_off(ids.len() / 2));
                            lots.push(ids);
                        }
                    }
                    _ => return Err(Error::Center(error)),
                },
            }
        }
        Ok(())
    }

    fn conclude(
        &mut self,
        candidate: &Candidate,
        answered: &[InstanceTasks],
        refused: bool,
        reach: Reach,
        reconciled: &mut Reconciled,
    ) {
        let before = candidate.finding.as_ref();
        let seq = candidate.seq;
        if !candidate.published {
            let kept = before.map_or(Verdict::Unpublished, |finding| finding.verdict);
            let finding = found(candidate, kept, reach);
            reconciled.findings.push((seq, finding));
            return;
        }
        let (verdict, task_status, instance_status) = match refused {
            true => (Verdict::Untellable, None, None),
            false => compare(candidate, answered),
        };
        self.summary.commands += 1;
        if let Some(place) = Verdict::ALL.iter().position(|known| *known == verdict) {
            self.summary.verdicts[place] += 1;
        }
        match verdict {
            Verdict::Seen => reconciled.seen += 1,
            Verdict::Ended => reconciled.ended += 1,
            Verdict::Untellable => reconciled.untellable += 1,
            Verdict::Unseen | Verdict::NotFound | Verdict::Contradicted | Verdict::Unpublished => {}
        }
        if matches!(verdict, Verdict::Seen | Verdict::Untellable) {
            reconciled.cleared.extend(before.map(|_| seq));
            return;
        }
        let mut finding = found(candidate, verdict, reach);
        finding.task_status = task_status.map(|status| status.as_str().to_owned());
        finding.instance_status = instance_status.map(|status| status.as_str().to_owned());
        if verdict == Verdict::Ended {
            finding.next_check_at = None;
        } else if before.is_none_or(|before| before.verdict != verdict) {
            self.witness.found(candidate, &finding);
        }
        reconciled.findings.push((seq, finding));
    }
}

/// The finding after another check. The next interval is the age of the finding, so intervals double regardless of
/// extra checks. If the command is too old by then, there is no next check.
fn found(candidate: &Candidate, verdict: Verdict, reach: Reach) -> Finding {
    let before = candidate.finding.as_ref();
    let checks = before.map_or(0, |before| before.checks).saturating_add(1);
    let found_at = before.and_then(|before| before.found_at).unwrap_or(reach.now);
    let age = reach.now.since(found_at);
    let shortest = reach.after.max(SHORTEST_GAP);
    let gap = age.clamp(shortest, LONGEST_GAP.max(shortest));
    let next = reach.now + gap;
    let given_up = next - reach.within > candidate.received_at;
    Finding {
        verdict,
        task_status: None,
        instance_status: None,
        checks,
        found_at: Some(found_at),
        checked_at: Some(reach.now),
        next_check_at: (!given_up).then_some(next),
    }
}

/// The entries of one instance in a sorted list.
fn of_instance<'a>(answered: &'a [InstanceTasks], instance_id: &str) -> &'a [InstanceTasks] {
    let from = answered.partition_point(|one| one.instance_id.as_str() < instance_id);
    let rest = &answered[from..];
    &rest[..rest.partition_point(|one| one.instance_id == instance_id)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Action, CommandId};

    #[test]
    fn the_gaps_double_up_to_a_day_and_end_with_the_reach() {
        let start: Timestamp = "2026-11-20T08:00:00Z".parse().unwrap();
        let mut candidate = Candidate {
            seq: 1,
            command_id: CommandId::parse("019a0000-0000-7000-8000-000000000001").unwrap(),
            received_at: start,
            endpoint: "purchase".to_owned(),
            action: Action::Approve,
            user_id: "zhang3".to_owned(),
            approval_code: None,
            instance_id: Some("I".to_owned()),
            task_id: Some("T".to_owned()),
            published: true,
            finding: None,
        };
        let minutes = |count: u64| Duration::from_secs(60 * count);
        let reach = |now| Reach { now, after: minutes(10), within: minutes(7 * 1440) };
        let mut now = start + minutes(10);
        let mut gaps = Vec::new();
        loop {
            let finding = found(&candidate, Verdict::Unseen, reach(now));
            let next = finding.next_check_at;
            // An additional check changes nothing.
            candidate.finding = Some(finding);
            let asked = found(&candidate, Verdict::Unseen, reach(now));
            assert_eq!(asked.next_check_at, next);
            let Some(next) = next else { break };
            gaps.push(next.since(now).as_secs() / 60);
            now = next;
        }
        assert_eq!(gaps, [10, 10, 20, 40, 80, 160, 320, 640, 1280, 1440, 1440, 1440, 1440, 1440]);
        assert!(now < start + minutes(7 * 1440));
    }
}
