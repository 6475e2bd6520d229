//! The JSON API for operators: what was kept, what was refused.

use std::{future::Future, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use serde::Serialize;

use super::{Desk, permission::Operator, problem::Problem};
use crate::{
    command::{CommandId, Seq},
    ledger::{Filter, LookError, Record, Refused, State},
};

/// Rows of a page if the query does not say.
pub(super) const DEFAULT_LIMIT: usize = 50;

/// Rows of a page at the most.
const MAX_LIMIT: usize = 500;

/// A filter without an index reads the whole ledger; people wait that long, and no longer.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct Commands {
    commands: Vec<Record>,
    /// The `before` of the next page; null on the last one.
    next_before: Option<Seq>,
}

#[derive(Serialize)]
struct Refusals {
    refusals: Vec<Refused>,
}

/// `GET /api/v1/commands`: newest first.
pub(super) async fn list_commands(
    _: Operator,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Problem> {
    let mut filter = Filter { limit: DEFAULT_LIMIT, ..Filter::default() };
    for (name, value) in query(&request)? {
        match &*name {
            "state" => filter.state = Some(state(&value)?),
            "endpoint" => filter.endpoint = Some(value),
            "instance_id" => filter.instance_id = Some(value),
            "task_id" => filter.task_id = Some(value),
            "user_id" => filter.user_id = Some(value),
            "before" => filter.before = Some(before(&value)?),
            "limit" => filter.limit = limit(&value)?,
            _ => return Err(unknown(&name)),
        }
    }
    // One more than asked for tells whether there is a next page.
    let limit = filter.limit;
    filter.limit += 1;
    let mut commands = look(desk.ledger.list(filter)).await?;
    let more = commands.len() > limit;
    commands.truncate(limit);
    let next_before = if more { commands.last().map(|record| record.seq) } else { None };
    Ok(HttpResponse::Ok().json(Commands { commands, next_before }))
}

/// `GET /api/v1/commands/{command_id}`: one command with its message.
pub(super) async fn find_command(
    _: Operator,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Problem> {
    no_query(&request)?;
    match look(desk.ledger.find(command_id(&request)?)).await? {
        Some(record) => Ok(HttpResponse::Ok().json(record)),
        None => Err(no_such_command()),
    }
}

/// The command that the path names.
pub(super) fn command_id(request: &HttpRequest) -> Result<CommandId, Problem> {
    CommandId::parse(request.match_info().get("command_id").unwrap_or_default())
        .ok_or_else(|| Problem::bad_parameter("command_id", "A command_id is a UUID."))
}

pub(super) fn no_such_command() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no_such_command",
        "The ledger holds no command with this id; it may have been pruned.",
    )
}

/// `GET /api/v1/refusals`: newest first.
pub(super) async fn list_refusals(
    _: Operator,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Problem> {
    let (mut reason, mut endpoint, mut rows) = (None, None, DEFAULT_LIMIT);
    for (name, value) in query(&request)? {
        match &*name {
            "reason" => reason = Some(known_reason(&desk.reasons, value)?),
            "endpoint" => endpoint = Some(value),
            "limit" => rows = limit(&value)?,
            _ => return Err(unknown(&name)),
        }
    }
    let refusals = look(desk.ledger.refusals(reason, endpoint, rows)).await?;
    Ok(HttpResponse::Ok().json(Refusals { refusals }))
}

/// The parameters of the query, each given once and not empty.
pub(super) fn query(request: &HttpRequest) -> Result<Vec<(String, String)>, Problem> {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string())
        .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "bad_parameter", "The query cannot be read."))?
        .into_inner();
    for (place, (name, value)) in pairs.iter().enumerate() {
        if pairs[..place].iter().any(|(other, _)| other == name) {
            return Err(Problem::bad_parameter(name, "Given more than once."));
        }
        if value.is_empty() {
            return Err(Problem::bad_parameter(name, "Has no value; leave it out instead."));
        }
    }
    Ok(pairs)
}

/// Refuses any parameter at all.
pub(super) fn no_query(request: &HttpRequest) -> Result<(), Problem> {
    match query(request)?.first() {
        Some((name, _)) => Err(unknown(name)),
        None => Ok(()),
    }
}

pub(super) fn unknown(name: &str) -> Problem {
    Problem::bad_parameter(name, "There is no such parameter.")
}

fn state(value: &str) -> Result<State, Problem> {
    State::parse(value).ok_or_else(|| {
        let words = State::ALL.map(State::as_str).join(", ");
        Problem::bad_parameter("state", format!("Is one of: {words}."))
    })
}

fn known_reason(reasons: &[&str], value: String) -> Result<String, Problem> {
    if reasons.contains(&&*value) {
        return Ok(value);
    }
    Err(Problem::bad_parameter("reason", format!("Is one of: {}.", reasons.join(", "))))
}

fn before(value: &str) -> Result<Seq, Problem> {
    // The ledger counts in signed 64 bits.
    digits(value)
        .filter(|seq| (1..=i64::MAX as u64).contains(seq))
        .ok_or_else(|| Problem::bad_parameter("before", "Is the next_before of the page before."))
}

pub(super) fn limit(value: &str) -> Result<usize, Problem> {
    digits(value)
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|limit| (1..=MAX_LIMIT).contains(limit))
        .ok_or_else(|| Problem::bad_parameter("limit", format!("Is a number from 1 to {MAX_LIMIT}.")))
}

/// Digits only: `parse` alone would take a sign too.
pub(super) fn digits(value: &str) -> Option<u64> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())?
}

/// Waits for a look into the ledger, for as long as people wait.
pub(super) async fn look<T>(looking: impl Future<Output = Result<T, LookError>>) -> Result<T, Problem> {
    match tokio::time::timeout(LOOK_TIMEOUT, looking).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot answer an operator");
            Err(Problem::ledger_unavailable())
        }
        Err(_elapsed) => {
            tracing::warn!(timeout = ?LOOK_TIMEOUT, "a look into the ledger takes too long");
            Err(Problem::ledger_unavailable())
        }
    }
}
