//! The glossary of `docs/architecture.md`, held by the source: one type for each word, and no word that it rejects.

use std::{collections::BTreeMap, fs, path::Path};

use syn::{
    Ident, ItemEnum, ItemMod, ItemStruct, ItemTrait,
    visit::{self, Visit},
};

use super::{
    SOURCE,
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
