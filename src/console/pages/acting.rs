//! What a page changes: one command requeued, parked, or its outcome shown again. Each is a form, an act with a reason,
//! and a redirect.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};

use super::{Changer, Desk, Halt, Viewer, chosen, decision, decision_href, link, see_other};
use crate::{
    console::contexts::write,
    ledger::{By, CarriedOut, MAX_REASON_CHARS, Order, OrderKind, Ordered, Record},
};

/// The pairs of a form; `None` if it is none.
pub(super) fn form(body: &[u8]) -> Option<Vec<(String, String)>> {
    let text = std::str::from_utf8(body).ok()?;
    web::Query::<Vec<(String, String)>>::from_query(text).ok().map(web::Query::into_inner)
}

/// The reason of a form; `None` if there is none, or it is too long.
pub(super) fn reason(pairs: &[(String, String)]) -> Option<String> {
    let reason = chosen(pairs, "reason").trim();
    (1..=MAX_REASON_CHARS).contains(&reason.chars().count()).then(|| reason.to_owned())
}

/// Carries out an order.
pub(super) async fn ordered(viewer: Viewer, desk: &Desk, order: Order) -> Result<(Viewer, CarriedOut), Halt> {
    match write(desk.ledger.order(order)).await {
        Ok(carried_out) => Ok((viewer, carried_out)),
        Err(_problem) => {
            let t = viewer.t();
            Err(viewer.halt(StatusCode::SERVICE_UNAVAILABLE, t.error_title, t.failed_write))
        }
    }
}

/// What every act on one command needs: the command in the state that its page showed, by whom, and why.
async fn asked(
    viewer: Viewer,
    request: &HttpRequest,
    desk: &Desk,
    body: &[u8],
) -> Result<(Viewer, Record, By), Halt> {
    let t = viewer.t();
    let Some(pairs) = form(body) else {
        return Err(viewer.halt(StatusCode::BAD_REQUEST, t.error_title, t.body_unread));
    };
    let Some(reason) = reason(&pairs) else {
        return Err(viewer.halt(StatusCode::UNPROCESSABLE_ENTITY, t.error_title, t.confirm_no_reason));
    };
    let (viewer, record) = decision::found(viewer, request, desk).await?;
    // Somebody else may have acted since the page was made.
    if chosen(&pairs, "state") != record.state.as_str() {
        return Err(viewer.halt(StatusCode::CONFLICT, t.error_title, t.act_illegal));
    }
    let by = By { actor: viewer.actor.clone(), reason: Some(reason) };
    Ok((viewer, record, by))
}

/// Carries out one act on the command of a page.
async fn act(
    kind: OrderKind,
    viewer: Viewer,
    request: &HttpRequest,
    desk: &Desk,
    body: &[u8],
) -> Result<HttpResponse, Halt> {
    let (viewer, record, by) = asked(viewer, request, desk, body).await?;
    let id = record.command_id;
    let order = Order { kind, commands: vec![id], if_state: Some(record.state), by };
    let (viewer, carried_out) = ordered(viewer, desk, order).await?;
    let t = viewer.t();
    let refused = match carried_out.first() {
        Ordered::Done => {
            tracing::info!(command_id = %id, act = kind.as_str(), "operator acted in the console");
            return Ok(see_other(&link(&decision_href(id), [("done", kind.as_str())])));
        }
        Ordered::UnknownCommand => return Err(viewer.not_found(t.no_such_decision)),
        Ordered::OtherState(_) => t.act_illegal,
        Ordered::NoOutcome => t.act_no_outcome,
        Ordered::NothingToShow => t.act_nothing_to_show,
    };
    Err(viewer.halt(StatusCode::CONFLICT, t.error_title, refused))
}

/// `POST /decisions/{command_id}/requeue`.
pub(super) async fn requeue(
    Changer(viewer): Changer,
    request: HttpRequest,
    desk: web::Data<Desk>,
    body: web::Bytes,
) -> Result<HttpResponse, Halt> {
    act(OrderKind::Requeue, viewer, &request, &desk, &body).await
}

/// `POST /decisions/{command_id}/park`.
pub(super) async fn park(
    Changer(viewer): Changer,
    request: HttpRequest,
    desk: web::Data<Desk>,
    body: web::Bytes,
) -> Result<HttpResponse, Halt> {
    act(OrderKind::Park, viewer, &request, &desk, &body).await
}

/// `POST /decisions/{command_id}/show-again`.
pub(super) async fn show_again(
    Changer(viewer): Changer,
    request: HttpRequest,
    desk: web::Data<Desk>,
    body: web::Bytes,
) -> Result<HttpResponse, Halt> {
    act(OrderKind::ShowAgain, viewer, &request, &desk, &body).await
}
