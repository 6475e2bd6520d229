//! What the README tells an operator to look for is what the program says.

use std::{fs, path::Path};

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
        let is_command =
            ["countersign ", "systemctl ", "sqlite3 "].iter().any(|command| piece.starts_with(command));
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
