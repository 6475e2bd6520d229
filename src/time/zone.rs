//! Time zones for people.

use jiff::{
    civil,
    tz::{Offset, TimeZone},
};

use super::{OutOfRange, Timestamp};

/// The time zone in which times are displayed, and in which times without an offset are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// No such zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoZone {
    /// The zone of this machine cannot be determined.
    #[error("cannot tell the time zone of this machine from TZ or /etc/localtime; name an offset")]
    Local,
    /// The text is not a UTC offset.
    #[error("is not an offset from UTC such as +08:00 or -05:30")]
    Offset,
}

impl Zone {
    /// UTC.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// The zone of this machine, from the variable `TZ` or `/etc/localtime`.
    ///
    /// # Errors
    /// [`NoZone::Local`] if neither names a zone in the machine's time zone database.
    pub fn local() -> Result<Self, NoZone> {
        TimeZone::try_system().ok().filter(|zone| !zone.is_unknown()).map(Self).ok_or(NoZone::Local)
    }

    /// A fixed offset from UTC: `+08:00`, `+0800`, `+8`, `-05:30` or `Z`.
    ///
    /// # Errors
    /// [`NoZone::Offset`] if the text is not an offset, or exceeds 14 hours, the largest offset in use.
    pub fn at_offset(text: &str) -> Result<Self, NoZone> {
        const FARTHEST_MINUTES: i32 = 14 * 60;
        if matches!(text, "Z" | "z") {
            return Ok(Self::UTC);
        }
        let (sign, digits) = match text.split_at_checked(1) {
            Some(("+", digits)) => (1, digits),
            Some(("-", digits)) => (-1, digits),
            _ => return Err(NoZone::Offset),
        };
        let (hours, minutes) = match digits.split_once(':') {
            Some((hours, minutes)) if minutes.len() == 2 => (hours, minutes),
            Some(_) => return Err(NoZone::Offset),
            None if digits.len() == 4 && digits.is_ascii() => digits.split_at(2),
            None => (digits, "0"),
        };
        let number = |text: &str, most: i32| match text.parse() {
            Ok(number) if text.len() <= 2 && !text.starts_with('+') && (0..=most).contains(&number) => {
                Ok(number)
            }
            _ => Err(NoZone::Offset),
        };
        let minutes = number(hours, 14)? * 60 + number(minutes, 59)?;
        if minutes > FARTHEST_MINUTES {
            return Err(NoZone::Offset);
        }
        let offset = Offset::from_seconds(sign * minutes * 60).map_err(|_| NoZone::Offset)?;
        Ok(Self(TimeZone::fixed(offset)))
    }

    /// Formats the time in this zone, with the offset: `2026-11-20T16:15:30.123+08:00`. In UTC, formats it like
    /// [`Timestamp`].
    #[must_use]
    pub fn show(&self, at: Timestamp) -> String {
        if *self == Self::UTC {
            return at.to_string();
        }
        // RFC 3339 offsets have no seconds. Only local times before the railways would need them.
        let minutes = self.offset_seconds(at).div_euclid(60);
        let Some(shown) = at.at_offset(minutes * 60) else { return at.to_string() };
        let sign = if minutes < 0 { '-' } else { '+' };
        let (hours, minutes) = (minutes.abs() / 60, minutes.abs() % 60);
        format!("{shown:.3}{sign}{hours:02}:{minutes:02}")
    }

    fn offset_seconds(&self, at: Timestamp) -> i32 {
        // The library's maximum is a day before ours; no zone changes its offset in between.
        let at = jiff::Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(jiff::Timestamp::MAX);
        self.0.to_offset(at).seconds()
    }

    /// Converts local date and time in this zone. An ambiguous time is the first; a skipped time moves forward by the
    /// gap.
    pub(super) fn when(&self, shown: civil::DateTime) -> Result<Timestamp, OutOfRange> {
        if let Ok(at) = self.0.to_timestamp(shown) {
            return Timestamp::from_millisecond(at.as_millisecond());
        }
        // After the library's maximum.
        Timestamp::of(shown, self.offset_seconds(Timestamp::MAX))
    }

    /// Local date and time in this zone.
    pub(super) fn clock(&self, at: Timestamp) -> Result<civil::DateTime, OutOfRange> {
        at.at_offset(self.offset_seconds(at)).ok_or(OutOfRange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn an_offset_is_written_in_a_few_ways() {
        for (text, shown) in [
            ("+08:00", "2026-11-20T16:15:30.120+08:00"),
            ("+0800", "2026-11-20T16:15:30.120+08:00"),
            ("+08", "2026-11-20T16:15:30.120+08:00"),
            ("+8", "2026-11-20T16:15:30.120+08:00"),
            ("-05:30", "2026-11-20T02:45:30.120-05:30"),
            ("-00:30", "2026-11-20T07:45:30.120-00:30"),
            ("+14:00", "2026-11-20T22:15:30.120+14:00"),
            ("Z", "2026-11-20T08:15:30.120Z"),
        ] {
            let zone = Zone::at_offset(text).unwrap();
            assert_eq!(zone.show(at("2026-11-20T08:15:30.12Z")), shown, "{text}");
        }
        for text in [
            "", "+", "8", "08:00", "+8:0", "+08:60", "+15", "+14:01", "+-8", "+ 8", "++8", "+采", "采",
            "+080",
        ] {
            assert_eq!(Zone::at_offset(text), Err(NoZone::Offset), "{text}");
        }
    }

    #[test]
    fn the_last_time_of_all_is_shown_everywhere() {
        let last = Timestamp::MAX;
        assert_eq!(Zone::at_offset("-08:00").unwrap().show(last), "9999-12-31T15:59:59.999-08:00");
        // That local time would need a five-digit year.
        assert_eq!(Zone::at_offset("+08:00").unwrap().show(last), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_zone_knows_its_summer() {
        let berlin = Zone(TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap());
        assert_eq!(berlin.show(at("2026-07-01T00:00:00Z")), "2026-07-01T02:00:00.000+02:00");
        assert_eq!(berlin.show(at("2026-12-01T00:00:00Z")), "2026-12-01T01:00:00.000+01:00");
        let when = |text: &str| berlin.when(text.parse().unwrap()).unwrap().to_string();
        assert_eq!(when("2026-10-25T02:30"), "2026-10-25T00:30:00.000Z", "shown twice");
        assert_eq!(when("2026-03-29T02:30"), "2026-03-29T01:30:00.000Z", "never shown");
    }
}
