//! Directory block: names and the inodes that they stand for.
//!
//! Linux `Documentation/filesystems/ext4/directory.rst`. Little-endian. Entries fill the block without gaps; one
//! with inode 0 is free space. Where metadata is protected, a false entry of 12 bytes at the end holds the
//! checksum. An index over the names ([`crate::dir_index`]) hides in entries that look free.

use filesystem::FileKind;
use ondisk::{Corrupt, crc32c_raw, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::inode::Inode;
use crate::units::widen;

/// The name of the structure in errors.
pub(crate) const STRUCTURE: &str = "directory block";

/// `file_type` of the false entry that holds the checksum.
const TAIL_TYPE: u8 = 0xde;

/// The fixed part of an entry as stored; the name follows.
#[expect(missing_docs, reason = "the fields carry the documentation's names")]
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawEntry {
    pub inode: le::U32,   // 0x0
    pub rec_len: le::U16, // 0x4 bytes to the next entry
    pub name_len: u8,     // 0x6
    pub file_type: u8,    // 0x7 0 without the filetype feature
}

const _: () = assert!(size_of::<RawEntry>() == 8);

/// The end of a block where metadata is protected.
#[expect(missing_docs, reason = "the fields carry the documentation's names")]
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawTail {
    pub det_reserved_zero1: le::U32, // 0x0
    pub det_rec_len: le::U16,        // 0x4 12
    pub det_reserved_zero2: u8,      // 0x6
    pub det_reserved_ft: u8,         // 0x7 0xde
    pub det_checksum: le::U32,       // 0x8 over the block before this tail
}

const _: () = assert!(size_of::<RawTail>() == 12);

/// A name in a directory. The name may be `.` or `..`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The inode, not 0.
    pub inode: u32,
    /// `file_type` as stored.
    pub file_type: u8,
    /// The name as stored; at least one byte.
    pub name: &'a [u8],
}

impl Entry<'_> {
    /// What `file_type` says; `Unknown` where it says nothing.
    pub fn kind(&self) -> FileKind {
        match self.file_type {
            1 => FileKind::Regular,
            2 => FileKind::Directory,
            3 => FileKind::CharDevice,
            4 => FileKind::BlockDevice,
            5 => FileKind::Fifo,
            6 => FileKind::Socket,
            7 => FileKind::Symlink,
            _ => FileKind::Unknown,
        }
    }
}

/// What holds for all entries of a directory.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Inodes of the file system.
    pub inodes: u32,
    /// Whether names are stored encrypted, and so may have any bytes.
    pub is_encrypted: bool,
}

/// The used entries in `bytes`, which begin at byte `offset` of the device: a block without its tail, or a part
/// of an inode.
///
/// # Errors
/// `Corrupt`.
pub fn decode<'a>(bytes: &'a [u8], offset: u64, rules: Rules) -> Result<Vec<Entry<'a>>, Corrupt> {
    let mut entries = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let at = offset.saturating_add(widen(bytes.len().saturating_sub(rest.len())));
        let corrupt =
            |field, expected: String, found: u64| Corrupt::new("directory entry", at, field, expected, found);
        let (raw, names) = RawEntry::read_from_prefix(rest)
            .map_err(|_| corrupt("length", "at least 8".into(), widen(rest.len())))?;
        let length = record_length(raw.rec_len.get(), bytes.len());
        let needed =
            usize::from(raw.name_len).saturating_add(size_of::<RawEntry>()).next_multiple_of(4).max(12);
        // A remainder too short for an entry could not be left by a writer.
        let remainder = rest.len().checked_sub(length);
        let fits = length >= needed
            && length.is_multiple_of(4)
            && remainder.is_some_and(|left| left == 0 || left >= 12);
        if !fits {
            let expected = format!("a multiple of 4 in {needed}..={}", rest.len());
            return Err(corrupt("rec_len", expected, widen(length)));
        }
        if raw.inode.get() > rules.inodes {
            return Err(corrupt("inode", format!("up to {}", rules.inodes), raw.inode.get().into()));
        }
        let name = names.get(..raw.name_len.into()).unwrap_or_default();
        if raw.inode.get() != 0 {
            judge_name(name, at, rules)?;
            entries.push(Entry { inode: raw.inode.get(), file_type: raw.file_type, name });
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(entries)
}

fn judge_name(name: &[u8], at: u64, rules: Rules) -> Result<(), Corrupt> {
    if name.is_empty() {
        return Err(Corrupt::new("directory entry", at, "name_len", "at least 1", 0));
    }
    if !rules.is_encrypted && name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        let found = name.escape_ascii();
        return Err(Corrupt::new("directory entry", at, "name", "neither a slash nor NUL in it", found));
    }
    Ok(())
}

/// Blocks of 64 KiB, less the tail.
const LONG_BLOCK: usize = 65536 - size_of::<RawTail>();

/// `rec_len` in blocks of 64 KiB: the length of a whole block does not fit, and low bits stand for high ones.
pub(crate) fn record_length(stored: u16, block_length: usize) -> usize {
    let stored = usize::from(stored);
    if block_length < LONG_BLOCK {
        return stored;
    }
    if matches!(stored, 0 | 0xffff) { block_length } else { stored & 0xfffc | (stored & 3) << 16 }
}

/// The tail of a block that begins with `bytes`, which the directory seeds.
pub(crate) fn tail(bytes: &[u8], seed: u32) -> [u8; size_of::<RawTail>()] {
    let tail = RawTail {
        det_reserved_zero1: 0.into(),
        det_rec_len: 12.into(),
        det_reserved_zero2: 0,
        det_reserved_ft: TAIL_TYPE,
        det_checksum: crc32c_raw(seed, bytes).into(),
    };
    zerocopy::transmute!(tail)
}

/// Bytes of a block that entries can fill.
pub(crate) fn room(block_length: usize, inode: &Inode) -> usize {
    if inode.seed.is_some() { block_length.saturating_sub(size_of::<RawTail>()) } else { block_length }
}

/// `file_type` of an entry for a file of this kind.
pub(crate) fn file_type(kind: FileKind) -> u8 {
    match kind {
        FileKind::Regular => 1,
        FileKind::Directory => 2,
        FileKind::CharDevice => 3,
        FileKind::BlockDevice => 4,
        FileKind::Fifo => 5,
        FileKind::Socket => 6,
        FileKind::Symlink => 7,
        FileKind::Unknown => 0,
    }
}

/// Cuts the tail off a block and compares its checksum, which `inode`, the directory, seeds; where metadata is
/// not protected, that is the whole block.
///
/// # Errors
/// `Corrupt`.
pub fn without_tail<'a>(bytes: &'a [u8], offset: u64, inode: &Inode) -> Result<&'a [u8], Corrupt> {
    let Some(seed) = inode.seed else { return Ok(bytes) };
    let tail = RawTail::read_from_suffix(bytes).ok().filter(|(_, tail)| {
        (tail.det_reserved_zero1.get(), tail.det_rec_len.get()) == (0, 12)
            && (tail.det_reserved_zero2, tail.det_reserved_ft) == (0, TAIL_TYPE)
    });
    let Some((covered, tail)) = tail else {
        return Err(Corrupt::new(STRUCTURE, offset, "tail", "an entry that holds the checksum", "none"));
    };
    let (computed, stored) = (crc32c_raw(seed, covered), tail.det_checksum.get());
    if computed != stored {
        return Err(Corrupt::checksum(STRUCTURE, offset, computed, stored));
    }
    Ok(covered)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { inodes: 100, is_encrypted: false };

    /// `.`, `..` and a file, as `mke2fs -d` lays them out in 1024 bytes.
    fn block() -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        for (at, inode, length, name, file_type) in
            [(0, 2_u32, 12_u16, &b"."[..], 2), (12, 2, 12, b"..", 2), (24, 12, 1000, b"fstab", 1)]
        {
            bytes[at..at + 4].copy_from_slice(&inode.to_le_bytes());
            bytes[at + 4..at + 6].copy_from_slice(&length.to_le_bytes());
            bytes[at + 6] = name.len() as u8;
            bytes[at + 7] = file_type;
            bytes[at + 8..at + 8 + name.len()].copy_from_slice(name);
        }
        bytes
    }

    #[test]
    fn names_in_order() {
        let bytes = block();
        let found = decode(&bytes, 0, RULES).unwrap();
        let names: Vec<&[u8]> = found.iter().map(|entry| entry.name).collect();
        assert_eq!(names, [&b"."[..], b"..", b"fstab"]);
        assert_eq!(found[2].kind(), FileKind::Regular);
    }

    #[test]
    fn each_bad_field_is_named() {
        let field = |at: usize, value: u8| {
            let mut bytes = block();
            bytes[at] = value;
            decode(&bytes, 0, RULES)
                .map(|entries| entries.len())
                .map_err(|corrupt| (corrupt.field, corrupt.offset))
        };
        assert_eq!(field(12, 3), Ok(3));
        assert_eq!(field(12, 101), Err(("inode", 12)));
        assert_eq!(field(24, 0), Ok(2));
        assert_eq!(field(4, 0), Err(("rec_len", 0)));
        assert_eq!(field(4, 14), Err(("rec_len", 0)));
        assert_eq!(field(28, 0xf0), Err(("rec_len", 24)));
        assert_eq!(field(30, 0), Err(("name_len", 24)));
        assert_eq!(field(33, b'/'), Err(("name", 24)));
        let encrypted = Rules { is_encrypted: true, ..RULES };
        let mut bytes = block();
        bytes[33] = b'/';
        assert_eq!(decode(&bytes, 0, encrypted).unwrap().len(), 3);
    }

    #[test]
    fn record_lengths_of_large_blocks() {
        assert_eq!(record_length(12, 4096), 12);
        assert_eq!(record_length(0, 4096), 0);
        assert_eq!(record_length(0xffff, 65536), 65536);
        assert_eq!(record_length(0, 65536), 65536);
        assert_eq!(record_length(0xfffc, 65536), 0xfffc);
    }
}
