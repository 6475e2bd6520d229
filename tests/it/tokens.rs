//! Who may do what on the internal listener: each role on each route.

use crate::support::{Answer, App, Config, NOWHERE, Program, eventually, quoted};
use serde_json::{Value, json};

const ADMIN: &str = "fake-admin-of-so-many";

/// Names, roles and tokens.
const NAMED: [(&str, &str, &str); 3] = [
    ("monitor", "read", "fake-read-of-so-many"),
    ("ops.night", "operate", "fake-operate-of-so-many"),
    ("erp", "register", "fake-register-of-so-many"),
];

fn tokens(named: &[(&str, &str, &str)]) -> String {
    let named = named.iter().map(|(name, role, token)| {
        format!("{{ name = {}, role = {}, token = {} }}", quoted(name), quoted(role), quoted(token))
    });
    format!("[ {} ]", named.collect::<Vec<_>>().join(", "))
}

fn config() -> Config {
    Config::with_url(NOWHERE).set("admin", "token", &quoted(ADMIN)).set("admin", "tokens", &tokens(&NAMED))
}

async fn ask(app: &App, method: &str, path: &str, token: Option<&str>) -> Answer {
    let method = method.parse().expect("a method");
    let mut request = app.client().request(method, format!("http://{}{path}", app.admin()));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.expect("the internal listener answers");
    let status = response.status().as_u16();
    Answer { status, headers: Vec::new(), body: response.bytes().await.expect("a whole answer").to_vec() }
}

/// The roles that a route is for; `None` if it is for everybody.
fn roles(method: &str, path: &str) -> Option<&'static [&'static str]> {
    match (method, path) {
        ("GET", "/" | "/livez" | "/readyz" | "/metrics") => None,
        ("GET", "/api/v1/contexts/{key}") => Some(&["read", "operate", "register"]),
        ("GET", _) => Some(&["read", "operate"]),
        ("POST", path) if path.starts_with("/api/v1/commands") => Some(&["operate"]),
        (_, path) if path.starts_with("/api/v1/contexts") => Some(&["register"]),
        other => panic!("who may use {other:?}?"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_opens_its_routes_and_no_other() {
    let app = App::with(config()).await;
    let home = app.get("/").await.text();
    let routes: Vec<(&str, &str)> = home
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(method, _)| ["GET", "PUT", "POST", "DELETE"].contains(method))
        // Pages take sessions; see `pages`.
        .filter(|(_, path)| {
            path.starts_with("/api/") || ["/", "/livez", "/readyz", "/metrics"].contains(path)
        })
        .collect();
    assert!(routes.len() >= 15, "{home}");
    for (method, path) in routes {
        let wanted = roles(method, path);
        let path = path.replace("{command_id}", "1").replace("{id}", "1").replace("{key}", "k");
        let can = async |token: Option<&str>| {
            let answer = ask(&app, method, &path, token).await;
            match answer.status {
                401 => Err("unauthorized"),
                403 => {
                    assert_eq!(answer.json()["error"], "not_permitted", "{}", answer.text());
                    Err("not_permitted")
                }
                _ => Ok(()),
            }
        };
        let Some(wanted) = wanted else {
            assert_eq!(can(None).await, Ok(()), "{method} {path}");
            continue;
        };
        for stranger in [None, Some("fake-other-of-so-many"), Some("")] {
            assert_eq!(can(stranger).await, Err("unauthorized"), "{method} {path} {stranger:?}");
        }
        assert_eq!(can(Some(ADMIN)).await, Ok(()), "{method} {path} admin");
        for (_, role, token) in NAMED {
            let expected = if wanted.contains(&role) { Ok(()) } else { Err("not_permitted") };
            assert_eq!(can(Some(token)).await, expected, "{method} {path} {role}");
        }
    }
}

async fn actors(app: &App, args: &[&str]) -> Vec<Value> {
    let args = [&["audit", "--json"], args].concat();
    let ran = Program::new(args).config(app.file()).dir(app.dir()).run().await.ended_with(0);
    let acts = ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    acts.map(|act| json!([act["act"], act["actor"]["via"], act["actor"]["name"], act["actor"]["peer"]]))
        .collect()
}

async fn register(app: &App, key: &str, token: Option<&str>) -> u16 {
    let mut request = app.client().put(format!("http://{}/api/v1/contexts/{key}", app.admin()));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    request.json(&json!({ "task_id": "t" })).send().await.expect("an answer").status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_names_the_token_that_sent_it() {
    let app = App::with(config()).await;
    assert_eq!(register(&app, "k1", Some(NAMED[2].2)).await, 201);
    assert_eq!(register(&app, "k2", Some(ADMIN)).await, 201);
    assert_eq!(register(&app, "k2", Some(NAMED[0].2)).await, 403);
    assert_eq!(ask(&app, "DELETE", "/api/v1/contexts/k1", Some(NAMED[2].2)).await.status, 204);
    assert_eq!(
        actors(&app, &["--context", "k1"]).await,
        [json!(["unregister", "api", "erp", "127.0.0.1"]), json!(["register", "api", "erp", "127.0.0.1"]),]
    );
    assert_eq!(actors(&app, &["--actor", "admin"]).await, [json!(["register", "api", "admin", "127.0.0.1"])]);
    // The API says the same, to those who may look.
    let path = "/api/v1/acts?context=k1&limit=1";
    let listed = app.get_as(NAMED[0].2, path).await.json();
    assert_eq!(listed["acts"][0]["act"], "unregister");
    assert_eq!(listed["acts"].as_array().map(Vec::len), Some(1));
    let next = listed["next_before"].as_u64().expect("there is another page");
    let listed = app.get_as(NAMED[0].2, &format!("{path}&before={next}")).await.json();
    assert_eq!((&listed["acts"][0]["act"], &listed["next_before"]), (&json!("register"), &Value::Null));
    assert_eq!(app.get_as(NAMED[0].2, "/api/v1/acts?act=nothing").await.status, 400);
    assert_eq!(app.get_as(NAMED[0].2, "/api/v1/acts?command_id=x").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_acts_are_those_of_loopback() {
    let app = App::with(Config::with_url(NOWHERE)).await;
    assert_eq!(register(&app, "k", None).await, 201);
    assert_eq!(actors(&app, &[]).await, [json!(["register", "api", "loopback", "127.0.0.1"])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_puts_other_tokens_in_force_and_its_act_tells_no_value() {
    let mut app = App::with(config()).await;
    let new = [("monitor", "register", "fake-other-of-so-many")];
    app.reconfigure(|config| config.set("admin", "tokens", &tokens(&new)));
    app.signal("HUP");
    eventually("the new token", async || match register(&app, "k", Some(new[0].2)).await {
        201 => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(ask(&app, "GET", "/api/v1/acts", Some(NAMED[0].2)).await.status, 401);
    assert_eq!(ask(&app, "GET", "/api/v1/acts", Some(new[0].2)).await.status, 403);
    let reload = eventually("the reload among the acts", async || {
        let listed = app.get_as(ADMIN, "/api/v1/acts?act=reload").await.json();
        listed["acts"].as_array().and_then(|acts| acts.first().cloned()).ok_or(listed)
    })
    .await;
    assert_eq!(reload["detail"]["result"], "applied");
    assert_eq!((&reload["actor"]["via"], &reload["count"]), (&json!("signal"), &json!(0)));
    assert!(reload["actor"]["host"].is_string());
    let changed = reload["detail"]["changed"].to_string();
    assert!(
        changed.contains("admin.tokens[0].token") && changed.contains("admin.tokens[0].role"),
        "{changed}"
    );
    assert!(!reload.to_string().contains("fake-"), "{reload}");

    // One that is rejected is an act as well, and names the keys.
    app.reconfigure(|config| config.set("admin", "tokens", &tokens(&[new[0], ("monitor", "read", ADMIN)])));
    app.signal("HUP");
    let rejected = eventually("the rejected reload among the acts", async || {
        let listed = app.get_as(ADMIN, "/api/v1/acts?act=reload&limit=1").await.json();
        let act = listed["acts"][0].clone();
        if act["detail"]["result"] == "rejected" { Ok(act) } else { Err(act) }
    })
    .await;
    assert!(rejected["detail"]["faults"].to_string().contains("admin.tokens"), "{rejected}");
    assert!(!rejected.to_string().contains("fake-"), "{rejected}");
    assert!(!app.stderr().contains("fake-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_cannot_be_told_apart_are_faults() {
    let check = async |named: &[(&str, &str, &str)], also: &str| {
        let config = Config::with_url(NOWHERE).set("admin", "tokens", &tokens(named));
        let config = if also.is_empty() { config } else { config.set("admin", "token", &quoted(also)) };
        let ran = Program::new(["config", "check"]).config(&config.write()).dir(config.dir()).run().await;
        (ran.code, ran.stderr)
    };
    let [read, operate, _] = NAMED;
    for (named, also, fault) in [
        (vec![read, ("monitor", "operate", operate.2)], "", "admin.tokens: [1] has the name of [0]"),
        (vec![read, ("ops", "operate", read.2)], "", "admin.tokens: [1] has the token of [0]"),
        (vec![read], read.2, "admin.tokens: [0] has the token of admin.token"),
        (vec![("Ops", "read", read.2)], "", "admin.tokens[0].name: \"Ops\" is not a name"),
        (vec![("admin", "read", read.2)], "", "admin.tokens[0].name: \"admin\" is what acts call others"),
        (vec![("ops", "all", read.2)], "", "admin.tokens[0].role: \"all\" is no role"),
        (vec![("ops", "read", "short")], "", "admin.tokens[0].token: has fewer than 8 bytes"),
    ] {
        let (code, told) = check(&named, also).await;
        assert_eq!(code, Some(64), "{told}");
        assert!(told.contains(fault), "{fault}\n{told}");
        assert!(!told.contains("fake-"), "{told}");
    }
    let (code, told) = check(&NAMED, ADMIN).await;
    assert_eq!(code, Some(0), "{told}");
}
