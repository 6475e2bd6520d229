//! The routing key: at most 255 bytes of a small alphabet in four words, and no two codes with the same key but those
//! that differ in case.

use std::sync::Arc;

use countersign::{
    command::{Action, CommandId, message::Envelope},
    time::Timestamp,
};

fn key(endpoint: &str, code: Option<&str>, action: Action) -> String {
    let envelope = Envelope {
        command_id: CommandId::from_bytes([7; 16]),
        received_at: Timestamp::UNIX_EPOCH,
        endpoint: Arc::from(endpoint),
        action,
        approval_code: code.map(str::to_owned),
        instance_id: None,
        task_id: None,
        trace: None,
    };
    envelope.routing_key()
}

/// Takes the percent escapes back.
fn unescaped(word: &str) -> Vec<u8> {
    let mut bytes = word.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next().expect("two digits"), bytes.next().expect("two digits")];
            let digits = std::str::from_utf8(&digits).expect("ASCII");
            plain.push(u8::from_str_radix(digits, 16).expect("hex"));
        } else {
            plain.push(byte);
        }
    }
    plain
}

pub(super) fn run(data: &[u8]) {
    let Some((one, other, word)) = super::read::<(String, String, u8)>(data) else { return };
    let action = [Action::Approve, Action::Reject, Action::Custom][usize::from(word % 3)];
    // As long as the configuration lets a name be.
    let endpoint =
        &"abcdefghijklmnopqrstuvwxyz0123456789_-abcdefghijklmnopqrstuvwxyz"[..usize::from(word % 64) + 1];
    let (first, second) = (key(endpoint, Some(&one), action), key(endpoint, Some(&other), action));
    for (code, key) in [(&one, &first), (&other, &second)] {
        assert!(key.len() <= 255, "{key}");
        let words: Vec<&str> = key.split('.').collect();
        let [approval, name, written, act] = words[..] else { panic!("{key}") };
        assert_eq!((approval, name, act), ("approval", endpoint, action.as_str()));
        assert!(
            written.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'%')),
            "{key}"
        );
        let lower = code.to_ascii_lowercase();
        if unescaped(written) != lower.as_bytes() {
            // Cut: the beginning, and a digest.
            assert!(key.len() > 255 - 17, "cut without need: {key}");
            let (beginning, digest) = written.split_at(written.len() - 17);
            assert!(lower.as_bytes().starts_with(&unescaped(beginning)), "{key}");
            assert!(digest[1..].bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
        }
    }
    assert_eq!(
        first == second,
        one.eq_ignore_ascii_case(&other) || (first == second && first.len() > 238 && one == other),
        "{one:?} {other:?}"
    );
}
