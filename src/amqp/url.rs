//! Faults and oddities in the text of a broker URL, beyond those that lapin's parser reports. No sentence quotes the
//! URL: it contains a password.

use std::{fmt, sync::Arc};

/// A broker's address, safe to show: host, port and virtual host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    shown: Arc<str>,
    pub(super) vhost: Arc<str>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Address {
    pub(super) fn of(host: &str, port: u16, vhost: &str) -> Self {
        let shown_vhost = vhost.replace('/', "%2f");
        let shown = if host.contains(':') {
            format!("[{host}]:{port}/{shown_vhost}")
        } else {
            format!("{host}:{port}/{shown_vhost}")
        };
        Self { shown: shown.into(), vhost: vhost.into() }
    }
}

/// The parameters that lapin knows, each with the fault of a value that it cannot parse.
const PARAMETERS: [(&str, &str); 5] = [
    ("heartbeat", "has a heartbeat that is not a number of seconds from 0 to 65535"),
    ("frame_max", "has a frame_max that is not a number of bytes from 0 to 4294967295"),
    ("channel_max", "has a channel_max that is not a number from 0 to 65535"),
    ("connection_timeout", "has a connection_timeout that is not a number of milliseconds"),
    (
        "auth_mechanism",
        "has an auth_mechanism that is not one of plain, amqplain, external, anonymous and rabbit-cr-demo",
    ),
];

/// The fault, as the end of a sentence.
pub(super) fn fault(url: &str) -> Option<&'static str> {
    let escaped = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if !url.split('%').skip(1).all(escaped) {
        return Some("has a % without two hexadecimal digits after it; % itself is written %25");
    }
    parameters(url).find_map(|(name, value)| {
        let readable = match name {
            "heartbeat" | "channel_max" => value.parse::<u16>().is_ok(),
            "frame_max" => value.parse::<u32>().is_ok(),
            "connection_timeout" => value.parse::<u64>().is_ok(),
            "auth_mechanism" => value.parse::<lapin::uri::SASLMechanism>().is_ok(),
            _ => true,
        };
        let (_, fault) = PARAMETERS.iter().find(|(known, _)| *known == name && !readable)?;
        Some(*fault)
    })
}

/// Parts that may be mistakes, each as the end of a sentence.
pub(super) fn oddities(url: &str) -> Vec<&'static str> {
    let mut odd = Vec::new();
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let path = rest.split_once('/').map(|(_, path)| path.split(['?', '#']).next().unwrap_or_default());
    if path == Some("") {
        odd.push(
            "ends with a slash, and so names the virtual host \"\", which hardly any broker has; / is written %2f, or \
             left out with its slash",
        );
    }
    if parameters(url).any(|(name, _)| PARAMETERS.iter().all(|(known, _)| *known != name)) {
        odd.push(
            "has a parameter that has no effect; there are heartbeat, frame_max, channel_max, connection_timeout and \
             auth_mechanism",
        );
    }
    odd
}

fn parameters(url: &str) -> impl Iterator<Item = (&str, &str)> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let query = query.split('#').next().unwrap_or_default();
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_parser_would_pass_over_is_told() {
        for (url, words) in [
            ("amqp://gu%est:hush@h/v", "% without two hexadecimal digits"),
            ("amqp://u:hush%@h/v", "% without two hexadecimal digits"),
            ("amqp://u:hush@h/v?heartbeat=abc", "heartbeat that is not a number"),
            ("amqp://u:hush@h/v?heartbeat=", "heartbeat that is not a number"),
            ("amqp://u:hush@h/v?heartbeat=70000", "heartbeat that is not a number"),
            ("amqp://u:hush@h?frame_max=-1", "frame_max that is not a number"),
            ("amqp://u:hush@h/?channel_max=x&heartbeat=5", "channel_max that is not a number"),
            ("amqp://u:hush@h/v?connection_timeout=5s", "connection_timeout that is not"),
            ("amqp://u:hush@h/v?auth_mechanism=hush", "auth_mechanism that is not one of"),
        ] {
            let told = fault(url).unwrap();
            assert!(told.contains(words) && !told.contains("hush"), "{url}: {told}");
        }
        for url in [
            "amqp://h",
            "amqp://gu%25est:p%40ss@h/%2f",
            "amqps://h/v?heartbeat=0&frame_max=8192&channel_max=16&connection_timeout=1000&auth_mechanism=EXTERNAL",
        ] {
            assert_eq!(fault(url), None, "{url}");
            assert!(oddities(url).is_empty(), "{url}");
        }
    }

    #[test]
    fn an_empty_virtual_host_and_an_unknown_parameter_are_odd() {
        for url in ["amqp://h:5672/", "amqp://u:hush@h/?heartbeat=5"] {
            let odd = oddities(url);
            assert!(odd.len() == 1 && odd[0].contains("names the virtual host \"\""), "{url}: {odd:?}");
        }
        let odd = oddities("amqp://h/v?bogus=1");
        assert!(odd.len() == 1 && odd[0].contains("a parameter that has no effect"), "{odd:?}");
    }
}
