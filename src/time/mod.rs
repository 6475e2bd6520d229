//! Points in time and their only display format: RFC 3339 in UTC with milliseconds.
//!
//! No other module uses a date library. A [`Timestamp`] has one display format, and [`parse`] is the only parser for
//! times that people type.

mod input;
mod zone;

use std::{
    fmt,
    ops::{Add, Sub},
    str::FromStr,
    time::{Duration, SystemTime},
};

use jiff::{SignedDuration, civil};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use input::{NotATime, parse};
pub use zone::{NoZone, Zone};

/// A point in time in whole milliseconds, in the years 0 to 9999: the full range of RFC 3339.
///
/// Displayed and serialized as `2026-11-20T08:15:30.123Z`. Arithmetic saturates at [`Self::MIN`] and [`Self::MAX`]. The
/// default is [`Self::UNIX_EPOCH`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// The time is before the year 0 or after the year 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("lies beyond the year 9999, or before the year 0")]
pub struct OutOfRange;

impl Timestamp {
    /// The start of 1970.
    pub const UNIX_EPOCH: Self = Self(0);
    /// `0000-01-01T00:00:00.000Z`
    pub const MIN: Self = Self(-62_167_219_200_000);
    /// `9999-12-31T23:59:59.999Z`
    pub const MAX: Self = Self(253_402_300_799_999);

    /// The current time of the system clock.
    #[must_use]
    pub fn now() -> Self {
        match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => Self::UNIX_EPOCH + since,
            Err(before) => Self::UNIX_EPOCH - before.duration(),
        }
    }

    /// Converts from milliseconds since the start of 1970.
    ///
    /// # Errors
    /// [`OutOfRange`].
    pub const fn from_millisecond(millis: i64) -> Result<Self, OutOfRange> {
        if millis < Self::MIN.0 || millis > Self::MAX.0 { Err(OutOfRange) } else { Ok(Self(millis)) }
    }

    /// Milliseconds since the start of 1970.
    #[must_use]
    pub const fn as_millisecond(self) -> i64 {
        self.0
    }

    /// Whole seconds since the start of 1970.
    #[must_use]
    pub const fn as_second(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Parses the `Date` header of an HTTP response. `None` if it is invalid.
    #[must_use]
    pub fn of_http_date(text: &str) -> Option<Self> {
        let date = jiff::fmt::rfc2822::parse(text).ok()?;
        Self::from_millisecond(date.timestamp().as_millisecond()).ok()
    }

    /// Time elapsed since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// The date and time at the given offset from UTC; `None` if it is outside the calendar.
    fn at_offset(self, offset_seconds: i32) -> Option<civil::DateTime> {
        let since = SignedDuration::from_millis(self.0) + SignedDuration::from_secs(offset_seconds.into());
        EPOCH.checked_add(since).ok()
    }

    /// The inverse of [`Self::at_offset`].
    fn of(shown: civil::DateTime, offset_seconds: i32) -> Result<Self, OutOfRange> {
        let since = shown.duration_since(EPOCH) - SignedDuration::from_secs(offset_seconds.into());
        // Rounds down, also before 1970.
        let millis = since.as_nanos().div_euclid(1_000_000);
        i64::try_from(millis).map_err(|_| OutOfRange).and_then(Self::from_millisecond)
    }
}

const EPOCH: civil::DateTime = civil::DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        let later = i64::try_from(later.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(later)).min(Self::MAX)
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, earlier: Duration) -> Self {
        let earlier = i64::try_from(earlier.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(earlier)).max(Self::MIN)
    }
}

/// `2026-11-20T08:15:30.123Z`
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.at_offset(0).expect("MIN and MAX are dates of the calendar");
        write!(f, "{shown:.3}Z")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Parses RFC 3339 with date, time and offset. Digits beyond milliseconds are cut off.
impl FromStr for Timestamp {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        input::rfc3339(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_with_three_digits_however_many_are_zero() {
        for (millis, shown) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1, "1970-01-01T00:00:00.001Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (1_790_000_000_000, "2026-09-21T14:13:20.000Z"),
            (1_790_000_000_120, "2026-09-21T14:13:20.120Z"),
            (253_402_300_799_000, "9999-12-31T23:59:59.000Z"),
        ] {
            let time = Timestamp::from_millisecond(millis).unwrap();
            assert_eq!(time.to_string(), shown);
            assert_eq!(serde_json::to_string(&time).unwrap(), format!("{shown:?}"));
            assert_eq!(shown.parse(), Ok(time));
            assert_eq!(serde_json::from_str::<Timestamp>(&format!("{shown:?}")).unwrap(), time);
        }
        assert_eq!(Timestamp::MIN.to_string(), "0000-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn there_is_nothing_beyond_the_years_of_four_digits() {
        for beyond in [Timestamp::MIN.0 - 1, Timestamp::MAX.0 + 1, i64::MIN, i64::MAX] {
            assert_eq!(Timestamp::from_millisecond(beyond), Err(OutOfRange));
        }
        assert_eq!(Timestamp::MAX + Duration::from_millis(1), Timestamp::MAX);
        assert_eq!(Timestamp::UNIX_EPOCH + Duration::MAX, Timestamp::MAX);
        assert_eq!(Timestamp::UNIX_EPOCH - Duration::MAX, Timestamp::MIN);
    }

    #[test]
    fn seconds_and_spans_are_counted_down() {
        let time = |millis| Timestamp::from_millisecond(millis).unwrap();
        assert_eq!((time(1999).as_second(), time(-1).as_second()), (1, -1));
        assert_eq!(time(1999).since(time(-1)), Duration::from_secs(2));
        assert_eq!(time(-1).since(time(1999)), Duration::ZERO);
        assert_eq!(time(5) + Duration::from_micros(1999), time(6));
    }

    #[test]
    fn now_is_what_the_systems_clock_says() {
        let of = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        let (before, now, after) = (of(SystemTime::now()), Timestamp::now(), of(SystemTime::now()));
        let now = u128::try_from(now.as_millisecond()).unwrap();
        assert!((before..=after).contains(&now), "{before} {now} {after}");
    }
}
