//! The demo: a third party with tasks and cards, in front of a real service that the command line has started.

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::{
    Emulator, api::Ask, definitions, instances, messages, taps::Arrived, tenant::Tenant, values::now_ms,
};

/// What the demo's worker does with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It reports `applied`.
    Applied,
    /// It reports `refused`.
    Refused,
    /// It reports `failed`.
    Failed,
    /// It reports nothing.
    Silent,
}

impl Manner {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Applied, Self::Refused, Self::Failed, Self::Silent];

    /// The word of a report; `silent` for none.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Silent => "silent",
        }
    }

    /// The manner of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|manner| manner.as_str() == word)
    }
}

/// How the page reaches the rest of the demo.
#[derive(Debug)]
pub struct Demo {
    /// URL of the public listener, without a slash at its end.
    pub callbacks: String,
    /// URL of the internal listener, without a slash at its end.
    pub console: String,
    /// What the worker does with the next commands.
    pub manner: watch::Sender<Manner>,
    /// Reports that somebody wants about a command that the worker has.
    pub orders: mpsc::UnboundedSender<(Arrived, Manner)>,
    /// Whether the relay may reach the broker.
    pub valve: watch::Sender<bool>,
    /// Whether the relay is connected.
    pub connected: watch::Receiver<bool>,
    /// Token and key of the demo's endpoints: fakes, made for this run.
    pub token: String,
    /// See `token`.
    pub key: String,
    /// Signs contexts for the endpoint `signed`.
    pub signing_secret: String,
}

/// The demo's definition, by its custom code.
pub const DEFINITION: &str = "DEMO_PURCHASE";

/// The endpoints of the demo's service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DemoEndpoint {
    /// Contexts with a round.
    Purchase,
    /// Contexts without a round: a window tells repeats.
    Leave,
    /// The answer waits for the worker; a contradiction is refused.
    Waiting,
    /// Contexts are signed.
    Signed,
}

impl DemoEndpoint {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Purchase => "purchase",
            Self::Leave => "leave",
            Self::Waiting => "waiting",
            Self::Signed => "signed",
        }
    }
}

/// What is bought.
pub(super) struct Order {
    pub(super) goods: &'static str,
    pub(super) en: &'static str,
    pub(super) amount: &'static str,
}

/// A card as the demo's third party sends it.
pub(super) struct Wanted<'a> {
    pub(super) endpoint: DemoEndpoint,
    pub(super) user: &'a str,
    /// What the card becomes by itself.
    pub(super) next_status: bool,
    /// In place of the usual context.
    pub(super) context: Option<String>,
}

impl Emulator {
    /// Saves the demo's definition; returns its real code. Before the service is there, it leads nowhere.
    ///
    /// # Panics
    /// Never: the definition is ours.
    #[must_use]
    pub fn define_demo(&self) -> String {
        define(&mut self.tenant(), None)
    }

    /// Begins the demo: three tasks and two cards.
    pub fn begin_demo(&self, demo: Demo) {
        {
            let mut tenant = self.tenant();
            define(&mut tenant, Some(&demo));
            for (user, rows) in [
                ("zhang3", Order { goods: "办公椅 × 10", en: "office chair × 10", amount: "3,980" }),
                ("zhang3", Order { goods: "笔记本电脑 × 2", en: "laptop × 2", amount: "15,600" }),
                ("li4", Order { goods: "打印纸 × 20", en: "paper × 20", amount: "2,400" }),
            ] {
                new_task(&mut tenant, user, &rows);
            }
            for next_status in [false, true] {
                let wanted =
                    Wanted { endpoint: DemoEndpoint::Purchase, user: "zhang3", next_status, context: None };
                new_card(&mut tenant, &demo, &wanted);
            }
        }
        self.demo.set(demo).ok();
        self.changed();
    }

    /// The instance that a command names as the demo's third party has it after the decision, in the form of
    /// `POST external_instances`.
    #[must_use]
    pub fn decided(&self, instance_id: &str, task_id: &str, approved: bool) -> Option<Value> {
        let tenant = self.tenant();
        let instance = tenant.instance(instance_id)?;
        let status = if approved { "APPROVED" } else { "REJECTED" };
        let mut body = instance.body.clone();
        let mut tasks = instance.tasks.clone();
        for task in tasks.iter_mut().filter(|task| task["task_id"] == task_id) {
            task["status"] = status.into();
            task["end_time"] = now_ms().to_string().into();
            task["update_time"] = "0".into();
        }
        body["status"] = status.into();
        body["end_time"] = now_ms().to_string().into();
        body["task_list"] = tasks.into();
        body["cc_list"] = instance.carbons.clone().into();
        // countersign finds one that the center does not ignore.
        body["update_time"] = "0".into();
        Some(body)
    }
}

fn ask(body: Value) -> Ask {
    Ask { id: String::new(), query: Vec::new(), body }
}

fn define(tenant: &mut Tenant, demo: Option<&Demo>) -> String {
    let url = demo.map(|demo| format!("{}/callbacks/{}", demo.callbacks, DemoEndpoint::Purchase.as_str()));
    let saved = definitions::save(
        tenant,
        &ask(json!({
            "approval_name": "@i18n@name", "approval_code": DEFINITION, "group_code": "demo", "group_name": "@i18n@group",
            "viewers": [{ "viewer_type": "TENANT" }],
            "external": {
                "biz_name": "@i18n@name", "support_pc": true, "support_mobile": true, "enable_quick_operate": true,
                "action_callback_url": url,
                "action_callback_token": demo.map(|demo| &demo.token), "action_callback_key": demo.map(|demo| &demo.key),
            },
            "i18n_resources": [
                { "locale": "zh-CN", "is_default": true, "texts": [
                    { "key": "@i18n@name", "value": "采购审批" }, { "key": "@i18n@group", "value": "演示" }] },
                { "locale": "en-US", "texts": [
                    { "key": "@i18n@name", "value": "Purchase" }, { "key": "@i18n@group", "value": "Demo" }] },
            ],
        })),
    );
    let saved = saved.expect("the demo's definition is one that the platform takes");
    saved["approval_code"].as_str().unwrap_or_default().to_owned()
}

/// A number for the next order.
fn order(tenant: &mut Tenant) -> u64 {
    tenant.orders += 1;
    76 + tenant.orders
}

/// Submits a purchase whose one task is this user's; returns its instance and task.
pub(super) fn new_task(tenant: &mut Tenant, user: &str, bought: &Order) -> (String, String) {
    let id = format!("PO-{}", order(tenant));
    let task_id = format!("{id}-n1");
    let code = tenant.definitions.iter().find(|definition| definition.custom_code == DEFINITION);
    let code = code.map(|definition| definition.real_code.clone()).unwrap_or_default();
    let now = now_ms().to_string();
    let link = json!({ "pc_link": format!("https://erp.example.com/{id}") });
    let by = if user == "li4" { "wang5" } else { "li4" };
    let form = json!([
        { "name": "@i18n@goods", "value": "@i18n@bought" }, { "name": "@i18n@amount", "value": "@i18n@price" },
        { "name": "@i18n@supplier", "value": "@i18n@acme" },
    ]);
    let synced = instances::sync(
        tenant,
        &ask(json!({
            "approval_code": code, "instance_id": id, "status": "PENDING", "links": link, "title": "@i18n@title",
            "user_id": by, "form": form, "start_time": now, "end_time": "0", "update_time": now, "update_mode": "UPDATE",
            "task_list": [{
                "task_id": task_id, "user_id": user, "links": link, "status": "PENDING", "create_time": now,
                "end_time": "0", "update_time": now, "node_id": "n1", "node_name": "@i18n@node",
                "action_context": context(&id, &task_id),
                "action_configs": [{ "action_type": "APPROVE" }, { "action_type": "REJECT", "is_need_reason": true }],
            }],
            "i18n_resources": [
                { "locale": "zh-CN", "is_default": true, "texts": [
                    { "key": "@i18n@title", "value": format!("采购单 {id}") }, { "key": "@i18n@node", "value": "部门经理" },
                    { "key": "@i18n@goods", "value": "物品" }, { "key": "@i18n@bought", "value": bought.goods },
                    { "key": "@i18n@amount", "value": "金额" }, { "key": "@i18n@price", "value": format!("{} 元", bought.amount) },
                    { "key": "@i18n@supplier", "value": "供应商" }, { "key": "@i18n@acme", "value": "ACME" }] },
                { "locale": "en-US", "texts": [
                    { "key": "@i18n@title", "value": format!("Purchase order {id}") },
                    { "key": "@i18n@node", "value": "Manager" },
                    { "key": "@i18n@goods", "value": "Item" }, { "key": "@i18n@bought", "value": bought.en },
                    { "key": "@i18n@amount", "value": "Amount" }, { "key": "@i18n@price", "value": format!("CNY {}", bought.amount) },
                    { "key": "@i18n@supplier", "value": "Supplier" }, { "key": "@i18n@acme", "value": "ACME" }] },
            ],
        })),
    );
    if let Err(refused) = synced {
        tracing::error!(code = refused.code, "the demo's instance is refused");
    }
    (id, task_id)
}

fn context(instance_id: &str, task_id: &str) -> String {
    json!({ "instance": instance_id, "task": task_id, "round": 1 }).to_string()
}

/// Sends a card with two buttons about a new order; returns its message id.
pub(super) fn new_card(tenant: &mut Tenant, demo: &Demo, wanted: &Wanted<'_>) -> Option<u64> {
    let id = format!("PO-{}", order(tenant));
    let task_id = format!("{id}-n1");
    let url = format!("https://erp.example.com/{id}");
    let context = wanted.context.clone().unwrap_or_else(|| match wanted.endpoint {
        DemoEndpoint::Leave => json!({ "instance": id, "task": task_id }).to_string(),
        _ => context(&id, &task_id),
    });
    let context = context.replace("{instance}", &id).replace("{task}", &task_id);
    let mut approve = json!({ "action_type": "APPROVE" });
    let mut reject = json!({ "action_type": "REJECT", "is_need_reason": true });
    if wanted.next_status {
        (approve["next_status"], reject["next_status"]) = ("APPROVED".into(), "REJECTED".into());
    }
    let sent = messages::send(
        tenant,
        &ask(json!({
            "template_id": "1008", "user_id": wanted.user, "approval_name": "@i18n@name",
            "content": { "user_id": "li4", "summaries": [{ "summary": "@i18n@number" }, { "summary": "@i18n@amount" }] },
            "actions": [{ "action_name": "DETAIL", "url": url, "android_url": url, "ios_url": url, "pc_url": url }],
            "action_configs": [approve, reject],
            "action_callback": {
                "action_callback_url": format!("{}/callbacks/{}", demo.callbacks, wanted.endpoint.as_str()),
                "action_callback_token": demo.token, "action_callback_key": demo.key, "action_context": context,
            },
            "i18n_resources": [
                { "locale": "zh-CN", "is_default": true, "texts": {
                    "@i18n@name": "采购审批", "@i18n@number": format!("单号 {id}"), "@i18n@amount": "金额 10 元" } },
                { "locale": "en-US", "texts": {
                    "@i18n@name": "Purchase", "@i18n@number": format!("Number {id}"), "@i18n@amount": "Amount CNY 10" } },
            ],
        })),
    );
    let sent = sent.ok()?;
    sent["message_id"].as_str()?.parse().ok()
}
