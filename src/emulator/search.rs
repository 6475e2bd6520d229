//! Queries instances, and reads one native instance (platform.md#instance-query).

use serde_json::{Value, json};

use super::{
    api::{Answered, ApiError, Ask},
    fields::{is_absent, millis, translated},
    tenant::{Instance, PageToken, Tenant},
    values::random_hex,
};

const SPAN_MS: i64 = 30 * 86_400 * 1000;
const STATUSES: [&str; 6] = ["PENDING", "RECALL", "REJECT", "DELETED", "APPROVED", "ALL"];
const IDS: [&str; 5] =
    ["user_id", "approval_code", "instance_code", "instance_external_id", "group_external_id"];

/// `POST instances/query`. Revoked instances count towards the page but are left out, so pages may be short
/// (platform.md#instance-query).
pub(super) fn query(tenant: &mut Tenant, ask: &Ask) -> Answered {
    let size = match ask.query("page_size").map(str::parse::<usize>) {
        None => 10,
        Some(Ok(size @ 5..=200)) => size,
        Some(_) => return Err(ApiError::parameter("param is invalid: page_size must be 5 to 200")),
    };
    let kind = ask.query("user_id_type").unwrap_or("open_id").to_owned();
    validate(tenant, &ask.body)?;
    let given = match ask.query("page_token").filter(|token| !token.is_empty()) {
        None => 0,
        Some(token) => match tenant.cursors.get(token) {
            Some(cursor) if cursor.filter == ask.body => cursor.given,
            _ => return Err(ApiError::parameter("param is invalid: page_token")),
        },
    };
    let locale = ask.body["locale"].as_str().unwrap_or("zh-CN");
    let all = all(tenant, &ask.body, &kind, locale);
    let page: Vec<_> = all.iter().skip(given).take(size).collect();
    let end = given + page.len();
    let shown: Vec<_> = page
        .into_iter()
        .filter(|found| !found.revoked || ask.body["with_revoked_instance"] == true)
        .map(|found| found.shown.clone())
        .collect();
    let count = all.len();
    let mut data = json!({ "count": count, "instance_list": shown, "has_more": end < count });
    if end < count {
        let token = random_hex::<24>();
        tenant.cursors.insert(token.clone(), PageToken { filter: ask.body.clone(), given: end });
        data["page_token"] = token.into();
    }
    Ok(data)
}

fn validate(tenant: &Tenant, body: &Value) -> Result<(), ApiError> {
    if IDS.iter().all(|id| is_absent(&body[*id])) {
        let ids = IDS.join(", ");
        return Err(ApiError::parameter(format!("param is invalid: {ids} cannot all be empty")));
    }
    let (from, to) = (&body["instance_start_time_from"], &body["instance_start_time_to"]);
    match (is_absent(from), is_absent(to)) {
        (true, true) => {}
        (false, false) if from.is_string() && to.is_string() => {
            if millis(to) - millis(from) > SPAN_MS {
                return Err(ApiError::parameter("param is invalid: the span is over 30 days"));
            }
        }
        _ => return Err(ApiError::parameter("param is invalid: both times or neither")),
    }
    let status = &body["instance_status"];
    if !is_absent(status) && !status.as_str().is_some_and(|status| STATUSES.contains(&status)) {
        return Err(ApiError::parameter("param is invalid: instance_status"));
    }
    let code = body["approval_code"].as_str().unwrap_or_default();
    let native = |code: &str| tenant.native.values().any(|instance| instance["approval_code"] == code);
    if !code.is_empty() && tenant.by_real_code(code).is_none() && !native(code) {
        return Err(ApiError::new(1_390_002, "approval code not found"));
    }
    Ok(())
}

struct Found {
    started: i64,
    revoked: bool,
    shown: Value,
}

fn all(tenant: &Tenant, filter: &Value, kind: &str, locale: &str) -> Vec<Found> {
    let external = tenant.instances.iter().filter(|instance| instance.is_visible()).map(|instance| Found {
        started: millis(&instance.body["start_time"]),
        revoked: false,
        shown: of_external(tenant, instance, kind, locale),
    });
    let native = tenant.native.iter().map(|(code, instance)| Found {
        started: millis(&instance["start_time"]),
        revoked: instance["reverted"] == true,
        shown: of_native(code, instance),
    });
    let mut all: Vec<_> = external.chain(native).filter(|found| fits(found, filter)).collect();
    all.sort_by_key(|found| std::cmp::Reverse(found.started));
    all
}

/// Two pairs of filters are unions; all others narrow the result (platform.md#instance-query).
fn fits(found: &Found, filter: &Value) -> bool {
    let shown = &found.shown;
    let wanted = |member: &str| filter[member].as_str().filter(|text| !text.is_empty());
    let pair = |one: (&str, &Value), other: (&str, &Value)| {
        let hits = |(member, value): (&str, &Value)| wanted(member).map(|wanted| value == wanted);
        match (hits(one), hits(other)) {
            (None, None) => true,
            (one, other) => one == Some(true) || other == Some(true),
        }
    };
    let status = match wanted("instance_status") {
        None | Some("ALL") => true,
        Some("RECALL") => shown["instance"]["status"] == "canceled",
        Some("REJECT") => shown["instance"]["status"] == "rejected",
        Some(other) => shown["instance"]["status"] == other.to_lowercase().as_str(),
    };
    let time = match (wanted("instance_start_time_from"), wanted("instance_start_time_to")) {
        (Some(_), Some(_)) => {
            let (from, to) = (&filter["instance_start_time_from"], &filter["instance_start_time_to"]);
            (millis(from)..=millis(to)).contains(&found.started)
        }
        _ => true,
    };
    status
        && time
        && pair(
            ("approval_code", &shown["approval"]["code"]),
            ("group_external_id", &shown["group"]["external_id"]),
        )
        && pair(
            ("instance_code", &shown["instance"]["code"]),
            ("instance_external_id", &shown["instance"]["external_id"]),
        )
        && wanted("user_id").is_none_or(|user| shown["instance"]["user_id"] == user)
        && wanted("instance_title").is_none_or(|title| shown["instance"]["title"] == title)
}

fn of_external(tenant: &Tenant, instance: &Instance, kind: &str, locale: &str) -> Value {
    let code = instance.text("approval_code");
    let definition = tenant.by_real_code(code);
    let resources = &instance.body["i18n_resources"];
    let name = |member: &str| {
        definition.map_or_else(String::new, |definition| {
            let body = &definition.body;
            translated(&body["i18n_resources"], body[member].as_str().unwrap_or_default(), locale)
        })
    };
    let user = tenant.user_of(&instance.body).unwrap_or_default();
    let user = match tenant.person("user_id", &user) {
        Some(person) if kind == "open_id" => person.open_id.clone(),
        Some(person) if kind == "union_id" => person.union_id.clone(),
        _ => user,
    };
    let title = match instance.text("title") {
        "" => name("approval_name"),
        title => translated(resources, title, locale),
    };
    json!({
        "approval": {
            "code": code, "name": name("approval_name"), "is_external": true,
            "external": { "batch_cc_read": definition.is_some_and(|d| d.body["external"]["support_batch_read"] == true) },
            "approval_id": definition.map_or_else(String::new, |definition| definition.number.to_string()),
            "icon": "https://icons.example.com/approval.png",
        },
        "group": {
            "external_id": definition.map_or(json!(""), |definition| definition.body["group_code"].clone()),
            "name": name("group_name"),
        },
        "instance": {
            "code": instance.code, "external_id": instance.text("instance_id"), "user_id": user,
            "start_time": millis(&instance.body["start_time"]).to_string(),
            "end_time": millis(&instance.body["end_time"]).to_string(),
            "status": instance.text("status").to_lowercase(), "title": title,
            "extra": instance.text("extra"), "serial_id": format!("{:012}", instance.number % 1_000_000_000_000),
            "link": instance.body["links"],
        },
    })
}

fn of_native(code: &str, instance: &Value) -> Value {
    json!({
        "approval": {
            "code": instance["approval_code"], "name": instance["approval_name"], "is_external": false,
            "approval_id": "7000000000000000001", "icon": "https://icons.example.com/native.png",
        },
        "group": { "external_id": "", "name": "" },
        "instance": {
            "code": code, "external_id": "", "user_id": instance["user_id"],
            "start_time": millis(&instance["start_time"]).to_string(),
            "end_time": millis(&instance["end_time"]).to_string(),
            "status": instance["status"].as_str().unwrap_or_default().to_lowercase(), "title": "", "extra": "{}",
            "serial_id": instance["serial_number"], "link": {},
        },
    })
}

fn native<'t>(tenant: &'t Tenant, code: &str) -> Result<&'t Value, ApiError> {
    let by_uuid = || tenant.native.values().find(|instance| instance["uuid"] == code);
    tenant
        .native
        .get(code)
        .or_else(by_uuid)
        .ok_or_else(|| ApiError::new(1_390_003, "instance code not found"))
}

/// v4: times are strings.
pub(super) fn get(tenant: &mut Tenant, ask: &Ask) -> Answered {
    let mut instance = native(tenant, &ask.id)?.clone();
    spell_times(&mut instance, &|time| time.to_string().into());
    Ok(instance)
}

/// v2: times are numbers, some v4 members are missing, and a trip has `transportation` (platform.md#form-widgets).
pub(super) fn get_historic(tenant: &mut Tenant, ask: &Ask) -> Answered {
    let code = ask.body["instance_code"].as_str().unwrap_or_default();
    if code.is_empty() {
        return Err(ApiError::new(60_001, "param is invalid: instance_code"));
    }
    let found = native(tenant, code).map_err(|refused| ApiError::new(60_003, refused.msg))?;
    let mut instance = found.clone();
    spell_times(&mut instance, &|time| time.into());
    if let Some(members) = instance.as_object_mut() {
        members.remove("reverted");
        members.remove("instance_code");
    }
    for member in ["comment_list", "timeline"] {
        for entry in instance[member].as_array_mut().into_iter().flatten() {
            entry.as_object_mut().map(|members| members.remove("files"));
        }
    }
    if let Some(form) = instance["form"].as_str() {
        instance["form"] = form.replace("\"transport\"", "\"transportation\"").into();
    }
    Ok(instance)
}

fn spell_times(value: &mut Value, spell: &dyn Fn(i64) -> Value) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                if key.ends_with("_time") {
                    *value = spell(millis(value));
                } else {
                    spell_times(value, spell);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| spell_times(value, spell)),
        _ => {}
    }
}
