//! The limits on JSON, against a definition: what passes is read by `serde_json` into plain values, has unique names, no
//! more than 64 members in an object and no more than 8 containers in one another; and what does not pass breaks one of
//! these rules.

use std::{collections::BTreeSet, fmt};

use countersign::callback;
use serde_json::value::RawValue;

/// The names of an object with repetitions, and its values.
struct Pairs(Vec<(String, Box<RawValue>)>);

impl<'de> serde::Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> serde::de::Visitor<'de> for Collect {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// Depth is counted with one container round the value, as in a callback.
fn within_limits(text: &str, depth: usize) -> bool {
    if text.starts_with(['{', '[']) && depth >= 8 {
        return false;
    }
    if text.starts_with('{') {
        let Ok(Pairs(pairs)) = serde_json::from_str(text) else { return false };
        let names: BTreeSet<&String> = pairs.iter().map(|(name, _)| name).collect();
        names.len() == pairs.len()
            && pairs.len() <= 64
            && pairs.iter().all(|(_, value)| within_limits(value.get(), depth + 1))
    } else if text.starts_with('[') {
        let Ok(items) = serde_json::from_str::<Vec<Box<RawValue>>>(text) else { return false };
        items.iter().all(|item| within_limits(item.get(), depth + 1))
    } else {
        serde_json::from_str::<serde_json::Value>(text).is_ok()
    }
}

pub(super) fn run(data: &[u8]) {
    let Some(text) = super::read::<&str>(data) else { return };
    let Ok(value) = serde_json::from_str::<&RawValue>(text) else { return };
    let passes = callback::check(value).is_ok();
    if passes {
        assert!(
            serde_json::from_str::<serde_json::Value>(value.get()).is_ok(),
            "passes, and nobody can read it"
        );
    }
    assert_eq!(passes, within_limits(value.get(), 1));
}
