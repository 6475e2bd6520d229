//! The JSON API for operators: what was changed, by whom and why.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;

use super::{
    Desk,
    api::{look, page, query},
    filters,
    permission::Onlooker,
    problem::Problem,
};
use crate::{ledger::ActRecord, time::Zone};

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
    let mut filter = filters::acts(&query(&request)?, &Zone::UTC)?;
    let limit = filter.limit;
    filter.limit += 1;
    let (acts, next_before) = page(look(desk.ledger.acts(filter)).await?, limit, |act| act.id);
    Ok(HttpResponse::Ok().json(Acts { acts, next_before }))
}
