//! Minimal HTTP/1.1: a request is bytes, an answer is a status and a body. A client library would cost a load
//! generator more than the service under test.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::template::find;

/// Limit of a response head.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Limit of a response body.
const MAX_BODY_BYTES: usize = 1 << 20;

/// A keep-alive connection.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    reusable: bool,
}

pub(super) struct Response<'a> {
    pub(super) status: u16,
    pub(super) body: &'a [u8],
}

impl Connection {
    /// Connects to the first address that accepts.
    pub(super) async fn open(addresses: &[SocketAddr]) -> io::Result<Self> {
        let stream = TcpStream::connect(addresses).await?;
        // Each request is one write; waiting for more gains nothing.
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4096), reusable: true })
    }

    /// True if another request may be sent: the server has neither closed the connection nor announced it.
    pub(super) fn is_open(&self) -> bool {
        if !self.reusable {
            return false;
        }
        // Between requests, only EOF can be readable. Makes a syscall only if readiness was signalled before.
        matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a request and reads its answer. After an error or if dropped midway, the connection cannot be reused.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> io::Result<Response<'_>> {
        self.reusable = false;
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let (head, end) = loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the answer"));
            }
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break (Head::parse(&self.buffer[..end])?, end + 4);
            }
            if self.buffer.len() > MAX_HEAD_BYTES {
                return Err(invalid("the head of the answer is too long"));
            }
        };
        let whole = end + head.length;
        while self.buffer.len() < whole {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed within the answer"));
            }
        }
        self.reusable = !head.closes && self.buffer.len() == whole;
        Ok(Response { status: head.status, body: &self.buffer[end..whole] })
    }
}

struct Head {
    status: u16,
    length: usize,
    closes: bool,
}

impl Head {
    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|_| invalid("the head of the answer is no text"))?;
        let mut lines = text.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok())
            .ok_or_else(|| invalid("the answer is not HTTP/1.1"))?;
        let mut head = Self { status, length: 0, closes: false };
        let mut known = status == 204;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                head.length = value
                    .parse()
                    .ok()
                    .filter(|length| *length <= MAX_BODY_BYTES)
                    .ok_or_else(|| invalid("the answer has no sensible Content-Length"))?;
                known = true;
            } else if name.eq_ignore_ascii_case("connection") {
                head.closes = value.eq_ignore_ascii_case("close");
            }
        }
        if known { Ok(head) } else { Err(invalid("the answer has no Content-Length")) }
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
