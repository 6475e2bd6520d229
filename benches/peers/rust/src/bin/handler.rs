//! A peer as the known webhook bridges are: axum, one channel behind a mutex, and no confirm. It promises nothing: what
//! it answered may be lost with the broker, with the connection, or with itself.

use std::sync::Arc;

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use bench_peers::{Dress, REFUSED, ROUTING_KEY, SUCCESS, Settings, channel};
use lapin::{Channel, options::BasicPublishOptions};
use tokio::sync::Mutex;

struct Shared {
    settings: Settings,
    channel: Mutex<Channel>,
}

async fn callback(State(shared): State<Arc<Shared>>, body: Bytes) -> (StatusCode, &'static str) {
    let Some((plain, _)) = shared.settings.open(&body) else {
        return (StatusCode::FORBIDDEN, REFUSED);
    };
    let channel = shared.channel.lock().await;
    let published = channel
        .basic_publish(
            shared.settings.exchange.as_str().into(),
            ROUTING_KEY.into(),
            BasicPublishOptions::default(),
            &plain,
            Dress::default().properties(),
        )
        .await;
    match published {
        Ok(_) => (StatusCode::OK, SUCCESS),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, ""),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::from_environment()?;
    let listener = tokio::net::TcpListener::bind(&settings.listen).await?;
    let (_connection, channel) = channel(&settings, false).await?;
    let shared = Arc::new(Shared { settings, channel: Mutex::new(channel) });
    let app = Router::new().route("/callbacks/{endpoint}", post(callback)).with_state(shared);
    axum::serve(listener, app).await?;
    Ok(())
}
