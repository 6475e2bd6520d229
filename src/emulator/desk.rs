//! `/emulator/…`: press buttons, inspect state and inject failures. These routes are not part of the platform.

use actix_web::{HttpResponse, web};
use serde_json::{Value, json};

use super::{
    Emulator,
    press::{self, Press},
    scenarios, stream,
    taps::{self, Tap},
    tenant::Planned,
};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("/emulator")
            .route("/state", web::get().to(state))
            .route("/press", web::post().to(press_button))
            .route("/taps", web::get().to(list_taps))
            .route("/taps/{id}", web::get().to(get_tap))
            .route("/taps/{id}/replay", web::post().to(replay))
            .route("/taps/{id}/edit", web::post().to(edit))
            .route("/scenarios", web::get().to(list_scenarios))
            .route("/scenarios/{name}", web::post().to(play))
            .route("/events", web::get().to(stream::events))
            .route("/failures", web::post().to(plan))
            .route("/tokens", web::delete().to(forget_tokens))
            .route("/native_instances/{code}", web::put().to(put_native)),
    );
}

async fn state(emulator: web::Data<Emulator>) -> HttpResponse {
    let mut picture = emulator.tenant().picture();
    let mut callbacks: Vec<_> = emulator.tenant().taps.iter().map(press::told).collect();
    callbacks.reverse();
    picture["callbacks"] = callbacks.into();
    picture["app_id"] = emulator.settings.app_id.as_str().into();
    HttpResponse::Ok().json(picture)
}

async fn press_button(emulator: web::Data<Emulator>, body: web::Json<Press>) -> HttpResponse {
    match press::press(&emulator, &body).await {
        Ok(tap) => tell(&emulator, tap, press::told),
        Err(problem) => conflict(&problem),
    }
}

fn tell(emulator: &Emulator, id: u64, told: fn(&Tap) -> Value) -> HttpResponse {
    match emulator.tenant().taps.get(id).map(told) {
        Some(told) => HttpResponse::Ok().json(told),
        None => HttpResponse::NotFound().json(json!({ "problem": "no such tap is kept" })),
    }
}

fn conflict(problem: &str) -> HttpResponse {
    HttpResponse::Conflict().json(json!({ "problem": problem }))
}

/// The newest first.
async fn list_taps(emulator: web::Data<Emulator>) -> HttpResponse {
    let taps: Vec<_> = emulator.tenant().taps.iter().map(taps::told).collect();
    HttpResponse::Ok().json(json!({ "taps": taps }))
}

async fn list_scenarios(emulator: web::Data<Emulator>) -> HttpResponse {
    let told = |scenario: &scenarios::Scenario| {
        scenarios::told(scenario, emulator.scenarios.last(scenario.name).as_ref())
    };
    let all: Vec<_> = scenarios::all().iter().map(told).collect();
    HttpResponse::Ok().json(json!({ "scenarios": all }))
}

async fn play(emulator: web::Data<Emulator>, name: web::Path<String>) -> HttpResponse {
    let Some(scenario) = scenarios::find(&name) else {
        return HttpResponse::NotFound().json(json!({ "problem": "no such scenario" }));
    };
    match scenarios::play(&emulator, scenario).await {
        Ok(played) => HttpResponse::Ok().json(scenarios::told(scenario, Some(&played))),
        Err(problem) => conflict(&problem),
    }
}

async fn get_tap(emulator: web::Data<Emulator>, id: web::Path<u64>) -> HttpResponse {
    tell(&emulator, *id, taps::told)
}

async fn replay(emulator: web::Data<Emulator>, id: web::Path<u64>) -> HttpResponse {
    let Some(tap) = emulator.tenant().taps.get(*id).map(press::replayed) else {
        return tell(&emulator, *id, taps::told);
    };
    match tap {
        Ok(tap) => {
            let id = press::send(&emulator, tap).await;
            tell(&emulator, id, taps::told)
        }
        Err(problem) => conflict(&problem),
    }
}

#[derive(serde::Deserialize)]
#[serde(expecting = "an object")]
struct Edited {
    /// The body before encryption.
    body: String,
}

async fn edit(emulator: web::Data<Emulator>, id: web::Path<u64>, edited: web::Json<Edited>) -> HttpResponse {
    let Some(tap) = emulator.tenant().taps.get(*id).map(|tap| press::edited(tap, &edited.body)) else {
        return tell(&emulator, *id, taps::told);
    };
    let id = press::send(&emulator, tap).await;
    tell(&emulator, id, taps::told)
}

async fn plan(emulator: web::Data<Emulator>, planned: web::Json<Planned>) -> HttpResponse {
    let mut tenant = emulator.tenant();
    tenant.planned.push(planned.into_inner());
    tenant.settle();
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
    let mut tenant = emulator.tenant();
    tenant.native.insert(code.into_inner(), body.into_inner());
    tenant.settle();
    HttpResponse::NoContent().finish()
}
