//! The fuzz targets still fit the crate, and their stored seeds pass.

#[path = "../../fuzz/targets/mod.rs"]
mod targets;

use std::{collections::BTreeSet, fs, path::Path};

use targets::TARGETS;

const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds");

#[test]
fn the_seeds_of_every_fuzz_target_pass() {
    let named: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let kept: BTreeSet<String> = fs::read_dir(SEEDS)
        .expect("the seeds are there")
        .map(|entry| entry.expect("it can be read").file_name().into_string().expect("ASCII"))
        .collect();
    assert_eq!(named, kept, "each target has seeds");
    for (name, run) in TARGETS {
        let mut seeds = 0;
        for entry in fs::read_dir(Path::new(SEEDS).join(name)).expect("a folder") {
            let path = entry.expect("it can be read").path();
            let seed = fs::read(&path).expect("a file");
            // Whole, and cut at each quarter: truncation is the most common damage.
            for quarters in 1..=4 {
                run(&seed[..seed.len() * quarters / 4]);
            }
            seeds += 1;
        }
        assert!(seeds > 0, "{name}");
    }
}

/// Names of the crates with their versions, and the dependencies of `countersign`.
fn locked(file: &str) -> (BTreeSet<(String, String)>, BTreeSet<String>) {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("a file");
    let lock: toml::Table = text.parse().expect("TOML");
    let packages = lock["package"].as_array().expect("a list");
    let said = |package: &toml::Value, key: &str| package[key].as_str().expect("a text").to_owned();
    let own = packages.iter().find(|package| said(package, "name") == "countersign").expect("it is there");
    let direct = own["dependencies"].as_array().expect("a list").iter();
    // If there are several versions, the entry of a dependency names its own.
    let direct = direct.filter_map(|name| name.as_str()?.split(' ').next().map(str::to_owned)).collect();
    (packages.iter().map(|package| (said(package, "name"), said(package, "version"))).collect(), direct)
}

/// The fuzzer has its own lock file, which only the fuzz run reads. Crates shared with the tests are compiled once.
#[test]
fn the_fuzzer_is_built_from_the_same_crates_as_the_program() {
    let manifest =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("a file");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let wanted: BTreeSet<String> = manifest["dependencies"]
        .as_table()
        .expect("a table")
        .iter()
        .map(|(name, how)| how.get("package").and_then(toml::Value::as_str).unwrap_or(name).to_owned())
        .collect();
    let (program, _) = locked("Cargo.lock");
    let (fuzzer, direct) = locked("fuzz/Cargo.lock");
    assert_eq!(
        direct, wanted,
        "`cargo metadata --manifest-path fuzz/Cargo.toml` brings fuzz/Cargo.lock up to date"
    );
    let names: BTreeSet<&String> = program.iter().map(|(name, _)| name).collect();
    let other_versions: Vec<_> =
        fuzzer.difference(&program).filter(|(name, _)| names.contains(name)).collect();
    assert!(other_versions.is_empty(), "`cp Cargo.lock fuzz/Cargo.lock`, then the same: {other_versions:?}");
}
