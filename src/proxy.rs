//! The environment's proxy for an HTTP request, for error texts: the client uses it silently, and its error ("tunnel
//! error") does not name it.

use hyper_util::client::proxy::matcher::Matcher;

/// The proxy that `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` (or their lower-case forms) select for a
/// URL, to follow "cannot be reached": ` through the proxy 10.0.0.1:3128 of HTTPS_PROXY`. Empty if they select none.
/// Contains only host and port, no user or password.
#[must_use]
pub fn words(url: &str) -> String {
    // The client does not use a proxy for loopback URLs.
    let is_local = url.parse().is_ok_and(|url| crate::loopback::is_url(&url));
    let Some(proxy) =
        url.parse().ok().filter(|_| !is_local).and_then(|url| Matcher::from_env().intercept(&url))
    else {
        return String::new();
    };
    let variables = if url.starts_with("https:") { "HTTPS_PROXY" } else { "HTTP_PROXY" };
    let host = proxy.uri().host().unwrap_or_default();
    let port = proxy.uri().port_u16().map_or_else(String::new, |port| format!(":{port}"));
    format!(
        " through the proxy {host}{port}, which the environment names ({variables} or ALL_PROXY, less NO_PROXY)"
    )
}
