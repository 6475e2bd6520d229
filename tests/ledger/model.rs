//! The ledgers against a model of a ledger that is a list: whatever is done, both say the same.
//!
//! The model is what the relay's machine is explored with: a log, a cursor, exceptions, and the rule of sameness.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use countersign::{
    command::{
        Action, Command, CommandId, Fingerprint, Origin, ResolvedBy, Seq, TaskKey, TaskRef,
        id::FingerprintParts,
    },
    ledger::{
        Acceptance, ActError, Exception, Filter, Limits, OnConflict, OperatorActs, Receipt, Settlement,
        State,
        state::{Event, Exceptional},
    },
    time::Timestamp,
};
use proptest::{prelude::*, test_runner::TestRunner};
use rstest_reuse::apply;

use crate::{
    conformance::{by, every_ledger},
    scratch::{Backend, Handle, Scratch, close},
};

/// What is done to both.
#[derive(Debug, Clone)]
enum Act {
    Accept(Decision),
    Settle { through: u8, exceptions: Vec<(u8, bool, u32)>, cleared: Vec<u8> },
    Park(u8),
    Requeue(u8),
    RequeueParked,
    Reopen,
}

#[derive(Debug, Clone)]
struct Decision {
    task: u8,
    operator: u8,
    approves: bool,
    round: Option<u8>,
    /// A repeat is looked for; else the window has no length.
    in_window: bool,
    /// Beyond the window repeats and contradictions are told; else that window has no length either.
    tells: bool,
    refuses_conflicts: bool,
}

fn act() -> impl Strategy<Value = Act> {
    let windows = (any::<bool>(), any::<bool>(), any::<bool>());
    let decision = (0..3_u8, 0..2_u8, any::<bool>(), prop::option::of(0..2_u8), windows);
    let accept = decision.prop_map(|(task, operator, approves, round, windows)| {
        let (in_window, tells, refuses_conflicts) = windows;
        Act::Accept(Decision { task, operator, approves, round, in_window, tells, refuses_conflicts })
    });
    let exceptions = prop::collection::vec((any::<u8>(), any::<bool>(), 0..9_u32), 0..3);
    let settle = (any::<u8>(), exceptions, prop::collection::vec(any::<u8>(), 0..3))
        .prop_map(|(through, exceptions, cleared)| Act::Settle { through, exceptions, cleared });
    prop_oneof![
        6 => accept,
        3 => settle,
        1 => any::<u8>().prop_map(Act::Park),
        1 => any::<u8>().prop_map(Act::Requeue),
        1 => Just(Act::RequeueParked),
        1 => Just(Act::Reopen),
    ]
}

impl Decision {
    fn acceptance(&self) -> Acceptance {
        let received_at = Timestamp::now();
        let (task, operator) = (format!("t{}", self.task), format!("o{}", self.operator));
        let round = self.round.map(|round| round.to_string());
        let action_type = if self.approves { "APPROVE" } else { "REJECT" };
        let fingerprint = Fingerprint::of(&FingerprintParts {
            endpoint: "purchase",
            task_id: Some(&task),
            round: round.as_deref(),
            user_id: &operator,
            action_type,
            ..FingerprintParts::default()
        });
        let command = Command {
            command_id: CommandId::new(received_at),
            endpoint: "purchase".into(),
            received_at,
            action: Action::of(action_type),
            action_type: action_type.to_owned(),
            origin: Some(Origin::List),
            user_id: operator,
            approval_code: None,
            task: TaskRef {
                task_id: Some(task),
                round,
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
        Acceptance {
            since: Instant::now(),
            command,
            fingerprint,
            window: if self.in_window { Duration::from_secs(60) } else { Duration::ZERO },
            repeats_window: if self.tells { Duration::from_secs(3600) } else { Duration::ZERO },
            on_conflict: if self.refuses_conflicts { OnConflict::Refuse } else { OnConflict::Publish },
        }
    }

    fn is_of_the_same_task_and_operator(&self, other: &Self) -> bool {
        (self.task, self.operator, self.round) == (other.task, other.operator, other.round)
    }
}

/// The ledger as a list.
#[derive(Default)]
struct Model {
    log: Vec<(CommandId, TaskKey, Decision)>,
    /// What the newest command repeats and contradicts.
    says: (Option<CommandId>, Option<CommandId>),
    cursor: Seq,
    exceptions: BTreeMap<Seq, (Exceptional, u32)>,
}

impl Model {
    fn accept(&mut self, decision: &Decision, acceptance: &Acceptance) -> Receipt {
        let looks = decision.in_window || decision.round.is_some();
        let like = || {
            self.log.iter().rev().filter(|(.., earlier)| earlier.is_of_the_same_task_and_operator(decision))
        };
        let same = like().find(|(.., earlier)| earlier.approves == decision.approves);
        if let (true, Some((command_id, ..))) = (looks, same) {
            // With several inside the window it is the latest; with a round there is only one.
            return Receipt::Duplicate { command_id: *command_id };
        }
        let latest = like().next().filter(|(.., earlier)| earlier.approves != decision.approves);
        if let (true, true, Some((with, ..))) = (decision.in_window, decision.refuses_conflicts, latest) {
            return Receipt::Conflicting { with: *with };
        }
        let told = decision.in_window || decision.tells;
        let repeats = same.filter(|_| decision.tells && decision.round.is_none()).map(|(id, ..)| *id);
        self.says = (repeats, latest.filter(|_| told).map(|(id, ..)| *id));
        let command_id = acceptance.command.command_id;
        self.log.push((command_id, TaskKey::of(&acceptance.command), decision.clone()));
        Receipt::Accepted { command_id }
    }

    fn head(&self) -> Seq {
        self.log.len() as Seq
    }

    /// Some command of the log, if there is one.
    fn pick(&self, number: u8) -> Option<Seq> {
        (self.head() > 0).then(|| Seq::from(number) % self.head() + 1)
    }

    fn id(&self, seq: Seq) -> CommandId {
        self.log[usize::try_from(seq - 1).expect("a small log")].0
    }

    fn state(&self, seq: Seq) -> State {
        State::of(seq, self.cursor, self.exceptions.get(&seq).map(|(state, _)| *state))
    }

    fn settle(&mut self, settlement: &Settlement) {
        self.cursor = self.cursor.max(settlement.through.unwrap_or(0));
        for seq in &settlement.cleared {
            self.exceptions.remove(seq);
        }
        for exception in &settlement.exceptions {
            let known = self.exceptions.entry(exception.seq).or_insert((exception.state, exception.attempts));
            if known.0 != Exceptional::Parked {
                *known = (exception.state, exception.attempts);
            }
        }
    }

    fn waiting(&self) -> Vec<Seq> {
        let waits = |(_, (state, _)): &(&Seq, &(Exceptional, u32))| *state != Exceptional::Parked;
        self.exceptions.iter().filter(waits).map(|(seq, _)| *seq).collect()
    }
}

struct Bench {
    scratch: Scratch,
    ledger: Handle,
    operator: Box<dyn OperatorActs>,
    model: Model,
}

async fn open(scratch: &Scratch) -> Handle {
    let limits = Limits { min_free_bytes: 0, retention: None, ..Limits::default() };
    scratch.open_with(limits, 100).await
}

impl Bench {
    async fn new(backend: Backend) -> Self {
        let scratch = Scratch::new(backend).await;
        let ledger = open(&scratch).await;
        let operator = scratch.client().await;
        Self { scratch, ledger, operator, model: Model::default() }
    }

    async fn act(&mut self, act: &Act) {
        match act {
            Act::Accept(decision) => {
                let acceptance = decision.acceptance();
                let expected = self.model.accept(decision, &acceptance);
                assert_eq!(self.ledger.accept(acceptance).await, Ok(expected));
                if let Receipt::Accepted { command_id } = expected {
                    let record = self.ledger.find(command_id).await.expect("a healthy ledger");
                    let body = record.and_then(|record| record.command).expect("what was accepted");
                    let message: serde_json::Value = serde_json::from_str(body.get()).expect("JSON");
                    let (repeats, contradicts) = self.model.says;
                    let id = |id: Option<CommandId>| serde_json::json!(id);
                    assert_eq!(
                        (&message["repeats"], &message["conflicts_with"]),
                        (&id(repeats), &id(contradicts))
                    );
                }
            }
            Act::Settle { through, exceptions, cleared } => {
                let Some(through) = self.model.pick(*through) else { return };
                let exceptions = exceptions.iter().filter_map(|(number, permanently, attempts)| {
                    let seq = self.model.pick(*number)?;
                    let event = if *permanently { Event::RefusedPermanently } else { Event::Refused };
                    let state = self.model.state(seq).refused(event);
                    let reason = "a reason".to_owned();
                    Some(Exception { seq, state, attempts: *attempts, next_attempt_at: now(), reason })
                });
                let settlement = Settlement {
                    through: Some(through),
                    exceptions: exceptions.collect(),
                    cleared: cleared.iter().filter_map(|number| self.model.pick(*number)).collect(),
                    ..Settlement::default()
                };
                self.model.settle(&settlement);
                assert_eq!(self.ledger.settle(settlement).await, Ok(()));
            }
            Act::Park(number) => self.operate(*number, Event::Park).await,
            Act::Requeue(number) => self.operate(*number, Event::Requeue).await,
            Act::RequeueParked => {
                let requeued = self.operator.requeue_parked(by()).await.expect("a healthy ledger");
                let parked: Vec<_> =
                    (1..=self.model.head()).filter(|seq| self.model.state(*seq) == State::Parked).collect();
                let ids: Vec<_> = parked.iter().map(|seq| self.model.id(*seq)).collect();
                assert_eq!(requeued, ids);
                self.model.exceptions.extend(parked.into_iter().map(|seq| (seq, (Exceptional::Requeued, 0))));
            }
            Act::Reopen => {
                close(self.ledger.clone()).await;
                self.ledger = open(&self.scratch).await;
            }
        }
    }

    async fn operate(&mut self, number: u8, event: Event) {
        let Some(seq) = self.model.pick(number) else { return };
        let id = self.model.id(seq);
        let done = match event {
            Event::Park => self.operator.park(id, by()).await,
            _ => self.operator.requeue(id, by()).await,
        };
        match (self.model.state(seq).after(event), done) {
            (Ok(Some(state)), Ok(())) => drop(self.model.exceptions.insert(seq, (state, 0))),
            (Err(_), Err(ActError::Illegal(_))) => {}
            (expected, done) => panic!("{event:?} of {seq}: {expected:?}, but {done:?}"),
        }
    }

    /// Everything that can be asked says the same.
    async fn compare(&self) {
        let (ledger, model) = (&self.ledger, &self.model);
        assert_eq!(ledger.cursor().await.expect("a healthy ledger"), model.cursor);
        let mut counts = [0; State::ALL.len()];
        let filter = Filter { limit: 1000, ..Filter::default() };
        let mut records = ledger.list(filter).await.expect("a healthy ledger");
        records.reverse();
        assert_eq!(records.len() as Seq, model.head());
        for (seq, record) in (1..).zip(&records) {
            let attempts = model.exceptions.get(&seq).map(|(_, attempts)| *attempts);
            assert_eq!((record.seq, record.state, record.attempts), (seq, model.state(seq), attempts));
            assert_eq!(record.command_id, model.id(seq));
            counts[State::ALL.iter().position(|state| *state == record.state).expect("one of them all")] += 1;
        }
        let stats = ledger.stats().await.expect("a healthy ledger");
        assert_eq!([stats.pending, stats.published, stats.parked, stats.rejected, stats.unrouted], counts);
        assert_eq!((stats.head, stats.cursor), (model.head(), model.cursor));
        let mut waiting = ledger.waiting_tasks().await.expect("a healthy ledger");
        waiting.sort_unstable_by_key(|(_, seq)| *seq);
        let key = |seq: Seq| model.log[usize::try_from(seq - 1).expect("a small log")].1;
        assert_eq!(waiting, model.waiting().into_iter().map(|seq| (key(seq), seq)).collect::<Vec<_>>());
        let due: Vec<_> = ledger.due(now(), 1000).await.expect("a healthy ledger");
        assert_eq!(due.iter().map(|due| due.entry.seq).collect::<Vec<_>>(), model.waiting());
        let log: Vec<_> = ledger.since(model.cursor, 1000).await.expect("a healthy ledger");
        let open = (model.cursor + 1..=model.head()).filter(|seq| !model.exceptions.contains_key(seq));
        assert_eq!(log.iter().map(|entry| entry.seq).collect::<Vec<_>>(), open.collect::<Vec<_>>());
    }
}

fn now() -> Timestamp {
    Timestamp::now()
}

/// As many cases as `PROPTEST_CASES` says; each act is a commit, and each commit a sync. What is asked of a server takes
/// longer than of a file.
fn config(backend: Backend) -> ProptestConfig {
    let few = if backend == Backend::Sqlite { 48 } else { 2 };
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(few);
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 400, ..ProptestConfig::default() }
}

#[apply(every_ledger)]
#[test]
fn the_ledger_does_what_a_list_would_do(backend: Backend) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let acts = prop::collection::vec(act(), 1..40);
    let done = TestRunner::new(config(backend)).run(&acts, |acts| {
        runtime.block_on(async {
            let mut bench = Bench::new(backend).await;
            for act in &acts {
                bench.act(act).await;
                bench.compare().await;
            }
        });
        Ok(())
    });
    done.unwrap_or_else(|failed| panic!("{failed}"));
}
