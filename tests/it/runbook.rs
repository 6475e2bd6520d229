//! What the README tells an operator to look for is what the program says.

use std::{fs, path::Path};

use crate::support::Program;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn source(directory: &Path, into: &mut String) {
    for entry in fs::read_dir(directory).expect("the source is there") {
        let path = entry.expect("the source is readable").path();
        if path.is_dir() {
            source(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(path).expect("a source file is readable");
            // Long texts are broken with a backslash.
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            into.push_str(&lines.join("\n").replace("\\\n", ""));
        }
    }
}

/// What stands in backticks and is a sentence: lines of the log. Keys, metrics and commands are single words or known.
fn quoted(section: &str) -> Vec<&str> {
    let pieces = section.split('`').skip(1).step_by(2);
    let words = pieces.filter(|piece| {
        let is_command = ["countersign ", "rabbitmqctl ", "systemctl ", "sqlite3 "]
            .iter()
            .any(|command| piece.starts_with(command));
        piece.split(' ').count() > 2 && !is_command && !piece.contains(['=', '{', '/'])
    });
    words.map(|piece| piece.trim_end_matches(['…', ' ', ':'])).collect()
}

#[test]
fn every_line_of_the_log_that_the_readme_quotes_is_one_that_the_program_writes() {
    let mut said = String::new();
    source(&Path::new(ROOT).join("src"), &mut said);
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).expect("there is one");
    let (_, section) = readme.split_once("### When something fails").expect("the table of faults");
    let section = section.split("\n## ").next().expect("split yields at least one part");
    let quoted = quoted(section);
    assert!(quoted.len() >= 15, "the table quotes the log: {quoted:?}");
    for words in quoted {
        assert!(said.contains(words), "the README quotes {words:?}, which the program does not say");
    }
}

/// A runbook is read at night: what it quotes of the log is what the log says, and what it tells to run is there.
#[tokio::test]
async fn every_alert_quotes_the_log_and_names_commands_as_they_are() {
    let mut said = String::new();
    source(&Path::new(ROOT).join("src"), &mut said);
    let alerts = fs::read_to_string(Path::new(ROOT).join("deploy/alerts.yaml")).expect("there is one");
    let runbooks: Vec<&str> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("runbook: ")).collect();
    assert!(runbooks.len() >= 30, "{runbooks:?}");
    let (mut quotes, mut commands) = (0, 0);
    for runbook in runbooks {
        for words in quoted(runbook) {
            quotes += 1;
            assert!(said.contains(words), "{runbook} quotes {words:?}, which the program does not say");
        }
        for piece in runbook.split('`').skip(1).step_by(2) {
            let Some(command) = piece.strip_prefix("countersign ") else { continue };
            commands += 1;
            let (words, options): (Vec<&str>, Vec<&str>) = command
                .split(' ')
                .filter(|word| !word.starts_with('<'))
                .partition(|word| !word.starts_with("--"));
            // What follows an option is its value.
            let words = words.into_iter().take_while(|word| !matches!(*word, "parked" | "pending"));
            let help = Program::new(words.chain(["--help"])).run().await.ended_with(0);
            for option in options {
                assert!(help.stdout.contains(option), "{command:?}: there is no {option}: {}", help.stdout);
            }
        }
    }
    assert!(quotes >= 3 && commands >= 10, "{quotes} quotes, {commands} commands");
}
