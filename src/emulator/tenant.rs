//! The emulator's state: one tenant with one app.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Settings, taps::Taps, values::random_hex};

/// An example native instance with every shape of widget value (platform.md#form-widgets).
const NATIVE_INSTANCE: &str = include_str!("native_instance.json");

/// Bytes of cards and instances kept.
const MOST_BYTES: usize = 64 << 20;

/// Cards, instances, definitions and positions kept, of each.
const MOST_ENTRIES: usize = 10_000;

const MOST_PLANNED: usize = 100;

const MOST_NATIVE: usize = 100;

pub(super) struct Tenant {
    pub(super) settings: Settings,
    pub(super) people: Vec<Person>,
    pub(super) definitions: Vec<Definition>,
    pub(super) instances: Vec<Instance>,
    /// Native instances (not third-party), by code.
    pub(super) native: BTreeMap<String, Value>,
    pub(super) cards: Vec<Card>,
    pub(super) tokens: Vec<Token>,
    /// Calls in the current second and minute, by API.
    pub(super) counts: HashMap<&'static str, [Count; 2]>,
    /// Positions in lists being paged through, by page token.
    pub(super) cursors: HashMap<String, PageToken>,
    /// Injected failures.
    pub(super) planned: Vec<Planned>,
    /// The last taps, with what became of each.
    pub(super) taps: Taps,
    pub(super) tickets_sent: u64,
    /// Orders that the demo's third party has made.
    pub(super) orders: u64,
    numbers: u64,
}

pub(super) struct Person {
    pub(super) user_id: String,
    pub(super) open_id: String,
    pub(super) union_id: String,
}

impl Person {
    fn new(user_id: &str) -> Self {
        let hash = |salt: &str| -> String {
            let digest = Sha256::digest(format!("{salt}:{user_id}").as_bytes());
            digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
        };
        Self {
            user_id: user_id.to_owned(),
            open_id: format!("ou_{}", hash("open")),
            union_id: format!("on_{}", hash("union")),
        }
    }
}

/// A definition. `body` is the last one sent; omitted switches are false.
pub(super) struct Definition {
    pub(super) custom_code: String,
    pub(super) real_code: String,
    pub(super) number: u64,
    pub(super) body: Value,
}

pub(super) struct Instance {
    /// The platform's code.
    pub(super) code: String,
    pub(super) number: u64,
    /// The members except `task_list` and `cc_list`.
    pub(super) body: Value,
    pub(super) tasks: Vec<Value>,
    pub(super) carbons: Vec<Value>,
    /// Permanently deleted (platform.md#versions-and-update-modes).
    pub(super) gone: bool,
    /// What it takes, about.
    pub(super) bytes: usize,
}

impl Instance {
    pub(super) fn text(&self, member: &str) -> &str {
        self.body[member].as_str().unwrap_or_default()
    }

    /// True if the center shows it: not deleted, and no id is used twice (platform.md#unique-ids).
    pub(super) fn is_visible(&self) -> bool {
        let mut ids: Vec<&str> = std::iter::once(self.text("instance_id"))
            .chain(self.tasks.iter().filter_map(|task| task["task_id"].as_str()))
            .chain(self.carbons.iter().filter_map(|carbon| carbon["cc_id"].as_str()))
            .collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        !self.gone && ids.len() == count
    }
}

pub(super) struct Card {
    pub(super) message_id: u64,
    pub(super) body: Value,
    /// The card's state: `BUTTONS`, `DETAIL`, `ERROR` or a status.
    pub(super) shown: String,
    /// The texts that came with the status.
    pub(super) status_words: Value,
    /// What it takes, about.
    pub(super) bytes: usize,
    pub(super) sent_at: Instant,
}

pub(super) struct Token {
    pub(super) text: String,
    pub(super) expires_at: Instant,
    pub(super) of_app: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Count {
    pub(super) since: Instant,
    pub(super) calls: u32,
}

/// A position in a list: its filter and the number of items returned.
#[derive(Clone)]
pub(super) struct PageToken {
    pub(super) filter: Value,
    pub(super) given: usize,
}

#[derive(Debug, Clone, serde::Deserialize)]
#[serde(expecting = "an object")]
pub(super) struct Planned {
    /// A substring of the path.
    pub(super) path: String,
    #[serde(default = "once")]
    pub(super) times: u32,
    #[serde(default = "bad_request")]
    pub(super) status: u16,
    pub(super) code: i64,
    #[serde(default)]
    pub(super) msg: String,
    /// For `x-ogw-ratelimit-reset`.
    pub(super) reset_seconds: Option<u64>,
}

fn once() -> u32 {
    1
}

fn bad_request() -> u16 {
    400
}

impl Tenant {
    pub(super) fn new(settings: &Settings) -> Self {
        let native: Value = serde_json::from_str(NATIVE_INSTANCE).expect("the built-in example is JSON");
        let code = native["instance_code"].as_str().expect("the built-in example has a code").to_owned();
        Self {
            settings: settings.clone(),
            people: settings.users.iter().map(|user| Person::new(user)).collect(),
            definitions: Vec::new(),
            instances: Vec::new(),
            native: BTreeMap::from([(code, native)]),
            cards: Vec::new(),
            tokens: Vec::new(),
            counts: HashMap::new(),
            cursors: HashMap::new(),
            planned: Vec::new(),
            taps: Taps::default(),
            tickets_sent: 0,
            orders: 0,
            numbers: 7_090_000_000_000_000_000,
        }
    }

    /// Forgets what is over, and the oldest of what is too much. Anyone who reaches the emulator may fill it.
    pub(super) fn settle(&mut self) {
        let now = Instant::now();
        self.tokens.retain(|token| now < token.expires_at);
        self.planned.retain(|planned| planned.times > 0);
        self.planned.truncate(MOST_PLANNED);
        if self.cursors.len() > MOST_ENTRIES {
            self.cursors.clear();
        }
        let mut cards: usize = self.cards.iter().map(|card| card.bytes).sum();
        let mut instances: usize = self.instances.iter().map(|instance| instance.bytes).sum();
        let excess = |count: usize| count.saturating_sub(MOST_ENTRIES);
        let (mut old_cards, mut old_instances) = (excess(self.cards.len()), excess(self.instances.len()));
        cards -= self.cards[..old_cards].iter().map(|card| card.bytes).sum::<usize>();
        instances -= self.instances[..old_instances].iter().map(|instance| instance.bytes).sum::<usize>();
        while cards + instances > MOST_BYTES {
            if cards >= instances {
                cards -= self.cards[old_cards].bytes;
                old_cards += 1;
            } else {
                instances -= self.instances[old_instances].bytes;
                old_instances += 1;
            }
        }
        self.cards.drain(..old_cards);
        self.instances.drain(..old_instances);
        while self.definitions.len() > MOST_ENTRIES {
            self.definitions.remove(0);
        }
        while self.native.len() > MOST_NATIVE {
            self.native.pop_first();
        }
    }

    /// The next platform number: 19 digits, more than a double can represent exactly (platform.md#sending-a-card).
    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1_000_003;
        self.numbers
    }

    pub(super) fn by_real_code(&self, code: &str) -> Option<&Definition> {
        self.definitions.iter().find(|definition| definition.real_code == code)
    }

    pub(super) fn instance(&self, instance_id: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.text("instance_id") == instance_id)
    }

    pub(super) fn person(&self, kind: &str, id: &str) -> Option<&Person> {
        self.people.iter().find(|person| match kind {
            "user_id" => person.user_id == id,
            "union_id" => person.union_id == id,
            _ => person.open_id == id,
        })
    }

    /// The user_id of the user that a body names by `user_id` or `open_id`.
    pub(super) fn user_of(&self, body: &Value) -> Option<String> {
        let named = |member: &str| body[member].as_str().filter(|id| !id.is_empty());
        named("user_id").map(str::to_owned).or_else(|| {
            named("open_id").and_then(|id| self.person("open_id", id)).map(|person| person.user_id.clone())
        })
    }

    /// Returns the last token while at least half an hour of it is left, else a new one (platform.md#access-tokens).
    pub(super) fn token(&mut self, of_app: bool) -> (String, u64) {
        let lifetime = self.settings.token_lifetime;
        let now = Instant::now();
        let enough = Duration::from_secs(1800).min(lifetime / 4);
        let last = self.tokens.iter().rev().find(|token| token.of_app == of_app);
        let left = |token: &Token| token.expires_at.saturating_duration_since(now);
        if let Some(token) = last.filter(|token| left(token) >= enough) {
            return (token.text.clone(), left(token).as_secs());
        }
        let text = format!("{}-{}", if of_app { "a" } else { "t" }, random_hex::<20>());
        self.tokens.push(Token { text: text.clone(), expires_at: now + lifetime, of_app });
        (text, lifetime.as_secs())
    }

    pub(super) fn knows_token(&self, text: &str, of_app: bool) -> bool {
        let now = Instant::now();
        self.tokens.iter().any(|token| token.text == text && token.of_app == of_app && now < token.expires_at)
    }

    /// The state for inspection, without the tokens of definitions and cards.
    pub(super) fn picture(&self) -> Value {
        let definitions: Vec<_> = self
            .definitions
            .iter()
            .map(|definition| {
                let external = &definition.body["external"];
                json!({
                    "custom_code": definition.custom_code, "real_code": definition.real_code,
                    "approval_name": definition.body["approval_name"],
                    "action_callback_url": external["action_callback_url"],
                    "encrypted": external["action_callback_key"].as_str().is_some_and(|key| !key.is_empty()),
                })
            })
            .collect();
        let instances: Vec<_> = self
            .instances
            .iter()
            .map(|instance| {
                let tasks: Vec<_> = instance
                    .tasks
                    .iter()
                    .map(|task| {
                        json!({
                            "task_id": task["task_id"], "user_id": self.user_of(task), "status": task["status"],
                            "update_time": task["update_time"], "action_context": task["action_context"],
                            "buttons": task["action_configs"],
                        })
                    })
                    .collect();
                json!({
                    "instance_id": instance.text("instance_id"), "instance_code": instance.code,
                    "approval_code": instance.text("approval_code"), "status": instance.text("status"),
                    "update_time": instance.text("update_time"), "visible": instance.is_visible(), "tasks": tasks,
                })
            })
            .collect();
        let cards: Vec<_> = self
            .cards
            .iter()
            .map(|card| {
                json!({
                    "message_id": card.message_id.to_string(), "template_id": card.body["template_id"],
                    "user_id": self.user_of(&card.body), "shown": card.shown,
                    "action_context": card.body["action_callback"]["action_context"],
                })
            })
            .collect();
        let users: Vec<_> = self
            .people
            .iter()
            .map(|person| {
                json!({ "user_id": person.user_id, "open_id": person.open_id, "union_id": person.union_id })
            })
            .collect();
        json!({
            "definitions": definitions, "instances": instances, "cards": cards, "users": users,
            "native_instances": self.native.keys().collect::<Vec<_>>(),
            "tokens_given": self.tokens.iter().filter(|token| !token.of_app).count(),
            "tickets_sent": self.tickets_sent,
            "failures_left": self.planned.iter().map(|planned| planned.times).sum::<u32>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(bytes: usize) -> Card {
        let shown = "BUTTONS".to_owned();
        Card {
            message_id: 1,
            body: Value::Null,
            shown,
            status_words: Value::Null,
            bytes,
            sent_at: Instant::now(),
        }
    }

    #[test]
    fn the_oldest_goes_when_there_is_too_much() {
        let mut tenant = Tenant::new(&Settings::default());
        for number in 0..30 {
            let mut card = card(4 << 20);
            card.message_id = number;
            tenant.cards.push(card);
            tenant.settle();
        }
        assert_eq!((tenant.cards.len(), tenant.cards[0].message_id), (16, 14));
        tenant.cards.clear();
        for number in 0..MOST_ENTRIES as u64 + 3 {
            let mut card = card(1);
            card.message_id = number;
            tenant.cards.push(card);
        }
        tenant.settle();
        assert_eq!((tenant.cards.len(), tenant.cards[0].message_id), (MOST_ENTRIES, 3));
    }
}
