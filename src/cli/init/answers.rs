//! What `init` has to know: by flags, by questions on a terminal, or by default.

use std::{ffi::OsString, path::Path};

use clap::Args;

use super::{Format, phrases::Phrases};
use crate::{
    cli::{
        USUAL_BROKER,
        exit::Failure,
        output::{answer, can_ask, say},
    },
    config::{Sources, load},
    loopback,
    secret::Secret,
};
use clap::ValueEnum;

#[derive(Debug, Args)]
pub(super) struct AnswerArguments {
    /// The name of the endpoint, the last part of the URL [default: purchase]
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Scheme and host at which the approval center reaches this service. Needed where there is no terminal to ask on
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// No key: callbacks come unencrypted, and anybody who reads one has the token
    #[arg(long)]
    plain: bool,
    /// How the action_context says which task is meant [default: json]
    #[arg(long, value_name = "FORMAT")]
    context: Option<Format>,
    /// RabbitMQ [default: that of COUNTERSIGN_AMQP_URL, else amqp://guest:guest@127.0.0.1:5672/%2f]
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// Where decisions are kept: the path of a SQLite file, or the URL of a PostgreSQL database [default:
    /// countersign.db, beside the configuration]
    #[arg(long, value_name = "PATH|URL")]
    ledger: Option<String>,
}

/// Everything that configuration and documents are made of.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) endpoint: String,
    /// Without a slash at its end.
    pub(super) public_url: String,
    pub(super) plain: bool,
    pub(super) context: Format,
    /// `None`: that in the file that is there already, or else the usual one.
    pub(super) broker: Option<Secret>,
    /// `sqlite:` with an absolute path, or `postgres:`.
    pub(super) ledger: Secret,
}

/// A question: its flag, and the variable by which the configuration's own rules are asked about the answer.
struct Question<'a> {
    flag: &'static str,
    words: &'a str,
    default: Option<&'a str>,
    check: &'a dyn Fn(&str) -> Option<String>,
}

impl Question<'_> {
    /// What the flag says; else the answer on a terminal; else the default.
    fn settle(&self, given: Option<&str>, phrases: &Phrases) -> Result<String, Failure> {
        if let Some(given) = given {
            return match (self.check)(given) {
                None => Ok(given.to_owned()),
                Some(problem) => Err(Failure::Usage(format!("{}: {problem}", self.flag))),
            };
        }
        if !can_ask() {
            let missing = || Failure::Usage(phrases.missing.replace("{flag}", self.flag));
            return self.default.map(str::to_owned).ok_or_else(missing);
        }
        loop {
            let default = self.default.map(|text| format!(" [{text}]")).unwrap_or_default();
            let text = answer(format_args!("{}{default}: ", self.words))?;
            let text = match (text.is_empty(), self.default) {
                (true, Some(default)) => default.to_owned(),
                _ => text,
            };
            match (self.check)(&text) {
                None => return Ok(text),
                Some(problem) => say(format_args!("  {problem}")),
            }
        }
    }
}

impl Answers {
    pub(super) fn settle(
        given: &AnswerArguments,
        directory: &Path,
        phrases: &Phrases,
    ) -> Result<Self, Failure> {
        let endpoint = Question {
            flag: "--endpoint",
            words: phrases.ask_endpoint,
            default: Some("purchase"),
            check: &|text| fault("COUNTERSIGN__ENDPOINTS__0__NAME", "endpoints[0].name", text),
        }
        .settle(given.endpoint.as_deref(), phrases)?;
        let public_url = Question {
            flag: "--public-url",
            words: phrases.ask_public_url,
            default: None,
            check: &|text| public_url_fault(text, phrases),
        }
        .settle(given.public_url.as_deref(), phrases)?;
        let plain = given.plain
            || Question {
                flag: "--plain",
                words: phrases.ask_encrypted,
                default: Some(phrases.yes),
                check: &|text| yes_or_no(text).is_none().then(|| phrases.say_yes_or_no.to_owned()),
            }
            .settle(None, phrases)
            .map(|text| yes_or_no(&text) == Some(false))?;
        let context = match given.context {
            Some(format) => format,
            None => {
                let text = Question {
                    flag: "--context",
                    words: phrases.ask_context,
                    default: Some("json"),
                    check: &|text| Format::from_str(text, true).err().map(|_| phrases.say_format.to_owned()),
                }
                .settle(None, phrases)?;
                Format::from_str(&text, true).expect("it was checked")
            }
        };
        Ok(Self {
            endpoint,
            public_url: public_url.trim_end_matches('/').to_owned(),
            plain,
            context,
            broker: broker(given.broker.as_deref(), directory, phrases)?,
            ledger: ledger(given.ledger.as_deref(), directory, phrases)?,
        })
    }

    /// The `action_callback_url`.
    pub(super) fn url(&self) -> String {
        format!("{}/callbacks/{}", self.public_url, self.endpoint)
    }

    pub(super) fn is_postgres(&self) -> bool {
        !self.ledger.expose().starts_with("sqlite:")
    }
}

/// The URL of a file that is there, or of the environment, is not shown: it has a password in it.
fn broker(given: Option<&str>, directory: &Path, phrases: &Phrases) -> Result<Option<Secret>, Failure> {
    let check = |text: &str| fault("COUNTERSIGN_AMQP_URL", "amqp.url", text);
    let file = directory.join("secrets/amqp-url");
    let named = std::env::var("COUNTERSIGN_AMQP_URL").ok().filter(|url| !url.is_empty());
    let kept = match (&named, file.exists()) {
        (Some(_), _) => Some("COUNTERSIGN_AMQP_URL".to_owned()),
        (None, true) => Some(file.display().to_string()),
        (None, false) => None,
    };
    let default = kept.as_deref().unwrap_or(USUAL_BROKER);
    let question = Question {
        flag: "--broker",
        words: phrases.ask_broker,
        default: Some(default),
        check: &|text| if kept.as_deref() == Some(text) { None } else { check(text) },
    };
    let text = question.settle(given, phrases)?;
    if kept.as_deref() != Some(&*text) {
        return Ok(Some(Secret::new(text)));
    }
    match named {
        None => Ok(None),
        Some(url) => match check(&url) {
            None => Ok(Some(Secret::new(url))),
            Some(problem) => Err(Failure::Usage(format!("COUNTERSIGN_AMQP_URL: {problem}"))),
        },
    }
}

fn ledger(given: Option<&str>, directory: &Path, phrases: &Phrases) -> Result<Secret, Failure> {
    let usual = format!("sqlite:{}", directory.join("countersign.db").display());
    let question = Question {
        flag: "--ledger",
        words: phrases.ask_ledger,
        default: Some(&usual),
        check: &|text| {
            let url = ledger_url(text);
            fault("COUNTERSIGN__LEDGER__URL", "ledger.url", &url)
                .or_else(|| no_directory(&url, directory, phrases))
        },
    };
    question.settle(given, phrases).map(|text| Secret::new(ledger_url(&text)))
}

/// The URL of what may be a path. It is made absolute: a relative one is found only where `init` was started.
fn ledger_url(text: &str) -> String {
    if text.starts_with("postgres:") || text.starts_with("postgresql:") {
        return text.to_owned();
    }
    let path = text.strip_prefix("sqlite:").unwrap_or(text);
    let path = path.strip_prefix("//").unwrap_or(path);
    let absolute = std::path::absolute(path).ok().and_then(|path| path.to_str().map(str::to_owned));
    // An empty path cannot be made absolute, and is the fault that it is.
    format!("sqlite:{}", absolute.as_deref().unwrap_or(path))
}

/// `serve` does not make the directory of the file; ours is made here.
fn no_directory(url: &str, own: &Path, phrases: &Phrases) -> Option<String> {
    let above = Path::new(url.strip_prefix("sqlite:")?).parent()?;
    (above != own && !above.is_dir())
        .then(|| phrases.no_directory.replace("{directory}", &above.display().to_string()))
}

/// What the configuration's own rules say of a value.
fn fault(variable: &str, key: &str, value: &str) -> Option<String> {
    let pairs = [("COUNTERSIGN__ENDPOINTS__0__PLAIN", "true"), (variable, value)];
    let environment = pairs.map(|(name, value)| (OsString::from(name), OsString::from(value))).to_vec();
    let loaded = load(&Sources { environment, ..Sources::default() });
    loaded.faults().iter().find(|fault| fault.key == key).map(|fault| match &*fault.expected {
        "" => fault.problem.to_string(),
        expected => format!("{}; {expected}", fault.problem),
    })
}

fn public_url_fault(text: &str, phrases: &Phrases) -> Option<String> {
    let Ok(url) = text.parse::<reqwest::Url>() else { return Some(phrases.no_url.to_owned()) };
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || !is_bare {
        return Some(phrases.no_url.to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some(phrases.no_url.to_owned());
    }
    // For a try with the emulator, on this machine.
    (url.scheme() == "http" && !loopback::is_url(&url)).then(|| phrases.not_https.to_owned())
}

fn yes_or_no(text: &str) -> Option<bool> {
    match &*text.to_lowercase() {
        "y" | "yes" | "是" => Some(true),
        "n" | "no" | "否" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::init::phrases::Lang;

    #[test]
    fn a_public_url_is_https_and_nothing_but_a_host() {
        let phrases = Lang::En.phrases();
        for sound in ["https://hook.example.com", "https://hook.example.com:8443/", "http://127.0.0.1:8080"] {
            assert_eq!(public_url_fault(sound, phrases), None, "{sound}");
        }
        for bad in [
            "hook.example.com",
            "ftp://hook.example.com",
            "https://hook.example.com/callbacks",
            "https://u:p@hook.example.com",
            "https://hook.example.com/?a=b",
            "http://hook.example.com",
            "",
        ] {
            assert!(public_url_fault(bad, phrases).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_ledger_may_be_given_as_a_path() {
        assert_eq!(ledger_url("/a/b.db"), "sqlite:/a/b.db");
        assert_eq!(ledger_url("sqlite:///a/b.db"), "sqlite:/a/b.db");
        let here = std::env::current_dir().unwrap();
        assert_eq!(ledger_url("b.db"), format!("sqlite:{}/b.db", here.display()));
        assert_eq!(ledger_url("postgres://c@db/a"), "postgres://c@db/a");
    }

    #[test]
    fn the_rules_of_the_configuration_count() {
        let name = |text| fault("COUNTERSIGN__ENDPOINTS__0__NAME", "endpoints[0].name", text);
        assert_eq!(name("purchase"), None);
        assert!(name("Purchase").is_some());
        let broker = |text| fault("COUNTERSIGN_AMQP_URL", "amqp.url", text);
        assert_eq!(broker(USUAL_BROKER), None);
        assert!(broker("http://x").is_some());
        let ledger = |text| fault("COUNTERSIGN__LEDGER__URL", "ledger.url", text);
        assert_eq!(ledger("postgres://c@db/a"), None);
        assert!(ledger("postgres://").is_some() && ledger("sqlite:").is_some());
    }
}
