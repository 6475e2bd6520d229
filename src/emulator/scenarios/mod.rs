//! Scenarios of the demo: each plays something that really happens, with the real service, and puts what is expected
//! beside what was seen.

mod plays;
mod stage;

use std::collections::BTreeMap;

use actix_web::{rt, web};
use futures_util::future::LocalBoxFuture;
use serde_json::{Value, json};

use super::{Emulator, demo::Manner, values::now_ms};
use stage::Stage;

/// A text in the page's languages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words {
    pub(super) zh: &'static str,
    pub(super) en: &'static str,
}

pub(super) struct Scenario {
    /// Its name in URLs and on the command line.
    pub(super) name: &'static str,
    pub(super) title: Words,
    /// What it teaches.
    pub(super) lesson: Words,
    pub(super) needs_broker: bool,
    /// About how long it takes.
    pub(super) seconds: u8,
    play: for<'a> fn(&'a mut Stage) -> LocalBoxFuture<'a, Result<(), String>>,
}

/// One thing that a scenario looks at.
#[derive(Debug, Clone)]
pub(super) struct Check {
    pub(super) what: Words,
    pub(super) expected: String,
    pub(super) seen: String,
    /// Where it was seen.
    pub(super) tap: Option<u64>,
}

impl Check {
    pub(super) fn is_fine(&self) -> bool {
        self.expected == self.seen
    }
}

/// How a scenario went the last time.
#[derive(Debug, Clone)]
pub(super) struct Played {
    /// Milliseconds since 1970.
    pub(super) at: i64,
    pub(super) checks: Vec<Check>,
    /// Why it could not be played to its end.
    pub(super) problem: Option<String>,
}

impl Played {
    pub(super) fn is_fine(&self) -> bool {
        self.problem.is_none() && self.checks.iter().all(Check::is_fine)
    }
}

/// How the scenarios went.
#[derive(Default)]
pub(super) struct Results {
    last: std::sync::Mutex<BTreeMap<&'static str, Played>>,
    /// One at a time: they change what the worker does.
    turn: tokio::sync::Mutex<()>,
}

impl Results {
    pub(super) fn last(&self, name: &str) -> Option<Played> {
        self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(name).cloned()
    }
}

pub(super) fn all() -> &'static [Scenario] {
    plays::ALL
}

pub(super) fn find(name: &str) -> Option<&'static Scenario> {
    all().iter().find(|scenario| scenario.name == name)
}

/// Plays a scenario. Worker and valve are then as they were.
pub(super) async fn play(
    emulator: &web::Data<Emulator>,
    scenario: &'static Scenario,
) -> Result<Played, String> {
    let emulator = emulator.clone();
    // A task of its own: the one who asked may go away, and the worker must be put back all the same.
    let playing = rt::spawn(async move {
        let demo = emulator.demo.get().ok_or("scenarios need the demo: countersign dev")?;
        let _turn = emulator.scenarios.turn.lock().await;
        let (manner, valve) = (*demo.manner.borrow(), *demo.valve.borrow());
        demo.manner.send_replace(Manner::Applied);
        demo.valve.send_replace(true);
        let mut stage = Stage::new(emulator.clone());
        let ended = (scenario.play)(&mut stage).await;
        emulator.tenant().planned.clear();
        demo.manner.send_replace(manner);
        demo.valve.send_replace(valve);
        let played = Played { at: now_ms(), checks: stage.into_checks(), problem: ended.err() };
        let mut last = emulator.scenarios.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        last.insert(scenario.name, played.clone());
        drop(last);
        emulator.changed();
        Ok(played)
    });
    playing.await.unwrap_or_else(|_| Err("the scenario panicked".to_owned()))
}

/// A scenario as JSON, with how it went, if it was played.
pub(super) fn told(scenario: &Scenario, played: Option<&Played>) -> Value {
    let checks = played.map(|played| {
        let checks = played.checks.iter().map(|check| {
            json!({
                "what": check.what.en, "expected": check.expected, "seen": check.seen, "as_expected": check.is_fine(),
                "tap": check.tap,
            })
        });
        checks.collect::<Vec<_>>()
    });
    json!({
        "name": scenario.name, "title": scenario.title.en, "lesson": scenario.lesson.en,
        "needs_broker": scenario.needs_broker, "seconds": scenario.seconds,
        "played": played.map(|played| json!({
            "at": played.at, "as_expected": played.is_fine(), "problem": played.problem, "checks": checks,
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_for_urls_and_differ() {
        let mut names: Vec<_> = all().iter().map(|scenario| scenario.name).collect();
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().len());
    }
}
