//! What a power failure can leave of the ledger's disk, made from a journal of all that was done to it.

use std::path::Path;
use std::sync::Arc;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// A change of a file, or a promise about it.
#[derive(Debug)]
pub(super) struct Record {
    kind: u8,
    file: usize,
    offset: usize,
    bytes: Vec<u8>,
    /// Length of the journal after it.
    pub(super) end: u64,
}

/// Takes a journal apart.
pub(super) fn records(journal: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    let mut at = 0;
    while at + 32 <= journal.len() {
        let number = |place: usize| {
            let bytes = journal[at + 8 * place..at + 8 * place + 8].try_into().expect("eight bytes");
            usize::try_from(u64::from_ne_bytes(bytes)).expect("64 bits")
        };
        let (kind, file, offset, length) = (number(0), number(1), number(2), number(3));
        let bytes = journal[at + 32..at + 32 + length].to_vec();
        at += 32 + length;
        let kind = u8::try_from(kind).expect("a letter");
        records.push(Record { kind, file, offset, bytes, end: at as u64 });
    }
    assert_eq!(at, journal.len(), "the program was not killed within a record");
    records
}

/// What is not on the disk for sure.
#[derive(Clone)]
enum Change {
    Write(usize, Arc<[u8]>),
    Truncate(usize),
}

/// One file of the ledger.
#[derive(Clone, Default)]
struct FileState {
    /// Its name is on the disk for sure.
    named: bool,
    /// Its name has been made, and the directory was not synced since.
    naming: bool,
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// What a sync has failed for. It can be read as long as there is power; no later sync writes it.
    forsaken: Vec<Change>,
}

/// The database, and its log.
#[derive(Clone, Default)]
pub(super) struct Disk([FileState; 2]);

/// The database and its log as a power failure left them; `None` for a file that is not there.
pub(super) struct Left([Option<Vec<u8>>; 2]);

impl Left {
    /// Makes the files. What all processes share of the ledger in memory is gone with the power.
    pub(super) fn put(&self, ledger: &Path) {
        for (suffix, content) in
            ["", "-wal", "-shm"].into_iter().zip(self.0.iter().map(Option::as_ref).chain([None]))
        {
            let file = ledger.with_extension(format!("db{suffix}"));
            match content {
                Some(content) => std::fs::write(&file, content).expect("the directory is ours"),
                None if file.exists() => std::fs::remove_file(&file).expect("the directory is ours"),
                None => {}
            }
        }
    }
}

impl From<Left> for Disk {
    /// The disk of the next life, in which all that was left is there for sure.
    fn from(left: Left) -> Self {
        Self(left.0.map(|content| FileState {
            named: content.is_some(),
            durable: content.unwrap_or_default(),
            ..FileState::default()
        }))
    }
}

impl Disk {
    /// Goes on by what the journal says.
    pub(super) fn apply(&mut self, record: &Record) {
        /// As the layer numbers them.
        const DIRECTORY: usize = 3;
        if record.file == DIRECTORY {
            for file in &mut self.0 {
                file.named |= std::mem::take(&mut file.naming);
            }
            return;
        }
        let file = &mut self.0[record.file - 1];
        match record.kind {
            b'C' => file.naming = true,
            b'W' => file.pending.push(Change::Write(record.offset, record.bytes.as_slice().into())),
            b'T' => file.pending.push(Change::Truncate(record.offset)),
            b'S' => {
                for change in std::mem::take(&mut file.pending) {
                    file.forsaken.retain(|before| !change.covers(before));
                    carry_out(&mut file.durable, &change, |_| true);
                }
            }
            b'F' => file.forsaken.append(&mut file.pending),
            b'U' => *file = FileState::default(),
            other => panic!("a record of kind {other}"),
        }
    }

    /// A disk that could be left.
    pub(super) fn after_power_failure(&self, chance: &mut Chance) -> Left {
        // From nothing at all to everything of what was not synced.
        let share = chance.below(5);
        let disorder = chance.below(2) == 0;
        Left(std::array::from_fn(|place| {
            let file = &self.0[place];
            if !file.named && (!file.naming || chance.below(2) == 0) {
                return None;
            }
            let mut content = file.durable.clone();
            for change in &file.forsaken {
                if chance.below(4) < share {
                    carry_out(&mut content, change, |_| true);
                }
            }
            let mut pending = file.pending.clone();
            if disorder {
                for place in (1..pending.len()).rev() {
                    pending.swap(place, chance.index(place + 1));
                }
            }
            for change in &pending {
                if chance.below(4) < share {
                    let torn = chance.below(4) == 0;
                    carry_out(&mut content, change, |_| !torn || chance.below(2) == 0);
                }
            }
            Some(content)
        }))
    }
}

impl Change {
    /// Whether nothing can be seen any more of what was before.
    fn covers(&self, before: &Self) -> bool {
        match (self, before) {
            (Self::Truncate(length), Self::Write(offset, _)) => offset >= length,
            (Self::Truncate(_), Self::Truncate(_)) => true,
            (Self::Write(from, bytes), Self::Write(offset, earlier)) => {
                from <= offset && offset + earlier.len() <= from + bytes.len()
            }
            (Self::Write(..), Self::Truncate(_)) => false,
        }
    }
}

fn carry_out(content: &mut Vec<u8>, change: &Change, mut sector: impl FnMut(usize) -> bool) {
    match change {
        Change::Truncate(length) => content.resize(*length, 0),
        Change::Write(offset, bytes) => {
            let mut at = 0;
            while at < bytes.len() {
                // To the end of this sector of the disk.
                let step = (SECTOR - (offset + at) % SECTOR).min(bytes.len() - at);
                if sector(at) {
                    let (from, to) = (offset + at, offset + at + step);
                    if content.len() < to {
                        content.resize(to, 0);
                    }
                    content[from..to].copy_from_slice(&bytes[at..at + step]);
                }
                at += step;
            }
        }
    }
}

/// xorshift64*
#[derive(Debug)]
pub(super) struct Chance(u64);

impl Chance {
    /// The same seed, the same choices.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % bound
    }

    pub(super) fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("below a usize")
    }
}
