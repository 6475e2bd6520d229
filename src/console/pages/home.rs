//! `/`: is anybody harmed now?

use std::time::Duration;

use actix_web::{HttpResponse, web};
use askama::Template;
use futures_util::future::try_join_all;

use super::{
    Desk, Fault, Frame, Halt, Live, Phrases, Term, Unread, Viewer,
    chart::{self, Chart, HOUR},
    condition::Condition,
    link,
    listed::DecisionRow,
    span,
};
use crate::{
    command::outcome::Kind,
    ledger::{Filter, OutcomeFilter, RefusalFilter, Stats},
    time::Timestamp,
};

/// Newest decisions shown.
const NEWEST: usize = 10;

const DAY: Duration = Duration::from_secs(86_400);

/// What is counted at the most, where nothing keeps a count.
const COUNTED: usize = 500;

struct Alarm {
    class: &'static str,
    text: String,
    note: String,
    href: String,
}

struct Stage {
    key: &'static str,
    name: &'static str,
    before: &'static str,
    value: String,
    after: &'static str,
    note: String,
    href: &'static str,
}

/// How often something happened that has a word, with a link to it.
struct Counted {
    term: Term,
    count: String,
    href: String,
}

#[derive(Template)]
#[template(path = "home.html", config = "src/console/pages/askama.toml")]
struct HomePage {
    f: Frame,
    t: &'static Phrases,
    live: Option<Live>,
    failures: Vec<&'static str>,
    alarms: Vec<Alarm>,
    stages: Vec<Stage>,
    refused: Vec<Counted>,
    declined: Vec<Counted>,
    chart: Option<Chart>,
    rows: Vec<DecisionRow>,
}

/// `GET /` for browsers. What cannot be read is said, and the rest is shown.
pub(in crate::console) async fn page(viewer: Viewer, desk: web::Data<Desk>) -> Result<HttpResponse, Halt> {
    let t = viewer.t();
    let now = Timestamp::now();
    let newest = Filter { limit: NEWEST, ..Filter::default() };
    let last = RefusalFilter { limit: 1, ..RefusalFilter::default() };
    let (condition, newest, refused, last, counts, not_done) = tokio::join!(
        Condition::of(&viewer, &desk),
        viewer.look(desk.ledger.list(newest)),
        viewer.look(desk.ledger.refused_since(now - HOUR)),
        viewer.look(desk.ledger.refusals(last)),
        chart::counts(&viewer, &*desk.ledger, now),
        declined(&viewer, &desk, now)
    );
    let mut failures: Vec<&'static str> = Vec::new();
    let mut failed = |unread: Unread| {
        if !failures.contains(&unread.0) {
            failures.push(unread.0);
        }
    };
    let rows = newest.unwrap_or_else(|unread| {
        failed(unread);
        Vec::new()
    });
    let refused = refused.unwrap_or_else(|unread| {
        failed(unread);
        Vec::new()
    });
    let counts = counts.map_err(&mut failed).ok();
    let declined = not_done.map_err(&mut failed).unwrap_or_default();
    let last_refusal =
        last.map_err(&mut failed).ok().and_then(|mut last| last.pop()).map_or(0, |last| last.id);
    if !failures.is_empty() {
        failures.push(t.next_doctor);
    }
    let since = viewer.zone.show(now - HOUR);
    let page = HomePage {
        t,
        live: Some(Live::list(rows.first().map_or(0, |row| row.seq), last_refusal)),
        failures,
        alarms: alarms(&condition, t),
        stages: condition
            .stats
            .as_ref()
            .map_or_else(Vec::new, |stats| stages(stats, counts.as_deref(), t, now)),
        refused: refused
            .into_iter()
            .map(|(count, newest)| Counted {
                href: link("/refusals", [("reason", &*newest.refused.reason), ("since", &since)]),
                term: Term::of_reason(&newest.refused.reason, t),
                count: count.to_string(),
            })
            .collect(),
        declined,
        chart: counts.map(|counts| chart::chart(&counts, &viewer, now)),
        rows: rows.iter().map(|record| DecisionRow::of(record, &viewer)).collect(),
        f: viewer.frame.clone(),
    };
    Ok(viewer.page(&page))
}

/// An alarm for each fault that is there now: the same that `/health` lights.
fn alarms(condition: &Condition, t: &'static Phrases) -> Vec<Alarm> {
    let alarm = |(fault, text)| {
        let words = t.fault(fault);
        Alarm {
            class: class(fault),
            text,
            note: (t.alarm_note)(words.approver, words.remedy),
            href: href(fault),
        }
    };
    condition.live(t).into_iter().map(alarm).collect()
}

fn class(fault: Fault) -> &'static str {
    match fault {
        Fault::Ledger
        | Fault::Overloaded
        | Fault::Draining
        | Fault::Broker
        | Fault::Blocked
        | Fault::Topology
        | Fault::Workers
        | Fault::Waiting
        | Fault::Parked => "bad",
        Fault::Rejected
        | Fault::Unrouted
        | Fault::Outcomes
        | Fault::Strays
        | Fault::Findings
        | Fault::Reload => "warn",
    }
}

fn href(fault: Fault) -> String {
    match fault {
        Fault::Waiting => "/decisions?state=pending".to_owned(),
        Fault::Parked | Fault::Rejected | Fault::Unrouted => "/parked".to_owned(),
        Fault::Outcomes => "/parked#showings".to_owned(),
        Fault::Strays => "/parked#strays".to_owned(),
        Fault::Findings => "/findings".to_owned(),
        Fault::Ledger
        | Fault::Overloaded
        | Fault::Draining
        | Fault::Broker
        | Fault::Blocked
        | Fault::Topology
        | Fault::Workers
        | Fault::Reload => format!("/health#fault-{}", fault.as_str()),
    }
}

/// What workers did not carry out in the last day. The approvers were told that it was submitted, so somebody has to know.
async fn declined(viewer: &Viewer, desk: &Desk, now: Timestamp) -> Result<Vec<Counted>, Unread> {
    let (t, since) = (viewer.t(), now - DAY);
    let kinds = [Kind::Refused, Kind::Failed];
    // At the same time: each may take all the time that a person waits for a search.
    let searches = kinds.map(|kind| {
        let outcome = Some(OutcomeFilter::Last(kind));
        let filter = Filter { outcome, since: Some(since), limit: COUNTED, ..Filter::default() };
        viewer.look(desk.search(filter))
    });
    let mut all = Vec::new();
    for (kind, found) in kinds.into_iter().zip(try_join_all(searches).await?) {
        let count = found.rows.len();
        if count > 0 {
            let more = if count == COUNTED || found.stopped.is_some() { "+" } else { "" };
            all.push(Counted {
                term: Term::new(t.outcome(kind), kind.as_str()),
                count: format!("{count}{more}"),
                href: link("/decisions", [("outcome", kind.as_str()), ("since", &viewer.zone.show(since))]),
            });
        }
    }
    Ok(all)
}

fn stages(stats: &Stats, counts: Option<&[u64]>, t: &'static Phrases, now: Timestamp) -> Vec<Stage> {
    let rate =
        counts.and_then(|counts| counts.last()).map_or_else(|| "–".to_owned(), |last| (last / 2).to_string());
    let waited = stats.oldest_pending_at.map(|at| (t.oldest_waits)(&span(now.since(at), t)));
    let stage = |key, name, value: u64, note: Option<String>, href| Stage {
        key,
        name,
        before: "",
        value: value.to_string(),
        after: t.unit,
        note: note.unwrap_or_default(),
        href,
    };
    vec![
        Stage {
            before: t.per_minute,
            value: rate,
            after: t.per_minute_after,
            ..stage("", t.stage_accepted, 0, None, "/decisions")
        },
        stage("pending", t.stage_pending, stats.pending, waited, "/decisions?state=pending"),
        Stage {
            before: t.in_all,
            after: t.in_all_after,
            ..stage("", t.stage_published, stats.published, None, "/decisions?state=published")
        },
        stage(
            "outcomes_pending",
            t.stage_outcome,
            stats.outcomes_pending,
            None,
            "/decisions?outcome=applied",
        ),
        stage("outcomes_parked", t.stage_shown, stats.outcomes_parked, None, "/parked"),
    ]
}
