//! Client of the approval center's APIs (`docs/platform.md`).
//!
//! The accept path does not use it (INVARIANT 4). All other code shares one [`Center`] per process. It is cheap to
//! clone; clones share the access token, the rate limits and the connections.
//!
//! # Steps of a call
//! 1. Takes the `tenant_access_token` from the cache. If it expires soon, one caller renews it for all (`token`).
//! 2. Waits for its turn: 50 per second and 1000 per minute for each API, and as long as the platform asks (`limit`).
//! 3. Sends the request within its deadline. The platform reports success by `code`, not by HTTP status
//!    (platform.md#error-codes).
//! 4. On a token error, evicts the token and retries with a fresh one. It retries only once, since the platform reports
//!    the same error for APIs that do not exist (platform.md#reading-a-definition).
//! 5. Retries until the deadline if the request certainly was not executed, or is idempotent (`transport`).
//!
//! Additions by the platform are not errors: unknown members are ignored and unknown words are kept (`words`).

mod answer;
mod api;
mod call;
mod check;
mod codes;
mod contact;
mod definition;
#[cfg(test)]
pub(crate) mod double;
mod error;
mod external_instance;
mod external_task;
mod instance;
mod instance_query;
mod lenient;
mod limit;
mod message;
mod paging;
mod settings;
#[cfg(test)]
mod tests;
mod token;
mod transport;
mod widget;
mod words;

pub use self::{
    api::Api,
    call::Center,
    codes::Fault,
    contact::User,
    definition::{Definition, External, Viewer},
    error::{ApiError, Error, FieldViolation},
    external_instance::{
        ActionConfig, Carbon, ExternalInstance, ExternalTask, FormRow, InstanceVersion, Links, ProcessCount,
        ProcessRecord, Synced, TaskVersion,
    },
    external_task::{InstanceTasks, TaskFilter, TaskState},
    instance::{CarbonUser, Comment, File, Instance, InstanceOptions, InstanceTask, Moment, MomentExt},
    instance_query::{
        FoundApproval, FoundExternal, FoundGroup, FoundInstance, FoundNode, InstanceFilter, MAX_SPAN,
        PAGE_SIZES,
    },
    lenient::{I18n, I18nText, Millis},
    limit::{PER_MINUTE, PER_SECOND},
    message::{CardAction, CardCallback, CardConfig, CardContent, I18nMap, Message, MessageUpdate, Summary},
    paging::Page,
    settings::{AppType, Platform, Settings, StoreApp},
    token::TokenInfo,
    widget::{Document, Interval, Leave, Remedy, Shift, Telephone, Trip, TripLeg, Widget, WidgetValue, Work},
    words::{FilterStatus, InstanceStatus, ListedStatus, MessageStatus, MomentType, TaskStatus, UserIdType},
};
