//! Client-side rate limits: no API is called more often than the platform allows (platform.md#rate-limits), and none
//! while the platform asks us to wait.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Maximum calls of one API per second.
pub const PER_SECOND: usize = 50;

/// Maximum calls of one API per minute.
pub const PER_MINUTE: usize = 1000;

/// Schedules the turns of one API: points in time, given in order so that no caller starves.
#[derive(Debug, Default)]
pub(super) struct Limiter(Mutex<Turns>);

#[derive(Debug, Default)]
struct Turns {
    /// The last [`PER_MINUTE`] turns given; some may be in the future.
    given: VecDeque<Instant>,
    closed_until: Option<Instant>,
}

impl Limiter {
    /// Reserves the next turn from `now` on. If it is after `deadline`, it is not reserved, and `Err` has its time. An
    /// unused turn is lost.
    pub(super) fn turn(&self, now: Instant, deadline: Instant) -> Result<Instant, Instant> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut turn = turns.closed_until.map_or(now, |until| until.max(now));
        // Sliding window: the turn `count` places back must be at least `span` ago.
        for (count, span) in [(PER_SECOND, Duration::from_secs(1)), (PER_MINUTE, Duration::from_secs(60))] {
            if let Some(at) = turns.given.len().checked_sub(count) {
                turn = turn.max(turns.given[at] + span);
            }
        }
        // A closure in between must not let a later caller overtake an earlier one.
        if let Some(last) = turns.given.back() {
            turn = turn.max(*last);
        }
        if turn > deadline {
            return Err(turn);
        }
        turns.given.push_back(turn);
        if turns.given.len() > PER_MINUTE {
            turns.given.pop_front();
        }
        Ok(turn)
    }

    pub(super) fn close(&self, until: Instant) {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.closed_until = turns.closed_until.max(Some(until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn millis(start: Instant, turn: Instant) -> u128 {
        (turn - start).as_millis()
    }

    #[test]
    fn no_second_holds_more_than_fifty_and_no_minute_more_than_a_thousand() {
        let (limiter, start) = (Limiter::default(), Instant::now());
        let turns: Vec<_> = (0..3000).map(|_| limiter.turn(start, start + DAY).unwrap()).collect();
        assert_eq!(millis(start, turns[49]), 0);
        assert_eq!(millis(start, turns[50]), 1_000);
        // At 50 per second, the first minute's thousand take 20 seconds.
        assert_eq!(millis(start, turns[999]), 19_000);
        assert_eq!(millis(start, turns[1000]), 60_000);
        for (count, span) in [(PER_SECOND, 1), (PER_MINUTE, 60)] {
            for window in turns.windows(count + 1) {
                assert!(window[count] - window[0] >= Duration::from_secs(span));
            }
        }
    }

    #[test]
    fn who_comes_when_it_is_quiet_has_their_turn_at_once() {
        let (limiter, start) = (Limiter::default(), Instant::now());
        for second in 0..100 {
            let now = start + Duration::from_secs(second);
            assert_eq!(limiter.turn(now, now), Ok(now));
        }
    }

    #[test]
    fn the_platform_can_close_it_and_nobody_overtakes() {
        let (limiter, start) = (Limiter::default(), Instant::now());
        limiter.close(start + Duration::from_secs(7));
        limiter.close(start + Duration::from_secs(3));
        assert_eq!(millis(start, limiter.turn(start, start + DAY).unwrap()), 7_000);
        assert_eq!(millis(start, limiter.turn(start + Duration::from_secs(4), start + DAY).unwrap()), 7_000);
        let later = start + Duration::from_secs(9);
        assert_eq!(limiter.turn(later, later), Ok(later));
    }

    #[test]
    fn a_turn_beyond_the_deadline_is_not_taken() {
        let (limiter, start) = (Limiter::default(), Instant::now());
        for _ in 0..PER_SECOND {
            limiter.turn(start, start).unwrap();
        }
        let second = start + Duration::from_secs(1);
        for _ in 0..1000 {
            assert_eq!(limiter.turn(start, start + Duration::from_millis(999)), Err(second));
        }
        assert_eq!(limiter.turn(start, second), Ok(second), "nobody who gave up has used a turn");
    }
}
