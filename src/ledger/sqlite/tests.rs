mod files;
mod plans;
mod pruning;
mod versions;
mod writing;

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::*;
use crate::{
    command::{Action, Command, CommandId, Fingerprint, Origin, ResolvedBy, TaskRef, id::FingerprintParts},
    ledger::{
        Accept, Acceptance, Contexts, Filter, Lifecycle, Limits, Lookup, OnConflict, Receipt,
        RefusedCallback, Registering, Registration, Settlement,
    },
    time::Timestamp,
};

struct Scratch {
    directory: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("ledger.db")
    }

    fn sizing() -> Sizing {
        Sizing {
            queue_capacity: 1000,
            max_batch: 256,
            limits: Limits {
                refusals_kept: 10,
                longest_window: Duration::from_secs(60),
                ..Limits::default()
            },
        }
    }

    fn open(&self) -> SqliteLedger {
        SqliteLedger::open(&self.path(), &Self::sizing()).unwrap()
    }

    fn sql<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        Connection::open(self.path()).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    fn execute(&self, sql: &str) {
        Connection::open(self.path()).unwrap().execute_batch(sql).unwrap();
    }
}

fn acceptance(task_id: &str, action_type: &str, round: Option<&str>) -> Acceptance {
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

async fn accepted(ledger: &SqliteLedger, acceptance: Acceptance) -> CommandId {
    match ledger.accept(acceptance).await {
        Ok(Receipt::Accepted { command_id }) => command_id,
        other => panic!("expected accepted, got {other:?}"),
    }
}
