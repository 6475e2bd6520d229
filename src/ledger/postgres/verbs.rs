//! The verbs of the ledger.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use futures_util::future::BoxFuture;
use tokio::sync::{oneshot, watch};

use super::{
    PostgresLedger, contexts, credentials, findings, lookup, outcomes, refusals,
    registry::Question,
    writer::{Accepting, Job},
};
use crate::{
    command::{CommandId, Registered, Seq, TaskKey, id::DecisionKey, message::Parts, outcome::Outcome},
    ledger::{
        Accept, AcceptError, Acceptance, Contexts, CredentialUse, Dropped, Filter, KeptRefusal, Leadership,
        Lifecycle, Limits, LookError, Lookup, Outcomes, Receipt, Record, RefusalFilter, RefusedCallback,
        RefusedReport, Registering, Registration, Reported, ShowAgain, Showing, Shown, Stats, Term,
        findings::{Candidate, Findings, Overview, Page, Reach, Reconciled, Which},
        replies,
    },
    time::Timestamp,
};

impl Accept for PostgresLedger {
    fn accept(&self, acceptance: Acceptance) -> BoxFuture<'static, Result<Receipt, AcceptError>> {
        let refused = |why| -> BoxFuture<'static, _> { Box::pin(std::future::ready(Err(why))) };
        if self.shared.waiting.fetch_add(1, Ordering::Relaxed) >= self.shared.capacity {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            return refused(AcceptError::Overloaded);
        }
        let Acceptance { command, fingerprint, window, repeats_window, on_conflict } = acceptance;
        let (reply, answer) = replies::reply();
        let accepting = Accepting {
            body: Parts::of(&command),
            decision_key: DecisionKey::of(&command),
            task_key: TaskKey::of(&command),
            command,
            fingerprint,
            window,
            repeats_window,
            on_conflict,
            since: Instant::now(),
            reply,
        };
        if self.jobs.send(Job::Accept(Box::new(accepting))).is_err() {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            return refused(AcceptError::Unavailable);
        }
        // The writer drops a reply only when it ends.
        Box::pin(async move { answer.await.unwrap_or(Err(AcceptError::Unavailable)) })
    }

    fn refused(&self, refused: RefusedCallback) {
        let stranger = refused.stranger;
        if self.shared.refused.admit(stranger) && self.refused.send(refused).is_err() {
            self.shared.refused.drop_one(stranger);
        }
    }

    fn registered(
        &self,
        key: Option<String>,
        message_id: Option<u64>,
    ) -> BoxFuture<'static, Result<Option<Registered>, AcceptError>> {
        let (reply, answer) = oneshot::channel();
        let sent = !*self.stop.borrow() && self.questions.send(Question { key, message_id, reply }).is_ok();
        Box::pin(async move {
            if !sent {
                return Err(AcceptError::Unavailable);
            }
            answer.await.unwrap_or(Err(AcceptError::Unavailable))
        })
    }
}

impl Leadership for PostgresLedger {
    fn term(&self) -> watch::Receiver<Term> {
        self.shared.term.subscribe()
    }
}

impl Lookup for PostgresLedger {
    fn id_at(&self, seq: Seq) -> BoxFuture<'static, Result<Option<CommandId>, LookError>> {
        self.links
            .look("look up a command in", move |links| async move { lookup::id_at(&links.reads, seq).await })
    }

    fn find(&self, command_id: CommandId) -> BoxFuture<'static, Result<Option<Record>, LookError>> {
        let operation = "look up a command in";
        self.links
            .look(operation, move |links| async move { lookup::find(&links.snapshots, command_id).await })
    }

    fn list(&self, filter: Filter) -> BoxFuture<'static, Result<Vec<Record>, LookError>> {
        self.links.look("list commands of", move |links| async move {
            lookup::list(&links.snapshots, &filter).await
        })
    }

    fn pruned_before(&self) -> BoxFuture<'static, Result<Option<Timestamp>, LookError>> {
        self.links
            .look("read the retention of", |links| async move { lookup::pruned_before(&links.reads).await })
    }

    fn refusals(&self, filter: RefusalFilter) -> BoxFuture<'static, Result<Vec<KeptRefusal>, LookError>> {
        self.links
            .look("list refusals of", move |links| async move { refusals::list(&links.reads, &filter).await })
    }

    fn refusals_dropped(&self) -> Dropped {
        self.shared.refused.dropped()
    }

    fn stats(&self) -> BoxFuture<'static, Result<Stats, LookError>> {
        self.links.look("read the figures of", |links| async move { lookup::stats(&links.reads).await })
    }
}

impl Contexts for PostgresLedger {
    fn register(
        &self,
        registrations: Vec<Registration>,
    ) -> BoxFuture<'static, Result<Registering, AcceptError>> {
        self.links.change("register contexts in", move |transaction| async move {
            let registering = contexts::register(&transaction, &registrations).await?;
            transaction.commit().await?;
            Ok(registering)
        })
    }

    fn unregister(&self, key: String) -> BoxFuture<'static, Result<bool, AcceptError>> {
        self.links.change("remove a context from", move |transaction| async move {
            let removed = contexts::unregister(&transaction, &key).await?;
            transaction.commit().await?;
            Ok(removed)
        })
    }

    fn registration(&self, key: String) -> BoxFuture<'static, Result<Option<Registration>, LookError>> {
        self.links.look("look up a context in", move |links| async move {
            contexts::by_key(&links.reads, &key).await
        })
    }
}

impl Lifecycle for PostgresLedger {
    fn limit(&self, limits: Limits) {
        *self.shared.limits.write().expect("nobody panics with the lock") = Arc::new(limits);
    }

    fn answers(&self) -> BoxFuture<'static, bool> {
        let (reply, answer) = oneshot::channel();
        let sent = self.jobs.send(Job::Probe(reply)).is_ok();
        Box::pin(async move { sent && answer.await.is_ok() })
    }

    fn probe(&self) -> BoxFuture<'static, Result<(), AcceptError>> {
        let (reply, answer) = oneshot::channel();
        let sent = self.jobs.send(Job::Probe(reply)).is_ok();
        Box::pin(async move {
            if !sent {
                return Err(AcceptError::Unavailable);
            }
            answer.await.unwrap_or(Err(AcceptError::Unavailable))
        })
    }

    fn credential_uses(&self) -> BoxFuture<'static, Result<Vec<CredentialUse>, LookError>> {
        self.links
            .look("look up the credentials in", |links| async move { credentials::all(&links.reads).await })
    }

    fn keep_credential_uses(&self, uses: Vec<CredentialUse>) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.links.change("note the use of credentials in", move |transaction| async move {
            credentials::keep(&transaction, &uses).await?;
            transaction.commit().await
        })
    }

    fn flush(&self) -> BoxFuture<'static, ()> {
        let (reply, answer) = oneshot::channel();
        let sent = self.jobs.send(Job::Flush(reply)).is_ok();
        self.stop.send_replace(true);
        let tasks = self.tasks.lock().expect("nobody panics with the lock").take();
        let begun = self.links.begun.clone();
        begun.close();
        Box::pin(async move {
            begun.wait().await;
            if sent && answer.await.is_err() {
                tracing::error!("the ledger's writer ended without finishing");
            }
            if let Some(tasks) = tasks {
                tasks.end().await;
            }
        })
    }
}

impl Outcomes for PostgresLedger {
    fn report(&self, outcome: Outcome) -> BoxFuture<'static, Result<Reported, AcceptError>> {
        self.links.change("keep an outcome in", move |transaction| async move {
            let reported = outcomes::report(&transaction, &outcome).await?;
            transaction.commit().await?;
            Ok(reported)
        })
    }

    fn refuse_report(&self, refused: RefusedReport) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.links.change("note a refused report in", move |transaction| async move {
            outcomes::refuse(&transaction, &refused).await?;
            transaction.commit().await
        })
    }

    fn showings(&self, now: Timestamp, limit: usize) -> BoxFuture<'static, Result<Vec<Showing>, LookError>> {
        self.links.look("read outcomes from", move |links| async move {
            outcomes::showings(&links.reads, now, limit).await
        })
    }

    fn settle_showings(&self, shown: Vec<Shown>) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.links.change("settle outcomes in", move |transaction| async move {
            outcomes::settle(&transaction, &shown).await?;
            transaction.commit().await
        })
    }

    fn show_again(&self, command_id: CommandId) -> BoxFuture<'static, Result<ShowAgain, AcceptError>> {
        self.links.change("have an outcome shown again in", move |transaction| async move {
            let ordered = outcomes::show_again(&transaction, command_id).await?;
            transaction.commit().await?;
            Ok(ordered)
        })
    }
}

impl Findings for PostgresLedger {
    fn unasked(&self, reach: Reach, limit: usize) -> BoxFuture<'static, Result<Page, LookError>> {
        let operation = "read published commands from";
        self.links.look(operation, move |links| async move {
            findings::unasked(&links.snapshots, reach, limit).await
        })
    }

    fn findings(
        &self,
        which: Which,
        after: Seq,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Candidate>, LookError>> {
        let operation = "read the findings of";
        self.links.look(operation, move |links| async move {
            findings::findings(&links.reads, which, after, limit).await
        })
    }

    fn overview(&self) -> BoxFuture<'static, Result<Overview, LookError>> {
        self.links
            .look("count the findings of", |links| async move { findings::overview(&links.snapshots).await })
    }

    fn reconciled(&self, reconciled: Reconciled) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.links.change("write findings to", move |transaction| async move {
            findings::write(&transaction, &reconciled).await?;
            transaction.commit().await
        })
    }
}
