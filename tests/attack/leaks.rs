//! Searches all output of the service for every configured secret and for ciphertext, and tries to make it print a
//! sender's text as if it were its own.
//!
//! A core dump of the running process does contain keys and tokens, like that of every process that uses them: forbid
//! dumps where it runs (`LimitCORE=0`). Everything that can be overwritten after use is overwritten, with `zeroize`:
//! settings, derived keys, and plaintexts.

use crate::support::{
    Answer, App, Callback, Config, Endpoint, KEY, NOWHERE, Program, TOKEN, eventually, quoted,
};
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD, Engine};
use serde_json::Value;
use std::fmt::Write as _;

/// Secrets of every kind, with characters that each encoding writes differently. All fakes.
const ADMIN: &str = "fake-admin+token/==?";
const AMQP_USER: &str = "fake-user";
const AMQP_PASSWORD: &str = "fake-amqp-pass%2Fword";
const JWT: &str = "fake-jwt-secret \"of\" more than 32 bytes \\ 密";
const ROTATED_TOKEN: &str = "fake-rotated-token<&>";
const ROTATED_KEY: &str = "fake-rotated-key-\u{1f511}";
const FROM_ENVIRONMENT: &str = "fake-token-from-the-environment";
const FROM_FILE: &str = "fake-token-from-a-file";

const SECRETS: [&str; 9] =
    [TOKEN, KEY, ADMIN, AMQP_PASSWORD, JWT, ROTATED_TOKEN, ROTATED_KEY, FROM_ENVIRONMENT, FROM_FILE];

/// The forms in which a secret may appear in output: plain, escaped, encoded, or hashed as it is stored. Base64 at
/// all three offsets within a longer text, without the characters that depend on the neighbours.
fn forms(secret: &str) -> Vec<String> {
    use sha2::{Digest, Sha256};
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String");
            text
        })
    };
    let digest = Sha256::digest(secret.as_bytes());
    let json = Value::from(secret).to_string();
    let ascii: String = secret.escape_default().collect();
    let percent = secret.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("a String");
        }
        text
    });
    let mut forms = vec![
        secret.to_owned(),
        json[1..json.len() - 1].to_owned(),
        ascii,
        percent.to_lowercase(),
        percent,
        hex(secret.as_bytes()),
        hex(secret.as_bytes()).to_uppercase(),
        format!("{:?}", secret.as_bytes()),
        hex(&digest),
        format!("{:?}", digest.as_slice()),
        BASE64_STANDARD.encode(digest),
        BASE64_URL_SAFE_NO_PAD.encode(digest),
        secret.chars().rev().collect(),
    ];
    for offset in 0..3 {
        let shifted = [&[b'x'; 2][..offset.min(2)], secret.as_bytes()].concat();
        let text = BASE64_STANDARD_NO_PAD.encode(&shifted);
        // Each end shares a character with its neighbours.
        let inner = &text[if offset == 0 { 0 } else { offset + 1 }..text.len() - 2];
        forms.push(inner.to_owned());
        forms.push(inner.replace('+', "-").replace('/', "_"));
    }
    forms
}

struct Said(Vec<(String, String)>);

impl Said {
    fn add(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.0.push((place.into(), text.into()));
    }

    fn answer(&mut self, place: impl Into<String>, answer: &Answer) {
        let headers: Vec<String> =
            answer.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        self.add(place, format!("{}\n{}", headers.join("\n"), answer.text()));
    }

    /// # Panics
    /// If the output contains a secret, in any form.
    fn holds_no(&self, name: &str, forms: &[String]) {
        for (place, text) in &self.0 {
            for form in forms {
                if let Some(at) = text.find(form.as_str()) {
                    let mut from = at.saturating_sub(120);
                    while !text.is_char_boundary(from) {
                        from -= 1;
                    }
                    panic!("{name} is in {place} as {form:?}: …{}", &text[from..at + form.len()]);
                }
            }
        }
    }
}

fn config(filter: &str, format: &str) -> Config {
    let url = format!("amqp://{AMQP_USER}:{AMQP_PASSWORD}@127.0.0.1:1/%2f");
    let pair = |token: &str, key: &str| {
        format!("{{ action_callback_token = {}, action_callback_key = {} }}", quoted(token), quoted(key))
    };
    let rotating = Endpoint::encrypted("purchase").credentials_toml(&format!(
        "[ {}, {} ]",
        pair(TOKEN, KEY),
        pair(ROTATED_TOKEN, ROTATED_KEY)
    ));
    let config = Config::bare(&url);
    let file = config.dir().join("token.txt");
    std::fs::write(&file, format!("{FROM_FILE}\n")).expect("a directory of ours");
    let elsewhere = Endpoint::plain("elsewhere").set("plain", "true").credentials_toml(&format!(
        "[ {{ action_callback_token = \"${{COUNTERSIGN_TEST_TOKEN}}\" }}, {{ action_callback_token_file = {} }} ]",
        quoted(&file.display().to_string())
    ));
    let signed = Endpoint::plain("signed")
        .context("format", "\"jwt\"")
        .context("jwt", &format!("{{ keys = [ {{ kid = \"k1\", secret = {} }} ] }}", quoted(JWT)));
    config
        .set("admin", "token", &quoted(ADMIN))
        .set("log", "filter", &quoted(filter))
        .set("log", "format", &quoted(format))
        .env("COUNTERSIGN_TEST_TOKEN", FROM_ENVIRONMENT)
        .endpoint(rotating)
        .endpoint(elsewhere)
        .endpoint(signed)
        .endpoint(Endpoint::plain("leave"))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_and_no_ciphertext_is_in_anything_that_is_said() {
    for format in ["json", "human"] {
        let mut app = App::with(config("trace", format)).await;
        let mut said = Said(Vec::new());
        let callback = Callback::list("i", "t");
        let mut ciphertexts = Vec::new();
        let mut bodies: Vec<(&str, Vec<u8>)> = vec![
            ("leave", callback.plain()),
            ("leave", callback.clone().action("HOLD").plain()),
            ("leave", callback.clone().raw("user_id", "{}").plain()),
            ("leave", callback.clone().again("token", "\"x\"").plain()),
            ("leave", callback.plain()[..70].to_vec()),
            ("leave", callback.clone().again(TOKEN, "1").again(TOKEN, "2").plain()),
            ("elsewhere", callback.clone().token(FROM_ENVIRONMENT).plain()),
            ("elsewhere", callback.clone().token(FROM_FILE).operator("li4").plain()),
            ("signed", callback.clone().context("eyJhbGciOiJIUzI1NiJ9.e30.AAAA").plain()),
            ("nowhere", callback.encrypted(KEY)),
        ];
        for (token, key) in
            [(TOKEN, KEY), (ROTATED_TOKEN, ROTATED_KEY), (TOKEN, ROTATED_KEY), ("x", KEY), (TOKEN, "other")]
        {
            bodies.push(("purchase", callback.clone().token(token).encrypted(key)));
        }
        for (endpoint, body) in bodies {
            if let Some(text) = serde_json::from_slice::<Value>(&body)
                .ok()
                .and_then(|outer| Some(outer["encrypt"].as_str()?.to_owned()))
            {
                ciphertexts.push(text);
            }
            said.answer(format!("the answer of {endpoint}"), &app.post(endpoint, body).await);
        }
        for token in [ADMIN, "guessed"] {
            for path in [
                "/",
                "/livez",
                "/readyz",
                "/metrics",
                "/api/v1/commands",
                "/api/v1/refusals",
                "/api/v1/contexts/x",
                "/nowhere",
            ] {
                said.answer(format!("GET {path}"), &app.get_as(token, path).await);
            }
        }
        for arguments in [
            vec!["config", "check"],
            vec!["config", "show"],
            vec!["config", "show", "--json"],
            vec!["config", "show", "--set", "amqp.url=amqp://u:fake-amqp-pass%252Fword@h:x/"],
            vec!["config", "check", "--set", "admin.listen=nonsense"],
            vec!["ledger", "stats"],
            vec!["topology", "print"],
            vec!["healthcheck"],
        ] {
            let ran = Program::new(arguments.clone())
                .config(app.file())
                .env("COUNTERSIGN_TEST_TOKEN", FROM_ENVIRONMENT)
                .dir(app.dir())
                .run()
                .await;
            said.add(arguments.join(" "), format!("{}\n{}", ran.stdout, ran.stderr));
        }
        eventually("a word about the broker", async || {
            let log = app.stderr();
            if log.contains("127.0.0.1:1") || log.to_lowercase().contains("connect") {
                Ok(())
            } else {
                Err(log)
            }
        })
        .await;
        app.terminate();
        app.ended().await;
        said.add("the log", app.stderr());
        for secret in SECRETS {
            said.holds_no(secret, &forms(secret));
        }
        for text in ciphertexts {
            said.holds_no("a ciphertext", &[text[..40].to_owned(), text[text.len() - 40..].to_owned()]);
        }
        // The disk contains neither tokens nor ciphertexts: only the command is kept.
        for entry in
            std::fs::read_dir(app.dir()).expect("a directory").map(|entry| entry.expect("an entry").path())
        {
            if entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ledger")) {
                let bytes = std::fs::read(&entry).expect("a file");
                let text = String::from_utf8_lossy(&bytes);
                for secret in [TOKEN, ADMIN, AMQP_PASSWORD, JWT, ROTATED_TOKEN, FROM_ENVIRONMENT, FROM_FILE] {
                    assert!(!text.contains(secret), "{secret} is in {}", entry.display());
                }
            }
        }
    }
}

/// Checks that the search works; otherwise it would prove nothing.
#[test]
fn the_search_finds_each_form() {
    let basic = BASE64_STANDARD.encode(format!("{AMQP_USER}:{ADMIN}"));
    for text in [
        format!("x {ADMIN} y"),
        format!("{:?}", ADMIN.as_bytes()),
        basic,
        serde_json::json!({ "a": JWT }).to_string(),
        ROTATED_KEY.escape_default().to_string(),
    ] {
        let found =
            SECRETS.iter().any(|secret| forms(secret).iter().any(|form| text.contains(form.as_str())));
        assert!(found, "{text}");
    }
}

/// `Debug` of everything derived from a configuration: a panic message, a careless log line or a dump of values would
/// print this.
#[test]
fn the_settings_show_no_secret_in_debug() {
    let config = config("info", "json");
    let loaded = countersign::config::load(&countersign::config::Sources {
        file: Some(config.write()),
        directory: config.dir().to_owned(),
        environment: vec![("COUNTERSIGN_TEST_TOKEN".into(), FROM_ENVIRONMENT.into())],
        set: Vec::new(),
        installed: None,
        of_process: false,
    });
    let mut said = Said(Vec::new());
    said.add("Debug of what was loaded", format!("{loaded:?}"));
    said.add("Debug at length", format!("{loaded:#?}"));
    let all = loaded.config().expect("a good configuration");
    said.add("Debug of the settings", format!("{all:?} {all:#?}"));
    said.add("what is in force", loaded.effective.to_toml(true));
    said.add("what is in force as JSON", loaded.effective.to_json().to_string());
    for endpoint in &all.intake.endpoints {
        let credentials = countersign::callback::Credentials::new(&endpoint.credentials);
        said.add("Debug of credentials", format!("{credentials:?} {credentials:#?}"));
    }
    for secret in SECRETS {
        said.holds_no(secret, &forms(secret));
    }
}

/// Newlines, terminal escapes, C1 controls, bidirectional marks, and a false event.
const POISON: &str = "x\n2026-11-20T08:15:30Z  INFO countersign: callback kept\r\n{\"level\":\"INFO\",\"message\":\"forged-event\"}\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}31m\u{85}\u{2028}\u{202e}\u{2066}\0\u{7f}";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sender_writes_does_not_become_an_event_of_its_own_in_any_format() {
    for (format, filter) in [("json", "info"), ("human", "info"), ("json", "debug"), ("human", "debug")] {
        let config = Config::with_url(NOWHERE)
            .set("log", "format", &quoted(format))
            .set("log", "filter", &quoted(filter))
            .endpoint(
                Endpoint::plain("strict")
                    .set("approval_codes", r#"["PO"]"#)
                    .context("on_unresolved", "\"refuse\""),
            );
        let mut app = App::with(config).await;
        let callback = Callback::list("i", "t");
        for name in [
            "user_id",
            "action_type",
            "action_context",
            "approval_code",
            "instance_id",
            "task_id",
            "id",
            "reason",
            "message_id",
            POISON,
        ] {
            for endpoint in ["leave", "strict"] {
                app.post(endpoint, callback.clone().with(name, POISON).plain()).await;
            }
            app.post("purchase", callback.clone().with(name, POISON).encrypted(KEY)).await;
        }
        app.post(
            "leave",
            callback
                .clone()
                .raw("attachments", &format!("[{{{}:{}}}]", quoted(POISON), quoted(POISON)))
                .plain(),
        )
        .await;
        // In the path and in headers, as far as HTTP permits.
        let escaped = POISON.bytes().fold(String::new(), |mut text, byte| {
            write!(text, "%{byte:02x}").expect("a String");
            text
        });
        app.post(&escaped, callback.plain()).await;
        let request = app
            .client()
            .post(app.callback_url("leave"))
            .header("user-agent", "x\u{202e}\u{9b}31m\tforged-event")
            .header("x-forwarded-for", "\u{202e}1.2.3.4, forged-event")
            .header("content-type", "text/\u{202e}plain")
            .header("traceparent", "00-forged-event")
            .body(callback.plain());
        request.send().await.expect("an answer");
        app.get(&format!("/api/v1/commands?user={escaped}")).await;
        app.get(&format!("/api/v1/{escaped}")).await;
        app.terminate();
        app.ended().await;
        let log = app.stderr();
        for (number, line) in log.lines().enumerate() {
            let event = match format {
                "json" => serde_json::from_str::<Value>(line)
                    .is_ok_and(|event| event["level"].is_string() && event["message"] != "forged-event"),
                // A time, then a level.
                _ => {
                    line.get(..4).is_some_and(|year| year.starts_with("20"))
                        && line.contains('Z')
                        && !line.starts_with("2026-11-20T08:15:30Z")
                }
            };
            assert!(event, "{format} at {filter}, line {number} is no event of ours: {line:?}");
            let odd = line.chars().find(|char| char.is_control() || is_mark(*char));
            assert_eq!(odd, None, "{format} at {filter}: {line:?}");
        }
        assert!(log.lines().count() >= 30, "{log}");
    }
}

/// Invisible characters that move the text around them.
fn is_mark(char: char) -> bool {
    matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A table for people: the cursor does not move, and nothing after an id is drawn before it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_sender_writes_does_not_move_the_operators_cursor() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    // Identifiers contain no control characters, but anything else that moves a cursor.
    let name: String = POISON.chars().filter(|char| !char.is_control()).collect();
    let callback = Callback::list(&name, &name).operator(&name).context(POISON).with("reason", POISON);
    // Members that are passed on verbatim, including controls that JSON allows unescaped.
    let callback = callback.raw("odd", "[\"\u{9b}31m\u{7f}\u{202e}\",\n{\"command_id\":\"forged\"}\r\n]");
    let id = app.post("leave", callback.plain()).await.command_id();
    for arguments in [
        vec!["ledger", "list"],
        vec!["ledger", "show", &id],
        vec!["ledger", "list", "--json"],
        vec!["ledger", "show", "--json", &id],
    ] {
        let ran = Program::new(arguments.clone()).config(app.file()).run().await.ended_with(0);
        let odd = ran.stdout.chars().find(|char| (char.is_control() && *char != '\n') || is_mark(*char));
        assert_eq!(odd, None, "{arguments:?}: {:?}", ran.stdout);
        let lines = ran.stdout.lines().count();
        assert!(lines == 1 || !arguments.contains(&"--json"), "one object a line: {:?}", ran.stdout);
    }
}
