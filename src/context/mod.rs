//! Resolves a callback and its `action_context` to the third party's task, with local data only.
//!
//! The platform echoes `action_context` byte for byte, and for a card it may be the only member that identifies the
//! task (platform.md#callback-origins). If a format *fits* a callback, it yields the task; otherwise the next one is
//! tried. A context that fits but contradicts the callback's own fields is refused without trying other formats: one
//! of the two is not what the third party meant.

mod json;
pub mod jwt;
mod named;
pub mod pattern;
#[cfg(test)]
mod tests;

pub use named::named;

use crate::{
    callback::Verified,
    command::{Grant, Registered, ResolvedBy, TaskRef},
    time::Timestamp,
};

/// Bytes per identifier in a context: the same limit as in a callback.
const MAX_ID_BYTES: usize = 512;

/// How an endpoint's contexts are parsed.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Tried in this order; never empty.
    pub formats: Vec<Format>,
    /// What to do if none fits.
    pub on_unresolved: OnUnresolved,
}

impl Settings {
    /// True if contexts must be looked up in the registry.
    #[must_use]
    pub fn uses_registry(&self) -> bool {
        self.formats.iter().any(|format| matches!(format, Format::Registry))
    }

    /// The formats whose contexts have neither a round nor an end, each with advice. With them, a captured callback
    /// is accepted again after `dedupe_window`, and only `repeats` of its command shows it. Registrations may have an
    /// end, so `registry` is never included.
    #[must_use]
    pub fn replayable(&self) -> Vec<(&'static str, &'static str)> {
        macro_rules! again {
            () => {
                "contexts have neither a round nor an end, so a captured callback is accepted again after dedupe_window, and only `repeats` tells"
            };
        }
        let lack = |format: &Format| match format {
            Format::Opaque => Some((
                "opaque",
                concat!(again!(), "; name a round by another format where a replay would do harm"),
            )),
            Format::Json(fields) if fields.round.is_none() => {
                Some(("json", concat!(again!(), "; point fields.round at one")))
            }
            Format::Pattern(pattern) if !pattern.has_round() => {
                Some(("pattern", concat!(again!(), "; name a group round")))
            }
            Format::Jwt(keys) => {
                let require = &keys.demands().require;
                let ends = [jwt::Requirement::Exp, jwt::Requirement::Round];
                (!ends.iter().any(|one| require.contains(one)))
                    .then_some(("jwt", concat!(again!(), "; put exp and round into jwt.require")))
            }
            Format::Json(_) | Format::Pattern(_) | Format::Registry => None,
        };
        self.formats.iter().filter_map(lack).collect()
    }
}

/// One way to parse a context.
#[derive(Debug, Clone)]
pub enum Format {
    /// Passed on verbatim; the callback's own fields identify the task.
    Opaque,
    /// A JSON object; pointers locate the task.
    Json(JsonFields),
    /// A regular expression with named groups.
    Pattern(pattern::Pattern),
    /// A JWT issued by the third party.
    Jwt(jwt::Keys),
    /// A key that the third party registered beforehand.
    Registry,
}

/// JSON pointers (RFC 6901) into the context. At least `task_id` or `instance_id` is set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JsonFields {
    /// Pointer to the task id.
    pub task_id: Option<String>,
    /// Pointer to the instance id.
    pub instance_id: Option<String>,
    /// Pointer to the round.
    pub round: Option<String>,
    /// Pointer to the document number.
    pub business_key: Option<String>,
    /// Pointer to free data for the worker.
    pub data: Option<String>,
}

/// What to do with a callback whose context fits no format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUnresolved {
    /// Publish it with `"resolved_by": null`.
    #[default]
    Publish,
    /// Refuse it as `context_invalid`.
    Refuse,
}

/// Inputs in addition to the callback.
#[derive(Debug, Clone, Copy)]
pub struct ResolveInput<'a> {
    /// The endpoint that received it.
    pub endpoint: &'a str,
    /// When it was received.
    pub now: Timestamp,
    /// The third party's registration for this context or message.
    pub registered: Option<&'a Registered>,
}

/// Why a context was refused. Reveals nothing of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// No format fits, but one is required.
    #[error("no configured format fits the context")]
    Unresolved,
    /// The context names another task than the callback's own fields.
    #[error("the context and the callback disagree on {0}")]
    Contradiction(&'static str),
    /// The context is signed, but not by the third party, or for another purpose.
    #[error("{0}")]
    Forged(&'static str),
    /// The context has expired.
    #[error("the context has expired")]
    Expired,
    /// The context is for other operators.
    #[error("the operator is not among those that the context permits")]
    OperatorNotAllowed,
    /// The context is for other actions.
    #[error("the action is not among those that the context permits")]
    ActionNotAllowed,
}

/// Finds the task of a callback.
///
/// # Errors
/// See [`ContextError`]. [`ContextError::Unresolved`] occurs only if the settings refuse contexts that fit no format.
pub fn resolve(
    settings: &Settings,
    callback: &Verified,
    input: ResolveInput<'_>,
) -> Result<TaskRef, ContextError> {
    for format in &settings.formats {
        let found = match format {
            Format::Opaque => opaque(callback).map(Grant::unbound),
            Format::Json(fields) => callback
                .action_context
                .as_deref()
                .and_then(|context| json::fit(fields, context))
                .map(Grant::unbound),
            Format::Pattern(pattern) => {
                match pattern.fit(callback.action_context.as_deref(), callback.instance_id.as_deref()) {
                    // The pattern parsed the instance id itself, so that cannot contradict the result.
                    Some(task) if pattern.over() == pattern::Over::InstanceId => {
                        return complete(task, callback, false);
                    }
                    found => found.map(Grant::unbound),
                }
            }
            Format::Jwt(keys) => match callback.action_context.as_deref() {
                Some(context) => keys.fit(context, input.now)?,
                None => None,
            },
            Format::Registry => match input.registered {
                Some(found) if found.expires_at.is_some_and(|at| at <= input.now) => {
                    return Err(ContextError::Expired);
                }
                found => found.map(|found| found.grant.clone()),
            },
        };
        if let Some(grant) = found {
            permit(&grant, callback, input.endpoint)?;
            return complete(grant.task, callback, true);
        }
    }
    match settings.on_unresolved {
        OnUnresolved::Refuse => Err(ContextError::Unresolved),
        OnUnresolved::Publish => complete(TaskRef::default(), callback, true),
    }
}

/// Whether a text is a valid identifier, by the rules for callbacks: limited length, no control characters.
fn is_id(text: &str) -> bool {
    text.len() <= MAX_ID_BYTES && !text.chars().any(char::is_control)
}

/// The callback's own task id: `id` is the task of a search (platform.md#callback-fields).
fn own_task_id(callback: &Verified) -> Option<&str> {
    callback.task_id.as_deref().or(callback.id.as_deref())
}

/// Fits any callback that can identify a task: by its own ids, or by a context for the worker to read.
fn opaque(callback: &Verified) -> Option<TaskRef> {
    let named = callback.action_context.is_some()
        || callback.instance_id.is_some()
        || own_task_id(callback).is_some();
    named.then(|| TaskRef { resolved_by: Some(ResolvedBy::Opaque), ..TaskRef::default() })
}

/// Checks a callback against the permissions in its context.
fn permit(grant: &Grant, callback: &Verified, endpoint: &str) -> Result<(), ContextError> {
    if grant.endpoint.as_deref().is_some_and(|bound| bound != endpoint) {
        return Err(ContextError::Forged("the context is for another endpoint"));
    }
    // A card carries no code (platform.md#callback-origins), so there is nothing to compare.
    if let (Some(bound), Some(code)) = (&grant.approval_code, &callback.approval_code)
        && bound != code
    {
        return Err(ContextError::Contradiction("the definition"));
    }
    let among = |permitted: &Option<Vec<String>>, one: &Option<String>| match (permitted, one) {
        (None, _) => true,
        (Some(permitted), one) => one.as_ref().is_some_and(|one| permitted.contains(one)),
    };
    if !among(&grant.operators, &callback.user_id) {
        return Err(ContextError::OperatorNotAllowed);
    }
    if !among(&grant.actions, &callback.action_type) {
        return Err(ContextError::ActionNotAllowed);
    }
    Ok(())
}

/// Fills gaps in the context's task from the callback's own fields, and refuses contradictions.
fn complete(mut found: TaskRef, callback: &Verified, instance_counts: bool) -> Result<TaskRef, ContextError> {
    let own_instance = callback.instance_id.as_deref().filter(|_| instance_counts);
    for (name, in_context, own) in [
        ("the instance", &mut found.instance_id, own_instance),
        ("the task", &mut found.task_id, own_task_id(callback)),
    ] {
        match (in_context.as_deref(), own) {
            (Some(context), Some(own)) if context != own => return Err(ContextError::Contradiction(name)),
            (None, Some(own)) => *in_context = Some(own.to_owned()),
            _ => {}
        }
    }
    Ok(found)
}
