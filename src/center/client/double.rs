//! A fake platform for tests: issues tokens, and answers all other calls as the test specifies.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{Api, ApiError, AppType, Center, Error, Settings};
use crate::secret::Secret;

pub(crate) struct Platform {
    address: SocketAddr,
}

impl Platform {
    /// `answer` maps the body of a complete request to that of the response; `None` closes the connection.
    pub(crate) async fn start<F>(answer: impl Fn(String) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = Option<&'static str>> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    let Some((head, body)) = read(&mut stream).await else { return };
                    let token = r#"{"code":0,"msg":"ok","tenant_access_token":"t-hush","expire":7200}"#;
                    let answer = if head.contains("/auth/") { Some(token) } else { answer(body).await };
                    let Some(answer) = answer else { return };
                    let length = answer.len();
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{answer}"
                    );
                    stream.write_all(answer.as_bytes()).await.ok();
                });
            }
        });
        Self { address }
    }

    pub(crate) fn center(&self) -> Center {
        rustls::crypto::ring::default_provider().install_default().ok();
        let base_url = format!("http://{}", self.address);
        Center::new(&Settings {
            historic_base_url: base_url.clone(),
            base_url,
            app_id: "cli_1".to_owned(),
            app_secret: Secret::new("fake-hush"),
            app_type: AppType::Internal,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(60),
            call_deadline: Duration::from_secs(60),
        })
        .unwrap()
    }
}

/// A platform error with this code and no details.
pub(crate) fn failure(http_status: u16, code: i64) -> Error {
    Error::Api(Box::new(ApiError {
        api: Api::ListTasks,
        http_status,
        code,
        msg: String::new(),
        log_id: None,
        field_violations: Vec::new(),
        scopes: Vec::new(),
        help_urls: Vec::new(),
        wait: None,
    }))
}

/// Head and body of a request; `None` if incomplete.
async fn read(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut request = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let Ok(read @ 1..) = stream.read(&mut chunk).await else { return None };
        request.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= length.unwrap_or(0) {
            return Some((head.to_owned(), body.to_owned()));
        }
    }
}
