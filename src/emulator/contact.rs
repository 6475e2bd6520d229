//! User ids (platform.md#user-ids).

use serde_json::{Value, json};

use super::{
    api::{Answered, ApiError, Ask},
    tenant::{Person, Tenant},
};

fn shown(tenant: &Tenant, person: &Person) -> Value {
    let mut user = json!({
        "open_id": person.open_id, "union_id": person.union_id, "name": person.user_id,
    });
    // `user_id` requires its own scope.
    if !tenant.settings.missing_scopes.iter().any(|scope| scope == "contact:user.employee_id:readonly") {
        user["user_id"] = person.user_id.as_str().into();
    }
    user
}

pub(super) fn get(tenant: &mut Tenant, ask: &Ask) -> Answered {
    let kind = ask.query("user_id_type").unwrap_or("open_id");
    match tenant.person(kind, &ask.id) {
        Some(person) => Ok(json!({ "user": shown(tenant, person) })),
        None if ask.id.starts_with("ou_") => Err(ApiError::new(41_050, "no user authority error")),
        None => Err(ApiError::new(41_012, "user id invalid error")),
    }
}

/// Up to 50 users. OPEN: unknown users are left out.
pub(super) fn batch(tenant: &mut Tenant, ask: &Ask) -> Answered {
    let kind = ask.query("user_id_type").unwrap_or("open_id");
    let ids: Vec<&str> =
        ask.query.iter().filter(|(key, _)| key == "user_ids").map(|(_, id)| id.as_str()).collect();
    if ids.is_empty() || ids.len() > 50 {
        return Err(ApiError::new(40_001, "param error"));
    }
    let items: Vec<_> =
        ids.iter().filter_map(|id| tenant.person(kind, id)).map(|person| shown(tenant, person)).collect();
    Ok(json!({ "items": items }))
}
