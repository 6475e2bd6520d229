//! The structure of the source: permitted imports, and the single places for printing and for formatting times.

mod glossary;
mod imports;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use imports::Module;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

/// Leaves that everybody may import.
const LEAVES: [&str; 8] =
    ["backoff", "certificates", "loopback", "proxy", "secret", "stop", "telemetry", "time"];

/// The rooms, and what each may import of ours, in addition to itself and the leaves.
const ROOMS: [(&str, &[&str]); 28] = [
    (
        "cli",
        &[
            "amqp",
            "app",
            "callback",
            "center::client",
            "center::enrichment",
            "center::outcomes",
            "center::reconcile",
            "command",
            "config",
            "context",
            "emulator",
            "feedback",
            "http",
            "intake",
            "ledger",
            "relay",
        ],
    ),
    ("app", &["command", "console", "http", "intake", "ledger", "relay"]),
    ("http", &["command", "intake"]),
    ("console", &["command", "ledger"]),
    ("intake", &["callback", "command", "context", "ledger"]),
    ("callback", &["command"]),
    ("context", &["callback", "command"]),
    ("ledger", &["command"]),
    ("relay", &["command", "ledger"]),
    ("amqp", &["command", "ledger", "relay"]),
    ("center", &[]),
    ("center::client", &[]),
    ("center::enrichment", &["center::client", "command", "ledger", "relay"]),
    ("center::outcomes", &["center::client", "command", "ledger"]),
    ("center::reconcile", &["center::client", "command", "ledger"]),
    ("command", &[]),
    // A report's instance is checked in the center's types; nothing is asked there.
    ("feedback", &["amqp", "center::client", "command", "ledger", "relay"]),
    // Built from the reference and not from the client, so not from center.
    ("emulator", &["callback"]),
    // Only the settings of the rooms.
    (
        "config",
        &[
            "amqp",
            "callback",
            "center::client",
            "center::enrichment",
            "center::outcomes",
            "center::reconcile",
            "command",
            "console",
            "context",
            "feedback",
            "http",
            "intake",
            "ledger",
            "relay",
        ],
    ),
    ("backoff", &[]),
    ("certificates", &[]),
    ("loopback", &[]),
    ("proxy", &[]),
    ("secret", &[]),
    ("stop", &[]),
    ("telemetry", &[]),
    ("time", &[]),
    // The roots of the crate and of the program.
    ("", &[]),
];

/// The innermost room that contains a module.
fn room(module: &Module) -> String {
    let path = module.join("::");
    let is_in = |room: &str| path == room || path.starts_with(&format!("{room}::"));
    let rooms = ROOMS.iter().map(|(room, _)| *room).filter(|room| room.is_empty() || is_in(room));
    rooms.max_by_key(|room| room.len()).unwrap_or_default().to_owned()
}

#[test]
fn rooms_import_only_along_the_arrows() {
    let graph = imports::graph(Path::new(SOURCE));
    let empty: Vec<_> =
        ROOMS.iter().filter(|(name, _)| !graph.keys().any(|module| room(module) == *name)).collect();
    assert!(empty.is_empty(), "rooms without a module: {empty:?}");
    for (module, imports) in &graph {
        let own = room(module);
        let (_, allowed) = ROOMS.iter().find(|(room, _)| *room == own).expect("it was found there");
        assert!(module.is_empty() || !own.is_empty(), "{} is in no room", module.join("::"));
        for import in imports {
            let other = room(import);
            let fine = other == own || LEAVES.contains(&&*other) || allowed.contains(&&*other);
            assert!(fine, "{} imports {}", module.join("::"), import.join("::"));
        }
    }
}

/// A file may use definitions of the `mod.rs` above it. All other imports are acyclic, so that a file can be read
/// after those that it imports.
#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut graph = imports::graph(Path::new(SOURCE));
    for (module, imports) in &mut graph {
        imports.retain(|import| !module.starts_with(import));
    }
    // Modules without imports or without importers are not in a circle.
    loop {
        let done: BTreeSet<Module> = graph
            .iter()
            .filter(|(_, imports)| imports.is_empty())
            .map(|(module, _)| module.clone())
            .collect();
        if done.is_empty() {
            break;
        }
        graph.retain(|module, _| !done.contains(module));
        graph.values_mut().for_each(|imports| imports.retain(|import| !done.contains(import)));
    }
    loop {
        let imported: BTreeSet<Module> = graph.values().flatten().cloned().collect();
        let before = graph.len();
        graph.retain(|module, _| imported.contains(module));
        if graph.len() == before {
            break;
        }
    }
    let left: Vec<_> = graph
        .iter()
        .map(|(module, imports)| {
            let imports: Vec<_> = imports.iter().map(|import| import.join("::")).collect();
            format!("{} imports {}", module.join("::"), imports.join(", "))
        })
        .collect();
    assert!(left.is_empty(), "a circle:\n{}", left.join("\n"));
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the source is there");
    entries.map(|entry| entry.expect("the source is readable").path()).collect()
}

fn stem(path: &Path) -> &str {
    path.file_stem().and_then(|stem| stem.to_str()).expect("files of ours have plain names")
}

/// All source files of the program except its tests, each up to its test module.
fn sources(path: &Path, into: &mut Vec<(PathBuf, String)>) {
    if path.is_dir() {
        entries(path).iter().filter(|path| stem(path) != "tests").for_each(|path| sources(path, into));
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        let text = fs::read_to_string(path).expect("a source file is readable");
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        into.push((path.to_owned(), code.to_owned()));
    }
}

fn all_sources() -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    sources(Path::new(SOURCE), &mut all);
    all
}

/// All output is sanitised, because there is one way to the terminal on the command line, and one into the log.
#[test]
fn nothing_is_printed_but_by_the_two_places_that_tame_it() {
    let mut found: Vec<String> = Vec::new();
    for (path, code) in all_sources() {
        // clap's method that says whether a text is an error.
        let code = code.replace("use_stderr()", "");
        if ["stdout()", "stderr()", "/dev/tty"].iter().any(|way| code.contains(way)) {
            found
                .push(path.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("below it").display().to_string());
        }
    }
    found.sort();
    assert_eq!(found, ["src/cli/output.rs", "src/telemetry/log.rs", "src/telemetry/log/journal.rs"]);
}

/// `{:?}` writes names of types and variants. In error texts, only durations may use it.
#[test]
fn no_error_says_the_name_of_a_type() {
    let durations = ["{limit:?}", "{wait:?}"];
    for (path, code) in all_sources() {
        for error in code.split("#[error(").skip(1) {
            let mut text = error.split(")]").next().unwrap_or_default().to_owned();
            durations.iter().for_each(|duration| text = text.replace(duration, ""));
            assert!(!text.contains(":?}"), "{}: {text}", path.display());
        }
    }
}

/// The same for fields of log lines, in which `?` means `{:?}`.
#[test]
fn no_field_of_the_log_is_the_name_of_a_type_or_variant() {
    const DURATIONS: [&str; 7] =
        ["took = ?", "waited = ?", "after = ?", "timeout = ?", "?grace", "?pause", "?wait"];
    const LEVELS: [&str; 5] = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];
    let mut fields = 0;
    for (path, code) in all_sources() {
        for start in
            LEVELS.iter().flat_map(|level| code.match_indices(level).map(|(at, level)| at + level.len()))
        {
            let event = code[start..].split(");").next().unwrap_or_default();
            fields += event.matches(" = ").count();
            let mut event = event.to_owned();
            DURATIONS.iter().for_each(|duration| event = event.replace(duration, ""));
            let debugged =
                ["= ?", ", ?", "\n?", " ?"].iter().any(|mark| event.contains(mark)) || event.starts_with('?');
            assert!(!debugged && !event.contains(":?}"), "{}: {event}", path.display());
        }
    }
    assert!(fields > 50, "events are found: {fields}");
}

/// By default serde says `expected struct Name`, which users read after a mistake in a file or a report.
#[test]
fn no_reader_of_what_others_wrote_says_the_name_of_a_struct() {
    for (path, code) in all_sources() {
        let path = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("below it").display().to_string();
        if !path.starts_with("src/center/client/") && path != "src/command/outcome.rs" {
            continue;
        }
        for item in code.split("\n#[derive(").skip(1) {
            let head = item.split('{').next().unwrap_or_default();
            let read = head.lines().next().is_some_and(|derive| derive.contains("Deserialize"));
            if read && head.contains("struct ") && !head.contains("transparent") && !head.contains(';') {
                assert!(head.contains("expecting = "), "{path}: {head}");
            }
        }
    }
}

/// A library's time has an arbitrary number of digits, and accepts a precision from the caller.
#[test]
fn no_time_is_shown_but_by_the_one_formatter() {
    fn look(path: &Path, found: &mut Vec<String>) {
        if path.is_dir() {
            return entries(path).iter().for_each(|path| look(path, found));
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            return;
        }
        let source = fs::read_to_string(path).expect("a source file is readable");
        for (number, line) in source.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for way_round in [
                "jiff",
                "chrono::",
                "httpdate",
                "humantime",
                "strftime",
                "FormatTime for SystemTime",
                "SystemTime as FormatTime",
            ] {
                if code.contains(way_round) {
                    found.push(format!("{}:{}: {way_round}", path.display(), number + 1));
                }
            }
        }
    }
    let mut found = Vec::new();
    for path in entries(Path::new(SOURCE)).iter().filter(|path| stem(path) != "time") {
        look(path, &mut found);
    }
    assert!(found.is_empty(), "dates are the business of src/time:\n{}", found.join("\n"));
}
