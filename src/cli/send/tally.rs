//! Counts all answers and reports them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::verify::Account;
use crate::cli::{
    exit::Exit,
    output::{draw, is_heard, say},
};

/// The longest latency recorded exactly; longer ones count as this.
const LONGEST_US: u64 = 120_000_000;

/// Distinct errors reported; further ones, as a broken network produces, are counted together.
const ERRORS_TOLD: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Accepted,
    Duplicate,
    Refused,
}

pub(super) struct Tally {
    began: Instant,
    /// Time of the last answer; until then the run is still timed.
    ended: Instant,
    latencies: Histogram<u64>,
    accepted: u64,
    duplicate: u64,
    refused: u64,
    unanswered: u64,
    answers: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
}

/// The report of a run: the object `summary` of `--json`. Members are only ever added.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// Prefix of this run's ids.
    pub(super) run: String,
    pub(super) connections: u64,
    /// Target callbacks per second; null if each connection sends as soon as it is answered.
    pub(super) rate_wanted: Option<f64>,
    /// Callbacks sent, answered or not.
    pub(super) sent: u64,
    pub(super) accepted: u64,
    pub(super) duplicate: u64,
    pub(super) refused: u64,
    pub(super) unanswered: u64,
    /// Callbacks that were due but never sent.
    pub(super) unsent: u64,
    /// Answers by outcome: `accepted`, `duplicate`, a reason, `unknown`.
    pub(super) answers: BTreeMap<String, u64>,
    /// Causes of missing answers.
    pub(super) errors: BTreeMap<String, u64>,
    /// From the first callback to the last answer.
    pub(super) elapsed_ms: f64,
    /// Answers per second over that time.
    pub(super) rate_per_s: f64,
    pub(super) latency_us: Latency,
    /// The `--verify` result; null without it.
    pub(super) verify: Option<Account>,
}

/// Microseconds until the answer; all 0 if there was none.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    pub(super) min: u64,
    pub(super) mean: u64,
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) p99_9: u64,
    pub(super) max: u64,
}

/// The constants of a run.
pub(super) struct Given {
    pub(super) run: String,
    pub(super) connections: u64,
    pub(super) rate_wanted: Option<f64>,
}

impl Tally {
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            ended: now,
            latencies: Histogram::new_with_bounds(1, LONGEST_US, 3).expect("sound bounds"),
            accepted: 0,
            duplicate: 0,
            refused: 0,
            unanswered: 0,
            answers: BTreeMap::new(),
            errors: BTreeMap::new(),
        }
    }

    /// Counts an answer with this outcome.
    pub(super) fn answered(&mut self, status: u16, outcome: &str, latency: Duration) -> Ending {
        self.ended = Instant::now();
        self.latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US).max(1));
        let (ending, count) = match (status, outcome) {
            (200, "duplicate") => (Ending::Duplicate, &mut self.duplicate),
            (200, _) => (Ending::Accepted, &mut self.accepted),
            _ => (Ending::Refused, &mut self.refused),
        };
        *count += 1;
        match self.answers.get_mut(outcome) {
            Some(count) => *count += 1,
            None => drop(self.answers.insert(outcome.to_owned(), 1)),
        }
        ending
    }

    /// Counts a callback without an answer; true if the cause is new.
    pub(super) fn unanswered(&mut self, cause: &str) -> bool {
        self.ended = Instant::now();
        self.unanswered += 1;
        if let Some(count) = self.errors.get_mut(cause) {
            *count += 1;
            return false;
        }
        let known = self.errors.len() < ERRORS_TOLD;
        let cause = if known { cause } else { "other" };
        *self.errors.entry(cause.to_owned()).or_default() += 1;
        known
    }

    /// True if this outcome has occurred exactly once so far.
    pub(super) fn is_first(&self, outcome: &str) -> bool {
        self.answers.get(outcome) == Some(&1)
    }

    /// Unsuccessful and missing answers.
    pub(super) fn failures(&self) -> u64 {
        self.refused + self.unanswered
    }

    pub(super) fn sent(&self) -> u64 {
        self.accepted + self.duplicate + self.refused + self.unanswered
    }

    pub(super) fn summary(self, given: Given, unsent: u64, verify: Option<Account>) -> Summary {
        let elapsed = self.ended.duration_since(self.began);
        let answered = self.sent() - self.unanswered;
        let at = |quantile| self.latencies.value_at_quantile(quantile);
        Summary {
            run: given.run,
            connections: given.connections,
            rate_wanted: given.rate_wanted,
            sent: self.sent(),
            accepted: self.accepted,
            duplicate: self.duplicate,
            refused: self.refused,
            unanswered: self.unanswered,
            unsent,
            elapsed_ms: millis(elapsed),
            rate_per_s: per_second(answered, elapsed),
            latency_us: Latency {
                min: self.latencies.min(),
                mean: self.latencies.mean().round() as u64,
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p99_9: at(0.999),
                max: self.latencies.max(),
            },
            answers: self.answers,
            errors: self.errors,
            verify,
        }
    }
}

impl Summary {
    /// The human-readable report.
    pub(super) fn words(&self) -> String {
        let mut text = format!(
            "{} sent in {:.2} s ({:.0}/s): {} accepted, {} duplicate, {} refused, {} unanswered",
            self.sent,
            self.elapsed_ms / 1e3,
            self.rate_per_s,
            self.accepted,
            self.duplicate,
            self.refused,
            self.unanswered
        );
        if self.unsent > 0 {
            text += &format!(", {} never sent", self.unsent);
        }
        if self.sent > self.unanswered {
            let Latency { p50, p90, p99, p99_9, max, .. } = self.latency_us;
            let [p50, p90, p99, p99_9, max] = [p50, p90, p99, p99_9, max].map(|us| us as f64 / 1e3);
            text += &format!(
                "\nlatency in ms: p50 {p50:.2}, p90 {p90:.2}, p99 {p99:.2}, p99.9 {p99_9:.2}, max {max:.2}"
            );
        }
        if let Some(account) = &self.verify {
            text += &format!("\n{account}");
        }
        text
    }

    /// The exit code of the worst event.
    pub(super) fn exit(&self) -> Exit {
        if self.verify.as_ref().is_some_and(|account| account.missing > 0) {
            Exit::Failed
        } else if self.unanswered > 0 || self.unsent > 0 {
            Exit::Unavailable
        } else if self.refused > 0 {
            Exit::Failed
        } else {
            Exit::Done
        }
    }
}

/// A progress line on the terminal; disabled if stderr is not a terminal.
pub(super) struct Progress {
    seen: bool,
    told_at: Instant,
    told_sent: u64,
}

impl Progress {
    const EVERY: Duration = Duration::from_millis(250);

    pub(super) fn new() -> Self {
        Self { seen: is_heard(), told_at: Instant::now(), told_sent: 0 }
    }

    /// When to [`tell`](Self::tell) next; `None` if disabled.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.seen.then(|| self.told_at + Self::EVERY)
    }

    /// Draws the line; `done` goes from 0 to 1.
    pub(super) fn tell(&mut self, tally: &Tally, done: f64) {
        let (sent, now) = (tally.sent(), Instant::now());
        let rate = per_second(sent - self.told_sent, now.duration_since(self.told_at));
        let p99 = tally.latencies.value_at_quantile(0.99) as f64 / 1e3;
        (self.told_at, self.told_sent) = (now, sent);
        let done = done.clamp(0.0, 1.0);
        let full = (done * 24.0).round() as usize;
        let bar = format!("{}{}", "#".repeat(full), "-".repeat(24 - full));
        draw(format_args!(
            "[{bar}] {sent} sent, {rate:.0}/s, {} refused, {} unanswered, p99 {p99:.1} ms",
            tally.refused, tally.unanswered
        ));
    }

    /// Clears the line.
    pub(super) fn end(&self) {
        if self.seen {
            draw("");
        }
    }

    /// Prints a line without mixing it with the progress line.
    pub(super) fn say(&self, line: impl std::fmt::Display) {
        self.end();
        say(line);
    }
}

pub(super) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn per_second(count: u64, duration: Duration) -> f64 {
    if duration.is_zero() { 0.0 } else { (count as f64 / duration.as_secs_f64() * 10.0).round() / 10.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> Given {
        Given { run: "demo-1".to_owned(), connections: 1, rate_wanted: None }
    }

    #[test]
    fn the_exit_code_is_that_of_the_worst_answer() {
        let exit = |counts: [u64; 4]| {
            let mut tally = Tally::start();
            let [accepted, refused, unanswered, unsent] = counts;
            for (status, count) in [(200, accepted), (403, refused)] {
                for _ in 0..count {
                    tally.answered(status, "word", Duration::from_millis(1));
                }
            }
            for _ in 0..unanswered {
                tally.unanswered("closed");
            }
            tally.summary(given(), unsent, None).exit()
        };
        assert_eq!(exit([3, 0, 0, 0]), Exit::Done);
        assert_eq!(exit([3, 1, 0, 0]), Exit::Failed);
        assert_eq!(exit([3, 1, 1, 0]), Exit::Unavailable);
        assert_eq!(exit([3, 0, 0, 1]), Exit::Unavailable);
        let missing = |missing| {
            let account = Account { answered: 3, arrived: 3 - missing, missing, ..Account::default() };
            Tally::start().summary(given(), 0, Some(account)).exit()
        };
        assert_eq!((missing(0), missing(1)), (Exit::Done, Exit::Failed));
    }

    #[test]
    fn a_summary_has_every_answer_and_the_percentiles() {
        let mut tally = Tally::start();
        for ms in 1..=100 {
            assert_eq!(tally.answered(200, "accepted", Duration::from_millis(ms)), Ending::Accepted);
        }
        assert_eq!(tally.answered(200, "duplicate", Duration::from_millis(1)), Ending::Duplicate);
        assert_eq!(tally.answered(503, "overloaded", Duration::from_millis(1)), Ending::Refused);
        assert!(tally.unanswered("closed before the answer"));
        assert!(!tally.unanswered("closed before the answer"), "told once");
        let summary = tally.summary(given(), 0, None);
        assert_eq!((summary.sent, summary.accepted, summary.duplicate, summary.refused), (104, 100, 1, 1));
        assert_eq!(summary.answers.values().sum::<u64>(), 102);
        assert_eq!(summary.errors["closed before the answer"], 2);
        let p50 = summary.latency_us.p50;
        assert!((48_000..=51_000).contains(&p50), "{p50}");
        assert!((99_900..=100_100).contains(&summary.latency_us.max), "{}", summary.latency_us.max);
    }
}
