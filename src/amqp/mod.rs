//! RabbitMQ over AMQP 0-9-1, by way of lapin.
//!
//! lapin prints every returned message, body and all, as a warning of the target `lapin::returned_messages`. The body
//! holds what approvers wrote, so the subscriber silences that target; what matters of a return is logged by the relay.
//! At level `trace` lapin prints every frame.

mod connection;
mod declare;
mod examine;
mod permissions;
mod publisher;
pub mod tls;
pub mod topology;
mod url;
mod watch;
mod window;
mod words;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use lapin::{
    ErrorKind,
    uri::{AMQPScheme, AMQPUri},
};

pub use connection::Listening;
pub use declare::Existing;
pub use examine::{Examined, Trouble, examine};
pub use permissions::permissions;
pub use publisher::{ConfirmChannel, Publisher};
pub use watch::Watch;
pub use words::refusing_policy;

use crate::relay::Failure;
use crate::{command::profile::Profile, loopback, secret::Secret};

/// Where and how to publish.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Brokers, tried in turn. Each `amqp://` or `amqps://`, and checked by [`fault_of_url`].
    pub urls: Vec<Secret>,
    /// The topic exchange that commands are published to.
    pub exchange: String,
    /// The queue that is bound to it by `#`. Empty: no queue is declared.
    pub queue: String,
    /// The queue that workers report to, if there is anybody who takes reports.
    pub outcomes: Option<String>,
    /// What to do about exchanges and queues.
    pub topology: Topology,
    /// How often they are looked at while connected; `None` for never.
    pub check_interval: Option<Duration>,
    /// AMQP property `type`, at most 255 bytes.
    pub message_type: String,
    /// The profile of an endpoint's commands, by its name. Those of endpoints that are not in it are
    /// [`Profile::Plain`].
    pub profiles: HashMap<String, Profile>,
    /// How long connecting to one broker may take, up to the first publish.
    pub connect_timeout: Duration,
    /// For `amqps://`.
    pub tls: tls::Settings,
}

impl Settings {
    /// Whether a publisher by these settings would do the same. An endpoint that is new or gone makes no difference if
    /// its commands are plain.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let Self {
            urls,
            exchange,
            queue,
            outcomes,
            topology,
            check_interval,
            message_type,
            profiles,
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
            && (exchange, queue, outcomes) == (&other.exchange, &other.queue, &other.outcomes)
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
            topology: Topology::Declare,
            check_interval: Some(Duration::from_secs(60)),
            message_type: "approval.command.v1".to_owned(),
            profiles: HashMap::new(),
            connect_timeout: Duration::from_secs(10),
            tls: tls::Settings::default(),
        }
    }
}

/// What to do about exchanges and queues at the start of each session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Topology {
    /// Declare what is missing. An exchange that somebody deletes is there again a moment later.
    #[default]
    Declare,
    /// See that it is there; change nothing. For brokers whose definitions are managed elsewhere, and for users without
    /// the permission `configure`. Bindings cannot be checked over AMQP: what a missing one costs lies in
    /// [`topology::UNROUTED`], whose messages are counted.
    Check,
    /// Do not even look, neither when connecting nor later.
    None,
}

/// Why there is no session, or none any longer.
///
/// The texts name the broker by host, port and virtual host; nothing of user and password.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An URL cannot be used.
    #[error("broker URL number {number} {fault}")]
    Url {
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// No broker is configured.
    #[error("no broker URL is configured")]
    NoUrl,
    /// A broker did not accept the connection.
    #[error("cannot connect to {broker}")]
    Connect {
        /// The broker.
        broker: Address,
        /// The cause.
        #[source]
        source: Box<lapin::Error>,
    },
    /// Broker and we do not agree on TLS.
    #[error("no TLS with {broker}: {advice}")]
    Tls {
        /// The broker.
        broker: Address,
        /// What is wrong and what to do.
        advice: String,
        /// The cause, unless all of it has been said.
        #[source]
        source: Option<Box<lapin::Error>>,
    },
    /// A broker did not answer in time.
    #[error("cannot connect to {broker} within {limit:?}")]
    ConnectTimeout {
        /// The broker.
        broker: Address,
        /// [`Settings::connect_timeout`].
        limit: Duration,
    },
    /// An exchange, queue or binding cannot be declared, or is not there.
    #[error("cannot {verb} {object} on {broker}; {advice}")]
    Topology {
        /// `declare` or `find`.
        verb: &'static str,
        /// Which one.
        object: String,
        /// The broker.
        broker: Address,
        /// What to do.
        advice: String,
        /// The cause.
        #[source]
        source: Box<lapin::Error>,
    },
    /// No channel.
    #[error("cannot open a channel on {broker}")]
    Channel {
        /// The broker.
        broker: Address,
        /// The cause.
        #[source]
        source: Box<lapin::Error>,
    },
    /// The connection or the channel ended.
    #[error("the connection to {broker} ended")]
    Ended {
        /// The broker.
        broker: Address,
        /// The cause, if it is known.
        #[source]
        source: Option<Box<lapin::Error>>,
    },
}

impl Failure for Error {
    fn needs_operator(&self) -> bool {
        match self {
            Self::Url { .. } | Self::NoUrl | Self::Tls { .. } => true,
            Self::ConnectTimeout { .. } => false,
            Self::Connect { source, .. } | Self::Channel { source, .. } => is_refusal(source),
            // Without the exchange there is nothing to publish to, and waiting does not make it.
            Self::Topology { source, .. } => is_refusal(source) || code(source) == Some(404),
            Self::Ended { source, .. } => source.as_deref().is_some_and(is_refusal),
        }
    }

    fn blames_publish(&self) -> Option<String> {
        match self {
            Self::Ended { source, .. } => source.as_deref().and_then(blame),
            Self::Url { .. }
            | Self::NoUrl
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::ConnectTimeout { .. }
            | Self::Topology { .. }
            | Self::Channel { .. } => None,
        }
    }
}

impl Error {
    /// The reply code and text of a broker that answered, and did not let us in or ended the connection.
    #[must_use]
    pub fn reply(&self) -> Option<(u16, &str)> {
        let source = match self {
            Self::Connect { source, .. } | Self::Channel { source, .. } | Self::Topology { source, .. } => {
                source
            }
            Self::Tls { source, .. } | Self::Ended { source, .. } => source.as_ref()?,
            Self::Url { .. } | Self::NoUrl | Self::ConnectTimeout { .. } => return None,
        };
        match source.kind() {
            ErrorKind::ProtocolError(error) => Some((error.get_id(), error.get_message().as_str())),
            _ => None,
        }
    }
}

/// The AMQP reply code of an error, if the broker sent one.
fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// The broker's reply code and text, if it ended a session that does nothing but publish over what was published.
///
/// - 403 access refused: of the topic, that is, the routing key. A user who may not write to the exchange at all is
///   refused with every command, so that is none of theirs.
/// - 311 content too large, 406 precondition failed: the message is larger than `max_message_size`, or has a property
///   that the broker does not take.
/// - 501 frame error, 502 syntax error, 503 command invalid, 505 unexpected frame, 540 not implemented, 541 internal
///   error: the broker could not read it, or stumbled over it.
///
/// Not 320 connection forced (shut down), 404 not found (the exchange was deleted), 504 and 506 (channel, resources).
fn blame(error: &lapin::Error) -> Option<String> {
    let ErrorKind::ProtocolError(error) = error.kind() else { return None };
    let (code, text) = (error.get_id(), error.get_message().as_str());
    let blames = match code {
        403 => !text.contains("access to exchange"),
        311 | 406 | 501 | 502 | 503 | 505 | 540 | 541 => true,
        _ => false,
    };
    blames.then(|| format!("{code} {text}"))
}

/// 403 access refused (user, password or permission), 406 precondition failed (declared with other properties),
/// 530 not allowed (no such virtual host).
fn is_refusal(error: &lapin::Error) -> bool {
    matches!(code(error), Some(403 | 406 | 530))
}

/// A broker as it may be shown: host, port and virtual host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    shown: Arc<str>,
    vhost: Arc<str>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// A parsed broker URL. `Debug` shows the address only.
#[derive(Clone)]
struct Broker {
    uri: AMQPUri,
    address: Address,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}

/// What is wrong with a broker URL, as the end of a sentence; `None` if it can be used. Shows nothing of it.
#[must_use]
pub fn fault_of_url(url: &Secret) -> Option<&'static str> {
    url::fault(url.expose()).or_else(|| Broker::parse(url).err())
}

/// What in a broker URL that can be used may be meant otherwise, each as the end of a sentence. Shows nothing of it.
#[must_use]
pub fn oddities_of_url(url: &Secret) -> Vec<&'static str> {
    url::oddities(url.expose())
}

/// The virtual host that a broker URL names; `/` if it names none, or cannot be read.
#[must_use]
pub fn vhost_of_url(url: &Secret) -> String {
    Broker::parse(url).map_or_else(|_| "/".to_owned(), |broker| broker.uri.vhost)
}

/// The broker that a URL names, if what is sent there goes over a wire without encryption.
#[must_use]
pub fn sent_in_clear(url: &Secret) -> Option<Address> {
    let broker = Broker::parse(url).ok()?;
    let is_in_clear = broker.uri.scheme == AMQPScheme::AMQP && !loopback::is_host(&broker.uri.authority.host);
    is_in_clear.then_some(broker.address)
}

/// Whom a broker URL says to be, where.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password.
    pub password: Secret,
    /// The virtual host.
    pub vhost: String,
    /// The broker's host, IPv6 without brackets.
    pub host: String,
}

/// Whom a broker URL says to be; `None` if it cannot be read.
#[must_use]
pub fn login_of_url(url: &Secret) -> Option<Login> {
    let AMQPUri { authority, vhost, .. } = Broker::parse(url).ok()?.uri;
    let password = Secret::new(authority.userinfo.password);
    Some(Login { user: authority.userinfo.username, password, vhost, host: authority.host })
}

/// The names of all exchanges and queues that `serve` declares or looks for by these settings, each once.
#[must_use]
pub fn names(settings: &Settings) -> Vec<String> {
    let plan = topology::whole_plan(settings);
    let exchanges = plan.exchanges.into_iter().map(|exchange| exchange.name);
    let mut names: Vec<_> = exchanges.chain(plan.queues.into_iter().map(|queue| queue.name)).collect();
    names.sort();
    names.dedup();
    names
}

/// Connects as the relay does (same reading of the URLs, same TLS) for somebody who only listens, under a `name` that
/// the broker shows. Declares nothing. May be dropped while it waits, and leaves nothing behind then.
///
/// # Errors
/// An URL is missing or unusable, or no broker answers; then what the last one had to say.
pub async fn listen_in(settings: &Settings, name: &str) -> Result<Listening, Error> {
    Listening::open(&Broker::parse_all(&settings.urls)?, settings, name).await
}

impl Broker {
    fn parse_all(urls: &[Secret]) -> Result<Vec<Self>, Error> {
        let parse = |(index, url)| Self::parse(url).map_err(|fault| Error::Url { number: index + 1, fault });
        urls.iter().enumerate().map(parse).collect()
    }

    fn parse(url: &Secret) -> Result<Self, &'static str> {
        let text = url.expose();
        // lapin's own words for what is wrong quote the URL, password and all.
        let mut uri: AMQPUri = text.parse().map_err(|_: String| "is not an amqp:// or amqps:// URL")?;
        if let Some(host) = bracketed_host(text) {
            // lapin takes every IPv6 address for "localhost".
            uri.authority.host = host.to_owned();
        } else if authority(text).is_none_or(|authority| host_of(authority).is_empty()) {
            return Err("names no host");
        }
        // Half of what lapin would take over from RabbitMQ's proposal: a dead peer is noticed within 20 s.
        uri.query.heartbeat.get_or_insert(10);
        // lapin makes two buffers of 32 frames of the size that is agreed, at once; and 0, which RabbitMQ may be
        // configured to propose, is 4 GiB to it. Our frames are smaller than this whatever is agreed.
        let frame_max = uri.query.frame_max.filter(|most| *most > 0);
        uri.query.frame_max = Some(frame_max.map_or(MAX_FRAME_BYTES, |most| most.min(MAX_FRAME_BYTES)));
        let (host, port, vhost) = (&uri.authority.host, uri.authority.port, uri.vhost.replace('/', "%2f"));
        let shown = if host.contains(':') {
            format!("[{host}]:{port}/{vhost}")
        } else {
            format!("{host}:{port}/{vhost}")
        };
        let address = Address { shown: shown.into(), vhost: uri.vhost.as_str().into() };
        Ok(Self { uri, address })
    }
}

/// What RabbitMQ proposes by default.
const MAX_FRAME_BYTES: u32 = 131_072;

/// `user:password@host:port` of an URL.
fn authority(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    Some(rest.split(['/', '?', '#']).next().unwrap_or(rest))
}

fn host_of(authority: &str) -> &str {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    host.split(':').next().unwrap_or(host)
}

fn bracketed_host(url: &str) -> Option<&str> {
    let authority = authority(url)?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Some(host.strip_prefix('[')?.split_once(']')?.0)
}

#[cfg(test)]
mod tests {
    use std::io;

    use lapin::protocol::AMQPError;

    use super::*;

    fn celery() -> Profile {
        Profile::CloudEvents
    }

    fn parse(url: &str) -> Result<Broker, &'static str> {
        Broker::parse(&Secret::new(url))
    }

    #[test]
    fn an_address_shows_host_port_and_virtual_host_only() {
        let broker = parse("amqp://fake-user:fake-password@mq.example.invalid:5673/%2f").unwrap();
        assert_eq!(broker.address.to_string(), "mq.example.invalid:5673/%2f");
        assert_eq!(format!("{broker:?}"), "mq.example.invalid:5673/%2f");
        assert_eq!(
            parse("amqps://mq.example.invalid/a").unwrap().address.to_string(),
            "mq.example.invalid:5671/a"
        );
    }

    #[test]
    fn an_address_of_ipv6_is_not_taken_for_localhost() {
        let broker = parse("amqp://fake-user:fake-password@[2001:db8::7]:5673/v").unwrap();
        assert_eq!((&*broker.uri.authority.host, broker.uri.authority.port), ("2001:db8::7", 5673));
        assert_eq!(broker.address.to_string(), "[2001:db8::7]:5673/v");
    }

    #[test]
    fn the_heartbeat_is_ten_seconds_unless_the_url_says_otherwise() {
        assert_eq!(parse("amqp://localhost").unwrap().uri.query.heartbeat, Some(10));
        assert_eq!(parse("amqp://localhost/%2f?heartbeat=3").unwrap().uri.query.heartbeat, Some(3));
    }

    #[test]
    fn frames_have_a_limit_whatever_the_url_says() {
        for (query, limit) in [("", 131_072), ("?frame_max=0", 131_072), ("?frame_max=4294967295", 131_072)] {
            let broker = parse(&format!("amqp://localhost/%2f{query}")).unwrap();
            assert_eq!(broker.uri.query.frame_max, Some(limit), "{query}");
        }
        assert_eq!(parse("amqp://localhost/%2f?frame_max=8192").unwrap().uri.query.frame_max, Some(8192));
    }

    #[test]
    fn of_several_urls_the_one_that_cannot_be_used_is_told_by_its_number() {
        let urls = ["amqp://a", "amqps://b/v", "http://fake-password@c"].map(Secret::new);
        let error = Broker::parse_all(&urls).unwrap_err();
        assert_eq!(error.to_string(), "broker URL number 3 is not an amqp:// or amqps:// URL");
        let brokers = Broker::parse_all(&urls[..2]).unwrap();
        assert_eq!(format!("{brokers:?}"), "[a:5672/%2f, b:5671/v]");
        assert_eq!(fault_of_url(&urls[0]), None);
    }

    #[test]
    fn what_is_wrong_with_an_url_is_told_without_the_url() {
        for url in [
            "",
            "fake-password",
            "http://fake-password@h/",
            "amqp:fake-password",
            "amqp:///v",
            "amqp://u:fake-password@/v",
        ] {
            let fault = fault_of_url(&Secret::new(url)).unwrap_or_else(|| panic!("{url} is accepted"));
            assert!(!fault.contains("fake"), "{fault}");
        }
    }

    /// What the broker closes a channel or connection with.
    fn said(code: u16, text: &str) -> Box<lapin::Error> {
        let error = AMQPError::from_id(code, text.into()).expect("a reply code of AMQP 0-9-1");
        Box::new(ErrorKind::ProtocolError(error).into())
    }

    fn ended(source: Box<lapin::Error>) -> Error {
        Error::Ended { broker: parse("amqp://localhost").unwrap().address, source: Some(source) }
    }

    #[test]
    fn only_ends_over_what_was_published_blame_it() {
        for code in [311, 406, 501, 502, 503, 505, 540, 541] {
            let blame = ended(said(code, "the broker's words")).blames_publish();
            assert_eq!(blame, Some(format!("{code} the broker's words")));
        }
        for code in [320, 404, 405, 504, 506, 530] {
            assert_eq!(ended(said(code, "the broker's words")).blames_publish(), None, "{code}");
        }
        assert_eq!(ended(Box::new(io::Error::from(io::ErrorKind::BrokenPipe).into())).blames_publish(), None);
    }

    #[test]
    fn a_routing_key_that_may_not_be_written_blames_the_command_and_an_exchange_does_not() {
        let topic = "ACCESS_REFUSED - write access to topic 'approval.purchase' in exchange 'e' refused";
        assert_eq!(ended(said(403, topic)).blames_publish(), Some(format!("403 {topic}")));
        let exchange = "ACCESS_REFUSED - write access to exchange 'e' in vhost '/' refused";
        assert_eq!(ended(said(403, exchange)).blames_publish(), None);
    }

    #[test]
    fn nothing_is_blamed_on_a_publish_before_there_was_one() {
        let broker = parse("amqp://localhost").unwrap().address;
        let source = said(406, "declared with other properties");
        let advice = "look";
        let error = Error::Topology {
            verb: "declare",
            object: "queue q".to_owned(),
            broker,
            advice: advice.to_owned(),
            source,
        };
        assert_eq!(error.blames_publish(), None);
    }

    #[test]
    fn what_waiting_does_not_fix_needs_an_operator() {
        let broker = parse("amqp://localhost").unwrap().address;
        let connect = |source| Error::Connect { broker: broker.clone(), source };
        let find = |source| {
            let object = "exchange e".to_owned();
            Error::Topology {
                verb: "find",
                object,
                broker: broker.clone(),
                advice: "make it".to_owned(),
                source,
            }
        };
        for code in [403, 406, 530] {
            assert!(connect(said(code, "")).needs_operator(), "{code}");
            assert!(find(said(code, "")).needs_operator(), "{code}");
            assert!(ended(said(code, "")).needs_operator(), "{code}");
        }
        assert!(find(said(404, "")).needs_operator(), "waiting does not make an exchange");
        assert!(!ended(said(404, "")).needs_operator(), "the next session declares it again");
        for code in [320, 541] {
            assert!(!connect(said(code, "")).needs_operator(), "{code}");
            assert!(!find(said(code, "")).needs_operator(), "{code}");
            assert!(!ended(said(code, "")).needs_operator(), "{code}");
        }
        assert!(
            !connect(Box::new(io::Error::from(io::ErrorKind::ConnectionRefused).into())).needs_operator()
        );
        assert!(Error::NoUrl.needs_operator());
    }

    #[test]
    fn a_publisher_is_rebuilt_for_each_setting_that_it_uses() {
        let settings = || Settings { urls: vec![Secret::new("amqp://u:fake@a")], ..Settings::default() };
        assert!(settings().is_same(&settings()));
        let changes: [fn(&mut Settings); 12] = [
            |s| s.urls = vec![Secret::new("amqp://u:other-fake@a")],
            |s| s.urls.push(Secret::new("amqp://u:fake@b")),
            |s| s.exchange = "e".to_owned(),
            |s| s.queue = String::new(),
            |s| s.outcomes = Some("q".to_owned()),
            |s| s.topology = Topology::Check,
            |s| s.check_interval = None,
            |s| s.message_type = "t".to_owned(),
            |s| s.connect_timeout = Duration::from_secs(1),
            |s| s.tls.ca_file = Some("ca.pem".into()),
            |s| drop(s.profiles.insert("purchase".to_owned(), celery())),
            |s| s.urls.clear(),
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
