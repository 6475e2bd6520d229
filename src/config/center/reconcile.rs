//! The section `[reconcile]`.

use std::time::Duration;

use super::super::{read::Section, values::parse_duration};
use crate::center::reconcile::Settings;

/// Published commands are kept for months; nobody waits that long for a decision to become visible.
const LONGEST: Duration = Duration::from_secs(90 * 86_400);

const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

pub(in crate::config) fn reconcile(section: &mut Section<'_, '_, '_>) -> Option<Settings> {
    let after = span(section, "after", Duration::ZERO);
    let every = section.required(
        "every",
        "\"off\", or \"10m\", \"1h\", at least \"1s\" and at most \"90d\"",
        |text| {
            if text == "off" { Ok(None) } else { within(text, SHORTEST_PAUSE).map(Some) }
        },
    );
    let reach = span(section, "within", Duration::ZERO);
    if let (Some(after), Some(reach)) = (after, reach)
        && reach <= after
    {
        section.fault(
            "within",
            "is no longer than reconcile.after, so no command would ever be asked for",
            "a longer one",
        );
    }
    Some(Settings { after: after?, every: every?, within: reach? })
}

fn span(section: &mut Section<'_, '_, '_>, key: &'static str, shortest: Duration) -> Option<Duration> {
    section.required(key, "\"90s\", \"10m\", \"12h\", \"7d\", at most \"90d\"", |text| within(text, shortest))
}

fn within(text: &str, shortest: Duration) -> Result<Duration, String> {
    match parse_duration(text) {
        None => Err("is not a duration".to_owned()),
        Some(span) if (shortest..=LONGEST).contains(&span) => Ok(span),
        Some(_) => Err("is out of range".to_owned()),
    }
}
