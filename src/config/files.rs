//! Files named by the configuration: who can read them, and where to find the original of a copy.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

const OTHERS_READ: u32 = 0o004;
const OTHERS_SEARCH: u32 = 0o001;

/// Makes a path absolute; unchanged if the working directory no longer exists.
pub(super) fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Warns if every user on this machine can read the file: its mode allows it, and so do all parent directories. Group
/// membership is the operator's choice.
pub(super) fn exposed(path: &Path) -> Option<String> {
    let path = fs::canonicalize(path).ok()?;
    let lets = |path: &Path, bit: u32| fs::metadata(path).is_ok_and(|found| found.mode() & bit != 0);
    let exposed =
        lets(&path, OTHERS_READ) && path.ancestors().skip(1).all(|above| lets(above, OTHERS_SEARCH));
    exposed.then(|| {
        let shown = path.display();
        format!("everybody on this machine can read {shown}; `chmod o-rwx {shown}` shuts them out")
    })
}

/// Where to read a secret if `path` names a systemd credential of a stopped unit. systemd copies `secrets/NAME`, next
/// to the configuration, to `secrets_NAME` (see `deploy/countersign.service`) and removes the copy when the unit
/// stops. With the original, root can run `doctor` and similar commands while the service is stopped.
pub(super) fn original_of(path: &Path, beside: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_prefix("secrets_")?;
    let unit = path.parent()?;
    let is_credential = unit.extension().is_some_and(|extension| extension == "service")
        && unit.parent().is_some_and(|parent| parent.ends_with("run/credentials"));
    let original = beside.join("secrets").join(name);
    (is_credential && !path.exists() && original.exists()).then_some(original)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_exposed_if_it_and_every_directory_above_it_let_others_in() {
        let dir = tempfile::tempdir().unwrap();
        let (inner, file) = (dir.path().join("inner"), dir.path().join("inner/token"));
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "fake").unwrap();
        for (outer, within, of_file, expected) in [
            (0o755, 0o755, 0o644, true),
            (0o711, 0o755, 0o604, true),
            (0o755, 0o755, 0o640, false),
            (0o755, 0o750, 0o644, false),
            (0o700, 0o755, 0o644, false),
        ] {
            mode(dir.path(), outer);
            mode(&inner, within);
            mode(&file, of_file);
            assert_eq!(exposed(&file).is_some(), expected, "{outer:o} {within:o} {of_file:o}");
        }
        assert_eq!(exposed(&dir.path().join("none")), None);
    }

    #[test]
    fn a_credential_of_a_stopped_service_is_read_where_it_was_copied_from() {
        let dir = tempfile::tempdir().unwrap();
        let beside = dir.path().join("etc");
        let original = beside.join("secrets/admin-token");
        fs::create_dir_all(beside.join("secrets")).unwrap();
        fs::write(&original, "fake").unwrap();
        let copies = dir.path().join("run/credentials/countersign.service");
        let copy = copies.join("secrets_admin-token");
        assert_eq!(original_of(&copy, &beside), Some(original));
        assert_eq!(original_of(&copies.join("secrets_none"), &beside), None);
        assert_eq!(original_of(&copies.join("admin-token"), &beside), None);
        assert_eq!(original_of(&dir.path().join("elsewhere/secrets_admin-token"), &beside), None);
        fs::create_dir_all(&copies).unwrap();
        fs::write(&copy, "fake").unwrap();
        assert_eq!(original_of(&copy, &beside), None, "it runs");
    }
}
