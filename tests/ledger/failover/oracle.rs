//! What was answered, what was published, and what the log holds afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use countersign::{
    command::CommandId,
    ledger::{Ledger, Receipt},
};

use crate::{conformance::acceptance, support::eventually};

/// A decision of an approver, like no other by its task and action.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Decision {
    pub(super) task: String,
    pub(super) action: &'static str,
}

/// What is known of a decision from outside.
struct Known {
    sent: Instant,
    answered: Option<Instant>,
    /// All that it was ever called.
    ids: BTreeSet<String>,
}

#[derive(Default)]
struct Book {
    decisions: BTreeMap<Decision, Known>,
    answers: Vec<Instant>,
    refused: usize,
    slowest: Duration,
    published: BTreeMap<String, usize>,
    terms: usize,
}

/// Remembers all that was asked and answered.
#[derive(Clone, Default)]
pub(super) struct Oracle {
    book: Arc<Mutex<Book>>,
}

impl Oracle {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a replica accept a decision; true if it did, now or before.
    pub(super) async fn accept(&self, ledger: &Arc<dyn Ledger>, decision: &Decision) -> bool {
        let sent = Instant::now();
        let unknown = || Known { sent, answered: None, ids: BTreeSet::new() };
        self.book().decisions.entry(decision.clone()).or_insert_with(unknown);
        let answer = ledger.accept(acceptance(&decision.task, decision.action, None)).await;
        let now = Instant::now();
        let mut book = self.book();
        book.slowest = book.slowest.max(now - sent);
        match answer {
            Ok(Receipt::Accepted { command_id } | Receipt::Duplicate { command_id }) => {
                book.answers.push(now);
                let known = book.decisions.get_mut(decision).expect("it was noted before");
                known.answered.get_or_insert(now);
                known.ids.insert(command_id.to_string());
                true
            }
            Ok(Receipt::Conflicting { .. }) => panic!("conflicts are published here"),
            Err(_) => {
                book.refused += 1;
                false
            }
        }
    }

    pub(super) fn term_began(&self) {
        self.book().terms += 1;
    }

    pub(super) fn published(&self, id: CommandId) {
        *self.book().published.entry(id.to_string()).or_default() += 1;
    }

    /// How many were answered with an id so far.
    pub(super) fn answered(&self) -> usize {
        self.book().answers.len()
    }

    /// How many were refused so far.
    pub(super) fn refused(&self) -> usize {
        self.book().refused
    }

    /// How many terms have begun so far.
    pub(super) fn terms(&self) -> usize {
        self.book().terms
    }

    pub(super) async fn until_answered(&self, more: usize) {
        reached("more answers", self.answered() + more, || self.answered()).await;
    }

    pub(super) async fn until_refused(&self, all: usize) {
        reached("refusals", all, || self.refused()).await;
    }

    pub(super) async fn until_terms(&self, all: usize) {
        reached("another term", all, || self.book().terms).await;
    }

    /// Waits for the first answer after a moment; returns how long after the moment it came.
    pub(super) async fn answer_after(&self, moment: Instant) -> Duration {
        eventually("an answer", async || {
            let book = self.book();
            let first = book.answers.iter().find(|answered| **answered > moment);
            first.map(|first| *first - moment).ok_or(book.refused)
        })
        .await
    }

    /// Compares with the log: the id and the decision of each command, in its order.
    pub(super) fn compare(&self, log: &[(String, Decision)]) -> Figures {
        let book = self.book();
        let places: BTreeMap<&str, usize> =
            log.iter().enumerate().map(|(place, (id, _))| (id.as_str(), place)).collect();
        let mut kept: BTreeMap<&Decision, BTreeSet<&String>> = BTreeMap::new();
        for (id, decision) in log {
            kept.entry(decision).or_default().insert(id);
        }
        let mut figures = Figures {
            answered: book.answers.len(),
            refused: book.refused,
            terms: book.terms,
            slowest: book.slowest,
            kept: log.len(),
            ..Figures::default()
        };
        for (decision, known) in &book.decisions {
            figures.lost += known.ids.iter().filter(|id| !places.contains_key(id.as_str())).count();
            let mut names: BTreeSet<&String> = kept.get(decision).cloned().unwrap_or_default();
            figures.kept_twice += usize::from(names.len() > 1);
            names.extend(&known.ids);
            figures.named_twice += usize::from(names.len() > 1);
        }
        figures.strangers = kept.keys().filter(|decision| !book.decisions.contains_key(**decision)).count();
        figures.unpublished = log.iter().filter(|(id, _)| !book.published.contains_key(id)).count();
        figures.published_and_lost =
            book.published.keys().filter(|id| !places.contains_key(id.as_str())).count();
        // No later place may have been answered before this one was asked for.
        let mut answered_behind: Option<Instant> = None;
        for (_, decision) in log.iter().rev() {
            let Some(known) = book.decisions.get(decision) else { continue };
            figures.out_of_order += usize::from(answered_behind.is_some_and(|behind| behind < known.sent));
            answered_behind = [answered_behind, known.answered].into_iter().flatten().min();
        }
        figures
    }
}

async fn reached(what: &str, wanted: usize, count: impl Fn() -> usize) {
    eventually(what, async || match count() {
        now if now >= wanted => Ok(()),
        now => Err((now, wanted)),
    })
    .await;
}

/// What a comparison found.
#[derive(Debug, Default)]
pub(super) struct Figures {
    answered: usize,
    refused: usize,
    terms: usize,
    kept: usize,
    /// Answered with an id that is not in the log.
    pub(super) lost: usize,
    /// Decisions with two commands in the log.
    pub(super) kept_twice: usize,
    /// Decisions with two ids, in answers or in the log.
    pub(super) named_twice: usize,
    strangers: usize,
    out_of_order: usize,
    /// In the log, and passed by the cursor without having been published.
    unpublished: usize,
    pub(super) published_and_lost: usize,
    /// From the question to its answer, whatever that was.
    pub(super) slowest: Duration,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "answered {}, refused {}, kept {}, terms {}; lost {}, kept twice {}, named twice {}, strangers {}, out of order {}, \
             unpublished {}, published and lost {}; slowest answer {:.2?}",
            self.answered,
            self.refused,
            self.kept,
            self.terms,
            self.lost,
            self.kept_twice,
            self.named_twice,
            self.strangers,
            self.out_of_order,
            self.unpublished,
            self.published_and_lost,
            self.slowest,
        )
    }
}

impl Figures {
    /// Nothing that was answered is lost, or has two names.
    #[track_caller]
    pub(super) fn check(&self, fault: &str) {
        self.check_but_losses(fault);
        assert_eq!(self.lost, 0, "{fault}: lost");
        assert_eq!(self.named_twice, 0, "{fault}: decisions with two ids");
        assert_eq!(self.published_and_lost, 0, "{fault}: published, and not in the log");
        assert_eq!(self.out_of_order, 0, "{fault}: out of order");
    }

    /// What holds even if the end of the log was lost.
    #[track_caller]
    pub(super) fn check_but_losses(&self, fault: &str) {
        super::say(&format!("{fault}: {self}"));
        assert!(self.answered > 0, "{fault}: nothing was tried");
        assert_eq!(self.kept_twice, 0, "{fault}: decisions with two commands");
        assert_eq!(self.strangers, 0, "{fault}: commands that nobody decided");
        assert_eq!(self.unpublished, 0, "{fault}: marked as published, and never sent");
    }
}
