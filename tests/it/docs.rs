//! The documents: their commands are run, their configurations checked, their links followed, and the Chinese pages
//! are compared with the English ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use toml::{Table, Value};

use crate::support::{Authority, Pair, Program};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Languages whose blocks are not checked: program output, diagrams, and a language without a tool here.
const SHOWN: [&str; 3] = ["text", "mermaid", "csharp"];

/// The words after all other languages, which say how a block is checked.
const USED: [(&str, &[&str]); 5] = [
    ("sh", &["run", "parse"]),
    ("toml", &["file", "part"]),
    ("json", &["value"]),
    ("yaml", &["value"]),
    ("sql", &["query"]),
];

struct Block {
    page: String,
    line: usize,
    /// For example `sh run`.
    word: String,
    text: String,
}

#[derive(Debug, PartialEq)]
struct Heading {
    level: HeadingLevel,
    anchors: Vec<String>,
}

struct Page {
    name: String,
    source: String,
    blocks: Vec<Block>,
    headings: Vec<Heading>,
    /// Line and target of each link.
    links: Vec<(usize, String)>,
    /// Texts in backticks.
    words: Vec<String>,
}

/// The anchor that GitHub gives a heading.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' '));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The value of `id` in `<a id="...">`.
fn explicit_anchor(html: &str) -> Option<String> {
    let (_, rest) = html.split_once("<a id=\"")?;
    Some(rest.split('"').next()?.to_owned())
}

impl Page {
    fn read(name: &str) -> Self {
        let source = fs::read_to_string(Path::new(ROOT).join(name)).expect("a page is readable");
        let mut page = Self {
            name: name.to_owned(),
            blocks: Vec::new(),
            headings: Vec::new(),
            links: Vec::new(),
            words: Vec::new(),
            source,
        };
        let source = page.source.clone();
        let line = |at: usize| source[..at].matches('\n').count() + 1;
        let mut block: Option<Block> = None;
        let mut heading: Option<(HeadingLevel, String)> = None;
        let mut anchors = Vec::new();
        let mut slugs: BTreeMap<String, usize> = BTreeMap::new();
        for (event, at) in Parser::new_ext(&source, Options::ENABLE_TABLES).into_offset_iter() {
            match event {
                Event::Start(Tag::CodeBlock(kind)) => {
                    let word = match kind {
                        CodeBlockKind::Fenced(word) => word.to_string(),
                        CodeBlockKind::Indented => "indented".to_owned(),
                    };
                    let (page, line) = (name.to_owned(), line(at.start));
                    block = Some(Block { page, line, word, text: String::new() });
                }
                Event::End(TagEnd::CodeBlock) => page.blocks.extend(block.take()),
                Event::Start(Tag::Heading { level, .. }) => heading = Some((level, String::new())),
                Event::End(TagEnd::Heading(_)) => {
                    let (level, text) = heading.take().expect("it began");
                    let plain = slug(&text);
                    let before = slugs.entry(plain.clone()).and_modify(|count| *count += 1).or_insert(0);
                    let own = if *before == 0 { plain } else { format!("{plain}-{before}") };
                    anchors.push(own);
                    page.headings.push(Heading { level, anchors: std::mem::take(&mut anchors) });
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push((line(at.start), dest_url.to_string()));
                }
                Event::Text(text) => match (&mut block, &mut heading) {
                    (Some(block), _) => block.text.push_str(&text),
                    (None, Some((_, heading))) => heading.push_str(&text),
                    (None, None) => {}
                },
                Event::Code(text) => {
                    if let Some((_, heading)) = &mut heading {
                        heading.push_str(&text);
                    }
                    page.words.push(text.to_string());
                }
                Event::Html(html) | Event::InlineHtml(html) => anchors.extend(explicit_anchor(&html)),
                _ => {}
            }
        }
        page
    }

    fn anchors(&self) -> impl Iterator<Item = &String> {
        self.headings.iter().flat_map(|heading| &heading.anchors)
    }
}

fn markdown_below(dir: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(dir).expect("the directory is readable") {
        let path = entry.expect("the directory is readable").path();
        if path.is_dir() {
            markdown_below(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            into.push(path.strip_prefix(ROOT).expect("below it").display().to_string());
        }
    }
}

fn pages() -> Vec<Page> {
    let mut names = Vec::new();
    for dir in ["docs", "benches", "examples", "deploy"] {
        markdown_below(&Path::new(ROOT).join(dir), &mut names);
    }
    for entry in fs::read_dir(ROOT).expect("the directory is readable") {
        let name = entry.expect("the directory is readable").file_name().into_string().expect("UTF-8");
        names.extend(name.ends_with(".md").then_some(name));
    }
    names.sort();
    assert!(names.len() >= 15, "{names:?}");
    names.iter().map(|name| Page::read(name)).collect()
}

fn blocks(word: &str) -> Vec<Block> {
    let all = pages().into_iter().flat_map(|page| page.blocks);
    let found: Vec<Block> = all.filter(|block| block.word == word).collect();
    assert!(!found.is_empty(), "no block is marked {word:?}");
    found
}

fn none_of(faults: &[String]) {
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_block_says_what_is_done_with_it() {
    let mut faults = Vec::new();
    for page in pages() {
        for Block { page, line, word, text } in &page.blocks {
            let (language, used) = word.split_once(' ').unwrap_or((word, ""));
            let fits = if SHOWN.contains(&language) {
                // Unchecked blocks must not contain commands to type.
                used.is_empty() && !text.lines().any(|line| line.starts_with("$ "))
            } else {
                USED.iter().any(|(known, words)| *known == language && words.contains(&used))
            };
            if !fits {
                faults.push(format!("{page}:{line}: a block must not be marked {word:?}"));
            }
        }
    }
    none_of(&faults);
}

/// One command per item: continued lines are joined, comments removed.
fn commands(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    joined
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// The arguments of each `countersign` that a line runs, as a shell would pass them.
fn invocations(line: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let (mut words, mut word, mut quote, mut any) = (Vec::<String>::new(), String::new(), None, false);
    let mut ends = |words: &mut Vec<String>| {
        let words = std::mem::take(words);
        if let Some(at) =
            words.iter().position(|word| word == "countersign" || word.ends_with("/countersign"))
        {
            // After an option it belongs to another program, as in `systemctl --signal countersign`.
            let runs = words[..at].iter().all(|word| {
                word.contains('=')
                    || matches!(word.as_str(), "sudo" | "exec" | "time" | "if" | "then" | "!" | "do")
            });
            if runs {
                found.push(words[at + 1..].to_vec());
            }
        }
    };
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (Some(_), _) => word.push(letter),
            (None, '\'' | '"') => (quote, any) = (Some(letter), true),
            (None, '\\') => word.extend(letters.next()),
            (None, '#') if word.is_empty() => break,
            (None, '|' | ';' | '&' | '(' | ')' | '<' | '>' | '`') => {
                // The number of the redirected stream, as in `2>`.
                if matches!(letter, '<' | '>') && word.chars().all(|c| c.is_ascii_digit()) {
                    word.clear();
                }
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
                if matches!(letter, '<' | '>') {
                    // The target of a redirection is not an argument.
                    while letters.next_if(|next| matches!(next, '>' | '<' | '&' | ' ')).is_some() {}
                    while letters.next_if(|next| !matches!(next, ' ' | ')' | ';' | '|' | '&')).is_some() {}
                } else {
                    ends(&mut words);
                }
            }
            (None, ' ') => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            (None, _) => word.push(letter),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    ends(&mut words);
    found
}

#[test]
fn invocations_are_found_however_a_shell_writes_them() {
    let found = |line| invocations(line).into_iter().map(|words| words.join("|")).collect::<Vec<_>>();
    assert_eq!(found("countersign serve --config /etc/x.toml"), ["serve|--config|/etc/x.toml"]);
    assert_eq!(
        found("A=1 sudo /usr/bin/countersign ledger list --state 'a b' > out.txt"),
        ["ledger|list|--state|a b"]
    );
    assert_eq!(found("countersign encrypt < x | countersign decrypt # both"), ["encrypt", "decrypt"]);
    assert_eq!(found("token=$(countersign context sign --task T-1)"), ["context|sign|--task|T-1"]);
    assert_eq!(found("countersign serve 2>/dev/null &"), ["serve"]);
    assert_eq!(found("systemctl reload countersign"), [""; 0]);
}

/// Checks that shell and command line accept every command. An appended `--help` makes the program parse the line
/// without executing it.
#[tokio::test]
async fn every_command_is_one_that_the_shell_and_the_program_take() {
    let mut faults = Vec::new();
    let mut tried = BTreeSet::new();
    for Block { page, line, text, .. } in blocks("sh parse").into_iter().chain(blocks("sh run")) {
        let mut shell = Command::new("bash");
        let checked = shell.args(["-n", "-c", &text]).output().expect("there is bash");
        if !checked.status.success() {
            faults.push(format!("{page}:{line}: {}", String::from_utf8_lossy(&checked.stderr).trim()));
        }
        for command in commands(&text) {
            for words in invocations(&command) {
                if !tried.insert(words.clone()) {
                    continue;
                }
                let ran = Program::new(words.iter().map(String::as_str).chain(["--help"])).run().await;
                if ran.code != Some(0) {
                    faults.push(format!(
                        "{page}:{line}: countersign {}: {}",
                        words.join(" "),
                        ran.stderr.trim()
                    ));
                }
            }
        }
    }
    none_of(&faults);
    assert!(tried.len() >= 10, "{tried:?}");
}

/// Runs independent blocks in an empty directory, with the program on the path.
#[test]
fn every_block_that_runs_alone_does() {
    let program = Path::new(env!("CARGO_BIN_EXE_countersign")).parent().expect("it is in a directory");
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap_or_default());
    for Block { page, line, text, .. } in blocks("sh run") {
        let dir = tempfile::tempdir().expect("a directory");
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", &text]).current_dir(dir.path()).env("PATH", &path);
        for name in ["COUNTERSIGN_CONFIG", "AMQP_URL"] {
            shell.env_remove(name);
        }
        let ran = shell.stdin(Stdio::null()).output().expect("there is bash");
        assert!(
            ran.status.success(),
            "{page}:{line}: {}\n{}{}",
            ran.status,
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr)
        );
    }
}

/// The context of a partial configuration.
const AROUND: &str = r#"
[amqp]
url = "amqp://127.0.0.1:1"

[[endpoints]]
name = "purchase"
plain = true
credentials = [ { action_callback_token = "fake-token-of-so-many-bytes" } ]
"#;

/// Merges one table over another. Endpoints are matched by index.
fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over),
            (Some(Value::Array(under)), Value::Array(over))
                if over.iter().all(Value::is_table) && key == "endpoints" =>
            {
                for (at, over) in over.into_iter().enumerate() {
                    let Value::Table(mut over) = over else { continue };
                    if over.contains_key("credentials") && !over.contains_key("plain") {
                        over.insert("plain".to_owned(), Value::Boolean(false));
                    }
                    if at < under.len() {
                        let Value::Table(under) = &mut under[at] else { continue };
                        merge(under, over);
                    } else {
                        under.push(Value::Table(over));
                    }
                }
            }
            (_, value) => drop(under.insert(key, value)),
        }
    }
}

/// Creates files named in a configuration below a directory of the test, and adapts their paths.
struct Files {
    dir: tempfile::TempDir,
    authority: Authority,
    pair: Pair,
}

impl Files {
    fn made_for(&self, value: &mut Value, key: &str) {
        match value {
            Value::Table(table) => table.iter_mut().for_each(|(key, value)| self.made_for(value, key)),
            Value::Array(values) => values.iter_mut().for_each(|value| self.made_for(value, key)),
            Value::String(path) if key.ends_with("_file") => {
                let text = match key {
                    "cert_file" | "client_cert_file" => self.pair.cert.clone(),
                    "key_file" | "client_key_file" => self.pair.key.clone(),
                    "ca_file" | "client_ca_file" => self.authority.pem(),
                    "url_file" => "amqp://127.0.0.1:1".to_owned(),
                    // Of all secrets, only those that sign commands have a form.
                    "secret_file" if path.ends_with("signing-key") => {
                        "whsec_c2lnbmluZy1mYWtlLWZha2UtZmFrZS1mYWtlLWZha2U=".to_owned()
                    }
                    _ => "fake-secret-of-more-than-32-bytes-here".to_owned(),
                };
                let made = self.dir.path().join(key);
                fs::write(&made, text).expect("the directory is ours");
                let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
                fs::set_permissions(&made, private).expect("it is ours");
                *path = made.display().to_string();
            }
            Value::String(path) if key == "path" && path.starts_with('/') => {
                *path = self.dir.path().join("ledger.db").display().to_string();
            }
            _ => {}
        }
    }
}

/// The names in `${NAME}`.
fn variables(text: &str) -> BTreeSet<&str> {
    text.split("${").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0)).collect()
}

#[tokio::test]
async fn every_configuration_is_taken() {
    let mut faults = Vec::new();
    for (word, blocks) in [("file", blocks("toml file")), ("part", blocks("toml part"))] {
        for Block { page, line, text, .. } in blocks {
            let authority = Authority::new();
            let pair = authority.issue(&["localhost"]);
            let files = Files { dir: tempfile::tempdir().expect("a directory"), authority, pair };
            let read = match text.parse::<Table>() {
                Ok(read) => read,
                Err(error) => {
                    faults.push(format!("{page}:{line}: {error}"));
                    continue;
                }
            };
            let mut whole: Table =
                if word == "part" { AROUND.parse().expect("it is ours") } else { Table::new() };
            merge(&mut whole, read);
            // The broker's address is given once, either way.
            if let Some(Value::Table(amqp)) = whole.get_mut("amqp")
                && amqp.contains_key("urls")
            {
                amqp.remove("url");
            }
            let mut whole = Value::Table(whole);
            files.made_for(&mut whole, "");
            let path = files.dir.path().join("countersign.toml");
            fs::write(&path, toml::to_string(&whole).expect("it was read as TOML"))
                .expect("the directory is ours");
            let mut check = Program::new(["config", "check"]).config(&path);
            for name in variables(&text) {
                let value = if name.contains("AMQP") {
                    "amqp://127.0.0.1:1".to_owned()
                } else {
                    format!("fake-value-of-more-than-32-bytes-{name}")
                };
                check = check.env(name, value);
            }
            let ran = check.run().await;
            if ran.code != Some(0) {
                faults.push(format!("{page}:{line}: {}{}", ran.stdout, ran.stderr));
            }
        }
    }
    none_of(&faults);
}

#[test]
fn every_json_document_and_every_yaml_document_can_be_read() {
    let mut faults = Vec::new();
    for page in pages() {
        for Block { page, line, word, text } in &page.blocks {
            let read = match word.as_str() {
                "json value" => {
                    serde_json::from_str::<serde_json::Value>(text).map_err(|error| error.to_string())
                }
                "yaml value" => {
                    serde_saphyr::from_str::<serde_json::Value>(text).map_err(|error| error.to_string())
                }
                _ => continue,
            };
            faults.extend(read.err().map(|error| format!("{page}:{line}: {error}")));
        }
    }
    none_of(&faults);
}

/// Links within the repository lead to a file, and to a heading of it if they name one.
#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let by_name: BTreeMap<&str, &Page> = pages.iter().map(|page| (page.name.as_str(), page)).collect();
    let mut faults = Vec::new();
    for page in &pages {
        for (line, link) in &page.links {
            if link.starts_with("https://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let there = if file.is_empty() {
                PathBuf::from(&page.name)
            } else {
                normal(&Path::new(&page.name).parent().expect("a file has one").join(file))
            };
            let there = there.display().to_string();
            let fault = if !Path::new(ROOT).join(&there).exists() {
                "no such file"
            } else if !anchor.is_empty()
                && by_name.get(there.as_str()).is_some_and(|page| !page.anchors().any(|own| own == anchor))
            {
                "no such heading"
            } else {
                continue;
            };
            faults.push(format!("{}:{line}: {link}: {fault}", page.name));
        }
    }
    none_of(&faults);
}

/// Removes `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut done, part| {
        match part.as_os_str().to_str() {
            Some("..") => drop(done.pop()),
            Some(".") => {}
            _ => done.push(part),
        }
        done
    })
}

/// Comments and tests cite facts of the platform by sections of `docs/platform.md`, and only existing ones.
#[test]
fn every_cited_fact_of_the_platform_has_its_section() {
    fn look(dir: &Path, sections: &BTreeSet<&String>, cited: &mut usize, faults: &mut Vec<String>) {
        for entry in fs::read_dir(dir).expect("the source is readable") {
            let path = entry.expect("the source is readable").path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    look(&path, sections, cited, faults);
                }
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") || path.ends_with("it/docs.rs") {
                continue;
            }
            let source = fs::read_to_string(&path).expect("a source file is readable");
            for (number, line) in source.lines().enumerate() {
                for rest in line.split("platform.md#").skip(1) {
                    *cited += 1;
                    let anchor: String =
                        rest.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect();
                    if !sections.contains(&anchor) {
                        faults.push(format!("{}:{}: {anchor}", path.display(), number + 1));
                    }
                }
            }
        }
    }
    let platform = Page::read("docs/platform.md");
    let (mut cited, mut faults) = (0, Vec::new());
    for dir in ["src", "tests", "fuzz", "benches"] {
        look(&Path::new(ROOT).join(dir), &platform.anchors().collect(), &mut cited, &mut faults);
    }
    none_of(&faults);
    assert!(cited >= 100, "{cited}");
}

/// The language-independent part: without comments and non-ASCII text.
fn wordless(block: &Block) -> String {
    let mut text = format!("{}\n", block.word);
    if SHOWN.contains(&block.word.as_str()) {
        return text;
    }
    for line in block.text.lines() {
        let line = line.split(" #").next().unwrap_or_default().trim_end();
        if !line.trim_start().starts_with('#') && line.is_ascii() {
            writeln!(text, "{line}").expect("a text takes all");
        }
    }
    text
}

/// Configuration keys, metrics and commands, which are the same in both languages.
fn technical(page: &Page) -> BTreeSet<&str> {
    let is_key = |word: &&str| {
        word.contains(['_', '.']) && word.chars().all(|c| c.is_ascii_alphanumeric() || "_.[]-".contains(c))
    };
    let is_command = |word: &&str| word.starts_with("countersign ");
    page.words.iter().map(String::as_str).filter(|word| is_key(word) || is_command(word)).collect()
}

#[test]
fn a_chinese_page_has_the_sections_the_commands_and_the_keys_of_the_english_one() {
    let pages = pages();
    let find = |name: &str| pages.iter().find(|page| page.name == name);
    let mut pairs: Vec<(&Page, &Page)> = Vec::new();
    for name in
        ["README", "install", "approval-center", "contexts", "workers", "operations", "faults", "replicas"]
    {
        let (english, chinese) = (format!("docs/{name}.md"), format!("docs/zh-CN/{name}.md"));
        let pair = find(&english).zip(find(&chinese));
        pairs.push(pair.unwrap_or_else(|| panic!("{english} and {chinese} must be there")));
    }
    pairs.extend(find("README.md").zip(find("README.zh-CN.md")));
    assert_eq!(pairs.len(), 9, "README.md exists in Chinese as well");
    let mut faults = Vec::new();
    for (english, chinese) in pairs {
        let name = &chinese.name;
        let levels = |page: &Page| page.headings.iter().map(|heading| heading.level).collect::<Vec<_>>();
        if levels(english) != levels(chinese) {
            faults.push(format!("{name}: other sections: {:?}, not {:?}", levels(chinese), levels(english)));
        }
        let commands = |page: &Page| page.blocks.iter().map(wordless).collect::<Vec<_>>();
        let (ours, theirs) = (commands(english), commands(chinese));
        if ours != theirs {
            let at = ours
                .iter()
                .zip(&theirs)
                .position(|(one, other)| one != other)
                .unwrap_or(ours.len().min(theirs.len()));
            faults.push(format!(
                "{name}: other blocks, {} of {}; from the {}th:\n{}\nnot\n{}",
                theirs.len(),
                ours.len(),
                at + 1,
                theirs.get(at).map_or("nothing", String::as_str),
                ours.get(at).map_or("nothing", String::as_str)
            ));
        }
        let (ours, theirs) = (technical(english), technical(chinese));
        let missing: Vec<_> = ours.difference(&theirs).collect();
        let more: Vec<_> = theirs.difference(&ours).collect();
        if !missing.is_empty() || !more.is_empty() {
            faults.push(format!("{name}: without {missing:?}, and with {more:?}"));
        }
    }
    none_of(&faults);
}

#[test]
fn the_readme_is_short() {
    for name in ["README.md", "README.zh-CN.md"] {
        let bytes = fs::metadata(Path::new(ROOT).join(name)).expect("there is one").len();
        assert!(bytes <= 10_000, "{name} has {bytes} bytes");
    }
}
