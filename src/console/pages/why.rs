//! `/why?q=`: why did somebody see 提交失败? Takes what a person has in hand, and answers in sentences.

use std::{collections::BTreeMap, net::IpAddr};

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;
use futures_util::future::join_all;

use super::{
    Desk, Frame, Halt, Phrases, Unread, Viewer, When, action_of, chosen, clipped, decision_href, link,
    lookup, meaning_of, query, refusals, see_other, task_of,
};
use crate::{
    command::{CommandId, Seq, id::CommandRef},
    ledger::{AROUND, Filter, KeptRefusal, PATIENCE, Record, RefusalFilter, ShowingState, State, Stopped},
    time::{Timestamp, Zone, parse},
};

/// Entries of each kind that an answer has.
const MOST: usize = 20;

/// Refused callbacks that name nobody, which are summed up.
const LOOKED_THROUGH: usize = 500;

/// Longest question, in characters.
const LONGEST: usize = 300;

/// Digits of a number that can be the id of a card's message.
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 15..=20;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Question {
    id: Option<CommandId>,
    /// A small number may be a place in the log.
    seq: Option<Seq>,
    card: Option<String>,
    peer: Option<IpAddr>,
    text: Option<String>,
    at: Option<Timestamp>,
}

impl Question {
    fn read(q: &str, now: Timestamp, zone: &Zone) -> Self {
        let mut question = Self::default();
        let words: Vec<&str> = q.split_whitespace().collect();
        // The longest run of words at either end that is a time.
        let mut rest: &[&str] = &words;
        for count in (1..=words.len()).rev() {
            let (tail, head) = (&words[words.len() - count..], &words[..count]);
            let read = |words: &[&str]| {
                let text = words.join(" ");
                let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
                if is_number { None } else { parse(&text, now, zone).ok() }
            };
            if let Some(at) = read(tail) {
                (question.at, rest) = (Some(at), &words[..words.len() - count]);
                break;
            }
            if let Some(at) = read(head) {
                (question.at, rest) = (Some(at), &words[count..]);
                break;
            }
        }
        let text = rest.join(" ");
        if text.is_empty() {
            return question;
        }
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        if is_number && CARD_DIGITS.contains(&text.len()) {
            question.card = Some(text);
        } else if let Ok(peer) = text.parse::<IpAddr>() {
            question.peer = Some(peer.to_canonical());
        } else {
            match CommandRef::parse(&text) {
                Some(CommandRef::Id(id)) => question.id = Some(id),
                Some(CommandRef::Seq(seq)) => (question.seq, question.text) = (Some(seq), Some(text)),
                None => question.text = Some(text),
            }
        }
        question
    }

    /// The question as text, with an absolute time.
    fn absolute(&self, zone: &Zone) -> String {
        let parts = [
            self.id.map(|id| id.to_string()),
            self.card.clone(),
            self.peer.map(|peer| peer.to_string()),
            self.text.clone(),
            self.at.map(|at| zone.show(at)),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

/// One thing that happened.
struct Answer {
    at: When,
    order: Timestamp,
    class: &'static str,
    href: String,
    name: String,
    about: String,
    sentences: Vec<String>,
}

/// Requests that name nobody.
struct Strangers {
    href: String,
    text: String,
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
    next: Vec<&'static str>,
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
        next: Vec::new(),
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
                (None, None) => format!("{} {}", (t.why_nothing_else)(&asked), t.why_ends),
            });
            if is_empty {
                page.next = vec!["countersign doctor", "countersign doctor --public-url URL"];
            }
        }
        Err(unread) => {
            page.wrong = Some(unread.0);
            page.next = vec!["countersign doctor"];
        }
    }
    Ok(viewer.page(&page))
}

fn heading(question: &Question, viewer: &Viewer) -> String {
    let t = viewer.t();
    let mut parts = Vec::new();
    parts.extend(question.id.map(|id| format!("{} {id}", t.why_is_decision)));
    parts.extend(question.card.as_ref().map(|card| format!("{} {card}", t.why_card)));
    parts.extend(question.peer.map(|peer| format!("{} {peer}", t.why_peer)));
    parts.extend(question.text.as_ref().map(|text| format!("{} {text}", t.why_text)));
    parts.extend(question.at.map(|at| format!("{} {}", viewer.shown(at), t.why_around)));
    (t.why_heading)(&parts.join(", "))
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
    let mut sentences = vec![(t.why_accepted)(record.state.as_str(), meaning_of(record.state, t))];
    sentences.extend(record.note.as_ref().map(|note| (t.why_because)(&clipped(note))));
    if let Some(outcome) = &record.outcome {
        let mut words = outcome.outcome.as_str().to_owned();
        if outcome.showing != ShowingState::Nothing {
            words = format!("{words}, {}", outcome.showing.as_str());
        }
        if let Some(message) = &outcome.message {
            words = format!("{words}: {}", clipped(message));
        }
        sentences.push((t.why_shown_after)(&words));
        if outcome.showing == ShowingState::Parked {
            sentences.push((t.why_do)(t.showings_remedy));
        }
    }
    let remedy = match record.state {
        State::Parked => Some(t.group_remedy_parked),
        State::Rejected => Some(t.group_remedy_rejected),
        State::Unrouted => Some(t.group_remedy_unrouted),
        State::Pending | State::Published => None,
    };
    sentences.extend(remedy.map(t.why_do));
    let task = task_of(record.instance_id.as_deref(), record.task_id.as_deref());
    Answer {
        at: viewer.when(record.received_at),
        order: record.received_at,
        class: if remedy.is_some() { "bad" } else { "good" },
        href: decision_href(record.command_id),
        name: t.event_accepted.to_uppercase(),
        about: clipped(&format!("{} {} {task}", record.user_id, action_of(&record.action, t))),
        sentences,
    }
}

fn of_refusal(one: &KeptRefusal, viewer: &Viewer, desk: &Desk) -> Answer {
    let t = viewer.t();
    let refused = &one.refused;
    let mut sentences = Vec::new();
    sentences.extend(
        (desk.reasons.sentence)(&refused.endpoint, &refused.reason).map(|text| (t.why_they_read)(&text)),
    );
    sentences.extend(refused.detail.as_ref().map(|detail| (t.why_because)(&clipped(detail))));
    sentences.extend((t.remedy_of)(&refused.reason).map(t.why_do));
    let user = refused.user_id.as_deref().or(refused.peer.as_deref()).unwrap_or("–");
    let action = refused.action_type.as_deref().unwrap_or_default();
    Answer {
        at: viewer.when(refused.refused_at),
        order: refused.refused_at,
        class: "bad",
        href: format!("/refusals/{}", one.id),
        name: format!("{} {}", t.why_refused, refused.reason),
        about: clipped(&format!("{user} {action} {}", refusals::about(refused))),
        sentences,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(q: &str) -> Question {
        let now = "2026-11-20T08:15:30Z".parse().unwrap();
        Question::read(q, now, &Zone::at_offset("+08:00").unwrap())
    }

    #[test]
    fn a_question_is_what_it_looks_like() {
        let at = |text: &str| Some(text.parse().unwrap());
        let id = "01a216f6-e462-7457-87f7-20bdc5398582";
        let text = |text: &str| Question { text: Some(text.to_owned()), ..Question::default() };
        assert_eq!(read(id), Question { id: CommandId::parse(id), ..Question::default() });
        let card = Question { card: Some("6963555866582613023".to_owned()), ..Question::default() };
        assert_eq!(read("6963555866582613023"), card);
        assert_eq!(read("4711"), Question { seq: Some(4711), ..text("4711") });
        for peer in ["203.0.113.9", "2001:db8::9", "::ffff:203.0.113.9"] {
            let wanted = peer.parse::<IpAddr>().unwrap().to_canonical();
            assert_eq!(read(peer), Question { peer: Some(wanted), ..Question::default() });
        }
        assert_eq!(read("zhang3"), text("zhang3"));
        assert_eq!(read("PO-77/n1"), text("PO-77/n1"));
        assert_eq!(read("采购 7"), text("采购 7"));
        assert_eq!(read("10:31"), Question { at: at("2026-11-20T02:31:00Z"), ..Question::default() });
        for both in
            ["zhang3 10:31", "10:31 zhang3", "zhang3 2026-11-20 10:31", " zhang3  2026-11-20T10:31:00+08:00 "]
        {
            assert_eq!(read(both), Question { at: at("2026-11-20T02:31:00Z"), ..text("zhang3") }, "{both}");
        }
        assert_eq!(read(""), Question::default());
    }

    #[test]
    fn an_absolute_question_reads_back() {
        let zone = Zone::at_offset("+08:00").unwrap();
        for q in ["zhang3 10:31", "10:31", "zhang3", "6963555866582613023", "203.0.113.9 yesterday"] {
            let absolute = read(q).absolute(&zone);
            assert_eq!(read(&absolute).absolute(&zone), absolute, "{q}");
        }
    }
}
