//! The ledger's methods, as jobs for the writer and lookups of the readers.

use std::{
    sync::{Arc, atomic::Ordering, mpsc::SendError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

use super::{
    Doors, SqliteLedger,
    changes::Change,
    contexts,
    lookup::Question,
    outcomes,
    reader::Reader,
    waiting::{Accepting, Job},
};
use crate::{
    command::{CommandId, Registered, Seq, TaskKey, id::DecisionKey, message, outcome::Outcome},
    ledger::{
        Accept, AcceptError, Acceptance, Acts, By, CarriedOut, Collected, Contexts, CredentialUse,
        DeadLetter, DeadLetters, Dropped, Due, Entry, Heard, Leadership, Lifecycle, Limits, LookError,
        NewAct, Order, Outbox, Outcomes, Receipt, RefusedCallback, RefusedReport, Registering, Registration,
        Reported, Settlement, ShowAgain, Showing, Shown, Standing, Term,
        findings::{Candidate, Findings, Overview, Page, Reach, Reconciled, Which},
    },
    telemetry::failpoint::reach,
    time::Timestamp,
};

impl Accept for SqliteLedger {
    fn accept(&self, acceptance: Acceptance) -> BoxFuture<'static, Result<Receipt, AcceptError>> {
        let refused = |why| -> BoxFuture<'static, _> { Box::pin(std::future::ready(Err(why))) };
        if self.doors.shared.no_room.load(Ordering::Relaxed) {
            return refused(AcceptError::NoRoom);
        }
        let waiting = self.doors.shared.waiting.fetch_add(1, Ordering::Relaxed);
        self.doors.shared.most_waiting.fetch_max(waiting + 1, Ordering::Relaxed);
        if waiting >= self.doors.shared.capacity {
            self.doors.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            return refused(AcceptError::Overloaded);
        }
        let Acceptance { since: _, command, fingerprint, window, repeats_window, on_conflict } = acceptance;
        // Rendered and hashed on the caller's core: the writer only writes rows.
        let body = message::render(&command);
        let decision_key = DecisionKey::of(&command);
        let task_key = TaskKey::of(&command);
        let (reply, answer) = oneshot::channel();
        let accepting = Accepting {
            command,
            body,
            fingerprint,
            decision_key,
            task_key,
            window,
            repeats_window,
            on_conflict,
            reply,
        };
        if self.doors.jobs.send(Job::Accept(Box::new(accepting))).is_err() {
            self.doors.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            return refused(AcceptError::Unavailable);
        }
        reach("ledger:queued");
        // The writer drops a reply only when it ends.
        Box::pin(async move { answer.await.unwrap_or(Err(AcceptError::Unavailable)) })
    }

    fn refused(&self, refused: RefusedCallback) {
        let Some(refused) = self.doors.shared.refused.admit(refused) else { return };
        if let Err(SendError(Job::Refused(refused))) = self.doors.jobs.send(Job::Refused(Box::new(refused))) {
            self.doors.shared.refused.drop_one(*refused);
        }
    }

    fn refusals_dropped(&self) -> Dropped {
        self.doors.shared.refused.dropped()
    }

    fn newest_refusals_dropped(&self) -> Vec<RefusedCallback> {
        self.doors.shared.refused.newest_dropped()
    }

    fn registered(
        &self,
        key: Option<String>,
        message_id: Option<u64>,
    ) -> BoxFuture<'static, Result<Option<Registered>, AcceptError>> {
        let (reply, answer) = oneshot::channel();
        self.doors.lookups.ask(Question { key, message_id, reply });
        // A lookup thread drops a reply only when the ledger is closed.
        Box::pin(async move { answer.await.unwrap_or(Err(AcceptError::Unavailable)) })
    }

    fn heard(&self, command_id: CommandId, deadline: Instant) -> BoxFuture<'static, Option<Heard>> {
        // First, so that a report between this and the look is heard.
        let place = self.doors.listeners.wait(command_id);
        let look = self
            .doors
            .readers
            .look("read an outcome from", move |reader| outcomes::heard(reader.connection(), command_id));
        let hearing = self.doors.hearing.clone();
        let look = async move {
            let _permit = hearing.acquire_owned().await;
            look.await
        };
        Box::pin(async move {
            tokio::select! {
                told = place.until(deadline) => told,
                Ok(Some(known)) = look => Some(known),
            }
        })
    }
}

impl Leadership for SqliteLedger {
    fn term(&self) -> watch::Receiver<Term> {
        self.term.subscribe()
    }

    fn leader(&self) -> Option<String> {
        None
    }

    fn resign(&self) -> bool {
        false
    }
}

impl Outbox for Doors {
    fn head(&self) -> watch::Receiver<Seq> {
        self.shared.head.subscribe()
    }

    fn take_fresh(&self) -> Vec<Entry> {
        let mut fresh = self.shared.fresh.lock().expect("nobody panics with the lock");
        fresh.bytes = 0;
        std::mem::take(&mut fresh.entries)
    }

    fn keep_fresh(&self, wanted: bool) {
        self.shared.fresh_wanted.store(wanted, Ordering::Relaxed);
        if !wanted {
            drop(self.take_fresh());
        }
    }

    fn cursor(&self) -> BoxFuture<'static, Result<Seq, LookError>> {
        self.readers.look("read the cursor of", Reader::cursor)
    }

    fn since(&self, seq: Seq, limit: usize) -> BoxFuture<'static, Result<Vec<Entry>, LookError>> {
        self.readers.look("read commands from", move |reader| reader.since(seq, limit))
    }

    fn due(&self, now: Timestamp, limit: usize) -> BoxFuture<'static, Result<Vec<Due>, LookError>> {
        self.readers.look("read exceptions from", move |reader| reader.due(now, limit))
    }

    fn waiting_tasks(&self) -> BoxFuture<'static, Result<Vec<(TaskKey, Seq)>, LookError>> {
        self.readers.look("read waiting tasks from", Reader::waiting_tasks)
    }

    fn standing(&self, command_id: CommandId) -> BoxFuture<'static, Result<Option<Standing>, LookError>> {
        self.readers.look("look up a command in", move |reader| reader.standing(command_id))
    }

    fn is_pending(&self, seq: Seq) -> BoxFuture<'static, Result<bool, LookError>> {
        self.readers.look("look up a command in", move |reader| reader.is_pending(seq))
    }

    fn settle(&self, settlement: Settlement) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.ask(|reply| Job::Settle(settlement, reply))
    }
}

impl Contexts for SqliteLedger {
    fn register(
        &self,
        registrations: Vec<Registration>,
        by: By,
    ) -> BoxFuture<'static, Result<Registering, AcceptError>> {
        if self.doors.shared.no_room.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(AcceptError::NoRoom)));
        }
        self.doors.ask(|reply| Job::Change(Change::register(registrations, by, reply)))
    }

    fn unregister(&self, key: String, by: By) -> BoxFuture<'static, Result<bool, AcceptError>> {
        self.doors.ask(|reply| Job::Change(Change::unregister(key, by, reply)))
    }

    fn registration(&self, key: String) -> BoxFuture<'static, Result<Option<Registration>, LookError>> {
        self.doors
            .readers
            .look("look up a context in", move |reader| contexts::by_key(reader.connection(), &key))
    }
}

impl Lifecycle for SqliteLedger {
    fn limit(&self, limits: Limits) {
        *self.doors.shared.limits.write().expect("nobody panics with the lock") = Arc::new(limits);
    }

    fn answers(&self) -> BoxFuture<'static, bool> {
        let (reply, answer) = oneshot::channel();
        let sent = self.doors.jobs.send(Job::Probe(reply)).is_ok();
        // An error is an answer too: the disk may be full, which a restart does not fix.
        Box::pin(async move { sent && answer.await.is_ok() })
    }

    fn probe(&self) -> BoxFuture<'static, Result<(), AcceptError>> {
        if self.doors.shared.no_room.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(AcceptError::NoRoom)));
        }
        self.doors.ask(Job::Probe)
    }

    fn keep_credential_uses(&self, uses: Vec<CredentialUse>) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.doors.ask(|reply| Job::Change(Change::credentials(uses, reply)))
    }

    fn tolerance(&self) -> Duration {
        Duration::ZERO
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.doors.shared.memory.changes.watch()
    }

    fn flush(&self) -> BoxFuture<'static, ()> {
        let (reply, answer) = oneshot::channel();
        let sent = self.doors.jobs.send(Job::Flush(reply)).is_ok();
        let lookups = self.doors.lookups.clone();
        let threads = self.threads.lock().expect("nobody panics with the lock").take();
        // Readers would keep the last checkpoint from truncating the log.
        self.doors.readers.close();
        Box::pin(async move {
            if sent && answer.await.is_err() {
                tracing::error!("the ledger's writer ended without finishing");
            }
            if let Some(threads) = threads {
                let joined = tokio::task::spawn_blocking(move || {
                    lookups.close();
                    threads.join();
                })
                .await;
                if joined.is_err() {
                    tracing::error!("the ledger's threads could not be joined");
                }
            }
        })
    }
}

impl Outcomes for SqliteLedger {
    fn report(&self, outcome: Outcome, shows: bool) -> BoxFuture<'static, Result<Reported, AcceptError>> {
        if self.doors.shared.no_room.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(AcceptError::NoRoom)));
        }
        let (command_id, heard) = (outcome.command_id, Heard::from(&outcome));
        let reported = self.doors.ask(|reply| Job::Change(Change::report(outcome, shows, reply)));
        let listeners = self.doors.listeners.clone();
        Box::pin(async move {
            let reported = reported.await?;
            if reported == Reported::Kept {
                listeners.tell(command_id, &heard);
            }
            Ok(reported)
        })
    }

    fn refuse_report(&self, refused: RefusedReport) -> BoxFuture<'static, Result<(), AcceptError>> {
        if self.doors.shared.no_room.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(AcceptError::NoRoom)));
        }
        self.doors.ask(|reply| Job::Change(Change::refuse_report(refused, reply)))
    }

    fn showings(&self, now: Timestamp, limit: usize) -> BoxFuture<'static, Result<Vec<Showing>, LookError>> {
        self.doors
            .readers
            .look("read outcomes from", move |reader| outcomes::showings(reader.connection(), now, limit))
    }

    fn settle_showings(&self, shown: Vec<Shown>) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.doors.ask(|reply| Job::Change(Change::settle_showings(shown, reply)))
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

impl Acts for SqliteLedger {
    fn order(&self, order: Order) -> BoxFuture<'static, Result<CarriedOut, AcceptError>> {
        self.doors.ask(|reply| Job::Change(Change::order(order, reply)))
    }

    fn record(&self, act: NewAct) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.doors.ask(|reply| Job::Change(Change::act(act, reply)))
    }
}

impl DeadLetters for SqliteLedger {
    fn collect(&self, letters: Vec<DeadLetter>) -> BoxFuture<'static, Result<Vec<Collected>, AcceptError>> {
        if self.doors.shared.no_room.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(AcceptError::NoRoom)));
        }
        self.doors.ask(|reply| Job::Change(Change::collect(letters, reply)))
    }
}

impl Findings for SqliteLedger {
    fn unasked(&self, reach: Reach, limit: usize) -> BoxFuture<'static, Result<Page, LookError>> {
        self.doors.readers.look("read published commands from", move |reader| reader.unasked(reach, limit))
    }

    fn findings(
        &self,
        which: Which,
        after: Seq,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Candidate>, LookError>> {
        self.doors.readers.look("read the findings of", move |reader| reader.findings(which, after, limit))
    }

    fn overview(&self) -> BoxFuture<'static, Result<Overview, LookError>> {
        self.doors.readers.look("count the findings of", Reader::overview)
    }

    fn reconciled(&self, reconciled: Reconciled) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.doors.ask(|reply| Job::Change(Change::reconciled(reconciled, reply)))
    }
}
