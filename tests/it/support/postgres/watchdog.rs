//! A program that ends with this process, and leaves no files.

use std::{
    fs::File,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, PoisonError},
};

/// PostgreSQL and PgBouncer refuse to run as root.
const USER: &str = "postgres";

/// Runs the program once for each line that it reads. However the process ends that holds the other end of the pipe, the pipe
/// closes; then the program is told to stop at once, which leaves nothing of it in memory. A shell lets its children ignore
/// QUIT; PostgreSQL takes it back, PgBouncer does not.
const SCRIPT: &str = r#"
dir=$1
shift
while read -r order; do
    wait
    setsid "$@" </dev/null >>"$dir/log" 2>&1 &
    program=$!
done
if [ "$program" ]; then
    kill -s QUIT "$program"
    kill -s TERM "$program"
    kill -s CONT "$program"
fi
wait
# Whoever still writes there has lost its server.
until rm -rf -- "$dir"; do sleep 1; done
"#;

/// A directory, and the program that works there.
pub(crate) struct Watchdog {
    dir: PathBuf,
    orders: Mutex<ChildStdin>,
    _shell: Child,
}

impl Watchdog {
    /// Makes a directory; the program is not started yet. In its arguments `{dir}` is the directory.
    pub(crate) fn new(name: &str, program: &Path, arguments: &[&str]) -> Self {
        let prefix = format!("countersign-{name}-");
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir().expect("a directory").keep();
        if is_root() {
            let owned = Command::new("chown").arg(USER).arg(&dir).status().expect("chown can be started");
            assert!(owned.success(), "the package of PostgreSQL makes the user {USER}");
        }
        let program = as_server_user(program);
        let inside = dir.display().to_string();
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "watchdog"])
            .arg(&dir)
            .arg(program.get_program())
            .args(program.get_args())
            .args(arguments.iter().map(|argument| argument.replace("{dir}", &inside)))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh can be started");
        let orders = Mutex::new(shell.stdin.take().expect("a pipe"));
        Self { dir, orders, _shell: shell }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts the program, as soon as the run before has ended.
    pub(crate) fn start(&self) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.write_all(b"start\n").expect("the shell reads");
    }

    /// Writes a file that the program can read.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let mut file = File::create(self.dir.join(name)).expect("the directory is ours");
        file.write_all(text.as_bytes()).expect("there is room");
    }

    /// What the program has said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").expect("proc is mounted").uid() == 0
}

/// A command that runs as a user who may run a server.
pub(super) fn as_server_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--init-groups"]).arg(program);
    command
}
