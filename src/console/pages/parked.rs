//! `/parked`: what waits for an operator, by cause, and how all of one cause is requeued.
//!
//! What is confirmed is what was shown: the places in the log are in the form. One that has changed since is left alone
//! and named afterwards.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use askama::Template;

use super::{
    Changer, Desk, Frame, Halt, Mark, Phrases, Viewer, acting, chosen, clipped, decision_href, link, look,
    query, see_other,
};
use crate::{
    command::Seq,
    console::filters::digits,
    ledger::{By, Filter, MAX_ORDERED, Order, OrderKind, Ordered, Record, State, history::What},
};

/// The states that wait for an operator.
const STATES: [State; 3] = [State::Parked, State::Rejected, State::Unrouted];

/// Commands of each state that the page takes in, and the most that one confirmation requeues.
const MOST: usize = MAX_ORDERED;

/// Commands that the page of a confirmation names.
const NAMED: usize = 100;

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

/// A command that is named with a link.
struct Named {
    href: String,
    name: String,
}

/// A command that was not requeued, and why.
#[derive(Debug, Clone)]
struct Changed {
    href: String,
    name: String,
    /// Its state now; `None` if it is gone.
    state: Option<State>,
}

/// What became of a confirmation.
#[derive(Debug, Clone)]
struct Done {
    requeued: usize,
    changed: Vec<Changed>,
}

/// The last results, so that reloading a page repeats nothing. The acts themselves are in the ledger.
#[derive(Debug, Default)]
pub(in crate::console) struct Results(Mutex<VecDeque<(u64, Done)>>);

impl Results {
    const KEPT: usize = 50;

    fn keep(&self, done: Done) -> u64 {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = kept.back().map_or(1, |(last, _)| last + 1);
        kept.push_back((number, done));
        if kept.len() > Self::KEPT {
            kept.pop_front();
        }
        number
    }

    fn find(&self, number: u64) -> Option<Done> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(one, _)| *one == number).map(|(_, done)| done.clone())
    }
}

struct ChangedRow {
    href: String,
    name: String,
    why: String,
}

struct ResultView {
    text: String,
    changed: Vec<ChangedRow>,
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
            let cause = match note {
                Some(note) => note.to_owned(),
                None => {
                    look!(viewer, came_back(desk, records[0])).unwrap_or_else(|| t.unnamed_cause.to_owned())
                }
            };
            groups.push(group(&viewer, state, endpoint, note, &cause, &records));
        }
    }
    let stats = look!(viewer, desk.ledger.stats());
    let page = ParkedPage {
        t,
        result: done.map(|done| told(done, t)),
        groups,
        more,
        showings: stats.outcomes_parked,
        strays: stats.strays,
        f: viewer.frame.clone(),
    };
    Ok(viewer.page(&page))
}

fn waiting(
    desk: &Desk,
    state: State,
    limit: usize,
) -> impl Future<Output = Result<Vec<Record>, crate::ledger::LookError>> + use<> {
    desk.ledger.list(Filter { state: Some(state), limit, ..Filter::default() })
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

/// Why a command came back: only its history says so.
async fn came_back(desk: &Desk, record: &Record) -> Result<Option<String>, crate::ledger::LookError> {
    let found = desk.ledger.find(record.command_id).await?;
    let events = found.and_then(|found| found.history).unwrap_or_default();
    Ok(events.iter().rev().find_map(|event| match &event.what {
        What::CameBack { why, queue: Some(queue) } => Some(format!("{} ({queue})", why.as_str())),
        What::CameBack { why, queue: None } => Some(why.as_str().to_owned()),
        _ => None,
    }))
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
        mark: Mark::of(state),
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

fn told(done: Done, t: &'static Phrases) -> ResultView {
    let text = (t.requeued)(&done.requeued.to_string(), &done.changed.len().to_string());
    let why = |changed: Changed| ChangedRow {
        href: changed.href,
        name: changed.name,
        why: match changed.state {
            Some(state) => format!("{} {}", t.changed_state, state.as_str()),
            None => t.changed_gone.to_owned(),
        },
    };
    ResultView { text, changed: done.changed.into_iter().take(NAMED).map(why).collect() }
}

#[derive(Template)]
#[template(path = "confirm.html", config = "src/console/pages/askama.toml")]
struct ConfirmPage {
    f: Frame,
    t: &'static Phrases,
    heading: String,
    warning: String,
    wrong: Option<&'static str>,
    state: &'static str,
    seqs: String,
    count: usize,
    reason: String,
    type_label: String,
    button: String,
    some: Vec<Named>,
}

/// `GET /parked/requeue`: what would be requeued, and a form to confirm it.
pub(super) async fn confirm(
    Confirmer(viewer): Confirmer,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Halt> {
    let pairs = query(&request);
    let Some(state) = waiting_state(chosen(&pairs, "state")) else { return Ok(see_other("/parked")) };
    let (endpoint, note) = (chosen(&pairs, "endpoint"), chosen(&pairs, "note"));
    let records = look!(viewer, waiting(&desk, state, MOST));
    let is_of_group = |record: &&Record| {
        record.endpoint == endpoint && record.note.as_deref().unwrap_or_default().trim() == note
    };
    let seqs: Vec<Seq> = records.iter().filter(is_of_group).map(|record| record.seq).collect();
    if seqs.is_empty() {
        return Ok(see_other("/parked"));
    }
    let asked = Asked { state, seqs };
    Ok(viewer.page(&confirm_page(&viewer, &asked, "", None)))
}

/// Who may see the form: those who may use it.
pub(super) struct Confirmer(Viewer);

impl actix_web::FromRequest for Confirmer {
    type Error = Halt;
    type Future = std::future::Ready<Result<Self, Halt>>;

    fn from_request(request: &HttpRequest, _payload: &mut actix_web::dev::Payload) -> Self::Future {
        std::future::ready(super::admitted(request, crate::console::access::Need::Act).map(Self))
    }
}

fn waiting_state(word: &str) -> Option<State> {
    STATES.into_iter().find(|state| state.as_str() == word)
}

/// What is to be requeued.
struct Asked {
    state: State,
    seqs: Vec<Seq>,
}

impl Asked {
    fn read(pairs: &[(String, String)]) -> Option<Self> {
        let state = waiting_state(chosen(pairs, "state"))?;
        let seqs: Option<Vec<Seq>> = chosen(pairs, "seqs").split(' ').map(digits).collect();
        let mut seqs = seqs?;
        seqs.sort_unstable();
        seqs.dedup();
        let are_places = seqs.iter().all(|seq| (1..=i64::MAX as u64).contains(seq));
        ((1..=MOST).contains(&seqs.len()) && are_places).then_some(Self { state, seqs })
    }
}

fn confirm_page(viewer: &Viewer, asked: &Asked, reason: &str, wrong: Option<&'static str>) -> ConfirmPage {
    let t = viewer.t();
    let count = asked.seqs.len();
    let word = count.to_string();
    let seqs: Vec<_> = asked.seqs.iter().map(Seq::to_string).collect();
    ConfirmPage {
        t,
        heading: (t.requeue_these)(&word),
        warning: (t.requeue_warning)(&word),
        wrong,
        state: asked.state.as_str(),
        count,
        reason: reason.to_owned(),
        type_label: (t.type_count)(&word),
        button: (t.requeue_these)(&word),
        some: seqs
            .iter()
            .take(NAMED)
            .map(|seq| Named { href: format!("/decisions/{seq}"), name: seq.clone() })
            .collect(),
        seqs: seqs.join(" "),
        f: viewer.frame.clone(),
    }
}

/// `POST /parked/requeue`.
pub(super) async fn requeue(
    Changer(viewer): Changer,
    desk: web::Data<Desk>,
    body: web::Bytes,
) -> Result<HttpResponse, Halt> {
    let t = viewer.t();
    let pairs = acting::form(&body).unwrap_or_default();
    let Some(asked) = Asked::read(&pairs) else {
        return Err(viewer.halt(StatusCode::BAD_REQUEST, t.error_title, t.body_unread));
    };
    let again = |viewer: &Viewer, wrong| {
        let page = confirm_page(viewer, &asked, chosen(&pairs, "reason"), Some(wrong));
        Ok(viewer.answer(StatusCode::UNPROCESSABLE_ENTITY, &page))
    };
    let Some(reason) = acting::reason(&pairs) else { return again(&viewer, t.confirm_no_reason) };
    if chosen(&pairs, "typed").trim() != asked.seqs.len().to_string() {
        return again(&viewer, t.confirm_wrong_count);
    }
    let by = By { actor: viewer.actor.clone(), reason: Some(reason) };
    let done = carried_out(viewer, &desk, &asked, by).await?;
    tracing::info!(
        requeued = done.requeued,
        changed = done.changed.len(),
        "operator requeued in the console"
    );
    Ok(see_other(&format!("/parked/results/{}", desk.results.keep(done))))
}

/// Requeues those that are still in the state that was confirmed, as one act.
async fn carried_out(viewer: Viewer, desk: &Desk, asked: &Asked, by: By) -> Result<Done, Halt> {
    let (mut commands, mut places, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    for &seq in &asked.seqs {
        match look!(viewer, desk.ledger.id_at(seq)) {
            Some(id) => {
                commands.push(id);
                places.push(seq);
            }
            None => {
                changed.push(Changed { href: "/decisions".to_owned(), name: seq.to_string(), state: None });
            }
        }
    }
    if commands.is_empty() {
        return Ok(Done { requeued: 0, changed });
    }
    let (kind, if_state) = (OrderKind::Requeue, Some(asked.state));
    let order = Order { kind, commands: commands.clone(), if_state, by };
    let (_, carried_out) = acting::ordered(viewer, desk, order).await?;
    let requeued = carried_out.done();
    for ((id, seq), ordered) in commands.into_iter().zip(places).zip(carried_out.results) {
        let state = match ordered {
            Ordered::Done => continue,
            Ordered::OtherState(state) => Some(state),
            Ordered::UnknownCommand | Ordered::NoOutcome | Ordered::NothingToShow => None,
        };
        changed.push(Changed { href: decision_href(id), name: seq.to_string(), state });
    }
    Ok(Done { requeued, changed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pairs: &[(&str, &str)]) -> Option<Vec<Seq>> {
        let pairs: Vec<_> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Asked::read(&pairs).map(|asked| asked.seqs)
    }

    #[test]
    fn what_is_confirmed_is_a_list_of_places() {
        assert_eq!(asked(&[("state", "parked"), ("seqs", "7 5 7")]), Some(vec![5, 7]));
        let many: Vec<_> = (1..=MOST as u64 + 1).map(|seq| seq.to_string()).collect();
        for (state, seqs) in [
            ("published", "5"),
            ("pending", "5"),
            ("", "5"),
            ("parked", ""),
            ("parked", "0"),
            ("parked", "5,7"),
            ("parked", "-5"),
            ("parked", "9223372036854775808"),
            ("parked", &many.join(" ")),
        ] {
            assert_eq!(asked(&[("state", state), ("seqs", seqs)]), None, "{state} {seqs:.20}");
        }
    }

    #[test]
    fn the_last_results_are_kept() {
        let results = Results::default();
        let done = |requeued| Done { requeued, changed: Vec::new() };
        for requeued in 1..=60 {
            assert_eq!(results.keep(done(requeued)), requeued as u64);
        }
        assert_eq!(results.find(60).unwrap().requeued, 60);
        assert!(results.find(11).is_some() && results.find(10).is_none() && results.find(61).is_none());
    }
}
