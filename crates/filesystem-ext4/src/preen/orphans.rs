//! Orphans: inodes that were deleted or cut while they were open, which is made good before the check.

use std::collections::BTreeSet;

use ondisk::read_bytes;

use super::inode::Scanned;
use super::opening::Opened;
use super::state::Stop;
use crate::features::ro_compat;
use crate::group_descriptor::BLOCK_UNINIT;
use crate::inode::Inode;
use crate::mapping::{self, Piece, Run};
use crate::orphan_file;
use crate::superblock::STATE_ERROR;
use crate::units::{FsBlock, to_usize};

/// More than an image that was in use can have.
const MAX_ORPHANS: usize = 1 << 16;

/// Blocks of all orphans together, so that many that share a large map do not take for ever.
const MAX_BLOCKS: u64 = 1 << 24;

/// The inodes that are deleted, and whether something about them makes a check necessary.
pub(super) fn follow(opened: &Opened, is_checked: bool) -> Result<(BTreeSet<u32>, bool), Stop> {
    let superblock = &opened.disk.superblock;
    let head = opened.raw.s_last_orphan.get();
    let is_present = superblock.features.has_ro_compat(ro_compat::ORPHAN_PRESENT);
    // With an error nothing of this is trusted.
    if head == 0 && !is_present || opened.raw.s_state.get() & STATE_ERROR != 0 {
        return Ok((BTreeSet::new(), false));
    }
    if head != 0 && (head < superblock.first_inode || head > superblock.inodes) {
        return Ok((BTreeSet::new(), true));
    }
    let mut deleted = BTreeSet::new();
    let mut left = MAX_BLOCKS;
    let mut number = head;
    while number != 0 {
        let next = release(opened, number, is_checked, &mut deleted, &mut left)?;
        if next != 0 && (next < superblock.first_inode || next > superblock.inodes) {
            return Err(Stop::unknown(format!("the list of orphans goes on with inode {next}")));
        }
        number = next;
    }
    if is_present {
        let Some(file) = superblock.orphan_inode else {
            if deleted.is_empty() {
                return Ok((deleted, true));
            }
            return Err(Stop::unknown("orphan_present without an orphan file"));
        };
        let orphans = orphan_file::read(&opened.disk, file)
            .map_err(|error| Stop::unknown(format!("the orphan file: {error:#}")))?;
        for number in orphans {
            release(opened, number, is_checked, &mut deleted, &mut left)?;
        }
    }
    Ok((deleted, false))
}

/// Follows the deletion of one orphan; returns the next one of the list.
fn release(
    opened: &Opened,
    number: u32,
    is_checked: bool,
    deleted: &mut BTreeSet<u32>,
    left: &mut u64,
) -> Result<u32, Stop> {
    let strange = |what: &str| Stop::unknown(format!("orphan inode {number} {what}"));
    if deleted.len() >= MAX_ORPHANS || deleted.contains(&number) {
        return Err(strange("comes up twice, or there are too many"));
    }
    let Some(bytes) = opened.inode_bytes(number)? else { return Err(strange("does not exist")) };
    let Some(scanned) = Scanned::decode(opened, number, bytes) else { return Err(strange("is damaged")) };
    if !scanned.is_checksum_good {
        return Err(strange("is damaged"));
    }
    let next = scanned.raw.i_dtime.get();
    let is_kept = scanned.raw.i_links_count.get() != 0;
    if is_checked && (is_kept || scanned.raw.i_file_acl_lo.get() != 0) {
        return Err(strange("is to be cut, or has attributes, before a check"));
    }
    if scanned.has_blocks(opened) {
        let inode = scanned.to_inode(opened).ok_or_else(|| strange("is damaged"))?;
        judge_blocks(opened, &inode, left).map_err(|stop| match stop {
            Stop::Failed(error) => Stop::unknown(format!("orphan inode {number}: {error:#}")),
            other => other,
        })?;
    }
    deleted.insert(number);
    Ok(next)
}

/// All blocks of an orphan must be marked as used.
fn judge_blocks(opened: &Opened, inode: &Inode, left: &mut u64) -> Result<(), Stop> {
    let mut runs: Vec<(FsBlock, u64)> = Vec::new();
    mapping::walk(&opened.disk, inode, 0..u64::MAX, &mut |piece| {
        let (first, count) = match piece {
            Piece::Node(block) => (block, 1),
            Piece::Run(Run { physical, length, .. }) => (physical, length),
        };
        *left = left
            .checked_sub(count)
            .ok_or_else(|| ondisk::Error::unsupported("inode", "so many blocks of orphans"))?;
        runs.push((first, count));
        Ok(())
    })?;
    let mut cached: Option<(u32, Vec<u8>)> = None;
    for (first, count) in runs {
        for index in 0..count {
            let block = first.after(index);
            let group = opened.disk.superblock.group_of(block);
            let group = group.ok_or_else(|| Stop::unknown("an orphan has a block in no group"))?;
            if cached.as_ref().is_none_or(|(held, _)| *held != group) {
                cached = Some((group, bitmap(opened, group)?));
            }
            let start = opened.disk.superblock.group_blocks(group).0;
            let bit = block.0.saturating_sub(start.0);
            let byte = cached.as_ref().and_then(|(_, bytes)| bytes.get(to_usize(bit / 8))).copied();
            if byte.unwrap_or(0) >> (bit % 8) & 1 == 0 {
                return Err(Stop::unknown("an orphan has a block that is free"));
            }
        }
    }
    Ok(())
}

fn bitmap(opened: &Opened, group: u32) -> Result<Vec<u8>, Stop> {
    let descriptor = opened.disk.group(group)?;
    let length = opened.disk.superblock.block_size.length();
    if descriptor.raw.bg_flags.get() & BLOCK_UNINIT != 0 {
        return Ok(vec![0; length]);
    }
    Ok(read_bytes(&*opened.disk.device, opened.disk.offset_of(descriptor.block_bitmap()), length)?)
}
