//! Exchanges, queues and bindings in one table, the source of both the AMQP declarations and the RabbitMQ definitions
//! of `countersign topology print`.
//!
//! The arguments of a queue are permanent: RabbitMQ refuses to declare it with others. So only indispensable settings
//! are arguments. Everything an operator may want to change belongs in a policy: `delivery-limit` (how often a message
//! is redelivered before it is dead-lettered; 20 by default from RabbitMQ 4 on, unlimited before), `max-length`,
//! `dead-letter-strategy` (`at-most-once` by default; `at-least-once` keeps dead letters in memory until they are
//! confirmed). Such a policy changes nothing else here.
//!
//! `x-overflow` is indispensable. Without it a policy or an operator policy with `max-length` drops the oldest
//! messages: commands that were confirmed and that nothing would publish again. With it the broker refuses the newest,
//! which the ledger keeps. Without a limit it has no effect. It does not protect against `message-ttl` and `expires`,
//! nor against a policy with its own `overflow`, which takes precedence over the argument of a quorum queue; an
//! operator policy cannot have one.
//!
//! The names `countersign.unrouted` and `countersign.dead` are fixed, whatever exchange is configured: services on one
//! virtual host share them, and monitoring needs only two names. Both keep the routing key, which names the endpoint.

use lapin::ExchangeKind;
use serde_json::{Map, Value, json};

use super::{Settings, vhost_of_url};
use crate::telemetry::metrics::topology::Role;

/// Receives commands that no queue is bound for.
pub const UNROUTED: &str = "countersign.unrouted";

/// Receives commands that a worker rejects or fails at too often.
pub const DEAD: &str = "countersign.dead";

/// The exchange for workers' reports, with the queue's name as the routing key. It is separate so that workers need no
/// right to publish to the default exchange, which would let them put commands into any queue.
pub const OUTCOMES: &str = "countersign.outcomes";

/// The routing key of the default binding: matches everything.
const EVERYTHING: &str = "#";

pub(super) type Arguments = &'static [(&'static str, &'static str)];

#[derive(Debug, Clone)]
pub(super) struct Exchange {
    pub(super) name: String,
    pub(super) kind: ExchangeKind,
    pub(super) arguments: Arguments,
    /// Whether publishing needs it; `topology = "check"` looks only for those.
    pub(super) needed: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Queue {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) arguments: Arguments,
    /// Whether anything needs it; `topology = "check"` looks only for those.
    pub(super) needed: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Binding {
    pub(super) exchange: String,
    pub(super) queue: String,
    pub(super) routing_key: String,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    pub(super) exchanges: Vec<Exchange>,
    pub(super) queues: Vec<Queue>,
    pub(super) bindings: Vec<Binding>,
}

/// The argument that determines what a full queue does with a message.
pub(super) const OVERFLOW: &str = "x-overflow";

/// The sender is notified and keeps the message.
pub(super) const REJECT_PUBLISH: &str = "reject-publish";

/// A topic exchange, so that a queue can be bound to one endpoint, one definition or one action. Commands that match
/// no binding go to the alternate exchange instead of back to the publisher, so a forgotten binding costs no attempts
/// and delays nothing. <https://www.rabbitmq.com/docs/ae>
const COMMANDS_EXCHANGE: Arguments = &[("alternate-exchange", UNROUTED)];

/// A quorum queue: a confirm then means that a majority of nodes has the command on disk. A classic queue that is not
/// mirrored loses confirmed commands with its node. <https://www.rabbitmq.com/docs/quorum-queues>
const COMMANDS_QUEUE: Arguments = &[
    ("x-queue-type", "quorum"),
    // A rejected command is a decision that needs attention; it must not be dropped.
    ("x-dead-letter-exchange", DEAD),
    (OVERFLOW, REJECT_PUBLISH),
];

/// The same; messages leave this queue only after somebody looked at them.
const KEPT_QUEUE: Arguments = &[("x-queue-type", "quorum"), (OVERFLOW, REJECT_PUBLISH)];

/// Reserved names that an exchange cannot have.
pub const TAKEN_EXCHANGES: [&str; 3] = [UNROUTED, DEAD, OUTCOMES];

/// Reserved names that a queue of commands or of reports cannot have.
pub const TAKEN_QUEUES: [&str; 2] = [UNROUTED, DEAD];

fn fanout(name: &str) -> Exchange {
    Exchange { name: name.to_owned(), kind: ExchangeKind::Fanout, arguments: &[], needed: false }
}

fn bind(exchange: &str, queue: &str, routing_key: &str) -> Binding {
    Binding { exchange: exchange.to_owned(), queue: queue.to_owned(), routing_key: routing_key.to_owned() }
}

fn kept(name: &str, role: Role) -> Queue {
    Queue { name: name.to_owned(), role, arguments: KEPT_QUEUE, needed: false }
}

/// The topology for commands.
///
/// A check covers what publishing needs. The destination of unrouted and dead commands is up to those who define the
/// topology; without an alternate exchange an unrouted command is returned, which is noticed.
pub(super) fn plan(settings: &Settings) -> Plan {
    // Referenced objects first: a command published a moment later is already routed.
    let exchanges = vec![
        fanout(UNROUTED),
        fanout(DEAD),
        Exchange {
            name: settings.exchange.clone(),
            kind: ExchangeKind::Topic,
            arguments: COMMANDS_EXCHANGE,
            needed: true,
        },
    ];
    // "" declares no queue, including these two: the broker then returns a command that no queue takes, and it stays
    // in the ledger until a queue is bound.
    if settings.queue.is_empty() {
        return Plan { exchanges, ..Plan::default() };
    }
    Plan {
        exchanges,
        queues: vec![
            kept(UNROUTED, Role::Unrouted),
            kept(DEAD, Role::Dead),
            Queue {
                name: settings.queue.clone(),
                role: Role::Commands,
                arguments: COMMANDS_QUEUE,
                needed: true,
            },
        ],
        bindings: vec![
            bind(UNROUTED, UNROUTED, ""),
            bind(DEAD, DEAD, ""),
            bind(&settings.exchange, &settings.queue, EVERYTHING),
        ],
    }
}

/// The topology for workers' reports. Messages that are not reports are dead-lettered. The dead-letter queue is
/// declared here as well: the relay declares it only with its own queue.
pub(super) fn outcomes_plan(queue: &str, needed: bool) -> Plan {
    let direct =
        Exchange { name: OUTCOMES.to_owned(), kind: ExchangeKind::Direct, arguments: &[], needed: false };
    Plan {
        exchanges: vec![fanout(DEAD), direct],
        queues: vec![
            kept(DEAD, Role::Dead),
            Queue { name: queue.to_owned(), role: Role::Outcomes, arguments: COMMANDS_QUEUE, needed },
        ],
        // The queue's name is the routing key, so several services on one virtual host can each have a queue.
        bindings: vec![bind(DEAD, DEAD, ""), bind(OUTCOMES, queue, queue)],
    }
}

/// The topology for one of the two queues of messages that nobody took.
pub(super) fn dead_letters_plan(queue: &str) -> Plan {
    let role = if queue == UNROUTED { Role::Unrouted } else { Role::Dead };
    Plan {
        exchanges: vec![fanout(queue)],
        queues: vec![Queue { needed: true, ..kept(queue, role) }],
        bindings: vec![bind(queue, queue, "")],
    }
}

impl Plan {
    /// Every exchange and queue, as named in errors.
    pub(super) fn objects(&self) -> impl Iterator<Item = String> {
        let exchanges = self.exchanges.iter().map(|exchange| format!("exchange {}", exchange.name));
        exchanges.chain(self.queues.iter().map(|queue| format!("queue {}", queue.name)))
    }

    /// Both tables, each object once.
    pub(super) fn and(mut self, other: Self) -> Self {
        let known: Vec<_> = self.exchanges.iter().map(|exchange| exchange.name.clone()).collect();
        self.exchanges.extend(other.exchanges.into_iter().filter(|exchange| !known.contains(&exchange.name)));
        let known: Vec<_> = self.queues.iter().map(|queue| queue.name.clone()).collect();
        self.queues.extend(other.queues.into_iter().filter(|queue| !known.contains(&queue.name)));
        self.bindings.extend(other.bindings.into_iter().filter(|binding| !known.contains(&binding.queue)));
        self
    }
}

pub(super) fn whole_plan(settings: &Settings) -> Plan {
    let plan = plan(settings);
    match &settings.outcomes {
        Some(queue) => plan.and(outcomes_plan(queue, settings.outcomes_needed)),
        None => plan,
    }
}

/// The table as RabbitMQ definitions, for `rabbitmqctl import_definitions` and for a node's `load_definitions`. The
/// virtual host is that of the first broker URL.
#[must_use]
pub fn definitions(settings: &Settings) -> Value {
    let vhost = settings.urls.first().map_or_else(|| "/".to_owned(), vhost_of_url);
    let arguments = |arguments: Arguments| -> Map<String, Value> {
        arguments.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
    };
    let plan = whole_plan(settings);
    json!({
        "vhosts": [{ "name": vhost }],
        "exchanges": plan.exchanges.iter().map(|exchange| json!({
            "name": exchange.name, "vhost": vhost, "type": word(&exchange.kind),
            "durable": true, "auto_delete": false, "internal": false, "arguments": arguments(exchange.arguments),
        })).collect::<Vec<_>>(),
        "queues": plan.queues.iter().map(|queue| json!({
            "name": queue.name, "vhost": vhost,
            "durable": true, "auto_delete": false, "arguments": arguments(queue.arguments),
        })).collect::<Vec<_>>(),
        "bindings": plan.bindings.iter().map(|binding| json!({
            "source": binding.exchange, "vhost": vhost, "destination": binding.queue, "destination_type": "queue",
            "routing_key": binding.routing_key, "arguments": {},
        })).collect::<Vec<_>>(),
    })
}

fn word(kind: &ExchangeKind) -> &str {
    match kind {
        ExchangeKind::Custom(word) => word,
        ExchangeKind::Direct => "direct",
        ExchangeKind::Fanout => "fanout",
        ExchangeKind::Headers => "headers",
        ExchangeKind::Topic => "topic",
    }
}

/// The names of all exchanges and queues that `serve` declares or looks for with these settings, each once.
#[must_use]
pub fn names(settings: &Settings) -> Vec<String> {
    let plan = whole_plan(settings);
    let exchanges = plan.exchanges.into_iter().map(|exchange| exchange.name);
    let mut names: Vec<_> = exchanges.chain(plan.queues.into_iter().map(|queue| queue.name)).collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn settings() -> Settings {
        Settings {
            urls: vec![Secret::new("amqp://fake-user:fake-password@127.0.0.1/orders")],
            ..Settings::default()
        }
    }

    #[test]
    fn the_definitions_are_those_of_the_contract() {
        let expected = json!({
            "vhosts": [{ "name": "orders" }],
            "exchanges": [
                { "name": "countersign.unrouted", "vhost": "orders", "type": "fanout",
                  "durable": true, "auto_delete": false, "internal": false, "arguments": {} },
                { "name": "countersign.dead", "vhost": "orders", "type": "fanout",
                  "durable": true, "auto_delete": false, "internal": false, "arguments": {} },
                { "name": "countersign.commands", "vhost": "orders", "type": "topic",
                  "durable": true, "auto_delete": false, "internal": false,
                  "arguments": { "alternate-exchange": "countersign.unrouted" } },
            ],
            "queues": [
                { "name": "countersign.unrouted", "vhost": "orders", "durable": true, "auto_delete": false,
                  "arguments": { "x-queue-type": "quorum", "x-overflow": "reject-publish" } },
                { "name": "countersign.dead", "vhost": "orders", "durable": true, "auto_delete": false,
                  "arguments": { "x-queue-type": "quorum", "x-overflow": "reject-publish" } },
                { "name": "countersign.commands", "vhost": "orders", "durable": true, "auto_delete": false,
                  "arguments": { "x-queue-type": "quorum", "x-dead-letter-exchange": "countersign.dead",
                                 "x-overflow": "reject-publish" } },
            ],
            "bindings": [
                { "source": "countersign.unrouted", "vhost": "orders", "destination": "countersign.unrouted",
                  "destination_type": "queue", "routing_key": "", "arguments": {} },
                { "source": "countersign.dead", "vhost": "orders", "destination": "countersign.dead",
                  "destination_type": "queue", "routing_key": "", "arguments": {} },
                { "source": "countersign.commands", "vhost": "orders", "destination": "countersign.commands",
                  "destination_type": "queue", "routing_key": "#", "arguments": {} },
            ],
        });
        assert_eq!(definitions(&settings()), expected);
    }

    #[test]
    fn an_empty_queue_declares_no_queue() {
        let shown = definitions(&Settings { queue: String::new(), ..settings() });
        assert_eq!((&shown["queues"], &shown["bindings"]), (&json!([]), &json!([])));
        assert_eq!(shown["exchanges"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn the_queue_of_outcomes_and_that_of_dead_letters_are_declared_once_whatever_else_is() {
        let names = |queue: &str| -> Vec<String> {
            let outcomes = Some("reports".to_owned());
            let shown = definitions(&Settings { queue: queue.to_owned(), outcomes, ..settings() });
            let bound = shown["bindings"].as_array().unwrap().iter();
            assert_eq!(bound.filter(|binding| binding["destination"] == DEAD).count(), 1);
            let queues = shown["queues"].as_array().unwrap().iter();
            queues.map(|queue| queue["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names("orders"), [UNROUTED, DEAD, "orders", "reports"]);
        assert_eq!(names(""), [DEAD, "reports"]);
    }

    #[test]
    fn workers_report_to_an_exchange_of_its_own_by_the_name_of_the_queue() {
        let shown = definitions(&Settings { outcomes: Some("reports".to_owned()), ..settings() });
        let exchanges = shown["exchanges"].as_array().unwrap();
        let exchange = exchanges.iter().find(|exchange| exchange["name"] == OUTCOMES).unwrap();
        assert_eq!((&exchange["type"], &exchange["durable"]), (&json!("direct"), &json!(true)));
        let bindings = shown["bindings"].as_array().unwrap();
        let binding = bindings.iter().find(|binding| binding["source"] == OUTCOMES).unwrap();
        assert_eq!(
            (&binding["destination"], &binding["routing_key"]),
            (&json!("reports"), &json!("reports"))
        );
    }
}
