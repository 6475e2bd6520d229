//! What the programs share: how they are configured, how a callback is opened, how a message is published.

use aes::Aes256;
use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use cbc::cipher::{BlockModeDecrypt, KeyIvInit, block_padding::Pkcs7};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, options::ConfirmSelectOptions,
    types::ShortString,
};
use sha2::{Digest, Sha256};

/// What every contestant is told, by environment variables.
#[derive(Debug, Clone)]
pub struct Settings {
    pub listen: String,
    pub amqp_url: String,
    pub exchange: String,
    pub token: String,
    pub key: [u8; 32],
}

impl Settings {
    pub fn from_environment() -> anyhow::Result<Self> {
        let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
        Ok(Self {
            listen: variable("LISTEN")?,
            amqp_url: variable("AMQP_URL")?,
            exchange: variable("EXCHANGE")?,
            token: variable("TOKEN")?,
            key: Sha256::digest(variable("KEY")?.as_bytes()).into(),
        })
    }

    /// Decrypts a callback and checks its token; the plain JSON if all is well.
    pub fn open(&self, body: &[u8]) -> Option<(Vec<u8>, serde_json::Value)> {
        let outer: serde_json::Value = serde_json::from_slice(body).ok()?;
        let sealed = STANDARD.decode(outer.get("encrypt")?.as_str()?).ok()?;
        let (iv, blocks) = sealed.split_at_checked(16)?;
        let cipher = cbc::Decryptor::<Aes256>::new_from_slices(&self.key, iv).ok()?;
        let plain = cipher.decrypt_padded_vec::<Pkcs7>(blocks).ok()?;
        let callback: serde_json::Value = serde_json::from_slice(&plain).ok()?;
        (callback.get("token")?.as_str()? == self.token).then_some((plain, callback))
    }
}

/// Connects, and opens one channel; with `confirms`, one that confirms.
pub async fn channel(settings: &Settings, confirms: bool) -> anyhow::Result<(Connection, Channel)> {
    // Two providers may be compiled in; an error says that one is installed already.
    rustls::crypto::ring::default_provider().install_default().ok();
    let connection = Connection::connect(&settings.amqp_url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    if confirms {
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
    }
    Ok((connection, channel))
}

pub const ROUTING_KEY: &str = "approval.bench.-.approve";

/// Persistent, JSON, with an id of its own.
pub fn properties() -> BasicProperties {
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_message_id(ShortString::from(uuid::Uuid::now_v7().to_string()))
}

pub const SUCCESS: &str = r#"{"code":0,"msg":"success"}"#;
pub const REFUSED: &str = r#"{"code":40300,"msg":"unauthenticated"}"#;
