//! Synchronises and checks third-party instances (platform.md#third-party-instances).

use serde_json::{Value, json};

use super::{
    api::{Answered, ApiError, Ask},
    fields::{is_absent, items, keys, lists, millis, require, texts_are_lists, times, truths, violation},
    tenant::{Instance, Tenant},
    values::{fresh_code, json_bytes},
};

const STATUSES: [&str; 7] =
    ["PENDING", "APPROVED", "REJECTED", "CANCELED", "DELETED", "HIDDEN", "TERMINATED"];
const TASK_STATUSES: [&str; 5] = ["PENDING", "APPROVED", "REJECTED", "TRANSFERRED", "DONE"];

/// Members that an update does not change (platform.md#versions-and-update-modes).
const FIXED: [&str; 4] = ["approval_code", "instance_id", "department_id", "department_name"];
const FIXED_OF_TASK: [&str; 6] = ["task_id", "user_id", "open_id", "create_time", "node_id", "node_name"];
const FIXED_OF_CARBON: [&str; 4] = ["cc_id", "user_id", "open_id", "create_time"];

#[derive(Default)]
struct Changed {
    inserted: u64,
    updated: u64,
    deleted: u64,
}

impl Changed {
    fn json(&self) -> Value {
        json!({ "insert_num": self.inserted, "update_num": self.updated, "delete_num": self.deleted })
    }
}

pub(super) fn sync(tenant: &mut Tenant, ask: &Ask) -> Answered {
    let body = &ask.body;
    validate(body)?;
    let code = body["approval_code"].as_str().unwrap_or_default();
    if tenant.by_real_code(code).is_none() {
        return Err(ApiError::new(1_390_002, "approval code not found"));
    }
    let instance_id = body["instance_id"].as_str().unwrap_or_default();
    let replace = body["update_mode"].as_str().unwrap_or("REPLACE") != "UPDATE";
    let known = tenant.instances.iter().position(|instance| instance.text("instance_id") == instance_id);
    let mut before = Vec::new();
    let (mut of_instance, mut of_tasks, mut of_carbons) = <(Changed, Changed, Changed)>::default();
    match known {
        None => {
            let number = tenant.number();
            let (tasks, carbons) = (items(&body["task_list"]).to_vec(), items(&body["cc_list"]).to_vec());
            of_instance.inserted = 1;
            (of_tasks.inserted, of_carbons.inserted) = (tasks.len() as u64, carbons.len() as u64);
            let gone = false;
            let body = alone(body);
            let bytes = json_bytes(&ask.body);
            tenant.instances.push(Instance { code: fresh_code(), number, body, tasks, carbons, gone, bytes });
        }
        // If the instance's version is not larger, the whole request is ignored but reports success.
        Some(at)
            if !replace
                && millis(&body["update_time"]) <= millis(&tenant.instances[at].body["update_time"]) => {}
        Some(at) => {
            let instance = &mut tenant.instances[at];
            let mut fresh = alone(body);
            fix(&mut fresh, &instance.body, if replace { &FIXED[..2] } else { &FIXED });
            instance.body = fresh;
            of_instance.updated = 1;
            before = states(instance);
            of_tasks =
                merge(&mut instance.tasks, items(&body["task_list"]), "task_id", replace, &FIXED_OF_TASK);
            of_carbons =
                merge(&mut instance.carbons, items(&body["cc_list"]), "cc_id", replace, &FIXED_OF_CARBON);
            let items = instance.tasks.iter().chain(&instance.carbons);
            instance.bytes = json_bytes(&instance.body) + items.map(json_bytes).sum::<usize>();
            // The documented method to delete an instance permanently (platform.md#versions-and-update-modes).
            instance.gone |= replace
                && body["status"] == "APPROVED"
                && is_absent(&body["user_id"])
                && is_absent(&body["open_id"]);
        }
    }
    let after = known.map_or_else(Vec::new, |at| states(&tenant.instances[at]));
    for (task_id, to) in after {
        if let Some((_, from)) = before.iter().find(|(id, from)| *id == task_id && *from != to) {
            tenant.taps.task_turned(instance_id, &task_id, from, &to);
        }
    }
    Ok(json!({
        "data": body,
        "process_record": { "instance": of_instance.json(), "task": of_tasks.json(), "cc": of_carbons.json() },
    }))
}

/// The tasks with their statuses.
fn states(instance: &Instance) -> Vec<(String, String)> {
    let text = |task: &Value, member: &str| task[member].as_str().unwrap_or_default().to_owned();
    instance.tasks.iter().map(|task| (text(task, "task_id"), text(task, "status"))).collect()
}

fn alone(body: &Value) -> Value {
    let mut alone = body.clone();
    if let Some(members) = alone.as_object_mut() {
        members.remove("task_list");
        members.remove("cc_list");
    }
    alone
}

fn fix(fresh: &mut Value, old: &Value, members: &[&str]) {
    for member in members {
        fresh[*member] = old[*member].clone();
    }
}

fn merge(kept: &mut Vec<Value>, sent: &[Value], id: &str, replace: bool, fixed: &[&str]) -> Changed {
    let mut changed = Changed::default();
    if replace {
        let before = kept.len();
        kept.retain(|old| sent.iter().any(|new| new[id] == old[id]));
        changed.deleted = (before - kept.len()) as u64;
    }
    for new in sent {
        match kept.iter_mut().find(|old| old[id] == new[id]) {
            None => {
                kept.push(new.clone());
                changed.inserted += 1;
            }
            // Each task and each copy has its own version.
            Some(old) if !replace && millis(&new["update_time"]) <= millis(&old["update_time"]) => {}
            Some(old) => {
                let mut fresh = new.clone();
                fix(&mut fresh, old, if replace { &fixed[..1] } else { fixed });
                *old = fresh;
                changed.updated += 1;
            }
        }
    }
    changed
}

/// Validates in layers: names, members of tasks, members of the instance, types, values
/// (platform.md#sync-answers-and-errors).
fn validate(body: &Value) -> Result<(), ApiError> {
    let (tasks, carbons) = (items(&body["task_list"]), items(&body["cc_list"]));
    let of_task = |at: usize| format!("task_list[{at}].");
    keys(body, "", &["title", "user_name", "department_name"]).or_else(tolerate_old_names)?;
    for (at, task) in tasks.iter().enumerate() {
        keys(task, &of_task(at), &["node_name"])?;
        for (nth, action) in items(&task["action_configs"]).iter().enumerate() {
            keys(action, &format!("{}action_configs[{nth}].", of_task(at)), &["action_name"])?;
        }
    }
    for (at, task) in tasks.iter().enumerate() {
        let needed = ["task_id", "links", "status", "create_time", "end_time", "update_time"];
        require(task, &of_task(at), &needed)?;
        one_of_two(task, &of_task(at), "user_id", "open_id")?;
    }
    for (at, carbon) in carbons.iter().enumerate() {
        let prefix = format!("cc_list[{at}].");
        require(carbon, &prefix, &["cc_id", "links", "create_time", "update_time"])?;
        one_of_two(carbon, &prefix, "user_id", "open_id")?;
    }
    let needed = ["approval_code", "instance_id", "status", "links", "start_time", "end_time", "update_time"];
    require(body, "", &needed)?;
    require(body, "", &["i18n_resources"])?;
    check_types(body, tasks, carbons)?;
    check_values(body, tasks, carbons)
}

/// The platform's own example has a plain name and department (platform.md#third-party-instances).
fn tolerate_old_names(refused: ApiError) -> Result<(), ApiError> {
    let field = refused.error["field_violations"][0]["field"].as_str();
    if field == Some("title") { Err(refused) } else { Ok(()) }
}

fn one_of_two(body: &Value, prefix: &str, one: &str, other: &str) -> Result<(), ApiError> {
    if is_absent(&body[one]) && is_absent(&body[other]) {
        return Err(violation(format!("{prefix}{one}"), &format!("one of {one} and {other} is required")));
    }
    Ok(())
}

fn check_types(body: &Value, tasks: &[Value], carbons: &[Value]) -> Result<(), ApiError> {
    lists(body, &["task_list", "cc_list", "form", "i18n_resources"])?;
    texts_are_lists(&body["i18n_resources"])?;
    times(body, &["start_time", "end_time", "update_time"])?;
    for task in tasks {
        times(task, &["create_time", "end_time", "update_time"])?;
        lists(task, &["action_configs"])?;
        truths(task, &["exclude_statistics"])?;
        for action in items(&task["action_configs"]) {
            truths(action, &["is_need_reason", "is_reason_required", "is_need_attachment"])?;
        }
    }
    carbons.iter().try_for_each(|carbon| times(carbon, &["create_time", "update_time"]))
}

fn check_values(body: &Value, tasks: &[Value], carbons: &[Value]) -> Result<(), ApiError> {
    let one_of = |value: &Value, words: &[&str], member: &str| {
        let known = value.as_str().is_some_and(|word| words.contains(&word));
        if known { Ok(()) } else { Err(ApiError::parameter(format!("param is invalid: {member}"))) }
    };
    one_of(&body["status"], &STATUSES, "status")?;
    if !is_absent(&body["update_mode"]) {
        one_of(&body["update_mode"], &["REPLACE", "UPDATE"], "update_mode")?;
    }
    if tasks.len() > 300 || carbons.len() > 200 {
        return Err(ApiError::parameter("param is invalid: task_list or cc_list is too long"));
    }
    for body in std::iter::once(body).chain(tasks).chain(carbons) {
        let links = &body["links"];
        if is_absent(&links["pc_link"]) && is_absent(&links["mobile_link"]) {
            return Err(ApiError::parameter("param is invalid: links"));
        }
    }
    for task in tasks {
        one_of(&task["status"], &TASK_STATUSES, "task_list.status")?;
        let actions = items(&task["action_configs"]);
        if actions.len() > 2 {
            return Err(ApiError::parameter("param is invalid: action_configs"));
        }
        for action in actions {
            let of_ones_own = !matches!(action["action_type"].as_str(), Some("APPROVE" | "REJECT"));
            if is_absent(&action["action_type"]) || (of_ones_own && is_absent(&action["action_name"])) {
                return Err(ApiError::parameter("param is invalid: action_configs.action_name"));
            }
        }
    }
    for carbon in carbons.iter().filter(|carbon| !is_absent(&carbon["read_status"])) {
        one_of(&carbon["read_status"], &["READ", "UNREAD"], "cc_list.read_status")?;
    }
    Ok(())
}

/// Returns the instances whose versions differ (platform.md#checking-instances).
pub(super) fn check(tenant: &mut Tenant, ask: &Ask) -> Answered {
    let Some(asked) = ask.body["instances"].as_array() else {
        return Err(violation("instances", "is required"));
    };
    for (at, instance) in asked.iter().enumerate() {
        require(instance, &format!("instances[{at}]."), &["instance_id", "update_time"])?;
        if !instance["tasks"].is_array() {
            return Err(violation(format!("instances[{at}].tasks"), "is required"));
        }
        times(instance, &["update_time"])?;
    }
    let different: Vec<_> = asked.iter().filter_map(|asked| difference(tenant, asked)).collect();
    Ok(json!({ "diff_instances": different }))
}

fn difference(tenant: &Tenant, asked: &Value) -> Option<Value> {
    let id = asked["instance_id"].as_str().unwrap_or_default();
    let Some(instance) = tenant.instance(id) else {
        return Some(json!({ "instance_id": id, "update_time": "0", "tasks": [] }));
    };
    let tasks: Vec<_> = items(&asked["tasks"])
        .iter()
        .filter_map(|asked| {
            let known = instance.tasks.iter().find(|task| task["task_id"] == asked["task_id"]);
            let ours = known.map_or(0, |task| millis(&task["update_time"]));
            (ours == 0 || ours != millis(&asked["update_time"]))
                .then(|| json!({ "task_id": asked["task_id"], "update_time": ours.to_string() }))
        })
        .collect();
    let ours = millis(&instance.body["update_time"]);
    (!tasks.is_empty() || ours != millis(&asked["update_time"]))
        .then(|| json!({ "instance_id": id, "update_time": ours.to_string(), "tasks": tasks }))
}
