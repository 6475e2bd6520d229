//! From a callback and its `action_context` to the third party's task, by local data only.
//!
//! The platform echoes `action_context` byte for byte, and for a card it may be the only thing that says which task is
//! meant (§1.4). A format either *fits* a callback and yields the task, or it does not and the next one is tried. A
//! context that fits but contradicts the callback's own fields is refused, whatever the other formats would say: one of
//! the two is not what the third party meant.

use serde_json::{Value, value::RawValue};

use crate::{
    callback::Verified,
    command::{ResolvedBy, TaskRef},
};

/// How an endpoint's contexts are read.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Tried in this order; never empty.
    pub formats: Vec<Format>,
    /// What to do when none fits.
    pub on_unresolved: OnUnresolved,
}

/// One way to read a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// Passed on verbatim; the callback's own fields name the task.
    Opaque,
    /// A JSON object; the task is where the pointers point.
    Json(JsonFields),
}

/// JSON pointers (RFC 6901) into the context. At least `task_id` or `instance_id` is given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JsonFields {
    /// Where the task id stands.
    pub task_id: Option<String>,
    /// Where the instance id stands.
    pub instance_id: Option<String>,
    /// Where the round stands.
    pub round: Option<String>,
    /// Where the document number stands.
    pub business_key: Option<String>,
    /// Where free data for the worker stands.
    pub data: Option<String>,
}

/// What to do with a callback whose context no format fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUnresolved {
    /// Publish it with `"resolved_by": null`.
    #[default]
    Publish,
    /// Refuse it as `context_invalid`.
    Refuse,
}

/// Why a context was refused. Says nothing of what stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// No format fits, and one must.
    #[error("no configured format fits the context")]
    Unresolved,
    /// The context names another task than the callback's own fields.
    #[error("the context and the callback disagree on {0}")]
    Contradiction(&'static str),
}

/// Finds the task of a callback.
///
/// # Errors
/// [`ContextError::Contradiction`] if the format that fits names another task than the callback itself;
/// [`ContextError::Unresolved`] if none fits and the settings say to refuse that.
pub fn resolve(settings: &Settings, callback: &Verified) -> Result<TaskRef, ContextError> {
    for format in &settings.formats {
        let found = match format {
            Format::Opaque => opaque(callback),
            Format::Json(fields) => json(fields, callback),
        };
        if let Some(found) = found {
            return agree(found, callback);
        }
    }
    match settings.on_unresolved {
        OnUnresolved::Refuse => Err(ContextError::Unresolved),
        OnUnresolved::Publish => agree(TaskRef::default(), callback),
    }
}

/// The task id that the callback itself carries: `id` is the task of a search (§1.2).
fn own_task_id(callback: &Verified) -> Option<&str> {
    callback.task_id.as_deref().or(callback.id.as_deref())
}

/// Fits whatever names a task in any way: with the callback's own ids, or with a context for the worker to read.
fn opaque(callback: &Verified) -> Option<TaskRef> {
    let named = callback.action_context.is_some()
        || callback.instance_id.is_some()
        || own_task_id(callback).is_some();
    named.then(|| TaskRef { resolved_by: Some(ResolvedBy::Opaque), ..TaskRef::default() })
}

/// Fits a JSON object in which every pointer to an id that is configured, and one at least, finds a text or a number.
///
/// The round is part of what makes two callbacks the same, so a context without the configured round does not fit
/// either: it would silently turn "for ever" into "for a minute".
fn json(fields: &JsonFields, callback: &Verified) -> Option<TaskRef> {
    let context: &RawValue = serde_json::from_str(callback.action_context.as_deref()?).ok()?;
    let at = |pointer: &Option<String>| match pointer {
        None => Some(None),
        Some(pointer) => Some(Some(id_at(context, pointer)?)),
    };
    if !context.get().starts_with('{') {
        return None;
    }
    let found = TaskRef {
        task_id: at(&fields.task_id)?,
        instance_id: at(&fields.instance_id)?,
        round: at(&fields.round)?,
        business_key: fields.business_key.as_ref().and_then(|pointer| id_at(context, pointer)),
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

fn id_at(context: &RawValue, pointer: &str) -> Option<String> {
    const MAX_ID_BYTES: usize = 512;
    let value = value_at(context, pointer)?;
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

/// Completes what the context left open from the callback's own fields, and refuses what they contradict.
fn agree(mut found: TaskRef, callback: &Verified) -> Result<TaskRef, ContextError> {
    let own_task = own_task_id(callback);
    for (name, in_context, own) in [
        ("the instance", &mut found.instance_id, callback.instance_id.as_deref()),
        ("the task", &mut found.task_id, own_task),
    ] {
        match (in_context.as_deref(), own) {
            (Some(context), Some(own)) if context != own => return Err(ContextError::Contradiction(name)),
            (None, Some(own)) => *in_context = Some(own.to_owned()),
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        callback::{self, CredentialSettings, Credentials},
        secret::Secret,
    };

    fn verified(members: &str) -> Verified {
        let credentials = Credentials::new(&[CredentialSettings {
            action_callback_token: Secret::new("t"),
            action_callback_key: None,
        }]);
        callback::open(&credentials, format!(r#"{{"token":"t",{members}}}"#).as_bytes()).unwrap()
    }

    fn with_context(context: &str, rest: &str) -> Verified {
        verified(&format!("\"action_context\":{}{rest}", serde_json::to_string(context).unwrap()))
    }

    fn settings(formats: Vec<Format>, on_unresolved: OnUnresolved) -> Settings {
        Settings { formats, on_unresolved }
    }

    fn json_format() -> Format {
        Format::Json(JsonFields {
            task_id: Some("/t".to_owned()),
            instance_id: Some("/i".to_owned()),
            round: Some("/r".to_owned()),
            business_key: Some("/k".to_owned()),
            data: Some("/d/0".to_owned()),
        })
    }

    #[test]
    fn opaque_takes_the_callbacks_own_fields() {
        let opaque = settings(vec![Format::Opaque], OnUnresolved::Refuse);
        let list = resolve(&opaque, &verified(r#""instance_id":"i","task_id":"t""#)).unwrap();
        assert_eq!((list.instance_id.as_deref(), list.task_id.as_deref()), (Some("i"), Some("t")));
        assert_eq!(list.resolved_by, Some(ResolvedBy::Opaque));
        let search = resolve(&opaque, &verified(r#""id":"t-9""#)).unwrap();
        assert_eq!((search.instance_id, search.task_id.as_deref()), (None, Some("t-9")));
        let card = resolve(&opaque, &with_context("{\"t\":\"x\"}", "")).unwrap();
        assert_eq!(
            (card.instance_id, card.task_id, card.resolved_by),
            (None, None, Some(ResolvedBy::Opaque))
        );
    }

    #[test]
    fn a_callback_that_names_nothing_is_published_unresolved_or_refused() {
        let nothing = verified(r#""user_id":"u""#);
        let publish = resolve(&settings(vec![Format::Opaque], OnUnresolved::Publish), &nothing).unwrap();
        assert_eq!(publish.resolved_by, None);
        let refuse = resolve(&settings(vec![Format::Opaque], OnUnresolved::Refuse), &nothing);
        assert_eq!(refuse.unwrap_err(), ContextError::Unresolved);
    }

    #[test]
    fn json_pointers_find_ids_as_texts_and_as_numbers() {
        let json = settings(vec![json_format()], OnUnresolved::Refuse);
        let context = r#"{"t":"t1","i":7690275278685244603,"r":2,"k":"PO-77","d":[{"a":1.50}]}"#;
        let task = resolve(&json, &with_context(context, "")).unwrap();
        assert_eq!(task.task_id.as_deref(), Some("t1"));
        assert_eq!(task.instance_id.as_deref(), Some("7690275278685244603"));
        assert_eq!(task.round.as_deref(), Some("2"));
        assert_eq!(task.business_key.as_deref(), Some("PO-77"));
        assert_eq!(task.data.unwrap().get(), r#"{"a":1.50}"#);
        assert_eq!(task.resolved_by, Some(ResolvedBy::Json));
    }

    #[test]
    fn a_context_that_json_does_not_fit_is_unresolved() {
        let json = settings(vec![json_format()], OnUnresolved::Refuse);
        for context in [
            "PO-77/n2",
            "[1]",
            "\"x\"",
            r#"{"t":"t1","i":"i1"}"#,
            r#"{"t":"t1","i":null,"r":1}"#,
            r#"{"t":"","i":"i1","r":1}"#,
            r#"{"t":{"x":1},"i":"i1","r":1}"#,
            r#"{"t":1.5,"i":"i1","r":1}"#,
            r#"{"t":"a","t":"b","i":"i1","r":1}"#,
        ] {
            assert_eq!(
                resolve(&json, &with_context(context, "")).unwrap_err(),
                ContextError::Unresolved,
                "{context}"
            );
        }
    }

    #[test]
    fn what_json_cannot_read_is_left_to_the_next_format() {
        let both = settings(vec![json_format(), Format::Opaque], OnUnresolved::Refuse);
        let task = resolve(&both, &with_context("PO-77/n2", r#","task_id":"t1""#)).unwrap();
        assert_eq!((task.resolved_by, task.task_id.as_deref()), (Some(ResolvedBy::Opaque), Some("t1")));
    }

    #[test]
    fn a_contradiction_is_refused_whatever_the_settings_say() {
        let both = settings(vec![json_format(), Format::Opaque], OnUnresolved::Publish);
        let context = r#"{"t":"t1","i":"i1","r":1}"#;
        for (rest, name) in [
            (r#","task_id":"t2""#, "the task"),
            (r#","id":"t2""#, "the task"),
            (r#","instance_id":"i2","task_id":"t1""#, "the instance"),
        ] {
            let refused = resolve(&both, &with_context(context, rest)).unwrap_err();
            assert_eq!(refused, ContextError::Contradiction(name), "{rest}");
        }
        assert!(resolve(&both, &with_context(context, r#","instance_id":"i1","task_id":"t1""#)).is_ok());
    }

    #[test]
    fn what_the_context_leaves_open_comes_from_the_callback() {
        let fields = JsonFields { task_id: Some("/a~1b/c~0d".to_owned()), ..JsonFields::default() };
        let json = settings(vec![Format::Json(fields)], OnUnresolved::Refuse);
        let task =
            resolve(&json, &with_context(r#"{"a/b":{"c~d":"t1"}}"#, r#","instance_id":"i1""#)).unwrap();
        assert_eq!((task.task_id.as_deref(), task.instance_id.as_deref()), (Some("t1"), Some("i1")));
    }
}
