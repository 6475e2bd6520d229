//! Finds which of our source files refer to which others, from the parsed source. Tests are excluded.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Attribute, File, Item, UseTree,
    visit::{self, Visit},
};

/// A module with its own file, as a path from the crate: `["ledger", "sqlite"]`. The crate itself is `[]`.
pub(super) type Module = Vec<String>;

/// For each module, the modules that it refers to. A name re-exported by a parent module counts as its child's.
pub(super) fn graph(source: &Path) -> BTreeMap<Module, BTreeSet<Module>> {
    let files = files(source);
    let passed_on: BTreeMap<_, _> =
        files.keys().map(|module| (module.clone(), passed_on(module, &files))).collect();
    let mut graph = BTreeMap::new();
    for (module, file) in &files {
        let mut paths = Paths { files: &files, module: module.clone(), found: Vec::new() };
        paths.visit_file(file);
        let named = paths.found.into_iter().filter_map(|path| origin(path, &passed_on));
        graph.insert(module.clone(), named.filter(|named| named != module).collect());
    }
    graph
}

/// The parsed source, without the files that are for tests only.
pub(super) fn files(source: &Path) -> BTreeMap<Module, File> {
    let mut files = BTreeMap::new();
    read(source, &mut Vec::new(), &mut files);
    let tests: Vec<Module> = files.iter().flat_map(|(module, file)| test_modules(module, file)).collect();
    files.retain(|module, _| !tests.iter().any(|tests| module.starts_with(tests)));
    files
}

fn read(path: &Path, module: &mut Module, files: &mut BTreeMap<Module, File>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(path)
        .expect("the source is there")
        .map(|entry| entry.expect("readable").path())
        .collect();
    entries.sort();
    for entry in entries {
        let stem = entry.file_stem().and_then(|stem| stem.to_str()).expect("files of ours have plain names");
        if stem == "tests" || (module.is_empty() && stem == "main") {
            continue;
        }
        let own = matches!(stem, "mod" | "lib");
        if !own {
            module.push(stem.to_owned());
        }
        if entry.is_dir() {
            read(&entry, module, files);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&entry).expect("a source file is readable");
            files.insert(module.clone(), syn::parse_file(&text).expect("a source file is Rust"));
        }
        if !own {
            module.pop();
        }
    }
}

/// The modules that are declared for tests only.
fn test_modules(module: &Module, file: &File) -> Vec<Module> {
    let declared = file.items.iter().filter_map(|item| match item {
        Item::Mod(item) if is_test(&item.attrs) => {
            Some([module.as_slice(), &[item.ident.to_string()]].concat())
        }
        _ => None,
    });
    declared.collect()
}

/// Re-exports of a module from its children, mapped to their origin.
fn passed_on(module: &Module, files: &BTreeMap<Module, File>) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for item in &files[module].items {
        if let Item::Use(item) = item
            && !is_test(&item.attrs)
        {
            leaves(&item.tree, &mut Vec::new(), &mut |path, name| {
                if let Some(path) = absolute(module, path, files)
                    && path.starts_with(module)
                {
                    found.insert(name.to_owned(), path);
                }
            });
        }
    }
    found
}

fn leaves(tree: &UseTree, before: &mut Vec<String>, found: &mut impl FnMut(&[String], &str)) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            leaves(&path.tree, before, found);
            before.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, before, found)),
        UseTree::Glob(_) => found(before, "*"),
        UseTree::Name(name) if name.ident == "self" => {
            let own = before.last().cloned().unwrap_or_default();
            found(before, &own);
        }
        UseTree::Name(name) => {
            before.push(name.ident.to_string());
            found(before, &name.ident.to_string());
            before.pop();
        }
        UseTree::Rename(rename) => {
            if rename.ident != "self" {
                before.push(rename.ident.to_string());
            }
            found(before, &rename.rename.to_string());
            if rename.ident != "self" {
                before.pop();
            }
        }
    }
}

/// The path from the crate, if it begins with `crate`, `self`, `super` or a module within this one.
fn absolute(module: &Module, path: &[String], files: &BTreeMap<Module, File>) -> Option<Vec<String>> {
    let first = path.first()?;
    let mut rest = &path[1..];
    let mut base = match first.as_str() {
        "crate" => Vec::new(),
        "self" => module.clone(),
        "super" => module[..module.len().checked_sub(1)?].to_vec(),
        child => {
            let child = [module.as_slice(), &[child.to_owned()]].concat();
            if !files.contains_key(&child) {
                return None;
            }
            child
        }
    };
    while rest.first().is_some_and(|name| name == "super") {
        base.pop();
        rest = &rest[1..];
    }
    base.extend_from_slice(rest);
    Some(base)
}

/// The module that defines the item at the end of the path.
fn origin(
    mut path: Vec<String>,
    passed_on: &BTreeMap<Module, BTreeMap<String, Vec<String>>>,
) -> Option<Module> {
    // Chains of re-exports are shorter than this.
    for _ in 0..8 {
        let module = (0..=path.len())
            .rev()
            .map(|end| path[..end].to_vec())
            .find(|module| passed_on.contains_key(module))?;
        let Some(name) = path.get(module.len()) else { return Some(module) };
        let Some(from) = passed_on[&module].get(name).filter(|from| **from != path) else {
            return Some(module);
        };
        let mut next = from.clone();
        next.extend_from_slice(&path[module.len() + 1..]);
        path = next;
    }
    None
}

struct Paths<'a> {
    files: &'a BTreeMap<Module, File>,
    module: Module,
    found: Vec<Vec<String>>,
}

impl Paths<'_> {
    fn take(&mut self, path: &[String]) {
        self.found.extend(absolute(&self.module, path, self.files));
    }
}

pub(super) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && matches!(&attribute.meta, syn::Meta::List(list) if list.tokens.to_string() == "test")
    })
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if is_test(attributes) {
            return;
        }
        match item {
            Item::Use(item) => {
                let mut paths = Vec::new();
                leaves(&item.tree, &mut Vec::new(), &mut |path, _| paths.push(path.to_vec()));
                paths.iter().for_each(|path| self.take(path));
            }
            // `super` in an inline module is the file.
            Item::Mod(item) if item.content.is_some() => {
                self.module.push(item.ident.to_string());
                visit::visit_item_mod(self, item);
                self.module.pop();
            }
            item => visit::visit_item(self, item),
        }
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.take(&names);
        visit::visit_path(self, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_found_however_they_are_written() {
        let directory = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("lib.rs", "mod a; mod b; mod c; mod d; #[cfg(test)] mod double; #[cfg(test)] mod tests;");
        write("double.rs", "use crate::a;");
        write(
            "a.rs",
            "use crate::{b::{self, One}, c::Passed as Other}; #[cfg(test)] mod tests { use crate::d; }",
        );
        write("b.rs", "fn f(_: super::c::Own) -> Vec<crate::d::Deep> {} // crate::a");
        write("c/mod.rs", "mod inner; pub use inner::Passed; use std::fs; pub struct Own(inner::Passed);");
        write("c/inner.rs", "pub struct Passed(super::Own);");
        write("d.rs", "#[test] fn t() { crate::a::f() } pub struct Deep;");
        write("tests.rs", "use crate::a;");
        let graph = graph(directory.path());
        let shown: Vec<_> = graph
            .iter()
            .filter(|(module, _)| !module.is_empty())
            .map(|(module, imports)| {
                let imports: Vec<_> = imports.iter().map(|import| import.join("::")).collect();
                format!("{}: {}", module.join("::"), imports.join(" "))
            })
            .collect();
        assert_eq!(shown, ["a: b c::inner", "b: c d", "c: c::inner", "c::inner: c", "d: "]);
    }
}
