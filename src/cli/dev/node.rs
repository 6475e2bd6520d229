//! A private RabbitMQ node: own ports, own data, own cookie, own epmd, reachable from this machine only.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;

use crate::cli::output::say;

/// Starts epmd and the node, each in a session of its own, and ends both when its standard input ends: the one that started
/// it has asked for that, or is gone, even by `kill -9`. Then it removes the directory. A node that ends by itself ends it
/// too, and leaves the log.
const GUARD: &str = r#"
exec 3<&0
cd "$1" || exit 1 # a crash dump of Erlang lands in the current directory
PATH=$PATH:/usr/lib/erlang/bin
setsid epmd -address 127.0.0.1 -port "$ERL_EPMD_PORT" </dev/null >>epmd.log 2>&1 3<&- &
epmd=$!
setsid "$2" </dev/null >>node.log 2>&1 3<&- &
node=$!
(
    read -r _ <&3
    : >ended
    kill -s KILL -- "-$node"
) &
reader=$!
wait "$node"
kill -s KILL -- "-$epmd"
kill "$reader" 2>/dev/null
[ ! -e ended ] || { cd / && rm -rf -- "$1"; }
"#;

/// How long its end may take.
const END: Duration = Duration::from_secs(10);

/// A node that runs until it is stopped or dropped.
pub(super) struct Node {
    guard: Child,
    directory: PathBuf,
    port: u16,
}

impl Node {
    /// The program that starts a node as we want it. Debian's /usr/sbin/rabbitmq-server is a wrapper that changes the user and
    /// fixes every path, so it cannot start a second node.
    pub(super) fn server() -> Option<PathBuf> {
        let debian = PathBuf::from("/usr/lib/rabbitmq/bin/rabbitmq-server");
        if debian.is_file() {
            return Some(debian);
        }
        let path = std::env::var_os("PATH")?;
        let found = std::env::split_paths(&path).map(|folder| folder.join("rabbitmq-server"));
        let is_wrapper =
            |file: &Path| fs::read_to_string(file).is_ok_and(|text| text.contains("su rabbitmq"));
        found.filter_map(|file| fs::canonicalize(file).ok()).find(|file| file.is_file() && !is_wrapper(file))
    }

    /// Starts one in a directory of its own below this one; it does not answer yet.
    pub(super) fn start(server: &Path, below: &Path) -> anyhow::Result<Self> {
        let directory = below.join("rabbitmq");
        fs::create_dir(&directory)
            .with_context(|| format!("cannot make the directory {}", directory.display()))?;
        let [port, distribution, epmd] = free_ports().context("cannot find free ports")?;
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        // The defaults would stop publishers on a small or full machine.
        write(
            "rabbitmq.conf",
            &format!("listeners.tcp.1 = 127.0.0.1:{port}\ndisk_free_limit.absolute = 50MB\n"),
        )?;
        write("enabled_plugins", "[].\n")?;
        let cookie: [u8; 20] = crate::cli::credentials::random();
        let cookie: String = cookie.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = directory.join(".erlang.cookie");
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(&path)
            .and_then(|mut file| file.write_all(cookie.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?;

        let mut command = Command::new("sh");
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("RABBITMQ_") || text.starts_with("COUNTERSIGN_") || text == "NOTIFY_SOCKET" {
                command.env_remove(&name);
            }
        }
        let guard = command
            .args(["-c", GUARD, "guard"])
            .args([&directory, server])
            // Its own process group, so that Ctrl-C on the terminal reaches it only as the end of the pipe.
            .process_group(0)
            .env("HOME", &directory)
            .env("ERL_EPMD_PORT", epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", format!("countersign-dev-{port}@localhost"))
            .env("RABBITMQ_DIST_PORT", distribution.to_string())
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_CONFIG_FILE", directory.join("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", directory.join("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", directory.join("data"))
            .env("RABBITMQ_LOG_BASE", directory.join("log"))
            .env("RABBITMQ_PID_FILE", directory.join("pid"))
            // Two schedulers that sleep instead of spinning: the node shares the machine with what it serves.
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -start_epmd false \
                 -kernel inet_dist_use_interface {127,0,0,1}",
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start sh")?;
        Ok(Self { guard, directory, port })
    }

    pub(super) fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// True once it has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        self.guard.try_wait().is_ok_and(|status| status.is_some())
    }

    /// The last words of the node.
    pub(super) fn log(&self) -> String {
        let text = fs::read_to_string(self.directory.join("node.log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Ends it, and returns when it is gone.
    pub(super) async fn stop(mut self) {
        drop(self.guard.stdin.take());
        let gone = tokio::time::timeout(END, async {
            while !self.has_ended() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        if gone.await.is_err() {
            say(format_args!("the RabbitMQ in {} has not ended yet", self.directory.display()));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The guard reads the end of the pipe. It is waited for, or the directory would be removed under its feet.
        drop(self.guard.stdin.take());
        self.guard.wait().ok();
    }
}

/// Ports that nobody has. Another process may take one before the node does; then the node ends, and says so.
fn free_ports<const N: usize>() -> std::io::Result<[u16; N]> {
    // All are held until the last is found: no two are the same.
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
