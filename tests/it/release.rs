//! `deploy/release --check`, in copies of the repository that lack something, and the files that the Debian package is made of.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Everything that the check looks at.
const FILES: [&str; 18] = [
    "Cargo.toml",
    "Cargo.lock",
    "fuzz/Cargo.lock",
    "CHANGELOG.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "README.md",
    "README.zh-CN.md",
    "SECURITY.md",
    "docs/install.md",
    "docs/zh-CN/install.md",
    "src/command/approval.command.1.json",
    "src/command/approval.outcome.1.json",
    "deploy/release",
    "deploy/lib.sh",
    "deploy/musl.sh",
    "deploy/oci.sh",
    ".gitignore",
];

/// A repository of one commit that is ready to be released as 0.2.0.
struct Repository(tempfile::TempDir);

impl Repository {
    fn ready() -> Self {
        let repository = Self(tempfile::tempdir().expect("a directory"));
        for name in FILES {
            repository.write(name, &fs::read(Path::new(ROOT).join(name)).expect(name));
        }
        for name in ["approval.command.1.json", "approval.outcome.1.json"] {
            let schema = repository.text(&format!("src/command/{name}"));
            repository.write(&format!("tests/fixtures/contract/{name}"), schema.as_bytes());
        }
        let current = format!("version = \"{}\"", env!("CARGO_PKG_VERSION"));
        for name in ["Cargo.toml", "Cargo.lock", "fuzz/Cargo.lock"] {
            let ours = format!("name = \"countersign\"\n{current}");
            repository.replace(name, &ours, "name = \"countersign\"\nversion = \"0.2.0\"");
        }
        let changelog =
            "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-12-01\n\n### Added\n\n- A release.\n";
        repository.write("CHANGELOG.md", changelog.as_bytes());
        repository.git(&["init", "--quiet"]);
        repository.commit();
        repository
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().expect("it is below the directory")).expect("the directory is ours");
        fs::write(path, bytes).expect("the directory is ours");
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join(name)).expect(name)
    }

    fn replace(&self, name: &str, from: &str, to: &str) {
        let text = self.text(name);
        assert!(text.contains(from), "{name} has no {from}");
        self.write(name, text.replacen(from, to, 1).as_bytes());
    }

    fn run(&self, program: &str, args: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.0.path()).env("GIT_CONFIG_GLOBAL", "/dev/null");
        // A hook of git that runs the tests names its own repository.
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            command.env_remove(name);
        }
        command.output().unwrap_or_else(|error| panic!("{program}: {error}"))
    }

    fn git(&self, args: &[&str]) {
        let identity = ["-c", "user.name=a test", "-c", "user.email=test@example.com"];
        let done = self.run("git", &[&identity[..], args].concat());
        assert!(done.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", "one"]);
    }

    /// What it lacks, a line each.
    fn lacks(&self) -> Vec<String> {
        let checked = self.run("bash", &["deploy/release", "--check"]);
        let words = String::from_utf8_lossy(&checked.stderr).into_owned();
        let lacking: Vec<_> =
            words.lines().filter_map(|line| line.strip_prefix("    ")).map(str::to_owned).collect();
        assert_eq!(checked.status.code(), Some(i32::from(!lacking.is_empty())), "{words}");
        let said = if lacking.is_empty() { "0.2.0 can be released" } else { "is not ready to be released" };
        assert!(words.contains(said), "{words}");
        lacking
    }
}

#[test]
fn a_commit_that_has_everything_can_be_released_and_so_can_its_tag() {
    let repository = Repository::ready();
    assert_eq!(repository.lacks(), [""; 0]);
    repository.git(&["tag", "v0.2.0"]);
    assert_eq!(repository.lacks(), [""; 0]);
}

/// A lock that was left behind by a new version.
fn older(repository: &Repository, lock: &str) {
    let ours = |version| format!("name = \"countersign\"\nversion = \"{version}\"");
    repository.replace(lock, &ours("0.2.0"), &ours("0.1.9"));
}

#[test]
fn each_thing_that_a_release_lacks_is_named() {
    type Harm = fn(&Repository);
    let cases: [(Harm, &str); 12] = [
        (|r| r.replace("Cargo.toml", "0.2.0", "two"), "version = \"two\" is no X.Y.Z"),
        (|r| older(r, "Cargo.lock"), "Cargo.lock has countersign 0.1.9, Cargo.toml 0.2.0"),
        (|r| older(r, "fuzz/Cargo.lock"), "fuzz/Cargo.lock has countersign 0.1.9, Cargo.toml 0.2.0"),
        (|r| r.replace("CHANGELOG.md", " - 2026-12-01", ""), "no section \"## [0.2.0] - YYYY-MM-DD\""),
        (|r| r.replace("CHANGELOG.md", "- A release.\n", ""), "nothing is said of 0.2.0"),
        (
            |r| r.replace("CHANGELOG.md", "## [0.2.0]", "## [0.3.0] - 2026-12-02\n\n- x\n\n## [0.2.0]"),
            "its first version is 0.3.0, not 0.2.0",
        ),
        (|r| r.replace("CHANGELOG.md", "## [Unreleased]\n", ""), "no \"## [Unreleased]\""),
        (
            |r| r.replace("CHANGELOG.md", "## [Unreleased]\n", "## [Unreleased]\n\n- More.\n"),
            "there are changes under Unreleased",
        ),
        (|r| r.write("LICENSE-MIT", b""), "LICENSE-MIT is not there"),
        (|r| r.write("docs/zh-CN/new.md", b"x"), "docs/new.md is not there, but docs/zh-CN/new.md"),
        (
            |r| r.replace("tests/fixtures/contract/approval.command.1.json", "{", "{ "),
            "tests/fixtures/contract/approval.command.1.json is not src/command/approval.command.1.json",
        ),
        (
            |r| {
                r.git(&["tag", "v0.2.0"]);
                r.write("README.md", b"something else");
            },
            "the tag v0.2.0 is another commit",
        ),
    ];
    for (harm, expected) in cases {
        let repository = Repository::ready();
        harm(&repository);
        repository.commit();
        let lacking = repository.lacks();
        assert!(lacking.iter().any(|line| line.contains(expected)), "{expected}: {lacking:#?}");
    }
}

#[test]
fn a_work_tree_that_is_not_clean_is_named_beside_all_else() {
    let repository = Repository::ready();
    repository.write("stray.txt", b"x");
    fs::remove_file(repository.0.path().join("LICENSE-APACHE")).expect("it is there");
    repository.replace("CHANGELOG.md", "- A release.\n", "");
    let lacking = repository.lacks();
    let expected = ["nothing is said of 0.2.0", "LICENSE-APACHE is not there", "the work tree is not clean"];
    assert_eq!(lacking.len(), expected.len(), "{lacking:#?}");
    for (line, part) in lacking.iter().zip(expected) {
        assert!(line.contains(part), "{part}: {lacking:#?}");
    }
    assert!(lacking[2].contains("stray.txt"), "{lacking:#?}");
}

#[test]
fn a_program_from_elsewhere_is_never_a_release() {
    let repository = Repository::ready();
    let refused = repository.run("bash", &["deploy/release", "--program", "/bin/true"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--program wants --draft"));
}

#[test]
fn what_the_debian_package_takes_from_the_repository_is_there() {
    let manifest: toml::Table = fs::read_to_string(format!("{ROOT}/Cargo.toml"))
        .expect("there is one")
        .parse()
        .expect("cargo can read it");
    let deb = &manifest["package"]["metadata"]["deb"];
    let assets = deb["assets"].as_array().expect("a list");
    assert!(assets.len() > 8, "{assets:?}");
    for asset in assets {
        let source = asset[0].as_str().expect("a path");
        let made = source.starts_with("target/dist/stage/");
        assert!(made || Path::new(ROOT).join(source).is_file(), "{source}");
    }
    for script in ["postinst", "postrm"] {
        let text = fs::read_to_string(format!("{ROOT}/deploy/debian/{script}")).expect(script);
        // Without the token cargo-deb leaves out what makes the user and restarts the unit.
        assert!(text.contains("\n#DEBHELPER#\n"), "{script}");
    }
}
