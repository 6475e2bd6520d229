//! The minimal permissions of the broker's users, as `rabbitmqctl` commands.
//!
//! RabbitMQ's permissions are patterns over names, and an exchange and a queue may share a name: a worker must read
//! the queue `countersign.commands`, so it may read the exchange as well, which is half of what a binding takes.
//! Therefore the worker gets no topic permissions on the exchange: without them it can neither bind to a topic
//! exchange nor publish.
//!
//! RabbitMQ 4.3 accepts topic permissions only on an existing exchange, and drops them with it. So the worker's
//! commands come last, the one on topics first: a shell that stops at an error (`sh -e`) has then given the worker
//! nothing, and countersign the permissions to declare the exchange.

use super::{
    Settings, Topology,
    topology::{DEAD, OUTCOMES, UNROUTED},
    vhost_of_url,
    words::quoted,
};

/// Matches no name.
const NOTHING: &str = "^$";

/// Matches no topic. A topic may be empty, a name may not.
const NO_TOPIC: &str = "(?!)";

/// A user of the broker, with its purpose and permissions.
struct User {
    name: &'static str,
    purpose: String,
    configure: String,
    write: String,
    read: String,
    /// Whether it gets no topic permissions on the exchange of commands.
    no_topics: bool,
    tag: Option<&'static str>,
}

/// Shell commands for three users: `countersign` itself, `worker`, and `monitoring`. They must have been added with
/// `rabbitmqctl add_user`. The virtual host is that of the first broker URL. Shell comments explain the permissions.
#[must_use]
pub fn permissions(settings: &Settings) -> Vec<String> {
    let vhost = settings.urls.first().map_or_else(|| "/".to_owned(), vhost_of_url);
    let vhost = quoted(&vhost);
    let mut lines =
        vec!["# Add the users first; it asks for the password: rabbitmqctl add_user NAME".to_owned()];
    for user in users(settings) {
        let User { name, purpose, configure, write, read, no_topics, tag } = user;
        lines.push(String::new());
        lines.push(format!("# {name}: {purpose}"));
        if no_topics {
            let (exchange, nothing) = (quoted(&settings.exchange), quoted(NO_TOPIC));
            lines.push(
                "# If it says that the exchange does not exist (RabbitMQ 4.3): start countersign, then run this again."
                    .to_owned(),
            );
            lines.push(format!(
                "rabbitmqctl set_topic_permissions -p {vhost} {name} {exchange} {nothing} {nothing}"
            ));
        }
        let [configure, write, read] = [configure, write, read].map(|pattern| quoted(&pattern));
        lines.push(format!("rabbitmqctl set_permissions -p {vhost} {name} {configure} {write} {read}"));
        if let Some(tag) = tag {
            lines.push(format!("rabbitmqctl set_user_tags {name} {tag}"));
        }
    }
    lines
}

fn users(settings: &Settings) -> [User; 3] {
    let (exchange, queue) = (&*settings.exchange, &*settings.queue);
    let outcomes = settings.outcomes.as_deref();
    let service = if settings.topology == Topology::Declare {
        // Declaring takes all three: a queue with dead letters is read and its dead-letter exchange written, likewise
        // an exchange with an alternate one, and a binding writes the queue and reads the exchange.
        let reports = [OUTCOMES].into_iter().chain(outcomes).filter(|_| outcomes.is_some());
        let all = pattern([exchange, queue, UNROUTED, DEAD].into_iter().chain(reports));
        User {
            name: "countersign",
            purpose: "declares exchanges and queues, publishes commands, consumes reports and dead letters"
                .to_owned(),
            configure: all.clone(),
            write: all.clone(),
            read: all,
            no_topics: false,
            tag: None,
        }
    } else {
        // RabbitMQ 4.3 shows an exchange or a queue only to users with some permission on it. Of the three, write
        // gives only half of a binding on a queue, and a publishing user may write to the exchanges anyway.
        User {
            name: "countersign",
            purpose: "publishes commands, inspects queues, consumes reports and dead letters; declares nothing, as amqp.topology says"
                .to_owned(),
            configure: NOTHING.to_owned(),
            write: pattern([exchange, queue, UNROUTED, DEAD]),
            read: pattern(outcomes.into_iter().chain([UNROUTED, DEAD].into_iter().filter(|_| settings.collects))),
            no_topics: false,
            tag: None,
        }
    };
    let reports = if outcomes.is_some() { ", reports what became of them" } else { "" };
    let reads = if queue.is_empty() {
        "amqp.queue is empty: let it read the queue that it consumes"
    } else {
        "takes commands"
    };
    let worker = User {
        name: "worker",
        purpose: format!("{reads}{reports}; nothing else"),
        configure: NOTHING.to_owned(),
        write: pattern(outcomes.map(|_| OUTCOMES)),
        read: pattern([queue]),
        no_topics: true,
        tag: None,
    };
    let monitoring = User {
        name: "monitoring",
        purpose: "monitors through the management API; reads no message".to_owned(),
        configure: NOTHING.to_owned(),
        write: NOTHING.to_owned(),
        read: NOTHING.to_owned(),
        no_topics: false,
        tag: Some("monitoring"),
    };
    [service, monitoring, worker]
}

/// Matches exactly these names, each once; nothing if there are none.
fn pattern<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut known: Vec<String> = Vec::new();
    for name in names.into_iter().filter(|name| !name.is_empty()) {
        let name = regex::escape(name);
        if !known.contains(&name) {
            known.push(name);
        }
    }
    match known.as_slice() {
        [] => NOTHING.to_owned(),
        [name] => format!("^{name}$"),
        names => format!("^({})$", names.join("|")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn settings() -> Settings {
        Settings {
            urls: vec![Secret::new("amqp://fake-user:fake-password@127.0.0.1/team%2fit's")],
            outcomes: Some("countersign.outcomes".to_owned()),
            ..Settings::default()
        }
    }

    fn lines(settings: &Settings) -> Vec<String> {
        permissions(settings).into_iter().filter(|line| line.starts_with("rabbitmqctl")).collect()
    }

    #[test]
    fn each_user_gets_what_it_needs_and_no_more() {
        let all =
            r"'^(countersign\.commands|countersign\.unrouted|countersign\.dead|countersign\.outcomes)$'";
        let vhost = r"'team/it'\''s'";
        assert_eq!(
            lines(&settings()),
            [
                format!("rabbitmqctl set_permissions -p {vhost} countersign {all} {all} {all}"),
                format!("rabbitmqctl set_permissions -p {vhost} monitoring '^$' '^$' '^$'"),
                "rabbitmqctl set_user_tags monitoring monitoring".to_owned(),
                // Before the worker may read and write anything.
                format!(
                    "rabbitmqctl set_topic_permissions -p {vhost} worker 'countersign.commands' '(?!)' '(?!)'"
                ),
                format!(
                    r"rabbitmqctl set_permissions -p {vhost} worker '^$' '^countersign\.outcomes$' '^countersign\.commands$'"
                ),
            ]
        );
        let text = permissions(&settings()).join("\n");
        assert!(!text.contains("fake-"), "{text}");
    }

    #[test]
    fn a_service_that_declares_nothing_may_not_and_without_reports_nobody_may_report() {
        let checks = lines(&Settings { topology: Topology::Check, ..settings() });
        let (_, rights) = checks[0].split_once("countersign ").unwrap();
        let written = r"'^(countersign\.commands|countersign\.unrouted|countersign\.dead)$'";
        let read = r"'^(countersign\.outcomes|countersign\.unrouted|countersign\.dead)$'";
        assert_eq!(rights, format!("'^$' {written} {read}"));
        let leaves = Settings { topology: Topology::None, outcomes: None, collects: false, ..settings() };
        let without = lines(&leaves);
        let (_, rights) = without[0].split_once("countersign ").unwrap();
        assert_eq!(rights, format!("'^$' {written} '^$'"));
        assert!(without[4].ends_with(r"worker '^$' '^$' '^countersign\.commands$'"), "{}", without[4]);
    }

    #[test]
    fn names_of_ones_own_are_taken_literally() {
        let named = Settings {
            exchange: "approvals+1".to_owned(),
            queue: String::new(),
            outcomes: Some("reports".to_owned()),
            ..settings()
        };
        let found = lines(&named);
        assert!(found[0].contains(
            r"'^(approvals\+1|countersign\.unrouted|countersign\.dead|countersign\.outcomes|reports)$'"
        ));
        assert!(found[4].ends_with(r"worker '^$' '^countersign\.outcomes$' '^$'"), "{}", found[4]);
        assert!(found[3].contains("'approvals+1'"), "{}", found[3]);
        assert!(permissions(&named).iter().any(|line| line.contains("amqp.queue is empty")));
    }
}
