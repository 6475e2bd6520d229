//! Two replicas of one ledger, used in turn.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use countersign::{
    command::{CommandId, Registered, Seq, outcome::Outcome},
    ledger::{
        Accept, AcceptError, Acceptance, ActFilter, ActRecord, Acts, By, CarriedOut, Collected, Contexts,
        CredentialUse, DeadLetter, DeadLetters, Dropped, Filter, Findings, Found, Heard, KeptRefusal,
        Leadership, Ledger, Lifecycle, Limits, LookError, Lookup, NewAct, Order, Outbox, Outcomes, Receipt,
        Record, RefusalFilter, RefusedCallback, RefusedReport, Registering, Registration, Reported,
        ShowAgain, Showing, Shown, Stats, Stray, Subject,
        findings::{Candidate, Overview, Page, Reach, Reconciled, Which},
    },
    time::Timestamp,
};
use futures_util::future::BoxFuture;
use tokio::sync::watch;

/// See the module. The first leads.
pub(crate) struct Turns {
    replicas: [Arc<dyn Ledger>; 2],
    next: AtomicUsize,
}

impl Turns {
    pub(crate) fn new(leader: Arc<dyn Ledger>, other: Arc<dyn Ledger>) -> Self {
        Self { replicas: [leader, other], next: AtomicUsize::new(0) }
    }

    fn turn(&self) -> &dyn Ledger {
        &*self.replicas[self.next.fetch_add(1, Ordering::Relaxed) % 2]
    }
}

/// Hands each of these methods to the replica whose turn it is.
macro_rules! in_turn {
    ($($of:ident { $($method:ident($($name:ident: $kind:ty),*) -> $answer:ty;)* })*) => {$(
        impl $of for Turns {
            $(fn $method(&self, $($name: $kind),*) -> BoxFuture<'static, $answer> {
                self.turn().$method($($name),*)
            })*
        }
    )*};
}

in_turn! {
    Contexts {
        register(registrations: Vec<Registration>, by: By) -> Result<Registering, AcceptError>;
        unregister(key: String, by: By) -> Result<bool, AcceptError>;
        registration(key: String) -> Result<Option<Registration>, LookError>;
    }
    Outcomes {
        report(outcome: Outcome, shows: bool) -> Result<Reported, AcceptError>;
        refuse_report(refused: RefusedReport) -> Result<(), AcceptError>;
        showings(now: Timestamp, limit: usize) -> Result<Vec<Showing>, LookError>;
        settle_showings(shown: Vec<Shown>) -> Result<(), AcceptError>;
        show_again(command_id: CommandId, by: By) -> Result<ShowAgain, AcceptError>;
    }
    Acts {
        order(order: Order) -> Result<CarriedOut, AcceptError>;
        record(act: NewAct) -> Result<(), AcceptError>;
    }
    DeadLetters {
        collect(letters: Vec<DeadLetter>) -> Result<Vec<Collected>, AcceptError>;
    }
    Findings {
        unasked(reach: Reach, limit: usize) -> Result<Page, LookError>;
        findings(which: Which, after: Seq, limit: usize) -> Result<Vec<Candidate>, LookError>;
        overview() -> Result<Overview, LookError>;
        reconciled(reconciled: Reconciled) -> Result<(), AcceptError>;
    }
}

impl Accept for Turns {
    fn accept(&self, acceptance: Acceptance) -> BoxFuture<'static, Result<Receipt, AcceptError>> {
        self.turn().accept(acceptance)
    }

    /// Each replica writes its own, so only those of one have an order.
    fn refused(&self, refused: RefusedCallback) {
        self.replicas[1].refused(refused);
    }

    fn refusals_dropped(&self) -> Dropped {
        self.replicas[1].refusals_dropped()
    }

    fn newest_refusals_dropped(&self) -> Vec<RefusedCallback> {
        self.replicas[1].newest_refusals_dropped()
    }

    fn registered(
        &self,
        key: Option<String>,
        message_id: Option<u64>,
    ) -> BoxFuture<'static, Result<Option<Registered>, AcceptError>> {
        self.turn().registered(key, message_id)
    }

    fn heard(
        &self,
        command_id: CommandId,
        deadline: tokio::time::Instant,
    ) -> BoxFuture<'static, Option<Heard>> {
        self.turn().heard(command_id, deadline)
    }
}

impl Leadership for Turns {
    fn term(&self) -> watch::Receiver<Option<Arc<dyn Outbox>>> {
        self.replicas[0].term()
    }

    fn leader(&self) -> Option<String> {
        self.turn().leader()
    }

    fn resign(&self) -> bool {
        self.replicas[0].resign()
    }
}

impl Lookup for Turns {
    fn id_at(&self, seq: Seq) -> BoxFuture<'static, Result<Option<CommandId>, LookError>> {
        self.turn().id_at(seq)
    }

    fn find(&self, command_id: CommandId) -> BoxFuture<'static, Result<Option<Record>, LookError>> {
        self.turn().find(command_id)
    }

    fn list(&self, filter: Filter) -> BoxFuture<'static, Result<Vec<Record>, LookError>> {
        self.turn().list(filter)
    }

    fn search(
        &self,
        filter: Filter,
        patience: Duration,
    ) -> BoxFuture<'static, Result<Found<Record>, LookError>> {
        self.turn().search(filter, patience)
    }

    fn subjects(&self, from: Seq, limit: usize) -> BoxFuture<'static, Result<Vec<Subject>, LookError>> {
        self.turn().subjects(from, limit)
    }

    fn pruned_before(&self) -> BoxFuture<'static, Result<Option<Timestamp>, LookError>> {
        self.turn().pruned_before()
    }

    fn refusals(&self, filter: RefusalFilter) -> BoxFuture<'static, Result<Vec<KeptRefusal>, LookError>> {
        self.turn().refusals(filter)
    }

    fn search_refusals(
        &self,
        filter: RefusalFilter,
        patience: Duration,
    ) -> BoxFuture<'static, Result<Found<KeptRefusal>, LookError>> {
        self.turn().search_refusals(filter, patience)
    }

    fn refused_since(
        &self,
        since: Timestamp,
    ) -> BoxFuture<'static, Result<Vec<(u64, KeptRefusal)>, LookError>> {
        self.turn().refused_since(since)
    }

    fn acts(&self, filter: ActFilter) -> BoxFuture<'static, Result<Vec<ActRecord>, LookError>> {
        self.turn().acts(filter)
    }

    fn first_of_acts(&self, acts: Vec<u64>) -> BoxFuture<'static, Result<Vec<(u64, CommandId)>, LookError>> {
        self.turn().first_of_acts(acts)
    }

    fn parked_showings(&self, limit: usize) -> BoxFuture<'static, Result<Vec<Seq>, LookError>> {
        self.turn().parked_showings(limit)
    }

    fn credential_uses(&self) -> BoxFuture<'static, Result<Vec<CredentialUse>, LookError>> {
        self.turn().credential_uses()
    }

    fn strays(&self, before: Option<u64>, limit: usize) -> BoxFuture<'static, Result<Vec<Stray>, LookError>> {
        self.turn().strays(before, limit)
    }

    fn stats(&self) -> BoxFuture<'static, Result<Stats, LookError>> {
        self.turn().stats()
    }
}

impl Lifecycle for Turns {
    fn limit(&self, limits: Limits) {
        for replica in &self.replicas {
            replica.limit(limits.clone());
        }
    }

    fn answers(&self) -> BoxFuture<'static, bool> {
        self.turn().answers()
    }

    fn probe(&self) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.turn().probe()
    }

    fn keep_credential_uses(&self, uses: Vec<CredentialUse>) -> BoxFuture<'static, Result<(), AcceptError>> {
        self.turn().keep_credential_uses(uses)
    }

    fn tolerance(&self) -> Duration {
        self.turn().tolerance()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.replicas[0].changes()
    }

    fn flush(&self) -> BoxFuture<'static, ()> {
        let [one, other] = self.replicas.each_ref().map(|replica| replica.flush());
        Box::pin(async move {
            one.await;
            other.await;
        })
    }
}
