//! Who sends a callback, and whether such a one may: trusted proxies, the allow-list, and what limits a peer.

use std::{fmt, net::IpAddr};

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

/// What is known and wanted of peers.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// Where callbacks may come from; anywhere if empty.
    pub allowed: Vec<Network>,
    /// What becomes of a callback from elsewhere.
    pub allowed_mode: Mode,
    /// Callbacks per second of one peer; 0 is no limit.
    pub rate: u32,
    /// Callbacks that a peer may send at once after a pause; 0 is as many as `rate`.
    pub burst: u32,
    /// Unauthenticated callbacks per minute of one peer; 0 is no limit.
    pub failure_budget: u32,
    /// Connections of one peer at a time, trusted proxies excepted; 0 is no limit.
    pub max_connections: u32,
}

/// What the allow-list is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// A callback from elsewhere is answered as one that could not be authenticated.
    #[default]
    Enforce,
    /// It is only logged.
    Warn,
}

/// A range of addresses: `192.0.2.0/24`, `2001:db8::/32`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Reads a range or an address.
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

    /// True for a range that holds every address of its kind.
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
    /// Whose callback this is, given who sent it over TCP.
    ///
    /// Only what trusted proxies wrote is believed: read from its right end, where each proxy adds who came to it, the
    /// list is good up to the first address that is not a proxy's. What is left of that may be anything. An element
    /// that is no address ends the reading too; then it is the proxy that wrote it who is taken for the peer.
    #[must_use]
    pub fn peer(&self, tcp: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut peer = tcp.to_canonical();
        if self.trusted_proxies.is_empty() {
            return peer;
        }
        // Several headers of one name are one list, in their order. The server keeps that order.
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

    /// How many connections may come from this address at a time; `None` is no limit.
    pub(super) fn max_connections_of(&self, address: IpAddr) -> Option<u32> {
        let limited = self.max_connections > 0 && !is_within(&self.trusted_proxies, address.to_canonical());
        limited.then_some(self.max_connections)
    }

    /// Whether the allow-list lets this peer in.
    pub(super) fn allows(&self, peer: IpAddr) -> bool {
        self.allowed.is_empty() || is_within(&self.allowed, peer)
    }

    /// Whether anything has to be counted by peer.
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

/// An element of the list: an address, perhaps with a port, IPv6 perhaps in brackets.
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
            // What a stranger wrote stands left of what the proxy added.
            ("10.0.0.1", &[b"192.0.2.1, 10.0.0.7, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &[b"198.51.100.1, 10.0.0.3,10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &[b"192.0.2.1", b"198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &[b"192.0.2.1, 198.51.100.1", b"10.0.0.2"], "198.51.100.1"),
            // All are proxies: the one farthest away.
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
