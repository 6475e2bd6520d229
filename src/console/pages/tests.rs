//! Rules that hold for every page, by its source.

use std::{fs, path::Path, time::Duration};

use actix_web::http::header::ACCEPT;

use super::*;
use crate::time::Zone;

fn templates() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/console/pages/templates");
    let files =
        fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("it is readable").path());
    files
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a template is text");
            (path.file_name().expect("it has a name").to_string_lossy().into_owned(), text)
        })
        .collect()
}

#[test]
fn no_template_can_let_a_strangers_text_do_anything() {
    let templates = templates();
    assert!(templates.len() > 10);
    for (name, text) in templates {
        for forbidden in
            ["|safe", "| safe", "|escape(", "style=", "javascript:", "<script>", "srcdoc", "escape=\"none\""]
        {
            assert!(!text.contains(forbidden), "{name} has {forbidden}");
        }
        for (at, _) in text.match_indices(" on") {
            let word: String = text[at + 1..].chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
            assert!(!text[at + 1 + word.len()..].starts_with('='), "{name} has a handler: {word}=");
        }
        assert!(!text.contains("={{"), "{name} has an attribute without quotes");
    }
}

#[test]
fn only_a_client_that_names_html_gets_a_page() {
    let wants = |accept: &[&str]| {
        let request = actix_web::test::TestRequest::get();
        let request = accept.iter().fold(request, |request, value| request.append_header((ACCEPT, *value)));
        wants_html(&request.to_http_request())
    };
    assert!(wants(&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"]));
    assert!(wants(&["TEXT/HTML"]));
    assert!(wants(&["application/json, text/html;q=0.1"]));
    assert!(wants(&["application/json", "text/html"]));
    for accept in [&[][..], &["*/*"], &["text/*"], &["application/json"], &["text/html;q=0"], &["text/html5"]]
    {
        assert!(!wants(accept), "{accept:?}");
    }
}

#[test]
fn a_link_keeps_what_it_is_given() {
    assert_eq!(link("/why", [("q", "")]), "/why");
    let href = link("/decisions", [("user_id", "a&b=c #é\u{202e}"), ("state", ""), ("before", "7")]);
    assert_eq!(href, "/decisions?user_id=a%26b%3Dc%20%23%C3%A9%E2%80%AE&before=7");
    assert_eq!(clipped("短"), "短");
    assert_eq!(clipped(&"审".repeat(200)).chars().count(), 121);
}

#[test]
fn times_carry_their_offset() {
    let zone = Zone::at_offset("+08:00").unwrap();
    let at = "2026-11-20T08:15:30.120Z".parse().unwrap();
    assert_eq!(When::of(at, &zone).shown, "2026-11-20 16:15:30+08:00");
    assert_eq!(When::exact(at, &zone).shown, "2026-11-20 16:15:30.120+08:00");
    assert_eq!(When::of(at, &Zone::UTC).shown, "2026-11-20 08:15:30Z");
    assert_eq!(When::of(at, &zone).utc, "2026-11-20T08:15:30.120Z");
    let spans = [999, 119_000, 121_000, 7_200_000, 200_000_000].map(Duration::from_millis).map(span);
    assert_eq!(spans, ["999 ms", "119 s", "2 min", "2 h", "2 d"]);
}
