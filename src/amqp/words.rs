//! Advice for an exchange, queue or binding that a broker refuses. It is derived from the broker's message: one reply
//! code covers many faults, and wrong advice destroys existing data.

use lapin::ErrorKind;

use super::{code, topology::OVERFLOW};
use crate::telemetry::metrics::topology::Problem;

fn text(error: &lapin::Error) -> Option<&str> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_message().as_str()),
        _ => None,
    }
}

/// The kind of a refusal. The messages are those of RabbitMQ 3.10 to 4.x.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// `inequivalent arg 'x-queue-type' for queue ..`
    Otherwise { argument: String },
    /// `queue limit in vhost 'v' (1) is reached`
    Limit,
    /// `invalid arg 'x-queue-type' for queue ..`
    Unknown { argument: String },
    /// `cannot obtain exclusive access to locked queue ..`
    Locked,
    /// `configure access to queue .. refused for user ..`
    Forbidden,
    /// `no queue 'q' in vhost 'v'`
    Missing,
    /// Something else.
    Other,
}

fn kind(error: &lapin::Error) -> Kind {
    let Some(text) = text(error) else { return Kind::Other };
    let argument = |before: &str| {
        let rest = text.split_once(before)?.1;
        Some(rest.split_once('\'')?.0.to_owned())
    };
    if text.contains(" limit ") && text.contains("reached") {
        Kind::Limit
    } else if let Some(argument) = argument("inequivalent arg '") {
        Kind::Otherwise { argument }
    } else if let Some(argument) = argument("invalid arg '") {
        Kind::Unknown { argument }
    } else {
        match code(error) {
            Some(403) => Kind::Forbidden,
            Some(404) => Kind::Missing,
            Some(405) => Kind::Locked,
            _ => Kind::Other,
        }
    }
}

pub(super) fn problem(error: &lapin::Error) -> Problem {
    match kind(error) {
        Kind::Otherwise { .. } => Problem::DeclaredOtherwise,
        Kind::Missing => Problem::Missing,
        Kind::Forbidden => Problem::NotPermitted,
        Kind::Limit | Kind::Unknown { .. } | Kind::Locked | Kind::Other => Problem::Refused,
    }
}

/// What to do. `object` is the object to declare or find, as in [`Error::Topology`](super::Error::Topology).
pub(super) fn advice(error: &lapin::Error, object: &str) -> String {
    match kind(error) {
        Kind::Limit => "there is no room for another one: raise the limit that the broker names \
             (`rabbitmqctl set_vhost_limits`), or create it in another virtual host"
            .to_owned(),
        Kind::Otherwise { argument } => format!(
            "it exists, declared with another {argument}: to use it as it is, set amqp.topology to \"check\"; or configure \
             another name. Only when it is empty, and nobody else uses it, it can be deleted and redeclared"
        ),
        Kind::Unknown { argument } => format!(
            "the broker does not accept {argument}; RabbitMQ 3.10 or newer with quorum queues enabled is required"
        ),
        Kind::Locked => "a queue of this name is exclusive to another connection; configure another name".to_owned(),
        Kind::Forbidden if object.starts_with("binding") => {
            "let the user write to the queue and read from the exchange, or bind it as `countersign topology print` shows \
             and set amqp.topology to \"check\""
                .to_owned()
        }
        Kind::Forbidden => "give the user the permissions that `countersign topology print --permissions` shows, or create it \
             as `countersign topology print` shows and set amqp.topology to \"check\""
            .to_owned(),
        Kind::Missing => {
            "create it as `countersign topology print` shows, or set amqp.topology to \"declare\"".to_owned()
        }
        Kind::Other => "trying again".to_owned(),
    }
}

/// The [`OVERFLOW`] of an existing queue, if the declaration was refused over that; `Some(None)` if it has none.
pub(super) fn overflow_of_existing(error: &lapin::Error) -> Option<Option<String>> {
    match kind(error) {
        Kind::Otherwise { argument } if argument == OVERFLOW => {
            // `none`, `'drop-head'`, or `the value 'drop-head' of type 'longstr'`.
            let (_, current) = text(error)?.split_once("but current is ")?;
            Some(current.split('\'').nth(1).map(str::to_owned))
        }
        _ => None,
    }
}

/// The `rabbitmqctl` command that makes a full queue refuse messages instead of dropping its oldest. In a quorum
/// queue, such as ours, a policy takes precedence over the argument. A policy that already applies to the queue is
/// then no longer in force.
#[must_use]
pub fn refusing_policy(vhost: &str, queue: &str) -> String {
    let pattern = quoted(&format!("^{}$", regex::escape(queue)));
    format!(
        "rabbitmqctl set_policy -p {} --apply-to queues countersign-overflow {pattern} '{{\"overflow\":\"reject-publish\"}}'",
        quoted(vhost)
    )
}

pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPError;

    use super::*;

    fn refused(code: u16, words: &str) -> lapin::Error {
        ErrorKind::ProtocolError(AMQPError::from_id(code, words.into()).expect("a reply code")).into()
    }

    const LIMIT: &str = "PRECONDITION_FAILED - cannot declare queue 'countersign.dead': queue limit in vhost 'qlim' (1) is reached";
    const OTHERWISE: &str = "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost 'v': received the \
        value 'quorum' of type 'longstr' but current is the value 'classic' of type 'longstr'";

    #[test]
    fn a_limit_is_not_taken_for_other_properties_and_nobody_is_told_to_delete_what_is_not_there() {
        let limit = refused(406, LIMIT);
        assert_eq!(problem(&limit), Problem::Refused);
        let advice = advice(&limit, "queue countersign.dead");
        assert!(advice.contains("raise the limit") && !advice.contains("delete"), "{advice}");
        let cluster =
            refused(406, "PRECONDITION_FAILED - cannot declare exchange 'e': exchange limit of 5 is reached");
        assert_eq!(kind(&cluster), Kind::Limit);
    }

    #[test]
    fn an_operator_is_told_what_to_do_by_the_brokers_words() {
        for (error, expected, words) in [
            (refused(406, OTHERWISE), Problem::DeclaredOtherwise, "declared with another x-queue-type"),
            (
                refused(
                    406,
                    "PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue 'q' in vhost 'v': ...",
                ),
                Problem::Refused,
                "does not accept x-queue-type",
            ),
            (
                refused(405, "RESOURCE_LOCKED - cannot obtain ..."),
                Problem::Refused,
                "exclusive to another connection",
            ),
            (refused(404, "NOT_FOUND - no queue 'q' in vhost 'v'"), Problem::Missing, "create it as"),
            (
                refused(403, "ACCESS_REFUSED - access to queue 'q' in vhost 'v' refused for user 'u'"),
                Problem::NotPermitted,
                "topology print --permissions",
            ),
            (refused(541, "INTERNAL_ERROR"), Problem::Refused, "trying again"),
        ] {
            assert_eq!(problem(&error), expected, "{words}");
            let told = advice(&error, "queue q");
            assert!(told.contains(words), "{told}");
        }
        let binding = advice(&refused(403, "ACCESS_REFUSED - ..."), "binding of queue q to exchange e");
        assert!(binding.starts_with("let the user write to the queue"), "{binding}");
        let existing = advice(&refused(406, OTHERWISE), "queue q");
        assert!(
            existing.find("check").unwrap() < existing.find("deleted").unwrap(),
            "the harmless way first: {existing}"
        );
    }

    #[test]
    fn what_an_existing_queue_does_when_it_is_full_is_read_off_the_refusal() {
        let words = |received_and_current: &str| {
            let words =
                "PRECONDITION_FAILED - inequivalent arg 'x-overflow' for queue 'q' in vhost 'v': received";
            refused(406, &format!("{words} {received_and_current}"))
        };
        let none = words("the value 'reject-publish' of type 'longstr' but current is none");
        assert_eq!(overflow_of_existing(&none), Some(None));
        for drops in [
            words("'reject-publish' but current is 'drop-head'"),
            words("none but current is the value 'drop-head' of type 'longstr'"),
        ] {
            assert_eq!(overflow_of_existing(&drops), Some(Some("drop-head".to_owned())));
        }
        assert_eq!(overflow_of_existing(&refused(406, OTHERWISE)), None);
        assert_eq!(overflow_of_existing(&refused(404, "NOT_FOUND")), None);
    }
}
