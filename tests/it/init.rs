//! `countersign init`: what it writes is a configuration that the service runs with, and what it prints is taken by the
//! approval center.

use crate::support::{NOWHERE, Program, Ran, Running, Vhost, client, eventually, free_port};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const FAILED: i32 = 1;
const USAGE: i32 = 64;
const PUBLIC: &str = "https://hook.example.com";

async fn init(directory: &Path, args: &[&str]) -> Ran {
    Program::new([&["init"], args].concat()).dir(directory).run().await
}

/// The documents on standard output, in order: definition, task, card.
fn documents(ran: &Ran) -> Vec<Value> {
    let values = serde_json::Deserializer::from_str(&ran.stdout).into_iter();
    values.collect::<Result<Vec<Value>, _>>().unwrap_or_else(|error| panic!("{error}: {}", ran.stdout))
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode()
        & 0o777
}

/// The secrets by the names of their files.
fn secrets(directory: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(directory.join("secrets")).expect("init makes it");
    let read = |entry: std::fs::DirEntry| {
        let text = std::fs::read_to_string(entry.path()).expect("it is ours");
        (entry.file_name().to_string_lossy().into_owned(), text.trim_end().to_owned())
    };
    entries.map(|entry| read(entry.expect("an entry"))).collect()
}

async fn check(directory: &Path) -> Ran {
    let file = directory.join("countersign.toml");
    // From another directory: what it names is found from everywhere.
    Program::new(["config", "check", "--json"]).config(&file).dir(Path::new("/")).run().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_combination_of_answers_is_a_configuration_without_a_fault() {
    for context in ["json", "jwt", "registry", "pattern", "opaque"] {
        for plain in [false, true] {
            for ledger in [
                None,
                Some("kept.db"),
                Some("postgres://countersign:fake-password@db.example.com/approvals?sslmode=verify-full"),
            ] {
                for lang in ["zh", "en"] {
                    let directory = tempfile::tempdir().expect("a directory");
                    let mut args = vec!["--public-url", PUBLIC, "--context", context, "--lang", lang];
                    args.extend(plain.then_some("--plain"));
                    args.extend(ledger.iter().flat_map(|ledger| ["--ledger", ledger]));
                    let case = format!("{args:?}");
                    let ran = init(directory.path(), &args).await.ended_with(0);

                    let checked = check(directory.path()).await;
                    assert_eq!(checked.code, Some(0), "{case}: {}", checked.stdout);
                    let checked = checked.json();
                    assert_eq!(checked["endpoints"], json!(["purchase"]), "{case}");
                    // What is risky is what was asked for.
                    let warned: Vec<_> = checked["warnings"].as_array().expect("a list").iter().collect();
                    let expected = |warning: &Value| {
                        let key = warning["key"].as_str().unwrap_or_default();
                        (plain && key.ends_with(".plain"))
                            || (["pattern", "opaque", "json", "registry"].contains(&context)
                                && key.ends_with("context.format"))
                    };
                    assert!(warned.iter().all(|warning| expected(warning)), "{case}: {warned:?}");

                    assert_eq!(mode(&directory.path().join("secrets")), 0o700, "{case}");
                    let secrets = secrets(directory.path());
                    for (name, secret) in &secrets {
                        assert_eq!(
                            mode(&directory.path().join("secrets").join(name)),
                            0o600,
                            "{case}: {name}"
                        );
                        let text = std::fs::read_to_string(directory.path().join("countersign.toml"))
                            .expect("it is there");
                        for printed in [&ran.stdout, &ran.stderr, &text] {
                            assert!(!printed.contains(secret), "{case}: {name} is in {printed}");
                        }
                    }
                    assert_eq!(secrets.contains_key("purchase-key"), !plain, "{case}");
                    assert_eq!(secrets.contains_key("purchase-context"), context == "jwt", "{case}");
                    assert_eq!(
                        secrets.contains_key("ledger-url"),
                        ledger.is_some_and(|url| url.contains(':')),
                        "{case}"
                    );
                    assert!(secrets["purchase-token"].len() >= 32, "{case}");

                    let [definition, task, card] = &documents(&ran)[..] else {
                        panic!("{case}: {}", ran.stdout)
                    };
                    let external = &definition["external"];
                    assert_eq!(
                        external["action_callback_url"],
                        format!("{PUBLIC}/callbacks/purchase"),
                        "{case}"
                    );
                    assert_eq!(external.get("action_callback_key").is_none(), plain, "{case}");
                    let token = external["action_callback_token"].as_str().expect("a text");
                    assert!(token.contains("secrets/purchase-token"), "{case}: {token}");
                    assert_eq!(task["action_context"], card["action_callback"]["action_context"], "{case}");
                    assert_eq!(ran.stderr.contains("接下来："), lang == "zh", "{case}: {}", ran.stderr);
                    assert_eq!(ran.stderr.contains("Next:"), lang == "en", "{case}: {}", ran.stderr);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_language_is_that_of_the_environment() {
    for (variables, is_chinese) in [
        (&[("LANG", "zh_CN.UTF-8")][..], true),
        (&[("LANG", "zh_CN.UTF-8"), ("LC_ALL", "C.UTF-8")], false),
        (&[("LANG", "en_US.UTF-8"), ("LC_MESSAGES", "zh_TW.UTF-8"), ("LC_ALL", "")], true),
        (&[], false),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut program = Program::new(["init", "--public-url", PUBLIC]).dir(directory.path());
        for name in ["LANG", "LC_ALL", "LC_MESSAGES"] {
            program = program.env(name, "");
        }
        for (name, value) in variables {
            program = program.env(name, value);
        }
        let ran = program.run().await.ended_with(0);
        assert_eq!(ran.stderr.contains("已写入"), is_chinese, "{variables:?}: {}", ran.stderr);
        let text = std::fs::read_to_string(directory.path().join("countersign.toml")).expect("it is there");
        assert_eq!(text.contains("locale = \"zh\""), is_chinese, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_wrong_is_named_and_nothing_is_written() {
    let directory = tempfile::tempdir().expect("a directory");
    for (args, words) in [
        (&[][..], "--public-url is missing"),
        (&["--public-url", "hook.example.com"], "--public-url: "),
        (&["--public-url", "http://hook.example.com"], "--public-url: "),
        (&["--public-url", PUBLIC, "--endpoint", "Purchase"], "--endpoint: "),
        (&["--public-url", PUBLIC, "--broker", "http://127.0.0.1"], "--broker: "),
        (
            &["--public-url", PUBLIC, "--ledger", "/nowhere/at/all.db"],
            "--ledger: the directory /nowhere/at does not exist",
        ),
        (&["--public-url", PUBLIC, "--context", "xml"], "possible values"),
    ] {
        let ran = init(directory.path(), args).await.ended_with(USAGE);
        assert!(ran.stderr.contains(words) && ran.stdout.is_empty(), "{args:?}: {}", ran.stderr);
    }
    let left: Vec<_> = std::fs::read_dir(directory.path()).expect("it is ours").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_there_is_replaced_by_force_alone_and_its_secrets_never() {
    let directory = tempfile::tempdir().expect("a directory");
    let of = |name: &str| std::fs::read_to_string(directory.path().join(name)).expect("it is there");
    let broker = "amqp://one:fake-password@127.0.0.1/%2f";
    let first = ["--public-url", PUBLIC, "--broker", broker];
    init(directory.path(), &first).await.ended_with(0);
    let (text, known) = (of("countersign.toml"), secrets(directory.path()));

    let ran =
        init(directory.path(), &["--public-url", PUBLIC, "--context", "opaque"]).await.ended_with(FAILED);
    assert!(ran.stderr.contains("is there already") && ran.stderr.contains("--force"), "{}", ran.stderr);
    assert_eq!((of("countersign.toml"), secrets(directory.path())), (text.clone(), known.clone()));

    let args = ["--public-url", PUBLIC, "--context", "opaque", "--force", "--lang", "en"];
    let ran = init(directory.path(), &args).await.ended_with(0);
    assert!(of("countersign.toml").contains("opaque"), "{}", of("countersign.toml"));
    assert_eq!(of("countersign.toml.old"), text);
    assert_eq!(secrets(directory.path()), known, "the approval center and the broker know them");
    for words in ["countersign.toml.old", "kept", "purchase-token"] {
        assert!(ran.stderr.contains(words), "without {words}: {}", ran.stderr);
    }

    // A value that is given is meant.
    let other = "amqp://two:fake-password@127.0.0.1/%2f";
    init(directory.path(), &[&args[..], &["--broker", other]].concat()).await.ended_with(0);
    let mut expected = known;
    expected.insert("amqp-url".to_owned(), other.to_owned());
    assert_eq!(secrets(directory.path()), expected);
    assert_eq!(mode(&directory.path().join("secrets/amqp-url")), 0o600);
}

/// `countersign serve` with a configuration of `init`, and the address of its public listener.
async fn serve(directory: &Path, more: &[&str]) -> (Running, String) {
    let (public, internal) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let (http, admin) = (format!("http.listen={public}"), format!("admin.listen={internal}"));
    let file = directory.join("countersign.toml");
    let args = [&["serve", "--set", &http, "--set", &admin], more].concat();
    let mut running = Program::new(args).config(&file).start();
    eventually("the service to be ready", async || {
        assert_eq!(running.exit_code(), None, "{:?}", running.lines());
        let admin = format!("admin.listen={internal}");
        let ran = Program::new(["healthcheck", "--set", &admin]).config(&file).run().await;
        if ran.code == Some(0) { Ok(()) } else { Err(ran) }
    })
    .await;
    (running, public)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_starts_with_every_format() {
    for context in ["json", "jwt", "registry", "pattern", "opaque"] {
        let directory = tempfile::tempdir().expect("a directory");
        let args = ["--public-url", PUBLIC, "--context", context, "--broker", NOWHERE];
        init(directory.path(), &args).await.ended_with(0);
        serve(directory.path(), &[]).await;
        assert!(directory.path().join("countersign.db").exists(), "{context}: the ledger is beside it");
    }
}

/// The definition, the task and the card go to the emulator as they were printed; taps on both are accepted by a service
/// that runs with what was written, and the broker gets the commands.
#[tokio::test(flavor = "multi_thread")]
async fn the_approval_center_takes_what_is_printed_and_its_callbacks_are_accepted() {
    let vhost = Vhost::new().await;
    let directory = tempfile::tempdir().expect("a directory");
    let port = free_port();
    let public_url = format!("http://127.0.0.1:{port}");
    let args = ["--public-url", &public_url, "--broker", vhost.url(), "--show-secrets", "--endpoint", "po-2"];
    let ran = init(directory.path(), &args).await.ended_with(0);
    let [definition, task, card] = &documents(&ran)[..] else { panic!("{}", ran.stdout) };
    assert_eq!(definition["external"]["action_callback_token"], secrets(directory.path())["po-2-token"]);

    let listen = format!("http.listen=127.0.0.1:{port}");
    let (_service, _) = serve(directory.path(), &["--set", &listen]).await;
    let emulator = Program::new(["emulator", "--listen", "127.0.0.1:0"]).start();
    let url = eventually("the emulator to be ready", async || {
        let lines = emulator.lines();
        lines.iter().find_map(|line| line.strip_prefix("ready at ").map(str::to_owned)).ok_or(lines)
    })
    .await;
    let post = async |path: &str, token: &str, body: &Value| -> Value {
        let asked = client().post(format!("{url}{path}")).bearer_auth(token).json(body).send().await;
        asked.expect("it runs").json().await.expect("JSON")
    };
    let app = json!({ "app_id": "cli_emulator", "app_secret": "emulator-secret" });
    let token = post("/open-apis/auth/v3/tenant_access_token/internal", "", &app).await;
    let token = token["tenant_access_token"].as_str().expect("a token").to_owned();
    let made = post("/open-apis/approval/v4/external_approvals", &token, definition).await;
    assert_eq!(made["code"], 0, "{made}");

    let read = |name: &str| -> Value {
        let path = format!("{}/examples/loop/{name}", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).expect("it is there")).expect("JSON")
    };
    let lay = |under: &mut Value, over: &Value| {
        for (name, value) in over.as_object().expect("an object") {
            under[name] = value.clone();
        }
    };
    let mut instance = read("PO-77.json");
    instance["approval_code"] = made["data"]["approval_code"].clone();
    lay(&mut instance["task_list"][0], task);
    let kept = post("/open-apis/approval/v4/external_instances", &token, &instance).await;
    assert_eq!(kept["code"], 0, "{kept}");
    let mut message = read("card.json");
    lay(&mut message, card);
    let sent = post("/open-apis/approval/v1/message/send", &token, &message).await;
    assert_eq!(sent["code"], 0, "{sent}");

    let message_id = sent["data"]["message_id"].as_str().expect("a text");
    for button in [
        &["--instance", "PO-77", "--task", "PO-77-n1"][..],
        &["--message", message_id, "--action", "REJECT", "--user", "zhang3"],
    ] {
        let args = [&["emulator", "press", "--url", &url, "--json"], button].concat();
        let pressed = Program::new(args).run().await.ended_with(0).json();
        assert_eq!(
            (&pressed["http_status"], &pressed["encrypted"]),
            (&json!(200), &json!(true)),
            "{pressed}"
        );
    }
    let file = directory.path().join("countersign.toml");
    eventually("both decisions to be published", async || {
        let list =
            Program::new(["ledger", "list", "--state", "published", "--json"]).config(&file).run().await;
        let instances = list.stdout.matches("\"PO-77-n1\"").count();
        if list.stdout.lines().count() == 2 && instances >= 2 { Ok(()) } else { Err(list) }
    })
    .await;
}

/// Runs it on a terminal, which `script` makes, with what is typed.
fn on_a_terminal(directory: &Path, args: &str, typed: &str) -> (i32, String) {
    use std::io::Write;
    let command = format!("{} init {args}", env!("CARGO_BIN_EXE_countersign"));
    let mut child = std::process::Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .current_dir(directory)
        .env("LC_ALL", "C.UTF-8")
        .env_remove("COUNTERSIGN_AMQP_URL")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("script comes with every Debian");
    child.stdin.take().expect("a pipe").write_all(typed.as_bytes()).expect("it reads");
    let done = child.wait_with_output().expect("our own child");
    (done.status.code().unwrap_or(-1), String::from_utf8_lossy(&done.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_it_asks_and_an_answer_that_is_wrong_is_asked_for_again() {
    let directory = tempfile::tempdir().expect("a directory");
    // Endpoint, public URL twice, encrypted, context, broker, ledger by default.
    let typed = "leave\nhook.example.com\nhttps://hook.example.com\nno\njwt\namqp://u:fake-password@127.0.0.1/%2f\n\n";
    let (code, shown) = on_a_terminal(directory.path(), "", typed);
    assert_eq!(code, 0, "{shown}");
    for words in ["[purchase]", "is not a scheme and a host alone", "[json]", "countersign.db]"] {
        assert!(shown.contains(words), "without {words}: {shown}");
    }
    assert!(shown.contains("https://hook.example.com/callbacks/leave"), "{shown}");
    let secrets = secrets(directory.path());
    assert!(shown.contains(&secrets["leave-token"]), "whoever sits there needs it: {shown}");
    assert!(!secrets.contains_key("leave-key") && secrets.contains_key("leave-context"), "{secrets:?}");
    assert_eq!(secrets["amqp-url"], "amqp://u:fake-password@127.0.0.1/%2f");
    assert_eq!(check(directory.path()).await.ended_with(0).json()["endpoints"], json!(["leave"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_flags_are_not_asked_for_and_an_input_that_ends_writes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let (code, shown) =
        on_a_terminal(directory.path(), "--public-url https://a.example.com --endpoint a", "\u{4}");
    assert_eq!(code, FAILED, "{shown}");
    assert!(!shown.contains("Name of the endpoint") && shown.contains("nothing was written"), "{shown}");
    assert!(!directory.path().join("countersign.toml").exists());
}
