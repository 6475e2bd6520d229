//! A broker as specified by its URL.

use std::fmt;

use lapin::uri::{AMQPScheme, AMQPUri};

use super::{error::Error, url::Address};
use crate::{loopback, secret::Secret};

/// A parsed broker URL. `Debug` shows only the address.
#[derive(Clone)]
pub(super) struct Broker {
    pub(super) uri: AMQPUri,
    pub(super) address: Address,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}

/// The fault of a broker URL, as the end of a sentence; `None` if it can be used. Never quotes the URL.
#[must_use]
pub fn fault_of_url(url: &Secret) -> Option<&'static str> {
    super::url::fault(url.expose()).or_else(|| Broker::parse(url).err())
}

/// Parts of a usable broker URL that may be mistakes, each as the end of a sentence. Never quotes the URL.
#[must_use]
pub fn oddities_of_url(url: &Secret) -> Vec<&'static str> {
    super::url::oddities(url.expose())
}

/// The virtual host of a broker URL; `/` if it names none or cannot be parsed.
#[must_use]
pub fn vhost_of_url(url: &Secret) -> String {
    Broker::parse(url).map_or_else(|_| "/".to_owned(), |broker| broker.uri.vhost)
}

/// The broker of a URL, if the connection crosses a network unencrypted.
#[must_use]
pub fn sent_in_clear(url: &Secret) -> Option<Address> {
    let broker = Broker::parse(url).ok()?;
    let is_in_clear = broker.uri.scheme == AMQPScheme::AMQP && !loopback::is_host(&broker.uri.authority.host);
    is_in_clear.then_some(broker.address)
}

/// The credentials of a broker URL, and where they apply.
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

/// The credentials of a broker URL; `None` if it cannot be parsed.
#[must_use]
pub fn login_of_url(url: &Secret) -> Option<Login> {
    let AMQPUri { authority, vhost, .. } = Broker::parse(url).ok()?.uri;
    let password = Secret::new(authority.userinfo.password);
    Some(Login { user: authority.userinfo.username, password, vhost, host: authority.host })
}

impl Broker {
    pub(super) fn parse_all(urls: &[Secret]) -> Result<Vec<Self>, Error> {
        let parse = |(index, url)| Self::parse(url).map_err(|fault| Error::Url { number: index + 1, fault });
        urls.iter().enumerate().map(parse).collect()
    }

    pub(super) fn parse(url: &Secret) -> Result<Self, &'static str> {
        let text = url.expose();
        // lapin's error quotes the URL, including the password.
        let mut uri: AMQPUri = text.parse().map_err(|_: String| "is not an amqp:// or amqps:// URL")?;
        if let Some(host) = bracketed_host(text) {
            // lapin takes every IPv6 address for "localhost".
            uri.authority.host = host.to_owned();
        } else if authority(text).is_none_or(|authority| host_of(authority).is_empty()) {
            return Err("names no host");
        }
        // Half of what lapin would adopt from RabbitMQ's proposal: a dead peer is detected within 20 s.
        uri.query.heartbeat.get_or_insert(10);
        // lapin immediately allocates two buffers of 32 frames of the agreed size. It takes 0, which RabbitMQ may be
        // configured to propose, as 4 GiB. Our frames are smaller than this limit in any case.
        let frame_max = uri.query.frame_max.filter(|most| *most > 0);
        uri.query.frame_max = Some(frame_max.map_or(MAX_FRAME_BYTES, |most| most.min(MAX_FRAME_BYTES)));
        let address = Address::of(&uri.authority.host, uri.authority.port, &uri.vhost);
        Ok(Self { uri, address })
    }
}

const MAX_FRAME_BYTES: u32 = 131_072;

/// `user:password@host:port` of a URL.
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
    use super::*;

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
}
