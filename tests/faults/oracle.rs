//! The one question that every fault is asked: is what was answered 200 exactly what can be found again?
//!
//! *The set of decisions answered 200 equals the set of distinct `message_id`s that were routed to the queue or stand
//! in the ledger as parked, each with its body unchanged; what was refused is not there; per task the order of
//! publishing is the order of acceptance.* Pending is no place to end: [`Oracle::account`] waits until nothing is.
//!
//! A decision whose answer was lost with its connection may be there or not, once; a decision is known again by its
//! task and operator, which no two have in common.

use crate::support::{Answer, App, Callback, KEY, Message, Worker, eventually, eventually_within, post};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// A decision of an approver, like no other by its task and operator. Encrypted, for the endpoint `purchase`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Decision {
    pub(crate) task: String,
    pub(crate) operator: String,
    pub(crate) action: &'static str,
}

impl Decision {
    /// The decision of this operator on this task; two of three approve.
    pub(crate) fn new(task: &str, operator: usize) -> Self {
        let action = if operator % 3 == 2 { "REJECT" } else { "APPROVE" };
        Self { task: task.to_owned(), operator: format!("operator-{operator}"), action }
    }

    /// The callback, freshly encrypted under [`KEY`].
    pub(crate) fn body(&self) -> Vec<u8> {
        self.callback().encrypted(KEY)
    }

    /// The callback, for a test that sends it in its own way.
    pub(crate) fn callback(&self) -> Callback {
        Callback::list("instance", &self.task)
            .operator(&self.operator)
            .action(self.action)
            .context(&self.context())
            .with("reason", self.reason())
    }

    fn context(&self) -> String {
        format!("context of {}", self.task)
    }

    /// Bodies of different lengths, so that some span several pages of the ledger.
    fn reason(&self) -> String {
        "审批 ".repeat(self.operator.len() * self.task.len() % 97)
    }

    /// Whether a command, as it was published or as it stands in the ledger, is this decision in every part.
    fn is_told_by(&self, command: &Value) -> bool {
        command["endpoint"] == "purchase"
            && command["action_type"] == self.action
            && command["operator"] == json!({ "user_id": self.operator })
            && command["task"]["task_id"] == self.task.as_str()
            && command["task"]["instance_id"] == "instance"
            && command["action_context"] == self.context()
            && command["reason"] == self.reason()
    }
}

/// What became of a decision, as its sender was told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// 200, with this command id.
    Kept(String),
    /// A refusal, with this reason.
    Refused(String),
    /// No answer, or an answer that promises nothing either way.
    Unknown,
}

/// Remembers every decision that was sent and what was answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Oracle {
    book: Arc<Mutex<Book>>,
    number: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Book {
    fates: BTreeMap<(String, String), (Decision, Fate)>,
    /// The command ids of each task in the order in which they were answered, where one sender did one after the other.
    order: BTreeMap<String, Vec<String>>,
    refused: BTreeMap<String, usize>,
}

/// What an account says. [`Figures::check`] is the verdict.
#[must_use]
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) answered: usize,
    pub(crate) refused: BTreeMap<String, usize>,
    pub(crate) unknown: usize,
    /// Distinct commands that were routed to the queue.
    pub(crate) arrived: usize,
    pub(crate) parked: usize,
    /// Answered 200, and neither in the queue nor parked.
    pub(crate) missing: Vec<String>,
    /// Messages beyond the first of each command.
    pub(crate) published_again: usize,
    /// Messages that are no decision that was answered 200, or left without an answer; or a refused one.
    pub(crate) strangers: Vec<String>,
    /// Messages or parked commands that are not what was decided, or differ between repeats.
    pub(crate) changed: Vec<String>,
    /// Pairs of one task whose first messages came in another order than their answers.
    pub(crate) out_of_order: usize,
    /// From the call of [`Oracle::account`] until nothing was pending.
    pub(crate) recovered_in: Duration,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "answered 200 {}, refused {:?}, without an answer {}, arrived {}, parked {}, missing {}, strangers {}, changed {}, published \
             again {}, out of order {}, recovered in {:.1?}",
            self.answered,
            self.refused,
            self.unknown,
            self.arrived,
            self.parked,
            self.missing.len(),
            self.strangers.len(),
            self.changed.len(),
            self.published_again,
            self.out_of_order,
            self.recovered_in,
        )
    }
}

impl Figures {
    /// Says the figures on standard error, past the harness, and holds them to the promise.
    ///
    /// # Panics
    /// When something that was answered 200 is missing or changed, something is there that should not be, a task is out of
    /// order, or nothing was answered at all.
    #[track_caller]
    pub(crate) fn check(self, fault: &str) -> Self {
        let checked = self.check_any_order(fault);
        assert_eq!(checked.out_of_order, 0, "{fault}: a task is out of order");
        checked
    }

    /// [`Figures::check`] for faults after which the order of a task cannot be kept, as docs/workers.md says.
    #[track_caller]
    pub(crate) fn check_any_order(self, fault: &str) -> Self {
        writeln!(std::io::stderr(), "{fault}: {self}").expect("standard error is open");
        assert!(self.answered > 0, "{fault}: nothing was answered 200, so nothing was tried");
        assert!(self.missing.is_empty(), "{fault}: missing {:?}", self.missing);
        assert!(self.strangers.is_empty(), "{fault}: should not be there {:?}", self.strangers);
        assert!(self.changed.is_empty(), "{fault}: changed {:?}", self.changed);
        self
    }
}

impl Oracle {
    /// Nothing was sent yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what was answered to a decision; `None` if the connection ended without an answer.
    ///
    /// `in_turn` says that the sender had the answers to all earlier decisions of this task, so its order is known.
    pub(crate) fn note(&self, decision: Decision, answer: Option<&Answer>, in_turn: bool) {
        let fate = match answer {
            Some(answer) if answer.status == 200 => Fate::Kept(answer.command_id()),
            // The balancer's own words: it cannot know either.
            Some(answer) if answer.reason().is_empty() => {
                let who = format!("the balancer's {}", answer.status);
                *self.book().refused.entry(who).or_default() += 1;
                Fate::Unknown
            }
            // The ledger cannot say whether a commit that failed half-way is there after the next start.
            Some(answer) if answer.reason() == "ledger_unavailable" => {
                *self.book().refused.entry(answer.reason()).or_default() += 1;
                Fate::Unknown
            }
            Some(answer) => Fate::Refused(answer.reason()),
            None => Fate::Unknown,
        };
        let mut book = self.book();
        match &fate {
            Fate::Kept(id) if in_turn => {
                book.order.entry(decision.task.clone()).or_default().push(id.clone());
            }
            Fate::Refused(reason) => *book.refused.entry(reason.clone()).or_default() += 1,
            Fate::Kept(_) | Fate::Unknown => {}
        }
        let key = (decision.task.clone(), decision.operator.clone());
        // A repeat of a decision that was kept is the same one; a 200 says more than no answer before it.
        match book.fates.get(&key) {
            Some((_, Fate::Kept(before))) => {
                if let Fate::Kept(now) = &fate {
                    assert_eq!(before, now, "a repeat was given another command: {decision:?}");
                }
            }
            _ => drop(book.fates.insert(key, (decision, fate))),
        }
    }

    /// Notes a decision that was turned away in a way that is no answer of the contract: it must not be there.
    pub(crate) fn note_refused(&self, decision: Decision) {
        let key = (decision.task.clone(), decision.operator.clone());
        self.book().fates.insert(key, (decision, Fate::Refused("turned away".to_owned())));
    }

    /// Sends one decision, of a task that nobody else uses, and notes the answer.
    pub(crate) async fn send(&self, app: &App) -> Option<Answer> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let decision = Decision::new(&format!("single-{number}"), number);
        let answer = app.try_post("purchase", decision.body()).await.ok();
        self.note(decision, answer.as_ref(), true);
        answer
    }

    /// Sends `count` decisions, one after the other, all of which must be kept.
    pub(crate) async fn keep(&self, app: &App, count: usize) {
        for _ in 0..count {
            let answer = self.send(app).await.expect("the public listener answers");
            assert_eq!(answer.status, 200, "refused: {}", answer.text());
        }
    }

    /// Sends from `senders` connections at a time until [`Load::stop`]. Each has four tasks of its own, and decides them
    /// in turn, so that the order within a task is known. A sender that finds nobody tries again.
    pub(crate) fn load(&self, app: &App, senders: usize) -> Load {
        self.load_of(app, senders, 4, Duration::ZERO)
    }

    /// [`Oracle::load`] with so many tasks for each sender, and a pause after each decision.
    pub(crate) fn load_of(&self, app: &App, senders: usize, tasks_each: usize, pause: Duration) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..senders {
            let me = self.number.fetch_add(1, Ordering::Relaxed);
            let (client, url) = (app.client(), app.callback_url("purchase"));
            let (oracle, stop, answered) = (self.clone(), Arc::clone(&stop), Arc::clone(&answered));
            tasks.spawn(async move {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    let decision = Decision::new(&format!("load-{me}-{}", number % tasks_each), number);
                    number += 1;
                    let answer = post(&client, &url, decision.body()).await.ok();
                    let kept = answer.as_ref().is_some_and(|answer| answer.status == 200);
                    oracle.note(decision, answer.as_ref(), true);
                    if kept {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    // Not to spin while the program is away.
                    let pause = if kept { pause } else { Duration::from_millis(5) };
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
            });
        }
        Load { stop, answered, tasks }
    }

    /// Waits until the ledger has nothing pending any more and the worker has all, and compares.
    ///
    /// The fault is over when this is called: broker and program are there, and the worker consumes where the program
    /// publishes.
    pub(crate) async fn account(&self, app: &App, worker: &Worker) -> Figures {
        self.account_of(app, async || worker.seen()).await
    }

    /// [`Oracle::account`] for messages that are read in some other way: `came` gives all that came so far.
    pub(crate) async fn account_of(&self, app: &App, mut came: impl AsyncFnMut() -> Vec<Message>) -> Figures {
        /// Draining a backlog takes as long as it takes.
        const LONG: Duration = Duration::from_secs(300);
        let began = Instant::now();
        eventually_within(LONG, "nothing to be pending any more", async || {
            match app.metric(r#"countersign_ledger_rows{state="pending"}"#).await {
                Some(0.0) => Ok(()),
                pending => Err(pending),
            }
        })
        .await;
        let recovered_in = began.elapsed();
        let parked = parked(app).await;
        let kept: BTreeSet<String> = self.kept();
        // What the program has as published has left it; the worker may need a moment more. What is missing then is.
        let all = |messages: &[Message]| {
            let ids: BTreeSet<String> = messages.iter().map(Message::message_id).collect();
            kept.iter().filter(|id| !ids.contains(*id) && !parked.contains_key(*id)).count()
        };
        let waited = tokio::time::timeout(
            Duration::from_secs(20),
            eventually("all that was published to be read", async || match all(&came().await) {
                0 => Ok(()),
                missing => Err(missing),
            }),
        );
        drop(waited.await);
        self.compare(&came().await, &parked, recovered_in)
    }

    /// How many decisions were refused so far.
    pub(crate) fn refused(&self) -> usize {
        self.book().refused.values().sum()
    }

    /// The ids of all that was answered 200.
    pub(crate) fn kept(&self) -> BTreeSet<String> {
        let book = self.book();
        let kept = |(_, fate): &(Decision, Fate)| match fate {
            Fate::Kept(id) => Some(id.clone()),
            Fate::Refused(_) | Fate::Unknown => None,
        };
        book.fates.values().filter_map(kept).collect()
    }

    /// The comparison itself: what came from the queue, and what stands in the ledger as parked.
    pub(crate) fn compare(
        &self,
        messages: &[Message],
        parked: &BTreeMap<String, Value>,
        recovered_in: Duration,
    ) -> Figures {
        let book = self.book();
        let mut bodies: BTreeMap<String, &[u8]> = BTreeMap::new();
        let mut first_seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut changed = BTreeSet::new();
        let mut strangers = BTreeSet::new();
        let mut differing = Vec::new();
        let mut unknown_as: BTreeMap<(String, String), String> = BTreeMap::new();
        let mut judge = |id: &str, command: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let key = (text(&command["task"]["task_id"]), text(&command["operator"]["user_id"]));
            match book.fates.get(&key) {
                Some((decision, Fate::Kept(kept))) if kept == id => {
                    if !decision.is_told_by(command) || command["command_id"] != id {
                        changed.insert(id.to_owned());
                    }
                }
                Some((decision, Fate::Unknown)) => {
                    let first = unknown_as.entry(key).or_insert_with(|| id.to_owned());
                    if first != id {
                        strangers.insert(format!("{id}: twice kept"));
                    } else if !decision.is_told_by(command) {
                        changed.insert(id.to_owned());
                    }
                }
                found => drop(strangers.insert(format!("{id}: {found:?}"))),
            }
        };
        for (place, message) in messages.iter().enumerate() {
            let id = message.message_id();
            judge(&id, &message.json());
            first_seen.entry(id.clone()).or_insert(place);
            if *bodies.entry(id.clone()).or_insert(&message.body) != message.body.as_slice() {
                differing.push(id);
            }
        }
        for (id, command) in parked {
            judge(id, command);
        }
        changed.extend(differing);
        let kept: BTreeSet<&String> = book
            .fates
            .values()
            .filter_map(|(_, fate)| if let Fate::Kept(id) = fate { Some(id) } else { None })
            .collect();
        let there = |id: &String| first_seen.contains_key(id) || parked.contains_key(id);
        let missing = kept.iter().filter(|id| !there(id)).map(|id| (*id).clone()).collect();
        let out_of_order = book
            .order
            .values()
            .flat_map(|ids| ids.windows(2))
            .filter(|pair| match (first_seen.get(&pair[0]), first_seen.get(&pair[1])) {
                (Some(earlier), Some(later)) => earlier > later,
                // Parked or missing: counted elsewhere.
                _ => false,
            })
            .count();
        Figures {
            answered: kept.len(),
            refused: book.refused.clone(),
            unknown: book.fates.values().filter(|(_, fate)| *fate == Fate::Unknown).count(),
            arrived: first_seen.len(),
            parked: parked.len(),
            missing,
            published_again: messages.len() - first_seen.len(),
            strangers: strangers.into_iter().collect(),
            changed: changed.into_iter().collect(),
            out_of_order,
            recovered_in,
        }
    }
}

/// Every parked command with its message, by the API.
async fn parked(app: &App) -> BTreeMap<String, Value> {
    let mut parked = BTreeMap::new();
    let mut page = "/api/v1/commands?state=parked&limit=500".to_owned();
    loop {
        let listed = app.get(&page).await.json();
        for record in listed["commands"].as_array().expect("a list of commands") {
            let id = record["command_id"].as_str().expect("an id").to_owned();
            let command = app.get(&format!("/api/v1/commands/{id}")).await.json()["command"].take();
            parked.insert(id, command);
        }
        match listed["next_before"].as_u64() {
            Some(before) => page = format!("/api/v1/commands?state=parked&limit=500&before={before}"),
            None => return parked,
        }
    }
}

/// Senders that go on until they are told to stop.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Load {
    /// How many were answered 200 so far.
    pub(crate) fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more were answered 200.
    pub(crate) async fn until_answered(&self, more: usize) {
        let wanted = self.answered() + more;
        eventually(&format!("{more} more answers of 200"), async || match self.answered() {
            answered if answered >= wanted => Ok(()),
            answered => Err(answered),
        })
        .await;
    }

    /// Stops sending, and waits for the answers that are under way.
    pub(crate) async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
    }
}

/// Lets something happen while some hundred decisions a second are sent, of four tasks in turn.
///
/// [`Oracle::load`] sends as fast as it is answered; what piles up behind a long fault would take longer than the fault.
pub(crate) async fn trickle<T>(oracle: &Oracle, app: &App, happening: impl Future<Output = T>) -> T {
    let stop = AtomicBool::new(false);
    let me = oracle.number.fetch_add(1, Ordering::Relaxed);
    let sending = async {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            let decision = Decision::new(&format!("trickle-{me}-{}", number % 4), number);
            number += 1;
            let answer = app.try_post("purchase", decision.body()).await.ok();
            oracle.note(decision, answer.as_ref(), true);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let happening = async {
        let happened = happening.await;
        stop.store(true, Ordering::Relaxed);
        happened
    };
    tokio::join!(sending, happening).1
}
