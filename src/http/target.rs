//! Classifies a request by its path, and requests that are not callbacks.

use actix_web::{
    HttpRequest,
    http::{
        Method,
        header::{ACCEPT, HeaderName, USER_AGENT},
    },
};

use crate::telemetry::metrics::Misdirected;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// The callback path of an endpoint, configured or not, with its name.
    Endpoint(&'a str),
    /// Any other path, complete.
    Elsewhere(&'a str),
}

impl<'a> Target<'a> {
    /// Matches `/callbacks/{endpoint}` literally: a proxy in front of this service decides by the undecoded path,
    /// where an escaped name would be a different name. Extra slashes before, after or between are tolerated; they
    /// come from joining a base URL and a path.
    pub(super) fn of(path: &'a str) -> Self {
        let below = path.strip_prefix('/').map(|rest| rest.strip_prefix('/').unwrap_or(rest));
        let below = below.and_then(|path| path.strip_prefix("callbacks/"));
        let name = below.map(|name| {
            let name = name.strip_prefix('/').unwrap_or(name);
            name.strip_suffix('/').unwrap_or(name)
        });
        match name {
            Some(name) if !name.is_empty() && !name.contains('/') => Self::Endpoint(name),
            _ => Self::Elsewhere(path),
        }
    }

    /// The name or path for [`Received`](crate::intake::Received).
    pub(super) fn asked_for(self) -> &'a str {
        match self {
            Self::Endpoint(name) => name,
            // Every path begins with a slash, except that of `OPTIONS *`.
            Self::Elsewhere(path) => path,
        }
    }
}

/// Classifies a request with a method other than POST, as far as possible.
pub(super) fn misdirected(request: &HttpRequest) -> Misdirected {
    let header = |name: HeaderName| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    };
    let agent = header(USER_AGENT).to_ascii_lowercase();
    // Kubernetes, the load balancers of the large clouds, and common monitors.
    let probes = [
        "kube-probe",
        "healthcheck",
        "health-check",
        "health check",
        "googlehc",
        "alwayson",
        "monitor",
        "uptime",
        "blackbox",
        "prometheus",
        "pingdom",
        "haproxy",
        "consul",
        "slb",
        "edgeone",
    ];
    let last = request.path().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let health_paths =
        ["health", "healthz", "healthcheck", "livez", "readyz", "ready", "live", "ping", "status", "metrics"];
    if probes.iter().any(|probe| agent.contains(probe)) || health_paths.contains(&last) {
        return Misdirected::HealthCheck;
    }
    let reads_pages = header(ACCEPT).contains("text/html") || request.path() == "/favicon.ico";
    if *request.method() == Method::GET && (agent.starts_with("mozilla/") || reads_pages) {
        return Misdirected::Browser;
    }
    // Balancers that do not identify themselves probe with these.
    if *request.method() == Method::HEAD || *request.method() == Method::OPTIONS {
        return Misdirected::HealthCheck;
    }
    Misdirected::Other
}

/// The cause for the operator, with advice.
pub(super) fn detail(kind: Misdirected) -> &'static str {
    match kind {
        Misdirected::HealthCheck => {
            "a health check, not a callback: point it at /livez or /readyz of the internal listener, \
             or have it only open a connection"
        }
        Misdirected::Browser => {
            "a browser, not a callback: the approval center sends callbacks by POST, and nothing can be read here"
        }
        Misdirected::Other => "not a callback: the approval center sends callbacks by POST",
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn one_slash_too_many_is_tolerated_at_each_place_and_nothing_else() {
        for path in [
            "/callbacks/purchase",
            "/callbacks/purchase/",
            "//callbacks/purchase",
            "/callbacks//purchase",
            "//callbacks//purchase/",
        ] {
            assert_eq!(Target::of(path), Target::Endpoint("purchase"), "{path}");
        }
        for path in [
            "/",
            "//",
            "",
            "*",
            "/callbacks",
            "/callbacks/",
            "/callbacks//",
            "/callbacks///",
            "/callback/purchase",
            "/Callbacks/purchase",
            "///callbacks/purchase",
            "/callbacks///purchase",
            "/callbacks/purchase//",
            "/callbacks/a/b",
            "/x/callbacks/purchase",
            "/callbacks%2fpurchase",
            "/./callbacks/purchase",
            "callbacks/purchase",
        ] {
            assert_eq!(Target::of(path), Target::Elsewhere(path), "{path}");
        }
        // Endpoint names never contain escapes.
        assert_eq!(Target::of("/callbacks/%70lain"), Target::Endpoint("%70lain"));
    }

    #[test]
    fn probes_and_browsers_are_told_apart() {
        let browser = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
        for (method, path, agent, kind) in [
            (Method::GET, "/callbacks/purchase", "kube-probe/1.33", Misdirected::HealthCheck),
            (Method::GET, "/", "ELB-HealthChecker/2.0", Misdirected::HealthCheck),
            (Method::GET, "/", "GoogleHC/1.0", Misdirected::HealthCheck),
            (Method::GET, "/healthz", "", Misdirected::HealthCheck),
            (Method::GET, "/api/health/", "curl/8.5.0", Misdirected::HealthCheck),
            (Method::HEAD, "/", "", Misdirected::HealthCheck),
            (Method::OPTIONS, "/callbacks/purchase", "", Misdirected::HealthCheck),
            (Method::GET, "/callbacks/purchase", browser, Misdirected::Browser),
            (Method::GET, "/favicon.ico", "", Misdirected::Browser),
            (Method::PUT, "/callbacks/purchase", browser, Misdirected::Other),
            (Method::GET, "/callbacks/purchase", "curl/8.5.0", Misdirected::Other),
            (Method::GET, "/", "", Misdirected::Other),
        ] {
            let request = TestRequest::with_uri(path).method(method.clone());
            let request = request.insert_header((USER_AGENT, agent)).to_http_request();
            assert_eq!(misdirected(&request), kind, "{method} {path} {agent}");
        }
    }
}
