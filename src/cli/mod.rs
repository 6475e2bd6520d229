//! The command line. Data goes to stdout, messages go to stderr. [`Exit`] lists the exit codes.

mod actor;
mod audit;
mod bench;
mod center;
mod completions;
mod config;
mod context;
mod credentials;
mod crypt;
mod dev;
mod doctor;
mod emulator;
#[cfg(test)]
mod examples;
mod exit;
mod healthcheck;
mod init;
mod keygen;
mod ledger;
mod man;
mod opened;
mod output;
mod reconcile;
mod refusals;
mod report;
mod schema;
mod send;
mod serve;
mod tail;
mod time;
mod topology;
mod values;

use std::{
    future::Future,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::{
    config::{Loaded, Sources, load},
    loopback,
};
pub use exit::Exit;
use exit::Failure;
use report::report;

const EXAMPLES: &str = "\
Examples:
  countersign dev                try everything: broker, emulator, service and worker
  countersign init               write a configuration, and print what the approval center is told
  countersign config defaults    every key of the configuration, explained
  countersign config check       every fault of the configuration
  countersign serve              run the service
  countersign tail               in another terminal: see the commands as they come
  countersign send               send a callback, as the approval center does

It needs no file if COUNTERSIGN_ACTION_CALLBACK_TOKEN and COUNTERSIGN_ACTION_CALLBACK_KEY
are set (or COUNTERSIGN__ENDPOINTS__0__PLAIN=true where there is no key), and COUNTERSIGN_AMQP_URL
if the broker is elsewhere.

Exit codes: 0 done, 1 failed or refused, 64 wrong usage or configuration, 69 a service is unavailable.";

/// Turns quick approval callbacks of the Feishu/Lark approval center into durable commands on RabbitMQ
#[derive(Debug, Parser)]
#[command(name = "countersign", version, after_help = EXAMPLES, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    sources: SourceArguments,
    #[command(subcommand)]
    command: CliCommand,
}

/// Where the configuration comes from.
#[derive(Debug, Args)]
struct SourceArguments {
    /// The configuration file [default: that named by COUNTERSIGN_CONFIG; or countersign.toml, or else
    /// /etc/countersign/countersign.toml, if there is one]
    #[arg(long, value_name = "FILE", global = true, help_heading = "Configuration")]
    config: Option<PathBuf>,
    /// Set one key, over file and environment: --set http.listen=127.0.0.1:0 (may be repeated). Not for secrets:
    /// everybody on the machine can see a command line
    #[arg(long, value_name = "KEY=VALUE", global = true, help_heading = "Configuration")]
    set: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Run the service: take callbacks, keep them, publish commands
    ///
    /// Runs until SIGTERM or Ctrl-C. Then it still takes callbacks for shutdown_delay_ms, which a second signal ends at once,
    /// and finishes the work in progress, within shutdown_grace_ms. Further signals change nothing. On SIGHUP it reloads the
    /// configuration; one with a fault is rejected, and the previous one stays in use. Logs go to stderr.
    #[command(after_help = "\
Examples:
  countersign serve                           with ./countersign.toml, or that in /etc/countersign
  countersign serve --config try.toml
  countersign serve --set log.filter=debug --set http.listen=127.0.0.1:0")]
    Serve,
    /// Write a configuration to start from, and print what the approval center has to be told
    Init(Box<init::Arguments>),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Send callbacks as the approval center does, from a list, a card or a search
    Send(Box<send::Arguments>),
    /// Follow the commands, one JSON line each, through a queue of its own
    Tail(tail::Arguments),
    /// Inspect the ledger; requeue, park or prune commands
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    /// List refused callbacks with their reasons: why approvers saw 提交失败
    Refusals(Box<refusals::Arguments>),
    /// List what was changed, by whom and why: requeued, parked, shown again, registered, pruned, reloaded
    Audit(Box<audit::Arguments>),
    /// Use the approval center's APIs: definitions, tasks, instances, cards
    #[command(subcommand)]
    Center(center::CenterCommand),
    /// Compare published decisions with the approval center, and list those that are not visible there
    Reconcile(reconcile::Arguments),
    /// Check everything that a decision passes through, and say what is wrong and how to fix it
    Doctor(doctor::Arguments),
    /// Run everything at once to try it: a broker, the emulator, the service and a worker
    ///
    /// The service has a temporary ledger, and the emulator tasks, cards and a page that shows what a tap sets off. RabbitMQ is
    /// that of COUNTERSIGN_AMQP_URL; else the one on port 5672 of this machine; else one of its own, if rabbitmq-server is
    /// installed; else callbacks are accepted all the same, and wait in the ledger. Ctrl-C ends all that it started.
    Dev(Box<dev::Arguments>),
    /// Run a stand-in for the approval center, to try everything without a tenant
    Emulator(emulator::Arguments),
    /// Encrypt stdin as the approval center does
    Encrypt(crypt::EncryptArguments),
    /// Decrypt a callback from stdin
    Decrypt(crypt::DecryptArguments),
    /// Generate a token and a key, or a key that signs commands
    Keygen(keygen::Arguments),
    /// Sign and verify contexts of format jwt
    #[command(subcommand)]
    Context(context::ContextCommand),
    /// Print the topology
    #[command(subcommand)]
    Topology(topology::TopologyCommand),
    /// Print the contract with consumers: the JSON Schema of a command or an outcome, or the AsyncAPI document
    Schema(schema::Arguments),
    /// Benchmark this machine
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Check whether a running service is ready, for health checks of containers
    Healthcheck(healthcheck::Arguments),
    /// Print the completion of a shell
    Completions(completions::Arguments),
    /// Write the manual pages, one for each command
    Man(man::Arguments),
}

/// Where RabbitMQ is, unless somebody says something else.
const USUAL_BROKER: &str = "amqp://guest:guest@127.0.0.1:5672/%2f";

/// The path in `deploy/countersign.service`.
const INSTALLED: &str = "/etc/countersign/countersign.toml";

impl SourceArguments {
    /// For commands that report the file they read themselves.
    fn load(&self) -> Loaded {
        load(&self.sources())
    }

    /// Reports the file that was read, unless one was named.
    fn load_telling(&self) -> Loaded {
        let sources = self.sources();
        let loaded = load(&sources);
        if sources.file.is_none()
            && let Some(file) = &loaded.file
        {
            output::say(format_args!("configuration: {}", file.display()));
        }
        loaded
    }

    fn sources(&self) -> Sources {
        // Not read by clap, which rejects an empty variable. Compose files and shells use an empty value to mean
        // "none".
        let named = || std::env::var_os("COUNTERSIGN_CONFIG").filter(|name| !name.is_empty());
        Sources {
            file: self.config.clone().or_else(|| named().map(PathBuf::from)),
            directory: PathBuf::new(),
            installed: Some(INSTALLED.into()),
            environment: Vec::new(),
            of_process: true,
            set: self.set.clone(),
        }
    }
}

/// Protects this process's memory, which contains secrets: only root may read or trace it, and it leaves no core
/// dump. Errors are ignored: a kernel that supports neither is no reason not to run.
fn keep_memory_private() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).ok();
}

/// Parses the command line, runs the command, and returns the exit code. Sets the process-wide TLS provider and, for
/// `serve`, the process-wide log subscriber and panic hook.
#[must_use]
pub fn run() -> ExitCode {
    keep_memory_private();
    let exit = match Arguments::try_parse() {
        Ok(arguments) => execute(arguments).unwrap_or_else(report),
        Err(error) => {
            if error.use_stderr() {
                // The message repeats the command line, which may contain text from a third party.
                output::say_lines(&error.render().to_string());
                Exit::Usage
            } else {
                // Help. If stdout is closed, nothing can be reported.
                error.print().ok();
                Exit::Done
            }
        }
    };
    exit.into()
}

fn execute(arguments: Arguments) -> Result<Exit, Failure> {
    // The program's only TLS provider. An error means that it is already installed.
    rustls::crypto::ring::default_provider().install_default().ok();
    let sources = arguments.sources;
    match arguments.command {
        CliCommand::Serve => serve::run(sources.sources()),
        CliCommand::Init(arguments) => init::run(&arguments),
        CliCommand::Config(command) => config::run(command, || sources.load()),
        CliCommand::Send(arguments) => send::run(&arguments, &sources.load_telling()),
        CliCommand::Tail(arguments) => tail::run(&arguments, &sources.load_telling()),
        CliCommand::Ledger(command) => ledger::run(command, &sources.load_telling()),
        CliCommand::Audit(arguments) => audit::run(&arguments, &sources.load_telling()),
        CliCommand::Refusals(arguments) => refusals::run(&arguments, &sources.load_telling()),
        CliCommand::Center(command) => center::run(command, &sources.load_telling()),
        CliCommand::Reconcile(arguments) => reconcile::run(&arguments, &sources.load_telling()),
        CliCommand::Doctor(arguments) => doctor::run(&arguments, &sources.load()),
        CliCommand::Dev(arguments) => dev::run(&arguments),
        CliCommand::Emulator(arguments) => match arguments.demo() {
            Some(stand_in) => dev::start(stand_in, false),
            None => emulator::run(&arguments, || sources.load_telling()),
        },
        CliCommand::Encrypt(arguments) => crypt::encrypt(&arguments, &sources.load_telling()),
        CliCommand::Decrypt(arguments) => crypt::decrypt(&arguments, &sources.load_telling()),
        CliCommand::Keygen(arguments) => keygen::run(&arguments),
        CliCommand::Context(command) => context::run(command, || sources.load_telling()),
        CliCommand::Topology(command) => topology::run(&command, &sources.load_telling()),
        CliCommand::Schema(arguments) => schema::run(&arguments),
        CliCommand::Bench(command) => bench::run(command, || sources.load_telling()),
        CliCommand::Healthcheck(arguments) => healthcheck::run(&arguments, &sources.load_telling()),
        CliCommand::Completions(arguments) => completions::run(&arguments, Arguments::command()),
        CliCommand::Man(arguments) => man::run(&arguments, Arguments::command()),
    }
}

/// Runs an async command on this thread.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?
        .block_on(future)
}

/// The address to reach a local listener at from this machine.
fn reachable(listen: std::net::SocketAddr) -> std::net::SocketAddr {
    let mut address = listen;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// The certificates that a client trusts.
#[derive(Debug, Clone, Copy)]
enum Trust<'a> {
    /// Those of the system's CAs.
    System,
    /// Only those of the CAs in this file.
    File(&'a Path),
    /// Any: the configuration says that the address is ours, and the name may not match.
    Own,
}

impl<'a> Trust<'a> {
    /// Follows `--ca-file`. `own` is true if the address comes from the configuration.
    fn of(ca_file: Option<&'a Path>, own: bool) -> Self {
        match ca_file {
            Some(path) => Self::File(path),
            None if own => Self::Own,
            None => Self::System,
        }
    }
}

/// A client that bypasses the proxy for local addresses.
fn client(
    url: &reqwest::Url,
    trust: Trust<'_>,
    timeout: std::time::Duration,
) -> Result<reqwest::Client, Failure> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .tls_info(true)
        .timeout(timeout);
    if loopback::is_url(url) {
        builder = builder.no_proxy();
    }
    builder = match trust {
        Trust::System => builder,
        Trust::Own => builder.tls_danger_accept_invalid_certs(true),
        Trust::File(path) => {
            let usage = |error: crate::certificates::Error| Failure::Usage(format!("--ca-file: {error}"));
            let pem = crate::certificates::read(path).map_err(usage)?;
            let authorities = crate::certificates::chain(path, &pem).map_err(usage)?;
            let authorities: Result<Vec<_>, _> =
                authorities.iter().map(|der| reqwest::Certificate::from_der(der)).collect();
            builder.tls_certs_only(authorities.context("cannot use the certificates of --ca-file")?)
        }
    };
    Ok(builder.build().context("cannot make an HTTP client")?)
}

/// The risk of sending callbacks to this URL; `None` if the URL is local or uses TLS.
fn exposed(url: &reqwest::Url, encrypted: bool) -> Option<&'static str> {
    let in_clear = url.scheme() == "http" && !loopback::is_url(url);
    in_clear.then_some(if encrypted {
        "http:// to another machine: anybody on the way can capture callbacks and send them again; use https://"
    } else {
        "http:// to another machine, and no key: the token goes over the wire as it is; use https://"
    })
}

/// Why no password is sent to this URL.
fn exposed_password(url: &reqwest::Url) -> Option<&'static str> {
    let in_clear = url.scheme() == "http" && !loopback::is_url(url);
    in_clear.then_some(
        "http:// to another machine, and the password would go over the wire as it is; use https://",
    )
}

/// Parses a URL from the command line. `path` is used if it has none.
fn url(text: &str, path: &str) -> Result<reqwest::Url, Failure> {
    let wrong = |problem: &str| Failure::Usage(format!("--url {text}: {problem}"));
    let mut url: reqwest::Url =
        text.parse().map_err(|_| wrong("is not a URL such as http://127.0.0.1:8080"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("is neither http:// nor https://"));
    }
    if url.path() == "/" {
        url.set_path(path);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself_and_its_arguments() {
        fn look(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} has no words");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path} {} has no words", argument.get_id());
            }
            command.get_subcommands().for_each(|inner| look(inner, &path));
        }
        look(&Arguments::command(), "");
    }

    #[test]
    fn an_address_for_all_interfaces_is_reached_by_loopback() {
        for (listen, reached) in
            [("0.0.0.0:8080", "127.0.0.1:8080"), ("[::]:8080", "[::1]:8080"), ("10.0.0.1:80", "10.0.0.1:80")]
        {
            assert_eq!(reachable(listen.parse().unwrap()), reached.parse().unwrap());
        }
    }

    #[test]
    fn what_goes_over_a_wire_in_clear_is_told_by_the_whole_host() {
        let told = |url: &str, encrypted| exposed(&url.parse().unwrap(), encrypted);
        for url in ["http://localhost:1", "http://127.0.0.1", "http://[::1]", "https://far.example"] {
            assert_eq!((told(url, false), told(url, true)), (None, None), "{url}");
        }
        for url in ["http://localhost.example.com", "http://10.0.0.1", "http://far.example"] {
            assert!(told(url, false).unwrap().contains("the token goes over the wire"), "{url}");
            assert!(told(url, true).unwrap().contains("can capture callbacks"), "{url}");
        }
    }

    #[test]
    fn a_url_without_a_path_is_completed() {
        let whole = |text| url(text, "/readyz").map(|url| url.to_string());
        assert_eq!(whole("http://h:1").unwrap(), "http://h:1/readyz");
        assert_eq!(whole("https://h/x").unwrap(), "https://h/x");
        assert!(matches!(whole("ftp://h"), Err(Failure::Usage(_))));
        assert!(matches!(whole("h:1"), Err(Failure::Usage(_))));
    }
}
