//! The inbox of workers' reports.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use lapin::{Channel, message::Delivery, options::BasicAckOptions};
use tracing::{info, warn};

use super::{
    Resources, Rules, Settings,
    burial::Burial,
    permit::{Named, check},
    session::{End, Inbox, Taken, given_up, keep_all, tell, until_it_works},
};
use crate::{
    amqp::{self, Error, Listening},
    command::{
        CommandId,
        outcome::{Kind, Outcome},
    },
    ledger::{RefusedReport, Reported},
    stop::Stop,
    telemetry::{
        failpoint::reach,
        metrics::{Metrics, ReportResult},
        traces::{self, Span},
    },
};

pub(super) struct ReportInbox {
    pub(super) resources: Resources,
    pub(super) settings: Settings,
}

impl Inbox for ReportInbox {
    type Session = Burial;

    fn metrics(&self) -> &Metrics {
        &self.resources.metrics
    }

    fn connection(&self) -> &'static str {
        "countersign outcomes"
    }

    fn queue(&self) -> &str {
        &self.settings.queue
    }

    fn prefetch(&self) -> u16 {
        self.settings.prefetch
    }

    fn without(&self) -> Option<&'static str> {
        (!self.settings.needed).then_some("outcomes.queue = \"\"")
    }

    fn prepare<'a>(
        &'a self,
        listening: &'a Listening,
        broker: &'a amqp::Settings,
    ) -> BoxFuture<'a, Result<Channel, Error>> {
        Box::pin(listening.prepare_outcomes(self.queue(), broker))
    }

    fn begin(&self, listening: &Arc<Listening>) -> Burial {
        Burial::new(listening.clone())
    }

    fn take<'a>(
        &'a self,
        burial: &'a mut Burial,
        batch: Vec<Delivery>,
        stop: &'a mut Stop,
    ) -> BoxFuture<'a, Result<Taken, End>> {
        Box::pin(self.keep_and_tell(burial, batch, stop))
    }
}

impl ReportInbox {
    async fn keep_and_tell(
        &self,
        burial: &mut Burial,
        batch: Vec<Delivery>,
        stop: &mut Stop,
    ) -> Result<Taken, End> {
        let began = Instant::now();
        let read: Vec<_> = batch.iter().map(|delivery| read(&delivery.data)).collect();
        let about: Vec<_> = read.iter().map(about).collect();
        let told = tokio::select! {
            told = self.judge_and_keep(read) => told,
            // A failing ledger must not block the shutdown. Unacknowledged messages are redelivered.
            () = given_up(stop) => return Err(End::Stopped),
        };
        reach("outcome:kept");
        if told.iter().any(|told| told.is_kept()) {
            self.resources.bell.notify_one();
        }
        for (delivery, Handled { result, dead }) in batch.iter().zip(&told) {
            self.resources.metrics.outcomes.reported(*result);
            tell(async {
                match dead {
                    Some(reason) => burial.bury(delivery, reason).await,
                    None => delivery.acker.ack(BasicAckOptions::default()).await.map(drop),
                }
            })
            .await?;
        }
        reach("outcome:acknowledged");
        let took = began.elapsed();
        let spans = async {
            for ((delivery, about), Handled { result, .. }) in batch.iter().zip(about).zip(told) {
                if let Some(about) = about {
                    self.trace(delivery, about, result, took).await;
                }
            }
        };
        traces::within_patience(spans).await;
        Ok(Taken::Whole)
    }

    /// Makes the span of a report: below what the worker says, otherwise below the callback of its command.
    async fn trace(
        &self,
        delivery: &Delivery,
        (command_id, kind): (CommandId, Kind),
        result: ReportResult,
        took: Duration,
    ) {
        let parent = match amqp::trace_of(delivery) {
            Some(parent) => Some(parent),
            None => {
                let found = self.resources.ledger.find(command_id).await.ok().flatten();
                found.map(|record| record.trace())
            }
        };
        let name = format!("process {}", self.queue());
        let span = parent.and_then(|parent| Span::below(parent, traces::Kind::Consumer, name));
        let Some(span) = span.map(|span| span.for_the_last(took)) else { return };
        let word: &'static str = result.into();
        let span = span
            .with("messaging.system", "rabbitmq")
            .with("messaging.operation.type", "process")
            .with("messaging.operation.name", "process")
            .with("messaging.destination.name", self.queue().to_owned())
            .with("messaging.message.body.size", delivery.data.len())
            .with("countersign.command_id", command_id.to_string())
            .with("countersign.reported", kind.as_str())
            .with("countersign.outcome", word);
        let is_faulty = matches!(result, ReportResult::NotPermitted | ReportResult::UnknownCommand);
        if is_faulty { span.failed(word) } else { span }.end();
    }

    /// Keeps permitted reports, and records refused ones.
    async fn judge_and_keep(&self, read: Vec<Result<Outcome, String>>) -> Vec<Handled> {
        let mut refusals = Vec::with_capacity(read.len());
        for outcome in &read {
            refusals.push(match outcome {
                Ok(outcome) => self.refusal(outcome).await,
                Err(_) => None,
            });
        }
        let kept: Vec<&Outcome> = read
            .iter()
            .zip(&refusals)
            .filter_map(|(read, refusal)| read.as_ref().ok().filter(|_| refusal.is_none()))
            .collect();
        let (ledger, shows) = (&self.resources.ledger, self.settings.shows);
        let reported = keep_all(&kept, |outcome| ledger.report((*outcome).clone(), shows)).await;
        let mut reported = reported.into_iter();
        let mut told = Vec::with_capacity(read.len());
        for (outcome, refusal) in read.iter().zip(refusals) {
            told.push(match (outcome, refusal) {
                (Err(problem), _) => {
                    Handled { result: ReportResult::Malformed, dead: Some(format!("it {problem}")) }
                }
                (Ok(outcome), Some(reason)) => {
                    self.write_refusal(outcome, &reason).await;
                    Handled { result: ReportResult::NotPermitted, dead: Some(reason) }
                }
                (Ok(outcome), None) => {
                    log_report(outcome, reported.next().expect("there is an answer for each outcome"))
                }
            });
        }
        told
    }

    /// Why a report is not permitted, if its instance does not belong to its command.
    async fn refusal(&self, outcome: &Outcome) -> Option<String> {
        let instance = outcome.instance.as_ref()?;
        let record = until_it_works(|| self.resources.ledger.find(outcome.command_id)).await?;
        let strict = Rules::default();
        let rules = self.settings.rules.get(&record.endpoint).unwrap_or(&strict);
        let named = Named {
            instance_id: record.instance_id.as_deref(),
            approval_code: record.approval_code.as_deref(),
        };
        let refused = check(instance, named, rules).err()?;
        let (command_id, reason) = (outcome.command_id, refused.to_string());
        warn!(%command_id, outcome = outcome.kind.as_str(), reason,
            "report refused: not about its own command; dead-lettered");
        Some(reason)
    }

    async fn write_refusal(&self, outcome: &Outcome, reason: &str) {
        let (command_id, kind) = (outcome.command_id, outcome.kind);
        let refused = || RefusedReport { command_id, kind, reason: reason.to_owned() };
        until_it_works(|| self.resources.ledger.refuse_report(refused())).await;
    }
}

/// What the span of a report says of it; `None` if there is none.
fn about(read: &Result<Outcome, String>) -> Option<(CommandId, Kind)> {
    let outcome = read.as_ref().ok().filter(|_| traces::is_on())?;
    Some((outcome.command_id, outcome.kind))
}

struct Handled {
    result: ReportResult,
    /// Why it is dead-lettered, if it is: redelivery would not help.
    dead: Option<String>,
}

impl Handled {
    fn is_kept(&self) -> bool {
        matches!(self.result, ReportResult::Applied | ReportResult::Refused | ReportResult::Failed)
    }
}

fn read(body: &[u8]) -> Result<Outcome, String> {
    Outcome::parse(body).map_err(|problem| {
        let bytes = body.len();
        warn!(%problem, bytes, "invalid message in the outcomes queue; dead-lettered");
        problem.to_string()
    })
}

fn log_report(outcome: &Outcome, reported: Reported) -> Handled {
    let (command_id, word) = (outcome.command_id, outcome.kind.as_str());
    match reported {
        Reported::Kept => {
            info!(%command_id, outcome = word, "outcome kept");
            let result = match outcome.kind {
                Kind::Applied => ReportResult::Applied,
                Kind::Refused => ReportResult::Refused,
                Kind::Failed => ReportResult::Failed,
            };
            Handled { result, dead: None }
        }
        Reported::Repeat => Handled { result: ReportResult::Duplicate, dead: None },
        Reported::UnknownCommand => {
            warn!(%command_id, outcome = word, "report about an unknown command; dead-lettered");
            let dead = Some("the ledger has no such command".to_owned());
            Handled { result: ReportResult::UnknownCommand, dead }
        }
    }
}
