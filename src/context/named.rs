//! The task named by a refused callback's context: for the record, never for a decision.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Format, Settings, json, jwt};
use crate::command::{Registered, TaskRef};

/// The task that the first fitting format reads from a context, unverified: signature, expiry and permissions are
/// ignored. `None` if no format reads one.
#[must_use]
pub fn named(
    settings: &Settings,
    action_context: Option<&str>,
    instance_id: Option<&str>,
    registered: Option<&Registered>,
) -> Option<TaskRef> {
    settings.formats.iter().find_map(|format| match format {
        Format::Opaque => None,
        Format::Json(fields) => json::fit(fields, action_context?),
        Format::Pattern(pattern) => pattern.fit(action_context, instance_id),
        Format::Jwt(_) => claimed(action_context?),
        Format::Registry => registered.map(|registered| registered.grant.task.clone()),
    })
}

/// The claims that name a task; each may have any type.
#[derive(Deserialize)]
struct Claimed {
    #[serde(default)]
    instance_id: Option<Box<RawValue>>,
    #[serde(default)]
    task_id: Option<Box<RawValue>>,
    #[serde(default)]
    round: Option<Box<RawValue>>,
    #[serde(default)]
    jti: Option<Box<RawValue>>,
    #[serde(default)]
    business_key: Option<Box<RawValue>>,
}

/// The task named in a token, whatever its signature.
fn claimed(context: &str) -> Option<TaskRef> {
    let claims = context.split('.').nth(1).filter(|_| jwt::looks_like_one(context))?;
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    let Claimed { instance_id, task_id, round, jti, business_key } = serde_json::from_slice(&claims).ok()?;
    let id = |claim: Option<Box<RawValue>>| claim.and_then(|claim| json::id(&claim));
    Some(TaskRef {
        instance_id: id(instance_id),
        task_id: id(task_id),
        round: id(round).or_else(|| id(jti)),
        business_key: id(business_key),
        ..TaskRef::default()
    })
}
