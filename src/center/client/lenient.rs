//! Reads the platform's inconsistent formats: times are strings in v4 and numbers in v2, ids are strings or numbers,
//! and the texts of a language are a list or a map (platform.md#inconsistent-spellings).

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

/// A time in milliseconds since 1970, the platform's format. Read from a string or a number, written as a string. 0
/// means "not yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub i64);

impl Millis {
    /// Not yet.
    pub const NEVER: Self = Self(0);

    /// The calendar time; `None` for "not yet" and for values out of range.
    #[must_use]
    pub fn timestamp(self) -> Option<crate::time::Timestamp> {
        if self.0 == 0 { None } else { crate::time::Timestamp::from_millisecond(self.0).ok() }
    }

    /// Time elapsed since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = text(deserializer)?;
        if text.is_empty() {
            return Ok(Self::NEVER);
        }
        text.parse().map(Self).map_err(|_| de::Error::custom("a time that is not a number of milliseconds"))
    }
}

/// Reads a string, or the literal of a number or boolean. `null` and absent are the empty string.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        Value::Null => Ok(String::new()),
        // Do not quote the value: it may hold anything.
        Value::Array(_) | Value::Object(_) => {
            Err(de::Error::custom("a list or an object in place of a text"))
        }
    }
}

/// Like [`text`]; the empty string is absent.
pub(super) fn maybe<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    text(deserializer).map(|text| Some(text).filter(|text| !text.is_empty()))
}

/// Like [`maybe`], for secrets.
pub(super) fn secret<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<crate::secret::Secret>, D::Error> {
    maybe(deserializer).map(|text| text.map(crate::secret::Secret::new))
}

/// Reads a list of strings or numbers.
pub(super) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    struct One(#[serde(deserialize_with = "text")] String);
    Ok(Vec::<One>::deserialize(deserializer)?.into_iter().map(|one| one.0).collect())
}

/// Writes a placeholder instead of a secret. [`reveal`] inserts the secret, for sending only.
pub(super) fn redacted<S: Serializer>(
    secret: &Option<crate::secret::Secret>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if secret.is_some() { REDACTED } else { "" })
}

pub(super) const REDACTED: &str = "[redacted]";

/// Inserts a secret at `pointer` into a request body. An absent one is left out.
pub(super) fn reveal(body: &mut Value, pointer: &str, secret: Option<&crate::secret::Secret>) {
    let Some((parent, key)) = pointer.rsplit_once('/') else { return };
    if let Some(Value::Object(parent)) = body.pointer_mut(parent) {
        match secret {
            Some(secret) => drop(parent.insert(key.to_owned(), secret.expose().into())),
            None => drop(parent.remove(key)),
        }
    }
}

/// Removes all null members: null, absent and unset are the same to the platform.
pub(super) fn prune(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(prune);
        }
        Value::Array(list) => list.iter_mut().for_each(prune),
        _ => {}
    }
}

/// The texts of one language by key. Read from a list or a map, written as the list that definitions and instances
/// require (platform.md#definitions). Bot messages require a map, see [`super::I18nMap`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct I18n {
    /// `zh-CN`, `en-US`, `ja-JP`, …; the platform does not check it (platform.md#definitions).
    pub locale: String,
    /// True for the language that has every key.
    pub is_default: bool,
    /// The texts.
    #[serde(deserialize_with = "list_or_map")]
    pub texts: Vec<I18nText>,
}

/// One text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct I18nText {
    /// `@i18n@…`
    pub key: String,
    /// The displayed text.
    #[serde(deserialize_with = "text")]
    pub value: String,
}

fn list_or_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<I18nText>, D::Error> {
    #[derive(Deserialize)]
    struct One(#[serde(deserialize_with = "text")] String);
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        List(Vec<I18nText>),
        Map(std::collections::BTreeMap<String, One>),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::List(list) => list,
        Either::Map(map) => map.into_iter().map(|(key, One(value))| I18nText { key, value }).collect(),
    })
}

/// Resolves a key in the wanted language, else in the default one, else in any, else to itself.
pub(super) fn translate<'a>(key: &'a str, resources: &'a [I18n], locale: &str) -> &'a str {
    let find = |wanted: &dyn Fn(&I18n) -> bool| {
        resources
            .iter()
            .filter(|resource| wanted(resource))
            .flat_map(|resource| &resource.texts)
            .find(|text| text.key == key)
            .map(|text| text.value.as_str())
    };
    find(&|resource| resource.locale.eq_ignore_ascii_case(locale))
        .or_else(|| find(&|resource| resource.is_default))
        .or_else(|| find(&|_| true))
        .unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_time_is_read_from_either_spelling_and_written_as_a_text() {
        for spelling in [json!(1_621_863_215_000_i64), json!("1621863215000")] {
            assert_eq!(serde_json::from_value::<Millis>(spelling).unwrap(), Millis(1_621_863_215_000));
        }
        for nothing in [json!(0), json!("0"), json!(""), Value::Null] {
            assert_eq!(serde_json::from_value::<Millis>(nothing).unwrap(), Millis::NEVER);
        }
        assert_eq!(serde_json::to_value(Millis(7)).unwrap(), json!("7"));
        assert!(serde_json::from_value::<Millis>(json!("tomorrow")).is_err());
        assert_eq!(Millis(1_621_863_215_000).timestamp().unwrap().to_string(), "2021-05-24T13:33:35.000Z");
    }

    #[test]
    fn what_does_not_fit_is_not_quoted() {
        let error = serde_json::from_value::<Millis>(json!({ "hush": "hush" })).unwrap_err().to_string();
        assert!(!error.contains("hush"), "{error}");
    }

    #[test]
    fn texts_of_a_language_are_a_list_or_a_map() {
        let list: I18n = serde_json::from_value(
            json!({ "locale": "zh-CN", "is_default": true, "texts": [{ "key": "@i18n@1", "value": "人" }] }),
        )
        .unwrap();
        let map: I18n = serde_json::from_value(
            json!({ "locale": "zh-CN", "is_default": true, "texts": { "@i18n@1": "人" } }),
        )
        .unwrap();
        assert_eq!(list, map);
        assert_eq!(
            serde_json::to_value(&map).unwrap()["texts"],
            json!([{ "key": "@i18n@1", "value": "人" }])
        );
    }

    #[test]
    fn a_key_is_translated_by_language_then_default_then_not_at_all() {
        let resources = |locale: &str, is_default, value: &str| I18n {
            locale: locale.to_owned(),
            is_default,
            texts: vec![I18nText { key: "@i18n@1".to_owned(), value: value.to_owned() }],
        };
        let all = [resources("ja-JP", false, "申請"), resources("zh-CN", true, "审批")];
        assert_eq!(translate("@i18n@1", &all, "ja-JP"), "申請");
        assert_eq!(translate("@i18n@1", &all, "en-US"), "审批");
        assert_eq!(translate("@i18n@2", &all, "en-US"), "@i18n@2");
    }
}
