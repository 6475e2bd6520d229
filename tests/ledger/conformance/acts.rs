//! What was changed, by whom and why.

use super::*;
use countersign::{
    command::{
        Grant, Registered,
        outcome::{Kind, Outcome},
    },
    ledger::{
        ActFilter, ActKind, ActRecord, Collected, DeadLetter, MAX_ORDERED, NewAct, Order, OrderKind, Ordered,
        Requeue, RequeueFilter, RequeueStep, Why, history::What,
    },
};
use serde_json::{Value, json};

/// How long ago old acts were, in milliseconds.
const OLD_MS: i64 = 100 * 86_400_000;

fn of_token() -> By {
    let actor = Actor {
        name: Some("erp".to_owned()),
        peer: Some("192.0.2.7".to_owned()),
        ..Actor::unnamed(Via::Api)
    };
    actor.into()
}

fn context(key: &str, message_id: Option<u64>) -> Registration {
    let task = TaskRef { task_id: Some("t".to_owned()), ..TaskRef::default() };
    let registered = Registered { grant: Grant::unbound(task), expires_at: None };
    Registration { key: key.to_owned(), message_id, registered, registered_at: Timestamp::now() }
}

async fn acts(ledger: &Handle, filter: ActFilter) -> Vec<ActRecord> {
    ledger.acts(ActFilter { limit: 50, ..filter }).await.unwrap()
}

async fn ids(ledger: &Handle, filter: ActFilter) -> Vec<u64> {
    acts(ledger, filter).await.iter().map(|act| act.id).collect()
}

fn detail(act: &ActRecord) -> Value {
    act.detail.as_ref().map_or(Value::Null, |detail| serde_json::from_str(detail.get()).unwrap())
}

fn parked(seq: Seq) -> Exception {
    let state = Exceptional::Parked;
    Exception { seq, state, attempts: 1, next_attempt_at: Timestamp::now(), reason: "nack".to_owned() }
}

async fn commands(ledger: &Handle, count: usize) -> Vec<CommandId> {
    let mut ids = Vec::new();
    for task in 0..count {
        ids.push(accepted(ledger, acceptance(&format!("t{task}"), "APPROVE", None)).await);
    }
    ids
}

#[apply(every_way)]
#[tokio::test(flavor = "multi_thread")]
async fn an_act_on_many_commands_is_one_and_each_command_knows_it(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let commands = commands(&ledger, 4).await;
    let began = Timestamp::now();
    let settlement =
        Settlement { through: Some(3), exceptions: vec![parked(1), parked(2)], ..Settlement::default() };
    ledger.settle(settlement).await.unwrap();
    let operator = scratch.client().await;
    assert_eq!(operator.requeue_parked(by()).await.unwrap(), commands[..2]);
    assert!(operator.requeue_parked(by()).await.unwrap().is_empty(), "which is no act");
    operator.park(commands[0], By { reason: None, ..by() }).await.unwrap();
    operator.requeue(commands[2], By { reason: None, ..by() }).await.unwrap();
    assert!(operator.requeue(commands[2], by()).await.is_err(), "which is no act");

    let all = acts(&ledger, ActFilter::default()).await;
    let told: Vec<_> = all.iter().map(|act| (act.act, act.count, act.reason.is_some())).collect();
    assert_eq!(
        told,
        [(ActKind::Requeue, 1, false), (ActKind::Park, 1, false), (ActKind::Requeue, 2, true)],
        "newest first"
    );
    let first = &all[2];
    assert_eq!((&first.actor, &first.reason), (&by().actor, &by().reason));
    assert!(first.at >= began && first.at <= Timestamp::now());
    let of = async |command: CommandId| {
        ids(&ledger, ActFilter { command_id: Some(command), ..ActFilter::default() }).await
    };
    assert_eq!(of(commands[0]).await, [all[1].id, first.id]);
    assert_eq!(of(commands[1]).await, [first.id]);
    assert_eq!(of(commands[2]).await, [all[0].id]);
    assert!(of(commands[3]).await.is_empty());

    let history = ledger.find(commands[1]).await.unwrap().unwrap().history.unwrap();
    let by_whom: Vec<_> = history
        .iter()
        .filter_map(|event| match &event.what {
            What::RequeuedByOperator(by) => Some((by.act_id, by.actor.clone(), by.reason.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(by_whom, [(first.id, by().actor, by().reason)]);
    let told = serde_json::to_value(&history).unwrap();
    let told = told.as_array().unwrap().iter().find(|one| one["event"] == "requeued_by_operator").unwrap();
    assert_eq!(told["actor"], json!({ "via": "cli", "name": "li4", "host": "h1" }));
    assert_eq!(told["reason"], "the queue was deleted");
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn acts_are_found_by_kind_actor_time_and_page(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let sudo = Actor { sudo_user: Some("wang5".to_owned()), ..by().actor };
    let reload = |actor: Actor| NewAct {
        kind: ActKind::Reload,
        by: actor.into(),
        detail: Some(json!({ "result": "applied" })),
        count: 0,
    };
    for actor in [by().actor, sudo, Actor::unnamed(Via::Signal)] {
        ledger.record(reload(actor)).await.unwrap();
    }
    ledger.record(NewAct { kind: ActKind::Login, ..reload(of_token().actor) }).await.unwrap();
    let all = ids(&ledger, ActFilter::default()).await;
    assert_eq!(all.len(), 4);
    assert!(all.is_sorted_by(|newer, older| newer > older));
    let reloads = ActFilter { kind: Some(ActKind::Reload), ..ActFilter::default() };
    assert_eq!(ids(&ledger, reloads.clone()).await, all[1..]);
    assert_eq!(ids(&ledger, ActFilter { before: Some(all[1]), ..reloads }).await, all[2..]);
    let named = |name: &str| ActFilter { actor: Some(name.to_owned()), ..ActFilter::default() };
    assert_eq!(ids(&ledger, named("li4")).await, all[2..]);
    assert_eq!(ids(&ledger, named("wang5")).await, [all[2]]);
    assert_eq!(ids(&ledger, named("erp")).await, [all[0]]);
    assert!(ids(&ledger, named("ERP")).await.is_empty());
    assert_eq!(ids(&ledger, ActFilter { id: Some(all[3]), ..ActFilter::default() }).await, [all[3]]);
    scratch.execute(&format!("UPDATE acts SET at = at - 60000 WHERE id = {}", all[3])).await;
    let then = Timestamp::now() - Duration::from_secs(30);
    assert_eq!(ids(&ledger, ActFilter { since: Some(then), ..ActFilter::default() }).await, all[..3]);
    assert_eq!(ids(&ledger, ActFilter { until: Some(then), ..ActFilter::default() }).await, [all[3]]);
    let two = ledger.acts(ActFilter { limit: 2, ..ActFilter::default() }).await.unwrap();
    assert_eq!(two.iter().map(|act| act.id).collect::<Vec<_>>(), all[..2]);
    assert_eq!(detail(&two[0]), json!({ "result": "applied" }));
}

#[apply(every_way)]
#[tokio::test(flavor = "multi_thread")]
async fn who_registered_a_context_is_found_by_its_key_which_no_act_tells(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let register = async |contexts: Vec<Registration>| {
        assert!(matches!(ledger.register(contexts, of_token()).await, Ok(Registering::Kept { .. })));
    };
    register(vec![context("hush-one", None)]).await;
    register(vec![context("hush-one", Some(7)), context("hush-two", None)]).await;
    let taken = ledger.register(vec![context("hush-six", Some(7))], of_token()).await;
    assert_eq!(taken, Ok(Registering::MessageTaken { item: 0 }), "which is no act");
    assert!(ledger.unregister("hush-two".to_owned(), of_token()).await.unwrap());
    assert!(!ledger.unregister("hush-two".to_owned(), of_token()).await.unwrap(), "which is no act");

    let all = acts(&ledger, ActFilter::default()).await;
    let told: Vec<_> = all.iter().map(|act| (act.act, act.count, detail(act))).collect();
    // printf hush-one | sha256sum, and so on
    assert_eq!(
        told,
        [
            (ActKind::Unregister, 1, json!({ "context": tag("hush-two") })),
            (ActKind::Register, 2, json!({ "created": 1, "replaced": 1 })),
            (ActKind::Register, 1, json!({ "context": tag("hush-one"), "created": 1, "replaced": 0 })),
        ]
    );
    assert!(all.iter().all(|act| act.actor == of_token().actor));
    assert!(!serde_json::to_string(&all).unwrap().contains("hush"));
    let of = async |key: &str| {
        ids(&ledger, ActFilter { context: Some(key.to_owned()), ..ActFilter::default() }).await
    };
    assert_eq!(of("hush-one").await, [all[1].id, all[2].id]);
    assert_eq!(of("hush-two").await, [all[0].id, all[1].id]);
    assert!(of("hush-six").await.is_empty());
    assert_eq!(
        scratch.numbers("SELECT act_id FROM contexts").await,
        [all[1].id.cast_signed()],
        "the act that registered it last"
    );
}

/// The first 16 hexadecimal digits of a key's SHA-256.
fn tag(key: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(key.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_prune_by_hand_is_one_act_however_many_steps_it_takes(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let many: Vec<_> =
        (0..300).map(|n| ledger.accept(acceptance(&format!("t{n}"), "APPROVE", None))).collect();
    for one in many {
        assert!(matches!(one.await, Ok(Receipt::Accepted { .. })));
    }
    ledger.settle(Settlement { through: Some(300), ..Settlement::default() }).await.unwrap();
    let operator = scratch.client().await;
    let tomorrow = Timestamp::now() + Duration::from_secs(86_400);
    let yesterday = tomorrow - Duration::from_secs(2 * 86_400);
    assert_eq!(operator.prune(yesterday, by(), Box::new(|_| ())).await.unwrap(), 0, "which is no act");
    assert_eq!(operator.prune(tomorrow, by(), Box::new(|_| ())).await.unwrap(), 300);
    let all = acts(&ledger, ActFilter::default()).await;
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!((all[0].act, all[0].count, &all[0].actor), (ActKind::Prune, 300, &by().actor));
    assert_eq!(detail(&all[0]), json!({ "received_before": tomorrow }));
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn an_act_stays_for_the_retention_and_for_what_it_is_about(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let commands = commands(&ledger, 2).await;
    ledger.settle(Settlement { through: Some(2), ..Settlement::default() }).await.unwrap();
    let operator = scratch.client().await;
    // 1: of a command that will be gone, 2: of one that stays parked, 3: of a context that stays.
    operator.requeue(commands[0], by()).await.unwrap();
    ledger.settle(Settlement { cleared: vec![1], ..Settlement::default() }).await.unwrap();
    ledger.settle(Settlement { exceptions: vec![parked(2)], ..Settlement::default() }).await.unwrap();
    operator.requeue(commands[1], by()).await.unwrap();
    assert!(ledger.register(vec![context("stays", None)], by()).await.is_ok());
    // 4 and 5: of a context that is removed. 6: without a subject. 7: young.
    assert!(ledger.register(vec![context("goes", None)], by()).await.is_ok());
    assert!(ledger.unregister("goes".to_owned(), by()).await.unwrap());
    let login = NewAct { kind: ActKind::Login, by: by(), detail: None, count: 0 };
    ledger.record(login.clone()).await.unwrap();
    close(ledger).await;
    scratch.execute(&format!("UPDATE acts SET at = at - {OLD_MS}")).await;
    scratch.age(OLD_MS.cast_unsigned() / 1000, ALL).await;
    let kept_ids = "SELECT id FROM acts ORDER BY id";
    let before = scratch.numbers(kept_ids).await;

    // Kept for ever without a retention.
    let forever = Limits { retention: None, ..scratch.limits() };
    let ledger = scratch.open_with(forever, 100).await;
    ledger.record(login).await.unwrap();
    eventually_pruned(&scratch, "SELECT count(*) FROM commands", &[2]).await;
    assert_eq!(scratch.count("acts").await, 7);
    close(ledger).await;

    let ledger = scratch.open().await;
    let young = scratch.numbers("SELECT max(id) FROM acts").await[0];
    eventually_pruned(&scratch, kept_ids, &[before[1], before[2], young]).await;
    assert_eq!(scratch.count("act_contexts").await, 1);
    assert_eq!(scratch.places("act_commands").await, [2]);
    // Once the context is gone, so is what was done to it.
    assert!(ledger.unregister("stays".to_owned(), by()).await.unwrap());
    close(ledger).await;
    let ledger = scratch.open().await;
    eventually_pruned(&scratch, kept_ids, &[before[1], young, young + 1]).await;
    close(ledger).await;
}

async fn eventually_pruned(scratch: &Scratch, sql: &str, wanted: &[i64]) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while scratch.numbers(sql).await != wanted {
        assert!(Instant::now() < deadline, "{:?} is left, not {wanted:?}", scratch.numbers(sql).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn published() -> RequeueFilter {
    RequeueFilter {
        states: vec!["published".to_owned()],
        endpoint: None,
        instance_id: None,
        task_id: None,
        user_id: None,
        since: Some(Timestamp::now() - Duration::from_secs(3600)),
        until: None,
    }
}

#[apply(every_way)]
#[tokio::test(flavor = "multi_thread")]
async fn an_act_in_steps_is_one_and_knows_how_far_it_came(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let commands = commands(&ledger, 6).await;
    // 3 pending again, 4 parked, 6 not published yet.
    let retrying = Exception { state: Exceptional::Retrying, ..parked(3) };
    let settlement =
        Settlement { through: Some(5), exceptions: vec![retrying, parked(4)], ..Settlement::default() };
    ledger.settle(settlement).await.unwrap();
    let operator = scratch.client().await;
    let begun = Requeue {
        filter: published(),
        through: 6,
        done_through: 0,
        requeued: 0,
        skipped: 0,
        finished: false,
        continues: None,
        continued_by: None,
    };
    let act = operator.begin(begun.act(by())).await.unwrap();
    let first = RequeueStep { act, after: 0, places: vec![1, 2, 3], done_through: 3 };
    let after = operator.requeue_step(first.clone()).await.unwrap();
    assert_eq!(after, Requeue { done_through: 3, requeued: 2, skipped: 1, ..begun.clone() });
    let known = acts(&ledger, ActFilter { id: Some(act), ..ActFilter::default() }).await.remove(0);
    assert_eq!(Requeue::read(known.detail.unwrap().get()), Some(after), "it can be continued from there");
    assert_eq!(known.count, 2);
    assert!(matches!(operator.requeue_step(first.clone()).await, Err(ActError::Overtaken(of)) if of == act));
    let unknown = RequeueStep { act: act + 1, ..first };
    assert!(matches!(operator.requeue_step(unknown).await, Err(ActError::NoSuchAct(_))));

    // The commands of a place that is gone or pending are passed over.
    let last = RequeueStep { act, after: 3, places: vec![4, 5, 6, 7], done_through: 6 };
    let after = operator.requeue_step(last.clone()).await.unwrap();
    assert_eq!(after, Requeue { done_through: 6, requeued: 4, skipped: 3, finished: true, ..begun });
    let again = RequeueStep { after: 6, ..last };
    assert!(matches!(operator.requeue_step(again).await, Err(ActError::Overtaken(_))), "it is finished");
    assert_eq!(
        scratch.numbers("SELECT seq FROM exceptions WHERE state = 'requeued' ORDER BY seq").await,
        [1, 2, 4, 5]
    );
    for (place, command) in commands.iter().enumerate() {
        let of = ids(&ledger, ActFilter { command_id: Some(*command), ..ActFilter::default() }).await;
        assert_eq!(of.len(), usize::from([0, 1, 3, 4].contains(&place)), "{place}");
    }
    assert_eq!(acts(&ledger, ActFilter::default()).await.len(), 1);
}

#[apply(every_way)]
#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_continues_is_an_act_of_theirs(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let commands = commands(&ledger, 4).await;
    ledger.settle(Settlement { through: Some(4), ..Settlement::default() }).await.unwrap();
    let operator = scratch.client().await;
    let begun = Requeue {
        filter: published(),
        through: 4,
        done_through: 0,
        requeued: 0,
        skipped: 0,
        finished: false,
        continues: None,
        continued_by: None,
    };
    let first = operator.begin(begun.act(by())).await.unwrap();
    let step = RequeueStep { act: first, after: 0, places: vec![1], done_through: 1 };
    let stopped = operator.requeue_step(step.clone()).await.unwrap();
    let other = By {
        actor: Actor { name: Some("wang5".to_owned()), ..by().actor },
        reason: Some("it stopped".to_owned()),
    };
    let (second, rest) = operator.resume(first, other.clone()).await.unwrap();
    assert_eq!(rest, Requeue { requeued: 0, continues: Some(first), ..stopped.clone() });
    assert!(
        matches!(operator.resume(first, by()).await, Err(ActError::Overtaken(of)) if of == first),
        "once"
    );
    let late = RequeueStep { after: 1, places: vec![2], done_through: 2, ..step };
    assert!(matches!(operator.requeue_step(late.clone()).await, Err(ActError::Overtaken(of)) if of == first));
    let step = RequeueStep { act: second, places: vec![2, 3, 4], done_through: 4, ..late };
    let finished = operator.requeue_step(step).await.unwrap();
    assert_eq!(finished, Requeue { done_through: 4, requeued: 3, finished: true, ..rest });
    assert!(matches!(operator.resume(second, by()).await, Err(ActError::Overtaken(_))), "it is finished");
    assert!(matches!(operator.resume(second + 1, by()).await, Err(ActError::NoSuchAct(_))));

    let all = acts(&ledger, ActFilter::default()).await;
    let told: Vec<_> = all.iter().map(|act| (act.id, act.count, &act.actor, &act.reason)).collect();
    assert_eq!(told, [(second, 3, &other.actor, &other.reason), (first, 1, &by().actor, &by().reason)]);
    let known = Requeue::read(all[1].detail.as_ref().unwrap().get());
    assert_eq!(known, Some(Requeue { continued_by: Some(second), ..stopped }));
    for (place, command) in commands.iter().enumerate() {
        let of = ids(&ledger, ActFilter { command_id: Some(*command), ..ActFilter::default() }).await;
        assert_eq!(of, [if place == 0 { first } else { second }], "{place}");
    }
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_after_a_place_goes_the_way_of_the_log(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    commands(&ledger, 5).await;
    ledger.settle(Settlement { through: Some(3), ..Settlement::default() }).await.unwrap();
    let list = async |filter: Filter| {
        let found = ledger.list(filter).await.unwrap();
        found.iter().map(|record| record.seq).collect::<Vec<_>>()
    };
    let after = Filter { after: Some(1), limit: 3, ..Filter::default() };
    assert_eq!(list(after.clone()).await, [2, 3, 4]);
    assert_eq!(list(Filter { before: Some(4), ..after.clone() }).await, [2, 3]);
    assert_eq!(list(Filter { state: Some(State::Published), ..after.clone() }).await, [2, 3]);
    assert_eq!(list(Filter { state: Some(State::Pending), ..after.clone() }).await, [4, 5]);
    assert!(list(Filter { after: Some(5), ..after }).await.is_empty());
}

fn order(kind: OrderKind, commands: &[CommandId], if_state: Option<State>) -> Order {
    Order { kind, commands: commands.to_vec(), if_state, by: of_token() }
}

#[apply(every_way)]
#[tokio::test(flavor = "multi_thread")]
async fn an_order_on_many_commands_is_one_act_and_says_what_became_of_each(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let commands = commands(&ledger, 5).await;
    let unknown = CommandId::new(Timestamp::now());
    let settlement =
        Settlement { through: Some(3), exceptions: vec![parked(1), parked(2)], ..Settlement::default() };
    ledger.settle(settlement).await.unwrap();
    let state = async |id: CommandId| ledger.find(id).await.unwrap().unwrap().state;

    // Somebody else was faster with the second.
    scratch.client().await.requeue(commands[1], by()).await.unwrap();
    let asked = [commands[2], commands[0], commands[1], unknown, commands[3]];
    let done = ledger.order(order(OrderKind::Requeue, &asked, Some(State::Parked))).await.unwrap();
    let expected = [
        Ordered::OtherState(State::Published),
        Ordered::Done,
        Ordered::OtherState(State::Pending),
        Ordered::UnknownCommand,
        Ordered::OtherState(State::Pending),
    ];
    assert_eq!(done.results, expected);
    let act = &acts(&ledger, ActFilter::default()).await[0];
    assert_eq!((Some(act.id), act.act, act.count), (done.act_id, ActKind::Requeue, 1));
    assert_eq!(act.actor, of_token().actor);
    assert_eq!(state(commands[0]).await, State::Pending);

    // Without a condition, whatever allows it.
    let done = ledger.order(order(OrderKind::Requeue, &asked, None)).await.unwrap();
    assert_eq!(
        done.results[..3],
        [Ordered::Done, Ordered::OtherState(State::Pending), Ordered::OtherState(State::Pending)]
    );
    let done = ledger.order(order(OrderKind::Park, &commands[..2], None)).await.unwrap();
    assert_eq!((done.results, done.act_id.is_some()), (vec![Ordered::Done; 2], true));
    assert_eq!(state(commands[0]).await, State::Parked);
    let act = &acts(&ledger, ActFilter::default()).await[0];
    assert_eq!((act.act, act.count), (ActKind::Park, 2));
    for command in &commands[..2] {
        assert_eq!(
            ids(&ledger, ActFilter { command_id: Some(*command), ..ActFilter::default() }).await[0],
            act.id
        );
    }

    let before = ids(&ledger, ActFilter::default()).await;
    let done = ledger.order(order(OrderKind::Park, &commands[..2], None)).await.unwrap();
    assert_eq!((done.results, done.act_id), (vec![Ordered::OtherState(State::Parked); 2], None));
    assert_eq!(ids(&ledger, ActFilter::default()).await, before, "nothing was done, so it is no act");
}

#[apply(every_way)]
#[tokio::test(flavor = "multi_thread")]
async fn what_came_back_is_ordered_by_its_own_state_and_outcomes_are_shown_again(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let mut of_card = acceptance("t9", "APPROVE", None);
    of_card.command.message_id = Some("7".to_owned());
    let mut commands = commands(&ledger, 2).await;
    commands.push(accepted(&ledger, of_card).await);
    ledger.settle(Settlement { through: Some(3), ..Settlement::default() }).await.unwrap();
    let letter = DeadLetter {
        command_id: Some(commands[0]),
        why: Some(Why::Rejected),
        queue: None,
        died_at: None,
        reason: None,
        message_id: None,
        message_type: None,
        routing_key: String::new(),
        body: Vec::new(),
    };
    assert_eq!(ledger.collect(vec![letter]).await.unwrap(), [Collected::Open]);
    let requeue = |if_state| order(OrderKind::Requeue, &commands[..1], Some(if_state));
    let done = ledger.order(requeue(State::Published)).await.unwrap();
    assert_eq!(done.results, [Ordered::OtherState(State::Rejected)]);
    let done = ledger.order(requeue(State::Rejected)).await.unwrap();
    assert_eq!(done.results, [Ordered::Done]);

    for command_id in &commands[1..] {
        let outcome = Outcome {
            command_id: *command_id,
            kind: Kind::Applied,
            status: None,
            message: None,
            instance: None,
        };
        assert_eq!(ledger.report(outcome, true).await, Ok(Reported::Kept));
    }
    let done = ledger.order(order(OrderKind::ShowAgain, &commands, None)).await.unwrap();
    assert_eq!(done.results, [Ordered::NoOutcome, Ordered::NothingToShow, Ordered::Done]);
    let act = &acts(&ledger, ActFilter::default()).await[0];
    assert_eq!((Some(act.id), act.act, act.count), (done.act_id, ActKind::ShowAgain, 1));
    let of_it = ActFilter { command_id: Some(commands[2]), ..ActFilter::default() };
    assert_eq!(ids(&ledger, of_it).await, [act.id]);
}

#[apply(every_ledger)]
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_commands_are_one_order(backend: Backend) {
    let scratch = Scratch::new(backend).await;
    let ledger = scratch.open().await;
    let ledger = &ledger;
    let accepts = (0..MAX_ORDERED)
        .map(|n| async move { accepted(ledger, acceptance(&format!("t{n}"), "APPROVE", None)).await });
    let commands: Vec<CommandId> = futures_util::future::join_all(accepts).await;
    let done = ledger.order(order(OrderKind::Park, &commands, Some(State::Pending))).await.unwrap();
    assert_eq!(done.done(), MAX_ORDERED);
    assert_eq!(acts(ledger, ActFilter::default()).await[0].count, MAX_ORDERED as u64);
    assert_eq!(scratch.count("exceptions").await, MAX_ORDERED as i64);
}
