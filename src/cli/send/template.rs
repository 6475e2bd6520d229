//! Bodies rendered once. Only the callback's number is inserted each time, so that rendering costs a load generator
//! almost nothing.

use crate::{
    callback::cipher::{self, BLOCK_BYTES, Key},
    cli::credentials::random,
};

/// Placeholders for a callback's number in a rendered body.
///
/// Random, so that user-supplied text does not contain them by accident.
#[derive(Debug, Clone)]
pub(super) struct Marks {
    /// Replaces the number at the end of a task id.
    pub(super) number: String,
    /// Replaces the `message_id`; a number, because the field is one.
    pub(super) message_id: u64,
}

impl Marks {
    pub(super) fn draw() -> Self {
        let number = random::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
        // 20 digits: generated message_ids are shorter.
        let message_id =
            10_000_000_000_000_000_000 + u64::from_be_bytes(random()) % 8_000_000_000_000_000_000;
        Self { number, message_id }
    }
}

enum Piece {
    Text(Vec<u8>),
    Number,
    MessageId,
}

/// A body with slots for the callback's number.
pub(super) struct Template {
    pieces: Vec<Piece>,
    first_message_id: u64,
    key: Option<Key>,
    /// Random bytes for IVs, drawn in bulk.
    randomness: Vec<u8>,
}

impl Template {
    /// Splits a plain body at its marks. With a key, the rendered body is encrypted.
    pub(super) fn new(plain: &[u8], marks: &Marks, first_message_id: u64, key: Option<Key>) -> Self {
        let message_id = marks.message_id.to_string();
        let mut pieces = Vec::new();
        let mut rest = plain;
        while !rest.is_empty() {
            let next = [(marks.number.as_bytes(), true), (message_id.as_bytes(), false)]
                .into_iter()
                .filter_map(|(mark, is_number)| Some((find(rest, mark)?, mark.len(), is_number)))
                .min();
            let Some((at, length, is_number)) = next else {
                pieces.push(Piece::Text(rest.to_vec()));
                break;
            };
            pieces.push(Piece::Text(rest[..at].to_vec()));
            pieces.push(if is_number { Piece::Number } else { Piece::MessageId });
            rest = &rest[at + length..];
        }
        Self { pieces, first_message_id, key, randomness: Vec::new() }
    }

    /// Appends the body of callback `number`, as sent.
    pub(super) fn render(&mut self, number: u64, into: &mut Vec<u8>) {
        if self.key.is_none() {
            self.render_plain(number, into);
            return;
        }
        let mut plain = Vec::with_capacity(1024);
        self.render_plain(number, &mut plain);
        let iv = self.iv();
        let key = self.key.as_ref().expect("looked at above");
        into.extend_from_slice(cipher::envelope(key, iv, &plain).as_bytes());
    }

    fn render_plain(&self, number: u64, into: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => into.extend_from_slice(text),
                Piece::Number => into.extend_from_slice((number + 1).to_string().as_bytes()),
                Piece::MessageId => {
                    let id = self.first_message_id.wrapping_add(number);
                    into.extend_from_slice(id.to_string().as_bytes());
                }
            }
        }
    }

    fn iv(&mut self) -> [u8; BLOCK_BYTES] {
        if self.randomness.is_empty() {
            self.randomness.extend_from_slice(&random::<4096>());
        }
        let rest = self.randomness.len() - BLOCK_BYTES;
        let iv = self.randomness[rest..].try_into().expect("4096 is a multiple of a block");
        self.randomness.truncate(rest);
        iv
    }
}

pub(super) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callback;
    use crate::secret::Secret;

    #[test]
    fn the_number_stands_wherever_its_mark_stood() {
        let marks = Marks::draw();
        let plain = format!(
            "{{\"task_id\":\"t-{}\",\"message_id\":{},\"c\":\"t-{}\"}}",
            marks.number, marks.message_id, marks.number
        );
        let mut template = Template::new(plain.as_bytes(), &marks, 7000, None);
        let mut body = Vec::new();
        template.render(41, &mut body);
        assert_eq!(body, br#"{"task_id":"t-42","message_id":7041,"c":"t-42"}"#);
    }

    #[test]
    fn an_encrypted_body_opens_and_no_two_have_the_same_iv() {
        let marks = Marks::draw();
        let secret = Secret::new("审批密钥-demo");
        let mut template = Template::new(b"{\"a\":1}", &marks, 0, Some(Key::derive(&secret)));
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..600 {
            let mut body = Vec::new();
            template.render(number, &mut body);
            let opened = callback::decrypt(&[Key::derive(&secret)], &body).unwrap();
            assert_eq!((&*opened.plain, opened.unreadable), (&b"{\"a\":1}"[..], None));
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let sealed = body["encrypt"].as_str().unwrap();
            assert!(seen.insert(sealed[..20].to_owned()), "twice the same IV");
        }
    }
}
