//! `/health`: which fault is it?

use std::sync::atomic::Ordering;

use actix_web::{HttpResponse, web};
use askama::Template;

use super::{Desk, Fact, FaultWords, Frame, Halt, Mark, Phrases, Viewer};
use crate::{
    console::{
        access::{Configuration, ReloadResult},
        health::LedgerCheck,
    },
    ledger::{Stats, findings::Overview},
    telemetry::metrics::topology::Role,
};

/// The rows of the table of faults, in its order. Their words are in the phrases.
const FAULTS: [&str; 13] = [
    "ledger",
    "overloaded",
    "draining",
    "broker",
    "blocked",
    "topology",
    "workers",
    "parked",
    "rejected",
    "unrouted",
    "outcomes",
    "findings",
    "reload",
];

struct Check {
    id: &'static str,
    name: &'static str,
    mark: Mark,
    remedy: &'static str,
}

struct FaultRow {
    id: &'static str,
    words: FaultWords,
    live: bool,
}

struct CredentialRow {
    endpoint: String,
    credential: usize,
    last_used: String,
}

#[derive(Template)]
#[template(path = "health.html", config = "src/console/pages/askama.toml")]
struct HealthPage {
    f: Frame,
    t: &'static Phrases,
    ready: bool,
    checks: Vec<Check>,
    faults: Vec<FaultRow>,
    facts: Vec<Fact>,
    credentials: Vec<CredentialRow>,
}

/// What the service knows of itself. Whatever fails, the rest is shown.
pub(super) struct Condition {
    pub(super) ledger: LedgerCheck,
    /// A callback can be kept now.
    pub(super) ready: bool,
    pub(super) draining: bool,
    pub(super) connected: bool,
    pub(super) blocked: bool,
    /// Faults of exchanges and queues; `None` while unknown.
    pub(super) topology: Option<Vec<String>>,
    /// Whether the queue of commands has a consumer; `None` while unknown.
    pub(super) consumed: Option<bool>,
    pub(super) configuration: Configuration,
    pub(super) stats: Option<Stats>,
    pub(super) overview: Option<Overview>,
}

impl Condition {
    pub(super) async fn of(viewer: &Viewer, desk: &Desk) -> Self {
        let draining = desk.draining.load(Ordering::Relaxed);
        let ((ledger, kept), stats, overview) = tokio::join!(
            desk.probe.look(),
            viewer.look(desk.ledger.stats()),
            viewer.look(desk.ledger.overview())
        );
        let topology = desk.metrics.topology.last();
        let faults =
            topology.as_ref().map(|view| view.faults.iter().map(|fault| fault.object.clone()).collect());
        let commands = topology.as_ref().and_then(|view| view.queue(Role::Commands));
        Self {
            ledger,
            ready: kept && !draining,
            draining,
            connected: desk.metrics.relay.connected(),
            blocked: desk.metrics.relay.blocked(),
            topology: faults,
            consumed: commands.map(|counts| counts.consumers > 0),
            configuration: desk.access.configuration(),
            stats: stats.ok(),
            overview: overview.ok(),
        }
    }

    pub(super) fn reload_rejected(&self) -> bool {
        self.configuration.last_reload.is_some_and(|reload| reload.result == ReloadResult::Rejected)
    }

    /// Whether a fault of the table is there now.
    fn has(&self, fault: &str) -> bool {
        let count = |of: fn(&Stats) -> u64| self.stats.as_ref().is_some_and(|stats| of(stats) > 0);
        match fault {
            "ledger" => !matches!(self.ledger, LedgerCheck::Ok | LedgerCheck::Overloaded),
            "overloaded" => self.ledger == LedgerCheck::Overloaded,
            "draining" => self.draining,
            "broker" => !self.connected,
            "blocked" => self.blocked,
            "topology" => self.topology.as_ref().is_some_and(|faults| !faults.is_empty()),
            "workers" => self.consumed == Some(false),
            "parked" => count(|stats| stats.parked),
            "rejected" => count(|stats| stats.rejected),
            "unrouted" => count(|stats| stats.unrouted),
            "outcomes" => count(|stats| stats.outcomes_parked),
            "findings" => self.overview.as_ref().is_some_and(|overview| overview.open() > 0),
            "reload" => self.reload_rejected(),
            _ => false,
        }
    }
}

/// `GET /health`.
pub(super) async fn page(viewer: Viewer, desk: web::Data<Desk>) -> Result<HttpResponse, Halt> {
    let t = viewer.t();
    let condition = Condition::of(&viewer, &desk).await;
    let fault = |id| (t.fault_words)(id).map(|words| FaultRow { id, words, live: condition.has(id) });
    let page = HealthPage {
        t,
        ready: condition.ready,
        checks: checks(&condition, t),
        faults: FAULTS.into_iter().filter_map(fault).collect(),
        facts: facts(&condition, &desk, &viewer),
        credentials: desk
            .metrics
            .uses
            .known()
            .into_iter()
            .map(|used| CredentialRow {
                endpoint: used.endpoint.to_string(),
                credential: used.credential,
                last_used: used.last_used_at.map_or_else(|| t.never.to_owned(), |at| viewer.shown(at)),
            })
            .collect(),
        f: viewer.frame.clone(),
    };
    Ok(viewer.page(&page))
}

fn checks(condition: &Condition, t: &Phrases) -> Vec<Check> {
    let check = |id, name, wrong: Option<String>, remedy| Check {
        id,
        name,
        remedy: if wrong.as_ref().is_some_and(|word| word != t.unknown) { remedy } else { "" },
        mark: match wrong {
            None => Mark::good(t.ok),
            Some(word) if word == t.unknown => Mark { class: "unknown", shape: "?", word },
            Some(word) => Mark::bad(word),
        },
    };
    let stats = condition.stats.as_ref();
    let unknown = || t.unknown.to_owned();
    let waiting = stats.map(|stats| {
        let counts = [("parked", stats.parked), ("rejected", stats.rejected), ("unrouted", stats.unrouted)];
        let counts = counts.into_iter().filter(|(_, count)| *count > 0);
        counts.map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
    });
    let is_some = |text: Option<String>| {
        text.map_or_else(|| Some(unknown()), |text| (!text.is_empty()).then_some(text))
    };
    let count = |count: Option<u64>| match count {
        None => Some(unknown()),
        Some(0) => None,
        Some(count) => Some(count.to_string()),
    };
    let ledger = (condition.ledger != LedgerCheck::Ok).then(|| condition.ledger.as_str().to_owned());
    let broker = match (condition.connected, condition.blocked) {
        (false, _) => Some("disconnected".to_owned()),
        (true, true) => Some("blocked".to_owned()),
        (true, false) => None,
    };
    let topology = is_some(condition.topology.as_ref().map(|faults| faults.join(", ")));
    vec![
        check("ledger", t.check_ledger, ledger, t.remedy_ledger),
        check(
            "accepting",
            t.check_accepting,
            condition.draining.then(|| "draining".to_owned()),
            t.remedy_draining,
        ),
        check("broker", t.check_broker, broker, t.remedy_broker),
        check("topology", t.check_topology, topology, t.remedy_topology),
        check(
            "reload",
            t.check_reload,
            condition.reload_rejected().then(|| "rejected".to_owned()),
            t.remedy_reload,
        ),
        check("parked", t.check_parked, is_some(waiting), t.remedy_parked),
        check(
            "outcomes",
            t.check_outcomes,
            count(stats.map(|stats| stats.outcomes_parked)),
            t.remedy_outcomes,
        ),
        check(
            "findings",
            t.check_findings,
            count(condition.overview.as_ref().map(Overview::open)),
            t.remedy_findings,
        ),
    ]
}

fn facts(condition: &Condition, desk: &Desk, viewer: &Viewer) -> Vec<Fact> {
    let t = viewer.t();
    let configuration = &condition.configuration;
    let reload = configuration.last_reload.map_or_else(
        || t.reload_none.to_owned(),
        |reload| {
            let word = match reload.result {
                ReloadResult::Applied => "applied",
                ReloadResult::Rejected => "rejected",
            };
            format!("{word}, {}", viewer.shown(reload.at))
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
    use crate::console::pages::phrases::Language;

    #[test]
    fn every_fault_of_the_table_has_its_words() {
        for language in Language::ALL {
            for fault in FAULTS {
                assert!((language.phrases().fault_words)(fault).is_some(), "{fault}");
            }
        }
    }
}
