//! `/`: is anybody harmed now?

use std::time::Duration;

use actix_web::{HttpResponse, web};
use askama::Template;

use super::{
    Desk, Frame, Halt, Live, Phrases, Unread, Viewer, decisions::DecisionRow, health::Condition, link, span,
};
use crate::{
    command::Seq,
    ledger::{Filter, Lookup, RefusalFilter, Stats},
    time::Timestamp,
};

/// Newest decisions shown.
const NEWEST: usize = 10;

const HOUR: Duration = Duration::from_secs(3600);

/// Bars of the chart.
const BARS: usize = 30;

struct Alarm {
    class: &'static str,
    text: String,
    href: &'static str,
    link: &'static str,
}

struct Stage {
    key: &'static str,
    name: &'static str,
    value: String,
    note: String,
    href: &'static str,
}

struct RefusedCount {
    reason: String,
    count: u64,
    href: String,
}

struct Bar {
    x: usize,
    y: u64,
    height: u64,
    count: u64,
    from: String,
}

struct Chart {
    width: usize,
    label: String,
    bars: Vec<Bar>,
    from: String,
    to: String,
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
    refused: Vec<RefusedCount>,
    chart: Option<Chart>,
    rows: Vec<DecisionRow>,
}

/// `GET /` for browsers. What cannot be read is said, and the rest is shown.
pub(in crate::console) async fn page(viewer: Viewer, desk: web::Data<Desk>) -> Result<HttpResponse, Halt> {
    let t = viewer.t();
    let now = Timestamp::now();
    let newest = Filter { limit: NEWEST, ..Filter::default() };
    let last = RefusalFilter { limit: 1, ..RefusalFilter::default() };
    let (condition, newest, refused, last, counts) = tokio::join!(
        Condition::of(&viewer, &desk),
        viewer.look(desk.ledger.list(newest)),
        viewer.look(desk.ledger.refused_since(now - HOUR)),
        viewer.look(desk.ledger.refusals(last)),
        counts(&viewer, &*desk.ledger, now)
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
    let last_refusal =
        last.map_err(&mut failed).ok().and_then(|mut last| last.pop()).map_or(0, |last| last.id);
    if !failures.is_empty() {
        failures.push(t.next_doctor);
    }
    let since = viewer.zone.show(now - HOUR);
    let page = HomePage {
        t,
        live: Some(Live { head: rows.first().map_or(0, |row| row.seq), refusals: last_refusal }),
        failures,
        alarms: alarms(&condition, t, now),
        stages: condition
            .stats
            .as_ref()
            .map_or_else(Vec::new, |stats| stages(stats, counts.as_deref(), t, now)),
        refused: refused
            .into_iter()
            .map(|(count, newest)| RefusedCount {
                href: link("/refusals", [("reason", &*newest.refused.reason), ("since", &since)]),
                reason: newest.refused.reason,
                count,
            })
            .collect(),
        chart: counts.map(|counts| chart(&counts, &viewer, now)),
        rows: rows.iter().map(|record| DecisionRow::of(record, &viewer)).collect(),
        f: viewer.frame.clone(),
    };
    Ok(viewer.page(&page))
}

fn alarms(condition: &Condition, t: &'static Phrases, now: Timestamp) -> Vec<Alarm> {
    let mut alarms = Vec::new();
    let mut alarm = |class, text: String, href| alarms.push(Alarm { class, text, href, link: t.look });
    if !condition.ready {
        alarm("bad", t.alarm_not_ready.to_owned(), "/health#ledger");
    }
    if !condition.connected {
        alarm("bad", t.alarm_broker.to_owned(), "/health#broker");
    } else if condition.blocked {
        alarm("bad", t.alarm_blocked.to_owned(), "/health#broker");
    }
    if condition.reload_rejected() {
        alarm("warn", format!("{}: {}", t.check_reload, t.remedy_reload), "/health#reload");
    }
    if let Some(faults) = condition.topology.as_ref().filter(|faults| !faults.is_empty()) {
        alarm("bad", format!("{}: {}", t.check_topology, faults.join(", ")), "/health#topology");
    }
    if let Some(stats) = &condition.stats {
        let count = |count: u64, told: fn(&str) -> String| (count > 0).then(|| told(&count.to_string()));
        let waited = stats.oldest_pending_at.map(|at| now.since(at));
        if let Some(waited) = waited.filter(|waited| *waited > Duration::from_secs(60)) {
            let text = (t.pending_is)(&stats.pending.to_string(), &span(waited));
            alarm("bad", text, "/decisions?state=pending");
        }
        if stats.parked > 0 {
            alarm("bad", (t.parked_is)(&stats.parked.to_string(), ""), "/parked");
        }
        for (text, href) in [
            (count(stats.rejected, t.rejected_is), "/parked"),
            (count(stats.unrouted, t.unrouted_is), "/parked"),
            (count(stats.outcomes_parked, t.outcomes_parked_is), "/parked"),
            (count(stats.strays, t.strays_is), "/parked"),
        ] {
            text.into_iter().for_each(|text| alarm("warn", text, href));
        }
    }
    if let Some(open) = condition.overview.as_ref().map(|overview| overview.open()).filter(|open| *open > 0) {
        alarm("warn", (t.findings_is)(&open.to_string()), "/findings");
    }
    alarms
}

fn stages(stats: &Stats, counts: Option<&[u64]>, t: &'static Phrases, now: Timestamp) -> Vec<Stage> {
    let rate =
        counts.and_then(|counts| counts.last()).map_or_else(|| "–".to_owned(), |last| (last / 2).to_string());
    let waited = stats.oldest_pending_at.map(|at| format!("{} {}", t.oldest, span(now.since(at))));
    let stage = |key, name, value: String, note: String, href| Stage { key, name, value, note, href };
    vec![
        stage("", t.stage_accepted, rate, t.per_minute.to_owned(), "/decisions"),
        stage(
            "pending",
            t.stage_pending,
            stats.pending.to_string(),
            waited.unwrap_or_default(),
            "/decisions?state=pending",
        ),
        stage(
            "",
            t.stage_published,
            stats.published.to_string(),
            t.in_all.to_owned(),
            "/decisions?state=published",
        ),
        stage(
            "outcomes_pending",
            t.stage_outcome,
            stats.outcomes_pending.to_string(),
            t.waiting.to_owned(),
            "/decisions?outcome=applied",
        ),
        stage("outcomes_parked", t.stage_shown, stats.outcomes_parked.to_string(), String::new(), "/parked"),
    ]
}

/// Accepted decisions of the last hour, in [`BARS`] equal parts. The log is in order of time, so a few binary searches
/// find them, however long it is.
async fn counts(
    viewer: &Viewer,
    ledger: &(impl Lookup + ?Sized),
    now: Timestamp,
) -> Result<Vec<u64>, Unread> {
    let newest = viewer.look(ledger.list(Filter { limit: 1, ..Filter::default() })).await?;
    let head = newest.first().map_or(0, |newest| newest.seq);
    let step = HOUR / BARS as u32;
    let (mut counts, mut later) = (Vec::with_capacity(BARS), head + 1);
    for bar in 1..=BARS as u32 {
        let first = first_since(viewer, ledger, now - step * bar, later).await?;
        counts.push(later - first);
        later = first;
    }
    counts.reverse();
    Ok(counts)
}

/// The first place in the log that is not before a time, below `end`; `end` if there is none.
async fn first_since(
    viewer: &Viewer,
    ledger: &(impl Lookup + ?Sized),
    at: Timestamp,
    end: Seq,
) -> Result<Seq, Unread> {
    // Steps that double find the near end of a long log without looking at the middle of it.
    let (mut low, mut high, mut stride) = (1, end, 16);
    let is_since = async |seq| {
        let id = viewer.look(ledger.id_at(seq)).await?;
        // What was pruned was before.
        Ok(id.and_then(|id| id.received_at()).is_some_and(|received| received >= at))
    };
    while high > stride && is_since(high - stride).await? {
        high -= stride;
        stride *= 2;
    }
    low = low.max(high.saturating_sub(stride));
    while low < high {
        let middle = low + (high - low) / 2;
        if is_since(middle).await? { high = middle } else { low = middle + 1 }
    }
    Ok(high)
}

fn chart(counts: &[u64], viewer: &Viewer, now: Timestamp) -> Chart {
    const HEIGHT: u64 = 58;
    let most = counts.iter().copied().max().unwrap_or(0);
    let step = HOUR / BARS as u32;
    let bars = counts.iter().enumerate().map(|(place, count)| {
        let height = if most == 0 { 0 } else { (count * HEIGHT).div_ceil(most) };
        // A foot, so that nothing and no chart look different.
        let height = height.max(1);
        let from = now - step * (BARS - place) as u32;
        Bar { x: place * 10 + 1, y: 60 - height, height, count: *count, from: viewer.shown(from) }
    });
    let total: u64 = counts.iter().sum();
    Chart {
        width: BARS * 10,
        label: (viewer.t().chart_label)(&total.to_string(), &most.to_string()),
        bars: bars.collect(),
        from: viewer.shown(now - HOUR),
        to: viewer.shown(now),
    }
}
