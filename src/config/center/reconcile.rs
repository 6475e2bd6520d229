//! The section `[reconcile]`.

use std::time::Duration;

use super::super::{read::Section, values::duration_within};
use crate::center::reconcile::Settings;

/// Published commands are kept for months, but nobody waits that long for a decision to become visible.
const LONGEST: Duration = Duration::from_secs(90 * 86_400);

const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

pub(in crate::config) fn reconcile(section: &mut Section<'_, '_, '_>) -> Option<Settings> {
    let after = span(section, "after");
    let every = section.required(
        "every",
        "\"off\", or \"10m\", \"1h\", at least \"1s\" and at most \"90d\"",
        |text| {
            if text == "off" {
                Ok(None)
            } else {
                duration_within(text, &(SHORTEST_PAUSE..=LONGEST)).map(Some)
            }
        },
    );
    let reach = span(section, "within");
    if let (Some(after), Some(reach)) = (after, reach)
        && reach <= after
    {
        section.fault(
            "within",
            "is no longer than reconcile.after, so no command would ever be compared",
            "a longer one",
        );
    }
    Some(Settings { after: after?, every: every?, within: reach? })
}

fn span(section: &mut Section<'_, '_, '_>, key: &'static str) -> Option<Duration> {
    section.required(key, "\"90s\", \"10m\", \"12h\", \"7d\", at most \"90d\"", |text| {
        duration_within(text, &(Duration::ZERO..=LONGEST))
    })
}
