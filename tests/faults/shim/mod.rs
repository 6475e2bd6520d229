//! A layer between the program and the ledger's files: see `shim.c`.

use crate::support::Config;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What the layer does to calls on the ledger's files from now on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    None = 0,
    /// EIO for every write.
    FailWrite = 1,
    /// EIO for the next sync, and for that one only: the kernel tells of an error once.
    FailSyncOnce = 2,
    /// ENOSPC for every write.
    NoSpace = 3,
    /// Half of what was to be written is written, and the call says so.
    ShortWrite = 4,
    /// EROFS for every write, and for opening in order to write.
    ReadOnly = 5,
    /// ENOSPC for every write to the database, but not to its log: only checkpoints meet it.
    NoSpaceBehind = 6,
    /// EIO for the next sync of the database, and for that one only.
    FailSyncBehindOnce = 7,
    /// SIGKILL at the next sync of the log: what was written to it is there, as far as anybody can see, and not on the disk.
    KillAtSync = 8,
}

/// A program behind the layer.
pub(crate) struct Shim {
    journal: PathBuf,
    control: File,
    environment: [(&'static str, String); 4],
}

impl Shim {
    /// Puts the layer between a program with this configuration and its ledger.
    pub(crate) fn between(config: Config) -> (Self, Config) {
        let (journal, control) = (config.dir().join("journal"), config.dir().join("control"));
        fs::write(&control, [0; 16]).expect("the directory is ours");
        let environment = [
            ("LD_PRELOAD", text(library())),
            ("SHIM_WATCH", text(&config.dir().join("ledger.db"))),
            ("SHIM_JOURNAL", text(&journal)),
            ("SHIM_CONTROL", text(&control)),
        ];
        let control = OpenOptions::new().write(true).open(control).expect("written a moment ago");
        let config = environment.iter().fold(config, |config, (name, value)| config.env(name, value));
        (Self { journal, control, environment }, config)
    }

    /// For another program that is to run behind the same layer.
    pub(crate) fn environment(&self) -> &[(&'static str, String)] {
        &self.environment
    }

    /// Makes calls fail from now on, or work again.
    pub(crate) fn set(&self, fault: Fault) {
        self.control.write_all_at(&(fault as i64).to_ne_bytes(), 0).expect("our own file");
    }

    /// Sets the clock of the day forward by so many seconds, or back.
    pub(crate) fn set_clock(&self, seconds: i64) {
        self.control.write_all_at(&seconds.to_ne_bytes(), 8).expect("our own file");
    }

    /// How long the journal is by now.
    pub(crate) fn written(&self) -> u64 {
        fs::metadata(&self.journal).map_or(0, |journal| journal.len())
    }

    /// Begins the journal anew, while no program runs.
    pub(crate) fn forget(&self) {
        fs::write(&self.journal, []).expect("our own file");
    }

    /// The journal.
    pub(crate) fn journal(&self) -> Vec<u8> {
        fs::read(&self.journal).expect("a program ran")
    }
}

/// Compiled once per process, by the compiler that the bundled SQLite needs as well.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/shim/shim.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("shim-{}.so", std::process::id()));
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
            .args([&library, &source])
            .args(["-ldl", "-lpthread"])
            .status();
        assert!(compiled.expect("a C compiler").success(), "{} does not compile", source.display());
        library
    })
}

fn text(path: &Path) -> String {
    path.to_str().expect("temporary directories have names of text").to_owned()
}
