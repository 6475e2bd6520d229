//! Posts a callback and interprets the answer.

use std::{borrow::Cow, time::Instant};

use serde::Serialize;
use serde_json::Value;
use serde_with::skip_serializing_none;

use super::tally::millis;
use crate::{proxy, telemetry::log::chain};

#[skip_serializing_none]
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// Absent if neither the callback nor its context names one. Only the service knows the task that a context was
    /// registered for.
    pub(super) task_id: Option<String>,
    /// Absent if there was no answer.
    pub(super) http_status: Option<u16>,
    /// `accepted`, `duplicate`, a reason, `unanswered`, or `unknown` for an answer that is not countersign's.
    pub(super) outcome: String,
    pub(super) command_id: Option<String>,
    /// The sentence for the approver, or why there was no answer.
    pub(super) message: Option<String>,
    pub(super) elapsed_ms: f64,
    /// Absent if it was not waited for.
    pub(super) worker: Option<Worker>,
}

/// What the worker reported; nulls if there was no report in time.
#[derive(Debug, Serialize)]
pub(super) struct Worker {
    pub(super) outcome: Option<&'static str>,
    pub(super) message: Option<String>,
}

pub(super) async fn post(
    client: &reqwest::Client,
    url: &reqwest::Url,
    task_id: Option<String>,
    body: Vec<u8>,
) -> Answer {
    let began = Instant::now();
    let request = client.post(url.clone()).header("content-type", "application/json").body(body);
    let answered = async {
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok::<_, reqwest::Error>((status, response.bytes().await?))
    };
    match answered.await {
        Ok((status, bytes)) => read(task_id, status, &bytes, millis(began.elapsed())),
        Err(error) => Answer {
            task_id,
            http_status: None,
            outcome: "unanswered".to_owned(),
            command_id: None,
            message: Some(format!(
                "not reached{}: {}",
                proxy::words(url.as_str()),
                chain(&error.without_url())
            )),
            elapsed_ms: millis(began.elapsed()),
            worker: None,
        },
    }
}

fn read(task_id: Option<String>, status: u16, bytes: &[u8], elapsed_ms: f64) -> Answer {
    let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    Answer {
        task_id,
        http_status: Some(status),
        outcome: outcome_of(status, bytes).into_owned(),
        command_id: text("/data/command_id"),
        message: text("/message"),
        elapsed_ms,
        worker: None,
    }
}

/// Classifies an answer: `accepted` or `duplicate`, or the reason of a refusal.
pub(super) fn outcome_of(status: u16, bytes: &[u8]) -> Cow<'_, str> {
    /// The fields that distinguish both kinds of answers.
    #[derive(Default, serde::Deserialize)]
    struct Words<'a> {
        #[serde(borrow)]
        msg: Option<Cow<'a, str>>,
        #[serde(borrow)]
        data: Option<Data<'a>>,
    }
    #[derive(serde::Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        status: Option<Cow<'a, str>>,
    }
    let words: Words<'_> = serde_json::from_slice(bytes).unwrap_or_default();
    let word = if status == 200 { words.data.and_then(|data| data.status) } else { words.msg };
    word.unwrap_or(Cow::Borrowed("unknown"))
}

impl Answer {
    pub(super) fn words(&self) -> String {
        let message = self.message.as_deref().unwrap_or_default();
        match self.http_status {
            Some(status) => format!("countersign: refused with {status} {}: {message}", self.outcome),
            None => format!("countersign: no answer: {message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::PATIENCE, *};
    use crate::cli::{Trust, client};

    #[test]
    fn an_answer_is_read_whatever_it_is() {
        let body = br#"{"code":0,"msg":"success","data":{"command_id":"0199","status":"duplicate"}}"#;
        let answer = read(Some("t".to_owned()), 200, body, 1.0);
        assert_eq!((answer.outcome.as_str(), answer.command_id.as_deref()), ("duplicate", Some("0199")));
        let body = br#"{"code":40300,"msg":"unauthenticated","message":"no","without_prefix":"true"}"#;
        let answer = read(Some("t".to_owned()), 403, body, 1.0);
        assert_eq!((answer.outcome.as_str(), answer.message.as_deref()), ("unauthenticated", Some("no")));
        assert_eq!(read(Some("t".to_owned()), 502, b"<html>", 1.0).outcome, "unknown");
    }

    /// Answers one request with these bytes; `None` closes the connection.
    async fn answering(answer: Option<&'static str>) -> reqwest::Url {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"the body") {
                let mut some = [0; 1024];
                let count = stream.read(&mut some).await.unwrap();
                assert!(count > 0, "the whole request comes");
                seen.extend_from_slice(&some[..count]);
            }
            let head = String::from_utf8_lossy(&seen).to_lowercase();
            assert!(head.starts_with("post /callbacks/a http/1.1"), "{head}");
            assert!(head.contains("content-type: application/json"), "{head}");
            if let Some(answer) = answer {
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        format!("http://{address}/callbacks/a").parse().unwrap()
    }

    async fn posted(url: &reqwest::Url) -> Answer {
        rustls::crypto::ring::default_provider().install_default().ok();
        post(&client(url, Trust::System, PATIENCE).unwrap(), url, Some("t".to_owned()), b"the body".to_vec())
            .await
    }

    #[tokio::test]
    async fn a_post_ends_in_an_answer_or_in_none() {
        let url = answering(Some(
            "HTTP/1.1 422 X\r\ncontent-length: 34\r\n\r\n{\"msg\":\"malformed\",\"message\":\"no\"}",
        ))
        .await;
        let answer = posted(&url).await;
        assert_eq!((answer.http_status, answer.outcome.as_str()), (Some(422), "malformed"));
        let answer = posted(&answering(None).await).await;
        assert_eq!((answer.http_status, answer.outcome.as_str()), (None, "unanswered"));
        let answer = posted(&"http://127.0.0.1:1/".parse().unwrap()).await;
        assert!(answer.message.unwrap().contains("refused"));
    }
}
