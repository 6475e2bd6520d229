//! `/findings`: what the approval center does not show.

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::{
    Desk, Frame, Halt, Phrases, Term, Viewer, When, chosen, clipped, decision_href, link, look, query,
    task_of,
};
use crate::{
    console::filters::{DEFAULT_LIMIT, digits},
    ledger::{
        Verdict,
        findings::{Candidate, Overview, Which},
    },
};

/// A verdict, with how many of it there are, and what to do.
struct VerdictRow {
    href: String,
    term: Term,
    count: u64,
    chosen: bool,
    remedy: &'static str,
}

/// A finding in the list.
struct FindingRow {
    href: String,
    at: When,
    verdict: Term,
    status: Option<String>,
    user: String,
    action: String,
    task: String,
    endpoint: String,
}

#[derive(Template)]
#[template(path = "findings.html", config = "src/console/pages/askama.toml")]
struct FindingsPage {
    f: Frame,
    t: &'static Phrases,
    overview: String,
    verdicts: Vec<VerdictRow>,
    rows: Vec<FindingRow>,
    /// Something has been compared, so an empty list says something.
    is_compared: bool,
    next: Option<String>,
}

/// `GET /findings`: oldest first, because they have waited longest.
pub(super) async fn page(
    viewer: Viewer,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Halt> {
    let (t, pairs) = (viewer.t(), query(&request));
    let wanted = chosen(&pairs, "verdict").parse::<Verdict>().ok();
    let wanted = wanted.filter(|verdict| verdict.is_open() || *verdict == Verdict::Ended);
    let after = digits(chosen(&pairs, "after")).filter(|after| *after <= i64::MAX as u64).unwrap_or(0);
    let overview = look!(viewer, desk.ledger.overview());
    let which = wanted.map_or(Which::Open, Which::Of);
    let mut found = look!(viewer, desk.ledger.findings(which, after, DEFAULT_LIMIT + 1));
    let more = found.len() > DEFAULT_LIMIT;
    found.truncate(DEFAULT_LIMIT);
    let next = found.last().filter(|_| more).map(|last| {
        let (word, after) = (wanted.map_or("", Verdict::as_str), last.seq.to_string());
        link("/findings", [("verdict", word), ("after", &after)])
    });
    let page = FindingsPage {
        t,
        overview: match overview.passed_at {
            Some(at) => (t.findings_overview)(&overview.asked_through.to_string(), &viewer.shown(at)),
            None => t.never_compared.to_owned(),
        },
        is_compared: overview.passed_at.is_some(),
        verdicts: verdicts(&overview, wanted, t),
        rows: found.iter().map(|one| row(one, &viewer)).collect(),
        next,
        f: viewer.frame.clone(),
    };
    Ok(viewer.page(&page))
}

fn verdicts(overview: &Overview, wanted: Option<Verdict>, t: &Phrases) -> Vec<VerdictRow> {
    let rows = [
        (Verdict::Unseen, overview.unseen, t.verdict_unseen),
        (Verdict::NotFound, overview.not_found, t.verdict_not_found),
        (Verdict::Contradicted, overview.contradicted, t.verdict_contradicted),
        (Verdict::Ended, overview.ended, t.verdict_ended),
    ];
    rows.map(|(verdict, count, remedy)| VerdictRow {
        href: link("/findings", [("verdict", verdict.as_str())]),
        term: Term::new(t.verdict_of(verdict), verdict.as_str()),
        count,
        chosen: wanted == Some(verdict),
        remedy,
    })
    .into()
}

fn row(one: &Candidate, viewer: &Viewer) -> FindingRow {
    let (t, finding) = (viewer.t(), one.finding.as_ref());
    FindingRow {
        href: decision_href(one.command_id),
        at: viewer.when(one.received_at),
        verdict: finding.map_or_else(
            || Term::new("–", "–"),
            |finding| Term::new(t.verdict_of(finding.verdict), finding.verdict.as_str()),
        ),
        status: finding.and_then(|finding| finding.task_status.clone()),
        user: clipped(&one.user_id),
        action: t.action(one.action).to_owned(),
        task: clipped(&task_of(one.instance_id.as_deref(), one.task_id.as_deref())),
        endpoint: clipped(&one.endpoint),
    }
}
