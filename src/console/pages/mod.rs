//! The operator's pages: HTML over the same view types as the JSON API, made here and complete without a script.
//!
//! Every text on a page may come from a stranger. Two rules keep it harmless, and neither depends on an author who
//! remembers it: templates escape everything (a test forbids the filter that does not), and each rendered page passes
//! [`taming::lines`], so that control and bidirectional characters are shown by their code.
//!
//! [`Viewer`] is who looks at a page, and the frame round it; [`Changer`] is a viewer whose request may change
//! something. A handler that takes neither serves strangers.

mod acting;
mod acts;
mod assets;
mod bulk;
mod chart;
mod condition;
mod contexts;
mod decision;
mod decisions;
mod export;
mod findings;
mod frame;
mod health;
mod home;
mod listed;
mod live;
mod login;
mod lookup;
mod parked;
mod parts;
mod phrases;
mod question;
mod refusals;
mod viewer;
mod why;

use actix_web::{HttpRequest, HttpResponse, ResponseError, web};

use super::{Desk, Entry, get};
use phrases::{Fault, FaultWords, Phrases};
use {
    frame::{Frame, cookie},
    parts::{
        Choice, Fact, Field, Live, Mark, Term, When, action_of, choices, chosen, clipped, decision_href,
        fields, link, meaning_of, query, searched, span, task_of,
    },
    viewer::{Changer, ContextViewer, Halt, Poster, Unread, admitted, host, look, see_other, stranger},
};

pub(super) use bulk::Results;
pub(super) use live::Streams;
pub(super) use viewer::{Viewer, wants_html};

/// The routes of the pages; `/` is the listener's own, since programs read it as well.
pub(super) const TABLE: [Entry; 27] = [
    ("GET", "/assets/{name}", || get().to(assets::get)),
    ("GET", "/login", || get().to(login::page)),
    ("POST", "/login", || web::post().to(login::log_in)),
    ("POST", "/logout", || web::post().to(login::log_out)),
    ("GET", "/why", || get().to(why::page)),
    ("GET", "/decisions", || get().to(decisions::list)),
    ("GET", "/decisions.csv", || get().to(export::decisions_csv)),
    ("GET", "/decisions.jsonl", || get().to(export::decisions_jsonl)),
    ("GET", "/decisions/{command_id}", || get().to(decision::one)),
    ("POST", "/decisions/{command_id}/requeue", || web::post().to(acting::requeue)),
    ("POST", "/decisions/{command_id}/park", || web::post().to(acting::park)),
    ("POST", "/decisions/{command_id}/show-again", || web::post().to(acting::show_again)),
    ("GET", "/refusals", || get().to(refusals::list)),
    ("GET", "/refusals.csv", || get().to(export::refusals_csv)),
    ("GET", "/refusals.jsonl", || get().to(export::refusals_jsonl)),
    ("GET", "/refusals/{id}", || get().to(refusals::one)),
    ("GET", "/parked", || get().to(parked::page)),
    ("GET", "/parked/requeue", || get().to(bulk::confirm_requeue)),
    ("POST", "/parked/requeue", || web::post().to(bulk::requeue)),
    ("GET", "/parked/show-again", || get().to(bulk::confirm_show_again)),
    ("POST", "/parked/show-again", || web::post().to(bulk::show_again)),
    ("GET", "/parked/results/{id}", || get().to(parked::result)),
    ("GET", "/findings", || get().to(findings::page)),
    ("GET", "/health", || get().to(health::page)),
    ("GET", "/acts", || get().to(acts::page_of)),
    ("GET", "/contexts/{key}", || get().to(contexts::page)),
    ("GET", "/live", || get().to(live::stream)),
];

pub(super) use home::page as home;

/// What a browser may do with a page: run our one script, show our one style sheet, send forms here, and nothing
/// else. Harmless on every other answer of this listener.
pub(super) const SECURITY_HEADERS: [(&str, &str); 4] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; \
         trusted-types cs",
    ),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// For a browser that went to no page.
pub(super) fn not_found(request: &HttpRequest) -> HttpResponse {
    match stranger(request) {
        Ok(viewer) => {
            let message = viewer.t().not_found_message;
            viewer.not_found(message).error_response()
        }
        Err(halt) => halt.error_response(),
    }
}

#[cfg(test)]
mod tests;
