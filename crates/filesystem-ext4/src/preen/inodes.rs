//! The first pass: all inodes, and the maps of those in use.

use ondisk::read_bytes;

use super::connectivity;
use super::inode::{Scanned, mode};
use super::inspection::Inspection;
use super::opening::Group;
use super::state::{Check, Findings, Shared, Stop};
use crate::features::incompat;
use crate::group_descriptor;
use crate::inode::flags;
use crate::superblock::Superblock;
use crate::units::{FsBlock, to_usize, widen};

/// Blocks of an inode table that are read at once.
const AT_ONCE: u64 = 8;

/// Goes through all inode tables, as far as they are used.
pub(super) fn scan(check: &mut Check<'_>, findings: &mut Findings) -> Result<(), Stop> {
    let opened = check.opened;
    mark_tables(check, findings)?;
    check.lost_and_found = connectivity::find_lost_and_found(opened);
    connectivity::judge_root_map(opened, findings)?;
    let superblock = &opened.disk.superblock;
    let per_group = superblock.inodes_per_group.get();
    for (number, group) in (0_u32..).zip(&opened.groups) {
        let count = if group.is_uninit { 0 } else { per_group.saturating_sub(group.unused.min(per_group)) };
        check.cover(number, count);
        let first = number.saturating_mul(per_group).saturating_add(1);
        scan_group(check, findings, group, first, count)?;
    }
    for (block, shared) in &check.shared {
        if shared.stated != shared.found {
            let Shared { stated, found } = shared;
            findings
                .by_hand(format!("attribute block {block} is used by {found} inodes, and says {stated}"))?;
        }
    }
    Ok(())
}

/// Superblocks, descriptors, bitmaps and tables are used, and none of them lies over another.
fn mark_tables(check: &mut Check<'_>, findings: &mut Findings) -> Result<(), Stop> {
    let opened = check.opened;
    let superblock = &opened.disk.superblock;
    for (number, group) in (0_u32..).zip(&opened.groups) {
        let (first, count) = superblock.group_blocks(number);
        let base = group_descriptor::base_blocks(superblock, number).min(count);
        check.found.add(first, base);
        for (what, block, length) in [
            ("inode table", group.inode_table, opened.table_blocks()),
            ("block bitmap", group.block_bitmap, 1),
            ("inode bitmap", group.inode_bitmap, 1),
        ] {
            if check.found.add(block, length) {
                findings
                    .by_hand(format!("the {what} of group {number} at {block} lies over other tables"))?;
            }
        }
    }
    // That of protection against two mounts belongs to no table.
    if superblock.features.has_incompat(incompat::MMP) {
        check.found.add(FsBlock(opened.raw.s_mmp_block.get()), 1);
    }
    Ok(())
}

fn scan_group(
    check: &mut Check<'_>,
    findings: &mut Findings,
    group: &Group,
    first: u32,
    count: u32,
) -> Result<(), Stop> {
    let opened = check.opened;
    let superblock = &opened.disk.superblock;
    let size = u64::from(superblock.inode_size);
    let per_block = superblock.block_size.bytes().checked_div(size).unwrap_or(1);
    let blocks = u64::from(count).div_ceil(per_block.max(1));
    let mut number = first;
    let end = first.saturating_add(count);
    let mut next = 0;
    while next < blocks {
        let part = blocks.saturating_sub(next).min(AT_ONCE);
        let offset = opened.disk.offset_of(group.inode_table.after(next));
        let length = to_usize(part.saturating_mul(superblock.block_size.bytes()));
        let bytes = read_bytes(&*opened.disk.device, offset, length)?;
        next = next.saturating_add(part);
        for block in bytes.chunks(superblock.block_size.length()) {
            let mut inodes = Vec::new();
            for bytes in block.chunks_exact(to_usize(size)) {
                if number < end {
                    inodes.extend(Scanned::decode(opened, number, bytes.to_vec()));
                    number = number.saturating_add(1);
                }
            }
            scan_block(check, findings, &inodes, per_block)?;
        }
    }
    Ok(())
}

/// The inodes of one block: where more than half make no sense, those in use are cleared, not without asking.
fn scan_block(
    check: &mut Check<'_>,
    findings: &mut Findings,
    inodes: &[Scanned],
    per_block: u64,
) -> Result<(), Stop> {
    let superblock = &check.opened.disk.superblock;
    let insane = inodes.iter().filter(|inode| is_insane(superblock, inode)).count();
    let is_garbage = per_block >= 2 && widen(insane) > per_block / 2;
    for inode in inodes {
        if is_garbage && inode.raw.i_links_count.get() != 0 {
            findings.by_hand(format!("inode {} and those around it are garbage", inode.number))?;
            continue;
        }
        Inspection { check: &mut *check, findings: &mut *findings, inode: inode.clone() }.judge()?;
    }
    Ok(())
}

fn is_insane(superblock: &Superblock, inode: &Scanned) -> bool {
    if !inode.is_checksum_good {
        return true;
    }
    if inode.has_extents {
        return !inode.has_tree();
    }
    let has_map = match inode.kind() {
        mode::REGULAR | mode::DIRECTORY => true,
        mode::SYMLINK => inode.size() > 60,
        _ => false,
    };
    let bad = inode.blocks().filter(|block| {
        *block != 0
            && (u64::from(*block) < superblock.first_data_block.0 || u64::from(*block) >= superblock.blocks)
    });
    has_map && !inode.has_flag(flags::INLINE_DATA) && inode.raw.i_links_count.get() != 0 && bad.count() > 7
}
