//! The machine step by step: what the worlds pass through without looking at it, and what only costs time or memory there.

use std::time::Duration;

use jiff::Timestamp;

use super::super::{
    Cargo, Due, Effect, Flight, Found, Machine, Moment, Notice, Question, Rules, Stage, TICK, Unreadable,
    tasks::Known,
};
use crate::{
    command::{CommandId, Seq, TaskKey},
    ledger::{Exception, Settlement, State},
    relay::{LateReturn, Outcome},
};

/// A command without a message: its place in the log, and its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Of(Seq, u64);

impl Cargo for Of {
    fn seq(&self) -> Seq {
        self.0
    }

    fn task_key(&self) -> TaskKey {
        TaskKey::from_value(self.1)
    }
}

fn at(elapsed: Duration) -> Moment {
    Moment { at: Timestamp::UNIX_EPOCH + elapsed, elapsed }
}

const START: Duration = Duration::from_secs(100);
const NONE: [Seq; 0] = [];
const CALM: Duration = Duration::from_secs(5);

fn rules() -> Rules {
    Rules {
        max_in_flight: 2,
        max_attempts: 3,
        confirm_timeout: Duration::from_secs(30),
        max_exceptions: 10,
        max_stragglers: 10,
        calm: CALM,
        salt: 7,
    }
}

/// A machine, and the log that it serves. Questions and reads are answered by the test.
struct Bench {
    machine: Machine<Of>,
    /// The tasks of the commands.
    log: Vec<u64>,
    now: Duration,
    asked: Vec<Question>,
    settlements: Vec<Settlement>,
    said: Vec<Notice>,
    keep_fresh: Vec<bool>,
    /// Where the log was to be read from.
    reads: Vec<Seq>,
    taken_fresh: usize,
}

impl Bench {
    /// In a session that has just begun.
    fn new(rules: Rules, log: &[u64], cursor: Seq, waiting: &[Seq]) -> Self {
        let mut bench = Self {
            machine: Machine::new(rules),
            log: log.to_vec(),
            now: START,
            asked: Vec::new(),
            settlements: Vec::new(),
            said: Vec::new(),
            keep_fresh: Vec::new(),
            reads: Vec::new(),
            taken_fresh: 0,
        };
        bench.begin(cursor, waiting);
        bench
    }

    fn begin(&mut self, cursor: Seq, waiting: &[Seq]) {
        let waiting = waiting.iter().map(|seq| (self.of(*seq).task_key(), *seq)).collect();
        self.machine.begin(cursor, waiting, at(self.now));
    }

    fn of(&self, seq: Seq) -> Of {
        Of(seq, self.log[usize::try_from(seq - 1).unwrap()])
    }

    /// Does what the machine wants until it wants nothing; returns what it publishes. Settlements are written.
    fn publishes(&mut self) -> Vec<Seq> {
        let mut published = Vec::new();
        while let Some(effect) = self.machine.next(self.log.len() as Seq, false, at(self.now)) {
            match effect {
                Effect::Publish(command) => published.push(command.0),
                Effect::Prepare(command) => panic!("{command:?} needs nothing"),
                Effect::TakeFresh => {
                    self.taken_fresh += 1;
                    self.machine.fresh(Vec::new());
                }
                Effect::KeepFresh(wanted) => self.keep_fresh.push(wanted),
                Effect::ReadLog { after, .. } => self.reads.push(after),
                Effect::Ask(question) => self.asked.push(question),
                Effect::Settle(settlement) => {
                    self.settlements.push(settlement);
                    self.machine.settled(true, at(self.now));
                }
                Effect::Say(notice) => self.said.push(notice),
            }
        }
        published
    }

    /// Answers the last question with exceptions that are due, and how often each was refused.
    fn due(&mut self, due: &[(Seq, u32)]) -> Vec<Seq> {
        assert!(matches!(self.asked.pop(), Some(Question::Due { .. })), "it is not asked");
        let due = due.iter().map(|(seq, attempts)| Due { cargo: self.of(*seq), attempts: *attempts });
        self.machine.due(Ok(due.collect()), at(self.now));
        self.publishes()
    }

    /// Answers the last read with these.
    fn read(&mut self, read: &[Seq]) -> Vec<Seq> {
        self.reads.pop().expect("it is read");
        self.machine.log_read(Ok(read.iter().map(|seq| self.of(*seq)).collect()));
        self.publishes()
    }

    fn answer(&mut self, outcome: Outcome) -> Vec<Seq> {
        self.machine.answered(outcome, at(self.now));
        self.publishes()
    }

    fn tick(&mut self) -> Vec<Seq> {
        assert!(!self.machine.tick(at(self.now)));
        self.publishes()
    }

    fn return_late(&mut self, seq: Seq) -> Vec<Seq> {
        self.machine.returned_late(late(seq));
        self.publishes()
    }

    /// Answers that the command was published.
    fn found(&mut self, seq: Seq) -> Vec<Seq> {
        assert!(matches!(self.asked.pop(), Some(Question::Find { .. })), "it is not asked");
        let found =
            Found { seq, state: State::Published, attempts: None, key: Some(self.of(seq).task_key()) };
        self.machine.found(Ok(Some(found)), at(self.now));
        self.publishes()
    }

    /// The exceptions of the last settlement: which, refused how often, and how long they rest.
    fn excepted(&self) -> Vec<(Seq, u32, Duration)> {
        let exceptions = &self.settlements.last().expect("something is settled").exceptions;
        let rests = |exception: &Exception| {
            let rests = exception.next_attempt_at.duration_since(at(self.now).at);
            Duration::try_from(rests).expect("it is not due before now")
        };
        exceptions.iter().map(|exception| (exception.seq, exception.attempts, rests(exception))).collect()
    }

    /// Ends the session over what is in flight.
    fn end(&mut self) {
        self.machine.lost(Some("406 PRECONDITION_FAILED".to_owned()), at(self.now));
        (self.asked, self.reads) = (Vec::new(), Vec::new());
        self.publishes();
    }
}

fn late(seq: Seq) -> LateReturn {
    let command_id = CommandId::from_bytes(u128::from(seq).to_be_bytes());
    LateReturn { command_id, reason: "312 NO_ROUTE".to_owned() }
}

#[test]
fn one_that_ends_sessions_is_tried_alone_in_a_session_that_is_some_seconds_old() {
    let mut bench = Bench::new(rules(), &[1], 0, &[]);
    bench.publishes();
    assert_eq!(bench.read(&[1]), [1]);
    bench.end();
    bench.begin(1, &[1]);
    bench.publishes();
    assert_eq!(bench.due(&[(1, 1)]), NONE, "not in a young session");
    bench.log.push(2);
    bench.now += CALM - TICK;
    assert_eq!(bench.tick(), NONE);
    bench.now += TICK;
    assert_eq!(bench.tick(), [1]);
    assert_eq!(bench.read(&[2]), NONE, "nothing beside it");
    assert_eq!(bench.answer(Outcome::Confirmed), [2]);
}

#[test]
fn one_that_ended_a_session_and_waits_no_longer_is_like_any_other_afterwards() {
    let mut bench = Bench::new(rules(), &[1, 2], 0, &[]);
    bench.publishes();
    assert_eq!(bench.read(&[1]), [1]);
    bench.end();
    // An operator has parked it, and then has it published again.
    bench.begin(1, &[]);
    bench.publishes();
    bench.end();
    bench.begin(1, &[1]);
    bench.publishes();
    assert_eq!(bench.due(&[(1, 0)]), [1], "it is not waited for a calm");
    bench.end();
    let set_aside = bench.said.iter().filter(|notice| matches!(notice, Notice::SetAside { .. })).count();
    assert_eq!(set_aside, 2, "it has to show again that it is the only one");
}

#[test]
fn beside_one_that_ends_sessions_others_are_tried_as_ever() {
    let mut bench = Bench::new(rules(), &[1], 0, &[]);
    bench.publishes();
    assert_eq!(bench.read(&[1]), [1]);
    bench.end();
    bench.log.push(2);
    bench.begin(2, &[1, 2]);
    bench.publishes();
    assert_eq!(bench.due(&[(1, 1), (2, 1)]), [2], "in a young session");
}

#[test]
fn that_commands_are_published_one_at_a_time_is_said_once() {
    let mut bench = Bench::new(rules(), &[1, 2], 0, &[]);
    bench.publishes();
    assert_eq!(bench.read(&[1, 2]), [1, 2]);
    bench.end();
    let careful = [Notice::Careful { in_flight: 2 }];
    assert_eq!(bench.said, careful);
    bench.begin(0, &[]);
    bench.publishes();
    assert_eq!(bench.read(&[1, 2]), [1]);
    assert_eq!(bench.answer(Outcome::Confirmed), [2]);
    assert_eq!(bench.said, careful);
}

#[test]
fn what_only_waits_is_postponed_with_the_first_and_what_was_refused_is_not() {
    let mut bench = Bench::new(rules(), &[7, 7, 7], 0, &[]);
    bench.publishes();
    bench.due(&[]);
    assert_eq!(bench.read(&[1, 2, 3]), [1, 2]);
    bench.answer(Outcome::Nacked);
    bench.answer(Outcome::Nacked);
    bench.now += TICK * 2;
    bench.tick();
    assert_eq!(bench.due(&[(1, 1)]), [1]);
    bench.answer(Outcome::Nacked);
    let [(1, 2, first), (3, 0, waits)] = bench.excepted()[..] else { panic!("{:?}", bench.excepted()) };
    assert!(first == waits && !first.is_zero(), "{first:?} {waits:?}");
}

#[test]
fn a_refusal_postpones_nothing_before_it() {
    // An operator has had 1 published again while 2 is tried; the broker blocks before it was.
    let mut bench = Bench::new(Rules { max_in_flight: 1, ..rules() }, &[7, 7], 2, &[2]);
    bench.publishes();
    assert_eq!(bench.due(&[(2, 1)]), [2]);
    bench.tick();
    assert_eq!(bench.due(&[(1, 0)]), NONE);
    bench.machine.blocked(true, at(bench.now));
    bench.answer(Outcome::Nacked);
    let excepted: Vec<_> = bench.excepted().iter().map(|(seq, attempts, _)| (*seq, *attempts)).collect();
    assert_eq!(excepted, [(2, 2)]);
}

#[test]
fn once_the_first_is_through_what_only_waits_is_due_and_is_looked_for_when_that_is_written() {
    let mut bench = Bench::new(Rules { max_in_flight: 3, ..rules() }, &[7, 7, 7, 7], 3, &[1, 2, 3]);
    bench.publishes();
    assert_eq!(bench.due(&[(1, 1)]), [1]);
    // 2 has been refused itself, 3 waits until later, 4 until now.
    let rests = |attempts, rests| Known {
        attempts: Some(attempts),
        next_attempt_at: Some(at(START + rests).at),
        stage: Stage::Resting,
    };
    bench.machine.note(TaskKey::from_value(7), 2, rests(1, TICK));
    bench.machine.note(TaskKey::from_value(7), 3, rests(0, TICK));
    assert_eq!(bench.read(&[4]), NONE);
    assert_eq!(bench.excepted(), [(4, 0, Duration::ZERO)]);
    assert_eq!(bench.asked, []);
    bench.answer(Outcome::Confirmed);
    assert_eq!(bench.excepted(), [(3, 0, Duration::ZERO)]);
    assert_eq!(bench.settlements.last().unwrap().cleared, [1]);
    let look = Question::Due { at: at(START).at, limit: 6 };
    assert_eq!(bench.asked, [look], "before the next tick");
    // 2 is tried and 3 held behind it: when 2 is through, nothing has to be looked for.
    assert_eq!(bench.due(&[(2, 1), (3, 0)]), [2]);
    assert_eq!(bench.answer(Outcome::Confirmed), [3]);
    assert_eq!(bench.settlements.last().unwrap().cleared, [2]);
    assert_eq!(bench.asked, []);
}

#[test]
fn those_held_behind_one_go_out_one_after_the_other() {
    let mut bench = Bench::new(Rules { max_in_flight: 3, ..rules() }, &[7, 7, 7], 3, &[1, 2, 3]);
    bench.publishes();
    assert_eq!(bench.due(&[(1, 1), (2, 0), (3, 0)]), [1]);
    assert_eq!(bench.answer(Outcome::Confirmed), [2]);
    assert_eq!(bench.answer(Outcome::Confirmed), [3]);
    assert_eq!(bench.asked, [], "nothing had to be looked for");
}

#[test]
fn one_that_is_held_is_read_again_if_its_turn_does_not_come_at_once() {
    let mut bench = Bench::new(rules(), &[7, 7, 7], 3, &[1, 2, 3]);
    bench.publishes();
    assert_eq!(bench.due(&[(1, 1), (3, 0)]), [1]);
    assert_eq!(bench.machine.session.held, 1);
    assert_eq!(bench.answer(Outcome::Confirmed), NONE, "2 comes first, and was not listed");
    assert_eq!(bench.machine.session.held, 0, "an operator may act on 3 until then");
}

#[test]
fn what_was_tried_in_a_session_that_is_over_is_postponed_like_the_rest_of_its_task() {
    let mut bench = Bench::new(rules(), &[7, 7], 2, &[2]);
    bench.publishes();
    assert_eq!(bench.due(&[(2, 0)]), [2]);
    bench.machine.returned_late(late(1));
    bench.machine.lost(None, at(bench.now));
    bench.publishes();
    assert_eq!(bench.found(1), NONE);
    let [(1, 1, first), (2, 0, waits)] = bench.excepted()[..] else { panic!("{:?}", bench.excepted()) };
    assert!(first == waits && !first.is_zero(), "{first:?} {waits:?}");
}

#[test]
fn what_was_listed_before_the_broker_blocked_is_looked_for_again() {
    let mut bench = Bench::new(rules(), &[7], 1, &[1]);
    bench.publishes();
    bench.machine.blocked(true, at(bench.now));
    let stale = Due { cargo: bench.of(1), attempts: 0 };
    bench.machine.due(Ok(vec![stale]), at(bench.now));
    bench.asked.clear();
    bench.machine.blocked(false, at(bench.now));
    assert_eq!(bench.publishes(), NONE, "an operator may have parked it meanwhile");
    assert_eq!(bench.due(&[(1, 0)]), [1]);
}

#[test]
fn as_many_late_returns_are_counted_as_exceptions_may_wait() {
    let mut bench = Bench::new(Rules { max_exceptions: 1, ..rules() }, &[7], 1, &[]);
    bench.publishes();
    bench.due(&[]);
    for attempts in 1..=2 {
        bench.return_late(1);
        assert_eq!(bench.found(1), NONE);
        assert_eq!(bench.excepted()[0].1, attempts);
        bench.tick();
        assert_eq!(bench.due(&[(1, attempts)]), [1]);
        bench.answer(Outcome::Confirmed);
    }
}

#[test]
fn after_a_late_return_later_ones_of_its_task_whose_turn_had_come_wait() {
    let mut bench = Bench::new(Rules { max_in_flight: 1, ..rules() }, &[7, 7, 8, 9], 3, &[2, 3]);
    bench.publishes();
    assert_eq!(bench.read(&[4]), [4]);
    assert_eq!(bench.due(&[(2, 1)]), NONE, "4 is in flight");
    bench.machine.session.retries.push_back(Due { cargo: Of(3, 8), attempts: 1 });
    bench.return_late(1);
    assert_eq!(bench.found(1), NONE);
    assert_eq!(bench.answer(Outcome::Confirmed), [3], "2 waits for 1");
}

#[test]
fn while_a_late_return_is_looked_up_nothing_is_published_unless_the_ledger_cannot_be_read() {
    let mut bench = Bench::new(rules(), &[7, 7], 1, &[]);
    bench.publishes();
    bench.due(&[]);
    bench.return_late(1);
    assert_eq!(bench.read(&[2]), NONE, "it may be of the same task");
    bench.asked.clear();
    bench.machine.found(Err(Unreadable), at(bench.now));
    assert_eq!(bench.publishes(), [2]);
}

#[test]
fn of_those_behind_one_that_is_tried_only_as_many_are_held_as_may_be_in_flight() {
    let mut bench = Bench::new(rules(), &[7, 7, 7, 7], 4, &[1, 2, 3, 4]);
    bench.publishes();
    assert_eq!(bench.due(&[(1, 1), (2, 0), (3, 0), (4, 0)]), [1]);
    // The others are out of the way of what can be published.
    assert_eq!(bench.excepted(), [(4, 0, TICK)]);
    assert_eq!(bench.asked, [], "1 is not missing");
}

#[test]
fn one_that_is_held_and_found_in_the_log_is_held_no_longer() {
    let mut bench = Bench::new(rules(), &[7, 7], 1, &[1]);
    bench.publishes();
    // While the log is read an operator has acted on 2.
    assert_eq!(bench.due(&[(1, 1), (2, 0)]), [1]);
    assert_eq!(bench.machine.session.held, 1);
    assert_eq!(bench.read(&[2]), NONE);
    assert_eq!(bench.machine.session.held, 0);
}

#[test]
fn exceptions_are_not_looked_for_while_as_many_as_may_be_in_flight_have_their_turn() {
    fn two() -> [Due<Of>; 2] {
        [1, 2].map(|seq| Due { cargo: Of(seq, seq), attempts: 1 })
    }
    let looks = |fill: fn(&mut Machine<Of>)| {
        let mut bench = Bench::new(rules(), &[], 0, &[]);
        fill(&mut bench.machine);
        matches!(bench.machine.write(false, at(START)), Some(Effect::Ask(Question::Due { .. })))
    };
    assert!(looks(|machine| machine.session.held = 1));
    assert!(!looks(|machine| machine.session.held = 2));
    assert!(!looks(|machine| machine.session.retries.extend(two())));
    assert!(!looks(|machine| machine.session.alone.extend(two())));
    assert!(!looks(|machine| {
        machine.session.preparing.extend([1, 2].map(|seq| (seq, (TaskKey::from_value(seq), 1))));
    }));
}

#[test]
fn exceptions_that_all_wait_still_are_not_worth_a_word() {
    let mut bench = Bench::new(rules(), &[7], 1, &[1]);
    bench.machine.session.review_wanted = true;
    bench.publishes();
    assert_eq!(bench.asked, [Question::Waiting]);
    bench.machine.waiting(Ok(vec![(TaskKey::from_value(7), 1)]), at(bench.now));
    bench.publishes();
    assert_eq!(bench.said, []);
}

#[test]
fn while_crowded_the_log_is_not_read_and_nothing_fresh_is_kept() {
    let log: Vec<u64> = (1..=20).collect();
    let waiting: Vec<Seq> = (1..=10).collect();
    let mut bench = Bench::new(rules(), &log, 10, &waiting);
    assert_eq!(bench.publishes(), NONE);
    assert_eq!((&*bench.said, &*bench.reads), (&[Notice::Crowded { waiting: 10 }][..], &NONE[..]));
    assert_eq!(bench.keep_fresh, [false]);
    assert_eq!(bench.due(&[(1, 1), (2, 1)]), [1, 2]);
    bench.answer(Outcome::Confirmed);
    bench.answer(Outcome::Confirmed);
    assert_eq!((&bench.said[1..], &*bench.reads), (&[Notice::RoomAgain { waiting: 8 }][..], &[10_u64][..]));
    assert_eq!(bench.keep_fresh, [false, true]);
}

#[test]
fn the_next_lot_is_read_when_half_of_the_last_is_gone() {
    let log: Vec<u64> = (1..=100).collect();
    let mut bench = Bench::new(Rules { max_in_flight: 16, ..rules() }, &log, 0, &[]);
    bench.publishes();
    bench.due(&[]);
    let lot: Vec<Seq> = (1..=16).collect();
    assert_eq!(bench.read(&lot), lot);
    assert_eq!(bench.reads, [16], "while the first lot is with the broker");
    let lot: Vec<Seq> = (17..=32).collect();
    assert_eq!(bench.read(&lot), NONE);
    for seq in 17..=24 {
        assert_eq!(bench.answer(Outcome::Confirmed), [seq]);
        assert_eq!(bench.reads, NONE, "after {seq}");
    }
    assert_eq!(bench.answer(Outcome::Confirmed), [25]);
    assert_eq!(bench.reads, [32]);
}

#[test]
fn what_is_fresh_is_taken_once_the_log_is_read_to_its_end_and_never_while_it_is_read() {
    let mut bench = Bench::new(rules(), &[1], 0, &[]);
    bench.publishes();
    bench.due(&[]);
    assert_eq!(bench.read(&[1]), [1]);
    assert_eq!((bench.taken_fresh, &*bench.reads), (0, &NONE[..]), "the log is at its end");
    bench.log.push(2);
    assert_eq!(bench.publishes(), NONE);
    assert_eq!((bench.taken_fresh, &*bench.reads), (1, &[1_u64][..]), "2 is not among the fresh");
    bench.log.push(3);
    assert_eq!(bench.publishes(), NONE);
    assert_eq!(bench.taken_fresh, 1, "it would be published twice");
    assert_eq!(bench.read(&[2, 3]), [2]);
}

#[test]
fn news_of_the_log_are_of_use_if_something_could_be_published() {
    fn flight(seq: Seq) -> Flight {
        Flight { seq, key: TaskKey::from_value(seq), attempts: None, sent_at: START }
    }
    let wants_more = |change: fn(&mut Machine<Of>)| {
        let mut bench = Bench::new(rules(), &[1], 0, &[]);
        change(&mut bench.machine);
        bench.machine.wants_more()
    };
    assert!(wants_more(|_| {}));
    assert!(!wants_more(|machine| machine.session.blocked = true));
    assert!(!wants_more(|machine| machine.session.crowded = true));
    assert!(!wants_more(|machine| machine.session.read_paused = true));
    assert!(!wants_more(|machine| machine.session.reading = Some(1)));
    assert!(!wants_more(|machine| machine.session.ready.push_back(Of(1, 1))));
    assert!(wants_more(|machine| machine.session.in_flight.extend([flight(1)])));
    assert!(!wants_more(|machine| machine.session.in_flight.extend([flight(1), flight(2)])));
}

#[test]
fn no_more_commands_wait_for_what_is_prepared_than_may() {
    /// Each of a task of its own.
    #[derive(Debug, Clone, Copy)]
    struct Slow {
        seq: Seq,
        raw: bool,
    }
    impl Cargo for Slow {
        fn seq(&self) -> Seq {
            self.seq
        }

        fn task_key(&self) -> TaskKey {
            TaskKey::from_value(self.seq)
        }

        fn is_raw(&self) -> bool {
            self.raw
        }
    }
    let mut machine = Machine::new(Rules { max_in_flight: 10, max_stragglers: 2, ..rules() });
    machine.begin(0, Vec::new(), at(START));
    let mut turn = |prepared: Option<Seq>| {
        if let Some(seq) = prepared {
            machine.prepared(Slow { seq, raw: false });
        }
        let (mut begun, mut published) = (Vec::new(), Vec::new());
        while let Some(effect) = machine.next(4, false, at(START)) {
            match effect {
                Effect::Prepare(command) => begun.push(command.seq),
                Effect::Publish(command) => published.push(command.seq),
                Effect::ReadLog { after: 0, .. } => {
                    machine.log_read(Ok((1..=4).map(|seq| Slow { seq, raw: true }).collect()));
                }
                _ => {}
            }
        }
        (begun, published)
    };
    assert_eq!(turn(None), (vec![1, 2], vec![]));
    assert_eq!(turn(Some(2)), (vec![3], vec![2]));
    assert_eq!(turn(Some(3)), (vec![4], vec![3]));
    assert_eq!(turn(Some(1)), (vec![], vec![1]));
}
