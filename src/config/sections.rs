//! The sections that occur once.

use std::{net::SocketAddr, time::Duration};

use super::{
    Amqp,
    certificates::{check_validity, file, identity_fault, identity_files},
    read::Section,
    secrets::Kind,
    show::{REDACTED, redact_url},
    tokens::tokens,
    values::duration_within,
};
use crate::{
    amqp::{
        self, Topology,
        signing::{MAX_KEYS, SigningKey},
        topology::{TAKEN_EXCHANGES, TAKEN_QUEUES},
    },
    center::outcomes,
    console, feedback,
    intake::Locale,
    relay,
    secret::Secret,
    telemetry::log::{self, Format},
};

const AMQP_URL: &str = "it is amqp://user:password@host:port/vhost, where other characters than letters, digits and -._~ \
     in user, password and vhost are percent-encoded";

const ADDRESS: &str = "IP:port such as \"127.0.0.1:8080\" or \"[::1]:8080\"";

/// Spellings of a locale.
pub(super) const LOCALES: [(&str, Locale); 3] = [("zh", Locale::Zh), ("en", Locale::En), ("ja", Locale::Ja)];

pub(super) fn listen(section: &mut Section<'_, '_, '_>) -> Option<SocketAddr> {
    section.required("listen", ADDRESS, |text| {
        text.parse().map_err(|_| match text.rsplit_once(':') {
            Some(("", _)) => "has no IP address".to_owned(),
            Some((host, port))
                if port.parse::<u16>().is_ok() && host.parse::<std::net::IpAddr>().is_err() =>
            {
                "has a name instead of an IP address".to_owned()
            }
            _ => "is not an IP address and a port".to_owned(),
        })
    })
}

/// `listen` is the address, if it could be read.
pub(super) fn admin(
    section: &mut Section<'_, '_, '_>,
    listen: Option<SocketAddr>,
) -> Option<console::Settings> {
    let token = section.secret("token", "token_file", Kind::Chosen);
    let tokens = tokens(section, token.as_ref().and_then(Option::as_ref));
    if matches!((&token, &tokens), (Some(None), Some(tokens)) if tokens.is_empty())
        && let Some(listen) = listen
        && !listen.ip().is_loopback()
    {
        section.fault(
            "token",
            format!("is missing, and {listen} can be reached from other machines"),
            "a token, or a loopback address in admin.listen",
        );
        return None;
    }
    if let (Some(token), Some(tokens), Some(listen)) = (&token, &tokens, listen)
        && (token.is_some() || !tokens.is_empty())
        && !listen.ip().to_canonical().is_loopback()
    {
        section.warn(
            "listen",
            format!(
                "{listen} can be reached from other machines without encryption: the token goes over the wire as it \
                 is; listen on 127.0.0.1 behind a TLS proxy or a tunnel, or keep to a network that nobody else is in"
            ),
        );
    }
    let public_url =
        section.parsed("public_url", "https://countersign.example", console::access::PublicUrl::parse)?;
    Some(console::Settings { listen: listen?, token: token?, tokens: tokens?, public_url })
}

/// Checks that the two listeners use different ports.
pub(super) fn check_ports(root: &mut Section<'_, '_, '_>, public: SocketAddr, internal: SocketAddr) {
    let overlap =
        public.ip() == internal.ip() || public.ip().is_unspecified() || internal.ip().is_unspecified();
    if public.port() == internal.port() && public.port() != 0 && overlap {
        root.table_fault(
            "admin",
            "listen",
            &format!("{internal} and http.listen {public} are the same port"),
            "two ports: the internal listener must never be reachable from outside",
        );
    }
}

/// More frequent checks would only fill the broker's log when something is wrong.
const CHECK_INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(86_400);

pub(super) fn amqp(section: &mut Section<'_, '_, '_>) -> Option<Amqp> {
    let urls = amqp_urls(section);
    let exchange = section.required("exchange", "1 to 255 bytes, not beginning with amq.", |text| {
        if text.is_empty() {
            return Err("is the default exchange, which is bound to every queue by its name".to_owned());
        }
        if TAKEN_EXCHANGES.contains(&text) {
            return Err("is an exchange that countersign declares for something else".to_owned());
        }
        amqp_name(text)
    });
    let queue = section.required("queue", "up to 255 bytes, not beginning with amq.", |text| {
        if TAKEN_QUEUES.contains(&text) {
            return Err("is a queue that countersign declares for something else".to_owned());
        }
        amqp_name(text)
    });
    let topology = section.one_of(
        "topology",
        &[("declare", Topology::Declare), ("check", Topology::Check), ("none", Topology::None)],
    );
    if topology == Some(Topology::None) && queue.as_deref() == Some("") {
        section.warn(
            "topology",
            "none, with queue = \"\": if no consumer has bound a queue, every command comes back and is parked",
        );
    }
    let collects = section.one_of("dead_letters", &[("collect", true), ("leave", false)]);
    let check_interval = section.required(
        "check_interval",
        "\"off\", or \"60s\", \"5m\", at least \"1s\" and at most \"24h\"",
        |text| if text == "off" { Ok(None) } else { duration_within(text, &CHECK_INTERVALS).map(Some) },
    );
    let max_in_flight = section.number("max_in_flight", 1..=65_535);
    let message_type = section.required("message_type", "1 to 255 bytes", |text| match text.len() {
        1..=255 => Ok(text.to_owned()),
        0 => Err("is empty".to_owned()),
        _ => Err("is too long".to_owned()),
    });
    let connect_timeout = section.millis("connect_timeout_ms", 1..=600_000);
    let confirm_timeout = section.millis("confirm_timeout_ms", 1..=600_000);
    let max_attempts = section.number("max_attempts", 1..=1_000_000);
    for url in urls.iter().flatten() {
        if let Some(broker) = amqp::sent_in_clear(url) {
            let given = URL_KEYS.into_iter().max_by_key(|key| section.rank(key)).unwrap_or("url");
            section.warn(
                given,
                format!(
                    "{broker} is another machine, and amqp:// is not encrypted: the password and all commands go over \
                     the wire as they are; use amqps://"
                ),
            );
        }
    }
    let tls = section.table("tls", amqp_tls);
    if let (Some(urls), Some(tls)) = (&urls, &tls)
        && *tls != amqp::tls::Settings::default()
        && !urls.iter().any(|url| url.expose().starts_with("amqps:"))
    {
        section.warn("tls", "has no effect, since no URL begins with amqps://");
    }
    let signing = section.table("signing", amqp_signing);
    Some(Amqp {
        broker: amqp::Settings {
            urls: urls?,
            exchange: exchange.clone()?,
            queue: queue?,
            topology: topology?,
            check_interval: check_interval?,
            message_type: message_type?,
            connect_timeout: connect_timeout?,
            collects: collects?,
            signing: signing?,
            tls: tls?,
            // Set after the endpoints are read.
            ..amqp::Settings::default()
        },
        relay: relay::Settings {
            exchange: exchange?.into(),
            max_in_flight: max_in_flight?,
            confirm_timeout: confirm_timeout?,
            max_attempts: max_attempts?,
            ..relay::Settings::default()
        },
    })
}

/// `taken` is the command queue.
pub(super) fn outcomes(
    section: &mut Section<'_, '_, '_>,
    taken: Option<String>,
) -> Option<(feedback::Settings, outcomes::Settings)> {
    let queue = section.required("queue", "up to 255 bytes, not beginning with amq.", |name| {
        let taken = taken.as_deref() == Some(name) && !name.is_empty();
        if TAKEN_QUEUES.contains(&name) || taken {
            return Err("is a queue that commands go to".to_owned());
        }
        amqp_name(name)
    });
    let prefetch = section.number("prefetch", 1..=2000);
    let max_calls = section.number("max_calls", 1..=64);
    let max_attempts = section.number("max_attempts", 1..=1_000_000);
    // The rest is set after the endpoints are read.
    let needed = section.rank("queue").is_some_and(|rank| rank > 0);
    let (queue, prefetch) = (queue?, prefetch?);
    let feedback = feedback::Settings { queue, needed, prefetch, ..feedback::Settings::default() };
    Some((feedback, outcomes::Settings { max_calls: max_calls?, max_attempts: max_attempts? }))
}

fn amqp_tls(section: &mut Section<'_, '_, '_>) -> Option<amqp::tls::Settings> {
    let ca_file = file(section, "ca_file");
    let identity = identity_files(section);
    let settings = amqp::tls::Settings { ca_file: ca_file?, identity: identity? };
    let error = match (settings.check(), &settings.identity) {
        (Err(error), _) => error,
        (Ok(Some(facts)), Some((cert_file, _))) => {
            check_validity(section, cert_file, facts);
            return Some(settings);
        }
        (Ok(_), _) => return Some(settings),
    };
    match &settings.identity {
        Some((_, key_file)) if settings.ca_file.as_deref() != Some(error.path()) => {
            identity_fault(section, key_file, &error);
        }
        _ => section.fault("ca_file", error.to_string(), ""),
    }
    None
}

/// What signs commands. Keys that are faulty themselves are not compared with one another.
fn amqp_signing(section: &mut Section<'_, '_, '_>) -> Option<Vec<SigningKey>> {
    let keys = section.tables("keys", signing_key)?;
    let twice = (1..keys.len()).find(|at| keys[..*at].iter().any(|other| other.is_same(&keys[*at])));
    if let Some(at) = twice {
        section.fault("keys", format!("[{at}] is the same as an earlier one"), "a key of its own");
        return None;
    }
    if keys.len() > MAX_KEYS {
        let expected = format!("up to {MAX_KEYS}: the old one and the new one are enough while rotating");
        section.fault("keys", format!("has {} keys", keys.len()), expected);
        return None;
    }
    Some(keys)
}

fn signing_key(section: &mut Section<'_, '_, '_>) -> Option<SigningKey> {
    let check = |text: &str| match SigningKey::parse(&Secret::new(text)) {
        Ok(_) => Ok(()),
        Err(unusable) => Err(format!("{unusable}; `countersign keygen --signing ed25519` makes a good one")),
    };
    // The prefix tells which kind it is.
    let show = |text: &str| format!("{}_{REDACTED}", text.split('_').next().unwrap_or_default());
    match section.secret_shown("secret", "secret_file", Kind::Given, check, show)? {
        Some(secret) => SigningKey::parse(&secret).ok(),
        None => {
            section.fault("secret", "is missing", "whsec_… (HMAC-SHA256) or whsk_… (Ed25519)");
            None
        }
    }
}

/// RabbitMQ reserves names that begin with `amq.` and refuses to declare them.
fn amqp_name(name: &str) -> Result<String, String> {
    if name.len() > 255 {
        Err("is too long".to_owned())
    } else if name.starts_with("amq.") {
        Err("begins with amq., which RabbitMQ keeps to itself".to_owned())
    } else {
        Ok(name.to_owned())
    }
}

/// Keys that set the broker URLs.
const URL_KEYS: [&str; 4] = ["url", "url_file", "urls", "urls_file"];

/// Reads one of [`URL_KEYS`]. The highest layer may set only one of them.
fn amqp_urls(section: &mut Section<'_, '_, '_>) -> Option<Vec<Secret>> {
    section.know(&URL_KEYS);
    let ranks = URL_KEYS.map(|way| section.rank(way));
    let highest = ranks.iter().max().copied().flatten();
    let given: Vec<&str> = URL_KEYS
        .iter()
        .zip(ranks)
        .filter(|(_, rank)| rank.is_some() && *rank == highest)
        .map(|(way, _)| *way)
        .collect();
    match given.as_slice() {
        [] => {
            section.fault("url", "is missing", "amqp://user:password@host:port/vhost");
            None
        }
        [way @ ("url" | "url_file")] => {
            let url = section.secret_shown("url", "url_file", Kind::Given, amqp_url, redact_url)??;
            Some(told_oddities(section, way, vec![url]))
        }
        ["urls"] => {
            let urls = section.secrets("urls", "a list of AMQP URLs", amqp_url, redact_url)?;
            Some(told_oddities(section, "urls", urls))
        }
        ["urls_file"] => {
            let urls = section.secret_lines("urls_file", amqp_url)?;
            Some(told_oddities(section, "urls_file", urls))
        }
        [.., second] => {
            let names: Vec<_> = given.iter().map(|way| section.name(way)).collect();
            let problem =
                format!("the broker's address is given {} times: {}", names.len(), names.join(", "));
            section.fault(second, problem, "one of them");
            None
        }
    }
}

fn told_oddities(section: &mut Section<'_, '_, '_>, key: &str, urls: Vec<Secret>) -> Vec<Secret> {
    for (index, url) in urls.iter().enumerate() {
        for oddity in amqp::oddities_of_url(url) {
            let which = if urls.len() > 1 { format!("[{index}] ") } else { String::new() };
            section.warn(key, format!("{which}{oddity}"));
        }
    }
    urls
}

/// Describes what is wrong with an AMQP URL without quoting it: it contains a password.
fn amqp_url(url: &str) -> Result<(), String> {
    if url.contains("${") {
        return Err("has a ${NAME} within; a reference must be the whole text".to_owned());
    }
    match amqp::fault_of_url(&Secret::new(url)) {
        None => Ok(()),
        Some(fault) => Err(format!("{fault}; {AMQP_URL}")),
    }
}

/// How to log, and whether callback log lines include who decided what.
pub(super) fn log(section: &mut Section<'_, '_, '_>) -> (Option<log::Settings>, Option<bool>) {
    let format =
        section.one_of("format", &[("auto", Format::Auto), ("human", Format::Human), ("json", Format::Json)]);
    let filter = section.required(
        "filter",
        "a level, or directives such as \"info,countersign::relay=debug\"",
        |text| log::check_filter(text).map(|()| text.to_owned()),
    );
    let settings = format.zip(filter).map(|(format, filter)| log::Settings { format, filter, pages: None });
    (settings, section.flag("identities"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_url_does_not_quote_it() {
        assert_eq!(amqp_url("amqp://guest:guest@127.0.0.1:5672/%2f"), Ok(()));
        assert_eq!(amqp_url("amqps://broker"), Ok(()));
        for url in ["http://u:hush@h", "amqp://u:hush@h:port/", "amqp://u:${hush}@h", "amqp://", "hush"] {
            let problem = amqp_url(url).unwrap_err();
            assert!(!problem.contains("hush"), "{problem}");
        }
    }
}
