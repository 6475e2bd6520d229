//! The verbs of the ledger.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{mpsc::error::SendError, oneshot, watch},
    time::{Instant, timeout},
};

use super::{
    PostgresLedger, acts, contexts, credentials, dead_letters, operator, outcomes,
    registry::Question,
    writer::{Accepting, HOLD, Job},
};
use crate::{
    command::{CommandId, Registered, TaskKey, id::DecisionKey, message::Parts, outcome::Outcome},
    ledger::{
        Accept, AcceptError, Acceptance, Acts, By, CarriedOut, Collected, Contexts, CredentialUse,
        DeadLetter, DeadLetters, Dropped, Heard, Leadership, Lifecycle, Limits, LookError, Lookup, NewAct,
        Order, Outcomes, Receipt, RefusedCallback, RefusedReport, Registering, Registration, Reported,
        ShowAgain, Showing, Shown, Term,
        findings::{Findings, Keeps},
        lookup::Looks,
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
        let Acceptance { since, command, fingerprint, window, repeats_window, on_conflict } = acceptance;
        let (reply, answer) = oneshot::channel();
        let accepting = Accepting {
            body: Parts::of(&command),
            decision_key: DecisionKey::of(&command),
            task_key: TaskKey::of(&command),
            command,
            fingerprint,
            window,
            repeats_window,
            on_conflict,
            since,
            reply,
        };
        if self.jobs.send(Job::Accept(Box::new(accepting))).is_err() {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            return refused(AcceptError::Unavailable);
        }
        // The writer drops a reply only when it ends. It may be busy with what came before.
        Box::pin(async move {
            let left = HOLD.saturating_sub(since.elapsed());
            let answer = timeout(left, answer).await.ok().and_then(Result::ok);
            answer.unwrap_or(Err(AcceptError::Unavailable))
        })
    }

    fn refused(&self, refused: RefusedCallback) {
        let Some(refused) = self.shared.refused.admit(refused) else { return };
        if let Err(SendError(refused)) = self.refused.send(refused) {
            self.shared.refused.drop_one(refused);
        }
    }

    fn refusals_dropped(&self) -> Dropped {
        self.shared.refused.dropped()
    }

    fn newest_refusals_dropped(&self) -> Vec<RefusedCallback> {
        self.shared.refused.newest_dropped()
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
            let answer = timeout(HOLD, answer).await.ok().and_then(Result::ok);
            answer.unwrap_or(Err(AcceptError::Unavailable))
        })
    }

    fn heard(&self, command_id: CommandId, deadline: Instant) -> BoxFuture<'static, Option<Heard>> {
        Box::pin(self.listeners.wait(command_id).until(deadline))
    }
}

impl Leadership for PostgresLedger {
    fn term(&self) -> watch::Receiver<Term> {
        self.shared.term.subscribe()
    }

    fn leader(&self) -> Option<String> {
        self.shared.leader()
    }

    fn resign(&self) -> bool {
        let leads = self.shared.term.borrow().is_some();
        if leads {
            self.shared.resigned.notify_waiters();
        }
        leads
    }
}

impl Looks for PostgresLedger {
    fn lookup(&self) -> &dyn Lookup {
        &self.links
    }
}

impl Contexts for PostgresLedger {
    fn register(
        &self,
        registrations: Vec<Registration>,
        by: By,
    ) -> BoxFuture<'static, Result<Registering, AcceptError>> {
        self.links.change("register contexts in", move |transaction| async move {
            let registering = contexts::register(&transaction, &registrations, &by).await?;
            transaction.commit().await?;
            Ok(registering)
        })
    }

    fn unregister(&self, key: String, by: By) -> BoxFuture<'static, Result<bool, AcceptError>> {
        self.links.change("remove a context from", move |transaction| async move {
            let removed = contexts::unregister(&transaction, &key, &by).await?;
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

    fn keep_credential_uses(&self, uses: Vec<CredentialUse>) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.links.change("note the use of credentials in", move |transaction| async move {
            credentials::keep(&transaction, &uses).await?;
            transaction.commit().await
        })
    }

    /// A failover takes some seconds, and all replicas miss the primary at the same time: if all went, an approver would see
    /// the error of the load balancer.
    fn tolerance(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.memory.changes.watch()
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
    fn report(&self, outcome: Outcome, shows: bool) -> BoxFuture<'static, Result<Reported, AcceptError>> {
        let listeners = self.listeners.clone();
        self.links.change("keep an outcome in", move |transaction| async move {
            let reported = outcomes::report(&transaction, &outcome, shows).await?;
            transaction.commit().await?;
            if reported == Reported::Kept {
                listeners.tell(outcome.command_id, &Heard::from(&outcome));
            }
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

    fn show_again(
        &self,
        command_id: CommandId,
        by: By,
    ) -> BoxFuture<'static, Result<ShowAgain, AcceptError>> {
        let ordered = self.order(Order::show_again(command_id, by));
        Box::pin(async move { Ok(ordered.await?.first().into()) })
    }
}

impl DeadLetters for PostgresLedger {
    fn collect(&self, letters: Vec<DeadLetter>) -> BoxFuture<'static, Result<Vec<Collected>, AcceptError>> {
        self.links.change("keep dead letters in", move |transaction| async move {
            let collected = dead_letters::collect(&transaction, &letters).await?;
            transaction.commit().await?;
            Ok(collected)
        })
    }
}

impl Acts for PostgresLedger {
    fn order(&self, order: Order) -> BoxFuture<'static, Result<CarriedOut, AcceptError>> {
        self.links.change("carry out an order in", move |transaction| async move {
            let carried_out = operator::carry_out(&transaction, &order).await?;
            transaction.commit().await?;
            Ok(carried_out)
        })
    }

    fn record(&self, act: NewAct) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.links.change("record an act in", move |transaction| async move {
            acts::add(&transaction, &act, Timestamp::now()).await?;
            transaction.commit().await
        })
    }
}

impl Keeps for PostgresLedger {
    fn findings(&self) -> &dyn Findings {
        &self.links
    }
}
