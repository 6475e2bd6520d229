//! Checks an instance before it is sent, and reports all faults. The platform reports one layer at a time
//! (platform.md#sync-answers-and-errors), and some faults not at all (platform.md#third-party-instances).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    external_instance::{ActionConfig, ExternalInstance, Links},
    lenient::Millis,
};

/// Feishu's limit; Lark's is 200 (platform.md#third-party-instances).
const MAX_TASKS: usize = 300;
const MAX_CARBONS: usize = 200;
const MAX_ACTIONS: usize = 2;

impl ExternalInstance {
    /// All faults, each with the member's name. If empty, the platform has no documented reason to refuse the instance
    /// or to show only part of it.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Faults { keys: self.default_keys(), list: Vec::new() };
        for (member, value) in [("approval_code", &self.approval_code), ("instance_id", &self.instance_id)] {
            faults.required(member, value);
        }
        faults.word("status", self.status.as_str(), self.status.is_known());
        faults.links("links", &self.links);
        faults.time("start_time", self.start_time);
        faults.time("update_time", self.update_time);
        faults.key("title", self.title.as_deref());
        faults.key("user_name", self.user_name.as_deref());
        faults.key("department_name", self.department_name.as_deref());
        for (at, row) in self.form.iter().enumerate() {
            faults.key(&format!("form[{at}].name"), Some(&row.name));
            faults.key(&format!("form[{at}].value"), Some(&row.value));
        }
        if self.user_id.is_none() && self.open_id.is_none() && self.user_name.is_none() {
            faults.add("user_id: is missing; one of user_id, open_id and user_name must name who started it");
        }
        match self.update_mode.as_deref() {
            Some("UPDATE" | "REPLACE") => {}
            Some(mode) => faults.add(format!("update_mode: {mode:?} is neither UPDATE nor REPLACE")),
            None => faults.add(
                "update_mode: is missing, and REPLACE, which deletes tasks that are not sent, is the platform's default",
            ),
        }
        if self.i18n_resources.is_empty() {
            faults.add("i18n_resources: is missing");
        } else if self.i18n_resources.iter().filter(|resource| resource.is_default).count() != 1 {
            faults.add("i18n_resources: exactly one language must be the default one (is_default)");
        }
        for (at, resource) in self.i18n_resources.iter().enumerate() {
            // The platform accepts any text and then never finds it (platform.md#definitions).
            if !resource.locale.contains('-') {
                faults.add(format!(
                    "i18n_resources[{at}].locale: {:?} is not like zh-CN, so its texts are never shown",
                    resource.locale
                ));
            }
        }
        faults.count("task_list", self.task_list.len(), MAX_TASKS);
        faults.count("cc_list", self.cc_list.len(), MAX_CARBONS);
        faults.unknown("", self.unknown.keys());
        self.check_tasks(&mut faults);
        self.check_carbons(&mut faults);
        self.check_ids(&mut faults);
        faults.list
    }

    fn default_keys(&self) -> BTreeSet<String> {
        let default = self.i18n_resources.iter().filter(|resource| resource.is_default);
        default.flat_map(|resource| &resource.texts).map(|text| text.key.clone()).collect()
    }

    fn check_tasks(&self, faults: &mut Faults) {
        for (at, task) in self.task_list.iter().enumerate() {
            let name = |member: &str| format!("task_list[{at}].{member}");
            faults.required(&name("task_id"), &task.task_id);
            if task.user_id.is_none() && task.open_id.is_none() {
                faults.add(format!("{}: is missing; one of user_id and open_id", name("user_id")));
            }
            faults.word(&name("status"), task.status.as_str(), task.status.is_known());
            faults.links(&name("links"), &task.links);
            faults.time(&name("create_time"), task.create_time);
            faults.time(&name("update_time"), task.update_time);
            faults.key(&name("title"), task.title.as_deref());
            faults.key(&name("node_name"), task.node_name.as_deref());
            faults.count(&name("action_configs"), task.action_configs.len(), MAX_ACTIONS);
            for (nth, action) in task.action_configs.iter().enumerate() {
                check_action(&name(&format!("action_configs[{nth}]")), action, faults);
            }
            faults.unknown(&format!("task_list[{at}]."), task.unknown.keys());
        }
    }

    fn check_carbons(&self, faults: &mut Faults) {
        for (at, carbon) in self.cc_list.iter().enumerate() {
            let name = |member: &str| format!("cc_list[{at}].{member}");
            faults.required(&name("cc_id"), &carbon.cc_id);
            if carbon.user_id.is_none() && carbon.open_id.is_none() {
                faults.add(format!("{}: is missing; one of user_id and open_id", name("user_id")));
            }
            faults.links(&name("links"), &carbon.links);
            if !matches!(&*carbon.read_status, "READ" | "UNREAD" | "") {
                faults.add(format!(
                    "{}: {:?} is neither READ nor UNREAD",
                    name("read_status"),
                    carbon.read_status
                ));
            }
            faults.time(&name("create_time"), carbon.create_time);
            faults.time(&name("update_time"), carbon.update_time);
            faults.unknown(&format!("cc_list[{at}]."), carbon.unknown.keys());
        }
    }

    /// The platform accepts a duplicate id, but hides the objects that have it (platform.md#unique-ids).
    fn check_ids(&self, faults: &mut Faults) {
        let mut seen = BTreeMap::new();
        let ids = std::iter::once(("instance_id".to_owned(), &self.instance_id))
            .chain(
                self.task_list
                    .iter()
                    .enumerate()
                    .map(|(at, task)| (format!("task_list[{at}].task_id"), &task.task_id)),
            )
            .chain(
                self.cc_list.iter().enumerate().map(|(at, cc)| (format!("cc_list[{at}].cc_id"), &cc.cc_id)),
            );
        for (name, id) in ids.filter(|(_, id)| !id.is_empty()) {
            if let Some(first) = seen.get(id) {
                faults.add(format!("{name}: {id:?} is that of {first} too, so the center shows neither"));
            } else {
                seen.insert(id, name);
            }
        }
    }
}

fn check_action(name: &str, action: &ActionConfig, faults: &mut Faults) {
    faults.required(&format!("{name}.action_type"), &action.action_type);
    if !matches!(&*action.action_type, "APPROVE" | "REJECT" | "") && action.action_name.is_none() {
        faults.add(format!(
            "{name}.action_name: is missing, and {} is an action of your own",
            action.action_type
        ));
    }
    faults.key(&format!("{name}.action_name"), action.action_name.as_deref());
    faults.unknown(&format!("{name}."), action.unknown.keys());
}

struct Faults {
    keys: BTreeSet<String>,
    list: Vec<String>,
}

impl Faults {
    fn add(&mut self, fault: impl Into<String>) {
        self.list.push(fault.into());
    }

    fn required(&mut self, member: &str, value: &str) {
        if value.is_empty() {
            self.add(format!("{member}: is missing"));
        }
    }

    fn time(&mut self, member: &str, time: Millis) {
        if time <= Millis::NEVER {
            self.add(format!("{member}: is missing; milliseconds since 1970"));
        }
    }

    fn word(&mut self, member: &str, word: &str, known: bool) {
        if word.is_empty() {
            self.add(format!("{member}: is missing"));
        } else if !known {
            self.add(format!("{member}: {word:?} is not one of its values"));
        }
    }

    fn links(&mut self, member: &str, links: &Links) {
        if links.pc_link.is_none() && links.mobile_link.is_none() {
            self.add(format!("{member}: is missing; at least one of pc_link and mobile_link"));
        }
    }

    /// Texts for people are given by key, and the default language must have the key.
    fn key(&mut self, member: &str, key: Option<&str>) {
        let Some(key) = key.filter(|key| !key.is_empty()) else { return };
        if !key.starts_with("@i18n@") {
            self.add(format!(
                "{member}: {key:?} is not a key; it must begin with @i18n@ and be in i18n_resources"
            ));
        } else if !self.keys.contains(key) {
            self.add(format!("{member}: the default language of i18n_resources has no {key}"));
        }
    }

    fn count(&mut self, member: &str, count: usize, most: usize) {
        if count > most {
            self.add(format!("{member}: has {count} entries; at most {most}"));
        }
    }

    fn unknown<'a>(&mut self, prefix: &str, keys: impl Iterator<Item = &'a String>) {
        for key in keys {
            self.add(format!("{prefix}{key}: is not a member of this API, which would silently ignore it"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sound() -> serde_json::Value {
        json!({
            "approval_code": "R", "instance_id": "I", "status": "PENDING", "links": { "pc_link": "https://e/1" },
            "title": "@i18n@t", "user_id": "li4", "start_time": "1", "end_time": "0", "update_time": "2",
            "update_mode": "UPDATE",
            "task_list": [{ "task_id": "T", "user_id": "zhang3", "links": { "mobile_link": "https://e/1" },
                "status": "PENDING", "create_time": "1", "end_time": "0", "update_time": "2",
                "action_configs": [{ "action_type": "APPROVE" }, { "action_type": "REJECT" }] }],
            "i18n_resources": [{ "locale": "zh-CN", "is_default": true,
                "texts": [{ "key": "@i18n@t", "value": "采购" }] }]
        })
    }

    fn faults(change: impl FnOnce(&mut serde_json::Value)) -> Vec<String> {
        let mut value = sound();
        change(&mut value);
        serde_json::from_value::<ExternalInstance>(value).unwrap().faults()
    }

    #[test]
    fn a_sound_instance_has_no_faults() {
        assert_eq!(faults(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn all_faults_come_out_at_once() {
        let found = faults(|value| {
            value["title"] = json!("采购");
            value["status"] = json!("PENDNG");
            value["task_list"][0]["update_time"] = json!("");
            value["task_list"][0]["task_id"] = json!("I");
            value["task_list"][0]["assignees"] = json!(["zhang3"]);
            value["task_list"][0]["node_name"] = json!("@i18n@n");
            value["task_list"][0]["action_configs"][0]["action_type"] = json!("HOLD");
            value["i18n_resources"][0]["locale"] = json!("zh_cn");
        });
        for expected in [
            "title: \"采购\" is not a key",
            "status: \"PENDNG\" is not one of its values",
            "task_list[0].update_time: is missing",
            "task_list[0].task_id: \"I\" is that of instance_id too",
            "task_list[0].assignees: is not a member of this API",
            "task_list[0].node_name: the default language of i18n_resources has no @i18n@n",
            "task_list[0].action_configs[0].action_name: is missing, and HOLD",
            "i18n_resources[0].locale: \"zh_cn\" is not like zh-CN",
        ] {
            assert!(found.iter().any(|fault| fault.starts_with(expected)), "{expected} is not in {found:#?}");
        }
        assert_eq!(found.len(), 8, "{found:#?}");
    }

    #[test]
    fn the_dangerous_default_has_to_be_chosen() {
        let found = faults(|value| drop(value.as_object_mut().unwrap().remove("update_mode")));
        assert!(
            found.len() == 1 && found[0].starts_with("update_mode: is missing, and REPLACE"),
            "{found:?}"
        );
    }
}
