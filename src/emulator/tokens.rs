//! Access tokens (platform.md#access-tokens).

use serde_json::json;

use super::{
    api::{Answered, ApiError, Ask},
    tenant::Tenant,
};

fn app_is_known(tenant: &Tenant, ask: &Ask) -> Result<(), ApiError> {
    if ask.body["app_id"] != tenant.settings.app_id.as_str() {
        return Err(ApiError::new(10_003, "invalid param"));
    }
    if ask.body["app_secret"] != tenant.settings.app_secret.as_str() {
        return Err(ApiError::new(10_015, "app secret invalid"));
    }
    Ok(())
}

pub(super) fn internal_token(tenant: &mut Tenant, ask: &Ask) -> Answered {
    app_is_known(tenant, ask)?;
    let (token, expire) = tenant.token(false);
    Ok(json!({ "tenant_access_token": token, "expire": expire }))
}

pub(super) fn store_app_token(tenant: &mut Tenant, ask: &Ask) -> Answered {
    app_is_known(tenant, ask)?;
    if ask.body["app_ticket"] != tenant.settings.app_ticket.as_str() {
        return Err(ApiError::new(10_012, "app ticket is invalid"));
    }
    let (token, expire) = tenant.token(true);
    Ok(json!({ "app_access_token": token, "expire": expire }))
}

pub(super) fn store_tenant_token(tenant: &mut Tenant, ask: &Ask) -> Answered {
    if !ask.body["app_access_token"].as_str().is_some_and(|token| tenant.knows_token(token, true)) {
        return Err(ApiError::new(99_991_664, "invalid app access token"));
    }
    if ask.body["tenant_key"] != tenant.settings.tenant_key.as_str() {
        return Err(ApiError::new(10_013, "tenant access token failed"));
    }
    let (token, expire) = tenant.token(false);
    Ok(json!({ "tenant_access_token": token, "expire": expire }))
}

pub(super) fn resend_ticket(tenant: &mut Tenant, ask: &Ask) -> Answered {
    app_is_known(tenant, ask)?;
    tenant.tickets_sent += 1;
    Ok(json!({}))
}
