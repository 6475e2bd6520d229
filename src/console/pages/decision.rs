//! `/decisions/{command_id}`: everything about one decision.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use askama::Template;

use super::{
    Desk, Fact, Frame, Halt, Live, Mark, Phrases, Term, Viewer, When, action_of, chosen, link, look,
    meaning_of, query, span, task_of,
};
use crate::{
    command::{id::CommandRef, outcome::Kind},
    ledger::{
        ActKind, Record, ShowingRecord, ShowingState, State, Surface,
        history::{Event, What},
    },
    telemetry::taming::indented,
};

/// How far the recorded time of a publication may be behind the publication.
const RECORDED_WITHIN: Duration = Duration::from_secs(1);

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
    live: Live,
    done: Option<&'static str>,
    marks: Vec<Mark>,
    meaning: String,
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
    // Before the look, so that no change falls between.
    let changes = *desk.ledger.changes().borrow();
    let (viewer, record) = found(viewer, &request, &desk).await?;
    let t = viewer.t();
    let done = chosen(&query(&request), "done").parse().ok().and_then(|kind| done(kind, t));
    let task = task_of(record.instance_id.as_deref(), record.task_id.as_deref());
    let page = OnePage {
        t,
        heading: (t.decision_heading)(&record.user_id, &action_of(&record.action, t), &task),
        live: Live::one(changes, &record),
        done,
        marks: Mark::all(&record, t),
        meaning: meaning_of(&record, t),
        note: note(&record, t),
        acts: acts(&record, t),
        events: events(&record, &viewer),
        facts: facts(&record, &viewer),
        json: record.command.as_ref().map(|command| indented(command.get())),
        cli: format!("countersign ledger show {}", record.command_id),
        f: viewer.frame.clone(),
    };
    Ok(viewer.answer(StatusCode::OK, &page))
}

/// What somebody just did on this page.
fn done(kind: ActKind, t: &Phrases) -> Option<&'static str> {
    match kind {
        ActKind::Requeue => Some(t.done_requeue),
        ActKind::Park => Some(t.done_park),
        ActKind::ShowAgain => Some(t.done_show_again),
        ActKind::Register
        | ActKind::Unregister
        | ActKind::RemoveStrays
        | ActKind::Prune
        | ActKind::Reload
        | ActKind::Login
        | ActKind::Export => None,
    }
}

/// Why a decision is where it is, with what the operator wrote who set it aside.
pub(super) fn note(record: &Record, t: &Phrases) -> Option<String> {
    let cause = t.cause(record.note.as_deref()?);
    let reason = record.history.iter().flatten().rev().find_map(|event| match &event.what {
        What::ParkedByOperator(by) | What::RequeuedByOperator(by) => Some(by.reason.as_deref()),
        _ => None,
    });
    // What RabbitMQ has said since is not the operator's.
    let is_operators = record.note.as_deref().is_some_and(|note| note.ends_with("by an operator"));
    Some(match reason.flatten().filter(|_| is_operators) {
        Some(reason) => (t.because_of)(&cause, reason),
        None => cause,
    })
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
    let mut known = record.history.clone().unwrap_or_default();
    if known.is_empty() {
        known.push(Event { at: Some(record.received_at), what: What::Accepted });
    }
    by_cause(&mut known);
    let mut events: Vec<Moment> = known.iter().map(|event| moment(event, record, viewer)).collect();
    if let Some(repeats) = record.duplicates_at.as_deref().filter(|repeats| !repeats.is_empty()) {
        events.insert(
            1,
            Moment {
                class: "act",
                at: repeats.first().map(|at| When::exact(*at, &viewer.zone)),
                after: None,
                name: t.event_repeated,
                what: (t.repeated)(&repeats.len().to_string()),
            },
        );
    }
    if let Some(finding) = &record.reconciliation {
        let status = finding.task_status.as_deref().or(finding.instance_status.as_deref());
        let word = t.verdict_of(finding.verdict);
        let what = match status {
            Some(status) => format!("{word} ({status})"),
            None => word.to_owned(),
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

/// A cause before its effect: when a command was published is known to the second, or as of its record, which the report of
/// a fast worker may precede.
fn by_cause(events: &mut [Event]) {
    for at in 1..events.len() {
        let What::Published { not_before, .. } = events[at].what else { continue };
        let earliest = not_before.or_else(|| events[at].at.map(|at| at - RECORDED_WITHIN));
        let is_effect = |event: &Event| {
            matches!(event.what, What::Reported { .. } | What::ReportRefused { .. } | What::Shown { .. })
                && event.at >= earliest
        };
        let mut place = at;
        while place > 0 && is_effect(&events[place - 1]) {
            place -= 1;
        }
        events[place..=at].rotate_right(1);
    }
}

fn moment(event: &Event, record: &Record, viewer: &Viewer) -> Moment {
    let t = viewer.t();
    let by = |by: &crate::ledger::history::ByOperator| {
        (t.by)(&super::acts::who(&by.actor, t), by.reason.as_deref().unwrap_or_default())
    };
    let (class, name, what) = match &event.what {
        What::Accepted => ("good", t.event_accepted, t.answered_200.to_owned()),
        What::Waiting => ("", t.event_waiting, t.waits_for_earlier.to_owned()),
        What::Refused { attempt, reason } => {
            ("bad", t.event_refused, (t.attempt)(&attempt.to_string(), &t.cause(reason)))
        }
        What::Published { exchange, routing_key, .. } => (
            "good",
            t.event_published,
            (t.published_to)(exchange.as_deref().unwrap_or_default(), routing_key),
        ),
        What::CameBack { why, queue } => {
            ("bad", t.event_came_back, (t.came_back)(t.why_back(*why), queue.as_deref().unwrap_or_default()))
        }
        What::Reported { outcome, superseded } => {
            let words = record.outcome.as_ref().and_then(|outcome| outcome.message.as_deref());
            let mut what = (t.reported)(t.outcome(*outcome), words.unwrap_or_default());
            if *superseded > 0 {
                what.push(' ');
                what.push_str(&(t.report_superseded)(&superseded.to_string()));
            }
            (if *outcome == Kind::Applied { "good" } else { "act" }, t.event_reported, what)
        }
        What::ReportRefused { outcome, reason } => {
            ("bad", t.event_report_refused, (t.report_refused)(t.outcome(*outcome), &t.cause(reason)))
        }
        What::Shown { surface: place, target } => {
            ("good", t.event_shown, (t.shown_on)(t.surface(*place), target))
        }
        What::RequeuedByOperator(one) => ("act", t.event_requeued, by(one)),
        What::ParkedByOperator(one) => ("act", t.event_parked, by(one)),
        What::ShownAgainByOperator(one) => ("act", t.event_shown_again, by(one)),
    };
    // How long after the callback, as far as that is known.
    let after = event.at.filter(|at| *at > record.received_at).map(|at| {
        let after = span(at.since(record.received_at), t);
        match &event.what {
            What::Published { not_before: Some(from), .. } if *from <= record.received_at => {
                (t.within)(&after)
            }
            What::Published { not_before: Some(from), .. } if *from < at => {
                format!("+{}–{after}", span(from.since(record.received_at), t))
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
    facts.extend(of(t.task, &record.task_id, "task_id"));
    facts.extend(record.approval_code.clone().map(|code| Fact::of(t.fact_approval_code, code)));
    facts.extend(
        record
            .attempts
            .filter(|attempts| *attempts > 0)
            .map(|attempts| Fact::of(t.fact_attempts, attempts.to_string())),
    );
    facts.extend(record.next_attempt_at.map(|at| Fact::of(t.fact_next_attempt, viewer.shown(at))));
    if let Some(outcome) = &record.outcome {
        let word = t.outcome(outcome.outcome);
        facts.push(Fact::term(t.fact_event, Term::new(word, outcome.outcome.as_str())));
        facts.extend(
            outcome
                .status
                .map(|status| Fact::term(t.fact_status, Term::new(t.status(status), status.as_str()))),
        );
        facts.extend(outcome.message.clone().map(|message| Fact::of(t.fact_message, message)));
        for (surface, place) in [(Surface::Card, &outcome.card), (Surface::Instance, &outcome.instance)] {
            facts.extend(place.iter().map(|place| Fact::of(t.fact_showing, showing(surface, place, viewer))));
        }
    }
    facts
}

fn showing(surface: Surface, place: &ShowingRecord, viewer: &Viewer) -> String {
    let t = viewer.t();
    let mut text = (t.showing_is)(t.surface(surface), &place.id, t.showing(place.state));
    if let Some(note) = &place.note {
        text.push_str(" · ");
        text.push_str(&t.cause(note));
    }
    if let Some(at) = place.next_attempt_at.filter(|_| place.attempts > 0) {
        text.push_str(&format!(" · {} {}", t.fact_next_attempt, viewer.shown(at)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn a_publication_comes_before_what_it_caused() {
        let at = |millis: i64| Timestamp::from_millisecond(1_790_000_000_000 + millis).ok();
        let published = |millis, not_before: Option<Timestamp>| Event {
            at: at(millis),
            what: What::Published { not_before, exchange: None, routing_key: "r".to_owned() },
        };
        let reported =
            |millis| Event { at: at(millis), what: What::Reported { outcome: Kind::Applied, superseded: 0 } };
        let accepted = || Event { at: at(0), what: What::Accepted };
        let mut events = [accepted(), reported(400), published(700, at(0))];
        by_cause(&mut events);
        assert_eq!(events, [accepted(), published(700, at(0)), reported(400)]);
        let mut events = [accepted(), published(1, None), reported(10), published(1500, None)];
        by_cause(&mut events);
        assert_eq!(events[2], reported(10), "it was reported over a second before");
    }
}
