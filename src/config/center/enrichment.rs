//! `[endpoints.enrichment]`: off unless `fields` is non-empty.

use std::{ops::RangeInclusive, time::Duration};

use super::super::{read::Section, values::duration_within};
use crate::center::enrichment::Settings;

/// A command should not be delayed longer than a person would wait for an answer.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(10);

const FIELDS: [&str; 3] = ["operator", "task", "instance"];

/// `None` if faulty, `Some(None)` if off.
pub(in crate::config) fn enrichment(section: &mut Section<'_, '_, '_>) -> Option<Option<Settings>> {
    let fields = section.texts("fields", "a list of operator, task and instance", |field| {
        if FIELDS.contains(&field) { Ok(()) } else { Err("cannot be completed".to_owned()) }
    });
    let timeout =
        section.required("timeout", "\"500ms\", \"2s\", at least \"10ms\" and at most \"10s\"", |text| {
            duration_within(text, &TIMEOUTS)
        });
    let (fields, timeout) = (fields?, timeout?);
    let has = |field: &str| fields.iter().any(|given| given == field);
    let [operator, task, instance] = FIELDS.map(has);
    Some((!fields.is_empty()).then_some(Settings { operator, task, instance, timeout }))
}
