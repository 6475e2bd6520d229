//! Exit codes and failures of commands.

use std::process::ExitCode;

use crate::config::Faults;

/// The exit codes: a contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Done = 0,
    /// The command was tried, but failed or was refused.
    Failed = 1,
    /// The command line or the configuration is wrong (`EX_USAGE` of sysexits.h).
    Usage = 64,
    /// A required service is unavailable (`EX_UNAVAILABLE`).
    Unavailable = 69,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(super) enum Failure {
    Configuration(Faults),
    Usage(String),
    Failed(anyhow::Error),
    Unavailable(anyhow::Error),
    /// Everything has been printed; this is the exit code. Also used when the reader of stdout goes away.
    Said(Exit),
}

impl Failure {
    /// The error behind it, for one that does not end the program.
    pub(super) fn cause(self) -> anyhow::Error {
        match self {
            Self::Failed(error) | Self::Unavailable(error) => error,
            Self::Usage(text) => anyhow::Error::msg(text),
            Self::Configuration(_) | Self::Said(_) => anyhow::anyhow!("see the lines above"),
        }
    }
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
