//! The publishes without an outcome, and the matching of returns to them.
//!
//! # Why a confirm alone does not determine the outcome
//! RabbitMQ sends `basic.return` for a command before it confirms it, and returns in publish order. lapin (4.12.3,
//! `acknowledgement.rs` and `returned_messages.rs`) queues the returned message and attaches it to *whichever confirm
//! completes next*; and a `basic.ack` with `multiple` completes its publishes in the order of a hash map. So the
//! confirm of command 7 may carry the return of command 3, and command 3 then looks confirmed and routed. Returns are
//! therefore matched by `message_id`, and an outcome is reported only when no confirm that could carry its return is
//! left unread:
//!
//! 1. Read the available answers from the front: the *prefix*.
//! 2. Pass the barrier. lapin completes everything that one ack or nack covers under one lock. Once the lock is
//!    acquired, the batch that completed anything in the prefix is complete. The return of a command in the prefix was
//!    received before its confirm, so it was attached to a confirm of that batch or of an earlier one.
//! 3. Read all other answers once. Now every confirm of those batches has been read.
//! 4. Only then report the outcomes of the prefix.
//!
//! Step 2 relies on that order: lapin attaches one return to each confirm, first come, first served. So when the whole
//! prefix is confirmed, all its returns have been attached, unless a return of a later command came before them.
//!
//! A return that arrives after that, out of order or against the protocol, is reported as late. lapin attaches it only
//! to the next confirm: if none comes before the session ends, the return is lost. RabbitMQ never does this; a broker
//! would have to violate the protocol.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use crate::{
    command::CommandId,
    relay::{BrokerAnswer, LateReturn, News},
};

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) ack: bool,
    /// A returned message; not necessarily the one that was confirmed.
    pub(super) returned: Option<Returned>,
}

#[derive(Debug)]
pub(super) struct Returned {
    /// `None` if it is not one of ours.
    pub(super) command_id: Option<CommandId>,
    pub(super) reason: String,
}

/// From this many publishes on, answers are awaited in batches.
const MUCH: usize = 32;

/// Publishes in order, with their answers.
pub(super) struct Window<F> {
    slots: VecDeque<Slot<F>>,
    /// How many of them, the last ones, have not been polled yet.
    unstarted: usize,
    /// Returns that were read and are not yet matched.
    returned: Vec<Returned>,
    /// Read everything at the next poll, whatever caused the wake-up.
    thorough: bool,
}

struct Slot<F> {
    command_id: CommandId,
    answer: Awaited<F>,
    returned: Option<String>,
}

enum Awaited<F> {
    Future(F),
    Here { ack: bool },
}

impl<F, E> Window<F>
where
    F: Future<Output = Result<Answer, E>> + Unpin,
{
    pub(super) fn new() -> Self {
        Self { slots: VecDeque::new(), unstarted: 0, returned: Vec::new(), thorough: false }
    }

    /// Keeps a publish, for [`start`](Self::start).
    pub(super) fn push(&mut self, command_id: CommandId, future: F) {
        self.slots.push_back(Slot { command_id, answer: Awaited::Future(future), returned: None });
        self.unstarted += 1;
    }

    /// Starts what was pushed: the first poll of each queues its frames.
    ///
    /// One right after the other, so that lapin's thread, which the first one wakes up, finds many of them: pushed one at a time,
    /// as they are made, it writes most of them singly, with a wake-up, a system call and a packet for each.
    pub(super) fn start(&mut self) -> Result<(), E> {
        let first = self.slots.len() - std::mem::take(&mut self.unstarted);
        (first..self.slots.len()).try_for_each(|index| self.read(index).map(drop))
    }

    pub(super) fn be_thorough(&mut self) {
        self.thorough = true;
    }

    /// After an error: the first relevant error among all answers.
    pub(super) fn cause(&mut self, is_to_the_point: impl Fn(&E) -> bool) -> Option<E> {
        (0..self.slots.len()).filter_map(|index| self.read(index).err()).find(is_to_the_point)
    }

    /// Reports the outcomes that are certain. `barrier` passes the barrier and returns the unattached returns.
    ///
    /// A large window wakes up only after a quarter of it: answers come by the hundred, and a wake-up for each would
    /// cost more than the answers do. An answer that comes out of order can delay the wake-up for those before it, so
    /// [`be_thorough`](Self::be_thorough) must be called periodically.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut barrier: impl FnMut() -> Vec<Returned>,
        news: &mut News,
    ) -> Poll<Result<(), E>> {
        debug_assert_eq!(self.unstarted, 0, "what is read is started, and would overtake those before it");
        if self.slots.is_empty() {
            return Poll::Pending;
        }
        let waited_for = if self.slots.len() < MUCH { 0 } else { self.slots.len() / 4 };
        if !std::mem::take(&mut self.thorough) && !self.is_here(waited_for, cx)? {
            return Poll::Pending;
        }
        loop {
            let mut prefix = 0;
            while prefix < self.slots.len() && self.read(prefix)? {
                prefix += 1;
            }
            if prefix > 0 {
                self.returned.extend(barrier());
                for index in prefix..self.slots.len() {
                    self.read(index)?;
                }
            }
            self.match_returns(news);
            news.outcomes.extend(self.slots.drain(..prefix).map(Slot::outcome));
            if prefix > 0 || !news.late.is_empty() {
                return Poll::Ready(Ok(()));
            }
            // Answers may be here, but not the first.
            if !self.is_here(0, cx)? {
                return Poll::Pending;
            }
        }
    }

    /// True if a slot's answer is here; otherwise registers a wake-up.
    fn is_here(&mut self, index: usize, cx: &mut Context<'_>) -> Result<bool, E> {
        let slot = &mut self.slots[index];
        if let Awaited::Future(future) = &mut slot.answer {
            let Poll::Ready(answer) = Pin::new(future).poll(cx) else { return Ok(false) };
            // A completed future must not be polled again, not even after an error.
            slot.answer = Awaited::Here { ack: answer.as_ref().is_ok_and(|answer| answer.ack) };
            self.returned.extend(answer?.returned);
        }
        Ok(true)
    }

    /// Like [`Self::is_here`], without a wake-up.
    fn read(&mut self, index: usize) -> Result<bool, E> {
        self.is_here(index, &mut Context::from_waker(Waker::noop()))
    }

    fn match_returns(&mut self, news: &mut News) {
        for Returned { command_id, reason } in self.returned.drain(..) {
            let Some(command_id) = command_id else {
                tracing::warn!(reason, "returned message has an unknown id");
                continue;
            };
            match self.slots.iter_mut().find(|slot| slot.command_id == command_id) {
                Some(slot) => slot.returned = Some(reason),
                None => news.late.push(LateReturn { command_id, reason }),
            }
        }
    }
}

impl<F> Slot<F> {
    fn outcome(self) -> BrokerAnswer {
        match (self.returned, self.answer) {
            (Some(reason), _) => BrokerAnswer::Returned(reason),
            (None, Awaited::Here { ack: true }) => BrokerAnswer::Confirmed,
            // A slot is drained only with its answer; without one, it must not count as confirmed.
            (None, Awaited::Here { ack: false } | Awaited::Future(_)) => BrokerAnswer::Nacked,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, task::noop_waker};
    use tokio::sync::oneshot;

    use super::*;

    type Answers = futures_util::future::BoxFuture<'static, Result<Answer, &'static str>>;

    /// A window and the broker's side of it.
    struct Bench {
        window: Window<Answers>,
        broker: Vec<Option<oneshot::Sender<Result<Answer, &'static str>>>>,
    }

    fn id(number: usize) -> CommandId {
        let mut bytes = [0; 16];
        bytes[15] = u8::try_from(number).unwrap();
        CommandId::from_bytes(bytes)
    }

    fn returned(number: usize) -> Returned {
        Returned { command_id: Some(id(number)), reason: "NO_ROUTE".to_owned() }
    }

    fn lost() -> BrokerAnswer {
        BrokerAnswer::Returned("NO_ROUTE".to_owned())
    }

    impl Bench {
        fn new(publishes: usize) -> Self {
            let mut bench = Self { window: Window::new(), broker: Vec::new() };
            for number in 0..publishes {
                let (sender, receiver) = oneshot::channel();
                bench.broker.push(Some(sender));
                let answer = receiver.map(|answer| answer.unwrap_or(Err("closed"))).boxed();
                bench.window.push(id(number), answer);
            }
            bench.window.start().unwrap();
            bench
        }

        fn answer(&mut self, number: usize, ack: bool, carried: Option<usize>) {
            let answer = Answer { ack, returned: carried.map(returned) };
            self.broker[number].take().unwrap().send(Ok(answer)).unwrap();
        }

        fn news(&mut self) -> News {
            self.news_behind(|_| Vec::new())
        }

        /// The news if `meanwhile` happens while the barrier is passed.
        fn news_behind(
            &mut self,
            mut meanwhile: impl FnMut(
                &mut Vec<Option<oneshot::Sender<Result<Answer, &'static str>>>>,
            ) -> Vec<Returned>,
        ) -> News {
            let mut news = News::default();
            let broker = &mut self.broker;
            let waker = noop_waker();
            let mut cx = Context::from_waker(&waker);
            match self.window.poll(&mut cx, || meanwhile(broker), &mut news) {
                Poll::Ready(result) => result.unwrap(),
                Poll::Pending => assert!(news.outcomes.is_empty() && news.late.is_empty()),
            }
            news
        }
    }

    #[test]
    fn publishes_are_started_together_and_in_order() {
        let mut window = Window::new();
        let started = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let publish = |number: usize| -> Answers {
            let started = started.clone();
            async move {
                started.lock().unwrap().push(number);
                std::future::pending().await
            }
            .boxed()
        };
        for burst in [0..3, 3..3, 3..5] {
            burst.clone().for_each(|number| window.push(id(number), publish(number)));
            assert_eq!(*started.lock().unwrap(), (0..burst.start).collect::<Vec<_>>());
            window.start().unwrap();
            assert_eq!(*started.lock().unwrap(), (0..burst.end).collect::<Vec<_>>());
        }
    }

    #[test]
    fn outcomes_come_in_the_order_of_publishing() {
        let mut bench = Bench::new(3);
        bench.answer(2, true, None);
        bench.answer(1, false, None);
        assert_eq!(bench.news().outcomes, []);
        bench.answer(0, true, None);
        assert_eq!(
            bench.news().outcomes,
            [BrokerAnswer::Confirmed, BrokerAnswer::Nacked, BrokerAnswer::Confirmed]
        );
    }

    #[test]
    fn a_return_counts_for_its_own_command_in_every_interleaving_of_confirms() {
        // The broker returned `lost`; lapin attached the return to the confirm of `carrier`.
        for (publishes, lost_one, carrier) in
            (1..7).flat_map(|n| (0..n).flat_map(move |l| (0..n).map(move |c| (n, l, c))))
        {
            let mut bench = Bench::new(publishes);
            for number in 0..publishes {
                bench.answer(number, true, (number == carrier).then_some(lost_one));
            }
            let expected: Vec<_> = (0..publishes)
                .map(|number| if number == lost_one { lost() } else { BrokerAnswer::Confirmed })
                .collect();
            let news = bench.news();
            assert_eq!((news.outcomes, news.late), (expected, vec![]), "{publishes} {lost_one} {carrier}");
        }
    }

    #[test]
    fn a_return_carried_by_a_confirm_further_back_is_found_before_the_prefix_is_told() {
        let mut bench = Bench::new(4);
        bench.answer(0, true, None);
        bench.answer(3, true, Some(0));
        assert_eq!(bench.news().outcomes, [lost()]);
        bench.answer(1, true, None);
        bench.answer(2, true, None);
        assert_eq!(bench.news().outcomes, vec![BrokerAnswer::Confirmed; 3]);
    }

    #[test]
    fn a_return_that_lapin_hands_over_while_the_barrier_is_passed_is_found() {
        let mut bench = Bench::new(3);
        bench.answer(0, true, None);
        let news = bench.news_behind(|broker| {
            // The rest of the batch whose first confirm has just been read.
            let answer = Answer { ack: true, returned: Some(returned(0)) };
            broker[2].take().unwrap().send(Ok(answer)).unwrap();
            Vec::new()
        });
        assert_eq!((news.outcomes, news.late), (vec![lost()], vec![]));
    }

    #[test]
    fn a_return_that_nobody_carries_is_found_behind_the_barrier() {
        let mut bench = Bench::new(2);
        bench.answer(0, true, None);
        assert_eq!(bench.news_behind(|_| vec![returned(0)]).outcomes, [lost()]);
    }

    #[test]
    fn a_return_after_the_outcome_is_late() {
        let mut bench = Bench::new(2);
        bench.answer(0, true, None);
        assert_eq!(bench.news().outcomes, [BrokerAnswer::Confirmed]);
        bench.answer(1, true, Some(0));
        let news = bench.news();
        assert_eq!(news.outcomes, [BrokerAnswer::Confirmed]);
        assert_eq!(news.late, [LateReturn { command_id: id(0), reason: "NO_ROUTE".to_owned() }]);
    }

    #[test]
    fn a_thorough_look_tells_what_no_wake_up_has_told() {
        let mut bench = Bench::new(MUCH);
        bench.answer(0, true, None);
        assert_eq!(bench.news().outcomes, [], "woken for a quarter of them only");
        bench.window.be_thorough();
        assert_eq!(bench.news().outcomes, [BrokerAnswer::Confirmed]);
    }

    #[test]
    fn an_error_of_any_answer_ends_the_window() {
        let mut bench = Bench::new(2);
        bench.broker[0].take().unwrap().send(Err("channel closed")).unwrap();
        let mut news = News::default();
        let mut cx = Context::from_waker(Waker::noop());
        let told = bench.window.poll(&mut cx, Vec::new, &mut news);
        assert_eq!(told, Poll::Ready(Err("channel closed")));
    }

    #[test]
    fn after_an_error_the_one_that_is_to_the_point_is_found_among_all_answers() {
        let mut bench = Bench::new(3);
        bench.broker[1].take().unwrap().send(Err("the io thread is gone")).unwrap();
        bench.broker[2].take().unwrap().send(Err("406, the broker's words")).unwrap();
        assert_eq!(bench.window.cause(|error| error.starts_with("406")), Some("406, the broker's words"));
        assert_eq!(bench.window.cause(|_| true), None, "each is told once");
    }

    #[test]
    fn a_late_return_is_told_although_the_first_has_no_answer() {
        let mut bench = Bench::new(MUCH + 1);
        bench.answer(0, true, None);
        bench.window.be_thorough();
        assert_eq!(bench.news().outcomes, [BrokerAnswer::Confirmed]);
        // The awaited answer: a quarter of the window is before it.
        bench.answer(MUCH / 4 + 1, true, Some(0));
        let news = bench.news();
        assert_eq!((news.outcomes, news.late.len()), (vec![], 1));
        assert_eq!(bench.news().outcomes, [], "and nothing is told twice, nor waited for in a circle");
    }
}
