//! From a callback and its `action_context` to the third party's task, by local data only.
//!
//! The platform echoes `action_context` byte for byte, and for a card it may be the only thing that says which task is
//! meant (platform.md#callback-origins). A format either *fits* a callback and yields the task, or it does not and
//! the next one is tried. A context that fits but contradicts the callback's own fields is refused, whatever the
//! other formats would say: one of the two is not what the third party meant.

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

/// Bytes of an identifier in a context: the same limit as for one in a callback.
const MAX_ID_BYTES: usize = 512;

/// How an endpoint's contexts are read.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Tried in this order; never empty.
    pub formats: Vec<Format>,
    /// What to do when none fits.
    pub on_unresolved: OnUnresolved,
}

impl Settings {
    /// True if contexts have to be looked up among the registered ones.
    #[must_use]
    pub fn uses_registry(&self) -> bool {
        self.formats.iter().any(|format| matches!(format, Format::Registry))
    }

    /// The formats whose contexts have neither a round nor an end: a callback that was captured counts again when
    /// `dedupe_window` has passed, and only `repeats` of its command tells. With each, what to do about it. What was
    /// registered may have an end, so `registry` is never among them.
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

/// One way to read a context.
#[derive(Debug, Clone)]
pub enum Format {
    /// Passed on verbatim; the callback's own fields name the task.
    Opaque,
    /// A JSON object; the task is where the pointers point.
    Json(JsonFields),
    /// A regular expression with named groups.
    Pattern(pattern::Pattern),
    /// A JWT minted by the third party.
    Jwt(jwt::Keys),
    /// A key that the third party registered beforehand.
    Registry,
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

/// What is known beside the callback.
#[derive(Debug, Clone, Copy)]
pub struct ResolveInput<'a> {
    /// The endpoint that received it.
    pub endpoint: &'a str,
    /// When.
    pub now: Timestamp,
    /// What the third party registered for this context or message.
    pub registered: Option<&'a Registered>,
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
    /// The context is signed, but not by the third party, or not for this.
    #[error("{0}")]
    Forged(&'static str),
    /// The context counted once.
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
/// See [`ContextError`]; [`ContextError::Unresolved`] only if the settings say to refuse what no format fits.
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
                    // The instance id was what the pattern took apart; it cannot contradict itself.
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

/// Whether a text has the form of an identifier, as one in a callback has: no longer, and without control characters.
fn is_id(text: &str) -> bool {
    text.len() <= MAX_ID_BYTES && !text.chars().any(char::is_control)
}

/// The task id that the callback itself carries: `id` is the task of a search (platform.md#callback-fields).
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

/// Holds a callback to what its context permits.
fn permit(grant: &Grant, callback: &Verified, endpoint: &str) -> Result<(), ContextError> {
    if grant.endpoint.as_deref().is_some_and(|bound| bound != endpoint) {
        return Err(ContextError::Forged("the context is for another endpoint"));
    }
    // A card carries no code (platform.md#callback-origins); then there is nothing to compare.
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

/// Completes what the context left open from the callback's own fields, and refuses what they contradict.
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
