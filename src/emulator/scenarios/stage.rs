//! What scenarios are played with.

use std::time::Duration;

use actix_web::web;
use tokio::time::{Instant, timeout_at};

use super::{
    super::{
        Emulator,
        demo::{self, Demo, DemoEndpoint, Manner, Wanted},
        press::{self, Press},
        taps::Tap,
        tenant::{Planned, Tenant},
    },
    Check, Words,
};

/// How long a state is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) const APPROVE: &str = "APPROVE";
pub(super) const REJECT: &str = "REJECT";

pub(super) struct Stage {
    emulator: web::Data<Emulator>,
    checks: Vec<Check>,
}

impl Stage {
    pub(super) const fn new(emulator: web::Data<Emulator>) -> Self {
        Self { emulator, checks: Vec::new() }
    }

    pub(super) fn into_checks(self) -> Vec<Check> {
        self.checks
    }

    pub(super) fn demo(&self) -> Result<&Demo, String> {
        self.emulator.demo.get().ok_or_else(|| "there is no demo".to_owned())
    }

    /// Notes what was expected, and what was seen at a tap.
    pub(super) fn check(
        &mut self,
        what: Words,
        expected: impl Into<String>,
        seen: impl Into<String>,
        tap: u64,
    ) {
        self.checks.push(Check { what, expected: expected.into(), seen: seen.into(), tap: Some(tap) });
    }

    /// Sends a card to zhang3.
    pub(super) fn card(&self, endpoint: DemoEndpoint, next_status: bool) -> Result<u64, String> {
        self.card_with(endpoint, next_status, None)
    }

    pub(super) fn card_with(
        &self,
        endpoint: DemoEndpoint,
        next_status: bool,
        context: Option<String>,
    ) -> Result<u64, String> {
        let demo = self.demo()?;
        let wanted = Wanted { endpoint, user: "zhang3", next_status, context };
        let mut tenant = self.emulator.tenant();
        tenant.settle();
        demo::new_card(&mut tenant, demo, &wanted)
            .ok_or_else(|| "the center did not take the card".to_owned())
    }

    /// A tap on a card, not sent yet.
    pub(super) fn tap(&self, card: u64, action: &str) -> Result<Tap, String> {
        self.tap_as(card, action, None)
    }

    pub(super) fn tap_as(&self, card: u64, action: &str, user: Option<&str>) -> Result<Tap, String> {
        let press = Press {
            message_id: Some(card.to_string()),
            action_type: action.to_owned(),
            user_id: user.map(str::to_owned),
            ..Press::default()
        };
        press::prepare(&self.emulator.tenant(), &press)
    }

    pub(super) async fn send(&self, tap: Tap) -> u64 {
        press::send(&self.emulator, tap).await
    }

    /// The bytes of a tap again.
    pub(super) async fn replay(&self, tap: u64) -> Result<u64, String> {
        let again = self.of(tap, press::replayed)??;
        Ok(self.send(again).await)
    }

    pub(super) fn of<T>(&self, tap: u64, read: impl FnOnce(&Tap) -> T) -> Result<T, String> {
        self.emulator
            .tenant()
            .taps
            .get(tap)
            .map(read)
            .ok_or_else(|| format!("tap {tap} is not kept any more"))
    }

    /// Status and word of an answer, as `200 accepted`.
    pub(super) fn answer(&self, tap: u64) -> Result<String, String> {
        self.of(tap, |tap| match &tap.answer {
            Some(answer) => match (answer.status, &answer.word) {
                (Some(status), Some(word)) => format!("{status} {word}"),
                (Some(status), None) => status.to_string(),
                (None, _) => "none".to_owned(),
            },
            None => "none yet".to_owned(),
        })
    }

    pub(super) fn body(&self, tap: u64) -> Result<String, String> {
        self.of(tap, |tap| tap.answer.as_ref().and_then(|answer| answer.text.clone()).unwrap_or_default())
    }

    /// What the approver reads.
    pub(super) fn read(&self, tap: u64) -> Result<String, String> {
        self.of(tap, |tap| match &tap.answer {
            Some(answer) => answer.seen.clone().unwrap_or_else(|text| text),
            None => String::new(),
        })
    }

    pub(super) fn command_id(&self, tap: u64) -> Result<String, String> {
        self.of(tap, |tap| tap.command_id().unwrap_or("none").to_owned())
    }

    /// A member of the command that a tap has made, once it has arrived.
    pub(super) async fn member(&self, tap: u64, member: &str) -> Result<String, String> {
        let body = self
            .until("the command at the worker", |tenant| {
                tenant.taps.get(tap)?.command.as_ref().map(|command| command.body.clone())
            })
            .await?;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        Ok(body[member].as_str().unwrap_or("null").to_owned())
    }

    /// What a card shows, at once.
    pub(super) fn shown(&self, card: u64) -> String {
        shown(&self.emulator.tenant(), card)
    }

    /// What a card shows, once that is what was wanted or the patience is over.
    pub(super) async fn shown_at_last(&self, card: u64, wanted: &str) -> String {
        let seen =
            self.until("the card", |tenant| Some(shown(tenant, card)).filter(|shown| shown == wanted)).await;
        seen.unwrap_or_else(|_| self.shown(card))
    }

    pub(super) fn manner(&self, manner: Manner) -> Result<(), String> {
        self.demo()?.manner.send_replace(manner);
        Ok(())
    }

    /// Lets the relay reach the broker or not, and waits until it does or does not.
    pub(super) async fn valve(&self, open: bool) -> Result<(), String> {
        let demo = self.demo()?;
        demo.valve.send_replace(open);
        let mut connected = demo.connected.clone();
        let reached = connected.wait_for(|connected| *connected == open);
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err("the relay did not follow the valve".to_owned()),
        }
    }

    pub(super) fn plan(&self, planned: Planned) {
        self.emulator.tenant().planned.push(planned);
    }

    pub(super) fn failures_left(&self) -> u32 {
        self.emulator.tenant().planned.iter().map(|planned| planned.times).sum()
    }

    /// Waits until something is there. Looks again with each change.
    pub(super) async fn until<T>(
        &self,
        what: &str,
        look: impl Fn(&Tenant) -> Option<T>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + PATIENCE;
        let mut changes = self.emulator.changes.subscribe();
        loop {
            changes.mark_unchanged();
            if let Some(found) = look(&self.emulator.tenant()) {
                return Ok(found);
            }
            if timeout_at(deadline, changes.changed()).await.is_err() {
                return Err(format!("{what}: not within {} s", PATIENCE.as_secs()));
            }
        }
    }

    /// Asks the service's own API, without a body.
    pub(super) async fn ask(
        &self,
        method: reqwest::Method,
        path: &str,
    ) -> Result<(u16, serde_json::Value), String> {
        let url = format!("{}{path}", self.demo()?.console);
        let asked = self.emulator.client.request(method, url).timeout(PATIENCE).send().await;
        let answer =
            asked.map_err(|error| format!("the service does not answer: {}", error.without_url()))?;
        let status = answer.status().as_u16();
        Ok((status, answer.json().await.unwrap_or_default()))
    }
}

fn shown(tenant: &Tenant, card: u64) -> String {
    let found = tenant.cards.iter().find(|kept| kept.message_id == card);
    found
        .map_or_else(|| "gone".to_owned(), |card| card.shown.split(' ').next().unwrap_or_default().to_owned())
}
