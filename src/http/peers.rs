//! Identifies the sender of a callback and decides whether it is admitted: trusted proxies, allow-list, limits per
//! peer.

use std::{fmt, net::IpAddr};

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

/// Settings for peers.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<Network>,
    /// Where callbacks may come from; empty means anywhere.
    pub allowed: Vec<Network>,
    /// How to treat a callback from elsewhere.
    pub allowed_mode: Mode,
    /// Callbacks per second and peer; 0 means no limit.
    pub rate: u32,
    /// Callbacks that a peer may send at once after a pause; 0 means the same as `rate`.
    pub burst: u32,
    /// Unauthenticated callbacks per minute and peer; 0 means no limit.
    pub failure_budget: u32,
    /// Concurrent connections per peer, except trusted proxies; 0 means no limit.
    pub max_connections: u32,
}

/// How the allow-list is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Answer a callback from elsewhere as unauthenticated.
    #[default]
    Enforce,
    /// Only log it.
    Warn,
}

/// A range of addresses: `192.0.2.0/24`, `2001:db8::/32`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Parses a range or an address.
    ///
    /// # Errors
    /// What is wrong with the text, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let network = match text.parse::<IpNet>() {
            Ok(network) => network,
            Err(_) => text.parse::<IpAddr>().map_err(|_| "is neither an IP address nor a CIDR range")?.into(),
        };
        if let IpNet::V6(network) = network
            && network.addr().to_ipv4_mapped().is_some()
        {
            return Err("is an IPv4-mapped IPv6 address; write it as IPv4");
        }
        if network.addr() != network.network() {
            return Err("has host bits set");
        }
        Ok(Self(network))
    }

    /// True if the range holds every address of its family.
    #[must_use]
    pub fn is_everybody(self) -> bool {
        self.0.prefix_len() == 0
    }

    fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl Settings {
    /// The sender of a callback, given its TCP peer.
    ///
    /// Only entries written by trusted proxies are believed. Each proxy appends the address of its client, so the
    /// list is read from the right, up to the first address that is not a trusted proxy. Anything to the left of it
    /// may be forged. An element that is not an address also ends the search; then the proxy that wrote it counts as
    /// the peer.
    #[must_use]
    pub fn peer(&self, tcp: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut peer = tcp.to_canonical();
        if self.trusted_proxies.is_empty() {
            return peer;
        }
        // Several headers of one name form one list, in order. The server preserves that order.
        let values: Vec<&HeaderValue> = headers.get_all(&X_FORWARDED_FOR).collect();
        let elements =
            values.iter().rev().flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b',').map(address));
        for element in elements {
            if !is_within(&self.trusted_proxies, peer) {
                break;
            }
            match element {
                Some(address) => peer = address,
                None => break,
            }
        }
        peer
    }

    /// Maximum concurrent connections from this address; `None` means no limit.
    pub(super) fn max_connections_of(&self, address: IpAddr) -> Option<u32> {
        let limited = self.max_connections > 0 && !is_within(&self.trusted_proxies, address.to_canonical());
        limited.then_some(self.max_connections)
    }

    pub(super) fn allows(&self, peer: IpAddr) -> bool {
        self.allowed.is_empty() || is_within(&self.allowed, peer)
    }

    /// Whether any limit per peer is configured.
    pub(super) fn limits(&self) -> bool {
        self.rate > 0 || self.failure_budget > 0
    }

    pub(super) fn burst(&self) -> u32 {
        if self.burst == 0 { self.rate } else { self.burst }
    }
}

fn is_within(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

/// Parses an element of the list: an address, optionally with a port; IPv6 optionally in brackets.
fn address(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?.trim_matches([' ', '\t']);
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            let host: std::net::Ipv6Addr = host.parse().ok()?;
            (IpAddr::V6(host), rest)
        }
        None => {
            let (host, _) = text.split_once(':')?;
            let host: std::net::Ipv4Addr = host.parse().ok()?;
            (IpAddr::V4(host), &text[text.find(':')?..])
        }
    };
    let fine = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    fine.then(|| host.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| Network::parse(text).unwrap()).collect()
    }

    fn behind(proxies: &[&str]) -> Settings {
        Settings { trusted_proxies: networks(proxies), ..Settings::default() }
    }

    fn peer(settings: &Settings, tcp: &str, forwarded: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(X_FORWARDED_FOR.clone(), HeaderValue::from_bytes(value).unwrap());
        }
        settings.peer(tcp.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn without_a_trusted_proxy_nobody_can_say_to_be_another() {
        for settings in [Settings::default(), behind(&["10.0.0.0/8"])] {
            assert_eq!(peer(&settings, "203.0.113.9", &[b"198.51.100.1"]), "203.0.113.9");
        }
        assert_eq!(peer(&Settings::default(), "::ffff:203.0.113.9", &[]), "203.0.113.9");
    }

    #[test]
    fn behind_trusted_proxies_the_rightmost_address_that_is_not_one_is_the_peer() {
        let settings = behind(&["10.0.0.0/8", "127.0.0.1", "2001:db8:1::/48"]);
        for (tcp, forwarded, found) in [
            ("10.0.0.1", &[b"198.51.100.1".as_slice()][..], "198.51.100.1"),
            ("127.0.0.1", &[b"198.51.100.1"], "198.51.100.1"),
            ("127.0.0.2", &[b"198.51.100.1"], "127.0.0.2"),
            ("2001:db8:1::9", &[b"198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.0.0.1", &[b"198.51.100.1"], "198.51.100.1"),
            // Forged by the client, left of the entry that the proxy added.
            ("10.0.0.1", &[b"192.0.2.1, 10.0.0.7, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &[b"198.51.100.1, 10.0.0.3,10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &[b"192.0.2.1", b"198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &[b"192.0.2.1, 198.51.100.1", b"10.0.0.2"], "198.51.100.1"),
            // All are proxies: the most distant one counts.
            ("10.0.0.1", &[b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[b"198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1", &[b"2001:db8::7"], "2001:db8::7"),
            ("10.0.0.1", &[b"[2001:db8::7]"], "2001:db8::7"),
            ("10.0.0.1", &[b"[2001:db8::7]:443"], "2001:db8::7"),
            ("10.0.0.1", &[b"::ffff:198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &[b"  198.51.100.1\t"], "198.51.100.1"),
        ] {
            assert_eq!(peer(&settings, tcp, forwarded), found, "{tcp} {forwarded:?}");
        }
    }

    #[test]
    fn what_is_no_address_ends_the_list_at_the_proxy_that_wrote_it() {
        let settings = behind(&["10.0.0.0/8"]);
        for hostile in [
            b"".as_slice(),
            b",",
            b"unknown",
            b"_hidden",
            b"198.51.100.1:",
            b"198.51.100.1:port",
            b"198.51.100.1:99999",
            b"[198.51.100.1]",
            b"[2001:db8::7",
            b"2001:db8::7]:1",
            b"[2001:db8::7]x",
            b"fe80::1%eth0",
            b"198.51.100.01",
            b"198.51.100.1 198.51.100.2",
            b"\"198.51.100.1\"",
            b"\xff\xfe",
            b"198.51.100.1\xc2\xa0",
        ] {
            assert_eq!(peer(&settings, "10.0.0.1", &[hostile]), "10.0.0.1", "{hostile:?}");
            let more = [b"192.0.2.1, ", hostile, b", 10.0.0.2"].concat();
            assert_eq!(peer(&settings, "10.0.0.1", &[&more]), "10.0.0.2", "{hostile:?}");
        }
    }

    #[test]
    fn ranges_are_read_and_slips_are_told() {
        for (text, shown) in [
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(Network::parse(text).unwrap().to_string(), shown);
        }
        for text in ["", "localhost", "192.0.2.0/33", "192.0.2.1/24", "::ffff:192.0.2.0/120", "1.2.3", "*"] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
        assert!(Network::parse("::/0").unwrap().is_everybody());
        assert!(!Network::parse("::/1").unwrap().is_everybody());
    }

    #[test]
    fn an_empty_allow_list_allows_all() {
        assert!(Settings::default().allows("203.0.113.9".parse().unwrap()));
        let settings = Settings { allowed: networks(&["203.0.113.0/28"]), ..Settings::default() };
        assert!(settings.allows("203.0.113.9".parse().unwrap()));
        assert!(!settings.allows("203.0.113.99".parse().unwrap()));
    }
}
