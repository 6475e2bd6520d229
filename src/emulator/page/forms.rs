//! What the forms of the page do. Each is answered by a redirect.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use serde::Deserialize;

use super::{look_of, page, tame};
use crate::emulator::{
    Emulator,
    demo::{self, DemoEndpoint, Manner, Order, Wanted},
    press::{self, Press},
};

/// After an act, the page that shows what became of it: a reload must not do it again.
pub(super) fn see(link: &str) -> HttpResponse {
    HttpResponse::SeeOther().insert_header((header::LOCATION, link)).finish()
}

pub(super) async fn foreign(emulator: web::Data<Emulator>, request: HttpRequest) -> HttpResponse {
    let look = look_of(&emulator, &request);
    HttpResponse::Forbidden().json(serde_json::json!({ "problem": look.phrases().forbidden }))
}

pub(super) async fn tap(
    emulator: web::Data<Emulator>,
    request: HttpRequest,
    form: web::Form<Press>,
) -> HttpResponse {
    let look = look_of(&emulator, &request);
    let mut form = form.into_inner();
    // A form sends what was left empty.
    for member in [&mut form.instance_id, &mut form.task_id, &mut form.message_id, &mut form.reason] {
        *member = member.take().filter(|text| !text.is_empty());
    }
    match press::press(&emulator, &form).await {
        Ok(id) => see(&look.link(format!("/taps/{id}"))),
        Err(problem) => page(&emulator, &look, None, Some(tame(&problem))),
    }
}

pub(super) async fn replay(
    emulator: web::Data<Emulator>,
    request: HttpRequest,
    id: web::Path<u64>,
) -> HttpResponse {
    let look = look_of(&emulator, &request);
    let again = emulator.tenant().taps.get(*id).map(press::replayed);
    match again {
        None => page(&emulator, &look, Some(*id), None),
        Some(Err(problem)) => page(&emulator, &look, Some(*id), Some(problem)),
        Some(Ok(tap)) => {
            let id = press::send(&emulator, tap).await;
            see(&look.link(format!("/taps/{id}")))
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Body {
    body: String,
}

pub(super) async fn edit(
    emulator: web::Data<Emulator>,
    request: HttpRequest,
    id: web::Path<u64>,
    form: web::Form<Body>,
) -> HttpResponse {
    let look = look_of(&emulator, &request);
    let edited = emulator.tenant().taps.get(*id).map(|tap| press::edited(tap, &form.body));
    match edited {
        None => page(&emulator, &look, Some(*id), None),
        Some(tap) => {
            let id = press::send(&emulator, tap).await;
            see(&look.link(format!("/taps/{id}")))
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Behaviour {
    manner: String,
}

/// What the worker does from now on, and with this tap's command at once.
pub(super) async fn worker(
    emulator: web::Data<Emulator>,
    request: HttpRequest,
    id: web::Path<u64>,
    form: web::Form<Behaviour>,
) -> HttpResponse {
    let look = look_of(&emulator, &request);
    if let (Some(demo), Some(manner)) = (emulator.demo.get(), Manner::parse(&form.manner)) {
        demo.manner.send_replace(manner);
        let command = emulator.tenant().taps.get(*id).and_then(|tap| tap.command.clone());
        if let (Some(command), true) = (command, manner != Manner::Silent) {
            demo.orders.send((command, manner)).ok();
        }
        emulator.changed();
    }
    see(&(look.link(format!("/taps/{id}")) + "#worker"))
}

#[derive(Deserialize)]
pub(super) struct Valve {
    open: bool,
}

pub(super) async fn valve(
    emulator: web::Data<Emulator>,
    request: HttpRequest,
    form: web::Form<Valve>,
) -> HttpResponse {
    let look = look_of(&emulator, &request);
    if let Some(demo) = emulator.demo.get() {
        demo.valve.send_replace(form.open);
        emulator.changed();
    }
    see(&look.link("/"))
}

pub(super) async fn make(
    emulator: web::Data<Emulator>,
    request: HttpRequest,
    what: web::Path<String>,
) -> HttpResponse {
    let look = look_of(&emulator, &request);
    if let Some(demo) = emulator.demo.get() {
        let mut tenant = emulator.tenant();
        match &**what {
            "card" => {
                let wanted = Wanted {
                    endpoint: DemoEndpoint::Purchase,
                    user: &look.user,
                    next_status: false,
                    context: None,
                };
                demo::new_card(&mut tenant, demo, &wanted);
            }
            _ => {
                let bought = Order { goods: "订书机 × 5", en: "stapler × 5", amount: "120" };
                demo::new_task(&mut tenant, &look.user, &bought);
            }
        }
        tenant.settle();
        drop(tenant);
        emulator.changed();
    }
    see(&look.link("/"))
}
