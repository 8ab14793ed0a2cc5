//! Commit block: the transaction before it is complete.
//!
//! Linux `Documentation/filesystems/ext4/journal.rst`, "Commit Block". Big-endian.

use ondisk::be;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::block_header::RawHeader;
use super::descriptor_block::checksum_without;
use super::superblock::Protection;

/// The used part of the block as stored.
#[expect(missing_docs, reason = "the fields carry the documentation's names")]
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawCommit {
    pub h_header: RawHeader,    // 0x00
    pub h_chksum_type: u8,      // 0x0c 1: CRC-32; 0 where the block has a CRC-32C of its own
    pub h_chksum_size: u8,      // 0x0d
    pub h_padding: [u8; 2],     // 0x0e
    pub h_chksum: [be::U32; 8], // 0x10
    pub h_commit_sec: be::U64,  // 0x30
    pub h_commit_nsec: be::U32, // 0x38
}

const _: () = assert!(size_of::<RawCommit>() == 0x3c);

/// What ends a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// When it was written, in seconds since 1970.
    pub seconds: u64,
    /// Whether its checksum fits; true where there is none.
    pub is_intact: bool,
}

/// Takes a commit block apart. `content` is the CRC-32 of the transaction's descriptor blocks and copies, which
/// the first kind of protection compares. `None` when the block is too short.
pub fn decode(bytes: &[u8], content: u32, protection: Protection) -> Option<Commit> {
    let (raw, _) = RawCommit::read_from_prefix(bytes).ok()?;
    let [stored, ..] = raw.h_chksum;
    let is_intact = match protection {
        Protection::None => true,
        Protection::Commit => match (raw.h_chksum_type, raw.h_chksum_size, stored.get()) {
            // Written without checksums, before they were turned on.
            (0, 0, 0) => true,
            (1, 4, stored) => stored == content,
            _ => false,
        },
        Protection::Blocks16 { seed } | Protection::Blocks { seed } => {
            checksum_without(bytes, 0x10..0x14, seed)
        }
    };
    Some(Commit { seconds: raw.h_commit_sec.get(), is_intact })
}
