//! What is made from the command line: completions of shells, and manual pages.

use crate::support::Program;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

fn run(command: &mut Command) -> Output {
    let program = command.get_program().to_string_lossy().into_owned();
    command.output().unwrap_or_else(|error| panic!("{program} has to be installed for this test: {error}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The commands below this one, by its help.
async fn below(path: &[String]) -> Vec<String> {
    let args: Vec<_> = path.iter().map(String::as_str).chain(["--help"]).collect();
    let help = Program::new(args).run().await.ended_with(0).stdout;
    let list = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
    let list = list.split("\n\n").next().unwrap_or_default();
    // A command stands two blanks from the margin; what goes on in the next line stands further in.
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    names
        .filter_map(|line| line.split(' ').next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// Every command of the program with the words that lead to it.
async fn commands() -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut next = 0;
    while let Some(path) = all.get(next).cloned() {
        let inner = below(&path).await;
        all.extend(inner.into_iter().map(|name| [path.clone(), vec![name]].concat()));
        next += 1;
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn bash_completes_commands_flags_and_values() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("countersign.bash");
    let script = Program::new(["completions", "bash"]).run().await.ended_with(0).stdout;
    std::fs::write(&file, script).expect("it can be written");
    let checked = run(Command::new("bash").arg("-n").arg(&file));
    assert!(checked.status.success(), "{}", text(&checked.stderr));

    // What bash does at a tab: it looks up the function and calls it with command, word and previous word.
    let tab = r#"
        source "$1"; shift
        function=$(complete -p countersign | sed 's/.* -F \([^ ]*\) .*/\1/')
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        "$function" "${COMP_WORDS[0]}" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let completed = |words: &[&str]| {
        let done = run(Command::new("bash").args(["-c", tab, "bash"]).arg(&file).args(words));
        assert!(done.status.success() && done.stderr.is_empty(), "{words:?}: {}", text(&done.stderr));
        text(&done.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(completed(&["countersign", "led"]), ["ledger"]);
    assert_eq!(completed(&["countersign", "ledger", "re"]), ["requeue", "restore"]);
    assert_eq!(completed(&["countersign", "ledger", "list", "--st"]), ["--state"]);
    let states = completed(&["countersign", "ledger", "list", "--state", ""]);
    assert_eq!(states, ["pending", "published", "parked", "rejected", "unrouted"]);
    let top: BTreeSet<_> = completed(&["countersign", ""]).into_iter().collect();
    for command in commands().await.iter().filter(|path| path.len() == 1) {
        assert!(top.contains(&command[0]), "{command:?} is not completed: {top:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_shell_has_its_completion() {
    for (shell, words) in [
        ("bash", "complete -F _countersign"),
        ("zsh", "#compdef countersign"),
        ("fish", "complete -c countersign"),
    ] {
        let ran = Program::new(["completions", shell]).run().await.ended_with(0);
        assert!(ran.stdout.contains(words) && ran.stderr.is_empty(), "{shell}: {}", ran.stderr);
        assert!(ran.stdout.contains("requeue"), "{shell} does not know the inner commands");
    }
    Program::new(["completions", "tcsh"]).run().await.ended_with(64);
}

/// The page as a reader sees it, and what the formatter has to say of it.
fn formatted(page: &Path) -> (String, String) {
    let done = run(Command::new("groff")
        .args(["-man", "-ww", "-Tutf8", "-Kutf8", "-P-cbou", "-rLL=100n"])
        .arg(page));
    assert!(done.status.success(), "{}", page.display());
    (text(&done.stdout), text(&done.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_has_a_page_that_can_be_read() {
    let directory = tempfile::tempdir().expect("a directory");
    // It makes the directory.
    let pages = directory.path().join("man/man1");
    let args = ["man".into(), pages.clone().into_os_string()];
    let ran = Program::new(args).run().await.ended_with(0);
    assert!(ran.stdout.is_empty(), "{}", ran.stdout);

    let commands = commands().await;
    assert!(commands.len() > 50, "{commands:?}");
    let name = |path: &Vec<String>| [&["countersign".to_owned()][..], path].concat().join("-");
    let wanted: BTreeSet<_> = commands.iter().map(|path| format!("{}.1", name(path))).collect();
    let written = std::fs::read_dir(&pages).expect("it was made");
    let written: BTreeSet<_> =
        written.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(written, wanted);

    for path in &commands {
        let name = name(path);
        let (page, warnings) = formatted(&pages.join(format!("{name}.1")));
        assert_eq!(warnings, "", "{name}");
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "CONFIGURATION", "EXAMPLES"] {
            assert!(page.lines().any(|line| line == section), "{name} without {section}:\n{page}");
        }
        // Each example is on a line of its own, as it is in the help.
        let args: Vec<_> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let help = Program::new(args).run().await.ended_with(0).stdout;
        let examples = help.split("\n\n").filter(|paragraph| paragraph.starts_with("Examples"));
        for line in examples.flat_map(|paragraph| paragraph.lines().skip(1)) {
            assert!(
                page.lines().any(|shown| shown.trim() == line.trim()),
                "{name} without {line:?}:\n{page}"
            );
        }
    }

    let (page, _) = formatted(&pages.join("countersign-ledger.1"));
    assert!(page.contains("countersign-ledger-requeue(1)"), "{page}");
    assert!(page.contains("SEE ALSO"), "{page}");
    let foot: Vec<_> = page.lines().last().expect("a foot").split_whitespace().collect();
    let version = Program::new(["--version"]).run().await.stdout;
    assert_eq!(
        foot,
        [&*version.split_whitespace().collect::<Vec<_>>(), &["countersign-ledger(1)"]].concat(),
        "{page}"
    );
}
