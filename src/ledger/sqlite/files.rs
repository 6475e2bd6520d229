//! Checks that the files of an open ledger are where the next start will look for them.
//!
//! Reads, writes and syncs of a removed or moved file still succeed while it is open, but nobody finds it again.
//! Looking up three names costs a few microseconds, little compared to a sync.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The identity of each file, whatever its current name.
pub(super) struct Files(Vec<Known>);

struct Known {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Files {
    /// The database, its log, and the shared-memory index. Call it when all of them are open.
    ///
    /// # Errors
    /// When the metadata of one cannot be read.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let known = ["", "-wal", "-shm"].into_iter().map(|suffix| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            let path = PathBuf::from(name);
            let found = fs::metadata(&path)?;
            Ok(Known { path, device: found.dev(), inode: found.ino() })
        });
        known.collect::<io::Result<_>>().map(Self)
    }

    /// The first file that is no longer in place, or cannot be checked.
    pub(super) fn missing(&self) -> Option<&Path> {
        let in_place = |known: &Known| {
            fs::metadata(&known.path)
                .is_ok_and(|found| (found.dev(), found.ino()) == (known.device, known.inode))
        };
        self.0.iter().find(|known| !in_place(known)).map(|known| &*known.path)
    }
}
