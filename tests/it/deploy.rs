//! The scripts in `deploy/`, as far as they can be tested without installing anything.

use crate::support::{PATIENCE, eventually};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Bash with the functions of the scripts, running as if it were root; everything is written to a directory of the
/// test.
fn bash(dir: &Path, script: &str) -> Command {
    let mut command = Command::new("bash");
    let prelude = format!(
        "set -euo pipefail; source {ROOT}/deploy/lib.sh; source {ROOT}/deploy/broker.sh\n\
         as_root() {{ \"$@\"; }}\nservice_policy={}/policy-rc.d\n",
        dir.display()
    );
    command.arg("-c").arg(prelude + script).env_remove("AMQP_URL").env_remove("BROKER").stdin(Stdio::null());
    command
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn program(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("the directory is ours");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    path
}

#[test]
fn a_rust_that_is_too_old_is_named_with_the_one_that_is_needed() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let manifest = std::fs::read_to_string(format!("{ROOT}/Cargo.toml")).expect("there is one");
    let needed = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")?.strip_suffix('"'));
    let needed = needed.expect("Cargo.toml says which");
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default());
    program(dir, "cargo", "exit 0");
    let with = |version: &str| {
        program(dir, "rustc", &format!("echo 'rustc {version} (29483883e 2025-08-04)'"));
        bash(dir, "need_rust").env("PATH", &path).output().expect("there is bash")
    };
    for version in ["1.9.0", "1.85.1", "1.88.0-nightly"] {
        let refused = with(version);
        let number = version.trim_end_matches("-nightly");
        assert!(!refused.status.success(), "{version}");
        for part in [
            &format!("Rust {number} is installed"),
            &format!("Rust {needed} or newer is needed"),
            "rustup update",
        ] {
            assert!(words(&refused).contains(part), "{version} without {part:?}: {}", words(&refused));
        }
    }
    for version in [&format!("{needed}.0"), "1.100.0", "2.0.0"] {
        let taken = with(version);
        assert!(taken.status.success(), "{version}: {}", words(&taken));
    }
    let nothing = bash(dir, "need_rust")
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", dir)
        .arg("bash")
        .output()
        .expect("there is bash");
    if !Path::new("/usr/bin/cargo").exists() {
        assert!(
            words(&nothing).contains(&format!("Rust {needed} or newer is needed")),
            "{}",
            words(&nothing)
        );
    }
}

#[tokio::test]
async fn an_installation_that_is_killed_leaves_no_service_policy_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let policy = dir.join("policy-rc.d");

    let ended = bash(dir, "forbid_service_start; test -x \"$service_policy\"; \"$service_policy\" x start || echo \"start: $?\"
        \"$service_policy\" x restart && echo 'restart: 0'; allow_service_start; test ! -e \"$service_policy\"");
    let ended = {
        let mut ended = ended;
        ended.output().expect("there is bash")
    };
    assert!(ended.status.success(), "{}", words(&ended));
    assert!(
        words(&ended).contains("start: 101") && words(&ended).contains("restart: 0"),
        "{}",
        words(&ended)
    );

    let mut killed = bash(dir, "forbid_service_start; exec sleep 600").spawn().expect("there is bash");
    eventually("the policy to be there", async || if policy.exists() { Ok(()) } else { Err(()) }).await;
    let foreign = std::fs::read_to_string(&policy).expect("it is there");
    assert!(foreign.contains("by countersign"), "{foreign}");
    killed.kill().expect("it is ours");
    killed.wait().expect("it is ours");
    eventually("the guard to remove the policy", async || if policy.exists() { Err(()) } else { Ok(()) })
        .await;
}

#[test]
fn a_service_policy_that_was_left_behind_is_recognised_and_another_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let policy = dir.join("policy-rc.d");
    let run = || bash(dir, "remove_stale_service_policy").output().expect("there is bash");
    // No process has this number: it is above Linux's maximum.
    for left in
        ["# by countersign, for one installation: process 4194999", "# by countersign, for one installation"]
    {
        program(dir, "policy-rc.d", &format!("{left}\nexit 101"));
        let told = run();
        assert!(told.status.success() && !policy.exists(), "{left}: {}", words(&told));
        assert!(words(&told).contains("was cut short has left behind"), "{}", words(&told));
    }
    let alive = format!("# by countersign, for one installation: process {}", std::process::id());
    for kept in ["# of the machine", &alive] {
        program(dir, "policy-rc.d", &format!("{kept}\nexit 101"));
        assert!(run().status.success() && policy.exists(), "{kept}");
        let whole = bash(dir, "forbid_service_start; allow_service_start").output().expect("there is bash");
        assert!(whole.status.success() && policy.exists(), "{kept}: {}", words(&whole));
    }
    // A leftover policy has no effect.
    program(dir, "policy-rc.d", "true");
    let written = bash(dir, "service_policy_mark='# by countersign, for one installation'; rm -f \"$service_policy\"
        forbid_service_start; sed \"s/$$/4194999/g\" \"$service_policy\" >\"$service_policy.stale\"; chmod 755 \"$service_policy.stale\"
        \"$service_policy.stale\" x start && echo 'start: 0'")
        .output()
        .expect("there is bash");
    assert!(words(&written).contains("start: 0"), "{}", words(&written));
}

/// A broker whose owner is not RabbitMQ, root or the current user is reported and not used; a used broker is reported
/// too.
#[test]
fn quickstart_says_whose_broker_it_found_before_it_trusts_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let find = |owner: &str, found: &str, rest: &str| {
        let script = format!(
            "amqp_product() {{ {found}; }}; listener_owner() {{ echo '{owner}'; }}; id() {{ echo me; }}\n\
             docker() {{ false; }}; install_rabbitmq() {{ :; }}; start_private_rabbitmq() {{ echo private; }}\n\
             {rest}\nfind_or_start_broker {}; echo \"url=${{AMQP_URL:-}}\"",
            dir.display()
        );
        words(&bash(dir, &script).output().expect("there is bash"))
    };
    let rabbit = "echo 'RabbitMQ 3.10.8'";
    for owner in ["root", "rabbitmq", "me"] {
        let said = find(owner, rabbit, "");
        assert!(
            said.contains(&format!(
                "there is RabbitMQ 3.10.8, which lets guest in; its process belongs to {owner}"
            )),
            "{said}"
        );
        assert!(
            said.contains("AMQP_URL=amqp://user:password@host") && said.contains("BROKER=private"),
            "{said}"
        );
        assert!(said.starts_with("url=amqp://guest:guest@127.0.0.1:5672/%2f\n"), "{said}");
    }
    let said = find("mallory", rabbit, "");
    assert!(said.contains("belongs to mallory") && said.contains("not using it"), "{said}");
    assert!(said.starts_with("private\nurl=\n"), "{said}");
    let said = find("root", rabbit, "BROKER=private");
    assert!(said.contains("private\n") && !said.contains("RabbitMQ 3.10.8"), "{said}");
    let said = find("root", "false", "");
    assert!(said.contains("private\n"), "{said}");
    let said = find("root", rabbit, "BROKER=mine");
    assert!(said.contains("BROKER is \"mine\"; it may be docker or private"), "{said}");
}

/// A handshake with a broker that sends arbitrary properties.
#[tokio::test]
async fn what_a_stranger_says_it_is_does_not_act_on_the_terminal() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().expect("a directory");
    for (tune, shown) in [(true, "Rabbit2JMQ 3.10 x\n"), (false, "")] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("somebody comes");
            let text = |name: &str, value: &str| {
                let mut bytes = vec![u8::try_from(name.len()).expect("short")];
                bytes.extend_from_slice(name.as_bytes());
                bytes.push(b'S');
                bytes.extend_from_slice(&u32::try_from(value.len()).expect("short").to_be_bytes());
                bytes.extend_from_slice(value.as_bytes());
                bytes
            };
            let properties = [text("product", "Rabbit\u{1b}[2JMQ"), text("version", "3.10\n x")].concat();
            let mut payload = vec![0, 10, 0, 10, 0, 9];
            payload.extend_from_slice(&u32::try_from(properties.len()).expect("short").to_be_bytes());
            payload.extend_from_slice(&properties);
            let frame = |payload: &[u8]| {
                let mut bytes = vec![1, 0, 0];
                bytes.extend_from_slice(&u32::try_from(payload.len()).expect("short").to_be_bytes());
                bytes.extend_from_slice(payload);
                bytes.push(0xce);
                bytes
            };
            let mut seen = [0; 8];
            stream.read_exact(&mut seen).await.expect("a header");
            assert_eq!(&seen, b"AMQP\0\0\x09\x01");
            stream.write_all(&frame(&payload)).await.expect("it reads");
            if tune {
                stream.write_all(&frame(&[0, 10, 0, 30, 0, 0, 0, 0, 0, 0, 0, 0])).await.expect("it reads");
            }
            let mut rest = Vec::new();
            drop(stream.shutdown().await);
            drop(stream.read_to_end(&mut rest).await);
        });
        let mut asked = bash(dir.path(), &format!("amqp_product {port}"));
        let asked = tokio::task::spawn_blocking(move || asked.output().expect("there is bash"));
        let asked = tokio::time::timeout(PATIENCE, asked).await.expect("in time").expect("no panic");
        assert_eq!(String::from_utf8_lossy(&asked.stdout), shown, "{}", words(&asked));
        assert_eq!(asked.status.success(), tune);
    }
}

/// We own our own port.
#[test]
fn the_owner_of_a_listener_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let me = words(&bash(dir.path(), "id -un").output().expect("there is bash"));
    for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
        let Ok(socket) = std::net::TcpListener::bind(address) else { continue };
        let port = socket.local_addr().expect("it is bound").port();
        let owner =
            words(&bash(dir.path(), &format!("listener_owner {port}")).output().expect("there is bash"));
        assert_eq!(owner, me, "{address}");
    }
}
