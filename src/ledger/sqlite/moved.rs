//! The note beside a ledger's file that says that the ledger is elsewhere now. A `serve` on the old file would take
//! decisions that nobody publishes, or publish what the new ledger publishes.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use super::schema::{OpenError, create, sync_directory};
use crate::time::Timestamp;

/// Where a ledger was moved to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ledger) struct Moved {
    /// The file of the note.
    pub(in crate::ledger) note: PathBuf,
    /// What it says first.
    pub(in crate::ledger) words: String,
}

fn note(path: &Path) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(".moved");
    name.into()
}

pub(super) fn read(path: &Path) -> Result<Option<Moved>, OpenError> {
    let note = note(path);
    match fs::read_to_string(&note) {
        Ok(text) => Ok(Some(Moved { words: text.lines().next().unwrap_or_default().to_owned(), note })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::File { path: note, source }),
    }
}

/// Refuses to serve from a ledger that was moved.
pub(super) fn check(path: &Path) -> Result<(), OpenError> {
    match read(path)? {
        None => Ok(()),
        Some(Moved { note, words }) => Err(OpenError::Moved { path: path.to_owned(), words, note }),
    }
}

pub(super) fn mark(path: &Path, to: &str, at: Timestamp) -> Result<(), OpenError> {
    let note = note(path);
    let words = format!(
        "copied to {to} at {at}\n\nNo `countersign serve` uses the ledger beside this note any more. Without the note one does, but it knows \
         nothing of what came after the copy.\n"
    );
    let failed = |source| OpenError::File { path: note.clone(), source };
    let mut file = create(&note)?;
    let written = file.set_len(0).and_then(|()| io::Write::write_all(&mut file, words.as_bytes()));
    written.and_then(|()| file.sync_all()).map_err(failed)?;
    sync_directory(path)
}
