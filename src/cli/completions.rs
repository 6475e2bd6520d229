//! `completions`: what a shell needs to complete command lines of countersign.

use clap::{Args, Command, ValueEnum};
use clap_complete::{Shell, generate};

use super::{
    exit::{Exit, Failure},
    output::lines,
};

const EXAMPLES: &str = "\
Examples:
  countersign completions bash > /etc/bash_completion.d/countersign
  countersign completions zsh > ~/.zfunc/_countersign
  countersign completions fish > ~/.config/fish/completions/countersign.fish

The Debian package brings all three. For zsh, ~/.zfunc has to be in $fpath before compinit runs.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Known,
}

/// The shells that the package serves. clap knows more; what nobody here tries is not offered.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Known {
    /// For bash 4 and newer
    Bash,
    /// For zsh
    Zsh,
    /// For fish
    Fish,
}

/// Prints the completion of the whole command line.
pub(super) fn run(arguments: &Arguments, mut whole: Command) -> Result<Exit, Failure> {
    let shell = match arguments.shell {
        Known::Bash => Shell::Bash,
        Known::Zsh => Shell::Zsh,
        Known::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut whole, "countersign", &mut script);
    lines(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
