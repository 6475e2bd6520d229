//! The effective configuration, as printed by `config show`. Secrets are already redacted.

use std::fmt;

use sha2::{Digest, Sha256};

use super::layers::{Step, spell};
use crate::secret::Secret;

/// Every value read, with its origin, in the order of the reference.
#[derive(Debug, Clone, Default)]
pub struct Effective {
    pub(super) values: Vec<Shown>,
}

/// One value.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) path: Vec<Step>,
    /// Redacted.
    pub(super) value: toml::Value,
    origin: String,
    /// Of the redacted secrets, to detect changes without keeping old secrets.
    digests: Vec<SecretDigest>,
}

/// SHA-256 of a secret. `Debug` hides it: a short secret can be guessed from its hash.
#[derive(Clone, PartialEq)]
struct SecretDigest([u8; 32]);

impl SecretDigest {
    fn of(secret: &Secret) -> Self {
        Self(Sha256::digest(secret.expose()).into())
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Shown {
    /// True if both values are equal, regardless of origin.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.value == other.value && self.digests == other.digests
    }
}

/// Replaces a secret.
pub(super) const REDACTED: &str = "[redacted]";

impl Effective {
    pub(super) fn push(&mut self, path: Vec<Step>, value: toml::Value, origin: String, secrets: &[Secret]) {
        let digests = secrets.iter().map(SecretDigest::of).collect();
        self.values.push(Shown { path, value, origin, digests });
    }

    /// As TOML. With `origins`, each value is followed by a comment with its origin.
    #[must_use]
    pub fn to_toml(&self, origins: bool) -> String {
        let mut text = String::new();
        let mut table: &[Step] = &[];
        for Shown { path, value, origin, .. } in &self.values {
            let Some((Step::Key(key), around)) = path.split_last() else { continue };
            if around != table {
                table = around;
                let name: Vec<&str> = around
                    .iter()
                    .filter_map(|step| match step {
                        Step::Key(key) => Some(key.as_str()),
                        Step::Index(_) => None,
                    })
                    .collect();
                let name = name.join(".");
                match around.last() {
                    Some(Step::Index(_)) => text.push_str(&format!("\n[[{name}]]\n")),
                    _ => text.push_str(&format!("\n[{name}]\n")),
                }
            }
            text.push_str(&format!("{key} = {value}"));
            if origins {
                text.push_str(&format!("  # {origin}"));
            }
            text.push('\n');
        }
        text
    }

    /// As JSON, with the same members as the TOML form.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut root = serde_json::Value::Null;
        for Shown { path, value, .. } in &self.values {
            let mut place = &mut root;
            for step in path {
                place = match step {
                    Step::Key(key) => {
                        if place.is_null() {
                            *place = serde_json::Value::Object(serde_json::Map::new());
                        }
                        &mut place[key.as_str()]
                    }
                    Step::Index(index) => {
                        if place.is_null() {
                            *place = serde_json::Value::Array(Vec::new());
                        }
                        let list = place.as_array_mut().expect("a place is only ever in a list");
                        while list.len() <= *index {
                            list.push(serde_json::Value::Null);
                        }
                        &mut list[*index]
                    }
                };
            }
            *place = serde_json::to_value(value).expect("what a key may hold, JSON can express");
        }
        root
    }

    /// Origin of a key's value; `None` if it has none.
    #[must_use]
    pub fn origin(&self, key: &str) -> Option<&str> {
        self.values.iter().find(|shown| spell(&shown.path) == key).map(|shown| shown.origin.as_str())
    }

    /// Key and origin of every value.
    #[must_use]
    pub fn origins(&self) -> serde_json::Map<String, serde_json::Value> {
        self.values.iter().map(|shown| (spell(&shown.path), shown.origin.as_str().into())).collect()
    }
}

/// A URL without its password. A URL that cannot be parsed with certainty is redacted completely.
pub(super) fn redact_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return REDACTED.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if path.contains('@') || path.to_ascii_lowercase().contains("password") {
        return REDACTED.to_owned();
    }
    match authority.rsplit_once('@') {
        None => url.to_owned(),
        Some((userinfo, host)) => match userinfo.split_once(':') {
            Some((user, _)) => format!("{scheme}://{user}:{REDACTED}@{host}{path}"),
            None => url.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown_whatever_characters_it_has() {
        for (url, shown) in [
            ("amqp://guest:hush@127.0.0.1:5672/%2f", "amqp://guest:[redacted]@127.0.0.1:5672/%2f"),
            ("amqps://broker/prod?heartbeat=5", "amqps://broker/prod?heartbeat=5"),
            ("amqp://user@broker", "amqp://user@broker"),
            ("amqp://u:hu:s@h@broker/v", "amqp://u:[redacted]@broker/v"),
            ("amqp://u:hu/sh@broker/v", "[redacted]"),
            ("amqp://u:hu#sh@broker/v", "[redacted]"),
            ("amqp://broker/v?password=hush", "[redacted]"),
            ("u:hush@broker", "[redacted]"),
        ] {
            assert_eq!(redact_url(url), shown);
        }
    }
}
