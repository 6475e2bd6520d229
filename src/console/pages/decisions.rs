//! `/decisions`: what was decided, and where it is.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use askama::Template;

use super::{
    Choice, Desk, Fact, Field, Frame, Halt, Live, Mark, Phrases, Viewer, When, action_of, choices, chosen,
    clipped, decision_href, fields, link, look, lookup, meaning_of, query, see_other, span, task_of,
};
use crate::{
    command::{Action, id::CommandRef},
    console::filters,
    ledger::{
        OutcomeFilter, Record, ShowingRecord, ShowingState, State, Surface,
        history::{Event, What},
    },
    telemetry::taming::push_in_json,
};

/// A decision in a list.
pub(super) struct DecisionRow {
    pub(super) href: String,
    pub(super) at: When,
    pub(super) user: String,
    pub(super) action: String,
    pub(super) task: String,
    pub(super) endpoint: String,
    pub(super) mark: Mark,
    pub(super) outcome: Option<String>,
    pub(super) note: Option<String>,
}

impl DecisionRow {
    pub(super) fn of(record: &Record, viewer: &Viewer) -> Self {
        let outcome = record.outcome.as_ref().map(|outcome| match outcome.showing {
            ShowingState::Nothing => outcome.outcome.as_str().to_owned(),
            showing => format!("{}, {}", outcome.outcome.as_str(), showing.as_str()),
        });
        Self {
            href: decision_href(record.command_id),
            at: viewer.when(record.received_at),
            user: clipped(&record.user_id),
            action: action_of(&record.action, viewer.t()),
            task: clipped(&task_of(record.instance_id.as_deref(), record.task_id.as_deref())),
            endpoint: clipped(&record.endpoint),
            mark: Mark::of(record.state),
            outcome,
            note: record.note.as_deref().map(clipped),
        }
    }
}

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
            wrong = Some((t.bad_parameter)(problem.parameter().unwrap_or("?"), &problem.to_string()));
        }
    }
    let live = pairs.is_empty().then(|| Live { head: rows.first().map_or(0, |one| one.seq), refusals: 0 });
    let searched =
        pairs.iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", ");
    let mut empty = (t.searched_all)(&searched);
    if let Some(pruned) = pruned {
        empty.push(' ');
        empty.push_str(&(t.pruned)(&viewer.shown(pruned)));
    }
    let states = State::ALL.iter().copied().map(State::as_str);
    let page = ListPage {
        t,
        live,
        states: choices(states, chosen(&pairs, "state")),
        actions: choices(Action::ALL.iter().copied().map(Action::as_str), chosen(&pairs, "action")),
        outcomes: choices(OutcomeFilter::ALL.map(OutcomeFilter::as_str), chosen(&pairs, "outcome")),
        fields: fields(
            &pairs,
            [
                ("user_id", t.col_user),
                ("task_id", "task_id"),
                ("instance_id", "instance_id"),
                ("endpoint", t.col_endpoint),
                ("message_id", t.card),
                ("since", t.since),
                ("until", t.until),
            ],
            wrong_field.as_deref(),
        ),
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

/// An event of a decision.
struct Moment {
    class: &'static str,
    at: Option<When>,
    after: Option<String>,
    name: &'static str,
    what: String,
}

/// A form for an act.
struct ActForm {
    label: &'static str,
    action: String,
    warning: &'static str,
    state: &'static str,
    class: &'static str,
}

#[derive(Template)]
#[template(path = "decision.html", config = "src/console/pages/askama.toml")]
struct OnePage {
    f: Frame,
    t: &'static Phrases,
    heading: String,
    mark: Mark,
    meaning: &'static str,
    note: Option<String>,
    acts: Vec<ActForm>,
    events: Vec<Moment>,
    facts: Vec<Fact>,
    json: Option<String>,
    cli: String,
}

/// Finds the decision of a path, by its id or its place in the log.
pub(super) async fn found(
    viewer: Viewer,
    request: &HttpRequest,
    desk: &Desk,
) -> Result<(Viewer, Record), Halt> {
    let t = viewer.t();
    let id = match CommandRef::parse(request.match_info().get("command_id").unwrap_or_default()) {
        Some(CommandRef::Id(id)) => Some(id),
        Some(CommandRef::Seq(seq)) => look!(viewer, desk.ledger.id_at(seq)),
        None => None,
    };
    let Some(id) = id else { return Err(viewer.not_found(t.no_such_decision)) };
    match look!(viewer, desk.ledger.find(id)) {
        Some(record) => Ok((viewer, record)),
        None => Err(viewer.not_found(t.no_such_decision)),
    }
}

/// `GET /decisions/{command_id}`: everything about one.
pub(super) async fn one(
    viewer: Viewer,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Halt> {
    let (viewer, record) = found(viewer, &request, &desk).await?;
    let t = viewer.t();
    let task = task_of(record.instance_id.as_deref(), record.task_id.as_deref());
    let page = OnePage {
        t,
        heading: (t.decision_heading)(&record.user_id, &action_of(&record.action, t), &task),
        mark: mark(&record),
        meaning: meaning_of(record.state, t),
        note: record.note.clone(),
        acts: acts(&record, t),
        events: events(&record, &viewer),
        facts: facts(&record, &viewer),
        json: record.command.as_ref().map(|command| indented(command.get())),
        cli: format!("countersign ledger show {}", record.command_id),
        f: viewer.frame.clone(),
    };
    Ok(viewer.answer(StatusCode::OK, &page))
}

/// State and outcome in one.
fn mark(record: &Record) -> Mark {
    let mut mark = Mark::of(record.state);
    if let Some(outcome) = &record.outcome {
        mark.word = format!("{}: {}", mark.word, outcome.outcome.as_str());
        if outcome.showing != ShowingState::Nothing {
            mark.word = format!("{}, {}", mark.word, outcome.showing.as_str());
        }
    }
    mark
}

fn acts(record: &Record, t: &'static Phrases) -> Vec<ActForm> {
    let form = |act: &str, label, warning, class| ActForm {
        label,
        action: format!("/decisions/{}/{act}", record.command_id),
        warning,
        state: record.state.as_str(),
        class,
    };
    let mut acts = Vec::new();
    match record.state {
        State::Pending => acts.push(form("park", t.act_park, t.warn_park, "plain")),
        State::Published => acts.push(form("requeue", t.act_requeue, t.warn_requeue_published, "plain")),
        State::Parked | State::Rejected | State::Unrouted => {
            acts.push(form("requeue", t.act_requeue, t.warn_requeue, "strong"));
        }
    }
    if record.outcome.as_ref().is_some_and(|outcome| outcome.showing != ShowingState::Nothing) {
        acts.push(form("show-again", t.act_show_again, t.warn_show_again, "plain"));
    }
    acts
}

fn events(record: &Record, viewer: &Viewer) -> Vec<Moment> {
    let t = viewer.t();
    let mut events: Vec<Moment> =
        record.history.iter().flatten().map(|event| moment(event, record, viewer)).collect();
    if events.is_empty() {
        let accepted = Event { at: Some(record.received_at), what: What::Accepted };
        events.push(moment(&accepted, record, viewer));
    }
    if let Some(finding) = &record.reconciliation {
        let status = finding.task_status.as_deref().or(finding.instance_status.as_deref());
        let what = match status {
            Some(status) => format!("{} ({status})", finding.verdict.as_str()),
            None => finding.verdict.as_str().to_owned(),
        };
        events.push(Moment {
            class: if finding.verdict.is_open() { "bad" } else { "good" },
            at: finding.checked_at.or(finding.found_at).map(|at| When::exact(at, &viewer.zone)),
            after: None,
            name: t.event_reconciled,
            what,
        });
    }
    events
}

fn moment(event: &Event, record: &Record, viewer: &Viewer) -> Moment {
    let t = viewer.t();
    let by = |by: &crate::ledger::history::ByOperator| {
        (t.by)(&super::acts::who(&by.actor, t), by.reason.as_deref().unwrap_or_default())
    };
    let surface = |surface: Surface| match surface {
        Surface::Card => t.card,
        Surface::Instance => t.instance,
    };
    let (class, name, what) = match &event.what {
        What::Accepted => ("good", t.event_accepted, t.answered_200.to_owned()),
        What::Waiting => ("", t.event_waiting, t.waits_for_earlier.to_owned()),
        What::Refused { attempt, reason } => {
            ("bad", t.event_refused, (t.attempt)(&attempt.to_string(), reason))
        }
        What::Published { exchange, routing_key, .. } => (
            "good",
            t.event_published,
            (t.published_to)(exchange.as_deref().unwrap_or_default(), routing_key),
        ),
        What::CameBack { why, queue } => {
            ("bad", t.event_came_back, (t.came_back)(why.as_str(), queue.as_deref().unwrap_or_default()))
        }
        What::Reported { outcome, superseded } => {
            let words = record.outcome.as_ref().and_then(|outcome| outcome.message.as_deref());
            let mut what = (t.reported)(outcome.as_str(), words.unwrap_or_default());
            if *superseded > 0 {
                what.push(' ');
                what.push_str(&(t.report_superseded)(&superseded.to_string()));
            }
            ("good", t.event_reported, what)
        }
        What::ReportRefused { outcome, reason } => {
            ("bad", t.event_report_refused, (t.report_refused)(outcome.as_str(), reason))
        }
        What::Shown { surface: place, target } => {
            ("good", t.event_shown, (t.shown_on)(surface(*place), target))
        }
        What::RequeuedByOperator(one) => ("act", t.event_requeued, by(one)),
        What::ParkedByOperator(one) => ("act", t.event_parked, by(one)),
        What::ShownAgainByOperator(one) => ("act", t.event_shown_again, by(one)),
    };
    // How long after the callback, as far as that is known.
    let after = event.at.filter(|at| *at > record.received_at).map(|at| {
        let after = span(at.since(record.received_at));
        match &event.what {
            What::Published { not_before: Some(from), .. } if *from < at => {
                let from = from.since(record.received_at);
                format!("+{}–{after}", span(from))
            }
            _ => format!("+{after}"),
        }
    });
    Moment { class, at: event.at.map(|at| When::exact(at, &viewer.zone)), after, name, what }
}

fn facts(record: &Record, viewer: &Viewer) -> Vec<Fact> {
    let t = viewer.t();
    let of = |name, value: &Option<String>, key: &str| {
        value.as_ref().map(|value| Fact::link(name, value.clone(), link("/decisions", [(key, &**value)])))
    };
    let mut facts = vec![
        Fact::of(t.fact_id, record.command_id.to_string()),
        Fact::of(t.fact_seq, record.seq.to_string()),
        Fact::link(t.col_user, record.user_id.clone(), link("/decisions", [("user_id", &*record.user_id)])),
        Fact::link(
            t.col_endpoint,
            record.endpoint.clone(),
            link("/decisions", [("endpoint", &*record.endpoint)]),
        ),
    ];
    facts.extend(of(t.instance, &record.instance_id, "instance_id"));
    facts.extend(of("task_id", &record.task_id, "task_id"));
    facts.extend(record.approval_code.clone().map(|code| Fact::of(t.fact_approval_code, code)));
    facts.extend(
        record
            .attempts
            .filter(|attempts| *attempts > 0)
            .map(|attempts| Fact::of(t.fact_attempts, attempts.to_string())),
    );
    facts.extend(record.next_attempt_at.map(|at| Fact::of(t.fact_next_attempt, viewer.shown(at))));
    if let Some(outcome) = &record.outcome {
        facts.push(Fact::of(t.fact_event, outcome.outcome.as_str()));
        facts.extend(outcome.status.map(|status| Fact::of(t.fact_status, status.as_str())));
        facts.extend(outcome.message.clone().map(|message| Fact::of(t.fact_message, message)));
        for (name, place) in [(t.card, &outcome.card), (t.instance, &outcome.instance)] {
            facts.extend(place.iter().map(|place| Fact::of(t.fact_showing, showing(name, place, viewer))));
        }
    }
    facts
}

fn showing(name: &str, place: &ShowingRecord, viewer: &Viewer) -> String {
    let mut text = format!("{name} {}: {}", place.id, place.state.as_str());
    if let Some(note) = &place.note {
        text.push_str(" · ");
        text.push_str(note);
    }
    if let Some(at) = place.next_attempt_at.filter(|_| place.attempts > 0) {
        text.push_str(&format!(" · {} {}", viewer.t().fact_next_attempt, viewer.shown(at)));
    }
    text
}

/// JSON with line breaks. Parsing it could change a number, so it is only laid out.
pub(super) fn indented(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", depth));
    };
    let mut rest = json.chars().peekable();
    while let Some(c) = rest.next() {
        if in_string {
            push_in_json(c, &mut text);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            c if c.is_ascii_whitespace() => {}
            '{' | '[' => {
                text.push(c);
                while rest.next_if(char::is_ascii_whitespace).is_some() {}
                match rest.next_if(|c| matches!(c, '}' | ']')) {
                    Some(end) => text.push(end),
                    None => {
                        depth += 1;
                        line(&mut text, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut text, depth);
                text.push(c);
            }
            ',' => {
                text.push(c);
                line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            c => {
                in_string = c == '"';
                text.push(c);
            }
        }
    }
    text
}
