//! The trees of a damaged file.

use std::collections::{BTreeMap, HashSet};

use rusqlite::{Connection, params_from_iter, types::Value};
use uuid::Uuid;

use super::{
    super::{
        pages::{Cell, Pages, Tree},
        record::{Shape, decode},
    },
    Tally,
};
use crate::ledger::check::body::Body;

/// Tables of one row, which a new ledger has already.
const SINGLE: [&str; 3] = ["cursor", "reconciliation", "id_lead"];

/// What page 1 is of.
pub(super) const LIST: &str = "the list of tables";

/// The index that still names commands whose page is lost.
const IDS: &str = "commands_by_id";

/// Reads trees and adds their rows to a new ledger.
pub(super) struct Trees<'a> {
    pages: &'a Pages,
    into: &'a Connection,
    shapes: &'a [Shape],
    /// The shapes that tables had when the file was written.
    then: Vec<Shape>,
    /// The first page of each table and index.
    roots: BTreeMap<String, u32>,
    /// Those that the list of tables does not have: where a new ledger has them.
    guessed: BTreeMap<String, u32>,
    /// Pages that rows were read from. A page that a tree led to and had no row for it is none of them: the pointer may be what
    /// is damaged, and the page of another tree.
    known: HashSet<u32>,
    tally: Tally,
    has_cursor: bool,
    /// Pages that look as if they were of the index of ids.
    stray_ids: Vec<u32>,
    /// Ids by place in the log, of the index of ids: only of places that are wanted.
    ids: BTreeMap<i64, Uuid>,
}

impl<'a> Trees<'a> {
    pub(super) fn new(
        pages: &'a Pages,
        into: &'a Connection,
        shapes: &'a [Shape],
        then: &[Shape],
    ) -> rusqlite::Result<Self> {
        let mut trees = Self {
            pages,
            into,
            shapes,
            then: then.to_vec(),
            roots: BTreeMap::new(),
            guessed: BTreeMap::new(),
            known: HashSet::new(),
            tally: Tally::default(),
            has_cursor: false,
            stray_ids: Vec::new(),
            ids: BTreeMap::new(),
        };
        let mut rows = Vec::new();
        trees.each(LIST, 1, Tree::Table, &mut |_, values| {
            rows.push(values);
            Ok(true)
        })?;
        for row in rows {
            if let [_, Value::Text(name), _, Value::Integer(root), _] = &*row
                && let Ok(root) = u32::try_from(*root)
            {
                trees.roots.insert(name.clone(), root);
            }
        }
        let ids =
            into.query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [IDS], |row| row.get(0))?;
        let usual = then.iter().map(|shape| (&*shape.table, shape.usual_root)).chain([(IDS, ids)]);
        // Nothing moves the first page of a table but VACUUM.
        let missing: Vec<_> = usual.filter(|(name, _)| !trees.roots.contains_key(*name)).collect();
        if !missing.is_empty() {
            trees.tally.bad_pages.entry(1).or_insert_with(|| LIST.to_owned());
        }
        let taken: HashSet<u32> = trees.roots.values().copied().collect();
        for (name, root) in missing {
            if taken.contains(&root) {
                trees.tally.damaged.insert(name.to_owned());
            } else {
                trees.guessed.insert(name.to_owned(), root);
            }
        }
        trees.roots.extend(trees.guessed.clone());
        Ok(trees)
    }

    /// Walks a tree in order. `row` is given each row that can be read, and says whether it is one of this tree.
    fn each(
        &mut self,
        name: &str,
        root: u32,
        tree: Tree,
        row: &mut dyn FnMut(i64, Vec<Value>) -> rusqlite::Result<bool>,
    ) -> rusqlite::Result<()> {
        let (mut waiting, mut seen, none) = (vec![root], HashSet::new(), HashSet::new());
        while let Some(number) = waiting.pop() {
            let is_new = seen.insert(number);
            let node =
                self.pages.read(number).filter(|_| is_new).and_then(|page| self.pages.node(number, &page));
            let Some(node) = node.filter(|node| node.tree == tree) else {
                self.tally.bad_pages.insert(number, name.to_owned());
                continue;
            };
            let (mut wrong, count) = (0, node.cells.len());
            for cell in &node.cells {
                if let Some((values, pages)) = self.row(cell, &none)
                    && row(cell.rowid, values)?
                {
                    self.known.extend(pages);
                } else {
                    wrong += 1;
                }
            }
            if wrong > 0 && wrong == count {
                self.tally.bad_pages.insert(number, name.to_owned());
            } else {
                self.known.insert(number);
            }
            *self.tally.unreadable.entry(name.to_owned()).or_default() += wrong as u64;
            waiting.extend(node.children.iter().rev());
        }
        Ok(())
    }

    /// A row, and the further pages that it is in; none if one of those is among these `others`.
    fn row(&self, cell: &Cell, others: &HashSet<u32>) -> Option<(Vec<Value>, HashSet<u32>)> {
        let (content, pages) = self.pages.content(cell, others)?;
        Some((decode(&content)?, pages))
    }

    /// Reads all tables; then, if a page of one was damaged, what is left of it elsewhere.
    pub(super) fn walk(&mut self, progress: &mut dyn FnMut(u64, u64)) -> rusqlite::Result<()> {
        let total = u64::from(self.pages.count);
        let (into, shapes) = (self.into, self.shapes);
        for shape in shapes {
            let Some(root) = self.roots.get(&shape.table).copied() else { continue };
            let tree = if shape.is_index { Tree::Index } else { Tree::Table };
            let mut count = 0;
            let mut has_cursor = false;
            self.each(&shape.table, root, tree, &mut |rowid, values| {
                count += 1;
                if count % 4096 == 0 {
                    progress(count.min(total), total);
                }
                let added = shape.fits(&values) && add(into, shape, rowid, &values)?;
                has_cursor |= added && shape.table == "cursor";
                Ok(added)
            })?;
            self.has_cursor |= has_cursor;
        }
        self.doubt_guesses();
        self.stray(progress)
    }

    /// A table that is empty where a new ledger has it is somewhere else if another guess was wrong: after a VACUUM.
    fn doubt_guesses(&mut self) {
        let is_bad = |root: &u32| self.tally.bad_pages.contains_key(root);
        if !self.guessed.values().any(is_bad) {
            return;
        }
        let has_none = |table: &&Shape| {
            let sql = format!("SELECT NOT EXISTS (SELECT 1 FROM \"{}\")", table.table);
            self.guessed.contains_key(&table.table)
                && self.into.query_row(&sql, [], |row| row.get(0)).unwrap_or(true)
        };
        let empty: Vec<String> =
            self.shapes.iter().filter(has_none).map(|shape| shape.table.clone()).collect();
        self.tally.damaged.extend(empty);
    }

    /// Looks at the pages that no tree led to. In a sound file there are none but free ones. Where it is not known which are
    /// free, a page may hold what was removed long ago: then only those of tables count that are damaged.
    fn stray(&mut self, progress: &mut dyn FnMut(u64, u64)) -> rusqlite::Result<()> {
        let free = self.pages.free();
        let mut damaged: HashSet<String> =
            self.tally.bad_pages.values().chain(&self.tally.damaged).cloned().collect();
        if free.is_none() && self.has_holes()? {
            damaged.insert("commands".to_owned());
        }
        let counts = |table: &str| free.is_some() || damaged.contains(table);
        let is_free = |number: u32| free.as_ref().is_some_and(|free| free.contains(&number));
        for number in self.pages.numbers().skip(1) {
            if number % 4096 == 0 {
                progress(u64::from(number), u64::from(self.pages.count));
            }
            if self.known.contains(&number) || is_free(number) {
                continue;
            }
            let Some(node) = self.pages.read(number).and_then(|page| self.pages.node(number, &page)) else {
                continue;
            };
            if node.cells.is_empty() {
                continue;
            }
            let (mut rows, mut others) = (Vec::new(), HashSet::new());
            for cell in &node.cells {
                if let Some((values, pages)) = self.row(cell, &others) {
                    others.extend(pages);
                    rows.push((cell.rowid, values));
                }
            }
            let is_index = node.tree == Tree::Index;
            // The one page of a table of one row is nowhere else.
            let shape = self.then.iter().filter(|shape| !SINGLE.contains(&&*shape.table)).find(|shape| {
                shape.is_index == is_index
                    && !rows.is_empty()
                    && rows.iter().all(|(_, values)| shape.is_all_of(values))
            });
            let Some(shape) = shape else {
                if is_index && rows.iter().all(|(_, values)| entry(values).is_some()) {
                    self.stray_ids.push(number);
                }
                continue;
            };
            if !counts(&shape.table) {
                continue;
            }
            self.tally.damaged.insert(shape.table.clone());
            for (rowid, values) in &rows {
                let added = add(self.into, shape, *rowid, values)?;
                self.has_cursor |= added && shape.table == "cursor";
            }
        }
        Ok(())
    }

    pub(super) fn has_cursor(&self) -> bool {
        self.has_cursor
    }

    /// True if the log has holes that pruning has not made.
    fn has_holes(&self) -> rusqlite::Result<bool> {
        self.into.query_row(
            "SELECT count(*) < coalesce(max(seq), 0) - min(coalesce(min(seq), 1) - 1, (SELECT pruned_through FROM cursor))
             FROM commands WHERE seq > (SELECT pruned_through FROM cursor)",
            [],
            |row| row.get(0),
        )
    }

    pub(super) fn tally(&mut self) -> Tally {
        self.tally.unreadable.retain(|_, rows| *rows > 0);
        std::mem::take(&mut self.tally)
    }

    /// The last place that the index of ids names. Keeps what it says of places that have no command.
    pub(super) fn last_in_index(&mut self) -> i64 {
        let root = self.roots.get(IDS).copied();
        let mut ids = BTreeMap::new();
        let mut last = 0;
        let into = self.into;
        let mut note = |values: &[Value]| -> rusqlite::Result<bool> {
            let Some((id, seq)) = entry(values) else { return Ok(false) };
            last = last.max(seq);
            let is_there = into.prepare_cached("SELECT 1 FROM commands WHERE seq = ?1")?.exists([seq])?;
            if !is_there {
                ids.insert(seq, id);
            }
            Ok(true)
        };
        if let Some(root) = root {
            // A look-up in the new ledger does not fail.
            self.each(IDS, root, Tree::Index, &mut |_, values| note(&values)).ok();
        }
        let none = HashSet::new();
        for number in std::mem::take(&mut self.stray_ids) {
            let node = self.pages.read(number).and_then(|page| self.pages.node(number, &page));
            for (values, _) in
                node.iter().flat_map(|node| &node.cells).filter_map(|cell| self.row(cell, &none))
            {
                note(&values).ok();
            }
        }
        self.ids = ids;
        last
    }

    /// The ids of these places, as far as the index knows them.
    pub(super) fn ids_of(&self, lost: &[(i64, i64)]) -> BTreeMap<i64, Uuid> {
        let of = |(first, last): &(i64, i64)| self.ids.range(*first..=*last).map(|(seq, id)| (*seq, *id));
        lost.iter().flat_map(of).collect()
    }
}

/// An entry of the index of ids.
fn entry(values: &[Value]) -> Option<(Uuid, i64)> {
    match values {
        [Value::Blob(id), Value::Integer(seq)] => Some((Uuid::from_slice(id).ok()?, *seq)),
        _ => None,
    }
}

/// Adds a row. False if it breaks a rule of its table: then it is not what was written.
fn add(into: &Connection, shape: &Shape, rowid: i64, values: &[Value]) -> rusqlite::Result<bool> {
    if shape.table == "commands" && !is_command(rowid, values) {
        return Ok(false);
    }
    let how = if SINGLE.contains(&&*shape.table) { "OR REPLACE" } else { "OR IGNORE" };
    let mut statement = into.prepare_cached(&shape.insert(values.len(), how))?;
    match statement.execute(params_from_iter(shape.values(rowid, values))) {
        // One that is there already was read from its tree; a second is what a page held before.
        Ok(_) => Ok(true),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// True if the message is whole and the id is its own.
fn is_command(rowid: i64, values: &[Value]) -> bool {
    let (Some(Value::Blob(id)), Some(Value::Blob(message))) = (values.get(1), values.get(13)) else {
        return false;
    };
    rowid > 0
        && Body::read(message).is_ok_and(|(command, _)| command.command_id.as_bytes().as_slice() == &**id)
}
