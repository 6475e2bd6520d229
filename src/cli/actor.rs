//! Who gave a command, and why.

use std::env;

use clap::Args;

use crate::ledger::{Actor, By, MAX_REASON_CHARS, Via};

/// For commands that change the ledger.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ReasonArguments {
    /// Why; kept with the act, which `countersign audit` shows. Up to 500 characters
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: Option<String>,
}

fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.chars().count() {
        0 => Err("is empty".to_owned()),
        1..=MAX_REASON_CHARS => Ok(text.to_owned()),
        count => Err(format!("has {count} characters; up to {MAX_REASON_CHARS} are kept")),
    }
}

impl ReasonArguments {
    /// By whom, and why.
    pub(super) fn by(&self) -> By {
        By { actor: actor(), reason: self.reason.clone() }
    }
}

/// Longest name kept. Linux knows none that is longer than 64 bytes; a variable of the environment may be anything.
const MAX_NAME_CHARS: usize = 128;

/// The user on this machine.
fn actor() -> Actor {
    let cut = |name: String| name.chars().take(MAX_NAME_CHARS).collect::<String>();
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    // A container may run as a user that its machine has no name for.
    let name = whoami::username().ok().filter(|name| !name.is_empty()).or_else(|| variable("USER"));
    let name = name.unwrap_or_else(|| format!("uid {}", rustix::process::geteuid().as_raw()));
    Actor {
        name: Some(cut(name)),
        sudo_user: variable("SUDO_USER").map(cut),
        host: Some(host()),
        ..Actor::unnamed(Via::Cli)
    }
}

/// An actor, for people.
pub(super) fn who(actor: &Actor) -> String {
    let name = actor.name.as_deref().unwrap_or("somebody");
    let sudo = actor.sudo_user.as_ref().map(|user| format!(" (sudo of {user})")).unwrap_or_default();
    let place = match (&actor.host, &actor.peer) {
        (Some(host), _) => format!("@{host}"),
        (None, Some(peer)) => format!(" from {peer}"),
        (None, None) => String::new(),
    };
    match actor.via {
        Via::Cli => format!("{name}{place}{sudo}"),
        Via::Api | Via::Console => format!("{} token {name}{place}", actor.via.as_str()),
        Via::Signal => format!("signal{place}"),
    }
}

/// The name of this machine.
pub(super) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_an_upper_bound() {
        assert_eq!(reason(" 队列 was deleted ").as_deref(), Ok("队列 was deleted"));
        assert_eq!(reason(&"列".repeat(500)).as_deref(), Ok(&*"列".repeat(500)));
        assert!(reason(&"x".repeat(501)).unwrap_err().contains("501 characters"));
        assert!(reason("  ").is_err());
    }

    #[test]
    fn somebody_is_named_in_any_case() {
        let actor = actor();
        assert!(actor.name.is_some_and(|name| !name.is_empty()) && actor.host.is_some());
        assert_eq!(actor.via, Via::Cli);
    }
}
