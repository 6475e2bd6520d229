//! The layers of a configuration, merged into a tree in which every value knows its origin.

use std::{ops::Deref, path::Path, sync::Arc};

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};
use zeroize::Zeroizing;

use super::{fault::Fault, origin::Origin};

/// A text that may be a secret, zeroized on drop. No `Debug`: the caller decides how to show it.
#[derive(Clone)]
pub(super) struct Text(Zeroizing<String>);

impl Text {
    pub(super) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// A value and its origin. No `Debug`: it may be a secret.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

#[derive(Clone)]
pub(super) enum Value {
    Table(Table),
    List(Vec<Entry>),
    Text(Text),
    /// From the environment or a flag. The key decides whether it is a text, a number or a whole list.
    Word(Text),
    Integer(i64),
    Boolean(bool),
    /// A TOML type that no key uses.
    Other(&'static str),
}

impl Value {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Word(text) => Some(text),
            _ => None,
        }
    }

    /// Describes the type, for faults about a wrong one.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Table(_) => "a table",
            Self::List(_) => "a list",
            Self::Text(_) | Self::Word(_) => "a text",
            Self::Integer(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::Other(kind) => kind,
        }
    }
}

/// A table in the order in which its keys first appear.
#[derive(Clone, Default)]
pub(super) struct Table(Vec<(String, Entry)>);

impl Table {
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, entry)| entry)
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Entry> {
        self.0.iter_mut().find(|(name, _)| name == key).map(|(_, entry)| entry)
    }

    pub(super) fn insert(&mut self, key: &str, entry: Entry) {
        match self.get_mut(key) {
            Some(place) => *place = entry,
            None => self.0.push((key.to_owned(), entry)),
        }
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Entry> {
        let at = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(at).1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.0.iter().map(|(key, entry)| (key.as_str(), entry))
    }

    /// Merges `over` into this table: tables are merged, everything else is replaced.
    pub(super) fn overlay(&mut self, over: Self) {
        for (key, entry) in over.0 {
            match (self.get_mut(&key), entry) {
                (
                    Some(Entry { value: Value::Table(under), origin: place }),
                    Entry { value: Value::Table(over), origin },
                ) => {
                    under.overlay(over);
                    *place = origin;
                }
                (_, entry) => self.insert(&key, entry),
            }
        }
    }

    /// Merges this table over `under`, in place.
    pub(super) fn underlay(&mut self, under: &Self) {
        for (key, entry) in &under.0 {
            match (self.get_mut(key).map(|place| &mut place.value), &entry.value) {
                (Some(Value::Table(over)), Value::Table(under)) => over.underlay(under),
                (Some(_), _) => {}
                (None, _) => self.insert(key, entry.clone()),
            }
        }
    }
}

/// One step from a table or list to an element.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Index(usize),
    Key(String),
}

/// `endpoints[0].name`
pub(super) fn spell(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.extend([".", key]),
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// Parses a path of keys and list positions. `None` if a part is empty.
fn steps<'a>(parts: impl IntoIterator<Item = &'a str>) -> Option<Vec<Step>> {
    parts
        .into_iter()
        .map(|part| match part.parse() {
            _ if part.is_empty() => None,
            Ok(index) => Some(Step::Index(index)),
            Err(_) => Some(Step::Key(part.to_ascii_lowercase())),
        })
        .collect()
}

/// The path in `COUNTERSIGN__A__0__B`, without the prefix.
pub(super) fn path_of_variable(rest: &str) -> Option<Vec<Step>> {
    steps(rest.split("__"))
}

/// The path in `a.0.b` or `a[0].b`.
pub(super) fn path_of_flag(key: &str) -> Option<Vec<Step>> {
    steps(key.replace('[', ".").replace(']', "").split('.'))
}

/// The value at a path, if any.
pub(super) fn look<'t>(table: &'t Table, path: &[Step]) -> Option<&'t Entry> {
    let [Step::Key(first), rest @ ..] = path else { return None };
    rest.iter().try_fold(table.get(first)?, |entry, step| match (&entry.value, step) {
        (Value::Table(table), Step::Key(key)) => table.get(key),
        (Value::List(list), Step::Index(index)) => list.get(*index),
        _ => None,
    })
}

/// Sets one value, creating the tables and lists on its path.
pub(super) fn set(table: &mut Table, path: &[Step], entry: Entry) -> Result<(), Fault> {
    let fault = |problem: &str, expected: String| Fault {
        key: spell(path),
        problem: problem.to_owned(),
        expected,
        origin: Some(entry.origin.clone()),
    };
    let (Some(Step::Key(first)), Some(last)) = (path.first(), path.last()) else {
        return Err(fault("is not a key", "SECTION.KEY".to_owned()));
    };
    let origin = &entry.origin;
    let made = |next: &Step| Entry {
        value: match next {
            Step::Key(_) => Value::Table(Table::default()),
            Step::Index(_) => Value::List(Vec::new()),
        },
        origin: origin.clone(),
    };
    if path.len() == 1 {
        table.insert(first, entry);
        return Ok(());
    }
    if table.get(first).is_none() {
        table.insert(first, made(&path[1]));
    }
    let mut place = table.get_mut(first).expect("was just made if it was not there");
    for (at, step) in path.iter().enumerate().skip(1) {
        if let Value::Word(word) = &place.value
            && let Some(parsed) = parse_word(word, &place.origin)
        {
            place.value = parsed;
        }
        let is_last = at + 1 == path.len();
        let inside = match (&mut place.value, step) {
            (Value::Table(inner), Step::Key(key)) => {
                if inner.get(key).is_none() {
                    if is_last {
                        inner.insert(key, entry);
                        return Ok(());
                    }
                    inner.insert(key, made(&path[at + 1]));
                }
                inner.get_mut(key).expect("was just made if it was not there")
            }
            (Value::List(list), Step::Index(index)) => {
                let length = list.len();
                if *index > length {
                    let problem = format!("the list has {length} entries, so this place cannot be set yet");
                    return Err(fault(&problem, format!("[{length}] as the next place")));
                }
                if *index == length {
                    list.push(made(path.get(at + 1).unwrap_or(last)));
                }
                &mut list[*index]
            }
            (other, step) => {
                let (kind, way) = (other.kind(), spell(&path[..at]));
                let problem = match step {
                    Step::Key(key) => format!("{way} is {kind} and has no key {key}"),
                    Step::Index(index) => format!("{way} is {kind} and has no place {index}"),
                };
                return Err(fault(&problem, String::new()));
            }
        };
        place = inside;
    }
    *place = entry;
    Ok(())
}

/// Parses a list or an inline table given as one word. `None` if it is neither.
pub(super) fn parse_word(word: &str, origin: &Origin) -> Option<Value> {
    let word = word.trim();
    if !word.starts_with(['[', '{']) {
        return None;
    }
    DeValue::parse(word).ok().map(|value| convert(value.into_inner(), &|_| origin.clone()))
}

/// Parses a file. Returns all syntax errors; TOML's messages may quote a key but never a value.
pub(super) fn parse_file(text: &str, path: &Path) -> Result<Table, Vec<Fault>> {
    let path: Arc<Path> = path.into();
    let origin = |at: usize| {
        let line = text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1;
        Origin::File { path: path.clone(), line }
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(convert_table(table.into_inner(), &origin));
    }
    Err(errors
        .iter()
        .map(|error| Fault {
            key: String::new(),
            problem: format!("is not TOML: {}", error.message().lines().next().unwrap_or_default()),
            expected: String::new(),
            origin: error.span().map(|span| origin(span.start)),
        })
        .collect())
}

pub(super) fn parse_defaults(text: &str) -> Table {
    let table = DeTable::parse(text).expect("the embedded defaults are TOML, as a test shows");
    convert_table(table.into_inner(), &|_| Origin::Default)
}

/// Consumes the table: a copy of its content would stay in memory.
fn convert_table(table: DeTable<'_>, origin: &dyn Fn(usize) -> Origin) -> Table {
    let entry = |(key, value): (Spanned<DeString<'_>>, Spanned<DeValue<'_>>)| {
        let entry = Entry { value: convert(value.into_inner(), origin), origin: origin(key.span().start) };
        (key.into_inner().into_owned(), entry)
    };
    Table(table.into_iter().map(entry).collect())
}

fn convert(value: DeValue<'_>, origin: &dyn Fn(usize) -> Origin) -> Value {
    let element = |value: Spanned<DeValue<'_>>| {
        let origin_of = origin(value.span().start);
        Entry { value: convert(value.into_inner(), origin), origin: origin_of }
    };
    match value {
        DeValue::Table(table) => Value::Table(convert_table(table, origin)),
        DeValue::Array(list) => Value::List(list.into_iter().map(element).collect()),
        DeValue::String(text) => Value::Text(Text::new(text.into_owned())),
        DeValue::Integer(integer) => {
            let digits = integer.as_str().replace('_', "");
            match i64::from_str_radix(&digits, integer.radix()) {
                Ok(integer) => Value::Integer(integer),
                Err(_) => Value::Other("a number beyond 64 bits"),
            }
        }
        DeValue::Boolean(flag) => Value::Boolean(flag),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date or time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Entry {
        Entry { value: Value::Word(Text::new(text.to_owned())), origin: Origin::Environment("X".to_owned()) }
    }

    fn look<'a>(table: &'a Table, path: &str) -> Option<&'a Entry> {
        super::look(table, &path_of_flag(path).unwrap())
    }

    fn text(table: &Table, path: &str) -> String {
        match look(table, path).map(|entry| &entry.value) {
            Some(Value::Text(text) | Value::Word(text)) => text.to_string(),
            Some(other) => other.kind().to_owned(),
            None => "nothing".to_owned(),
        }
    }

    #[test]
    fn values_know_their_line() {
        let table =
            parse_file("# first\n[http]\nlisten = \"a\"\n\n[[endpoints]]\nname = 'b'\n", Path::new("c.toml"))
                .unwrap_or_default();
        assert_eq!(look(&table, "http.listen").unwrap().origin.to_string(), "c.toml:3");
        assert_eq!(look(&table, "endpoints.0.name").unwrap().origin.to_string(), "c.toml:6");
    }

    #[test]
    fn every_fault_of_syntax_has_its_line_and_quotes_no_value() {
        let source = "[admin]\ntoken = \"hush\n[http]\nlisten = hush\n";
        let faults = parse_file(source, Path::new("c.toml")).err().unwrap();
        let said: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert!(said.len() >= 2, "{said:?}");
        assert!(said[0].starts_with("c.toml:2: is not TOML: "), "{said:?}");
        assert!(said.iter().all(|line| !line.contains("hush") && !line.contains('\n')), "{said:?}");
    }

    #[test]
    fn a_layer_replaces_values_and_lists_but_merges_tables() {
        let mut under = parse_defaults("a = 1\n[t]\nx = 'old'\ny = 'kept'\nl = ['1', '2']");
        under.overlay(parse_defaults("[t]\nx = 'new'\nl = ['3']"));
        assert_eq!((text(&under, "t.x"), text(&under, "t.y")), ("new".to_owned(), "kept".to_owned()));
        assert_eq!((text(&under, "t.l.0"), text(&under, "t.l.1")), ("3".to_owned(), "nothing".to_owned()));
    }

    #[test]
    fn a_path_makes_what_it_leads_through() {
        let mut table = Table::default();
        for (path, value) in [
            ("endpoints__0__name", "a"),
            ("endpoints__0__credentials__0__key", "b"),
            ("endpoints__1__name", "c"),
        ] {
            set(&mut table, &path_of_variable(&path.to_uppercase()).unwrap(), word(value)).unwrap();
        }
        assert_eq!(text(&table, "endpoints.0.name"), "a");
        assert_eq!(text(&table, "endpoints[0].credentials[0].key"), "b");
        assert_eq!(text(&table, "endpoints.1.name"), "c");
    }

    #[test]
    fn a_path_that_leads_nowhere_is_a_fault() {
        let mut table = parse_defaults("http = 1\n[[endpoints]]\nname = 'a'");
        let mut said =
            |path: &str| set(&mut table, &path_of_flag(path).unwrap(), word("v")).unwrap_err().to_string();
        assert_eq!(said("http.listen"), "environment X: http.listen: http is a number and has no key listen");
        assert_eq!(
            said("endpoints.2.name"),
            "environment X: endpoints[2].name: the list has 1 entries, so this place cannot be set yet; \
             expected [1] as the next place"
        );
        assert!(path_of_variable("HTTP____LISTEN").is_none());
    }

    #[test]
    fn a_list_written_as_a_word_can_be_set_into() {
        let mut table = Table::default();
        set(&mut table, &path_of_flag("endpoints").unwrap(), word("[{name = 'a'}]")).unwrap();
        set(&mut table, &path_of_flag("endpoints.0.on_conflict").unwrap(), word("refuse")).unwrap();
        assert_eq!(text(&table, "endpoints.0.name"), "a");
        assert_eq!(text(&table, "endpoints.0.on_conflict"), "refuse");
    }
}
