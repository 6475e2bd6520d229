//! Which names and URLs lead to this machine with any resolver, and what pages in a local browser may do: one rule for
//! proxies, warnings and listeners.

use std::net::IpAddr;

use actix_web::http::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use reqwest::Url;

/// Whether a host is `localhost` or a loopback address, IPv6 with or without brackets. The whole name counts:
/// `localhost.example.com` belongs to someone else.
#[must_use]
pub fn is_host(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || address(host).is_some_and(|address| address.to_canonical().is_loopback())
}

/// [`is_host`] of `host` or `host:port`, as in the header `Host`.
#[must_use]
pub fn is_authority(authority: &str) -> bool {
    is_host(without_port(authority))
}

/// [`is_host`] for a URL's host.
#[must_use]
pub fn is_url(url: &Url) -> bool {
    url.host_str().is_some_and(is_host)
}

/// Whether a request to this URL crosses a network unencrypted. False for an invalid URL.
#[must_use]
pub fn is_in_clear(url: &str) -> bool {
    url.parse().is_ok_and(|url: Url| url.scheme() == "http" && !is_url(&url))
}

/// Whether the name in `host` or `host:port` is safe against DNS rebinding: an address, or `localhost`.
#[must_use]
pub fn cannot_be_rebound(authority: &str) -> bool {
    let host = without_port(authority);
    host.eq_ignore_ascii_case("localhost") || address(host).is_some()
}

/// The host of `host` or `host:port`.
#[must_use]
pub fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.ends_with(':') => host,
        _ => authority,
    }
}

fn address(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

/// The sign that a page of another origin, open in a browser, sent a request; `None` if there is none. Such requests
/// carry `Origin`, or at least the browser's assessment in `Sec-Fetch-Site`; programs send neither.
#[must_use]
pub fn foreign_page(headers: &HeaderMap) -> Option<&'static str> {
    if headers.contains_key(ORIGIN) && !is_same_origin(single(headers, &ORIGIN), single(headers, &HOST)) {
        return Some("`Origin` is another page than this listener's.");
    }
    // `none` means typed by a user or scripted.
    if headers.contains_key(SEC_FETCH_SITE)
        && !matches!(single(headers, &SEC_FETCH_SITE), Some("same-origin" | "none"))
    {
        return Some("`Sec-Fetch-Site` says that another page sent this.");
    }
    None
}

/// Whether a page of this listener, open in a browser, sent a request, and no other page and no program: what a form
/// with a session must prove. A page of another port of this host is `same-site` and not `same-origin`. Over plain HTTP
/// to other machines browsers leave `Sec-Fetch-Site` out; then `Origin` decides.
///
/// A page with `Referrer-Policy: no-referrer`, as ours have, sends `Origin: null` with its forms (Fetch, "append a
/// request `Origin` header"). A page in a sandbox does so too, and is `cross-site`.
#[must_use]
pub fn own_page(headers: &HeaderMap) -> bool {
    let origin = single(headers, &ORIGIN);
    let is_own = is_same_origin(origin, single(headers, &HOST));
    if headers.contains_key(SEC_FETCH_SITE) {
        let is_silent = !headers.contains_key(ORIGIN) || origin == Some("null");
        single(headers, &SEC_FETCH_SITE) == Some("same-origin") && (is_own || is_silent)
    } else {
        is_own
    }
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The only header of this name. A duplicated header is rejected.
#[must_use]
pub fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name);
    let value = values.next()?;
    values.next().is_none().then(|| value.to_str().ok())?
}

fn is_same_origin(origin: Option<&str>, host: Option<&str>) -> bool {
    let (Some(origin), Some(host)) = (origin, host) else { return false };
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_always_lead_here_are_loopback() {
        for host in [
            "localhost",
            "LocalHost:9090",
            "127.0.0.1",
            "127.0.0.1:9090",
            "127.8.8.8",
            "[::1]",
            "[::1]:9090",
            "::1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(is_authority(host), "{host}");
        }
        for host in [
            "",
            ":9090",
            "evil.example",
            "localhost.evil.example:9090",
            "127.0.0.1.evil.example",
            "192.0.2.1:9090",
            "[::2]:1",
            "localhost:x",
        ] {
            assert!(!is_authority(host), "{host}");
        }
    }

    #[test]
    fn a_url_is_local_by_its_whole_host() {
        for url in [
            "http://localhost",
            "http://127.0.0.1:8900/x",
            "http://[::1]:80",
            "http://127.1",
            "https://far.example",
        ] {
            assert!(!is_in_clear(url), "{url}");
        }
        for url in [
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://127.example.com",
            "http://localhost@far.example",
            "HTTP://far.example",
            "http://10.0.0.7",
            "http://[::2]",
        ] {
            assert!(is_in_clear(url), "{url}");
        }
    }

    #[test]
    fn only_a_name_can_be_made_to_lead_here() {
        for host in ["localhost:1", "10.0.0.7:8900", "[2001:db8::7]:80", "0.0.0.0"] {
            assert!(cannot_be_rebound(host), "{host}");
        }
        for host in ["", "evil.example", "emulator:8900", "localhost.evil.example"] {
            assert!(!cannot_be_rebound(host), "{host}");
        }
    }

    #[test]
    fn a_form_has_to_prove_that_it_is_of_a_page_of_ours() {
        let own = |pairs: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(name.parse().unwrap(), value.parse().unwrap());
            }
            own_page(&headers)
        };
        let (host, origin) = (("host", "localhost:9090"), ("origin", "http://localhost:9090"));
        for proven in [
            &[host, origin][..],
            &[host, ("sec-fetch-site", "same-origin")],
            &[host, origin, ("sec-fetch-site", "same-origin")],
            &[host, ("origin", "null"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(own(proven), "{proven:?}");
        }
        for unproven in [
            &[host][..],
            &[origin],
            &[host, ("origin", "null")],
            &[host, ("origin", "null"), ("sec-fetch-site", "cross-site")],
            &[host, ("origin", "http://localhost:9091")],
            &[host, ("origin", "http://evil.example"), ("sec-fetch-site", "same-origin")],
            &[host, origin, origin],
            &[host, origin, ("sec-fetch-site", "same-site")],
            &[host, origin, ("sec-fetch-site", "cross-site")],
            &[host, origin, ("sec-fetch-site", "none")],
            &[host, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(!own(unproven), "{unproven:?}");
        }
    }

    #[test]
    fn a_page_is_its_own_origin_and_nobody_elses() {
        assert!(is_same_origin(Some("http://localhost:9090"), Some("localhost:9090")));
        assert!(is_same_origin(Some("https://countersign.example"), Some("countersign.example")));
        for origin in
            ["null", "", "http://evil.example", "http://localhost:9091", "http://localhost", "localhost:9090"]
        {
            assert!(!is_same_origin(Some(origin), Some("localhost:9090")), "{origin}");
        }
        assert!(!is_same_origin(None, Some("localhost:9090")));
    }
}
