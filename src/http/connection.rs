//! Ends connections whose last answer was sent.
//!
//! actix still answers requests pipelined behind one whose answer closes the connection; RFC 9112 §9.6 forbids
//! processing them. Otherwise a stranger would get work done after a refusal, and a decision would be kept although
//! its sender was informed that the connection was closing. So closing is noted on the connection, and later requests
//! are not processed: their answer says that they may be sent again over another connection (RFC 9110 §15.5.20).

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

/// Whether the connection's last answer was given.
struct Over(Cell<bool>);

/// Bytes read from a connection but not processed yet: an incomplete head, or a body that the server has not passed
/// on.
#[derive(Clone, Debug, Default)]
pub(super) struct Unheard(Rc<Cell<usize>>);

impl Unheard {
    /// Adds bytes just read and returns the new total.
    pub(super) fn add(&self, bytes: usize) -> usize {
        self.0.set(self.0.get().saturating_add(bytes));
        self.0.get()
    }
}

/// Call this for each new connection.
pub(super) fn begin(unheard: Unheard, extensions: &mut Extensions) {
    extensions.insert(Over(Cell::new(false)));
    extensions.insert(unheard);
}

/// Call this for each request, and for each piece of its body.
pub(super) fn heard(request: &HttpRequest) {
    if let Some(unheard) = request.conn_data::<Unheard>() {
        unheard.0.set(0);
    }
}

/// Whether the last answer on this request's connection was already given.
pub(super) fn is_over(request: &HttpRequest) -> bool {
    request.conn_data::<Over>().is_some_and(|over| over.0.get())
}

/// Records whether this answer is the last of its connection.
pub(super) fn note(request: &HttpRequest, response: &HttpResponse) {
    let closes = response.head().connection_type() == ConnectionType::Close
        || request.head().connection_type() == ConnectionType::Close;
    if closes && let Some(over) = request.conn_data::<Over>() {
        over.0.set(true);
    }
}

/// The answer to a request behind the last one.
pub(super) fn unheard(payload: Payload) -> HttpResponse {
    let body = Bytes::from_static(br#"{"code":42100,"msg":"connection_closed"}"#);
    close_after(answer::json(StatusCode::MISDIRECTED_REQUEST), body, payload)
}

/// Finishes an answer to a request whose body was not read, and closes the connection after it.
///
/// The answer holds the payload. While it is held, the server does not wait for the rest of a chunked body (which has
/// no deadline and may never end). Instead it sends the answer, discards input for a second so that a sender in the
/// middle of its body can read the answer, and closes.
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
