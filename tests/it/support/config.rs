//! Configurations of the program.

use super::{Authority, KEY, PairFiles, TOKEN, Vhost};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    name: String,
    credentials: Vec<(String, Option<String>)>,
    keys: Vec<(String, String)>,
    context: Vec<(String, String)>,
}

impl Endpoint {
    /// An endpoint with plain callbacks and the token [`TOKEN`].
    pub(crate) fn plain(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            credentials: vec![(TOKEN.to_owned(), None)],
            keys: Vec::new(),
            context: Vec::new(),
        }
    }

    /// An endpoint with callbacks encrypted under [`KEY`], and the token [`TOKEN`].
    pub(crate) fn encrypted(name: &str) -> Self {
        Self { credentials: vec![(TOKEN.to_owned(), Some(KEY.to_owned()))], ..Self::plain(name) }
    }

    pub(crate) fn credentials(mut self, credentials: &[(&str, Option<&str>)]) -> Self {
        self.credentials =
            credentials.iter().map(|(token, key)| ((*token).to_owned(), key.map(str::to_owned))).collect();
        self
    }

    pub(crate) fn credentials_toml(mut self, toml: &str) -> Self {
        self.credentials.clear();
        self.set("credentials", toml)
    }

    /// Sets a key of the endpoint to a TOML value.
    pub(crate) fn set(mut self, key: &str, toml: &str) -> Self {
        self.keys.push((key.to_owned(), toml.to_owned()));
        self
    }

    /// Sets a key of the endpoint's context to a TOML value.
    pub(crate) fn context(mut self, key: &str, toml: &str) -> Self {
        self.context.push((key.to_owned(), toml.to_owned()));
        self
    }

    fn write(&self, text: &mut String) {
        let credentials: Vec<String> = self
            .credentials
            .iter()
            .map(|(token, key)| {
                let key = key.as_ref().map(|key| format!(", action_callback_key = {}", quoted(key)));
                format!("{{ action_callback_token = {}{} }}", quoted(token), key.unwrap_or_default())
            })
            .collect();
        line(text, "\n[[endpoints]]");
        line(text, &format!("name = {}", quoted(&self.name)));
        if !credentials.is_empty() && self.credentials.iter().all(|(_, key)| key.is_none()) {
            line(text, "plain = true");
        }
        if !credentials.is_empty() {
            line(text, &format!("credentials = [{}]", credentials.join(", ")));
        }
        for (key, value) in &self.keys {
            line(text, &format!("{key} = {value}"));
        }
        if !self.context.is_empty() {
            line(text, "[endpoints.context]");
            for (key, value) in &self.context {
                line(text, &format!("{key} = {value}"));
            }
        }
    }
}

/// A builder for a configuration file. It has its own directory, which also contains the ledger and is removed with
/// its last user.
#[derive(Clone)]
pub(crate) struct Config {
    dir: Arc<TempDir>,
    settings: Vec<(String, String, String)>,
    endpoints: Vec<Endpoint>,
    pub(super) env: Vec<(String, String)>,
    pub(super) file_size_limit_kib: Option<u32>,
    /// Soft and hard.
    pub(super) descriptors: Option<(u32, u32)>,
    /// The authority of the public listener's certificate; plain HTTP if `None`.
    pub(super) authority: Option<String>,
}

impl Config {
    /// Only the broker and the ledger; the test adds endpoints.
    pub(crate) fn bare(amqp_url: &str) -> Self {
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        let dir = tempfile::Builder::new().prefix("countersign-test-").permissions(private).tempdir();
        let dir = dir.expect("a directory");
        let ledger = dir.path().join("ledger.db");
        let config = Self {
            dir: Arc::new(dir),
            settings: Vec::new(),
            endpoints: Vec::new(),
            env: Vec::new(),
            file_size_limit_kib: None,
            descriptors: None,
            authority: None,
        };
        config.set("amqp", "url", &quoted(amqp_url)).set(
            "ledger",
            "url",
            &quoted(&format!("sqlite:{}", ledger.display())),
        )
    }

    /// The endpoints for most tests: `purchase`, encrypted, and `leave`, plain.
    pub(crate) fn new(vhost: &Vhost) -> Self {
        Self::with_url(vhost.url())
    }

    /// [`Config::new`] for a broker at any URL.
    pub(crate) fn with_url(amqp_url: &str) -> Self {
        Self::bare(amqp_url).endpoint(Endpoint::encrypted("purchase")).endpoint(Endpoint::plain("leave"))
    }

    pub(crate) fn endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoints.push(endpoint);
        self
    }

    /// Sets or replaces a key of a section (`""` for the top level) with a TOML value.
    pub(crate) fn set(mut self, section: &str, key: &str, toml: &str) -> Self {
        self.settings.retain(|(known, name, _)| (known.as_str(), name.as_str()) != (section, key));
        self.settings.push((section.to_owned(), key.to_owned(), toml.to_owned()));
        self
    }

    /// Leaves dead letters and unrouted commands in their queues.
    pub(crate) fn leaving_dead_letters(self) -> Self {
        self.set("amqp", "dead_letters", "\"leave\"")
    }

    /// Takes nothing back from the broker: the relay's connection is the only one that lasts.
    pub(crate) fn only_publishing(self) -> Self {
        self.leaving_dead_letters().set("outcomes", "queue", "\"\"")
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Limits the size of the program's files, to simulate a full disk.
    pub(crate) fn file_size_limit_kib(mut self, kib: u32) -> Self {
        self.file_size_limit_kib = Some(kib);
        self
    }

    /// Limits the program's open files: soft and hard.
    pub(crate) fn descriptors(mut self, soft: u32, hard: u32) -> Self {
        self.descriptors = Some((soft, hard));
        self
    }

    pub(crate) fn without_limits(mut self) -> Self {
        self.file_size_limit_kib = None;
        self.descriptors = None;
        self
    }

    /// Makes the public listener use TLS with this pair, issued by this authority.
    pub(crate) fn https(mut self, authority: &Authority, files: &PairFiles) -> Self {
        self.authority = Some(authority.pem());
        self.set("http.tls", "cert_file", &quoted(&files.cert.display().to_string())).set(
            "http.tls",
            "key_file",
            &quoted(&files.key.display().to_string()),
        )
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn toml(&self) -> String {
        let mut text = String::new();
        let mut sections: Vec<&str> = Vec::new();
        for (section, _, _) in &self.settings {
            if !sections.contains(&section.as_str()) {
                sections.push(section);
            }
        }
        // Keys of the top level must precede the first table.
        sections.sort_by_key(|section| !section.is_empty());
        for section in sections {
            if !section.is_empty() {
                line(&mut text, &format!("\n[{section}]"));
            }
            for (_, key, value) in self.settings.iter().filter(|(known, _, _)| known == section) {
                line(&mut text, &format!("{key} = {value}"));
            }
        }
        for endpoint in &self.endpoints {
            endpoint.write(&mut text);
        }
        text
    }

    pub(crate) fn write(&self) -> PathBuf {
        let path = self.dir.path().join("countersign.toml");
        std::fs::write(&path, self.toml()).expect("the directory is ours");
        path
    }
}

/// A TOML basic string. JSON's escapes are a subset of TOML's.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a String takes all text");
}
