//! What the program looks at between the superblock and the passes: the inodes for bad blocks and for growing.

use super::inode::Scanned;
use super::opening::{Opened, RESIZE_INODE, has_compat};
use super::state::{Findings, Stop};
use crate::features::{incompat, ro_compat};
use crate::group_descriptor;
use crate::inode::flags;
use crate::superblock::Superblock;
use crate::units::{FsBlock, to_usize};

/// Inode numbers.
const BAD_BLOCKS: u32 = 1;
const RESIZE: u32 = 7;

/// `ro_compat`: files may share blocks.
const SHARED_BLOCKS: u32 = 0x4000;

/// `compat`: inodes that a user may not link.
const IMAGIC_INODES: u32 = 0x2;

/// Limits of the passes, on the memory that they take: some bytes for an inode, and a bit for a block.
const MAX_INODES: u32 = 1 << 24;
const MAX_BLOCKS: u64 = 1 << 30;

/// Features whose passes are not followed, and file systems that are too large for them.
pub(super) fn judge_support(opened: &Opened) -> Result<(), Stop> {
    let superblock = &opened.disk.superblock;
    if superblock.inodes > MAX_INODES || superblock.blocks > MAX_BLOCKS {
        let (inodes, blocks) = (superblock.inodes, superblock.blocks);
        return Err(Stop::unknown(format!("{inodes} inodes and {blocks} blocks are too many to look at")));
    }
    let features = &superblock.features;
    for (is_there, name) in [
        (features.has_ro_compat(ro_compat::BIGALLOC), "bigalloc"),
        (features.has_ro_compat(SHARED_BLOCKS), "shared_blocks"),
        (features.has_compat(IMAGIC_INODES), "imagic_inodes"),
    ] {
        if is_there {
            return Err(Stop::unknown(format!("a check with the feature {name}")));
        }
    }
    if !superblock.inodes_per_group.get().is_multiple_of(8) {
        return Err(Stop::unknown("a number of inodes per group that is no multiple of 8"));
    }
    let number = opened.raw.s_orphan_file_inum.get();
    if superblock
        .orphan_inode
        .is_some_and(|number| number < superblock.first_inode || number > superblock.inodes)
        || superblock.orphan_inode.is_none() && number != 0
    {
        return Err(Stop::unknown(format!("an orphan file in inode {number}")));
    }
    Ok(())
}

fn read(opened: &Opened, number: u32) -> Result<Scanned, Stop> {
    let bytes = opened.inode_bytes(number)?;
    bytes
        .and_then(|bytes| Scanned::decode(opened, number, bytes))
        .ok_or_else(|| Stop::unknown(format!("inode {number} cannot be read")))
}

/// The list of bad blocks: empty everywhere, for thirty years.
pub(super) fn judge_bad_blocks(opened: &Opened, findings: &mut Findings) -> Result<(), Stop> {
    let inode = read(opened, BAD_BLOCKS)?;
    if !inode.is_checksum_good {
        return findings.by_hand("inode 1, of bad blocks, has a checksum that does not fit");
    }
    let raw = &inode.raw;
    let is_odd = raw.i_mode.get() != 0
        || raw.i_uid.get() != 0
        || raw.i_gid.get() != 0
        || raw.i_links_count.get() != 0
        || inode.has_flag(flags::INLINE_DATA)
        || raw.i_file_acl_lo.get() != 0;
    let has_map = inode.blocks().any(|block| block != 0) || inode.has_extents;
    if has_map {
        return Err(findings.unknown("a list of bad blocks"));
    }
    if raw.i_dtime.get() != 0 {
        return Err(findings.unknown("a time of deletion in inode 1"));
    }
    if is_odd { findings.by_hand("inode 1, of bad blocks, is not empty") } else { Ok(()) }
}

/// The inode that keeps blocks for growing must map exactly those.
pub(super) fn judge_resize_inode(opened: &Opened, findings: &mut Findings) -> Result<(), Stop> {
    let superblock = &opened.disk.superblock;
    let has_feature = has_compat(opened, RESIZE_INODE);
    if has_feature && superblock.features.has_incompat(incompat::META_BG) {
        return findings.by_hand("both resize_inode and meta_bg");
    }
    if !has_feature && superblock.reserved_descriptor_blocks != 0 {
        findings.by_hand("s_reserved_gdt_blocks without resize_inode")?;
    }
    let inode = read(opened, RESIZE)?;
    if !inode.is_checksum_good {
        // Made anew with the feature; cleared on the way without it.
        return Err(findings.unknown("inode 7, for growing, has a checksum that does not fit"));
    }
    if !has_feature {
        if inode.blocks().any(|block| block != 0) {
            findings.by_hand("inode 7 without resize_inode")?;
        }
        return Ok(());
    }
    let map = inode.block(13);
    let is_good = inode.blocks().enumerate().all(|(index, block)| index == 13 || block == 0)
        && map != 0
        && inode.raw.i_links_count.get() != 0
        && inode.raw.i_mode.get() & 0o100_000 != 0
        && u64::from(map) >= superblock.first_data_block.0
        && u64::from(map) < superblock.blocks
        && maps_reserve(opened, superblock, FsBlock(map.into()))?;
    if is_good { Ok(()) } else { findings.by_hand("inode 7 does not map the blocks for growing") }
}

/// Whether the blocks behind the descriptors, of which the program looks at a quarter, are listed with their
/// copies.
fn maps_reserve(opened: &Opened, superblock: &Superblock, map: FsBlock) -> Result<bool, Stop> {
    let words = words(&opened.disk.block(map)?);
    let per_block = superblock.block_size.bytes() / 4;
    let table = group_descriptor::table_blocks(superblock);
    let mut block = superblock.first_data_block.after(1).after(table);
    if superblock.block_size.bytes() == 1024 && superblock.first_data_block.0 == 0 {
        block = block.after(1);
    }
    for index in 0..u64::from(superblock.reserved_descriptor_blocks / 4) {
        let entry = table.saturating_add(index).checked_rem(per_block).unwrap_or(0);
        if u64::from(word(&words, entry)) != block.0 {
            return Ok(false);
        }
        let copies = self::words(&opened.disk.block(block)?);
        let holders = (1..superblock.groups).filter(|group| superblock.has_superblock(*group));
        for (entry, group) in (0..).zip(holders) {
            let distance = u64::from(group).saturating_mul(superblock.blocks_per_group.get());
            if u64::from(word(&copies, entry)) != block.after(distance).0 {
                return Ok(false);
            }
        }
        block = block.after(1);
    }
    Ok(true)
}

/// The words of a block.
fn words(bytes: &[u8]) -> Vec<u32> {
    let words = bytes.chunks_exact(4).filter_map(|bytes| bytes.first_chunk::<4>());
    words.map(|word| u32::from_le_bytes(*word)).collect()
}

fn word(words: &[u32], index: u64) -> u32 {
    words.get(to_usize(index)).copied().unwrap_or(0)
}
