//! `/emulator/…`: press buttons, inspect state and inject failures. These routes are not part of the platform.

use actix_web::{HttpResponse, web};
use serde_json::{Value, json};

use super::{
    Emulator,
    press::{Press, press},
    tenant::Planned,
};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("/emulator")
            .route("/state", web::get().to(state))
            .route("/press", web::post().to(press_button))
            .route("/failures", web::post().to(plan))
            .route("/tokens", web::delete().to(forget_tokens))
            .route("/native_instances/{code}", web::put().to(put_native)),
    );
}

async fn state(emulator: web::Data<Emulator>) -> HttpResponse {
    let mut picture = emulator.tenant().picture();
    picture["app_id"] = emulator.settings.app_id.as_str().into();
    HttpResponse::Ok().json(picture)
}

async fn press_button(emulator: web::Data<Emulator>, body: web::Json<Press>) -> HttpResponse {
    match press(emulator, body.into_inner()).await {
        Ok(told) => HttpResponse::Ok().json(told),
        Err(problem) => HttpResponse::Conflict().json(json!({ "problem": problem })),
    }
}

async fn plan(emulator: web::Data<Emulator>, planned: web::Json<Planned>) -> HttpResponse {
    emulator.tenant().planned.push(planned.into_inner());
    HttpResponse::NoContent().finish()
}

/// Invalidates all issued tokens, as a reset of the app secret does.
async fn forget_tokens(emulator: web::Data<Emulator>) -> HttpResponse {
    emulator.tenant().tokens.clear();
    HttpResponse::NoContent().finish()
}

async fn put_native(
    emulator: web::Data<Emulator>,
    code: web::Path<String>,
    body: web::Json<Value>,
) -> HttpResponse {
    emulator.tenant().native.insert(code.into_inner(), body.into_inner());
    HttpResponse::NoContent().finish()
}
