//! The layout that `deploy/` ships: unit, configuration, user. Built below a directory in place of `/`, with the
//! files that systemd would create, and used by the real program.

use crate::support::{Config, NOWHERE, Program, free_port};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const UNIT: &str = include_str!("../../deploy/countersign.service");
const TOML: &str = include_str!("../../deploy/countersign.toml");
const USER: &str = include_str!("../../deploy/countersign.sysusers");
const DROP_IN: &str = include_str!("../../deploy/countersign-reload.conf");

/// The values of each key of `[Service]`, in order.
fn service(unit: &str) -> BTreeMap<String, Vec<String>> {
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let lines = unit
        .lines()
        .skip_while(|line| *line != "[Service]")
        .skip(1)
        .take_while(|line| !line.starts_with('['));
    for line in lines.filter(|line| !line.starts_with('#')) {
        if let Some((key, value)) = line.split_once('=') {
            keys.entry(key.to_owned()).or_default().push(value.to_owned());
        }
    }
    keys
}

fn one(keys: &BTreeMap<String, Vec<String>>, key: &str) -> String {
    let [value] = keys[key].as_slice() else { panic!("{key} is given {:?}", keys[key]) };
    value.clone()
}

/// A directory that root sees as `/` after the installation.
struct Layout {
    config: Config,
    admin: String,
}

impl Layout {
    fn new() -> Self {
        let layout = Self { config: Config::bare(NOWHERE), admin: format!("127.0.0.1:{}", free_port()) };
        let made = |path: &str, mode| {
            let path = layout.at(path);
            fs::create_dir_all(&path).expect("the directory is ours");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("the directory is ours");
        };
        made("/etc/countersign", 0o750);
        made("/etc/countersign/secrets", 0o700);
        made("/var/lib/countersign", 0o700);
        // The home of a root login.
        made("/root", 0o700);
        let text = ["/var/lib/", "/run/credentials/"]
            .iter()
            .fold(TOML.to_owned(), |text, path| text.replace(path, &layout.at(path).display().to_string()))
            .replace("0.0.0.0:8080", &format!("127.0.0.1:{}", free_port()))
            .replace("127.0.0.1:9090", &layout.admin);
        layout.write("/etc/countersign/countersign.toml", &text, 0o640);
        for (name, secret) in [
            ("admin-token", "fake-admin-token-of-so-many-bytes"),
            ("amqp-url", NOWHERE),
            ("purchase-token", "fake-token-of-so-many-bytes"),
            ("purchase-key", "fake-key-of-so-many-bytes"),
        ] {
            layout.write(&format!("/etc/countersign/secrets/{name}"), &format!("{secret}\n"), 0o600);
        }
        layout
    }

    fn at(&self, path: &str) -> PathBuf {
        self.config.dir().join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, text: &str, mode: u32) {
        fs::write(self.at(path), text).expect("the directory is ours");
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).expect("the directory is ours");
    }

    /// Emulates systemd at the start of the unit: `LoadCredential=secrets:DIRECTORY` copies each NAME in it to
    /// `secrets_NAME`.
    fn load_credentials(&self) {
        let unit = service(UNIT);
        let loaded = one(&unit, "LoadCredential");
        let (id, directory) = loaded.split_once(':').expect("ID:PATH");
        let copies = self.at("/run/credentials/countersign.service");
        fs::create_dir_all(&copies).expect("the directory is ours");
        for original in fs::read_dir(self.at(directory)).expect("the directory is ours") {
            let original = original.expect("a readable directory");
            let copy =
                copies.join(format!("{id}_{}", original.file_name().to_str().expect("a name of text")));
            fs::copy(original.path(), &copy).expect("the directory is ours");
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o400)).expect("the directory is ours");
        }
        fs::set_permissions(&copies, fs::Permissions::from_mode(0o500)).expect("the directory is ours");
    }

    /// Emulates systemd after the unit has stopped.
    fn drop_credentials(&self) {
        fs::remove_dir_all(self.at("/run/credentials")).expect("the directory is ours");
    }

    fn file(&self) -> PathBuf {
        self.at("/etc/countersign/countersign.toml")
    }

    /// A command that root runs in their own directory.
    fn by_root(&self, args: &[&str]) -> Program {
        Program::new(args).config(&self.file()).dir(&self.at("/root"))
    }
}

#[test]
fn the_parts_name_one_another_and_what_debian_12_knows() {
    let unit = service(UNIT);
    assert_eq!(
        one(&unit, "ExecStart"),
        "/usr/local/bin/countersign serve --config /etc/countersign/countersign.toml"
    );
    // notify-reload needs systemd 253, but Debian 12 has 252, where the drop-in is omitted.
    assert_eq!(
        (one(&unit, "Type"), one(&unit, "ExecReload")),
        ("notify".to_owned(), "/bin/kill -HUP $MAINPID".to_owned())
    );
    assert!(!unit.contains_key("RefreshOnReload"));
    let drop_in = service(DROP_IN);
    assert_eq!(
        (one(&drop_in, "Type"), one(&drop_in, "RefreshOnReload")),
        ("notify-reload".into(), "credentials".into())
    );
    assert_eq!(one(&drop_in, "ExecReload"), "", "the signal is sent once");
    let user = USER.lines().find(|line| !line.starts_with('#')).unwrap();
    let user: Vec<_> = user.split_whitespace().collect();
    assert_eq!((user[0], user[1]), ("u", one(&unit, "User").as_str()));
    assert_eq!(one(&unit, "User"), one(&unit, "Group"));
    let state = format!("/var/lib/{}", one(&unit, "StateDirectory"));
    assert_eq!(one(&unit, "WorkingDirectory"), state);
    assert_eq!(*user.last().unwrap(), state);
    assert!(TOML.contains(&format!("url = \"sqlite:{state}/countersign.db\"")));
    for path in TOML.split('"').filter(|text| text.starts_with("/run/")) {
        let name = path
            .strip_prefix("/run/credentials/countersign.service/secrets_")
            .unwrap_or_else(|| panic!("{path}"));
        assert!(UNIT.contains(name), "the unit says how to make the secret {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_layout_starts_reloads_and_is_looked_into_by_root() {
    let layout = Layout::new();
    layout.load_credentials();
    let check = layout.by_root(&["config", "check"]).run().await.ended_with(0);
    assert!(check.stdout.ends_with("\nok\n"), "{}{}", check.stdout, check.stderr);
    assert_eq!(check.stderr, "");

    // As in ExecStart and WorkingDirectory.
    let mut service =
        Program::new(["serve"]).config(&layout.file()).dir(&layout.at("/var/lib/countersign")).start();
    let client = crate::support::client();
    let ready = format!("http://{}/readyz", layout.admin);
    crate::support::eventually("the service to be ready", async || {
        assert_eq!(service.exit_code(), None, "{:?}", service.lines());
        match client.get(&ready).send().await {
            Ok(answer) if answer.status() == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let ledger = layout.at("/var/lib/countersign/countersign.db");
    assert_eq!(fs::metadata(&ledger).unwrap().permissions().mode() & 0o777, 0o600);
    let listed = layout.by_root(&["ledger", "list"]).run().await.ended_with(0);
    assert_eq!(listed.stderr, "");
    layout.by_root(&["healthcheck"]).run().await.ended_with(0);
    let doctor = layout.by_root(&["doctor"]).run().await;
    assert!(
        doctor.stdout.contains(&format!("ok     configuration: {}", layout.file().display())),
        "{}",
        doctor.stdout
    );
    assert!(doctor.stdout.contains("ok     service: ready at"), "{}", doctor.stdout);
    drop(service);

    // After the stop, the copies of the secrets are gone and their originals are not.
    layout.drop_credentials();
    layout.by_root(&["ledger", "list"]).run().await.ended_with(0);
    layout.by_root(&["ledger", "stats"]).run().await.ended_with(0);
    let doctor = layout.by_root(&["doctor"]).run().await;
    assert!(
        doctor.stdout.contains(&format!("ok     configuration: {}", layout.file().display())),
        "{}",
        doctor.stdout
    );
    let shown = layout.by_root(&["config", "show"]).run().await.ended_with(0);
    let original = layout.at("/etc/countersign/secrets/admin-token");
    assert!(shown.stdout.contains(&format!("token_file = \"{}\"", original.display())), "{}", shown.stdout);
    assert!(!shown.stdout.contains("so-many-bytes"), "{}", shown.stdout);

    // Even without them, commands that need no secret do not fail.
    fs::remove_dir_all(layout.at("/etc/countersign/secrets")).unwrap();
    layout.by_root(&["ledger", "list"]).run().await.ended_with(0);
    layout.by_root(&["healthcheck"]).run().await.ended_with(69);
    let check = layout.by_root(&["config", "check"]).run().await.ended_with(64);
    assert_eq!(check.stderr.matches("cannot be read: No such file").count(), 4, "{}", check.stderr);
}

#[test]
fn systemd_finds_nothing_to_say_about_the_unit() {
    let dir = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_countersign"));
    let unit = dir.path().join("countersign.service");
    fs::write(&unit, UNIT.replace("/usr/local/bin/countersign", &program.display().to_string())).unwrap();
    let ran = std::process::Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&unit).output();
    let Ok(ran) = ran else { return };
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    // Ignore other units of this machine.
    let ours: Vec<_> = told.lines().filter(|line| line.contains("countersign")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
}
