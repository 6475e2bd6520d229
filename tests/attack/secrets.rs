//! Secrets in the memory of the running service, and who can read them.

use crate::support::{App, Config, Endpoint, NOWHERE, eventually, quoted};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// Long and random, so that no other text contains it by chance.
const TOKEN: &str = "fake-token-9f2c61d07be84a35";
const KEY: &str = "fake-key-51e0b7d2c94f4e18";
const ADMIN: &str = "fake-admin-3cb86a4f0d7e4f92";

/// The number of occurrences of each text in the process's writable memory, including the stacks.
fn occurrences(pid: u32, texts: &[&str]) -> Vec<usize> {
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).expect("it is ours");
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("it is ours");
    let mut counts = vec![0; texts.len()];
    for line in
        maps.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|mode| mode.starts_with("rw")))
    {
        let range = line.split_whitespace().next().and_then(|range| range.split_once('-')).expect("a range");
        let [from, to] = [range.0, range.1].map(|text| u64::from_str_radix(text, 16).expect("a number"));
        memory.seek(SeekFrom::Start(from)).expect("a file");
        let mut bytes = Vec::new();
        // Some pages cannot be read; none of those contains a text.
        if (&mut memory).take(to - from).read_to_end(&mut bytes).is_err() {
            continue;
        }
        for (text, count) in texts.iter().zip(&mut counts) {
            *count += memchr::memmem::find_iter(&bytes, text).count();
        }
    }
    counts
}

/// A service with each secret in its own file.
async fn service() -> App {
    let config = Config::bare(NOWHERE);
    let file = |name: &str, text: &str| {
        let path = config.dir().join(name);
        fs::write(&path, format!("{text}\n")).expect("the directory is ours");
        quoted(path.to_str().expect("a name of text"))
    };
    let (token, key, admin) = (file("token", TOKEN), file("key", KEY), file("admin", ADMIN));
    let credentials =
        format!("[{{ action_callback_token_file = {token}, action_callback_key_file = {key} }}]");
    let endpoint = Endpoint::plain("purchase").credentials_toml(&credentials);
    App::with(config.set("admin", "token_file", &admin).endpoint(endpoint)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_copy_of_each_secret_in_memory_also_after_a_reload() {
    let app = service().await;
    assert_eq!(occurrences(app.pid(), &[TOKEN, KEY, ADMIN]), [1, 1, 1]);
    let reloads = "countersign_config_reloads_total{result=\"applied\"}";
    for reload in 1..=3 {
        app.signal("HUP");
        app.until_metric(reloads, f64::from(reload)).await;
    }
    // Old settings are released with the last request that began under them.
    eventually("one copy of each", async || match occurrences(app.pid(), &[TOKEN, KEY, ADMIN]) {
        counts if counts == [1, 1, 1] => Ok(()),
        counts => Err(counts),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_dump_is_not_written() {
    let app = service().await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", app.pid())).expect("it is ours");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("it is there");
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
}

/// Files of a process that is not dumpable belong to root, whichever user runs it.
#[test]
fn nobody_but_root_may_look_into_a_process_that_is_not_roots() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let (program, ours) =
        (directory.path().join("countersign"), fs::metadata(directory.path()).expect("ours").uid());
    fs::copy(env!("CARGO_BIN_EXE_countersign"), &program).expect("room for a copy");
    let key = directory.path().join("key");
    fs::write(&key, KEY).expect("ours");
    let mut command = std::process::Command::new(&program);
    // Waits for input on stdin.
    command.args(["decrypt", "--key-file"]).arg(&key).env_clear().current_dir("/");
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    if ours == 0 {
        std::os::unix::process::CommandExt::uid(&mut command, 12_345);
    }
    let mut child = command.spawn().expect("a program");
    let environment = format!("/proc/{}/environ", child.id());
    let began = std::time::Instant::now();
    // It is dumpable until it has started up.
    while fs::metadata(&environment).expect("it waits").uid() != 0 {
        assert!(began.elapsed() < crate::support::PATIENCE, "it stays dumpable");
        std::thread::yield_now();
    }
    child.kill().expect("ours");
    child.wait().expect("ours");
}
