//! Reading typed values out of the merged tree. Whatever is wrong is noted in the [`Report`] and reading goes on, so
//! that all faults come out at once; whatever is read is noted there too, for `config show`.

use std::{borrow::Cow, collections::HashMap, ops::RangeInclusive, time::Duration};

use super::{
    fault::{Fault, Warning, probably},
    layers::{Entry, Origin, Step, Table, Value, parse_word, spell},
    show::Effective,
};
use crate::secret::Secret;

/// What reading has found so far.
pub(super) struct Report<'e> {
    pub(super) environment: &'e HashMap<String, String>,
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Warning>,
    pub(super) effective: Effective,
}

/// A value before it has a type.
pub(super) struct Found<'t> {
    pub(super) value: Cow<'t, Value>,
    pub(super) origin: Origin,
    /// The environment variable that the value was taken from by `${NAME}`. It may be a secret that ended up in the
    /// wrong place, so it is not quoted in faults.
    pub(super) reference: Option<String>,
}

impl Found<'_> {
    /// The value as a fault may show it.
    pub(super) fn quote(&self) -> String {
        match (&self.reference, &*self.value) {
            (Some(name), _) => format!("the value of ${{{name}}}"),
            (None, Value::Text(text) | Value::Word(text)) => {
                let short: String = text.chars().take(60).collect();
                if short.len() == text.len() { format!("{text:?}") } else { format!("{short:?}…") }
            }
            (None, Value::Integer(integer)) => integer.to_string(),
            (None, other) => other.kind().to_owned(),
        }
    }
}

/// One table of the configuration, while its keys are read.
pub(super) struct Section<'t, 'r, 'e> {
    path: Vec<Step>,
    pub(super) table: &'t Table,
    origin: Option<Origin>,
    asked: Vec<&'static str>,
    pub(super) report: &'r mut Report<'e>,
}

/// What became of an optional key.
pub(super) enum Given<T> {
    Absent,
    /// It is there and wrong, which has been noted.
    Faulty,
    Value(T),
}

impl<T> Given<T> {
    /// `None` if faulty, `Some(None)` if absent.
    pub(super) fn optional(self) -> Option<Option<T>> {
        match self {
            Self::Absent => Some(None),
            Self::Faulty => None,
            Self::Value(value) => Some(Some(value)),
        }
    }
}

impl<'t, 'r, 'e> Section<'t, 'r, 'e> {
    pub(super) fn root(table: &'t Table, report: &'r mut Report<'e>) -> Self {
        Self { path: Vec::new(), table, origin: None, asked: Vec::new(), report }
    }

    /// The full name of one of this section's keys.
    pub(super) fn name(&self, key: &str) -> String {
        spell(&self.path_of(key))
    }

    fn path_of(&self, key: &str) -> Vec<Step> {
        let mut path = self.path.clone();
        path.push(Step::Key(key.to_owned()));
        path
    }

    /// Where a key, or else its table, was set.
    pub(super) fn origin(&self, key: &str) -> Option<Origin> {
        self.table.get(key).map(|entry| entry.origin.clone()).or_else(|| self.origin.clone())
    }

    /// True if the key was set by somebody: not left out, and not by the defaults.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|entry| entry.origin != Origin::Default)
    }

    pub(super) fn fault(&mut self, key: &str, problem: impl Into<String>, expected: impl Into<String>) {
        let fault = Fault {
            key: self.name(key),
            problem: problem.into(),
            expected: expected.into(),
            origin: self.origin(key),
        };
        self.report.faults.push(fault);
    }

    pub(super) fn warn(&mut self, key: &str, problem: impl Into<String>) {
        let warning = Warning { key: self.name(key), problem: problem.into(), origin: self.origin(key) };
        self.report.warnings.push(warning);
    }

    /// Notes a fault at a full path, for checks that look at several tables.
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

    /// Notes a fault of a key in one of this section's tables.
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

    /// The layer in which a key was set.
    pub(super) fn rank(&self, key: &str) -> Option<u8> {
        self.table.get(key).map(|entry| entry.origin.rank())
    }

    fn missing(&mut self, key: &str, expected: &str) {
        self.fault(key, "is missing", expected);
    }

    /// Notes the value that is in force. Texts that are secret come here redacted.
    pub(super) fn note(&mut self, key: &'static str, value: impl Into<toml::Value>, found: &Found<'_>) {
        self.note_with(key, value.into(), found, None);
    }

    /// Notes what may be shown of a secret that is in force; the secret itself is kept to notice when it changes.
    pub(super) fn note_secret(
        &mut self,
        key: &'static str,
        value: impl Into<toml::Value>,
        found: &Found<'_>,
        secret: Secret,
    ) {
        self.note_with(key, value.into(), found, Some(secret));
    }

    fn note_with(
        &mut self,
        key: &'static str,
        value: toml::Value,
        found: &Found<'_>,
        secret: Option<Secret>,
    ) {
        let mut origin = found.origin.to_string();
        if let Some(name) = &found.reference {
            origin = format!("{origin}, from environment {name}");
        }
        self.report.effective.push(self.path_of(key), value, origin, secret);
    }

    /// Looks a key up, and what it refers to if it is a `${NAME}`.
    pub(super) fn find(&mut self, key: &'static str) -> Given<Found<'t>> {
        self.know(&[key]);
        let Some(entry) = self.table.get(key) else { return Given::Absent };
        self.follow(key, entry)
    }

    fn follow(&mut self, key: &str, entry: &'t Entry) -> Given<Found<'t>> {
        let found = |value, reference| Found { value, origin: entry.origin.clone(), reference };
        let name = match &entry.value {
            Value::Text(text) | Value::Word(text) => {
                text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'))
            }
            _ => None,
        };
        let Some(name) = name else {
            return Given::Value(found(Cow::Borrowed(&entry.value), None));
        };
        match self.report.environment.get(name) {
            Some(text) => {
                let value = Cow::Owned(Value::Word(text.clone()));
                Given::Value(found(value, Some(name.to_owned())))
            }
            None => {
                let problem = format!("refers to the environment variable {name}, which is not set");
                self.fault(key, problem, "");
                Given::Faulty
            }
        }
    }

    /// A key whose text `parse` turns into its value; `parse` says what is wrong with a text.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Given<T> {
        let found = match self.find(key) {
            Given::Absent => return Given::Absent,
            Given::Faulty => return Given::Faulty,
            Given::Value(found) => found,
        };
        let (Value::Text(text) | Value::Word(text)) = &*found.value else {
            self.fault(key, format!("is {}", found.value.kind()), expected);
            return Given::Faulty;
        };
        match parse(text) {
            Ok(value) => {
                self.note(key, text.as_str(), &found);
                Given::Value(value)
            }
            Err(problem) => {
                self.fault(key, format!("{} {problem}", found.quote()), expected);
                Given::Faulty
            }
        }
    }

    /// As [`Self::parsed`], for a key that must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match self.parsed(key, expected, parse) {
            Given::Value(value) => Some(value),
            Given::Faulty => None,
            Given::Absent => {
                self.missing(key, expected);
                None
            }
        }
    }

    /// A key that holds one of some words.
    pub(super) fn one_of<T: Clone>(&mut self, key: &'static str, words: &[(&str, T)]) -> Given<T> {
        let expected = list_of(words.iter().map(|(word, _)| *word));
        self.parsed(key, &expected, |text| {
            words
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, value)| value.clone())
                .ok_or_else(|| "is not one of its values".to_owned())
        })
    }

    /// A whole number within limits, which must be there.
    pub(super) fn number(&mut self, key: &'static str, limits: RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("a whole number from {} to {}", limits.start(), limits.end());
        let found = match self.find(key) {
            Given::Value(found) => found,
            Given::Faulty => return None,
            Given::Absent => {
                self.missing(key, &expected);
                return None;
            }
        };
        let number = match &*found.value {
            Value::Integer(integer) => u64::try_from(*integer).ok(),
            Value::Word(word) => match word.trim().parse::<i128>() {
                Ok(number) => u64::try_from(number).ok(),
                Err(_) => {
                    self.fault(key, format!("{} is not a whole number", found.quote()), expected);
                    return None;
                }
            },
            other => {
                self.fault(key, format!("is {}", other.kind()), expected);
                return None;
            }
        };
        match number.filter(|number| limits.contains(number)) {
            Some(number) => {
                self.note(key, i64::try_from(number).unwrap_or(i64::MAX), &found);
                Some(number)
            }
            None => {
                self.fault(key, format!("{} is out of range", found.quote()), expected);
                None
            }
        }
    }

    /// A number of milliseconds.
    pub(super) fn millis(&mut self, key: &'static str, limits: RangeInclusive<u64>) -> Option<Duration> {
        self.number(key, limits).map(Duration::from_millis)
    }

    /// A duration, or "forever", which is `None`.
    pub(super) fn retention(&mut self, key: &'static str) -> Option<Option<Duration>> {
        const EXPECTED: &str =
            "\"forever\", or \"90d\", \"12h\", \"30m\", at least \"1m\" and at most \"36500d\"";
        const LIMITS: RangeInclusive<Duration> =
            Duration::from_secs(60)..=Duration::from_secs(36_500 * 86_400);
        self.required(key, EXPECTED, |text| match text {
            "forever" => Ok(None),
            text => match parse_duration(text) {
                None => Err("is not a duration".to_owned()),
                Some(duration) if LIMITS.contains(&duration) => Ok(Some(duration)),
                Some(_) => Err("is out of range".to_owned()),
            },
        })
    }

    /// A duration: a text with its unit, or a number of seconds.
    pub(super) fn duration(&mut self, key: &'static str, longest: Duration) -> Option<Duration> {
        let expected = "\"500ms\", \"90s\", \"5m\", \"1h\" or a number of seconds, at most 24h";
        let found = match self.find(key) {
            Given::Value(found) => found,
            Given::Faulty => return None,
            Given::Absent => {
                self.missing(key, expected);
                return None;
            }
        };
        let duration = match &*found.value {
            Value::Integer(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
            Value::Text(text) => parse_duration(text),
            Value::Word(word) => match word.trim().parse() {
                Ok(seconds) => Some(Duration::from_secs(seconds)),
                Err(_) => parse_duration(word),
            },
            other => {
                self.fault(key, format!("is {}", other.kind()), expected);
                return None;
            }
        };
        let Some(duration) = duration else {
            self.fault(key, format!("{} is not a duration", found.quote()), expected);
            return None;
        };
        if duration > longest {
            self.fault(key, format!("{} is too long", found.quote()), expected);
            return None;
        }
        let shown = if duration.subsec_millis() == 0 {
            format!("{}s", duration.as_secs())
        } else {
            format!("{}ms", duration.as_millis())
        };
        self.note(key, shown, &found);
        Some(duration)
    }

    /// A list of texts. `check` says what is wrong with one.
    pub(super) fn texts(
        &mut self,
        key: &'static str,
        expected: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Option<Vec<String>> {
        let found = match self.find(key) {
            Given::Value(found) => found,
            Given::Faulty => return None,
            Given::Absent => {
                self.missing(key, expected);
                return None;
            }
        };
        let list = self.list(key, expected, &found)?;
        let mut texts = Vec::with_capacity(list.len());
        let before = self.report.faults.len();
        for (index, entry) in list.iter().enumerate() {
            let place = format!("{key}[{index}]");
            if let Some(text) = self.text_at(&place, expected, entry) {
                // As it was written, not as it was followed: see `Found::reference`.
                let quoted = match &entry.value {
                    Value::Text(text) | Value::Word(text) => format!("{text:?}"),
                    other => other.kind().to_owned(),
                };
                if let Err(problem) = check(&text) {
                    self.fault_at(&place, entry, format!("{quoted} {problem}"), expected);
                } else if texts.contains(&text) {
                    self.fault_at(&place, entry, format!("{quoted} stands in the list twice"), "");
                } else {
                    texts.push(text);
                }
            }
        }
        if self.report.faults.len() > before {
            return None;
        }
        self.note(key, texts.iter().map(|text| toml::Value::from(text.as_str())).collect::<Vec<_>>(), &found);
        Some(texts)
    }

    /// A text, or a list of texts, one of which must be there.
    pub(super) fn text_or_texts(&mut self, key: &'static str, expected: &str) -> Option<Vec<String>> {
        match self.table.get(key).map(|entry| &entry.value) {
            Some(Value::List(_)) => self.texts(key, expected, |_| Ok(())),
            Some(Value::Word(word)) if word.trim_start().starts_with('[') => {
                self.texts(key, expected, |_| Ok(()))
            }
            _ => self.required(key, expected, |text| Ok(vec![text.to_owned()])),
        }
    }

    pub(super) fn list(&mut self, key: &str, expected: &str, found: &Found<'_>) -> Option<Vec<Entry>> {
        match &*found.value {
            Value::List(list) => Some(list.clone()),
            Value::Word(word) => match parse_word(word, &found.origin) {
                Some(Value::List(list)) => Some(list),
                _ => {
                    self.fault(key, "is not a list as TOML writes it", expected);
                    None
                }
            },
            other => {
                self.fault(key, format!("is {}", other.kind()), expected);
                None
            }
        }
    }

    pub(super) fn fault_at(
        &mut self,
        place: &str,
        entry: &Entry,
        problem: impl Into<String>,
        expected: &str,
    ) {
        let fault = Fault {
            key: self.name(place),
            problem: problem.into(),
            expected: expected.to_owned(),
            origin: Some(entry.origin.clone()),
        };
        self.report.faults.push(fault);
    }

    /// The text at a place in a list, references followed.
    pub(super) fn text_at(&mut self, place: &str, expected: &str, entry: &Entry) -> Option<String> {
        let text = match &entry.value {
            Value::Text(text) | Value::Word(text) => text,
            other => {
                self.fault_at(place, entry, format!("is {}", other.kind()), expected);
                return None;
            }
        };
        let Some(name) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
            return Some(text.clone());
        };
        let value = self.report.environment.get(name).cloned();
        if value.is_none() {
            let problem = format!("refers to the environment variable {name}, which is not set");
            self.fault_at(place, entry, problem, "");
        }
        value
    }

    /// Marks keys as known, whether or not they are read.
    pub(super) fn know(&mut self, keys: &[&'static str]) {
        for key in keys {
            if !self.asked.contains(key) {
                self.asked.push(key);
            }
        }
    }

    /// Reads a table. An absent one reads as an empty one.
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

    /// Reads a list of tables, all of them, whatever is wrong with one. `None` if one was faulty.
    pub(super) fn tables<R>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'_, '_, 'e>) -> Option<R>,
    ) -> Option<Vec<R>> {
        let found = match self.find(key) {
            Given::Absent => return Some(Vec::new()),
            Given::Faulty => return None,
            Given::Value(found) => found,
        };
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

    /// Notes every key that nobody asked for.
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

/// `a, b or c`
fn list_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.into_iter().collect();
    match words.split_last() {
        None => String::new(),
        Some((last, [])) => (*last).to_owned(),
        Some((last, first)) => format!("{} or {last}", first.join(", ")),
    }
}

/// `500ms`, `90s`, `5m`, `1h`, `1d`
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let unit_ms = match text[digits..].trim_start() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit_ms).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit() {
        for (text, millis) in
            [("500ms", 500), ("90s", 90_000), ("5m", 300_000), ("1 h", 3_600_000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "90", "-5s", "1.5s", "s", "1h30m", "99999999999999999999s", "18446744073709551615h"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
