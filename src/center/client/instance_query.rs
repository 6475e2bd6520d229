//! Queries instances (platform.md#instance-query). Results lag behind and omit revoked instances, so pages may be
//! short.

use std::{ops::RangeInclusive, time::Duration};

use futures_util::Stream;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::{
    api::Api,
    call::Center,
    error::Error,
    external_instance::Links,
    lenient::{self, Millis},
    paging::{Marks, Page, pages},
    transport::Call,
    words::{FilterStatus, ListedStatus, UserIdType},
};

/// Maximum span between the two times of a filter.
pub const MAX_SPAN: Duration = Duration::from_secs(30 * 86_400);

/// Allowed page sizes.
pub const PAGE_SIZES: RangeInclusive<u16> = 5..=200;

/// Query filter. One of the first five is required. `approval_code` and `group_external_id` form a union, as do
/// `instance_code` and `instance_external_id`; all others narrow the result.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct InstanceFilter {
    /// The initiator; the call's parameter names the kind of id.
    pub user_id: Option<String>,
    /// The definition's code.
    pub approval_code: Option<String>,
    /// The platform's code of the instance.
    pub instance_code: Option<String>,
    /// Our id.
    pub instance_external_id: Option<String>,
    /// Our code of the definition's group.
    pub group_external_id: Option<String>,
    /// The title; only third-party instances have one.
    pub instance_title: Option<String>,
    /// The status.
    pub instance_status: Option<FilterStatus>,
    /// Started at or after. Both times or neither are given, at most [`MAX_SPAN`] apart.
    pub instance_start_time_from: Option<Millis>,
    /// Started before.
    pub instance_start_time_to: Option<Millis>,
    /// `zh-CN`, `en-US` or `ja-JP`
    pub locale: Option<String>,
    /// Includes revoked instances; only in the platform's newer SDKs.
    pub with_revoked_instance: Option<bool>,
}

impl InstanceFilter {
    /// Checks for filters that the platform would refuse. The error is a sentence.
    pub fn check(&self) -> Result<(), String> {
        let ids = [
            &self.user_id,
            &self.approval_code,
            &self.instance_code,
            &self.instance_external_id,
            &self.group_external_id,
        ];
        if ids.iter().all(|id| id.as_deref().is_none_or(str::is_empty)) {
            return Err("one of user_id, approval_code, instance_code, instance_external_id and \
                        group_external_id must be given"
                .to_owned());
        }
        match (self.instance_start_time_from, self.instance_start_time_to) {
            (None, None) => Ok(()),
            (Some(from), Some(to)) if from > to => Err("the time from is after the time to".to_owned()),
            (Some(from), Some(to)) if to.since(from) > MAX_SPAN => {
                Err("the two times are more than 30 days apart".to_owned())
            }
            (Some(_), Some(_)) => Ok(()),
            _ => Err("the time from and the time to go together".to_owned()),
        }
    }
}

/// A found instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct FoundInstance {
    /// The definition.
    pub approval: FoundApproval,
    /// The definition's group.
    pub group: FoundGroup,
    /// The instance itself.
    pub instance: FoundNode,
}

/// The definition of a found instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct FoundApproval {
    /// The code.
    pub code: String,
    /// The name.
    pub name: String,
    /// True for a third-party definition.
    pub is_external: bool,
    /// Additional data of a third-party definition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<FoundExternal>,
    /// The platform's number of the definition.
    #[serde(deserialize_with = "lenient::text")]
    pub approval_id: String,
    /// URL of the icon.
    pub icon: String,
}

/// Additional data of a third-party definition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct FoundExternal {
    /// Allows marking many as read at once.
    pub batch_cc_read: bool,
}

/// The group of a found instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct FoundGroup {
    /// Our id.
    #[serde(deserialize_with = "lenient::text")]
    pub external_id: String,
    /// The name.
    pub name: String,
}

/// A found instance without its definition and group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct FoundNode {
    /// The platform's code.
    pub code: String,
    /// Our id.
    #[serde(deserialize_with = "lenient::text")]
    pub external_id: String,
    /// The initiator.
    #[serde(deserialize_with = "lenient::text")]
    pub user_id: String,
    /// Start time.
    pub start_time: Millis,
    /// End time.
    pub end_time: Millis,
    /// The status, in this API's own spelling.
    pub status: ListedStatus,
    /// The title.
    pub title: String,
    /// JSON text.
    #[serde(deserialize_with = "lenient::text")]
    pub extra: String,
    /// The number shown to people.
    #[serde(deserialize_with = "lenient::text")]
    pub serial_id: String,
    /// Links to the instance.
    pub link: Links,
}

#[derive(Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct Found {
    count: Option<u64>,
    instance_list: Vec<FoundInstance>,
    #[serde(deserialize_with = "lenient::maybe")]
    page_token: Option<String>,
    has_more: bool,
}

impl Center {
    /// Pages of matching instances. `page_size` is within [`PAGE_SIZES`]; [`Page::total`] counts all pages.
    pub fn instance_pages(
        &self,
        filter: &InstanceFilter,
        ids: &UserIdType,
        page_size: u16,
    ) -> impl Stream<Item = Result<Page<FoundInstance>, Error>> + Send + 'static {
        let (center, filter, ids) = (self.clone(), filter.clone(), ids.clone());
        pages(Api::QueryInstances, Marks::NamePages, move |token| {
            let (center, filter, ids) = (center.clone(), filter.clone(), ids.clone());
            async move {
                let api = Api::QueryInstances;
                filter.check().map_err(|problem| Error::Request { api, problem })?;
                if !PAGE_SIZES.contains(&page_size) {
                    let problem = format!("a page has 5 to 200 instances, not {page_size}");
                    return Err(Error::Request { api, problem });
                }
                let call = Call::new(api)
                    .query("page_size", Some(page_size))
                    .query("page_token", token)
                    .query("user_id_type", Some(ids))
                    .body(serde_json::to_value(&filter).expect("texts and numbers are JSON"));
                let found: Found = center.call(call).await?;
                // Without has_more the token is meaningless: the platform's own example has one on the last page.
                let next = found.page_token.filter(|_| found.has_more);
                Ok(Page { items: found.instance_list, total: found.count, next })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_example_is_read_field_by_field() {
        let text = json!({
            "count": 10,
            "instance_list": [{
                "approval": { "code": "EB828003", "name": "approval", "is_external": true,
                    "external": { "batch_cc_read": false }, "approval_id": "7090754740375519252",
                    "icon": "https://e.example/person.png" },
                "group": { "external_id": "0004", "name": "groupA" },
                "instance": { "code": "EB828003-9FFE", "external_id": "0004_3ED52DC1-AA6C",
                    "user_id": "lwiu098wj", "start_time": "1547654251506", "end_time": "1547654251506",
                    "status": "pending", "title": "test", "extra": "{}", "serial_id": "201902020001",
                    "link": { "pc_link": "https://www.example.com/", "mobile_link": "https://www.example.com/" } }
            }],
            "page_token": "nF1ZXJ5VGhlbkZldGNo", "has_more": false
        });
        let found: Found = serde_json::from_value(text.clone()).unwrap();
        assert_eq!((found.count, found.has_more), (Some(10), false));
        assert_eq!(found.instance_list[0].instance.status, ListedStatus::Pending);
        // Members that were not read could not be written again.
        assert_eq!(serde_json::to_value(&found.instance_list).unwrap(), text["instance_list"]);
    }

    #[test]
    fn the_example_of_a_filter_is_sent_as_it_stands_there() {
        let filter = InstanceFilter {
            user_id: Some("lwiu098wj".to_owned()),
            approval_code: Some("EB828003".to_owned()),
            instance_code: Some("EB828004".to_owned()),
            instance_external_id: Some("EB828005".to_owned()),
            group_external_id: Some("1234567".to_owned()),
            instance_title: Some("test".to_owned()),
            instance_status: Some(FilterStatus::Pending),
            instance_start_time_from: Some(Millis(1_547_654_251_506)),
            instance_start_time_to: Some(Millis(1_547_654_251_506)),
            locale: Some("zh-CN".to_owned()),
            with_revoked_instance: None,
        };
        assert_eq!(filter.check(), Ok(()));
        assert_eq!(
            serde_json::to_value(&filter).unwrap(),
            json!({
                "user_id": "lwiu098wj", "approval_code": "EB828003", "instance_code": "EB828004",
                "instance_external_id": "EB828005", "group_external_id": "1234567", "instance_title": "test",
                "instance_status": "PENDING", "instance_start_time_from": "1547654251506",
                "instance_start_time_to": "1547654251506", "locale": "zh-CN"
            })
        );
    }

    #[test]
    fn what_the_platform_would_refuse_is_told_before() {
        let one = InstanceFilter { user_id: Some("u".to_owned()), ..InstanceFilter::default() };
        let day = 86_400_000;
        let span = |from: Option<i64>, to: Option<i64>| InstanceFilter {
            instance_start_time_from: from.map(Millis),
            instance_start_time_to: to.map(Millis),
            ..one.clone()
        };
        assert_eq!(one.check(), Ok(()));
        assert_eq!(span(Some(day), Some(31 * day)).check(), Ok(()));
        for filter in [
            InstanceFilter::default(),
            InstanceFilter { instance_title: Some("only a title".to_owned()), ..InstanceFilter::default() },
            InstanceFilter { user_id: Some(String::new()), ..InstanceFilter::default() },
            span(Some(day), None),
            span(None, Some(day)),
            span(Some(2 * day), Some(day)),
            span(Some(day), Some(31 * day + 1)),
        ] {
            assert!(filter.check().is_err(), "{filter:?}");
        }
    }
}
