//! The JSON API with which the third party registers in advance which task a context or a bot message means.

use std::{future::Future, time::Duration};

use crate::time::Timestamp;
use actix_web::{
    HttpMessage, HttpRequest, HttpResponse,
    http::StatusCode,
    web::{self, Bytes, BytesMut, Payload},
};
use futures_util::StreamExt;
use serde::Serialize;

use super::{
    Desk,
    api::{look, no_query},
    permission::{ContextOnlooker, Registrar},
    problem::Problem,
    registration::{self, Shown},
};
use crate::ledger::{AcceptError, Registering};

pub(super) const MAX_BODY_BYTES: usize = 64 << 10;

/// Bytes in the body of a batch: a thousand contexts of the usual size with much `data`.
const MAX_BATCH_BYTES: usize = 4 << 20;

/// Bounds how long an incomplete body holds memory.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A commit takes milliseconds, even behind a queue of others.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

const PREFIX: &str = "/api/v1/contexts/";

#[derive(Serialize)]
struct Registered {
    created: usize,
    replaced: usize,
}

/// `PUT /api/v1/contexts/{key}`: registers a context, or replaces it completely.
pub(super) async fn put(
    Registrar(actor): Registrar,
    request: HttpRequest,
    payload: Payload,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Problem> {
    no_query(&request)?;
    let key = key(&request)?;
    let body = json_body(&request, payload, MAX_BODY_BYTES).await?;
    let registration = registration::read(&body, key, Timestamp::now())?;
    let shown = serde_json::to_vec(&Shown::from(&registration)).expect("texts and JSON always render");
    match write(desk.ledger.register(vec![registration], actor.into())).await? {
        Registering::Kept { replaced } => {
            let status = if replaced == [true] { StatusCode::OK } else { StatusCode::CREATED };
            Ok(HttpResponse::build(status).content_type("application/json").body(shown))
        }
        Registering::MessageTaken { .. } => Err(Problem::message_taken(None)),
    }
}

/// `POST /api/v1/contexts:batch`: registers up to a thousand contexts, all or none.
pub(super) async fn batch(
    Registrar(actor): Registrar,
    request: HttpRequest,
    payload: Payload,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Problem> {
    no_query(&request)?;
    let body = json_body(&request, payload, MAX_BATCH_BYTES).await?;
    let registrations = registration::read_batch(&body, Timestamp::now())?;
    match write(desk.ledger.register(registrations, actor.into())).await? {
        Registering::Kept { replaced } => {
            let all = replaced.len();
            let replaced = replaced.into_iter().filter(|replaced| *replaced).count();
            Ok(HttpResponse::Ok().json(Registered { created: all - replaced, replaced }))
        }
        Registering::MessageTaken { item } => Err(Problem::message_taken(Some(item))),
    }
}

/// `GET /api/v1/contexts/{key}`: a registered context.
pub(super) async fn get(
    _: ContextOnlooker,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Problem> {
    no_query(&request)?;
    match look(desk.ledger.registration(key(&request)?)).await? {
        Some(registration) => Ok(HttpResponse::Ok().json(Shown::from(&registration))),
        None => Err(no_such_context()),
    }
}

/// `DELETE /api/v1/contexts/{key}`: removes a context.
pub(super) async fn delete(
    Registrar(actor): Registrar,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Problem> {
    no_query(&request)?;
    if write(desk.ledger.unregister(key(&request)?, actor.into())).await? {
        return Ok(HttpResponse::NoContent().finish());
    }
    Err(no_such_context())
}

fn no_such_context() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no_such_context",
        "No context is registered under this key; it may have been pruned after it expired.",
    )
}

/// The key from the undecoded path: the router's decoding may differ from the client's encoding.
fn key(request: &HttpRequest) -> Result<String, Problem> {
    let encoded = request.uri().path().strip_prefix(PREFIX).unwrap_or_default();
    let key =
        decode(encoded).ok_or_else(|| Problem::bad_parameter("key", "Is not percent-encoded UTF-8."))?;
    registration::check_key(&key).map_err(|message| Problem::bad_parameter("key", message))?;
    Ok(key)
}

/// Decodes strictly: the crate `percent-encoding` keeps a `%` that begins no escape, which would yield a different
/// key.
pub(super) fn decode(encoded: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            plain => plain,
        });
    }
    String::from_utf8(decoded).ok()
}

/// Reads the body if its type is JSON: a form on a web page cannot send that without a preflight request.
pub(super) async fn json_body(
    request: &HttpRequest,
    mut payload: Payload,
    max_bytes: usize,
) -> Result<Bytes, Problem> {
    if !request.content_type().eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not_json",
            "Send JSON, with `Content-Type: application/json`.",
        ));
    }
    let collect = async {
        let mut body = BytesMut::new();
        while let Some(piece) = payload.next().await {
            let piece = piece.map_err(|_broken| too_slow())?;
            if body.len() + piece.len() > max_bytes {
                return Err(Problem::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "body_too_large",
                    format!("The body is longer than {max_bytes} bytes."),
                )
                .closing());
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    };
    tokio::time::timeout(BODY_TIMEOUT, collect).await.unwrap_or_else(|_elapsed| Err(too_slow()))
}

fn too_slow() -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "The body did not arrive completely in time.")
        .closing()
}

/// Waits for a write to the ledger, up to [`WRITE_TIMEOUT`].
pub(super) async fn write<T>(writing: impl Future<Output = Result<T, AcceptError>>) -> Result<T, Problem> {
    match tokio::time::timeout(WRITE_TIMEOUT, writing).await {
        Ok(Ok(answer)) => Ok(answer),
        // The writer has already logged the cause.
        Ok(Err(
            AcceptError::Overloaded
            | AcceptError::NoRoom
            | AcceptError::NotDurable
            | AcceptError::Unavailable,
        )) => Err(Problem::ledger_unwritable()),
        Err(_elapsed) => {
            tracing::warn!(timeout = ?WRITE_TIMEOUT, "ledger write timed out");
            Err(Problem::ledger_unwritable())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_decoded_once_and_wholly() {
        for (encoded, key) in [
            ("a", Some("a")),
            ("a+b", Some("a+b")),
            ("a%2Fb%2fc", Some("a/b/c")),
            ("%7B%22t%22%3A1%7D", Some(r#"{"t":1}"#)),
            ("%252F", Some("%2F")),
            ("%E5%AE%A1", Some("审")),
            ("审", Some("审")),
            ("%00", Some("\0")),
            ("%E5%AE", None),
            ("%ff", None),
            ("%", None),
            ("%4", None),
            ("%4g", None),
            ("%+1", None),
        ] {
            assert_eq!(decode(encoded).as_deref(), key, "{encoded}");
        }
    }
}
