//! Exchanges, queues and bindings, as one table: what is declared over AMQP and what `countersign topology print` shows
//! as RabbitMQ definitions are made from the same rows.
//!
//! Arguments are written into a queue for ever: RabbitMQ refuses to declare it again with others. So only what the
//! product cannot do without is an argument. Everything that an operator may want to change one day belongs in a
//! policy, which overrides nothing here: `delivery-limit` (how often a message is handed out again before it goes to
//! the dead letters; 20 by default from RabbitMQ 4 on, unlimited before), `max-length` with `overflow`,
//! `dead-letter-strategy` (`at-most-once` by default; `at-least-once` asks for `overflow: reject-publish` and keeps dead
//! letters in memory until they are confirmed).
//!
//! The names `countersign.unrouted` and `countersign.dead` are fixed, whatever exchange is configured: several
//! services on one virtual host share them, and whoever watches them needs to know two names only. Both keep the routing
//! key, which names the endpoint.

use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::{Map, Value, json};

use super::{Address, Error, Settings, Topology, code, vhost_of_url};

/// Where a command goes that no queue was bound for.
pub const UNROUTED: &str = "countersign.unrouted";

/// Where a command goes that a worker rejects, or fails at too often.
pub const DEAD: &str = "countersign.dead";

/// The routing key of the default binding: everything.
const EVERYTHING: &str = "#";

type Arguments = &'static [(&'static str, &'static str)];

struct Exchange {
    name: String,
    kind: ExchangeKind,
    arguments: Arguments,
}

struct Queue {
    name: String,
    arguments: Arguments,
}

struct Binding {
    exchange: String,
    queue: String,
    routing_key: &'static str,
}

/// The table.
struct Plan {
    exchanges: Vec<Exchange>,
    queues: Vec<Queue>,
    bindings: Vec<Binding>,
}

/// A topic exchange, so that a queue may be bound to one endpoint, one definition or one action. What no binding takes
/// goes to the alternate exchange instead of back to the publisher, so a forgotten binding costs no attempts and
/// delays nothing. <https://www.rabbitmq.com/docs/ae>
const COMMANDS_EXCHANGE: Arguments = &[("alternate-exchange", UNROUTED)];

/// A quorum queue, because a confirm then means that a majority of nodes has the command on disk; a classic queue that
/// is not mirrored loses with its node what was confirmed. <https://www.rabbitmq.com/docs/quorum-queues>
const COMMANDS_QUEUE: Arguments = &[
    ("x-queue-type", "quorum"),
    // A rejected command is a decision that somebody has to look at, not to be dropped.
    ("x-dead-letter-exchange", DEAD),
];

/// The same; whatever leaves this queue has been looked at.
const KEPT_QUEUE: Arguments = &[("x-queue-type", "quorum")];

/// What is wrong with these names, as the end of a sentence; `None` if nothing is.
#[must_use]
pub fn fault_of_names(exchange: &str, queue: &str) -> Option<&'static str> {
    if exchange.is_empty() {
        Some("exchange is empty: the default exchange routes by queue name and cannot be declared")
    } else if exchange.len() > 255 || queue.len() > 255 {
        Some("exchange or queue is longer than 255 bytes")
    } else if exchange.starts_with("amq.") || queue.starts_with("amq.") {
        Some("exchange or queue begins with \"amq.\", which is the broker's own")
    } else if [exchange, queue].iter().any(|name| [UNROUTED, DEAD].contains(name)) {
        Some(
            "exchange or queue is countersign.unrouted or countersign.dead, which are used for what the names say",
        )
    } else {
        None
    }
}

fn plan(settings: &Settings) -> Plan {
    let fanout = |name: &str| Exchange { name: name.to_owned(), kind: ExchangeKind::Fanout, arguments: &[] };
    let kept = |name: &str| Queue { name: name.to_owned(), arguments: KEPT_QUEUE };
    let bind = |exchange: &str, queue: &str, routing_key| Binding {
        exchange: exchange.to_owned(),
        queue: queue.to_owned(),
        routing_key,
    };
    // What is referred to comes first: a command published a moment later finds its way already.
    let exchanges = vec![
        fanout(UNROUTED),
        fanout(DEAD),
        Exchange { name: settings.exchange.clone(), kind: ExchangeKind::Topic, arguments: COMMANDS_EXCHANGE },
    ];
    // "" declares no queue, these two included: without them a command that no queue takes is returned by the broker,
    // and stays in the ledger until somebody binds one.
    if settings.queue.is_empty() {
        return Plan { exchanges, queues: Vec::new(), bindings: Vec::new() };
    }
    Plan {
        exchanges,
        queues: vec![
            kept(UNROUTED),
            kept(DEAD),
            Queue { name: settings.queue.clone(), arguments: COMMANDS_QUEUE },
        ],
        bindings: vec![
            bind(UNROUTED, UNROUTED, ""),
            bind(DEAD, DEAD, ""),
            bind(&settings.exchange, &settings.queue, EVERYTHING),
        ],
    }
}

/// What workers report goes straight to its queue, by the default exchange, which every queue is bound to by its name. What
/// is no report goes to the dead letters, which are declared here as well: the relay does so only with a queue of its own.
fn outcomes_plan(queue: &str) -> Plan {
    Plan {
        exchanges: vec![Exchange { name: DEAD.to_owned(), kind: ExchangeKind::Fanout, arguments: &[] }],
        queues: vec![
            Queue { name: DEAD.to_owned(), arguments: KEPT_QUEUE },
            Queue { name: queue.to_owned(), arguments: COMMANDS_QUEUE },
        ],
        bindings: vec![Binding { exchange: DEAD.to_owned(), queue: DEAD.to_owned(), routing_key: "" }],
    }
}

/// The table as RabbitMQ definitions, for `rabbitmqctl import_definitions` and for a node's `load_definitions`. The
/// virtual host is that of the first broker URL. `outcomes` is the queue that workers report to, if there is one.
#[must_use]
pub fn definitions(settings: &Settings, outcomes: Option<&str>) -> Value {
    let vhost = settings.urls.first().map_or_else(|| "/".to_owned(), vhost_of_url);
    let arguments = |arguments: Arguments| -> Map<String, Value> {
        arguments.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
    };
    let mut plan = plan(settings);
    if let Some(outcomes) = outcomes.map(outcomes_plan) {
        // The exchange of dead letters is there in any case, its queue unless there is none at all.
        let known: Vec<_> = plan.queues.iter().map(|queue| queue.name.clone()).collect();
        plan.queues.extend(outcomes.queues.into_iter().filter(|queue| !known.contains(&queue.name)));
        plan.bindings.extend(outcomes.bindings.into_iter().filter(|binding| !known.contains(&binding.queue)));
    }
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

/// Does what [`Settings::topology`] says. After an error the channel is closed.
pub(super) async fn prepare(channel: &Channel, settings: &Settings, broker: &Address) -> Result<(), Error> {
    // A check is for what publishing needs. Where unrouted and dead commands go is whoever's business it is that made
    // the topology; without an alternate exchange an unrouted command comes back, which is noticed.
    let needed = |name: &str| name == settings.exchange || name == settings.queue;
    carry_out(plan(settings), needed, channel, settings.topology, broker).await
}

/// Does what [`Settings::topology`] says for the queue that workers report to.
///
/// # Errors
/// [`Error::Topology`]; the channel is closed then.
pub async fn prepare_outcomes(
    channel: &Channel,
    settings: &Settings,
    queue: &str,
    broker: &Address,
) -> Result<(), Error> {
    carry_out(outcomes_plan(queue), |name| name == queue, channel, settings.topology, broker).await
}

/// Declares a table, or looks for that part of it that is needed.
async fn carry_out(
    plan: Plan,
    needed: impl Fn(&str) -> bool,
    channel: &Channel,
    topology: Topology,
    broker: &Address,
) -> Result<(), Error> {
    let (verb, passive) = match topology {
        Topology::Declare => ("declare", false),
        Topology::Check => ("find", true),
        Topology::None => return Ok(()),
    };
    let failed = |object: String| {
        let broker = broker.clone();
        move |source: lapin::Error| Error::Topology {
            verb,
            object,
            broker,
            advice: advice(&source),
            source: source.into(),
        }
    };
    let wanted = |name: &str| !passive || needed(name);
    for exchange in plan.exchanges.into_iter().filter(|exchange| wanted(&exchange.name)) {
        // Durable: what is not is gone when the broker restarts, and every publish fails.
        let options = ExchangeDeclareOptions { passive, durable: true, ..ExchangeDeclareOptions::default() };
        channel
            .exchange_declare(
                exchange.name.as_str().into(),
                exchange.kind,
                options,
                table(exchange.arguments),
            )
            .await
            .map_err(failed(format!("exchange {}", exchange.name)))?;
    }
    for queue in plan.queues.into_iter().filter(|queue| wanted(&queue.name)) {
        let options = QueueDeclareOptions { passive, durable: true, ..QueueDeclareOptions::default() };
        channel
            .queue_declare(queue.name.as_str().into(), options, table(queue.arguments))
            .await
            .map_err(failed(format!("queue {}", queue.name)))?;
    }
    // A binding cannot be asked for over AMQP, only made.
    let bindings = if passive { Vec::new() } else { plan.bindings };
    for Binding { exchange, queue, routing_key } in bindings {
        channel
            .queue_bind(
                queue.as_str().into(),
                exchange.as_str().into(),
                routing_key.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .map_err(failed(format!("binding of queue {queue} to exchange {exchange}")))?;
    }
    Ok(())
}

fn table(arguments: Arguments) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), AMQPValue::LongString((*value).into()));
    }
    table
}

fn advice(error: &lapin::Error) -> &'static str {
    match code(error) {
        Some(403) => {
            "let the user configure it, or create it as `countersign topology print` shows and set amqp.topology to \"check\""
        }
        Some(404) => "create it as `countersign topology print` shows, or set amqp.topology to \"declare\"",
        Some(406) => {
            "it exists with other properties: delete it, choose another name, or set amqp.topology to \"check\" or \"none\""
        }
        _ => "trying again",
    }
}

#[cfg(test)]
mod tests {
    use lapin::{ErrorKind, protocol::AMQPError};

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
                  "arguments": { "x-queue-type": "quorum" } },
                { "name": "countersign.dead", "vhost": "orders", "durable": true, "auto_delete": false,
                  "arguments": { "x-queue-type": "quorum" } },
                { "name": "countersign.commands", "vhost": "orders", "durable": true, "auto_delete": false,
                  "arguments": { "x-queue-type": "quorum", "x-dead-letter-exchange": "countersign.dead" } },
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
        assert_eq!(definitions(&settings(), None), expected);
    }

    #[test]
    fn an_empty_queue_declares_no_queue() {
        let shown = definitions(&Settings { queue: String::new(), ..settings() }, None);
        assert_eq!((&shown["queues"], &shown["bindings"]), (&json!([]), &json!([])));
        assert_eq!(shown["exchanges"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn the_queue_of_outcomes_and_that_of_dead_letters_are_declared_once_whatever_else_is() {
        let names = |queue: &str| -> Vec<String> {
            let shown = definitions(&Settings { queue: queue.to_owned(), ..settings() }, Some("reports"));
            let bound = shown["bindings"].as_array().unwrap().iter();
            assert_eq!(bound.filter(|binding| binding["destination"] == DEAD).count(), 1);
            let queues = shown["queues"].as_array().unwrap().iter();
            queues.map(|queue| queue["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names("orders"), [UNROUTED, DEAD, "orders", "reports"]);
        assert_eq!(names(""), [DEAD, "reports"]);
    }

    #[test]
    fn names_that_would_collide_are_faults() {
        assert_eq!(fault_of_names("countersign.commands", "countersign.commands"), None);
        assert_eq!(fault_of_names("orders", ""), None);
        let long = "x".repeat(256);
        assert_eq!(fault_of_names(&long[1..], &long[1..]), None);
        for (exchange, queue) in [
            ("", "q"),
            ("e", UNROUTED),
            (DEAD, "q"),
            ("amq.topic", "q"),
            ("e", "amq.q"),
            (long.as_str(), "q"),
            ("e", long.as_str()),
        ] {
            assert!(fault_of_names(exchange, queue).is_some(), "{exchange} {queue}");
        }
    }

    #[test]
    fn an_operator_is_told_what_to_do_about_a_name_that_is_not_as_it_should_be() {
        let told = |code| {
            let error = AMQPError::from_id(code, "the broker's words".into()).expect("a reply code");
            advice(&ErrorKind::ProtocolError(error).into())
        };
        assert!(told(403).starts_with("let the user configure it"), "{}", told(403));
        assert!(told(404).starts_with("create it"), "{}", told(404));
        assert!(told(406).starts_with("it exists with other properties"), "{}", told(406));
        assert_eq!(told(541), "trying again");
    }
}
