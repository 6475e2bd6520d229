//! `/refusals`: who was refused, and what they read.

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::{
    Choice, Desk, Fact, Field, Frame, Halt, Live, Phrases, Term, Viewer, When, choices, chosen, clipped,
    decision_href, fields, link, look, lookup, query, see_other, task_of,
};
use crate::{
    command::CommandId,
    console::filters::{self, digits},
    ledger::{KeptRefusal, PATIENCE, RefusalFilter, RefusedCallback},
};

/// A refused callback in a list.
pub(super) struct RefusalRow {
    pub(super) href: String,
    pub(super) at: When,
    pub(super) reason: Term,
    pub(super) detail: Option<String>,
    pub(super) user: String,
    pub(super) task: String,
    pub(super) endpoint: String,
    pub(super) peer: String,
}

impl RefusalRow {
    fn of(one: &KeptRefusal, viewer: &Viewer) -> Self {
        let (t, refused) = (viewer.t(), &one.refused);
        let or_dash = |text: &Option<String>| text.as_deref().map_or_else(|| "–".to_owned(), clipped);
        Self {
            href: format!("/refusals/{}", one.id),
            at: viewer.when(refused.refused_at),
            reason: Term::of_reason(&refused.reason, t),
            detail: refused.detail.as_deref().map(|detail| clipped(&t.cause(detail))),
            user: or_dash(&refused.user_id),
            task: clipped(&about(refused)),
            endpoint: clipped(&refused.endpoint),
            peer: or_dash(&refused.peer),
        }
    }
}

/// The task that a refused callback was about, as far as it said.
pub(super) fn about(refused: &RefusedCallback) -> String {
    let context = refused.context_task.as_ref();
    let instance = refused.instance_id.as_ref().or_else(|| context?.instance_id.as_ref());
    let task = refused.task_id.as_ref().or(refused.search_id.as_ref()).or_else(|| context?.task_id.as_ref());
    task_of(instance.map(String::as_str), task.map(String::as_str))
}

#[derive(Template)]
#[template(path = "refusals.html", config = "src/console/pages/askama.toml")]
struct ListPage {
    f: Frame,
    t: &'static Phrases,
    live: Option<Live>,
    reasons: Vec<Choice>,
    fields: Vec<Field>,
    wrong: Option<String>,
    rows: Vec<RefusalRow>,
    stopped: Option<String>,
    next: Option<String>,
    first: Option<String>,
    csv: String,
    jsonl: String,
}

/// `GET /refusals`: newest first.
pub(super) async fn list(
    viewer: Viewer,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Halt> {
    let (t, pairs) = (viewer.t(), query(&request));
    let labels = labels(t);
    let (mut wrong, mut wrong_field, mut rows, mut next) = (None, None, Vec::new(), None);
    let mut stopped = None;
    match filters::refusals(&desk.reasons.words, &pairs, &viewer.zone) {
        Ok(mut filter) => {
            let times = (filter.since, filter.until);
            if let Some(absolute) = lookup::absolute("/refusals", &pairs, times, &viewer.zone) {
                return Ok(see_other(&absolute));
            }
            let limit = filter.limit;
            filter.limit += 1;
            let found = look!(viewer, desk.ledger.search_refusals(filter, PATIENCE));
            stopped = found.stopped;
            (rows, next) = found.page(limit, |one| one.id);
        }
        Err(problem) => {
            wrong_field = problem.parameter().map(str::to_owned);
            wrong = Some(lookup::wrong(&problem, &labels, t));
        }
    }
    let page = ListPage {
        t,
        live: pairs.is_empty().then(|| Live::list(0, rows.first().map_or(0, |one| one.id))),
        reasons: choices(
            desk.reasons.words.iter().map(|reason| (t.reason_of(reason).unwrap_or(*reason), *reason)),
            chosen(&pairs, "reason"),
        ),
        fields: fields(&pairs, &labels[1..], wrong_field.as_deref()),
        wrong,
        rows: rows.iter().map(|one| RefusalRow::of(one, &viewer)).collect(),
        stopped: stopped.map(|stopped| lookup::stopped(stopped, &viewer)),
        next: next.map(|next| lookup::at("/refusals", &pairs, Some(next))),
        first: pairs.iter().any(|(name, _)| name == "before").then(|| lookup::at("/refusals", &pairs, None)),
        csv: lookup::at("/refusals.csv", &pairs, None),
        jsonl: lookup::at("/refusals.jsonl", &pairs, None),
        f: viewer.frame.clone(),
    };
    Ok(viewer.page(&page))
}

/// The parameters of the filter, as the form calls them; first the one that is chosen from a list.
fn labels(t: &Phrases) -> [(&'static str, &'static str); 9] {
    [
        ("reason", t.col_reason),
        ("user_id", t.col_user),
        ("task_id", t.task),
        ("instance_id", t.instance),
        ("endpoint", t.col_endpoint),
        ("peer", t.col_peer),
        ("message_id", t.card_filter),
        ("since", t.since),
        ("until", t.until),
    ]
}

#[derive(Template)]
#[template(path = "refusal.html", config = "src/console/pages/askama.toml")]
struct OnePage {
    f: Frame,
    t: &'static Phrases,
    reason: Term,
    sentence: Option<String>,
    because: String,
    /// The cause as it is kept, if the page says it in other words.
    original: Option<String>,
    /// The decision that it was about.
    decision: Option<String>,
    remedy: &'static str,
    facts: Vec<Fact>,
    cli: String,
}

/// `GET /refusals/{id}`: one of them, with the sentence as it was read.
pub(super) async fn one(
    viewer: Viewer,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Halt> {
    let t = viewer.t();
    let id = digits(request.match_info().get("id").unwrap_or_default()).filter(|id| *id <= i64::MAX as u64);
    let Some(id) = id else { return Err(viewer.not_found(t.no_such_refusal)) };
    let filter = RefusalFilter { id: Some(id), limit: 1, ..RefusalFilter::default() };
    let found = look!(viewer, desk.ledger.refusals(filter)).pop();
    let Some(KeptRefusal { refused, .. }) = found else { return Err(viewer.not_found(t.no_such_refusal)) };
    let because = refused.detail.as_deref().map(|detail| t.cause(detail)).unwrap_or_else(|| {
        if refused.stranger { t.stranger_note.to_owned() } else { t.no_detail.to_owned() }
    });
    let is_other = |detail: &String| !because.contains(&**detail);
    let page = OnePage {
        t,
        reason: Term::of_reason(&refused.reason, t),
        sentence: sentence(&desk, &refused),
        original: refused.detail.clone().filter(is_other),
        because,
        decision: decision_of(&refused).map(decision_href),
        remedy: t.remedy_of(&refused.reason).unwrap_or(t.unknown),
        facts: facts(&refused, &viewer),
        cli: format!("countersign refusals {id}"),
        f: viewer.frame.clone(),
    };
    Ok(viewer.page(&page))
}

/// The sentence that the approver saw; `None` if it was no callback.
pub(super) fn sentence(desk: &Desk, refused: &RefusedCallback) -> Option<String> {
    (desk.reasons.sentence)(&refused.endpoint, &refused.reason, refused.detail.as_deref())
}

/// The decision that the cause of a refusal names: the one that is kept, or the one that it contradicts.
pub(super) fn decision_of(refused: &RefusedCallback) -> Option<CommandId> {
    let detail = refused.detail.as_deref()?;
    let rest = detail.strip_prefix("kept as ").or_else(|| detail.strip_prefix("contradicts "))?;
    CommandId::parse(rest.split(';').next()?)
}

fn facts(refused: &RefusedCallback, viewer: &Viewer) -> Vec<Fact> {
    let t = viewer.t();
    let mut facts = vec![
        Fact::of(t.col_time, When::exact(refused.refused_at, &viewer.zone).shown),
        Fact::link(
            t.col_endpoint,
            refused.endpoint.clone(),
            link("/refusals", [("endpoint", &*refused.endpoint)]),
        ),
    ];
    let of = |name, value: &Option<String>, key: &str| {
        value.as_ref().map(|value| Fact::link(name, value.clone(), link("/refusals", [(key, &**value)])))
    };
    facts.extend(
        refused.peer.clone().map(|peer| Fact::link(t.col_peer, peer.clone(), link("/why", [("q", &*peer)]))),
    );
    facts.extend(of(t.col_user, &refused.user_id, "user_id"));
    facts.extend(refused.action_type.clone().map(|action| Fact::of(t.col_action, action)));
    facts.extend(of(t.instance, &refused.instance_id, "instance_id"));
    facts.extend(of(t.task, &refused.task_id, "task_id"));
    facts.extend(refused.search_id.clone().map(|id| Fact::of(t.fact_search, id)));
    facts.extend(of(t.card, &refused.message_id, "message_id"));
    facts.extend(refused.approval_code.clone().map(|code| Fact::of(t.fact_approval_code, code)));
    if let Some(task) = &refused.context_task {
        let parts = [
            (t.instance, &task.instance_id),
            (t.task, &task.task_id),
            (t.fact_round, &task.round),
            (t.fact_business_key, &task.business_key),
        ];
        let told =
            |(name, value): (&str, &Option<String>)| value.as_deref().map(|value| (t.is_value)(name, value));
        let named: Vec<_> = parts.into_iter().filter_map(told).collect();
        facts.push(Fact::of(t.fact_context_task, named.join(t.comma)));
    }
    facts.push(Fact::of(t.fact_size_bytes, refused.body_bytes.to_string()));
    facts.push(Fact::of(t.fact_stranger, if refused.stranger { t.yes } else { t.no }));
    facts
}
