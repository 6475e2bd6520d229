//! To requeue what passes a filter: one act, in steps that can be continued after any of them.

use serde::{Deserialize, Serialize};

use super::{
    Filter, Record, State,
    acts::{ActKind, By, NewAct},
    state::Event,
};
use crate::{command::Seq, time::Timestamp};

/// Which commands to requeue. Kept in the act, so that it can be continued with the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequeueFilter {
    /// In one of these states, by their words.
    pub states: Vec<String>,
    /// Only of this endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Only about this instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Only about this task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// Only by this operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Only received at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Only received before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl RequeueFilter {
    /// The states that may be requeued.
    pub fn possible_states() -> impl Iterator<Item = State> {
        State::ALL.iter().copied().filter(|state| state.after(Event::Requeue).is_ok())
    }

    /// The wanted states. One that this program does not know is left out: a newer one has written it.
    pub fn wanted(&self) -> impl Iterator<Item = State> {
        self.states.iter().filter_map(|word| word.parse().ok())
    }

    /// True if anything but the state narrows it.
    #[must_use]
    pub fn is_narrow(&self) -> bool {
        let texts = [&self.endpoint, &self.instance_id, &self.task_id, &self.user_id];
        texts.into_iter().any(Option::is_some) || self.since.is_some() || self.until.is_some()
    }

    /// The same but for state and time, for a listing.
    #[must_use]
    pub fn listing(&self, limit: usize) -> Filter {
        Filter {
            endpoint: self.endpoint.clone(),
            instance_id: self.instance_id.clone(),
            task_id: self.task_id.clone(),
            user_id: self.user_id.clone(),
            limit,
            ..Filter::default()
        }
    }

    /// Whether a command of that listing was received in time.
    #[must_use]
    pub fn is_in_time(&self, record: &Record) -> bool {
        self.since.is_none_or(|since| record.received_at >= since)
            && self.until.is_none_or(|until| record.received_at < until)
    }
}

/// How far an act has come that requeues what passes a filter. This is the detail of the act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requeue {
    /// What is requeued.
    pub filter: RequeueFilter,
    /// The last place in the log when it began: what came later is not requeued.
    pub through: Seq,
    /// Everything up to this place is done.
    pub done_through: Seq,
    /// Commands requeued so far.
    pub requeued: u64,
    /// Commands that were pending when their turn came, or gone.
    pub skipped: u64,
    /// Whether all is done.
    pub finished: bool,
    /// The act that stopped where this one began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues: Option<u64>,
    /// The act that goes on where this one stopped. It goes no further then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continued_by: Option<u64>,
}

impl Requeue {
    /// The act at its beginning.
    #[must_use]
    pub fn act(&self, by: By) -> NewAct {
        let detail = serde_json::to_value(self).expect("texts and numbers always render");
        NewAct { kind: ActKind::Requeue, by, detail: Some(detail), count: self.requeued }
    }

    pub(super) fn detail_text(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers always render")
    }

    /// What an act that began so has come to, by its detail.
    #[must_use]
    pub fn read(detail: &str) -> Option<Self> {
        serde_json::from_str(detail).ok()
    }

    /// Whether this act may go on from a place.
    pub(super) fn may_go_on(&self, from: Seq) -> bool {
        !self.finished && self.continued_by.is_none() && self.done_through == from
    }

    /// What goes on where this act, which has this number, has stopped.
    #[must_use]
    pub(super) fn rest(&self, number: u64) -> Self {
        let (requeued, skipped) = (0, 0);
        Self { requeued, skipped, continues: Some(number), ..self.clone() }
    }

    /// After a step that requeued some of the wanted.
    #[must_use]
    pub(super) fn advanced(&self, step: &RequeueStep, requeued: usize) -> Self {
        let wanted = step.places.len() as u64;
        Self {
            done_through: step.done_through,
            requeued: self.requeued + requeued as u64,
            skipped: self.skipped + wanted.saturating_sub(requeued as u64),
            finished: step.done_through >= self.through,
            ..self.clone()
        }
    }
}

/// One step of such an act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequeueStep {
    /// The act.
    pub act: u64,
    /// Where it is now.
    pub after: Seq,
    /// What is to be requeued, in order of the log.
    pub places: Vec<Seq>,
    /// Where it is after the step.
    pub done_through: Seq,
}
