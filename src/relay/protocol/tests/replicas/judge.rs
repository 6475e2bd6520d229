//! What may never be, and what must come about.

use std::{
    collections::HashSet,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::Mutex,
};

use super::{
    Bounds, Budget, decision,
    world::{Act, World},
};
use crate::{
    command::{CommandId, Seq},
    ledger::State,
};

impl World {
    pub(super) fn fail(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }

    /// Whether a message may be in the queue now, if it is there for the first time.
    pub(super) fn judge_first(&mut self, bounds: &Bounds, id: CommandId) {
        if self.queued.contains(&id) {
            return;
        }
        let excused = !bounds.is_standby() && self.forgotten.contains(&decision(id));
        if !excused && self.queued.iter().any(|other| decision(*other) == decision(id)) {
            self.fail(format!("decision {} has two ids in the queue", decision(id)));
        }
        let log = &self.database.now.ledger.log;
        let Some(command) = log.iter().find(|command| command.id == id).copied() else { return };
        let before = log.iter().filter(|earlier| earlier.key == command.key && earlier.seq < command.seq);
        let missing = |id: &CommandId| !self.queued.contains(id) && !self.overtaken.contains(id);
        if let Some(earlier) = before.map(|earlier| earlier.id).find(missing) {
            let (first, later) = (decision(earlier), decision(id));
            self.fail(format!("decision {later} is in the queue, and {first} of its task is not"));
        }
    }

    /// What holds at every moment.
    pub(super) fn judge(&mut self, bounds: &Bounds) {
        let ledger = &self.database.now.ledger;
        let kept = |asked: u8| ledger.log.iter().any(|command| decision(command.id) == asked);
        let mut fault = None;
        if bounds.is_standby() && !self.answered.iter().all(|answered| kept(*answered)) {
            fault = Some("an answered decision is lost".to_owned());
        }
        for command in &ledger.log {
            let what = decision(command.id);
            match ledger.state(command.seq) {
                State::Published if !self.confirmed.contains(&command.id) => {
                    fault =
                        Some(format!("INVARIANT 3: decision {what} is published but was never confirmed"));
                }
                State::Published if bounds.is_standby() && self.returned.contains(&command.id) => {
                    fault = Some(format!("the late return of decision {what} is forgotten"));
                }
                State::Parked
                    if self.refusals.get(&command.id).copied().unwrap_or(0) < bounds.max_attempts =>
                {
                    fault = Some(format!("decision {what} is parked without refusals"));
                }
                _ => {}
            }
        }
        if ledger.cursor > ledger.head() {
            fault = Some(format!("the cursor is at {}, behind the end of the log", ledger.cursor));
        }
        if let Some(fault) = fault {
            self.fail(fault);
        }
    }

    /// What does not come through when all misfortunes end. `calm` has what is known to come through, and is added to.
    pub(super) fn left_over(&self, bounds: &Bounds, calm: &Mutex<HashSet<u64>>) -> Option<String> {
        let mut world = self.clone();
        world.left = Budget::default();
        let (mut done, mut passed) = (Vec::new(), HashSet::new());
        while !world.is_done(bounds) {
            if let Some(fault) = world.fault {
                return Some(format!("in the calm: {fault}, after {done:?}"));
            }
            let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&world);
            if calm.lock().unwrap().contains(&hash) {
                break;
            }
            if !passed.insert(hash) {
                return Some(format!(
                    "in the calm nothing changes any more: {:?}, after {done:?}",
                    world.database.now
                ));
            }
            let act = world.calm_act(bounds);
            done.push(act);
            world.act(bounds, act);
        }
        calm.lock().unwrap().extend(passed);
        None
    }

    pub(super) fn is_done(&self, bounds: &Bounds) -> bool {
        let ledger = &self.database.now.ledger;
        let through = (1..=ledger.head()).all(|seq: Seq| ledger.state(seq) != State::Pending);
        let leaders: Vec<_> = (0..2).filter(|at| self.replicas[*at].leader.is_some()).collect();
        let settled = |at: &usize| self.replicas[*at].leader.as_ref().is_some_and(|l| l.machine.is_settled());
        through
            && ledger.cursor == ledger.head()
            && leaders.len() == 1
            && leaders.iter().all(|at| self.leads(bounds, *at) && settled(at))
    }

    /// The next act when nothing goes wrong; the same in the same state, so that one that comes again comes for ever.
    fn calm_act(&self, bounds: &Bounds) -> Act {
        let mut acts = Vec::new();
        self.acts(bounds, &mut acts);
        let goes_on =
            |act: &&Act| !matches!(act, Act::Accept { .. } | Act::Tick(_) | Act::Tell { due: false, .. });
        let leader = (0..2).find(|at| self.replicas[*at].leader.is_some());
        acts.iter().find(goes_on).copied().unwrap_or(leader.map_or(Act::Take(0), Act::Tick))
    }
}
