//! Where metadata blocks keep their log sequence number, checksum and UUID, by what they are.
//!
//! XFS Algorithms & Data Structures, "Self Describing Metadata". Version 5 only: older blocks say neither.

use ondisk::{Guid, be};
use zerocopy::FromBytes;

use crate::span::{Span, put, put_crc};

/// Byte offsets in one kind of block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) crc: usize,
    pub(super) lsn: usize,
    pub(super) uuid: usize,
}

const SUPERBLOCK: Marks = Marks { crc: 0xe0, lsn: 0xf0, uuid: 0x20 };
const AGF: Marks = Marks { crc: 0xd8, lsn: 0xd0, uuid: 0x40 };
const AGI: Marks = Marks { crc: 0x138, lsn: 0x140, uuid: 0x128 };
const AGFL: Marks = Marks { crc: 0x20, lsn: 0x18, uuid: 0x08 };
const SHORT_BTREE: Marks = Marks { crc: 0x34, lsn: 0x18, uuid: 0x20 };
const LONG_BTREE: Marks = Marks { crc: 0x40, lsn: 0x20, uuid: 0x28 };
const DIRECTORY: Marks = Marks { crc: 0x04, lsn: 0x10, uuid: 0x18 };
const DA_BTREE: Marks = Marks { crc: 0x0c, lsn: 0x18, uuid: 0x20 };
const REMOTE: Marks = Marks { crc: 0x0c, lsn: 0x30, uuid: 0x10 };

/// Bytes of a block that say what it is and how new.
pub(super) const ENOUGH: usize = 0x150;

/// `XFS_BLFT_*`: what a buffer item says that its buffer is.
pub(super) mod buffer_type {
    pub(in super::super) const BTREE: u16 = 4;
    pub(in super::super) const AGF: u16 = 5;
    pub(in super::super) const AGFL: u16 = 6;
    pub(in super::super) const AGI: u16 = 7;
    pub(in super::super) const SYMLINK: u16 = 9;
    pub(in super::super) const DIRECTORY_BLOCK: u16 = 10;
    pub(in super::super) const DIRECTORY_DATA: u16 = 11;
    pub(in super::super) const DIRECTORY_FREE: u16 = 12;
    pub(in super::super) const DIRECTORY_LEAF1: u16 = 13;
    pub(in super::super) const DIRECTORY_LEAFN: u16 = 14;
    pub(in super::super) const NODE: u16 = 15;
    pub(in super::super) const ATTRIBUTE_LEAF: u16 = 16;
    pub(in super::super) const ATTRIBUTE_VALUE: u16 = 17;
    pub(in super::super) const SUPERBLOCK: u16 = 18;
}

fn magic(bytes: &[u8]) -> [u8; 4] {
    bytes.first_chunk().copied().unwrap_or_default()
}

fn da_magic(bytes: &[u8]) -> [u8; 2] {
    bytes.get(8..).and_then(|rest| rest.first_chunk().copied()).unwrap_or_default()
}

/// What the block says that it is, of all kinds that have a log sequence number to go by.
fn recognise(bytes: &[u8]) -> Option<Marks> {
    match &magic(bytes) {
        b"AB3B" | b"AB3C" | b"RMB3" | b"R3FC" | b"IAB3" | b"FIB3" => Some(SHORT_BTREE),
        b"BMA3" => Some(LONG_BTREE),
        b"XAGF" => Some(AGF),
        b"XAFL" => Some(AGFL),
        b"XAGI" => Some(AGI),
        b"XSLM" => Some(REMOTE),
        b"XDB3" | b"XDD3" | b"XDF3" => Some(DIRECTORY),
        b"XFSB" => Some(SUPERBLOCK),
        _ => match da_magic(bytes) {
            [0x3d, 0xf1] | [0x3d, 0xff] | [0x3e, 0xbe] | [0x3b, 0xee] => Some(DA_BTREE),
            _ => None,
        },
    }
}

/// When the block was changed last, if it belongs to the file system with `meta_uuid` and says so.
/// The UUID of a superblock may be at two places, so only the number counts there.
pub(super) fn lsn_of(bytes: &[u8], meta_uuid: Guid) -> Option<u64> {
    let marks = recognise(bytes)?;
    let uuid = bytes.get(marks.uuid..)?.first_chunk::<16>().copied().map(Guid::from_bytes)?;
    if marks != SUPERBLOCK && uuid != meta_uuid {
        return None;
    }
    let (lsn, _) = be::U64::read_from_prefix(bytes.get(marks.lsn..)?).ok()?;
    Some(lsn.get()).filter(|lsn| *lsn != 0 && *lsn != u64::MAX)
}

/// Where the marks of a buffer are that an item calls `kind`, if its content agrees.
fn marks_for(kind: u16, bytes: &[u8]) -> Option<Marks> {
    use buffer_type as t;
    let found = recognise(bytes);
    let has = |wanted: Marks| found.filter(|found| *found == wanted);
    match kind {
        t::BTREE => has(SHORT_BTREE).or_else(|| has(LONG_BTREE)),
        t::AGF => has(AGF),
        t::AGFL => has(AGFL),
        t::AGI => has(AGI),
        t::SYMLINK => has(REMOTE),
        t::DIRECTORY_BLOCK | t::DIRECTORY_DATA | t::DIRECTORY_FREE => has(DIRECTORY),
        t::DIRECTORY_LEAF1 | t::DIRECTORY_LEAFN | t::NODE | t::ATTRIBUTE_LEAF => has(DA_BTREE),
        t::ATTRIBUTE_VALUE => (&magic(bytes) == b"XARM").then_some(REMOTE),
        t::SUPERBLOCK => has(SUPERBLOCK),
        _ => None,
    }
}

/// Stamps a buffer that was recovered as the kernel does when it writes one; whether it is of a kind that is.
pub(super) fn stamp(kind: u16, bytes: &mut [u8], lsn: u64) -> bool {
    let Some(marks) = marks_for(kind, bytes) else { return false };
    // Attribute values are not logged as a rule, and their number is a fixed one.
    if kind != buffer_type::ATTRIBUTE_VALUE {
        put(bytes, marks.lsn, &lsn.to_be_bytes());
    }
    put_crc(bytes, marks.crc);
    true
}

/// Whether the checksum of a sector with these marks is right; for headers of allocation groups.
pub(super) fn check(kind: u16, span: &Span<'_>) -> crate::span::Checked<()> {
    match marks_for(kind, span.bytes) {
        Some(marks) => span.check_crc(marks.crc),
        None => Err(span.corrupt("magic", "that of its kind", "another")),
    }
}
