//! Times on the command line: the zone to show and read them in, and the arguments that name a period.

use clap::Args;

use super::exit::Failure;
use crate::{
    ledger::AROUND,
    time::{Timestamp, Zone, parse},
};

/// For every command that lists times. JSON is left in UTC.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ZoneArguments {
    /// Show times, and read those without an offset, by this machine's clock: TZ, or its time zone [default: UTC]
    #[arg(long, conflicts_with = "utc_offset", help_heading = "Times")]
    local_time: bool,
    /// Show times, and read those without an offset, at this offset from UTC, such as +08:00. With --json times stay
    /// in UTC
    #[arg(long, value_name = "OFFSET", allow_hyphen_values = true, value_parser = offset, help_heading = "Times")]
    utc_offset: Option<Zone>,
}

fn offset(text: &str) -> Result<Zone, String> {
    Zone::at_offset(text).map_err(|error| error.to_string())
}

impl ZoneArguments {
    /// The zone to show and read times in.
    pub(super) fn zone(&self) -> Result<Zone, Failure> {
        match &self.utc_offset {
            Some(zone) => Ok(zone.clone()),
            None if self.local_time => Zone::local()
                .map_err(|error| Failure::Usage(format!("--local-time: {error} (--utc-offset +08:00)"))),
            None => Ok(Zone::UTC),
        }
    }
}

/// For a command whose listing can be narrowed to a span of time.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct PeriodArguments {
    /// Only since then: 10:42, "yesterday 10:42", "2 h ago", 2026-11-20, "2026-11-20 10:42" or RFC 3339
    #[arg(long, value_name = "TIME", help_heading = "Times")]
    since: Option<String>,
    /// Only before then
    #[arg(long, value_name = "TIME", help_heading = "Times")]
    until: Option<String>,
    /// Only within five minutes of then
    #[arg(long, value_name = "TIME", conflicts_with_all = ["since", "until"], help_heading = "Times")]
    around: Option<String>,
}

/// A period, open where unset: `since <= time < until`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
}

impl PeriodArguments {
    /// The period given by the arguments.
    pub(super) fn period(&self, now: Timestamp, zone: &Zone) -> Result<Period, Failure> {
        let read = |flag: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => time(flag, text, now, zone).map(Some),
        };
        // Nothing can match the future; usually yesterday was meant.
        let past = |flag: &str, text: &Option<String>| match read(flag, text)? {
            Some(at) if at > now => Err(Failure::Usage(format!(
                "{flag} {:?} is {}, which is still to come; say \"yesterday {}\" for the day before",
                text.as_deref().unwrap_or_default(),
                zone.show(at),
                zone.show(at).get(11..16).unwrap_or("10:42"),
            ))),
            read => Ok(read),
        };
        if let Some(around) = past("--around", &self.around)? {
            return Ok(Period { since: Some(around - AROUND), until: Some(around + AROUND) });
        }
        let period = Period { since: past("--since", &self.since)?, until: read("--until", &self.until)? };
        if let Period { since: Some(since), until: Some(until) } = period
            && since >= until
        {
            let (since, until) = (zone.show(since), zone.show(until));
            return Err(Failure::Usage(format!("--since is {since}, which is not before --until, {until}")));
        }
        Ok(period)
    }
}

/// Parses the time given to `flag`.
pub(super) fn time(flag: &str, text: &str, now: Timestamp, zone: &Zone) -> Result<Timestamp, Failure> {
    parse(text, now, zone).map_err(|error| Failure::Usage(format!("{flag} {text:?} {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period(since: Option<&str>, until: Option<&str>, around: Option<&str>) -> Result<Period, String> {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let arguments = PeriodArguments { since: text(since), until: text(until), around: text(around) };
        let zone = Zone::at_offset("+08:00").unwrap();
        arguments.period("2026-11-20T08:15:30Z".parse().unwrap(), &zone).map_err(|failure| match failure {
            Failure::Usage(text) => text,
            other => format!("{other:?}"),
        })
    }

    #[test]
    fn a_span_is_open_where_nothing_is_said() {
        let at = |text: &str| Some(text.parse().unwrap());
        assert_eq!(period(None, None, None), Ok(Period::default()));
        assert_eq!(
            period(Some("10:42"), None, None),
            Ok(Period { since: at("2026-11-20T02:42:00Z"), until: None })
        );
        // "Until this evening" is a way to request all of today.
        assert_eq!(
            period(Some("today"), Some("18:00"), None),
            Ok(Period { since: at("2026-11-19T16:00:00Z"), until: at("2026-11-20T10:00:00Z") })
        );
        assert_eq!(
            period(None, None, Some("10:42")),
            Ok(Period { since: at("2026-11-20T02:37:00Z"), until: at("2026-11-20T02:47:00Z") })
        );
    }

    #[test]
    fn a_span_in_which_nothing_can_be_is_told() {
        assert_eq!(
            period(None, None, Some("23:50")).unwrap_err(),
            "--around \"23:50\" is 2026-11-20T23:50:00.000+08:00, which is still to come; say \"yesterday 23:50\" for the day before"
        );
        assert!(period(Some("11:00"), Some("10:00"), None).unwrap_err().contains("not before --until"));
        assert!(
            period(Some("soon"), None, None)
                .unwrap_err()
                .starts_with("--since \"soon\" is not a time such as 10:42")
        );
    }
}
