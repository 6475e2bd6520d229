//! Selects the metrics format that a scraper wants (RFC 9110 §12.5.1).

use actix_web::{
    http::header::{Accept, Quality, QualityItem},
    mime::Mime,
};

use crate::telemetry::exposition::Exposition;

/// How specifically a media range matches a format: by type and subtype, by type only, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Closeness {
    Anything,
    Type,
    Exactly,
}

/// The format to answer with. The larger weight wins. At equal weights OpenMetrics wins if it is named. A client that
/// accepts anything, sends no header, or wants neither gets the text format, which everyone can parse.
pub(super) fn exposition(accept: Option<&Accept>) -> Exposition {
    let ranges = accept.map_or(&[][..], |accept| accept.0.as_slice());
    let [openmetrics, text] =
        [("application", "openmetrics-text", "1.0.0"), ("text", "plain", "0.0.4")].map(|form| {
            // The most specific match decides, even with a smaller weight.
            let matching = ranges.iter().filter_map(|range| Some((closeness(range, form)?, range.quality)));
            matching
                .max_by_key(|(closeness, quality)| (*closeness, *quality))
                .filter(|(_, quality)| *quality > Quality::ZERO)
        });
    match (openmetrics, text) {
        (Some(_), None) => Exposition::OpenMetrics,
        (Some((closeness, quality)), Some((_, of_text)))
            if quality > of_text || (quality == of_text && closeness > Closeness::Anything) =>
        {
            Exposition::OpenMetrics
        }
        _ => Exposition::Text,
    }
}

/// `None` if the range does not include the format. A range without a version includes every version; other
/// parameters do not distinguish our formats.
fn closeness(range: &QualityItem<Mime>, (kind, subtype, version): (&str, &str, &str)) -> Option<Closeness> {
    let range = &range.item;
    if range.get_param("version").is_some_and(|wanted| wanted != version) {
        return None;
    }
    match (range.type_().as_str(), range.subtype().as_str()) {
        ("*", "*") => Some(Closeness::Anything),
        (of, "*") if of == kind => Some(Closeness::Type),
        (of, name) if of == kind && name == subtype => Some(Closeness::Exactly),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use actix_web::{http::header::Header, test::TestRequest};

    use super::*;

    fn answer_to(accept: &[&str]) -> Exposition {
        let request = accept
            .iter()
            .fold(TestRequest::get(), |request, accept| request.append_header(("Accept", *accept)));
        exposition(Accept::parse(&request.to_http_request()).ok().as_ref())
    }

    #[test]
    fn a_scraper_gets_what_it_reads() {
        // Prometheus 2.42, and Prometheus 3.
        let prometheus = [
            "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        ];
        for accept in prometheus {
            assert_eq!(answer_to(&[accept]), Exposition::OpenMetrics, "{accept}");
        }
        for (accept, form) in [
            (&["application/openmetrics-text"][..], Exposition::OpenMetrics),
            (&["application/openmetrics-text; version=1.0.0; charset=utf-8"], Exposition::OpenMetrics),
            (&["application/*"], Exposition::OpenMetrics),
            (&["text/plain, application/openmetrics-text"], Exposition::OpenMetrics),
            (&["text/plain;q=0.5", "application/openmetrics-text"], Exposition::OpenMetrics),
            (&["*/*, text/plain;q=0.5, application/openmetrics-text;q=0.6"], Exposition::OpenMetrics),
            (&["*/*;q=0.9, text/plain;q=0"], Exposition::OpenMetrics),
            (&["text/plain;version=0.0.4"], Exposition::Text),
            (&["text/plain;version=0.0.4;q=1,*/*;q=0.1"], Exposition::Text),
            (&["application/openmetrics-text;q=0.2,text/plain;q=0.3"], Exposition::Text),
            (&["application/openmetrics-text;q=0, */*"], Exposition::Text),
            (&["application/openmetrics-text;version=0.0.1"], Exposition::Text),
            (&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], Exposition::Text),
            (&["application/json"], Exposition::Text),
            (&["*/*"], Exposition::Text),
            (&["nonsense, ;;, q=2"], Exposition::Text),
            (&[""], Exposition::Text),
            (&[], Exposition::Text),
        ] {
            assert_eq!(answer_to(accept), form, "{accept:?}");
        }
    }
}
