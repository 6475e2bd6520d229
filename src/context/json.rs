//! The format `json`: JSON pointers into the context.

use std::collections::BTreeMap;

use serde_json::{Value, value::RawValue};

use super::{JsonFields, is_id};
use crate::{
    callback,
    command::{ResolvedBy, TaskRef},
};

/// Matches a JSON object in which a pointer finds the task id or the instance id.
///
/// A pointer must find a text or a number; unset values count as absent, as in a callback. With any other value in
/// the place of an id, or with a repeated name, the context does not match.
pub(super) fn fit(fields: &JsonFields, context: &str) -> Option<TaskRef> {
    let context: &RawValue = serde_json::from_str(context).ok()?;
    if !context.get().starts_with('{') {
        return None;
    }
    // The limits for callbacks apply here too: the values go to the same workers.
    callback::check(context).ok()?;
    let at = |pointer: &Option<String>, is_unset: fn(&RawValue) -> bool| match pointer
        .as_ref()
        .and_then(|pointer| value_at(context, pointer))
    {
        None => Some(None),
        Some(value) if is_unset(&value) => Some(None),
        Some(value) => id(&value).map(Some),
    };
    let of_id = crate::command::is_unset;
    let found = TaskRef {
        task_id: at(&fields.task_id, of_id)?,
        instance_id: at(&fields.instance_id, of_id)?,
        // 0 is a value here: some systems count rounds from 0.
        round: at(&fields.round, |value| value.get() != "0" && crate::command::is_unset(value))?,
        business_key: at(&fields.business_key, of_id)?,
        resolved_by: Some(ResolvedBy::Json),
        data: fields.data.as_ref().and_then(|pointer| value_at(context, pointer)),
    };
    (found.task_id.is_some() || found.instance_id.is_some()).then_some(found)
}

/// Follows a JSON pointer without converting numbers to floats.
fn value_at(context: &RawValue, pointer: &str) -> Option<Box<RawValue>> {
    let mut value = context.to_owned();
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        value = match value.get().as_bytes()[0] {
            b'{' => {
                let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(value.get()).ok()?;
                members.remove(&token)?
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

/// An identifier in a context: a text, or an integer, which keeps its literal digits.
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
    (is_id(&id) && !id.trim().is_empty()).then_some(id)
}
