//! The phone: whose it is, the lists of the approval center, and the bot's cards. Real phones show at most three rows
//! and two buttons, and so does this one.

use serde_json::Value;

use super::{
    super::{
        fields::{is_absent, items, translated},
        tenant::{Card, Instance, Tenant},
    },
    look::{List, Look},
    tame,
};

const MOST_ROWS: usize = 3;
const MOST_BUTTONS: usize = 2;

/// Entries shown of a list, and cards; the newest, of cards those that wait for a decision first.
const MOST_ENTRIES: usize = 8;

pub(super) struct Phone {
    pub(super) users: Vec<Choice>,
    pub(super) lists: Vec<Choice>,
    pub(super) entries: Vec<Entry>,
    pub(super) nothing: &'static str,
    pub(super) cards: Vec<Entry>,
    pub(super) more_entries: usize,
    pub(super) more_cards: usize,
    pub(super) is_empty: bool,
}

pub(super) struct Choice {
    pub(super) value: String,
    pub(super) text: String,
    pub(super) count: Option<usize>,
    pub(super) is_chosen: bool,
}

/// A card: one of the bot's, or a task.
pub(super) struct Entry {
    /// `pending`, `approved`, `rejected` or `other`: the colour of the head.
    pub(super) tone: &'static str,
    pub(super) title: String,
    pub(super) by: String,
    pub(super) rows: Vec<(String, String)>,
    pub(super) buttons: Vec<Button>,
    /// What is shown in place of buttons.
    pub(super) status: String,
    /// The form's fields that say what is tapped.
    pub(super) fields: Vec<(&'static str, String)>,
    pub(super) asks_reason: bool,
    pub(super) needs_reason: bool,
    /// Makes ids of inputs unique.
    pub(super) key: String,
}

pub(super) struct Button {
    pub(super) action: String,
    pub(super) text: String,
    pub(super) class: &'static str,
}

pub(super) fn phone(tenant: &Tenant, look: &Look) -> Phone {
    let t = look.phrases();
    let users = tenant.people.iter().map(|person| Choice {
        value: person.user_id.clone(),
        text: tame(&person.user_id),
        count: Some(listed(tenant, &person.user_id, List::Pending).len()),
        is_chosen: person.user_id == look.user,
    });
    let lists = List::ALL.into_iter().map(|list| Choice {
        value: look.to_list(list),
        text: match list {
            List::Pending => t.pending,
            List::Done => t.done,
            List::Carbons => t.carbons,
            List::Started => t.started,
        }
        .to_owned(),
        count: (list == List::Pending).then(|| listed(tenant, &look.user, list).len()),
        is_chosen: list == look.list,
    });
    let tasks = listed(tenant, &look.user, look.list);
    let mut cards: Vec<&Card> = tenant
        .cards
        .iter()
        .rev()
        .filter(|card| tenant.user_of(&card.body).as_deref() == Some(&*look.user))
        .collect();
    // What waits for a decision first: scenarios leave many that are decided.
    cards.sort_by_key(|card| card.shown != "BUTTONS");
    Phone {
        users: users.collect(),
        lists: lists.collect(),
        nothing: if look.list == List::Pending { t.nothing_pending } else { t.nothing_here },
        is_empty: tenant.cards.is_empty() && tenant.instances.is_empty(),
        more_entries: tasks.len().saturating_sub(MOST_ENTRIES),
        more_cards: cards.len().saturating_sub(MOST_ENTRIES),
        entries: tasks
            .into_iter()
            .rev()
            .take(MOST_ENTRIES)
            .map(|(instance, task)| of_task(tenant, look, instance, task))
            .collect(),
        cards: cards.into_iter().take(MOST_ENTRIES).map(|card| of_card(look, card)).collect(),
    }
}

/// Instances, with the task if the list is one of tasks; the oldest first.
fn listed<'t>(tenant: &'t Tenant, user: &str, list: List) -> Vec<(&'t Instance, Option<&'t Value>)> {
    let visible = tenant.instances.iter().filter(|instance| instance.is_visible());
    let is_theirs = |body: &Value| tenant.user_of(body).as_deref() == Some(user);
    match list {
        List::Pending | List::Done => visible
            .flat_map(|instance| instance.tasks.iter().map(move |task| (instance, Some(task))))
            .filter(|(_, task)| task.is_some_and(is_theirs))
            .filter(|(_, task)| {
                task.is_some_and(|task| task["status"] == "PENDING") == (list == List::Pending)
            })
            .collect(),
        List::Carbons => visible
            .filter(|instance| instance.carbons.iter().any(is_theirs))
            .map(|instance| (instance, None))
            .collect(),
        List::Started => {
            visible.filter(|instance| is_theirs(&instance.body)).map(|instance| (instance, None)).collect()
        }
    }
}

fn of_task(tenant: &Tenant, look: &Look, instance: &Instance, task: Option<&Value>) -> Entry {
    let t = look.phrases();
    let locale = t.html_lang;
    let resources = &instance.body["i18n_resources"];
    let text =
        |value: &Value| tame(&translated(resources, value.as_str().unwrap_or_default(), locale_of(locale)));
    let status = task.map_or(&instance.body["status"], |task| &task["status"]);
    let status = status.as_str().unwrap_or_default();
    let rows = items(&instance.body["form"]).iter().map(|row| (text(&row["name"]), text(&row["value"])));
    let task_id = task.and_then(|task| task["task_id"].as_str()).unwrap_or_default();
    let buttons = match task {
        Some(task) if status == "PENDING" => buttons(look, &task["action_configs"], text),
        _ => Vec::new(),
    };
    let configs = task.map(|task| items(&task["action_configs"])).unwrap_or_default();
    let title = if is_absent(&instance.body["title"]) {
        tame(instance.text("instance_id"))
    } else {
        text(&instance.body["title"])
    };
    Entry {
        tone: tone(status),
        title,
        by: tenant.user_of(&instance.body).map(|user| tame(&user)).unwrap_or_default(),
        rows: rows.take(MOST_ROWS).collect(),
        status: word_of(look, status),
        fields: vec![
            ("instance_id", instance.text("instance_id").to_owned()),
            ("task_id", task_id.to_owned()),
        ],
        asks_reason: asks(configs, "is_need_reason") || asks(configs, "is_reason_required"),
        needs_reason: asks(configs, "is_reason_required"),
        key: format!(
            "task-{}-{}",
            instance.number,
            tame(task_id).replace(|c: char| !c.is_ascii_alphanumeric(), "-")
        ),
        buttons,
    }
}

fn asks(configs: &[Value], member: &str) -> bool {
    configs.iter().any(|config| config[member] == true)
}

const fn locale_of(html_lang: &str) -> &str {
    match html_lang.as_bytes() {
        b"zh-CN" => "zh-CN",
        _ => "en-US",
    }
}

fn of_card(look: &Look, card: &Card) -> Entry {
    let t = look.phrases();
    let locale = locale_of(t.html_lang);
    let texts = &card.body["i18n_resources"];
    let text = |value: &Value| tame(&of_map(texts, value.as_str().unwrap_or_default(), locale));
    let rows = items(&card.body["content"]["summaries"]).iter().map(|row| {
        let text = text(&row["summary"]);
        match text.split_once([':', '：', ' ']) {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (String::new(), text),
        }
    });
    let configs = &card.body["action_configs"];
    let has_buttons = card.shown == "BUTTONS";
    let status = match card.shown.strip_prefix("CUSTOM ") {
        Some(key) => tame(&of_map(&card.status_words, key, locale)),
        None => word_of(look, &card.shown),
    };
    let by = card.body["content"]["user_id"].as_str().unwrap_or_default();
    Entry {
        tone: if has_buttons { "pending" } else { tone(&card.shown) },
        title: text(&card.body["approval_name"]),
        by: tame(by),
        rows: rows.take(MOST_ROWS).collect(),
        buttons: if has_buttons { buttons(look, configs, text) } else { Vec::new() },
        status,
        fields: vec![("message_id", card.message_id.to_string())],
        asks_reason: asks(items(configs), "is_need_reason") || asks(items(configs), "is_reason_required"),
        needs_reason: asks(items(configs), "is_reason_required"),
        key: format!("card-{}", card.message_id),
    }
}

/// A text of a card, whose resources are maps.
fn of_map(resources: &Value, key: &str, locale: &str) -> String {
    let all = items(resources);
    all.iter()
        .filter(|resource| resource["locale"] == locale)
        .chain(all.iter().filter(|resource| resource["is_default"] == true))
        .chain(all)
        .find_map(|resource| resource["texts"][key].as_str())
        .unwrap_or(key)
        .to_owned()
}

fn buttons(look: &Look, configs: &Value, text: impl Fn(&Value) -> String) -> Vec<Button> {
    let t = look.phrases();
    items(configs)
        .iter()
        .take(MOST_BUTTONS)
        .map(|config| {
            let action = config["action_type"].as_str().unwrap_or_default();
            let (text, class) = match action {
                "APPROVE" => (t.approve.to_owned(), "approve"),
                "REJECT" => (t.reject.to_owned(), "reject"),
                _ => (text(&config["action_name"]), "other"),
            };
            Button { action: action.to_owned(), text, class }
        })
        .collect()
}

fn tone(status: &str) -> &'static str {
    match status {
        "PENDING" => "pending",
        "APPROVED" => "approved",
        "REJECTED" => "rejected",
        _ => "other",
    }
}

/// A status in the reader's words, as far as the page has one.
pub(super) fn word_of(look: &Look, status: &str) -> String {
    let t = look.phrases();
    match status {
        "APPROVED" => t.status_approved.to_owned(),
        "REJECTED" => t.status_rejected.to_owned(),
        "PROCESSED" => t.status_processed.to_owned(),
        "PENDING" => t.status_pending.to_owned(),
        "DETAIL" => t.shows_detail.to_owned(),
        "BUTTONS" => t.shows_buttons.to_owned(),
        other => tame(other.strip_prefix("CUSTOM ").unwrap_or(other)),
    }
}
