//! `init`: a configuration to start from, its secrets, and what the approval center has to be told.

mod answers;
mod files;
mod phrases;
mod wire;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{
    exit::{Exit, Failure},
    output::{is_seen, lines, say, say_lines},
};
use answers::{AnswerArguments, Answers};
use files::Plan;
use phrases::Lang;

const EXAMPLES: &str = "\
Examples:
  countersign init                                                asks for all it needs
  countersign init --public-url https://hook.example.com          takes the defaults for the rest
  countersign init ~/countersign --lang zh
  countersign init --public-url https://hook.example.com --endpoint leave --context jwt \\
      --broker amqps://broker.example.com --ledger postgres://countersign@db1/approvals
  countersign init --public-url https://hook.example.com --show-secrets | jq -s '.[0].external'

Writes countersign.toml, and in secrets/ (mode 0700) a file (mode 0600) for each secret. Prints three JSON
documents: the definition (POST external_approvals), what belongs into each task, and what belongs
into each card. Token and key are in them on a terminal or with --show-secrets; else their files are
named. Everybody on the machine can see a command line: URLs with a password are better given at the
prompt, or in COUNTERSIGN_AMQP_URL.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Where to write; made if it is not there
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    #[command(flatten)]
    answers: AnswerArguments,
    /// Replace countersign.toml, and keep the one before as countersign.toml.old. Secrets that are there stay: the
    /// approval center knows them
    #[arg(long)]
    force: bool,
    /// Print token and key also where stdout is not a terminal
    #[arg(long)]
    show_secrets: bool,
    /// The language of the words, here and in the file [default: zh if LC_ALL, LC_MESSAGES or LANG says so, else en]
    #[arg(long, value_name = "LANG")]
    lang: Option<Lang>,
}

/// How the `action_context` says which task is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A JSON object with instance, task and round
    Json,
    /// A token that your system signs: nobody else can have made it
    Jwt,
    /// A key that your system registers beforehand
    Registry,
    /// A text taken apart by a regular expression
    Pattern,
    /// Passed on as it is
    Opaque,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let lang = arguments.lang.unwrap_or_else(Lang::of_environment);
    let phrases = lang.phrases();
    let directory = std::path::absolute(&arguments.directory)
        .map_err(|error| Failure::Usage(format!("{}: {error}", arguments.directory.display())))?;
    // Before anything is asked: answers to nothing are a nuisance.
    files::refuse_to_replace(&directory, arguments.force, phrases)?;
    let answers = Answers::settle(&arguments.answers, &directory, phrases)?;
    let plan = Plan::new(&directory, &answers, lang)?;
    let written = plan.write()?;

    for line in written.told(phrases) {
        say(line);
    }
    let shown = is_seen() || arguments.show_secrets;
    for (title, document) in wire::documents(&answers, &written, shown, phrases) {
        say("");
        say(title);
        lines(&document)?;
    }
    if !shown {
        say(phrases.hidden);
    }
    let next =
        phrases.next_steps(&written.configuration, &answers.endpoint, &answers.public_url, answers.context);
    say_lines(&next);
    Ok(Exit::Done)
}
