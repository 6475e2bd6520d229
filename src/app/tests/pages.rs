//! The pages of the internal listener.

use super::*;
use crate::{
    console::access::{NamedToken, Role},
    ledger::{ActKind, Stopped, Via},
};
use double::Fault;

const HTML: &str = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";

const PAGES: [&str; 9] =
    ["/", "/decisions", "/refusals", "/parked", "/findings", "/acts", "/health", "/why", "/why?q=zhang3"];

/// As Chromium sends it from a page with our policies.
const OWN: &str = "Origin: null\r\nSec-Fetch-Site: same-origin\r\n";

fn with_people() -> Settings {
    let mut settings = settings();
    settings.console.token = Some(Secret::new("fake-admin-token"));
    let person =
        |name: &str, role, token: &str| NamedToken { name: name.to_owned(), role, token: Secret::new(token) };
    settings.console.tokens = vec![
        person("li4", Role::Read, "fake-token-li4"),
        person("chen", Role::Operate, "fake-token-chen"),
        person("erp", Role::Register, "fake-token-erp"),
    ];
    settings
}

impl Service {
    async fn page(&self, path: &str) -> Answer {
        self.get_with(path, HTML).await
    }

    async fn form(&self, path: &str, headers: &str, body: &str) -> Answer {
        let mut connection = Connection::open(self.internal).await;
        let length = body.len();
        let form = "Content-Type: application/x-www-form-urlencoded\r\n";
        let host = if headers.contains("Host: ") { "" } else { "Host: localhost\r\n" };
        let head =
            format!("POST {path} HTTP/1.1\r\n{host}{HTML}{form}{headers}Content-Length: {length}\r\n\r\n");
        connection.send(&(head + body)).await;
        connection.answer().await
    }

    /// The cookie of a login.
    async fn logged_in(&self, token: &str) -> String {
        let answer = self.form("/login", OWN, &format!("token={token}&next=/acts")).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some("/acts")), "{}", answer.body);
        let cookie = answer.header("set-cookie").unwrap();
        let (cookie, rest) = cookie.split_once(';').unwrap();
        assert_eq!(rest, " Path=/; Secure; HttpOnly; SameSite=Strict");
        let port = self.internal.port();
        assert!(cookie.starts_with(&format!("__Host-countersign-{port}=")), "{cookie}");
        format!("Cookie: other=1; {cookie}\r\n")
    }
}

#[tokio::test]
async fn a_browser_gets_pages_and_a_program_what_it_got_before() {
    let service = Service::start();
    service.post("plain", &callback("t1")).await;
    service.post("plain", &callback("t2").replace("APPROVE", "HOLD")).await;
    for path in PAGES {
        let answer = service.page(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        // A link with it asks for a file, and so does not name HTML.
        assert!(!answer.body.contains(" download"), "{path}");
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert!(
            answer.body.starts_with("<!doctype html>") && answer.body.trim_end().ends_with("</html>"),
            "{path}"
        );
        assert!(answer.body.len() < 80 << 10, "{path} has {} bytes", answer.body.len());
    }
    let home = service.get_with("/", "Accept: */*\r\n").await;
    assert!(home.body.starts_with("countersign, internal listener\n"), "{}", home.body);
    let page = service.get("/decisions").await;
    assert_eq!((page.status, &page.json()["error"]), (406, &"not_acceptable".into()));
    assert_eq!(service.page("/nowhere").await.header("content-type"), Some("text/html; charset=utf-8"));
    service.stop().await;
}

#[tokio::test]
async fn a_search_whose_time_is_over_says_how_far_it_came_and_goes_on_from_there() {
    let service = Service::start();
    let back_to = Some("2026-11-20T08:15:30Z".parse().unwrap());
    *service.ledger.searches_stop.lock().unwrap() = Some(Stopped { at: 4711, back_to });
    for list in ["/decisions?user_id=zhang3", "/refusals?user_id=zhang3"] {
        let page = service.page(list).await.body;
        assert!(page.contains("Searched back to 2026-11-20 08:15:30"), "{page}");
        assert!(page.contains(&format!("href=\"{list}&#38;before=4711\"")), "{page}");
        assert!(!page.contains("No decision matches"), "it was not searched to the end: {page}");
    }
    let why = service.page("/why?q=zhang3").await.body;
    assert!(why.contains("Searched back to 2026-11-20 08:15:30"), "{why}");
    *service.ledger.searches_stop.lock().unwrap() = None;
    let page = service.page("/decisions?user_id=zhang3").await.body;
    assert!(page.contains("No decision matches: User: zhang3.") && !page.contains("Searched back"), "{page}");
    service.stop().await;
}

#[tokio::test]
async fn a_browser_is_told_to_run_nothing_but_what_is_ours() {
    let service = Service::start();
    for (path, headers) in
        [("/", HTML), ("/", ""), ("/readyz", ""), ("/api/v1/commands", ""), ("/nowhere", HTML)]
    {
        let answer = service.get_with(path, headers).await;
        let policy = answer.header("content-security-policy").unwrap();
        assert_eq!(
            policy,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
             form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; \
             trusted-types cs"
        );
        for (header, value) in [
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(answer.header(header), Some(value), "{path}");
        }
    }
    let page = service.page("/").await.body;
    let assets: Vec<_> = page.split('"').filter(|part| part.starts_with("/assets/")).collect();
    assert_eq!(assets.len(), 3);
    for path in assets {
        let answer = service.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("cache-control"), Some("public, max-age=31536000, immutable"));
    }
    assert_eq!(service.get("/assets/console-000000000000.js").await.status, 404);
    service.stop().await;
}

#[tokio::test]
async fn the_language_is_asked_for_kept_or_the_browsers() {
    let service = Service::start();
    let zh = service.get_with("/", &format!("{HTML}Accept-Language: zh-CN,en;q=0.5\r\n")).await;
    assert!(zh.body.contains("<html lang=\"zh\"") && zh.body.contains("查原因"), "{}", zh.body);
    assert_eq!(zh.header("set-cookie"), None);
    let en =
        service.get_with("/decisions?state=parked&lang=en", &format!("{HTML}Accept-Language: zh\r\n")).await;
    assert!(en.body.contains("<html lang=\"en\""), "{}", en.body);
    assert!(en.body.contains("href=\"/decisions?state=parked&#38;lang=zh\""), "{}", en.body);
    assert!(en.header("set-cookie").unwrap().starts_with("countersign-lang=en; "));
    let kept =
        format!("{HTML}Accept-Language: en\r\nCookie: countersign-lang=zh; countersign-theme=dark\r\n");
    let kept = service.get_with("/", &kept).await;
    assert!(kept.body.contains("<html lang=\"zh\" data-theme=\"dark\">"), "{}", kept.body);
    service.stop().await;
}

#[tokio::test]
async fn a_decision_is_shown_with_what_happened() {
    let service = Service::start();
    let answer = service.post("plain", &callback("t1")).await;
    let id = answer.json()["data"]["command_id"].as_str().unwrap().to_owned();
    let page = service.page(&format!("/decisions/{id}")).await;
    for part in
        ["u1 approve i1 / t1", "countersign ledger show", &id, "answered 200", "&#34;command_id&#34;: &#34;"]
    {
        assert!(page.body.contains(part), "{part} is not in {}", page.body);
    }
    assert_eq!(service.page("/decisions/1").await.status, 200, "by its place in the log");
    for path in [
        "/decisions/2",
        "/decisions/x",
        "/decisions/019a0000-0000-7000-8000-000000000001",
        "/refusals/9",
        "/refusals/x",
    ] {
        assert_eq!(service.page(path).await.status, 404, "{path}");
    }
    service.stop().await;
}

#[tokio::test]
async fn the_sentence_is_shown_as_it_was_read() {
    let service = Service::start();
    service.post("plain", &callback("t2").replace("APPROVE", "HOLD")).await;
    let page = service.page("/refusals/1?lang=zh").await;
    assert!(page.body.contains("ここではこの操作を行えません"), "{}", page.body);
    assert!(page.body.contains("action_configs"), "{}", page.body);
    let why = service.page("/why?q=t2").await;
    assert!(why.body.contains("The approver saw: ここではこの操作を行えません"), "{}", why.body);
    service.stop().await;
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let service = Service::start();
    for task in 0..60 {
        service.post("plain", &callback(&format!("t{task}"))).await;
    }
    let first = service.page("/decisions?user_id=u1").await.body;
    assert_eq!(first.matches("<tr><td").count(), 50);
    assert!(first.contains("href=\"/decisions?user_id=u1&#38;before=11\""), "{first}");
    let last = service.page("/decisions?user_id=u1&before=11").await.body;
    assert_eq!(last.matches("<tr><td").count(), 10);
    assert!(!last.contains("rel=\"next\""));
    assert!(service.page("/decisions?task_id=t7&state=&outcome=").await.body.contains("i1 / t7"));
    let none = service.page("/decisions?user_id=nobody").await.body;
    assert!(none.contains("No decision matches: User: nobody."), "{none}");
    let wrong = service.page("/decisions?before=x").await;
    assert!(wrong.body.contains("before: Must be the next_before"), "{}", wrong.body);
    let typed = service.page("/decisions?since=10:31&user_id=u1").await;
    assert_eq!(typed.status, if typed.body.is_empty() { 303 } else { 200 });
    if let Some(place) = typed.header("location") {
        assert!(place.starts_with("/decisions?user_id=u1&since=2"), "{place}");
    }
    service.stop().await;
}

#[tokio::test]
async fn what_strangers_send_is_text() {
    let service = Service::start();
    let nasty =
        ["<script>alert(1)</script>", "\\\"><img src=x onerror=alert(1)>", "\\u202eevil\\u0000", "{{7*7}}"];
    for text in nasty {
        let user = callback("t1").replace("\"u1\"", &format!("\"{text}\""));
        service.post("plain", &user).await;
        service.post("plain", &user.replace("APPROVE", "HOLD")).await;
    }
    for path in [
        "/",
        "/decisions",
        "/refusals",
        "/refusals/1",
        "/refusals/2",
        "/decisions/1",
        "/decisions/2",
        "/why?q=t1",
    ] {
        let page = service.page(path).await.body;
        assert!(!page.contains("<script>") && !page.contains("<img"), "{path}: {page}");
        assert!(!page.contains('\u{202e}') && !page.contains('\0'), "{path}");
    }
    service.stop().await;
}

#[tokio::test]
async fn an_export_is_an_act_and_no_formula() {
    let service = Service::start();
    service.post("plain", &callback("t1").replace("\"u1\"", "\"=cmd()\"")).await;
    let raw = service.chunked("/decisions.csv?task_id=t1").await;
    assert!(raw.contains("\u{feff}\"seq\",\"command_id\","), "{raw}");
    assert!(raw.contains("\"'=cmd()\""), "{raw}");
    assert!(service.chunked("/decisions.jsonl").await.contains("\"user_id\":\"=cmd()\""));
    assert!(service.chunked("/refusals.csv").await.contains("\"refused_at\""));
    let acts = service.ledger.acts.lock().unwrap().clone();
    assert_eq!(acts.iter().map(|act| act.kind).collect::<Vec<_>>(), [ActKind::Export; 3]);
    assert_eq!(
        acts[0].detail,
        Some(serde_json::json!({ "what": "decisions", "filter": { "task_id": "t1" } }))
    );
    service.ledger.fail(Fault::Broken);
    assert_eq!(service.page("/decisions.csv").await.status, 503, "nothing leaves unrecorded");
    service.stop().await;
}

#[tokio::test]
async fn a_ledger_that_cannot_be_read_leaves_the_rest_of_the_page() {
    let service = Service::start();
    service.ledger.fail(Fault::Broken);
    let home = service.page("/").await;
    assert_eq!(home.status, 200);
    assert!(home.body.contains("The ledger cannot be read now") && home.body.contains("countersign doctor"));
    assert!(home.body.contains("the ledger cannot be written"), "{}", home.body);
    let health = service.page("/health").await;
    assert!(health.body.contains("Not ready") && health.body.contains("id=\"fault-ledger\" class=\"lit\""));
    let list = service.page("/decisions").await;
    assert_eq!(list.status, 503);
    assert!(list.body.contains("The ledger cannot be read now"), "{}", list.body);
    service.stop().await;
}

#[tokio::test]
async fn who_wants_to_see_a_page_logs_in() {
    let service = Service::with(with_people(), idle_relay());
    for path in PAGES {
        let answer = service.page(path).await;
        let place = answer.header("location").unwrap();
        assert!(answer.status == 303 && place.starts_with("/login"), "{path} {place}");
    }
    assert_eq!(
        service.page("/acts?actor=chen").await.header("location"),
        Some("/login?next=%2Facts%3Factor%3Dchen")
    );
    assert_eq!(service.get("/live").await.status, 403);
    let form = service.page("/login?next=%2Facts").await;
    assert!(form.body.contains("name=\"next\" value=\"/acts\"") && form.body.contains("type=\"password\""));
    assert!(!form.body.contains("href=\"/decisions\""), "a stranger sees no navigation");

    let cookie = service.logged_in("fake-token-chen").await;
    let page = service.get_with("/acts", &format!("{HTML}{cookie}")).await;
    assert!(page.status == 200 && page.body.contains("chen"), "{}", page.body);
    let acts = service.ledger.acts.lock().unwrap().clone();
    let [act] = &acts[..] else { panic!("{acts:?}") };
    assert_eq!(
        (act.kind, act.by.actor.via, act.by.actor.name.as_deref()),
        (ActKind::Login, Via::Console, Some("chen"))
    );
    assert_eq!(act.by.actor.peer.as_deref(), Some("127.0.0.1"));
    assert_eq!(service.get_with("/login", &format!("{HTML}{cookie}")).await.header("location"), Some("/"));
    assert_eq!(service.get_with("/api/v1/commands", &cookie).await.status, 401, "the API takes tokens only");

    let out = service.form("/logout", &format!("{OWN}{cookie}"), "").await;
    assert_eq!((out.status, out.header("location")), (303, Some("/login")));
    assert_eq!(service.get_with("/acts", &format!("{HTML}{cookie}")).await.status, 303);
    let admin = service.logged_in("fake-admin-token").await;
    assert!(service.get_with("/", &format!("{HTML}{admin}")).await.body.contains("admin"));
    service.stop().await;
}

#[tokio::test]
async fn a_login_is_refused_where_it_could_be_read_or_is_not_ours() {
    let service = Service::with(with_people(), idle_relay());
    let body = "token=fake-token-chen&next=/";
    for headers in [
        "",
        "Origin: http://localhost:1\r\n",
        "Origin: http://localhost\r\nSec-Fetch-Site: same-site\r\n",
        "Origin: null\r\nSec-Fetch-Site: cross-site\r\n",
        "Host: evil.example\r\nOrigin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n",
        // Over plain HTTP to another machine the cookie would be dropped.
        "Host: 192.0.2.1:9090\r\nOrigin: http://192.0.2.1:9090\r\n",
        "Host: console.example\r\nOrigin: https://console.example\r\nSec-Fetch-Site: same-origin\r\n",
    ] {
        let answer = service.form("/login", headers, body).await;
        assert_eq!((answer.status, answer.header("set-cookie")), (403, None), "{headers}");
    }
    let named = "Host: countersign.localhost:9090\r\nOrigin: http://countersign.localhost:9090\r\n";
    assert_eq!(service.form("/login", named, body).await.status, 303);
    for (token, said) in
        [("fake-token-erp", "It opens no pages"), ("fake", "no token of this service"), ("", "no token")]
    {
        let answer = service.form("/login", OWN, &format!("token={token}")).await;
        assert!(answer.status == 403 && answer.body.contains(said), "{token} {}", answer.body);
    }
    for _ in 2..10 {
        assert_eq!(service.form("/login", OWN, "token=fake").await.status, 403);
    }
    let limited = service.form("/login", OWN, body).await;
    assert_eq!((limited.status, limited.header("set-cookie")), (429, None));
    service.stop().await;
}

#[tokio::test]
async fn behind_https_a_login_is_taken_at_the_public_url() {
    let mut settings = with_people();
    settings.console.public_url =
        Some(console::access::PublicUrl::parse("https://console.example/").unwrap());
    let service = Service::with(settings, idle_relay());
    let headers =
        "Host: console.example\r\nOrigin: https://console.example\r\nSec-Fetch-Site: same-origin\r\n";
    assert_eq!(service.form("/login", headers, "token=fake-token-chen").await.status, 303);
    service.stop().await;
}

#[tokio::test]
async fn a_link_from_elsewhere_finds_the_login_that_is_there() {
    let service = Service::with(with_people(), idle_relay());
    // The browser leaves a SameSite=Strict cookie out.
    let answer = service.get_with("/health?x=%22", &format!("{HTML}Sec-Fetch-Site: cross-site\r\n")).await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.body.contains("http-equiv=\"refresh\" content=\"0;url=/health?x=%22\""),
        "{}",
        answer.body
    );
    let again = service.get_with("/health", &format!("{HTML}Sec-Fetch-Site: same-origin\r\n")).await;
    assert_eq!(again.status, 303);
    service.stop().await;
}

#[tokio::test]
async fn who_may_only_look_cannot_act() {
    let service = Service::with(with_people(), idle_relay());
    let answer = service.post("plain", &callback("t1")).await;
    let id = answer.json()["data"]["command_id"].as_str().unwrap().to_owned();
    let (li4, chen) = (service.logged_in("fake-token-li4").await, service.logged_in("fake-token-chen").await);
    let page = format!("/decisions/{id}");
    let of = async |who: &str| service.get_with(&page, &format!("{HTML}{who}")).await.body;
    assert!(of(&chen).await.contains(&format!("action=\"{page}/park\"")));
    assert!(!of(&li4).await.contains("<form method=\"post\" action=\"/decisions"));
    for act in ["/park", "/requeue", "/show-again"] {
        let path = format!("{page}{act}");
        let body = "state=pending&reason=test";
        assert_eq!(service.form(&path, &format!("{OWN}{li4}"), body).await.status, 403, "{act}");
        for foreign in ["", "Origin: http://localhost:9\r\n", "Sec-Fetch-Site: same-site\r\n"] {
            assert_eq!(
                service.form(&path, &format!("{foreign}{chen}"), body).await.status,
                403,
                "{act} {foreign}"
            );
        }
        assert_eq!(service.form(&path, OWN, body).await.header("location"), Some("/login"), "{act}");
        assert_eq!(service.form(&path, &format!("{OWN}{chen}"), "state=pending&reason=").await.status, 422);
        assert_eq!(service.form(&path, &format!("{OWN}{chen}"), "state=parked&reason=x").await.status, 409);
    }
    let bulk = "state=parked&endpoint=&seqs=1&typed=1&reason=x";
    assert_eq!(service.form("/parked/requeue", &format!("{OWN}{li4}"), bulk).await.status, 403);
    assert_eq!(service.form("/parked/requeue", &chen, bulk).await.status, 403);
    let wrong = bulk.replace("typed=1", "typed=2");
    assert_eq!(service.form("/parked/requeue", &format!("{OWN}{chen}"), &wrong).await.status, 422);
    service.stop().await;
}

#[tokio::test]
async fn without_a_token_a_page_whose_name_leads_here_sees_nothing() {
    let service = Service::start();
    for path in PAGES {
        let mut connection = Connection::open(service.internal).await;
        connection.send(&format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\n{HTML}\r\n")).await;
        assert_eq!(connection.answer().await.status, 403, "{path}");
    }
    assert_eq!(service.page("/login").await.header("location"), Some("/"));
    service.stop().await;
}

#[tokio::test]
async fn live_tells_counters_and_ends_with_the_session() {
    let service = Service::with(with_people(), idle_relay());
    service.post("plain", &callback("t1")).await;
    let cookie = service.logged_in("fake-token-li4").await;
    let mut stream = Connection::open(service.internal).await;
    stream.send(&format!("GET /live HTTP/1.1\r\nHost: localhost\r\n{cookie}\r\n")).await;
    assert_eq!(stream.head().await.header("content-type"), Some("text/event-stream"));
    let heard = |stream: &Connection| String::from_utf8_lossy(&stream.received).into_owned();
    while !heard(&stream).contains("\"decisions\":1,") {
        assert!(stream.read_some().await > 0);
    }
    service.post("plain", &callback("t2")).await;
    while !heard(&stream).contains("\"decisions\":2,") {
        assert!(stream.read_some().await > 0);
    }
    assert!(!heard(&stream).contains("u1"), "counters only");
    service.form("/logout", &format!("{OWN}{cookie}"), "").await;
    eventually("the stream ends", async || {
        stream.read_some().await == 0 || heard(&stream).ends_with("0\r\n\r\n")
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn there_are_thirty_two_streams_at_the_most_and_probes_are_answered() {
    let service = Service::start();
    let mut streams = Vec::new();
    for _ in 0..32 {
        let mut stream = Connection::open(service.internal).await;
        stream.send("GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(stream.head().await.status, 200);
        streams.push(stream);
    }
    let one_more = service.get("/live").await;
    assert_eq!((one_more.status, one_more.header("retry-after")), (503, Some("30")));
    assert_eq!(service.get("/readyz").await.status, 200);
    drop(streams);
    eventually("the places are free again", async || {
        let mut stream = Connection::open(service.internal).await;
        stream.send("GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        stream.head().await.status == 200
    })
    .await;
    service.stop().await;
}

impl Service {
    /// The body of an answer in pieces, as it comes over the wire.
    async fn chunked(&self, path: &str) -> String {
        let mut connection = Connection::open(self.internal).await;
        connection.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{HTML}\r\n")).await;
        let head = connection.head().await;
        assert_eq!(head.status, 200, "{}", head.head);
        while !connection.received.ends_with(b"0\r\n\r\n") {
            assert!(connection.read_some().await > 0, "{}", String::from_utf8_lossy(&connection.received));
        }
        String::from_utf8(connection.received).unwrap()
    }
}
