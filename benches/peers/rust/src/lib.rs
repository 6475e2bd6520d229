//! What the programs share: how they are configured, how a callback is opened, how a message is published.

use aes::Aes256;
use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use cbc::cipher::{BlockModeDecrypt, KeyIvInit, block_padding::Pkcs7};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::ConfirmSelectOptions,
    types::{AMQPValue, FieldTable, ShortString},
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

/// What is published: the least that is worth publishing, or, with `DRESSED=BYTES` in the environment, messages like
/// countersign's: as long, and with as many properties and headers as its contract asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dress(Option<usize>);

impl Dress {
    pub fn from_environment() -> anyhow::Result<Self> {
        let bytes = std::env::var("DRESSED").ok().map(|text| text.parse()).transpose();
        Ok(Self(bytes.context("DRESSED is no number of bytes")?))
    }

    /// JSON, padded by blanks.
    pub fn body(self, mut plain: Vec<u8>) -> Vec<u8> {
        plain.resize(plain.len().max(self.0.unwrap_or(0)), b' ');
        plain
    }

    /// Persistent, JSON, with an id of its own.
    pub fn properties(self) -> BasicProperties {
        let id = uuid::Uuid::now_v7().to_string();
        let least = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_message_id(ShortString::from(id.as_str()));
        if self.0.is_none() {
            return least;
        }
        let mut headers = FieldTable::default();
        for (name, value) in HEADERS {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        least
            .with_type("approval.command.v1".into())
            .with_content_encoding("utf-8".into())
            .with_timestamp(1_795_162_530)
            .with_app_id("countersign".into())
            .with_correlation_id("demo-instance-00000001".into())
            .with_headers(headers)
    }
}

/// By name and length those of a command of the benchmark.
const HEADERS: [(&str, &str); 6] = [
    ("schema", "approval.command/1"),
    ("endpoint", "purchase"),
    ("action", "approve"),
    ("instance_id", "demo-instance-00000001"),
    ("task_id", "demo-task-00000001"),
    ("traceparent", "00-019aa1b2c3d47e5f8a9b0c1d2e3f4a5b-8a9b0c1d2e3f4a5b-01"),
];

pub const SUCCESS: &str = r#"{"code":0,"msg":"success"}"#;
pub const REFUSED: &str = r#"{"code":40300,"msg":"unauthenticated"}"#;
