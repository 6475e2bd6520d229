//! Checks the source against the glossary of `docs/architecture.md`: one type for each word, and no rejected words.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Ident, ItemEnum, ItemMod, ItemStruct, ItemTrait,
    visit::{self, Visit},
};

use super::{
    SOURCE, entries,
    imports::{self, Module, is_test},
};

/// The rows of the table below the heading with this anchor, without its head.
fn rows(anchor: &str) -> Vec<Vec<String>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let page = fs::read_to_string(page).expect("the page is readable");
    let section = page.split(&format!("<a id=\"{anchor}\"></a>")).nth(1).expect("the heading is there");
    let table = section.lines().skip_while(|line| !line.starts_with('|'));
    let rows = table.take_while(|line| line.starts_with('|')).skip(2).map(|line| {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    });
    rows.collect()
}

/// Where each type is defined.
struct Types {
    module: Module,
    defined: BTreeMap<String, Vec<String>>,
}

impl Types {
    fn add(&mut self, name: &Ident) {
        self.defined.entry(name.to_string()).or_default().push(self.module.join("::"));
    }
}

impl<'ast> Visit<'ast> for Types {
    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        self.add(&item.ident);
    }

    fn visit_item_enum(&mut self, item: &'ast ItemEnum) {
        self.add(&item.ident);
    }

    fn visit_item_trait(&mut self, item: &'ast ItemTrait) {
        self.add(&item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }
}

#[test]
fn a_word_of_the_glossary_is_the_name_of_one_type_at_the_most() {
    let mut types = Types { module: Vec::new(), defined: BTreeMap::new() };
    for (module, file) in imports::files(Path::new(SOURCE)) {
        types.module = module;
        types.visit_file(&file);
    }
    let mut found = 0;
    for word in rows("glossary").iter().flat_map(|row| row[0].split(", ")) {
        let name: String = word.split(' ').map(|part| part[..1].to_uppercase() + &part[1..]).collect();
        let defined = types.defined.get(&name).map_or(&[][..], Vec::as_slice);
        assert!(
            defined.len() <= 1,
            "{name} is one thing in the glossary, and is defined in {}",
            defined.join(", ")
        );
        found += defined.len();
    }
    assert!(found > 10, "types of the glossary are found: {found}");
}

/// The words of a text with their lines; parts of identifiers count as words. Punctuation becomes `.`, so that no
/// phrase matches across it.
fn words(text: &str) -> Vec<(usize, String)> {
    let mut words = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut word = String::new();
        let line = line.trim_start_matches([' ', '/', '!', '#', '-', '*']).trim_end_matches('\\');
        for letter in line.chars().chain([' ']) {
            let begins_part = letter.is_uppercase() && word.ends_with(char::is_lowercase);
            if !word.is_empty() && (begins_part || !letter.is_alphanumeric()) {
                words.push((number + 1, word.to_lowercase()));
                word.clear();
            }
            if letter.is_alphanumeric() {
                word.push(letter);
            } else if !matches!(letter, ' ' | '_') {
                words.push((number + 1, ".".to_owned()));
            }
        }
    }
    words
}

/// The source with its tests, and the English documents.
fn texts() -> Vec<PathBuf> {
    fn add(path: &Path, into: &mut Vec<PathBuf>) {
        if path.is_dir() {
            entries(path).iter().for_each(|path| add(path, into));
        } else {
            into.push(path.to_owned());
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for part in
        ["src", "docs", "openapi.yaml", "asyncapi.yaml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
    {
        add(&root.join(part), &mut all);
    }
    all.retain(|path| {
        !path.starts_with(root.join("docs/zh-CN")) && !path.starts_with(root.join("docs/images"))
    });
    all
}

#[test]
fn no_word_that_the_glossary_rejects_is_used() {
    let rejected = rows("not-used");
    assert!(rejected.len() > 2, "{rejected:?}");
    let mut found = Vec::new();
    for path in texts() {
        let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("below it").display().to_string();
        let text = fs::read_to_string(&path).expect("it is text");
        // Skip the list itself.
        let (before, list) = text.split_once("<a id=\"not-used\">").unwrap_or((&text, ""));
        let words = words(&[before, list.split_once("\n## ").unwrap_or_default().1].concat());
        for row in &rejected {
            if row[2].split('`').any(|place| !place.trim().is_empty() && name.starts_with(place)) {
                continue;
            }
            for phrase in row[0].split(", ") {
                let phrase: Vec<&str> = phrase.split(' ').collect();
                let is_it = |at: &&[(usize, String)]| at.iter().map(|(_, word)| word).eq(&phrase);
                for at in words.windows(phrase.len()).filter(is_it) {
                    found.push(format!("{name}:{}: {}: say {}", at[0].0, phrase.join(" "), row[1]));
                }
            }
        }
    }
    assert!(found.is_empty(), "words that docs/architecture.md#not-used rejects:\n{}", found.join("\n"));
}
