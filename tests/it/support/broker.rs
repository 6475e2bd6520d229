//! A real RabbitMQ: one private node per test process, a virtual host per test.
//!
//! The node is started with the installed server's own scripts, but with its own ports, node name, `epmd`, data and
//! cookie, so it meets neither another broker on this machine nor another test process. It is the child of a shell
//! that waits on a pipe held only by this process: however this process ends, the pipe closes and the shell kills the
//! node and removes its files.
//!
//! `AMQP_URL` names a broker to use instead. One test at a time then uses its virtual host, which is first emptied of
//! the product's exchanges and queues. Tests that stop a broker always have a private node. Without `AMQP_URL` and
//! without an installed RabbitMQ the tests fail: a skipped broker test proves nothing.

mod member;

use super::{Authority, PATIENCE, eventually, ports};
use lapin::options::{
    BasicGetOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::OwnedMutexGuard;

use super::Message;

/// A node needs about five seconds of one idle core; this allows for machines that are busy with other builds.
const BOOT: Duration = Duration::from_secs(180);

/// Waits on its standard input; `keep` or end of file makes it kill the node.
const WATCHDOG: &str = r#"
epmd=
if [ "$4" = own ]; then
    setsid epmd -address 127.0.0.1 -port "$2" </dev/null >>"$1/epmd.log" 2>&1 &
    epmd=$!
fi
setsid "$3" </dev/null >>"$1/node.log" 2>&1 &
node=$!
order=
read -r order
kill -s KILL -- "-$node"
[ -z "$epmd" ] || kill -s KILL -- "-$epmd"
wait
[ "$order" = keep ] || rm -rf -- "$1"
"#;

/// Evaluates Erlang expressions on a loopback port in milliseconds. `rabbitmqctl` needs about a second of CPU time
/// each, most of it to start.
const CONTROL: &str = r#"
spawn(fun() ->
  {ok, Listener} = gen_tcp:listen(@PORT@, [binary, {packet, 4}, {active, false}, {ip, {127,0,0,1}}, {reuseaddr, true}]),
  (fun Accept() ->
    {ok, Socket} = gen_tcp:accept(Listener),
    Server = spawn(fun() ->
      receive go -> ok end,
      (fun Serve() ->
        case gen_tcp:recv(Socket, 0) of
          {ok, Text} ->
            Reply = try
              {ok, Tokens, _} = erl_scan:string(unicode:characters_to_list(Text)),
              {ok, Expressions} = erl_parse:parse_exprs(Tokens),
              {value, Value, _} = erl_eval:exprs(Expressions, []),
              [$+ | io_lib:format("~0tp", [Value])]
            catch Class:Reason -> [$- | io_lib:format("~0tp", [{Class, Reason}])]
            end,
            ok = gen_tcp:send(Socket, unicode:characters_to_binary(Reply)),
            Serve();
          _ -> ok
        end
      end)()
    end),
    ok = gen_tcp:controlling_process(Socket, Server),
    Server ! go,
    Accept()
  end)()
end).
"#;

pub(crate) struct Broker {
    dir: PathBuf,
    amqp_port: u16,
    control_port: u16,
    epmd_port: u16,
    /// Whether `epmd` is started with the node, or somebody else serves names on its port.
    own_epmd: bool,
    node_name: String,
    dist_port: u16,
    /// The shell that ends the node when its standard input closes.
    watchdog: Mutex<Option<Child>>,
}

impl Broker {
    /// The node that all tests of this process share. The first caller waits for it to boot.
    fn shared() -> &'static Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(Self::boot)
    }

    /// A node for tests that stop it: one such test at a time.
    pub(crate) async fn stoppable() -> Stoppable {
        static TURN: OnceLock<Arc<tokio::sync::Mutex<()>>> = OnceLock::new();
        static NODE: OnceLock<Broker> = OnceLock::new();
        let turn = Arc::clone(TURN.get_or_init(Arc::default)).lock_owned().await;
        let broker = off_the_runtime(|| {
            let broker = NODE.get_or_init(Self::boot);
            // A failed test may have left it stopped.
            broker.start();
            broker
        })
        .await;
        Stoppable { broker, _turn: turn }
    }

    /// A separate node with a second port for TLS, which requires a client certificate.
    pub(crate) async fn encrypted(authority: Authority) -> Encrypted {
        off_the_runtime(move || {
            let tls_port = ports::free();
            let broker = Self::boot_with(|dir| {
                let server = authority.issue(&["localhost"]).write(dir, "server");
                std::fs::write(dir.join("ca.pem"), authority.pem()).expect("the node's directory is writable");
                format!(
                    "listeners.ssl.1 = 127.0.0.1:{tls_port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
                     ssl_options.keyfile = {}\nssl_options.verify = verify_peer\n\
                     ssl_options.fail_if_no_peer_cert = true\n",
                    dir.join("ca.pem").display(),
                    server.cert.display(),
                    server.key.display()
                )
            });
            Encrypted { broker, authority, tls_port }
        })
        .await
    }

    /// A separate node with the management API.
    pub(crate) async fn managed() -> Managed {
        off_the_runtime(|| {
            let port = ports::free();
            let broker = Self::boot_with(|dir| {
                std::fs::write(dir.join("enabled_plugins"), "[rabbitmq_management].\n")
                    .expect("the node's directory is writable");
                format!("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {port}\n")
            });
            Managed { broker, port }
        })
        .await
    }

    /// Starts a new node and waits until it answers.
    fn boot() -> Self {
        Self::boot_with(|_| String::new())
    }

    /// [`Broker::boot`] with more configuration, which may name files in the node's directory.
    fn boot_with(more: impl FnOnce(&Path) -> String) -> Self {
        let name = format!("countersign-{}-{}@localhost", std::process::id(), next());
        let broker = Self::prepare(name, None, more);
        broker.start();
        broker
    }

    fn prepare(node_name: String, epmd_port: Option<u16>, more: impl FnOnce(&Path) -> String) -> Self {
        let dir =
            tempfile::Builder::new().prefix("countersign-broker-").tempdir().expect("a directory").keep();
        let broker = Self {
            amqp_port: ports::free(),
            control_port: ports::free(),
            epmd_port: epmd_port.unwrap_or_else(ports::free),
            own_epmd: epmd_port.is_none(),
            dist_port: ports::free(),
            node_name,
            dir,
            watchdog: Mutex::new(None),
        };
        broker.write("control.erl", &CONTROL.replace("@PORT@", &broker.control_port.to_string()));
        broker.write("enabled_plugins", "[].\n");
        broker.write(
            "rabbitmq.conf",
            &format!(
                "listeners.tcp.1 = 127.0.0.1:{}\nloopback_users = none\nlog.console = true\nlog.console.level = warning\n\
                 log.file = false\ndisk_free_limit.absolute = 50MB\nraft.wal_max_size_bytes = 16777216\n{}",
                broker.amqp_port,
                more(&broker.dir)
            ),
        );
        broker
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.amqp_port))
    }

    /// Starts the node, on the same ports and data as before, and waits until it serves AMQP. Does nothing if it
    /// runs.
    ///
    /// # Panics
    /// If it does not start within [`BOOT`], with the last error and the end of its log.
    pub(crate) fn start(&self) {
        let mut watchdog = self.watchdog.lock().unwrap_or_else(PoisonError::into_inner);
        if watchdog.is_some() {
            return;
        }
        let path = |name: &str| self.dir.join(name);
        let erl_args = format!(
            "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -start_epmd false -eval file:eval(\"{}\")",
            path("control.erl").display()
        );
        let child = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&self.dir)
            .arg(self.epmd_port.to_string())
            .arg(server_script())
            .arg(if self.own_epmd { "own" } else { "" })
            // Its own process group, so that an interrupt on the terminal reaches it only as the end of the pipe.
            .process_group(0)
            .env("HOME", &self.dir)
            .env("RABBITMQ_NODENAME", &self.node_name)
            .env("RABBITMQ_DIST_PORT", self.dist_port.to_string())
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_MNESIA_BASE", path("data"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_PID_FILE", path("pid"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins"))
            .env("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", erl_args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh can be started");
        *watchdog = Some(child);
        let deadline = Instant::now() + BOOT;
        while let Err(last) = self.serves() {
            assert!(
                Instant::now() < deadline,
                "the private RabbitMQ does not serve after {BOOT:?}: {last}\n{}",
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops the node cleanly and returns when it is gone. Its data stay.
    pub(crate) fn stop(&self) {
        self.end(|| {
            self.eval("init:stop().");
            let deadline = Instant::now() + PATIENCE;
            // The node's own process serves the control port, which closes with it.
            while TcpStream::connect(("127.0.0.1", self.control_port)).is_ok() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
    }

    fn end(&self, farewell: impl FnOnce()) {
        let mut watchdog = self.watchdog.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut child) = watchdog.take() else { return };
        farewell();
        let mut orders = child.stdin.take().expect("started with a pipe");
        orders.write_all(b"keep\n").expect("the watchdog waits for its order");
        drop(orders);
        child.wait().expect("the watchdog ends after its order");
    }

    /// Evaluates Erlang expressions, ended by a full stop, on the node and returns the value as text.
    ///
    /// # Panics
    /// If the node does not answer, or the expressions fail.
    pub(crate) fn eval(&self, expressions: &str) -> String {
        let answer = self.try_eval(expressions).expect("the node answers on its control port");
        match answer.split_at(1) {
            ("+", value) => value.to_owned(),
            (_, reason) => panic!("{expressions}: {reason}"),
        }
    }

    fn shell(&self, line: &str) -> Result<(), String> {
        let scripts = server_script().parent().expect("a script in a directory").to_owned();
        let path = format!("{}:{}", scripts.display(), std::env::var("PATH").unwrap_or_default());
        let ran = Command::new("sh")
            .args(["-ec", line])
            .env("PATH", path)
            .env("HOME", &self.dir)
            .env("RABBITMQ_NODENAME", &self.node_name)
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .output()
            .expect("sh can be started");
        if ran.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ran.stderr).into_owned()) }
    }

    pub(crate) fn vhost(&self) -> Vhost {
        let name = format!("test-{}", next());
        // `deploy/suites/brokers` tries each.
        let default_type = match std::env::var("VHOST_QUEUE_TYPE") {
            Ok(kind) if !kind.is_empty() => format!(", default_queue_type => <<\"{kind}\">>"),
            _ => String::new(),
        };
        self.eval(&format!(
            "ok = rabbit_vhost:add(<<\"{name}\">>, #{{description => <<>>, tags => []{default_type}}}, <<\"tests\">>), \
             ok = rabbit_auth_backend_internal:set_permissions(\
             <<\"guest\">>, <<\"{name}\">>, <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"tests\">>)."
        ));
        Vhost {
            url: format!("amqp://guest:guest@{}/{name}", self.address()),
            address: self.address(),
            _alone: None,
        }
    }

    pub(crate) fn try_eval(&self, expressions: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.control_port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = u32::try_from(expressions.len()).expect("expressions are short");
        stream.write_all(&length.to_be_bytes())?;
        stream.write_all(expressions.as_bytes())?;
        let mut length = [0_u8; 4];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0_u8; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Whether the node has booted and greets an AMQP client.
    fn serves(&self) -> Result<(), String> {
        let booted =
            self.try_eval("rabbit:is_running().").map_err(|error| format!("control port: {error}"))?;
        if booted != "+true" {
            return Err(format!("control port: rabbit:is_running() is {booted}"));
        }
        let greeting = || -> std::io::Result<[u8; 1]> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.amqp_port))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"AMQP\x00\x00\x09\x01")?;
            let mut first = [0_u8; 1];
            stream.read_exact(&mut first)?;
            Ok(first)
        };
        match greeting().map_err(|error| format!("AMQP port: {error}"))? {
            // The type of a method frame: connection.start.
            [1] => Ok(()),
            other => Err(format!("AMQP port: unexpected first byte {other:?}")),
        }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.join(name), text).expect("the node's directory is writable");
    }

    fn log_tail(&self) -> String {
        let mut tail = String::new();
        for name in ["epmd.log", "node.log"] {
            let log = std::fs::read_to_string(self.dir.join(name)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            writeln!(tail, "--- {name}\n{last}").expect("a String takes all text");
        }
        tail
    }
}

/// A node that also speaks TLS, as `localhost`, to clients with a certificate of its authority.
pub(crate) struct Encrypted {
    broker: Broker,
    pub(crate) authority: Authority,
    tls_port: u16,
}

impl Encrypted {
    /// A new virtual host on it, for the test's own use without TLS.
    pub(crate) fn vhost(&self) -> Vhost {
        tokio::task::block_in_place(|| self.broker.vhost())
    }

    /// Its TLS URL, with this name for 127.0.0.1.
    pub(crate) fn tls_url(&self, vhost: &Vhost, host: &str) -> String {
        let name = vhost.url().rsplit_once('/').expect("a URL with a virtual host").1;
        format!("amqps://guest:guest@{host}:{}/{name}", self.tls_port)
    }
}

/// A node that this test may stop, until dropped.
pub(crate) struct Stoppable {
    broker: &'static Broker,
    _turn: OwnedMutexGuard<()>,
}

impl Stoppable {
    pub(crate) async fn vhost(&self) -> Vhost {
        let broker = self.broker;
        off_the_runtime(move || broker.vhost()).await
    }

    /// [`Broker::stop`] without blocking the test's tasks.
    pub(crate) async fn stop(&self) {
        let broker = self.broker;
        off_the_runtime(move || broker.stop()).await;
    }

    /// [`Broker::start`] without blocking the test's tasks.
    pub(crate) async fn start(&self) {
        let broker = self.broker;
        off_the_runtime(move || broker.start()).await;
    }

    /// [`Broker::eval`] without blocking the test's tasks.
    pub(crate) async fn eval(&self, expressions: String) -> String {
        let broker = self.broker;
        off_the_runtime(move || broker.eval(&expressions)).await
    }

    /// Runs a shell line in which `rabbitmqctl` refers to this node; returns its standard error if it fails.
    pub(crate) async fn shell(&self, line: &str) -> Result<(), String> {
        let (broker, line) = (self.broker, line.to_owned());
        off_the_runtime(move || broker.shell(&line)).await
    }

    /// Imports definitions, like an administrator.
    pub(crate) async fn import(&self, definitions: &Path) {
        let path = Value::from(definitions.display().to_string());
        let import = format!("{{ok, Body}} = file:read_file({path}), rabbit_definitions:import_raw(Body).");
        assert_eq!(self.eval(import).await, "ok", "the broker takes the definitions");
    }

    /// Restricts the user's writes to an exchange of this virtual host to matching routing keys.
    pub(crate) async fn writable_topics(&self, vhost: &Vhost, exchange: &'static str, pattern: &'static str) {
        let broker = self.broker;
        let name = vhost.url.rsplit('/').next().expect("an URL has slashes").to_owned();
        off_the_runtime(move || {
            broker.eval(&format!(
                "rabbit_auth_backend_internal:set_topic_permissions(<<\"guest\">>, <<\"{name}\">>, \
                 <<\"{exchange}\">>, <<\"{pattern}\">>, <<\".*\">>, <<\"tests\">>)."
            ))
        })
        .await;
    }

    /// Limits the message size for new channels; a larger message closes the channel.
    pub(crate) async fn max_message_size(&self, bytes: u32) {
        let broker = self.broker;
        off_the_runtime(move || {
            broker.eval(&format!("application:set_env(rabbit, max_message_size, {bytes})."))
        })
        .await;
    }

    /// Sets the memory alarm, which makes the node block every publishing connection, or clears it.
    pub(crate) async fn memory_alarm(&self, on: bool) {
        let share = if on { "0.000001" } else { "0.6" };
        self.eval(format!("vm_memory_monitor:set_vm_memory_high_watermark({share}).")).await;
    }
}

pub(crate) struct Managed {
    broker: Broker,
    port: u16,
}

impl Managed {
    pub(crate) fn vhost(&self) -> Vhost {
        self.broker.vhost()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The environment in which `rabbitmqctl` finds this node, including its path.
    pub(crate) fn control(&self) -> Vec<(&'static str, std::ffi::OsString)> {
        let scripts = server_script();
        let mut path = scripts.parent().expect("a directory").as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        vec![
            ("PATH", path),
            ("HOME", self.broker.dir.clone().into()),
            ("RABBITMQ_NODENAME", self.broker.node_name.clone().into()),
            ("ERL_EPMD_PORT", self.broker.epmd_port.to_string().into()),
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null".into()),
        ]
    }

    /// [`Broker::eval`] without blocking the test's tasks.
    pub(crate) async fn eval(&self, expressions: String) -> String {
        tokio::task::block_in_place(|| self.broker.eval(&expressions))
    }
}

/// An empty virtual host for one test.
pub(crate) struct Vhost {
    url: String,
    address: SocketAddr,
    /// Held if the virtual host is shared.
    _alone: Option<OwnedMutexGuard<()>>,
}

impl Vhost {
    /// Creates one on the broker of this test process.
    pub(crate) async fn new() -> Self {
        match std::env::var("AMQP_URL") {
            Ok(url) => Self::borrowed(url).await,
            Err(_) => off_the_runtime(|| Broker::shared().vhost()).await,
        }
    }

    /// Borrows the virtual host of an external broker.
    async fn borrowed(url: String) -> Self {
        static TURN: OnceLock<Arc<tokio::sync::Mutex<()>>> = OnceLock::new();
        let alone = Arc::clone(TURN.get_or_init(Arc::default)).lock_owned().await;
        let uri: AMQPUri = url.parse().expect("AMQP_URL is an AMQP URL");
        let address = (uri.authority.host.as_str(), uri.authority.port).to_socket_addrs();
        let address = address.expect("the host of AMQP_URL resolves").next().expect("to an address");
        let vhost = Self { url, address, _alone: Some(alone) };
        let (_connection, channel) = vhost.channel().await;
        for name in
            ["countersign.commands", "countersign.unrouted", "countersign.dead", "countersign.outcomes"]
        {
            // RabbitMQ allows deleting a missing object.
            channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.expect("queue.delete");
            channel
                .exchange_delete(name.into(), ExchangeDeleteOptions::default())
                .await
                .expect("exchange.delete");
        }
        vhost
    }

    /// Its URL for AMQP clients.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Its URL through another port of 127.0.0.1.
    pub(crate) fn url_through(&self, port: u16) -> String {
        let mut uri: AMQPUri = self.url.parse().expect("built or checked here");
        uri.authority.host = "127.0.0.1".to_owned();
        uri.authority.port = port;
        let user = &uri.authority.userinfo;
        format!(
            "amqp://{}:{}@127.0.0.1:{port}/{}",
            user.username,
            user.password,
            uri.vhost.replace('/', "%2f")
        )
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connects; keep the connection as long as the channel is used.
    pub(crate) async fn channel(&self) -> (Connection, Channel) {
        eventually("a connection to the broker", async || {
            let connection = Connection::connect(&self.url, ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            Ok::<_, lapin::Error>((connection, channel))
        })
        .await
    }

    /// The number of ready messages in a queue; `None` if the queue does not exist.
    pub(crate) async fn depth(&self, queue: &str) -> Option<u32> {
        let (_connection, channel) = self.channel().await;
        let look = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = channel.queue_declare(queue.into(), look, FieldTable::default()).await;
        found.ok().map(|queue| queue.message_count())
    }

    pub(crate) async fn has_exchange(&self, name: &str) -> bool {
        let (_connection, channel) = self.channel().await;
        let look = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        channel.exchange_declare(name.into(), ExchangeKind::Topic, look, FieldTable::default()).await.is_ok()
    }

    /// Takes the first message of a queue, waiting for both.
    pub(crate) async fn take(&self, queue: &str) -> Message {
        eventually(&format!("a message in {queue}"), async || {
            // Checking for a missing queue closes the channel, so each attempt uses a new one.
            let (_connection, channel) = self.channel().await;
            let got = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await;
            match got.map_err(|error| error.to_string())? {
                Some(message) => Ok(Message::from(message.delivery)),
                None => Err("an empty queue".to_owned()),
            }
        })
        .await
    }

    pub(crate) async fn until_declared(&self, queue: &str) {
        eventually(&format!("the queue {queue}"), async || {
            self.depth(queue).await.map(drop).ok_or("no such queue")
        })
        .await;
    }

    pub(crate) async fn delete_exchange(&self, name: &str) {
        let (_connection, channel) = self.channel().await;
        channel
            .exchange_delete(name.into(), ExchangeDeleteOptions::default())
            .await
            .expect("exchange.delete");
    }

    pub(crate) async fn delete_queue(&self, name: &str) {
        let (_connection, channel) = self.channel().await;
        channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.expect("queue.delete");
    }

    pub(crate) async fn unbind(&self, queue: &str, exchange: &str, routing_key: &str) {
        let (_connection, channel) = self.channel().await;
        let unbound = channel
            .queue_unbind(queue.into(), exchange.into(), routing_key.into(), FieldTable::default())
            .await;
        unbound.expect("queue.unbind");
    }
}

/// Runs blocking work without blocking the test's tasks.
async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(stopped) => std::panic::resume_unwind(stopped.into_panic()),
    }
}

/// A number that is unique in this process.
fn next() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The server's own start script. Packages put a wrapper on the PATH that requires their system user, so the script
/// behind it is tried first.
fn server_script() -> PathBuf {
    let mut candidates: Vec<PathBuf> = Vec::new();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/rabbitmq/lib") {
        candidates.extend(versions.flatten().map(|version| version.path().join("sbin")));
    }
    candidates
        .extend(["/opt/rabbitmq/sbin", "/usr/local/sbin", "/usr/local/opt/rabbitmq/sbin"].map(PathBuf::from));
    candidates.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    let found =
        candidates.iter().map(|folder| folder.join("rabbitmq-server")).find(|script| Path::is_file(script));
    found.expect(
        "these tests need a RabbitMQ: install the package rabbitmq-server, or set AMQP_URL to a broker they may use",
    )
}
