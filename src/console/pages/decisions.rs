//! `/decisions`: what was decided, and where it is.

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::{
    Choice, Desk, Field, Frame, Halt, Live, Phrases, Viewer, choices, chosen, fields, listed::DecisionRow,
    look, lookup, query, searched, see_other,
};
use crate::{
    command::Action,
    console::filters,
    ledger::{OutcomeFilter, State},
};

#[derive(Template)]
#[template(path = "decisions.html", config = "src/console/pages/askama.toml")]
struct ListPage {
    f: Frame,
    t: &'static Phrases,
    live: Option<Live>,
    states: Vec<Choice>,
    actions: Vec<Choice>,
    outcomes: Vec<Choice>,
    fields: Vec<Field>,
    wrong: Option<String>,
    rows: Vec<DecisionRow>,
    caption: &'static str,
    empty: String,
    stopped: Option<String>,
    next: Option<String>,
    first: Option<String>,
    csv: String,
    jsonl: String,
}

/// `GET /decisions`: newest first.
pub(super) async fn list(
    viewer: Viewer,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Halt> {
    let (t, pairs) = (viewer.t(), query(&request));
    let labels = labels(t);
    let (mut wrong, mut wrong_field, mut rows, mut next) = (None, None, Vec::new(), None);
    let (mut stopped, mut pruned) = (None, None);
    match filters::commands(&pairs, &viewer.zone) {
        Ok(mut filter) => {
            let times = (filter.since, filter.until);
            if let Some(absolute) = lookup::absolute("/decisions", &pairs, times, &viewer.zone) {
                return Ok(see_other(&absolute));
            }
            let limit = filter.limit;
            filter.limit += 1;
            let found = look!(viewer, desk.search(filter));
            stopped = found.stopped;
            (rows, next) = found.page(limit, |one| one.seq);
            if rows.is_empty() && stopped.is_none() {
                pruned = look!(viewer, desk.ledger.pruned_before());
            }
        }
        Err(problem) => {
            wrong_field = problem.parameter().map(str::to_owned);
            wrong = Some(lookup::wrong(&problem, &labels, t));
        }
    }
    let live = pairs.is_empty().then(|| Live::list(rows.first().map_or(0, |one| one.seq), 0));
    let mut empty = (t.searched_all)(&searched(&pairs, &labels, |name, value| word(name, value, t), t));
    if let Some(pruned) = pruned {
        empty.push(' ');
        empty.push_str(&(t.pruned)(&viewer.shown(pruned)));
    }
    let states = State::ALL.iter().map(|state| (t.state(*state), state.as_str()));
    let actions = Action::ALL.iter().map(|action| (t.action(*action), action.as_str()));
    let outcomes = OutcomeFilter::ALL.map(|outcome| (t.outcome_filter(outcome), outcome.as_str()));
    let page = ListPage {
        t,
        live,
        states: choices(states, chosen(&pairs, "state")),
        actions: choices(actions, chosen(&pairs, "action")),
        outcomes: choices(outcomes, chosen(&pairs, "outcome")),
        fields: fields(&pairs, &labels[3..], wrong_field.as_deref()),
        wrong,
        rows: rows.iter().map(|record| DecisionRow::of(record, &viewer)).collect(),
        caption: t.decisions_title,
        empty,
        stopped: stopped.map(|stopped| lookup::stopped(stopped, &viewer)),
        next: next.map(|next| lookup::at("/decisions", &pairs, Some(next))),
        first: pairs.iter().any(|(name, _)| name == "before").then(|| lookup::at("/decisions", &pairs, None)),
        csv: lookup::at("/decisions.csv", &pairs, None),
        jsonl: lookup::at("/decisions.jsonl", &pairs, None),
        f: viewer.frame.clone(),
    };
    Ok(viewer.page(&page))
}

/// The parameters of the filter, as the form calls them; first those that are chosen from a list.
fn labels(t: &Phrases) -> [(&'static str, &'static str); 10] {
    [
        ("state", t.col_state),
        ("action", t.col_action),
        ("outcome", t.outcome),
        ("user_id", t.col_user),
        ("task_id", t.task),
        ("instance_id", t.instance),
        ("endpoint", t.col_endpoint),
        ("message_id", t.card_filter),
        ("since", t.since),
        ("until", t.until),
    ]
}

/// The word for a code that was chosen from a list.
fn word(name: &str, code: &str, t: &Phrases) -> Option<&'static str> {
    match name {
        "state" => code.parse::<State>().ok().map(|state| t.state(state)),
        "action" => code.parse::<Action>().ok().map(|action| t.action(action)),
        "outcome" => OutcomeFilter::parse(code).map(|outcome| t.outcome_filter(outcome)),
        _ => None,
    }
}
