//! Descriptor block: where the copies that follow belong.
//!
//! Linux `Documentation/filesystems/ext4/journal.rst`, "Descriptor Block". Big-endian. After the header a list of
//! tags, whose layout depends on the features of the journal; at the end a checksum, where blocks have one.

use std::ops::Range;

use ondisk::{be, crc32c_raw};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::block_header::RawHeader;
use super::superblock::{Protection, Superblock};
use crate::bytes::copy_common;
use crate::units::{halves16, join};

/// Bits of `t_flags`.
mod flags {
    pub(super) const ESCAPE: u16 = 0x1;
    pub(super) const SAME_UUID: u16 = 0x2;
    pub(super) const LAST_TAG: u16 = 0x8;
}

/// Bytes of the checksum at the end of the block.
const TAIL: usize = 4;

/// A tag where copies have a checksum of 32 bits.
#[expect(missing_docs, reason = "the fields carry the documentation's names")]
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawTag3 {
    pub t_blocknr: be::U32,      // 0x0
    pub t_flags: be::U32,        // 0x4
    pub t_blocknr_high: be::U32, // 0x8
    pub t_checksum: be::U32,     // 0xc
}

/// Any other tag. Without the 64-bit feature the last field is missing; with checksums of 16 bits two more
/// bytes follow that nobody uses.
#[expect(missing_docs, reason = "the fields carry the documentation's names")]
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawTag {
    pub t_blocknr: be::U32,      // 0x0
    pub t_checksum: be::U16,     // 0x4
    pub t_flags: be::U16,        // 0x6
    pub t_blocknr_high: be::U32, // 0x8
}

const _: () = assert!(size_of::<RawTag3>() == 16 && size_of::<RawTag>() == 12);

/// One copy: where it belongs, and what to do to it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// The block of the file system.
    pub block: u64,
    /// Whether the block begins with the journal's magic number, which the copy has zeros in place of.
    pub is_escaped: bool,
    /// The checksum of the copy as it lies in the log; 16 bits in one of the formats.
    pub checksum: u32,
}

/// The tags of a block, until the last one or the end of the block.
pub fn decode(bytes: &[u8], journal: &Superblock) -> Vec<Tag> {
    let end =
        if journal.protection.seed().is_some() { bytes.len().saturating_sub(TAIL) } else { bytes.len() };
    let mut rest = bytes.get(size_of::<RawHeader>()..end).unwrap_or_default();
    let length = tag_length(journal);
    let mut tags = Vec::new();
    while let Some((raw, after)) = rest.split_at_checked(length) {
        let (tag, flags) = decode_tag(raw, journal);
        tags.push(tag);
        if flags & flags::LAST_TAG != 0 {
            break;
        }
        let skipped = if flags & flags::SAME_UUID == 0 { 16 } else { 0 };
        rest = after.get(skipped..).unwrap_or_default();
    }
    tags
}

fn tag_length(journal: &Superblock) -> usize {
    match (journal.protection, journal.is_64bit) {
        (Protection::Blocks { .. }, _) => 16,
        (Protection::Blocks16 { .. }, true) => 14,
        (Protection::Blocks16 { .. }, false) => 10,
        (_, true) => 12,
        (_, false) => 8,
    }
}

fn decode_tag(bytes: &[u8], journal: &Superblock) -> (Tag, u16) {
    let mut padded = [0; size_of::<RawTag3>()];
    copy_common(&mut padded, bytes);
    let (low, high, flags, checksum) = if matches!(journal.protection, Protection::Blocks { .. }) {
        let raw: RawTag3 = zerocopy::transmute!(padded);
        let (flags, _) = halves16(raw.t_flags.get());
        (raw.t_blocknr.get(), raw.t_blocknr_high.get(), flags, raw.t_checksum.get())
    } else {
        let [head @ .., _, _, _, _] = padded;
        let raw: RawTag = zerocopy::transmute!(head);
        (raw.t_blocknr.get(), raw.t_blocknr_high.get(), raw.t_flags.get(), raw.t_checksum.get().into())
    };
    let block = join(low, if journal.is_64bit { high } else { 0 });
    (Tag { block, is_escaped: flags & flags::ESCAPE != 0, checksum }, flags)
}

/// Whether the checksum at the end of a descriptor or revocation block fits; true where there is none.
pub fn is_intact(bytes: &[u8], protection: Protection) -> bool {
    let Some(seed) = protection.seed() else { return true };
    checksum_without(bytes, bytes.len().saturating_sub(TAIL)..bytes.len(), seed)
}

/// Whether the big-endian checksum in `place` is that of the block with zeros there.
pub(super) fn checksum_without(bytes: &[u8], place: Range<usize>, seed: u32) -> bool {
    let (Some(before), Some(stored), Some(after)) =
        (bytes.get(..place.start), bytes.get(place.clone()), bytes.get(place.end..))
    else {
        return false;
    };
    let computed = crc32c_raw(crc32c_raw(crc32c_raw(seed, before), &[0; 4]), after);
    stored == computed.to_be_bytes()
}

/// The checksum that a copy in transaction `sequence` should have; `None` where copies have none.
pub fn copy_checksum(copy: &[u8], sequence: u32, protection: Protection) -> Option<u32> {
    let computed = crc32c_raw(crc32c_raw(protection.seed()?, &sequence.to_be_bytes()), copy);
    if matches!(protection, Protection::Blocks16 { .. }) {
        Some(halves16(computed).0.into())
    } else {
        Some(computed)
    }
}
