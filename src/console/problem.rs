//! The error format of the internal listener.

use std::fmt;

use actix_web::{
    HttpRequest, HttpResponse, Responder, ResponseError,
    http::{
        ConnectionType, StatusCode,
        header::{HeaderValue, WWW_AUTHENTICATE},
    },
};
use serde::Serialize;
use serde_with::skip_serializing_none;

/// An error answer: `{"error":"<word>","message":"<sentence>"}`, and what to fix: a `"parameter"` of the request, or
/// a `"member"` of the body and the `"item"` of the list that contains it.
#[skip_serializing_none]
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    #[serde(skip)]
    status: StatusCode,
    /// A stable word for programs.
    error: &'static str,
    message: String,
    parameter: Option<String>,
    /// The index in a list of the body, from 0.
    item: Option<usize>,
    member: Option<String>,
    /// Whether to stop reading from this sender.
    #[serde(skip)]
    closing: bool,
}

impl Problem {
    pub(super) fn new(status: StatusCode, error: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, error, message, parameter: None, item: None, member: None, closing: false }
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "Send a token of [admin] as `Authorization: Bearer <token>`.",
        )
    }

    pub(super) fn not_permitted() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "not_permitted",
            "The role of this token in admin.tokens does not permit this.",
        )
    }

    /// For a stream of a page; the page itself has the login.
    pub(super) fn no_session() -> Self {
        Self::new(StatusCode::FORBIDDEN, "no_session", "Log in at /login.")
    }

    /// The parameter of the request that is to be fixed.
    pub(super) fn parameter(&self) -> Option<&str> {
        self.parameter.as_deref()
    }

    pub(super) fn bad_parameter(name: &str, message: impl Into<String>) -> Self {
        let parameter = Some(name.to_owned());
        Self { parameter, ..Self::new(StatusCode::BAD_REQUEST, "bad_parameter", message) }
    }

    pub(super) fn bad_body(item: Option<usize>, message: impl Into<String>) -> Self {
        Self { item, ..Self::new(StatusCode::BAD_REQUEST, "bad_body", message) }
    }

    pub(super) fn bad_member(
        item: Option<usize>,
        member: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        let member = Some(member.into());
        Self { item, member, ..Self::new(StatusCode::BAD_REQUEST, "bad_member", message) }
    }

    pub(super) fn message_taken(item: Option<usize>) -> Self {
        let message = "An unexpired context with another key has this message_id.";
        let member = Some("message_id".to_owned());
        Self { item, member, ..Self::new(StatusCode::CONFLICT, "message_taken", message) }
    }

    /// Closes the connection after the answer, because the rest of the body is not read.
    pub(super) fn closing(self) -> Self {
        Self { closing: true, ..self }
    }

    pub(super) fn ledger_unwritable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ledger_unavailable",
            "The ledger cannot be written now. The change may have been made; repeat the request.",
        )
    }

    pub(super) fn ledger_unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ledger_unavailable",
            "The ledger cannot be read now; the cause is in the log.",
        )
    }

    pub(super) fn response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status).json(self);
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"countersign\""));
        }
        if self.closing {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        response
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        self.response()
    }
}

impl Responder for Problem {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, _request: &HttpRequest) -> HttpResponse {
        self.response()
    }
}
