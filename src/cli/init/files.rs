//! The files that `init` writes: the configuration, and one for each secret.

use std::{
    fmt::Write as _,
    fs::{self, DirBuilder, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    Format,
    answers::Answers,
    phrases::{Lang, Phrases},
};
use crate::{
    cli::{USUAL_BROKER, credentials::random, exit::Failure},
    config::read_secret,
    secret::Secret,
};

const CONFIGURATION: &str = "countersign.toml";
const BEFORE: &str = "countersign.toml.old";
const SECRETS: &str = "secrets";

/// Without `force`, a configuration that is there is somebody's work.
pub(super) fn refuse_to_replace(directory: &Path, force: bool, phrases: &Phrases) -> Result<(), Failure> {
    let path = directory.join(CONFIGURATION);
    if force || !path.try_exists().unwrap_or(true) {
        return Ok(());
    }
    Err(Failure::Failed(anyhow!("{}", phrases.is_there.replace("{path}", &path.display().to_string()))))
}

/// A secret, and the file for it.
#[derive(Debug)]
struct SecretFile {
    path: PathBuf,
    /// `None`: made at random, unless it is there.
    given: Option<Secret>,
    /// A given value replaces what is there; a random one never does.
    replaces: bool,
}

/// What is going to be written.
#[derive(Debug)]
pub(super) struct Plan {
    directory: PathBuf,
    text: String,
    secrets: Vec<SecretFile>,
    token: PathBuf,
    key: Option<PathBuf>,
}

/// What was written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) configuration: PathBuf,
    pub(super) token: (PathBuf, Secret),
    pub(super) key: Option<(PathBuf, Secret)>,
    /// The configuration that was there, under its new name.
    before: Option<PathBuf>,
    made: Vec<PathBuf>,
    kept: Vec<PathBuf>,
}

impl Plan {
    pub(super) fn new(directory: &Path, answers: &Answers, lang: Lang) -> Result<Self, Failure> {
        let secrets = directory.join(SECRETS);
        let file = |name: &str| secrets.join(name);
        let of_endpoint = |what: &str| file(&format!("{}-{what}", answers.endpoint));
        let random = |path: &Path| SecretFile { path: path.to_owned(), given: None, replaces: false };
        let (token, admin, broker) = (of_endpoint("token"), file("admin-token"), file("amqp-url"));
        let key = (!answers.plain).then(|| of_endpoint("key"));
        let context = (answers.context == Format::Jwt).then(|| of_endpoint("context"));
        let ledger = answers.is_postgres().then(|| file("ledger-url"));

        let mut all: Vec<_> = [Some(&token), key.as_ref(), context.as_ref(), Some(&admin)]
            .into_iter()
            .flatten()
            .map(|path| random(path))
            .collect();
        all.push(SecretFile {
            path: broker.clone(),
            replaces: answers.broker.is_some(),
            given: Some(answers.broker.clone().unwrap_or_else(|| Secret::new(USUAL_BROKER))),
        });
        if let Some(path) = &ledger {
            all.push(SecretFile { path: path.clone(), given: Some(answers.ledger.clone()), replaces: true });
        }
        let paths = Paths {
            token: &token,
            key: key.as_deref(),
            context: context.as_deref(),
            admin: &admin,
            broker: &broker,
            ledger: ledger.as_deref(),
        };
        let text = configuration(answers, &paths, lang)?;
        Ok(Self { directory: directory.to_owned(), text, secrets: all, token, key })
    }

    /// Secrets first: a configuration that is there names files that are there.
    pub(super) fn write(&self) -> Result<Written, Failure> {
        fs::create_dir_all(&self.directory)
            .with_context(|| format!("cannot make the directory {}", self.directory.display()))?;
        let directory = self.directory.join(SECRETS);
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made.with_context(|| format!("cannot make the directory {}", directory.display()))?,
        }
        let (mut made, mut kept) = (Vec::new(), Vec::new());
        for secret in &self.secrets {
            if !secret.replaces && secret.path.exists() {
                kept.push(secret.path.clone());
                continue;
            }
            let text = secret.given.clone().unwrap_or_else(fresh);
            // The mode is that of a new file; one that is there keeps its own.
            match fs::remove_file(&secret.path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(anyhow!(error)
                        .context(format!("cannot replace {}", secret.path.display()))
                        .into());
                }
                _ => {}
            }
            create(&secret.path, 0o600, &format!("{}\n", text.expose()))?;
            made.push(secret.path.clone());
        }
        let configuration = self.directory.join(CONFIGURATION);
        let before = self.directory.join(BEFORE);
        let before = match fs::rename(&configuration, &before) {
            Ok(()) => Some(before),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                return Err(anyhow!(error)
                    .context(format!("cannot rename {}", configuration.display()))
                    .into());
            }
        };
        create(&configuration, 0o644, &self.text)?;
        let read = |path: &PathBuf| match read_secret(path) {
            Ok(secret) => Ok((path.clone(), secret)),
            Err(problem) => Err(anyhow!("{}: {problem}", path.display())),
        };
        Ok(Written {
            configuration,
            token: read(&self.token)?,
            key: self.key.as_ref().map(read).transpose()?,
            before,
            made,
            kept,
        })
    }
}

impl Written {
    /// A line for each file.
    pub(super) fn told(&self, phrases: &Phrases) -> Vec<String> {
        let line = |words: &str, path: &Path| words.replace("{path}", &path.display().to_string());
        let mut lines = vec![line(phrases.wrote, &self.configuration)];
        lines.extend(self.before.iter().map(|path| line(phrases.kept_before, path)));
        lines.extend(self.made.iter().map(|path| line(phrases.wrote, path)));
        lines.extend(self.kept.iter().map(|path| line(phrases.kept, path)));
        lines
    }
}

/// 256 bits, in characters that need no escaping in TOML, JSON, a shell or a URL.
fn fresh() -> Secret {
    Secret::new(URL_SAFE_NO_PAD.encode(random::<32>()))
}

/// Never through a link, and never over something that came meanwhile.
fn create(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))
}

struct Paths<'a> {
    token: &'a Path,
    key: Option<&'a Path>,
    context: Option<&'a Path>,
    admin: &'a Path,
    broker: &'a Path,
    ledger: Option<&'a Path>,
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A path as TOML has it, which is UTF-8.
fn file(path: &Path) -> Result<String, Failure> {
    match path.to_str() {
        Some(text) => Ok(quoted(text)),
        None => Err(Failure::Usage(format!("{}: a path in a configuration has to be UTF-8", path.display()))),
    }
}

fn configuration(answers: &Answers, paths: &Paths<'_>, lang: Lang) -> Result<String, Failure> {
    let phrases = lang.phrases();
    let ledger = match paths.ledger {
        Some(path) => format!("url_file = {}", file(path)?),
        None => format!("url = {}", quoted(answers.ledger.expose())),
    };
    let mut text = format!(
        r#"# {head}

[http]
# {http}
listen = "0.0.0.0:8080"

[admin]
# {admin}
listen = "127.0.0.1:9090"
token_file = {admin_token}

[ledger]
# {ledger_words}
{ledger}

[amqp]
url_file = {broker}

# {url}
[[endpoints]]
name = {name}
# {locale_words}
locale = "{locale}"
"#,
        head = phrases.head,
        http = phrases.about_http,
        admin = phrases.about_admin,
        admin_token = file(paths.admin)?,
        ledger_words = phrases.about_ledger,
        broker = file(paths.broker)?,
        url = answers.url(),
        name = quoted(&answers.endpoint),
        locale_words = phrases.about_locale,
        locale = lang.word(),
    );
    if paths.key.is_none() {
        text.push_str("plain = true\n");
    }
    let mut add = |line: String| writeln!(text, "{line}").expect("a string takes everything");
    add(format!("\n# {}\n[[endpoints.credentials]]", phrases.about_credentials));
    add(format!("action_callback_token_file = {}", file(paths.token)?));
    if let Some(path) = paths.key {
        add(format!("action_callback_key_file = {}", file(path)?));
    }
    add(format!("\n# {}\n[endpoints.context]", phrases.about_context));
    add(match answers.context {
        Format::Json => {
            "format = \"json\"\nfields = { instance_id = \"/instance\", task_id = \"/task\", round = \"/round\" }".to_owned()
        }
        Format::Jwt => "format = \"jwt\"\non_unresolved = \"refuse\"".to_owned(),
        Format::Registry => "format = \"registry\"\non_unresolved = \"refuse\"".to_owned(),
        Format::Pattern => {
            "format = \"pattern\"\npattern = '(?P<instance_id>[^:]+):(?P<task_id>[^:]+):(?P<round>.+)'".to_owned()
        }
        Format::Opaque => "format = \"opaque\"".to_owned(),
    });
    if let Some(path) = paths.context {
        add(format!("\n[[endpoints.context.jwt.keys]]\nsecret_file = {}", file(path)?));
    }
    Ok(text)
}
