//! Logs: tracing events on stderr, for a person or as JSON lines, with times in RFC 3339 and UTC.
//!
//! INVARIANT 6: some events are never written, whatever the filter says. See `is_safe`.

mod filter;
mod journal;
mod json;
mod lines;
mod pages;
mod people;

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    fmt,
    io::{self, IsTerminal},
    panic::PanicHookInfo,
};

use crate::time::Timestamp;
use tracing::{Level, Metadata};
use tracing_subscriber::{
    Layer, Registry,
    filter::{FilterExt, Targets, filter_fn},
    fmt::{
        format::{Format as Prose, Writer},
        time::FormatTime,
    },
    layer::SubscriberExt,
    reload,
    util::{SubscriberInitExt, TryInitError},
};

use journal::Prioritised;
use json::Json;
pub use lines::Flush;
use lines::Lines;
use pages::Pages;
use people::People;

/// The format and filter of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The output format.
    pub format: Format,
    /// Levels and targets, in the syntax of [`Targets`].
    pub filter: String,
    /// The console's address in browsers, without a slash at its end: lines about a command then have that of its page.
    pub pages: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { format: Format::Auto, filter: "info".to_owned(), pages: None }
    }
}

/// The output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Human-readable if stderr is a terminal, otherwise JSON.
    Auto,
    /// Human-readable; with colours on a terminal.
    Human,
    /// One object per line.
    Json,
}

/// Defaults for noisy dependencies. A directive of the configured filter for the same crate takes precedence.
///
/// lapin reports each lost connection several times at error; the relay logs it once, with its reaction. actix reports
/// every invalid request from a stranger at error.
const QUIET: &str = "lapin=off,actix_http=off,actix_server=warn,";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is invalid. [`check_filter`] detects this in advance.
    #[error("the log filter {0}")]
    Filter(String),
    /// The system could not start a thread for writing.
    #[error("cannot start the thread that writes the log")]
    Thread(#[source] io::Error),
    /// Logging was already set up in this process.
    #[error("logging is already initialised")]
    Twice(#[source] TryInitError),
}

/// Checks a filter. The error is the end of a sentence; a valid filter that lets nothing through is an error too.
pub fn check_filter(filter: &str) -> Result<(), String> {
    parse(filter)?;
    filter::slip(&filter::tidied(filter)).map_or(Ok(()), Err)
}

fn parse(filter: &str) -> Result<Targets, String> {
    let filter = filter::tidied(filter);
    if filter.is_empty() {
        return Err("is empty".to_owned());
    }
    format!("{QUIET}{filter}").parse().map_err(|error| format!("is not understood: {error}"))
}

/// False for events that may contain what must not be logged: lapin logs returned messages with their whole bodies at
/// warn, and frames, including the login, at trace. No filter re-enables them.
fn is_safe(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let of =
        |name: &str| target.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let unsafe_to_print =
        of("lapin::returned_messages") || (of("lapin") && *metadata.level() == Level::TRACE);
    !unsafe_to_print
}

/// The log of this process. Events logged after it is dropped may be lost at exit.
pub struct Log {
    switch: Switch,
    _flush: Flush,
}

impl Log {
    /// Applies new settings.
    ///
    /// # Errors
    /// The filter is invalid. Then nothing has changed.
    pub fn replace(&self, settings: &Settings) -> Result<(), Error> {
        self.switch.turn(is_human(settings.format), &settings.filter)?;
        self.switch.pages.set(settings.pages.clone());
        Ok(())
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}

fn is_human(format: Format) -> bool {
    match format {
        Format::Auto => io::stderr().is_terminal(),
        Format::Human => true,
        Format::Json => false,
    }
}

/// Starts logging to stderr, including events of the `log` crate and panics.
pub fn init(settings: &Settings) -> Result<Log, Error> {
    let colours =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = Lines::start(io::stderr()).map_err(Error::Thread)?;
    let target = Target { colours, journal: journal::is_read_by_it() };
    let (subscriber, switch) = layer(is_human(settings.format), target, &settings.filter, lines.clone())?;
    switch.pages.set(settings.pages.clone());
    subscriber.try_init().map_err(Error::Twice)?;
    let hurried = lines.clone();
    std::panic::set_hook(Box::new(move |panic| {
        log_panic(panic);
        // The process may end right after this.
        hurried.flush();
    }));
    Ok(Log { switch, _flush: Flush(lines) })
}

/// Switches the format and the filter: each format has a filter, and that of the inactive one lets nothing through. A
/// layer itself cannot be replaced once it has a filter.
struct Switch {
    human: reload::Handle<Targets, Registry>,
    json: reload::Handle<Targets, Registry>,
    pages: Pages,
}

impl Switch {
    fn turn(&self, human: bool, filter: &str) -> Result<(), Error> {
        let (for_people, for_machines) = filters(human, filter)?;
        // An error means that there is no subscriber any more.
        self.human.reload(for_people).ok();
        self.json.reload(for_machines).ok();
        Ok(())
    }
}

/// The human-readable and the JSON filter.
fn filters(human: bool, filter: &str) -> Result<(Targets, Targets), Error> {
    let (filter, nothing) = (parse(filter).map_err(Error::Filter)?, Targets::new());
    Ok(if human { (filter, nothing) } else { (nothing, filter) })
}

/// Properties of the output.
#[derive(Debug, Clone, Copy, Default)]
struct Target {
    /// A terminal that supports colours.
    colours: bool,
    /// systemd's journal, which reads priorities.
    journal: bool,
}

/// A subscriber for `writer`, and its switch.
fn layer<W>(
    human: bool,
    target: Target,
    filter: &str,
    writer: W,
) -> Result<(impl SubscriberInitExt, Switch), Error>
where
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Clone + Send + Sync + 'static,
{
    let (for_people, for_machines) = filters(human, filter)?;
    let (for_people, human) = reload::Layer::new(for_people);
    let (for_machines, json) = reload::Layer::new(for_machines);
    let layer = || tracing_subscriber::fmt::layer().with_writer(writer.clone()).with_timer(Utc);
    let journal = target.journal;
    let pages = Pages::default();
    let prose = Prose::default().with_timer(Utc).with_target(false).with_ansi(target.colours);
    let people = layer()
        .with_ansi(target.colours)
        .event_format(Prioritised { inner: prose, journal })
        .fmt_fields(People { pages: pages.clone() });
    let machines = layer().json().event_format(Prioritised { inner: Json::new(pages.clone()), journal });
    let layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = vec![
        Box::new(people.with_filter(for_people.and(filter_fn(is_safe)))),
        Box::new(machines.with_filter(for_machines.and(filter_fn(is_safe)))),
    ];
    Ok((Registry::default().with(layers), Switch { human, json, pages }))
}

/// An error and its causes on one line. A cause that ends the text before it, as in many crates, is not repeated.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", Timestamp::now())
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let what = describe(panic.payload());
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(location, thread, %backtrace, "panic: {what}");
    } else {
        tracing::error!(location, thread, "panic: {what}");
    }
}

/// A panic's message without runtime data, which may come from a request or contain a secret: a formatted text is cut
/// at its first colon, where `expect` and `assert` put their data.
fn describe(payload: &(dyn Any + Send)) -> String {
    if let Some(literal) = payload.downcast_ref::<&'static str>() {
        return (*literal).to_owned();
    }
    match payload.downcast_ref::<String>() {
        Some(text) => match text.split_once([':', ';', '`']) {
            Some((head, _)) => format!("{} […]", head.trim_end()),
            None => "[…]".to_owned(),
        },
        None => "without words".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::telemetry::taming;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(human: bool, filter: &str, events: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let target = Target::default();
        let (subscriber, _switch) = layer(human, target, filter, move || writer.clone()).unwrap();
        let guard = subscriber.set_default();
        events();
        drop(guard);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_for_machines_is_an_object_with_time_level_and_fields() {
        let text = log(false, "info", || tracing::info!(endpoint = "purchase", "callback accepted"));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["endpoint"], "purchase");
        assert_eq!(line["message"], "callback accepted");
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.ends_with('Z') && time.parse::<Timestamp>().is_ok(), "{time}");
    }

    #[test]
    fn with_the_consoles_address_a_line_has_that_of_its_page() {
        for (human, of_command, of_time) in [
            (
                false,
                r#","page":"https://c.example/decisions/01a1""#,
                r#","page":"https://c.example/why?q=10:31""#,
            ),
            (true, " page=https://c.example/decisions/01a1", " page=https://c.example/why?q=10:31"),
        ] {
            let lines = |base: Option<&str>| {
                let written = Written::default();
                let writer = written.clone();
                let (subscriber, switch) =
                    layer(human, Target::default(), "info", move || writer.clone()).unwrap();
                switch.pages.set(base.map(str::to_owned));
                let guard = subscriber.set_default();
                tracing::info!(command_id = %"01a1", outcome = "accepted", "callback kept");
                tracing::info!(page = %format_args!("/why?q={}", "10:31"), "callback refused");
                tracing::info!(endpoint = "purchase", "something else");
                drop(guard);
                String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
            };
            let with = lines(Some("https://c.example"));
            assert!(with.contains(of_command) && with.contains(of_time), "{with}");
            assert_eq!(with.matches("page").count(), 2, "{with}");
            assert!(!lines(None).contains("page"), "{}", lines(None));
        }
    }

    #[test]
    fn a_line_for_people_begins_with_the_time_and_has_no_colour_unless_asked() {
        let text = log(true, "info", || tracing::warn!(reason = "too_slow", "callback refused"));
        assert!(text.contains("WARN callback refused reason=\"too_slow\""), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn what_others_wrote_neither_acts_nor_makes_lines_in_either_form() {
        let nasty = "a\u{1b}]0;x\u{7}\u{9b}2J\u{7f}\u{202e}\r\nERROR forged";
        let error = io::Error::other(nasty);
        for human in [true, false] {
            let text = log(human, "info", || {
                tracing::info!(plain = nasty, shown = %nasty, debugged = ?nasty, "said {nasty}");
                tracing::warn!(error = &error as &dyn std::error::Error, "failed");
                tracing::info_span!("in", span = nasty).in_scope(|| tracing::info!(%nasty, "inside"));
            });
            assert_eq!(text.lines().count(), 3, "{text}");
            let acting: Vec<char> = text.chars().filter(|c| *c != '\n' && taming::acts(*c)).collect();
            assert!(acting.is_empty(), "{acting:?} in {text}");
            assert!(text.contains("forged"), "{text}");
        }
    }

    #[test]
    fn an_error_is_told_with_its_causes_to_people_and_machines() {
        let error = Error::Thread(io::Error::other("no room"));
        let text = log(true, "info", || {
            tracing::warn!(error = &error as &dyn std::error::Error, "failed");
        });
        assert!(
            text.ends_with("WARN failed error=cannot start the thread that writes the log: no room\n"),
            "{text}"
        );
    }

    #[test]
    fn the_journal_is_told_the_priority_of_each_line() {
        let events = || {
            tracing::error!("one");
            tracing::warn!("two");
            tracing::info!("three");
            tracing::debug!("four");
        };
        for human in [true, false] {
            let written = Written::default();
            let writer = written.clone();
            let target = Target { journal: true, colours: false };
            let (subscriber, _switch) = layer(human, target, "debug", move || writer.clone()).unwrap();
            let guard = subscriber.set_default();
            events();
            drop(guard);
            let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
            let begins: Vec<&str> = text.lines().map(|line| &line[..3]).collect();
            assert_eq!(begins, ["<3>", "<4>", "<6>", "<7>"], "{text}");
        }
    }

    #[test]
    fn form_and_filter_can_be_exchanged_while_it_logs() {
        let written = Written::default();
        let writer = written.clone();
        let (subscriber, switch) = layer(false, Target::default(), "warn", move || writer.clone()).unwrap();
        let guard = subscriber.set_default();
        let speak = |n: u32| {
            tracing::info!(n, "spoken");
            tracing::warn!(target: "lapin::returned_messages", "hush");
        };
        speak(1);
        switch.turn(false, "info").unwrap();
        speak(2);
        switch.turn(true, "info").unwrap();
        speak(3);
        assert!(switch.turn(true, "info,countersign=loud").is_err());
        speak(4);
        switch.turn(true, "error").unwrap();
        speak(5);
        drop(guard);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].starts_with('{') && lines[0].contains("\"n\":2"), "{text}");
        assert!(lines[1].contains("INFO spoken n=3") && lines[2].contains("INFO spoken n=4"), "{text}");
    }

    #[test]
    fn returned_messages_stay_out_whatever_the_filter_says() {
        for filter in [
            "trace",
            "info,lapin::returned_messages=trace",
            "info,lapin=trace,lapin::returned_messages[{x}]=trace",
        ] {
            let text = log(true, filter, || {
                tracing::warn!(target: "lapin::returned_messages", x = 1, "hush");
                tracing::error!(target: "lapin::returned_messages::inner", "hush");
                tracing::trace!(target: "lapin::channels", "hush");
                tracing::error!(target: "countersign::relay", "kept");
            });
            assert!(!text.contains("hush") && text.contains("kept"), "{filter}: {text}");
        }
    }

    #[test]
    fn a_chain_of_errors_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Told(&'static str, #[source] Option<Box<Told>>);
        let inner = Told("no such file", None);
        let middle = Told("IO error: no such file", Some(inner.into()));
        let outer = Told("cannot open the ledger", Some(middle.into()));
        assert_eq!(chain(&outer), "cannot open the ledger: IO error: no such file");
    }

    #[test]
    fn lapin_is_quiet_unless_asked() {
        let speak = || {
            tracing::info!(target: "lapin::connection", "chatter");
            tracing::error!(target: "lapin::connection", "trouble");
            tracing::warn!(target: "countersign::relay", "lost the broker");
        };
        let text = log(true, "debug", speak);
        assert!(!text.contains("chatter") && !text.contains("trouble"), "{text}");
        assert!(text.contains("lost the broker"), "the relay says what matters of it: {text}");
        let text = log(true, "info,lapin=debug", speak);
        assert!(text.contains("chatter") && text.contains("trouble"), "{text}");
    }

    #[test]
    fn blanks_and_empty_directives_in_a_filter_change_nothing() {
        for filter in [
            "info,countersign::relay=debug",
            " info , countersign::relay=debug ",
            "info,countersign::relay=debug,",
            ",countersign::relay = debug,,INFO",
        ] {
            check_filter(filter).unwrap();
            let text = log(false, filter, || {
                tracing::info!(target: "countersign::app", "told");
                tracing::debug!(target: "countersign::relay", "told too");
                tracing::debug!(target: "countersign::app", "never");
                tracing::error!(target: "lapin", "nor this");
            });
            let told =
                ["told", "told too", "never", "nor this"].map(|word| text.contains(&format!("\"{word}\"")));
            assert_eq!(told, [true, true, false, false], "{filter:?}: {text}");
        }
    }

    #[test]
    fn a_filter_that_is_not_one_is_told_beforehand() {
        assert_eq!(check_filter("info,countersign::relay=debug"), Ok(()));
        for filter in ["", "info,countersign=loud", "a=b=c"] {
            assert!(check_filter(filter).is_err(), "{filter}");
        }
    }

    #[test]
    fn a_panic_tells_what_the_source_says_and_not_what_was_formatted_into_it() {
        let hush = std::hint::black_box("hush");
        let token = || std::hint::black_box(Err::<(), &str>(hush));
        let said = |panics: &(dyn Fn() + std::panic::RefUnwindSafe)| {
            describe(&*std::panic::catch_unwind(panics).unwrap_err())
        };
        assert_eq!(said(&|| panic!("the queue was closed")), "the queue was closed");
        assert_eq!(said(&|| panic!("{hush} came")), "[…]");
        assert_eq!(said(&|| token().expect("a token is text")), "a token is text […]");
        assert_eq!(said(&|| assert_eq!(hush, "x", "tokens differ")), "assertion […]");
    }
}
