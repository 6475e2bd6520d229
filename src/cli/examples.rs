//! The examples in the help: every command has some, and each is a command line that the program takes.

use clap::{Command, CommandFactory, Parser};

use unicode_width::UnicodeWidthStr;

use super::Arguments;

/// Where the help is broken into lines, on the widest terminal.
const WIDTH: usize = 100;

/// The lines below `Examples`, with those joined that a shell reads as one.
fn examples(help: &str) -> Vec<String> {
    let mut whole: Vec<String> = Vec::new();
    for paragraph in help.split("\n\n").filter(|paragraph| paragraph.starts_with("Examples")) {
        let mut goes_on = false;
        for line in paragraph.lines().skip(1) {
            let ends = line.strip_suffix('\\').unwrap_or(line);
            match whole.last_mut() {
                Some(last) if goes_on => *last = format!("{} {}", last.trim_end(), ends.trim_start()),
                _ => whole.push(ends.trim_start().to_owned()),
            }
            goes_on = line.ends_with(['\\', '|']);
        }
    }
    whole
}

/// The command lines of countersign in an example. What stands two blanks behind one explains it.
fn invocations(example: &str) -> Vec<Vec<String>> {
    let command = example.split_once("  ").map_or(example, |(command, _)| command);
    let words = shlex::split(command).unwrap_or_else(|| panic!("a shell does not take {command:?}"));
    let parts = words.split(|word| ["|", "&&"].contains(&&**word));
    let parts = parts.map(|part| part.split(|word| [">", "<"].contains(&&**word)).next().unwrap_or_default());
    parts.filter(|part| part.first().is_some_and(|word| word == "countersign")).map(<[_]>::to_vec).collect()
}

/// What is wrong with the examples of a command and of those below it.
fn faults(command: &Command, path: &[String], into: &mut Vec<String>) {
    let path = [path, &[command.get_name().to_owned()]].concat();
    let name = path.join(" ");
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    // clap would break the line, and what is pasted would be half of it.
    let broken = help.lines().filter(|line| line.starts_with("  ") && line.width() > WIDTH);
    into.extend(broken.map(|line| format!("{name} --help: wider than {WIDTH}: {line}")));
    let all: Vec<_> = examples(&help).iter().flat_map(|example| invocations(example)).collect();
    if !all.iter().any(|words| words.starts_with(&path)) {
        into.push(format!("{name} --help has no example of {name}"));
    }
    for words in all {
        if let Err(error) = Arguments::try_parse_from(&words) {
            into.push(format!("{name} --help: {}: {error}", words.join(" ")));
        }
    }
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        faults(inner, &path, into);
    }
}

#[test]
fn every_command_has_an_example_and_the_program_takes_it() {
    let mut found = Vec::new();
    faults(&Arguments::command(), &[], &mut found);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn examples_are_read_as_a_shell_reads_them() {
    let help = "Examples:\n  a | countersign x 'y z' > f    words\n  echo '1' |\n    countersign b\n  countersign c \\\n      d\n\nNot this:\n  countersign e";
    let found: Vec<_> = examples(help).iter().flat_map(|example| invocations(example)).collect();
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(found[0], ["countersign", "x", "y z"]);
    assert_eq!(found[1..], [["countersign", "b"].to_vec(), ["countersign", "c", "d"].to_vec()]);
}
