//! Block header: what a block of the log is, and which transaction it belongs to.
//!
//! Linux `Documentation/filesystems/ext4/journal.rst`, "Block Header". Big-endian.

use ondisk::be;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `h_magic`.
pub const MAGIC: u32 = 0xc03b_3998;

/// The head of each block of the log that is not a copy.
#[expect(missing_docs, reason = "the fields carry the documentation's names")]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawHeader {
    pub h_magic: be::U32,     // 0x0
    pub h_blocktype: be::U32, // 0x4
    pub h_sequence: be::U32,  // 0x8 the transaction
}

const _: () = assert!(size_of::<RawHeader>() == 12);

/// `h_blocktype`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockType {
    /// Names the blocks that follow.
    Descriptor,
    /// Ends a transaction.
    Commit,
    /// The first block of the journal, before features existed.
    SuperblockV1,
    /// The first block of the journal.
    SuperblockV2,
    /// Names blocks whose older copies must not be used.
    Revocation,
}

/// What the header of a block says, if it has one: its type and transaction.
pub fn decode(bytes: &[u8]) -> Option<(BlockType, u32)> {
    let (raw, _) = RawHeader::read_from_prefix(bytes).ok().filter(|(raw, _)| raw.h_magic.get() == MAGIC)?;
    let block_type = match raw.h_blocktype.get() {
        1 => BlockType::Descriptor,
        2 => BlockType::Commit,
        3 => BlockType::SuperblockV1,
        4 => BlockType::SuperblockV2,
        5 => BlockType::Revocation,
        _ => return None,
    };
    Some((block_type, raw.h_sequence.get()))
}
