//! Replies to many waiting tasks, with one wake-up per thread.
//!
//! A commit answers some dozens of callbacks, which wait on a few threads. Waking a task on another thread is a system
//! call, and often a thread switch, per reply. Waking a task on the same thread is a push to a list. So [`Wakeups`]
//! wakes one task per thread, which wakes the others when it is polled.
//!
//! No task is forgotten: that task wakes the others when polled or dropped, whichever comes first. If it was polled or
//! dropped before, it is not relied on. So do not hold an [`Awaited`] that was woken without polling it.

use std::{
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    thread::{self, ThreadId},
};

/// A reply to be given once, and the future that waits for it.
pub(super) fn reply<T>() -> (Reply<T>, Awaited<T>) {
    let slot = Arc::new(Slot(Mutex::new(State { stage: Stage::Open, waiting: None, others: Vec::new() })));
    (Reply(slot.clone()), Awaited(slot))
}

struct Slot<T>(Mutex<State<T>>);

struct State<T> {
    stage: Stage<T>,
    /// The last waker, and the thread of the poll.
    waiting: Option<(ThreadId, Waker)>,
    /// Tasks on the same thread to wake next.
    others: Vec<Waker>,
}

enum Stage<T> {
    Open,
    Given(T),
    /// The reply was taken, or one side was dropped.
    Over,
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No panic can leave the state half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes this task wake `others` when it is woken. Returns them if it will not be polled again.
    fn entrust(&self, others: Vec<Waker>) -> Vec<Waker> {
        let mut state = self.lock();
        match state.stage {
            Stage::Given(_) => {
                state.others = others;
                Vec::new()
            }
            Stage::Open | Stage::Over => others,
        }
    }
}

/// Gives a reply. If dropped, the waiting task gets `None`.
pub(super) struct Reply<T>(Arc<Slot<T>>);

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if matches!(state.stage, Stage::Open) {
            state.stage = Stage::Over;
        }
        let waiting = state.waiting.take();
        drop(state);
        if let Some((_, waker)) = waiting {
            waker.wake();
        }
    }
}

/// Resolves to the reply, or to `None` if there will be none.
pub(super) struct Awaited<T>(Arc<Slot<T>>);

impl<T> Future for Awaited<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock();
        match mem::replace(&mut state.stage, Stage::Over) {
            Stage::Open => {
                state.stage = Stage::Open;
                state.waiting = Some((thread::current().id(), cx.waker().clone()));
                Poll::Pending
            }
            Stage::Given(value) => {
                let others = mem::take(&mut state.others);
                drop(state);
                others.into_iter().for_each(Waker::wake);
                Poll::Ready(Some(value))
            }
            Stage::Over => Poll::Ready(None),
        }
    }
}

impl<T> Drop for Awaited<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.stage = Stage::Over;
        state.waiting = None;
        let others = mem::take(&mut state.others);
        drop(state);
        others.into_iter().for_each(Waker::wake);
    }
}

/// Replies given at about the same time. Dropping it wakes all waiting tasks.
pub(super) struct Wakeups<T> {
    threads: Vec<Thread<T>>,
}

/// The tasks of one thread. The first wakes the others.
struct Thread<T> {
    id: ThreadId,
    first: (Arc<Slot<T>>, Waker),
    others: Vec<Waker>,
}

impl<T> Wakeups<T> {
    pub(super) fn new() -> Self {
        Self { threads: Vec::new() }
    }

    /// Gives a reply; does nothing if nobody waits any more.
    pub(super) fn give(&mut self, reply: Reply<T>, value: T) {
        let mut state = reply.0.lock();
        if !matches!(state.stage, Stage::Open) {
            return;
        }
        state.stage = Stage::Given(value);
        let waiting = state.waiting.take();
        drop(state);
        let Some((id, waker)) = waiting else { return };
        match self.threads.iter_mut().find(|thread| thread.id == id) {
            Some(thread) => thread.others.push(waker),
            None => {
                let first = (reply.0.clone(), waker);
                self.threads.push(Thread { id, first, others: Vec::new() });
            }
        }
    }
}

impl<T> Drop for Wakeups<T> {
    fn drop(&mut self) {
        for Thread { first: (slot, waker), others, .. } in self.threads.drain(..) {
            let left = slot.entrust(others);
            waker.wake();
            left.into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A waiting task, and how often it was woken.
    struct Waits {
        awaited: Option<Awaited<usize>>,
        woken: Arc<Woken>,
    }

    impl Waits {
        fn poll(&mut self) -> Poll<Option<usize>> {
            let waker = Waker::from(self.woken.clone());
            let awaited = self.awaited.as_mut().expect("was not dropped");
            Pin::new(awaited).poll(&mut Context::from_waker(&waker))
        }

        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::Relaxed)
        }
    }

    /// Tasks that wait on this thread.
    fn waiting(count: usize) -> (Vec<Reply<usize>>, Vec<Waits>) {
        let pairs = (0..count).map(|_| {
            let (reply, awaited) = reply();
            let mut waits = Waits { awaited: Some(awaited), woken: Arc::default() };
            assert_eq!(waits.poll(), Poll::Pending);
            (reply, waits)
        });
        pairs.unzip()
    }

    fn give(replies: Vec<Reply<usize>>) -> Wakeups<usize> {
        let mut wakeups = Wakeups::new();
        for (number, reply) in replies.into_iter().enumerate() {
            wakeups.give(reply, number);
        }
        wakeups
    }

    fn woken(waits: &[Waits]) -> Vec<usize> {
        waits.iter().map(Waits::woken).collect()
    }

    #[test]
    fn the_first_of_a_thread_is_woken_and_wakes_the_others() {
        let (replies, mut waits) = waiting(3);
        let wakeups = give(replies);
        assert_eq!(woken(&waits), [0, 0, 0]);
        drop(wakeups);
        assert_eq!(woken(&waits), [1, 0, 0]);
        assert_eq!(waits[0].poll(), Poll::Ready(Some(0)));
        assert_eq!(woken(&waits), [1, 1, 1]);
        assert_eq!((waits[1].poll(), waits[2].poll()), (Poll::Ready(Some(1)), Poll::Ready(Some(2))));
    }

    #[test]
    fn every_thread_has_a_first_of_its_own() {
        let (mut replies, mut waits) = waiting(2);
        let there = thread::spawn(|| waiting(2)).join().expect("does not panic");
        replies.extend(there.0);
        waits.extend(there.1);
        drop(give(replies));
        assert_eq!(woken(&waits), [1, 0, 1, 0]);
        assert_eq!(waits[2].poll(), Poll::Ready(Some(2)));
        assert_eq!(woken(&waits), [1, 0, 1, 1]);
    }

    #[test]
    fn one_that_goes_away_before_it_is_polled_wakes_the_others() {
        let (replies, mut waits) = waiting(3);
        drop(give(replies));
        waits[0].awaited = None;
        assert_eq!(woken(&waits), [1, 1, 1]);
    }

    #[test]
    fn one_that_went_away_or_was_polled_before_the_round_ended_is_not_relied_upon() {
        for polled in [true, false] {
            let (replies, mut waits) = waiting(3);
            let wakeups = give(replies);
            if polled {
                assert_eq!(waits[0].poll(), Poll::Ready(Some(0)));
            } else {
                waits[0].awaited = None;
            }
            drop(wakeups);
            assert_eq!(woken(&waits)[1..], [1, 1], "polled: {polled}");
        }
    }

    #[test]
    fn one_that_was_not_polled_yet_finds_its_reply() {
        let (reply, mut awaited) = reply();
        let mut wakeups = Wakeups::new();
        wakeups.give(reply, 7);
        drop(wakeups);
        assert_eq!(
            Pin::new(&mut awaited).poll(&mut Context::from_waker(Waker::noop())),
            Poll::Ready(Some(7))
        );
    }

    #[test]
    fn one_that_went_away_before_takes_no_part() {
        let (replies, mut waits) = waiting(2);
        waits[0].awaited = None;
        drop(give(replies));
        assert_eq!(woken(&waits), [0, 1]);
    }

    #[test]
    fn without_a_reply_it_is_told_so() {
        let (replies, mut waits) = waiting(1);
        drop(replies);
        assert_eq!((waits[0].woken(), waits[0].poll()), (1, Poll::Ready(None)));
    }
}
