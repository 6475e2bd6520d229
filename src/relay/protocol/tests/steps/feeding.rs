//! The source of the next commands, and how many are taken.

use super::{Bench, NONE, Of, START, at, rules};
use crate::{
    command::{Seq, TaskKey},
    relay::{
        BrokerAnswer,
        protocol::{Cargo, Effect, Flight, Gate, Machine, Notice, Rules, Unreadable},
    },
};

#[test]
fn while_crowded_the_log_is_not_read_and_nothing_fresh_is_kept() {
    let log: Vec<u64> = (1..=20).collect();
    let waiting: Vec<Seq> = (1..=10).collect();
    let mut bench = Bench::new(rules(), &log, 10, &waiting);
    assert_eq!(bench.publishes(), NONE);
    assert_eq!((&*bench.said, &*bench.reads), (&[Notice::Crowded { waiting: 10 }][..], &NONE[..]));
    assert_eq!(bench.keep_fresh, [false]);
    assert_eq!(bench.due(&[(1, 1), (2, 1)]), [1, 2]);
    bench.answer(BrokerAnswer::Confirmed);
    bench.answer(BrokerAnswer::Confirmed);
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
        assert_eq!(bench.answer(BrokerAnswer::Confirmed), [seq]);
        assert_eq!(bench.reads, NONE, "after {seq}");
    }
    assert_eq!(bench.answer(BrokerAnswer::Confirmed), [25]);
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
    assert!(!wants_more(|machine| machine.session.gate = Gate::Blocked));
    assert!(!wants_more(|machine| machine.session.crowded = true));
    assert!(!wants_more(|machine| drop(machine.next(1, false, at(START)))), "the log is being read");
    assert!(!wants_more(|machine| {
        machine.next(1, false, at(START));
        machine.log_read(Err(Unreadable));
    }));
    assert!(!wants_more(|machine| {
        machine.next(1, false, at(START));
        machine.log_read(Ok(vec![Of(1, 1)]));
    }));
    assert!(wants_more(|machine| machine.session.in_flight.extend([flight(1)])));
    assert!(!wants_more(|machine| machine.session.in_flight.extend([flight(1), flight(2)])));
}

#[test]
fn no_more_commands_wait_for_what_is_prepared_than_may() {
    /// Each the only one of its task.
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
