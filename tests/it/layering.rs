//! Who may import whom: the arrows of the map in the crate doc, read off the source.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Leaves that everybody may import.
const LEAVES: [&str; 6] = ["certificates", "loopback", "proxy", "secret", "telemetry", "time"];

/// What each module may import of ours, beside itself and the leaves.
const ARROWS: [(&str, &[&str]); 22] = [
    (
        "cli",
        &[
            "app",
            "approval_center",
            "callback",
            "command",
            "config",
            "context",
            "emulator",
            "enrichment",
            "http",
            "intake",
            "ledger",
            "outcome",
            "reconcile",
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
    ("outcome", &["approval_center", "command", "ledger", "relay"]),
    ("enrichment", &["approval_center", "command", "ledger", "relay"]),
    ("reconcile", &["approval_center", "command", "ledger"]),
    ("command", &[]),
    ("approval_center", &[]),
    // Built from the reference, not from the client: so not from approval_center.
    ("emulator", &["callback"]),
    // The settings of the modules, and nothing that works.
    (
        "config",
        &[
            "approval_center",
            "callback",
            "command",
            "console",
            "context",
            "enrichment",
            "http",
            "intake",
            "ledger",
            "outcome",
            "reconcile",
            "relay",
        ],
    ),
    ("certificates", &[]),
    ("loopback", &[]),
    ("proxy", &[]),
    ("secret", &[]),
    ("telemetry", &[]),
    ("time", &[]),
];

/// The modules of ours that a source file names after `crate::`, tests and comments left out.
fn imports(source: &str) -> BTreeSet<String> {
    let code: String = source
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default()
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => drop(found.insert(name(rest))),
            Some(group) => {
                let (mut depth, mut fresh) = (1, true);
                for (at, char) in group.char_indices() {
                    match char {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' => fresh = true,
                        _ if fresh && depth == 1 && char.is_alphabetic() => {
                            found.insert(name(&group[at..]));
                            fresh = false;
                        }
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
        }
    }
    found.retain(|name| ARROWS.iter().any(|(module, _)| module == name));
    found
}

fn name(text: &str) -> String {
    text.chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the source is there");
    entries.map(|entry| entry.expect("the source is readable").path()).collect()
}

fn stem(path: &Path) -> &str {
    path.file_stem().and_then(|stem| stem.to_str()).expect("files of ours have plain names")
}

fn collect(path: &Path, module: &str, into: &mut BTreeMap<String, BTreeSet<String>>) {
    if path.is_dir() {
        for path in entries(path) {
            if stem(&path) != "tests" {
                collect(&path, module, into);
            }
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        let found = imports(&fs::read_to_string(path).expect("a source file is readable"));
        into.entry(module.to_owned()).or_default().extend(found);
    }
}

#[test]
fn modules_import_only_along_the_arrows() {
    let mut found = BTreeMap::new();
    for path in entries(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))) {
        let module = stem(&path).to_owned();
        if module != "lib" && module != "main" {
            collect(&path, &module, &mut found);
        }
    }
    let known: BTreeSet<_> = ARROWS.iter().map(|(module, _)| (*module).to_owned()).collect();
    let there: BTreeSet<_> = found.keys().cloned().collect();
    assert_eq!(there, known, "every module has a row in ARROWS, and every row a module");
    for (module, allowed) in ARROWS {
        for import in &found[module] {
            let fine = import == module || LEAVES.contains(&&**import) || allowed.contains(&&**import);
            assert!(fine, "{module} imports {import}, which its arrows do not allow");
        }
    }
}

/// All source files of the program but its tests, with their text up to the tests in them.
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
    sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut all);
    all
}

/// What is printed is tame because there is one way to a terminal on the command line, and one into the log.
#[test]
fn nothing_is_printed_but_by_the_two_places_that_tame_it() {
    let mut found: Vec<String> = Vec::new();
    for (path, code) in all_sources() {
        // clap's question whether a text is an error.
        let code = code.replace("use_stderr()", "");
        if ["stdout()", "stderr()", "/dev/tty"].iter().any(|way| code.contains(way)) {
            found
                .push(path.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("below it").display().to_string());
        }
    }
    found.sort();
    assert_eq!(found, ["src/cli/output.rs", "src/telemetry/log.rs", "src/telemetry/log/journal.rs"]);
}

/// `{:?}` writes names of types and variants. In the text of an error only durations may be written so.
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

/// The same of the fields of a log line, in which `?` stands for `{:?}`.
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

/// serde says `expected struct Name` unless it is told otherwise, and that is read by whoever wrote a file or a report.
#[test]
fn no_reader_of_what_others_wrote_says_the_name_of_a_struct() {
    for (path, code) in all_sources() {
        let path = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("below it").display().to_string();
        if !path.starts_with("src/approval_center/") && path != "src/command/outcome.rs" {
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

#[test]
fn imports_are_found_however_they_are_written() {
    let source = "use crate::{\n    command::{Command, id::Seq},\n    ledger::Ledger,\n};\nfn f() -> crate::relay::Report {}\n// crate::http\n";
    let found: Vec<_> = imports(source).into_iter().collect();
    assert_eq!(found, ["command", "ledger", "relay"]);
}

/// A library's time shows itself with as many digits as it pleases, and takes a precision from whoever prints it.
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
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let mut found = Vec::new();
    for path in entries(source).iter().filter(|path| stem(path) != "time") {
        look(path, &mut found);
    }
    assert!(found.is_empty(), "dates are the business of src/time:\n{}", found.join("\n"));
}
