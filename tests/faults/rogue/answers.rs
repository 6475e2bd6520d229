//! Every way to answer a publish that the protocol knows, and some that it forbids.

use super::{Event, Rogue, Session, Then};
use crate::oracle::{Figures, Oracle};
use crate::support::{App, eventually};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The program with this broker.
async fn app(rogue: &Rogue, settings: &[(&str, &str)]) -> App {
    let config = rogue.config();
    App::with(settings.iter().fold(config, |config, (key, value)| config.set("amqp", key, value))).await
}

/// Lets the broker answer as it is told under load, then as it should, and compares.
async fn figures_of(rogue: &Rogue, app: &App, at_least: usize) -> Figures {
    let oracle = Oracle::new();
    let load = oracle.load(app, 4);
    load.until_answered(at_least).await;
    load.stop().await;
    oracle.account_of(app, async || rogue.routed()).await
}

/// A generator of numbers that a failed run can repeat: the seed is printed by whoever prints the figures.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `sides`.
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % sides
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.roll(last + 1));
        }
    }
}

/// Holds answers back until `lot` wait, or some time has passed, and then has them given.
fn in_lots(rogue: &Rogue, lot: usize, mut give: impl FnMut(&mut Session, Vec<u64>) + Send + 'static) {
    /// Ticks without a new publish after which a smaller lot is answered.
    const QUIET: usize = 10;
    let mut quiet = 0;
    rogue.manner(move |session, event| match event {
        Event::Published(_) => {
            quiet = 0;
            let waiting = session.waiting();
            if waiting.len() >= lot {
                give(session, waiting);
            }
            Then::Nothing
        }
        Event::Tick => {
            quiet += 1;
            let waiting = session.waiting();
            if quiet >= QUIET && !waiting.is_empty() {
                give(session, waiting);
            }
            Then::Usual
        }
        _ => Then::Usual,
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn confirms_that_come_late_and_in_any_order_are_waited_for_and_nothing_is_published_twice() {
    let rogue = Rogue::start().await;
    let mut dice = Dice::new(4);
    in_lots(&rogue, 64, move |session, mut waiting| {
        dice.shuffle(&mut waiting);
        for tag in waiting {
            session.ack(tag, false);
        }
    });
    let app = app(&rogue, &[]).await;
    let figures = figures_of(&rogue, &app, 1000).await.check("confirms late and shuffled");
    assert_eq!((figures.published_again, figures.unknown), (0, 0));
    assert_eq!(rogue.received().len(), figures.arrived);
    assert_eq!(rogue.served(), 1, "nothing happened that a session would have to end for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirm_of_several_at_once_confirms_each_of_them() {
    let rogue = Rogue::start().await;
    let mut dice = Dice::new(5);
    in_lots(&rogue, 50, move |session, waiting| {
        // One in the middle first, then all up to another, then the rest.
        session.ack(waiting[dice.roll(waiting.len())], false);
        session.ack(waiting[dice.roll(waiting.len())], true);
        if let Some(last) = session.waiting().last() {
            session.ack(*last, true);
        }
    });
    let app = app(&rogue, &[]).await;
    let figures = figures_of(&rogue, &app, 1000).await.check("several confirms at once");
    assert_eq!((figures.published_again, rogue.served()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_never_confirmed_is_published_again_with_its_id_in_a_new_session() {
    let rogue = Rogue::start().await;
    rogue.hold();
    let app = app(&rogue, &[("confirm_timeout_ms", "500")]).await;
    let oracle = Oracle::new();
    oracle.keep(&app, 20).await;
    // Given up, and again, as long as nothing is confirmed.
    rogue.until_received(60).await;
    assert!(rogue.served() >= 3, "{} sessions", rogue.served());
    assert_eq!(app.metric(r#"countersign_ledger_rows{state="pending"}"#).await, Some(20.0));
    rogue.behave();
    let figures = oracle.account_of(&app, async || rogue.routed()).await.check("never confirmed");
    assert_eq!((figures.answered, figures.arrived), (20, 20));
    let received = rogue.received();
    assert_eq!(received.len(), 20, "the same ids each time");
    assert!(received.values().all(|times| *times >= 3), "{received:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_confirm_that_never_comes_holds_up_nobody_for_longer_than_its_deadline() {
    let rogue = Rogue::start().await;
    let mut forgotten = BTreeSet::new();
    rogue.manner(move |session, event| {
        let Event::Published(tag) = event else { return Then::Usual };
        // Every hundredth, the first time it comes.
        if tag % 100 == 0 && forgotten.insert(session.message_id(*tag)) { Then::Nothing } else { Then::Usual }
    });
    let app = app(&rogue, &[("confirm_timeout_ms", "500")]).await;
    // What was not confirmed counts as lost here, and a later one of its task as routed before it.
    let figures = figures_of(&rogue, &app, 300).await.check_any_order("one confirm in a hundred missing");
    assert_eq!(figures.parked, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_command_is_tried_again_by_itself_and_the_others_go_on() {
    let rogue = Rogue::start().await;
    rogue.manner(|session, event| {
        let Event::Published(tag) = event else { return Then::Usual };
        if tag % 10 != 0 || session.times(*tag) > 1 {
            return Then::Usual;
        }
        session.nack(*tag, false);
        Then::Nothing
    });
    let app = app(&rogue, &[]).await;
    // A later decision of the task may have been sent before the refusal came: docs/workers.md says so.
    let figures = figures_of(&rogue, &app, 200).await.check_any_order("one in ten refused once");
    assert_eq!((figures.parked, figures.published_again, rogue.served()), (0, 0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_several_at_once_refuses_each_of_them_and_nothing_else() {
    let rogue = Rogue::start().await;
    let mut dice = Dice::new(6);
    in_lots(&rogue, 20, move |session, waiting| {
        let refused = waiting.iter().take_while(|tag| session.times(**tag) == 1).last().copied();
        if let Some(refused) = refused.filter(|_| dice.roll(3) == 0) {
            session.nack(refused, true);
        }
        if let Some(last) = session.waiting().last() {
            session.ack(*last, true);
        }
    });
    let app = app(&rogue, &[]).await;
    let figures = figures_of(&rogue, &app, 200).await.check_any_order("several refused at once");
    assert_eq!((figures.parked, figures.published_again, rogue.served()), (0, 0, 1));
    let nacked = app.metric(r#"countersign_publishes_total{result="nacked"}"#).await;
    assert!(nacked > Some(0.0), "nothing was refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_every_time_is_parked_and_its_task_goes_on() {
    let rogue = Rogue::start().await;
    rogue.manner(|session, event| match event {
        Event::Published(tag) if session.body(*tag).contains("\"REJECT\"") => {
            session.nack(*tag, false);
            Then::Nothing
        }
        _ => Then::Usual,
    });
    let app = app(&rogue, &[("max_attempts", "2")]).await;
    let figures = figures_of(&rogue, &app, 100).await.check_any_order("every rejection refused for ever");
    assert!(figures.parked >= 20, "{figures}");
    assert_eq!(figures.arrived + figures.parked, figures.answered);
}

/// What is done to a lot of publishes: each is acked, some are returned, in some order.
#[derive(Clone, Copy, Debug)]
enum Step {
    Return(u64),
    Ack(u64),
    AckUpTo(u64),
}

/// Where returns may stand among the acks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Returns {
    /// Each before its own ack, and in the order of publishing: as RabbitMQ sends them.
    InOrder,
    /// Each before its own ack, as the protocol has it.
    Before,
    /// Behind it, too.
    Anywhere,
}

/// Some interleaving of returns and acks.
fn interleave(dice: &mut Dice, waiting: &[u64], returned: &[u64], returns: Returns) -> Vec<Step> {
    let mut steps: Vec<Step> = waiting.iter().map(|tag| Step::Ack(*tag)).collect();
    dice.shuffle(&mut steps);
    if dice.roll(2) == 0 {
        // Some tag confirms all below it; those need no ack of their own, but may have one before.
        let tag = waiting[dice.roll(waiting.len())];
        let place = dice.roll(steps.len() + 1);
        let after: Vec<Step> = steps.split_off(place);
        let done = |steps: &[Step], wanted| {
            steps.iter().any(|step| matches!(step, Step::Ack(done) if *done == wanted))
        };
        if !done(&steps, tag) {
            steps.push(Step::AckUpTo(tag));
        }
        let covered = |other: u64| other <= tag;
        let before = !steps.iter().any(|step| matches!(step, Step::AckUpTo(_)));
        steps.extend(
            after.into_iter().filter(|step| before || !matches!(step, Step::Ack(other) if covered(*other))),
        );
    }
    let mut next_return = usize::MAX;
    for tag in returned.iter().rev() {
        let acked = steps
            .iter()
            .position(|step| match step {
                Step::Ack(other) => other == tag,
                Step::AckUpTo(other) => tag <= other,
                Step::Return(_) => false,
            })
            .expect("each is acked");
        let place = match returns {
            Returns::InOrder => dice.roll(acked.min(next_return) + 1),
            Returns::Before => dice.roll(acked + 1),
            Returns::Anywhere => dice.roll(steps.len() + 1),
        };
        next_return = place;
        steps.insert(place, Step::Return(*tag));
    }
    steps
}

/// Returns some messages once and acks all, in some hundred interleavings. Tells how many were returned, and what the
/// program had said.
async fn returned_in_every_interleaving(
    fault: &str,
    returns: Returns,
    seed: u64,
) -> (Figures, usize, String) {
    let rogue = Rogue::start().await;
    let returned_ids = Arc::new(Mutex::new(BTreeSet::new()));
    let so_far = Arc::clone(&returned_ids);
    let mut dice = Dice::new(seed);
    in_lots(&rogue, 6, move |session, waiting| {
        let mut so_far = so_far.lock().unwrap_or_else(PoisonError::into_inner);
        let returned: Vec<u64> = waiting
            .iter()
            .copied()
            .filter(|tag| dice.roll(3) == 0 && so_far.insert(session.message_id(*tag)))
            .collect();
        for step in interleave(&mut dice, &waiting, &returned, returns) {
            match step {
                Step::Return(tag) => session.return_message(tag),
                Step::Ack(tag) => session.ack(tag, false),
                Step::AckUpTo(tag) => session.ack(tag, true),
            }
        }
    });
    let app = app(&rogue, &[]).await;
    let oracle = Oracle::new();
    let load = oracle.load(&app, 4);
    load.until_answered(200).await;
    load.stop().await;
    if returns == Returns::Anywhere {
        // lapin hands a return over with the next confirm; so there have to be some more.
        app.until_metric(r#"countersign_ledger_rows{state="pending"}"#, 0.0).await;
        rogue.behave();
        oracle.keep(&app, 5).await;
        let ids = returned_ids.lock().unwrap_or_else(PoisonError::into_inner).clone();
        eventually("every returned command to be published again", async || {
            let received = rogue.received();
            let once = ids.iter().filter(|id| received[*id] < 2).count();
            if once == 0 { Ok(()) } else { Err(once) }
        })
        .await;
    }
    let figures = oracle.account_of(&app, async || rogue.routed()).await;
    let figures = figures.check_any_order(&format!("{fault} (seed {seed})"));
    assert_eq!(rogue.served(), 1, "no interleaving is a reason to end the session");
    let returned = returned_ids.lock().unwrap_or_else(PoisonError::into_inner).len();
    (figures, returned, app.stderr())
}

/// What the program says of a return whose command it has told as confirmed.
const LATE: &str = "command returned after its confirm";

#[tokio::test(flavor = "multi_thread")]
async fn a_returned_command_is_known_by_its_own_id_before_its_outcome_is_told() {
    let fault = "returned in order, before confirmed";
    let (figures, returned, log) = returned_in_every_interleaving(fault, Returns::InOrder, 7).await;
    assert!(returned >= 50, "{returned}");
    assert_eq!((figures.published_again, figures.parked), (0, 0));
    assert!(!log.contains(LATE), "a return was found after the outcome of its command was told");
}

#[tokio::test(flavor = "multi_thread")]
async fn returns_may_come_in_any_order() {
    let fault = "returned in any order, before confirmed";
    let (figures, returned, _) = returned_in_every_interleaving(fault, Returns::Before, 8).await;
    assert!(returned >= 50, "{returned}");
    assert_eq!((figures.published_again, figures.parked), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_returned_after_its_confirm_is_published_again_all_the_same() {
    let fault = "returned before or after confirmed";
    let (figures, returned, log) = returned_in_every_interleaving(fault, Returns::Anywhere, 9).await;
    assert!(returned >= 50, "{returned}");
    assert_eq!(figures.parked, 0);
    assert!(log.contains(LATE));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_broker_blocks_nothing_is_given_up_and_all_is_published_when_it_has_ceased() {
    let rogue = Rogue::start().await;
    let app = app(&rogue, &[("confirm_timeout_ms", "2000")]).await;
    let oracle = Oracle::new();
    let load = oracle.load(&app, 2);
    load.until_answered(50).await;
    for _ in 0..2 {
        // Some are with the broker and have no answer when it blocks.
        rogue.hold();
        rogue.until_received(rogue.received().len() + 1).await;
        rogue.tell(|session| session.block(true)).await;
        app.until_metric("countersign_amqp_blocked", 1.0).await;
        // Longer than the deadline of a confirm.
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(2500) {
            load.until_answered(20).await;
        }
        rogue.behave();
        rogue
            .tell(|session| {
                session.block(false);
                if let Some(last) = session.waiting().last() {
                    session.ack(*last, true);
                }
            })
            .await;
        app.until_metric("countersign_amqp_blocked", 0.0).await;
        rogue.until_routed(20).await;
    }
    load.stop().await;
    let figures = oracle.account_of(&app, async || rogue.routed()).await.check("blocked and unblocked");
    assert_eq!((figures.published_again, rogue.served()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_blocks_before_it_serves_is_connected_to_once_it_has_ceased() {
    let rogue = Rogue::start().await;
    rogue.manner(|session, event| {
        // As soon as it may: the client cannot even open a channel.
        if let Event::Frame(frame) = event
            && super::ends::Point::Open.is(frame)
        {
            session.block(true);
        }
        Then::Usual
    });
    let app = app(&rogue, &[("connect_timeout_ms", "300")]).await;
    let oracle = Oracle::new();
    oracle.keep(&app, 10).await;
    eventually("two attempts", async || if rogue.accepted() >= 2 { Ok(()) } else { Err(rogue.accepted()) })
        .await;
    rogue.behave();
    let figures =
        oracle.account_of(&app, async || rogue.routed()).await.check("blocked from the first moment");
    assert_eq!(figures.arrived, 10);
}
