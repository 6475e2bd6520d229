//! Reads the merged tree table by table. Faults are recorded in the [`Report`] and reading continues, so that all
//! faults are reported at once. Values are recorded there too, for `config show`. Value types: `values.rs`.

use std::{borrow::Cow, collections::HashSet, path::PathBuf};

use super::{
    environment::Variables,
    fault::{Fault, Warning, probably},
    layers::{Entry, Step, Table, Value, parse_word, spell},
    origin::Origin,
    show::Effective,
};
use crate::secret::Secret;

/// Everything recorded so far.
pub(super) struct Report<'e> {
    pub(super) environment: &'e Variables,
    /// Variables that a `"${NAME}"` refers to.
    pub(super) referenced: HashSet<String>,
    /// Value of the key with this name.
    pub(super) allow_weak_secrets: bool,
    /// Whether the file itself contains a secret.
    pub(super) secrets_in_file: bool,
    /// The directory of the file, if any.
    pub(super) beside: Option<PathBuf>,
    pub(super) faults: Vec<Fault>,
    /// See [`super::Loaded::lapsed`].
    pub(super) lapsed: Vec<Fault>,
    pub(super) warnings: Vec<Warning>,
    pub(super) effective: Effective,
}

/// An untyped value.
pub(super) struct Found<'t> {
    pub(super) value: Cow<'t, Value>,
    pub(super) origin: Origin,
    /// The environment variable that provided the value by `${NAME}`. Faults do not quote it: it may be a misplaced
    /// secret.
    pub(super) reference: Option<String>,
}

impl Found<'_> {
    /// The value as shown in faults.
    pub(super) fn quote(&self) -> String {
        match (&self.reference, &*self.value) {
            (Some(name), _) => format!("the value of ${{{name}}}"),
            (None, Value::Text(text) | Value::Word(text)) => {
                let short: String = text.chars().take(60).collect();
                if short.len() == text.len() { format!("{:?}", &**text) } else { format!("{short:?}…") }
            }
            (None, Value::Integer(integer)) => integer.to_string(),
            (None, other) => other.kind().to_owned(),
        }
    }
}

/// One table of the configuration while it is read.
pub(super) struct Section<'t, 'r, 'e> {
    path: Vec<Step>,
    pub(super) table: &'t Table,
    origin: Option<Origin>,
    asked: Vec<&'static str>,
    pub(super) report: &'r mut Report<'e>,
}

/// Result for an optional key: `None` if it is faulty (already recorded), `Some(None)` if it is absent.
pub(super) type Given<T> = Option<Option<T>>;

impl<'t, 'r, 'e> Section<'t, 'r, 'e> {
    pub(super) fn root(table: &'t Table, report: &'r mut Report<'e>) -> Self {
        Self { path: Vec::new(), table, origin: None, asked: Vec::new(), report }
    }

    /// Full name of a key in this section.
    pub(super) fn name(&self, key: &str) -> String {
        spell(&self.path_of(key))
    }

    fn path_of(&self, key: &str) -> Vec<Step> {
        let mut path = self.path.clone();
        path.push(Step::Key(key.to_owned()));
        path
    }

    /// Origin of the key, or else of its table.
    pub(super) fn origin(&self, key: &str) -> Option<Origin> {
        self.table.get(key).map(|entry| entry.origin.clone()).or_else(|| self.origin.clone())
    }

    /// True if the key was set explicitly, not by the defaults.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|entry| entry.origin != Origin::Default)
    }

    fn fault_with(&self, key: &str, problem: impl Into<String>, expected: impl Into<String>) -> Fault {
        Fault {
            key: self.name(key),
            problem: problem.into(),
            expected: expected.into(),
            origin: self.origin(key),
        }
    }

    pub(super) fn fault(&mut self, key: &str, problem: impl Into<String>, expected: impl Into<String>) {
        let fault = self.fault_with(key, problem, expected);
        self.report.faults.push(fault);
    }

    /// Records a setting that has become invalid over time; see [`super::Loaded::lapsed`].
    pub(super) fn lapsed(&mut self, key: &str, problem: impl Into<String>, expected: impl Into<String>) {
        let fault = self.fault_with(key, problem, expected);
        self.report.lapsed.push(fault);
    }

    pub(super) fn warn(&mut self, key: &str, problem: impl Into<String>) {
        let warning = Warning { key: self.name(key), problem: problem.into(), origin: self.origin(key) };
        self.report.warnings.push(warning);
    }

    /// Records a fault at a full path, for checks across tables.
    pub(super) fn fault_of(
        &mut self,
        path: &str,
        problem: impl Into<String>,
        expected: impl Into<String>,
        origin: &Origin,
    ) {
        self.report.faults.push(Fault {
            key: path.to_owned(),
            problem: problem.into(),
            expected: expected.into(),
            origin: Some(origin.clone()),
        });
    }

    /// Records a fault of a key in one of this section's tables.
    pub(super) fn table_fault(&mut self, table: &str, key: &str, problem: &str, expected: &str) {
        let entry = match self.table.get(table).map(|entry| &entry.value) {
            Some(Value::Table(inner)) => inner.get(key),
            _ => None,
        };
        self.report.faults.push(Fault {
            key: self.name(&format!("{table}.{key}")),
            problem: problem.to_owned(),
            expected: expected.to_owned(),
            origin: entry.map(|entry| entry.origin.clone()),
        });
    }

    /// The layer that set a key.
    pub(super) fn rank(&self, key: &str) -> Option<u8> {
        self.table.get(key).map(|entry| entry.origin.rank())
    }

    /// Records the effective value. Secret texts must be redacted already.
    pub(super) fn note(&mut self, key: &'static str, value: impl Into<toml::Value>, found: &Found<'_>) {
        self.note_secrets(key, value, found, &[]);
    }

    /// Records the displayable form of effective secrets. Their digests are kept to detect changes.
    pub(super) fn note_secrets(
        &mut self,
        key: &'static str,
        value: impl Into<toml::Value>,
        found: &Found<'_>,
        secrets: &[Secret],
    ) {
        let mut origin = found.origin.to_string();
        if let Some(name) = &found.reference {
            origin = format!("{origin}, from environment {name}");
        }
        self.report.effective.push(self.path_of(key), value.into(), origin, secrets);
    }

    /// Looks up a key and resolves a `${NAME}` reference.
    pub(super) fn find(&mut self, key: &'static str) -> Given<Found<'t>> {
        self.know(&[key]);
        let Some(entry) = self.table.get(key) else { return Some(None) };
        self.follow(key, entry).map(Some)
    }

    fn follow(&mut self, key: &str, entry: &'t Entry) -> Option<Found<'t>> {
        let found = |value, reference| Found { value, origin: entry.origin.clone(), reference };
        let Some(name) = entry.value.text().and_then(referred) else {
            return Some(found(Cow::Borrowed(&entry.value), None));
        };
        self.report.referenced.insert(name.to_owned());
        let text = self.report.environment.get(name);
        if text.is_none() {
            self.fault(key, not_set(name), "");
        }
        Some(found(Cow::Owned(Value::Word(text?.clone())), Some(name.to_owned())))
    }

    pub(super) fn fault_at(
        &mut self,
        place: &str,
        entry: &Entry,
        problem: impl Into<String>,
        expected: &str,
    ) {
        self.fault_of(&self.name(place), problem, expected, &entry.origin);
    }

    /// Marks keys as known, whether or not they are read.
    pub(super) fn know(&mut self, keys: &[&'static str]) {
        for key in keys {
            if !self.asked.contains(key) {
                self.asked.push(key);
            }
        }
    }

    /// Reads a table. An absent table is read as empty.
    pub(super) fn table<R>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_, '_, 'e>) -> Option<R>,
    ) -> Option<R> {
        self.know(&[key]);
        let path = self.path_of(key);
        let empty = Table::default();
        let parsed;
        let (table, origin) = match self.table.get(key) {
            None => (&empty, self.origin.clone()),
            Some(Entry { value: Value::Table(table), origin }) => (table, Some(origin.clone())),
            Some(Entry { value: Value::Word(word), origin }) => {
                parsed = parse_word(word, origin);
                let Some(Value::Table(table)) = &parsed else {
                    self.fault(key, "is not a table as TOML writes it", "{ key = … }");
                    return None;
                };
                (table, Some(origin.clone()))
            }
            Some(Entry { value, .. }) => {
                self.fault(key, format!("is {}", value.kind()), "a table");
                return None;
            }
        };
        let mut section = Section { path, table, origin, asked: Vec::new(), report: self.report };
        let result = read(&mut section);
        section.finish();
        result
    }

    /// Reads all tables of a list, even after a fault. `None` if one was faulty.
    pub(super) fn tables<R>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'_, '_, 'e>) -> Option<R>,
    ) -> Option<Vec<R>> {
        let Some(found) = self.find(key)? else { return Some(Vec::new()) };
        let list = self.list(key, "a list of tables", &found)?;
        let mut results = Vec::with_capacity(list.len());
        let mut complete = true;
        for (index, entry) in list.iter().enumerate() {
            let Value::Table(table) = &entry.value else {
                let problem = format!("is {}", entry.value.kind());
                self.fault_at(&format!("{key}[{index}]"), entry, problem, "a table");
                complete = false;
                continue;
            };
            let mut path = self.path_of(key);
            path.push(Step::Index(index));
            let origin = Some(entry.origin.clone());
            let mut section = Section { path, table, origin, asked: Vec::new(), report: self.report };
            let result = read(&mut section);
            section.finish();
            complete &= result.is_some();
            results.extend(result);
        }
        complete.then_some(results)
    }

    /// Records every unknown key.
    pub(super) fn finish(self) {
        let mut unknown = Vec::new();
        for (key, entry) in self.table.iter() {
            if self.asked.contains(&key) {
                continue;
            }
            let expected = match probably(key, self.asked.iter().copied()) {
                Some(meant) => format!("{} perhaps", self.name(meant)),
                None => format!("one of {}", list_of(self.asked.iter().copied())),
            };
            unknown.push(Fault {
                key: self.name(key),
                problem: "is not a key of this version".to_owned(),
                expected,
                origin: Some(entry.origin.clone()),
            });
        }
        self.report.faults.extend(unknown);
    }
}

/// The variable that a `${NAME}` refers to.
pub(super) fn referred(text: &str) -> Option<&str> {
    text.strip_prefix("${")?.strip_suffix('}')
}

pub(super) fn not_set(variable: &str) -> String {
    format!("refers to the environment variable {variable}, which is not set")
}

/// `a, b or c`
pub(super) fn list_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.into_iter().collect();
    match words.split_last() {
        None => String::new(),
        Some((last, [])) => (*last).to_owned(),
        Some((last, first)) => format!("{} or {last}", first.join(", ")),
    }
}
