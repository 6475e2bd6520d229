//! The console's pages over a real ledger: who may open them, and what they change.

use crate::support::{
    Answer, App, Callback, Config, NOWHERE, Program, eventually, postgres::Postgres, quoted,
};
use serde_json::{Value, json};

const CHEN: &str = "fake-operate-of-so-many";
const LI4: &str = "fake-read-of-so-many";

fn config(ledger: Option<&str>) -> Config {
    let tokens = format!(
        "[ {{ name = \"chen\", role = \"operate\", token = {} }}, {{ name = \"li4\", role = \"read\", token = {} }} ]",
        quoted(CHEN),
        quoted(LI4)
    );
    let config = Config::with_url(NOWHERE).set("admin", "tokens", &tokens);
    match ledger {
        Some(url) => config.set("ledger", "url", &quoted(url)),
        None => config,
    }
}

async fn ask(app: &App, method: &str, path: &str, cookie: Option<&str>, form: &[(&str, &str)]) -> Answer {
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client");
    let mut request = client
        .request(method.parse().expect("a method"), format!("http://{}{path}", app.admin()))
        .header("accept", "text/html");
    if let Some(cookie) = cookie {
        request = request.header("cookie", cookie);
    }
    if method == "POST" {
        let pairs: Vec<_> =
            form.iter().map(|(name, value)| format!("{name}={}", value.replace(' ', "+"))).collect();
        request = request
            .header("sec-fetch-site", "same-origin")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(pairs.join("&"));
    }
    let response = request.send().await.expect("the internal listener answers");
    let status = response.status().as_u16();
    let text = |value: &reqwest::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers =
        response.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    // A stream that lives goes on.
    let body =
        if path == "/live" { Vec::new() } else { response.bytes().await.expect("a whole answer").to_vec() };
    Answer { status, headers, body }
}

async fn log_in(app: &App, token: &str) -> String {
    let answer = ask(app, "POST", "/login", None, &[("token", token)]).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    let cookie = answer.header("set-cookie").expect("a session");
    cookie.split(';').next().expect("its name and value").to_owned()
}

/// Opened by anybody: the login and what it needs.
const OPEN: [&str; 3] = ["/assets/{name}", "/login", "/logout"];

#[tokio::test(flavor = "multi_thread")]
async fn each_page_is_for_those_who_may_look_and_each_act_for_those_who_may_act() {
    let app = App::with(config(None)).await;
    let home = app.get("/").await.text();
    let routes: Vec<(&str, &str)> = home.lines().filter_map(|line| line.split_once(' ')).collect();
    let is_page = |(method, path): &&(&str, &str)| {
        ["GET", "POST"].contains(method)
            && !path.starts_with("/api/")
            && !["/", "/livez", "/readyz", "/metrics"].contains(path)
            && !OPEN.contains(path)
    };
    let (li4, chen) = (log_in(&app, LI4).await, log_in(&app, CHEN).await);
    let mut seen = 0;
    for (method, path) in routes.iter().filter(is_page) {
        seen += 1;
        let path = path.replace("{command_id}", "1").replace("{id}", "1").replace("{key}", "k");
        let answer = async |cookie: Option<&str>| ask(&app, method, &path, cookie, &[]).await;
        let nobody = answer(None).await;
        let is_led = nobody.header("location").is_some_and(|place| place.starts_with("/login"));
        assert!(is_led || (path == "/live" && nobody.status == 403), "{method} {path} {}", nobody.status);
        let other = answer(Some("__Host-countersign-1=fake")).await;
        assert_eq!(other.status, nobody.status, "{method} {path}");
        let acts = *method == "POST" || ["/parked/requeue", "/parked/show-again"].contains(&&*path);
        let (looks, does) = (answer(Some(&li4)).await.status, answer(Some(&chen)).await.status);
        assert_eq!(looks == 403, acts, "{method} {path} {looks}");
        assert!(![401, 403, 500].contains(&does), "{method} {path} {does}");
    }
    assert!(seen >= 18, "{home}");
}

async fn acts(app: &App) -> Vec<Value> {
    let ran = Program::new(["audit", "--json"]).config(app.file()).dir(app.dir()).run().await.ended_with(0);
    let acts = ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    acts.map(|act| {
        json!([
            act["act"],
            act["actor"]["via"],
            act["actor"]["name"],
            act["actor"]["peer"],
            act["reason"],
            act["count"]
        ])
    })
    .collect()
}

async fn acts_from_pages(app: App) {
    let mut ids = Vec::new();
    for task in ["t1", "t2", "t3", "t4"] {
        ids.push(app.accept(&Callback::list("i", task)).await);
    }
    let chen = log_in(&app, CHEN).await;
    let post = async |path: &str, form: &[(&str, &str)]| ask(&app, "POST", path, Some(&chen), form).await;
    let page = async |path: &str| ask(&app, "GET", path, Some(&chen), &[]).await.text();
    for id in &ids {
        let answer =
            post(&format!("/decisions/{id}/park"), &[("state", "pending"), ("reason", "stop it")]).await;
        assert_eq!(
            answer.header("location"),
            Some(&*format!("/decisions/{id}?done=park")),
            "{}",
            answer.text()
        );
    }
    let twice =
        post(&format!("/decisions/{}/park", ids[0]), &[("state", "pending"), ("reason", "again")]).await;
    assert_eq!(twice.status, 409, "{}", twice.text());
    let one =
        post(&format!("/decisions/{}/requeue", ids[0]), &[("state", "parked"), ("reason", "go on")]).await;
    assert_eq!(one.status, 303, "{}", one.text());
    let decision = page(&format!("/decisions/{}", ids[0])).await;
    assert!(decision.contains("by chen · console · 127.0.0.1: go on"), "{decision}");
    let parked = page(&format!("/decisions/{}", ids[1])).await;
    assert!(parked.contains("parked by an operator: &#34;stop it&#34;"), "{parked}");

    let parked = page("/parked").await;
    assert!(parked.contains("parked by an operator: &#34;stop it&#34;"), "{parked}");
    let confirm = parked.split('"').find(|part| part.starts_with("/parked/requeue?"));
    let confirm = confirm.unwrap_or_else(|| panic!("no link in {parked}"));
    let confirm = page(&confirm.replace("&#38;", "&")).await;
    assert!(
        confirm.contains("name=\"seqs\" value=\"4 3 2\"") || confirm.contains("value=\"2 3 4\""),
        "{confirm}"
    );
    // Another operator is faster with one of them.
    let faster = post("/decisions/2/requeue", &[("state", "parked"), ("reason", "mine")]).await;
    assert_eq!(faster.status, 303);
    let form = [
        ("state", "parked"),
        ("endpoint", "purchase"),
        ("seqs", "2 3 4"),
        ("typed", "3"),
        ("reason", "all of it"),
    ];
    let done = post("/parked/requeue", &form).await;
    assert_eq!(done.status, 303, "{}", done.text());
    let result = page(done.header("location").expect("the result")).await;
    assert!(
        result.contains("2 requeued, 1 changed meanwhile.") && result.contains("is now pending"),
        "{result}"
    );
    assert!(page("/parked").await.contains("Nothing waits for you."));
    let act =
        |act: &str, reason: &str, count: u64| json!([act, "console", "chen", "127.0.0.1", reason, count]);
    assert_eq!(
        acts(&app).await,
        [
            act("requeue", "all of it", 2),
            act("requeue", "mine", 1),
            act("requeue", "go on", 1),
            act("park", "stop it", 1),
            act("park", "stop it", 1),
            act("park", "stop it", 1),
            act("park", "stop it", 1),
            json!(["login", "console", "chen", "127.0.0.1", null, 0]),
        ]
    );
    eventually("the console says the same", async || {
        let acts = page("/acts?actor=chen").await;
        if acts.matches("all of it").count() == 1 { Ok(()) } else { Err(acts) }
    })
    .await;
    let acts = page("/acts?lang=zh").await;
    let one = format!("<a href=\"/decisions/{}\">", ids[0]);
    assert!(acts.contains(&one) && acts.contains("搁置 <code class=\"code\">park</code>"), "{acts}");
    assert!(acts.contains("，以及另外 1 条</a>"), "the act on two: {acts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_of_a_page_is_recorded_and_touches_nothing_that_has_changed() {
    acts_from_pages(App::with(config(None)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_in_postgres() {
    let url = tokio::task::block_in_place(Postgres::shared).database().await;
    acts_from_pages(App::with(config(Some(&url))).await).await;
}
