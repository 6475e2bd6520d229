//! Waits for what the worker reports, by the ledger.

use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};

use super::answer::{Answer, Worker};
use crate::{cli::exit::Failure, command::CommandId, ledger::Client};

/// How often the ledger is asked.
const PAUSE: Duration = Duration::from_millis(100);

/// A ledger that is asked for reports.
pub(super) struct Awaited {
    ledger: Box<dyn Client>,
    wait: Duration,
}

impl Awaited {
    pub(super) fn new(ledger: Box<dyn Client>, wait: Duration) -> Self {
        Self { ledger, wait }
    }

    /// Adds what the worker reports of the command, if the answer names one.
    pub(super) async fn report(&self, answer: Answer) -> Result<Answer, Failure> {
        let Some(id) = answer.command_id.as_deref().and_then(CommandId::parse) else { return Ok(answer) };
        let deadline = Instant::now() + self.wait;
        loop {
            let found = self.ledger.find(id).await.context("cannot look for the worker's report")?;
            if let Some(outcome) = found.and_then(|record| record.outcome) {
                let worker = Worker { outcome: Some(outcome.outcome.as_str()), message: outcome.message };
                return Ok(Answer { worker: Some(worker), ..answer });
            }
            if Instant::now() >= deadline {
                return Ok(Answer { worker: Some(Worker { outcome: None, message: None }), ..answer });
            }
            sleep(PAUSE).await;
        }
    }
}
