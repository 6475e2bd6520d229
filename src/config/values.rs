//! Typed values: words, numbers, durations, lists, and the faults if a value has another type.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    layers::{Entry, Value, parse_word},
    read::{Found, Given, Section, list_of, not_set, referred},
};

/// The value and its displayable form, or the problem; `None` if the type is wrong.
type Read<T> = Option<Result<(T, toml::Value), String>>;

impl Section<'_, '_, '_> {
    /// The only reader of single values. Records faults and valid values, each with key and origin.
    fn read<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&Value) -> Read<T>,
    ) -> Given<T> {
        let Some(found) = self.find(key)? else { return Some(None) };
        let problem = match read(&found.value) {
            Some(Ok((value, shown))) => {
                self.note(key, shown, &found);
                return Some(Some(value));
            }
            Some(Err(problem)) => format!("{} {problem}", found.quote()),
            None => format!("is {}", found.value.kind()),
        };
        self.fault(key, problem, expected);
        None
    }

    /// Records a fault if a required key is missing.
    fn needed<T>(&mut self, key: &str, expected: &str, given: Given<T>) -> Option<T> {
        if let Some(None) = given {
            self.fault(key, "is missing", expected);
        }
        given.flatten()
    }

    /// A key whose text `parse` converts. The error of `parse` describes the problem.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Given<T> {
        self.read(key, expected, |value| {
            value.text().map(|text| parse(text).map(|value| (value, text.into())))
        })
    }

    /// Like [`Self::parsed`], for a required key.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let given = self.parsed(key, expected, parse);
        self.needed(key, expected, given)
    }

    /// A key with a fixed set of words.
    pub(super) fn maybe_one_of<T: Clone>(&mut self, key: &'static str, words: &[(&str, T)]) -> Given<T> {
        let expected = list_of(words.iter().map(|(word, _)| *word));
        self.parsed(key, &expected, |text| {
            words
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, value)| value.clone())
                .ok_or_else(|| "is not one of its values".to_owned())
        })
    }

    /// Like [`Self::maybe_one_of`], for a required key.
    pub(super) fn one_of<T: Clone>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let given = self.maybe_one_of(key, words);
        self.needed(key, &list_of(words.iter().map(|(word, _)| *word)), given)
    }

    /// A required integer within limits.
    pub(super) fn number<T: TryFrom<u64>>(
        &mut self,
        key: &'static str,
        limits: RangeInclusive<u64>,
    ) -> Option<T> {
        let expected = format!("a whole number from {} to {}", limits.start(), limits.end());
        let given = self.read(key, &expected, |value| {
            let number = match value {
                Value::Integer(integer) => i128::from(*integer),
                Value::Word(word) => match word.trim().parse() {
                    Ok(number) => number,
                    Err(_) => return Some(Err("is not a whole number".to_owned())),
                },
                _ => return None,
            };
            let within = u64::try_from(number).ok().filter(|number| limits.contains(number));
            let shown = i64::try_from(number).unwrap_or(i64::MAX).into();
            let number = within.and_then(|number| T::try_from(number).ok());
            Some(number.map(|number| (number, shown)).ok_or_else(|| "is out of range".to_owned()))
        });
        self.needed(key, &expected, given)
    }

    /// A required boolean.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let expected = "true or false";
        let given = self.read(key, expected, |value| {
            let flag = match value {
                Value::Boolean(flag) => Some(*flag),
                Value::Word(word) => word.trim().parse().ok(),
                _ => return None,
            };
            Some(flag.map(|flag| (flag, flag.into())).ok_or_else(|| "is neither true nor false".to_owned()))
        });
        self.needed(key, expected, given)
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
            text => duration_within(text, &LIMITS).map(Some),
        })
    }

    /// A duration: a text with its unit, or a number of seconds.
    pub(super) fn duration(&mut self, key: &'static str, longest: Duration) -> Option<Duration> {
        let expected = "\"500ms\", \"90s\", \"5m\", \"1h\" or a number of seconds, at most 24h";
        let given = self.read(key, expected, |value| {
            let duration = match value {
                Value::Integer(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
                Value::Text(text) => parse_duration(text),
                Value::Word(word) => {
                    word.trim().parse().map(Duration::from_secs).ok().or_else(|| parse_duration(word))
                }
                _ => return None,
            };
            Some(match duration {
                None => Err("is not a duration".to_owned()),
                Some(duration) if duration > longest => Err("is too long".to_owned()),
                Some(duration) if duration.subsec_millis() == 0 => {
                    Ok((duration, format!("{}s", duration.as_secs()).into()))
                }
                Some(duration) => Ok((duration, format!("{}ms", duration.as_millis()).into())),
            })
        });
        self.needed(key, expected, given)
    }

    /// A list of texts. `check` describes what is wrong with one.
    pub(super) fn texts(
        &mut self,
        key: &'static str,
        expected: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Option<Vec<String>> {
        let found = self.find(key);
        let found = self.needed(key, expected, found)?;
        let list = self.list(key, expected, &found)?;
        let mut texts = Vec::with_capacity(list.len());
        let before = self.report.faults.len();
        for (index, entry) in list.iter().enumerate() {
            let place = format!("{key}[{index}]");
            if let Some(text) = self.text_at(&place, expected, entry) {
                // Quoted as written, with references unresolved: see `Found::reference`.
                let quoted = format!("{:?}", entry.value.text().unwrap_or_default());
                if let Err(problem) = check(&text) {
                    self.fault_at(&place, entry, format!("{quoted} {problem}"), expected);
                } else if texts.contains(&text) {
                    self.fault_at(&place, entry, format!("{quoted} is in the list twice"), "");
                } else {
                    texts.push(text);
                }
            }
        }
        if self.report.faults.len() > before {
            return None;
        }
        self.note(key, texts.iter().map(|text| toml::Value::from(&**text)).collect::<Vec<_>>(), &found);
        Some(texts)
    }

    /// A text, or a list of texts. Required.
    pub(super) fn text_or_texts(&mut self, key: &'static str, expected: &str) -> Option<Vec<String>> {
        let is_list = match self.table.get(key).map(|entry| &entry.value) {
            Some(Value::List(_)) => true,
            Some(Value::Word(word)) => word.trim_start().starts_with('['),
            _ => false,
        };
        if is_list {
            self.texts(key, expected, |_| Ok(()))
        } else {
            self.required(key, expected, |text| Ok(vec![text.to_owned()]))
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

    /// The text at a list position, with references resolved.
    pub(super) fn text_at(&mut self, place: &str, expected: &str, entry: &Entry) -> Option<String> {
        let Some(text) = entry.value.text() else {
            self.fault_at(place, entry, format!("is {}", entry.value.kind()), expected);
            return None;
        };
        let Some(name) = referred(text) else { return Some(text.to_owned()) };
        self.report.referenced.insert(name.to_owned());
        let value = self.report.environment.get(name).map(|value| value.to_string());
        if value.is_none() {
            self.fault_at(place, entry, not_set(name), "");
        }
        value
    }
}

pub(super) fn not_empty(text: &str) -> Result<(), String> {
    if text.is_empty() { Err("is empty".to_owned()) } else { Ok(()) }
}

/// Parses a duration within limits, or describes what is wrong with it.
pub(super) fn duration_within(text: &str, limits: &RangeInclusive<Duration>) -> Result<Duration, String> {
    match parse_duration(text) {
        None => Err("is not a duration".to_owned()),
        Some(duration) if limits.contains(&duration) => Ok(duration),
        Some(_) => Err("is out of range".to_owned()),
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
