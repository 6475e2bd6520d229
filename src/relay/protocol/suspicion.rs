//! Commands over which the broker ends the session.
//!
//! A broker answers some publishes by closing the channel or the connection: the user may not write to that routing
//! key, the message is larger than the broker takes, or a frame is malformed. Such a command would be published again
//! at the head of every session and block everything behind it. So:
//!
//! - A session's end counts only if the broker itself attributes it to a publish
//!   ([`Failure::blames_publish`](crate::relay::Failure::blames_publish)). A broker that is unreachable, restarts,
//!   flaps or is silent never causes an exception.
//! - With several commands in flight it may have been any of them: from then on, as many as were in flight are
//!   published *one at a time*.
//! - A command alone in flight when that happens is *set aside*: it becomes an exception like a refused one, with the
//!   broker's message as the reason. Later ones of its task wait for it, all others go on.
//! - When due, it is tried alone, with nothing else in flight, and only in a session that is some seconds old: each
//!   try costs the session.
//! - It is parked after `max_attempts` like any other, but only if the broker has confirmed something since it was set
//!   aside, or if too many exceptions hold up everything else. So a broker that ends the session over everything (a
//!   permission withdrawn from the whole exchange) parks nothing.

use std::collections::BTreeSet;

use super::{Cargo, Machine, Moment, Notice};
use crate::command::Seq;

/// The suspected commands. Memory only: after a restart the first try detects them again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Suspicion {
    /// Number of commands still to be published one at a time.
    careful_for: usize,
    set_aside: BTreeSet<Seq>,
    /// Those with no confirm of any command since they first ended a session.
    unproven: BTreeSet<Seq>,
}

impl Suspicion {
    pub(super) fn is_careful(&self) -> bool {
        self.careful_for > 0
    }

    pub(super) fn suspects(&self, seq: Seq) -> bool {
        !self.set_aside.is_empty() && self.set_aside.contains(&seq)
    }

    /// True if the broker may end the session over other commands too.
    pub(super) fn is_unproven(&self, seq: Seq) -> bool {
        self.unproven.contains(&seq)
    }

    pub(super) fn answered(&mut self, seq: Seq, confirmed: bool) {
        self.careful_for = self.careful_for.saturating_sub(1);
        if !self.set_aside.is_empty() {
            self.set_aside.remove(&seq);
            self.unproven.remove(&seq);
            if confirmed {
                self.unproven.clear();
            }
        }
    }

    pub(super) fn keep(&mut self, waiting: &BTreeSet<Seq>) {
        self.set_aside.retain(|seq| waiting.contains(seq));
        self.unproven.retain(|seq| waiting.contains(seq));
    }
}

impl<C: Cargo> Machine<C> {
    /// True if the one command in flight is being tried alone.
    pub(super) fn is_alone(&self) -> bool {
        let first = self.session.in_flight.front();
        first.is_some_and(|flight| self.suspicion.suspects(flight.seq))
    }

    pub(super) fn is_calm(&self, now: Moment) -> bool {
        now.elapsed.saturating_sub(self.session.began) >= self.rules.calm
    }

    /// The broker has ended the session over a published command. True if the broker is healthy: it takes others, but
    /// not this one.
    pub(super) fn blamed(&mut self, words: &str, now: Moment) -> bool {
        let in_flight = self.session.in_flight.len();
        if in_flight > 1 {
            if !self.suspicion.is_careful() {
                self.say(Notice::Careful { in_flight });
            }
            self.suspicion.careful_for = self.suspicion.careful_for.max(in_flight);
            return false;
        }
        let Some(flight) = self.session.in_flight.pop_front() else { return false };
        let seq = flight.seq;
        self.session.stragglers.landed(seq);
        let reason = format!("the broker ended the session over it: {words}");
        if self.suspicion.set_aside.insert(seq) {
            self.suspicion.unproven.insert(seq);
            self.say(Notice::SetAside { seq, reason: reason.clone() });
        }
        let proven = !self.suspicion.is_unproven(seq);
        self.refused(&flight, reason, now);
        proven
    }
}
