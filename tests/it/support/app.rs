//! The real program, started with its own configuration in its own directory.

use super::program;
use super::{Answer, Callback, Config, KEY, Vhost, eventually, ports, quoted};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread::JoinHandle;

/// A running program. Dropping it kills it; after a failed test it prints the end of its log.
pub(crate) struct App {
    config: Config,
    file: PathBuf,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    client: reqwest::Client,
    public: SocketAddr,
    admin: SocketAddr,
}

impl App {
    /// `countersign serve` with [`Config::new`], ready to accept.
    pub(crate) async fn start(vhost: &Vhost) -> Self {
        Self::with(Config::new(vhost)).await
    }

    /// `countersign serve` with this configuration, ready to accept.
    ///
    /// # Panics
    /// If it exits or does not become ready.
    pub(crate) async fn with(config: Config) -> Self {
        let mut last = String::new();
        // Another process may take a port before the program binds it; no other failure is retried.
        for _ in 0..5 {
            let mut app = Self::spawn(config.clone());
            match app.ready().await {
                Ok(()) => return app,
                Err(output) if output.to_lowercase().contains("address already in use") => last = output,
                Err(output) => panic!("serve ended instead of becoming ready:\n{output}"),
            }
        }
        panic!("serve found its ports taken five times:\n{last}");
    }

    fn spawn(config: Config) -> Self {
        let public = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let admin = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let config = config.set("http", "listen", &quoted(&public.to_string())).set(
            "admin",
            "listen",
            &quoted(&admin.to_string()),
        );
        let file = config.write();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (child, reader) = serve(&config, &file, &log);
        let client = match &config.authority {
            None => client(),
            Some(authority) => tls_client(authority).build().expect("a client"),
        };
        Self { config, file, child, log, reader: Some(reader), client, public, admin }
    }

    /// Waits for `/readyz`; returns the program's output if it exits instead.
    async fn ready(&mut self) -> Result<(), String> {
        eventually("/readyz to say 200", async || {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                self.read_to_the_end();
                return Ok(Err(format!("{status}\n{}", self.stderr())));
            }
            match self.try_admin("/readyz").await {
                Ok(answer) if answer.status == 200 => Ok(Ok(())),
                Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
                Err(error) => Err(format!("{error:?}\n{}", self.stderr())),
            }
        })
        .await
    }

    pub(crate) fn public(&self) -> SocketAddr {
        self.public
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The directory with the configuration and the ledger.
    pub(crate) fn dir(&self) -> &Path {
        self.config.dir()
    }

    pub(crate) fn callback_url(&self, endpoint: &str) -> String {
        let scheme = if self.config.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/callbacks/{endpoint}", self.public)
    }

    pub(crate) fn client(&self) -> reqwest::Client {
        self.client.clone()
    }

    pub(crate) async fn post(&self, endpoint: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.try_post(endpoint, body).await.expect("the public listener answers")
    }

    /// Sends a body to an endpoint of a program that may be stopping.
    pub(crate) async fn try_post(&self, endpoint: &str, body: impl Into<Vec<u8>>) -> reqwest::Result<Answer> {
        post(&self.client, &self.callback_url(endpoint), body.into()).await
    }

    /// Sends an encrypted callback to `purchase`, which must be kept, and returns the command id.
    pub(crate) async fn accept(&self, callback: &Callback) -> String {
        self.post("purchase", callback.encrypted(KEY)).await.command_id()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.try_admin(path).await.expect("the internal listener answers")
    }

    /// `GET` on the internal listener of a program that may be stopping.
    pub(crate) async fn try_admin(&self, path: &str) -> reqwest::Result<Answer> {
        answer(self.client.get(format!("http://{}{path}", self.admin)).send().await?).await
    }

    /// `GET` on the internal listener with a bearer token.
    pub(crate) async fn get_as(&self, token: &str, path: &str) -> Answer {
        let request = self.client.get(format!("http://{}{path}", self.admin)).bearer_auth(token);
        answer(request.send().await.expect("the internal listener answers")).await.expect("a whole answer")
    }

    /// The value of one line of `/metrics`, by its name and labels as printed.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.get("/metrics").await.text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.split(' ').next()?.parse().ok()
    }

    pub(crate) async fn until_metric(&self, name: &str, wanted: f64) {
        eventually(&format!("{name} = {wanted}"), async || match self.metric(name).await {
            Some(value) if (value - wanted).abs() < f64::EPSILON => Ok(()),
            other => Err(other),
        })
        .await;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it like a power failure.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
        self.read_to_the_end();
    }

    /// Asks it to stop, like a supervisor.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal, by its name without SIG.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.expect("kill can be started").success(), "SIG{name} to our own child");
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let status = eventually("the program to end", async || {
            self.child.try_wait().expect("our own child").ok_or_else(|| self.stderr())
        })
        .await;
        self.read_to_the_end();
        status
    }

    /// Restarts it with the same ports, configuration and ledger, and waits until it is ready.
    pub(crate) async fn restart(&mut self) {
        if let Err(output) = self.try_restart().await {
            panic!("serve did not start again:\n{output}");
        }
    }

    /// Like [`App::restart`], but returns the program's output if it exits before it is ready.
    pub(crate) async fn try_restart(&mut self) -> Result<(), String> {
        assert!(!self.runs(), "restart is for a program that has ended");
        let (child, reader) = serve(&self.config, &self.file, &self.log);
        self.child = child;
        self.reader = Some(reader);
        self.ready().await
    }

    /// Restarts it and waits until it has exited, whether or not it became ready.
    pub(crate) async fn restart_to_its_end(&mut self) -> ExitStatus {
        assert!(!self.runs(), "restart is for a program that has ended");
        let (child, reader) = serve(&self.config, &self.file, &self.log);
        self.child = child;
        self.reader = Some(reader);
        self.ended().await
    }

    /// Changes the configuration for the next [`App::restart`].
    pub(crate) fn reconfigure(&mut self, change: impl FnOnce(Config) -> Config) {
        self.config = change(self.config.clone());
        self.config.write();
    }

    /// Its standard error, over all its starts.
    pub(crate) fn stderr(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// The lines of the log that are JSON objects.
    pub(crate) fn log_lines(&self) -> Vec<Value> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect()
    }

    fn read_to_the_end(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading lines does not panic");
        }
    }
}

impl Drop for App {
    #[expect(clippy::print_stderr, reason = "the test harness shows it with the failure it belongs to")]
    fn drop(&mut self) {
        // It may have exited already; then both calls fail.
        drop(self.child.kill());
        drop(self.child.wait());
        self.read_to_the_end();
        if std::thread::panicking() {
            let log = self.stderr();
            let whole = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.log", self.public.port()));
            let kept = std::fs::write(&whole, &log);
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(60)..].join("\n");
            eprintln!("--- the end of the program's log; the whole: {} ({kept:?})\n{last}", whole.display());
        }
    }
}

/// Sends a callback body with the given client, for concurrent senders.
pub(crate) async fn post(client: &reqwest::Client, url: &str, body: Vec<u8>) -> reqwest::Result<Answer> {
    answer(client.post(url).header("content-type", "application/json").body(body).send().await?).await
}

async fn answer(response: reqwest::Response) -> reqwest::Result<Answer> {
    let status = response.status().as_u16();
    let text = |value: &reqwest::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers =
        response.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    Ok(Answer { status, headers, body: response.bytes().await?.to_vec() })
}

/// A client for 127.0.0.1 only: it needs no certificates and must not use a proxy.
pub(crate) fn client() -> reqwest::Client {
    install_provider();
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client without certificates")
}

/// A client that trusts one authority. Each request uses a new connection, and so a new handshake.
fn tls_client(authority_pem: &str) -> reqwest::ClientBuilder {
    install_provider();
    let authority = reqwest::Certificate::from_pem(authority_pem.as_bytes()).expect("PEM");
    let builder = reqwest::Client::builder().no_proxy().tls_certs_only([authority]).tls_info(true);
    builder.pool_max_idle_per_host(0)
}

fn install_provider() {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        let installed = rustls::crypto::ring::default_provider().install_default();
        installed.expect("nobody else in this process installs a provider");
    });
}

fn serve(config: &Config, file: &Path, log: &Arc<Mutex<Vec<String>>>) -> (Child, JoinHandle<()>) {
    let program = program::command();
    // Ignored signals stay ignored over exec, so a write beyond the limit fails with an error and not a signal. POSIX
    // counts the limit in blocks of 512 bytes.
    let size = config.file_size_limit_kib.map(|kib| format!("trap '' XFSZ; ulimit -f {}; ", kib * 2));
    let files = config.descriptors.map(|(soft, hard)| format!("ulimit -Sn {soft}; ulimit -Hn {hard}; "));
    let limits: String = [size, files].into_iter().flatten().collect();
    let mut command = if limits.is_empty() {
        program
    } else {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{limits}exec \"$0\" \"$@\"")]).arg(program.get_program());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell
    };
    let mut child = command
        .arg("serve")
        .env("COUNTERSIGN_CONFIG", file)
        .envs(config.env.iter().map(|(name, value)| (name, value)))
        .current_dir(config.dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program was built with these tests");
    let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let log = Arc::clone(log);
    let reader = std::thread::spawn(move || {
        for line in stderr.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
    (child, reader)
}
