//! Parses times that people type.

use jiff::{Span, ToSpan, civil};

use super::{OutOfRange, Timestamp, Zone};

/// The text is not a valid time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotATime {
    /// It matches none of the accepted forms.
    #[error(
        "is not a time such as 10:42, \"yesterday 10:42\", \"2 h ago\", 2026-11-20, \"2026-11-20 10:42\" or 2026-11-20T10:42:00+08:00"
    )]
    Form,
    /// It is not RFC 3339, and only RFC 3339 is accepted.
    #[error("is not a time of RFC 3339 with its offset, such as 2026-11-20T10:42:00+08:00")]
    Rfc3339,
    /// The date or the time of day does not exist.
    #[error("is a date or a time of day that does not exist")]
    Calendar,
    /// The number is too small for milliseconds: it would be minutes into 1970, or it counts seconds.
    #[error("is a number, but too small for milliseconds since 1970, which have 12 or 13 digits")]
    Seconds,
    /// RFC 3339 cannot represent it.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
}

/// Parses a time as a person types it:
///
/// - RFC 3339: `2026-11-20T10:42:00+08:00`; a space or a lowercase letter may replace the `T`;
/// - without an offset, in `zone`: `2026-11-20 10:42`, `2026-11-20` (its start), `10:42` or `today 10:42`,
///   `yesterday 10:42`, `today`, `yesterday`; seconds and their fraction are optional, and so is `am` or `pm`;
/// - the same in Chinese: `昨天 10:42`, `今天下午 6:44`;
/// - relative to `now`: `2 h ago`, `90m`, `1 day 2 hours ago`, `now`;
/// - milliseconds since 1970, the format of the approval center.
///
/// A bare time of day is today's, even if it is still in the future.
///
/// # Errors
/// [`NotATime`]
pub fn parse(text: &str, now: Timestamp, zone: &Zone) -> Result<Timestamp, NotATime> {
    let text = in_english(&text.trim().to_ascii_lowercase());
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return millis(&text);
    }
    let with_t =
        if text.as_bytes().get(10) == Some(&b' ') { text.replacen(' ', "t", 1) } else { text.clone() };
    match rfc3339(&with_t) {
        Err(NotATime::Rfc3339) => {}
        read => return read,
    }
    if text == "now" {
        return Ok(now);
    }
    // Signed spans such as `-2h` and `+2h` are ambiguous. `10:42:07` is a time of day, not a span.
    if text.starts_with(|first: char| first.is_ascii_digit())
        && !text.contains(':')
        && let Ok(span) = text.parse::<Span>()
    {
        return ago(span, now, zone);
    }
    let mut words = text.split_ascii_whitespace();
    let (first, second, rest) = (words.next().ok_or(NotATime::Form)?, words.next(), words.next());
    if rest.is_some() {
        return Err(NotATime::Form);
    }
    let today = || zone.clock(now).map(civil::DateTime::date);
    let (date, time) = match (first, second) {
        ("today", time) => (today()?, time),
        ("yesterday", time) => (today()?.yesterday().map_err(|_| OutOfRange)?, time),
        (one, None) if one.contains(':') && !one.contains('-') => (today()?, Some(one)),
        (one, None) => match one.split_once('t') {
            Some((day, time)) => (date(day)?, Some(time)),
            None => (date(one)?, None),
        },
        (day, Some(time)) => (date(day)?, Some(time)),
    };
    Ok(zone.when(date.to_datetime(time.map_or(Ok(civil::Time::midnight()), time_of_day)?))?)
}

/// Words that Chinese people write in a time. Half a day goes behind its time, as in English.
fn in_english(text: &str) -> String {
    let mut text = text.replace('：', ":");
    for (chinese, english) in [("今天", "today "), ("昨天", "yesterday "), ("现在", "now")] {
        if let Some(rest) = text.strip_prefix(chinese) {
            text = format!("{english}{}", rest.trim_start());
        }
    }
    for (chinese, english) in [("上午", "am"), ("下午", "pm"), ("晚上", "pm")] {
        if let Some((before, after)) = text.split_once(chinese) {
            text = format!("{before}{}{english}", after.trim());
        }
    }
    for half in [" am", " pm"] {
        if let Some(before) = text.strip_suffix(half) {
            text = format!("{}{}", before.trim_end(), half.trim_start());
        }
    }
    text.trim_end().to_owned()
}

fn millis(digits: &str) -> Result<Timestamp, NotATime> {
    // In milliseconds this is in 1973; read as seconds, it is beyond the year 5000.
    const LEAST: i64 = 100_000_000_000;
    match digits.parse() {
        Ok(..LEAST) => Err(NotATime::Seconds),
        Ok(millis) => Ok(Timestamp::from_millisecond(millis)?),
        Err(_) => Err(OutOfRange.into()),
    }
}

/// Days and weeks are calendar days in the zone, so a DST change does not shift the time of day.
fn ago(span: Span, now: Timestamp, zone: &Zone) -> Result<Timestamp, NotATime> {
    let days = span.abs();
    let hours = days.hours(0).minutes(0).seconds(0).milliseconds(0).microseconds(0).nanoseconds(0);
    let clock = zone.clock(now)?;
    let at =
        if hours.is_zero() { now } else { zone.when(clock.checked_sub(hours).map_err(|_| OutOfRange)?)? };
    let rest = 0
        .hours()
        .hours(days.get_hours())
        .minutes(days.get_minutes())
        .seconds(days.get_seconds())
        .milliseconds(days.get_milliseconds());
    let rest = rest.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| OutOfRange)?;
    Ok(at - rest.unsigned_abs())
}

/// `2026-11-20`
fn date(text: &str) -> Result<civil::Date, NotATime> {
    if !matches(b"0000-00-00", text.as_bytes()) {
        return Err(NotATime::Form);
    }
    text.parse().map_err(|_| NotATime::Calendar)
}

/// `9:42`, `09:42`, `09:42:30` or `09:42:30.5`, also with `am` or `pm`.
fn time_of_day(text: &str) -> Result<civil::Time, NotATime> {
    for (half, hours) in [("am", 0), ("pm", 12)] {
        let Some(text) = text.strip_suffix(half) else { continue };
        let (hour, rest) = text.split_once(':').ok_or(NotATime::Form)?;
        let hour: u8 = hour.parse().map_err(|_| NotATime::Form)?;
        if !(1..=12).contains(&hour) {
            return Err(NotATime::Calendar);
        }
        return time_of_day(&format!("{}:{rest}", hour % 12 + hours));
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let padded = if whole.find(':') == Some(1) { format!("0{whole}") } else { whole.to_owned() };
    let known =
        matches(b"00:00:00", padded.as_bytes()) || (matches(b"00:00", padded.as_bytes()) && whole == text);
    if !known || fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NotATime::Form);
    }
    let fraction = &fraction[..fraction.len().min(9)];
    let text = if padded.len() == 5 { padded } else { format!("{padded}.{fraction}") };
    text.parse().map_err(|_| NotATime::Calendar)
}

/// RFC 3339 only: the library accepts more, and some of that means something else elsewhere.
pub(super) fn rfc3339(text: &str) -> Result<Timestamp, NotATime> {
    let bytes = text.as_bytes();
    let (head, rest) = bytes.split_at_checked(19).ok_or(NotATime::Rfc3339)?;
    let (fraction, offset) = match rest.split_first() {
        Some((b'.', rest)) => {
            let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
            if end == 0 {
                return Err(NotATime::Rfc3339);
            }
            rest.split_at(end)
        }
        _ => (&b"0"[..], rest),
    };
    let offset_minutes = match offset.split_first() {
        Some((b'Z' | b'z', [])) => 0,
        Some((sign @ (b'+' | b'-'), offset)) if matches(b"00:00", offset) => {
            let number = |at: usize| i32::from(offset[at] - b'0') * 10 + i32::from(offset[at + 1] - b'0');
            let (hours, minutes) = (number(0), number(3));
            if hours > 23 || minutes > 59 {
                return Err(NotATime::Calendar);
            }
            if *sign == b'-' { -(hours * 60 + minutes) } else { hours * 60 + minutes }
        }
        _ => return Err(NotATime::Rfc3339),
    };
    if !matches(b"0000-00-00T00:00:00", head) {
        return Err(NotATime::Rfc3339);
    }
    // RFC 3339 allows fractions of any length, the library only nine digits.
    let fraction = &fraction[..fraction.len().min(9)];
    let shown = [&head[..10], b"T", &head[11..], b".", fraction].concat();
    let shown = std::str::from_utf8(&shown).ok().and_then(|text| text.parse().ok());
    Ok(Timestamp::of(shown.ok_or(NotATime::Calendar)?, offset_minutes * 60)?)
}

/// True if `text` has a digit for each `0`, a `t` in either case for `T`, and equals `form` elsewhere.
fn matches(form: &[u8], text: &[u8]) -> bool {
    form.len() == text.len()
        && form.iter().zip(text).all(|(form, byte)| match form {
            b'0' => byte.is_ascii_digit(),
            b'T' => matches!(byte, b'T' | b't'),
            form => form == byte,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-20T08:15:30.123Z";

    fn read(text: &str, zone: &str) -> Result<String, NotATime> {
        let zone = Zone::at_offset(zone).unwrap();
        parse(text, NOW.parse().unwrap(), &zone).map(|at| at.to_string())
    }

    #[test]
    fn a_time_is_read_as_people_write_it() {
        for (text, zone, at) in [
            ("2026-11-20T10:42:00+08:00", "Z", "2026-11-20T02:42:00.000Z"),
            ("2026-11-20t10:42:00.5z", "+08:00", "2026-11-20T10:42:00.500Z"),
            ("2026-11-20 10:42:00+08:00", "Z", "2026-11-20T02:42:00.000Z"),
            (" 2026-11-20T10:42:00.123456789123Z\n", "Z", "2026-11-20T10:42:00.123Z"),
            ("2026-11-20T10:42", "+08:00", "2026-11-20T02:42:00.000Z"),
            ("2026-11-20  10:42:30.25", "Z", "2026-11-20T10:42:30.250Z"),
            ("2026-11-20", "Z", "2026-11-20T00:00:00.000Z"),
            ("2026-11-20", "+08:00", "2026-11-19T16:00:00.000Z"),
            ("10:42", "Z", "2026-11-20T10:42:00.000Z"),
            ("9:42", "+08:00", "2026-11-20T01:42:00.000Z"),
            ("10:42:07", "-05:00", "2026-11-20T15:42:07.000Z"),
            ("today 10:42", "+08:00", "2026-11-20T02:42:00.000Z"),
            ("Yesterday 10:42", "+08:00", "2026-11-19T02:42:00.000Z"),
            ("昨天 10:42", "+08:00", "2026-11-19T02:42:00.000Z"),
            ("今天10：42", "+08:00", "2026-11-20T02:42:00.000Z"),
            ("昨天", "Z", "2026-11-19T00:00:00.000Z"),
            ("昨天下午6:44", "Z", "2026-11-19T18:44:00.000Z"),
            ("6:44pm", "Z", "2026-11-20T18:44:00.000Z"),
            ("6:44 PM", "Z", "2026-11-20T18:44:00.000Z"),
            ("yesterday 12:05 am", "Z", "2026-11-19T00:05:00.000Z"),
            ("12:05pm", "Z", "2026-11-20T12:05:00.000Z"),
            ("today", "+14:00", "2026-11-19T10:00:00.000Z"),
            // In that zone it is still the evening of the 19th.
            ("today 20:00", "-12:00", "2026-11-20T08:00:00.000Z"),
            ("yesterday", "Z", "2026-11-19T00:00:00.000Z"),
            ("now", "Z", NOW),
            ("2 h ago", "+08:00", "2026-11-20T06:15:30.123Z"),
            ("2h", "Z", "2026-11-20T06:15:30.123Z"),
            ("90 minutes ago", "Z", "2026-11-20T06:45:30.123Z"),
            ("1h30m ago", "Z", "2026-11-20T06:45:30.123Z"),
            ("1 day 2 hours ago", "Z", "2026-11-19T06:15:30.123Z"),
            ("7d", "Z", "2026-11-13T08:15:30.123Z"),
            ("500ms", "Z", "2026-11-20T08:15:29.623Z"),
            ("1790000000000", "Z", "2026-09-21T14:13:20.000Z"),
            ("9999-12-31T23:59:59Z", "Z", "9999-12-31T23:59:59.000Z"),
            ("9999-12-31T23:59:59.999-00:00", "Z", "9999-12-31T23:59:59.999Z"),
            ("9999-12-31 23:59:59", "Z", "9999-12-31T23:59:59.000Z"),
            ("9999-12-31 23:59:59", "+08:00", "9999-12-31T15:59:59.000Z"),
            ("0000-01-01T00:00:00Z", "Z", "0000-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(read(text, zone).as_deref(), Ok(at), "{text} at {zone}");
        }
    }

    #[test]
    fn what_is_no_time_is_told_so() {
        for (text, why) in [
            ("", NotATime::Form),
            ("soon", NotATime::Form),
            ("tomorrow 10:42", NotATime::Form),
            ("-2h", NotATime::Form),
            ("+2h", NotATime::Form),
            ("in 2 h", NotATime::Form),
            ("10.42", NotATime::Form),
            ("10 pm", NotATime::Form),
            ("13:42pm", NotATime::Calendar),
            ("明天 10:42", NotATime::Form),
            ("10:42.5", NotATime::Form),
            ("10:42:", NotATime::Form),
            ("2026-11", NotATime::Form),
            ("20/11/2026", NotATime::Form),
            ("2026-11-20T", NotATime::Form),
            ("today 10:42 z", NotATime::Form),
            ("today yesterday", NotATime::Form),
            ("采购", NotATime::Form),
            ("25:00", NotATime::Calendar),
            ("10:60", NotATime::Calendar),
            ("2026-02-30", NotATime::Calendar),
            ("2026-02-30T00:00:00Z", NotATime::Calendar),
            ("2026-11-20T00:00:00+24:00", NotATime::Calendar),
            ("1790000000", NotATime::Seconds),
            ("99999999999999999999", NotATime::OutOfRange(OutOfRange)),
            ("9999-12-31T23:59:59-00:01", NotATime::OutOfRange(OutOfRange)),
            ("0000-01-01T00:00:00+00:01", NotATime::OutOfRange(OutOfRange)),
        ] {
            assert_eq!(read(text, "Z"), Err(why), "{text}");
        }
    }

    #[test]
    fn where_rfc_3339_is_wanted_nothing_else_is_read() {
        for text in [
            "2026-11-20",
            "2026-11-20T10:42Z",
            "2026-11-20T10:42:00",
            "20261120T104200Z",
            "2026-11-20T10:42:00.Z",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(NotATime::Rfc3339), "{text}");
        }
    }
}
