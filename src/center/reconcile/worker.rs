//! Runs passes in a service.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Again, Error, Pace, Settings, Summary, Witness, advice, pass};
use crate::{
    center::client::{Center, Fault},
    ledger::{
        Ledger, Verdict,
        findings::{Candidate, Finding, Findings, Reach},
    },
    telemetry::{log::chain, metrics::Metrics},
    time::Timestamp,
};

/// Eight calls per second, 480 per minute: leaves half of the platform's limit to others.
const BETWEEN: Duration = Duration::from_millis(125);

/// Pages of one kind (500 commands each) before the other kind is next.
const PAGES: usize = 40;

/// Findings logged one by one per pass.
const LINES: u64 = 20;

/// How often the log repeats that passes fail.
const REMIND_AFTER: Duration = Duration::from_secs(600);

/// Runs passes [`Settings::every`] apart, forever. May be dropped at any time.
pub async fn run(center: Center, ledger: Arc<dyn Ledger>, settings: Settings, metrics: Arc<Metrics>) {
    let Some(every) = settings.every else { return std::future::pending().await };
    for verdict in Verdict::ALL {
        metrics.reconcile.reconciled(verdict.as_str(), 0);
    }
    let reach = || Reach { now: Timestamp::now(), after: settings.after, within: settings.within };
    let pace = Pace { between: BETWEEN, pages: Some(PAGES) };
    let mut told: Option<Instant> = None;
    loop {
        let mut teller = Teller { metrics: &metrics, counted: Summary::default(), lines: 0 };
        let passed = pass(&center, &*ledger, reach, Again::Due, pace, &mut teller).await;
        teller.close();
        count_open(&*ledger, &metrics).await;
        metrics.reconcile.passed(passed.is_ok());
        match passed {
            Ok(summary) => {
                if told.take().is_some() {
                    tracing::info!("comparing decisions with the approval center again");
                }
                if summary.more {
                    continue;
                }
            }
            Err(error) if told.is_none_or(|told| told.elapsed() >= REMIND_AFTER) => {
                told = Some(Instant::now());
                let advice = match &error {
                    Error::Center(error) => error.fault().and_then(Fault::advice),
                    Error::Read(_) | Error::Write(_) => None,
                };
                tracing::warn!(error = %chain(&error), advice, "cannot compare decisions with the approval center; retrying");
            }
            Err(_) => {}
        }
        sleep(every).await;
    }
}

async fn count_open(ledger: &dyn Findings, metrics: &Metrics) {
    // Callers that depend more on the ledger have logged the error.
    let Ok(overview) = ledger.overview().await else { return };
    for (verdict, count) in [
        (Verdict::Unseen, overview.unseen),
        (Verdict::NotFound, overview.not_found),
        (Verdict::Contradicted, overview.contradicted),
    ] {
        metrics.reconcile.set_findings(verdict.as_str(), count);
    }
}

struct Teller<'a> {
    metrics: &'a Metrics,
    counted: Summary,
    lines: u64,
}

impl Witness for Teller<'_> {
    fn passed(&mut self, summary: &Summary) {
        for (place, verdict) in Verdict::ALL.iter().enumerate() {
            let fresh = summary.verdicts[place] - self.counted.verdicts[place];
            self.metrics.reconcile.reconciled(verdict.as_str(), fresh);
        }
        self.counted = *summary;
    }

    fn found(&mut self, candidate: &Candidate, finding: &Finding) {
        self.lines += 1;
        if self.lines > LINES {
            return;
        }
        tracing::warn!(
            command_id = %candidate.command_id,
            endpoint = candidate.endpoint,
            verdict = finding.verdict.as_str(),
            task_status = finding.task_status,
            advice = advice(finding.verdict),
            "a decision is not visible at the approval center"
        );
    }
}

impl Teller<'_> {
    fn close(&self) {
        if let Some(more) = self.lines.checked_sub(LINES).filter(|more| *more > 0) {
            tracing::warn!(
                more,
                "further decisions are not visible at the approval center; `countersign reconcile` lists them"
            );
        }
    }
}
