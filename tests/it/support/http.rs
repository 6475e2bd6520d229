//! Raw HTTP for tests that check every byte, and the answer type for all tests.

use super::PATIENCE;
use serde_json::Value;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An answer of one of the two listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// From a [`Line`], in the order and spelling of the wire.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body as text, for messages and for `/metrics`.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|fault| {
            panic!("not JSON ({fault}): status {}, body {:?}", self.status, self.text())
        })
    }

    /// The value of a header, by case-insensitive name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn reason(&self) -> String {
        self.json()["msg"].as_str().map(str::to_owned).unwrap_or_default()
    }

    /// The command id of a success.
    ///
    /// # Panics
    /// If the answer is not a 200 with a `command_id`.
    pub(crate) fn command_id(&self) -> String {
        assert_eq!(self.status, 200, "refused: {}", self.text());
        let id = self.json()["data"]["command_id"].as_str().map(str::to_owned);
        id.unwrap_or_else(|| panic!("no command_id in {}", self.text()))
    }

    /// `accepted` or `duplicate`.
    pub(crate) fn status_word(&self) -> String {
        self.json()["data"]["status"].as_str().map(str::to_owned).unwrap_or_default()
    }

    /// Removes the only header that differs between equal answers.
    pub(crate) fn without_date(mut self) -> Self {
        self.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("date"));
        self
    }
}

/// One TCP connection to a listener, written and read by hand.
pub(crate) struct Line {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Line {
    pub(crate) async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the listener accepts connections");
        stream.set_nodelay(true).expect("a connected socket takes the option");
        Self { stream, unread: Vec::new() }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Writes a complete POST that leaves the connection open.
    pub(crate) async fn post(&mut self, path: &str, body: &[u8]) -> std::io::Result<()> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: countersign.test\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        self.write(&request).await
    }

    /// Closes the write side.
    pub(crate) async fn end(&mut self) {
        // An error means that the other side has already closed.
        drop(self.stream.shutdown().await);
    }

    /// Reads one answer; `None` if the other side closes before it is complete.
    ///
    /// # Panics
    /// If nothing arrives within [`PATIENCE`], or the input is not HTTP.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        loop {
            if let Some((answer, used)) = parse(&self.unread) {
                self.unread.drain(..used);
                return Some(answer);
            }
            let mut chunk = [0_u8; 8192];
            let read =
                timeout(PATIENCE, self.stream.read(&mut chunk)).await.expect("an answer within the bound");
            match read {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.unread.extend_from_slice(&chunk[..count]),
            }
        }
    }

    /// Waits until the other side closes the connection and returns the remaining input.
    pub(crate) async fn until_closed(mut self) -> Vec<u8> {
        let drained = timeout(PATIENCE, self.stream.read_to_end(&mut self.unread)).await;
        // A reset counts as a close.
        drop(drained.expect("the connection is closed within the bound"));
        self.unread
    }
}

/// The first complete answer in `bytes` and its length. Supports only `Content-Length`: neither listener uses another
/// framing for a small body.
fn parse(bytes: &[u8]) -> Option<(Answer, usize)> {
    let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..head_end]).expect("a head of ASCII");
    let mut lines = head.split("\r\n");
    let status_line = lines.next().expect("split yields at least one part");
    let status = status_line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.parse::<usize>().expect("a number as Content-Length"));
    let start = head_end + 4;
    let body = bytes.get(start..start + length)?.to_vec();
    Some((Answer { status, headers, body }, start + length))
}
