//! The broker's side of the doubles.

use std::task::{Context, Poll};

use super::Handle;
use crate::{
    ledger::{Entry, state::Exceptional},
    relay::{Failure, News, Publisher, Session},
};

#[derive(Debug, thiserror::Error)]
#[error("the test says so")]
pub(in crate::relay::tests) struct Told {
    blame: Option<String>,
    silent: bool,
}

const AWAY: Told = Told { blame: None, silent: false };

const SILENT: Told = Told { blame: None, silent: true };

impl Failure for Told {
    fn needs_operator(&self) -> bool {
        false
    }

    fn is_silence(&self) -> bool {
        self.silent
    }

    fn blames_publish(&self) -> Option<String> {
        self.blame.clone()
    }
}

impl Publisher for Handle {
    type Session = Handle;
    type Error = Told;

    async fn connect(&mut self) -> Result<Handle, Told> {
        let mut world = self.world();
        world.connects += 1;
        if world.away {
            return Err(AWAY);
        }
        world.sessions += 1;
        world.flying.clear();
        world.news = News::default();
        world.told.clear();
        world.fails = false;
        world.ended = None;
        drop(world);
        Ok(self.clone())
    }

    fn brokers(&self) -> usize {
        1 + self.world().others
    }

    fn pass_over(&mut self) {
        let mut world = self.world();
        world.passed_over += 1;
    }
}

impl Session for Handle {
    type Error = Told;

    fn publish(&mut self, entry: Entry) {
        let mut world = self.world();
        // A command that got through before an operator requeued it is a repetition and holds up nothing.
        let repeats = |seq: &u64| world.touched.contains(seq) && world.confirmed.contains(seq);
        let holds = |seq: &&u64| !repeats(seq) && world.entry(**seq).task_key == entry.task_key;
        let earlier = world.refused.range(..entry.seq).find(holds);
        assert_eq!(earlier, None, "{} is published before an earlier one of its task", entry.seq);
        let enriched = std::str::from_utf8(&entry.body).unwrap().starts_with(r#"{"n":1,"enrichment":{"#);
        assert_eq!(enriched, world.enrich.is_some(), "{} is completed once, or not to be", entry.seq);
        world.published.push(entry.seq);
        if world.ended.is_some() {
            // Later publishes are not read any more.
            return;
        }
        let overtaken = world.overtaken_by(&entry);
        assert_eq!(
            overtaken, None,
            "{} overtakes an earlier one of its task; cursor {}, {:?}, published {:?}",
            entry.seq, world.cursor, world.exceptions, world.published
        );
        if world.poison.contains(&entry.seq) {
            *world.refusals.entry(entry.seq).or_default() += 1;
            world.ended = Some("406 PRECONDITION_FAILED - the test says so".to_owned());
            world.wake();
            return;
        }
        let answer = world.policy.as_mut().and_then(|policy| policy(entry.seq));
        world.flying.push_back((entry.seq, answer));
    }

    fn flush(&mut self) -> Result<(), Told> {
        self.world().tell();
        Ok(())
    }

    fn poll_news(&mut self, cx: &mut Context<'_>, news: &mut News) -> Poll<Result<(), Told>> {
        let mut world = self.world();
        if let Some(blame) = world.ended.clone() {
            return Poll::Ready(Err(Told { blame: Some(blame), silent: false }));
        }
        if world.fails {
            return Poll::Ready(Err(if world.silent { SILENT } else { AWAY }));
        }
        let told = std::mem::take(&mut world.news);
        if told.outcomes.is_empty() && told.late.is_empty() && told.blocked.is_none() {
            world.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        for (seq, confirmed) in std::mem::take(&mut world.told) {
            // Parked by the relay, or by an operator while it was with the broker: either way its task goes on without
            // it.
            let parked = world.exceptions.get(&seq).is_some_and(|exception| {
                exception.state == Exceptional::Parked || exception.attempts + 1 >= world.max_attempts
            });
            if confirmed || parked {
                world.refused.remove(&seq);
            } else {
                world.refused.insert(seq);
            }
        }
        *news = told;
        Poll::Ready(Ok(()))
    }

    fn look(&mut self) -> Result<(), Told> {
        if self.world().fails { Err(AWAY) } else { Ok(()) }
    }

    async fn close(self) {
        self.world().closed += 1;
    }
}
