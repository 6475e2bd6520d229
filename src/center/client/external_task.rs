//! Status of third-party tasks (platform.md#task-status): v4, a GET with a body, and the historic v2 with `scroll_id`
//! (platform.md#historic-task-status).

use futures_util::Stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    api::Api,
    call::Center,
    error::Error,
    lenient::{self, Millis},
    paging::{Marks, Page, items, pages},
    transport::Call,
    words::{InstanceStatus, TaskStatus},
};

/// Maximum codes or ids per call.
const MOST: usize = 20;

/// Allowed page sizes.
const PAGE: std::ops::RangeInclusive<u16> = 1..=500;

/// Task filters: only the combinations that the platform allows (platform.md#task-status).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskFilter {
    /// Tasks of these instances.
    Instances(Vec<String>),
    /// Tasks of these definitions in this status.
    Definitions {
        /// Real codes.
        approval_codes: Vec<String>,
        /// The task's status.
        status: TaskStatus,
        /// Approvers by `user_id`; all if empty.
        user_ids: Vec<String>,
    },
}

impl TaskFilter {
    /// Builds the filter from the given values.
    ///
    /// # Errors
    /// They are not an allowed combination, or too many; the text lists the combinations.
    pub fn of(
        instance_ids: Vec<String>,
        approval_codes: Vec<String>,
        user_ids: Vec<String>,
        status: Option<TaskStatus>,
    ) -> Result<Self, String> {
        let filter = match (instance_ids.is_empty(), approval_codes.is_empty(), status) {
            (false, true, None) if user_ids.is_empty() => Self::Instances(instance_ids),
            (true, false, Some(status)) => Self::Definitions { approval_codes, status, user_ids },
            _ => {
                return Err("the platform takes instance ids alone, or approval codes with a status, or \
                            approval codes with users and a status"
                    .to_owned());
            }
        };
        filter.check().map(|()| filter)
    }

    fn check(&self) -> Result<(), String> {
        let (name, list) = match self {
            Self::Instances(ids) => ("instance ids", ids),
            Self::Definitions { approval_codes, .. } => ("approval codes", approval_codes),
        };
        match list.len() {
            0 => Err(format!("there are no {name}")),
            1..=MOST => Ok(()),
            count => Err(format!("{count} {name} are too many at once; at most {MOST}")),
        }
    }

    fn body(&self) -> Value {
        match self {
            Self::Instances(ids) => json!({ "instance_ids": ids }),
            Self::Definitions { approval_codes, status, user_ids } if user_ids.is_empty() => {
                json!({ "approval_codes": approval_codes, "status": status })
            }
            Self::Definitions { approval_codes, status, user_ids } => {
                json!({ "approval_codes": approval_codes, "user_ids": user_ids, "status": status })
            }
        }
    }
}

/// An instance with its matching tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct InstanceTasks {
    /// Our id.
    #[serde(deserialize_with = "lenient::text")]
    pub instance_id: String,
    /// The platform's number of the instance.
    #[serde(deserialize_with = "lenient::text")]
    pub approval_id: String,
    /// The definition's code.
    #[serde(deserialize_with = "lenient::text")]
    pub approval_code: String,
    /// The instance's status.
    pub status: InstanceStatus,
    /// The instance's version.
    pub update_time: Millis,
    /// The tasks. The platform does not report who decided, or why.
    pub tasks: Vec<TaskState>,
}

/// A task with its status.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct TaskState {
    /// Our id.
    #[serde(deserialize_with = "lenient::text")]
    pub id: String,
    /// The task's status.
    pub status: TaskStatus,
    /// The task's version.
    pub update_time: Millis,
}

/// `data` of both versions: the list is in its own `data`.
#[derive(Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct Listed {
    data: Vec<InstanceTasks>,
    #[serde(deserialize_with = "lenient::maybe")]
    page_token: Option<String>,
    has_more: bool,
    #[serde(deserialize_with = "lenient::maybe")]
    scroll_id: Option<String>,
}

impl Center {
    /// Pages of matching tasks (v4). `page_size` is 1 to 500.
    pub fn task_pages(
        &self,
        filter: &TaskFilter,
        page_size: u16,
    ) -> impl Stream<Item = Result<Page<InstanceTasks>, Error>> + Send + 'static {
        let (center, filter) = (self.clone(), filter.clone());
        pages(Api::ListTasks, Marks::NamePages, move |token| {
            let (center, filter) = (center.clone(), filter.clone());
            async move {
                let api = Api::ListTasks;
                filter.check().map_err(|problem| Error::Request { api, problem })?;
                if !PAGE.contains(&page_size) {
                    let problem = format!("a page has 1 to 500 instances, not {page_size}");
                    return Err(Error::Request { api, problem });
                }
                let call = Call::new(api)
                    .query("page_size", Some(page_size))
                    .query("page_token", token)
                    .body(filter.body());
                let listed: Listed = center.call(call).await?;
                let next = listed.page_token.filter(|_| listed.has_more);
                Ok(Page { items: listed.data, total: None, next })
            }
        })
    }

    /// Matching tasks, in the largest pages (v4).
    pub fn tasks(
        &self,
        filter: &TaskFilter,
    ) -> impl Stream<Item = Result<InstanceTasks, Error>> + Send + 'static {
        items(self.task_pages(filter, *PAGE.end()))
    }

    /// Pages of matching tasks from the historic API (v2), which chooses the page size.
    pub fn historic_task_pages(
        &self,
        filter: &TaskFilter,
    ) -> impl Stream<Item = Result<Page<InstanceTasks>, Error>> + Send + 'static {
        let (center, filter) = (self.clone(), filter.clone());
        pages(Api::ListTasksHistoric, Marks::NameLists, move |scroll_id| {
            let (center, filter) = (center.clone(), filter.clone());
            async move {
                let api = Api::ListTasksHistoric;
                filter.check().map_err(|problem| Error::Request { api, problem })?;
                let body = match scroll_id {
                    // Sent alone: it also identifies the filter (platform.md#historic-task-status).
                    Some(scroll_id) => json!({ "scroll_id": scroll_id }),
                    None => filter.body(),
                };
                let listed: Listed = center.call(Call::new(api).body(body)).await?;
                Ok(Page { items: listed.data, total: None, next: listed.scroll_id })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(word: &str) -> Vec<String> {
        vec![word.to_owned()]
    }

    fn body(filter: Result<TaskFilter, String>) -> Value {
        filter.unwrap().body()
    }

    #[test]
    fn the_allowed_combinations_are_sent_as_the_platforms_page_shows_them() {
        let pending = || Some(TaskStatus::Pending);
        let none = Vec::new;
        assert_eq!(
            body(TaskFilter::of(some("oa_159160304"), none(), none(), None)),
            json!({ "instance_ids": ["oa_159160304"] })
        );
        assert_eq!(
            body(TaskFilter::of(none(), some("B7B65FFE"), some("112321"), pending())),
            json!({ "approval_codes": ["B7B65FFE"], "user_ids": ["112321"], "status": "PENDING" })
        );
        assert_eq!(
            body(TaskFilter::of(none(), some("B7B65FFE"), none(), pending())),
            json!({ "approval_codes": ["B7B65FFE"], "status": "PENDING" })
        );
    }

    #[test]
    fn every_other_combination_is_told_before_it_is_sent() {
        let pending = || Some(TaskStatus::Pending);
        let none = Vec::new;
        for filter in [
            TaskFilter::of(none(), none(), none(), None),
            TaskFilter::of(none(), none(), none(), pending()),
            TaskFilter::of(none(), none(), some("u"), pending()),
            TaskFilter::of(none(), some("c"), none(), None),
            TaskFilter::of(none(), some("c"), some("u"), None),
            TaskFilter::of(some("i"), some("c"), none(), pending()),
            TaskFilter::of(some("i"), none(), none(), pending()),
            TaskFilter::of(some("i"), none(), some("u"), None),
            TaskFilter::of(vec!["i".to_owned(); 21], none(), none(), None),
            TaskFilter::of(none(), vec!["c".to_owned(); 21], none(), pending()),
        ] {
            assert!(filter.is_err(), "{filter:?}");
        }
    }

    #[test]
    fn the_historic_example_is_read_field_by_field() {
        let listed: Listed = serde_json::from_value(json!({
            "data": [{
                "approval_code": "60D0F7A2-052D-49E9-B570-C29C836CDF8E", "approval_id": "fwwweffff33111133xxx",
                "instance_id": "29075", "status": "PENDING",
                "tasks": [{ "id": "310", "status": "PENDING", "update_time": 1621863215000_i64 }],
                "update_time": 1621863215000_i64
            }],
            "scroll_id": "DnF1ZXJ5VGhlbkZldGNo"
        }))
        .unwrap();
        let found = &listed.data[0];
        assert_eq!(found.approval_code, "60D0F7A2-052D-49E9-B570-C29C836CDF8E");
        assert_eq!(
            (found.approval_id.as_str(), found.instance_id.as_str()),
            ("fwwweffff33111133xxx", "29075")
        );
        assert_eq!((&found.status, found.update_time), (&InstanceStatus::Pending, Millis(1_621_863_215_000)));
        let task = TaskState {
            id: "310".to_owned(),
            status: TaskStatus::Pending,
            update_time: Millis(1_621_863_215_000),
        };
        assert_eq!(found.tasks, [task]);
        assert_eq!(listed.scroll_id.as_deref(), Some("DnF1ZXJ5VGhlbkZldGNo"));
    }
}
