//! `/why?q=`: why did somebody see 提交失败? Takes what a person has in hand, and answers in sentences.

use std::collections::{BTreeMap, HashSet};

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use futures_util::future::join_all;

use super::{
    Desk, Fault, Frame, Halt, Phrases, Term, Unread, Viewer, When, action_of, chosen, clipped, decision,
    decision_href, link, lookup, meaning_of, query, question::Question, refusals, see_other, task_of,
};
use crate::{
    command::outcome::Kind,
    ledger::{AROUND, Filter, KeptRefusal, PATIENCE, Record, RefusalFilter, ShowingState, State, Stopped},
    time::Timestamp,
};

/// Entries of each kind that an answer has.
const MOST: usize = 20;

/// Decisions of an answer whose history is read as well.
const WHOLE: usize = 20;

/// Refused callbacks that name nobody, which are summed up.
const LOOKED_THROUGH: usize = 500;

/// Longest question, in characters.
const LONGEST: usize = 300;

/// One thing that happened.
struct Answer {
    at: When,
    order: Timestamp,
    class: &'static str,
    href: String,
    name: Term,
    about: String,
    sentences: Vec<String>,
    /// The decision that a refusal was about.
    decision: Option<String>,
}

/// Requests that name nobody.
struct Strangers {
    href: String,
    text: String,
}

/// What to do if this is no answer.
struct Next {
    text: &'static str,
    command: &'static str,
}

/// A question to try.
struct Example {
    href: String,
    q: String,
    text: &'static str,
}

#[derive(Template)]
#[template(path = "why.html", config = "src/console/pages/askama.toml")]
struct WhyPage {
    f: Frame,
    t: &'static Phrases,
    heading: Option<String>,
    wrong: Option<&'static str>,
    answers: Vec<Answer>,
    strangers: Vec<Strangers>,
    end: Option<String>,
    next: Option<Next>,
    examples: Vec<Example>,
}

/// `GET /why`.
pub(super) async fn page(
    viewer: Viewer,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Halt> {
    let (t, pairs) = (viewer.t(), query(&request));
    let q = chosen(&pairs, "q");
    let mut page = WhyPage {
        t,
        heading: None,
        wrong: None,
        answers: Vec::new(),
        strangers: Vec::new(),
        end: None,
        next: None,
        examples: Vec::new(),
        f: viewer.frame.clone(),
    };
    if q.is_empty() {
        page.examples = examples(t);
        return Ok(viewer.page(&page));
    }
    if q.chars().count() > LONGEST {
        page.wrong = Some(t.why_nothing_unread);
        return Ok(viewer.page(&page));
    }
    let question = Question::read(q, Timestamp::now(), &viewer.zone);
    let asked = question.absolute(&viewer.zone);
    if question.at.is_some() && asked != q {
        return Ok(see_other(&link("/why", [("q", &*asked)])));
    }
    page.heading = Some(heading(&question, &viewer));
    match answered(&question, &viewer, &desk).await {
        Ok(Answered { answers, strangers, stopped }) => {
            let is_empty = answers.is_empty();
            (page.answers, page.strangers) = (answers, strangers);
            page.end = Some(match (question.id.filter(|_| is_empty), stopped) {
                (Some(_), _) => t.no_such_decision.to_owned(),
                (None, Some(stopped)) => lookup::stopped(stopped, &viewer),
                (None, None) => end(&question, &asked, is_empty, t),
            });
            if is_empty {
                page.next = Some(Next { text: t.why_doctor, command: "countersign doctor --public-url URL" });
            }
        }
        Err(unread) => {
            page.wrong = Some(unread.0);
            page.next = Some(Next { text: t.why_next, command: "countersign doctor" });
        }
    }
    Ok(viewer.page(&page))
}

/// What the end of the answers means.
fn end(question: &Question, asked: &str, is_empty: bool, t: &Phrases) -> String {
    let is_name = |text: &String| !text.is_ascii() && !text.contains('/');
    let end = match (question.at, is_empty) {
        (Some(_), _) => t.why_nothing_around.to_owned(),
        (None, true) => (t.why_nothing)(asked),
        (None, false) => (t.why_nothing_else)(asked),
    };
    let hint = if is_empty && question.text.as_ref().is_some_and(is_name) { t.why_no_names } else { "" };
    [&*end, t.why_ends, hint]
        .iter()
        .filter(|part| !part.is_empty())
        .copied()
        .collect::<Vec<_>>()
        .join(t.space)
}

fn heading(question: &Question, viewer: &Viewer) -> String {
    let t = viewer.t();
    let mut parts = Vec::new();
    parts.extend(question.id.map(|id| format!("{} {id}", t.why_is_decision)));
    parts.extend(question.card.as_ref().map(|card| format!("{} {card}", t.why_card)));
    parts.extend(question.peer.map(|peer| format!("{} {peer}", t.why_peer)));
    parts.extend(question.text.as_ref().map(|text| format!("{} {text}", t.why_text)));
    parts.extend(question.at.map(|at| format!("{} {}", viewer.shown(at), t.why_around)));
    (t.why_heading)(&parts.join(t.comma))
}

fn examples(t: &'static Phrases) -> Vec<Example> {
    let example = |q: &str, text| Example { href: link("/why", [("q", q)]), q: q.to_owned(), text };
    vec![
        example("zhang3", t.example_user),
        example("zhang3 10:31", t.example_time),
        example("PO-77/n1", t.example_task),
        example("01a216f6-e462-7457-87f7-20bdc5398582", t.example_id),
        example("203.0.113.9", t.example_peer),
    ]
}

struct Answered {
    answers: Vec<Answer>,
    strangers: Vec<Strangers>,
    /// Where the search stopped that came the least far, if not all came to their end.
    stopped: Option<Stopped>,
}

async fn answered(question: &Question, viewer: &Viewer, desk: &Desk) -> Result<Answered, Unread> {
    let (since, until) = match question.at {
        Some(at) => (Some(at - AROUND), Some(at + AROUND)),
        None => (None, None),
    };
    let decisions = Filter { since, until, limit: MOST, ..Filter::default() };
    let refused = RefusalFilter { since, until, limit: MOST, ..RefusalFilter::default() };
    let (mut records, mut kept): (Vec<Record>, Vec<KeptRefusal>) = (Vec::new(), Vec::new());
    let id = match (question.id, question.seq) {
        (Some(id), _) => Some(id),
        (None, Some(seq)) => viewer.look(desk.ledger.id_at(seq)).await?,
        (None, None) => None,
    };
    if let Some(id) = id {
        records.extend(viewer.look(desk.ledger.find(id)).await?);
    }
    let mut stopped = Vec::new();
    let (filters, refusals): (Vec<_>, Vec<_>) = narrowed(question, &decisions, &refused).into_iter().unzip();
    let of_peer = question.peer.map(|peer| RefusalFilter { peer: Some(peer.to_string()), ..refused.clone() });
    let refusals = refusals.into_iter().chain(of_peer);
    let (found, refused_to) = tokio::join!(
        join_all(filters.into_iter().map(|filter| viewer.look(desk.search(filter)))),
        join_all(refusals.map(|filter| viewer.look(desk.ledger.search_refusals(filter, PATIENCE))))
    );
    for found in found {
        let found = found?;
        records.extend(found.rows);
        stopped.extend(found.stopped);
    }
    for found in refused_to {
        let found = found?;
        kept.extend(found.rows);
        stopped.extend(found.stopped);
    }
    let mut strangers = Vec::new();
    // Somebody whose callback could not be read may be who is asked for.
    if question.peer.is_none()
        && question.id.is_none()
        && (question.at.is_some() || records.is_empty() && kept.is_empty())
    {
        let recent = since.or_else(|| Some(Timestamp::now() - AROUND * 12));
        let filter = RefusalFilter { nobody: true, since: recent, limit: LOOKED_THROUGH, ..refused };
        let found = viewer.look(desk.ledger.search_refusals(filter, PATIENCE)).await?;
        stopped.extend(found.stopped);
        strangers = unattributed(found.rows, viewer, recent, until);
    }
    let mut known = HashSet::new();
    records.retain(|record| known.insert(record.command_id));
    records.sort_by_key(|record| std::cmp::Reverse(record.received_at));
    // Lists have no history: what an operator wrote, and whether the same callback came again.
    let whole = records.iter().take(WHOLE).map(|record| viewer.look(desk.ledger.find(record.command_id)));
    let whole = join_all(whole).await;
    for (record, whole) in records.iter_mut().zip(whole) {
        if let Some(whole) = whole? {
            *record = whole;
        }
    }
    let mut answers: Vec<Answer> = records.iter().map(|record| of_record(record, viewer)).collect();
    answers.extend(
        kept.iter()
            .filter(|one| !one.refused.stranger || question.peer.is_some())
            .map(|one| of_refusal(one, viewer, desk)),
    );
    answers.sort_by(|one, other| other.order.cmp(&one.order).then_with(|| one.href.cmp(&other.href)));
    answers.dedup_by(|one, other| one.href == other.href);
    let stopped = stopped.into_iter().max_by_key(|stopped| stopped.back_to);
    Ok(Answered { answers, strangers, stopped })
}

/// The look-ups for a text or a card: a text may be a user, a task or an instance.
fn narrowed(
    question: &Question,
    decisions: &Filter,
    refused: &RefusalFilter,
) -> Vec<(Filter, RefusalFilter)> {
    let mut all = Vec::new();
    if let Some(card) = &question.card {
        all.push((
            Filter { message_id: Some(card.clone()), ..decisions.clone() },
            RefusalFilter { message_id: Some(card.clone()), ..refused.clone() },
        ));
    }
    // The same digits may be an id of the third party.
    for text in question.text.iter().chain(&question.card) {
        all.push((
            Filter { user_id: Some(text.clone()), ..decisions.clone() },
            RefusalFilter { user_id: Some(text.clone()), ..refused.clone() },
        ));
        all.push((
            Filter { task_id: Some(text.clone()), ..decisions.clone() },
            RefusalFilter { task_id: Some(text.clone()), ..refused.clone() },
        ));
        all.push((
            Filter { instance_id: Some(text.clone()), ..decisions.clone() },
            RefusalFilter { instance_id: Some(text.clone()), ..refused.clone() },
        ));
        if let Some((instance, task)) = text.split_once('/') {
            let (instance, task) = (Some(instance.trim().to_owned()), Some(task.trim().to_owned()));
            all.push((
                Filter { instance_id: instance.clone(), task_id: task.clone(), ..decisions.clone() },
                RefusalFilter { instance_id: instance, task_id: task, ..refused.clone() },
            ));
        }
    }
    if all.is_empty() && question.at.is_some() {
        all.push((decisions.clone(), refused.clone()));
    }
    all
}

fn unattributed(
    kept: Vec<KeptRefusal>,
    viewer: &Viewer,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
) -> Vec<Strangers> {
    let mut by_peer = BTreeMap::<String, u64>::new();
    for one in kept.into_iter().filter(|one| one.refused.reason == "unauthenticated") {
        *by_peer.entry(one.refused.peer.unwrap_or_else(|| "–".to_owned())).or_default() += 1;
    }
    let mut by_peer: Vec<_> = by_peer.into_iter().collect();
    by_peer.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let shown = |at: Option<Timestamp>| at.map(|at| viewer.zone.show(at)).unwrap_or_default();
    let (since, until) = (shown(since), shown(until));
    let stranger = |(peer, count): (String, u64)| Strangers {
        href: link("/refusals", [("reason", "unauthenticated"), ("since", &*since), ("until", &*until)]),
        text: (viewer.t().why_strangers)(&count.to_string(), &peer),
    };
    by_peer.into_iter().take(5).map(stranger).collect()
}

fn of_record(record: &Record, viewer: &Viewer) -> Answer {
    let t = viewer.t();
    let mut sentences =
        vec![(t.why_accepted)(t.state(record.state), record.state.as_str(), &meaning_of(record, t))];
    sentences.extend(decision::note(record, t).map(|note| (t.why_because)(&clipped(&note))));
    let outcome = record.outcome.as_ref();
    let message = outcome.and_then(|outcome| outcome.message.as_deref());
    sentences.extend(message.map(|message| (t.why_worker_said)(&clipped(message))));
    let is_declined = outcome.is_some_and(|outcome| outcome.outcome != Kind::Applied);
    if is_declined {
        sentences.push((t.why_do)(t.declined_remedy));
    }
    let not_shown = outcome.is_some_and(|outcome| outcome.showing == ShowingState::Parked);
    let fault = match record.state {
        State::Parked => Some(Fault::Parked),
        State::Rejected => Some(Fault::Rejected),
        State::Unrouted => Some(Fault::Unrouted),
        State::Pending | State::Published => not_shown.then_some(Fault::Outcomes),
    };
    sentences.extend(fault.map(|fault| (t.why_do)(t.fault(fault).remedy)));
    let repeats = record.duplicates_at.as_ref().map_or(0, Vec::len);
    if repeats > 0 {
        sentences.push((t.repeated)(&repeats.to_string()));
    }
    let task = task_of(record.instance_id.as_deref(), record.task_id.as_deref());
    Answer {
        at: viewer.when(record.received_at),
        order: record.received_at,
        class: match (fault, is_declined || repeats > 0) {
            (Some(_), _) => "bad",
            (None, true) => "warn",
            (None, false) => "good",
        },
        href: decision_href(record.command_id),
        name: Term::new(t.event_accepted, t.event_accepted),
        about: clipped(&(t.decision_heading)(&record.user_id, &action_of(&record.action, t), &task)),
        sentences,
        decision: None,
    }
}

fn of_refusal(one: &KeptRefusal, viewer: &Viewer, desk: &Desk) -> Answer {
    let t = viewer.t();
    let refused = &one.refused;
    let mut sentences = Vec::new();
    sentences.extend(refusals::sentence(desk, refused).map(|text| (t.why_they_read)(&text)));
    sentences.extend(refused.detail.as_ref().map(|detail| (t.why_because)(&clipped(&t.cause(detail)))));
    sentences.extend(t.remedy_of(&refused.reason).map(t.why_do));
    let user = refused.user_id.as_deref().or(refused.peer.as_deref()).unwrap_or("–");
    let action = refused.action_type.as_deref().unwrap_or_default();
    let reason = Term::of_reason(&refused.reason, t);
    Answer {
        at: viewer.when(refused.refused_at),
        order: refused.refused_at,
        class: "bad",
        href: format!("/refusals/{}", one.id),
        name: Term { word: (t.refusal_heading)(&reason.word), ..reason },
        about: clipped(&format!("{user} {action} {}", refusals::about(refused))),
        sentences,
        decision: refusals::decision_of(refused).map(decision_href),
    }
}
