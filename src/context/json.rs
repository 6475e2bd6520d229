//! The format `json`: JSON pointers into the context.

use serde_json::{Value, value::RawValue};

use super::{JsonFields, MAX_ID_BYTES};
use crate::command::{ResolvedBy, TaskRef};

/// Fits a JSON object in which a pointer finds the task id or the instance id.
///
/// What a pointer finds is a text or a number; nothing, null and "" are the same, as in a callback (§1.5). Anything else
/// in the place of an id is not the context that was configured.
pub(super) fn fit(fields: &JsonFields, context: &str) -> Option<TaskRef> {
    let context: &RawValue = serde_json::from_str(context).ok()?;
    if !context.get().starts_with('{') {
        return None;
    }
    let at = |pointer: &Option<String>| match pointer.as_ref().and_then(|pointer| value_at(context, pointer))
    {
        None => Some(None),
        Some(value) if matches!(value.get(), "null" | "\"\"") => Some(None),
        Some(value) => id(&value).map(Some),
    };
    let found = TaskRef {
        task_id: at(&fields.task_id)?,
        instance_id: at(&fields.instance_id)?,
        round: at(&fields.round)?,
        business_key: at(&fields.business_key)?,
        resolved_by: Some(ResolvedBy::Json),
        data: fields.data.as_ref().and_then(|pointer| value_at(context, pointer)),
    };
    (found.task_id.is_some() || found.instance_id.is_some()).then_some(found)
}

/// Follows a JSON pointer without turning numbers into floats on the way.
fn value_at(context: &RawValue, pointer: &str) -> Option<Box<RawValue>> {
    let mut value = context.to_owned();
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        value = match value.get().as_bytes()[0] {
            b'{' => {
                // A name that stands twice has no one meaning; such a context does not fit.
                let members: Members = serde_json::from_str(value.get()).ok()?;
                members.only(&token)?
            }
            b'[' => {
                let items: Vec<Box<RawValue>> = serde_json::from_str(value.get()).ok()?;
                let index: usize = token.parse().ok()?;
                items.into_iter().nth(index)?
            }
            _ => return None,
        };
    }
    Some(value)
}

/// An identifier in a context: a text, or a whole number, of which the literal digits are taken.
pub(super) fn id(value: &RawValue) -> Option<String> {
    let literal = value.get();
    let id = match literal.as_bytes()[0] {
        b'"' => match serde_json::from_str::<Value>(literal).ok()? {
            Value::String(text) => text,
            _ => return None,
        },
        b'0'..=b'9' | b'-' if !literal.contains(['.', 'e', 'E']) => literal.to_owned(),
        _ => return None,
    };
    (!id.is_empty() && id.len() <= MAX_ID_BYTES).then_some(id)
}

/// An object whose repeated names are kept, so that they can be noticed.
struct Members(Vec<(String, Box<RawValue>)>);

impl Members {
    fn only(self, name: &str) -> Option<Box<RawValue>> {
        let mut named = self.0.into_iter().filter(|(member, _)| member == name);
        let (_, value) = named.next()?;
        named.next().is_none().then_some(value)
    }
}

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> serde::de::Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    members.push(entry);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}
