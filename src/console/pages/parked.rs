//! `/parked`: what waits for an operator, by cause, and how all of one cause is dealt with.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::{
    Desk, Frame, Halt, Mark, Phrases, Viewer,
    bulk::{self, Done, MOST, ResultView, STATES, waiting},
    clipped, decision, link, look,
};
use crate::{
    console::filters::digits,
    ledger::{Record, State, history::What},
};

/// Commands of a group whose history is read for what the page says of the cause.
const READ: usize = 5;

/// Commands with the same state, endpoint and cause.
struct Group {
    mark: Mark,
    cause: String,
    text: String,
    remedy: &'static str,
    list: String,
    requeue: String,
    requeue_label: String,
}

#[derive(Template)]
#[template(path = "parked.html", config = "src/console/pages/askama.toml")]
struct ParkedPage {
    f: Frame,
    t: &'static Phrases,
    result: Option<ResultView>,
    groups: Vec<Group>,
    more: bool,
    showings: u64,
    show_again: String,
    strays: u64,
}

/// `GET /parked`.
pub(super) async fn page(viewer: Viewer, desk: web::Data<Desk>) -> Result<HttpResponse, Halt> {
    shown(viewer, &desk, None).await
}

/// `GET /parked/results/{id}`: the same, with what was done last.
pub(super) async fn result(
    viewer: Viewer,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Halt> {
    let done =
        digits(request.match_info().get("id").unwrap_or_default()).and_then(|id| desk.results.find(id));
    shown(viewer, &desk, done).await
}

async fn shown(viewer: Viewer, desk: &Desk, done: Option<Done>) -> Result<HttpResponse, Halt> {
    let t = viewer.t();
    let (mut groups, mut more) = (Vec::new(), false);
    for state in STATES {
        let records = look!(viewer, waiting(desk, state, MOST + 1));
        more |= records.len() > MOST;
        for ((endpoint, note), records) in grouped(&records) {
            let causes = look!(viewer, causes(desk, &records, t));
            let cause = if causes.is_empty() { t.unnamed_cause.to_owned() } else { causes.join(t.comma) };
            groups.push(group(&viewer, state, endpoint, note, &cause, &records));
        }
    }
    let stats = look!(viewer, desk.ledger.stats());
    let page = ParkedPage {
        t,
        result: done.map(|done| bulk::told(done, t)),
        groups,
        more,
        showings: stats.outcomes_parked,
        show_again: (t.show_these_again)(&stats.outcomes_parked.to_string()),
        strays: stats.strays,
        f: viewer.frame.clone(),
    };
    Ok(viewer.page(&page))
}

/// Endpoint and note.
type Cause<'a> = (&'a str, Option<&'a str>);

fn grouped(records: &[Record]) -> Vec<(Cause<'_>, Vec<&Record>)> {
    let mut groups: BTreeMap<Cause<'_>, Vec<&Record>> = BTreeMap::new();
    for record in records.iter().take(MOST) {
        groups.entry((&record.endpoint, record.note.as_deref())).or_default().push(record);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, records)| std::cmp::Reverse(records.len()));
    groups
}

/// Why the commands of a group wait, as far as the newest of them tell: what came back with them, or what an operator
/// wrote, only their history says.
async fn causes(
    desk: &Desk,
    records: &[&Record],
    t: &Phrases,
) -> Result<Vec<String>, crate::ledger::LookError> {
    let mut causes = Vec::new();
    for record in records.iter().take(READ) {
        let found = desk.ledger.find(record.command_id).await?;
        let cause = found.and_then(|found| decision::note(&found, t).or_else(|| came_back(&found, t)));
        causes.extend(cause.filter(|cause| !causes.contains(cause)));
    }
    Ok(causes)
}

fn came_back(found: &Record, t: &Phrases) -> Option<String> {
    found.history.iter().flatten().rev().find_map(|event| match &event.what {
        What::CameBack { why, queue } => {
            Some((t.came_back)(t.why_back(*why), queue.as_deref().unwrap_or_default()))
        }
        _ => None,
    })
}

fn group(
    viewer: &Viewer,
    state: State,
    endpoint: &str,
    note: Option<&str>,
    cause: &str,
    records: &[&Record],
) -> Group {
    let t = viewer.t();
    let count = records.len().to_string();
    let newest = records.first().map(|record| viewer.shown(record.received_at)).unwrap_or_default();
    let oldest = records.last().map(|record| viewer.shown(record.received_at)).unwrap_or_default();
    let times = if newest == oldest { newest } else { format!("{oldest} – {newest}") };
    let word = state.as_str();
    Group {
        mark: Mark::of(state, t),
        cause: clipped(cause),
        text: (t.group_is)(&count, &clipped(endpoint), &times),
        remedy: match state {
            State::Unrouted => t.group_remedy_unrouted,
            State::Rejected => t.group_remedy_rejected,
            State::Parked | State::Pending | State::Published => t.group_remedy_parked,
        },
        list: link("/decisions", [("state", word), ("endpoint", endpoint)]),
        requeue: link(
            "/parked/requeue",
            [("state", word), ("endpoint", endpoint), ("note", note.unwrap_or_default())],
        ),
        requeue_label: (t.requeue_these)(&count),
    }
}
