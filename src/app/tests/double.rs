//! A ledger in memory whose failures are at hand.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, pending, ready},
};
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::{
    command::{Command, CommandId, Fingerprint, Registered, Seq, TaskKey, message},
    ledger::{
        Accept, AcceptError, Acceptance, ActFilter, ActRecord, Acts, By, CarriedOut, Contexts, CredentialUse,
        Dropped, Due, Entry, Filter, Found, Heard, KeptRefusal, Leadership, Lifecycle, LookError, Lookup,
        NewAct, Order, Ordered, Outbox, OutcomeFilter, OutcomeRecord, Outcomes, Receipt, Record,
        RefusalFilter, RefusedCallback, Registering, Registration, Reported, Settlement, ShowAgain, Showing,
        Shown, Standing, State, Stats, Stopped, Term, findings::Overview, history::Event,
    },
    time::Timestamp,
};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Fault {
    #[default]
    None,
    /// Every call that can fail does, as it does when the disk is full.
    Broken,
    /// The writer's queue is full.
    Full,
    /// Nothing is ever answered.
    Hanging,
}

#[derive(Default)]
pub(in crate::app) struct Double {
    fault: Mutex<Fault>,
    log: Mutex<Vec<(Command, Fingerprint)>>,
    refused: Mutex<Vec<RefusedCallback>>,
    contexts: Mutex<Vec<Registration>>,
    pub(super) acts: Mutex<Vec<NewAct>>,
    pub(super) uses: Mutex<Vec<CredentialUse>>,
    pub(super) probes: AtomicUsize,
    /// What happened, in order: the calls that matter when stopping.
    pub(super) story: Arc<Mutex<Vec<&'static str>>>,
    cursor: AtomicU64,
    term: Mutex<Option<watch::Sender<Term>>>,
    pub(super) tolerance: Mutex<Duration>,
    pub(super) leader: Mutex<Option<String>>,
    /// Where searches stop because their time is over.
    pub(super) searches_stop: Mutex<Option<Stopped>>,
    resigned: AtomicUsize,
    /// What workers said of every command.
    pub(super) told: Told,
}

/// What workers said, and what became of it.
#[derive(Default)]
pub(super) struct Told {
    /// To a callback that waits for it.
    pub(super) heard: Mutex<Option<Heard>>,
    pub(super) outcome: Mutex<Option<OutcomeRecord>>,
    pub(super) duplicates_at: Mutex<Option<Vec<Timestamp>>>,
    pub(super) history: Mutex<Option<Vec<Event>>>,
    /// Added to the numbers of the log.
    pub(super) stats: Mutex<Stats>,
    pub(super) overview: Mutex<Overview>,
    pub(super) parked_showings: Mutex<Vec<Seq>>,
    /// What operators ordered.
    pub(super) orders: Mutex<Vec<Order>>,
}

impl Double {
    pub(super) fn fail(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    /// Everything up to here counts as published.
    pub(super) fn publish_through(&self, seq: Seq) {
        self.cursor.store(seq, Ordering::Relaxed);
    }

    pub(super) fn tell(&self, event: &'static str) {
        self.story.lock().unwrap().push(event);
    }

    pub(super) fn len(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    fn looked<T: Send + 'static>(&self, found: T) -> BoxFuture<'static, Result<T, LookError>> {
        match *self.fault.lock().unwrap() {
            Fault::None | Fault::Full => ready(Ok(found)).boxed(),
            Fault::Broken => {
                ready(Err(LookError { operation: "read", source: "the disk is gone".into() })).boxed()
            }
            Fault::Hanging => pending().boxed(),
        }
    }

    fn written<T: Send + 'static>(
        &self,
        write: impl FnOnce() -> T,
    ) -> BoxFuture<'static, Result<T, AcceptError>> {
        match *self.fault.lock().unwrap() {
            Fault::None => ready(Ok(write())).boxed(),
            Fault::Broken => ready(Err(AcceptError::Unavailable)).boxed(),
            Fault::Full => ready(Err(AcceptError::Overloaded)).boxed(),
            Fault::Hanging => pending().boxed(),
        }
    }

    fn record(&self, seq: Seq, command: &Command, whole: bool) -> Record {
        let body = String::from_utf8(message::render(command)).unwrap();
        Record {
            seq,
            command_id: command.command_id,
            received_at: command.received_at,
            state: State::of(seq, self.cursor.load(Ordering::Relaxed), None),
            endpoint: command.endpoint.to_string(),
            action: command.action.as_str().to_owned(),
            user_id: command.user_id.clone(),
            approval_code: command.approval_code.clone(),
            instance_id: command.task.instance_id.clone(),
            task_id: command.task.task_id.clone(),
            attempts: None,
            next_attempt_at: None,
            note: None,
            outcome: self.told.outcome.lock().unwrap().clone(),
            command: whole.then(|| RawValue::from_string(body).unwrap()),
            reconciliation: None,
            history: self.told.history.lock().unwrap().clone().filter(|_| whole),
            duplicates_at: self.told.duplicates_at.lock().unwrap().clone().filter(|_| whole),
        }
    }

    fn records(&self, whole: bool) -> Vec<Record> {
        let log = self.log.lock().unwrap();
        (1..).zip(log.iter()).map(|(seq, (command, _))| self.record(seq, command, whole)).collect()
    }
}

/// Keeps no outcomes; those who need them test with a real ledger.
impl Outcomes for Double {
    fn report(
        &self,
        _: crate::command::outcome::Outcome,
        _: bool,
    ) -> BoxFuture<'static, Result<Reported, AcceptError>> {
        self.written(|| Reported::UnknownCommand)
    }

    fn refuse_report(&self, _: crate::ledger::RefusedReport) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.written(|| ())
    }

    fn showings(&self, _: Timestamp, _: usize) -> BoxFuture<'static, Result<Vec<Showing>, LookError>> {
        self.looked(Vec::new())
    }

    fn settle_showings(&self, _: Vec<Shown>) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.written(|| ())
    }

    fn show_again(&self, command_id: CommandId, _: By) -> BoxFuture<'static, Result<ShowAgain, AcceptError>> {
        let known = self.records(false).iter().any(|record| record.command_id == command_id);
        self.written(|| if known { ShowAgain::NoOutcome } else { ShowAgain::UnknownCommand })
    }
}

impl crate::ledger::DeadLetters for Double {
    fn collect(
        &self,
        _: Vec<crate::ledger::DeadLetter>,
    ) -> BoxFuture<'static, Result<Vec<crate::ledger::Collected>, AcceptError>> {
        unreachable!("no test of the composition collects dead letters")
    }
}

impl crate::ledger::Findings for Double {
    fn unasked(
        &self,
        _: crate::ledger::findings::Reach,
        _: usize,
    ) -> BoxFuture<'static, Result<crate::ledger::findings::Page, LookError>> {
        unreachable!("no test of the composition compares")
    }

    fn findings(
        &self,
        _: crate::ledger::findings::Which,
        _: Seq,
        _: usize,
    ) -> BoxFuture<'static, Result<Vec<crate::ledger::findings::Candidate>, LookError>> {
        self.looked(Vec::new())
    }

    fn overview(&self) -> BoxFuture<'static, Result<Overview, LookError>> {
        self.looked(self.told.overview.lock().unwrap().clone())
    }

    fn reconciled(
        &self,
        _: crate::ledger::findings::Reconciled,
    ) -> BoxFuture<'static, Result<(), AcceptError>> {
        unreachable!("no test of the composition compares")
    }
}

impl Accept for Double {
    fn refusals_dropped(&self) -> Dropped {
        Dropped::default()
    }

    fn newest_refusals_dropped(&self) -> Vec<RefusedCallback> {
        Vec::new()
    }

    fn accept(&self, acceptance: Acceptance) -> BoxFuture<'static, Result<Receipt, AcceptError>> {
        self.written(|| {
            let mut log = self.log.lock().unwrap();
            let same = log.iter().find(|(_, fingerprint)| *fingerprint == acceptance.fingerprint);
            if let Some((command, _)) = same {
                return Receipt::Duplicate { command_id: command.command_id };
            }
            let command_id = acceptance.command.command_id;
            log.push((acceptance.command, acceptance.fingerprint));
            self.tell("accept");
            Receipt::Accepted { command_id }
        })
    }

    fn refused(&self, refused: RefusedCallback) {
        self.refused.lock().unwrap().insert(0, refused);
    }

    fn registered(
        &self,
        key: Option<String>,
        message_id: Option<u64>,
    ) -> BoxFuture<'static, Result<Option<Registered>, AcceptError>> {
        let contexts = self.contexts.lock().unwrap();
        let found = contexts
            .iter()
            .find(|one| key.as_ref() == Some(&one.key))
            .or_else(|| contexts.iter().find(|one| message_id.is_some() && one.message_id == message_id))
            .map(|one| one.registered.clone());
        self.written(|| found)
    }

    fn heard(&self, _: CommandId, _: tokio::time::Instant) -> BoxFuture<'static, Option<Heard>> {
        ready(self.told.heard.lock().unwrap().clone()).boxed()
    }
}

impl Leadership for Double {
    fn term(&self) -> watch::Receiver<Term> {
        let mut term = self.term.lock().unwrap();
        term.get_or_insert_with(|| watch::Sender::new(Some(self.outbox()))).subscribe()
    }

    fn leader(&self) -> Option<String> {
        self.leader.lock().unwrap().clone()
    }

    fn resign(&self) -> bool {
        self.resigned.fetch_add(1, Ordering::Relaxed);
        true
    }
}

impl Double {
    fn outbox(&self) -> Arc<dyn Outbox> {
        Arc::new(NoCommands { story: self.story.clone() })
    }

    /// How often the lead was given away.
    pub(in crate::app) fn resigned(&self) -> usize {
        self.resigned.load(Ordering::Relaxed)
    }

    /// Another term begins, or none.
    pub(in crate::app) fn lead(&self, leads: bool) {
        let outbox = leads.then(|| self.outbox());
        self.term.lock().unwrap().as_ref().expect("somebody looks").send_replace(outbox);
    }
}

/// Nothing is there to be published, and what is settled is told.
struct NoCommands {
    story: Arc<Mutex<Vec<&'static str>>>,
}

fn found<T: Send + 'static>(found: T) -> BoxFuture<'static, Result<T, LookError>> {
    ready(Ok(found)).boxed()
}

impl Outbox for NoCommands {
    fn head(&self) -> watch::Receiver<Seq> {
        watch::channel(0).1
    }

    fn take_fresh(&self) -> Vec<Entry> {
        Vec::new()
    }

    fn keep_fresh(&self, _wanted: bool) {}

    fn cursor(&self) -> BoxFuture<'static, Result<Seq, LookError>> {
        found(0)
    }

    fn since(&self, _seq: Seq, _limit: usize) -> BoxFuture<'static, Result<Vec<Entry>, LookError>> {
        found(Vec::new())
    }

    fn due(&self, _now: Timestamp, _limit: usize) -> BoxFuture<'static, Result<Vec<Due>, LookError>> {
        found(Vec::new())
    }

    fn waiting_tasks(&self) -> BoxFuture<'static, Result<Vec<(TaskKey, Seq)>, LookError>> {
        found(Vec::new())
    }

    fn standing(&self, _: CommandId) -> BoxFuture<'static, Result<Option<Standing>, LookError>> {
        found(None)
    }

    fn is_pending(&self, _seq: Seq) -> BoxFuture<'static, Result<bool, LookError>> {
        found(false)
    }

    fn settle(&self, _settlement: Settlement) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.story.lock().unwrap().push("settle");
        ready(Ok(())).boxed()
    }
}

impl Acts for Double {
    fn order(&self, order: Order) -> BoxFuture<'static, Result<CarriedOut, AcceptError>> {
        self.written(|| {
            let results = vec![Ordered::Done; order.commands.len()];
            self.told.orders.lock().unwrap().push(order);
            CarriedOut { act_id: Some(1), results }
        })
    }

    fn record(&self, act: NewAct) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.written(|| self.acts.lock().unwrap().push(act))
    }
}

impl Lookup for Double {
    fn acts(&self, _: ActFilter) -> BoxFuture<'static, Result<Vec<ActRecord>, LookError>> {
        self.looked(Vec::new())
    }

    fn first_of_acts(&self, _: Vec<u64>) -> BoxFuture<'static, Result<Vec<(u64, CommandId)>, LookError>> {
        self.looked(Vec::new())
    }

    fn parked_showings(&self, _: usize) -> BoxFuture<'static, Result<Vec<Seq>, LookError>> {
        self.looked(self.told.parked_showings.lock().unwrap().clone())
    }

    fn id_at(&self, seq: Seq) -> BoxFuture<'static, Result<Option<CommandId>, LookError>> {
        let found = self.records(true).into_iter().find(|record| record.seq == seq);
        self.looked(found.map(|record| record.command_id))
    }

    fn find(&self, command_id: CommandId) -> BoxFuture<'static, Result<Option<Record>, LookError>> {
        self.looked(self.records(true).into_iter().find(|record| record.command_id == command_id))
    }

    fn list(&self, filter: Filter) -> BoxFuture<'static, Result<Vec<Record>, LookError>> {
        let fits = |wanted: &Option<String>, value: &Option<String>| wanted.is_none() || wanted == value;
        let found = self
            .records(false)
            .into_iter()
            .rev()
            .filter(|record| {
                filter.before.is_none_or(|before| record.seq < before)
                    && filter.state.is_none_or(|state| record.state == state)
                    && filter.outcome.is_none_or(|outcome| {
                        let last = record.outcome.as_ref().map(|outcome| outcome.outcome);
                        outcome == last.map_or(OutcomeFilter::None, OutcomeFilter::Last)
                    })
                    && fits(&filter.task_id, &record.task_id)
                    && fits(&filter.instance_id, &record.instance_id)
                    && fits(&filter.endpoint, &Some(record.endpoint.clone()))
                    && filter.action.is_none_or(|action| record.action == action.as_str())
                    && fits(&filter.user_id, &Some(record.user_id.clone()))
                    && filter.since.is_none_or(|since| record.received_at >= since)
                    && filter.until.is_none_or(|until| record.received_at < until)
            })
            .take(filter.limit)
            .collect();
        self.looked(found)
    }

    fn search(
        &self,
        filter: Filter,
        _patience: Duration,
    ) -> BoxFuture<'static, Result<Found<Record>, LookError>> {
        let found = self.list(filter);
        let stopped = *self.searches_stop.lock().unwrap();
        Box::pin(async move { Ok(Found { rows: found.await?, stopped }) })
    }

    fn subjects(
        &self,
        from: Seq,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<crate::ledger::Subject>, LookError>> {
        let subject = |one: Record| crate::ledger::Subject {
            seq: one.seq,
            command_id: one.command_id,
            user_id: one.user_id,
            instance_id: one.instance_id,
            task_id: one.task_id,
        };
        self.looked(
            self.records(true).into_iter().filter(|one| one.seq >= from).take(limit).map(subject).collect(),
        )
    }

    fn pruned_before(&self) -> BoxFuture<'static, Result<Option<Timestamp>, LookError>> {
        self.looked(None)
    }

    fn search_refusals(
        &self,
        filter: RefusalFilter,
        _patience: Duration,
    ) -> BoxFuture<'static, Result<Found<KeptRefusal>, LookError>> {
        let found = self.refusals(filter);
        let stopped = *self.searches_stop.lock().unwrap();
        Box::pin(async move { Ok(Found { rows: found.await?, stopped }) })
    }

    fn refusals(&self, filter: RefusalFilter) -> BoxFuture<'static, Result<Vec<KeptRefusal>, LookError>> {
        let all = self.refused.lock().unwrap().clone();
        let fits = |refused: &RefusedCallback| {
            filter.reason.as_ref().is_none_or(|reason| *reason == refused.reason)
                && filter.endpoint.as_ref().is_none_or(|endpoint| *endpoint == refused.endpoint)
                && filter.since.is_none_or(|since| refused.refused_at >= since)
                && filter.until.is_none_or(|until| refused.refused_at < until)
        };
        let count = all.len() as u64;
        let kept = (0..).zip(all).map(|(at, refused)| KeptRefusal { id: count - at, refused });
        let found = kept
            .filter(|one| {
                fits(&one.refused)
                    && filter.id.is_none_or(|id| id == one.id)
                    && filter.before.is_none_or(|before| one.id < before)
            })
            .take(filter.limit);
        self.looked(found.collect())
    }

    fn credential_uses(&self) -> BoxFuture<'static, Result<Vec<CredentialUse>, LookError>> {
        self.looked(self.uses.lock().unwrap().clone())
    }

    fn refused_since(
        &self,
        _since: Timestamp,
    ) -> BoxFuture<'static, Result<Vec<(u64, KeptRefusal)>, LookError>> {
        self.looked(Vec::new())
    }

    fn strays(
        &self,
        _: Option<u64>,
        _: usize,
    ) -> BoxFuture<'static, Result<Vec<crate::ledger::Stray>, LookError>> {
        self.looked(Vec::new())
    }

    fn stats(&self) -> BoxFuture<'static, Result<Stats, LookError>> {
        let log = self.log.lock().unwrap();
        let (head, cursor) = (log.len() as u64, self.cursor.load(Ordering::Relaxed));
        let stats = Stats {
            remembered: None,
            pending: head - cursor,
            published: cursor,
            oldest_pending_at: log.get(cursor as usize).map(|(command, _)| command.received_at),
            head,
            cursor,
            ..self.told.stats.lock().unwrap().clone()
        };
        self.looked(stats)
    }
}

impl Contexts for Double {
    fn register(
        &self,
        registrations: Vec<Registration>,
        _: By,
    ) -> BoxFuture<'static, Result<Registering, AcceptError>> {
        self.written(|| {
            let mut contexts = self.contexts.lock().unwrap();
            let taken = registrations.iter().position(|one| {
                let others = contexts.iter().filter(|other| other.key != one.key);
                one.message_id.is_some() && others.into_iter().any(|other| other.message_id == one.message_id)
            });
            if let Some(item) = taken {
                return Registering::MessageTaken { item };
            }
            let replaced = registrations.into_iter().map(|one| {
                let before = contexts.len();
                contexts.retain(|other| other.key != one.key);
                let replaced = contexts.len() < before;
                contexts.push(one);
                replaced
            });
            Registering::Kept { replaced: replaced.collect() }
        })
    }

    fn unregister(&self, key: String, _: By) -> BoxFuture<'static, Result<bool, AcceptError>> {
        self.written(|| {
            let mut contexts = self.contexts.lock().unwrap();
            let before = contexts.len();
            contexts.retain(|other| other.key != key);
            contexts.len() < before
        })
    }

    fn registration(&self, key: String) -> BoxFuture<'static, Result<Option<Registration>, LookError>> {
        self.looked(self.contexts.lock().unwrap().iter().find(|one| one.key == key).cloned())
    }
}

impl Lifecycle for Double {
    fn changes(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }

    fn limit(&self, _: crate::ledger::Limits) {
        self.tell("limit");
    }

    fn answers(&self) -> BoxFuture<'static, bool> {
        self.looked(()).map(|_| true).boxed()
    }

    fn probe(&self) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.probes.fetch_add(1, Ordering::Relaxed);
        self.written(|| ())
    }

    fn keep_credential_uses(&self, uses: Vec<CredentialUse>) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.written(|| *self.uses.lock().unwrap() = uses)
    }

    fn tolerance(&self) -> Duration {
        *self.tolerance.lock().unwrap()
    }

    fn flush(&self) -> BoxFuture<'static, ()> {
        self.tell("flush");
        ready(()).boxed()
    }
}
