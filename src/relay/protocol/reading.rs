//! The source of commands in the log's order: memory while the relay keeps up, otherwise the table.
//!
//! ```text
//!               read: a full page
//!              ┌────────────────┐
//!              ▼                │     read: the head is reached          fresh: they follow on
//!   begin ─▶ Behind ──▶ Asked ──┴───────────────────────────▶ CaughtUp ─────┐
//!              ▲         │ ▲                                  │      ▲──────┘
//!              │  failed │ └───────────── Missed ◀────────────┘
//!              │ at tick ▼                        fresh: there is a gap
//!              └────── Paused
//! ```
//!
//! After [`Reading::take_back`] the commands are read again: the state is `Behind`.

use std::collections::VecDeque;

use super::Cargo;
use crate::command::Seq;

/// Commands read and not published, and how to get more.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Reading<C> {
    ready: VecDeque<C>,
    /// Everything up to here was read, or has an exception.
    position: Seq,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    /// The table has more.
    Behind,
    /// The table is being read; holds the head as it was before.
    Asked(Seq),
    /// The head was reached: the next commands may be fresh.
    CaughtUp,
    /// The fresh commands left a gap; the table has the missing ones.
    Missed,
    Paused,
}

/// How to get more commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    TakeFresh,
    ReadAfter(Seq),
}

impl<C> Reading<C> {
    pub(super) fn from(position: Seq) -> Self {
        Self { ready: VecDeque::new(), position, state: State::Behind }
    }
}

impl<C: Cargo> Reading<C> {
    #[cfg(test)]
    pub(super) fn is_ready(&self, seq: Seq) -> bool {
        self.ready.iter().any(|cargo| cargo.seq() == seq)
    }

    pub(super) fn first(&self) -> Option<&C> {
        self.ready.front()
    }

    pub(super) fn pop(&mut self) -> Option<C> {
        self.ready.pop_front()
    }

    pub(super) fn next_seq(&self) -> Seq {
        self.first().map_or(self.position + 1, Cargo::seq)
    }

    /// True if a change of the head would be useful.
    pub(super) fn is_idle(&self) -> bool {
        self.ready.is_empty() && !matches!(self.state, State::Asked(_) | State::Paused)
    }

    /// How to get the next commands.
    pub(super) fn seek(&mut self, head: Seq) -> Option<Next> {
        match self.state {
            State::CaughtUp if head > self.position => Some(Next::TakeFresh),
            State::Behind | State::Missed => self.read(head),
            State::CaughtUp | State::Asked(_) | State::Paused => None,
        }
    }

    /// While far behind, reads a page ahead.
    pub(super) fn read_ahead(&mut self, head: Seq, page: usize) -> Option<Next> {
        let wanted = self.state == State::Behind && self.ready.len() < page / 2;
        if wanted { self.read(head) } else { None }
    }

    fn read(&mut self, head: Seq) -> Option<Next> {
        if head <= self.position {
            return None;
        }
        self.state = State::Asked(head);
        Some(Next::ReadAfter(self.position))
    }

    /// Adds fresh commands, in order but possibly with gaps.
    pub(super) fn fresh(&mut self, fresh: Vec<C>) {
        for cargo in fresh {
            // Commands at or below the position were read from the table. Those after a gap will be.
            if cargo.seq() == self.position + 1 {
                self.position = cargo.seq();
                self.ready.push_back(cargo);
            }
        }
        if self.ready.is_empty() {
            self.state = State::Missed;
        }
    }

    /// Adds a page of at most `page` commands, in order, without the exceptions; `None` if the table could not be
    /// read.
    pub(super) fn told(&mut self, read: Option<Vec<C>>, page: usize) {
        // Taken back in the meantime.
        let State::Asked(head) = self.state else { return };
        let Some(read) = read else {
            self.state = State::Paused;
            return;
        };
        let last = read.last().map_or(self.position, Cargo::seq);
        if read.len() < page {
            // The page reaches the head at least; commands missing from it have exceptions.
            self.position = last.max(head);
            self.state = State::CaughtUp;
        } else {
            self.position = last;
            self.state = State::Behind;
        }
        self.ready.extend(read);
    }

    pub(super) fn tick(&mut self) {
        if self.state == State::Paused {
            self.state = State::Behind;
        }
    }

    /// Drops what was read and not published: an operator may act on it while it waits here, and it would be published
    /// nevertheless.
    pub(super) fn take_back(&mut self) {
        self.position = self.next_seq() - 1;
        self.ready.clear();
        self.state = State::Behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::protocol::tests::Of;

    const PAGE: usize = 2;

    fn of(seq: Seq) -> Of {
        Of(seq, seq)
    }

    #[test]
    fn pages_are_read_to_the_head_and_then_what_is_fresh() {
        let mut reading = Reading::<Of>::from(0);
        assert_eq!(reading.seek(3), Some(Next::ReadAfter(0)));
        assert_eq!((reading.seek(3), reading.read_ahead(3, PAGE), reading.is_idle()), (None, None, false));
        reading.told(Some(vec![of(1), of(2)]), PAGE);
        assert_eq!((reading.pop(), reading.pop(), reading.next_seq()), (Some(of(1)), Some(of(2)), 3));
        assert_eq!(reading.read_ahead(3, PAGE), Some(Next::ReadAfter(2)));
        reading.told(Some(Vec::new()), PAGE);
        assert_eq!((reading.seek(3), reading.seek(4)), (None, Some(Next::TakeFresh)), "3 is an exception");
        reading.fresh(vec![of(3), of(4), of(6)]);
        assert_eq!((reading.pop(), reading.pop()), (Some(of(4)), None));
        assert_eq!(reading.seek(6), Some(Next::TakeFresh));
        reading.fresh(vec![of(6)]);
        assert_eq!(reading.seek(6), Some(Next::ReadAfter(4)), "5 is missing among the fresh");
    }

    #[test]
    fn after_a_failure_nothing_is_read_before_the_next_tick() {
        let mut reading = Reading::<Of>::from(0);
        reading.seek(1);
        reading.told(None, PAGE);
        assert_eq!((reading.seek(1), reading.read_ahead(1, PAGE), reading.is_idle()), (None, None, false));
        reading.tick();
        assert_eq!(reading.seek(1), Some(Next::ReadAfter(0)));
    }

    #[test]
    fn what_is_taken_back_is_read_again_and_a_page_on_its_way_does_not_count() {
        let mut reading = Reading::from(0);
        reading.seek(3);
        reading.told(Some(vec![of(1), of(2)]), PAGE);
        reading.pop();
        reading.read_ahead(3, PAGE);
        reading.take_back();
        reading.told(Some(vec![of(3)]), PAGE);
        assert_eq!((reading.pop(), reading.seek(3)), (None, Some(Next::ReadAfter(1))));
    }
}
