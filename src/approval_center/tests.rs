//! Calls against a platform that breaks the connection: what is sent again, and what is not.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::secret::Secret;

/// Answers token requests; of the others, breaks off the first ones after they were read whole.
struct Platform {
    address: SocketAddr,
    asked: Arc<AtomicU32>,
}

impl Platform {
    async fn that_breaks_off(breaks: u32, answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(speak(stream, count.clone(), breaks, answer));
            }
        });
        Self { address, asked }
    }

    fn center(&self) -> Center {
        rustls::crypto::ring::default_provider().install_default().ok();
        let base_url = format!("http://{}", self.address);
        Center::new(&Settings {
            historic_base_url: base_url.clone(),
            base_url,
            app_id: "cli_1".to_owned(),
            app_secret: Secret::new("fake-hush"),
            app_type: AppType::Internal,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(20),
            call_deadline: Duration::from_secs(60),
        })
        .unwrap()
    }

    fn asked(&self) -> u32 {
        self.asked.load(SeqCst)
    }
}

async fn speak(mut stream: TcpStream, count: Arc<AtomicU32>, breaks: u32, answer: &str) {
    let mut request = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let Ok(read @ 1..) = stream.read(&mut chunk).await else { return };
        request.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() < length.unwrap_or(0) {
            continue;
        }
        let token = r#"{"code":0,"msg":"ok","tenant_access_token":"t-hush","expire":7200}"#;
        let answer = if head.contains("/auth/") {
            token
        } else if count.fetch_add(1, SeqCst) < breaks {
            return;
        } else {
            answer
        };
        let length = answer.len();
        let answer =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{answer}");
        stream.write_all(answer.as_bytes()).await.ok();
        return;
    }
}

const SENT: &str = r#"{"code":0,"msg":"success","data":{"message_id":"7"}}"#;

#[tokio::test]
async fn a_message_without_a_uuid_is_never_sent_twice() {
    let platform = Platform::that_breaks_off(1, SENT).await;
    let error = platform.center().send_message(&Message::default()).await.unwrap_err();
    assert!(matches!(error, Error::Transport { sent: true, .. }), "{error}");
    assert_eq!(platform.asked(), 1);
    assert!(!format!("{error:?}").contains("hush"), "{error:?}");
}

#[tokio::test]
async fn a_message_with_a_uuid_is_sent_until_it_is_answered() {
    let platform = Platform::that_breaks_off(2, SENT).await;
    let message = Message { uuid: Some("u-1".to_owned()), ..Message::default() };
    assert_eq!(platform.center().send_message(&message).await.unwrap(), "7");
    assert_eq!(platform.asked(), 3);
}

#[tokio::test]
async fn an_answer_that_never_comes_ends_the_attempts() {
    let platform = Platform::that_breaks_off(u32::MAX, SENT).await;
    let center = platform.center();
    let error = center.user("zhang3", &UserIdType::UserId).await.unwrap_err();
    assert!(error.is_away(), "{error}");
    assert_eq!(platform.asked(), 5);
    assert!(!format!("{center:?}").contains("hush"), "neither secret nor token is in Debug");
}
