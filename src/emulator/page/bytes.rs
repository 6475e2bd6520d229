//! Bytes for people: rows of hex with the part that each belongs to.

use crate::callback::cipher::BLOCK_BYTES;

/// Rows shown; 16 bytes each.
const MOST_ROWS: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Iv,
    Ciphertext,
    Plaintext,
    Padding,
}

impl Part {
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Iv => "iv",
            Self::Ciphertext => "cipher",
            Self::Plaintext => "plain",
            Self::Padding => "pad",
        }
    }
}

/// Bytes of one part, at most a row of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) offset: String,
    pub(super) part: Part,
    pub(super) hex: String,
    pub(super) text: String,
}

/// Rows, and how many bytes are not among them.
pub(super) struct Dump {
    pub(super) rows: Vec<Row>,
    pub(super) left: usize,
}

/// IV and ciphertext.
pub(super) fn sealed(bytes: &[u8]) -> Dump {
    let (iv, blocks) = bytes.split_at(BLOCK_BYTES.min(bytes.len()));
    dump(&[(Part::Iv, iv), (Part::Ciphertext, blocks)])
}

/// The body, and the padding (PKCS#7) that encryption adds.
pub(super) fn padded(plain: &[u8]) -> Dump {
    let count = BLOCK_BYTES - plain.len() % BLOCK_BYTES;
    let padding = vec![u8::try_from(count).unwrap_or_default(); count];
    dump(&[(Part::Plaintext, plain), (Part::Padding, &padding)])
}

pub(super) fn plain(bytes: &[u8]) -> Dump {
    dump(&[(Part::Plaintext, bytes)])
}

fn dump(parts: &[(Part, &[u8])]) -> Dump {
    let mut dump = Dump { rows: Vec::new(), left: 0 };
    let mut offset = 0;
    for (part, bytes) in parts {
        let mut rest = *bytes;
        while !rest.is_empty() {
            // A part that begins within a row ends with the row, so that columns stay in place.
            let (row, others) = rest.split_at((BLOCK_BYTES - offset % BLOCK_BYTES).min(rest.len()));
            // The last rows have the padding, which is what people look for.
            if dump.rows.len() < MOST_ROWS || *part == Part::Padding {
                dump.rows.push(shown(offset, *part, row));
            } else {
                dump.left += row.len();
            }
            offset += row.len();
            rest = others;
        }
    }
    dump
}

fn shown(offset: usize, part: Part, row: &[u8]) -> Row {
    let hex: Vec<_> = row.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = row.iter().map(|byte| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '.' });
    Row { offset: format!("{offset:04x}"), part, hex: hex.join(" "), text: text.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(dump: &Dump) -> Vec<(Part, usize)> {
        dump.rows.iter().map(|row| (row.part, row.hex.split(' ').count())).collect()
    }

    #[test]
    fn every_byte_is_labelled_with_its_part() {
        let dump = sealed(&[0xab; 48]);
        assert_eq!(parts(&dump), [(Part::Iv, 16), (Part::Ciphertext, 16), (Part::Ciphertext, 16)]);
        assert_eq!(dump.rows[2].offset, "0020");
        for (length, wanted) in [
            (0, vec![(Part::Padding, 16)]),
            (13, vec![(Part::Plaintext, 13), (Part::Padding, 3)]),
            (16, vec![(Part::Plaintext, 16), (Part::Padding, 16)]),
            (20, vec![(Part::Plaintext, 16), (Part::Plaintext, 4), (Part::Padding, 12)]),
        ] {
            let dump = padded(&vec![b'x'; length]);
            assert_eq!(parts(&dump), wanted, "{length}");
            let last = dump.rows.last().unwrap();
            assert_eq!(last.hex.split(' ').count(), usize::from_str_radix(&last.hex[..2], 16).unwrap());
        }
        assert!(sealed(&[1; 3]).rows.len() == 1 && plain(&[]).rows.is_empty());
    }

    #[test]
    fn a_large_body_is_cut_but_its_padding_is_there() {
        let dump = padded(&vec![b'x'; 1 << 20]);
        assert_eq!((dump.rows.len(), dump.left), (MOST_ROWS + 1, (1 << 20) - MOST_ROWS * 16));
        assert_eq!(dump.rows.last().unwrap().part, Part::Padding);
    }
}
