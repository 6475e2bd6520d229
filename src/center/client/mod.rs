//! A client of the approval center's own APIs (`docs/platform.md`): what stands round the callback.
//!
//! Nothing on the accept path comes here (INVARIANT 4). Everything else holds a [`Center`], which is cheap to clone and of
//! which one per process is enough: its clones share the access token, the rate limits and the connections.
//!
//! # What a call does
//! 1. Takes the `tenant_access_token` from the cache; if it runs out soon, one caller renews it for all (`token`).
//! 2. Waits for its turn: 50 a second and 1000 a minute for each API, and as long as the platform says (`limit`).
//! 3. Sends, within its deadline. The platform says by `code`, not by the HTTP status, whether it worked
//!    (platform.md#error-codes).
//! 4. A token error evicts the token, and the call is made again with a fresh one; not twice, since the platform
//!    says the same of APIs that do not exist (platform.md#reading-a-definition).
//! 5. What certainly was not done, and what may be done twice, is tried again until the deadline (`transport`).
//!
//! What the platform may add is no error: unknown members are ignored and unknown words are kept (`words`).

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
