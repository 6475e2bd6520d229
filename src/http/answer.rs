//! Turns a receipt or a refusal into an HTTP answer: status, body and log level.
//!
//! The platform shows `message` to the approver if the status is above 400 and `without_prefix` is the text `"true"`
//! (platform.md#callback-answers). 400 itself is not used: the platform's own pages disagree on it, and in practice
//! approvers got no feedback.

use std::{fmt::Write, sync::LazyLock};

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    http::{
        StatusCode,
        header::{CONTENT_TYPE, HeaderValue},
    },
    web::Bytes,
};
use serde::Serialize;
use tracing::Level;

use crate::command::CommandId;
use crate::intake::{Disposition, Kept, Locale, PROBE_WORD, Refusal, Response};

/// How a refusal is answered and logged.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Always above 400. 4xx: the sender's side must change something. 503: the same callback may be accepted later.
    pub status: StatusCode,
    /// The member `code` of the body. A code is stable and never reused for another reason.
    pub code: u32,
    /// Error if this service or a dependency needs attention.
    pub level: Level,
    zh: &'static str,
    en: &'static str,
    ja: &'static str,
}

impl Rule {
    /// The rule for this refusal. The only table of statuses, codes, levels and sentences.
    #[must_use]
    pub fn of(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unauthenticated => Self {
                status: StatusCode::FORBIDDEN,
                code: 40300,
                level: Level::WARN,
                zh: "审批系统无法确认该操作的来源，请联系管理员。",
                en: "The approval system could not verify this action. Please contact your administrator.",
                ja: "承認システムがこの操作を確認できませんでした。管理者にご連絡ください。",
            },
            Refusal::Malformed => Self {
                status: StatusCode::UNPROCESSABLE_ENTITY,
                code: 42200,
                level: Level::WARN,
                zh: "审批系统无法识别提交的内容，请联系管理员。",
                en: "The approval system could not read what was submitted. Please contact your administrator.",
                ja: "承認システムが送信内容を読み取れませんでした。管理者にご連絡ください。",
            },
            Refusal::ActionNotAllowed => Self {
                status: StatusCode::UNPROCESSABLE_ENTITY,
                code: 42201,
                level: Level::WARN,
                zh: "此处不支持该操作，请到业务系统中处理。",
                en: "This action is not available here. Please use the business system instead.",
                ja: "ここではこの操作を行えません。業務システムで処理してください。",
            },
            Refusal::DefinitionNotAllowed => Self {
                status: StatusCode::FORBIDDEN,
                code: 40301,
                level: Level::WARN,
                zh: "该审批流程未开通快捷审批，请到业务系统中处理。",
                en: "Quick approval is not enabled for this process. Please use the business system instead.",
                ja: "この承認フローはクイック承認の対象外です。業務システムで処理してください。",
            },
            Refusal::ContextInvalid => Self {
                status: StatusCode::UNPROCESSABLE_ENTITY,
                code: 42202,
                level: Level::WARN,
                zh: "无法确定对应的审批任务，请到业务系统中处理。",
                en: "The task could not be identified. Please decide it in the business system.",
                ja: "対象の承認タスクを特定できません。業務システムで処理してください。",
            },
            Refusal::ContextExpired => Self {
                status: StatusCode::GONE,
                code: 41000,
                level: Level::WARN,
                zh: "该审批操作已过期，请到业务系统中查看最新状态。",
                en: "This request has expired. Please check the current state in the business system.",
                ja: "この承認依頼は期限切れです。業務システムで最新の状態をご確認ください。",
            },
            Refusal::OperatorNotAllowed => Self {
                status: StatusCode::FORBIDDEN,
                code: 40302,
                level: Level::WARN,
                zh: "您不是该任务的审批人，如有疑问请联系管理员。",
                en: "You are not an approver of this task. If in doubt, contact your administrator.",
                ja: "このタスクの承認者ではありません。ご不明な点は管理者にご連絡ください。",
            },
            Refusal::Conflicting => Self {
                status: StatusCode::CONFLICT,
                code: 40900,
                level: Level::WARN,
                zh: "您已对该任务作出不同的决定，请到业务系统中核对。",
                en: "You have already decided this task differently. Please check it in the business system.",
                ja: "このタスクには別の判断が登録済みです。業務システムでご確認ください。",
            },
            // The worker's decision, not a fault of the callback.
            Refusal::Declined => Self {
                status: StatusCode::CONFLICT,
                code: 40901,
                level: Level::INFO,
                zh: "业务系统未能执行该审批，请到业务系统中查看原因。",
                en: "The business system did not carry this out. Please look there for the reason.",
                ja: "業務システムで処理されませんでした。理由は業務システムでご確認ください。",
            },
            Refusal::BodyTooLarge => Self {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                code: 41300,
                level: Level::WARN,
                zh: "提交的内容过大，请缩短意见或减少附件后重试。",
                en: "The submission is too large. Please shorten the comment or remove files and try again.",
                ja: "送信内容が大きすぎます。コメントや添付を減らして再度お試しください。",
            },
            Refusal::TooSlow => Self {
                status: StatusCode::REQUEST_TIMEOUT,
                code: 40800,
                level: Level::WARN,
                zh: "提交未能及时完成，请稍后重试。",
                en: "The submission did not arrive in time. Please try again in a moment.",
                ja: "送信が時間内に完了しませんでした。しばらくしてから再度お試しください。",
            },
            Refusal::RateLimited => Self {
                status: StatusCode::TOO_MANY_REQUESTS,
                code: 42900,
                level: Level::WARN,
                zh: "提交过于频繁，请稍后重试；若仍失败请联系管理员。",
                en: "Too many submissions from this source. Please try again later or contact your administrator.",
                ja: "送信が多すぎます。後ほど再度お試しいただくか、管理者にご連絡ください。",
            },
            Refusal::Overloaded => Self {
                status: StatusCode::SERVICE_UNAVAILABLE,
                code: 50300,
                level: Level::ERROR,
                zh: "系统繁忙，请稍后重试。",
                en: "The approval system is busy. Please try again in a moment.",
                ja: "システムが混み合っています。しばらくしてから再度お試しください。",
            },
            Refusal::LedgerUnavailable => Self {
                status: StatusCode::SERVICE_UNAVAILABLE,
                code: 50301,
                level: Level::ERROR,
                zh: "系统暂时无法受理，请稍后重试；若仍失败请联系管理员。",
                en: "The approval system cannot take decisions now. Try again later or contact your administrator.",
                ja: "現在受け付けできません。後ほど再度お試しいただくか、管理者にご連絡ください。",
            },
            // An operator requested this: no alert.
            Refusal::ShuttingDown => Self {
                status: StatusCode::SERVICE_UNAVAILABLE,
                code: 50302,
                level: Level::WARN,
                zh: "系统正在重启，请稍后重试。",
                en: "The approval system is restarting. Please try again in a moment.",
                ja: "システムを再起動しています。しばらくしてから再度お試しください。",
            },
        }
    }

    /// The sentence for the approver: what happened and what to do, short enough for a phone.
    #[must_use]
    pub fn sentence(self, locale: Locale) -> &'static str {
        match locale {
            Locale::Zh => self.zh,
            Locale::En => self.en,
            Locale::Ja => self.ja,
        }
    }
}

/// The body of a refusal, with members in the order of `openapi.yaml`.
#[derive(Serialize)]
struct RefusalBody<'a> {
    code: u32,
    msg: &'static str,
    message: &'a str,
    /// A string, not a bool: the platform expects one.
    without_prefix: &'static str,
    /// The kept command, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<KeptData>,
}

#[derive(Serialize)]
struct KeptData {
    command_id: CommandId,
    status: &'static str,
}

const LOCALES: [Locale; 3] = [Locale::Zh, Locale::En, Locale::Ja];

/// Rendered once, in declaration order, which a test checks.
static REFUSALS: LazyLock<Vec<[Bytes; LOCALES.len()]>> = LazyLock::new(|| {
    let rendered = Refusal::ALL.iter().map(|&refusal| {
        let rule = Rule::of(refusal);
        LOCALES.map(|locale| render(refusal, rule.sentence(locale), None))
    });
    rendered.collect()
});

fn render(refusal: Refusal, sentence: &str, kept: Option<&Kept>) -> Bytes {
    let body = RefusalBody {
        code: Rule::of(refusal).code,
        msg: refusal.as_str(),
        message: sentence,
        without_prefix: "true",
        data: kept.map(|kept| KeptData { command_id: kept.command_id, status: kept_word(kept) }),
    };
    rendered(&body)
}

fn rendered(body: &RefusalBody<'_>) -> Bytes {
    Bytes::from(serde_json::to_vec(body).expect("a struct of numbers and texts always renders"))
}

/// The body of a refusal with the service's own sentence.
#[must_use]
pub fn refusal_body(refusal: Refusal, locale: Locale) -> Bytes {
    REFUSALS[refusal as usize][locale as usize].clone()
}

/// The word for a kept callback in answers, logs and metrics.
#[must_use]
pub fn kept_word(kept: &Kept) -> &'static str {
    if kept.duplicate { "duplicate" } else { "accepted" }
}

/// The status of an answer to a probe.
pub const PROBE_STATUS: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;

/// The body of an answer to a probe.
///
/// Not a success, because 200 means kept. An integrator who gives a button this action by mistake learns that nothing
/// was decided.
#[must_use]
pub fn probe_body(locale: Locale) -> Bytes {
    let body = RefusalBody {
        code: 42203,
        msg: PROBE_WORD,
        message: match locale {
            Locale::Zh => "这只是一次连通性检查，未作出任何决定。",
            Locale::En => "This was only a connection check. Nothing was decided.",
            Locale::Ja => "これは接続確認です。判断は登録されていません。",
        },
        without_prefix: "true",
        data: None,
    };
    rendered(&body)
}

fn kept_body(kept: &Kept) -> Bytes {
    let mut body = String::with_capacity(128);
    // Neither ids nor words need escaping.
    write!(
        body,
        r#"{{"code":0,"msg":"success","data":{{"command_id":"{}","status":"{}"}}}}"#,
        kept.command_id,
        kept_word(kept)
    )
    .expect("writing to a String cannot fail");
    Bytes::from(body)
}

/// The answer to a callback whose body was read completely.
///
/// The connection closes after a stranger is refused. The server's header timeout covers only the first request of a
/// connection, so a stranger does not get a second one.
#[must_use]
pub fn response(answered: &Response) -> HttpResponse {
    match &answered.outcome {
        Disposition::Kept(kept) => json(StatusCode::OK).body(kept_body(kept)),
        Disposition::Probed => json(PROBE_STATUS).body(probe_body(answered.locale)),
        Disposition::Refused(refusal) => {
            let mut response = json(Rule::of(*refusal).status);
            if *refusal == Refusal::Unauthenticated {
                response.force_close();
            }
            response.body(match (&answered.sentence, &answered.kept) {
                (None, None) => refusal_body(*refusal, answered.locale),
                (sentence, kept) => {
                    let sentence = sentence.as_deref();
                    let sentence = sentence.unwrap_or_else(|| Rule::of(*refusal).sentence(answered.locale));
                    render(*refusal, sentence, kept.as_ref())
                }
            })
        }
    }
}

/// Starts a JSON answer. All answers of this listener have the same headers.
pub(super) fn json(status: StatusCode) -> HttpResponseBuilder {
    let mut response = HttpResponse::build(status);
    response.insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_place_in_the_rendered_table() {
        for (place, refusal) in Refusal::ALL.iter().copied().enumerate() {
            assert_eq!(refusal as usize, place, "{refusal:?}");
        }
        for (place, locale) in LOCALES.into_iter().enumerate() {
            assert_eq!(locale as usize, place, "{locale:?}");
        }
    }

    #[test]
    fn statuses_are_above_400_and_codes_begin_with_them() {
        let mut seen = std::collections::HashSet::new();
        for &refusal in Refusal::ALL {
            let rule = Rule::of(refusal);
            assert!(rule.status.as_u16() > 400, "{refusal:?}");
            assert_eq!(rule.code / 100, u32::from(rule.status.as_u16()), "{refusal:?}");
            assert!(seen.insert(rule.code), "{refusal:?} shares its code");
        }
    }

    #[test]
    fn sentences_fit_on_a_phone_and_differ() {
        for locale in LOCALES {
            let limit = if locale == Locale::En { 120 } else { 60 };
            let mut seen = std::collections::HashSet::new();
            for &refusal in Refusal::ALL {
                let sentence = Rule::of(refusal).sentence(locale);
                let length = sentence.chars().count();
                assert!((5..=limit).contains(&length), "{refusal:?} {locale:?} has {length} characters");
                assert!(seen.insert(sentence), "{refusal:?} {locale:?} says what another says");
            }
        }
    }

    #[test]
    fn the_documents_have_every_refusal_with_its_status_and_its_sentences() {
        let read = |page: &str| {
            std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).expect(page)
        };
        for folder in ["docs", "docs/zh-CN"] {
            let faults = read(&format!("{folder}/faults.md"));
            let questions = read(&format!("{folder}/approval-center.md"));
            for &refusal in Refusal::ALL {
                let (word, rule) = (refusal.as_str(), Rule::of(refusal));
                let status = format!("| `{word}` | {} |", rule.status.as_u16());
                let sentences = format!("| `{word}` | {} | {} | {} |", rule.zh, rule.en, rule.ja);
                for line in [status, sentences] {
                    assert!(faults.contains(&line), "{folder}/faults.md lacks {line}");
                }
                assert!(questions.contains(&format!("`{word}`")), "{folder}/approval-center.md lacks {word}");
            }
        }
        let reference = read("src/config/default.toml");
        for refusal in Refusal::OF_AUTHENTICATED {
            let line = format!("\n# {} = \"…\"", refusal.as_str());
            assert!(reference.contains(&line), "default.toml lacks{line}");
        }
    }

    #[test]
    fn a_refusal_has_exactly_the_members_of_the_contract() {
        let body = refusal_body(Refusal::TooSlow, Locale::En);
        assert_eq!(
            std::str::from_utf8(&body).unwrap(),
            r#"{"code":40800,"msg":"too_slow","message":"The submission did not arrive in time. Please try again in a moment.","without_prefix":"true"}"#
        );
    }
}
