//! Group descriptor: where a block group keeps its bitmaps and inodes, and how much of it is free.
//!
//! Linux `Documentation/filesystems/ext4/group_descr.rst`. 32 bytes, 64 (or more) with the 64bit feature;
//! little-endian. Larger descriptors than 64 bytes keep their tail, which nothing gives a meaning yet.

use ondisk::{Corrupt, crc32c_raw, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::copy_common;
use crate::checksum::{Checksums, crc16};
use crate::features::incompat;
use crate::superblock::{PRIMARY, Superblock};
use crate::units::{FsBlock, halves16, to_usize, widen};

/// `bg_flags`: the inode bitmap and table were never written.
pub const INODE_UNINIT: u16 = 0x1;

/// `bg_flags`: the block bitmap was never written.
pub const BLOCK_UNINIT: u16 = 0x2;

/// `bg_flags`: the inode table was written with zeros.
pub const ITABLE_ZEROED: u16 = 0x4;

/// The name of the structure in errors.
pub(crate) const STRUCTURE: &str = "group descriptor";

/// The first 64 bytes of a descriptor as stored; zeros where a descriptor is shorter.
#[expect(missing_docs, reason = "the fields carry the documentation's names")]
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawGroupDescriptor {
    pub bg_block_bitmap_lo: le::U32,      // 0x00
    pub bg_inode_bitmap_lo: le::U32,      // 0x04
    pub bg_inode_table_lo: le::U32,       // 0x08
    pub bg_free_blocks_count_lo: le::U16, // 0x0c in clusters with bigalloc
    pub bg_free_inodes_count_lo: le::U16, // 0x0e
    pub bg_used_dirs_count_lo: le::U16,   // 0x10
    pub bg_flags: le::U16,                // 0x12
    pub bg_exclude_bitmap_lo: le::U32,    // 0x14
    pub bg_block_bitmap_csum_lo: le::U16, // 0x18
    pub bg_inode_bitmap_csum_lo: le::U16, // 0x1a
    pub bg_itable_unused_lo: le::U16,     // 0x1c
    pub bg_checksum: le::U16,             // 0x1e
    pub bg_block_bitmap_hi: le::U32,      // 0x20
    pub bg_inode_bitmap_hi: le::U32,      // 0x24
    pub bg_inode_table_hi: le::U32,       // 0x28
    pub bg_free_blocks_count_hi: le::U16, // 0x2c
    pub bg_free_inodes_count_hi: le::U16, // 0x2e
    pub bg_used_dirs_count_hi: le::U16,   // 0x30
    pub bg_itable_unused_hi: le::U16,     // 0x32
    pub bg_exclude_bitmap_hi: le::U32,    // 0x34
    pub bg_block_bitmap_csum_hi: le::U16, // 0x38
    pub bg_inode_bitmap_csum_hi: le::U16, // 0x3a
    pub bg_reserved: le::U32,             // 0x3c
}

const _: () = assert!(size_of::<RawGroupDescriptor>() == 64);

/// Where `bg_checksum` lies.
const CHECKSUM: std::ops::Range<usize> = 0x1e..0x20;

/// One descriptor with the bytes it came from.
#[derive(Debug, Clone)]
pub struct GroupDescriptor {
    /// The number of the group.
    pub group: u32,
    /// First byte on the device.
    pub offset: u64,
    /// All fields, those past the descriptor's size as zeros.
    pub raw: RawGroupDescriptor,
    /// The bytes of the descriptor, [`Superblock::descriptor_size`] of them.
    bytes: Vec<u8>,
}

impl GroupDescriptor {
    /// The first byte of the descriptor of `group`.
    pub fn offset(superblock: &Superblock, group: u32) -> u64 {
        let size = u64::from(superblock.descriptor_size);
        let per_block = superblock.block_size.bytes().checked_div(size).unwrap_or(1);
        let table_block = u64::from(group).checked_div(per_block).unwrap_or(0);
        let within = u64::from(group).checked_rem(per_block).unwrap_or(0).saturating_mul(size);
        let is_meta = superblock.features.has_incompat(incompat::META_BG)
            && table_block >= u64::from(superblock.first_meta_bg);
        let block = if is_meta {
            meta_block(superblock, table_block.saturating_mul(per_block))
        } else {
            superblock.own_block().after(1).after(table_block)
        };
        superblock.block_size.offset_of(block).saturating_add(within)
    }

    /// The first byte of a copy of the descriptor of `group`: that behind the superblock that group `backup`
    /// begins with, or with meta_bg that in the second group of its metagroup. `None` where there is none.
    pub fn copy_offset(superblock: &Superblock, group: u32, backup: u32) -> Option<u64> {
        let size = u64::from(superblock.descriptor_size);
        let per_block = superblock.block_size.bytes().checked_div(size)?;
        let table_block = u64::from(group).checked_div(per_block)?;
        let within = u64::from(group).checked_rem(per_block)?.checked_mul(size)?;
        let is_meta = superblock.features.has_incompat(incompat::META_BG)
            && table_block >= u64::from(superblock.first_meta_bg);
        let block = if is_meta {
            let second = u32::try_from(table_block.checked_mul(per_block)?.checked_add(1)?).ok()?;
            let holder = Some(second).filter(|second| *second < superblock.groups)?;
            superblock.group_blocks(holder).0.after(superblock.has_superblock(holder).into())
        } else {
            superblock.group_blocks(backup).0.after(1).after(table_block)
        };
        Some(superblock.block_size.offset_of(block).saturating_add(within))
    }

    /// The same descriptor at another place.
    pub(crate) fn moved_to(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Takes the bytes of a descriptor apart; any bytes are a descriptor.
    pub fn decode(superblock: &Superblock, group: u32, bytes: Vec<u8>) -> Self {
        let mut padded = [0; size_of::<RawGroupDescriptor>()];
        copy_common(&mut padded, &bytes);
        let raw = zerocopy::transmute!(padded);
        Self { group, offset: Self::offset(superblock, group), raw, bytes }
    }

    /// The bytes to store, with the checksum that fits.
    pub fn encode(&self, checksums: Checksums) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        copy_common(&mut bytes, self.raw.as_bytes());
        let checksum = computed_checksum(checksums, self.group, &bytes).unwrap_or(0);
        if let Some(field) = bytes.get_mut(CHECKSUM) {
            field.copy_from_slice(&checksum.to_le_bytes());
        }
        bytes
    }

    /// Compares the checksum, where there is one.
    ///
    /// # Errors
    /// `Corrupt` when it does not fit.
    pub fn verify_checksum(&self, checksums: Checksums) -> Result<(), Corrupt> {
        let stored = self.raw.bg_checksum.get();
        match computed_checksum(checksums, self.group, &self.bytes) {
            Some(computed) if computed != stored => {
                Err(Corrupt::checksum(STRUCTURE, self.offset, computed.into(), stored.into()))
            }
            _ => Ok(()),
        }
    }

    /// The block of the block bitmap.
    pub fn block_bitmap(&self) -> FsBlock {
        FsBlock::from_halves(self.raw.bg_block_bitmap_lo, self.raw.bg_block_bitmap_hi.get())
    }

    /// The block of the inode bitmap.
    pub fn inode_bitmap(&self) -> FsBlock {
        FsBlock::from_halves(self.raw.bg_inode_bitmap_lo, self.raw.bg_inode_bitmap_hi.get())
    }

    /// The first block of the inode table.
    pub fn inode_table(&self) -> FsBlock {
        FsBlock::from_halves(self.raw.bg_inode_table_lo, self.raw.bg_inode_table_hi.get())
    }

    /// Free blocks; clusters with bigalloc.
    pub fn free_blocks(&self) -> u32 {
        join16(self.raw.bg_free_blocks_count_lo, self.raw.bg_free_blocks_count_hi)
    }

    /// Free inodes.
    pub fn free_inodes(&self) -> u32 {
        join16(self.raw.bg_free_inodes_count_lo, self.raw.bg_free_inodes_count_hi)
    }

    /// Stores the number of free blocks.
    pub fn set_free_blocks(&mut self, count: u32) {
        let (low, high) = halves16(count);
        self.raw.bg_free_blocks_count_lo.set(low);
        self.raw.bg_free_blocks_count_hi.set(high);
    }

    /// Stores the number of free inodes.
    pub fn set_free_inodes(&mut self, count: u32) {
        let (low, high) = halves16(count);
        self.raw.bg_free_inodes_count_lo.set(low);
        self.raw.bg_free_inodes_count_hi.set(high);
    }

    /// Inodes at the end of the table that were never used.
    pub fn unused_inodes(&self) -> u32 {
        join16(self.raw.bg_itable_unused_lo, self.raw.bg_itable_unused_hi)
    }

    /// Stores the number of inodes that were never used.
    pub fn set_unused_inodes(&mut self, count: u32) {
        let (low, high) = halves16(count);
        self.raw.bg_itable_unused_lo.set(low);
        self.raw.bg_itable_unused_hi.set(high);
    }

    /// Directories whose inodes lie in this group.
    pub fn used_directories(&self) -> u32 {
        join16(self.raw.bg_used_dirs_count_lo, self.raw.bg_used_dirs_count_hi)
    }

    /// Stores the number of directories.
    pub fn set_used_directories(&mut self, count: u32) {
        let (low, high) = halves16(count);
        self.raw.bg_used_dirs_count_lo.set(low);
        self.raw.bg_used_dirs_count_hi.set(high);
    }

    /// Compares the checksum of the block bitmap, where there is one.
    ///
    /// # Errors
    /// `Corrupt` when it does not fit.
    pub fn verify_block_bitmap(&self, superblock: &Superblock, bitmap: &[u8]) -> Result<(), Corrupt> {
        let Some(computed) = block_bitmap_checksum(superblock, bitmap) else { return Ok(()) };
        let raw = &self.raw;
        let (computed, stored) = if widen(self.bytes.len()) >= 64 {
            (computed, join16(raw.bg_block_bitmap_csum_lo, raw.bg_block_bitmap_csum_hi))
        } else {
            (halves16(computed).0.into(), raw.bg_block_bitmap_csum_lo.get().into())
        };
        if computed == stored {
            return Ok(());
        }
        let offset = superblock.block_size.offset_of(self.block_bitmap());
        Err(Corrupt::checksum("block bitmap", offset, computed, stored))
    }

    /// Stores the checksum of the block bitmap, where there is one.
    pub fn stamp_block_bitmap(&mut self, superblock: &Superblock, bitmap: &[u8]) {
        if let Some(computed) = block_bitmap_checksum(superblock, bitmap) {
            let (low, high) = halves16(computed);
            self.raw.bg_block_bitmap_csum_lo.set(low);
            self.raw.bg_block_bitmap_csum_hi.set(high);
        }
    }
}

impl GroupDescriptor {
    /// Stores the checksum of the inode bitmap, where there is one.
    pub fn stamp_inode_bitmap(&mut self, superblock: &Superblock, bitmap: &[u8]) {
        let length = to_usize(superblock.inodes_per_group.get().div_ceil(8));
        if let (Some(seed), Some(covered)) = (superblock.checksums.seed(), bitmap.get(..length)) {
            let (low, high) = halves16(crc32c_raw(seed, covered));
            self.raw.bg_inode_bitmap_csum_lo.set(low);
            self.raw.bg_inode_bitmap_csum_hi.set(high);
        }
    }
}

/// How many blocks at the start of a group hold superblock and descriptors, or are kept for more of them.
pub fn base_blocks(superblock: &Superblock, group: u32) -> u64 {
    let size = u64::from(superblock.descriptor_size);
    let per_block = superblock.block_size.bytes().checked_div(size).unwrap_or(1);
    let has_superblock = superblock.has_superblock(group);
    let has_meta = superblock.features.has_incompat(incompat::META_BG);
    let first_meta = u64::from(superblock.first_meta_bg);
    if has_meta && u64::from(group) >= first_meta.saturating_mul(per_block) {
        // The first, second and last group of a metagroup have its one block of descriptors.
        let within = u64::from(group).checked_rem(per_block).unwrap_or(0);
        let has_descriptors = within <= 1 || within.saturating_add(1) == per_block;
        return u64::from(has_superblock).saturating_add(has_descriptors.into());
    }
    if !has_superblock {
        return 0;
    }
    table_blocks(superblock).saturating_add(superblock.reserved_descriptor_blocks.into()).saturating_add(1)
}

/// Blocks of descriptors behind a superblock; with meta_bg those of the metagroups that have none of their own.
pub(crate) fn table_blocks(superblock: &Superblock) -> u64 {
    let size = u64::from(superblock.descriptor_size);
    let per_block = superblock.block_size.bytes().checked_div(size).unwrap_or(1);
    let all = u64::from(superblock.groups).div_ceil(per_block.max(1));
    let has_meta = superblock.features.has_incompat(incompat::META_BG);
    if has_meta { all.min(superblock.first_meta_bg.into()) } else { all }
}

/// Where a metagroup that begins with group `first` keeps its descriptors: at the start of that group, behind
/// a superblock if there is one.
fn meta_block(superblock: &Superblock, first: u64) -> FsBlock {
    let group = u32::try_from(first).unwrap_or(u32::MAX);
    let start = superblock.first_data_block.after(first.saturating_mul(superblock.blocks_per_group.get()));
    // With 1024-byte clusters of several blocks group 0 begins with the boot block, which `start` counts.
    let has_boot_block = group == 0 && superblock.block_size.bytes() == PRIMARY && start.0 == 0;
    start.after(u64::from(superblock.has_superblock(group))).after(u64::from(has_boot_block))
}

fn join16(low: le::U16, high: le::U16) -> u32 {
    u32::from(high.get()) << 16 | u32::from(low.get())
}

/// CRC over UUID or seed, group number, and the descriptor: with the checksum as zeros (CRC-32C), or without
/// it (CRC-16).
fn computed_checksum(checksums: Checksums, group: u32, bytes: &[u8]) -> Option<u16> {
    let before = bytes.get(..CHECKSUM.start)?;
    let after = bytes.get(CHECKSUM.end..)?;
    match checksums {
        Checksums::None => None,
        Checksums::GroupsOnly { uuid } => {
            let seed = crc16(crc16(!0, &uuid), &group.to_le_bytes());
            Some(crc16(crc16(seed, before), after))
        }
        Checksums::All { seed } => {
            let seed = crc32c_raw(seed, &group.to_le_bytes());
            Some(halves16(crc32c_raw(crc32c_raw(crc32c_raw(seed, before), &[0; 2]), after)).0)
        }
    }
}

fn block_bitmap_checksum(superblock: &Superblock, bitmap: &[u8]) -> Option<u32> {
    let seed = superblock.checksums.seed()?;
    let bits = superblock.blocks_per_group.get().checked_div(superblock.cluster_blocks)?;
    Some(crc32c_raw(seed, bitmap.get(..to_usize(bits.div_ceil(8)))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::superblock::RawSuperblock;

    fn superblock() -> Superblock {
        let mut raw = RawSuperblock::default();
        raw.s_inodes_count.set(16 * 40);
        raw.s_blocks_count_lo.set(40 * 256 + 1);
        raw.s_first_data_block.set(1);
        raw.s_blocks_per_group.set(256);
        raw.s_inodes_per_group.set(16);
        raw.s_magic.set(crate::superblock::MAGIC);
        raw.s_rev_level.set(1);
        raw.s_inode_size.set(256);
        raw.s_feature_incompat.set(incompat::META_BG | incompat::BITS64);
        raw.s_feature_ro_compat.set(0x401);
        raw.s_desc_size.set(64);
        raw.s_checksum_type = 1;
        Superblock::decode(&raw).unwrap()
    }

    #[test]
    fn metagroups_keep_their_own_descriptors() {
        let mut superblock = superblock();
        assert_eq!(GroupDescriptor::offset(&superblock, 1), 2 * 1024 + 64);
        // Group 16 begins the second metagroup and has no superblock; 27 would have one.
        assert_eq!(GroupDescriptor::offset(&superblock, 17), (1 + 16 * 256) * 1024 + 64);
        superblock.first_meta_bg = 2;
        assert_eq!(GroupDescriptor::offset(&superblock, 17), 3 * 1024 + 64);
    }

    #[test]
    fn encode_undoes_decode_and_stamps() {
        let superblock = superblock();
        let mut bytes = vec![0; 64];
        bytes[0xc] = 9;
        let mut group = GroupDescriptor::decode(&superblock, 3, bytes);
        assert_eq!(group.verify_checksum(superblock.checksums).unwrap_err().field, "checksum");
        group.set_free_blocks(0x1_0002);
        let bytes = group.encode(superblock.checksums);
        let again = GroupDescriptor::decode(&superblock, 3, bytes.clone());
        assert!(again.verify_checksum(superblock.checksums).is_ok());
        assert_eq!(again.free_blocks(), 0x1_0002);
        assert_eq!(again.encode(superblock.checksums), bytes);
        let other = GroupDescriptor::decode(&superblock, 4, bytes);
        assert!(other.verify_checksum(superblock.checksums).is_err());
    }
}
