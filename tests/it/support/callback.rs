//! Callbacks as the approval center sends them.

use super::TOKEN;
use aes::Aes256;
use aes::cipher::{Block, BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A callback body, member by member in wire order. Values are raw JSON text, so that numbers above 2^53, duplicate
/// names and wrong types are as easy to write as the usual ones.
#[derive(Clone, Debug)]
pub(crate) struct Callback {
    members: Vec<(String, String)>,
}

impl Callback {
    /// Pressed in the pending list (platform.md#callback-origins): `instance_id` and `task_id` identify the task.
    pub(crate) fn list(instance_id: &str, task_id: &str) -> Self {
        Self { members: Vec::new() }
            .with("action_type", "APPROVE")
            .with("action_context", "")
            .with("user_id", "zhang3")
            .with("approval_code", "PO_APPROVAL")
            .with("instance_id", instance_id)
            .with("task_id", task_id)
            .with("token", TOKEN)
    }

    /// Pressed on a bot card, in the form of the captured one (platform.md#callback-origins): five members, no
    /// `approval_code`, `message_id` as an unquoted number.
    pub(crate) fn card(action_context: &str, message_id: u64) -> Self {
        Self { members: Vec::new() }
            .with("action_type", "APPROVE")
            .with("action_context", action_context)
            .with("user_id", "zhang3")
            .with("message_id", message_id)
            .with("token", TOKEN)
    }

    /// Pressed on a search hit (platform.md#callback-origins): only `id` identifies the task.
    pub(crate) fn search(id: &str) -> Self {
        Self { members: Vec::new() }
            .with("action_type", "APPROVE")
            .with("user_id", "zhang3")
            .with("approval_code", "PO_APPROVAL")
            .with("id", id)
            .with("token", TOKEN)
    }

    /// Sets a member; an existing one keeps its position.
    pub(crate) fn with(self, name: &str, value: impl Into<Value>) -> Self {
        self.raw(name, &value.into().to_string())
    }

    /// Sets a member to raw JSON text.
    pub(crate) fn raw(mut self, name: &str, json: &str) -> Self {
        match self.members.iter_mut().find(|(known, _)| known == name) {
            Some((_, value)) => json.clone_into(value),
            None => self.members.push((name.to_owned(), json.to_owned())),
        }
        self
    }

    /// Adds a member even if one with that name exists.
    pub(crate) fn again(mut self, name: &str, json: &str) -> Self {
        self.members.push((name.to_owned(), json.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.members.retain(|(known, _)| known != name);
        self
    }

    pub(crate) fn action(self, action_type: &str) -> Self {
        self.with("action_type", action_type)
    }

    pub(crate) fn operator(self, user_id: &str) -> Self {
        self.with("user_id", user_id)
    }

    pub(crate) fn context(self, action_context: &str) -> Self {
        self.with("action_context", action_context)
    }

    pub(crate) fn token(self, token: &str) -> Self {
        self.with("token", token)
    }

    /// The body for a definition without a key: compact JSON.
    pub(crate) fn plain(&self) -> Vec<u8> {
        let members: Vec<String> = self
            .members
            .iter()
            .map(|(name, value)| format!("{}:{value}", Value::from(name.as_str())))
            .collect();
        format!("{{{}}}", members.join(",")).into_bytes()
    }

    /// The body for a definition with this key (platform.md#encrypted-callbacks), with a fresh IV.
    pub(crate) fn encrypted(&self, key: &str) -> Vec<u8> {
        envelope(&seal(key, &self.plain()))
    }
}

/// The outer object of an encrypted callback.
pub(crate) fn envelope(encrypt: &str) -> Vec<u8> {
    serde_json::json!({ "encrypt": encrypt }).to_string().into_bytes()
}

/// Encrypts as in platform.md#encryption: AES-256-CBC with SHA-256 of the key text, PKCS#7, base64 of IV and
/// ciphertext.
pub(crate) fn seal(key: &str, plaintext: &[u8]) -> String {
    let padding = 16 - plaintext.len() % 16;
    let mut padded = plaintext.to_vec();
    padded.resize(plaintext.len() + padding, u8::try_from(padding).expect("1 to 16"));
    seal_blocks(key, &padded)
}

/// Encrypts whole blocks without adding padding, for deliberately wrong padding.
pub(crate) fn seal_blocks(key: &str, padded: &[u8]) -> String {
    assert_eq!(padded.len() % 16, 0, "CBC takes whole blocks");
    let mut iv = [0_u8; 16];
    getrandom::fill(&mut iv).expect("the system has randomness");
    let mut cipher = cbc::Encryptor::<Aes256>::new(&Sha256::digest(key.as_bytes()), &iv.into());
    let mut sealed = iv.to_vec();
    for chunk in padded.chunks_exact(16) {
        let mut block = Block::<Aes256>::try_from(chunk).expect("chunks of 16 bytes");
        cipher.encrypt_block(&mut block);
        sealed.extend_from_slice(&block);
    }
    BASE64_STANDARD.encode(sealed)
}

/// Decrypts output of [`seal`] or of the program.
///
/// # Panics
/// If it is not base64, not whole blocks, or not padded by PKCS#7.
pub(crate) fn open(key: &str, sealed: &str) -> Vec<u8> {
    let bytes = BASE64_STANDARD.decode(sealed.trim()).expect("standard base64");
    let (iv, ciphertext) = bytes.split_at(16);
    let iv = <[u8; 16]>::try_from(iv).expect("split at 16");
    let mut cipher = cbc::Decryptor::<Aes256>::new(&Sha256::digest(key.as_bytes()), &iv.into());
    let mut plaintext = Vec::with_capacity(ciphertext.len());
    assert_eq!(ciphertext.len() % 16, 0, "whole blocks");
    for chunk in ciphertext.chunks_exact(16) {
        let mut block = Block::<Aes256>::try_from(chunk).expect("chunks of 16 bytes");
        cipher.decrypt_block(&mut block);
        plaintext.extend_from_slice(&block);
    }
    let padding = *plaintext.last().expect("at least one block");
    assert!((1..=16).contains(&padding), "PKCS#7 pads 1 to 16 bytes, not {padding}");
    let end = plaintext.len() - usize::from(padding);
    assert!(plaintext[end..].iter().all(|byte| *byte == padding), "PKCS#7 pads with one value");
    plaintext.truncate(end);
    plaintext
}
