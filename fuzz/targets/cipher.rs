//! Base64, AES-256-CBC and the padding, against a plain definition of each, written without a thought for time.

use aes::{
    Aes256,
    cipher::{BlockCipherDecrypt, KeyInit},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use countersign::{
    callback::{
        self,
        cipher::{Key, encrypt},
    },
    secret::Secret,
};
use sha2::{Digest, Sha256};

/// As the text of `encrypt` in a body. What opens by chance only, and is nothing that a callback could be, does not count.
fn decrypt(key: &Key, text: &str) -> Option<Vec<u8>> {
    let body = serde_json::json!({ "encrypt": text }).to_string();
    callback::decrypt(std::slice::from_ref(key), body.as_bytes()).ok().map(|opened| opened.plain)
}

/// §3.1 and RFC 5652 §6.3, word by word.
fn defined(key: &str, text: &str) -> Option<Vec<u8>> {
    let sealed = STANDARD.decode(text.replace(['\r', '\n'], "")).ok()?;
    if sealed.len() < 32 || !sealed.len().is_multiple_of(16) {
        return None;
    }
    let cipher = Aes256::new(&Sha256::digest(key.as_bytes()));
    let mut plain = Vec::new();
    for (before, block) in sealed.chunks(16).zip(sealed.chunks(16).skip(1)) {
        let mut decrypted = <[u8; 16]>::try_from(block).ok()?.into();
        cipher.decrypt_block(&mut decrypted);
        plain.extend(decrypted.iter().zip(before).map(|(one, other)| one ^ other));
    }
    let count = usize::from(*plain.last()?);
    let padding = plain.len().checked_sub(count)?;
    if count == 0 || count > 16 || plain[padding..].iter().any(|byte| usize::from(*byte) != count) {
        return None;
    }
    plain.truncate(padding);
    Some(plain)
}

pub(super) fn run(data: &[u8]) {
    let Some((text, iv, bytes, tail)) = super::read::<(String, [u8; 16], Vec<u8>, u8)>(data) else { return };
    let key = Key::derive(&Secret::new(text.as_str()));
    // What is encrypted comes back, by both.
    let sealed = encrypt(&key, iv, &bytes);
    if std::str::from_utf8(&bytes).is_ok() {
        assert_eq!(decrypt(&key, &sealed).as_deref(), Some(&*bytes));
    }
    assert_eq!(defined(&text, &sealed).as_deref(), Some(&*bytes));
    // Bytes as they come, in base64 and as the text itself; and what was encrypted with another last byte before its
    // last block, which is where paddings come out right by chance.
    let mut mutated = STANDARD.decode(&sealed).expect("its own base64");
    let at = mutated.len() - 17;
    mutated[at] ^= tail;
    let raw = String::from_utf8_lossy(&bytes);
    for candidate in [STANDARD.encode(&bytes), STANDARD.encode(mutated), raw.into_owned()] {
        let defined = defined(&text, &candidate);
        match decrypt(&key, &candidate) {
            Some(plain) => assert_eq!(Some(plain), defined, "{candidate}"),
            None => assert!(defined.is_none_or(|plain| std::str::from_utf8(&plain).is_err()), "{candidate}"),
        }
    }
}
