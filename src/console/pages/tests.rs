//! Rules that hold for every page, by its source.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use actix_web::http::header::ACCEPT;

use super::{phrases::Language, *};
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
fn a_time_carries_its_offset_only_if_the_foot_of_the_page_has_another() {
    let zone = Zone::at_offset("+08:00").unwrap();
    let at = "2026-11-20T08:15:30.120Z".parse().unwrap();
    assert_eq!(When::of(at, &zone).shown, "2026-11-20 16:15:30");
    assert_eq!(When::exact(at, &zone).shown, "2026-11-20 16:15:30.120");
    assert_eq!(When::of(at, &Zone::UTC).shown, "2026-11-20 08:15:30");
    assert_eq!(When::of(at, &zone).utc, "2026-11-20T08:15:30.120Z");
    let spans = [999, 119_000, 121_000, 7_200_000, 200_000_000].map(Duration::from_millis);
    let spans = spans.map(|one| span(one, Language::En.phrases()));
    assert_eq!(spans, ["999 ms", "119 s", "2 min", "2 h", "2 d"]);
}

/// What a source says in its texts, but for documentation and tests.
struct Texts(BTreeSet<String>);

impl<'ast> syn::visit::Visit<'ast> for Texts {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if module.ident != "tests" {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if attribute.path().is_ident("error")
            && let syn::Meta::List(list) = &attribute.meta
        {
            self.tokens(&list.tokens.to_string());
        }
    }

    fn visit_macro(&mut self, one: &'ast syn::Macro) {
        // A log says more than a page, and a panic is no cause.
        let name = one.path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default();
        if !matches!(&*name, "warn" | "info" | "error" | "debug" | "trace" | "assert" | "unreachable") {
            self.tokens(&one.tokens.to_string());
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "expect" {
            self.visit_expr(&call.receiver);
        } else {
            syn::visit::visit_expr_method_call(self, call);
        }
    }

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.0.insert(text.value());
    }
}

impl Texts {
    /// The texts among the tokens of a macro, which are no syntax yet.
    fn tokens(&mut self, tokens: &str) {
        // The character begins no text.
        let tokens = tokens.replace("'\"'", "' '");
        let mut rest = &*tokens;
        while let Some(at) = rest.find('"') {
            let mut end = at + 1;
            let bytes = rest.as_bytes();
            while end < bytes.len() && bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            if let Ok(text) = syn::parse_str::<syn::LitStr>(&rest[at..=end]) {
                self.0.insert(text.value());
            }
            rest = &rest[end + 1..];
        }
    }
}

/// With `{}` in the place of each thing that is filled in.
fn pattern(text: &str) -> String {
    let mut pattern = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        // Doubled, they are themselves.
        let Some((_, behind)) = after.split_once('}') else { break };
        pattern.push_str(before);
        pattern.push_str("{}");
        rest = behind;
    }
    pattern + rest
}

/// Sources whose texts reach the pages as causes: each sentence there is in the table of causes, or here.
const SOURCES: [&str; 15] = [
    "callback/cause.rs",
    "callback/mod.rs",
    "callback/wire.rs",
    "console/filters.rs",
    "context/jwt/claims.rs",
    "context/jwt/mod.rs",
    "context/mod.rs",
    "feedback/permit.rs",
    "http/body.rs",
    "http/callback.rs",
    "http/target.rs",
    "intake/mod.rs",
    "intake/refused.rs",
    "ledger/operator.rs",
    "time/input.rs",
];

/// Texts of these sources that no page shows.
const NO_CAUSES: &[&str] = &[
    // Advice of the command line about a configuration.
    "contexts have neither a round nor an end, so a captured callback is accepted again after dedupe_window, and only `repeats` tells",
    "; name a round by another format where a replay would do harm",
    "; point fields.round at one",
    "; name a group round",
    "; put exp and round into jwt.require",
    "is shorter than {} bytes",
    "is no Ed25519 key in PEM",
    "round or jti",
    // Answers of the command line.
    "the ledger has no command {}",
    "the ledger has no command with seq {}",
    "no worker has reported an outcome of it",
    "it did not come from a card, and its outcome has no instance",
    "the ledger has no act {} that requeues by a filter",
    "another process continues the act {}",
    "the ledger could not be written",
    // Of the command line and of logs.
    "callback refused",
    "cannot sign",
    "the key {}",
    "health check",
];

/// Parts of which a source makes causes: each stands in one of the table.
const PARTS: &[&str] = &[
    "the context and the callback disagree on {}",
    "the instance",
    "the task",
    "the definition",
    "kept as ",
    "; a worker reported ",
    ": {}",
    "the token's ",
    " is not a number of seconds since 1970",
    " looks like milliseconds, and a JWT counts seconds since 1970",
    " lies beyond the year 9999",
    "{} is not {}",
    "a text of characters",
    "a text",
    "a string or an integer",
    "a 64-bit integer, or its digits as a string",
    "a list",
    "an object",
    "an attachment",
    "is not a time such as 10:42, \"yesterday 10:42\", \"2 h ago\", 2026-11-20, \"2026-11-20 10:42\" or 2026-11-20T10:42:00+08:00",
    "is not a time of RFC 3339 with its offset, such as 2026-11-20T10:42:00+08:00",
    "is a date or a time of day that does not exist",
    "is a number, but too small for milliseconds since 1970, which have 12 or 13 digits",
    "{} {}{}.",
    "; write a `+` in it as %2B",
    "{} points to {}, which is not in endpoints.outcomes.link_hosts",
    "a link of a carbon copy",
    "a link of a task",
    "a link of the instance",
];

#[test]
fn every_cause_has_its_words_in_chinese() {
    use syn::visit::Visit;

    let zh = Language::Zh.phrases();
    let is_told = |text: &str| !zh.cause(text).starts_with("原文：");
    let is_part = |text: &str| PARTS.contains(&text);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut missing = Vec::new();
    let mut told = 0;
    for source in SOURCES {
        let text = fs::read_to_string(root.join(source)).expect("a source is text");
        let mut texts = Texts(BTreeSet::new());
        texts.visit_file(&syn::parse_file(&text).expect("a source is Rust"));
        let is_sentence = |text: &&String| text.trim().contains(' ') && text.contains(char::is_alphabetic);
        for text in texts.0.iter().filter(is_sentence) {
            let pattern = pattern(text);
            if NO_CAUSES.contains(&&*pattern) || is_part(&pattern) {
                continue;
            }
            told += 1;
            // The literal path of callbacks has braces of its own.
            if !is_told(&pattern.replace("{}", "x")) && !is_told(text) {
                missing.push(format!("{source}: {text:?}"));
            }
        }
    }
    assert!(missing.is_empty(), "without words in phrases/causes.rs:\n{}", missing.join("\n"));
    assert!(told > 60, "{told}");
}

#[test]
fn every_part_of_a_cause_stands_in_one() {
    let zh = Language::Zh.phrases();
    for cause in [
        "the context and the callback disagree on the instance",
        "the context and the callback disagree on the task",
        "the context and the callback disagree on the definition",
        "kept as 1; a worker reported refused",
        "kept as 1; a worker reported failed: 余额不足",
        "the token's exp is not a number of seconds since 1970",
        "the token's nbf looks like milliseconds, and a JWT counts seconds since 1970",
        "the token's iat lies beyond the year 9999",
        "task_id is not a text of characters",
        "reason is not a text",
        "task_id is not a string or an integer",
        "message_id is not a 64-bit integer, or its digits as a string",
        "attachments is not a list",
        "an attachment is not an object",
        "a link of the instance points to \"http://a\", which is not in endpoints.outcomes.link_hosts",
        "a link of a task points to \"http://a\", which is not in endpoints.outcomes.link_hosts",
        "a link of a carbon copy points to \"http://a\", which is not in endpoints.outcomes.link_hosts",
    ] {
        assert!(!zh.cause(cause).starts_with("原文："), "{cause}");
    }
    let at = |text: &str| {
        let pairs = [("since".to_owned(), text.to_owned())];
        crate::console::filters::commands(&pairs, &Zone::UTC).expect_err("it is no time").to_string()
    };
    for text in ["soon", "soon enough", "25:00", "7", "99999999999999999999", "2026-02-30"] {
        let told = zh.cause(&at(text));
        assert!(told.starts_with(&format!("“{text}”")), "{told}");
    }
}
