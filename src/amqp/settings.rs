//! Settings of the publisher.

use std::{collections::HashMap, time::Duration};

use super::{Existing, signing::SigningKey, tls};
use crate::{command::profile::Profile, secret::Secret};

/// Settings of the publisher.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Brokers, tried in turn. Each is an `amqp://` or `amqps://` URL checked by
    /// [`fault_of_url`](super::fault_of_url).
    pub urls: Vec<Secret>,
    /// The topic exchange that commands are published to.
    pub exchange: String,
    /// The queue bound to it with `#`. Empty: no queue is declared.
    pub queue: String,
    /// The queue that workers report to, if reports are consumed.
    pub outcomes: Option<String>,
    /// Whether the service is incomplete without that queue: somebody asked for it. Otherwise [`Topology::Check`] does
    /// not look for it.
    pub outcomes_needed: bool,
    /// Whether dead letters and unrouted commands are collected.
    pub collects: bool,
    /// What to do about exchanges and queues.
    pub topology: Topology,
    /// How often they are checked while connected; `None` for never.
    pub check_interval: Option<Duration>,
    /// AMQP property `type`, at most 255 bytes.
    pub message_type: String,
    /// The profile of an endpoint's commands, by endpoint name. The default is [`Profile::Plain`].
    pub profiles: HashMap<String, Profile>,
    /// Each signs every command. Empty: commands are not signed.
    pub signing: Vec<SigningKey>,
    /// Time limit for connecting to one broker, up to the first publish.
    pub connect_timeout: Duration,
    /// For `amqps://`.
    pub tls: tls::Settings,
    /// What all connections with these settings have learned of existing queues.
    pub existing: Existing,
}

impl Settings {
    /// Whether a publisher with these settings would behave the same. `collects` makes no difference to it. A new or removed endpoint makes no difference if
    /// its commands are plain.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let Self {
            urls,
            exchange,
            queue,
            outcomes,
            outcomes_needed,
            collects: _,
            existing: _,
            topology,
            check_interval,
            message_type,
            profiles,
            signing,
            connect_timeout,
            tls,
        } = self;
        let wrapped = |profiles: &HashMap<String, Profile>| {
            let mut wrapped: Vec<_> = profiles
                .iter()
                .filter(|(_, profile)| **profile != Profile::Plain)
                .map(|(endpoint, profile)| (endpoint.clone(), profile.clone()))
                .collect();
            wrapped.sort_by(|(one, _), (other, _)| one.cmp(other));
            wrapped
        };
        urls.len() == other.urls.len()
            && urls.iter().zip(&other.urls).all(|(one, other)| one.equals(other.expose()))
            && signing.len() == other.signing.len()
            && signing.iter().zip(&other.signing).all(|(one, other)| one.is_same(other))
            && (exchange, queue) == (&other.exchange, &other.queue)
            && (outcomes, outcomes_needed) == (&other.outcomes, &other.outcomes_needed)
            && (topology, check_interval) == (&other.topology, &other.check_interval)
            && (message_type, connect_timeout, tls)
                == (&other.message_type, &other.connect_timeout, &other.tls)
            && wrapped(profiles) == wrapped(&other.profiles)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            exchange: "countersign.commands".to_owned(),
            queue: "countersign.commands".to_owned(),
            outcomes: None,
            outcomes_needed: true,
            collects: true,
            topology: Topology::Declare,
            check_interval: Some(Duration::from_secs(60)),
            message_type: "approval.command.v1".to_owned(),
            profiles: HashMap::new(),
            signing: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            tls: tls::Settings::default(),
            existing: Existing::default(),
        }
    }
}

/// What to do about exchanges and queues at the start of each session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Topology {
    /// Declare what is missing. A deleted exchange is restored a moment later.
    #[default]
    Declare,
    /// Check that it exists; change nothing. For brokers whose definitions are managed elsewhere, and for users
    /// without the permission `configure`. AMQP cannot check bindings: with a missing one, commands end up in
    /// [`topology::UNROUTED`](super::topology::UNROUTED), whose messages are counted.
    Check,
    /// Do not check, neither when connecting nor later.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn celery() -> Profile {
        Profile::CloudEvents
    }

    #[test]
    fn a_publisher_is_rebuilt_for_each_setting_that_it_uses() {
        let key = || SigningKey::parse(&SigningKey::hmac_text(&[1; 32])).unwrap();
        let urls = || vec![Secret::new("amqp://u:fake@a")];
        let settings = || Settings { urls: urls(), signing: vec![key()], ..Settings::default() };
        assert!(settings().is_same(&settings()));
        let changes: [fn(&mut Settings); 15] = [
            |s| s.urls = vec![Secret::new("amqp://u:other-fake@a")],
            |s| s.urls.push(Secret::new("amqp://u:fake@b")),
            |s| s.exchange = "e".to_owned(),
            |s| s.queue = String::new(),
            |s| s.outcomes = Some("q".to_owned()),
            |s| s.outcomes_needed = false,
            |s| s.topology = Topology::Check,
            |s| s.check_interval = None,
            |s| s.message_type = "t".to_owned(),
            |s| s.connect_timeout = Duration::from_secs(1),
            |s| s.tls.ca_file = Some("ca.pem".into()),
            |s| drop(s.profiles.insert("purchase".to_owned(), celery())),
            |s| s.urls.clear(),
            |s| s.signing.clear(),
            |s| s.signing = vec![SigningKey::parse(&SigningKey::hmac_text(&[2; 32])).unwrap()],
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut changed = settings();
            change(&mut changed);
            assert!(!changed.is_same(&settings()) && !settings().is_same(&changed), "change {number}");
        }
    }

    #[test]
    fn an_endpoint_whose_commands_are_plain_is_no_reason_to_reconnect() {
        let with = |endpoints: &[(&str, Profile)]| {
            let profiles = endpoints.iter().map(|(name, profile)| ((*name).to_owned(), profile.clone()));
            Settings { profiles: profiles.collect(), ..Settings::default() }
        };
        let one = with(&[("purchase", celery()), ("leave", celery())]);
        let more = with(&[("leave", celery()), ("travel", Profile::Plain), ("purchase", celery())]);
        assert!(one.is_same(&more));
        assert!(!one.is_same(&with(&[("leave", Profile::Plain), ("purchase", celery())])));
    }
}
