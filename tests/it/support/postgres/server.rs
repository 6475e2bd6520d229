//! One server: its files, its port, its processes.

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    super::ports,
    client,
    watchdog::{Watchdog, as_server_user},
};

/// For machines that are busy with other builds; an idle one needs two seconds.
const BOOT: Duration = Duration::from_secs(60);

/// A place for a server, which may be there and run, or not.
pub(super) struct Server {
    port: u16,
    watchdog: Watchdog,
}

impl Server {
    /// A directory and a port, and nothing in them.
    pub(super) fn vacant() -> Self {
        let watchdog = Watchdog::new("postgres", &bin("postgres"), &["-D", "{dir}/data"]);
        Self { port: ports::free(), watchdog }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    fn data(&self) -> PathBuf {
        self.watchdog.dir().join("data")
    }

    /// Makes the files of a new server.
    pub(super) fn initialize(&self) {
        let options =
            ["--auth=trust", "--username=countersign", "--no-sync", "--no-locale", "--encoding=UTF8"];
        run(as_server_user(&bin("initdb")).args(options).arg("-D").arg(self.data()));
        // Each server of a pair has the same file, and settings of its own beside it.
        let file = self.data().join("postgresql.conf");
        let text = std::fs::read_to_string(&file).expect("initdb writes it") + "include '../settings.conf'\n";
        std::fs::write(file, text).expect("it is ours");
    }

    /// Copies the files of the server at this port, so as to become its standby. What was here is gone.
    pub(super) fn copy(&self, port: u16) {
        if self.data().exists() {
            std::fs::remove_dir_all(self.data()).expect("nobody works there");
        }
        let options = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"];
        let primary = format!("host=127.0.0.1 port={port} user=countersign");
        let mut copy = as_server_user(&bin("pg_basebackup"));
        run(copy.args(options).args(["-d", &primary]).arg("-D").arg(self.data()));
    }

    /// Writes its settings: those of all servers, and `more`.
    pub(super) fn configure(&self, more: &str) {
        let (port, dir) = (self.port, self.watchdog.dir().display());
        let settings = format!(
            "listen_addresses = '127.0.0.1'\n\
             port = {port}\n\
             unix_socket_directories = '{dir}'\n\
             max_connections = 500\n\
             wal_keep_size = '256MB'\n\
             wal_retrieve_retry_interval = '100ms'\n\
             {more}\n"
        );
        self.watchdog.write("settings.conf", &settings);
    }

    /// Has the running server read its settings.
    pub(super) fn reload(&self) {
        kill_process(self.postmaster().expect("it runs"), Signal::HUP).expect("it is ours");
    }

    /// Starts it, and waits until it answers.
    pub(super) fn start(&self) {
        self.watchdog.start();
        let deadline = Instant::now() + BOOT;
        while !self.answers() {
            assert!(
                Instant::now() < deadline,
                "the private PostgreSQL does not answer: {}",
                self.watchdog.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn answers(&self) -> bool {
        let ready = Command::new(bin("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
            .status()
            .expect("pg_isready can be started");
        ready.success()
    }

    /// The process that starts all others.
    fn postmaster(&self) -> Option<Pid> {
        let file = std::fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        Pid::from_raw(file.lines().next()?.parse().ok()?).filter(|pid| state(*pid).is_some())
    }

    /// Stops all of its processes where they are, the first of them first: it starts no other then.
    pub(super) fn freeze(&self) {
        let Some(postmaster) = self.postmaster() else { return };
        signal(postmaster, Signal::STOP);
        until("it is stopped", || state(postmaster).is_none_or(|(state, _)| state == 'T'));
        for child in children(postmaster) {
            signal(child, Signal::STOP);
        }
    }

    /// Lets a frozen server go on.
    pub(super) fn thaw(&self) {
        let Some(postmaster) = self.postmaster() else { return };
        for child in children(postmaster) {
            signal(child, Signal::CONT);
        }
        signal(postmaster, Signal::CONT);
    }

    /// Ends all of its processes with SIGKILL, and waits until they are gone.
    pub(super) fn kill(&self) {
        let Some(postmaster) = self.postmaster() else { return };
        self.freeze();
        let all = [children(postmaster), vec![postmaster]].concat();
        for process in &all {
            signal(*process, Signal::KILL);
        }
        until("it is gone", || !all.iter().any(|process| state(*process).is_some()));
        // Its number may be given to another process.
        std::fs::remove_file(self.data().join("postmaster.pid")).expect("it was left behind");
    }

    /// A new, empty database; returns its name.
    pub(super) async fn database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed));
        client(&self.url("postgres"))
            .await
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .await
            .expect("an administrator may make databases");
        name
    }

    pub(super) fn url(&self, database: &str) -> String {
        format!("postgres://countersign@127.0.0.1:{}/{database}", self.port)
    }
}

fn run(command: &mut Command) {
    let ran = command.output().expect("the programs of PostgreSQL can be started");
    assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// It may have ended by itself.
fn signal(process: Pid, signal: Signal) {
    kill_process(process, signal).ok();
}

/// The state and the parent of a process, unless it has ended.
fn state(process: Pid) -> Option<(char, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).ok()?;
    // Behind the name, which may contain anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?)).filter(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// Each is the leader of a group of its own, so that no signal reaches all.
fn children(parent: Pid) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").expect("proc is mounted").flatten();
    let processes = entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    processes.filter(|process| state(*process).is_some_and(|(_, of)| of == parent.as_raw_pid())).collect()
}

fn until(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + BOOT;
    while !look() {
        assert!(Instant::now() < deadline, "{what}: not within {BOOT:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
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
