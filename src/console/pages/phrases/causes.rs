//! Causes in Chinese. The ledger keeps them in English, as logs and the command line say them, so a page translates by
//! the whole text. A test reads the sources that causes come from, and fails when this table lacks one of their texts.

use super::Phrases;

/// A cause as it is kept, and in Chinese. `{}` stands for what differs, in the same order.
pub(super) const CAUSES: &[(&str, &str)] = &[
    // The body and its token.
    ("the body is empty", "请求体为空"),
    ("the body is compressed (gzip); callbacks must be uncompressed", "请求体经过压缩（gzip）；回调不能压缩"),
    (
        "the body is compressed (Content-Encoding: {}); callbacks must be uncompressed",
        "请求体经过压缩（Content-Encoding: {}）；回调不能压缩",
    ),
    ("the body is not UTF-8", "请求体不是 UTF-8"),
    ("the body is not one JSON object", "请求体不是一个 JSON 对象"),
    (
        "a url_verification challenge of the open platform, not an approval callback: this URL belongs in action_callback_url, not in the app's settings of events and callbacks",
        "这是开放平台的 url_verification 验证请求，不是审批回调：该 URL 应填在 action_callback_url，而不是应用的“事件与回调”设置里",
    ),
    (
        "a card callback of the open platform, not an approval callback: this URL belongs in action_callback_url, not in the app's settings of events and callbacks",
        "这是开放平台的卡片回调，不是审批回调：该 URL 应填在 action_callback_url，而不是应用的“事件与回调”设置里",
    ),
    (
        "an event of the open platform, not an approval callback: this URL belongs in action_callback_url, not in the app's settings of events and callbacks",
        "这是开放平台的事件，不是审批回调：该 URL 应填在 action_callback_url，而不是应用的“事件与回调”设置里",
    ),
    ("encrypt is given more than once", "encrypt 出现了多次"),
    ("encrypt is not a string", "encrypt 不是字符串"),
    (
        "the body is not encrypted, but the endpoint has an action_callback_key",
        "请求体没有加密，但接入点配置了 action_callback_key",
    ),
    (
        "the body is encrypted, but the endpoint has no action_callback_key",
        "请求体经过加密，但接入点没有配置 action_callback_key",
    ),
    ("encrypt is not standard base64", "encrypt 不是标准的 base64"),
    ("encrypt is not an IV and whole blocks: its length is wrong", "encrypt 不是 IV 加上整数个块：长度不对"),
    ("no configured action_callback_key decrypts it", "配置的 action_callback_key 都无法解密"),
    (
        "an action_callback_key decrypts it, but the padding is not PKCS#7 of 16-byte blocks",
        "用 action_callback_key 解密成功，但填充不是 16 字节块的 PKCS#7",
    ),
    (
        "an action_callback_key decrypts it, but the plaintext is compressed (gzip)",
        "用 action_callback_key 解密成功，但明文经过压缩（gzip）",
    ),
    (
        "an action_callback_key decrypts it, but the plaintext is not UTF-8",
        "用 action_callback_key 解密成功，但明文不是 UTF-8",
    ),
    (
        "an action_callback_key decrypts it, but the plaintext is not one JSON object",
        "用 action_callback_key 解密成功，但明文不是一个 JSON 对象",
    ),
    ("the token is missing", "没有 token"),
    ("the token is wrong", "token 不正确"),
    (
        "an action_callback_key decrypts it, but the token is missing",
        "用 action_callback_key 解密成功，但没有 token",
    ),
    (
        "an action_callback_key decrypts it, but the token is wrong",
        "用 action_callback_key 解密成功，但 token 不正确",
    ),
    (
        "an action_callback_key decrypts it, but the token is that of another credential",
        "用 action_callback_key 解密成功，但 token 属于另一对凭据",
    ),
    ("no such endpoint", "没有这个接入点"),
    (
        "no such path: callbacks go to /callbacks/{endpoint}",
        "没有这个路径：回调的路径是 /callbacks/{endpoint}",
    ),
    // The fields.
    ("action_type is not among the actions of the endpoint", "action_type 不在接入点的 actions 之中"),
    ("action_type is missing", "没有 action_type"),
    ("user_id is missing: no approver is named", "没有 user_id：不知道审批人是谁"),
    (
        "approval_code is not among the approval_codes of the endpoint",
        "approval_code 不在接入点的 approval_codes 之中",
    ),
    ("{} is not a text of characters", "{} 不是有效字符组成的文本"),
    ("{} is not a text", "{} 不是文本"),
    ("{} is not a string or an integer", "{} 不是字符串或整数"),
    ("{} is not a 64-bit integer, or its digits as a string", "{} 不是 64 位整数，也不是写成字符串的整数"),
    ("{} is not a list", "{} 不是数组"),
    ("an attachment is not an object", "某个附件不是对象"),
    ("{} is not an object", "{} 不是对象"),
    ("{} is longer than {} bytes", "{} 超过 {} 字节"),
    ("{} holds a control character", "{} 里有控制字符"),
    ("more than {} attachments", "附件超过 {} 个"),
    ("nested deeper than {}", "嵌套超过 {} 层"),
    ("an object with more than {} members", "有一个对象的成员超过 {} 个"),
    ("a member name occurs twice in one object", "同一个对象里有重复的成员名"),
    ("a string holds an escape that is not a character", "字符串里有不是字符的转义"),
    ("a number is out of range", "有一个数字超出范围"),
    ("contradicts {}", "与之前的决定相反：{}"),
    ("kept as {}; a worker reported refused: {}", "决定已保存（{}）；处理程序拒绝执行：{}"),
    ("kept as {}; a worker reported refused", "决定已保存（{}）；处理程序拒绝执行"),
    ("kept as {}; a worker reported failed: {}", "决定已保存（{}）；处理程序执行失败：{}"),
    ("kept as {}; a worker reported failed", "决定已保存（{}）；处理程序执行失败"),
    // The context.
    ("no configured format fits the context", "上下文不符合任何一种配置的格式"),
    ("the context and the callback disagree on the instance", "action_context 里的实例与回调里的实例不一致"),
    ("the context and the callback disagree on the task", "action_context 里的任务与回调里的任务不一致"),
    (
        "the context and the callback disagree on the definition",
        "action_context 里的审批定义与回调里的审批定义不一致",
    ),
    ("the context has expired", "上下文已过期"),
    ("the operator is not among those that the context permits", "操作人不在上下文允许的审批人之中"),
    ("the action is not among those that the context permits", "操作不在上下文允许的操作之中"),
    ("the context is for another endpoint", "上下文是给另一个接入点的"),
    (
        "the token has blanks, quotes, a byte order mark or other characters that do not show before or behind it",
        "上下文（JWT）前后有空格、引号、BOM 或其他不可见字符",
    ),
    ("a claim is no identifier", "上下文（JWT）里有一个声明不是有效的 id"),
    ("the token's data is beyond the limits of a callback", "上下文（JWT）的 data 超过回调的限制"),
    ("the token names no task", "上下文（JWT）没有指明任务"),
    ("the token has no header", "上下文（JWT）没有头部"),
    (
        "the token's crit asks for extensions that are not known here",
        "上下文（JWT）的 crit 要求这里不认识的扩展",
    ),
    ("the token has no kid, and there are several keys", "上下文（JWT）没有 kid，而配置了多个密钥"),
    ("the token's kid is not configured", "没有配置上下文（JWT）的 kid"),
    ("the token's algorithm is not that of its key", "上下文（JWT）的算法与密钥的算法不同"),
    ("the token cannot be read", "上下文（JWT）无法读取"),
    ("the token's signature is wrong", "上下文（JWT）的签名不正确"),
    ("the token's typ is not the one that is configured", "上下文（JWT）的 typ 与配置的不同"),
    ("the token's iss is not among those that are configured", "上下文（JWT）的 iss 不在配置的之中"),
    ("the token's aud names none of those that are configured", "上下文（JWT）的 aud 没有配置的任何一个"),
    ("the token does not count yet", "上下文（JWT）还没有生效"),
    ("the token's {} is not a number of seconds since 1970", "上下文（JWT）的 {} 不是自 1970 年起的秒数"),
    (
        "the token's {} looks like milliseconds, and a JWT counts seconds since 1970",
        "上下文（JWT）的 {} 像是毫秒，而 JWT 用自 1970 年起的秒数",
    ),
    ("the token's {} lies beyond the year 9999", "上下文（JWT）的 {} 在 9999 年之后"),
    (
        "the token has neither round nor jti, of which jwt.require asks for one",
        "上下文（JWT）没有 round 也没有 jti，jwt.require 要求有其一",
    ),
    ("the token has no {}, which jwt.require asks for", "上下文（JWT）没有 jwt.require 要求的 {}"),
    // The request.
    ("announced by Content-Length", "由 Content-Length 得知"),
    ("not complete in time", "没有在时限内收完"),
    ("ended before it was complete", "没有收完就断开了"),
    ("longer than the limit", "超过长度上限"),
    ("in too many small pieces", "分成了太多小块"),
    (
        "unread bytes of all connections exceed http.max_unread_bytes",
        "所有连接未读的字节数超过 http.max_unread_bytes",
    ),
    ("the peer exceeded http.rate_limit_per_peer", "该来源地址超过了 http.rate_limit_per_peer"),
    ("the peer has spent http.failure_budget_per_peer", "该来源地址用完了 http.failure_budget_per_peer"),
    ("the peer is not in http.allowed_peers", "该来源地址不在 http.allowed_peers 之中"),
    ("the peer reached http.max_connections_per_peer", "该来源地址达到了 http.max_connections_per_peer"),
    (
        "a health check, not a callback: point it at /livez or /readyz of the internal listener, or have it only open a connection",
        "这是健康检查，不是回调：请让它检查内部监听端口的 /livez 或 /readyz，或者只建立连接",
    ),
    (
        "a browser, not a callback: the approval center sends callbacks by POST, and nothing can be read here",
        "这是浏览器，不是回调：审批中心用 POST 发送回调，这里没有可看的内容",
    ),
    ("not a callback: the approval center sends callbacks by POST", "这不是回调：审批中心用 POST 发送回调"),
    ("the ledger's writer queue is full", "账本的写入队列已满"),
    ("the ledger's disk is low on space", "账本所在磁盘空间不足"),
    (
        "the ledger's server does not keep commits as ledger.durability demands",
        "账本的服务器没有按 ledger.durability 的要求保存提交",
    ),
    ("the ledger cannot store anything now", "账本现在无法保存任何内容"),
    // What operators and RabbitMQ did to a command.
    ("parked by an operator", "由运维人员搁置"),
    ("requeued by an operator", "由运维人员重新发布"),
    ("asked for by an operator", "由运维人员要求"),
    (
        "restored from a backup: it may have been published since. requeue publishes it with the same message_id",
        "从备份恢复：之后可能已经发布过。重新发布时 message_id 不变",
    ),
    ("returned by the broker after it was confirmed: {}", "RabbitMQ 确认之后又退回，原文：“{}”"),
    ("the broker ended the session over it: {}", "RabbitMQ 因为它断开了会话，原文：“{}”"),
    // A worker's report.
    (
        "it names the instance {}, not the one of its command; endpoints.outcomes.instance_pattern can permit others",
        "它指明的实例是 {}，不是命令的实例；endpoints.outcomes.instance_pattern 可以允许其他实例",
    ),
    (
        "it names the instance {}, but its command names none; endpoints.outcomes.instance_pattern can permit some",
        "它指明了实例 {}，而命令没有指明；endpoints.outcomes.instance_pattern 可以允许一些实例",
    ),
    (
        "it names the definition {}, not the one of its command; add it to endpoints.outcomes.approval_codes if it is the real code of the same definition",
        "它指明的审批定义是 {}，不是命令的审批定义；如果是同一审批定义的真实编码，请加入 endpoints.outcomes.approval_codes",
    ),
    (
        "its instance has {}: a worker may not set where the platform sends decisions",
        "它的实例里有 {}：处理程序不能设置平台把决定发往哪里",
    ),
    (
        "a link of the instance points to {}, which is not in endpoints.outcomes.link_hosts",
        "实例的链接指向 {}，不在 endpoints.outcomes.link_hosts 之中",
    ),
    (
        "a link of a task points to {}, which is not in endpoints.outcomes.link_hosts",
        "任务的链接指向 {}，不在 endpoints.outcomes.link_hosts 之中",
    ),
    (
        "a link of a carbon copy points to {}, which is not in endpoints.outcomes.link_hosts",
        "抄送的链接指向 {}，不在 endpoints.outcomes.link_hosts 之中",
    ),
    // A filter.
    (
        "\"{}\" is not a time such as 10:42, \"yesterday 10:42\", \"2 h ago\", 2026-11-20, \"2026-11-20 10:42\" or 2026-11-20T10:42:00+08:00.",
        "“{}”不是时间；写法如 10:42、昨天 10:42、2026-11-20 10:42",
    ),
    (
        "\"{}\" is not a time of RFC 3339 with its offset, such as 2026-11-20T10:42:00+08:00.",
        "“{}”不是带时差的 RFC 3339 时间，例如 2026-11-20T10:42:00+08:00",
    ),
    ("\"{}\" is a date or a time of day that does not exist.", "“{}”是不存在的日期或时刻"),
    (
        "\"{}\" is a number, but too small for milliseconds since 1970, which have 12 or 13 digits.",
        "“{}”是数字，但作为自 1970 年起的毫秒数太小，后者有 12 或 13 位",
    ),
    ("\"{}\" lies beyond the year 9999, or before the year 0.", "“{}”在 9999 年之后，或者在 0 年之前"),
    ("\"{}\" is not an offset from UTC such as +08:00 or -05:30.", "“{}”不是与 UTC 的时差，写法如 +08:00"),
    ("Is {}, which is in the future.", "是 {}，还没有到"),
    ("Cannot be given with `since` or `until`.", "不能与 since 或 until 同时给出"),
    ("Unknown parameter.", "未知的查询参数"),
    ("Must be one of: {}.", "只能是其中之一：{}"),
    ("The id of a card's message is a number.", "卡片的 message_id 是数字"),
    ("Must be the next_before of the previous page.", "只能是上一页给出的 next_before"),
    ("Must be a number from 1 to {}.", "只能是 1 到 {} 的数字"),
    ("Is not a UUID.", "不是 UUID"),
];

/// What a text has in the places of `{}`, if it is this pattern from end to end.
fn holes<'a>(pattern: &str, text: &'a str) -> Option<Vec<&'a str>> {
    let mut parts = pattern.split("{}");
    let mut rest = text.strip_prefix(parts.next()?)?;
    let mut parts = parts.peekable();
    let mut found = Vec::new();
    while let Some(part) = parts.next() {
        let end = if parts.peek().is_none() {
            rest.ends_with(part).then(|| rest.len() - part.len())?
        } else {
            rest.find(part)?
        };
        if end == 0 {
            return None;
        }
        found.push(&rest[..end]);
        rest = &rest[end + part.len()..];
    }
    rest.is_empty().then_some(found)
}

fn filled(pattern: &str, holes: &[&str]) -> String {
    let mut parts = pattern.split("{}");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for (part, hole) in parts.zip(holes) {
        text.push_str(hole);
        text.push_str(part);
    }
    text
}

/// What a filter adds to a time with a blank.
const HINT: (&str, &str) = ("; write a `+` in it as %2B.", "；其中的“+”要写成 %2B");

/// In Chinese; `None` if it is in somebody else's words.
fn in_chinese(kept: &str) -> Option<String> {
    if let Some(before) = kept.strip_suffix(HINT.0) {
        return Some(in_chinese(&format!("{before}."))? + HINT.1);
    }
    CAUSES.iter().find_map(|(english, chinese)| holes(english, kept).map(|holes| filled(chinese, &holes)))
}

impl Phrases {
    /// A cause that is kept in English, in the language of the page. Words of others, such as RabbitMQ's, are quoted.
    pub(in crate::console) fn cause(&self, kept: &str) -> String {
        self.pick(None, Some(kept))
            .map(str::to_owned)
            .or_else(|| in_chinese(kept))
            .unwrap_or_else(|| format!("原文：“{kept}”"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::pages::phrases::Language;

    #[test]
    fn a_cause_is_told_in_the_language_of_the_page() {
        let (zh, en) = (Language::Zh.phrases(), Language::En.phrases());
        for (kept, told) in [
            ("the context has expired", "上下文已过期"),
            ("kept as 1; a worker reported refused: 预算不足", "决定已保存（1）；处理程序拒绝执行：预算不足"),
            ("task_id is longer than 512 bytes", "task_id 超过 512 字节"),
            ("an attachment is not an object", "某个附件不是对象"),
            ("312 NO_ROUTE", "原文：“312 NO_ROUTE”"),
            ("", "原文：“”"),
        ] {
            assert_eq!(zh.cause(kept), told);
            assert_eq!(en.cause(kept), kept);
        }
    }

    #[test]
    fn no_cause_is_hidden_by_an_earlier_one() {
        for (at, (english, chinese)) in CAUSES.iter().enumerate() {
            assert_eq!(english.matches("{}").count(), chinese.matches("{}").count(), "{english}");
            let kept = english.replace("{}", "x");
            let first = CAUSES.iter().position(|(pattern, _)| holes(pattern, &kept).is_some());
            assert_eq!(first, Some(at), "{english}");
        }
    }
}
