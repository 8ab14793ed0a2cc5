//! One block of a directory: entries as the program reads them.

use ondisk::crc32c_raw;
use zerocopy::FromBytes;

use super::opening::Opened;
use crate::dir_block::{RawEntry, record_length};
use crate::dir_index;
use crate::inode::{Inode, ROOT};

/// Bytes of an entry before the name.
const HEAD: usize = 8;

/// Bytes of an entry with the shortest name, and of a tail.
const SHORTEST: usize = 12;

/// `file_type` of the tail.
const TAIL_TYPE: u8 = 0xde;

/// An entry that fits into its block.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// Its number in the directory, as far as 2: `.` and `..` come first.
    pub(super) position: u8,
    pub(super) inode: u32,
    pub(super) file_type: u8,
    pub(super) name: &'a [u8],
    /// The byte behind the name.
    after: Option<u8>,
    length: usize,
}

/// Entries one after the other.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    end: usize,
    at: usize,
    position: u8,
}

impl<'a> Reader<'a> {
    /// A reader of the entries before `end`.
    pub(super) fn new(bytes: &'a [u8], end: usize, is_first: bool) -> Self {
        Self { bytes, end, at: 0, position: if is_first { 0 } else { 2 } }
    }

    /// The next entry; an error says what is wrong with it.
    pub(super) fn next(&mut self) -> Result<Option<Entry<'a>>, &'static str> {
        if self.at >= self.end {
            return Ok(None);
        }
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Ok((raw, after)) = RawEntry::read_from_prefix(rest) else { return Err("an entry is cut off") };
        let length = record_length(raw.rec_len.get(), self.bytes.len());
        let name_length = usize::from(raw.name_len);
        let needed = HEAD.saturating_add(name_length).next_multiple_of(4).max(SHORTEST);
        let stop = self.at.saturating_add(length);
        if stop > self.end || !length.is_multiple_of(4) || length < needed {
            return Err("an entry has a length that cannot be");
        }
        let name = after.get(..name_length).unwrap_or_default();
        let entry = Entry {
            position: self.position,
            inode: raw.inode.get(),
            file_type: raw.file_type,
            name,
            after: after.get(name_length).copied(),
            length,
        };
        self.position = self.position.saturating_add(1).min(2);
        self.at = stop;
        Ok(Some(entry))
    }
}

/// What is wrong with an entry by itself, if its repair is asked for.
pub(super) fn judge(opened: &Opened, directory: u32, entry: &Entry<'_>) -> Option<&'static str> {
    let superblock = &opened.disk.superblock;
    match entry.position {
        0 | 1 => {
            let expected: &[u8] = if entry.position == 0 { b"." } else { b".." };
            if entry.inode == 0 || entry.name != expected {
                return Some("not the name that comes first and second in every directory");
            }
            if entry.after != Some(0) {
                return Some("more than its name");
            }
            if entry.position == 0 && (entry.inode != directory || entry.length > 24) {
                return Some("not the entry of the directory for itself");
            }
        }
        _ if entry.inode == directory => return Some("another name for the directory itself"),
        _ => {}
    }
    if entry.inode == 0 {
        return None;
    }
    let raw = &opened.raw;
    let owned =
        [&raw.s_usr_quota_inum, &raw.s_grp_quota_inum, &raw.s_prj_quota_inum, &raw.s_orphan_file_inum];
    if entry.inode != ROOT && entry.inode < superblock.first_inode
        || entry.inode > superblock.inodes
        || owned.iter().any(|number| number.get() == entry.inode)
    {
        return Some("an inode that no entry can have");
    }
    if entry.position < 2 {
        return None;
    }
    match entry.name {
        b"." | b".." => Some("not at its place"),
        _ if entry.inode == ROOT => Some("another name for the root"),
        b"" => Some("no name"),
        _ => None,
    }
}

/// Whether a block begins as that of directory `number` does.
pub(super) fn begins_as(bytes: &[u8], number: u32) -> bool {
    let Ok((first, after)) = RawEntry::read_from_prefix(bytes) else { return false };
    let length = record_length(first.rec_len.get(), bytes.len());
    let rest = bytes.get(length..).unwrap_or_default();
    let Ok((second, name)) = RawEntry::read_from_prefix(rest) else { return false };
    let next = record_length(second.rec_len.get(), bytes.len());
    first.inode.get() == number
        && (first.name_len, after.first()) == (1, Some(&b'.'))
        && (SHORTEST..bytes.len().saturating_sub(SHORTEST)).contains(&length)
        && length.is_multiple_of(4)
        && second.name_len == 2
        && name.starts_with(b"..")
        && next >= SHORTEST
        && next.is_multiple_of(4)
}

/// How the entries of a block end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// With a place for the checksum, at this byte.
    At(usize),
    /// Without one.
    None,
    /// They make no sense.
    Corrupt,
}

fn tail(bytes: &[u8]) -> Tail {
    let top = bytes.len().saturating_sub(SHORTEST);
    let mut at = 0;
    while at < top {
        let raw = bytes.get(at..).and_then(|rest| RawEntry::read_from_prefix(rest).ok());
        let length = raw.map_or(0, |(raw, _)| usize::from(raw.rec_len.get()));
        if length < HEAD || !length.is_multiple_of(4) {
            return Tail::Corrupt;
        }
        at = at.saturating_add(length);
    }
    if at > bytes.len() {
        return Tail::Corrupt;
    }
    let raw = bytes.get(top..).and_then(|rest| RawEntry::read_from_prefix(rest).ok());
    let is_tail = raw.is_some_and(|(raw, _)| {
        (raw.inode.get(), raw.rec_len.get(), raw.name_len, raw.file_type) == (0, 12, 0, TAIL_TYPE)
    });
    if at == top && is_tail { Tail::At(top) } else { Tail::None }
}

/// Whether the entries leave no place for a checksum.
pub(super) fn lacks_tail(bytes: &[u8]) -> bool {
    tail(bytes) == Tail::None
}

/// Compares the checksum of a block, where there is one: at its end, or behind the room of an index.
pub(super) fn has_good_checksum(bytes: &[u8], inode: &Inode) -> bool {
    let Some(seed) = inode.seed else { return true };
    if let Tail::At(top) = tail(bytes) {
        let stored = bytes.get(top.saturating_add(8)..).and_then(|rest| rest.first_chunk::<4>());
        let covered = bytes.get(..top).unwrap_or_default();
        return stored.is_some_and(|stored| u32::from_le_bytes(*stored) == crc32c_raw(seed, covered));
    }
    let Ok((raw, _)) = RawEntry::read_from_prefix(bytes) else { return false };
    let length = usize::from(raw.rec_len.get());
    let number = if length == bytes.len() && raw.name_len == 0 && raw.file_type == 0 {
        1
    } else if length == SHORTEST {
        let second = bytes.get(SHORTEST..).and_then(|rest| RawEntry::read_from_prefix(rest).ok());
        let info = bytes.get(24..).and_then(|rest| rest.first_chunk::<8>()).copied().unwrap_or_default();
        let [zero_0, zero_1, zero_2, zero_3, _, length, ..] = info;
        let fills = second.is_some_and(|(second, _)| {
            usize::from(second.rec_len.get()) == bytes.len().saturating_sub(SHORTEST)
        });
        if !fills || [zero_0, zero_1, zero_2, zero_3] != [0; 4] || length != 8 {
            return false;
        }
        0
    } else {
        return false;
    };
    dir_index::verify_checksum(bytes, 0, inode, number).is_ok()
}
