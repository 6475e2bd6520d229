//! Routing, authentication, rate limits and the format of responses (platform.md#error-codes).

use std::time::{Duration, Instant, SystemTime};

use actix_web::{
    HttpRequest, HttpResponse,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{StatusCode, header},
    middleware::Next,
    web,
};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{
    Emulator,
    api::{Answered, ApiError, Ask},
    routes::{Family, ROUTES, Route},
    tenant::{Count, Tenant},
    values::random_hex,
};
use crate::loopback;

/// Blocks requests from web pages, both cross-origin ones and DNS rebinding. The emulator sends callbacks to any URL
/// and displays the data it received.
pub(super) async fn keep_pages_out<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    let headers = request.headers();
    let host = loopback::single(headers, &header::HOST).unwrap_or_default();
    let is_ours = |emulator: &web::Data<Emulator>| {
        let host = loopback::without_port(host);
        emulator.settings.hosts.iter().any(|name| name.eq_ignore_ascii_case(host))
    };
    let problem = if loopback::cannot_be_rebound(host)
        || request.app_data::<web::Data<Emulator>>().is_some_and(is_ours)
    {
        loopback::foreign_page(headers)
    } else {
        Some("`Host` must be localhost, an address, or a name given with --host.")
    };
    match problem {
        None => Ok(next.call(request).await?.map_into_left_body()),
        Some(problem) => {
            let answer = HttpResponse::Forbidden().json(json!({ "problem": problem }));
            Ok(request.into_response(answer).map_into_right_body())
        }
    }
}

pub(super) async fn answer(
    emulator: web::Data<Emulator>,
    request: HttpRequest,
    bytes: web::Bytes,
) -> HttpResponse {
    let found = ROUTES.iter().find_map(|route| {
        let id = fits(route.path, request.path())?;
        (route.method == request.method().as_str()).then_some((route, id))
    });
    let mut tenant = emulator.tenant();
    let family = found.as_ref().map_or(Family::V4, |(route, _)| route.family);
    let answered = match found {
        Some((route, id)) => pass(&mut tenant, route, &request, id, &bytes),
        // The platform reports "invalid token" instead of "no such API", whatever the token
        // (platform.md#reading-a-definition).
        None => Err(enter(&tenant, &request).err().unwrap_or_else(invalid_token)),
    };
    let mut response = render(family, answered);
    let ahead = tenant.settings.clock_ahead;
    if !ahead.is_zero() {
        let date = header::HttpDate::from(SystemTime::now() + ahead);
        if let Ok(date) = header::HeaderValue::from_str(&date.to_string()) {
            response.2.headers_mut().insert(header::DATE, date);
        }
    }
    tenant.settle();
    drop(tenant);
    if request.method() == actix_web::http::Method::POST {
        emulator.changed();
    }
    tracing::info!(method = %request.method(), path = request.path(), status = response.0, code = response.1, "asked");
    response.2
}

/// The id in a path that matches the pattern; empty if the pattern has none.
fn fits(pattern: &str, path: &str) -> Option<String> {
    match pattern.strip_suffix(":id") {
        None => (pattern == path).then(String::new),
        Some(before) => {
            let id = path.strip_prefix(before).filter(|id| !id.is_empty() && !id.contains('/'))?;
            Some(percent_decode_str(id).decode_utf8_lossy().into_owned())
        }
    }
}

fn pass(tenant: &mut Tenant, route: &Route, request: &HttpRequest, id: String, bytes: &[u8]) -> Answered {
    if let Some(planned) =
        tenant.planned.iter_mut().find(|planned| planned.times > 0 && request.path().contains(&planned.path))
    {
        planned.times -= 1;
        let mut refused = ApiError::new(planned.code, planned.msg.clone());
        refused.status = Some(planned.status);
        refused
            .headers
            .extend(planned.reset_seconds.map(|reset| ("x-ogw-ratelimit-reset", reset.to_string())));
        return Err(refused);
    }
    if route.family != Family::Token {
        enter(tenant, request)?;
    }
    limit(tenant, route)?;
    let lacks = |scope: &&str| tenant.settings.missing_scopes.iter().any(|missing| missing == scope);
    if !route.scopes.is_empty() && route.scopes.iter().all(lacks) {
        return Err(scope_missing(tenant, route.scopes));
    }
    let body = match bytes {
        [] => Value::Null,
        bytes => serde_json::from_slice(bytes)
            .map_err(|_| ApiError::new(9_499, "Bad Request: the body is not JSON"))?,
    };
    let query = web::Query::<Vec<(String, String)>>::from_query(request.query_string())
        .map(web::Query::into_inner)
        .unwrap_or_default();
    (route.act)(tenant, &Ask { id, query, body })
}

fn enter(tenant: &Tenant, request: &HttpRequest) -> Result<(), ApiError> {
    let value = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(token) = value.and_then(|value| value.strip_prefix("Bearer ")) else {
        return Err(ApiError::new(99_991_661, "Missing access token for authorization"));
    };
    if !token.starts_with("t-") {
        return Err(ApiError::new(99_991_671, "Invalid access token: it must start with t- or u-"));
    }
    if tenant.knows_token(token, false) { Ok(()) } else { Err(invalid_token()) }
}

fn invalid_token() -> ApiError {
    ApiError::new(99_991_663, "Invalid access token for authorization")
}

fn scope_missing(tenant: &Tenant, scopes: &[&str]) -> ApiError {
    let app = &tenant.settings.app_id;
    let url = format!("https://open.feishu.cn/app/{app}/auth?q={}", scopes.join(","));
    let mut refused = ApiError::new(
        99_991_672,
        format!("Access denied. One of the following scopes is required: [{}]", scopes.join(", ")),
    );
    refused.error = json!({
        "permission_violations": scopes
            .iter()
            .map(|scope| json!({ "type": "action_scope_required", "subject": scope }))
            .collect::<Vec<_>>(),
        "helps": [{ "url": url, "description": "apply for the scope" }],
    });
    refused
}

/// Counts in fixed windows of a second and a minute (platform.md#rate-limits).
fn limit(tenant: &mut Tenant, route: &Route) -> Result<(), ApiError> {
    let most = [tenant.settings.per_second, tenant.settings.per_minute];
    let now = Instant::now();
    let counts = tenant.counts.entry(route.path).or_insert_with(|| [Count { since: now, calls: 0 }; 2]);
    for ((count, most), span) in counts.iter_mut().zip(most).zip([1, 60]) {
        let span = Duration::from_secs(span);
        if now.duration_since(count.since) >= span {
            *count = Count { since: now, calls: 0 };
        }
        count.calls += 1;
        if count.calls > most {
            let left = span.saturating_sub(now.duration_since(count.since));
            let mut refused = ApiError::new(99_991_400, "request trigger frequency limit");
            refused.status = Some(if route.family == Family::Old { 400 } else { 429 });
            refused.headers = vec![
                ("x-ogw-ratelimit-limit", most.to_string()),
                ("x-ogw-ratelimit-reset", left.as_secs_f64().ceil().to_string()),
            ];
            return Err(refused);
        }
    }
    Ok(())
}

fn render(family: Family, answered: Answered) -> (u16, i64, HttpResponse) {
    let log_id = format!("emu{}", random_hex::<12>());
    let (status, code, body, headers) = match answered {
        Ok(mut top) if family == Family::Token => {
            top["code"] = 0.into();
            top["msg"] = "ok".into();
            (200, 0, top, Vec::new())
        }
        Ok(data) => (200, 0, json!({ "code": 0, "msg": "success", "data": data }), Vec::new()),
        Err(refused) => {
            let usual = match family {
                Family::V4 => 400,
                // Not known for the gateway's codes; the API's own codes come with 200.
                Family::Old if refused.code > 99_990_000 => 400,
                Family::Old | Family::Token => 200,
            };
            let mut body = json!({ "code": refused.code, "msg": refused.msg });
            let mut error = refused.error;
            if refused.code > 99_990_000 {
                if error.is_null() {
                    error = json!({});
                }
                error["log_id"] = log_id.as_str().into();
            }
            if !error.is_null() {
                body["error"] = error;
            }
            (refused.status.unwrap_or(usual), refused.code, body, refused.headers)
        }
    };
    let mut response = HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST));
    response.insert_header(("X-Tt-Logid", log_id));
    for (name, value) in headers {
        response.insert_header((name, value));
    }
    (status, code, response.json(body))
}
