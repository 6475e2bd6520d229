//! Task status (platform.md#task-status): v4 with `page_token`, and the historic v2 with `scroll_id`.

use serde_json::{Value, json};

use super::{
    api::{Answered, ApiError, Ask},
    fields::{is_absent, items, millis},
    tenant::{Instance, PageToken, Tenant},
    values::random_hex,
};

const FILTERS: [&str; 4] = ["approval_codes", "instance_ids", "user_ids", "status"];

/// Fixed page size of the historic API.
const SCROLLED_AT_ONCE: usize = 20;

/// v4.
pub(super) fn list(tenant: &mut Tenant, ask: &Ask) -> Answered {
    let size = match ask.query("page_size").map(str::parse) {
        None => 50,
        Some(Ok(size @ 1..=500)) => size,
        Some(_) => return Err(ApiError::parameter("param is invalid: page_size")),
    };
    let token = ask.query("page_token").filter(|token| !token.is_empty());
    let cursor = place(tenant, token, &ask.body)?;
    let found = found(tenant, &cursor.filter);
    let page: Vec<_> = found
        .iter()
        .skip(cursor.given)
        .take(size)
        .map(|instance| shown(instance, &cursor.filter, |time| json!(time.to_string())))
        .collect();
    let given = cursor.given + page.len();
    if given < found.len() {
        let token = keep(tenant, PageToken { filter: cursor.filter, given });
        return Ok(json!({ "data": page, "page_token": token, "has_more": true }));
    }
    Ok(json!({ "data": page, "has_more": false }))
}

/// v2. One `scroll_id` names the whole list; it is empty at the end.
pub(super) fn scroll(tenant: &mut Tenant, ask: &Ask) -> Answered {
    let scroll = ask.body["scroll_id"].as_str().filter(|scroll| !scroll.is_empty()).map(str::to_owned);
    let mut cursor = place(tenant, scroll.as_deref(), &ask.body)?;
    let found = found(tenant, &cursor.filter);
    let page: Vec<_> = found
        .iter()
        .skip(cursor.given)
        .take(SCROLLED_AT_ONCE)
        .map(|instance| shown(instance, &cursor.filter, |time| json!(time)))
        .collect();
    cursor.given += page.len();
    if cursor.given >= found.len() {
        return Ok(json!({ "data": page, "scroll_id": "" }));
    }
    let scroll = match scroll {
        Some(scroll) => {
            tenant.cursors.insert(scroll.clone(), cursor);
            scroll
        }
        None => keep(tenant, cursor),
    };
    Ok(json!({ "data": page, "scroll_id": scroll }))
}

fn keep(tenant: &mut Tenant, cursor: PageToken) -> String {
    let mark = random_hex::<24>();
    tenant.cursors.insert(mark.clone(), cursor);
    mark
}

/// The position in the list, or a new list if the filters are an allowed combination (platform.md#task-status).
fn place(tenant: &Tenant, mark: Option<&str>, body: &Value) -> Result<PageToken, ApiError> {
    if let Some(mark) = mark {
        let cursor = tenant.cursors.get(mark).cloned();
        return cursor.ok_or_else(|| ApiError::parameter("param is invalid: page_token"));
    }
    let given = FILTERS.map(|filter| {
        !is_absent(&body[filter]) && body[filter].as_array().is_none_or(|list| !list.is_empty())
    });
    let [codes, instances, users, status] = given;
    let allowed = (instances && !codes && !users && !status) || (codes && status && !instances);
    if !allowed {
        return Err(ApiError::parameter("param is invalid: this combination of filters is not allowed"));
    }
    if items(&body["approval_codes"]).len() > 20 || items(&body["instance_ids"]).len() > 20 {
        return Err(ApiError::parameter("param is invalid: too many codes or ids"));
    }
    Ok(PageToken { filter: body.clone(), given: 0 })
}

fn has(list: &Value, text: &str) -> bool {
    items(list).iter().any(|entry| entry == text)
}

fn found<'t>(tenant: &'t Tenant, filter: &Value) -> Vec<&'t Instance> {
    let visible = tenant.instances.iter().filter(|instance| instance.is_visible());
    if !items(&filter["instance_ids"]).is_empty() {
        return visible
            .filter(|instance| has(&filter["instance_ids"], instance.text("instance_id")))
            .collect();
    }
    visible
        .filter(|instance| has(&filter["approval_codes"], instance.text("approval_code")))
        .filter(|instance| instance.tasks.iter().any(|task| fits(tenant, task, filter)))
        .collect()
}

fn fits(tenant: &Tenant, task: &Value, filter: &Value) -> bool {
    let users = &filter["user_ids"];
    task["status"] == filter["status"]
        && (items(users).is_empty() || tenant.user_of(task).is_some_and(|user| has(users, &user)))
}

/// OPEN: an instance found by task status has only its tasks in that status.
fn shown(instance: &Instance, filter: &Value, time: impl Fn(i64) -> Value) -> Value {
    let status = filter["status"].as_str().filter(|_| items(&filter["instance_ids"]).is_empty());
    let tasks: Vec<_> = instance
        .tasks
        .iter()
        .filter(|task| status.is_none_or(|status| task["status"] == status))
        .map(|task| {
            json!({
                "id": task["task_id"], "status": task["status"],
                "update_time": time(millis(&task["update_time"])),
            })
        })
        .collect();
    json!({
        "instance_id": instance.text("instance_id"), "approval_id": instance.number.to_string(),
        "approval_code": instance.text("approval_code"), "status": instance.text("status"),
        "update_time": time(millis(&instance.body["update_time"])), "tasks": tasks,
    })
}
