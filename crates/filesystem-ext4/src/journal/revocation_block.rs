//! Revocation block: blocks of the file system whose copies up to this transaction must not be used, because
//! the blocks have become something that is not journalled.
//!
//! Linux `Documentation/filesystems/ext4/journal.rst`, "Revocation Block". Big-endian. Protected as descriptor
//! blocks are.

use ondisk::{Corrupt, be};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::block_header::RawHeader;
use super::superblock::Superblock;
use crate::units::to_usize;

/// The head of the block; block numbers of 32 or 64 bits follow.
#[expect(missing_docs, reason = "the fields carry the documentation's names")]
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawRevocation {
    pub r_header: RawHeader, // 0x0
    pub r_count: be::U32,    // 0xc bytes in use, this head included
}

const _: () = assert!(size_of::<RawRevocation>() == 16);

/// The revoked blocks that the block at byte `offset` names.
///
/// # Errors
/// `Corrupt` when it says that it is longer than it is.
pub fn decode(bytes: &[u8], offset: u64, journal: &Superblock) -> Result<Vec<u64>, Corrupt> {
    let tail = if journal.protection.seed().is_some() { 4 } else { 0 };
    let room = bytes.len().saturating_sub(tail);
    let corrupt =
        |found| Corrupt::new("revocation block", offset, "r_count", format_args!("up to {room}"), found);
    let (raw, _) = RawRevocation::read_from_prefix(bytes).map_err(|_| corrupt(0))?;
    let used = to_usize(raw.r_count.get());
    if used > room {
        return Err(corrupt(raw.r_count.get()));
    }
    let records = bytes.get(size_of::<RawRevocation>()..used).unwrap_or_default();
    Ok(if journal.is_64bit {
        records
            .chunks_exact(8)
            .filter_map(|bytes| be::U64::read_from_bytes(bytes).ok())
            .map(be::U64::get)
            .collect()
    } else {
        let records = records.chunks_exact(4).filter_map(|bytes| be::U32::read_from_bytes(bytes).ok());
        records.map(|block| block.get().into()).collect()
    })
}
