//! `GET /api/v1/reconciliation`: decisions that the approval center does not show.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;

use super::{
    Desk,
    api::{look, query},
    filters::{DEFAULT_LIMIT, digits, limit, unknown},
    permission::Onlooker,
    problem::Problem,
};
use crate::{
    command::Seq,
    ledger::{
        Verdict,
        findings::{Candidate, Overview, Which},
    },
};

#[derive(Serialize)]
struct Reconciliation {
    #[serde(flatten)]
    overview: Overview,
    findings: Vec<Candidate>,
    /// The `after` of the next page; null on the last one.
    next_after: Option<Seq>,
}

/// The numbers, and the findings, oldest first, because they have waited longest.
pub(super) async fn get(
    _: Onlooker,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Problem> {
    let (mut which, mut after, mut rows) = (Which::Open, 0, DEFAULT_LIMIT);
    for (name, value) in query(&request)? {
        match &*name {
            "verdict" => which = Which::Of(verdict(&value)?),
            "after" => after = place(&value)?,
            "limit" => rows = limit(&value)?,
            _ => return Err(unknown(&name)),
        }
    }
    let overview = look(desk.ledger.overview()).await?;
    // One row more than requested shows whether there is a next page.
    let mut findings = look(desk.ledger.findings(which, after, rows + 1)).await?;
    let more = findings.len() > rows;
    findings.truncate(rows);
    let next_after = if more { findings.last().map(|last| last.seq) } else { None };
    Ok(HttpResponse::Ok().json(Reconciliation { overview, findings, next_after }))
}

fn verdict(word: &str) -> Result<Verdict, Problem> {
    let kept = || Verdict::OPEN.into_iter().chain([Verdict::Ended]);
    kept().find(|verdict| verdict.as_str() == word).ok_or_else(|| {
        let words: Vec<_> = kept().map(|word| word.as_str()).collect();
        Problem::bad_parameter("verdict", format!("Must be one of: {}.", words.join(", ")))
    })
}

fn place(value: &str) -> Result<Seq, Problem> {
    // The ledger uses signed 64-bit numbers.
    digits(value)
        .filter(|seq| *seq <= i64::MAX as u64)
        .ok_or_else(|| Problem::bad_parameter("after", "Must be the next_after of the previous page."))
}
