//! The database: one ledger, the lease's row, and what a failover may forget of both.

use super::{super::ledger::Ledger, Bounds, Command, Rule, Term};

/// The primary, and what it may turn out to be after a failover.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Database {
    pub(super) now: Contents,
    /// As it was before each commit that the standby may lack, oldest first. A standby has the commits in their order, so that
    /// one that waits for it takes all earlier ones along.
    past: Vec<Contents>,
    /// Which server is the primary.
    pub(super) server: u8,
}

/// What one server has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Contents {
    pub(super) ledger: Ledger<Command>,
    /// The term of the lease that was taken last, and where.
    lease: Option<(Term, u8)>,
}

impl Database {
    /// `keep` tells whether a failover is to come.
    pub(super) fn commit(
        &mut self,
        bounds: &Bounds,
        waits: bool,
        keep: bool,
        change: impl FnOnce(&mut Contents),
    ) {
        let before = self.now.clone();
        change(&mut self.now);
        if waits && bounds.is_standby() {
            self.past.clear();
        } else if keep {
            self.past.push(before);
            if self.past.len() > bounds.lag {
                self.past.remove(0);
            }
        }
    }

    /// Commits that a failover may forget.
    pub(super) fn forgettable(&self) -> usize {
        self.past.len()
    }

    /// Another server becomes the primary, without the last so many commits.
    pub(super) fn fail_over(&mut self, forget: usize, keep: bool) {
        let stays = self.past.len() - forget;
        if let Some(before) = self.past.drain(stays..).next() {
            self.now = before;
        }
        self.server += 1;
        if !keep {
            self.past.clear();
        }
    }

    pub(super) fn take_lease(&mut self, bounds: &Bounds, term: Term, keep: bool) {
        let server = self.server;
        let waits = bounds.holds(Rule::LeaseWaits);
        self.commit(bounds, waits, keep, |contents| contents.lease = Some((term, server)));
    }

    /// Whether this term is the one of the lease.
    pub(super) fn is_led_by(&self, bounds: &Bounds, term: Term) -> bool {
        self.now.lease.is_some_and(|(taken, server)| {
            taken == term && (server == self.server || !bounds.holds(Rule::TermOfOneServer))
        })
    }
}
