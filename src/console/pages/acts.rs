//! `/acts`: who did what, and why.

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::{
    Choice, Desk, Field, Frame, Halt, Phrases, Viewer, When, choices, chosen, clipped, fields, look, lookup,
    query, see_other,
};
use crate::{
    console::{api::page, filters},
    ledger::{ActKind, ActRecord, Actor, Via},
};

/// An act in the list.
struct ActRow {
    id: u64,
    at: When,
    act: &'static str,
    actor: String,
    count: u64,
    reason: String,
    detail: Option<String>,
}

#[derive(Template)]
#[template(path = "acts.html", config = "src/console/pages/askama.toml")]
struct ActsPage {
    f: Frame,
    t: &'static Phrases,
    kinds: Vec<Choice>,
    fields: Vec<Field>,
    wrong: Option<String>,
    rows: Vec<ActRow>,
    next: Option<String>,
    first: Option<String>,
}

/// `GET /acts`: newest first.
pub(super) async fn page_of(
    viewer: Viewer,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Halt> {
    let (t, pairs) = (viewer.t(), query(&request));
    let (mut wrong, mut wrong_field, mut rows, mut next) = (None, None, Vec::new(), None);
    match filters::acts(&pairs, &viewer.zone) {
        Ok(mut filter) => {
            let times = (filter.since, filter.until);
            if let Some(absolute) = lookup::absolute("/acts", &pairs, times, &viewer.zone) {
                return Ok(see_other(&absolute));
            }
            let limit = filter.limit;
            filter.limit += 1;
            let found = look!(viewer, desk.ledger.acts(filter));
            (rows, next) = page(found, limit, |one: &ActRecord| one.id);
        }
        Err(problem) => {
            wrong_field = problem.parameter().map(str::to_owned);
            wrong = Some((t.bad_parameter)(problem.parameter().unwrap_or("?"), &problem.to_string()));
        }
    }
    let page = ActsPage {
        t,
        kinds: choices(ActKind::ALL.iter().copied().map(ActKind::as_str), chosen(&pairs, "act")),
        fields: fields(
            &pairs,
            [("actor", t.actor), ("command_id", t.fact_id), ("since", t.since), ("until", t.until)],
            wrong_field.as_deref(),
        ),
        wrong,
        rows: rows.into_iter().map(|one| row(one, &viewer)).collect(),
        next: next.map(|next| lookup::at("/acts", &pairs, Some(next))),
        first: pairs.iter().any(|(name, _)| name == "before").then(|| lookup::at("/acts", &pairs, None)),
        f: viewer.frame.clone(),
    };
    Ok(viewer.page(&page))
}

fn row(one: ActRecord, viewer: &Viewer) -> ActRow {
    ActRow {
        id: one.id,
        at: viewer.when(one.at),
        act: one.act.as_str(),
        actor: clipped(&who(&one.actor, viewer.t())),
        count: one.count,
        reason: one.reason.unwrap_or_else(|| "–".to_owned()),
        detail: one.detail.map(|detail| clipped(detail.get())),
    }
}

/// An actor, for people.
pub(super) fn who(actor: &Actor, t: &Phrases) -> String {
    let mut text = actor.name.clone().unwrap_or_else(|| "–".to_owned());
    if let Some(sudo) = &actor.sudo_user {
        text.push_str(&format!(" (sudo {sudo})"));
    }
    let place = actor.host.as_ref().or(actor.peer.as_ref());
    let way = match actor.via {
        Via::Cli => t.by_cli,
        Via::Api => "API",
        Via::Console => "console",
        Via::Signal => t.by_signal,
    };
    match place {
        Some(place) => format!("{text} · {way} · {place}"),
        None => format!("{text} · {way}"),
    }
}
