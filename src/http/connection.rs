//! A connection whose last answer was given.
//!
//! actix answers requests that were pipelined behind one whose answer closes the connection; by RFC 9112 §9.6 they are
//! not to be processed. A stranger would get work done behind a refusal, and a decision would be kept whose sender was
//! told that nothing more is heard on this connection. So what closes a connection is noted on it, and what comes
//! behind is not heard: its answer says that it may be sent again over another connection (RFC 9110 §15.5.20).

use std::{
    cell::Cell,
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    body::{BodySize, MessageBody},
    dev::Extensions,
    http::{ConnectionType, StatusCode},
    web::{Bytes, Payload},
};

use super::answer;

/// Whether the last answer of a connection was given.
struct Over(Cell<bool>);

/// Bytes that were read of a connection since somebody last heard what they say: of a head that is not complete, or of a
/// body that the server has not passed on.
#[derive(Clone, Debug, Default)]
pub(super) struct Unheard(Rc<Cell<usize>>);

impl Unheard {
    /// Adds what was just read, and says how much there is then.
    pub(super) fn add(&self, bytes: usize) -> usize {
        self.0.set(self.0.get().saturating_add(bytes));
        self.0.get()
    }
}

/// To be called for each new connection.
pub(super) fn begin(unheard: Unheard, extensions: &mut Extensions) {
    extensions.insert(Over(Cell::new(false)));
    extensions.insert(unheard);
}

/// To be called when a request has come, and for each piece of its body.
pub(super) fn heard(request: &HttpRequest) {
    if let Some(unheard) = request.conn_data::<Unheard>() {
        unheard.0.set(0);
    }
}

/// Whether the last answer of the request's connection was given already.
pub(super) fn is_over(request: &HttpRequest) -> bool {
    request.conn_data::<Over>().is_some_and(|over| over.0.get())
}

/// Notes if this answer is the last of its connection.
pub(super) fn note(request: &HttpRequest, response: &HttpResponse) {
    let closes = response.head().connection_type() == ConnectionType::Close
        || request.head().connection_type() == ConnectionType::Close;
    if closes && let Some(over) = request.conn_data::<Over>() {
        over.0.set(true);
    }
}

/// The answer to a request that comes behind the last one.
pub(super) fn unheard(payload: Payload) -> HttpResponse {
    let body = Bytes::from_static(br#"{"code":42100,"msg":"connection_closed"}"#);
    close_after(answer::json(StatusCode::MISDIRECTED_REQUEST), body, payload)
}

/// Finishes an answer that is given although the body was not read, and closes the connection after it.
///
/// The answer keeps hold of the payload. While somebody holds it the server does not wait for the rest of a chunked
/// body (which has no deadline and may never end), but closes: it sends the answer, discards what still comes for a
/// second so that a sender in the middle of its body gets to read the answer, and hangs up.
pub(super) fn close_after(mut response: HttpResponseBuilder, body: Bytes, payload: Payload) -> HttpResponse {
    response.force_close();
    response.body(Holding { body: Some(body), _payload: payload })
}

struct Holding {
    body: Option<Bytes>,
    _payload: Payload,
}

impl MessageBody for Holding {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.body.as_ref().map_or(0, Bytes::len) as u64)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Poll::Ready(self.body.take().map(Ok))
    }
}
