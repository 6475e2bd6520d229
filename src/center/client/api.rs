//! The APIs in use: method, host, path, and the required content of a success.

use std::fmt;

use reqwest::Method;

macro_rules! apis {
    ($($variant:ident = $method:ident $host:ident $path:literal brings $brings:expr),+ $(,)?) => {
        /// The APIs in use. Each has its own rate limits.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Api {
            $(#[doc = concat!("`", stringify!($method), " ", $path, "`")] $variant,)+
        }

        impl Api {
            /// All APIs.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub(super) fn method(self) -> Method {
                match self { $(Self::$variant => Method::$method,)+ }
            }

            pub(super) fn path(self) -> &'static str {
                match self { $(Self::$variant => $path,)+ }
            }

            pub(super) fn host(self) -> Host {
                match self { $(Self::$variant => Host::$host,)+ }
            }

            pub(super) fn brings(self) -> Brings {
                match self { $(Self::$variant => $brings,)+ }
            }
        }
    };
}

/// Required content of `data`. A gateway or proxy that answers `{"code":0}` to everything must not pass for the
/// platform: a decision would count as shown, and a list as empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Brings {
    /// Its members are checked elsewhere, or it has none.
    Nothing,
    /// This member, neither null nor empty.
    Member(&'static str),
    /// At least one of these members; an empty list may be null.
    OneOf(&'static [&'static str]),
    /// Any object.
    Object,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    Open,
    Historic,
}

apis! {
    InternalToken = POST Open "/open-apis/auth/v3/tenant_access_token/internal" brings Brings::Nothing,
    StoreAppToken = POST Open "/open-apis/auth/v3/app_access_token" brings Brings::Nothing,
    StoreTenantToken = POST Open "/open-apis/auth/v3/tenant_access_token" brings Brings::Nothing,
    ResendTicket = POST Open "/open-apis/auth/v3/app_ticket/resend" brings Brings::Nothing,
    GetDefinition = GET Open "/open-apis/approval/v4/external_approvals" brings Brings::Member("approval_name"),
    SaveDefinition = POST Open "/open-apis/approval/v4/external_approvals" brings Brings::Member("approval_code"),
    SyncInstance = POST Open "/open-apis/approval/v4/external_instances" brings Brings::Member("data"),
    CheckInstances = POST Open "/open-apis/approval/v4/external_instances/check" brings Brings::OneOf(&["diff_instances"]),
    ListTasks = GET Open "/open-apis/approval/v4/external_tasks" brings Brings::OneOf(&["data", "has_more"]),
    ListTasksHistoric = POST Historic "/approval/openapi/v2/external/list" brings Brings::OneOf(&["data", "scroll_id"]),
    QueryInstances = POST Open "/open-apis/approval/v4/instances/query" brings Brings::OneOf(&["instance_list", "count", "has_more"]),
    GetInstance = GET Open "/open-apis/approval/v4/instances" brings Brings::Member("status"),
    GetInstanceHistoric = POST Historic "/approval/openapi/v2/instance/get" brings Brings::Member("status"),
    SendMessage = POST Open "/open-apis/approval/v1/message/send" brings Brings::Member("message_id"),
    UpdateMessage = POST Open "/open-apis/approval/v1/message/update" brings Brings::Member("message_id"),
    GetUser = GET Open "/open-apis/contact/v3/users" brings Brings::Member("user"),
    GetUsers = GET Open "/open-apis/contact/v3/users/batch" brings Brings::Object,
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method(), self.path())
    }
}
