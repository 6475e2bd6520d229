//! A real PostgreSQL: one private server per test process, a database per test.
//!
//! The server is the child of a shell that waits on a pipe which only this process holds: however this process ends, the
//! pipe closes, and the shell ends the server and removes its files. Without an installed PostgreSQL the tests fail: a
//! skipped test proves nothing.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// For machines that are busy with other builds; an idle one needs two seconds.
const BOOT: Duration = Duration::from_secs(60);

/// PostgreSQL refuses to run as root.
const USER: &str = "postgres";

/// Runs the server, until its standard input ends. It is told to stop at once, which leaves nothing of it in memory.
const WATCHDOG: &str = r#"
dir=$1
shift
setsid "$@" </dev/null >>"$dir/server.log" 2>&1 &
server=$!
read -r order
kill -s QUIT "$server"
wait
rm -rf -- "$dir"
"#;

/// A private server.
pub(crate) struct Postgres {
    dir: PathBuf,
    port: u16,
    _watchdog: Child,
}

impl Postgres {
    /// The server that all tests of this process share.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::boot)
    }

    fn boot() -> Self {
        let dir =
            tempfile::Builder::new().prefix("countersign-postgres-").tempdir().expect("a directory").keep();
        if is_root() {
            let owned = Command::new("chown").arg(USER).arg(&dir).status().expect("chown can be started");
            assert!(owned.success(), "the package of PostgreSQL makes the user {USER}");
        }
        let made = server_user(&bin("initdb"))
            .args([
                "--auth=trust",
                "--username=countersign",
                "--no-sync",
                "--no-locale",
                "--encoding=UTF8",
                "-D",
            ])
            .arg(dir.join("data"))
            .output()
            .expect("initdb can be started");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let server = server_user(&bin("postgres"));
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&dir)
            .arg(server.get_program())
            .args(server.get_args())
            .arg("-D")
            .arg(dir.join("data"))
            .args([
                "-p",
                &port.to_string(),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "max_connections=500",
                "-k",
            ])
            .arg(&dir)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh can be started");
        let postgres = Self { dir, port, _watchdog: watchdog };
        let deadline = Instant::now() + BOOT;
        while !postgres.answers() {
            let log = std::fs::read_to_string(postgres.dir.join("server.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "the private PostgreSQL does not answer: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        postgres
    }

    fn answers(&self) -> bool {
        let ready = Command::new(bin("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
            .status()
            .expect("pg_isready can be started");
        ready.success()
    }

    /// A new, empty database.
    pub(crate) async fn database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed));
        client(&self.url("postgres"))
            .await
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .await
            .expect("an administrator may make databases");
        self.url(&name)
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://countersign@127.0.0.1:{}/{database}", self.port)
    }
}

/// A connection of the test's own.
pub(crate) async fn client(url: &str) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("the server takes connections");
    tokio::spawn(connection);
    client
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    listener.local_addr().expect("it is bound").port()
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").expect("proc is mounted").uid() == 0
}

/// A command that runs as a user who may run a server.
fn server_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--init-groups"]).arg(program);
    command
}

/// A program of the newest PostgreSQL that is installed. Debian keeps them out of the path.
fn bin(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let number = |path: &PathBuf| -> u32 {
        path.file_name().and_then(|name| name.to_str()?.parse().ok()).unwrap_or(0)
    };
    let newest = versions.map(|entry| entry.path()).max_by_key(number);
    newest.map_or_else(|| name.into(), |version| version.join("bin").join(name))
}
