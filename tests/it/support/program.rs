//! The program on the command line: one run, its two streams, its exit code.

use super::PATIENCE;
use serde_json::Value;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) struct Program {
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    dir: Option<PathBuf>,
    stdin: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Program {
    /// `countersign` with these arguments, an environment without the program's variables, and empty standard input.
    pub(crate) fn new<A: Into<OsString>>(args: impl IntoIterator<Item = A>) -> Self {
        Self {
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            dir: None,
            stdin: Vec::new(),
        }
    }

    /// Sets the configuration file, with the variable that is part of the contract.
    pub(crate) fn config(self, file: &Path) -> Self {
        self.env("COUNTERSIGN_CONFIG", file)
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Starts it and lets it run until the value is dropped.
    pub(crate) fn start(&self) -> Running {
        let mut child = self.spawn();
        let lines = Arc::new(Mutex::new(Vec::new()));
        for stream in [
            Box::new(child.stdout.take().expect("a pipe")) as Box<dyn Read + Send>,
            Box::new(child.stderr.take().expect("a pipe")),
        ] {
            let lines = Arc::clone(&lines);
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            });
        }
        Running { child, lines }
    }

    fn spawn(&self) -> Child {
        let mut command = command();
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the program was built with these tests")
    }

    /// Runs it to its end, for at most [`PATIENCE`], without blocking the test's tasks.
    pub(crate) async fn run(self) -> Ran {
        tokio::task::spawn_blocking(move || self.run_to_its_end()).await.expect("the run does not panic")
    }

    fn run_to_its_end(self) -> Ran {
        let mut child = self.spawn();
        let mut stdin = child.stdin.take().expect("a pipe");
        // A program that fails before it reads closes the pipe; its exit code is more informative than this error.
        drop(stdin.write_all(&self.stdin));
        drop(stdin);
        let stdout = drain(child.stdout.take().expect("a pipe"));
        let stderr = drain(child.stderr.take().expect("a pipe"));
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().expect("our own child") {
                break Some(status);
            }
            if Instant::now() >= deadline {
                child.kill().expect("our own child");
                child.wait().expect("our own child");
                break None;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let text = |reader: JoinHandle<Vec<u8>>| {
            String::from_utf8_lossy(&reader.join().expect("reading does not panic")).into_owned()
        };
        let ran =
            Ran { code: status.and_then(|status| status.code()), stdout: text(stdout), stderr: text(stderr) };
        assert!(status.is_some(), "{:?} did not end within {PATIENCE:?}: {ran:?}", self.args);
        ran
    }
}

/// A running program; dropping it kills it.
pub(crate) struct Running {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Running {
    /// The lines it has written so far, on both streams.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The names of its threads.
    pub(crate) fn threads(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.map(|name| name.trim_end().to_owned()).collect()
    }

    /// Sends what Ctrl-C sends.
    pub(crate) fn interrupt(&self) {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        assert!(sent.expect("kill can be started").success(), "SIGINT to our own child");
    }

    /// Ends it as a machine does that runs out of memory: nothing of it gets a word in.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    /// Its exit code, once it has exited.
    pub(crate) fn exit_code(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().expect("our own child").map(|status| status.code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have exited already; then both calls fail.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Ran {
    /// Returns this run if it ended with the code.
    ///
    /// # Panics
    /// Otherwise, with both streams.
    pub(crate) fn ended_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// The single JSON value on standard output.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|fault| panic!("not one JSON value ({fault}): {}\n{}", self.stdout, self.stderr))
    }
}

/// The program with an environment that does not configure it.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("COUNTERSIGN_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG");
    command
}

fn drain(mut stream: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // The stream ends with the program; keep what was read until then.
        drop(stream.read_to_end(&mut bytes));
        bytes
    })
}
