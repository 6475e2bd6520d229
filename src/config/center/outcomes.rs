//! `[endpoints.outcomes]`: what workers may report about the endpoint's commands.

use super::super::{read::Section, values::not_empty};
use crate::feedback::{Pattern, Rules};

/// `codes` are the endpoint's, which also apply to reports.
pub(in crate::config) fn rules(section: &mut Section<'_, '_, '_>, codes: &[String]) -> Option<Rules> {
    let listed = section.texts("approval_codes", "a list of codes", not_empty);
    let pattern = section.parsed("instance_pattern", "a regular expression for the whole id", |text| {
        not_empty(text)?;
        Pattern::parse(text).map_err(|error| format!("is not a regular expression: {error}"))
    });
    let hosts = section.texts("link_hosts", "a list such as [\"erp.example.com\", \"*.example.com\"]", host);
    let instances = pattern?;
    let mut approval_codes = listed?;
    approval_codes
        .extend(codes.iter().filter(|code| !approval_codes.contains(code)).cloned().collect::<Vec<_>>());
    if instances.is_some() && approval_codes.is_empty() {
        section.fault(
            "instance_pattern",
            "permits instances that no command names, without saying of which definitions",
            "outcomes.approval_codes, or approval_codes of the endpoint",
        );
        return None;
    }
    Some(Rules { approval_codes, instances, link_hosts: hosts? })
}

fn host(text: &str) -> Result<(), String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    if name.is_empty() {
        Err("is empty".to_owned())
    } else if name.contains(['/', ':', '@', '*', '?', '#']) || name.contains(char::is_whitespace) {
        Err("is not a host; leave out scheme, port and path".to_owned())
    } else {
        Ok(())
    }
}
