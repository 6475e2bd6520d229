//! Configuration text: faults or settings, never a panic, and what is shown of it holds no secret.

use std::{fs, path::PathBuf, sync::LazyLock};

use countersign::config::{Sources, load};

static DIRECTORY: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a directory"));

const SECRET: &str = "fake-secret-in-the-environment";

pub(super) fn run(data: &[u8]) {
    let Some((text, name, value)) = super::read::<(&str, &str, &str)>(data) else { return };
    // Secrets from files may be devices, which never end. What is read from files is not what is tried here.
    if text.contains("_file") || name.to_ascii_lowercase().contains("_file") || value.contains("_file") {
        return;
    }
    let path: PathBuf = DIRECTORY.path().join("countersign.toml");
    fs::write(&path, text).expect("room");
    let loaded = load(&Sources {
        file: Some(path),
        directory: DIRECTORY.path().to_owned(),
        installed: None,
        of_process: false,
        environment: vec![
            (format!("COUNTERSIGN__{name}").into(), value.into()),
            ("COUNTERSIGN__ADMIN__TOKEN".into(), SECRET.into()),
        ],
        set: vec![format!("{name}={value}")],
    });
    let shown = format!(
        "{:?} {} {}",
        loaded.config().map(|config| format!("{config:?}")),
        loaded.effective.to_toml(true),
        loaded.effective.to_json(),
    );
    assert!(!shown.contains(SECRET));
    assert_eq!(loaded.config().is_ok(), loaded.faults().is_empty());
}
