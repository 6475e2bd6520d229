//! `man`: the manual pages, one for each command.

use std::{fs, path::PathBuf};

use anyhow::Context;
use clap::{Args, Command, builder::Resettable};
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

use super::{
    exit::{Exit, Failure},
    output::{counted, say},
};

const EXAMPLES: &str = "\
Examples:
  countersign man /usr/local/share/man/man1
  countersign man pages && man pages/countersign-serve.1

The directory is made if it is not there; pages in it are replaced. The Debian package brings them.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Where the pages go: countersign.1, countersign-serve.1, countersign-ledger-list.1, …
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Writes the pages of the whole command line.
pub(super) fn run(arguments: &Arguments, whole: Command) -> Result<Exit, Failure> {
    let directory = &arguments.directory;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make the directory {}", directory.display()))?;
    // `help` is a command to clap, and would have a page for each page.
    let mut whole = whole.disable_help_subcommand(true);
    whole.build();
    let mut pages = Vec::new();
    collect(&whole, &whole, &mut pages);
    for (name, page) in &pages {
        let path = directory.join(name);
        fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    say(format_args!("{} in {}", counted(pages.len() as u64, "page"), directory.display()));
    Ok(Exit::Done)
}

/// The page of a command, and those below it, with the names of their files.
fn collect(command: &Command, whole: &Command, pages: &mut Vec<(String, Vec<u8>)>) {
    let version = whole.get_version().unwrap_or_default();
    // clap_mangen would flow the text after the help into one paragraph, examples included.
    let man = Man::new(command.clone().after_help(Resettable::Reset))
        // None: a date would differ between two builds of one commit. Quoted, or the next argument would be the date.
        .date("\"\"")
        .source(format!("countersign {version}"))
        .manual("countersign");
    let mut page = Vec::new();
    man.render(&mut page).expect("a vector takes everything");
    let mut more = Roff::new();
    if let Some(text) = command.get_after_help() {
        sections(&text.to_string(), &mut more);
    }
    if command.get_name() != whole.get_name() {
        more.control("SH", ["SEE ALSO"]).text([roman(format!("{}(1)", whole.get_name()))]);
    }
    more.to_writer(&mut page).expect("a vector takes everything");
    pages.push((man.get_filename(), page));
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        collect(inner, whole, pages);
    }
}

/// The text after the help: examples in a section of their own, as they are; the rest as notes.
fn sections(text: &str, into: &mut Roff) {
    let (examples, notes): (Vec<_>, Vec<_>) =
        text.split("\n\n").partition(|paragraph| paragraph.starts_with("Examples"));
    if !examples.is_empty() {
        into.control("SH", ["EXAMPLES"]);
    }
    for paragraph in examples {
        paragraphs(paragraph.strip_prefix("Examples:\n").unwrap_or(paragraph), into);
    }
    if !notes.is_empty() {
        into.control("SH", ["NOTES"]);
    }
    for (number, paragraph) in notes.into_iter().enumerate() {
        if number > 0 {
            into.control("PP", []);
        }
        paragraphs(paragraph, into);
    }
}

/// Prose is flowed; indented lines, which are commands and tables, stay as they are.
fn paragraphs(text: &str, into: &mut Roff) {
    let mut is_verbatim = false;
    for line in text.lines() {
        if line.starts_with(' ') != is_verbatim {
            is_verbatim = !is_verbatim;
            into.control(if is_verbatim { "nf" } else { "fi" }, []);
        }
        into.text([roman(line)]);
    }
    if is_verbatim {
        into.control("fi", []);
    }
}
