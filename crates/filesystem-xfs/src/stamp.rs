//! What every metadata block of version 5 says about itself.
//!
//! XFS Algorithms & Data Structures, "Self Describing Metadata": checksum, UUID, own address in 512-byte
//! units, owner. The order differs from structure to structure. A checksum alone finds flipped bits; address
//! and owner find a sound block in the wrong place.

use ondisk::Guid;

use crate::span::{Checked, Span};

/// Byte offsets of the self-description in one kind of block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    crc: u8,
    uuid: u8,
    block: u8,
    owner: Owner,
}

/// Where the owner is, and how wide.
#[derive(Debug, Clone, Copy)]
enum Owner {
    /// An allocation group number.
    U32(u8),
    /// An inode number.
    U64(u8),
}

impl Stamp {
    /// Trees of an allocation group: free space, reverse map, reference counts.
    pub(crate) const SHORT_BTREE: Self = Self { crc: 52, uuid: 32, block: 16, owner: Owner::U32(48) };
    /// Trees of an inode's extents.
    pub(crate) const LONG_BTREE: Self = Self { crc: 64, uuid: 40, block: 24, owner: Owner::U64(56) };
    /// Directory blocks that hold entries.
    pub(crate) const DIRECTORY: Self = Self { crc: 4, uuid: 24, block: 8, owner: Owner::U64(40) };
    /// Nodes and leaves of directories and attributes.
    pub(crate) const DA_BTREE: Self = Self { crc: 12, uuid: 32, block: 16, owner: Owner::U64(48) };
    /// Blocks that hold a symlink target or an attribute value.
    pub(crate) const REMOTE: Self = Self { crc: 12, uuid: 16, block: 40, owner: Owner::U64(32) };

    /// Byte of the checksum.
    pub(crate) fn crc_at(self) -> usize {
        usize::from(self.crc)
    }

    /// Checks a block of a version 5 file system that should belong to `owner`.
    pub(crate) fn check(self, span: &Span<'_>, meta_uuid: Guid, owner: u64) -> Checked<()> {
        span.check_crc(self.crc_at())?;
        let uuid = Guid::from_bytes(span.value(usize::from(self.uuid), "uuid")?);
        if uuid != meta_uuid {
            return Err(span.corrupt("uuid", meta_uuid, uuid));
        }
        let block = span.u64(usize::from(self.block), "blkno")?;
        if block.checked_mul(512) != Some(span.offset) {
            return Err(span.corrupt("blkno", span.offset >> 9, block));
        }
        let found = match self.owner {
            Owner::U32(at) => u64::from(span.u32(usize::from(at), "owner")?),
            Owner::U64(at) => span.u64(usize::from(at), "owner")?,
        };
        if found != owner {
            return Err(span.corrupt("owner", owner, found));
        }
        Ok(())
    }
}
