//! The words of the closed lists, for people. Logs, metrics, filters and the command line say the code, so pages show it
//! beside the word. A list that grows does not compile until both languages have the new word.

use super::Phrases;
use crate::{
    command::{
        Action,
        outcome::{CardStatus, Kind},
    },
    ledger::{ActKind, OutcomeFilter, OutcomeRecord, ShowingState, State, Surface, Verdict, Why},
};

type Both = (&'static str, &'static str);

impl Phrases {
    /// Of the words in Chinese and in English, those of this language.
    pub(in crate::console) fn pick<T>(&self, chinese: T, english: T) -> T {
        if self.code == "zh" { chinese } else { english }
    }

    fn of(&self, (chinese, english): Both) -> &'static str {
        self.pick(chinese, english)
    }

    pub(in crate::console) fn state(&self, state: State) -> &'static str {
        self.of(match state {
            State::Pending => ("等待发布", "pending"),
            State::Published => ("已发布", "published"),
            State::Parked => ("已搁置", "parked"),
            State::Rejected => ("被退回", "came back"),
            State::Unrouted => ("无队列接收", "no queue"),
        })
    }

    /// What a state means.
    pub(in crate::console) fn meaning(&self, state: State) -> &'static str {
        self.of(match state {
            State::Pending => (
                "已保存，将会发布；RabbitMQ 还没有确认。",
                "It is kept and will be published; RabbitMQ has not confirmed it yet.",
            ),
            State::Published => (
                "RabbitMQ 已把它放入队列。接下来由处理程序执行。",
                "RabbitMQ has it in a queue. What happens next is up to a worker.",
            ),
            State::Parked => (
                "已保存，在运维人员重新发布之前不会发布。",
                "It is kept and is not published until an operator requeues it.",
            ),
            State::Rejected => (
                "处理程序退回了它，或者队列丢弃了它。重新发布之前没有人执行。",
                "A worker rejected it, or its queue dropped it. Nobody carries it out until it is requeued.",
            ),
            State::Unrouted => (
                "没有队列绑定它的路由键。重新发布之前没有人执行。",
                "No queue was bound for it. Nobody carries it out until it is requeued.",
            ),
        })
    }

    pub(in crate::console) fn outcome(&self, kind: Kind) -> &'static str {
        self.of(match kind {
            Kind::Applied => ("已执行", "carried out"),
            Kind::Refused => ("拒绝执行", "refused by the worker"),
            Kind::Failed => ("执行失败", "failed at the worker"),
        })
    }

    pub(in crate::console) fn outcome_filter(&self, filter: OutcomeFilter) -> &'static str {
        match filter {
            OutcomeFilter::None => self.of(("未上报", "not reported")),
            OutcomeFilter::Last(kind) => self.outcome(kind),
        }
    }

    pub(in crate::console) fn showing(&self, state: ShowingState) -> &'static str {
        self.of(match state {
            ShowingState::Nothing => ("无需展示", "nothing to show"),
            ShowingState::Waiting => ("等待展示", "waiting to be shown"),
            ShowingState::Shown => ("已展示", "shown"),
            ShowingState::Parked => ("无法展示", "not shown"),
        })
    }

    /// What became of a decision that a worker has reported on.
    pub(in crate::console) fn became(&self, outcome: &OutcomeRecord) -> String {
        let done = self.of(match outcome.outcome {
            Kind::Applied => ("处理程序已经执行", "The worker has carried it out"),
            Kind::Refused => {
                ("处理程序拒绝执行，决定没有生效", "The worker refused, so the decision has no effect")
            }
            Kind::Failed => (
                "处理程序执行失败；之后成功时会再次上报",
                "The worker failed; it reports again if it succeeds later",
            ),
        });
        let is_shown = |place: &Option<crate::ledger::ShowingRecord>| {
            place.as_ref().is_some_and(|place| place.state == ShowingState::Shown)
        };
        let shown = self.of(match outcome.showing {
            ShowingState::Nothing => ("。", "."),
            ShowingState::Waiting => ("。结果正在等待展示。", ". The outcome waits to be shown."),
            ShowingState::Shown if is_shown(&outcome.card) => {
                ("。结果已展示在卡片上。", ". The card shows the outcome.")
            }
            ShowingState::Shown => ("。结果已展示在审批中心。", ". The approval center shows the outcome."),
            ShowingState::Parked => (
                "。审批中心没有接受处理结果，审批人看不到。",
                ". The approval center did not accept the outcome: the approver does not see it.",
            ),
        });
        format!("{done}{shown}")
    }

    pub(in crate::console) fn surface(&self, surface: Surface) -> &'static str {
        self.of(match surface {
            Surface::Card => ("卡片", "card"),
            Surface::Instance => ("审批实例", "instance"),
        })
    }

    pub(in crate::console) fn status(&self, status: CardStatus) -> &'static str {
        self.of(match status {
            CardStatus::Approved => ("已同意", "approved"),
            CardStatus::Rejected => ("已拒绝", "rejected"),
            CardStatus::Cancelled => ("已撤回", "cancelled"),
            CardStatus::Forwarded => ("已转交", "forwarded"),
            CardStatus::Rollback => ("已退回", "rolled back"),
            CardStatus::Add => ("已加签", "approver added"),
            CardStatus::Deleted => ("已删除", "deleted"),
            CardStatus::Processed => ("已处理", "processed"),
            CardStatus::Custom => ("自定义", "custom"),
        })
    }

    pub(in crate::console) fn action(&self, action: Action) -> &'static str {
        self.of(match action {
            Action::Approve => ("同意", "approve"),
            Action::Reject => ("拒绝", "reject"),
            Action::Custom => ("自定义", "custom"),
        })
    }

    pub(in crate::console) fn act_of(&self, kind: ActKind) -> &'static str {
        self.of(match kind {
            ActKind::Requeue => ("重新发布", "requeue"),
            ActKind::Park => ("搁置", "park"),
            ActKind::ShowAgain => ("再次展示", "show again"),
            ActKind::Register => ("登记上下文", "register contexts"),
            ActKind::Unregister => ("注销上下文", "remove a context"),
            ActKind::RemoveStrays => ("删除无主消息", "remove strays"),
            ActKind::Prune => ("清理", "prune"),
            ActKind::Reload => ("重新加载", "reload"),
            ActKind::Login => ("登录", "log in"),
            ActKind::Export => ("导出", "export"),
        })
    }

    pub(in crate::console) fn verdict_of(&self, verdict: Verdict) -> &'static str {
        self.of(match verdict {
            Verdict::Seen => ("看得到", "seen"),
            Verdict::Ended => ("已结束", "ended"),
            Verdict::Untellable => ("无法核对", "cannot be told"),
            Verdict::Unseen => ("仍待审批", "still pending"),
            Verdict::NotFound => ("找不到", "not found"),
            Verdict::Contradicted => ("结果相反", "contradicted"),
            Verdict::Unpublished => ("尚未发布", "not published"),
        })
    }

    /// Why a command came back.
    pub(in crate::console) fn why_back(&self, why: Why) -> &'static str {
        self.of(match why {
            Why::Rejected => ("处理程序退回", "a worker rejected it"),
            Why::DeliveryLimit => ("投递次数过多", "it was delivered too often"),
            Why::Expired => ("在队列里过期", "it expired in the queue"),
            Why::Overflowed => ("队列已满", "the queue was full"),
            Why::Unrouted => ("没有队列接收", "no queue was bound for it"),
        })
    }

    /// A reason of refusals. They are the intake's, so a test compares this list with it.
    pub(in crate::console) fn reason_of(&self, reason: &str) -> Option<&'static str> {
        Some(self.of(match reason {
            "unauthenticated" => ("未通过认证", "not authenticated"),
            "malformed" => ("格式错误", "malformed"),
            "action_not_allowed" => ("操作不允许", "action not allowed"),
            "definition_not_allowed" => ("审批定义不允许", "definition not allowed"),
            "context_invalid" => ("上下文无效", "invalid context"),
            "context_expired" => ("上下文过期", "expired context"),
            "operator_not_allowed" => ("不是审批人", "not an approver"),
            "conflicting" => ("与之前的决定相反", "contradicts an earlier decision"),
            "declined" => ("处理程序未执行", "declined by the worker"),
            "body_too_large" => ("请求体过大", "body too large"),
            "too_slow" => ("请求太慢", "too slow"),
            "rate_limited" => ("超过限制", "over a limit"),
            "overloaded" => ("系统繁忙", "overloaded"),
            "ledger_unavailable" => ("账本不可用", "ledger unavailable"),
            "shutting_down" => ("正在停止", "shutting down"),
            "not_found" => ("路径不对", "no such path"),
            "method_not_allowed" => ("不是 POST", "not a POST"),
            _ => return None,
        }))
    }

    /// What to do about a refusal.
    pub(in crate::console) fn remedy_of(&self, reason: &str) -> Option<&'static str> {
        Some(self.of(match reason {
            "unauthenticated" => (
                "如果来自审批中心：核对审批定义和机器人消息里的 token、key 与接入点的凭据是否一致（countersign doctor）。来自其他人：无需处理。",
                "From the approval center: compare token and key of the definition and of the bot message with the endpoint's credentials (countersign doctor). From anybody else: nothing to do.",
            ),
            "malformed" => (
                "原因指明了字段。如果是审批中心发来的，说明它的格式变了：请反馈。",
                "The cause names the field. If the approval center sent it, its format has changed: report it.",
            ),
            "action_not_allowed" => (
                "把该操作加入接入点或上下文的 actions，或者从 action_configs 中去掉该按钮。",
                "Add the action to actions of the endpoint or of the context, or leave its button out of action_configs.",
            ),
            "definition_not_allowed" => (
                "把该审批定义的编码加入接入点的 approval_codes。",
                "Add the definition's code to approval_codes of the endpoint.",
            ),
            "context_invalid" => (
                "核对任务或机器人消息的 action_context 与接入点的 context 配置；countersign context verify 可以读取 JWT。",
                "Compare the action_context of the task or bot message with context of the endpoint; countersign context verify reads a JWT.",
            ),
            "context_expired" => (
                "卡片或任务超过了上下文允许的时间：请重新发送，并给出更晚的过期时间。",
                "The card or task was older than its context permits: send it again, with a later expiry.",
            ),
            "operator_not_allowed" => (
                "上下文只允许其他人：核对其 operators 与任务的审批人。",
                "The context permits others: compare its operators with the task's assignee.",
            ),
            "conflicting" => (
                "之前有一个相反的决定。请确认以哪一个为准。",
                "An earlier decision says the opposite. Look there which one counts.",
            ),
            "declined" => (
                "决定已保存，处理程序表示不会或不能执行。请与业务系统确认。",
                "The decision is kept, and the worker said that it will not or could not do it. Ask the owners of the business system.",
            ),
            "body_too_large" => (
                "如果要接受这样的请求体，请调大 http.max_body_bytes。",
                "Raise http.max_body_bytes if such bodies are to pass.",
            ),
            "too_slow" => (
                "检查网络和 countersign 前面的代理；时限是 http.body_read_timeout_ms。",
                "Check the network and the proxies in front of countersign; http.body_read_timeout_ms is the limit.",
            ),
            "rate_limited" => (
                "原因指明了是哪个限制。如果所有回调都经过代理，请在 http.trusted_proxies 中写明。",
                "The cause names the limit. If all callbacks come through a proxy, name it in http.trusted_proxies.",
            ),
            "overloaded" => (
                "账本所在磁盘跟不上负载：用 countersign bench disk 测量。",
                "The ledger's disk is too slow for the load: countersign bench disk measures it.",
            ),
            "ledger_unavailable" => {
                ("检查日志和账本所在磁盘：countersign doctor。", "Check the log and the ledger's disk: countersign doctor.")
            }
            "shutting_down" => (
                "countersign 当时正在重启：审批人可以再点一次。",
                "countersign was being restarted: the approver may press again.",
            ),
            "not_found" | "method_not_allowed" => {
                ("不是回调：没有人点击按钮。无需处理。", "Not a callback: nobody pressed a button. Nothing to do.")
            }
            _ => return None,
        }))
    }

    /// A member of what is known of an act.
    pub(in crate::console) fn member(&self, name: &str) -> Option<&'static str> {
        Some(self.of(match name {
            "what" => ("内容", "what"),
            "filter" => ("筛选条件", "filter"),
            "created" => ("新登记", "created"),
            "replaced" => ("替换", "replaced"),
            "context" => ("上下文", "context"),
            "ids" => ("编号", "ids"),
            "received_before" => ("接收早于", "received before"),
            "result" => ("结果", "result"),
            "faults" => ("错误", "faults"),
            "endpoints_added" => ("新增接入点", "endpoints added"),
            "endpoints_removed" => ("移除接入点", "endpoints removed"),
            "changed" => ("变更的配置项", "changed keys"),
            "restart_needed" => ("需要重启的配置项", "keys that need a restart"),
            "decisions" => ("决定", "decisions"),
            "refusals" => ("未受理的回调", "refusals"),
            "applied" => ("已生效", "applied"),
            "rejected" => ("失败", "failed"),
            _ => return None,
        }))
    }
}
