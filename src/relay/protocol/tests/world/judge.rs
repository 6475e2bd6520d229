//! The safety and liveness checks.

use super::{Act, Bounds, Budget, Plain, World};
use crate::{command::Seq, ledger::State};

impl World {
    /// Checks the order of a task and the window.
    pub(super) fn check_publish(&mut self, bounds: &Bounds, command: Plain) {
        let Plain { seq, key, raw } = command;
        if raw {
            self.fail(format!("{seq} is published before it is prepared"));
        }
        self.owed.remove(&seq);
        if !self.connected || self.blocked {
            self.fail(format!("{seq} is published to nobody"));
        }
        if self.flying.len() >= bounds.max_in_flight {
            self.fail(format!("{seq} is one too many in flight"));
        }
        if self.excused.contains(&seq) {
            return;
        }
        if self.flying.contains(&seq) {
            self.fail(format!("{seq} is in flight already"));
        }
        for earlier in 1..seq {
            if self.command(earlier).key != key || self.excused.contains(&earlier) {
                continue;
            }
            let through = self.answered.contains(&earlier)
                || self.given_up.contains(&earlier)
                || self.state(earlier) == State::Parked;
            let before_it = self.flying.contains(&earlier)
                && !self.ledger.exceptions.contains_key(&earlier)
                && !self.ledger.exceptions.contains_key(&seq);
            if !through && !before_it {
                self.fail(format!("{seq} is published before {earlier} of its task is through"));
            }
        }
    }

    /// Checks the invariants of every state.
    pub(super) fn judge(&mut self, bounds: &Bounds) {
        for seq in 1..=self.head() {
            let refusals = self.refusals.get(&seq).copied().unwrap_or(0);
            match self.state(seq) {
                State::Published if !self.routed.contains(&seq) => {
                    self.fail(format!("INVARIANT 3: {seq} is published but was never confirmed"));
                }
                State::Parked
                    if refusals < bounds.max_attempts && !self.parked_by_operator.contains(&seq) =>
                {
                    self.fail(format!("{seq} is parked after {refusals} refusals"));
                }
                _ => {}
            }
            if let Some(exception) = self.ledger.exceptions.get(&seq)
                && exception.attempts > refusals
            {
                self.fail(format!("{seq} counts {} refusals of {refusals}", exception.attempts));
            }
            let everything_ends = (1..=self.head()).all(|seq| bounds.poison.contains(&seq));
            let crowd = bounds.tasks.len() >= bounds.max_exceptions;
            if everything_ends
                && !crowd
                && self.state(seq) == State::Parked
                && !self.parked_by_operator.contains(&seq)
            {
                self.fail(format!("{seq} is parked by a broker that takes nothing at all"));
            }
        }
    }

    pub(super) fn fail(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }

    /// Commands that do not get through once all misfortunes end; there must be none.
    ///
    /// Poison may stay pending unless it was parked.
    pub(in super::super) fn left_over(&self, bounds: &Bounds) -> Option<String> {
        let mut world = self.clone();
        world.left = Budget::default();
        let mut done = Vec::new();
        for round in 0..400 {
            if let Some(fault) = world.fault {
                return Some(format!("in the calm: {fault}, after {done:?}"));
            }
            if world.is_done(bounds) {
                return None;
            }
            let act = world.calm_act(bounds, round);
            done.push(act);
            world.act(bounds, act);
        }
        let open: Vec<_> = (1..=world.head()).filter(|seq| world.state(*seq) == State::Pending).collect();
        Some(format!(
            "after a long calm {open:?} are pending, {:?} returned late, with the cursor at {}",
            world.owed, world.ledger.cursor
        ))
    }

    fn is_done(&self, bounds: &Bounds) -> bool {
        let through = |seq: Seq| self.state(seq) != State::Pending || self.is_behind_poison(bounds, seq);
        self.connected
            && self.machine.is_settled()
            && (1..=self.head()).all(through)
            && self.owed.iter().all(|seq| self.state(*seq) != State::Published && through(*seq))
            && (self.ledger.cursor == self.head() || !bounds.poison.is_empty())
    }

    /// Poison is not parked, and its task waits, while nothing shows that it is the only one.
    fn is_behind_poison(&self, bounds: &Bounds, seq: Seq) -> bool {
        let key = self.command(seq).key;
        let mut poison = bounds.poison.iter().filter(|poison| **poison <= seq);
        poison.any(|poison| self.command(*poison).key == key && self.state(*poison) == State::Pending)
    }

    fn calm_act(&self, bounds: &Bounds, round: usize) -> Act {
        let usual = [
            (round % 7 == 6 && self.next_due().is_some(), Act::Wait),
            (self.blocked, Act::Block(false)),
            (!self.connected && self.machine.is_settled(), Act::Connect),
            (self.settling.is_some(), Act::Settle),
            (self.asking.is_some(), Act::Tell),
            (self.reading.is_some(), Act::Read),
            (!self.preparing.is_empty(), Act::Prepared(self.preparing.first().copied().unwrap_or(0))),
            (self.flying.front().is_some_and(|seq| !bounds.poison.contains(seq)), Act::Confirm),
            (self.poison_flies(bounds), Act::End),
        ];
        usual.into_iter().find(|(possible, _)| *possible).map_or(Act::Tick, |(_, act)| act)
    }
}
