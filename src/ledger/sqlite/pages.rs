//! The pages of a damaged file, read without SQLite, which gives up a tree at its first damaged page.
//!
//! Format: <https://www.sqlite.org/fileformat2.html>. The file is of any content: every number in it is checked before it is
//! used.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// SQLite's default, which countersign does not change.
const USUAL_SIZE: usize = 4096;
const MAGIC: &[u8] = b"SQLite format 3\0";

/// A page: whole, as it was at the last commit that can be read.
pub(super) type Page = Vec<u8>;

/// A database and its write-ahead log.
pub(super) struct Pages {
    file: File,
    log: Option<File>,
    /// Where in the write-ahead log the newest version of a page begins.
    newer: HashMap<u32, u64>,
    pub(super) size: usize,
    /// Bytes at the end of each page that are not used.
    reserved: usize,
    /// Pages of the database, without its log.
    in_file: u32,
    /// The last page.
    pub(super) count: u32,
    /// Commits of the write-ahead log that were read.
    pub(super) commits: u64,
    /// True if the write-ahead log has something after its last whole commit that may have been a commit.
    ///
    /// What follows is not read, not even commits that are whole: without those before they would be newer than the rest, and a
    /// cursor that is ahead of the exceptions makes published what is not.
    pub(super) log_is_cut: bool,
}

/// So many logs may have begun since the one whose frames are still in the file.
const MOST_LOGS: u32 = 1 << 20;

/// True if a frame with these salts is left from before the log was begun again, which counts the first one up and throws dice
/// for the second: <https://www.sqlite.org/fileformat2.html#walresetconfiguration>.
fn is_left(salts: &[u8], of_log: &[u8]) -> bool {
    let number = |salts| be32(salts, 0).unwrap_or(0);
    let begun = number(of_log).wrapping_sub(number(salts));
    (1..=MOST_LOGS).contains(&begun) && salts[4..] != of_log[4..] && salts.iter().any(|byte| *byte != 0)
}

fn be16(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?)))
}

pub(super) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn size(of: usize) -> Option<usize> {
    // 1 stands for 65536, which does not fit.
    let of = if of == 1 { 65536 } else { of };
    (of.is_power_of_two() && (512..=65536).contains(&of)).then_some(of)
}

impl Pages {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut header = [0; 100];
        let length = file.metadata()?.len();
        let has_header = length >= 100 && {
            file.read_exact_at(&mut header, 0)?;
            header.starts_with(MAGIC)
        };
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        let log = match File::open(PathBuf::from(wal)) {
            Ok(log) => Some(log),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let named = if has_header { be16(&header, 16).and_then(size) } else { None };
        let mut pages = Self {
            file,
            log: None,
            newer: HashMap::new(),
            size: named.unwrap_or(USUAL_SIZE),
            reserved: if has_header { usize::from(header[20]) } else { 0 },
            in_file: 0,
            count: 0,
            commits: 0,
            log_is_cut: false,
        };
        if let Some(log) = log {
            pages.read_log(&log)?;
            pages.log = Some(log);
        }
        // The log may have told the size of pages.
        pages.in_file = u32::try_from(length.div_ceil(pages.size as u64)).unwrap_or(u32::MAX);
        pages.count = pages.count.max(pages.in_file);
        Ok(pages)
    }

    /// Finds the newest version of each page, up to the last whole commit.
    fn read_log(&mut self, log: &File) -> io::Result<()> {
        const HEAD: u64 = 32;
        const FRAME: usize = 24;
        let length = log.metadata()?.len();
        let mut head = [0; HEAD as usize];
        if length < HEAD {
            self.log_is_cut = length > 0;
            return Ok(());
        }
        log.read_exact_at(&mut head, 0)?;
        let word = |at: usize| be32(&head, at).unwrap_or(0);
        let is_big = word(0) == 0x377f_0683;
        let mut sum = checksum(is_big, (0, 0), &head[..24]);
        let is_log = (is_big || word(0) == 0x377f_0682) && sum == (word(24), word(28));
        let Some(size) = size(word(8) as usize).filter(|_| is_log) else {
            self.log_is_cut = true;
            return Ok(());
        };
        self.size = size;
        let mut frame = vec![0; FRAME + size];
        let mut begun: HashMap<u32, u64> = HashMap::new();
        let mut at = HEAD;
        while at + frame.len() as u64 <= length {
            log.read_exact_at(&mut frame, at)?;
            let word = |at: usize| be32(&frame, at).unwrap_or(0);
            if frame[8..16] != head[16..24] {
                self.log_is_cut =
                    !is_left(&frame[8..16], &head[16..24]) || goes_on(log, at, frame.len(), &head[16..24])?;
                return Ok(());
            }
            sum = checksum(is_big, sum, &frame[..8]);
            sum = checksum(is_big, sum, &frame[FRAME..]);
            if sum != (word(16), word(20)) {
                self.log_is_cut = true;
                return Ok(());
            }
            begun.insert(word(0), at + FRAME as u64);
            let pages = word(4);
            if pages > 0 {
                let last = begun.keys().copied().max().unwrap_or(0);
                self.count = self.count.max(last);
                self.newer.extend(begun.drain());
                self.commits += 1;
            }
            at += frame.len() as u64;
        }
        // Some of a commit, or of a frame: a crash may have left it so, or a part of the file is gone.
        self.log_is_cut = at < length || !begun.is_empty();
        Ok(())
    }

    /// A page, by its number from 1. `None` if it is not there.
    pub(super) fn read(&self, number: u32) -> Option<Page> {
        let mut page = vec![0; self.size];
        match (self.newer.get(&number), &self.log) {
            (Some(at), Some(log)) => log.read_exact_at(&mut page, *at).ok()?,
            _ => {
                let at = u64::from(number.checked_sub(1)?) * self.size as u64;
                self.file.read_exact_at(&mut page, at).ok()?;
            }
        }
        Some(page)
    }

    /// The numbers of all pages that are somewhere.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        // A log may name any page.
        let mut later: Vec<u32> =
            self.newer.keys().copied().filter(|number| *number > self.in_file).collect();
        later.sort_unstable();
        (1..=self.in_file).chain(later)
    }

    /// Bytes of a page that are used.
    pub(super) fn usable(&self) -> usize {
        self.size.saturating_sub(self.reserved)
    }

    /// Pages that hold nothing now. `None` if the list of them cannot be read to its end.
    pub(super) fn free(&self) -> Option<HashSet<u32>> {
        let first = self.read(1).filter(|first| first.starts_with(MAGIC))?;
        let (mut next, count) = (be32(&first, 32)?, be32(&first, 36)?);
        let mut free = HashSet::new();
        while next > 0 && free.insert(next) {
            let page = self.read(next)?;
            let leaves = be32(&page, 4).filter(|leaves| *leaves as usize <= self.size / 4)?;
            free.extend((0..leaves).filter_map(|leaf| be32(&page, 8 + 4 * leaf as usize)));
            next = be32(&page, 0)?;
        }
        (free.len() == count as usize).then_some(free)
    }
}

/// True if a frame of this log follows: then the log did not end at `at`.
fn goes_on(log: &File, mut at: u64, frame: usize, salts: &[u8]) -> io::Result<bool> {
    let length = log.metadata()?.len();
    let mut found = [0; 8];
    while at + 16 <= length {
        log.read_exact_at(&mut found, at + 8)?;
        if found == salts {
            return Ok(true);
        }
        at += frame as u64;
    }
    Ok(false)
}

fn checksum(is_big: bool, (mut a, mut b): (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let word = |word: &[u8]| {
        let word = *word.first_chunk().expect("four bytes");
        if is_big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
    };
    for pair in bytes.chunks_exact(8) {
        a = a.wrapping_add(word(&pair[..4])).wrapping_add(b);
        b = b.wrapping_add(word(&pair[4..])).wrapping_add(a);
    }
    (a, b)
}

/// What a page of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tree {
    /// Rows by their number.
    Table,
    /// Rows, or keys of an index, by their content.
    Index,
}

/// A page of a tree.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) tree: Tree,
    /// None in a leaf.
    pub(super) children: Vec<u32>,
    pub(super) cells: Vec<Cell>,
}

/// Something with content in a page.
#[derive(Debug)]
pub(super) struct Cell {
    /// In a table.
    pub(super) rowid: i64,
    /// The beginning of the content, and where the rest is.
    head: Vec<u8>,
    length: usize,
    overflow: u32,
}

/// An integer of SQLite, and how long it is.
pub(super) fn varint(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let mut value: u64 = 0;
    for length in 0..8 {
        let byte = *bytes.get(at + length)?;
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Some((value.cast_signed(), length + 1));
        }
    }
    Some(((value << 8 | u64::from(*bytes.get(at + 8)?)).cast_signed(), 9))
}

impl Pages {
    /// A page of a tree; `None` if it cannot be one.
    pub(super) fn node(&self, number: u32, page: &[u8]) -> Option<Node> {
        let start = if number == 1 { 100 } else { 0 };
        let kind = *page.get(start)?;
        let (tree, is_leaf) = match kind {
            0x0d => (Tree::Table, true),
            0x05 => (Tree::Table, false),
            0x0a => (Tree::Index, true),
            0x02 => (Tree::Index, false),
            _ => return None,
        };
        let count = be16(page, start + 3)?;
        let pointers = start + if is_leaf { 8 } else { 12 };
        if pointers + 2 * count > self.usable() {
            return None;
        }
        let mut node = Node { tree, children: Vec::new(), cells: Vec::new() };
        let mut room = self.usable();
        for cell in 0..count {
            let mut at = be16(page, pointers + 2 * cell)?;
            if at < pointers + 2 * count || at >= self.usable() {
                return None;
            }
            if !is_leaf {
                node.children.push(be32(page, at).filter(|child| self.is_page(*child))?);
                at += 4;
            }
            if tree == Tree::Table && !is_leaf {
                continue;
            }
            let cell = self.cell(page, at, tree)?;
            // Cells do not overlap, and so are not more than their page.
            room = room.checked_sub(cell.head.len())?;
            node.cells.push(cell);
        }
        if !is_leaf {
            node.children.push(be32(page, start + 8).filter(|child| self.is_page(*child))?);
        }
        Some(node)
    }

    fn is_page(&self, number: u32) -> bool {
        (2..=self.count).contains(&number)
    }

    fn cell(&self, page: &[u8], mut at: usize, tree: Tree) -> Option<Cell> {
        let (length, bytes) = varint(page, at)?;
        at += bytes;
        let length = usize::try_from(length).ok()?;
        let mut rowid = 0;
        if tree == Tree::Table {
            let (found, bytes) = varint(page, at)?;
            (rowid, at) = (found, at + bytes);
        }
        let usable = self.usable();
        let most = match tree {
            Tree::Table => usable.checked_sub(35)?,
            Tree::Index => (usable.checked_sub(12)? * 64 / 255).checked_sub(23)?,
        };
        let local = if length <= most {
            length
        } else {
            let least = (usable.checked_sub(12)? * 32 / 255).checked_sub(23)?;
            let spilled = least + (length - least) % usable.checked_sub(4)?;
            if spilled <= most { spilled } else { least }
        };
        let end = at.checked_add(local)?;
        let head = page.get(at..end.min(usable)).filter(|head| head.len() == local)?.to_vec();
        let overflow = if local < length { be32(page, end).filter(|next| self.is_page(*next))? } else { 0 };
        Some(Cell { rowid, head, length, overflow })
    }

    /// The whole content of a cell, and the pages that it goes on in. `None` if one cannot be read, or is among these `others`:
    /// of several cells, which are then together not more than the file.
    pub(super) fn content(&self, cell: &Cell, others: &HashSet<u32>) -> Option<(Vec<u8>, HashSet<u32>)> {
        let (mut content, mut next, mut pages) = (cell.head.clone(), cell.overflow, HashSet::new());
        while content.len() < cell.length {
            let is_new = self.is_page(next) && !others.contains(&next) && pages.insert(next);
            let page = self.read(next).filter(|_| is_new)?;
            let rest = (cell.length - content.len()).min(self.usable().checked_sub(4)?);
            content.extend_from_slice(page.get(4..4 + rest)?);
            next = be32(&page, 0)?;
        }
        Some((content, pages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of these pages, of which the first is a header.
    fn pages(directory: &Path, size: usize, of: &[Vec<u8>]) -> Pages {
        let mut bytes = vec![0; size];
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16..18].copy_from_slice(&u16::try_from(size).unwrap_or(1).to_be_bytes());
        of.iter().for_each(|page| bytes.extend(page));
        std::fs::write(directory.join("ledger.db"), bytes).unwrap();
        Pages::open(&directory.join("ledger.db")).unwrap()
    }

    /// A leaf of a table, with so many cells at one place, where these bytes are.
    fn leaf(size: usize, cells: u16, at: u16, cell: &[u8]) -> Vec<u8> {
        let mut page = vec![0; size];
        page[0] = 0x0d;
        page[3..5].copy_from_slice(&cells.to_be_bytes());
        for one in 0..usize::from(cells) {
            page[8 + 2 * one..10 + 2 * one].copy_from_slice(&at.to_be_bytes());
        }
        page[usize::from(at)..][..cell.len()].copy_from_slice(cell);
        page
    }

    #[test]
    fn content_that_goes_round_in_its_pages_has_an_end() {
        let directory = tempfile::tempdir().unwrap();
        // 16000 bytes, of which the first 3724 are here, and then page 3, which is followed by itself.
        let mut cell = vec![0xfd, 0x00, 0x01];
        cell.extend(vec![7; 3724]);
        cell.extend(3_u32.to_be_bytes());
        let mut round = vec![0; 4096];
        round[3] = 3;
        let sound = pages(directory.path(), 4096, &[leaf(4096, 1, 100, &cell), round, vec![0; 8192]]);
        let node = sound.node(2, &sound.read(2).unwrap()).unwrap();
        assert_eq!((node.cells[0].length, node.cells[0].overflow), (16000, 3));
        assert!(sound.content(&node.cells[0], &HashSet::new()).is_none());
    }

    #[test]
    fn cells_that_are_more_than_their_page_are_none() {
        let directory = tempfile::tempdir().unwrap();
        let cell = [&[0x83, 0xa9, 0x60, 0x01][..], &[7; 54496]].concat();
        let page = leaf(65536, 200, 1000, &cell);
        let file = pages(directory.path(), 65536, &[page]);
        assert!(file.node(2, &file.read(2).unwrap()).is_none());
        let file = pages(directory.path(), 65536, &[leaf(65536, 1, 1000, &cell)]);
        assert!(file.node(2, &file.read(2).unwrap()).is_some_and(|node| node.cells[0].length == 54496));
    }
}
