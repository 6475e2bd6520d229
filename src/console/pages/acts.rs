//! `/acts`: who did what to what, and why.

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use futures_util::future::join_all;
use serde_json::Value;

use super::{
    Choice, Desk, Field, Frame, Halt, Phrases, Term, Viewer, When, action_of, choices, chosen, clipped,
    decision_href, fields, look, lookup, query, see_other, task_of,
};
use crate::{
    console::{access::LOOPBACK, api::page, filters},
    ledger::{ActKind, ActRecord, Actor, Via},
};

/// What an act was on.
#[derive(Default)]
struct Target {
    text: String,
    href: Option<String>,
}

/// An act in the list.
struct ActRow {
    id: u64,
    at: When,
    act: Term,
    actor: String,
    target: Target,
    count: String,
    reason: String,
    detail: Vec<(String, String)>,
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

/// The parameters of the filter, as the form calls them; first the one that is chosen from a list.
fn labels(t: &Phrases) -> [(&'static str, &'static str); 5] {
    [("act", t.act), ("actor", t.actor), ("command_id", t.fact_id), ("since", t.since), ("until", t.until)]
}

/// `GET /acts`: newest first.
pub(super) async fn page_of(
    viewer: Viewer,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Halt> {
    let (t, pairs) = (viewer.t(), query(&request));
    let labels = labels(t);
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
            wrong = Some(lookup::wrong(&problem, &labels, t));
        }
    }
    let targets = look!(viewer, targets(&desk, &rows, t));
    let page = ActsPage {
        t,
        kinds: choices(
            ActKind::ALL.iter().map(|kind| (t.act_of(*kind), kind.as_str())),
            chosen(&pairs, "act"),
        ),
        fields: fields(&pairs, &labels[1..], wrong_field.as_deref()),
        wrong,
        rows: rows.into_iter().zip(targets).map(|(one, target)| row(one, target, &viewer)).collect(),
        next: next.map(|next| lookup::at("/acts", &pairs, Some(next))),
        first: pairs.iter().any(|(name, _)| name == "before").then(|| lookup::at("/acts", &pairs, None)),
        f: viewer.frame.clone(),
    };
    Ok(viewer.page(&page))
}

/// What each act was on: the first of its commands, or what its details name.
async fn targets(
    desk: &Desk,
    acts: &[ActRecord],
    t: &Phrases,
) -> Result<Vec<Target>, crate::ledger::LookError> {
    let firsts = desk.ledger.first_of_acts(acts.iter().map(|act| act.id).collect()).await?;
    let of_act = |act: &ActRecord| firsts.iter().find(|(id, _)| *id == act.id).map(|(_, command)| *command);
    let found = join_all(acts.iter().map(async |act| match of_act(act) {
        Some(command) => desk.ledger.find(command).await,
        None => Ok(None),
    }));
    let mut targets = Vec::with_capacity(acts.len());
    for (act, found) in acts.iter().zip(found.await) {
        targets.push(match found? {
            Some(record) => {
                let task = task_of(record.instance_id.as_deref(), record.task_id.as_deref());
                let action = action_of(&record.action, t);
                let heading = clipped(&(t.decision_heading)(&record.user_id, &action, &task));
                let others = act.count.saturating_sub(1);
                let text = if others == 0 { heading } else { (t.and_others)(&heading, &others.to_string()) };
                Target { text, href: Some(decision_href(record.command_id)) }
            }
            None => Target { text: named(act, t), href: None },
        });
    }
    Ok(targets)
}

/// What an act without commands was on, as far as its details say.
fn named(act: &ActRecord, t: &Phrases) -> String {
    let detail = detail(act);
    let member = |name: &str| detail.as_ref().and_then(|detail| detail.get(name));
    let text = match act.act {
        ActKind::Export => member("what").and_then(Value::as_str).map(|what| {
            let filter = member("filter").map(|filter| told(filter, t)).unwrap_or_default();
            let what = t.member(what).unwrap_or(what);
            if filter.is_empty() { what.to_owned() } else { (t.is_value)(what, &filter) }
        }),
        ActKind::Register | ActKind::Unregister => {
            member("context").and_then(Value::as_str).map(|tag| (t.is_value)(t.context_title, tag))
        }
        ActKind::Login => Some(t.console.to_owned()),
        ActKind::Reload => Some(t.configuration_word.to_owned()),
        ActKind::RemoveStrays => member("ids").map(|ids| told(ids, t)),
        ActKind::Requeue => member("filter").map(|filter| told(filter, t)),
        ActKind::Park | ActKind::ShowAgain | ActKind::Prune => None,
    };
    text.map_or_else(|| "–".to_owned(), |text| clipped(&text))
}

fn detail(act: &ActRecord) -> Option<Value> {
    serde_json::from_str(act.detail.as_ref()?.get()).ok()
}

/// JSON for people.
fn told(value: &Value, t: &Phrases) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::Bool(yes) => if *yes { t.yes } else { t.no }.to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => t.member(text).unwrap_or(text).to_owned(),
        Value::Array(items) if items.is_empty() => t.none.to_owned(),
        Value::Array(items) => items.iter().map(|item| told(item, t)).collect::<Vec<_>>().join(t.comma),
        Value::Object(members) => {
            let told = |(name, value): (&String, &Value)| {
                (t.is_value)(t.member(name).unwrap_or(name), &told(value, t))
            };
            members.iter().map(told).collect::<Vec<_>>().join(t.comma)
        }
    }
}

fn row(one: ActRecord, target: Target, viewer: &Viewer) -> ActRow {
    let t = viewer.t();
    let detail = match detail(&one) {
        Some(Value::Object(members)) => members
            .iter()
            .map(|(name, value)| (t.member(name).unwrap_or(name).to_owned(), clipped(&told(value, t))))
            .collect(),
        Some(_) | None => Vec::new(),
    };
    // An export is written down before its rows are counted, and the others change no command and no context.
    let is_counted = !matches!(one.act, ActKind::Export | ActKind::Login | ActKind::Reload);
    ActRow {
        id: one.id,
        at: viewer.when(one.at),
        act: Term::new(t.act_of(one.act), one.act.as_str()),
        actor: clipped(&who(&one.actor, t)),
        target,
        count: if is_counted { one.count.to_string() } else { "–".to_owned() },
        reason: one.reason.unwrap_or_else(|| "–".to_owned()),
        detail,
    }
}

/// An actor, for people.
pub(super) fn who(actor: &Actor, t: &Phrases) -> String {
    let name = actor.name.as_deref().map(|name| if name == LOOPBACK { t.loopback } else { name });
    let mut text = name.unwrap_or("–").to_owned();
    if let Some(sudo) = &actor.sudo_user {
        text.push_str(&format!(" (sudo {sudo})"));
    }
    let place = actor.host.as_ref().or(actor.peer.as_ref());
    let way = match actor.via {
        Via::Cli => t.by_cli,
        Via::Api => "API",
        Via::Console => t.console,
        Via::Signal => t.by_signal,
    };
    match place {
        Some(place) => format!("{text} · {way} · {place}"),
        None => format!("{text} · {way}"),
    }
}
