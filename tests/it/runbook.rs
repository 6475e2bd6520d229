//! The documents quote what the program really says.

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
            // Long texts are continued with a backslash.
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            into.push_str(&lines.join("\n").replace("\\\n", ""));
        }
    }
}

/// Sentences in backticks: lines of the log. Keys, metrics and commands are single words or known.
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

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join("docs").join(name)).expect("there is one")
}

#[test]
fn every_line_of_the_log_that_the_documents_quote_is_one_that_the_program_writes() {
    let mut said = String::new();
    source(&Path::new(ROOT).join("src"), &mut said);
    for folder in ["", "zh-CN/"] {
        let operations = page(&format!("{folder}operations.md"));
        let (_, alerts) = operations.split_once("id=\"alerts\"").expect("the runbooks");
        for (section, at_least) in [(page(&format!("{folder}faults.md")).as_str(), 15), (alerts, 4)] {
            let quoted = quoted(section);
            assert!(quoted.len() >= at_least, "{folder}: the log is quoted: {quoted:?}");
            for words in quoted {
                assert!(
                    said.contains(words),
                    "{folder}: {words:?} is quoted, which the program does not say"
                );
            }
        }
    }
}

#[test]
fn every_alert_has_its_runbook_in_both_languages() {
    let alerts = fs::read_to_string(Path::new(ROOT).join("deploy/alerts.yaml")).expect("there is one");
    let names = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let names: Vec<String> = names.map(str::to_lowercase).collect();
    assert!(names.len() >= 30, "{names:?}");
    for name in ["operations.md", "zh-CN/operations.md"] {
        let page = page(name);
        let (_, runbooks) = page.split_once("id=\"alerts\"").expect("the runbooks");
        let described: Vec<&str> = runbooks
            .split("### <a id=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().expect("split yields at least one part"))
            .collect();
        assert_eq!(described, names, "{name} has them in the order of deploy/alerts.yaml");
    }
}

/// A runbook is read at night: its quotes match the log, and its commands exist.
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
            // Placeholders are in angle brackets. An appended `--help` prevents execution.
            let words = command.split(' ').map(|word| if word.starts_with('<') { "1" } else { word });
            let ran = Program::new(words.chain(["--help"])).run().await;
            assert_eq!(ran.code, Some(0), "{command:?}: {}", ran.stderr);
        }
    }
    assert!(quotes >= 3 && commands >= 10, "{quotes} quotes, {commands} commands");
}
