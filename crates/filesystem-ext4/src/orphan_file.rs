//! Orphan file: the inodes to delete or truncate at the next mount, in the blocks of a file of its own.
//!
//! Linux `Documentation/filesystems/ext4/orphan.rst`. Little-endian: inode numbers, 0 for a free place, then a
//! tail at the end of each block.

use filesystem::FileKind;
use ondisk::{Corrupt, Result, crc32c_raw, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::disk::Disk;
use crate::mapping;
use crate::units::FsBlock;

/// `ob_magic`.
pub const MAGIC: u32 = 0x0b10_ca04;

const STRUCTURE: &str = "orphan file block";

/// Bytes of the file at most: twice what mke2fs makes by itself, 512 blocks of 64 KiB. A file of holes may claim any size.
const MAX_SIZE: u64 = 64 << 20;

/// The end of each block.
#[expect(missing_docs, reason = "the fields carry the documentation's names")]
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawTail {
    pub ob_magic: le::U32,    // 0x0
    pub ob_checksum: le::U32, // 0x4 over the block number, 64 bits, and the block before the tail
}

const _: () = assert!(size_of::<RawTail>() == 8);

/// The inode numbers in one block; `seed` is that of the orphan file's inode, where metadata is protected.
///
/// # Errors
/// `Corrupt`.
pub fn decode(bytes: &[u8], block: FsBlock, offset: u64, seed: Option<u32>) -> Result<Vec<u32>, Corrupt> {
    let (entries, tail) = RawTail::read_from_suffix(bytes)
        .map_err(|_| Corrupt::new(STRUCTURE, offset, "length", "at least 8", bytes.len()))?;
    if tail.ob_magic.get() != MAGIC {
        let found = format!("{:#010x}", tail.ob_magic);
        return Err(Corrupt::new(STRUCTURE, offset, "ob_magic", format_args!("{MAGIC:#010x}"), found));
    }
    if let Some(seed) = seed {
        let computed = crc32c_raw(crc32c_raw(seed, &block.0.to_le_bytes()), entries);
        if computed != tail.ob_checksum.get() {
            return Err(Corrupt::checksum(STRUCTURE, offset, computed, tail.ob_checksum.get()));
        }
    }
    let numbers = entries.chunks_exact(4).filter_map(|bytes| le::U32::read_from_bytes(bytes).ok());
    Ok(numbers.map(le::U32::get).filter(|number| *number != 0).collect())
}

/// All inodes that the orphan file in inode `number` names.
///
/// # Errors
/// `Io`, `Corrupt`.
pub fn read(disk: &Disk, number: u32) -> Result<Vec<u32>> {
    let inode = disk.inode_of_kind(number, FileKind::Regular, "a regular file that holds orphans")?;
    if inode.size > MAX_SIZE {
        let expected = format!("at most {MAX_SIZE} for the orphan file");
        return Err(Corrupt::new("inode", inode.offset, "i_size", expected, inode.size).into());
    }
    let blocks = disk.superblock.block_size.blocks_for(inode.size);
    let mut orphans = Vec::new();
    mapping::runs(disk, &inode, 0..blocks, &mut |run| {
        for index in 0..run.length {
            let block = run.physical.after(index);
            orphans.extend(decode(&disk.block(block)?, block, disk.offset_of(block), inode.seed)?);
        }
        Ok(())
    })?;
    Ok(orphans)
}
