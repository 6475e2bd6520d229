//! Backoff delays as a pure function of attempts and a random number.

use std::time::Duration;

/// Maximum delay: a broker that is back is reached within half a minute.
pub const LONGEST: Duration = Duration::from_secs(30);

/// The delay after the `attempts`-th failure in a row (1 is the first), starting from `first`.
///
/// The delay doubles with every attempt up to [`LONGEST`]; `random`, uniform over all of `u32`, places it in the upper
/// half of that. The fixed half leaves a broken broker in peace; the random half keeps many relays, or many commands
/// refused together, from retrying at the same time.
#[must_use]
pub fn delay(first: Duration, attempts: u32, random: u32) -> Duration {
    // 2^16 times anything above a millisecond already exceeds LONGEST.
    let doublings = attempts.saturating_sub(1).min(16);
    let whole = first.saturating_mul(1 << doublings).min(LONGEST);
    let half = whole / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// A random number for [`delay`].
#[must_use]
pub fn random() -> u32 {
    #[cfg(test)]
    if let Some(number) = seeded::next() {
        return number;
    }
    // Without randomness the relay still needs a delay.
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

/// Seeded numbers, for reproducible tests.
#[cfg(test)]
pub(crate) mod seeded {
    use std::cell::Cell;

    thread_local! { static STATE: Cell<Option<u64>> = const { Cell::new(None) } }

    pub(crate) fn seed(seed: u64) {
        STATE.set(Some(seed));
    }

    pub(super) fn next() -> Option<u32> {
        // Knuth's linear congruential generator; its upper half is good enough.
        let state =
            STATE.get()?.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        STATE.set(Some(state));
        Some((state >> 32) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(250);

    #[test]
    fn delays_double_from_the_first_up_to_the_longest() {
        let whole: Vec<_> = (1..=9).map(|attempts| delay(FIRST, attempts, u32::MAX).as_millis()).collect();
        assert_eq!(whole, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(delay(FIRST, u32::MAX, u32::MAX), LONGEST);
    }

    #[test]
    fn the_random_number_moves_a_delay_within_its_upper_half() {
        assert_eq!(delay(FIRST, 1, 0), FIRST / 2);
        let middle = delay(FIRST, 1, u32::MAX / 2);
        assert!(middle > FIRST * 7 / 10 && middle < FIRST * 8 / 10, "{middle:?}");
    }

    #[test]
    fn chance_says_something_else_every_time() {
        // Two equal numbers occur once in four billion runs.
        assert_ne!(random(), random());
    }

    #[test]
    fn there_is_always_some_delay() {
        assert_eq!(delay(FIRST, 0, 0), FIRST / 2);
    }
}
