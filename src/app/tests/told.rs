//! What the pages say: the sentence that was sent, no fault in one place only, and in Chinese what Chinese people read.

use std::sync::atomic::Ordering;

use super::*;
use crate::{
    command::outcome::Kind,
    intake::{NO_CALLBACK, Refusal},
    ledger::{
        Accept, Actor, Heard, OrderKind, OutcomeRecord, RefusedCallback, ShowingState, Stats, Via,
        findings::Overview,
        history::{ByOperator, Event, What},
    },
    telemetry::metrics::topology::{Counts, Fault as Wrong, Problem, View},
    time::Timestamp,
};
use double::Fault;

const HTML: &str = "Accept: text/html,*/*;q=0.8\r\n";

impl Service {
    async fn seen(&self, path: &str) -> String {
        let answer = self.get_with(path, HTML).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }

    async fn seen_in_chinese(&self, path: &str) -> String {
        let answer = self.get_with(path, &format!("{HTML}Accept-Language: zh-CN\r\n")).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }
}

fn id_of(answer: &Answer) -> String {
    answer.json()["data"]["command_id"].as_str().unwrap().to_owned()
}

fn outcome(kind: Kind) -> OutcomeRecord {
    OutcomeRecord {
        outcome: kind,
        status: None,
        message: Some("预算不足".to_owned()),
        reported_at: Timestamp::now(),
        superseded: 0,
        showing: ShowingState::Nothing,
        card: None,
        instance: None,
    }
}

#[tokio::test]
async fn the_sentence_of_a_worker_is_shown_where_it_was_sent() {
    let mut settings = settings();
    settings.intake.endpoints[0].answer_wait = Some(Duration::from_secs(1));
    let service = Service::with(settings, idle_relay());
    let said = Heard { kind: Kind::Refused, message: Some("预算不足，没有执行".to_owned()) };
    *service.ledger.told.heard.lock().unwrap() = Some(said);
    let answer = service.post("plain", &callback("t1")).await;
    let (sent, id) = (answer.json()["message"].as_str().unwrap().to_owned(), id_of(&answer));
    assert_eq!(sent, "预算不足，没有执行");
    let link = format!("href=\"/decisions/{id}\"");
    for path in ["/refusals/1", "/why?q=t1"] {
        let page = service.seen_in_chinese(path).await;
        assert!(page.contains(&link), "{path} {page}");
        assert!(page.contains(&format!("决定已保存（{id}）；处理程序拒绝执行：{sent}")), "{path} {page}");
    }
    assert!(service.seen("/refusals/1").await.contains(&format!("<q>{sent}</q>")));
    assert!(service.seen_in_chinese("/why?q=t1").await.contains(&format!("审批人看到：{sent}")));
    // A worker without words: the service's own sentence was sent.
    *service.ledger.told.heard.lock().unwrap() = Some(Heard { kind: Kind::Failed, message: None });
    let answer = service.post("plain", &callback("t2")).await;
    let sent = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(service.seen("/refusals/2").await.contains(&format!("<q>{sent}</q>")), "{sent}");
    service.stop().await;
}

fn inspected(consumers: u32, faults: Vec<Wrong>) -> Option<View> {
    let counts = |consumers| Some(Counts { messages: 0, consumers });
    let queues = [counts(consumers), counts(0), counts(0), counts(1)];
    Some(View { checked_at: Timestamp::now(), queues, faults })
}

/// The faults that `/health` lights, having compared its checks, its headline and the overview with them.
async fn lit(service: &Service) -> Vec<String> {
    let (health, home) = (service.seen("/health").await, service.seen("/").await);
    let lit: Vec<_> =
        health.split("id=\"fault-").skip(1).filter_map(|row| row.split_once("\" class=\"lit\"")).collect();
    let lit: Vec<String> =
        lit.into_iter().map(|(id, _)| id.to_owned()).filter(|id| !id.contains('"')).collect();
    let checks = &health[health.find("<tbody>").unwrap()..health.find("</tbody>").unwrap()];
    let failed = checks.matches("class=\"mark bad\"").count();
    assert_eq!(failed > 0, !lit.is_empty(), "{lit:?} {health}");
    let headline = health[health.find("<p class=\"panel ").unwrap()..].split("</p>").next().unwrap();
    assert_eq!(headline.contains("class=\"panel good\""), lit.is_empty(), "{lit:?} {headline}");
    let alarms = match (home.find("<ul class=\"alarms\">"), home.find("Nothing waits for an operator.")) {
        (Some(at), None) => home[at..].split("</ul>").next().unwrap().matches("<li").count(),
        (None, Some(_)) => 0,
        // What cannot be read is told instead.
        (None, None) => 0,
        (Some(_), Some(_)) => panic!("alarms, and yet nothing to do: {home}"),
    };
    assert_eq!(alarms, lit.len(), "{lit:?} {home}");
    lit
}

#[tokio::test]
async fn a_fault_is_told_everywhere_or_nowhere() {
    let service = Service::start();
    assert_eq!(lit(&service).await, ["broker"]);
    let metrics = &service.metrics;
    metrics.relay.set_connected(true);
    metrics.topology.set(inspected(1, Vec::new()));
    assert!(lit(&service).await.is_empty());
    metrics.topology.set(inspected(0, Vec::new()));
    assert_eq!(lit(&service).await, ["workers"]);
    let health = service.seen_in_chinese("/health").await;
    assert!(
        health.contains("回调照常保存；1 项异常：没有处理程序") && health.contains("启动处理程序"),
        "{health}"
    );
    assert!(service.seen_in_chinese("/").await.contains("没有处理程序"), "the overview says so");
    let missing = Wrong { object: "queue q".to_owned(), problem: Problem::Missing };
    metrics.topology.set(inspected(1, vec![missing]));
    assert_eq!(lit(&service).await, ["topology"]);
    metrics.topology.set(None);
    assert!(lit(&service).await.is_empty());
    assert!(service.seen("/health").await.contains("not inspected yet"), "which is not the same as ok");
    metrics.topology.set(inspected(1, Vec::new()));
    metrics.relay.set_blocked(true);
    assert_eq!(lit(&service).await, ["blocked"]);
    metrics.relay.set_blocked(false);

    let told = &service.ledger.told;
    for (stats, fault) in [
        (Stats { parked: 2, ..Stats::default() }, "parked"),
        (Stats { rejected: 2, ..Stats::default() }, "rejected"),
        (Stats { unrouted: 2, ..Stats::default() }, "unrouted"),
        (Stats { outcomes_parked: 2, ..Stats::default() }, "outcomes"),
        (Stats { strays: 2, ..Stats::default() }, "strays"),
    ] {
        *told.stats.lock().unwrap() = stats;
        assert_eq!(lit(&service).await, [fault]);
    }
    *told.stats.lock().unwrap() = Stats::default();
    *told.overview.lock().unwrap() = Overview { unseen: 1, ..Overview::default() };
    assert_eq!(lit(&service).await, ["findings"]);
    *told.overview.lock().unwrap() = Overview::default();

    service.drain();
    assert_eq!(lit(&service).await, ["draining"]);
    service.leaving.store(false, Ordering::Relaxed);
    service.draining.store(false, Ordering::Relaxed);
    service.ledger.fail(Fault::Broken);
    // A probe is good for a second, so two pages may tell of two.
    let health_tells = async || service.seen("/health").await.contains("id=\"fault-ledger\" class=\"lit\"");
    eventually("the probe fails", health_tells).await;
    assert_eq!(lit(&service).await, ["ledger"]);
    service.stop().await;
}

#[tokio::test]
async fn a_decision_that_a_worker_refused_does_not_look_fine() {
    let service = Service::start();
    service.metrics.relay.set_connected(true);
    service.metrics.topology.set(inspected(1, Vec::new()));
    let id = id_of(&service.post("plain", &callback("t1")).await);
    service.ledger.publish_through(1);
    let home = service.seen("/").await;
    assert!(home.contains("Nothing waits for an operator."), "{home}");
    for (kind, word) in [(Kind::Refused, "拒绝执行"), (Kind::Failed, "执行失败")] {
        *service.ledger.told.outcome.lock().unwrap() = Some(outcome(kind));
        let code = kind.as_str();
        for path in [&*format!("/decisions/{id}"), "/decisions"] {
            let page = service.seen_in_chinese(path).await;
            let marks = "class=\"mark unknown\"><span class=\"shape\" aria-hidden=\"true\">●</span> 已发布 <code class=\"code\">published</code>";
            assert!(page.contains(marks), "{path} {page}");
            assert!(
                page.contains(&format!("</span> {word} <code class=\"code\">{code}</code>")),
                "{path} {page}"
            );
            assert!(!page.contains("class=\"mark published\""), "{path} is green: {page}");
        }
        let home = service.seen_in_chinese("/").await;
        assert!(home.contains("最近 24 小时处理程序没有执行"), "{home}");
        assert!(home.contains(&format!("href=\"/decisions?outcome={code}&#38;since=")), "{home}");
        assert!(!home.contains("没有需要运维人员处理的事项"), "{home}");
        let why = service.seen_in_chinese("/why?q=t1").await;
        assert!(why.contains("<li class=\"warn\">") && why.contains("预算不足"), "{why}");
        assert!(!why.contains("接下来由处理程序执行"), "it has been: {why}");
    }
    *service.ledger.told.outcome.lock().unwrap() = Some(outcome(Kind::Applied));
    let page = service.seen_in_chinese(&format!("/decisions/{id}")).await;
    assert!(page.contains("处理程序已经执行。") && page.contains("class=\"mark published\""), "{page}");
    assert!(!page.contains("接下来由处理程序执行"), "{page}");
    service.stop().await;
}

#[tokio::test]
async fn every_reason_has_its_word_and_its_advice_in_chinese() {
    let service = Service::start();
    let reasons: Vec<&str> = Refusal::ALL.iter().map(|one| one.as_str()).chain(NO_CALLBACK).collect();
    let list = service.seen_in_chinese("/refusals").await;
    for (number, reason) in (1..).zip(&reasons) {
        let option = format!("<option value=\"{reason}\">");
        let word = list.split(&option).nth(1).and_then(|rest| rest.split('<').next()).unwrap();
        assert!(!word.is_ascii() && word.ends_with(&format!(" ({reason})")), "{word}");
        service.ledger.refused(RefusedCallback {
            reason: (*reason).to_owned(),
            refused_at: Timestamp::now(),
            ..RefusedCallback::default()
        });
        let page = service.seen_in_chinese(&format!("/refusals/{number}")).await;
        assert!(!page.contains("<dd>未知</dd>"), "{reason} has no advice: {page}");
        assert!(page.contains(&format!("<code class=\"code\">{reason}</code>")), "{page}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_cause_is_told_in_chinese_with_what_is_kept_beside_it() {
    let service = Service::start();
    service.post("plain", &callback("t1").replace(TOKEN, "wrong")).await;
    let page = service.seen_in_chinese("/refusals/1").await;
    assert!(page.contains("token 不正确") && page.contains("the token is wrong"), "{page}");
    let english = service.seen("/refusals/1").await;
    assert_eq!(english.matches("the token is wrong").count(), 1, "{english}");
    let wrong = service.seen_in_chinese("/decisions?since=soon").await;
    assert!(wrong.contains("从：“soon”不是时间；写法如 10:42、昨天 10:42、2026-11-20 10:42"), "{wrong}");
    let unknown = service.seen_in_chinese("/decisions?nonsense=1").await;
    assert!(unknown.contains("nonsense：未知的查询参数"), "{unknown}");
    service.stop().await;
}

#[tokio::test]
async fn what_an_operator_wrote_and_a_callback_that_came_again_are_told() {
    let service = Service::start();
    let id = id_of(&service.post("plain", &callback("t1")).await);
    let at = Timestamp::now();
    *service.ledger.told.duplicates_at.lock().unwrap() = Some(vec![at, at]);
    let actor = Actor { name: Some("loopback".to_owned()), ..Actor::unnamed(Via::Console) };
    let by = ByOperator { act_id: 1, actor, reason: Some("库存冻结".to_owned()) };
    let events = [What::Accepted, What::ParkedByOperator(by)].map(|what| Event { at: Some(at), what });
    *service.ledger.told.history.lock().unwrap() = Some(events.into());
    let page = service.seen_in_chinese(&format!("/decisions/{id}")).await;
    assert!(page.contains("操作者 本机（未登录） · 控制台：库存冻结"), "{page}");
    for path in [&*format!("/decisions/{id}"), "/why?q=t1"] {
        let page = service.seen_in_chinese(path).await;
        assert!(page.contains("之后又收到 2 次相同的回调") && page.contains("超过 10 秒"), "{path} {page}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_search_that_finds_nothing_says_what_to_try() {
    let service = Service::start();
    let name = service.seen_in_chinese("/why?q=%E5%BC%A0%E4%B8%89").await;
    assert!(name.contains("请输入 user_id（如 zhang3），不是姓名。"), "{name}");
    assert_eq!(name.matches("countersign doctor").count(), 1, "{name}");
    let id = service.seen_in_chinese("/why?q=zhang3").await;
    assert!(!id.contains("不是姓名") && id.contains("countersign doctor --public-url URL"), "{id}");
    let none = service.seen_in_chinese("/decisions?state=pending&user_id=zhang3").await;
    assert!(none.contains("没有符合条件的决定：状态：等待发布、用户：zhang3。"), "{none}");
    service.stop().await;
}

#[tokio::test]
async fn a_decision_page_can_tell_that_it_has_changed() {
    let service = Service::start();
    let path = format!("/decisions/{}", id_of(&service.post("plain", &callback("t1")).await));
    let digest = async || {
        let page = service.seen(&path).await;
        page.split(" data-digest=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    let first = digest().await;
    assert_eq!(digest().await, first);
    service.ledger.publish_through(1);
    assert_ne!(digest().await, first);
    let done = service.seen(&format!("{path}?done=requeue")).await;
    assert!(done.contains("Requeued.") && !service.seen(&path).await.contains("Requeued."), "{done}");
    service.stop().await;
}

#[tokio::test]
async fn all_outcomes_that_could_not_be_shown_are_shown_again_in_one_act() {
    let service = Service::start();
    let ids = [
        id_of(&service.post("plain", &callback("t1")).await),
        id_of(&service.post("plain", &callback("t2")).await),
    ];
    let told = &service.ledger.told;
    *told.parked_showings.lock().unwrap() = vec![1, 2];
    *told.stats.lock().unwrap() = Stats { outcomes_parked: 2, ..Stats::default() };
    let parked = service.seen_in_chinese("/parked").await;
    assert!(parked.contains("<a href=\"/parked/show-again\">再次展示这 2 条处理结果</a>"), "{parked}");
    let confirm = service.seen("/parked/show-again").await;
    assert!(
        confirm.contains("action=\"/parked/show-again\"") && confirm.contains("value=\"1 2\""),
        "{confirm}"
    );
    let send = async |typed: &str| {
        let body = format!("state=&seqs=1+2&typed={typed}&reason=the+token+was+wrong");
        let head = format!(
            "POST /parked/show-again HTTP/1.1\r\nHost: localhost\r\n{HTML}Sec-Fetch-Site: same-origin\r\nOrigin: null\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut connection = Connection::open(service.internal).await;
        connection.send(&head).await;
        connection.answer().await
    };
    assert_eq!(send("3").await.status, 422);
    assert!(told.orders.lock().unwrap().is_empty(), "a wrong number does nothing");
    let done = send("2").await;
    assert_eq!(done.status, 303, "{}", done.body);
    let result = service.seen(done.header("location").unwrap()).await;
    assert!(result.contains("2 will be shown again."), "{result}");
    let orders = told.orders.lock().unwrap().clone();
    let [order] = &orders[..] else { panic!("{orders:?}") };
    assert_eq!((order.kind, order.if_state), (OrderKind::ShowAgain, None));
    assert_eq!(order.commands.iter().map(ToString::to_string).collect::<Vec<_>>(), ids);
    assert_eq!(order.by.reason.as_deref(), Some("the token was wrong"));
    service.stop().await;
}
