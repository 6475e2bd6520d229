//! Reads a callback's body within limits on size, time and memory.

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpRequest,
    http::header::CONTENT_LENGTH,
    web::{Bytes, BytesMut, Payload},
};
use futures_util::StreamExt;

use super::{
    budget::{Budget, Held},
    connection,
};
use crate::intake::Refusal;

/// A body may have this many pieces, plus one for each [`BYTES_PER_PIECE`]. A piece is a chunk or a packet; each
/// costs memory and time in addition to its bytes.
const MOST_PIECES: usize = 1024;
const BYTES_PER_PIECE: usize = 64;

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_bytes: usize,
    /// From the first byte to the last.
    pub(super) timeout: Duration,
}

/// A body that was not read completely.
#[derive(Debug)]
pub(super) struct Unread {
    /// [`Refusal::BodyTooLarge`], [`Refusal::TooSlow`] or [`Refusal::Overloaded`].
    pub(super) refusal: Refusal,
    /// Bytes read so far.
    pub(super) bytes: u64,
    /// The cause, for the log.
    pub(super) detail: &'static str,
}

/// Reads the body within its limits and returns it with its share of the `budget`.
///
/// If `Content-Length` is too large, the body is refused unread. Without `Content-Length` it is refused once it has
/// grown too large. A body that ends early or breaks its chunked encoding counts as not received. Compressed bodies
/// are not decompressed: the platform sends none, and decompression would defeat the limit.
pub(super) async fn read(
    request: &HttpRequest,
    payload: &mut Payload,
    limits: Limits,
    budget: &Arc<Budget>,
) -> Result<(Bytes, Held), Unread> {
    // Always a number here: the server answers anything else with 400.
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limits.max_bytes as u64) {
        return Err(Unread {
            refusal: Refusal::BodyTooLarge,
            bytes: 0,
            detail: "announced by Content-Length",
        });
    }

    let (mut bytes, mut held) = (0, Held::of(budget));
    let collected = collect(request, payload, limits.max_bytes, &mut bytes, &mut held);
    match tokio::time::timeout(limits.timeout, collected).await {
        Ok(Ok(body)) => Ok((body, held)),
        Ok(Err((refusal, detail))) => Err(Unread { refusal, bytes: bytes as u64, detail }),
        Err(_elapsed) => {
            Err(Unread { refusal: Refusal::TooSlow, bytes: bytes as u64, detail: "not complete in time" })
        }
    }
}

/// Keeps `bytes` up to date, even if it fails or is dropped.
async fn collect(
    request: &HttpRequest,
    payload: &mut Payload,
    max_bytes: usize,
    bytes: &mut usize,
    held: &mut Held,
) -> Result<Bytes, (Refusal, &'static str)> {
    // Nearly every body arrives in one piece, which is passed on without a copy.
    let mut whole = Bytes::new();
    let mut pieces = BytesMut::new();
    let mut count = 0;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_broken| (Refusal::TooSlow, "ended before it was complete"))?;
        connection::heard(request);
        let before = *bytes;
        *bytes = before.saturating_add(chunk.len());
        if *bytes > max_bytes {
            return Err((Refusal::BodyTooLarge, "longer than the limit"));
        }
        count += 1;
        if count > MOST_PIECES + *bytes / BYTES_PER_PIECE {
            return Err((Refusal::BodyTooLarge, "in too many small pieces"));
        }
        if before == 0 {
            whole = chunk;
        } else {
            if pieces.is_empty() {
                pieces.extend_from_slice(&whole);
            }
            pieces.extend_from_slice(&chunk);
            if !held.set(pieces.capacity()) {
                return Err((
                    Refusal::Overloaded,
                    "unread bytes of all connections exceed http.max_unread_bytes",
                ));
            }
        }
    }
    Ok(if pieces.is_empty() { whole } else { pieces.freeze() })
}
