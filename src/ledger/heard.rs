//! Callbacks that wait for what a worker says of their command.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout_at},
};

use crate::command::{
    CommandId,
    outcome::{Kind, Outcome},
};

/// What a worker said of a command: its last report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The outcome.
    pub kind: Kind,
    /// The worker's words.
    pub message: Option<String>,
}

impl From<&Outcome> for Heard {
    fn from(outcome: &Outcome) -> Self {
        Self { kind: outcome.kind, message: outcome.message.clone() }
    }
}

/// Those who wait, by command.
#[derive(Default)]
pub(super) struct Listeners {
    waiting: Mutex<Waiting>,
    /// Notified when somebody begins to wait.
    begun: Notify,
}

#[derive(Default)]
struct Waiting {
    by_command: HashMap<CommandId, Vec<(u64, oneshot::Sender<Heard>)>>,
    last: u64,
}

impl Listeners {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nobody panics with the lock")
    }

    /// Begins to wait. What is told from now on is heard.
    pub(super) fn wait(self: &Arc<Self>, command_id: CommandId) -> Place {
        let (told, heard) = oneshot::channel();
        let number = {
            let mut waiting = self.waiting();
            waiting.last += 1;
            let number = waiting.last;
            waiting.by_command.entry(command_id).or_default().push((number, told));
            number
        };
        self.begun.notify_one();
        Place { listeners: self.clone(), command_id, number, heard }
    }

    pub(super) fn tell(&self, command_id: CommandId, heard: &Heard) {
        for (_, place) in self.waiting().by_command.remove(&command_id).into_iter().flatten() {
            // Its callback may be answered already.
            place.send(heard.clone()).ok();
        }
    }

    /// The commands that somebody waits for.
    pub(super) fn commands(&self) -> Vec<CommandId> {
        self.waiting().by_command.keys().copied().collect()
    }

    /// Resolves when somebody waits.
    pub(super) async fn any(&self) {
        loop {
            let begun = self.begun.notified();
            if !self.waiting().by_command.is_empty() {
                return;
            }
            begun.await;
        }
    }
}

/// One who waits; no longer once it is dropped.
pub(super) struct Place {
    listeners: Arc<Listeners>,
    command_id: CommandId,
    number: u64,
    heard: oneshot::Receiver<Heard>,
}

impl Place {
    /// Waits until it is told, or the time is over.
    pub(super) async fn until(mut self, deadline: Instant) -> Option<Heard> {
        timeout_at(deadline, &mut self.heard).await.ok()?.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.listeners.waiting();
        let by_command = &mut waiting.by_command;
        if let Some(places) = by_command.get_mut(&self.command_id) {
            places.retain(|(number, _)| *number != self.number);
            if places.is_empty() {
                by_command.remove(&self.command_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn heard(message: &str) -> Heard {
        Heard { kind: Kind::Refused, message: Some(message.to_owned()) }
    }

    #[tokio::test]
    async fn all_who_wait_for_a_command_are_told_and_nobody_is_remembered() {
        let listeners = Arc::new(Listeners::default());
        let [one, other] = [1, 2].map(|byte| CommandId::from_bytes([byte; 16]));
        let places = [listeners.wait(one), listeners.wait(one), listeners.wait(other)];
        listeners.any().await;
        listeners.tell(one, &heard("no"));
        let [first, second, third] = places;
        let soon = Instant::now() + Duration::from_secs(5);
        assert_eq!(first.until(soon).await, Some(heard("no")));
        assert_eq!(second.until(soon).await, Some(heard("no")));
        assert_eq!(listeners.commands(), [other]);
        assert_eq!(third.until(Instant::now()).await, None);
        assert_eq!(listeners.commands(), []);
        listeners.tell(one, &heard("nobody listens"));
    }
}
