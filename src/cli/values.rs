//! Flag values shared by several commands.

use std::time::Duration;

use crate::{
    command::{CommandId, id::CommandRef},
    config::parse_duration,
};

pub(super) fn command_ref(text: &str) -> Result<CommandRef, String> {
    CommandRef::parse(text).ok_or_else(|| {
        "neither a command_id, which is a UUID, nor a place in the log, which is a number".to_owned()
    })
}

/// The id of a card message.
pub(super) fn card(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(text.to_owned())
    } else if CommandId::parse(text).is_some() {
        Err("is a command_id; use `countersign ledger show`".to_owned())
    } else {
        Err("not the id of a card's message, which is a number".to_owned())
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "not a duration such as 90s, 30m, 12h or 7d".to_owned())
}
