//! The scenarios.

use std::time::Duration;

use futures_util::{FutureExt, future::join};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::{
    super::{
        demo::{DemoEndpoint, Manner},
        press::{DONE, TOO_LATE},
        tenant::Planned,
        values::now_ms,
    },
    Scenario, Words,
    stage::{APPROVE, REJECT, Stage},
};

/// Longer than the window of the demo's endpoints, which is 2 s so that nobody has to wait a minute.
const WINDOW_IS_OVER: Duration = Duration::from_millis(2500);

const fn words(zh: &'static str, en: &'static str) -> Words {
    Words { zh, en }
}

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "double-tap",
        title: words("连点两次", "Double tap"),
        lesson: words(
            "两次回调得到同一个 command_id，第二次是 duplicate；处理程序只收到一条命令。",
            "Both callbacks get the same command_id, the second is a duplicate, and the worker gets one command.",
        ),
        needs_broker: true,
        seconds: 1,
        play: |stage| double_tap(stage).boxed_local(),
    },
    Scenario {
        name: "approve-then-reject",
        title: words("先同意，再拒绝", "Approve, then reject"),
        lesson: words(
            "默认两个决定都保留，后一条命令用 conflicts_with 指出前一条；on_conflict = \"refuse\" 时答 409。",
            "By default both are kept, and the later command names the earlier one in conflicts_with; with on_conflict = \"refuse\" the answer is 409.",
        ),
        needs_broker: true,
        seconds: 1,
        play: |stage| approve_then_reject(stage).boxed_local(),
    },
    Scenario {
        name: "strangers",
        title: words("密钥错误、token 错误、末字节被改", "Wrong key, wrong token, flipped last byte"),
        lesson: words(
            "三种情况的应答逐字节相同：应答不会告诉陌生人错在哪里。",
            "Three answers of identical bytes: an answer tells a stranger nothing about what was wrong.",
        ),
        needs_broker: false,
        seconds: 1,
        play: |stage| strangers(stage).boxed_local(),
    },
    Scenario {
        name: "slow-answer",
        title: words("应答太慢", "Slow answer"),
        lesson: words(
            "审批人看到提交失败，但决定已经保留；再点一次得到 duplicate。平台等 10 秒，这里只等 1 秒。",
            "The approver sees a failure, but the decision is kept; another tap is a duplicate. The platform waits for 10 s, here it is 1 s.",
        ),
        needs_broker: true,
        seconds: 6,
        play: |stage| slow_answer(stage).boxed_local(),
    },
    Scenario {
        name: "replay",
        title: words("隔一段时间后重放", "Replay after a while"),
        lesson: words(
            "上下文带轮次时永远是 duplicate；不带轮次时只在去重窗口（dedupe_window）内是，之后是一条新命令，并用 repeats 指出前一条。去重窗口通常是 60 秒，这里是 2 秒。",
            "With a round it is a duplicate for ever; without one only within a window, and later a new command that names the first in repeats. The window is usually 60 s, here 2 s.",
        ),
        needs_broker: true,
        seconds: 4,
        play: |stage| replay(stage).boxed_local(),
    },
    Scenario {
        name: "signed-contexts",
        title: words("伪造、过期、不是审批人", "Forged, expired, foreign operator"),
        lesson: words(
            "签名的上下文（JWT）会被逐项检查，审批人看到三句不同的话；没有签名的上下文挡不住冒名的审批人。",
            "A signed context (JWT) is held to what it says, and the approver reads three sentences; an unsigned one lets a foreign operator pass.",
        ),
        needs_broker: false,
        seconds: 1,
        play: |stage| signed_contexts(stage).boxed_local(),
    },
    Scenario {
        name: "broker-away",
        title: words("RabbitMQ 不可用", "Broker away"),
        lesson: words(
            "照常答 200，命令在账本里等待；RabbitMQ 恢复后发布。",
            "The answer is 200 all the same, the command waits in the ledger, and is published when the broker is back.",
        ),
        needs_broker: true,
        seconds: 3,
        play: |stage| broker_away(stage).boxed_local(),
    },
    Scenario {
        name: "worker-refuses",
        title: words("处理程序拒绝，审批人当场看到", "The worker refuses, and the approver hears it"),
        lesson: words(
            "配置 answer.wait 后，应答等待处理程序；审批人看到的就是它的话。",
            "With answer.wait the answer waits for the worker, and the approver reads its words.",
        ),
        needs_broker: true,
        seconds: 1,
        play: |stage| worker_refuses(stage).boxed_local(),
    },
    Scenario {
        name: "center-refuses",
        title: words("审批中心限流或不接受", "The center limits calls, or refuses them"),
        lesson: words(
            "限流（429）时，结果等待后重试；审批中心不接受的结果会搁置，由运维人员再次展示。",
            "An outcome that the center limits (429) waits and is shown later; one that it refuses is parked until an operator shows it again.",
        ),
        needs_broker: true,
        seconds: 5,
        play: |stage| center_refuses(stage).boxed_local(),
    },
    Scenario {
        name: "no-next-status",
        title: words("没有 next_status", "No next_status"),
        lesson: words(
            "发卡片时没有写 next_status，提交成功后卡片仍然显示按钮，直到有人更新它。",
            "A card that was sent without next_status keeps its buttons after a success until somebody updates it.",
        ),
        needs_broker: false,
        seconds: 1,
        play: |stage| no_next_status(stage).boxed_local(),
    },
];

const FIRST_ANSWER: Words = words("第一次的应答", "answer to the first");
const SECOND_ANSWER: Words = words("第二次的应答", "answer to the second");
const CARD: Words = words("卡片", "card");
const READS: Words = words("审批人看到", "the approver reads");

async fn double_tap(stage: &mut Stage) -> Result<(), String> {
    let card = stage.card(DemoEndpoint::Purchase, false)?;
    let (one, other) = (stage.tap(card, APPROVE)?, stage.tap(card, APPROVE)?);
    let (one, other) = join(stage.send(one), stage.send(other)).await;
    // Whichever was faster.
    let is_first = stage.answer(one)? == "200 accepted";
    let (first, second) = if is_first { (one, other) } else { (other, one) };
    stage.check(FIRST_ANSWER, "200 accepted", stage.answer(first)?, first);
    stage.check(SECOND_ANSWER, "200 duplicate", stage.answer(second)?, second);
    let id = stage.command_id(first)?;
    stage.check(
        words("第二次的 command_id", "command_id of the second"),
        id,
        stage.command_id(second)?,
        second,
    );
    let shown = stage.shown_at_last(card, "APPROVED").await;
    stage.check(CARD, "APPROVED", shown, first);
    let commands = [first, second]
        .iter()
        .filter(|tap| stage.of(**tap, |tap| tap.command.is_some()).unwrap_or_default())
        .count();
    stage.check(words("处理程序收到的命令", "commands at the worker"), "1", commands.to_string(), first);
    Ok(())
}

async fn approve_then_reject(stage: &mut Stage) -> Result<(), String> {
    let card = stage.card(DemoEndpoint::Purchase, false)?;
    let (approve, reject) = (stage.tap(card, APPROVE)?, stage.tap(card, REJECT)?);
    let approve = stage.send(approve).await;
    let reject = stage.send(reject).await;
    stage.check(FIRST_ANSWER, "200 accepted", stage.answer(approve)?, approve);
    stage.check(SECOND_ANSWER, "200 accepted", stage.answer(reject)?, reject);
    let named = stage.member(reject, "conflicts_with").await?;
    stage.check(
        words("第二条命令的 conflicts_with", "conflicts_with of the second"),
        stage.command_id(approve)?,
        named,
        reject,
    );

    let card = stage.card(DemoEndpoint::Waiting, false)?;
    let (approve, reject) = (stage.tap(card, APPROVE)?, stage.tap(card, REJECT)?);
    let approve = stage.send(approve).await;
    let reject = stage.send(reject).await;
    stage.check(
        words("on_conflict = \"refuse\"：第一次", "on_conflict = \"refuse\": the first"),
        "200 accepted",
        stage.answer(approve)?,
        approve,
    );
    stage.check(
        words("on_conflict = \"refuse\"：第二次", "on_conflict = \"refuse\": the second"),
        "409 conflicting",
        stage.answer(reject)?,
        reject,
    );
    Ok(())
}

async fn strangers(stage: &mut Stage) -> Result<(), String> {
    let card = stage.card(DemoEndpoint::Purchase, false)?;
    let mut bodies = Vec::new();
    for (what, spoil) in [
        (words("密钥错误", "wrong key"), 0),
        (words("token 错误", "wrong token"), 1),
        (words("末字节被改", "flipped last byte"), 2),
    ] {
        let mut tap = stage.tap(card, APPROVE)?;
        tap.request = match spoil {
            0 => tap.request.under_wrong_key(),
            1 => tap.request.with_token("not-the-token"),
            _ => tap.request.with_flipped_byte(),
        };
        // The bytes of a stranger, who is not the platform: the card does not turn.
        tap.source = super::super::taps::Source::Forged;
        let tap = stage.send(tap).await;
        stage.check(what, "403 unauthenticated", stage.answer(tap)?, tap);
        bodies.push((tap, stage.body(tap)?));
    }
    let (first, others) = bodies.split_first().ok_or("nothing was sent")?;
    for (tap, body) in others {
        stage.check(words("应答的字节", "bytes of the answer"), first.1.clone(), body.clone(), *tap);
    }
    Ok(())
}

async fn slow_answer(stage: &mut Stage) -> Result<(), String> {
    stage.manner(Manner::Silent)?;
    let card = stage.card(DemoEndpoint::Waiting, false)?;
    let (mut first, second) = (stage.tap(card, APPROVE)?, stage.tap(card, APPROVE)?);
    first.patience_ms = 1000;
    let first = stage.send(first).await;
    stage.check(FIRST_ANSWER, "none", stage.answer(first)?, first);
    stage.check(READS, TOO_LATE, stage.read(first)?, first);
    let action = stage.member(first, "action").await?;
    stage.check(words("处理程序收到的决定", "decision at the worker"), "approve", action, first);
    let second = stage.send(second).await;
    stage.check(SECOND_ANSWER, "200 duplicate", stage.answer(second)?, second);
    stage.check(READS, "提交成功", stage.read(second)?, second);
    Ok(())
}

async fn replay(stage: &mut Stage) -> Result<(), String> {
    let mut first = Vec::new();
    for endpoint in [DemoEndpoint::Purchase, DemoEndpoint::Leave] {
        let card = stage.card(endpoint, false)?;
        let tap = stage.tap(card, APPROVE)?;
        first.push(stage.send(tap).await);
    }
    let [with_round, without] = first[..] else { return Err("nothing was sent".to_owned()) };
    tokio::time::sleep(WINDOW_IS_OVER).await;
    let again = stage.replay(with_round).await?;
    stage.check(
        words("带轮次：重放", "with a round: the replay"),
        "200 duplicate",
        stage.answer(again)?,
        again,
    );
    let again = stage.replay(without).await?;
    stage.check(words("不带轮次：重放", "without: the replay"), "200 accepted", stage.answer(again)?, again);
    let named = stage.member(again, "repeats").await?;
    stage.check(words("不带轮次：repeats", "without: repeats"), stage.command_id(without)?, named, again);
    Ok(())
}

fn signed(secret: &str, claims: &Value) -> Result<String, String> {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key)
        .map_err(|error| format!("cannot sign: {error}"))
}

async fn signed_contexts(stage: &mut Stage) -> Result<(), String> {
    let secret = stage.demo()?.signing_secret.clone();
    let claims = |instance: &str, seconds: i64| {
        json!({
            "instance_id": instance, "task_id": format!("{instance}-n1"), "round": 1, "operators": ["zhang3"],
            "exp": now_ms() / 1000 + seconds,
        })
    };
    let mark = now_ms();
    let forger = "another secret of the same length ..";
    for (number, (what, expected, sentence, secret, seconds, user)) in [
        (words("有效的签名", "soundly signed"), "200 accepted", DONE, &*secret, 3600, None),
        (
            words("伪造的签名", "forged"),
            "422 context_invalid",
            "无法确定对应的审批任务，请到业务系统中处理。",
            forger,
            3600,
            None,
        ),
        (
            words("已过期", "expired"),
            "410 context_expired",
            "该审批操作已过期，请到业务系统中查看最新状态。",
            &*secret,
            -3600,
            None,
        ),
        (
            words("不是审批人", "foreign operator"),
            "403 operator_not_allowed",
            "您不是该任务的审批人，如有疑问请联系管理员。",
            &*secret,
            3600,
            Some("li4"),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let context = signed(secret, &claims(&format!("JWT-{mark}-{number}"), seconds))?;
        let card = stage.card_with(DemoEndpoint::Signed, false, Some(context))?;
        let tap = stage.tap_as(card, APPROVE, user)?;
        let tap = stage.send(tap).await;
        stage.check(what, expected, stage.answer(tap)?, tap);
        stage.check(READS, sentence, stage.read(tap)?, tap);
    }
    let card = stage.card(DemoEndpoint::Purchase, false)?;
    let tap = stage.tap_as(card, APPROVE, Some("li4"))?;
    let tap = stage.send(tap).await;
    stage.check(
        words("没有签名，冒名的审批人", "not signed, foreign operator"),
        "200 accepted",
        stage.answer(tap)?,
        tap,
    );
    Ok(())
}

async fn broker_away(stage: &mut Stage) -> Result<(), String> {
    stage.valve(false).await?;
    let card = stage.card(DemoEndpoint::Purchase, false)?;
    let tap = stage.tap(card, APPROVE)?;
    let tap = stage.send(tap).await;
    stage.check(words("应答", "answer"), "200 accepted", stage.answer(tap)?, tap);
    let path = format!("/api/v1/commands/{}", stage.command_id(tap)?);
    let state = |told: &Value| told["state"].as_str().unwrap_or("unknown").to_owned();
    let (_, told) = stage.ask(reqwest::Method::GET, &path).await?;
    stage.check(words("切断时的状态", "state while it is away"), "pending", state(&told), tap);
    stage.valve(true).await?;
    let shown = stage.shown_at_last(card, "APPROVED").await;
    stage.check(CARD, "APPROVED", shown, tap);
    let (_, told) = stage.ask(reqwest::Method::GET, &path).await?;
    stage.check(words("恢复后的状态", "state afterwards"), "published", state(&told), tap);
    Ok(())
}

async fn worker_refuses(stage: &mut Stage) -> Result<(), String> {
    stage.manner(Manner::Refused)?;
    let card = stage.card(DemoEndpoint::Waiting, false)?;
    let tap = stage.tap(card, APPROVE)?;
    let tap = stage.send(tap).await;
    stage.check(words("应答", "answer"), "409 declined", stage.answer(tap)?, tap);
    let said = stage.of(tap, |tap| tap.report.as_ref().and_then(|report| report.message.clone()))?;
    stage.check(READS, said.unwrap_or_default(), stage.read(tap)?, tap);
    Ok(())
}

async fn center_refuses(stage: &mut Stage) -> Result<(), String> {
    const UPDATE: &str = "/message/update";
    let planned = |times, status, code| Planned {
        path: UPDATE.to_owned(),
        times,
        status,
        code,
        msg: "by the scenario".to_owned(),
        reset_seconds: Some(1),
    };
    stage.plan(planned(2, 429, 99_991_400));
    let card = stage.card(DemoEndpoint::Purchase, false)?;
    let tap = stage.tap(card, APPROVE)?;
    let tap = stage.send(tap).await;
    let shown = stage.shown_at_last(card, "APPROVED").await;
    stage.check(words("限流两次后的卡片", "card after two limits"), "APPROVED", shown, tap);
    stage.check(words("剩余的限流次数", "limits left"), "0", stage.failures_left().to_string(), tap);

    // A code that means nothing good: it is not tried again.
    stage.plan(planned(1, 200, 60_001));
    let card = stage.card(DemoEndpoint::Purchase, false)?;
    let tap = stage.tap(card, APPROVE)?;
    let tap = stage.send(tap).await;
    let path = format!("/api/v1/commands/{}", stage.command_id(tap)?);
    let mut showing = String::new();
    // The service tells nobody when it parks an outcome, so it is asked.
    for _ in 0..100 {
        let (_, told) = stage.ask(reqwest::Method::GET, &path).await?;
        told["outcome"]["showing"].as_str().unwrap_or("none").clone_into(&mut showing);
        if showing == "parked" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stage.check(words("审批中心没有接受的结果", "the refused outcome"), "parked", showing, tap);
    let (status, _) = stage.ask(reqwest::Method::POST, &format!("{path}/show-again")).await?;
    stage.check(words("再次展示", "show again"), "202", status.to_string(), tap);
    let shown = stage.shown_at_last(card, "APPROVED").await;
    stage.check(CARD, "APPROVED", shown, tap);
    Ok(())
}

async fn no_next_status(stage: &mut Stage) -> Result<(), String> {
    stage.manner(Manner::Silent)?;
    for (what, next_status, expected) in [
        (words("没有 next_status", "without next_status"), false, "BUTTONS"),
        (words("有 next_status", "with next_status"), true, "APPROVED"),
    ] {
        let card = stage.card(DemoEndpoint::Purchase, next_status)?;
        let tap = stage.tap(card, APPROVE)?;
        let tap = stage.send(tap).await;
        stage.check(READS, "提交成功", stage.read(tap)?, tap);
        stage.check(what, expected, stage.shown(card), tap);
    }
    Ok(())
}
