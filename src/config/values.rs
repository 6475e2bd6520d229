//! The values of keys by their types: words, numbers, durations, lists, and what is wrong with one that is not of its type.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    layers::{Entry, Value, parse_word},
    read::{Found, Given, Section, list_of},
};

impl<'t> Section<'t, '_, '_> {
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
                self.note(key, &**text, &found);
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

    fn missing(&mut self, key: &str, expected: &str) {
        self.fault(key, "is missing", expected);
    }

    /// Looks a key up that must be there.
    fn needed(&mut self, key: &'static str, expected: &str) -> Option<Found<'t>> {
        match self.find(key) {
            Given::Value(found) => Some(found),
            Given::Faulty => None,
            Given::Absent => {
                self.missing(key, expected);
                None
            }
        }
    }

    /// A whole number within limits, which must be there.
    pub(super) fn number(&mut self, key: &'static str, limits: RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("a whole number from {} to {}", limits.start(), limits.end());
        let found = self.needed(key, &expected)?;
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

    /// True or false, which must be there.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let expected = "true or false";
        let found = self.needed(key, expected)?;
        let flag = match &*found.value {
            Value::Boolean(flag) => Some(*flag),
            Value::Word(word) => word.trim().parse().ok(),
            other => {
                self.fault(key, format!("is {}", other.kind()), expected);
                return None;
            }
        };
        match flag {
            Some(flag) => self.note(key, flag, &found),
            None => self.fault(key, format!("{} is neither true nor false", found.quote()), expected),
        }
        flag
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
        let found = self.needed(key, expected)?;
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
        let found = self.needed(key, expected)?;
        let list = self.list(key, expected, &found)?;
        let mut texts = Vec::with_capacity(list.len());
        let before = self.report.faults.len();
        for (index, entry) in list.iter().enumerate() {
            let place = format!("{key}[{index}]");
            if let Some(text) = self.text_at(&place, expected, entry) {
                // As it was written, not as it was followed: see `Found::reference`.
                let quoted = match &entry.value {
                    Value::Text(text) | Value::Word(text) => format!("{:?}", &**text),
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
        self.note(key, texts.iter().map(|text| toml::Value::from(&**text)).collect::<Vec<_>>(), &found);
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
            return Some(text.to_string());
        };
        self.report.referenced.insert(name.to_owned());
        let value = self.report.environment.get(name).map(|value| value.to_string());
        if value.is_none() {
            let problem = format!("refers to the environment variable {name}, which is not set");
            self.fault_at(place, entry, problem, "");
        }
        value
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
