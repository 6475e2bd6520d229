//! The process itself: its version, its configuration, its certificates.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::Registry,
};
use strum::IntoStaticStr;

use super::{Label, counters, registered};

/// The use of one of our certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum CertificateUse {
    /// The public listener's server certificate.
    Http,
    /// The client certificate for the broker.
    Amqp,
}

/// The process itself: its version, its configuration, its certificates.
#[derive(Debug)]
pub struct Process {
    /// Rejected, and applied.
    reloads: Box<[Counter]>,
    certificate_not_after: Family<Label, Gauge>,
    console: Family<[(&'static str, String); 1], Gauge>,
}

impl Process {
    pub(super) fn register(registry: &mut Registry) -> Self {
        registry.register(
            "build",
            "The running program",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let reloads = counters(
            registry,
            "config_reloads",
            "Configuration reloads on SIGHUP, by result",
            "result",
            ["rejected", "applied"].into_iter(),
        );
        let certificate_not_after = registered(
            registry,
            "certificate_not_after_seconds",
            "When a certificate of countersign expires, in seconds since 1970, by what it is used for",
            Family::default(),
        );
        let console = registered(
            registry,
            "console",
            "Always 1; where browsers find the console, if admin.public_url says so",
            Family::default(),
        );
        Self { reloads, certificate_not_after, console }
    }

    /// Counts a reload of the configuration: applied or rejected.
    pub fn reloaded(&self, applied: bool) {
        self.reloads[usize::from(applied)].inc();
    }

    /// Sets where browsers find the console; `None` ends the series: nobody has said so.
    pub fn set_console(&self, url: Option<String>) {
        self.console.clear();
        if let Some(url) = url {
            self.console.get_or_create(&[("url", url)]).set(1);
        }
    }

    /// Sets when the certificate for this use expires, in seconds since 1970; `None` ends the series: there is none.
    pub fn set_certificate_not_after(&self, of: CertificateUse, not_after: Option<i64>) {
        let label = [("use", of.into())];
        match not_after {
            Some(seconds) => drop(self.certificate_not_after.get_or_create(&label).set(seconds)),
            None => drop(self.certificate_not_after.remove(&label)),
        }
    }
}
