//! What every ledger promises, whatever it is kept in.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod accept;
mod acts;
mod contexts;
mod dead_letters;
mod findings;
mod history;
mod listing;
mod outbox;
mod outcomes;
mod refusals;
mod retention;
mod sameness;
mod search_file;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use countersign::{
    command::{
        Action, Command, CommandId, Fingerprint, Origin, ResolvedBy, Seq, TaskRef, id::FingerprintParts,
    },
    ledger::{
        AcceptError, Acceptance, ActError, Actor, By, Entry, Exception, Filter, Limits, OnConflict, Receipt,
        RefusalFilter, RefusedCallback, Registering, Registration, Reported, Settlement, Shown, State, Via,
        state::Exceptional,
    },
    time::Timestamp,
};
use rstest_reuse::{apply, template};

use crate::scratch::{Backend, Handle, Scratch, close};

/// Every test of the suite runs once with each kind.
#[template]
#[rstest::rstest]
#[case::sqlite(Backend::Sqlite)]
#[case::postgres(Backend::Postgres)]
#[case::two_replicas(Backend::TwoReplicas)]
fn every_ledger(#[case] backend: Backend) {}

/// Tests of the suite that run by way of PgBouncer as well.
#[template]
#[rstest::rstest]
#[case::sqlite(Backend::Sqlite)]
#[case::postgres(Backend::Postgres)]
#[case::pgbouncer(Backend::Bouncer)]
#[case::two_replicas(Backend::TwoReplicas)]
fn every_way(#[case] backend: Backend) {}

/// All of the log.
const ALL: Seq = Seq::MAX;

pub(crate) fn acceptance(task_id: &str, action_type: &str, round: Option<&str>) -> Acceptance {
    let received_at = Timestamp::now();
    let command = Command {
        command_id: CommandId::new(received_at),
        endpoint: "purchase".into(),
        received_at,
        action: Action::of(action_type),
        action_type: action_type.to_owned(),
        origin: Some(Origin::List),
        user_id: "zhang3".to_owned(),
        approval_code: Some("CODE".to_owned()),
        task: TaskRef {
            instance_id: Some("i".to_owned()),
            task_id: Some(task_id.to_owned()),
            round: round.map(str::to_owned),
            resolved_by: Some(ResolvedBy::Opaque),
            ..TaskRef::default()
        },
        reason: None,
        attachments: Vec::new(),
        action_context: None,
        message_id: None,
        search_id: None,
        conflicts_with: None,
        repeats: None,
        extra: Vec::new(),
        trace: None,
    };
    let fingerprint = Fingerprint::of(&FingerprintParts {
        endpoint: "purchase",
        task_id: Some(task_id),
        round,
        user_id: "zhang3",
        action_type,
        ..Default::default()
    });
    Acceptance {
        since: Instant::now(),
        command,
        fingerprint,
        window: Duration::from_secs(60),
        repeats_window: Duration::from_secs(24 * 3600),
        on_conflict: OnConflict::Publish,
    }
}

/// Somebody at a command line.
pub(crate) fn by() -> By {
    let actor =
        Actor { name: Some("li4".to_owned()), host: Some("h1".to_owned()), ..Actor::unnamed(Via::Cli) };
    By { actor, reason: Some("the queue was deleted".to_owned()) }
}

async fn accepted(ledger: &Handle, acceptance: Acceptance) -> CommandId {
    match ledger.accept(acceptance).await {
        Ok(Receipt::Accepted { command_id }) => command_id,
        other => panic!("expected accepted, got {other:?}"),
    }
}

async fn duplicate_of(ledger: &Handle, acceptance: Acceptance) -> CommandId {
    match ledger.accept(acceptance).await {
        Ok(Receipt::Duplicate { command_id }) => command_id,
        other => panic!("expected a duplicate, got {other:?}"),
    }
}
