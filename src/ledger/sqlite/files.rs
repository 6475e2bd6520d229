//! The files of an open ledger: whether they are still where the next start will look for them.
//!
//! A file that was removed or moved away goes on as long as it is open, and so do writes and syncs of it; only nobody finds
//! it again. Three look-ups of a name cost a few microseconds beside a sync.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// What each file is known by, whatever its name is by now.
pub(super) struct Files(Vec<Known>);

struct Known {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Files {
    /// The database, its log, and the index that all processes share; to be called when all of them are open.
    ///
    /// # Errors
    /// When one cannot be looked at.
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

    /// The first that is not in its place any more, or of which that cannot be found out.
    pub(super) fn missing(&self) -> Option<&Path> {
        let in_place = |known: &Known| {
            fs::metadata(&known.path)
                .is_ok_and(|found| (found.dev(), found.ino()) == (known.device, known.inode))
        };
        self.0.iter().find(|known| !in_place(known)).map(|known| &*known.path)
    }
}
