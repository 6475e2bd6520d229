//! An attacker's tools: ciphertexts as blocks, and answers as bytes.

use crate::support::{Answer, App, Line, envelope};
use base64::prelude::{BASE64_STANDARD, Engine};
use std::io::Write as _;

/// Bytes in an AES block.
pub(crate) const BLOCK: usize = 16;

/// A ciphertext in blocks, the IV first.
#[derive(Clone, Debug)]
pub(crate) struct Blocks(pub(crate) Vec<[u8; BLOCK]>);

impl Blocks {
    /// The blocks of a captured base64 text.
    pub(crate) fn captured(base64: &str) -> Self {
        let bytes = BASE64_STANDARD.decode(base64).expect("a captured ciphertext is base64");
        Self::of_bytes(&bytes)
    }

    /// Splits bytes into whole blocks.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        Self(bytes.chunks_exact(BLOCK).map(|block| block.try_into().expect("chunks of a block")).collect())
    }

    /// All bytes in a row.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.concat()
    }

    /// The body of a callback.
    pub(crate) fn body(&self) -> Vec<u8> {
        envelope(&BASE64_STANDARD.encode(self.bytes()))
    }

    /// The text of `encrypt`.
    pub(crate) fn base64(&self) -> String {
        BASE64_STANDARD.encode(self.bytes())
    }
}

/// The XOR of two blocks.
pub(crate) fn xor(one: [u8; BLOCK], other: [u8; BLOCK]) -> [u8; BLOCK] {
    std::array::from_fn(|at| one[at] ^ other[at])
}

/// A block of random bytes.
pub(crate) fn random_block() -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    getrandom::fill(&mut block).expect("the system has randomness");
    block
}

/// A random number below `bound`, nearly uniform.
pub(crate) fn random_below(bound: usize) -> usize {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    usize::try_from(u64::from_le_bytes(bytes) % bound as u64).expect("below a usize")
}

/// The answer to one body on a new connection: every byte except the date, and the end of the connection. After a
/// stranger's answer the service closes it, without further output.
pub(crate) async fn strangers_answer(app: &App, path: &str, body: &[u8]) -> Answer {
    let mut line = Line::to(app.public()).await;
    line.post(path, body).await.expect("an open connection");
    let answer = line.answer().await.expect("an answer").without_date();
    assert_eq!(String::from_utf8_lossy(&line.until_closed().await), "", "something after the answer");
    answer
}

/// The answer that every stranger must get, for comparison.
pub(crate) async fn the_strangers_answer(app: &App) -> Answer {
    let answer = strangers_answer(app, "/callbacks/purchase", b"{}").await;
    assert_eq!((answer.status, answer.reason().as_str()), (403, "unauthenticated"));
    answer
}

/// Prints figures to standard error even if the test passes: they are the purpose of the run.
pub(crate) fn report(figures: &str) {
    // If nobody reads them, nobody misses them.
    drop(writeln!(std::io::stderr().lock(), "{figures}"));
}
