//! Decides which refused callbacks are logged one by one and which are summed up, so that a flood of callbacks does
//! not flood the log.
//!
//! Callbacks of one peer that are refused for one reason form a *flow*. The first of a flow is logged in full. The
//! others are counted, and a line per minute reports their number, until a minute passes without any. A sender who
//! knows a key or a token is not a stranger, and each of their callbacks may be a person's decision: of those, the
//! first [`KNOWN`] per minute are logged in full.
//!
//! Memory is bounded: there are [`FLOWS`] flows, and callbacks beyond them are counted by reason only.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::intake::Refusal;

pub(super) const EVERY: Duration = Duration::from_secs(60);

/// Maximum number of separate flows, and so of log lines per minute about strangers.
const FLOWS: usize = 600;

/// Callbacks per flow and minute that are logged in full if their sender is not a stranger.
const KNOWN: u32 = 60;

/// What is reported about a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    /// Its callbacks are refused for this reason.
    Refused { refusal: Refusal, stranger: bool },
    /// It sends requests that are not callbacks. Separate, so that neither kind hides the other behind one balancer.
    NoCallback,
    /// It is admitted although the allow-list does not include it.
    NotAllowed,
    /// It exceeds its connection limit.
    Crowded,
}

/// How one callback is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reporting {
    /// Logged, and kept among the refusals.
    Whole,
    /// Only kept among the refusals: once a minute, so that they show how long a flood lasted.
    Kept,
    /// Only counted.
    Counted,
}

/// The unlogged callbacks of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sum {
    /// `None` for many peers together.
    pub(super) peer: Option<IpAddr>,
    pub(super) subject: Subject,
    /// Callbacks without a log line.
    pub(super) untold: u64,
}

#[derive(Debug, Default)]
struct Flow {
    told: u32,
    untold: u64,
    /// Whether to keep the next one, even though it is not logged.
    keep: bool,
}

#[derive(Debug, Default)]
struct State {
    flows: HashMap<(u128, Subject), Flow>,
    /// Callbacks of peers beyond the limit of flows.
    others: HashMap<Subject, u64>,
}

/// The flows of this minute.
#[derive(Debug, Default)]
pub(super) struct Telling(Mutex<State>);

impl Telling {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a callback of this peer and decides how to report it.
    pub(super) fn tell(&self, peer: IpAddr, subject: Subject) -> Reporting {
        let at_once = match subject {
            Subject::Refused { stranger: false, .. } => KNOWN,
            _ => 1,
        };
        let mut state = self.state();
        let State { flows, others } = &mut *state;
        let key = (key(peer), subject);
        if flows.len() >= FLOWS && !flows.contains_key(&key) {
            *others.entry(subject).or_default() += 1;
            return Reporting::Counted;
        }
        let flow = flows.entry(key).or_default();
        if flow.told < at_once {
            flow.told += 1;
            return Reporting::Whole;
        }
        flow.untold += 1;
        if std::mem::take(&mut flow.keep) { Reporting::Kept } else { Reporting::Counted }
    }

    /// Ends a minute and returns its unlogged callbacks, the largest number first. Removes flows without any.
    pub(super) fn sum_up(&self) -> Vec<Sum> {
        let mut state = self.state();
        let mut sums = Vec::new();
        state.flows.retain(|(key, subject), flow| {
            if flow.untold == 0 {
                return false;
            }
            let peer = Some(Ipv6Addr::from_bits(*key).to_canonical());
            sums.push(Sum { peer, subject: *subject, untold: std::mem::take(&mut flow.untold) });
            flow.keep = true;
            if matches!(subject, Subject::Refused { stranger: false, .. }) {
                flow.told = 0;
            }
            true
        });
        let others = state.others.drain();
        sums.extend(others.map(|(subject, untold)| Sum { peer: None, subject, untold }));
        sums.sort_by_key(|sum| std::cmp::Reverse(sum.untold));
        sums
    }
}

/// An IPv4 address, or the /64 of an IPv6 address, within which a sender chooses addresses freely.
pub(super) fn key(peer: IpAddr) -> u128 {
    match peer.to_canonical() {
        // As ::ffff:a.b.c.d, whose lower half is never 0; that of every /64 is.
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        // The /64 of :: itself would be 0, which means nobody.
        IpAddr::V6(address) => (address.to_bits() & !u128::from(u64::MAX)).max(Ipv6Addr::LOCALHOST.to_bits()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn refused(refusal: Refusal, stranger: bool) -> Subject {
        Subject::Refused { refusal, stranger }
    }

    const STRANGE: Subject = Subject::Refused { refusal: Refusal::Unauthenticated, stranger: true };

    #[test]
    fn the_first_of_each_reason_and_peer_is_told_whole_and_a_minute_sums_up_the_others() {
        let telling = Telling::default();
        let tell = |peer: &str, subject| telling.tell(ip(peer), subject);
        assert_eq!(tell("192.0.2.1", STRANGE), Reporting::Whole);
        for _ in 0..500 {
            assert_eq!(tell("192.0.2.1", STRANGE), Reporting::Counted);
        }
        assert_eq!(tell("192.0.2.2", STRANGE), Reporting::Whole, "another peer");
        assert_eq!(tell("192.0.2.1", refused(Refusal::TooSlow, true)), Reporting::Whole, "another reason");
        assert_eq!(tell("192.0.2.1", Subject::NoCallback), Reporting::Whole, "no callback at all");
        let sum = |untold| Sum { peer: Some(ip("192.0.2.1")), subject: STRANGE, untold };
        assert_eq!(telling.sum_up(), [sum(500)]);
        // The flood goes on: one row among the refusals, and only the sum in the log.
        assert_eq!(tell("192.0.2.1", STRANGE), Reporting::Kept);
        assert_eq!(tell("192.0.2.1", STRANGE), Reporting::Counted);
        assert_eq!(telling.sum_up(), [sum(2)]);
        // After a minute without any, the next counts as the first.
        assert_eq!(telling.sum_up(), []);
        assert_eq!(tell("192.0.2.1", STRANGE), Reporting::Whole);
    }

    #[test]
    fn of_a_sender_who_is_no_stranger_sixty_a_minute_are_told_whole() {
        let telling = Telling::default();
        let subject = refused(Refusal::ContextExpired, false);
        let whole = || {
            let told = (0..100).map(|_| telling.tell(ip("192.0.2.1"), subject));
            told.filter(|told| *told == Reporting::Whole).count()
        };
        assert_eq!(whole(), 60);
        assert_eq!(telling.sum_up().iter().map(|sum| sum.untold).sum::<u64>(), 40);
        assert_eq!(whole(), 60);
    }

    #[test]
    fn a_crowd_is_counted_by_its_reason_and_takes_no_room() {
        let telling = Telling::default();
        let mut whole = 0;
        for number in 0..100_000_u32 {
            let peer = IpAddr::V4((0x0a00_0000 + number).into());
            whole += usize::from(telling.tell(peer, STRANGE) == Reporting::Whole);
        }
        assert_eq!(whole, FLOWS);
        assert_eq!(telling.state().flows.len(), FLOWS);
        let crowd = Sum { peer: None, subject: STRANGE, untold: 100_000 - FLOWS as u64 };
        assert_eq!(telling.sum_up(), [crowd]);
        assert!(telling.state().flows.is_empty());
    }

    #[test]
    fn a_peer_is_shown_as_it_is_known() {
        let telling = Telling::default();
        for peer in ["192.0.2.1", "2001:db8:0:1:ffff::9"] {
            for _ in 0..2 {
                telling.tell(ip(peer), STRANGE);
            }
        }
        let peers: Vec<String> = telling.sum_up().iter().map(|sum| sum.peer.unwrap().to_string()).collect();
        assert!(
            peers.contains(&"192.0.2.1".to_owned()) && peers.contains(&"2001:db8:0:1::".to_owned()),
            "{peers:?}"
        );
    }
}
