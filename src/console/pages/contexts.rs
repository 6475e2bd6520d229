//! `/contexts/{key}`: what a registered context stands for. Read only: the third party writes it.

use actix_web::{HttpRequest, HttpResponse, web};
use askama::Template;

use super::{ContextViewer, Desk, Fact, Frame, Halt, Phrases, link, look};
use crate::{console::contexts::decode, time::Timestamp};

#[derive(Template)]
#[template(path = "context.html", config = "src/console/pages/askama.toml")]
struct ContextPage {
    f: Frame,
    t: &'static Phrases,
    key: String,
    expired: bool,
    facts: Vec<Fact>,
    json: Option<String>,
    acts: String,
}

/// `GET /contexts/{key}`.
pub(super) async fn page(
    ContextViewer(viewer): ContextViewer,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Halt> {
    let t = viewer.t();
    // From the undecoded path, as the API reads it.
    let encoded = request.uri().path().strip_prefix("/contexts/").unwrap_or_default();
    let Some(key) = decode(encoded) else { return Err(viewer.not_found(t.no_such_context)) };
    let Some(found) = look!(viewer, desk.ledger.registration(key.clone())) else {
        return Err(viewer.not_found(t.no_such_context));
    };
    let grant = &found.registered.grant;
    let task = &grant.task;
    let list =
        |texts: &Option<Vec<String>>| texts.as_ref().map_or(t.anybody.to_owned(), |texts| texts.join(", "));
    let mut facts = Vec::new();
    let mut of = |name, value: &Option<String>, key: &str| {
        facts.extend(
            value
                .as_ref()
                .map(|value| Fact::link(name, value.clone(), link("/decisions", [(key, &**value)]))),
        );
    };
    of(t.instance, &task.instance_id, "instance_id");
    of(t.task, &task.task_id, "task_id");
    facts.extend(task.round.clone().map(|round| Fact::of(t.fact_round, round)));
    facts.extend(task.business_key.clone().map(|key| Fact::of(t.fact_business_key, key)));
    facts.push(Fact::of(t.context_operators, list(&grant.operators)));
    facts.push(Fact::of(t.context_actions, list(&grant.actions)));
    facts.extend(grant.approval_code.clone().map(|code| Fact::of(t.fact_approval_code, code)));
    facts.extend(grant.endpoint.clone().map(|endpoint| Fact::of(t.context_endpoint, endpoint)));
    facts.extend(found.message_id.map(|id| Fact::of(t.card, id.to_string())));
    facts.extend(found.registered.expires_at.map(|at| Fact::of(t.context_expires, viewer.shown(at))));
    facts.push(Fact::of(t.context_registered, viewer.shown(found.registered_at)));
    let page = ContextPage {
        t,
        acts: link("/acts", [("context", &*key)]),
        key,
        expired: found.registered.expires_at.is_some_and(|at| at <= Timestamp::now()),
        facts,
        json: task.data.as_ref().map(|data| crate::telemetry::taming::indented(data.get())),
        f: viewer.frame.clone(),
    };
    Ok(viewer.page(&page))
}
