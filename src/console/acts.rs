//! The JSON API for operators: what was changed, by whom and why.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;

use super::{
    Desk,
    api::{DEFAULT_LIMIT, Span, before, limit, look, page, query, unknown},
    permission::Onlooker,
    problem::Problem,
};
use crate::{
    command::CommandId,
    ledger::{ActFilter, ActKind, ActRecord},
};

#[derive(Serialize)]
struct Acts {
    acts: Vec<ActRecord>,
    /// The `before` of the next page; null on the last one.
    next_before: Option<u64>,
}

/// `GET /api/v1/acts`: newest first.
pub(super) async fn list(
    _: Onlooker,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Problem> {
    let mut filter = ActFilter { limit: DEFAULT_LIMIT, ..ActFilter::default() };
    let mut span = Span::default();
    for (name, value) in query(&request)? {
        match &*name {
            "command_id" => filter.command_id = Some(command_id(&value)?),
            "context" => filter.context = Some(value),
            "act" => filter.kind = Some(kind(&value)?),
            "actor" => filter.actor = Some(value),
            "before" => filter.before = Some(before(&value)?),
            "limit" => filter.limit = limit(&value)?,
            _ if span.take(&name, &value)? => {}
            _ => return Err(unknown(&name)),
        }
    }
    (filter.since, filter.until) = span.bounds()?;
    let limit = filter.limit;
    filter.limit += 1;
    let (acts, next_before) = page(look(desk.ledger.acts(filter)).await?, limit, |act| act.id);
    Ok(HttpResponse::Ok().json(Acts { acts, next_before }))
}

fn command_id(value: &str) -> Result<CommandId, Problem> {
    CommandId::parse(value).ok_or_else(|| Problem::bad_parameter("command_id", "Is not a UUID."))
}

fn kind(value: &str) -> Result<ActKind, Problem> {
    value.parse().map_err(|_| {
        let words = ActKind::ALL.iter().copied().map(ActKind::as_str).collect::<Vec<_>>().join(", ");
        Problem::bad_parameter("act", format!("Must be one of: {words}."))
    })
}
