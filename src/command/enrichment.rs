//! Optional enrichment of an endpoint's commands before publishing: data from the approval center about the operator,
//! the task and the instance at that moment.
//!
//! It is an additive member of the published command, `enrichment`, only on endpoints that are configured for it. The
//! stored command stays as it was accepted: a command that is published again keeps its `message_id` and may carry
//! another enrichment.

use strum::{IntoStaticStr, VariantArray};

use crate::time::Timestamp;
use serde::Serialize;

/// How complete the enrichment is: a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum EnrichmentStatus {
    /// Everything requested is there.
    Complete,
    /// The approval center answered, but some of it is missing: unknown there, or not received in time.
    Partial,
    /// Nothing was received in time.
    TimedOut,
    /// The approval center could not be asked, or refused to answer.
    Unavailable,
    /// Nothing was requested: too many commands were in progress, or the platform's rate limit allowed no call in
    /// time.
    Busy,
}

impl EnrichmentStatus {
    /// All statuses.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The word in the message and the metric.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The enrichment of one command. Members that were not requested or are unknown are `null`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Enrichment {
    /// How complete it is.
    pub status: EnrichmentStatus,
    /// The operator's other ids.
    pub operator: Option<OperatorIds>,
    /// The task as shown by the center.
    pub task: Option<TaskShown>,
    /// The instance as shown by the center.
    pub instance: Option<InstanceShown>,
}

/// Other ids of one user, in addition to the `user_id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OperatorIds {
    /// Valid only in the app of `[approval_center]`.
    pub open_id: Option<String>,
    /// Valid within this developer.
    pub union_id: Option<String>,
}

/// A task as shown by the center.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskShown {
    /// The platform's word.
    pub status: String,
    /// The version that the third party set, as a time.
    pub update_time: Option<Timestamp>,
}

/// An instance as shown by the center.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstanceShown {
    /// The platform's word.
    pub status: String,
    /// The version that the third party set, as a time.
    pub update_time: Option<Timestamp>,
    /// The definition's real code.
    pub approval_code: Option<String>,
}

impl Enrichment {
    /// An empty enrichment with this status.
    #[must_use]
    pub fn none(status: EnrichmentStatus) -> Self {
        Self { status, operator: None, task: None, instance: None }
    }

    /// Appends it to the body of a command as the last member. The rest stays byte for byte.
    pub fn add_to(&self, body: &mut Vec<u8>) {
        let end = body.pop();
        debug_assert_eq!(end, Some(b'}'), "a command is an object");
        body.extend_from_slice(b",\"enrichment\":");
        serde_json::to_writer(&mut *body, self).expect("texts are JSON, and a Vec takes every write");
        body.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::command::{
        message::{Envelope, render},
        profile::Profile,
        samples,
    };

    fn complete() -> Enrichment {
        let update_time = Some("2026-11-20T08:15:29.5Z".parse().unwrap());
        Enrichment {
            status: EnrichmentStatus::Complete,
            operator: Some(OperatorIds {
                open_id: Some("ou_77".to_owned()),
                union_id: Some("on_77".to_owned()),
            }),
            task: Some(TaskShown { status: "PENDING".to_owned(), update_time }),
            instance: Some(InstanceShown {
                status: "PENDING".to_owned(),
                update_time: None,
                approval_code: Some("0F0E0D0C-1111-4222-8333-444455556666".to_owned()),
            }),
        }
    }

    #[test]
    fn it_is_the_last_member_and_the_rest_stays_byte_for_byte() {
        let command = samples::list();
        let (kept, mut published) = (render(&command), render(&command));
        complete().add_to(&mut published);
        assert!(published.starts_with(&kept[..kept.len() - 1]));
        samples::golden_message("list_enriched", &Envelope::of(&command), &published);
    }

    #[test]
    fn it_lands_within_the_command_in_every_profile() {
        let command = samples::card();
        let mut body = render(&command);
        Enrichment::none(EnrichmentStatus::Busy).add_to(&mut body);
        let celery = Profile::Celery { task: "t".to_owned() };
        for (profile, pointer) in [
            (Profile::Plain, ""),
            (Profile::CloudEvents, "/data"),
            (celery, "/0/0"),
            (Profile::MassTransit, "/message"),
        ] {
            let envelope = Envelope::of(&command);
            let form = profile.form(&envelope, "approval.command.v1", &body);
            let whole: Value = serde_json::from_slice(&form.body).unwrap();
            let enrichment = &whole.pointer(pointer).unwrap()["enrichment"];
            assert_eq!(
                *enrichment,
                json!({ "status": "busy", "operator": null, "task": null, "instance": null })
            );
        }
    }

    #[test]
    fn every_status_is_written_as_its_word() {
        for &status in EnrichmentStatus::ALL {
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
    }
}
