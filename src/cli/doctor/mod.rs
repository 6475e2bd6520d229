//! `doctor`: checks every part that a decision passes through, and explains how to fix problems.

mod broker;
mod callback;
mod configuration;
mod ledger;
mod platform;
mod policies;
mod rabbitmqctl;
mod rotation;
mod service;

use clap::Args;
use serde_json::json;

use super::{
    block_on,
    center::check::CheckResult,
    exit::{Exit, Failure},
    output::{json, line},
    time::ZoneArguments,
};
use crate::{
    config::Loaded,
    time::{Timestamp, Zone},
};

const EXAMPLES: &str = "\
Examples:
  countersign doctor
  countersign doctor --public-url https://hook.example.com --definition 0F0E0D0C-…

Run it first when approvers see 提交失败. It changes nothing, and sends one callback to each endpoint, a
probe: countersign checks its token and key, decides nothing, keeps nothing, logs it at level info,
and counts it in countersign_probes_total alone. A probe with a wrong token or key is refused like
any callback. Definitions are those in approval_codes and those named here.

Prints a line for each check: ok, risky (it works and may surprise), wrong, or - (skipped).
Exits with 1 if one is wrong.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Scheme and host at which the approval center reaches countersign
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// A definition to check, by its real code; may be repeated
    #[arg(long, value_name = "CODE")]
    definition: Vec<String>,
    /// The broker's management API, to look for policies that drop messages; asked with user and password of amqp.url
    /// [default: port 15672 of a broker on this machine]
    #[arg(long, value_name = "URL")]
    management_url: Option<String>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    zone: ZoneArguments,
}

/// The results so far. Each line is printed as soon as it is known.
struct Results {
    as_json: bool,
    zone: Zone,
    wrong: u32,
    risky: u32,
}

impl Results {
    /// A time for display; in JSON always in UTC.
    fn at(&self, at: Timestamp) -> String {
        if self.as_json { at.to_string() } else { self.zone.show(at) }
    }

    fn add(&mut self, result: CheckResult, subject: &str, words: impl AsRef<str>) -> Result<(), Failure> {
        match result {
            CheckResult::Wrong => self.wrong += 1,
            CheckResult::Risky => self.risky += 1,
            CheckResult::Right | CheckResult::Skipped => {}
        }
        let (result, words) = (result.as_str(), words.as_ref());
        if self.as_json {
            json(&json!({ "verdict": result, "subject": subject, "words": words }))
        } else {
            line(format_args!("{result:<6} {subject}: {words}"))
        }
    }

    fn ok(&mut self, subject: &str, words: impl AsRef<str>) -> Result<(), Failure> {
        self.add(CheckResult::Right, subject, words)
    }

    fn risky(&mut self, subject: &str, words: impl AsRef<str>) -> Result<(), Failure> {
        self.add(CheckResult::Risky, subject, words)
    }

    fn wrong(&mut self, subject: &str, words: impl AsRef<str>) -> Result<(), Failure> {
        self.add(CheckResult::Wrong, subject, words)
    }

    fn skipped(&mut self, subject: &str, words: impl AsRef<str>) -> Result<(), Failure> {
        self.add(CheckResult::Skipped, subject, words)
    }
}

pub(super) fn run(arguments: &Arguments, loaded: &Loaded) -> Result<Exit, Failure> {
    let mut results = Results { as_json: arguments.json, zone: arguments.zone.zone()?, wrong: 0, risky: 0 };
    configuration::look(&mut results, loaded)?;
    block_on(async {
        ledger::look(&mut results, loaded).await?;
        rotation::look(&mut results, loaded).await?;
        service::look(&mut results, loaded).await?;
        broker::look(&mut results, arguments, loaded).await?;
        let urls = platform::look(&mut results, arguments, loaded).await?;
        callback::look(&mut results, arguments, loaded, &urls).await?;
        Ok(())
    })?;
    if !arguments.json {
        super::output::say(match (results.wrong, results.risky) {
            (0, 0) => "all is well".to_owned(),
            (wrong, risky) => format!("{wrong} wrong, {risky} risky"),
        });
    }
    Ok(if results.wrong == 0 { Exit::Done } else { Exit::Failed })
}

/// Quotes a text as one shell word, for commands to paste.
fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
