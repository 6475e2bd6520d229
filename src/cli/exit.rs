//! How a command ends.

use std::process::ExitCode;

use crate::config::Faults;

/// The exit codes: a contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// It was tried, and failed or was refused.
    Failed = 1,
    /// The command line or the configuration is wrong (`EX_USAGE` of sysexits.h).
    Usage = 64,
    /// A service that is needed is away (`EX_UNAVAILABLE`).
    Unavailable = 69,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(super) enum Failure {
    /// The configuration is wrong.
    Configuration(Faults),
    /// The command line is wrong.
    Usage(String),
    /// It failed.
    Failed(anyhow::Error),
    /// A service is away.
    Unavailable(anyhow::Error),
    /// All was said already; this is the code. A reader of stdout that went away ends a command so, too.
    Said(Exit),
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::Configuration(faults)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_codes_are_those_of_the_contract() {
        let codes = [Exit::Done, Exit::Failed, Exit::Usage, Exit::Unavailable].map(|exit| exit as u8);
        assert_eq!(codes, [0, 1, 64, 69]);
    }
}
