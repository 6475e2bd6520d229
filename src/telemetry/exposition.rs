//! The two formats of metrics.
//!
//! The client library writes only OpenMetrics. Many agents other than Prometheus read only the older text format,
//! which has no type `info`, names a counter after its series, and ends without a final marker line.

use std::borrow::Cow;

/// A format of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics 1.0.0, as written by [`Metrics::render`](super::metrics::Metrics::render).
    OpenMetrics,
    /// Prometheus' text format, 0.0.4.
    Text,
}

impl Exposition {
    /// Its media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Converts OpenMetrics text to this format. The input must have no exemplars, units and timestamps; ours has
    /// none.
    #[must_use]
    pub fn of(self, openmetrics: String) -> String {
        match self {
            Self::OpenMetrics => openmetrics,
            Self::Text => text(&openmetrics),
        }
    }
}

/// A family's `# HELP` and `# TYPE` lines precede its series; the type, which determines its name, comes second.
fn text(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((family, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (name, kind) = match kind {
                "counter" => (Cow::Owned(format!("{family}_total")), kind),
                "info" => (Cow::Owned(format!("{family}_info")), "gauge"),
                "unknown" => (Cow::Borrowed(family), "untyped"),
                kind => (Cow::Borrowed(family), kind),
            };
            if let Some((_, words)) = help.take().filter(|(of, _)| *of == family) {
                text.extend(["# HELP ", &name, " ", words, "\n"]);
            }
            text.extend(["# TYPE ", &name, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            text.extend([line, "\n"]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::{Metrics, PublishResult};

    #[test]
    fn the_text_format_names_and_types_each_family_as_its_parsers_expect() {
        let metrics = Metrics::new();
        metrics.callbacks.counter("purchase", "accepted").inc();
        metrics.relay.published(PublishResult::Confirmed, 2);
        let openmetrics = metrics.render();
        let text = Exposition::Text.of(openmetrics.clone());
        for lines in [
            "# HELP countersign_publishes_total Publishes to the broker, by result.\n# TYPE countersign_publishes_total counter\n",
            "# TYPE countersign_build_info gauge\ncountersign_build_info{version=",
            "# TYPE countersign_amqp_connected gauge\ncountersign_amqp_connected 0\n",
            "# TYPE countersign_callback_duration_seconds histogram\ncountersign_callback_duration_seconds_sum 0.0\n",
            "\ncountersign_publishes_total{result=\"confirmed\"} 2\n",
        ] {
            assert!(text.contains(lines), "{lines} is not in\n{text}");
        }
        assert!(!text.contains("# EOF") && !text.contains(" info\n") && text.ends_with('\n'), "{text}");

        let series = |text: &str| -> Vec<String> {
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
        };
        assert_eq!(series(&text), series(&openmetrics), "the series are the same");
        assert_eq!(Exposition::OpenMetrics.of(openmetrics.clone()), openmetrics);
    }
}
