//! The JSON API for operators: kept commands and refused callbacks.

use std::{future::Future, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use serde::Serialize;

use super::{
    Desk,
    filters::{self, DEFAULT_LIMIT, before, digits, limit, unknown},
    permission::Onlooker,
    problem::Problem,
};
use crate::{
    command::{CommandId, Seq, id::CommandRef},
    ledger::{Dropped, KeptRefusal, LookError, PATIENCE, Record, RefusalFilter, RefusedCallback, Stray},
    time::{Timestamp, Zone},
};

/// A filter without an index reads the whole ledger; this is how long a person waits.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct Commands {
    commands: Vec<Record>,
    /// The `before` of the next page; null on the last one.
    next_before: Option<Seq>,
    /// Set if the time was over before the page was full: nothing older was looked at.
    searched_back_to: Option<Timestamp>,
}

#[derive(Serialize)]
struct Refusals {
    refusals: Vec<KeptRefusal>,
    /// The `before` of the next page; null on the last one.
    next_before: Option<u64>,
    /// Set if the time was over before the page was full: nothing older was looked at.
    searched_back_to: Option<Timestamp>,
}

/// Refused callbacks that are not in the ledger.
#[derive(Serialize)]
struct DroppedRefusals {
    refusals: Vec<RefusedCallback>,
    /// How many were not kept since the start, those that are forgotten by now among them.
    dropped: u64,
}

#[derive(Serialize)]
struct Strays {
    strays: Vec<Stray>,
    /// The `before` of the next page; null on the last one.
    next_before: Option<u64>,
}

/// `GET /api/v1/commands`: newest first.
pub(super) async fn list_commands(
    _: Onlooker,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Problem> {
    let mut filter = filters::commands(&query(&request)?, &Zone::UTC)?;
    let limit = filter.limit;
    filter.limit += 1;
    let found = look(desk.search(filter)).await?;
    let searched_back_to = found.stopped.and_then(|stopped| stopped.back_to);
    let (commands, next_before) = found.page(limit, |one| one.seq);
    Ok(HttpResponse::Ok().json(Commands { commands, next_before, searched_back_to }))
}

/// `GET /api/v1/commands/{command_id}`: one command with its message.
pub(super) async fn find_command(
    _: Onlooker,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Problem> {
    no_query(&request)?;
    let command_id = command_id(&request, &desk).await?;
    match look(desk.ledger.find(command_id)).await? {
        Some(record) => Ok(HttpResponse::Ok().json(record)),
        None => Err(no_such_command()),
    }
}

/// Resolves the command in the path, by its id or its position in the log.
pub(super) async fn command_id(request: &HttpRequest, desk: &Desk) -> Result<CommandId, Problem> {
    let named = CommandRef::parse(request.match_info().get("command_id").unwrap_or_default());
    match named {
        Some(CommandRef::Id(id)) => Ok(id),
        Some(CommandRef::Seq(seq)) => look(desk.ledger.id_at(seq)).await?.ok_or_else(no_such_command),
        None => Err(Problem::bad_parameter("command_id", "A command_id is a UUID; a seq is a number.")),
    }
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
    _: Onlooker,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Problem> {
    let mut filter = filters::refusals(&desk.reasons.words, &query(&request)?, &Zone::UTC)?;
    let limit = filter.limit;
    filter.limit += 1;
    let found = look(desk.ledger.search_refusals(filter, PATIENCE)).await?;
    let searched_back_to = found.stopped.and_then(|stopped| stopped.back_to);
    let (refusals, next_before) = found.page(limit, |one| one.id);
    Ok(HttpResponse::Ok().json(Refusals { refusals, next_before, searched_back_to }))
}

/// `GET /api/v1/refusals/dropped`: those that the ledger could not take, newest first.
pub(super) async fn dropped_refusals(
    _: Onlooker,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Problem> {
    no_query(&request)?;
    let Dropped { known, strangers } = desk.ledger.refusals_dropped();
    let refusals = desk.ledger.newest_refusals_dropped();
    Ok(HttpResponse::Ok().json(DroppedRefusals { refusals, dropped: known + strangers }))
}

/// `GET /api/v1/refusals/{id}`: one refusal.
pub(super) async fn find_refusal(
    _: Onlooker,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Problem> {
    no_query(&request)?;
    let id = digits(request.match_info().get("id").unwrap_or_default())
        .ok_or_else(|| Problem::bad_parameter("id", "The id of a refusal is a number."))?;
    let filter = RefusalFilter { id: Some(id), limit: 1, ..RefusalFilter::default() };
    match look(desk.ledger.refusals(filter)).await?.pop() {
        Some(refusal) => Ok(HttpResponse::Ok().json(refusal)),
        None => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "no_such_refusal",
            "The ledger holds no refused callback with this id; only the newest are kept.",
        )),
    }
}

/// `GET /api/v1/strays`: newest first.
pub(super) async fn list_strays(
    _: Onlooker,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Problem> {
    let (mut from, mut most) = (None, DEFAULT_LIMIT);
    for (name, value) in query(&request)? {
        match &*name {
            "before" => from = Some(before(&value)?),
            "limit" => most = limit(&value)?,
            _ => return Err(unknown(&name)),
        }
    }
    let (strays, next_before) = page(look(desk.ledger.strays(from, most + 1)).await?, most, |one| one.id);
    Ok(HttpResponse::Ok().json(Strays { strays, next_before }))
}

/// The query parameters, each at most once and not empty.
pub(super) fn query(request: &HttpRequest) -> Result<Vec<(String, String)>, Problem> {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string())
        .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "bad_parameter", "The query cannot be read."))?
        .into_inner();
    for (place, (name, value)) in pairs.iter().enumerate() {
        if pairs[..place].iter().any(|(other, _)| other == name) {
            return Err(Problem::bad_parameter(name, "Given more than once."));
        }
        if value.is_empty() {
            return Err(Problem::bad_parameter(name, "Has no value; omit it instead."));
        }
    }
    Ok(pairs)
}

/// Refuses any query parameter.
pub(super) fn no_query(request: &HttpRequest) -> Result<(), Problem> {
    match query(request)?.first() {
        Some((name, _)) => Err(unknown(name)),
        None => Ok(()),
    }
}

/// Cuts a list to a page, and returns where the next one begins. One row more than requested shows whether there is one.
pub(super) fn page<T>(mut rows: Vec<T>, limit: usize, place: impl Fn(&T) -> u64) -> (Vec<T>, Option<u64>) {
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(place);
    (rows, next)
}

/// Waits for a read of the ledger, up to [`LOOK_TIMEOUT`].
pub(super) async fn look<T>(looking: impl Future<Output = Result<T, LookError>>) -> Result<T, Problem> {
    match tokio::time::timeout(LOOK_TIMEOUT, looking).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot answer an API request");
            Err(Problem::ledger_unavailable())
        }
        Err(_elapsed) => {
            tracing::warn!(timeout = ?LOOK_TIMEOUT, "ledger query timed out");
            Err(Problem::ledger_unavailable())
        }
    }
}
