//! The differences between two configurations, reported on a reload.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    layers::{Step, spell},
    show::{Effective, Shown},
};

/// Keys that are read only at startup, because they name something held open or size something allocated. A reload
/// ignores changes to them and reports it. TLS on the public listener may change, but not be added or removed.
pub const NEEDS_RESTART: [&str; 18] = [
    "http.listen",
    "http.keep_alive",
    "http.workers",
    "admin.listen",
    "ledger.url",
    "ledger.url_file",
    "ledger.password",
    "ledger.password_file",
    "ledger.durability",
    "ledger.trust_storage",
    "ledger.queue_capacity",
    "ledger.max_batch",
    "ledger.search_file",
    "traces.endpoint",
    "traces.headers",
    "traces.headers_file",
    "traces.sample_percent",
    "traces.timeout_ms",
];

/// One key whose effective value differs. Secrets are redacted, so both texts may look the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key. Endpoints are named, as in `endpoints[purchase].dedupe_window`.
    pub key: String,
    /// The old value as TOML; `None` if there was none.
    pub from: Option<String>,
    /// The new value as TOML; `None` if there is none.
    pub to: Option<String>,
}

/// All differences.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Keys, except those of added or removed endpoints.
    pub keys: Vec<Change>,
    /// Names of added endpoints.
    pub endpoints_added: Vec<String>,
    /// Names of removed endpoints.
    pub endpoints_removed: Vec<String>,
}

impl Changes {
    /// True if nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.endpoints_added.is_empty() && self.endpoints_removed.is_empty()
    }

    /// True if a key of this section has changed.
    #[must_use]
    pub fn touch(&self, section: &str) -> bool {
        let within = |key: &str| key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'));
        self.keys.iter().any(|change| within(&change.key))
    }

    /// The changed keys that take effect only after a restart.
    pub fn needing_restart(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|change| change.key.as_str()).filter(|key| NEEDS_RESTART.contains(key))
    }
}

impl Effective {
    /// The differences in `new`. A secret in a file is compared by the content read at load time.
    #[must_use]
    pub fn changes_to(&self, new: &Self) -> Changes {
        let (before, after) = (self.by_name(), new.by_name());
        let (old_names, new_names) = (self.endpoint_names(), new.endpoint_names());
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        let stays = |endpoint: &Option<&str>| {
            endpoint.is_none_or(|name| old_names.contains(name) && new_names.contains(name))
        };
        let mut keys = Vec::new();
        for (key, endpoint, shown) in &after {
            let old = before.iter().find(|(old, ..)| old == key).map(|(.., shown)| *shown);
            if stays(endpoint) && old.is_none_or(|old| !old.is_same(shown)) {
                let from = old.map(|old| old.value.to_string());
                keys.push(Change { key: key.clone(), from, to: Some(shown.value.to_string()) });
            }
        }
        for (key, endpoint, shown) in &before {
            if stays(endpoint) && after.iter().all(|(new, ..)| new != key) {
                keys.push(Change { key: key.clone(), from: Some(shown.value.to_string()), to: None });
            }
        }
        Changes {
            keys,
            endpoints_added: owned(new_names.difference(&old_names).copied().collect()),
            endpoints_removed: owned(old_names.difference(&new_names).copied().collect()),
        }
    }

    fn endpoint_names(&self) -> BTreeSet<&str> {
        self.names().into_values().collect()
    }

    /// Endpoint names by position in the list.
    fn names(&self) -> BTreeMap<usize, &str> {
        let names = self.values.iter().filter_map(|shown| match shown.path.as_slice() {
            [Step::Key(list), Step::Index(at), Step::Key(key)] if list == "endpoints" && key == "name" => {
                Some((*at, shown.value.as_str()?))
            }
            _ => None,
        });
        names.collect()
    }

    /// Every value with its key. Endpoints are keyed by name: their position has no meaning, and inserting one must
    /// not look like a change of all others.
    fn by_name(&self) -> Vec<(String, Option<&str>, &Shown)> {
        let names = self.names();
        let named = |shown: &'_ Shown| match shown.path.as_slice() {
            [Step::Key(list), Step::Index(at), rest @ ..] if list == "endpoints" => {
                names.get(at).map(|name| (*name, spell(rest)))
            }
            _ => None,
        };
        let all = self.values.iter().map(|shown| match named(shown) {
            Some((name, rest)) => (format!("endpoints[{name}].{rest}"), Some(name), shown),
            None => (spell(&shown.path), None, shown),
        });
        all.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{REFERENCE, Sources, load};

    fn changes(before: &str, after: &str) -> Changes {
        let dir = tempfile::tempdir().unwrap();
        let sources = Sources { directory: dir.path().to_owned(), ..Sources::default() };
        let path = dir.path().join("countersign.toml");
        let [before, after] = [before, after].map(|text| {
            fs::write(&path, text.replace("DIR", &dir.path().display().to_string())).unwrap();
            let loaded = load(&sources);
            assert_eq!(loaded.faults(), []);
            loaded.effective
        });
        before.changes_to(&after)
    }

    fn endpoint(name: &str, more: &str) -> String {
        format!(
            "[[endpoints]]\nname = '{name}'\nplain = true\ncredentials = [ {{ action_callback_token = 'hush-of-so-many-bytes' }} ]\n{more}\n"
        )
    }

    #[test]
    fn a_changed_key_is_told_with_both_values_and_its_endpoint_by_name() {
        let before = format!("[log]\nfilter = 'info'\n{}", endpoint("a", "dedupe_window = '60s'"));
        let after = format!("{}{}", endpoint("new", ""), endpoint("a", "dedupe_window = '5m'"));
        let changes = changes(&before, &format!("[log]\nfilter = 'debug'\n{after}"));
        assert_eq!(changes.endpoints_added, ["new"]);
        assert!(changes.endpoints_removed.is_empty());
        let told: Vec<_> = changes
            .keys
            .iter()
            .map(|change| {
                (change.key.as_str(), change.from.as_deref().unwrap(), change.to.as_deref().unwrap())
            })
            .collect();
        assert_eq!(
            told,
            [("log.filter", "\"info\"", "\"debug\""), ("endpoints[a].dedupe_window", "\"60s\"", "\"300s\"")]
        );
    }

    #[test]
    fn a_changed_secret_is_noticed_and_not_told() {
        let changed = changes(&endpoint("a", ""), &endpoint("a", "").replace("hush", "hash"));
        assert_eq!(
            changed.keys,
            [Change {
                key: "endpoints[a].credentials[0].action_callback_token".to_owned(),
                from: Some("\"[redacted]\"".to_owned()),
                to: Some("\"[redacted]\"".to_owned()),
            }]
        );
        let url = |password| format!("[amqp]\nurl = 'amqp://u:{password}@h'\n{}", endpoint("a", ""));
        let changed = changes(&url("hush"), &url("hash"));
        assert_eq!(changed.keys[0].key, "amqp.url");
        assert!(!format!("{changed:?}").contains("hush") && !format!("{changed:?}").contains("hash"));
    }

    #[test]
    fn a_secret_in_a_file_that_stays_where_it_was_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let text = format!(
            "[[endpoints]]\nname = 'a'\nplain = true\ncredentials = [ {{ action_callback_token_file = '{}' }} ]\n",
            file.display()
        );
        fs::write(dir.path().join("countersign.toml"), text).unwrap();
        let sources = Sources { directory: dir.path().to_owned(), ..Sources::default() };
        let [one, same, other] =
            ["hush-of-so-many-bytes", "hush-of-so-many-bytes\n", "hash-of-so-many-bytes"].map(|token| {
                fs::write(&file, token).unwrap();
                load(&sources).effective
            });
        assert!(one.changes_to(&same).is_empty());
        let changes = one.changes_to(&other);
        assert_eq!(changes.keys[0].key, "endpoints[a].credentials[0].action_callback_token_file");
    }

    #[test]
    fn what_only_a_restart_changes_is_named() {
        let before = endpoint("a", "");
        let after = format!("[http]\nlisten = '127.0.0.1:1'\nmax_body_bytes = 2048\n{before}");
        let changes = changes(&before, &after);
        assert_eq!(changes.keys.len(), 2);
        assert_eq!(changes.needing_restart().collect::<Vec<_>>(), ["http.listen"]);
        let marked = REFERENCE.lines().filter(|line| line.ends_with("(restart)")).count();
        // A secret has one mark, and two keys.
        let is_of_secret =
            |key: &str| key.strip_suffix("_file").is_some_and(|secret| NEEDS_RESTART.contains(&secret));
        let keys: Vec<_> = NEEDS_RESTART.iter().filter(|key| !is_of_secret(key)).collect();
        assert_eq!(marked, keys.len(), "the reference marks each of them");
        for key in keys {
            let (section, name) = key.split_once('.').unwrap();
            let section = &REFERENCE[REFERENCE.find(&format!("\n[{section}]\n")).unwrap()..];
            let is_there = ["", "# "].iter().any(|mark| section.contains(&format!("\n{mark}{name} = ")));
            assert!(is_there, "{key}");
        }
    }
}
