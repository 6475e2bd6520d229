//! `/health`: which fault is it?

use actix_web::{HttpResponse, web};
use askama::Template;
use strum::{IntoStaticStr, VariantArray};

use super::{
    Desk, Fact, Fault, FaultWords, Frame, Halt, Mark, Phrases, Viewer,
    chart::{self, Chart},
    condition::{Condition, Standing},
};
use crate::{console::access::ReloadResult, time::Timestamp};

/// What is checked: a fault or several of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
enum CheckKind {
    Ledger,
    Accepting,
    Broker,
    Topology,
    Workers,
    Waiting,
    Parked,
    Outcomes,
    Strays,
    Findings,
    Reload,
}

impl CheckKind {
    /// The check that fails when a fault is there.
    fn of(fault: Fault) -> Self {
        match fault {
            Fault::Ledger | Fault::Overloaded => Self::Ledger,
            Fault::Draining => Self::Accepting,
            Fault::Broker | Fault::Blocked => Self::Broker,
            Fault::Topology => Self::Topology,
            Fault::Workers => Self::Workers,
            Fault::Waiting => Self::Waiting,
            Fault::Parked | Fault::Rejected | Fault::Unrouted => Self::Parked,
            Fault::Outcomes => Self::Outcomes,
            Fault::Strays => Self::Strays,
            Fault::Findings => Self::Findings,
            Fault::Reload => Self::Reload,
        }
    }

    fn name(self, t: &Phrases) -> &'static str {
        match self {
            Self::Ledger => t.check_ledger,
            Self::Accepting => t.check_accepting,
            Self::Broker => t.check_broker,
            Self::Topology => t.check_topology,
            Self::Workers => t.check_workers,
            Self::Waiting => t.check_waiting,
            Self::Parked => t.check_parked,
            Self::Outcomes => t.check_outcomes,
            Self::Strays => t.check_strays,
            Self::Findings => t.check_findings,
            Self::Reload => t.check_reload,
        }
    }

    /// What to do while it is unknown.
    fn how_to_tell(self, t: &Phrases) -> &'static str {
        match self {
            Self::Topology | Self::Workers => t.tell_topology,
            Self::Findings => t.never_compared,
            Self::Ledger
            | Self::Accepting
            | Self::Broker
            | Self::Waiting
            | Self::Parked
            | Self::Outcomes
            | Self::Strays
            | Self::Reload => t.next_doctor,
        }
    }
}

struct Check {
    id: &'static str,
    name: &'static str,
    mark: Mark,
    remedies: Vec<&'static str>,
}

struct FaultRow {
    id: &'static str,
    words: FaultWords,
    live: bool,
}

struct CredentialRow {
    endpoint: String,
    credential: String,
    last_used: String,
}

#[derive(Template)]
#[template(path = "health.html", config = "src/console/pages/askama.toml")]
struct HealthPage {
    f: Frame,
    t: &'static Phrases,
    /// The class, the shape and the words.
    headline: Mark,
    checks: Vec<Check>,
    chart: Option<Chart>,
    faults: Vec<FaultRow>,
    facts: Vec<Fact>,
    credentials: Vec<CredentialRow>,
}

/// `GET /health`. Whatever fails, the rest is shown.
pub(super) async fn page(viewer: Viewer, desk: web::Data<Desk>) -> Result<HttpResponse, Halt> {
    let t = viewer.t();
    let now = Timestamp::now();
    let (condition, counts) =
        tokio::join!(Condition::of(&viewer, &desk), chart::counts(&viewer, &*desk.ledger, now));
    let live = condition.live(t);
    let is_live = |fault| live.iter().any(|(one, _)| *one == fault);
    let fault =
        |fault: &Fault| FaultRow { id: fault.as_str(), words: t.fault(*fault), live: is_live(*fault) };
    let page = HealthPage {
        t,
        headline: headline(condition.ready, &live, t),
        checks: CheckKind::VARIANTS.iter().map(|kind| check(*kind, &condition, t)).collect(),
        chart: counts.ok().map(|counts| chart::chart(&counts, &viewer, now)),
        faults: Fault::ALL.iter().map(fault).collect(),
        facts: facts(&condition, &desk, &viewer),
        credentials: desk
            .metrics
            .uses
            .known()
            .into_iter()
            .map(|used| CredentialRow {
                endpoint: used.endpoint.to_string(),
                // People count from one.
                credential: (t.pair_is)(&(used.credential + 1).to_string()),
                last_used: used.last_used_at.map_or_else(|| t.never.to_owned(), |at| viewer.shown(at)),
            })
            .collect(),
        f: viewer.frame.clone(),
    };
    Ok(viewer.page(&page))
}

fn headline(ready: bool, live: &[(Fault, String)], t: &Phrases) -> Mark {
    let texts: Vec<&str> = live.iter().map(|(_, text)| &**text).collect();
    let texts = texts.join(t.comma);
    match (ready, live.len()) {
        (true, 0) => Mark::good(t.ready),
        (true, count) => {
            Mark { class: "warn", shape: "!", ..Mark::bad((t.ready_but)(&count.to_string(), &texts)) }
        }
        (false, _) => Mark::bad((t.not_ready)(&texts)),
    }
}

fn check(kind: CheckKind, condition: &Condition, t: &Phrases) -> Check {
    let (mut texts, mut remedies, mut unknown) = (Vec::new(), Vec::new(), None);
    for fault in Fault::ALL.iter().copied().filter(|fault| CheckKind::of(*fault) == kind) {
        match condition.standing(fault, t) {
            Standing::Live(text) => {
                texts.push(text);
                remedies.push(t.fault(fault).remedy);
            }
            Standing::Unknown(why) => unknown = Some(why),
            Standing::Absent => {}
        }
    }
    let mark = match (texts.is_empty(), unknown) {
        (false, _) => Mark::bad(texts.join(t.comma)),
        (true, Some(why)) => {
            remedies.push(kind.how_to_tell(t));
            Mark { class: "unknown", shape: "–", ..Mark::bad(why) }
        }
        (true, None) => Mark::good(t.ok),
    };
    Check { id: kind.into(), name: kind.name(t), mark, remedies }
}

fn facts(condition: &Condition, desk: &Desk, viewer: &Viewer) -> Vec<Fact> {
    let t = viewer.t();
    let configuration = &condition.configuration;
    let reload = configuration.last_reload.map_or_else(
        || t.reload_none.to_owned(),
        |reload| {
            let word = match reload.result {
                ReloadResult::Applied => t.reload_applied,
                ReloadResult::Rejected => t.reload_failed,
            };
            (t.reload_at)(word, &viewer.shown(reload.at))
        },
    );
    let mut facts = vec![
        Fact::of(t.fact_since, viewer.shown(configuration.in_force_since)),
        Fact::of(t.fact_reload, reload),
    ];
    if !configuration.restart_needed.is_empty() {
        facts.push(Fact::of(t.fact_restart, configuration.restart_needed.join(", ")));
    }
    facts.extend(desk.ledger.leader().map(|leader| Fact::of(t.fact_leader, leader)));
    if let Some(stats) = &condition.stats {
        facts.push(Fact::of(t.fact_head, stats.head.to_string()));
        facts.push(Fact::of(t.fact_cursor, stats.cursor.to_string()));
        facts.extend(stats.size_bytes.map(|bytes| Fact::of(t.fact_size, mebibytes(bytes))));
        facts.extend(stats.free_bytes.map(|bytes| Fact::of(t.fact_free, mebibytes(bytes))));
    }
    facts
}

fn mebibytes(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes >> 10),
        mebibytes if mebibytes < 10_240 => format!("{mebibytes} MiB"),
        mebibytes => format!("{} GiB", mebibytes >> 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_fails_by_some_fault() {
        for kind in CheckKind::VARIANTS {
            assert!(Fault::ALL.iter().any(|fault| CheckKind::of(*fault) == *kind), "{kind:?}");
        }
    }
}
