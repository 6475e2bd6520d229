//! The emulator's API routes.

use super::{
    api::{Answered, Ask},
    contact, definitions, instances, messages, search, tasks,
    tenant::Tenant,
    tokens,
};

/// The failure format of an API.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Needs no token and answers without `data`.
    Token,
    /// HTTP 400 with a code.
    V4,
    /// HTTP 200 with a code (platform.md#sending-a-card); rate limits use HTTP 400 (platform.md#rate-limits).
    Old,
}

pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) family: Family,
    /// At least one of these scopes is required.
    pub(super) scopes: &'static [&'static str],
    pub(super) act: fn(&mut Tenant, &Ask) -> Answered,
}

const DEFINITION: &[&str] = &["approval:approval", "approval:external_approval"];
const INSTANCE: &[&str] = &["approval:approval", "approval:external_instance"];
const CHECK: &[&str] = &["approval:approval", "approval:approval:readonly", "approval:external_instance"];
const TASK: &[&str] = &["approval:approval", "approval:approval:readonly", "approval:external_task"];
const NATIVE: &[&str] = &["approval:approval", "approval:approval:readonly", "approval:instance"];
const LIST: &[&str] = &["approval:approval.list:readonly"];
const READ: &[&str] = &["approval:approval:readonly"];
const CONTACT: &[&str] = &[
    "contact:contact.base:readonly",
    "contact:contact:access_as_app",
    "contact:contact:readonly",
    "contact:contact:readonly_as_app",
];

/// All routes (platform.md#scopes). The first match wins, so literal paths precede ids.
#[rustfmt::skip]
pub(super) const ROUTES: &[Route] = &[
    Route { method: "POST", path: "/open-apis/auth/v3/tenant_access_token/internal", family: Family::Token, scopes: &[], act: tokens::internal_token },
    Route { method: "POST", path: "/open-apis/auth/v3/app_access_token", family: Family::Token, scopes: &[], act: tokens::store_app_token },
    Route { method: "POST", path: "/open-apis/auth/v3/tenant_access_token", family: Family::Token, scopes: &[], act: tokens::store_tenant_token },
    Route { method: "POST", path: "/open-apis/auth/v3/app_ticket/resend", family: Family::Token, scopes: &[], act: tokens::resend_ticket },
    Route { method: "POST", path: "/open-apis/approval/v4/external_approvals", family: Family::V4, scopes: DEFINITION, act: definitions::save },
    Route { method: "GET", path: "/open-apis/approval/v4/external_approvals/:id", family: Family::V4, scopes: DEFINITION, act: definitions::get },
    Route { method: "POST", path: "/open-apis/approval/v4/external_instances", family: Family::V4, scopes: INSTANCE, act: instances::sync },
    Route { method: "POST", path: "/open-apis/approval/v4/external_instances/check", family: Family::V4, scopes: CHECK, act: instances::check },
    Route { method: "GET", path: "/open-apis/approval/v4/external_tasks", family: Family::V4, scopes: TASK, act: tasks::list },
    Route { method: "POST", path: "/approval/openapi/v2/external/list", family: Family::Old, scopes: READ, act: tasks::scroll },
    Route { method: "POST", path: "/open-apis/approval/v4/instances/query", family: Family::V4, scopes: LIST, act: search::query },
    Route { method: "GET", path: "/open-apis/approval/v4/instances/:id", family: Family::V4, scopes: NATIVE, act: search::get },
    Route { method: "POST", path: "/approval/openapi/v2/instance/get", family: Family::Old, scopes: READ, act: search::get_historic },
    Route { method: "POST", path: "/open-apis/approval/v1/message/send", family: Family::Old, scopes: READ, act: messages::send },
    Route { method: "POST", path: "/open-apis/approval/v1/message/update", family: Family::Old, scopes: READ, act: messages::update },
    Route { method: "GET", path: "/open-apis/contact/v3/users/batch", family: Family::V4, scopes: CONTACT, act: contact::batch },
    Route { method: "GET", path: "/open-apis/contact/v3/users/:id", family: Family::V4, scopes: CONTACT, act: contact::get },
];
