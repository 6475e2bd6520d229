//! The platform's encryption of a callback (platform.md#encryption): base64(IV ‖ AES-256-CBC(SHA-256(key text),
//! PKCS#7)).
//!
//! CBC does not protect integrity. Anyone who can distinguish wrong padding from a wrong token can decrypt and forge
//! byte by byte (Vaudenay, "Security Flaws Induced by CBC Padding", Eurocrypt 2002). So the library decrypts raw
//! blocks only, this module checks the padding without a branch on secret bytes, and the result is one bit that
//! enters a single decision together with the token, in [`super::open`].

use std::fmt;

use aes::Aes256;
use base64::{Engine, engine::general_purpose::STANDARD};
use cbc::cipher::{
    BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit,
    block_padding::{NoPadding, Pkcs7},
};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq, ConstantTimeGreater};

use crate::secret::Secret;

/// Bytes in an AES block, and in an IV.
pub const BLOCK_BYTES: usize = 16;

/// A key, derived and expanded once. `Debug` shows nothing of it; the memory is overwritten on drop.
#[derive(Clone)]
pub struct Key(Aes256);

impl Key {
    /// Derives the key from an `action_callback_key`: SHA-256 over its UTF-8 bytes, whatever they are.
    #[must_use]
    pub fn derive(text: &Secret) -> Self {
        let hash = zeroize::Zeroizing::new(<[u8; 32]>::from(Sha256::digest(text.expose().as_bytes())));
        Self(Aes256::new((&*hash).into()))
    }

    /// A random key, for work that must look like real work.
    #[must_use]
    pub fn decoy() -> Self {
        let mut bytes = zeroize::Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes).expect("the operating system has random bytes");
        Self(Aes256::new((&*bytes).into()))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key([redacted])")
    }
}

#[derive(Debug)]
pub(super) struct Sealed {
    bytes: Vec<u8>,
    /// What is wrong with its form, if anything.
    pub(super) fault: Option<Misshapen>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misshapen {
    NotBase64,
    Length,
}

impl Sealed {
    /// Decodes standard base64, ignoring line breaks: mail encoders break lines, shells append one, and the decoders
    /// in the platform's own samples skip them.
    ///
    /// If the result cannot be an IV and blocks, it is replaced by two blocks of zeros and marked, so that the
    /// following work is done anyway.
    pub(super) fn decode(text: &str) -> Self {
        const LINE_BREAKS: [char; 2] = ['\r', '\n'];
        let decoded = if text.contains(LINE_BREAKS) {
            STANDARD.decode(text.replace(LINE_BREAKS, ""))
        } else {
            STANDARD.decode(text)
        };
        let fault = match decoded {
            Ok(bytes) if bytes.len() >= 2 * BLOCK_BYTES && bytes.len() % BLOCK_BYTES == 0 => {
                return Self { bytes, fault: None };
            }
            Ok(_) => Misshapen::Length,
            Err(_) => Misshapen::NotBase64,
        };
        Self { bytes: vec![0; 2 * BLOCK_BYTES], fault: Some(fault) }
    }
}

/// The result of a decryption, possibly with a wrong key.
pub(super) struct Unsealed {
    bytes: zeroize::Zeroizing<Vec<u8>>,
    length: usize,
    /// 1 if the input was well formed and the padding is PKCS#7.
    pub(super) sound: Choice,
}

impl Unsealed {
    /// The plaintext without its padding; all bytes if the padding is wrong.
    pub(super) fn plain(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The length of the padding; 0 if it is wrong.
    pub(super) fn padding_bytes(&self) -> usize {
        self.bytes.len() - self.length
    }
}

/// Counts decryptions on this thread, for tests that compare work without a clock.
#[cfg(test)]
pub(super) mod work {
    use std::cell::Cell;

    thread_local!(static DONE: Cell<(usize, usize)> = const { Cell::new((0, 0)) });

    pub(super) fn done(bytes: usize) {
        DONE.with(|done| done.set((done.get().0 + 1, done.get().1 + bytes)));
    }

    /// Decryptions and bytes since the last call.
    pub(in super::super) fn take() -> (usize, usize) {
        DONE.with(|done| done.replace((0, 0)))
    }
}

/// Decrypts with one key. Never fails: undecryptable input yields bytes that are not `sound`.
pub(super) fn unseal(key: &Key, sealed: &Sealed) -> Unsealed {
    let (iv, blocks) = sealed.bytes.split_at(BLOCK_BYTES);
    #[cfg(test)]
    work::done(blocks.len());
    let mut bytes = zeroize::Zeroizing::new(blocks.to_vec());
    let iv = <[u8; BLOCK_BYTES]>::try_from(iv).expect("split at one block");
    cbc::Decryptor::inner_iv_init(key.0.clone(), &iv.into())
        .decrypt_padded::<NoPadding>(&mut bytes)
        .expect("whole blocks, and no padding to be wrong");
    let (padding, padding_sound) = padding(&bytes);
    let well_formed = Choice::from(u8::from(sealed.fault.is_none()));
    Unsealed { length: bytes.len() - padding, sound: padding_sound & well_formed, bytes }
}

/// The length of the PKCS#7 padding (RFC 5652 §6.3) and whether it is valid: 1 to 16 bytes that all hold their count.
/// The length is 0 if it is invalid.
///
/// Reads all bytes of the last block in any case, and branches on none of them.
fn padding(bytes: &[u8]) -> (usize, Choice) {
    let last_block = &bytes[bytes.len() - BLOCK_BYTES..];
    let says = last_block[BLOCK_BYTES - 1];
    let mut right = !says.ct_eq(&0) & !says.ct_gt(&(BLOCK_BYTES as u8));
    for (distance, byte) in last_block.iter().rev().enumerate() {
        let inside = says.ct_gt(&(distance as u8));
        right &= !inside | byte.ct_eq(&says);
    }
    (usize::from(u8::conditional_select(&0, &says, right)), right)
}

/// Encrypts like the platform; returns base64 of IV and blocks. For simulating the platform.
#[must_use]
pub fn encrypt(key: &Key, iv: [u8; BLOCK_BYTES], plain: &[u8]) -> String {
    let mut bytes = iv.to_vec();
    bytes.extend(cbc::Encryptor::inner_iv_init(key.0.clone(), &iv.into()).encrypt_padded_vec::<Pkcs7>(plain));
    STANDARD.encode(bytes)
}

/// The body of an encrypted callback, as the platform sends it. For simulating the platform.
#[must_use]
pub fn envelope(key: &Key, iv: [u8; BLOCK_BYTES], plain: &[u8]) -> String {
    // Base64 needs no escaping.
    format!(r#"{{"encrypt":"{}"}}"#, encrypt(key, iv, plain))
}

/// Encrypts one block with the bare cipher, for test vectors.
#[cfg(test)]
fn encrypt_block(key: &Key, block: [u8; BLOCK_BYTES]) -> [u8; BLOCK_BYTES] {
    use cbc::cipher::BlockCipherEncrypt;
    let mut block = block.into();
    key.0.encrypt_block(&mut block);
    block.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::derive(&Secret::new(text))
    }

    fn decrypt(key: &Key, text: &str) -> Option<Vec<u8>> {
        let unsealed = unseal(key, &Sealed::decode(text));
        bool::from(unsealed.sound).then(|| unsealed.plain().to_vec())
    }

    const A1: &str = r#"{"action_type":"APPROVE","action_context":"ctx-1","user_id":"u-demo-7","approval_code":"PO_APPROVAL","instance_id":"po-2026-0001","task_id":"po-2026-0001-t1","token":"tok-1"}"#;
    const A2: &str = r#"{"action_type":"REJECT","user_id":"18500000001","message_id":7123456789012345678,"reason":"金额不符，请重新提交","token":"tok-2"}"#;

    #[test]
    fn the_vectors_of_the_reference_open() {
        let vectors = [
            ("P1", "test key", "hello world", "P37w+VZImNgPEO1RBhJ6RtKl7n6zymIbEG1pReEzghk="),
            (
                "A1",
                "quick-approve-key-01",
                A1,
                "AAECAwQFBgcICQoLDA0OD1LsbEzxUyZkMMzVw3oejp8sriSLpUb/2oKUtBKM5fB503XyNhyhsoLp7rDKs3Q2NPWDJQJVdh4K6mVk36WDz/ve7+9xwLOQg7Qs0A+vcg+Wrtb2IxySbRO+sK8+rxMk/CXRclhIkoz7V+03pmrkMXKTUFeR63d05v9VswBvO3EuGcmel10ogqaOL7wYw/nprzR/NF0Ip+kDXQwjO2E1o45oZV8PhZ4gi3dAhGqrTPbh",
            ),
            (
                "A2",
                "审批密钥-demo",
                A2,
                "oKGio6SlpqeoqaqrrK2ur/KJ4chj4pemRxo8otSQ5aA2AYu3kHQ2F6HRdexdkoywEvagLLMrKcCaO6npkccL46Uzq5Kk+HDEh0lKkZgkUeRqx+qUh+mltT4gg5/5iJ3dML6uJyp2TkFItkO6ywToWR3uB4bUZy3b/y1E4a90JRIkNVS1i7TANNPJrwajXEPQrHDBSWnW4q8Rw3q90qS4lQ==",
            ),
            (
                "A3",
                "k",
                r#"{"encrypt":"ok"}"#,
                "/////////////////////05t0OmfP51WxHlU4l9FnhSbHFDBb5MUCiu0EOY6+0JC",
            ),
            ("A4", "k", r#"{"a":"1234567"}"#, "Dw4NDAsKCQgHBgUEAwIBAKsPkkiXClfwfTbHpAuNIDw="),
            (
                "J1",
                "quick-approve-key-01",
                r#"{"action_type":"APPROVE","user_id":"u-demo-7","token":"tok-1"}"#,
                "c+9EABbkMQCauVNlAYJo6Krq3vFIg8HdHV0d0rU7Q6SAG4olhHur4bCVkY3x82KwYz+fk5v3jXH1EtjEx5JHWm99Knr+Wgk52+o4NgLS3bA=",
            ),
            (
                "J2",
                "审批密钥-demo",
                r#"{"reason":"同意","token":"tok-2"}"#,
                "iWhBhfQrjwLKNBoYBshMV1X/QBeB7PXV8gaIGXXetY9fzc/egv8zLszRuJVb1NIGBVQSB5lRf+VBfqIpIEW10w==",
            ),
            ("N4", "quick-approve-key-01", "同意", "EBESExQVFhcYGRobHB0eH/6VEiUsPOiBlQ8/sWdXNqw="),
            ("N5", "quick-approve-key-01", "", "EBESExQVFhcYGRobHB0eH3BHhgy+4lKfUAnOksAQ9bg="),
        ];
        for (name, text, plain, sealed) in vectors {
            assert_eq!(decrypt(&key(text), sealed).as_deref(), Some(plain.as_bytes()), "{name}");
            let iv: [u8; 16] = STANDARD.decode(sealed).unwrap()[..16].try_into().unwrap();
            assert_eq!(encrypt(&key(text), iv, plain.as_bytes()), sealed, "{name} the other way");
            assert_eq!(decrypt(&key("another key"), sealed), None, "{name} with a wrong key");
        }
    }

    #[test]
    fn the_java_senders_zero_iv_is_the_first_block_on_the_wire() {
        let sealed = STANDARD.decode("c+9EABbkMQCauVNlAYJo6Krq3vFIg8HdHV0d0rU7Q6SAG4olhHur4bCVkY3x82KwYz+fk5v3jXH1EtjEx5JHWm99Knr+Wgk52+o4NgLS3bA=").unwrap();
        assert_eq!(encrypt_block(&key("quick-approve-key-01"), [0; 16]), sealed[..16]);
    }

    #[test]
    fn the_malformed_paddings_of_the_reference_are_refused() {
        let vectors = [
            ("N1", "EBESExQVFhcYGRobHB0eH939Er73mdi8ZVbqEM3pjOE="),
            ("N2", "EBESExQVFhcYGRobHB0eH6Aa3jfoso8YbGNW7idbU1ahz60PpBNb9nJFGnPM5E04"),
            ("N3", "EBESExQVFhcYGRobHB0eH/w7327mjDX7GNLTe/k8Tws="),
            ("N6", "EBESExQVFhcYGRobHB0eH2rjmgaoNX8VUF8aG1wpzvE="),
            ("N7", "EBESExQVFhcYGRobHB0eHw=="),
            ("N8", "EBESExQVFhcYGRobHB0eHwA="),
            ("not base64", "EBES*xQVFhcYGRobHB0eH939Er73mdi8ZVbqEM3pjOE="),
            ("empty", ""),
        ];
        for (name, sealed) in vectors {
            assert_eq!(decrypt(&key("quick-approve-key-01"), sealed), None, "{name}");
        }
    }

    #[test]
    fn the_padding_check_agrees_with_its_definition_on_every_tail() {
        // Every value of the last byte, after 0 to 17 equal bytes and one that differs.
        for says in 0..=255_u8 {
            for same in 0..=17_usize {
                let mut bytes = vec![0xA5; 32];
                for at in 0..same.min(31) {
                    bytes[30 - at] = says;
                }
                bytes[31] = says;
                let count = usize::from(says);
                let right = (1..=16).contains(&count) && bytes[32 - count..].iter().all(|byte| *byte == says);
                let (length, sound) = padding(&bytes);
                assert_eq!(bool::from(sound), right, "{says} after {same}");
                assert_eq!(length, if right { count } else { 0 });
            }
        }
    }
}
